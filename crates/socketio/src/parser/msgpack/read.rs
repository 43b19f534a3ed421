//! MessagePack into JSON: every value is written out as it is met, so a length that lies costs nothing.

use std::fmt::Write as _;

use bytes::Bytes;
use rmp::Marker;

use super::super::{Incoming, PacketType};
use super::{MAX_DEPTH, Malformed};
use crate::Packet;

/// Reads a whole message.
pub(super) fn packet(bytes: &Bytes, max_binaries: usize) -> Result<Incoming, Malformed> {
    let mut reader = Reader { bytes, at: 0, json: String::new(), binaries: Vec::new(), max_binaries };
    let count = reader.map()?.ok_or(Malformed::Map)?;
    let (mut kind, mut nsp, mut ack, mut data) = (None, None, None, None);
    for _ in 0..count {
        let key = reader.text()?.ok_or(Malformed::Map)?;
        match key {
            "type" => kind = Some(reader.whole()?.and_then(PacketType::from_number).ok_or(Malformed::Type)?),
            "nsp" => nsp = Some(reader.text()?.ok_or(Malformed::Namespace)?),
            "id" => ack = reader.whole()?,
            "data" => data = reader.data()?,
            // `options` of the sender, and whatever comes to be.
            _ => reader.skip()?,
        }
    }
    if reader.at != bytes.len() {
        return Err(Malformed::Trailing);
    }
    let nsp = nsp.filter(|nsp| nsp.starts_with('/')).ok_or(Malformed::Namespace)?.to_owned();
    Ok(Incoming { kind: kind.ok_or(Malformed::Type)?, nsp, ack, data })
}

struct Reader<'b> {
    bytes: &'b Bytes,
    at: usize,
    json: String,
    binaries: Vec<Bytes>,
    max_binaries: usize,
}

/// What a marker announces.
enum Value {
    Null,
    Undefined,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(usize),
    Binary(usize),
    Array(u64),
    Map(u64),
    /// Milliseconds since the epoch.
    Date(i64),
    Extension {
        length: usize,
        kind: i8,
    },
}

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8], Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed::Truncated)?;
        let slice = self.bytes.get(self.at..end).ok_or(Malformed::Truncated)?;
        self.at = end;
        Ok(slice)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Truncated)
    }

    fn length<const N: usize>(&mut self) -> Result<usize, Malformed> {
        let bytes = self.number::<N>()?;
        Ok(bytes.iter().fold(0, |value, &byte| value << 8 | usize::from(byte)))
    }

    fn extension(&mut self, length: usize) -> Result<Value, Malformed> {
        Ok(Value::Extension { length, kind: i8::from_be_bytes(self.number()?) })
    }

    fn value(&mut self) -> Result<Value, Malformed> {
        Ok(match Marker::from_u8(self.take(1)?[0]) {
            Marker::Null => Value::Null,
            Marker::True => Value::Bool(true),
            Marker::False => Value::Bool(false),
            Marker::FixPos(number) => Value::Unsigned(number.into()),
            Marker::FixNeg(number) => Value::Signed(number.into()),
            Marker::U8 => Value::Unsigned(u8::from_be_bytes(self.number()?).into()),
            Marker::U16 => Value::Unsigned(u16::from_be_bytes(self.number()?).into()),
            Marker::U32 => Value::Unsigned(u32::from_be_bytes(self.number()?).into()),
            Marker::U64 => Value::Unsigned(u64::from_be_bytes(self.number()?)),
            Marker::I8 => Value::Signed(i8::from_be_bytes(self.number()?).into()),
            Marker::I16 => Value::Signed(i16::from_be_bytes(self.number()?).into()),
            Marker::I32 => Value::Signed(i32::from_be_bytes(self.number()?).into()),
            Marker::I64 => Value::Signed(i64::from_be_bytes(self.number()?)),
            Marker::F32 => Value::Float(f32::from_be_bytes(self.number()?).into()),
            Marker::F64 => Value::Float(f64::from_be_bytes(self.number()?)),
            Marker::FixStr(length) => Value::Text(length.into()),
            Marker::Str8 => Value::Text(self.length::<1>()?),
            Marker::Str16 => Value::Text(self.length::<2>()?),
            Marker::Str32 => Value::Text(self.length::<4>()?),
            Marker::Bin8 => Value::Binary(self.length::<1>()?),
            Marker::Bin16 => Value::Binary(self.length::<2>()?),
            Marker::Bin32 => Value::Binary(self.length::<4>()?),
            Marker::FixArray(count) => Value::Array(count.into()),
            Marker::Array16 => Value::Array(self.length::<2>()? as u64),
            Marker::Array32 => Value::Array(self.length::<4>()? as u64),
            Marker::FixMap(count) => Value::Map(count.into()),
            Marker::Map16 => Value::Map(self.length::<2>()? as u64),
            Marker::Map32 => Value::Map(self.length::<4>()? as u64),
            // Of type 0 notepack writes these two with fixed lengths, and every ArrayBuffer with a counted one, whatever its size.
            Marker::FixExt1 => match self.extension(1)? {
                Value::Extension { kind: 0, .. } => self.take(1).map(|_| Value::Undefined)?,
                other => other,
            },
            Marker::FixExt2 => self.extension(2)?,
            Marker::FixExt4 => self.extension(4)?,
            Marker::FixExt8 => match self.extension(8)? {
                Value::Extension { kind: 0, .. } => Value::Date(i64::from_be_bytes(self.number()?)),
                other => other,
            },
            Marker::FixExt16 => self.extension(16)?,
            Marker::Ext8 => self.counted::<1>()?,
            Marker::Ext16 => self.counted::<2>()?,
            Marker::Ext32 => self.counted::<4>()?,
            Marker::Reserved => return Err(Malformed::Marker),
        })
    }

    fn counted<const N: usize>(&mut self) -> Result<Value, Malformed> {
        let length = self.length::<N>()?;
        self.extension(length)
    }

    fn utf8(&mut self, length: usize) -> Result<&'b str, Malformed> {
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed::Utf8)
    }

    fn map(&mut self) -> Result<Option<u64>, Malformed> {
        Ok(if let Value::Map(count) = self.value()? { Some(count) } else { None })
    }

    fn text(&mut self) -> Result<Option<&'b str>, Malformed> {
        match self.value()? {
            Value::Text(length) => self.utf8(length).map(Some),
            _ => Ok(None),
        }
    }

    /// A whole number that is not negative; null and undefined are none.
    fn whole(&mut self) -> Result<Option<u64>, Malformed> {
        match self.value()? {
            Value::Null | Value::Undefined => Ok(None),
            Value::Unsigned(number) => Ok(Some(number)),
            Value::Signed(number) => u64::try_from(number).map(Some).map_err(|_| Malformed::Id),
            // Other encoders write every number as a float.
            Value::Float(number) if number >= 0.0 && number.fract() == 0.0 && number < 9e15 => {
                Ok(Some(number as u64))
            }
            _ => Err(Malformed::Id),
        }
    }

    /// The payload; null and undefined are none.
    fn data(&mut self) -> Result<Option<Packet>, Malformed> {
        self.json.clear();
        self.binaries.clear();
        let value = self.value()?;
        if matches!(value, Value::Null | Value::Undefined) {
            return Ok(None);
        }
        self.write(value, 0)?;
        let json = std::mem::take(&mut self.json);
        // A number or a date that is none is nothing, too.
        if json == "null" {
            return Ok(None);
        }
        // What is written here is JSON; and if it were not, the packet would be refused.
        Packet::from_parts(json, std::mem::take(&mut self.binaries)).map(Some).map_err(|_| Malformed::Marker)
    }

    fn skip(&mut self) -> Result<(), Malformed> {
        let (json, binaries) = (std::mem::take(&mut self.json), std::mem::take(&mut self.binaries));
        let value = self.value()?;
        self.write(value, 0)?;
        (self.json, self.binaries) = (json, binaries);
        Ok(())
    }

    /// Writes a value whose marker was read.
    fn write(&mut self, value: Value, depth: usize) -> Result<(), Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed::Deep);
        }
        match value {
            Value::Null | Value::Undefined => self.json.push_str("null"),
            Value::Bool(value) => self.json.push_str(if value { "true" } else { "false" }),
            // Writing to a string does not fail.
            Value::Unsigned(number) => drop(write!(self.json, "{number}")),
            Value::Signed(number) => drop(write!(self.json, "{number}")),
            Value::Float(number) => match serde_json::Number::from_f64(number) {
                Some(number) => drop(write!(self.json, "{number}")),
                None => self.json.push_str("null"),
            },
            Value::Text(length) => {
                let text = self.utf8(length)?;
                self.quote(text);
            }
            Value::Binary(length) => self.binary(length)?,
            Value::Array(count) => {
                self.json.push('[');
                for index in 0..count {
                    if index > 0 {
                        self.json.push(',');
                    }
                    let value = self.value()?;
                    self.write(value, depth + 1)?;
                }
                self.json.push(']');
            }
            Value::Map(count) => {
                self.json.push('{');
                for index in 0..count {
                    if index > 0 {
                        self.json.push(',');
                    }
                    self.key()?;
                    self.json.push(':');
                    let value = self.value()?;
                    self.write(value, depth + 1)?;
                }
                self.json.push('}');
            }
            Value::Date(millis) => match date(millis) {
                Some(date) => self.quote(&date),
                None => self.json.push_str("null"),
            },
            // An ArrayBuffer.
            Value::Extension { length, kind: 0 } => self.binary(length)?,
            // As notepack gives types it does not know.
            Value::Extension { length, kind } => {
                let _ = write!(self.json, "[{kind},");
                self.binary(length)?;
                self.json.push(']');
            }
        }
        Ok(())
    }

    /// Keys are texts; numbers become them, as in JavaScript.
    fn key(&mut self) -> Result<(), Malformed> {
        match self.value()? {
            Value::Text(length) => {
                let text = self.utf8(length)?;
                if text == "_placeholder" {
                    return Err(Malformed::Placeholder);
                }
                self.quote(text);
            }
            Value::Unsigned(number) => drop(write!(self.json, "\"{number}\"")),
            Value::Signed(number) => drop(write!(self.json, "\"{number}\"")),
            _ => return Err(Malformed::Map),
        }
        Ok(())
    }

    fn binary(&mut self, length: usize) -> Result<(), Malformed> {
        if self.binaries.len() >= self.max_binaries {
            return Err(Malformed::Binaries);
        }
        let slice = self.take(length)?;
        let _ = write!(self.json, "{{\"_placeholder\":true,\"num\":{}}}", self.binaries.len());
        // A view of what was read: nothing is copied.
        self.binaries.push(self.bytes.slice_ref(slice));
        Ok(())
    }

    fn quote(&mut self, text: &str) {
        // A text always serializes.
        self.json.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

/// Milliseconds since the epoch as `Date.prototype.toISOString` writes them; none for what is no date there either.
fn date(millis: i64) -> Option<String> {
    const MOST: i64 = 8_640_000_000_000_000;
    const DAY: i64 = 86_400_000;
    if !(-MOST..=MOST).contains(&millis) {
        return None;
    }
    let (days, rest) = (millis.div_euclid(DAY), millis.rem_euclid(DAY));
    // Days since 1 March of year 0, in eras of 400 years: then leap days come last.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, milli) = (rest / 1000 % 60, rest % 1000);
    let year = match year {
        0..=9999 => format!("{year:04}"),
        _ => format!("{}{:06}", if year < 0 { '-' } else { '+' }, year.abs()),
    };
    Some(format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_javascript_writes_them() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (8_640_000_000_000_000, "+275760-09-13T00:00:00.000Z"),
            (-8_640_000_000_000_000, "-271821-04-20T00:00:00.000Z"),
        ] {
            assert_eq!(date(millis).as_deref(), Some(text));
        }
        assert_eq!(date(i64::MAX), None);
    }
}
