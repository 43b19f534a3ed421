//! Follows a chunked body to its exact end. Strict: what two parsers could read in two ways is refused.

/// The longest chunk extension, in bytes.
const MAX_EXTENSION: u16 = 1024;
/// The longest trailer section, in bytes.
const MAX_TRAILERS: u16 = 8192;

/// What is said of a body that is refused.
pub(crate) const MALFORMED: &str = "a chunk of the body is malformed";

/// Not a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Where in a chunked body we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunked {
    state: State,
    /// Bytes of the extension, or of the trailers, so far.
    count: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size { value: u64, digits: u8 },
    Extension { value: u64 },
    SizeEnd { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    LineStart,
    Line,
    LineEnd,
    LastLf,
    Done,
}

impl Chunked {
    pub(crate) fn new() -> Self {
        Self { state: State::Size { value: 0, digits: 0 }, count: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Goes on with `input`, telling `data` what the body itself is. Returns how many bytes of it belong to this body:
    /// all, unless it ends in between.
    pub(crate) fn feed(&mut self, input: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if let State::Data { left } = self.state {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                data(&input[at..at + take]);
                at += take;
                let left = left - take as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                continue;
            }
            self.state = self.step(input[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match (self.state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == 16 || value >> 60 != 0 {
                    return Err(Malformed);
                }
                let digit = (byte as char).to_digit(16).ok_or(Malformed)?;
                State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { value, digits: 1.. }, b'\r') => State::SizeEnd { value },
            // Space before the semicolon is allowed to some, and read by others as the end of the size.
            (State::Size { value, digits: 1.. }, b';') => {
                self.count = 0;
                State::Extension { value }
            }
            (State::Extension { value }, b'\r') => State::SizeEnd { value },
            (State::Extension { value }, _) if is_text(byte) => {
                self.count(MAX_EXTENSION)?;
                State::Extension { value }
            }
            (State::SizeEnd { value: 0 }, b'\n') => {
                self.count = 0;
                State::LineStart
            }
            (State::SizeEnd { value }, b'\n') => State::Data { left: value },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::LineStart, b'\r') => State::LastLf,
            // A line that goes on in the next one (obs-fold).
            (State::LineStart, b' ' | b'\t') => return Err(Malformed),
            (State::LineStart | State::Line, _) if is_text(byte) => {
                self.count(MAX_TRAILERS)?;
                State::Line
            }
            (State::Line, b'\r') => State::LineEnd,
            (State::LineEnd, b'\n') => State::LineStart,
            (State::LastLf, b'\n') => State::Done,
            _ => return Err(Malformed),
        })
    }

    fn count(&mut self, limit: u16) -> Result<(), Malformed> {
        self.count += 1;
        if self.count > limit { Err(Malformed) } else { Ok(()) }
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], step: usize) -> Result<(usize, Vec<u8>, bool), Malformed> {
        let (mut chunked, mut body, mut used) = (Chunked::new(), Vec::new(), 0);
        for part in input.chunks(step) {
            let taken = chunked.feed(part, |data| body.extend_from_slice(data))?;
            used += taken;
            if taken < part.len() {
                break;
            }
        }
        Ok((used, body, chunked.is_done()))
    }

    #[test]
    fn it_ends_exactly_at_its_end_however_it_is_cut() {
        let body = b"5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n000\r\nTrailer: 1\r\n\r\n";
        let mut input = body.to_vec();
        input.extend_from_slice(b"GET / HTTP/1.1\r\n");
        for step in 1..input.len() {
            assert_eq!(
                all(&input, step),
                Ok((body.len(), b"hello0123456789".to_vec(), true)),
                "cut by {step}"
            );
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for bad in [
            &b"\r\n"[..],
            b"5\nhello",
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 5\r\nhello",
            b"5\r\nhello5",
            b"5\r\nhello\n",
            b"5;a\rb\r\n",
            b"5;a\nhello",
            b"0\r\nA: b\n\r\n",
            b"11111111111111111\r\n",
            b"FFFFFFFFFFFFFFFF1\r\n",
            b"0\r\n\n",
        ] {
            assert_eq!(all(bad, 64), Err(Malformed), "{:?}", String::from_utf8_lossy(bad));
        }
        let long = [b"1;".to_vec(), vec![b'a'; 2000]].concat();
        assert_eq!(all(&long, 64), Err(Malformed));
        let long = [b"0\r\n".to_vec(), b"A: b\r\n".repeat(3000)].concat();
        assert_eq!(all(&long, 64), Err(Malformed));
    }
}
