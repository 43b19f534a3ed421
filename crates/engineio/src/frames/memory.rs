//! Where the bytes of [`Frames`](crate::Frames) are: in memory that clones share, or, for a short message to one client, in
//! the thread's spare memory, which is neither asked for nor given back for each.

use std::cell::Cell;
use std::ops::{Deref, Range};

use bytes::{Buf as _, Bytes};

/// Messages up to this long are written in spare memory.
pub(super) const SHORT: usize = 1024;

/// What is queued for one client is joined up to this many bytes, and this much memory is kept as the thread's spare.
const JOINED: usize = 4096;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

pub(super) enum Memory {
    Shared(Bytes),
    Own(Own),
}

/// Spare memory in use. The message begins at `start`.
pub(super) struct Own {
    buf: Vec<u8>,
    start: usize,
}

/// An empty buffer with room for `capacity` bytes; spare memory if that is short.
#[inline(always)]
pub(super) fn buffer(capacity: usize) -> Vec<u8> {
    let mut buf = if capacity <= SHORT { SPARE.take() } else { Vec::new() };
    buf.reserve(capacity);
    buf
}

impl Memory {
    /// What is in `buf` from `start` on.
    pub(super) fn new(buf: Vec<u8>, start: usize) -> Memory {
        if buf.len() <= SHORT && buf.capacity() <= JOINED {
            return Memory::Own(Own { buf, start });
        }
        let mut bytes = Bytes::from(buf);
        // Not a slice: a second handle to the same memory has to be made, and counted.
        bytes.advance(start);
        Memory::Shared(bytes)
    }

    /// In memory that clones share, as much as it needs.
    pub(super) fn shared(self) -> Memory {
        match self {
            Memory::Shared(_) => self,
            Memory::Own(_) => self.clone(),
        }
    }

    pub(super) fn slice(&self, range: Range<usize>) -> Bytes {
        match self {
            Memory::Shared(bytes) => bytes.slice(range),
            Memory::Own(own) => Bytes::copy_from_slice(&own.bytes()[range]),
        }
    }

    /// Appends what `other` holds, if neither is shared and it does not become too much.
    pub(super) fn join(&mut self, other: &Memory) -> bool {
        match (self, other) {
            (Memory::Own(own), Memory::Own(other)) if own.buf.len() + other.bytes().len() <= JOINED => {
                own.buf.extend_from_slice(other.bytes());
                true
            }
            _ => false,
        }
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Memory::Shared(bytes) => bytes,
            Memory::Own(own) => own.bytes(),
        }
    }
}

impl Own {
    fn bytes(&self) -> &[u8] {
        &self.buf[self.start..]
    }
}

impl Clone for Memory {
    fn clone(&self) -> Memory {
        Memory::Shared(match self {
            Memory::Shared(bytes) => bytes.clone(),
            Memory::Own(own) => Bytes::copy_from_slice(own.bytes()),
        })
    }
}

impl From<Bytes> for Memory {
    fn from(bytes: Bytes) -> Memory {
        Memory::Shared(bytes)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.buf.capacity() <= JOINED {
            self.buf.clear();
            // Not there any more while the thread ends.
            let _ = SPARE.try_with(|spare| spare.set(std::mem::take(&mut self.buf)));
        }
    }
}
