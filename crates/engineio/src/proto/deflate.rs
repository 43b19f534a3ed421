//! permessage-deflate (RFC 7692), server side: what is agreed on in the handshake, and messages in and out.
//!
//! Unless context takeover is asked for, every message is compressed by itself, and the compressor and decompressor are
//! those of the thread: a session holds no memory for it. A broadcast is then compressed once for all who have agreed on
//! the same.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use parking_lot::Mutex;

use super::websocket::Violation;
use crate::{Frames, PerMessageDeflate};

/// The end of every flushed block, which is not sent.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// The largest window there is; it reads what any smaller one wrote.
const MAX_WINDOW: u8 = 15;
/// zlib has no raw stream with a smaller one.
const MIN_WINDOW: u8 = 9;

thread_local! {
    /// By window, from the smallest on.
    static COMPRESSORS: RefCell<[Option<(u32, Compress)>; 7]> = RefCell::default();
    static DECOMPRESSOR: RefCell<Option<Decompress>> = RefCell::default();
}

/// What both sides have agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// The window messages to the client are compressed with, as a power of two.
    window: u8,
    /// Whether the client has named one: the answer then has to.
    window_named: bool,
    /// Whether messages to the client build on those before.
    own_takeover: bool,
    /// Whether the client's may.
    client_takeover: bool,
}

/// The first offer that can be agreed to, of all `Sec-WebSocket-Extensions` headers.
pub(crate) fn agree<'a>(
    offers: impl Iterator<Item = &'a str>,
    options: &PerMessageDeflate,
) -> Option<Agreed> {
    offers.flat_map(|value| value.split(',')).find_map(|offer| agree_to(offer, options))
}

fn agree_to(offer: &str, options: &PerMessageDeflate) -> Option<Agreed> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let mut seen: Vec<&str> = Vec::new();
    let mut agreed = Agreed {
        window: options.window_bits.clamp(MIN_WINDOW, MAX_WINDOW),
        window_named: false,
        own_takeover: options.context_takeover,
        client_takeover: options.context_takeover,
    };
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value.trim().trim_matches('"'))),
            None => (part, None),
        };
        // An offer with a parameter that is unknown, twice there or out of range has to be declined.
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            ("server_no_context_takeover", None) => agreed.own_takeover = false,
            ("client_no_context_takeover", None) => agreed.client_takeover = false,
            ("server_max_window_bits", Some(value)) => {
                agreed.window = agreed.window.min(window(value)?);
                agreed.window_named = true;
            }
            // Whatever the client compresses with can be read.
            ("client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(value)) => {
                _ = value.parse::<u8>().ok().filter(|bits| (8..=15).contains(bits))?
            }
            _ => return None,
        }
    }
    Some(agreed)
}

fn window(value: &str) -> Option<u8> {
    // One of 8 is legal, but zlib has none: such an offer is declined.
    value.parse().ok().filter(|bits| (MIN_WINDOW..=MAX_WINDOW).contains(bits))
}

impl Agreed {
    /// The header that says so.
    pub(crate) fn header(&self) -> String {
        let mut header = "permessage-deflate".to_owned();
        if !self.own_takeover {
            header.push_str("; server_no_context_takeover");
        }
        if !self.client_takeover {
            header.push_str("; client_no_context_takeover");
        }
        // RFC 7692 §7.1.2.1: an offer that names one is accepted by naming one, the largest too.
        if self.window_named || self.window < MAX_WINDOW {
            header.push_str(&format!("; server_max_window_bits={}", self.window));
        }
        header
    }
}

/// What the outcome depends on, where no message builds on those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parameters {
    threshold: usize,
    level: u32,
    window: u8,
}

/// How many forms are kept: with the options of one engine there are no more than windows.
const MOST_FORMS: usize = (MAX_WINDOW - MIN_WINDOW) as usize + 1;

/// What one message was compressed to, for all its recipients. `None`: it is sent as it is.
#[derive(Debug, Default)]
pub(crate) struct Forms(Mutex<Vec<(Parameters, Option<Frames>)>>);

impl Forms {
    /// The form for these parameters; `make` makes it, while others that want one wait rather than make it again.
    fn get(&self, parameters: Parameters, make: impl FnOnce() -> Option<Frames>) -> Option<Frames> {
        let mut forms = self.0.lock();
        if let Some((_, form)) = forms.iter().find(|(others, _)| *others == parameters) {
            return form.clone();
        }
        let form = make();
        if forms.len() < MOST_FORMS {
            forms.push((parameters, form.clone()));
        }
        form
    }
}

/// Compresses what goes to one client.
#[derive(Debug)]
pub(crate) struct Deflater {
    parameters: Parameters,
    /// With context takeover.
    own: Option<Box<Compress>>,
}

impl Deflater {
    pub(crate) fn new(agreed: Agreed, options: &PerMessageDeflate) -> Deflater {
        let parameters =
            Parameters { threshold: options.threshold, level: options.level.min(9), window: agreed.window };
        let mut deflater = Deflater { parameters, own: None };
        if agreed.own_takeover {
            deflater.own = Some(Box::new(deflater.compressor()));
        }
        deflater
    }

    fn compressor(&self) -> Compress {
        let Parameters { level, window, .. } = self.parameters;
        Compress::new_with_window_bits(Compression::new(level), false, window)
    }

    /// The same with large messages compressed; `None` if it can be sent as it is.
    pub(crate) fn frames(&mut self, frames: &Frames) -> Option<Frames> {
        let threshold = self.parameters.threshold.max(1);
        if !frames.compress() || frames.iter().all(|(_, packet)| packet.len() < threshold) {
            return None;
        }
        match frames.forms() {
            Some(forms) if self.own.is_none() => {
                forms.get(self.parameters, || self.deflated(frames, threshold))
            }
            _ => self.deflated(frames, threshold),
        }
    }

    fn deflated(&mut self, frames: &Frames, threshold: usize) -> Option<Frames> {
        Some(frames.deflated(|packet| (packet.len() >= threshold).then(|| self.message(packet))?))
    }

    fn message(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        if let Some(own) = &mut self.own {
            // What it has seen counts for the messages to come, so it is sent even if it did not become smaller.
            return deflate(own, message);
        }
        let Parameters { level, window, .. } = self.parameters;
        let slot = usize::from(window - MIN_WINDOW);
        let deflated = COMPRESSORS.with_borrow_mut(|compressors| {
            let compressor = match &mut compressors[slot] {
                Some((of, compressor)) if *of == level => compressor,
                other => &mut other.insert((level, self.compressor())).1,
            };
            compressor.reset();
            deflate(compressor, message)
        });
        deflated.filter(|deflated| deflated.len() < message.len())
    }
}

fn deflate(compressor: &mut Compress, message: &[u8]) -> Option<Vec<u8>> {
    let start = compressor.total_in();
    let mut deflated = Vec::with_capacity(message.len() / 2 + 64);
    loop {
        let read = usize::try_from(compressor.total_in() - start).ok()?;
        // It does not fail: the state is sound and there is room.
        compressor.compress_vec(&message[read..], &mut deflated, FlushCompress::Sync).ok()?;
        let read = usize::try_from(compressor.total_in() - start).ok()?;
        if read == message.len() && deflated.len() < deflated.capacity() {
            break;
        }
        deflated.reserve(deflated.capacity());
    }
    if deflated.ends_with(&TAIL) {
        deflated.truncate(deflated.len() - TAIL.len());
    }
    Some(deflated)
}

/// Reads what one client has compressed.
#[derive(Debug)]
pub(crate) struct Inflater {
    /// With context takeover.
    own: Option<Box<Decompress>>,
}

impl Inflater {
    pub(crate) fn new(agreed: Agreed) -> Inflater {
        Inflater { own: agreed.client_takeover.then(|| Box::new(Decompress::new(false))) }
    }

    /// A message of at most `max` bytes. It is never inflated further than that.
    pub(crate) fn message(&mut self, message: &[u8], max: usize) -> Result<Bytes, Violation> {
        if let Some(own) = &mut self.own {
            return inflate(own, message, max);
        }
        DECOMPRESSOR.with_borrow_mut(|slot| {
            let decompressor = slot.get_or_insert_with(|| Decompress::new(false));
            decompressor.reset(false);
            inflate(decompressor, message, max)
        })
    }
}

fn inflate(decompressor: &mut Decompress, message: &[u8], max: usize) -> Result<Bytes, Violation> {
    let limit = max.saturating_add(1);
    let mut plain = Vec::with_capacity(message.len().saturating_mul(3).clamp(64, limit.max(64)));
    'input: for mut input in [message, &TAIL] {
        loop {
            let before = decompressor.total_in();
            let status = decompressor
                .decompress_vec(input, &mut plain, FlushDecompress::Sync)
                .map_err(|_| Violation::Deflate)?;
            input = &input
                [usize::try_from(decompressor.total_in() - before).unwrap_or(input.len()).min(input.len())..];
            if plain.len() > max {
                return Err(Violation::TooBig);
            }
            if status == Status::StreamEnd {
                // A peer may end its stream; its next message begins another.
                decompressor.reset(false);
                break 'input;
            }
            if plain.len() < plain.capacity() {
                // All that is there was read, or nothing more can be.
                if input.is_empty() {
                    break;
                }
                return Err(Violation::Deflate);
            }
            plain.reserve(plain.capacity().min(limit.saturating_sub(plain.len())).max(64));
        }
    }
    // What was reserved too much would be kept for as long as the message is.
    plain.shrink_to_fit();
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(context_takeover: bool) -> PerMessageDeflate {
        PerMessageDeflate { context_takeover, ..PerMessageDeflate::default() }
    }

    fn header(offer: &str, takeover: bool) -> Option<String> {
        agree([offer].into_iter(), &options(takeover)).map(|agreed| agreed.header())
    }

    #[test]
    fn offers_are_agreed_to() {
        let none =
            Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned());
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "x-webkit-deflate-frame, permessage-deflate;client_max_window_bits=\"10\"",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; unknown, permessage-deflate",
        ] {
            assert_eq!(header(offer, false), none, "{offer}");
        }
        assert_eq!(header("permessage-deflate", true).as_deref(), Some("permessage-deflate"));
        let offer = "permessage-deflate; server_max_window_bits=10; client_no_context_takeover";
        let answer = "permessage-deflate; client_no_context_takeover; server_max_window_bits=10";
        assert_eq!(header(offer, true).as_deref(), Some(answer));
    }

    #[test]
    fn a_window_that_is_offered_is_named_in_the_answer() {
        let offer = "permessage-deflate; server_max_window_bits=15";
        assert_eq!(header(offer, true).as_deref(), Some(offer));
    }

    #[test]
    fn offers_that_cannot_be_kept_are_declined() {
        for offer in [
            "",
            "permessage-bzip",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        ] {
            assert_eq!(header(offer, true), None, "{offer}");
        }
    }

    fn pair(takeover: bool, window: u8) -> (Deflater, Inflater) {
        let options = PerMessageDeflate { window_bits: window, ..options(takeover) };
        let agreed = agree(["permessage-deflate"].into_iter(), &options).unwrap();
        (Deflater::new(agreed, &options), Inflater::new(agreed))
    }

    /// The payload of the only frame, and whether it is compressed.
    fn payload(frames: &Frames) -> (bool, Vec<u8>) {
        let bytes = frames.as_bytes();
        let start = match bytes[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        (bytes[0] & 0x40 != 0, bytes[start..].to_vec())
    }

    #[test]
    fn messages_survive_with_and_without_takeover_in_every_window() {
        for takeover in [false, true] {
            for window in MIN_WINDOW..=MAX_WINDOW {
                let (mut deflater, mut inflater) = pair(takeover, window);
                let mut sizes = Vec::new();
                for size in [1500, 1500, 70_000] {
                    let text: String = (0..size)
                        .map(|at: u32| char::from(b'a' + (at.wrapping_mul(2_654_435_761) >> 28) as u8))
                        .collect();
                    let frames = deflater.frames(&Frames::text(&text)).unwrap();
                    let (compressed, payload) = payload(&frames);
                    assert!(compressed && payload.len() < text.len());
                    sizes.push(payload.len());
                    let plain = inflater.message(&payload, 100_000).unwrap();
                    assert_eq!(&plain[..], format!("4{text}").as_bytes());
                }
                match takeover {
                    true => assert!(window < 12 || sizes[1] * 2 < sizes[0], "{sizes:?} {window}"),
                    false => assert_eq!(sizes[0], sizes[1]),
                }
            }
        }
    }

    #[test]
    fn small_and_marked_messages_stay_as_they_are() {
        let (mut deflater, _) = pair(false, 15);
        assert_eq!(deflater.frames(&Frames::text(&"x".repeat(1000))), None);
        assert_eq!(deflater.frames(&Frames::text(&"x".repeat(2000)).without_compression()), None);
        let mixed = Frames::with_attachments("51-[]", &[Bytes::from(vec![0; 5000])]);
        let deflated = deflater.frames(&mixed).unwrap();
        assert!(deflated.as_bytes().starts_with(b"\x81\x06451-[]\xc2"), "only the large one");
        assert!(deflated.len() < 100);
        assert_eq!(deflated.packets(), 2);
    }

    #[test]
    fn a_broadcast_is_compressed_once_for_all_who_agreed_on_the_same() {
        let text = "again and again ".repeat(200);
        let frames = Frames::text(&text).for_many();
        let address = |takeover, window| {
            let (mut deflater, mut inflater) = pair(takeover, window);
            let deflated = deflater.frames(&frames.clone()).unwrap();
            let (compressed, payload) = payload(&deflated);
            assert!(compressed);
            assert_eq!(inflater.message(&payload, 10_000).unwrap(), format!("4{text}"));
            // Kept, so that no two are at one place after another.
            let address = deflated.as_bytes().as_ptr();
            std::mem::forget(deflated);
            address
        };
        let first = address(false, 15);
        assert_eq!(address(false, 15), first);
        let small = address(false, 9);
        assert!(small != first && address(false, 9) == small && address(false, 15) == first);
        // What builds on the messages before is for one client alone.
        assert!(address(true, 15) != address(true, 15));
        // Those who ask for none share the original.
        assert!(pair(false, 15).0.frames(&frames.clone().without_compression()).is_none());
        let mut other = Deflater::new(
            agree(["permessage-deflate"].into_iter(), &options(false)).unwrap(),
            &PerMessageDeflate { level: 9, ..options(false) },
        );
        assert!(other.frames(&frames).unwrap().as_bytes().as_ptr() != first);
    }

    #[test]
    fn forms_are_bounded() {
        let frames = Frames::text(&"again and again ".repeat(200)).for_many();
        for threshold in 0..100 {
            let options = PerMessageDeflate { threshold, ..options(false) };
            let agreed = agree(["permessage-deflate"].into_iter(), &options).unwrap();
            assert!(Deflater::new(agreed, &options).frames(&frames).is_some());
        }
        assert_eq!(frames.forms().unwrap().0.lock().len(), MOST_FORMS);
    }

    #[test]
    fn noise_is_not_made_larger() {
        let (mut deflater, _) = pair(false, 15);
        let mut noise = vec![0; 4000];
        getrandom::fill(&mut noise).unwrap();
        let frames = deflater.frames(&Frames::binary(&noise)).unwrap();
        assert_eq!(payload(&frames), (false, noise));
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        for takeover in [false, true] {
            let (mut deflater, mut inflater) = pair(takeover, 15);
            let frames = deflater.frames(&Frames::binary(&vec![0; 10_000_000])).unwrap();
            let (_, payload) = payload(&frames);
            assert!(payload.len() < 20_000);
            assert_eq!(inflater.message(&payload, 1_000_000), Err(Violation::TooBig));
        }
        let (mut deflater, mut inflater) = pair(false, 15);
        let frames = deflater.frames(&Frames::binary(&vec![0; 5000])).unwrap();
        assert_eq!(inflater.message(&payload(&frames).1, 5000).unwrap().len(), 5000);
        assert_eq!(inflater.message(&payload(&frames).1, 4999), Err(Violation::TooBig));
    }

    #[test]
    fn what_is_broken_is_told_and_harms_no_later_message() {
        let (mut deflater, mut inflater) = pair(false, 15);
        for broken in [&[0xff; 20][..], &[0x07], b"\x06\xff\xff\xff"] {
            assert_eq!(inflater.message(broken, 1000), Err(Violation::Deflate), "{broken:?}");
        }
        // RFC 7692 §7.2.3: an empty message, stored blocks, and a stream that is ended.
        assert_eq!(inflater.message(&[0], 10).unwrap(), "");
        assert_eq!(inflater.message(b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", 10).unwrap(), "Hello");
        assert_eq!(inflater.message(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", 10).unwrap(), "Hello");
        let frames = deflater.frames(&Frames::binary(&[7; 2000])).unwrap();
        assert_eq!(&inflater.message(&payload(&frames).1, 2000).unwrap()[..], [7; 2000]);
    }

    #[test]
    fn a_context_is_taken_over_as_the_rfc_shows_it() {
        let (_, mut inflater) = pair(true, 15);
        assert_eq!(inflater.message(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 10).unwrap(), "Hello");
        assert_eq!(inflater.message(&[0xf2, 0x00, 0x11, 0x00, 0x00], 10).unwrap(), "Hello");
    }
}
