//! Reads a message spelled in JSON: the scalars of an object by name, everything else skipped. What the names mean is
//! not known here.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::fields::{Body, Fields};
use super::v8::Scalar;

pub(super) fn read(line: &[u8]) -> Result<Body<'_>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(line);
    let body = Message.deserialize(&mut reader)?;
    reader.end()?;
    Ok(body)
}

struct Message;

impl<'de> DeserializeSeed<'de> for Message {
    type Value = Body<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(Root::default())
    }
}

/// A scalar, or something that is skipped.
struct Leaf;

impl<'de> DeserializeSeed<'de> for Leaf {
    type Value = Scalar<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($wrap:expr) => {
        fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
            to.write_str("any value")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($wrap(Scalar::Nothing))
        }
        fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
            Ok($wrap(Scalar::Bool(value)))
        }
        fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
            Ok($wrap(Scalar::Number(value as f64)))
        }
        fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
            Ok($wrap(Scalar::Number(value as f64)))
        }
        fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
            Ok($wrap(Scalar::Number(value)))
        }
        fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
            Ok($wrap(Scalar::Text(Cow::Borrowed(value))))
        }
        fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
            Ok($wrap(Scalar::Text(Cow::Owned(value.to_owned()))))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok($wrap(Scalar::Other))
        }
    };
}

impl<'de> Visitor<'de> for Leaf {
    type Value = Scalar<'de>;

    scalars!(|scalar| scalar);

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

#[derive(Default)]
struct Root<'de>(std::marker::PhantomData<&'de ()>);

impl<'de> Visitor<'de> for Root<'de> {
    type Value = Body<'de>;

    scalars!(Body::Scalar);

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Box::<Fields<'de>>::default();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == "data" {
                map.next_value_seed(Data(&mut fields))?;
            } else if let Some(slot) = fields.slot(&name) {
                *slot = map.next_value_seed(Leaf)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Body::Object(fields))
    }
}

/// The one object within a message that is looked into.
struct Data<'f, 'de>(&'f mut Fields<'de>);

impl<'de> DeserializeSeed<'de> for Data<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Data<'_, 'de> {
    type Value = ();

    scalars!(drop::<Scalar<'de>>);

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        self.0.data_given = true;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match self.0.data_slot(&name) {
                Some(slot) => *slot = map.next_value_seed(Leaf)?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}
