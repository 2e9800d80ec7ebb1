use std::sync::{Mutex, PoisonError};

use uuid::{Builder, Uuid};

const BATCH: usize = 64;

/// Makes ids, asking the operating system for randomness once for many.
///
/// It belongs to one process: a fork that shared it would make the same ids on
/// both sides.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    ready: Mutex<Vec<Uuid>>,
}

impl Ids {
    pub(crate) fn next(&self) -> Uuid {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = ready.pop() {
            return id;
        }
        let mut random = [0; BATCH * 16];
        if getrandom::fill(&mut random).is_err() {
            return Uuid::new_v4();
        }
        let (ids, _) = random.as_chunks::<16>();
        ready.extend(ids.iter().map(|bytes| Builder::from_random_bytes(*bytes).into_uuid()));
        ready.pop().unwrap_or_else(Uuid::new_v4)
    }
}

/// An id for a signal that no publisher has to do with.
pub(crate) fn next() -> Uuid {
    static IDS: Mutex<Option<(u32, Ids)>> = Mutex::new(None);
    // A fork may have copied the lock as somebody held it.
    let Ok(mut kept) = IDS.try_lock() else { return Uuid::new_v4() };
    let this = std::process::id();
    match &*kept {
        Some((owner, ids)) if *owner == this => ids.next(),
        _ => kept.insert((this, Ids::default())).1.next(),
    }
}
