//! WebSocket framing (RFC 6455), server side: bytes in, messages out.
//!
//! The decoder owns nothing while no frame is half-read, and what it owns then is plain data, so a session can be
//! exported between any two bytes.

use bytes::{Buf, Bytes, BytesMut};

use super::deflate::Inflater;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Bits of a header's first byte, and of its second (RFC 6455, 5.2).
const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;
const MASKED: u8 = 0x80;
/// The longest payload of a control frame.
const MAX_CONTROL: usize = 125;

/// A close frame without a code: what Node sends, and clients see as 1005.
pub(crate) const CLOSE: Bytes = Bytes::from_static(&[0x88, 0]);

/// What the peer sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A whole text message. Not checked for UTF-8 yet.
    Text(Bytes),
    /// A whole binary message.
    Binary(Bytes),
    /// A ping, to be answered with [`pong`].
    Ping(Bytes),
    /// A pong.
    Pong,
    /// A close frame, with the code that answers it.
    Close(Option<u16>),
}

/// A broken rule, and the close code it is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("a frame of the client is not masked")]
    Unmasked,
    #[error("reserved bits or an unknown opcode: no extension was agreed on")]
    Reserved,
    #[error("a control frame is fragmented or longer than 125 bytes")]
    Control,
    #[error("a continuation without a beginning, or a new message inside another")]
    Fragmentation,
    #[error("a message is larger than max_payload")]
    TooBig,
    #[error("a text message is not UTF-8")]
    Utf8,
    #[error("a compressed message cannot be decompressed")]
    Deflate,
}

impl Violation {
    /// The frame that tells the peer.
    pub(crate) fn close_frame(self) -> Bytes {
        close(match self {
            Violation::TooBig => 1009,
            Violation::Utf8 | Violation::Deflate => 1007,
            _ => 1002,
        })
    }
}

/// A close frame with a code.
pub(crate) fn close(code: u16) -> Bytes {
    let [high, low] = code.to_be_bytes();
    Bytes::copy_from_slice(&[0x88, 2, high, low])
}

/// A pong with the ping's payload.
pub(crate) fn pong(payload: &[u8]) -> Bytes {
    let length = payload.len().min(MAX_CONTROL);
    let mut frame = Vec::with_capacity(2 + length);
    frame.extend_from_slice(&[0x8a, length as u8]);
    frame.extend_from_slice(&payload[..length]);
    frame.into()
}

/// Splits what a client sends into messages and control frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    max: usize,
    /// For compressed messages, if that was agreed on.
    inflater: Option<Box<Inflater>>,
    rest: Option<Box<Rest>>,
}

/// A frame or message that has not arrived whole.
#[derive(Debug, Default)]
struct Rest {
    /// The first bytes of a header.
    head: Vec<u8>,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// Payload of that frame, if it is a control frame.
    control: Vec<u8>,
    /// Whether a fragmented message has begun, and whether it is text.
    message: Option<bool>,
    /// Whether that message is compressed.
    compressed: bool,
    /// The data of that message so far.
    data: Vec<u8>,
}

impl Rest {
    fn is_nothing(&self) -> bool {
        self.head.is_empty() && self.frame.is_none() && self.message.is_none()
    }
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    last: bool,
    compressed: bool,
    opcode: OpCode,
    mask: [u8; 4],
    remaining: usize,
}

impl Decoder {
    /// A decoder for messages of at most `max` bytes.
    pub(crate) fn new(max: usize) -> Decoder {
        Decoder { max, inflater: None, rest: None }
    }

    /// The same, with compressed messages.
    pub(crate) fn inflating(max: usize, inflater: Inflater) -> Decoder {
        Decoder { inflater: Some(Box::new(inflater)), ..Decoder::new(max) }
    }

    /// What is half-read, as bytes that bring another decoder to the same place: the message so far as one fragment, then
    /// the frame that is being read, announced by what it still lacks.
    pub(crate) fn half_read(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Some(rest) = &self.rest else { return bytes };
        let begins = |frame: &Frame| matches!(frame.opcode, OpCode::Data(Data::Text | Data::Binary));
        let mut put = |last: bool, opcode: OpCode, mask: [u8; 4], length: usize, payload: &[u8]| {
            let header = FrameHeader { is_final: last, opcode, mask: Some(mask), ..FrameHeader::default() };
            // Into memory: it cannot fail.
            let _ = header.format(length as u64, &mut bytes);
            bytes.extend_from_slice(payload);
        };
        // A frame of which no payload has come begins its message by itself.
        let whole = rest.frame.is_some_and(|frame| begins(&frame) && rest.data.is_empty());
        if let Some(text) = rest.message.filter(|_| !whole) {
            let kind = if text { Data::Text } else { Data::Binary };
            put(false, OpCode::Data(kind), [0; 4], rest.data.len(), &rest.data);
        }
        match rest.frame {
            Some(frame @ Frame { opcode: OpCode::Control(_), mask, .. }) => {
                let mut first = mask;
                first.rotate_right(rest.control.len() % 4);
                let mut payload = rest.control.clone();
                unmask(&mut payload, first);
                put(frame.last, frame.opcode, first, payload.len() + frame.remaining, &payload);
            }
            Some(frame) => {
                let opcode = if whole { frame.opcode } else { OpCode::Data(Data::Continue) };
                put(frame.last, opcode, frame.mask, frame.remaining, &[]);
            }
            None => {}
        }
        bytes.extend_from_slice(&rest.head);
        bytes
    }

    /// Whether nothing is half-read.
    pub(crate) fn is_idle(&self) -> bool {
        self.rest.is_none()
    }

    /// Takes from the front of `input` what belongs to the middle of a half-read payload, and returns how much it
    /// took. A large message is thereby copied once, from the read buffer to its place.
    pub(crate) fn absorb(&mut self, input: &mut [u8]) -> usize {
        match &mut self.rest {
            // The frame's last byte is left to `decode`, which completes it.
            Some(rest) => match rest.frame {
                Some(frame) if frame.remaining > 1 => rest.take(input.len().min(frame.remaining - 1), input),
                _ => 0,
            },
            None => 0,
        }
    }

    /// The next item in `input`, or `None` when more bytes are needed; all of `input` is used up then.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Item>, Violation> {
        let deflate = self.inflater.is_some();
        loop {
            let Some(rest) = &mut self.rest else {
                if input.is_empty() {
                    return Ok(None);
                }
                let Some((frame, header)) = parse_header(input, deflate)? else {
                    let rest = self.rest.insert(Box::default());
                    rest.head.extend_from_slice(input);
                    input.clear();
                    return Ok(None);
                };
                frame.check(None, 0, self.max)?;
                input.advance(header);
                if frame.last && input.len() >= frame.remaining {
                    // The common case: the whole message is here. No copy; and what is alone in its memory is not made to
                    // share it.
                    let mut payload = match input.len() == frame.remaining {
                        true => std::mem::take(input),
                        false => input.split_to(frame.remaining),
                    };
                    unmask(&mut payload, frame.mask);
                    let item = frame.item(payload.freeze())?;
                    return self.plain(item, frame.compressed).map(Some);
                }
                let rest = self.rest.insert(Box::default());
                rest.begin(frame);
                continue;
            };

            let Some(frame) = rest.frame else {
                if input.is_empty() {
                    if rest.is_nothing() {
                        self.rest = None;
                    }
                    return Ok(None);
                }
                // Byte by byte: at most a header, and only when a read ended inside one or a message is fragmented.
                rest.head.push(input.get_u8());
                if let Some((frame, _)) = parse_header(&rest.head, deflate)? {
                    frame.check(rest.message, rest.data.len(), self.max)?;
                    rest.head = Vec::new();
                    rest.begin(frame);
                }
                continue;
            };

            let count = input.len().min(frame.remaining);
            let taken = rest.take(count, input);
            input.advance(taken);
            if rest.frame.is_some_and(|frame| frame.remaining > 0) {
                return Ok(None);
            }
            if let Some(item) = rest.complete(frame)? {
                let compressed = rest.compressed && matches!(item, Item::Text(_) | Item::Binary(_));
                if rest.is_nothing() {
                    self.rest = None;
                }
                return self.plain(item, compressed).map(Some);
            }
        }
    }

    /// A message as it was before it was compressed.
    #[inline(always)]
    fn plain(&mut self, item: Item, compressed: bool) -> Result<Item, Violation> {
        if compressed { self.inflated(item) } else { Ok(item) }
    }

    fn inflated(&mut self, item: Item) -> Result<Item, Violation> {
        let Some(inflater) = &mut self.inflater else { return Ok(item) };
        Ok(match item {
            Item::Text(data) => Item::Text(inflater.message(&data, self.max)?),
            Item::Binary(data) => Item::Binary(inflater.message(&data, self.max)?),
            other => other,
        })
    }
}

impl Rest {
    fn begin(&mut self, frame: Frame) {
        if let OpCode::Data(kind @ (Data::Text | Data::Binary)) = frame.opcode {
            self.message = Some(kind == Data::Text);
            self.compressed = frame.compressed;
        }
        self.frame = Some(frame);
    }

    /// Moves `count` payload bytes from the front of `input` to their place.
    fn take(&mut self, count: usize, input: &mut [u8]) -> usize {
        let Some(frame) = &mut self.frame else { return 0 };
        let part = &mut input[..count];
        unmask(part, frame.mask);
        frame.mask.rotate_left(count % 4);
        frame.remaining -= count;
        match frame.opcode {
            OpCode::Control(_) => self.control.extend_from_slice(part),
            OpCode::Data(_) => {
                // Grows with what really arrives: a header that announces much costs nothing.
                if self.data.capacity() == 0 {
                    self.data.reserve_exact((count + frame.remaining).min(count * 2));
                }
                self.data.extend_from_slice(part);
            }
        }
        count
    }

    fn complete(&mut self, frame: Frame) -> Result<Option<Item>, Violation> {
        self.frame = None;
        match frame.opcode {
            OpCode::Control(_) => frame.item(std::mem::take(&mut self.control).into()).map(Some),
            OpCode::Data(_) if !frame.last => Ok(None),
            OpCode::Data(_) => {
                let data = std::mem::take(&mut self.data).into();
                Ok(Some(if self.message.take() == Some(true) {
                    Item::Text(data)
                } else {
                    Item::Binary(data)
                }))
            }
        }
    }
}

impl Frame {
    /// `message`: whether a fragmented message has begun; `read`: how much of it there is.
    fn check(&self, message: Option<bool>, read: usize, max: usize) -> Result<(), Violation> {
        match self.opcode {
            OpCode::Control(_) if !self.last || self.remaining > MAX_CONTROL => Err(Violation::Control),
            OpCode::Control(_) => Ok(()),
            OpCode::Data(kind) if (kind == Data::Continue) != message.is_some() => {
                Err(Violation::Fragmentation)
            }
            OpCode::Data(_) if self.remaining > max.saturating_sub(read) => Err(Violation::TooBig),
            OpCode::Data(_) => Ok(()),
        }
    }

    fn item(&self, payload: Bytes) -> Result<Item, Violation> {
        Ok(match self.opcode {
            OpCode::Data(Data::Text) => Item::Text(payload),
            OpCode::Data(_) => Item::Binary(payload),
            OpCode::Control(Control::Ping) => Item::Ping(payload),
            OpCode::Control(Control::Pong) => Item::Pong,
            OpCode::Control(_) => match *payload {
                [] => Item::Close(None),
                [_] => return Err(Violation::Control),
                [high, low, ref reason @ ..] => {
                    std::str::from_utf8(reason).map_err(|_| Violation::Utf8)?;
                    match u16::from_be_bytes([high, low]) {
                        code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Item::Close(Some(code)),
                        _ => return Err(Violation::Control),
                    }
                }
            },
        })
    }
}

/// The header at the front of `input` and its size; `None` if it is not whole.
fn parse_header(input: &[u8], deflate: bool) -> Result<Option<(Frame, usize)>, Violation> {
    let &[first, second, ref rest @ ..] = input else { return Ok(None) };
    let opcode = OpCode::from(first & 0x0f);
    if matches!(opcode, OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_))) {
        return Err(Violation::Reserved);
    }
    // Only the first frame of a message says whether it is compressed.
    let may = deflate && matches!(opcode, OpCode::Data(Data::Text | Data::Binary));
    let compressed = first & RSV1 != 0;
    if compressed && !may || first & (RSV2 | RSV3) != 0 {
        return Err(Violation::Reserved);
    }
    if second & MASKED == 0 {
        return Err(Violation::Unmasked);
    }
    let (length, rest) = match (second & !MASKED, rest) {
        (126, &[a, b, ref rest @ ..]) => (u64::from(u16::from_be_bytes([a, b])), rest),
        (127, &[a, b, c, d, e, f, g, h, ref rest @ ..]) => {
            (u64::from_be_bytes([a, b, c, d, e, f, g, h]), rest)
        }
        (126 | 127, _) => return Ok(None),
        (length, rest) => (u64::from(length), rest),
    };
    let &[a, b, c, d, ref payload @ ..] = rest else { return Ok(None) };
    let remaining = usize::try_from(length).unwrap_or(usize::MAX);
    let frame = Frame { last: first & FIN != 0, compressed, opcode, mask: [a, b, c, d], remaining };
    Ok(Some((frame, input.len() - payload.len())))
}

/// XORs `data` with the mask, eight bytes at a time.
fn unmask(data: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = data.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    let (halves, tail) = tail.as_chunks_mut::<4>();
    for half in halves {
        *half = (u32::from_ne_bytes(*half) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
