//! Runs a list of behaviours against one broker.

use std::{env, panic::AssertUnwindSafe};

use futures_util::future::{FutureExt, LocalBoxFuture};
use tokio::time::timeout;

use super::{Bench, DEADLINE};

/// What is expected of a broker, or with it.
pub type Behaviour = for<'a> fn(&'a mut dyn Bench) -> LocalBoxFuture<'a, ()>;

/// Runs the whole list, and fails with all that failed. `BEHAVIOUR="waits for its eta"` runs those alone whose names
/// hold that.
pub async fn behaves(bench: &mut dyn Bench, list: &[(&str, Behaviour)]) {
    let wanted = env::var("BEHAVIOUR").unwrap_or_default();
    let mut failed = Vec::new();
    for (behaviour, run) in list.iter().filter(|(behaviour, _)| behaviour.contains(&wanted)) {
        eprintln!("{}: {behaviour}", bench.name());
        let ran = timeout(DEADLINE * 2, AssertUnwindSafe(run(bench)).catch_unwind()).await;
        if !matches!(ran, Ok(Ok(()))) {
            failed.push(*behaviour);
        }
    }
    assert!(failed.is_empty(), "{} does not hold: {failed:#?}", bench.name());
}
