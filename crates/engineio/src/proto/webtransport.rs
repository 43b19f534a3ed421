//! WebTransport: the framing on its one bidirectional stream, and the packet a client opens with. Bytes in, messages out.
//!
//! A frame is a byte that says whether the payload is binary (the highest bit) and how long it is (the others, as in
//! RFC 6455: 126 and 127 announce a length of two and of eight bytes), then the payload. Text begins with the packet type,
//! binary is a message. As engine.io-parser does it; the direction to the client is [`Frames::unwrapped`].
//!
//! [`Frames::unwrapped`]: crate::Frames::unwrapped

use bytes::{Buf, Bytes, BytesMut};

use super::request::MAX_SID;
use super::websocket::Item;

const BINARY: u8 = 0x80;
/// The longest header: the first byte, and eight of length.
const MAX_HEADER: usize = 9;

/// The longest open packet that is read: its type, and an id in JSON.
#[cfg(feature = "webtransport")]
pub(crate) const MAX_OPEN: usize = 256;

/// A frame that cannot be: nothing after it can be read. (In Node a `parse error`, both.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame is empty")]
    Empty,
    #[error("a frame is larger than max_payload")]
    TooBig,
}

/// Splits what a client sends into packets. It owns nothing while no frame is half-read.
#[derive(Debug)]
pub(crate) struct Decoder {
    max: usize,
    rest: Option<Box<Rest>>,
}

/// A frame that has not arrived whole.
#[derive(Debug, Default)]
struct Rest {
    /// The first bytes of its header, until that is whole.
    head: Vec<u8>,
    frame: Option<Frame>,
    /// Its payload so far.
    data: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    binary: bool,
    remaining: usize,
}

impl Decoder {
    /// A decoder for payloads of at most `max` bytes, the type of a text included.
    pub(crate) fn new(max: usize) -> Decoder {
        Decoder { max, rest: None }
    }

    /// The limit from the next frame on.
    #[cfg(feature = "webtransport")]
    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Takes from the front of `input` what belongs to the middle of a half-read payload, and returns how much it
    /// took. A large message is thereby copied once, from the read buffer to its place.
    pub(crate) fn absorb(&mut self, input: &[u8]) -> usize {
        match &mut self.rest {
            // The frame's last byte is left to `decode`, which completes it.
            Some(rest) => match rest.frame {
                Some(frame) if frame.remaining > 1 => {
                    rest.take(&input[..input.len().min(frame.remaining - 1)])
                }
                _ => 0,
            },
            None => 0,
        }
    }

    /// The next packet in `input`, or `None` when more bytes are needed; all of `input` is used up then.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Item>, FrameError> {
        loop {
            let Some(rest) = &mut self.rest else {
                if input.is_empty() {
                    return Ok(None);
                }
                let Some((frame, header)) = parse_header(input, self.max)? else {
                    let rest = self.rest.insert(Box::default());
                    rest.head.extend_from_slice(input);
                    input.clear();
                    return Ok(None);
                };
                input.advance(header);
                if input.len() >= frame.remaining {
                    // The common case: the whole packet is here. No copy.
                    return Ok(Some(frame.item(input.split_to(frame.remaining).freeze())));
                }
                self.rest.insert(Box::default()).frame = Some(frame);
                continue;
            };

            if input.is_empty() {
                return Ok(None);
            }
            let Some(frame) = rest.frame else {
                rest.head.push(input.get_u8());
                if let Some((frame, _)) = parse_header(&rest.head, self.max)? {
                    rest.head = Vec::new();
                    rest.frame = Some(frame);
                }
                continue;
            };
            let taken = rest.take(&input[..input.len().min(frame.remaining)]);
            input.advance(taken);
            if taken == frame.remaining {
                let data = std::mem::take(&mut rest.data);
                self.rest = None;
                return Ok(Some(frame.item(data.into())));
            }
        }
    }
}

impl Rest {
    /// Moves payload bytes to their place.
    fn take(&mut self, part: &[u8]) -> usize {
        let Some(frame) = &mut self.frame else { return 0 };
        // Grows with what really arrives: a header that announces much costs nothing.
        if self.data.capacity() == 0 {
            self.data.reserve_exact(frame.remaining.min(part.len() * 2));
        }
        frame.remaining -= part.len();
        self.data.extend_from_slice(part);
        part.len()
    }
}

impl Frame {
    fn item(self, payload: Bytes) -> Item {
        if self.binary { Item::Binary(payload) } else { Item::Text(payload) }
    }
}

/// The header at the front of `input` and its size; `None` if it is not whole.
fn parse_header(input: &[u8], max: usize) -> Result<Option<(Frame, usize)>, FrameError> {
    let Some((&first, rest)) = input.split_first() else { return Ok(None) };
    let (length, size) = match first & !BINARY {
        126 => match rest.first_chunk() {
            Some(length) => (u64::from(u16::from_be_bytes(*length)), 3),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(length) => (u64::from_be_bytes(*length), MAX_HEADER),
            None => return Ok(None),
        },
        length => (u64::from(length), 1),
    };
    match usize::try_from(length) {
        Ok(0) => Err(FrameError::Empty),
        Ok(remaining) if remaining <= max => {
            Ok(Some((Frame { binary: first & BINARY != 0, remaining }, size)))
        }
        _ => Err(FrameError::TooBig),
    }
}

/// What a client wants of a new stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opening {
    /// A session of its own.
    New,
    /// To move the session of this id here.
    Upgrade(String),
}

/// Reads the first packet of a stream: `0`, or `0{"sid":"..."}`. `None` for anything else, as in Node.
pub(crate) fn opening(item: &Item) -> Option<Opening> {
    let Item::Text(packet) = item else { return None };
    let data = packet.strip_prefix(b"0")?;
    if data.is_empty() {
        return Some(Opening::New);
    }
    let data: serde_json::Value = serde_json::from_slice(data).ok()?;
    let sid = data.get("sid")?.as_str()?;
    (1..=MAX_SID).contains(&sid.len()).then(|| Opening::Upgrade(sid.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frames;

    const MAX: usize = 100_000;

    fn decode(bytes: &[u8], step: usize) -> Result<Vec<Item>, FrameError> {
        let mut decoder = Decoder::new(MAX);
        let mut items = Vec::new();
        for part in bytes.chunks(step) {
            let used = decoder.absorb(part);
            let mut input = BytesMut::from(&part[used..]);
            while let Some(item) = decoder.decode(&mut input)? {
                items.push(item);
            }
            assert!(input.is_empty(), "all is used up");
        }
        assert!(decoder.rest.is_none(), "nothing is kept between frames");
        Ok(items)
    }

    fn text(text: &str) -> Item {
        Item::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let medium = "x".repeat(126);
        let large = vec![7; 65_536];
        let mut wire = b"\x02hi\x7e\x00\x7e".to_vec();
        wire.extend_from_slice(medium.as_bytes());
        wire.extend_from_slice(b"\xff\x00\x00\x00\x00\x00\x01\x00\x00");
        wire.extend_from_slice(&large);
        // A length may be written longer than it has to be.
        wire.extend_from_slice(b"\x81\x00\x7f\x00\x00\x00\x00\x00\x00\x00\x01y\xfe\x00\x01z");
        let expected = vec![
            text("hi"),
            text(&medium),
            Item::Binary(large.into()),
            Item::Binary(Bytes::from_static(&[0])),
            text("y"),
            Item::Binary(Bytes::from_static(b"z")),
        ];
        for step in [1, 2, 3, 5, 100, 1000, 60_000, wire.len()] {
            assert_eq!(decode(&wire, step).as_ref(), Ok(&expected), "in parts of {step}");
        }
    }

    #[test]
    fn what_cannot_be_a_frame_is_refused_before_its_payload_comes() {
        for step in [1, 20] {
            assert_eq!(decode(b"\x00", step), Err(FrameError::Empty));
            assert_eq!(decode(b"\x80", step), Err(FrameError::Empty));
            assert_eq!(decode(b"\x7e\x00\x00", step), Err(FrameError::Empty));
            assert_eq!(decode(b"\xff\x00\x00\x00\x00\x00\x00\x00\x00", step), Err(FrameError::Empty));
            assert_eq!(decode(b"\x7f\x00\x00\x00\x00\x00\x01\x86\xa1", step), Err(FrameError::TooBig));
            assert_eq!(decode(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff", step), Err(FrameError::TooBig));
        }
    }

    #[test]
    fn an_announced_length_costs_nothing() {
        let mut decoder = Decoder::new(usize::MAX);
        let mut input = BytesMut::from(&b"\x7f\x00\xff\xff\xff\xff\xff\xff\xffabc"[..]);
        assert_eq!(decoder.decode(&mut input), Ok(None));
        assert!(decoder.rest.unwrap().data.capacity() < 100);
    }

    #[test]
    fn what_the_server_sends_is_read_the_same() {
        let data = Bytes::from(vec![9; 300]);
        let frames = Frames::with_attachments(&"t".repeat(125), &[data.clone(), Bytes::from_static(&[1])]);
        let wire: Vec<u8> = frames.unwrapped().flat_map(|piece| piece.as_bytes().to_vec()).collect();
        let items = decode(&wire, wire.len()).unwrap();
        let expected = [
            text(&format!("4{}", "t".repeat(125))),
            Item::Binary(data),
            Item::Binary(Bytes::from_static(&[1])),
        ];
        assert_eq!(items, expected);
    }

    #[test]
    fn the_first_packet_opens_or_upgrades() {
        assert_eq!(opening(&text("0")), Some(Opening::New));
        assert_eq!(opening(&text(r#"0{"sid":"abc"}"#)), Some(Opening::Upgrade("abc".into())));
        for bad in ["1", "4hello", "0{}", "0{", r#"0{"sid":1}"#, r#"0{"sid":""}"#, "0null", "0[]", "2probe"] {
            assert_eq!(opening(&text(bad)), None, "{bad}");
        }
        assert_eq!(opening(&text(&format!(r#"0{{"sid":"{}"}}"#, "x".repeat(65)))), None);
        assert_eq!(opening(&Item::Binary(Bytes::from_static(b"0"))), None);
    }
}
