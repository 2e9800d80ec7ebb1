//! What SQLite's errors mean for a message.

use std::path::{Path, PathBuf};

use rusqlite::{Error, ErrorCode};

use crate::broker::{BrokerError, BrokerUrl};

/// Names errors for one file.
#[derive(Clone, Debug)]
pub(super) struct Errors {
    url: String,
    path: PathBuf,
}

impl Errors {
    /// The file that a URL names: a relative one is looked for from the
    /// current directory, as kombu does, and stays that file when it changes.
    pub(super) fn new(url: &BrokerUrl) -> Result<Self, BrokerError> {
        let path = url.file();
        if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
            let reason = "it names no file that a worker could read, as sqla+sqlite:///broker.sqlite3 does".to_owned();
            return Err(BrokerError::InvalidUrl { reason });
        }
        let named = Self { url: url.to_string(), path };
        let path = std::path::absolute(&named.path).map_err(|error| named.connecting(&error.to_string()))?;
        Ok(Self { path, ..named })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// There is no connection.
    pub(super) fn connecting(&self, reason: &str) -> BrokerError {
        BrokerError::Connect { url: self.url.clone(), reason: reason.to_owned() }
    }

    /// There is none any more.
    pub(super) fn disconnected(&self, reason: &str) -> BrokerError {
        BrokerError::Disconnected { url: self.url.clone(), reason: format!("{}: {reason}", self.path.display()) }
    }

    /// The file is there, but not for us to write.
    pub(super) fn read_only(&self) -> BrokerError {
        BrokerError::AccessRefused { reason: format!("{} cannot be written", self.path.display()) }
    }

    /// Why the file cannot be opened.
    pub(super) fn opening(&self, error: &Error) -> BrokerError {
        let path = self.path.display();
        match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen) => match self.path.parent() {
                Some(directory) if !directory.is_dir() => {
                    self.connecting(&format!("there is no directory {}", directory.display()))
                }
                _ => self.connecting(&format!("cannot open {path}: {}", text(error))),
            },
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                self.connecting(&format!("{path} is no SQLite database, or is damaged"))
            }
            Some(ErrorCode::SystemIoFailure) => self.connecting(&format!("{path}: {}", text(error))),
            _ => self.storing(error),
        }
    }

    /// Why a batch was not stored.
    pub(super) fn storing(&self, error: &Error) -> BrokerError {
        let reason = format!("{}: {}", self.path.display(), text(error));
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                let reason = format!("another process holds {}", self.path.display());
                BrokerError::Unavailable { url: self.url.clone(), reason }
            }
            Some(ErrorCode::DiskFull) => BrokerError::Blocked { reason },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => self.read_only(),
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => self.disconnected(&text(error)),
            _ => BrokerError::Refused { reason },
        }
    }
}

fn text(error: &Error) -> String {
    match error {
        Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn tells_failures_apart_and_names_the_file() {
        let errors = Errors::new(&"sqla+sqlite:////srv/broker".parse().expect("a URL")).expect("a file");
        let storing = |code| errors.storing(&Error::SqliteFailure(ffi::Error::new(code), None));
        let told = [
            (ffi::SQLITE_BUSY, true),
            (ffi::SQLITE_FULL, true),
            (ffi::SQLITE_IOERR, true),
            (ffi::SQLITE_READONLY, false),
            (ffi::SQLITE_CONSTRAINT, false),
        ];
        for (code, transient) in told {
            let error = storing(code);
            assert_eq!(error.is_transient(), transient, "{error:?}");
            assert!(error.to_string().contains("/srv/broker"), "{error}");
        }
        assert!(matches!(storing(ffi::SQLITE_FULL), BrokerError::Blocked { .. }));
        assert!(matches!(storing(ffi::SQLITE_READONLY), BrokerError::AccessRefused { .. }));
        assert!(!storing(ffi::SQLITE_BUSY).may_have_arrived());
    }

    #[test]
    fn wants_a_file() {
        for url in ["sqla+sqlite://", "sqla+sqlite:///", "sqla+sqlite:///:memory:"] {
            let error = Errors::new(&url.parse().expect(url)).expect_err(url);
            assert!(matches!(error, BrokerError::InvalidUrl { .. }), "{error:?}");
        }
    }
}
