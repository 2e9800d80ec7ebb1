"""What waits on the broker, asked from inside the project as its own code could ask."""

from proj.celery import app


def waiting(queue: str = "celery") -> int:
    """How many messages wait in a queue."""
    with app.connection_for_read() as connection, connection.channel() as channel:
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except connection.channel_errors:
            return 0
        finally:
            # kombu leaves a session over SQLAlchemy to the garbage collector, and with it one of few connections.
            if session := getattr(channel, "_session", None):
                session.close()
