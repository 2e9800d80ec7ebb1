//! What a send returns.

use uuid::Uuid;

use crate::receiver::BoxError;

/// What became of a send.
#[derive(Debug)]
pub struct Sent {
    /// The task's id. A message that comes again carries the same one.
    pub id: Uuid,
    /// What the receivers answered that ran here, in the order in which they
    /// ran: none when the signal went to Celery.
    pub responses: Vec<Response>,
}

/// What a receiver answered that ran where the signal was sent.
#[derive(Debug)]
pub struct Response {
    /// The receiver's name.
    pub receiver: String,
    /// Whether it did its work.
    pub result: Result<(), BoxError>,
}
