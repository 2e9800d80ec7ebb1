//! From a broker URL and its options to where and how to connect.

use std::path::PathBuf;

use redis::{
    Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use serde_json::Value;

use super::{error::Errors, tls};
use crate::broker::{BrokerConfig, BrokerError, BrokerUrl};

/// A client for a URL, and the names of its errors.
pub(super) fn client(config: &BrokerConfig, url: &BrokerUrl) -> Result<(Client, Errors), BrokerError> {
    let (host, port) = (url.host().to_owned(), url.port());
    let wanted = if is_socket(url) { None } else { tls::wanted(config, url)? };
    let errors = Errors::new(url, wanted.is_some());
    let address = match &wanted {
        _ if is_socket(url) => ConnectionAddr::Unix(PathBuf::from("/").join(url.file())),
        None => ConnectionAddr::Tcp(host, port),
        Some(tls) => tls::address(host, port, tls, url)?,
    };
    let info = address.into_connection_info().map_err(|error| errors.connecting(&error))?;
    let info = info.set_redis_settings(settings(url)?).set_tcp_settings(tcp(config));
    let client = Client::open(info).map_err(|error| errors.connecting(&error))?;
    Ok((client, errors))
}

fn is_socket(url: &BrokerUrl) -> bool {
    url.scheme_name() == "redis+socket"
}

fn settings(url: &BrokerUrl) -> Result<RedisConnectionInfo, BrokerError> {
    // A socket's URL has its path where others have their database.
    let database = if is_socket(url) { url.query("virtual_host").unwrap_or("/") } else { url.virtual_host() };
    let database = match database.strip_prefix('/').unwrap_or(database) {
        "" => 0,
        number => number.parse::<u32>().map_err(|_| BrokerError::InvalidUrl {
            reason: format!("the database of a Redis URL is a number, as in redis://host/0, not {number:?}"),
        })?,
    };
    let mut settings = RedisConnectionInfo::default().set_db(i64::from(database)).set_skip_set_lib_name();
    if let Some(username) = url.username() {
        settings = settings.set_username(username);
    }
    if url.username().is_some() || url.password().is_some() {
        settings = settings.set_password(url.password().unwrap_or_default());
    }
    Ok(settings)
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

    fn address(url: &str) -> Result<Client, BrokerError> {
        let config = BrokerConfig::new(url)?;
        Ok(client(&config, &config.urls[0])?.0)
    }

    #[test]
    fn reads_a_url_as_kombu_does() {
        let full = address("redis://me:s%2Fcret@h:7000/3").expect("an address");
        let info = full.get_connection_info();
        assert_eq!(info.addr(), &ConnectionAddr::Tcp("h".to_owned(), 7000));
        let settings = info.redis_settings();
        assert_eq!((settings.username(), settings.password(), settings.db()), (Some("me"), Some("s/cret"), 3));

        let bare = address("redis://").expect("an address");
        let settings = bare.get_connection_info().redis_settings();
        assert_eq!((settings.username(), settings.password(), settings.db()), (None, None, 0));

        let socket = address("redis+socket:///run/redis.sock?virtual_host=2").expect("an address");
        assert_eq!(socket.get_connection_info().addr(), &ConnectionAddr::Unix(PathBuf::from("/run/redis.sock")));
        assert_eq!(socket.get_connection_info().redis_settings().db(), 2);
    }

    #[test]
    fn refuses_a_database_that_is_no_number() {
        let error = address("redis://:hunter2@h/celery").expect_err("no number");
        assert!(matches!(error, BrokerError::InvalidUrl { .. }), "{error:?}");
        assert!(error.to_string().contains("\"celery\"") && !error.to_string().contains("hunter2"), "{error}");
    }
}
