//! What the brokers' tests run against: private servers on free ports, in
//! directories of their own, gone when the test is.
#![allow(dead_code, unreachable_pub, reason = "each test program is a crate of its own and uses a part of it")]

#[cfg(feature = "rabbitmq")]
pub mod amqp;
pub mod behaviours;
pub mod elsewhere;
#[cfg(feature = "sqlite")]
pub mod embedded;
pub mod messages;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "redis")]
pub mod redis;

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use async_signals::{
    broker::{BrokerConfig, ByScheme, Connector},
    message::{Headers, Message},
    protocol::kombu::Envelope,
};
use futures_util::future::LocalBoxFuture;
use serde_json::{Map, Value};

/// How long anything may take that a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A broker under test.
pub trait Bench {
    /// Its name, for reports.
    fn name(&self) -> &'static str;

    /// How to reach it.
    fn config(&self) -> BrokerConfig;

    /// How connections to it are made.
    fn connector(&self) -> Arc<dyn Connector> {
        Arc::new(ByScheme)
    }

    /// Takes every message of a queue, in the order in which workers get those of one priority.
    fn read<'a>(&'a mut self, queue: &'a str) -> LocalBoxFuture<'a, Vec<ReadMessage>>;

    /// Puts bytes into a queue that a consumer has declared, as they are. False
    /// where a queue can hold nothing but messages.
    fn put_raw(&mut self, _queue: &str, _bytes: &[u8]) -> bool {
        false
    }

    /// Whether what a connection took stays its worker's when the connection ends.
    fn keeps_leases(&self) -> bool {
        true
    }

    /// Its server, unless it is embedded.
    fn server(&mut self) -> Option<&mut dyn Server> {
        None
    }
}

/// A server that can be mistreated.
pub trait Server {
    /// Ends it without a goodbye.
    fn kill(&mut self);

    /// Starts it again on the same port, with what it had stored.
    fn restart(&mut self);

    /// Stops it without closing its connections, …
    fn pause(&mut self);

    /// … and lets it go on.
    fn resume(&mut self);
}

/// A message as it was found in its queue.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadMessage {
    pub headers: Map<String, Value>,
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub correlation_id: Option<String>,
    pub reply_to: Option<String>,
    pub delivery_mode: Option<u64>,
    pub priority: Option<u64>,
    pub expiration: Option<String>,
    pub body: Vec<u8>,
}

impl ReadMessage {
    /// What must be found after this message was published.
    pub fn expected(message: &Message) -> Self {
        let properties = &message.properties;
        Self {
            headers: match &message.headers {
                Headers::Raw(headers) => headers.clone(),
                Headers::Task(headers) => match serde_json::to_value(headers).expect("headers are JSON") {
                    Value::Object(headers) => headers,
                    other => panic!("headers are an object, not {other}"),
                },
            },
            content_type: Some(properties.content_type.to_string()),
            content_encoding: Some(properties.content_encoding.to_string()),
            correlation_id: Some(properties.correlation_id.clone()),
            reply_to: properties.reply_to.as_deref().map(str::to_owned),
            delivery_mode: Some(properties.delivery_mode.into()),
            priority: Some(properties.priority.into()),
            expiration: properties.expiration_ms.map(|ms| ms.to_string()),
            body: message.body.to_vec(),
        }
    }

    /// What lies in kombu's envelope.
    pub fn from_envelope(bytes: &[u8]) -> Self {
        let envelope = Envelope::read(bytes, usize::MAX).expect("an envelope");
        let text = |name: &str| envelope.properties.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| envelope.properties.get(name).and_then(Value::as_u64);
        Self {
            content_type: envelope.content_type.clone(),
            content_encoding: envelope.content_encoding.clone(),
            correlation_id: text("correlation_id"),
            reply_to: text("reply_to"),
            delivery_mode: number("delivery_mode"),
            priority: number("priority"),
            expiration: text("expiration"),
            headers: envelope.headers,
            body: envelope.body,
        }
    }

    /// The number that a test gave it.
    pub fn number(&self) -> u64 {
        self.headers["number"].as_u64().expect("a number")
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Whether a program is there. Without it a laptop goes on, but CI fails.
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing, which CI does not allow");
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// A child process that does not outlive its test.
pub struct Process(Child);

impl Process {
    /// Starts a program and waits until a line of its output contains `ready`.
    pub fn start(command: &mut Command, ready: &'static str) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let process = Self(child);
        let (said, heard) = mpsc::channel();
        // Reads on after that, or the server would block on a full pipe.
        thread::spawn(move || {
            let mut seen = Vec::new();
            for line in output.lines().map_while(Result::ok) {
                if line.contains(ready) {
                    let _ = said.send(Ok(()));
                }
                if seen.len() < 100 {
                    seen.push(line);
                }
            }
            let _ = said.send(Err(seen.join("\n")));
        });
        match heard.recv_timeout(DEADLINE) {
            Ok(Ok(())) => process,
            Ok(Err(output)) => panic!("it ended before it was ready:\n{output}"),
            Err(_) => panic!("it was not ready in time"),
        }
    }

    /// Sends it a signal, by name.
    pub fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(status.success(), "cannot signal process {pid}");
    }

    /// Ends it without a goodbye.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
