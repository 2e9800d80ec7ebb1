//! A private Redis server.

use std::process::Command;

use async_signals::broker::BrokerConfig;
use futures_util::future::{FutureExt, LocalBoxFuture};
use redis::{Commands, Connection};
use tempfile::TempDir;

use super::{Bench, Process, ReadMessage, Server, free_port, has};

pub const PASSWORD: &str = "hunter2";

/// A Redis server that asks for a password and writes every command to its disk.
pub struct Redis {
    process: Process,
    directory: TempDir,
    port: u16,
    options: Vec<String>,
    /// The prefix of its keys, for [`Bench::read`].
    pub prefix: String,
}

impl Redis {
    /// A server with more options, as on its command line; `None` if there is no program for it.
    pub fn start(options: &[&str]) -> Option<Self> {
        if !has("redis-server") {
            return None;
        }
        let directory = TempDir::new().expect("a directory");
        let port = free_port();
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let process = launch(&directory, port, &options);
        Some(Self { process, directory, port, options, prefix: String::new() })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Its URL, for a user or for nobody in particular.
    pub fn url(&self, credentials: &str) -> String {
        format!("redis://{credentials}127.0.0.1:{}/0", self.port)
    }

    /// A connection of the test's own.
    pub fn connection(&self) -> Connection {
        let client = redis::Client::open(self.url(&format!(":{PASSWORD}@"))).expect("a URL");
        client.get_connection().expect("a connection")
    }

    /// Takes what a list holds, oldest first.
    pub fn take(&self, list: &str) -> Vec<ReadMessage> {
        let mut connection = self.connection();
        // In one step, since a message that arrives between two would be gone; and one that a full memory allows.
        let taken = redis::cmd("RPOP").arg(list).arg(1_000_000).query(&mut connection);
        let envelopes: Vec<Vec<u8>> = taken.map(Option::unwrap_or_default).expect("a list");
        envelopes.iter().map(|envelope| ReadMessage::from_envelope(envelope)).collect()
    }
}

fn launch(directory: &TempDir, port: u16, options: &[String]) -> Process {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--requirepass", PASSWORD]);
    command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    command.arg("--dir").arg(directory.path()).args(options);
    Process::start(&mut command, "eady to accept connections")
}

impl Bench for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn config(&self) -> BrokerConfig {
        BrokerConfig::new(&self.url(&format!(":{PASSWORD}@"))).expect("a URL")
    }

    fn read<'a>(&'a mut self, queue: &'a str) -> LocalBoxFuture<'a, Vec<ReadMessage>> {
        let lists = ["", "\x06\x163", "\x06\x166", "\x06\x169"].map(|suffix| format!("{}{queue}{suffix}", self.prefix));
        std::future::ready(lists.iter().flat_map(|list| self.take(list)).collect()).boxed_local()
    }

    fn put_raw(&mut self, queue: &str, bytes: &[u8]) -> bool {
        let _: () = self.connection().lpush(format!("{}{queue}", self.prefix), bytes).expect("a list");
        true
    }

    fn server(&mut self) -> Option<&mut dyn Server> {
        Some(self)
    }
}

impl Server for Redis {
    fn kill(&mut self) {
        self.process.kill();
    }

    fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.directory, self.port, &self.options);
    }

    fn pause(&mut self) {
        self.process.signal("STOP");
    }

    fn resume(&mut self) {
        self.process.signal("CONT");
    }
}
