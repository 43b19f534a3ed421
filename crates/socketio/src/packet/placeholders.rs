//! Whether the placeholders in a packet fit its attachments, looked at once, before anybody reads it or hands it on: a
//! client whose parser meets one that names nothing drops its connection.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::ParseError;
use super::binary::Lifted;

/// Checks that each placeholder names one of `count` attachments, and no two the same: an attachment is read as often as
/// it is named, and clients name each once.
pub(crate) fn check_placeholders(json: &str, count: usize) -> Result<(), ParseError> {
    let mut named = vec![false; count];
    let mut reader = serde_json::Deserializer::from_str(json);
    Look(&mut named).deserialize(&mut reader).map(drop).map_err(|_| ParseError::Placeholder)
}

/// Reads a value; which attachments are named so far.
struct Look<'a>(&'a mut [bool]);

/// What matters of a value.
enum Seen {
    True,
    Number(u64),
    Other,
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Seen, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Seen, E> {
        Ok(if value { Seen::True } else { Seen::Other })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Seen, E> {
        Ok(Seen::Number(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Seen, A::Error> {
        while seq.next_element_seed(Look(&mut *self.0))?.is_some() {}
        Ok(Seen::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen, A::Error> {
        let (mut marked, mut number) = (false, None);
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let value = map.next_value_seed(Look(&mut *self.0))?;
            match (&*key, value) {
                (Lifted::MARK, value) => marked = matches!(value, Seen::True),
                (Lifted::NUM, Seen::Number(value)) => number = usize::try_from(value).ok(),
                (Lifted::NUM, _) => number = None,
                _ => {}
            }
        }
        if marked {
            match number.and_then(|number| self.0.get_mut(number)) {
                Some(named) if !*named => *named = true,
                _ => return Err(de::Error::custom("a placeholder that fits no attachment")),
            }
        }
        Ok(Seen::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::check_placeholders;

    #[test]
    fn each_attachment_is_named_once() {
        let one = r#"{"_placeholder":true,"num":0}"#;
        let two = r#"{"num":1,"_placeholder":true}"#;
        for good in [
            format!(r#"["x",{one},{two}]"#),
            format!(r#"["x",[[{{"a":{two}}}]],{one}]"#),
            // Fewer than there are, and what is no placeholder.
            format!(r#"["x",{one},{{"_placeholder":false,"num":9}},{{"num":9}}]"#),
            r#"["x",1,-1,1.5,null,true,"s",{}]"#.to_owned(),
        ] {
            assert_eq!(check_placeholders(&good, 2), Ok(()), "{good}");
        }
        for bad in [
            format!(r#"["x",{one},{one}]"#),
            r#"["x",{"_placeholder":true,"num":2}]"#.to_owned(),
            r#"["x",{"_placeholder":true,"num":-1}]"#.to_owned(),
            r#"["x",{"_placeholder":true,"num":"0"}]"#.to_owned(),
            r#"["x",{"_placeholder":true,"num":0,"num":7}]"#.to_owned(),
            r#"["x",{"\u005fplaceholder":true,"num":7}]"#.to_owned(),
            r#"["x",{"_placeholder":true}]"#.to_owned(),
        ] {
            assert!(check_placeholders(&bad, 2).is_err(), "{bad}");
        }
    }
}
