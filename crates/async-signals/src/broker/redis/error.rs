//! What Redis' errors mean for a message.

use redis::{ErrorKind, RedisError, ServerError};

use crate::broker::{BrokerError, BrokerUrl};

/// The code by which a script refuses a worker that has lost its right to take.
pub(super) const SIGNED_OFF: &str = "SIGNEDOFF";

/// Names errors for one connection, and keeps its password out of them.
#[derive(Clone, Debug)]
pub(super) struct Errors {
    url: BrokerUrl,
    tls: bool,
}

impl Errors {
    pub(super) fn new(url: &BrokerUrl, tls: bool) -> Self {
        Self { url: url.clone(), tls }
    }

    /// Why there is no connection.
    pub(super) fn connecting(&self, error: &RedisError) -> BrokerError {
        let (url, reason) = (self.url.to_string(), self.scrub(&error.to_string()));
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => self.reply(error.code(), error.detail()),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => self.no_redis(&reason),
            ErrorKind::Io | ErrorKind::InvalidClientConfig if self.is_tls(error, &reason) => {
                BrokerError::Tls { url, reason }
            }
            _ => BrokerError::Connect { url, reason },
        }
    }

    /// Something answers there that is no Redis.
    pub(super) fn no_redis(&self, reason: &str) -> BrokerError {
        let reason = format!("what answers there is no Redis: {}", self.scrub(reason));
        BrokerError::Connect { url: self.url.to_string(), reason }
    }

    /// Why the server does not let us in.
    pub(super) fn authenticating(&self, error: &ServerError) -> BrokerError {
        match self.server(error) {
            // "no password is set", in words that differ between versions.
            BrokerError::Refused { .. } => BrokerError::Authentication {
                url: self.url.to_string(),
                reason: self.said(error.code(), error.details()),
            },
            other => other,
        }
    }

    /// Why there is no such database.
    pub(super) fn selecting(&self, database: u32, error: &ServerError) -> BrokerError {
        match self.server(error) {
            BrokerError::Refused { .. } => {
                let reason = format!("no database {database} there: {}", self.said(error.code(), error.details()));
                BrokerError::InvalidOption { option: self.url.to_string(), reason }
            }
            other => other,
        }
    }

    /// Why a request on a live connection has no reply.
    pub(super) fn disconnected(&self, error: &RedisError) -> BrokerError {
        BrokerError::Disconnected { url: self.url.to_string(), reason: self.scrub(&error.to_string()) }
    }

    /// The connection is gone.
    pub(super) fn lost(&self) -> BrokerError {
        BrokerError::Disconnected { url: self.url.to_string(), reason: "the server has closed it".to_owned() }
    }

    /// What the server's refusal means.
    pub(super) fn server(&self, error: &ServerError) -> BrokerError {
        self.reply(Some(error.code()), error.details())
    }

    fn reply(&self, code: Option<&str>, detail: Option<&str>) -> BrokerError {
        let code = match code.unwrap_or("ERR") {
            "ERR" => within_script(detail.unwrap_or_default()).unwrap_or("ERR"),
            code => code,
        };
        let reason = self.said(code, detail);
        let url = self.url.to_string();
        match code {
            "NOAUTH" | "WRONGPASS" => BrokerError::Authentication { url, reason },
            "NOPERM" => BrokerError::AccessRefused { reason: format!("{url}: {reason}") },
            "OOM" => BrokerError::OutOfMemory { reason: format!("{url}: {reason}") },
            // It cannot save to its disk, or has been told to take no writes until it can.
            "MISCONF" => BrokerError::Blocked { reason: format!("{url}: {reason}") },
            // Said by our own scripts: only a new connection may go on.
            SIGNED_OFF => BrokerError::Disconnected { url, reason },
            "LOADING" | "MASTERDOWN" | "READONLY" | "NOREPLICAS" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" => {
                BrokerError::Unavailable { url, reason }
            }
            _ => BrokerError::Refused { reason: format!("{url}: {reason}") },
        }
    }

    fn said(&self, code: &str, detail: Option<&str>) -> String {
        self.scrub(&[code, detail.unwrap_or_default()].join(" "))
    }

    /// The TLS library's errors arrive as I/O errors that the operating system and the resolver did not make.
    fn is_tls(&self, error: &RedisError, reason: &str) -> bool {
        let network = error.is_connection_dropped() || error.is_timeout() || error.is_connection_refusal();
        self.tls && !network && !reason.contains("(os error") && !reason.contains("lookup address")
    }

    /// A server that does not know AUTH repeats what it was sent.
    fn scrub(&self, reason: &str) -> String {
        match self.url.password() {
            Some(password) if !password.is_empty() => reason.replace(password, "**"),
            _ => reason.to_owned(),
        }
    }
}

/// The code of an error that stopped a script. Before Redis 7 it stands within the text.
fn within_script(detail: &str) -> Option<&str> {
    let said = detail.strip_prefix("Error running script")?;
    let code = said.rsplit(": ").find_map(|part| part.trim_start_matches('-').split(' ').next())?;
    let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase());
    is_code.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors() -> Errors {
        Errors::new(&"redis://me:hunter2@h/1".parse().expect("a URL"), false)
    }

    #[test]
    fn tells_refusals_apart() {
        let reply = |code: &str| errors().reply(Some(code), Some("because"));
        assert!(matches!(reply("OOM"), BrokerError::OutOfMemory { .. }));
        assert!(matches!(reply("NOPERM"), BrokerError::AccessRefused { .. }));
        assert!(matches!(reply("WRONGPASS"), BrokerError::Authentication { .. }));
        assert!(matches!(reply("WRONGTYPE"), BrokerError::Refused { .. }));
        for passing in ["LOADING", "MASTERDOWN", "READONLY", "MISCONF"] {
            let error = reply(passing);
            assert!(error.is_transient() && !error.may_have_arrived(), "{error}");
        }
    }

    #[test]
    fn finds_what_stopped_a_script_of_an_older_redis() {
        let stopped = |what: &str| format!("Error running script (call to f_0a1b): @user_script:12: {what}");
        let reply = |what: &str| errors().reply(Some("ERR"), Some(&stopped(what)));
        let full = "@user_script: 12: -OOM command not allowed when used memory > 'maxmemory'.";
        assert!(matches!(reply(full), BrokerError::OutOfMemory { .. }));
        let replica = "@user_script: 12: -READONLY You can't write against a read only replica.";
        assert!(matches!(reply(replica), BrokerError::Unavailable { .. }));
        let typed = "WRONGTYPE Operation against a key holding the wrong kind of value";
        assert!(matches!(reply(typed), BrokerError::Refused { .. }));
        assert!(matches!(reply("attempt to index a nil value"), BrokerError::Refused { .. }));
    }

    #[test]
    fn never_repeats_a_password() {
        let error =
            errors().reply(Some("ERR"), Some("unknown command 'AUTH', with args beginning with: 'me' 'hunter2'"));
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}
