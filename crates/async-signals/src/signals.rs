//! The signals that come with Async Signals.
//!
//! A Django site with the app installed sends them for every request that it
//! serves, as long as something there listens to them. A Rust service may send
//! them too, and connect receivers to them like to any other.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::signal::AsyncSignal;

/// What is said of a request: no headers, cookies or bodies.
///
/// ```
/// use async_signals::signals::{REQUEST_STARTED, Request};
///
/// REQUEST_STARTED.connect(|request: Request| println!("{} {}", request.method, request.path));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path, decoded.
    pub path: String,
    /// What follows the question mark.
    pub query_string: String,
    /// The host that was asked for.
    pub host: String,
    /// `http` or `https`.
    pub scheme: String,
    /// The address that it came from.
    pub remote_addr: String,
    /// Whatever else a sender says.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A request has come in.
pub static REQUEST_STARTED: AsyncSignal<Request> = AsyncSignal::new("async_signals.signals.request_started");

/// A response has gone out.
pub static REQUEST_FINISHED: AsyncSignal<Request> = AsyncSignal::new("async_signals.signals.request_finished");
