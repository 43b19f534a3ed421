//! Reads the parameters of a namespace's name as the app's own type.

use std::fmt;
use std::sync::Arc;

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

use crate::as_written::AsWritten;

/// A namespace's parameters are not what was expected.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the parameters ({got}) of the namespace cannot be read as {expected}: {error}")]
pub struct ParamsError {
    expected: &'static str,
    got: String,
    error: Error,
}

/// A struct or map takes them by name, a tuple in their order, anything else is the only one.
pub(crate) fn read<T: DeserializeOwned>(params: &[(Arc<str>, Box<str>)]) -> Result<T, ParamsError> {
    T::deserialize(All(params)).map_err(|error| ParamsError {
        expected: std::any::type_name::<T>(),
        got: params.iter().map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>().join(", "),
        error,
    })
}

struct All<'de>(&'de [(Arc<str>, Box<str>)]);

impl<'de> All<'de> {
    fn only(&self) -> Result<AsWritten<'de>, Error> {
        match self.0 {
            [(_, value)] => Ok(AsWritten(value)),
            all => Err(Error::custom(format_args!("there are {} of them", all.len()))),
        }
    }
}

macro_rules! only {
    ($($name:ident)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.only()?.$name(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for All<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let entries = self.0.iter().map(|(name, value)| (&**name, AsWritten(value)));
        visitor.visit_map(MapDeserializer::new(entries))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(SeqDeserializer::new(self.0.iter().map(|(_, value)| AsWritten(value))))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        if len != self.0.len() {
            return Err(Error::invalid_length(self.0.len(), &visitor));
        }
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.only()?.deserialize_enum(name, variants, visitor)
    }

    only! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_option
    }

    forward_to_deserialize_any! { bytes byte_buf unit unit_struct identifier ignored_any }
}

/// The parameters of the namespace's name (see [`SocketIo::of_pattern`](crate::SocketIo::of_pattern)), read as `T`: a
/// struct or map takes them by name, a tuple in their order, any other type the only one. Text that says a number is read
/// as one if `T` wants it.
///
/// In a middleware, one that does not fit refuses the socket: with `Params<u32>`, `/org-x` is no organisation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Params<T>(pub T);

impl<T> std::ops::Deref for Params<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Display> fmt::Display for Params<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Color {
        Red,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Id(u32);

    #[derive(Debug, Deserialize, PartialEq)]
    struct Both {
        id: Id,
        color: Color,
        more: Option<bool>,
    }

    fn params(all: &[(&str, &str)]) -> Vec<(Arc<str>, Box<str>)> {
        all.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn types_take_what_they_ask_for() {
        let one = params(&[("id", "7")]);
        assert_eq!(read::<u8>(&one).unwrap(), 7);
        assert_eq!((read::<i128>(&one).unwrap(), read::<(u128,)>(&one).unwrap()), (7, (7,)));
        assert_eq!(read::<String>(&one).unwrap(), "7");
        assert_eq!(read::<Id>(&one).unwrap(), Id(7));
        assert_eq!(read::<Option<char>>(&one).unwrap(), Some('7'));
        assert_eq!(read::<(f64,)>(&one).unwrap(), (7.0,));
        let two = params(&[("id", "7"), ("color", "red")]);
        assert_eq!(read::<Both>(&two).unwrap(), Both { id: Id(7), color: Color::Red, more: None });
        assert_eq!(read::<(i64, Color)>(&two).unwrap(), (7, Color::Red));
        assert_eq!(read::<BTreeMap<String, String>>(&two).unwrap()["color"], "red");
        assert_eq!(read::<serde_json::Value>(&two).unwrap(), serde_json::json!({"id": "7", "color": "red"}));
        assert!(read::<serde_json::Value>(&[]).unwrap().as_object().unwrap().is_empty());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let two = params(&[("id", "x"), ("color", "red")]);
        let text = read::<(u32, String)>(&two).unwrap_err().to_string();
        assert_eq!(
            text,
            "the parameters (id=\"x\", color=\"red\") of the namespace cannot be read as (u32, alloc::string::String): invalid \
             type: string \"x\", expected u32"
        );
        assert!(read::<u32>(&two).unwrap_err().to_string().contains("there are 2 of them"));
        assert!(read::<(u32,)>(&two).is_err() && read::<u8>(&[]).is_err());
        assert!(read::<u8>(&params(&[("id", "300")])).is_err());
    }
}
