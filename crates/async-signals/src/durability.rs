//! How sure a send is before it returns.

/// How sure a send is before it returns.
///
/// | | a send returns when | survives |
/// |---|---|---|
/// | `Confirmed` | the broker has the message | what the broker, as configured, survives |
/// | `Background` | it is in this process's bounded buffer | outages of the broker, as long as the process lives and the buffer lasts |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// The broker has it: a confirm on RabbitMQ, the reply on Redis, a commit on SQLite.
    #[default]
    Confirmed,
    /// It is buffered, and goes to the broker in the background. Before the
    /// process ends, [`Celery::flush`](crate::Celery::flush) waits for it.
    Background,
}
