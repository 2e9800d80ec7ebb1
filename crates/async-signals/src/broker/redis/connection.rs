//! Opening a connection: logging in, making sure that a Redis answers, and
//! warning if it may throw messages away.

use redis::{AsyncConnectionConfig, Pipeline, Value, aio::MultiplexedConnection};

use super::{address, error::Errors, routes::command};
use crate::broker::{BrokerConfig, BrokerError, BrokerUrl};

/// Connects, without a time limit: whoever calls has the only deadline.
pub(super) async fn open(
    config: &BrokerConfig,
    url: &BrokerUrl,
) -> Result<(MultiplexedConnection, Errors), BrokerError> {
    let (client, errors) = address::client(config, url)?;
    let options = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&options).await;
    let connection = connection.map_err(|error| errors.connecting(&error))?;
    greet(&connection, &errors, url).await?;
    Ok((connection, errors))
}

async fn greet(connection: &MultiplexedConnection, errors: &Errors, url: &BrokerUrl) -> Result<(), BrokerError> {
    let (auth, database) = (address::auth(url), address::database(url)?);
    let mut pipeline = Pipeline::new();
    let authenticates = auth.is_some();
    if let Some(auth) = auth {
        pipeline.add_command(auth);
    }
    pipeline.add_command(command("SELECT", [database]));
    pipeline.add_command(redis::cmd("PING"));
    pipeline.add_command(command("CONFIG", ["GET", "maxmemory-policy"]));
    pipeline.add_command(command("CONFIG", ["GET", "maxmemory"]));
    let replies = connection.clone().send_packed_commands(&pipeline, 0, pipeline.len()).await;
    let replies = replies.map_err(|error| errors.connecting(&error))?;
    let (auth, replies) = replies.split_at(usize::from(authenticates));
    if let [Value::ServerError(error)] = auth {
        return Err(errors.authenticating(error));
    }
    let [select, ping, policy, limit] = replies else { return Err(errors.no_redis("it says too little")) };
    match ping {
        Value::SimpleString(pong) if pong == "PONG" => {}
        // Who may only push may still push.
        Value::ServerError(error) if error.code() == "NOPERM" => {}
        Value::ServerError(error) => return Err(errors.server(error)),
        _ => return Err(errors.no_redis("it does not answer PING")),
    }
    match select {
        // The database that every connection begins with.
        Value::ServerError(_) if database == 0 => {}
        Value::ServerError(error) => return Err(errors.selecting(database, error)),
        _ => {}
    }
    if may_evict(setting(policy), setting(limit)) {
        tracing::warn!(
            broker = %url,
            policy = setting(policy),
            "this Redis may evict queues when its memory is full, and lose their messages; \
             set maxmemory-policy to noeviction"
        );
    }
    Ok(())
}

/// The value in the reply to `CONFIG GET` of one name; empty where the server does not tell.
fn setting(reply: &Value) -> &str {
    match reply.as_sequence() {
        Some([_, Value::BulkString(value)]) => std::str::from_utf8(value).unwrap_or_default(),
        _ => "",
    }
}

/// Whether a full memory costs queues. Policies for keys with an expiry leave queues alone.
fn may_evict(policy: &str, maxmemory: &str) -> bool {
    policy.starts_with("allkeys-") && maxmemory != "0"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_who_evicts_queues() {
        assert!(may_evict("allkeys-lru", "1048576"));
        assert!(!may_evict("allkeys-lru", "0"), "memory without a limit is never full");
        assert!(!may_evict("noeviction", "1048576"));
        assert!(!may_evict("volatile-lru", "1048576"));
        assert!(!may_evict("", ""), "nobody told");
    }
}
