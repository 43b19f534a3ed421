//! Outgoing messages, encoded once: contiguous websocket frames that every recipient of a broadcast shares.

mod memory;

use std::fmt;
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;

use crate::proto::deflate::Forms;
use crate::proto::payload::BASE64;
use crate::proto::payload_v3::MESSAGE;
use memory::Memory;

/// The longest header of an unmasked frame.
const MAX_HEADER: usize = 10;
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
/// The bit that says so (RSV1).
const COMPRESSED: u8 = 0x40;

/// One or more messages (a text and its attachments) that are queued together and stay together on the wire.
///
/// Encoded once, at construction, as contiguous websocket frames. Clones of what is [`shared`](Frames::shared) share them, and
/// polling sends slices of them.
#[derive(Clone)]
pub struct Frames {
    bytes: Memory,
    packets: u32,
    /// Whether compressing it is worth trying.
    compress: bool,
    /// What it was compressed to, for all clones.
    forms: Option<Arc<Forms>>,
}

impl PartialEq for Frames {
    fn eq(&self, other: &Frames) -> bool {
        (&*self.bytes, self.packets, self.compress) == (&*other.bytes, other.packets, other.compress)
    }
}

impl Eq for Frames {}

impl Frames {
    /// A builder for a text message (and its attachments) of about `capacity` bytes.
    #[inline]
    pub fn builder(capacity: usize) -> FramesBuilder {
        FramesBuilder::with_capacity(capacity)
    }

    /// A text message.
    pub fn text(text: &str) -> Frames {
        let mut builder = FramesBuilder::with_capacity(text.len());
        builder.push(text);
        builder.finish()
    }

    /// A binary message.
    pub fn binary(data: &[u8]) -> Frames {
        let mut buf = memory::buffer(MAX_HEADER + data.len());
        put_header(&mut buf, BINARY, data.len());
        buf.extend_from_slice(data);
        Frames { bytes: Memory::new(buf, 0), packets: 1, compress: true, forms: None }
    }

    /// The same, to be sent as it is where the transport would compress it (`compress(false)`): for what is compressed
    /// already, like images.
    #[must_use]
    pub fn without_compression(mut self) -> Frames {
        self.compress = false;
        self.forms = None;
        self
    }

    /// The same, in memory that its clones share. A short message that is not shared is copied for each clone.
    #[must_use]
    pub fn shared(mut self) -> Frames {
        self.bytes = self.bytes.shared();
        self
    }

    /// The same, for many clients: [`shared`](Frames::shared), and its clones, this one included, are compressed once for all
    /// websockets that have agreed on the same parameters without context takeover, when the first of them is sent one. What
    /// it was compressed to is kept for as long as a clone is: at most once per window size, of which there are seven.
    #[must_use]
    pub fn for_many(self) -> Frames {
        let mut shared = self.shared();
        if shared.compress && shared.forms.is_none() {
            shared.forms = Some(Arc::default());
        }
        shared
    }

    /// A text message and the binary messages that belong to it.
    pub fn with_attachments(text: &str, attachments: &[Bytes]) -> Frames {
        let size = attachments.iter().map(|data| data.len() + MAX_HEADER).sum::<usize>();
        let mut builder = FramesBuilder::with_capacity(text.len() + size);
        builder.push(text);
        builder.finish_with(attachments)
    }

    /// All of these as one: they are taken and leave together, or none of them.
    pub fn all(each: impl IntoIterator<Item = Frames>) -> Frames {
        let (mut buf, mut packets) = (Vec::new(), 0);
        for frames in each {
            buf.extend_from_slice(&frames.bytes);
            packets += frames.packets;
        }
        Frames { bytes: Bytes::from(buf).into(), packets, compress: true, forms: None }
    }

    /// How many bytes this is on a websocket.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no message in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many messages this is.
    pub fn packets(&self) -> usize {
        self.packets as usize
    }

    /// The websocket frames.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends `other` if both are short and shared with nobody: they then leave together. Else gives it back.
    pub(crate) fn join(&mut self, other: Frames) -> Option<Frames> {
        let alike = self.compress == other.compress && self.forms.is_none() && other.forms.is_none();
        if alike && self.bytes.join(&other.bytes) {
            self.packets += other.packets;
            return None;
        }
        Some(other)
    }

    /// A packet that is no message, as the text frame it is on a websocket.
    pub(crate) fn control(packet: &str) -> Frames {
        let mut buf = Vec::with_capacity(MAX_HEADER + packet.len());
        put_header(&mut buf, TEXT, packet.len());
        buf.extend_from_slice(packet.as_bytes());
        Frames { bytes: Bytes::from(buf).into(), packets: 1, compress: true, forms: None }
    }

    /// A ready-made websocket frame.
    pub(crate) fn raw(frame: Bytes) -> Frames {
        Frames { bytes: frame.into(), packets: 1, compress: false, forms: None }
    }

    /// As version 3 wants them on a websocket: a binary message begins with its type, or, for a client that takes none, is
    /// text in base64. `None` if there is nothing binary in it.
    pub(crate) fn for_v3(&self, binary: bool) -> Option<Frames> {
        if self.iter().all(|(text, _)| text) {
            return None;
        }
        let mut buf = Vec::with_capacity(self.len() + self.len() / 3 + MAX_HEADER);
        for (text, packet) in self.iter() {
            if text {
                put_header(&mut buf, TEXT, packet.len());
                buf.extend_from_slice(packet);
            } else if binary {
                put_header(&mut buf, BINARY, 1 + packet.len());
                buf.push(MESSAGE);
                buf.extend_from_slice(packet);
            } else {
                let encoded = BASE64.encode(packet);
                put_header(&mut buf, TEXT, 2 + encoded.len());
                buf.extend_from_slice(b"b4");
                buf.extend_from_slice(encoded.as_bytes());
            }
        }
        Some(Frames {
            bytes: Bytes::from(buf).into(),
            packets: self.packets,
            compress: self.compress,
            forms: None,
        })
    }

    /// The same with the packets that `deflate` gives something for replaced and marked as compressed. Only for the wire.
    pub(crate) fn deflated(&self, mut deflate: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Frames {
        let mut buf = Vec::with_capacity(self.len() / 2 + MAX_HEADER);
        for (text, packet) in self.iter() {
            let first = if text { TEXT } else { BINARY };
            match deflate(packet) {
                Some(deflated) => {
                    put_header(&mut buf, first | COMPRESSED, deflated.len());
                    buf.extend_from_slice(&deflated);
                }
                None => {
                    put_header(&mut buf, first, packet.len());
                    buf.extend_from_slice(packet);
                }
            }
        }
        buf.shrink_to_fit();
        Frames { bytes: Bytes::from(buf).into(), packets: self.packets, compress: self.compress, forms: None }
    }

    /// As WebTransport wants it, piece by piece: the same header without its first byte, and with a bit for binary. Text is a
    /// slice, and so is the data of an attachment: many recipients share it. Only for the wire.
    pub(crate) fn unwrapped(&self) -> impl Iterator<Item = Frames> {
        let mut rest: &[u8] = &self.bytes;
        let mut at = 0;
        let mut payload = None;
        std::iter::from_fn(move || {
            let piece = |bytes: Bytes, packets: u32| Frames {
                bytes: bytes.into(),
                packets,
                compress: false,
                forms: None,
            };
            if let Some(data) = payload.take() {
                return Some(piece(data, 1));
            }
            let (text, start, end) = first_frame(rest)?;
            let (begin, from, to) = (at, at + start, at + end);
            rest = &rest[end..];
            at = to;
            if text {
                return Some(piece(self.bytes.slice(begin + 1..to), 1));
            }
            let mut header = self.bytes[begin + 1..from].to_vec();
            header[0] |= 0x80;
            payload = Some(self.bytes.slice(from..to));
            Some(piece(header.into(), 0))
        })
    }

    /// The packets inside: whether it is text, and its bytes (a text's begin with the packet type).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (bool, &[u8])> + Clone {
        let mut rest: &[u8] = &self.bytes;
        std::iter::from_fn(move || {
            let (text, start, end) = first_frame(rest)?;
            let packet = &rest[start..end];
            rest = &rest[end..];
            Some((text, packet))
        })
    }

    /// Whether compressing it is worth trying.
    pub(crate) fn compress(&self) -> bool {
        self.compress
    }

    /// What its clones were compressed to, if they share it.
    pub(crate) fn forms(&self) -> Option<&Forms> {
        self.forms.as_deref()
    }

    /// The bytes of the packet, if there is one only and it is text.
    pub(crate) fn only_text(&self) -> Option<Bytes> {
        match first_frame(&self.bytes)? {
            (true, start, end) if end == self.bytes.len() => Some(self.bytes.slice(start..end)),
            _ => None,
        }
    }
}

/// Kind, start and end of the first frame's payload. Only frames made in this module are ever read here.
fn first_frame(bytes: &[u8]) -> Option<(bool, usize, usize)> {
    let text = *bytes.first()? == TEXT;
    let (start, length) = match *bytes.get(1)? {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        length => (2, length as usize),
    };
    let end = start + length;
    (end <= bytes.len()).then_some((text, start, end))
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("packets", &self.packets).field("bytes", &self.bytes.len()).finish()
    }
}

/// Builds [`Frames`] from a text that is written into it: the frame's header and the packet type get their place
/// before the text, so nothing is copied afterwards.
///
/// What is written must be UTF-8 in the end: clients drop a connection that sends anything else in a text frame.
#[derive(Debug)]
pub struct FramesBuilder {
    buf: Vec<u8>,
}

impl FramesBuilder {
    #[inline(always)]
    fn with_capacity(capacity: usize) -> FramesBuilder {
        let mut buf = memory::buffer(MAX_HEADER + 1 + capacity);
        buf.extend_from_slice(&[0; MAX_HEADER]);
        buf.push(b'4');
        FramesBuilder { buf }
    }

    /// Appends text.
    pub fn push(&mut self, text: &str) {
        self.buf.extend_from_slice(text.as_bytes());
    }

    /// How many bytes of text were written so far.
    pub fn len(&self) -> usize {
        self.buf.len() - MAX_HEADER - 1
    }

    /// Whether no text was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message.
    pub fn finish(self) -> Frames {
        self.finish_with(&[])
    }

    /// The message, followed by the binary messages that belong to it.
    pub fn finish_with(mut self, attachments: &[Bytes]) -> Frames {
        let length = self.buf.len() - MAX_HEADER;
        let mut header = [0; MAX_HEADER];
        let size = header_bytes(&mut header, TEXT, length);
        let start = MAX_HEADER - size;
        self.buf[start..MAX_HEADER].copy_from_slice(&header[..size]);
        for data in attachments {
            put_header(&mut self.buf, BINARY, data.len());
            self.buf.extend_from_slice(data);
        }
        let packets = 1 + attachments.len() as u32;
        Frames { bytes: Memory::new(self.buf, start), packets, compress: true, forms: None }
    }
}

impl io::Write for FramesBuilder {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.buf.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.buf.extend_from_slice(buf);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for FramesBuilder {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

fn put_header(buf: &mut Vec<u8>, first: u8, length: usize) {
    let mut header = [0; MAX_HEADER];
    let size = header_bytes(&mut header, first, length);
    buf.extend_from_slice(&header[..size]);
}

/// Writes an unmasked, final header and returns its size.
fn header_bytes(header: &mut [u8; MAX_HEADER], first: u8, length: usize) -> usize {
    header[0] = first;
    if length < 126 {
        header[1] = length as u8;
        2
    } else if let Ok(length) = u16::try_from(length) {
        header[1] = 126;
        header[2..4].copy_from_slice(&length.to_be_bytes());
        4
    } else {
        header[1] = 127;
        header[2..10].copy_from_slice(&(length as u64).to_be_bytes());
        10
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn every_length_gets_its_header() {
        for length in [0, 1, 124, 125, 126, 65_534, 65_535, 70_000] {
            let text = "x".repeat(length);
            let mut builder = Frames::builder(length);
            builder.write_all(text.as_bytes()).unwrap();
            let frames = builder.finish_with(&[Bytes::from(text.clone())]);
            let packets: Vec<_> = frames.iter().collect();
            assert_eq!(packets.len(), 2);
            assert!(packets[0].0 && !packets[1].0);
            assert_eq!(packets[0].1, format!("4{text}").as_bytes());
            assert_eq!(packets[1].1, text.as_bytes());
            assert_eq!(frames.packets(), 2);
            assert_eq!(frames.only_text(), None);
            assert_eq!(Frames::text(&text).only_text().unwrap(), format!("4{text}"));
        }
    }

    #[test]
    fn version_3_names_the_type_of_binary() {
        assert_eq!(Frames::text("x").for_v3(true), None);
        let frames = Frames::with_attachments("51-[]", &[Bytes::from_static(&[1, 2])]);
        let binary = frames.for_v3(true).unwrap();
        assert_eq!(binary.as_bytes(), b"\x81\x06451-[]\x82\x03\x04\x01\x02");
        let text = frames.for_v3(false).unwrap();
        assert_eq!(text.as_bytes(), b"\x81\x06451-[]\x81\x06b4AQI=");
        assert_eq!(text.packets(), 2);
    }

    #[test]
    fn a_clone_shares_the_bytes() {
        let frames = Frames::text("shared").shared();
        assert_eq!(frames.clone().as_bytes().as_ptr(), frames.as_bytes().as_ptr());
    }

    #[test]
    fn a_message_keeps_its_memory_until_it_is_dropped() {
        let first = Frames::text("first");
        let copy = first.clone();
        let second = Frames::binary(b"second");
        assert_eq!(first.as_bytes(), b"\x81\x064first");
        drop(first);
        let third = Frames::text("the third one");
        assert_eq!(copy.as_bytes(), b"\x81\x064first");
        assert_eq!(second.as_bytes(), b"\x82\x06second");
        assert_eq!(third.as_bytes(), b"\x81\x0e4the third one");
    }
}
