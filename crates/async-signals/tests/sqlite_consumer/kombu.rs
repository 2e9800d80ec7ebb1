//! Beside a stock worker on the same file.

use async_signals::protocol::kombu::Envelope;
use rusqlite::{Connection, OptionalExtension};
use serde_json::{Value, json};

use super::*;

/// Takes a message with the statements of kombu 5.7 (`transport/sqlalchemy`, `Channel._get`), which never deletes it.
fn take_as_kombu(connection: &Connection) -> Option<(i64, String)> {
    connection.execute_batch("BEGIN IMMEDIATE TRANSACTION").expect("the lock");
    let found: Option<(i64, String, i64)> = connection
        .query_row(
            "SELECT id, payload, version FROM kombu_message \
             WHERE queue_id = (SELECT id FROM kombu_queue WHERE name = ?) AND visible != 0 \
             ORDER BY timestamp, id LIMIT 1",
            [QUEUE],
            |row| row.try_into(),
        )
        .optional()
        .expect("kombu's tables");
    if let Some((id, _, version)) = &found {
        let hide = "UPDATE kombu_message SET visible = 0, timestamp = datetime('now'), version = ?3 + 1 \
                    WHERE id = ?1 AND version = ?2";
        assert_eq!(connection.execute(hide, (id, version, version)).expect("a row"), 1);
    }
    connection.execute_batch("COMMIT").expect("taken");
    found.map(|(id, payload, _)| (id, payload))
}

fn patient(sqlite: &Sqlite) -> Connection {
    let connection = sqlite.connection();
    connection.busy_timeout(DEADLINE).expect("a connection");
    connection
}

fn number_of(payload: &str) -> u64 {
    let envelope = Envelope::read(payload.as_bytes(), usize::MAX).expect("an envelope");
    envelope.headers["number"].as_u64().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_takes_what_the_other_has() {
    let sqlite = Sqlite::new();
    let ours = consumer(&sqlite.config(), "ours").await;
    fill(&*connect(&sqlite.config()).await, 0..600).await;
    let connection = patient(&sqlite);
    let stock = tokio::task::spawn_blocking(move || {
        std::iter::from_fn(|| take_as_kombu(&connection)).map(|(_, payload)| number_of(&payload)).collect::<Vec<_>>()
    });
    let taking = {
        let ours = ours.clone();
        tokio::spawn(async move {
            let (mut seen, mut done) = (Vec::new(), Vec::new());
            loop {
                let taken = ours.take(&done, 3).await.expect("messages");
                if taken.is_empty() {
                    return seen;
                }
                seen.extend(numbers(&taken));
                done = tags(&taken);
            }
        })
    };
    // It ends when there is nothing left.
    let mut seen = timeout(DEADLINE, stock).await.expect("in time").expect("no panic");
    ours.interrupt();
    seen.extend(timeout(DEADLINE, taking).await.expect("in time").expect("no panic"));
    seen.sort_unstable();
    assert_eq!(seen, (0..600).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stock_worker_took_stays_taken() {
    let sqlite = Sqlite::new();
    let config = sqlite.config();
    let doomed = consumer(&config, "doomed").await;
    fill(&*connect(&config).await, 0..4).await;
    let connection = patient(&sqlite);
    let (theirs, _) = take_as_kombu(&connection).expect("a message");
    let held = take_all(&*doomed, 2).await;
    assert_eq!(numbers(&held), [1, 2]);
    drop(doomed);
    let survivor = consumer(&config, "survivor").await;
    let taken = recovered(&survivor, 3).await;
    let mut came = numbers(&taken);
    came.sort_unstable();
    assert_eq!(came, [1, 2, 3]);
    // It made its row invisible as we do, and no lease of ours says that it is to come back.
    survivor.give_back(&[Tag { generation: 1, number: theirs.cast_unsigned() }]).await.expect("nothing to give back");
    survivor.acknowledge(&tags(&taken)).await.expect("acknowledged");
    survivor.close().await;
    let left: Vec<(i64, bool)> = {
        let mut rows = connection.prepare("SELECT id, visible FROM kombu_message").expect("kombu's tables");
        let rows = rows.query_map([], |row| row.try_into()).expect("rows");
        rows.collect::<Result<_, _>>().expect("rows")
    };
    assert_eq!(left, [(theirs, false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_worker_reads_what_we_gave_back() {
    let sqlite = Sqlite::new();
    let ours = consumer(&sqlite.config(), "ours").await;
    fill(&*connect(&sqlite.config()).await, 0..3).await;
    let connection = patient(&sqlite);
    let payload = |id: i64| -> Value {
        let find = "SELECT payload FROM kombu_message WHERE id = ?";
        let payload: String = connection.query_row(find, [id], |row| row.get(0)).expect("a row");
        serde_json::from_str(&payload).expect("JSON")
    };
    let taken = take_all(&*ours, 2).await;
    let first = i64::try_from(taken[0].tag.number).expect("a row's number");
    let mut expected = payload(first);
    ours.give_back(&tags(&taken)).await.expect("given back");
    let (id, text) = take_as_kombu(&connection).expect("a message");
    assert_eq!((id, number_of(&text)), (first, 0), "in front, though others came later");
    expected["headers"]["redelivered"] = json!(true);
    expected["properties"]["delivery_info"]["redelivered"] = json!(true);
    assert_eq!(payload(first), expected, "marked where kombu marks it, and otherwise as it was");
    assert_eq!(count(&sqlite.file(), "async_signals_kombu_message_lease"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_purged_meanwhile_does_not_come_back() {
    let sqlite = Sqlite::new();
    let ours = consumer(&sqlite.config(), "ours").await;
    let broker = connect(&sqlite.config()).await;
    fill(&*broker, 0..3).await;
    let held = take_all(&*ours, 2).await;
    // `Channel._purge`.
    patient(&sqlite).execute("DELETE FROM kombu_message", []).expect("purged");
    ours.acknowledge(&tags(&held[..1])).await.expect("it is gone");
    ours.give_back(&tags(&held[1..])).await.expect("it is gone");
    fill(&*broker, 3..4).await;
    assert_eq!(numbers(&take_all(&*ours, 1).await), [3]);
    ours.close().await;
    for table in ["async_signals_kombu_message_lease", "async_signals_kombu_message_worker"] {
        assert_eq!(count(&sqlite.file(), table), 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_other_names_have_leases_of_their_own() {
    let sqlite = Sqlite::new();
    let mut other = sqlite.config();
    let options = json!({"queue_tablename": "my queues", "message_tablename": "m\"essages"});
    other.transport_options = options.as_object().expect("a map").clone();
    // Both have a first row, and so the same number.
    let (ours, theirs) = (consumer(&sqlite.config(), "same").await, consumer(&other, "same").await);
    fill(&*connect(&sqlite.config()).await, 0..1).await;
    fill(&*connect(&other).await, 5..6).await;
    let (one, five) = (take_all(&*ours, 1).await, take_all(&*theirs, 1).await);
    assert_eq!((numbers(&one), numbers(&five), one[0].tag), (vec![0], vec![5], five[0].tag));
    ours.close().await;
    theirs.acknowledge(&tags(&five)).await.expect("acknowledged");
    assert_eq!(count(&sqlite.file(), "kombu_message"), 1);
    assert_eq!(count(&sqlite.file(), "\"m\"\"essages\""), 0);
}
