//! JSON into MessagePack, as notepack writes it: the shortest form of everything.

use std::fmt;

use bytes::Bytes;
use rmp::Marker;
use rmp::encode::{write_bin, write_f64, write_nil, write_sint, write_str, write_uint};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::super::Outgoing;

/// The only key of what is a number to serde_json where some crate asks it for `arbitrary_precision`.
const NUMBER: &str = "$serde_json::private::Number";

/// Writes a whole message.
pub(super) fn packet(packet: Outgoing<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let size = packet
        .data
        .map_or(0, |data| data.json().len() + data.attachments().iter().map(Bytes::len).sum::<usize>());
    let mut out = Vec::with_capacity(size + packet.nsp.len() + 32);
    let count = 2 + u8::from(packet.data.is_some()) + u8::from(packet.ack.is_some());
    out.push(Marker::FixMap(count).to_u8());
    text(&mut out, "type");
    unsigned(&mut out, packet.kind as u64);
    if let Some(data) = packet.data {
        text(&mut out, "data");
        let mut json = serde_json::Deserializer::from_str(data.json());
        Writer { out: &mut out, attachments: data.attachments() }.deserialize(&mut json)?;
    }
    text(&mut out, "nsp");
    text(&mut out, packet.nsp);
    if let Some(id) = packet.ack {
        text(&mut out, "id");
        unsigned(&mut out, id);
    }
    Ok(out)
}

// Writing to memory does not fail.

fn text(out: &mut Vec<u8>, text: &str) {
    let _ = write_str(out, text);
}

fn unsigned(out: &mut Vec<u8>, number: u64) {
    let _ = write_uint(out, number);
}

/// The number an object stands for, if it does: one with a fraction, or larger than integers are.
fn number(object: &serde_json::Map<String, Value>) -> Option<f64> {
    let text = object.get(NUMBER).filter(|_| object.len() == 1)?.as_str()?;
    let is_digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    is_digits.then(|| text.parse().ok())?
}

/// Writes one value.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    attachments: &'a [Bytes],
}

impl Writer<'_> {
    fn again(&mut self) -> Writer<'_> {
        Writer { out: self.out, attachments: self.attachments }
    }

    /// Sets the header of an array or a map that starts at `start`, now that its length is known. One byte was kept
    /// for it, which is enough for fifteen; the few longer ones move.
    fn count(&mut self, start: usize, count: usize, short: fn(u8) -> Marker, long: [Marker; 2]) {
        if count < 16 {
            self.out[start] = short(count as u8).to_u8();
        } else if let Ok(count) = u16::try_from(count) {
            self.out[start] = long[0].to_u8();
            self.out.splice(start + 1..start + 1, count.to_be_bytes());
        } else {
            self.out[start] = long[1].to_u8();
            // JSON with four thousand million values does not fit into memory.
            self.out.splice(start + 1..start + 1, (count as u32).to_be_bytes());
        }
    }

    /// The attachment an object stands for, if it does.
    fn attachment(&self, object: &serde_json::Map<String, Value>) -> Option<&Bytes> {
        if object.len() != 2 || object.get("_placeholder")? != &Value::Bool(true) {
            return None;
        }
        self.attachments.get(usize::try_from(object.get("num")?.as_u64()?).ok()?)
    }
}

impl<'de> DeserializeSeed<'de> for Writer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Writer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        let _ = write_nil(self.out);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.out.push(if value { Marker::True } else { Marker::False }.to_u8());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        unsigned(self.out, value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        let _ = write_sint(self.out, value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        let _ = write_f64(self.out, value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        text(self.out, value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let start = self.out.len();
        self.out.push(0);
        let mut count = 0;
        while seq.next_element_seed(self.again())?.is_some() {
            count += 1;
        }
        self.count(start, count, Marker::FixArray, [Marker::Array16, Marker::Array32]);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let start = self.out.len();
        self.out.push(0);
        let mut count = 0;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if count == 0 && (key == NUMBER || key == "_placeholder" && !self.attachments.is_empty()) {
                return self.stand_in(start, key.into_owned(), map);
            }
            text(self.out, &key);
            map.next_value_seed(self.again())?;
            count += 1;
        }
        self.count(start, count, Marker::FixMap, [Marker::Map16, Marker::Map32]);
        Ok(())
    }
}

impl Writer<'_> {
    /// An object whose first key says that it stands for a number or an attachment; or it is one of the app's after all.
    fn stand_in<'de, A: MapAccess<'de>>(
        mut self,
        start: usize,
        first: String,
        mut map: A,
    ) -> Result<(), A::Error> {
        let mut object = serde_json::Map::new();
        object.insert(first, map.next_value()?);
        while let Some((key, value)) = map.next_entry()? {
            object.insert(key, value);
        }
        self.out.truncate(start);
        if let Some(bytes) = self.attachment(&object).cloned() {
            let _ = write_bin(self.out, &bytes);
            return Ok(());
        }
        if let Some(number) = number(&object) {
            let _ = write_f64(self.out, number);
            return Ok(());
        }
        self.out.push(0);
        let count = object.len();
        for (key, value) in object {
            text(self.out, &key);
            self.again().deserialize(value).map_err(A::Error::custom)?;
        }
        self.count(start, count, Marker::FixMap, [Marker::Map16, Marker::Map32]);
        Ok(())
    }
}
