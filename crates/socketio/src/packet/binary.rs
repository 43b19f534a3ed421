//! Puts binary back while deserializing: where the JSON has a placeholder, the type gets the attachment's bytes, whatever it asks
//! for. Everything else passes through.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::as_written::AsWritten;

/// A deserializer (or a part of one) with the packet's attachments at hand.
pub(crate) struct Wrap<'de, D> {
    inner: D,
    sent: Sent<'de>,
}

/// What is read: text, and the attachments it names.
#[derive(Clone, Copy)]
struct Sent<'de> {
    text: &'de str,
    attachments: &'de [Bytes],
}

/// The keys of a placeholder.
pub(crate) struct Lifted;

impl Lifted {
    pub(crate) const MARK: &'static str = "_placeholder";
    pub(crate) const NUM: &'static str = "num";

    /// The number of the placeholder that begins with `key`, which was read from `text`, if one does: with both keys, in
    /// either order. Whoever looks for placeholders asks here, so that what is one to somebody is one to everybody. The
    /// text is looked at ahead of its reader, which may still read an object there.
    pub(super) fn number(text: &str, key: &Key<'_>) -> Option<usize> {
        let Key(Cow::Borrowed(key @ (Self::MARK | Self::NUM))) = key else { return None };
        // What was borrowed says where it is.
        let start = key.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
        let rest = text.get(start + key.len()..)?;
        let (number, rest) = if *key == Self::MARK {
            digits(after(rest, &["\"", ":", "true", ",", "\"num\"", ":"])?)?
        } else {
            let (number, rest) = digits(after(rest, &["\"", ":"])?)?;
            (number, after(rest, &[",", "\"_placeholder\"", ":", "true"])?)
        };
        skip(rest).starts_with([',', '}']).then_some(number)
    }
}

/// What follows upon the tokens.
fn after<'a>(text: &'a str, tokens: &[&str]) -> Option<&'a str> {
    tokens.iter().try_fold(text, |text, token| skip(text).strip_prefix(token))
}

/// An integer, and what follows upon it.
fn digits(text: &str) -> Option<(usize, &str)> {
    let text = skip(text);
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    Some((digits.parse().ok()?, rest))
}

fn skip(text: &str) -> &str {
    text.trim_start_matches([' ', '\n', '\r', '\t'])
}

impl<'de, D> Wrap<'de, D> {
    /// `inner` reads `text`, or a part of it.
    pub(crate) fn new(inner: D, text: &'de str, attachments: &'de [Bytes]) -> Wrap<'de, D> {
        Wrap { inner, sent: Sent { text, attachments } }
    }

    fn with<E>(&self, inner: E) -> Wrap<'de, E> {
        Wrap { inner, sent: self.sent }
    }
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*);)*) => {
        $(fn $name<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.with(visitor);
            self.inner.$name($($arg,)* visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Wrap<'de, D> {
    type Error = D::Error;

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        // Asked for bytes, serde_json takes no object.
        let visitor = self.with(visitor);
        self.inner.deserialize_any(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_bytes(visitor)
    }

    forward! {
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
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }
}

macro_rules! visit {
    ($($name:ident($type:ty);)*) => {
        $(fn $name<E: de::Error>(self, value: $type) -> Result<V::Value, E> { self.inner.$name(value) })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Wrap<'de, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool(bool);
        visit_i64(i64);
        visit_i128(i128);
        visit_u64(u64);
        visit_u128(u128);
        visit_f64(f64);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        let seq = self.with(seq);
        self.inner.visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<V::Value, A::Error> {
        let (key, sent) = (map.next_key::<Key<'de>>()?, self.sent);
        let Some(number) = key.as_ref().and_then(|key| Lifted::number(sent.text, key)) else {
            return self.inner.visit_map(Begun { key: key.map(|key| key.0), map, sent });
        };
        map.next_value::<de::IgnoredAny>()?;
        while map.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {}
        match sent.attachments.get(number) {
            Some(bytes) => self.inner.visit_borrowed_bytes(bytes),
            None => Err(de::Error::custom(format_args!("the packet has no attachment {number}"))),
        }
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.with(access);
        self.inner.visit_enum(access)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Wrap<'de, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Wrap<'de, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let seed = self.with(seed);
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// A key of a map, borrowed where it is written without escapes.
pub(super) struct Key<'de>(pub(super) Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key<'de>, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

/// A map of which the first key has been read.
struct Begun<'de, A> {
    key: Option<Cow<'de, str>>,
    map: A,
    sent: Sent<'de>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Begun<'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        match self.key.take() {
            Some(Cow::Borrowed(key)) => seed.deserialize(AsWritten(key)).map(Some).map_err(de::Error::custom),
            Some(Cow::Owned(key)) => seed.deserialize(key.into_deserializer()).map(Some),
            None => self.map.next_key_seed(seed),
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.map.next_value_seed(Wrap { inner: seed, sent: self.sent })
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Wrap<'de, A> {
    type Error = A::Error;
    type Variant = Wrap<'de, A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self::Variant), A::Error> {
        let sent = self.sent;
        self.inner.variant_seed(seed).map(|(value, inner)| (value, Wrap { inner, sent }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Wrap<'de, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
