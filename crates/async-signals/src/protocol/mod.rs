//! Bytes in, bytes out: Celery's task protocol and kombu's envelope. No I/O.

pub mod celery;
pub mod compression;
pub mod delivery;
pub mod json;
pub mod kombu;
mod object;
mod scalar;
pub mod time;
