//! Cuts what was read into frames, and steps over those that are too long. What is in a frame is not known here.

use bytes::{Buf, Bytes, BytesMut};

use super::message::Serialization;

/// What the next bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A whole frame, with what delimits it.
    Frame(Bytes),
    /// A frame over the limit has ended: its size.
    TooLong(u64),
}

#[derive(Debug)]
pub(super) struct Deframer {
    serialization: Serialization,
    limit: usize,
    bytes: BytesMut,
    /// How much of `bytes` has no line end.
    searched: usize,
    skipping: Option<Skipping>,
}

#[derive(Debug)]
struct Skipping {
    size: u64,
    /// Bytes to come. `None`: up to the line's end.
    left: Option<u64>,
}

impl Deframer {
    pub(super) fn new(serialization: Serialization, limit: usize) -> Self {
        Self { serialization, limit, bytes: BytesMut::new(), searched: 0, skipping: None }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a part of a frame was pushed, once there is no whole one left.
    pub(super) fn is_amid_frame(&self) -> bool {
        self.skipping.is_some() || !self.bytes.is_empty()
    }

    pub(super) fn next(&mut self) -> Option<Piece> {
        if let Some(piece) = self.skip() {
            return Some(piece);
        }
        let length = if self.skipping.is_some() { None } else { self.length() };
        let Some(length) = length else {
            // Idle channels hold no memory; there are many.
            if self.bytes.is_empty() {
                self.bytes = BytesMut::new();
            }
            return None;
        };
        self.searched = 0;
        if length > self.limit as u64 {
            self.skipping = Some(Skipping { size: length, left: Some(length) });
            return self.next();
        }
        let length = length as usize;
        if self.bytes.len() < length {
            self.bytes.reserve(length - self.bytes.len());
            return None;
        }
        Some(Piece::Frame(self.bytes.split_to(length).freeze()))
    }

    /// The length of the frame at the front, if that can be told yet.
    fn length(&mut self) -> Option<u64> {
        match self.serialization {
            Serialization::Advanced => {
                let length = self.bytes.first_chunk::<4>()?;
                Some(u64::from(u32::from_be_bytes(*length)) + 4)
            }
            Serialization::Json => {
                if let Some(end) = memchr::memchr(b'\n', &self.bytes[self.searched..]) {
                    return Some((self.searched + end + 1) as u64);
                }
                self.searched = self.bytes.len();
                if self.searched > self.limit {
                    self.skipping = Some(Skipping { size: 0, left: None });
                    self.searched = 0;
                    self.drop_line();
                }
                None
            }
        }
    }

    fn skip(&mut self) -> Option<Piece> {
        let skipping = self.skipping.as_mut()?;
        match &mut skipping.left {
            Some(left) => {
                let now = (*left).min(self.bytes.len() as u64);
                self.bytes.advance(now as usize);
                *left -= now;
                if *left > 0 {
                    return None;
                }
                let size = skipping.size;
                self.skipping = None;
                Some(Piece::TooLong(size))
            }
            None => self.drop_line(),
        }
    }

    fn drop_line(&mut self) -> Option<Piece> {
        let skipping = self.skipping.as_mut()?;
        let end = memchr::memchr(b'\n', &self.bytes);
        let now = end.map_or(self.bytes.len(), |end| end + 1);
        skipping.size += now as u64;
        self.bytes.advance(now);
        end?;
        let size = skipping.size;
        self.skipping = None;
        Some(Piece::TooLong(size))
    }
}
