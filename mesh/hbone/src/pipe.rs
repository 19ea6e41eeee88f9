//! Pipes through which the kernel moves bytes from socket to socket without copying them (splice(2)).

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Bytes a pipe holds: as much as an ordinary user may have.
const SIZE: usize = 1 << 20;
/// Pipes that a thread keeps for the next that needs one.
const SPARE: usize = 16;

thread_local! {
    static PIPES: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// An empty pipe, both ends. Dropped with bytes inside, it takes them with it.
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// A spare pipe of this thread, or a new one. `None` when the system has none to give: there are other ways.
    pub(crate) fn take() -> Option<Self> {
        if let Some(pipe) = PIPES.with_borrow_mut(Vec::pop) {
            return Some(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Where this is not allowed the pipe is smaller.
        let _ = fcntl_setpipe_size(&write, SIZE);
        Some(Self { read, write })
    }

    /// Keeps the pipe for others; it has to be empty.
    pub(crate) fn give_back(self) {
        PIPES.with_borrow_mut(|pipes| {
            if pipes.len() < SPARE {
                pipes.push(self)
            }
        });
    }

    /// Moves what `from` has into the pipe. 0 at its end.
    pub(crate) fn fill(&self, from: impl AsFd) -> io::Result<usize> {
        Ok(splice(from, None, &self.write, None, SIZE, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
    }

    /// Moves at most `bytes` out of the pipe into `to`.
    pub(crate) fn empty(&self, to: impl AsFd, bytes: usize) -> io::Result<usize> {
        Ok(splice(&self.read, None, to, None, bytes, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
    }
}
