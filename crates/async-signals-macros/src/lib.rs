//! `#[receiver]`, which `celery-async-signals` exports as
//! `async_signals::receiver`; its documentation is there.

mod arguments;
mod function;

use proc_macro::TokenStream;
use quote::{ToTokens, quote};

use self::{arguments::Arguments, function::Function};

/// Connects a function to a signal, wherever in the program it stands.
///
/// ```standalone_crate
/// use async_signals::{AsyncSignal, Delivery, RetryPolicy, Sender, receiver};
///
/// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderPlaced { order_id: u64 }
/// static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");
///
/// #[receiver(ORDER_PLACED)]
/// async fn email(order: OrderPlaced, delivery: Delivery) -> Result<(), std::io::Error> {
///     println!("{}: order {}", delivery.id, order.order_id);
///     Ok(())
/// }
///
/// #[receiver(ORDER_PLACED, sender = Sender::model("shop.Order"), retry = RetryPolicy::new(5), dispatch_uid = "shop.log")]
/// fn log(order: &OrderPlaced) {
///     println!("order {}", order.order_id);
/// }
/// ```
///
/// The first argument is the signal, a `static`, or several as `[ONE, OTHER]`
/// where one function takes the payload of all. After it may come, in any order:
///
/// | | |
/// |---|---|
/// | `sender = …` | only for what this `Sender` sends |
/// | `dispatch_uid = "…"` | what tells it from others, and its name in messages |
/// | `name = "…"` | its name in messages, instead of the function's path |
/// | `retry = …` | a `RetryPolicy`: how it is tried again when it fails, whatever the signal says |
///
/// A function whose name or module may change while messages are on their way
/// wants a `dispatch_uid` or a `name` if it is tried again.
///
/// The function stays what it is, and can be called. It is a free function or
/// stands inside of another one; in an `impl` block there is no place for this.
///
/// What does not fit does not compile:
///
/// ```compile_fail,E0277
/// # use async_signals::{AsyncSignal, receiver};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderPlaced { order_id: u64 }
/// # static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");
/// #[receiver(ORDER_PLACED)]
/// fn another_payload(order_id: u64) {}
/// ```
///
/// ```compile_fail,E0277
/// # use async_signals::{AsyncSignal, receiver};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderPlaced { order_id: u64 }
/// # static ORDER_PLACED: AsyncSignal<OrderPlaced> = AsyncSignal::new("shop.signals.order_placed");
/// #[receiver(ORDER_PLACED)]
/// fn an_answer(order: OrderPlaced) -> u64 { order.order_id }
/// ```
///
/// # Crates that hold nothing but receivers
///
/// The linker leaves out a crate of which nothing is used, and its receivers
/// with it. Say in the program that it is:
///
/// ```ignore
/// use shop_receivers as _;
/// ```
#[proc_macro_attribute]
pub fn receiver(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let item = proc_macro2::TokenStream::from(item);
    let expanded =
        syn::parse::<Arguments>(arguments).and_then(|arguments| Ok((arguments, Function::read(item.clone())?)));
    match expanded {
        Ok((arguments, function)) => {
            let connecting = function.connecting(&arguments);
            quote!(#item #connecting).into()
        }
        // What it stands on stays, so that its own errors and those of its callers do not hide this one.
        Err(error) => {
            let error = error.to_compile_error();
            quote!(#item #error).into_token_stream().into()
        }
    }
}
