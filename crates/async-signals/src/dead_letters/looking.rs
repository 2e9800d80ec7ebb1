use super::{DeadLetter, Filter};
use crate::broker::{BrokerError, Browser, Page, Position};

/// What one look at a dead-letter queue has found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Those that the filter means, in their order.
    pub letters: Vec<DeadLetter>,
    /// How many were looked at.
    pub examined: usize,
    /// Where the next look goes on; `None`: that was all.
    pub next: Option<Position>,
}

/// Looks at up to `limit` messages of a dead-letter queue from a position on; `None`: this broker shows them to nobody
/// but who takes them (RabbitMQ): see [`DeadLetterQueue`](super::DeadLetterQueue).
///
/// # Errors
///
/// What the broker said.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use async_signals::{
///     broker::{BrokerConfig, Position, browse},
///     dead_letters::{Filter, look},
/// };
///
/// let config = BrokerConfig::new("memory://docs-look")?;
/// let browser = browse(&config, &config.urls[0]).await?;
/// let found = look(&*browser, "celery.dead", Position::default(), 100, &Filter::default()).await?;
/// assert_eq!(found.map(|found| found.examined), Some(0));
/// # Ok(())
/// # }
/// ```
pub async fn look(
    browser: &dyn Browser,
    queue: &str,
    from: Position,
    limit: usize,
    filter: &Filter,
) -> Result<Option<Found>, BrokerError> {
    let Some(Page { messages, next }) = browser.page(queue, from, limit).await? else { return Ok(None) };
    let examined = messages.len();
    let letters = messages.into_iter().map(DeadLetter::from).filter(|letter| filter.matches(letter)).collect();
    Ok(Some(Found { letters, examined, next }))
}
