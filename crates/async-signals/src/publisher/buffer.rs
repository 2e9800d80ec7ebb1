use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use crate::clock;

/// How much may wait for the broker at once, over all background sends.
#[derive(Debug)]
pub(super) struct Buffer {
    held: Mutex<Held>,
    room: Condvar,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Held {
    messages: usize,
    bytes: usize,
    waiting: usize,
}

impl Buffer {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { held: Mutex::default(), room: Condvar::new(), max_messages, max_bytes }
    }

    /// Makes room for one message, waiting at most `patience` for it. False if there is none.
    pub(super) fn admit(&self, bytes: usize, patience: Duration) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut give_up = None;
        while !self.has_room(&held, bytes) {
            let now = clock::now();
            let give_up = *give_up.get_or_insert(now + patience);
            if now >= give_up {
                return false;
            }
            held.waiting += 1;
            held = self.room.wait_timeout(held, give_up - now).unwrap_or_else(PoisonError::into_inner).0;
            held.waiting -= 1;
        }
        held.messages += 1;
        held.bytes += bytes;
        true
    }

    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.has_room(&self.held.lock().unwrap_or_else(PoisonError::into_inner), bytes)
    }

    /// One message is alone always admitted, however large.
    fn has_room(&self, held: &Held, bytes: usize) -> bool {
        held.messages == 0 || (held.messages < self.max_messages && held.bytes + bytes <= self.max_bytes)
    }

    pub(super) fn release(&self, messages: usize, bytes: usize) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.messages -= messages;
        held.bytes -= bytes;
        if held.waiting > 0 {
            self.room.notify_all();
        }
    }

    pub(super) fn messages(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).messages
    }
}
