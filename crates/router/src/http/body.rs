//! Where a body ends, request's or response's.

use super::chunked::{Chunked, Malformed};

/// What of a body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// So many bytes. 0: nothing.
    Length(u64),
    Chunked(Chunked),
    /// All until the connection ends. Responses only.
    UntilEnd,
}

impl Body {
    pub(crate) const NONE: Self = Self::Length(0);

    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::UntilEnd => false,
        }
    }

    /// Goes on with `input`; returns how many bytes of it belong to this body. `data` is told what a chunked body is
    /// without its chunks, or the bytes themselves of any other.
    pub(crate) fn feed(&mut self, input: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        match self {
            Self::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= take as u64;
                data(&input[..take]);
                Ok(take)
            }
            Self::Chunked(chunked) => chunked.feed(input, data),
            Self::UntilEnd => {
                data(input);
                Ok(input.len())
            }
        }
    }
}
