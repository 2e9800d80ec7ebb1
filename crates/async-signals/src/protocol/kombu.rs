//! kombu's envelope: how a message lies in a Redis list or an SQLite row.
