//! Reads V8's serialized values, as much of them as a message needs: the scalars of an object by name. Everything else
//! is skipped, without recursion and without memory for it, so that a frame of any depth and size is safe to look at.
//! What the names mean is not known here.
//!
//! The format is that of `v8::ValueSerializer`; Node 16 writes version 13 of it, Node 18 and later version 15.

use std::borrow::Cow;

/// How deep a value may be nested. V8's own writer gives up far below.
const MAX_DEPTH: usize = 100_000;

/// A value that is not made of others.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Scalar<'a> {
    /// `null`, `undefined`, or not there at all: nobody here needs to tell them apart.
    #[default]
    Nothing,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, str>),
    /// Something that was skipped.
    Other,
}

/// The bytes are not such a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("byte {at} of the value: {what}")]
pub(super) struct Malformed {
    at: usize,
    what: &'static str,
}

type Result<T> = std::result::Result<T, Malformed>;

/// An open container: what ends it, and how many numbers follow that. `r` (an error) is not a list of values.
#[derive(Debug, Clone, Copy)]
struct Open {
    end: u8,
    trailer: u8,
}

const ERROR_END: u8 = b'.';

#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    version: u64,
}

impl<'a> Reader<'a> {
    /// Reads the header.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Self { bytes, at: 0, version: 0 };
        if reader.byte()? != 0xff {
            return Err(reader.malformed("no version header"));
        }
        reader.version = reader.varint()?;
        Ok(reader)
    }

    /// Begins an object, if that is what comes next; else nothing is read.
    pub(super) fn enter_object(&mut self) -> Result<bool> {
        let object = self.peek()? == b'o';
        if object {
            self.tag()?;
        }
        Ok(object)
    }

    /// The next name of an object that was entered. `None`: it ends. Read or skip the value before the next call.
    pub(super) fn key(&mut self) -> Result<Option<Cow<'a, str>>> {
        if self.peek()? == b'{' {
            self.tag()?;
            self.varint()?;
            return Ok(None);
        }
        match self.scalar()? {
            Scalar::Text(text) => Ok(Some(text)),
            // Array indexes are written as numbers.
            Scalar::Number(number) => Ok(Some(number.to_string().into())),
            _ => Err(self.malformed("a name that is neither text nor number")),
        }
    }

    /// The next value, if it is a scalar; else it is skipped.
    pub(super) fn scalar(&mut self) -> Result<Scalar<'a>> {
        Ok(match self.peek()? {
            b'_' | b'0' => {
                self.tag()?;
                Scalar::Nothing
            }
            tag @ (b'T' | b'F') => {
                self.tag()?;
                Scalar::Bool(tag == b'T')
            }
            b'I' => {
                self.tag()?;
                let raw = self.varint()? as u32;
                Scalar::Number(f64::from((raw >> 1) as i32 ^ -((raw & 1) as i32)))
            }
            b'U' => {
                self.tag()?;
                Scalar::Number(f64::from(self.varint()? as u32))
            }
            b'N' => {
                self.tag()?;
                let bytes = self.take(8)?.try_into().map_err(|_| self.malformed("a short double"))?;
                // The byte order is the writer's own: that of this host.
                Scalar::Number(f64::from_ne_bytes(bytes))
            }
            b'"' | b'c' | b'S' => Scalar::Text(self.text()?),
            _ => {
                self.skip()?;
                Scalar::Other
            }
        })
    }

    /// Steps over the next value, whatever it is.
    pub(super) fn skip(&mut self) -> Result<()> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let ended = match open.last() {
                Some(error) if error.end == ERROR_END => self.skip_error_part(&mut open)?,
                _ => self.skip_part(&mut open)?,
            };
            if ended && open.is_empty() {
                return Ok(());
            }
            if open.len() > MAX_DEPTH {
                return Err(self.malformed("nested too deep"));
            }
        }
    }

    /// One tag and what belongs to it alone. `true`: a value ended with it.
    fn skip_part(&mut self, open: &mut Vec<Open>) -> Result<bool> {
        let tag = self.tag()?;
        if let Some(&Open { trailer, .. }) = open.last().filter(|open| open.end == tag) {
            for _ in 0..trailer {
                self.varint()?;
            }
            open.pop();
            return Ok(true);
        }
        let mut begin = |end, trailer| {
            open.push(Open { end, trailer });
            Ok(false)
        };
        match tag {
            // `-`: a hole in an array.
            b'_' | b'0' | b'T' | b'F' | b'y' | b'x' | b'-' => {}
            b'I' | b'U' => drop(self.varint()?),
            b'N' | b'D' | b'n' => drop(self.take(8)?),
            b'Z' | b'z' => {
                let sign_and_length = self.varint()?;
                self.take_long(sign_and_length >> 1)?;
            }
            b'"' | b'c' | b'S' => {
                let length = self.varint()?;
                self.take_long(length)?;
            }
            b's' => self.skip_text()?,
            b'R' => {
                self.skip_text()?;
                self.varint()?;
            }
            b'o' => return begin(b'{', 1),
            // Of the lists no count is needed: no value begins with the tag that ends one.
            b'a' => {
                self.varint()?;
                return begin(b'@', 2);
            }
            b'A' => {
                self.varint()?;
                return begin(b'$', 2);
            }
            b';' => return begin(b':', 1),
            b'\'' => return begin(b',', 1),
            b'r' => return begin(ERROR_END, 0),
            b'^' | b't' | b'u' | b'p' => {
                self.varint()?;
                self.skip_view()?;
            }
            b'B' => {
                let length = self.varint()?;
                self.take_long(length)?;
                self.skip_view()?;
            }
            b'~' => {
                let length = self.varint()?;
                self.varint()?;
                self.take_long(length)?;
                self.skip_view()?;
            }
            b'\\' => return self.skip_host_object(),
            // A count in front of a value.
            b'?' => {
                self.varint()?;
                return Ok(false);
            }
            _ => return Err(self.malformed("an unknown tag")),
        }
        Ok(true)
    }

    /// One part of an error, whose parts have tags of their own.
    fn skip_error_part(&mut self, open: &mut Vec<Open>) -> Result<bool> {
        match self.byte()? {
            b'E' | b'R' | b'F' | b'S' | b'T' | b'U' => Ok(false),
            b'm' | b's' => self.skip_text().map(|()| false),
            // The cause is a value. What comes back here afterwards is this error's next part.
            b'c' => {
                let depth = open.len();
                // Some tags stand in front of a value.
                while !self.skip_part(open)? && open.len() == depth {}
                Ok(false)
            }
            ERROR_END => {
                open.pop();
                Ok(true)
            }
            _ => Err(self.malformed("an unknown part of an error")),
        }
    }

    /// What Node's own serializer writes: 0 and the bytes of a buffer, or 1 and a plain copy of another object.
    fn skip_host_object(&mut self) -> Result<bool> {
        match self.varint()? {
            0 => {
                self.varint()?;
                let length = self.varint()?;
                self.take_long(length)?;
                Ok(true)
            }
            1 => Ok(false),
            _ => Err(self.malformed("an unknown host object")),
        }
    }

    /// A view follows the buffer it looks at, and is one value with it.
    fn skip_view(&mut self) -> Result<()> {
        // The value may be the last one.
        if !matches!(self.peek(), Ok(b'V')) {
            return Ok(());
        }
        self.tag()?;
        let numbers = if self.version >= 14 { 4 } else { 3 };
        for _ in 0..numbers {
            self.varint()?;
        }
        Ok(())
    }

    fn skip_text(&mut self) -> Result<()> {
        match self.tag()? {
            b'"' | b'c' | b'S' => {
                let length = self.varint()?;
                self.take_long(length).map(drop)
            }
            _ => Err(self.malformed("no text where there must be one")),
        }
    }

    fn text(&mut self) -> Result<Cow<'a, str>> {
        let tag = self.tag()?;
        let length = self.varint()?;
        let bytes = self.take_long(length)?;
        Ok(match tag {
            b'S' => String::from_utf8_lossy(bytes),
            b'"' => match std::str::from_utf8(bytes) {
                Ok(ascii) if ascii.is_ascii() => Cow::Borrowed(ascii),
                _ => bytes.iter().copied().map(char::from).collect::<String>().into(),
            },
            _ => {
                let units: Vec<u16> =
                    bytes.chunks_exact(2).map(|unit| u16::from_ne_bytes([unit[0], unit[1]])).collect();
                String::from_utf16_lossy(&units).into()
            }
        })
    }

    fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.malformed("the end comes too early"))?;
        self.at += 1;
        Ok(byte)
    }

    /// The next tag, past the zeros that align what follows them.
    fn tag(&mut self) -> Result<u8> {
        loop {
            match self.byte()? {
                0 => {}
                tag => return Ok(tag),
            }
        }
    }

    fn peek(&self) -> Result<u8> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        rest.iter().copied().find(|&byte| byte != 0).ok_or_else(|| self.malformed("the end comes too early"))
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number without end"))
    }

    fn take_long(&mut self, length: u64) -> Result<&'a [u8]> {
        self.take(usize::try_from(length).map_err(|_| self.malformed("an impossible length"))?)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length);
        let taken = end
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or_else(|| self.malformed("a length beyond the end"))?;
        self.at += length;
        Ok(taken)
    }
}
