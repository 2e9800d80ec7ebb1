//! Code of a user's that panics: a receiver, a payload's `Deserialize` or `Drop`, an error's `Display`, a log handler.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use futures_util::future::FutureExt;

/// Runs a user's code; if it panics, with which text.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    // What it leaves half-done is the user's own, and is dropped or not looked at again.
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| text(&*panic))
}

/// The same for what is awaited.
pub(crate) async fn caught_in<T>(work: impl AsyncFnOnce() -> T) -> Result<T, String> {
    let work = async move { work().await };
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| text(&*panic))
}

/// Tells an observer of a user's, whose panics end nothing.
pub(crate) fn guarded(whose: &str, tell: impl FnOnce()) {
    if let Err(text) = caught(tell) {
        // Where the log goes is the user's, too.
        let _ = caught(|| tracing::error!("the {whose}'s observer panicked: {text}"));
    }
}

/// What a panic says.
pub(crate) fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text").to_owned()
}
