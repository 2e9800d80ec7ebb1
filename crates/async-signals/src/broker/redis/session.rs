//! One connection of a consumer, with the names of its keys and of its errors.

use std::sync::OnceLock;

use redis::{Cmd, Pipeline, Value, aio::MultiplexedConnection};

use super::{connection, error::Errors, keys::Keys};
use crate::broker::{BrokerConfig, BrokerError, BrokerUrl};

/// A connection that commands and scripts are sent over.
pub(super) struct Session {
    connection: MultiplexedConnection,
    pub(super) keys: Keys,
    pub(super) errors: Errors,
}

/// A script, sent by its hash once the server knows it.
pub(super) struct Script {
    text: &'static str,
    hash: OnceLock<String>,
}

impl Session {
    pub(super) async fn open(config: &BrokerConfig, url: &BrokerUrl) -> Result<Self, BrokerError> {
        let keys = Keys::new(&config.transport_options)?;
        let (connection, errors) = connection::open(config, url).await?;
        Ok(Self { connection, keys, errors })
    }

    /// Sends commands; one reply each, refusals among them.
    pub(super) async fn send(&self, pipeline: &Pipeline) -> Result<Vec<Value>, BrokerError> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let replies = self.connection.clone().send_packed_commands(pipeline, 0, pipeline.len()).await;
        replies.map_err(|error| self.errors.disconnected(&error))
    }

    /// As [`Session::send`], failing with the first refusal.
    pub(super) async fn send_all(&self, pipeline: &Pipeline) -> Result<Vec<Value>, BrokerError> {
        let replies = self.send(pipeline).await?;
        match replies.iter().find(|reply| matches!(reply, Value::ServerError(_))) {
            Some(Value::ServerError(error)) => Err(self.errors.server(error)),
            _ => Ok(replies),
        }
    }

    /// Sends one command.
    pub(super) async fn ask(&self, command: Cmd) -> Result<Value, BrokerError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        Ok(self.send_all(&pipeline).await?.pop().unwrap_or(Value::Nil))
    }

    /// Runs a script. `arguments` adds its keys and arguments to the command.
    pub(super) async fn run(
        &self,
        script: &Script,
        keys: usize,
        arguments: impl Fn(&mut Cmd),
    ) -> Result<Value, BrokerError> {
        let call = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys);
            arguments(&mut command);
            let mut pipeline = Pipeline::with_capacity(1);
            pipeline.add_command(command);
            pipeline
        };
        let replies = self.send(&call("EVALSHA", script.hash())).await?;
        match replies.first() {
            // Never run: the server has started since, or forgotten its scripts.
            Some(Value::ServerError(error)) if error.code() == "NOSCRIPT" => {
                Ok(self.send_all(&call("EVAL", script.text)).await?.pop().unwrap_or(Value::Nil))
            }
            Some(Value::ServerError(error)) => Err(self.errors.server(error)),
            _ => Ok(replies.into_iter().next().unwrap_or(Value::Nil)),
        }
    }

    /// The server answered with something that its version should not.
    pub(super) fn unexpected(&self, reply: &Value) -> BrokerError {
        let mut said = format!("{reply:?}");
        said.truncate(said.char_indices().nth(100).map_or(said.len(), |(end, _)| end));
        BrokerError::Refused { reason: format!("a reply that makes no sense: {said}") }
    }
}

impl Script {
    pub(super) const fn new(text: &'static str) -> Self {
        Self { text, hash: OnceLock::new() }
    }

    fn hash(&self) -> &str {
        self.hash.get_or_init(|| redis::Script::new(self.text).get_hash().to_owned())
    }
}

/// What a reply holds as text: names that we wrote, and numbers.
pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The pairs of a reply such as that to `ZRANGE … WITHSCORES`. What is no text is left out.
pub(super) fn pairs(value: Value) -> Vec<(String, String)> {
    let Value::Array(values) = value else { return Vec::new() };
    let mut values = values.into_iter();
    let mut pairs = Vec::new();
    while let (Some(first), Some(second)) = (values.next(), values.next()) {
        pairs.extend(text(first).zip(text(second)));
    }
    pairs
}
