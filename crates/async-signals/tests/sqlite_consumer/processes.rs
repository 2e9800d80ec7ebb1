//! Several processes on one file.

use std::{env, process::Command, time::Instant};

use super::*;
use crate::servers::Process;

/// Where another process of this program finds its file.
const FILE: &str = "ASYNC_SIGNALS_TEST_FILE";
const HOLDING: &str = "holds three messages";

/// The other process: it takes three messages and lives on, until it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn another_process() {
    let Ok(url) = env::var(FILE) else { return };
    let consumer = consumer(&BrokerConfig::new(&url).expect("a URL"), "the-other-process").await;
    let held = take_all(&*consumer, 3).await;
    println!("\n{HOLDING}: {:?}", numbers(&held));
    loop {
        consumer.renew(&tags(&held)).await.expect("a sign of life");
        tokio::time::sleep(broker::consumer::HEARTBEAT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_what_it_held() {
    let sqlite = Sqlite::new();
    let config = sqlite.config();
    let broker = connect(&config).await;
    fill(&*broker, 0..4).await;
    let mut program = Command::new(env::current_exe().expect("this program"));
    program.args(["--exact", "processes::another_process", "--nocapture"]).env(FILE, sqlite.url());
    let mut other = Process::start(&mut program, HOLDING);

    let ours = consumer(&config, "ours").await;
    let fourth = take_all(&*ours, 1).await;
    assert_eq!(numbers(&fourth), [3], "the others are in its hands");
    // Someone else's death comes and goes, and it keeps what it holds.
    let doomed = consumer(&config, "doomed").await;
    doomed.renew(&[]).await.expect("a sign of life");
    fill(&*broker, 4..5).await;
    let fifth = take_all(&*doomed, 1).await;
    drop(doomed);
    assert_eq!(numbers(&recovered(&ours, 1).await), numbers(&fifth));

    other.kill();
    let killed = Instant::now();
    let taken = recovered(&ours, 3).await;
    assert!(killed.elapsed() < Duration::from_secs(10), "after {:?}", killed.elapsed());
    assert_eq!(numbers(&taken), [0, 1, 2]);
    assert!(taken.iter().all(|taken| taken.redelivered));
    assert_eq!(count(&sqlite.file(), "async_signals_kombu_message_worker"), 1, "the dead are forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn much_comes_back_in_its_order() {
    let sqlite = Sqlite::new();
    let config = sqlite.config();
    let doomed = consumer(&config, "doomed").await;
    fill(&*connect(&config).await, 0..1200).await;
    take_all(&*doomed, 1200).await;
    drop(doomed);
    let survivor = consumer(&config, "survivor").await;
    assert_eq!(numbers(&recovered(&survivor, 1200).await), (0..1200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_only_stopped_settles_nothing_that_is_not_its_own() {
    let sqlite = Sqlite::new();
    let config = sqlite.config();
    let stopped = consumer(&config, "stopped").await;
    fill(&*connect(&config).await, 0..2).await;
    let before = take_all(&*stopped, 2).await;
    // It gives no sign of life for so long that its messages are somebody else's.
    let other = consumer(&config, "other").await;
    let after = recovered(&other, 2).await;
    assert_eq!(numbers(&after), [0, 1]);
    stopped.renew(&tags(&before)).await.expect("a sign of life");
    stopped.acknowledge(&tags(&before[..1])).await.expect("left alone");
    stopped.give_back(&tags(&before[1..])).await.expect("left alone");
    stopped.close().await;
    assert_eq!(count(&sqlite.file(), "kombu_message WHERE visible = 0"), 2, "they are the other's");
    other.acknowledge(&tags(&after)).await.expect("acknowledged");
    assert_eq!(count(&sqlite.file(), "kombu_message"), 0);
}
