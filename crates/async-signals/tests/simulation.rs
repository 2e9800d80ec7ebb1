//! What a publisher and a worker promise, under single faults, and under every fault that a seed comes up with.
//!
//! `ASYNC_SIGNALS_SEEDS=10000` tries more seeds, from `ASYNC_SIGNALS_FIRST_SEED` on; `ASYNC_SIGNALS_SEED=17` tries one.

#[path = "simulation/publishing.rs"]
mod publishing;
#[path = "simulation/scenes.rs"]
mod scenes;
mod simulated;
#[path = "simulation/workers.rs"]
mod workers;
#[path = "simulation/working.rs"]
mod working;

use std::{env, panic, time::Instant};

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

/// Runs a scenario for many seeds, and fails with the first that does not hold.
fn for_every_seed(run: fn(u64)) {
    if let Some(seed) = number("ASYNC_SIGNALS_SEED") {
        return run(seed);
    }
    let (begun, seeds) = (Instant::now(), number("ASYNC_SIGNALS_SEEDS").unwrap_or(100));
    let first = number("ASYNC_SIGNALS_FIRST_SEED").unwrap_or(0);
    for seed in first..first + seeds {
        if let Err(panic) = panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed} does not hold: ASYNC_SIGNALS_SEED={seed} shows it, after {} that did", seed - first);
            panic::resume_unwind(panic);
        }
    }
    eprintln!("{seeds} seeds in {:?}", begun.elapsed());
}

#[test]
fn publishing_holds_whatever_happens() {
    for_every_seed(publishing::run);
}

#[test]
fn working_holds_whatever_happens() {
    for_every_seed(working::run);
}
