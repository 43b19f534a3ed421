//! Tells a tuple from everything else while serializing: a tuple is several arguments, anything else is one.

use serde::ser::{self, Impossible, Serialize, Serializer};
use std::fmt;
use std::io;

use super::emit::Writer;

/// Writes a tuple's elements as arguments; answers [`NotSpread::One`] for anything else, having written nothing.
pub(crate) struct Spread<'w, 'a, W>(pub(crate) &'w mut Writer<'a, W>);

#[derive(Debug)]
pub(crate) enum NotSpread {
    One,
    Failed(serde_json::Error),
}

impl fmt::Display for NotSpread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotSpread::One => f.write_str("not a tuple"),
            NotSpread::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NotSpread {}

impl ser::Error for NotSpread {
    fn custom<T: fmt::Display>(message: T) -> NotSpread {
        NotSpread::Failed(ser::Error::custom(message))
    }
}

impl<W: io::Write> ser::SerializeTuple for Spread<'_, '_, W> {
    type Ok = ();
    type Error = NotSpread;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotSpread> {
        self.0.element(value).map_err(NotSpread::Failed)
    }

    fn end(self) -> Result<(), NotSpread> {
        Ok(())
    }
}

macro_rules! one {
    ($($name:ident($($arg:ty),*) -> $result:ty;)*) => {
        $(fn $name(self, $(_: $arg),*) -> Result<$result, NotSpread> { Err(NotSpread::One) })*
    };
}

type No = Impossible<(), NotSpread>;

impl<W: io::Write> Serializer for Spread<'_, '_, W> {
    type Ok = ();
    type Error = NotSpread;
    type SerializeSeq = No;
    type SerializeTuple = Self;
    type SerializeTupleStruct = No;
    type SerializeTupleVariant = No;
    type SerializeMap = No;
    type SerializeStruct = No;
    type SerializeStructVariant = No;

    fn serialize_tuple(self, _: usize) -> Result<Self, NotSpread> {
        Ok(self)
    }

    one! {
        serialize_unit() -> ();
        serialize_bool(bool) -> ();
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_i128(i128) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_u128(u128) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_unit_variant(&'static str, u32, &'static str) -> ();
        serialize_seq(Option<usize>) -> No;
        serialize_tuple_struct(&'static str, usize) -> No;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> No;
        serialize_map(Option<usize>) -> No;
        serialize_struct(&'static str, usize) -> No;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> No;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), NotSpread> {
        Err(NotSpread::One)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<(), NotSpread> {
        Err(NotSpread::One)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), NotSpread> {
        Err(NotSpread::One)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _: &T) -> Result<(), NotSpread> {
        Err(NotSpread::One)
    }
}
