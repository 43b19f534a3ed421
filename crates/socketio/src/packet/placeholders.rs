//! Whether the placeholders in a packet fit its attachments, looked at once, before anybody reads it or hands it on: a
//! client whose parser meets one that names nothing drops its connection.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::ParseError;
use super::binary::{Key, Lifted};

/// Checks that each placeholder names one of `count` attachments, and no two the same: an attachment is read as often as
/// it is named, and clients name each once. An object that is marked as one has to begin with both keys: no reader
/// looks for them any further.
pub(crate) fn check_placeholders(json: &str, count: usize) -> Result<(), ParseError> {
    let mut named = vec![false; count];
    let mut reader = serde_json::Deserializer::from_str(json);
    let look = Look { json, named: &mut named };
    look.deserialize(&mut reader).map(drop).map_err(|_| ParseError::Placeholder)
}

/// Reads a value of `json` and tells whether it is `true`; which attachments are named so far.
struct Look<'a> {
    json: &'a str,
    named: &'a mut [bool],
}

impl Look<'_> {
    fn again(&mut self) -> Look<'_> {
        Look { json: self.json, named: self.named }
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<bool, A::Error> {
        while seq.next_element_seed(self.again())?.is_some() {}
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<bool, A::Error> {
        let mut key = map.next_key::<Key<'de>>()?;
        let number = key.as_ref().and_then(|key| Lifted::number(self.json, key));
        let (mut marked, mut keys) = (false, 0);
        while let Some(Key(name)) = key {
            let is_true = map.next_value_seed(self.again())?;
            marked |= is_true && name == Lifted::MARK;
            keys += usize::from(name == Lifted::MARK || name == Lifted::NUM);
            key = map.next_key()?;
        }
        if marked {
            match number.filter(|_| keys == 2).and_then(|number| self.named.get_mut(number)) {
                Some(named) if !*named => *named = true,
                _ => return Err(de::Error::custom("a placeholder that fits no attachment")),
            }
        }
        Ok(false)
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
            // In more room, and with more.
            r#"[{ "_placeholder" :true , "num": 0 },{"num":1,"_placeholder":true,"x":{"num":1,"num":1}}]"#
                .to_owned(),
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
            r#"["x",{"_placeholder":true,"num":0.0}]"#.to_owned(),
            r#"["x",{"_placeholder":true,"num":18446744073709551616}]"#.to_owned(),
            r#"["x",{"_placeholder":true,"num":{"_placeholder":true,"num":0}}]"#.to_owned(),
            r#"["x",{"_placeholder":true}]"#.to_owned(),
            // Said twice,
            r#"["x",{"_placeholder":true,"num":0,"num":1}]"#.to_owned(),
            r#"["x",{"_placeholder":true,"num":0,"\u006eum":1}]"#.to_owned(),
            r#"["x",{"_placeholder":true,"num":0,"_placeholder":false}]"#.to_owned(),
            r#"["x",{"_placeholder":false,"num":0,"_placeholder":true}]"#.to_owned(),
            // or not at once, or not as it is.
            r#"["x",{"x":1,"_placeholder":true,"num":0}]"#.to_owned(),
            r#"["x",{"_placeholder":true,"x":1,"num":0}]"#.to_owned(),
            r#"["x",{"\u005fplaceholder":true,"num":0}]"#.to_owned(),
            r#"["x",{"_placeholder":true,"\u006eum":0}]"#.to_owned(),
        ] {
            assert!(check_placeholders(&bad, 2).is_err(), "{bad}");
        }
    }
}
