//! The shop's warehouse: hears of orders that a Django site takes, and answers
//! with a signal that the site hears.
//!
//! `CELERY_BROKER_URL` says where both meet, `WAREHOUSE_QUEUE` which queue is the
//! warehouse's, `SITE_QUEUE` where the site listens.

mod receivers;
mod signals;

use std::{env, error::Error, io};

use async_signals::{Celery, Worker};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    let ours = env::var("WAREHOUSE_QUEUE").unwrap_or_else(|_| "warehouse".to_owned());
    let the_sites = env::var("SITE_QUEUE").unwrap_or_else(|_| "celery".to_owned());

    let celery = Celery::builder().env().default_queue(the_sites).build()?;
    celery.ping().await?;
    celery.install()?;

    println!("the warehouse is open, and reads {ours}");
    Worker::builder(&celery).queues([ours]).concurrency(4).run_until(asked_to_end()?).await?;
    println!("the warehouse is closed");
    Ok(())
}

/// Ready when somebody asks this process to end, as a terminal or a supervisor does.
fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    })
}
