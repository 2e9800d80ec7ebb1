use std::{fmt, path::PathBuf, str::FromStr};

use percent_encoding::percent_decode_str;

use super::BrokerError;

/// The kind of broker that a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// `amqp`, `pyamqp`.
    Amqp,
    /// `amqps`.
    Amqps,
    /// `redis`, `valkey`, `redis+socket`.
    Redis,
    /// `rediss`, `valkeys`.
    Rediss,
    /// `sqla+sqlite`.
    Sqlite,
    /// `memory`: within this process.
    Memory,
}

/// A broker's address, as kombu reads it (`kombu/utils/url.py:parse_url`).
///
/// Its `Display` and `Debug` never show the password.
///
/// ```
/// let url: async_signals::broker::BrokerUrl = "amqp://me:secret@rabbit:5673//".parse()?;
/// assert_eq!(url.virtual_host(), "/");
/// assert_eq!(url.to_string(), "amqp://me:**@rabbit:5673//");
/// # Ok::<(), async_signals::broker::BrokerError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    scheme: Scheme,
    scheme_name: String,
    username: Option<String>,
    password: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    path: String,
    query: Vec<(String, String)>,
}

impl BrokerUrl {
    /// The kind of broker.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The scheme as it was written.
    pub fn scheme_name(&self) -> &str {
        &self.scheme_name
    }

    /// The user's name, decoded.
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The password, decoded.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The host's name or address, `localhost` if none is given.
    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("localhost")
    }

    /// The port, or the usual one of the scheme.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.scheme {
            Scheme::Amqp => 5672,
            Scheme::Amqps => 5671,
            Scheme::Redis | Scheme::Rediss => 6379,
            Scheme::Sqlite | Scheme::Memory => 0,
        })
    }

    /// What stands after the host's slash, decoded: AMQP's virtual host or
    /// Redis' database; `/` if empty.
    pub fn virtual_host(&self) -> &str {
        if self.path.is_empty() { "/" } else { &self.path }
    }

    /// The file that a `sqla+sqlite` or `redis+socket` URL names.
    pub fn file(&self) -> PathBuf {
        PathBuf::from(&self.path)
    }

    /// A parameter of the query, decoded.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the connection is to be encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.scheme, Scheme::Amqps | Scheme::Rediss)
    }
}

impl FromStr for BrokerUrl {
    type Err = BrokerError;

    fn from_str(text: &str) -> Result<Self, BrokerError> {
        let invalid = |reason: &str| BrokerError::InvalidUrl { reason: reason.to_owned() };
        // kombu accepts a bare transport name too: "memory" is "memory://".
        let (scheme_name, rest) = text.split_once("://").unwrap_or((text, ""));
        let scheme = match scheme_name {
            "amqp" | "pyamqp" => Scheme::Amqp,
            "amqps" => Scheme::Amqps,
            "redis" | "valkey" | "redis+socket" => Scheme::Redis,
            "rediss" | "valkeys" => Scheme::Rediss,
            "sqla+sqlite" => Scheme::Sqlite,
            "memory" => Scheme::Memory,
            name if name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) => {
                return Err(BrokerError::Unsupported { scheme: name.to_owned() });
            }
            _ => return Err(invalid("it has no scheme such as amqp:// or redis://")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // SQLAlchemy knows no fragments: a file's name may hold a #.
        let rest = if scheme == Scheme::Sqlite { rest } else { rest.split('#').next().unwrap_or(rest) };
        let (authority, path) = match scheme_name {
            // These name a file: everything behind `redis+socket://`, and what
            // follows the third slash of `sqla+sqlite:///`.
            "redis+socket" => match rest.rsplit_once('@') {
                Some((credentials, path)) => (&rest[..credentials.len() + 1], path),
                None => ("", rest),
            },
            _ => rest.split_once('/').unwrap_or((rest, "")),
        };
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, authority),
        };
        let (username, password) = match credentials.map(|c| c.split_once(':').unwrap_or((c, ""))) {
            Some((username, password)) => (decode(username)?, decode(password)?),
            None => (String::new(), String::new()),
        };
        let (host, port) = split_port(address).ok_or_else(|| invalid("its port is no number from 0 to 65535"))?;
        let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        let given = |text: String| (!text.is_empty()).then_some(text);
        Ok(Self {
            scheme,
            scheme_name: scheme_name.to_owned(),
            username: given(username),
            password: given(password),
            host: given(decode(host)?),
            port,
            path: decode(path)?,
            query: query.collect::<Result<_, BrokerError>>()?,
        })
    }
}

fn decode(text: &str) -> Result<String, BrokerError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(BrokerError::InvalidUrl { reason: "a %-escape in it is no UTF-8".to_owned() }),
    }
}

/// `host`, `host:port`, `[::1]`, `[::1]:port`.
fn split_port(address: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':').unwrap_or("")),
        None => address.split_once(':').unwrap_or((address, "")),
    };
    match port {
        "" => Some((host, None)),
        digits => Some((host, Some(digits.parse().ok()?))),
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme_name)?;
        if self.username.is_some() || self.password.is_some() {
            match (&self.username, &self.password) {
                // Redis takes what stands alone for a user, and people who write it there mean the password.
                (Some(_), None) if matches!(self.scheme, Scheme::Redis | Scheme::Rediss) => f.write_str("**")?,
                (username, password) => {
                    f.write_str(username.as_deref().unwrap_or(""))?;
                    f.write_str(if password.is_some() { ":**" } else { "" })?;
                }
            }
            f.write_str("@")?;
        }
        match &self.host {
            Some(host) if host.contains(':') => write!(f, "[{host}]")?,
            Some(host) => f.write_str(host)?,
            None => {}
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if self.scheme_name == "redis+socket" { f.write_str(&self.path) } else { write!(f, "/{}", self.path) }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> BrokerUrl {
        text.parse().expect(text)
    }

    #[test]
    fn reads_what_kombu_reads() {
        assert_eq!(url("amqp://").virtual_host(), "/");
        assert_eq!(url("amqp://h/").virtual_host(), "/");
        assert_eq!(url("amqp://h//").virtual_host(), "/");
        assert_eq!(url("amqp://h/%2fx").virtual_host(), "/x");
        assert_eq!(url("amqp://h/shop").virtual_host(), "shop");
        let full = url("rediss://me:p%40ss@[::1]:7000/3?ssl_cert_reqs=CERT_NONE");
        assert_eq!((full.username(), full.password()), (Some("me"), Some("p@ss")));
        assert_eq!((full.host(), full.port(), full.virtual_host()), ("::1", 7000, "3"));
        assert_eq!(full.query("ssl_cert_reqs"), Some("CERT_NONE"));
        assert_eq!(url("redis://:p@h").password(), Some("p"));
    }

    #[test]
    fn names_files() {
        assert_eq!(url("sqla+sqlite:///broker.sqlite3").file(), PathBuf::from("broker.sqlite3"));
        assert_eq!(url("sqla+sqlite:////tmp/b").file(), PathBuf::from("/tmp/b"));
        assert_eq!(url("sqla+sqlite:////tmp/b%20%23#c?mode=rw").file(), PathBuf::from("/tmp/b ##c"));
        assert_eq!(url("redis+socket:///run/redis.sock?virtual_host=2").file(), PathBuf::from("/run/redis.sock"));
    }

    #[test]
    fn refuses_without_repeating_a_password() {
        let unknown = "kafka://me:secret@h".parse::<BrokerUrl>().expect_err("kafka");
        assert!(matches!(&unknown, BrokerError::Unsupported { scheme } if scheme == "kafka"));
        let port = "amqp://me:secret@h:none/".parse::<BrokerUrl>().expect_err("port");
        assert!(!port.to_string().contains("secret"));
        assert!(!format!("{:?} {}", url("amqp://me:secret@h"), url("amqp://me:secret@h")).contains("secret"));
    }
}
