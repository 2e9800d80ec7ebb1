//! From a broker URL and its options to where and how to connect.

use std::path::PathBuf;

use redis::{
    Client, Cmd, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use serde_json::Value;

use super::{error::Errors, tls};
use crate::broker::{BrokerConfig, BrokerError, BrokerUrl};

/// Where to connect. Logging in is left to [`auth`].
pub(super) fn client(config: &BrokerConfig, url: &BrokerUrl) -> Result<(Client, Errors), BrokerError> {
    client_with(config, url, RedisConnectionInfo::default())
}

/// As [`client`], for connections that the server may push to. They are logged in with their first
/// command, by the redis crate.
pub(super) fn pushed_client(config: &BrokerConfig, url: &BrokerUrl) -> Result<(Client, Errors), BrokerError> {
    let mut settings =
        RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(database(url)?.into());
    if let Some(username) = url.username() {
        settings = settings.set_username(username);
    }
    if let Some(password) = url.password() {
        settings = settings.set_password(password);
    }
    client_with(config, url, settings)
}

fn client_with(
    config: &BrokerConfig,
    url: &BrokerUrl,
    settings: RedisConnectionInfo,
) -> Result<(Client, Errors), BrokerError> {
    let (host, port) = (url.host().to_owned(), url.port());
    let wanted = if is_socket(url) { None } else { tls::wanted(config, url)? };
    let errors = Errors::new(url, wanted.is_some());
    let address = match &wanted {
        _ if is_socket(url) => ConnectionAddr::Unix(PathBuf::from("/").join(url.file())),
        None => ConnectionAddr::Tcp(host, port),
        Some(tls) => tls::address(host, port, tls, url)?,
    };
    let info = address.into_connection_info().map_err(|error| errors.connecting(&error))?;
    let info = info.set_redis_settings(settings.set_skip_set_lib_name()).set_tcp_settings(tcp(config));
    let client = Client::open(info).map_err(|error| errors.connecting(&error))?;
    Ok((client, errors))
}

/// What lets us in. The redis crate would do it too, but keeps to itself what the server says of it.
pub(super) fn auth(url: &BrokerUrl) -> Option<Cmd> {
    if url.username().is_none() && url.password().is_none() {
        return None;
    }
    let mut auth = redis::cmd("AUTH");
    auth.arg(url.username()).arg(url.password().unwrap_or_default());
    Some(auth)
}

/// The number of the database.
pub(super) fn database(url: &BrokerUrl) -> Result<u32, BrokerError> {
    // A socket's URL has its path where others have their database.
    let database = if is_socket(url) { url.query("virtual_host").unwrap_or("/") } else { url.virtual_host() };
    match database.strip_prefix('/').unwrap_or(database) {
        "" => Ok(0),
        number => number.parse().map_err(|_| BrokerError::InvalidUrl {
            reason: format!("the database of a Redis URL is a number, as in redis://host/0, not {number:?}"),
        }),
    }
}

fn is_socket(url: &BrokerUrl) -> bool {
    url.scheme_name() == "redis+socket"
}

fn tcp(config: &BrokerConfig) -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    match config.transport_options.get("socket_keepalive") {
        Some(Value::Bool(true)) => settings.set_keepalive(TcpKeepalive::new()),
        _ => settings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> BrokerUrl {
        text.parse().expect(text)
    }

    fn address(text: &str) -> ConnectionAddr {
        let config = BrokerConfig::new(text).expect(text);
        let (client, _) = client(&config, &config.urls[0]).expect("a client");
        client.get_connection_info().addr().clone()
    }

    #[test]
    fn reads_a_url_as_kombu_does() {
        assert_eq!(address("redis://me:secret@h:7000/3"), ConnectionAddr::Tcp("h".to_owned(), 7000));
        assert_eq!(address("valkey://"), ConnectionAddr::Tcp("localhost".to_owned(), 6379));
        let socket = "redis+socket:///run/redis.sock?virtual_host=2";
        assert_eq!(address(socket), ConnectionAddr::Unix(PathBuf::from("/run/redis.sock")));
        for (text, number) in
            [("redis://h", 0), ("redis://h/", 0), ("redis://h/3", 3), ("redis://h//3", 3), (socket, 2)]
        {
            assert_eq!(database(&url(text)).expect(text), number, "{text}");
        }
    }

    #[test]
    fn sends_the_credentials_that_there_are() {
        let sent =
            |text: &str| auth(&url(text)).map(|auth| String::from_utf8(auth.get_packed_command()).expect("text"));
        assert_eq!(sent("redis://h"), None);
        assert_eq!(sent("redis://:s%2Fcret@h").as_deref(), Some("*2\r\n$4\r\nAUTH\r\n$6\r\ns/cret\r\n"));
        assert_eq!(sent("redis://me@h").as_deref(), Some("*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$0\r\n\r\n"));
    }

    #[test]
    fn refuses_a_database_that_is_no_number() {
        let error = database(&url("redis://:hunter2@h/celery")).expect_err("no number");
        assert!(matches!(error, BrokerError::InvalidUrl { .. }), "{error:?}");
        assert!(error.to_string().contains("\"celery\"") && !error.to_string().contains("hunter2"), "{error}");
    }
}
