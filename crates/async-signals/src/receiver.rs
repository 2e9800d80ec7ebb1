//! What a receiver may be: a function or closure, plain or async, of the
//! payload alone or of the payload and the [`Delivery`].

use std::{
    any::{TypeId, type_name},
    fmt,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
};

use futures_util::future::{BoxFuture, FutureExt};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::{
    delivery::Delivery,
    panics,
    payload::{Body, DecodeError},
};

/// Whatever a receiver fails with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A receiver panicked. It counts as failed, like one that returned an error.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("panicked: {message}")]
#[non_exhaustive]
pub struct Panicked {
    /// What it panicked with.
    pub message: String,
}

/// What can be connected to a signal whose payload is `P`.
///
/// | receiver | takes |
/// |---|---|
/// | `fn(P)`, `async fn(P)` | the payload |
/// | `fn(P, Delivery)`, `async fn(P, Delivery)` | and what is known of the message |
/// | `fn(&P)`, `fn(&P, &Delivery)` | the same, borrowed: each receiver that takes a payload by value has it decoded for itself |
///
/// It returns nothing, or a `Result<(), E>` whose error converts into a
/// [`BoxError`]. A plain function must not block for long where it shares a
/// thread with others: in a worker it holds up a thread of the program's runtime.
///
/// `Marker` is found by the compiler. The types of a closure's arguments have to be written.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a receiver of a signal whose payload is `{P}`",
    label = "not a receiver of `{P}`",
    note = "a receiver is a function, plain or async, that takes `{P}`, or `{P}` and a `Delivery`",
    note = "it returns nothing, or a `Result<(), E>` whose `E` converts into a `BoxError`; a future has to be `Send`"
)]
pub trait IntoReceiver<P, Marker> {
    /// Makes it something that is called for each message.
    fn into_receiver(self) -> Receiver<P>;
}

/// A function that is called for each message of a signal.
pub struct Receiver<P> {
    call: Box<dyn Call<P>>,
    /// What the compiler calls it.
    pub(crate) type_name: &'static str,
    /// Tells it from others; `None` where values of one type may differ.
    pub(crate) type_id: Option<TypeId>,
}

impl<P> fmt::Debug for Receiver<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&self.type_name).finish()
    }
}

impl<P: 'static> Receiver<P> {
    fn new<F: Send + Sync + 'static>(
        function: F,
        call: impl Fn(&F, &mut Given<'_, P>) -> Called + Send + Sync + 'static,
    ) -> Self {
        Self {
            call: Box::new(move |given: &mut Given<'_, P>| call(&function, given)),
            type_name: type_name::<F>(),
            type_id: (size_of::<F>() == 0).then(TypeId::of::<F>),
        }
    }

    /// Calls it, and waits for it where it is async. A panic is a failure, like any error.
    pub(crate) async fn call(&self, given: &mut Given<'_, P>) -> Result<(), BoxError> {
        let called = catch_unwind(AssertUnwindSafe(|| self.call.call(given)));
        let result = match called {
            Ok(Called::Ran(result)) => return result,
            Ok(Called::Running(running)) => AssertUnwindSafe(running).catch_unwind().await,
            Err(panic) => Err(panic),
        };
        result.unwrap_or_else(|panic| Err(Panicked { message: panics::text(&*panic) }.into()))
    }
}

/// What receivers of one message are given.
pub(crate) struct Given<'a, P> {
    /// The payload, until somebody takes it by value.
    payload: Option<P>,
    body: &'a Body,
    delivery: &'a Delivery,
}

impl<'a, P: DeserializeOwned> Given<'a, P> {
    /// Decodes the payload, so that what does not fit is known before anything of it runs.
    pub(crate) fn new(body: &'a Body, delivery: &'a Delivery) -> Result<Self, DecodeError> {
        let decoded = panics::caught(|| body.payload());
        let panicked = |text| Err(DecodeError::Malformed { reason: format!("decoding its payload panicked: {text}") });
        Ok(Self { payload: Some(decoded.unwrap_or_else(panicked)?), body, delivery })
    }

    fn take(&mut self) -> Result<P, DecodeError> {
        self.payload.take().map_or_else(|| self.body.payload(), Ok)
    }

    fn borrow(&mut self) -> Result<&P, DecodeError> {
        if self.payload.is_none() {
            self.payload = Some(self.body.payload()?);
        }
        Ok(self.payload.as_ref().expect("it was just put there"))
    }
}

/// What calling a receiver gives.
#[doc(hidden)]
pub enum Called {
    Ran(Result<(), BoxError>),
    Running(BoxFuture<'static, Result<(), BoxError>>),
}

impl fmt::Debug for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Ran(_)) { "Ran" } else { "Running" })
    }
}

trait Call<P>: Send + Sync {
    fn call(&self, given: &mut Given<'_, P>) -> Called;
}

impl<P, F: Fn(&mut Given<'_, P>) -> Called + Send + Sync> Call<P> for F {
    fn call(&self, given: &mut Given<'_, P>) -> Called {
        self(given)
    }
}

/// What a receiver may return.
#[doc(hidden)]
pub trait Answer<Marker> {
    fn into_called(self) -> Called;
}

/// A receiver that has run when it returns.
#[doc(hidden)]
#[derive(Debug)]
pub struct Now;

/// A receiver that returns a future.
#[doc(hidden)]
#[derive(Debug)]
pub struct Later;

impl Answer<Now> for () {
    fn into_called(self) -> Called {
        Called::Ran(Ok(()))
    }
}

impl<E: Into<BoxError>> Answer<Now> for Result<(), E> {
    fn into_called(self) -> Called {
        Called::Ran(self.map_err(Into::into))
    }
}

impl<F: Future<Output: Answer<Now>> + Send + 'static> Answer<Later> for F {
    fn into_called(self) -> Called {
        let running = async {
            match self.await.into_called() {
                Called::Ran(result) => result,
                Called::Running(running) => running.await,
            }
        };
        Called::Running(running.boxed())
    }
}

/// The payload by value.
#[doc(hidden)]
#[derive(Debug)]
pub struct ByValue<R, M>(PhantomData<fn() -> (R, M)>);

/// The payload and the delivery by value.
#[doc(hidden)]
#[derive(Debug)]
pub struct ByValueWithDelivery<R, M>(PhantomData<fn() -> (R, M)>);

/// The payload, borrowed.
#[doc(hidden)]
#[derive(Debug)]
pub struct ByReference<R>(PhantomData<fn() -> R>);

/// The payload and the delivery, borrowed.
#[doc(hidden)]
#[derive(Debug)]
pub struct ByReferenceWithDelivery<R>(PhantomData<fn() -> R>);

impl<P, F, R, M> IntoReceiver<P, ByValue<R, M>> for F
where
    P: DeserializeOwned + 'static,
    F: Fn(P) -> R + Send + Sync + 'static,
    R: Answer<M>,
{
    fn into_receiver(self) -> Receiver<P> {
        Receiver::new(self, |function, given| match given.take() {
            Ok(payload) => function(payload).into_called(),
            Err(error) => Called::Ran(Err(error.into())),
        })
    }
}

impl<P, F, R, M> IntoReceiver<P, ByValueWithDelivery<R, M>> for F
where
    P: DeserializeOwned + 'static,
    F: Fn(P, Delivery) -> R + Send + Sync + 'static,
    R: Answer<M>,
{
    fn into_receiver(self) -> Receiver<P> {
        Receiver::new(self, |function, given| match given.take() {
            Ok(payload) => function(payload, given.delivery.clone()).into_called(),
            Err(error) => Called::Ran(Err(error.into())),
        })
    }
}

impl<P, F, R> IntoReceiver<P, ByReference<R>> for F
where
    P: DeserializeOwned + 'static,
    F: Fn(&P) -> R + Send + Sync + 'static,
    R: Answer<Now>,
{
    fn into_receiver(self) -> Receiver<P> {
        Receiver::new(self, |function, given| match given.borrow() {
            Ok(payload) => function(payload).into_called(),
            Err(error) => Called::Ran(Err(error.into())),
        })
    }
}

impl<P, F, R> IntoReceiver<P, ByReferenceWithDelivery<R>> for F
where
    P: DeserializeOwned + 'static,
    F: Fn(&P, &Delivery) -> R + Send + Sync + 'static,
    R: Answer<Now>,
{
    fn into_receiver(self) -> Receiver<P> {
        Receiver::new(self, |function, given| {
            let delivery = given.delivery;
            match given.borrow() {
                Ok(payload) => function(payload, delivery).into_called(),
                Err(error) => Called::Ran(Err(error.into())),
            }
        })
    }
}
