//! What the process's parent says, through a pipe that also tells of its end.

use std::{
    fs::File,
    io::Read,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::Arc,
    thread,
    time::Duration,
};

use super::pool::Pool;

/// Ends at once.
const QUIT: u8 = b'q';
/// Takes nothing new, and ends when what has begun has ended, however long that takes.
const DRAIN: u8 = b'd';
/// Longer than any receiver.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Listens for as long as the parent lives: without the interpreter, which a
/// receiver may keep to itself.
pub(super) fn start(descriptor: RawFd, pool: Arc<Pool>, patience: Duration) -> std::io::Result<()> {
    #[allow(unsafe_code, reason = "a number is all that Python has to hand over")]
    // SAFETY: the caller gives the descriptor away, and nobody else closes it.
    let mut pipe = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    let listen = move || {
        let mut word = [0];
        loop {
            match pipe.read(&mut word) {
                Ok(1) if word[0] == QUIT => return pool.stop_now(),
                Ok(1) if word[0] == DRAIN => pool.stop(FOR_EVER),
                Ok(1) => pool.stop(patience),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // The parent is gone, and nobody would start another worker for this one.
                _ => return pool.stop(patience),
            }
        }
    };
    thread::Builder::new().name("async-signals-control".to_owned()).spawn(listen).map(drop)
}
