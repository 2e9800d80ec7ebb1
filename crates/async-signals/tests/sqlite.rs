//! What only the embedded broker does.
#![cfg(feature = "sqlite")]

mod servers;

use std::{fs, sync::Arc};

use async_signals::{
    broker::{self, Broker, BrokerConfig, BrokerError},
    message::{Outgoing, Route},
};
use futures_util::FutureExt;
use rusqlite::Connection;
use serde_json::json;
use servers::{Bench, embedded::Sqlite, messages::numbered};

/// Made by kombu 5.7 itself.
const KOMBUS_SCHEMA: &str = include_str!("fixtures/celery-5.7-sqlite-schema.sql");

#[tokio::test]
async fn makes_the_tables_that_kombu_makes() {
    let sqlite = Sqlite::new();
    connect(&sqlite.config()).await.expect("a connection");
    let theirs = Connection::open_in_memory().expect("a database");
    theirs.execute_batch(KOMBUS_SCHEMA).expect("kombu's schema");
    assert_eq!(shape(&sqlite.connection()), shape(&theirs));
}

#[tokio::test]
async fn uses_the_tables_that_kombu_made() {
    let mut sqlite = Sqlite::new();
    let theirs = sqlite.connection();
    theirs.execute_batch(KOMBUS_SCHEMA).expect("kombu's schema");
    theirs.execute("INSERT INTO kombu_queue (name) VALUES ('other'), ('celery')", []).expect("queues");
    let broker = connect(&sqlite.config()).await.expect("a connection");
    broker.publish(&[outgoing("celery")]).await.remove(0).expect("published");
    let row: (bool, Option<String>, i64, i64) = theirs
        .query_row("SELECT visible, timestamp, version, queue_id FROM kombu_message", [], |row| row.try_into())
        .expect("a row");
    assert_eq!(row, (true, None, 1, 2), "as kombu inserts it, in the queue that was there");
    assert_eq!(sqlite.read("celery").await.len(), 1);
}

#[tokio::test]
async fn calls_the_tables_what_the_options_call_them() {
    let sqlite = Sqlite::new();
    let mut config = sqlite.config();
    let options = json!({"queue_tablename": "my queues", "message_tablename": "m\"essages"});
    config.transport_options = options.as_object().expect("a map").clone();
    let broker = connect(&config).await.expect("a connection");
    broker.publish(&[outgoing("celery")]).await.remove(0).expect("published");
    let count: i64 = sqlite
        .connection()
        .query_row("SELECT count(*) FROM \"my queues\" q, \"m\"\"essages\" m WHERE m.queue_id = q.id", [], |row| {
            row.get(0)
        })
        .expect("a count");
    assert_eq!(count, 1);
    config.transport_options["queue_tablename"] = json!(5);
    assert!(matches!(connect(&config).await, Err(BrokerError::InvalidOption { .. })));
}

#[tokio::test]
async fn says_what_is_wrong_with_the_file() {
    let sqlite = Sqlite::new();
    let at = |path: &str| format!("sqla+sqlite:///{}/{path}", sqlite.directory().display());
    fs::write(sqlite.directory().join("letter"), "Dear Sir or Madam, ".repeat(100)).expect("a file");
    fs::create_dir(sqlite.directory().join("folder")).expect("a directory");
    for (url, reason) in [
        (at("missing/broker.sqlite3"), "there is no directory"),
        (at("letter"), "no SQLite database"),
        (at("folder"), "cannot open"),
    ] {
        let error = connect(&BrokerConfig::new(&url).expect("a URL")).await.expect_err(&url);
        assert!(matches!(error, BrokerError::Connect { .. }), "{error:?}");
        let path = url.trim_start_matches("sqla+sqlite:///");
        assert!(error.to_string().contains(reason) && error.to_string().contains(path), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_another_process() {
    let mut sqlite = Sqlite::new();
    let broker = connect(&sqlite.config()).await.expect("a connection");
    let other = sqlite.connection();
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let batch = [outgoing("celery")];
    let mut publishing = std::pin::pin!(broker.publish(&batch));
    assert!(publishing.as_mut().now_or_never().is_none(), "it waits");
    other.execute_batch("COMMIT").expect("the lock is free");
    publishing.await.remove(0).expect("published");
    assert_eq!(sqlite.read("celery").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn says_that_another_process_holds_the_file() {
    let mut sqlite = Sqlite::new();
    let broker = connect(&sqlite.config()).await.expect("a connection");
    let other = sqlite.connection();
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let error = broker.publish(&[outgoing("celery")]).await.remove(0).expect_err("the file is held");
    assert!(matches!(error, BrokerError::Unavailable { .. }), "{error:?}");
    assert!(error.is_transient() && !error.may_have_arrived());
    assert!(error.to_string().contains(&sqlite.file().display().to_string()), "{error}");
    // A reader does not hinder it.
    other.execute_batch("COMMIT; BEGIN; SELECT * FROM kombu_message").expect("a reader");
    broker.publish(&[outgoing("celery")]).await.remove(0).expect("published");
    drop(other);
    assert_eq!(sqlite.read("celery").await.len(), 1, "what was refused is not there");
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_nothing_after_the_publish_was_given_up() {
    let mut sqlite = Sqlite::new();
    let broker = connect(&sqlite.config()).await.expect("a connection");
    let other = sqlite.connection();
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let abandoned = [outgoing("celery")];
    assert!(broker.publish(&abandoned).now_or_never().is_none(), "it waits");
    other.execute_batch("COMMIT").expect("the lock is free");
    let kept = outgoing("celery");
    broker.publish(std::slice::from_ref(&kept)).await.remove(0).expect("published");
    let read: Vec<_> = sqlite.read("celery").await.into_iter().map(|message| message.correlation_id).collect();
    assert_eq!(read, [Some(kept.message.id.to_string())]);
}

#[cfg(unix)]
#[tokio::test]
async fn notices_that_the_file_was_deleted() {
    let mut sqlite = Sqlite::new();
    let broker = connect(&sqlite.config()).await.expect("a connection");
    broker.publish(&[outgoing("celery")]).await.remove(0).expect("published");
    fs::remove_file(sqlite.file()).expect("a file");
    let error = broker.publish(&[outgoing("celery")]).await.remove(0).expect_err("the file is gone");
    assert!(error.is_disconnect(), "{error:?}");
    let again = connect(&sqlite.config()).await.expect("a connection");
    let error = broker.publish(&[outgoing("celery")]).await.remove(0).expect_err("it is another file");
    assert!(error.is_disconnect(), "{error:?}");
    again.publish(&[outgoing("celery")]).await.remove(0).expect("published");
    assert_eq!(sqlite.read("celery").await.len(), 1);
}

async fn connect(config: &BrokerConfig) -> Result<Arc<dyn Broker>, BrokerError> {
    broker::connect(config, &config.urls[0]).await
}

fn outgoing(queue: &str) -> Outgoing {
    Outgoing { route: Arc::new(Route::to_queue(queue)), message: numbered(0) }
}

/// Columns, keys and indices, without the white space of their statements.
fn shape(connection: &Connection) -> Vec<String> {
    let mut found = Vec::new();
    for table in ["kombu_queue", "kombu_message"] {
        for pragma in ["table_info", "foreign_key_list", "index_list"] {
            found.extend(rows(connection, &format!("SELECT '{table}', '{pragma}', * FROM pragma_{pragma}('{table}')")));
        }
    }
    let indices = "SELECT m.name, i.name FROM sqlite_master m, pragma_index_info(m.name) i WHERE m.type = 'index'";
    found.extend(rows(connection, indices));
    found.extend(rows(connection, "SELECT name FROM sqlite_master WHERE name = 'sqlite_sequence'"));
    // In whichever order the indices were made.
    found.sort();
    found
}

fn rows(connection: &Connection, query: &str) -> Vec<String> {
    let mut statement = connection.prepare(query).expect("a query");
    let columns = statement.column_count();
    // The number of an index in its list tells the order in which they were made.
    let numbered = query.contains("index_list");
    let rows = statement.query_map([], |row| {
        let values = (0..columns).filter(|column| !(numbered && *column == 2));
        values.map(|column| row.get_ref(column).map(|value| format!("{value:?}"))).collect::<Result<Vec<_>, _>>()
    });
    rows.expect("rows").map(|row| row.expect("a row").join(" ")).collect()
}
