//! The arguments of an event or an acknowledgement: raw as they came, typed on demand.

use std::fmt;

use bytes::Bytes;
use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sundew_engineio::Text;

use super::binary::Wrap;
use super::decode::skip_space;
use super::{Packet, detach};

/// The arguments of an event or an acknowledgement, as they came: nothing is parsed until [`decode`](Args::decode).
///
/// As an extractor it takes whatever was sent; as something to emit it sends the same again, without parsing it.
#[derive(Clone)]
pub struct Args {
    text: Text,
    /// Where the JSON array starts in `text`; it ends where `text` does.
    array: usize,
    /// Where the first argument starts, or the closing bracket.
    first: usize,
    /// Whether the array starts with an event's name.
    named: bool,
    attachments: Vec<Bytes>,
}

impl Args {
    /// What they take in memory.
    pub(crate) fn size(&self) -> usize {
        self.text.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// Takes them away: none are left here.
    pub(crate) fn take(&mut self) -> Args {
        std::mem::replace(self, Args::new(Text::default(), 0, Some(0), Vec::new()))
    }

    /// The same in memory of their own: what came with them, and shares theirs, is let go.
    pub(crate) fn detached(mut self) -> Args {
        self.text = Text::from(&*self.text);
        detach(&mut self.attachments);
        self
    }

    /// `text[array..]` is a whole JSON array; with `named`, its first element is not an argument and is followed by
    /// `text[rest..]` (a comma or the bracket).
    pub(crate) fn new(text: Text, array: usize, rest: Option<usize>, attachments: Vec<Bytes>) -> Args {
        let bytes = text.as_bytes();
        let start = match rest {
            Some(rest) if bytes.get(rest) == Some(&b',') => rest + 1,
            Some(rest) => rest,
            None => array + 1,
        };
        Args { first: skip_space(bytes, start), array, named: rest.is_some(), text, attachments }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.elements().is_empty()
    }

    /// Reads them as `T`: a tuple takes one argument per element, any other type the first argument. What is
    /// missing counts as null, what is too many is ignored. Byte types (`bytes::Bytes`, `serde_bytes`) read binary, wherever they
    /// are; types that have no place for it (`serde_json::Value`, `Vec<u8>`) fail where there is some.
    ///
    /// # Errors
    /// They are not what `T` expects.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DataError> {
        T::deserialize(Decoder(self)).map_err(|error| DataError {
            what: What::Arguments,
            expected: std::any::type_name::<T>(),
            got: excerpt(self.elements()),
            binary: !self.attachments.is_empty(),
            error,
        })
    }

    /// The arguments' JSON, separated by commas, without brackets. `{"_placeholder":true,"num":N}` stands for
    /// attachment N.
    pub fn elements(&self) -> &str {
        // Hardly anybody sends space behind the bracket.
        let text = self.text.as_str();
        let text = if text.ends_with(']') { text } else { text.trim_end() };
        text.get(self.first..text.len().saturating_sub(1)).unwrap_or_default().trim_end()
    }

    pub(crate) fn to_packet(&self) -> Packet {
        let json = format!("[{}]", self.elements());
        // Checked when it arrived: it cannot fail.
        let json = RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Packet { json, attachments: self.attachments.clone() }
    }

    /// The binary values among them.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }
}

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Args([{}], {} attachments)", excerpt(self.elements()), self.attachments.len())
    }
}

fn excerpt(text: &str) -> String {
    const MOST: usize = 120;
    match text.char_indices().nth(MOST) {
        None => text.into(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// What a client sent is not what the handler expects.
///
/// Its text, which goes to the log, quotes nothing of what was sent: that may be a password. See
/// [`excerpt`](DataError::excerpt).
pub struct DataError {
    what: What,
    expected: &'static str,
    got: String,
    binary: bool,
    error: serde_json::Error,
}

#[derive(Clone, Copy)]
enum What {
    Arguments,
    Auth,
}

impl DataError {
    pub(crate) fn is_of_auth(&self) -> bool {
        matches!(self.what, What::Auth)
    }

    /// The name of the type that was expected.
    pub fn expected(&self) -> &'static str {
        self.expected
    }

    /// What was sent, or its first 120 characters.
    pub fn excerpt(&self) -> &str {
        &self.got
    }

    /// What serde says, which may quote what was sent.
    pub fn details(&self) -> &serde_json::Error {
        &self.error
    }
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            What::Arguments => "the arguments",
            What::Auth => "auth (the CONNECT payload)",
        };
        write!(f, "{what} cannot be read as {}: {}", self.expected, without_values(&self.error.to_string()))?;
        if self.binary {
            f.write_str(" (there is binary among them, which types like bytes::Bytes take)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataError({self})")
    }
}

impl std::error::Error for DataError {}

/// A message of serde without the value it is about: "invalid type: string "secret", expected u32" and the like end in
/// what was expected.
fn without_values(message: &str) -> String {
    const QUOTES: [&str; 4] = ["invalid type: ", "invalid value: ", "unknown variant `", "unknown field `"];
    // What these name is the type's own.
    const QUIET: [&str; 5] = [
        "missing field `",
        "duplicate field `",
        "invalid length ",
        "data did not match",
        // Of ours.
        "the packet has no attachment ",
    ];
    let at = message.rfind(" at line ").unwrap_or(message.len());
    if QUIET.iter().any(|start| message.starts_with(start)) {
        return message.into();
    }
    match QUOTES.into_iter().find(|start| message.starts_with(start)) {
        Some(start) => {
            let kind = start.trim_end_matches([' ', ':', '`']);
            let rest = message.rfind(", expected ").max(message.rfind(", there are no "));
            format!("{kind}{}", rest.map_or(&message[at..], |at| &message[at..]))
        }
        // A type's own words, or what is wrong with the JSON.
        None => format!("it is not accepted{}", &message[at..]),
    }
}

/// Decides between one argument and all of them: a tuple asks for a tuple, everything else for one value.
struct Decoder<'de>(&'de Args);

impl<'de> Decoder<'de> {
    fn first(&self) -> serde_json::Deserializer<serde_json::de::StrRead<'de>> {
        let elements = self.0.elements();
        serde_json::Deserializer::from_str(if elements.is_empty() { "null" } else { elements })
    }
}

macro_rules! first {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        $(fn $name<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, serde_json::Error> {
            let mut json = self.first();
            if self.0.attachments.is_empty() {
                json.$name($($arg,)* visitor)
            } else {
                Wrap::new(&mut json, &self.0.text, &self.0.attachments).$name($($arg,)* visitor)
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Decoder<'de> {
    type Error = serde_json::Error;

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Self::Error> {
        let array = &self.0.text[self.0.array..];
        let seq = All { skip: self.0.named, len, visitor };
        let mut json = serde_json::Deserializer::from_str(array);
        if self.0.attachments.is_empty() {
            json.deserialize_seq(seq)
        } else {
            Wrap::new(&mut json, &self.0.text, &self.0.attachments).deserialize_seq(seq)
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    first! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }
}

/// Visits the array as the tuple of its arguments.
struct All<V> {
    skip: bool,
    len: usize,
    visitor: V,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for All<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<V::Value, A::Error> {
        if self.skip {
            seq.next_element::<IgnoredAny>()?;
        }
        let mut padded = Padded { seq, left: self.len, over: false };
        let value = self.visitor.visit_seq(&mut padded)?;
        if !padded.over {
            while padded.seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(value)
    }
}

/// A sequence that is null beyond its end, up to `left` elements.
struct Padded<A> {
    seq: A,
    left: usize,
    over: bool,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for &mut Padded<A> {
    type Error = A::Error;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        // The seed is needed twice if the sequence turns out to be over: it travels through a cell.
        let mut seed = Some(seed);
        if !self.over {
            if let Some(value) = self.seq.next_element_seed(Once(&mut seed))? {
                return Ok(Some(value));
            }
            self.over = true;
        }
        match seed.take() {
            Some(seed) => seed.deserialize(de::value::UnitDeserializer::new()).map(Some),
            None => Ok(None),
        }
    }
}

struct Once<'s, T>(&'s mut Option<T>);

impl<'de, T: de::DeserializeSeed<'de>> de::DeserializeSeed<'de> for Once<'_, T> {
    type Value = T::Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        match self.0.take() {
            Some(seed) => seed.deserialize(deserializer),
            None => Err(de::Error::custom("an element was asked for twice")),
        }
    }
}

/// Reads `T` from the JSON of a CONNECT payload; nothing counts as null.
pub(crate) fn from_payload<T: DeserializeOwned>(payload: &str) -> Result<T, DataError> {
    let text = if payload.is_empty() { "null" } else { payload };
    serde_json::from_str(text).map_err(|error| DataError {
        what: What::Auth,
        expected: std::any::type_name::<T>(),
        got: excerpt(payload),
        binary: false,
        error,
    })
}

#[cfg(test)]
mod tests;
