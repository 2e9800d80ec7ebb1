//! The Rust side of `tests/test_matrix.py`: a program that sends what Django understands, and a worker that
//! understands what Django sends.
//!
//! ```text
//! async-signals-peer send BROKER_URL QUEUE…              everything once to each queue; prints what the values are
//! async-signals-peer shake BROKER_URL QUEUE FAILS COUNT  signals whose receiver fails where FAILS says
//! async-signals-peer count BROKER_URL QUEUE FROM TO      numbered signals
//! async-signals-peer receive BROKER_URL QUEUE…           runs receivers until SIGTERM
//! ```

mod describe;
mod effects;
mod signals;
mod values;

use std::{
    env,
    error::Error,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use async_signals::{Celery, Sender, Worker, broker::BrokerError, worker::Observer};
use describe::Fields as _;
use serde_json::{Map, Value};
use signals::{COUNTED, Counted, MARKED, ONE_SIDED, PLAIN, SENT_BY, SHAKY, SentBy, Shaky, senders};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: async-signals-peer send|shake|count|receive BROKER_URL QUEUE …";
/// This program, as a sender.
const BY: Sender = Sender::name("rust");

type Done = Result<(), Box<dyn Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match *arguments {
        ["send", url, ref queues @ ..] => send(url, queues).await,
        ["shake", url, queue, fails, count] => shake(url, queue, fails, count).await,
        ["count", url, queue, from, to] => count(url, queue, from, to).await,
        ["receive", url, ref queues @ ..] => receive(url, queues).await,
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn send(url: &str, queues: &[&str]) -> Done {
    Celery::connect(url).await?.install()?;
    let (plain, marked) = (values::plain(), values::marked());
    for &queue in queues {
        PLAIN.options().queue(queue).send(BY, &plain).await?;
        MARKED.options().queue(queue).send(BY, &marked).await?;
        for (kind, sender) in senders() {
            let payload = SentBy { by: "rust".to_owned(), kind: kind.to_owned() };
            SENT_BY.options().queue(queue).send(sender, &payload).await?;
        }
        SHAKY.options().queue(queue).send(BY, &Shaky { number: 0, fails: "once".to_owned() }).await?;
    }
    let said = plain.fields().into_iter().chain(marked.fields());
    let said: Map<String, Value> = said.map(|(name, value)| (name.to_owned(), value)).collect();
    println!("{}", Value::Object(said));
    Ok(())
}

async fn shake(url: &str, queue: &str, fails: &str, count: &str) -> Done {
    Celery::connect(url).await?.install()?;
    for number in 0..count.parse()? {
        SHAKY.options().queue(queue).send(BY, &Shaky { number, fails: fails.to_owned() }).await?;
    }
    // And one whose receivers have no namesakes in Python.
    ONE_SIDED.options().queue(queue).send(BY, &()).await?;
    Ok(())
}

async fn count(url: &str, queue: &str, from: &str, to: &str) -> Done {
    Celery::connect(url).await?.install()?;
    for number in from.parse()?..to.parse()? {
        COUNTED.options().queue(queue).send(BY, &Counted { number }).await?;
    }
    Ok(())
}

async fn receive(url: &str, queues: &[&str]) -> Done {
    signals::connect_by_sender()?;
    let celery = Celery::new(url)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let worker = Worker::builder(&celery).queues(queues.iter().copied()).observer(Printed::default());
    worker.run_until(terminate.recv()).await?;
    println!("stopped");
    Ok(())
}

/// Prints what the worker does beside running receivers, ready first.
#[derive(Default)]
struct Printed {
    is_ready: AtomicBool,
}

impl Observer for Printed {
    fn connected(&self, broker: &str) {
        if !self.is_ready.swap(true, Ordering::Relaxed) {
            println!("peer at {broker} ready.");
        }
    }

    fn disconnected(&self, error: &BrokerError) {
        println!("the broker is away: {error}");
    }

    fn parked(&self, id: &str, queue: Option<&str>, _kind: &str, reason: &str) {
        println!("{id} is parked in {}: {reason}", queue.unwrap_or("no queue"));
    }
}
