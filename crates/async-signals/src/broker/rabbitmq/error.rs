//! What lapin and the broker say, as a [`BrokerError`]. Nothing of it holds a
//! credential: URLs come without their password, and RabbitMQ's texts name
//! users and resources only.

use std::io;

use lapin::{Error, ErrorKind, protocol::AMQPError};

use super::super::{BrokerError, BrokerUrl};

/// AMQP's reply codes, as far as they are told apart here.
/// <https://www.rabbitmq.com/amqp-0-9-1-reference.html#constants>
pub(super) mod code {
    pub(crate) const ACCESS_REFUSED: u16 = 403;
    pub(crate) const NOT_FOUND: u16 = 404;
    pub(crate) const PRECONDITION_FAILED: u16 = 406;
    pub(crate) const NOT_ALLOWED: u16 = 530;
}

/// Why there is no connection.
pub(super) fn connecting(url: &BrokerUrl, error: &Error) -> BrokerError {
    let url = url.to_string();
    let reason = match error.kind() {
        ErrorKind::ProtocolError(error) => {
            let reason = said(error);
            match error.get_id() {
                code::ACCESS_REFUSED => return BrokerError::Authentication { url, reason },
                // The same code for a virtual host that is missing and one that is forbidden.
                code::NOT_ALLOWED if reason.contains("refused for user") => {
                    return BrokerError::AccessRefused { reason };
                }
                _ => reason,
            }
        }
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => "its answer is no AMQP 0-9-1".to_owned(),
        ErrorKind::IOError(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
            "it closed the connection during the handshake; is this the port for AMQP, with or without TLS as the \
             URL says?"
                .to_owned()
        }
        // With TLS 1.3 the broker judges our certificate after the handshake.
        #[cfg(feature = "rustls")]
        ErrorKind::IOError(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            return BrokerError::Tls { url, reason: error.to_string() };
        }
        _ => error.to_string(),
    };
    BrokerError::Connect { url, reason }
}

/// The connection is gone.
pub(super) fn lost(url: &str, reason: impl ToString) -> BrokerError {
    BrokerError::Disconnected { url: url.to_owned(), reason: reason.to_string() }
}

/// The broker would not declare `entity`, a queue, exchange or binding.
pub(super) fn declaring(url: &str, entity: &str, error: &Error) -> BrokerError {
    match refusal(error) {
        Some(error) if error.get_id() == code::PRECONDITION_FAILED => {
            BrokerError::PreconditionFailed { entity: entity.to_owned(), reason: said(error) }
        }
        // Older brokers do not name the permission.
        Some(error) if error.get_id() == code::ACCESS_REFUSED => BrokerError::AccessRefused {
            reason: format!("{} (to declare {entity} takes the permission to configure it)", said(error)),
        },
        Some(error) => refused(error),
        None => lost(url, error),
    }
}

/// The broker would not let us read a queue.
pub(super) fn consuming(url: &str, queue: &str, error: &Error) -> BrokerError {
    match refusal(error) {
        Some(error) if error.get_id() == code::NOT_FOUND => {
            BrokerError::QueueMissing { queue: queue.to_owned(), reason: said(error) }
        }
        Some(error) => refused(error),
        None => lost(url, error),
    }
}

/// The broker closed a channel for this reason.
pub(super) fn refused(error: &AMQPError) -> BrokerError {
    match error.get_id() {
        code::ACCESS_REFUSED => BrokerError::AccessRefused { reason: said(error) },
        _ => BrokerError::Refused { reason: said(error) },
    }
}

/// The broker's own words, if it closed a channel and not the connection.
pub(super) fn refusal(error: &Error) -> Option<&AMQPError> {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) if error.is_amqp_soft_error() => Some(amqp),
        _ => None,
    }
}

/// The broker's own words where there are any, lapin's otherwise.
pub(super) fn words(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => said(error),
        _ => error.to_string(),
    }
}

/// `NOT_FOUND - no exchange 'x' in vhost '/'`.
fn said(error: &AMQPError) -> String {
    error.get_message().to_string()
}
