//! Python's types that a payload may hold and that JSON has no word for.
