//! Addresses that lead to nobody, or to somebody else.

use std::net::TcpListener;

use async_signals::broker::{BrokerConfig, BrokerError};

use super::Bench;

/// The same broker's configuration, for another port and password.
pub fn elsewhere(bench: &dyn Bench, port: u16, password: &str) -> BrokerConfig {
    let mut config = bench.config();
    let url = format!("{}://someone:{password}@127.0.0.1:{port}/", config.urls[0].scheme_name());
    config.urls = vec![url.parse().expect("a URL")];
    config
}

/// The error says where, and keeps the password to itself.
pub fn assert_named(error: &BrokerError, password: &str) {
    let (shown, debugged) = (error.to_string(), format!("{error:?}"));
    assert!(shown.contains("127.0.0.1"), "{shown}");
    assert!(!shown.contains(password) && !debugged.contains(password), "{debugged}");
}

/// A web server that answers once; its port.
pub fn web_server() -> (u16, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let answers = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut peer, _) = listener.accept().expect("a connection");
        let _ = peer.read(&mut [0; 1024]);
        let _ = peer.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    });
    (port, answers)
}
