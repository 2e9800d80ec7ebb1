//! What receivers did, told to whoever watches, in the words of the test project's `shopapp/effects.py`.

use std::{
    env,
    fs::OpenOptions,
    io::{self, Write as _},
    process,
};

use async_signals::Delivery;
use serde_json::{Value, json};

/// Appends one line to the file that `EFFECTS` names, or prints it. Whoever else writes, a line is written in one
/// piece, so that it must be short.
pub(crate) fn record(receiver: &str, sender: &str, delivery: &Delivery, arguments: Value) -> Result<(), io::Error> {
    let mut told = json!({
        "queue": delivery.queue,
        "attempt": delivery.attempt,
        "worker": env::var("WORKER").ok(),
    });
    if let (Value::Object(told), Value::Object(arguments)) = (&mut told, arguments) {
        told.extend(arguments);
    }
    let effect = json!({"receiver": receiver, "sender": sender, "arguments": told, "pid": process::id()});
    let line = format!("{effect}\n");
    match env::var_os("EFFECTS") {
        Some(path) => OpenOptions::new().append(true).open(path)?.write_all(line.as_bytes()),
        None => io::stdout().lock().write_all(line.as_bytes()),
    }
}
