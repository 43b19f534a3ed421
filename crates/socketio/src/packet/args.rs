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
mod tests {
    use super::*;
    use crate::packet::EmitArgs;
    use crate::packet::emit::write_array;
    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};

    #[test]
    fn detached_arguments_hold_nothing_but_themselves() {
        let body = Bytes::from("[\"e\",1]".repeat(1000));
        let text = Text::from_utf8(body.slice(..7)).expect("UTF-8");
        let args = Args::new(text, 0, Some(4), vec![body.slice(8..9)]);
        assert!(!body.is_unique());
        let args = args.detached();
        assert!(body.is_unique());
        assert_eq!((args.elements(), args.attachments()), ("1", &[body.slice(8..9)][..]));
    }

    #[test]
    fn an_error_quotes_nothing_of_what_was_sent() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code)]
        struct Login {
            name: String,
            level: u8,
            kind: Option<Kind>,
            #[serde(default)]
            at: At,
        }
        #[derive(Debug, Default, Deserialize)]
        #[serde(try_from = "String")]
        struct At;
        impl TryFrom<String> for At {
            type Error = String;
            fn try_from(text: String) -> Result<At, String> {
                Err(format!("no time of day: {text}"))
            }
        }
        #[derive(Debug, Deserialize)]
        enum Kind {
            A,
            B,
        }
        for (sent, says) in [
            (r#"{"name":"hunter2"}"#, "missing field `level` at line 1 column 18"),
            (r#"{"name":"","level":"hunter2, expected x"}"#, "invalid type, expected u8 at line 1 column 40"),
            (
                r#"{"name":"","level":1,"kind":"hunter2"}"#,
                "unknown variant, expected `A` or `B` at line 1 column 37",
            ),
            (
                r#"{"hunter2":1}"#,
                "unknown field, expected one of `name`, `level`, `kind`, `at` at line 1 column 10",
            ),
            (r#""hunter2""#, "invalid type, expected struct Login at line 1 column 9"),
            // In the words of a type's own, whatever these are.
            (r#"{"name":"","level":1,"at":"hunter2"}"#, "it is not accepted at line 1 column 36"),
        ] {
            let error = from_payload::<Login>(sent).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("auth (the CONNECT payload) cannot be read as "), "{text}");
            assert!(text.ends_with(says) && !format!("{error:?}").contains("hunter2"), "{text}");
            assert_eq!(error.excerpt(), sent);
            let error = args(&format!("[{sent}]")).decode::<Login>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    fn args(array: &str) -> Args {
        Args::new(Text::from(array), 0, None, Vec::new())
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        name: String,
        data: Bytes,
        parts: Vec<Option<Bytes>>,
    }

    fn written(value: impl EmitArgs) -> (String, Vec<Bytes>) {
        let (mut out, mut attachments) = (Vec::new(), Vec::new());
        write_array(&mut out, &mut attachments, Some("e"), value).unwrap();
        (String::from_utf8(out).unwrap(), attachments)
    }

    #[test]
    fn one_value_or_a_tuple() {
        let three = args("[1,\"2\",{\"3\":[false]}]");
        assert_eq!(three.decode::<(u8, String, Value)>().unwrap(), (1, "2".into(), json!({"3":[false]})));
        assert_eq!(three.decode::<u8>().unwrap(), 1);
        assert_eq!(three.decode::<(u8,)>().unwrap(), (1,));
        assert_eq!(three.decode::<Value>().unwrap(), json!(1));
        three.decode::<()>().unwrap();
        assert_eq!(three.decode::<(u8, String, Value, Option<u8>)>().unwrap().3, None);
        assert_eq!(args("[]").decode::<Option<u8>>().unwrap(), None);
        assert_eq!(args("[ ]").decode::<Value>().unwrap(), Value::Null);
        assert!(args("[]").is_empty() && args("[ ]").is_empty() && !three.is_empty());
        let error = args("[\"x\"]").decode::<u8>().unwrap_err();
        assert_eq!((error.excerpt(), error.expected()), ("\"x\"", "u8"));
    }

    #[test]
    fn the_event_name_is_no_argument() {
        let text = "2/n,[\"ev\", 1, 2 ]";
        let named = Args::new(Text::from(text), 4, Some(9), Vec::new());
        assert_eq!(named.elements(), "1, 2");
        assert_eq!(named.decode::<(u8, u8)>().unwrap(), (1, 2));
        assert_eq!(written(&named).0, "[\"e\",1, 2]");
    }

    #[test]
    fn numbers_arrive_to_the_last_bit() {
        // Where the quick way to read them is one off.
        for bits in [0x8738_0003_0108_ffff_u64, 0x7fe3_b1e4_9a2c_5d01, 0x3ff0_0000_0000_0001] {
            let number = f64::from_bits(bits);
            let back: f64 = args(&format!("[{number:e}]")).decode().unwrap();
            assert_eq!(back.to_bits(), bits, "{number:e}");
        }
    }

    #[test]
    fn what_is_emitted() {
        assert_eq!(written(()).0, "[\"e\"]");
        let nothing = &();
        assert_eq!(written(nothing).0, "[\"e\"]");
        assert_eq!(written(Value::Null).0, "[\"e\",null]");
        assert_eq!(written((Value::Null, None::<u8>, ())).0, "[\"e\",null,null,null]");
        assert_eq!(written("a\"b").0, "[\"e\",\"a\\\"b\"]");
        assert_eq!(written((1, "x", json!({"a": [1]}))).0, "[\"e\",1,\"x\",{\"a\":[1]}]");
        assert_eq!(written(vec![1, 2]).0, "[\"e\",[1,2]]");
        assert_eq!(written(json!([1, 2])).0, "[\"e\",[1,2]]");
        assert_eq!(written(Some((1, 2))).0, "[\"e\",[1,2]]");
        assert_eq!(written(()).0, "[\"e\"]");
        assert!(
            write_array(
                &mut Vec::new(),
                &mut Vec::new(),
                None,
                std::collections::HashMap::from([((1, 2), 3)])
            )
            .is_err()
        );
    }

    #[test]
    fn binary_is_lifted_and_put_back() {
        let file = File {
            name: "x".into(),
            data: Bytes::from_static(b"\0\x01"),
            parts: vec![None, Some(Bytes::from_static(b"z"))],
        };
        let (text, attachments) = written((&file, Bytes::from_static(b"last")));
        assert_eq!(
            text,
            "[\"e\",{\"name\":\"x\",\"data\":{\"_placeholder\":true,\"num\":0},\"parts\":[null,\
             {\"_placeholder\":true,\"num\":1}]},{\"_placeholder\":true,\"num\":2}]"
        );
        assert_eq!(attachments, [&b"\0\x01"[..], b"z", b"last"]);
        let back = Args::new(Text::from(text), 0, Some(4), attachments);
        let (read, last) = back.decode::<(File, Bytes)>().unwrap();
        assert_eq!((read, &last[..]), (file, &b"last"[..]));
        assert_eq!(back.decode::<File>().unwrap().name, "x");
    }

    /// Which kind of type reads it makes no difference, and none takes a placeholder for a value.
    #[test]
    fn binary_is_binary_to_any_type() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(tag = "type", rename_all = "lowercase")]
        enum Tagged {
            File { data: Bytes, num: u8 },
        }
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(untagged)]
        enum Untagged {
            Text(String),
            Data(Bytes),
        }
        #[derive(Debug, PartialEq, Deserialize)]
        struct Flat {
            id: u8,
            #[serde(flatten)]
            rest: std::collections::BTreeMap<String, Untagged>,
        }
        #[derive(Debug, PartialEq, Deserialize)]
        struct AllOptional {
            num: Option<u8>,
        }
        let read = |json: &str| Args::new(Text::from(json), 0, None, vec![Bytes::from_static(b"\xff")]);
        let (data, one) = (r#"{"_placeholder":true,"num":0}"#, || Bytes::from_static(b"\xff"));
        for data in [data, r#"{"num":0,"_placeholder":true}"#, r#"{"_placeholder":true,"num":0,"more":[1]}"#]
        {
            let tagged = read(&format!(r#"[{{"num":7,"type":"file","data":{data}}}]"#));
            assert_eq!(tagged.decode::<Tagged>().unwrap(), Tagged::File { data: one(), num: 7 });
            let flat = read(&format!(r#"[{{"id":1,"a":{data},"b":"x"}}]"#)).decode::<Flat>().unwrap();
            let rest = [("a".into(), Untagged::Data(one())), ("b".into(), Untagged::Text("x".into()))];
            assert_eq!(flat, Flat { id: 1, rest: rest.into() });
            let numbered = read(&format!(r#"[{{"3":{data},"num":[]}}]"#));
            assert!(numbered.decode::<std::collections::BTreeMap<u32, Bytes>>().is_err());
            let numbered = read(&format!(r#"[{{"3":{data}}}]"#));
            assert_eq!(numbered.decode::<std::collections::BTreeMap<u32, Bytes>>().unwrap()[&3], one());
            let nobody = read(&format!(r#"[{data}]"#));
            let error = nobody.decode::<Value>().unwrap_err().to_string();
            assert!(error.contains("bytes::Bytes"), "{error}");
            assert!(read(&format!(r#"[[{data}]]"#)).decode::<Value>().is_err());
            assert!(nobody.decode::<AllOptional>().is_err() && nobody.decode::<Vec<u8>>().is_err());
            nobody.decode::<de::IgnoredAny>().unwrap();
        }
        // Objects that only look like one, a little.
        for (json, num) in [
            (r#"{"num":7}"#, Some(7)),
            (r#"{"num":7,"_placeholder":false}"#, Some(7)),
            (r#"{"_placeholder":1,"num":7,"x":{"num":1}}"#, Some(7)),
            (r#"{"\u006eum":7}"#, Some(7)),
            (r#"{}"#, None),
        ] {
            let args = read(&format!("[{json}]"));
            assert_eq!(args.decode::<AllOptional>().unwrap(), AllOptional { num }, "{json}");
            assert_eq!(args.decode::<Value>().unwrap(), serde_json::from_str::<Value>(json).unwrap());
        }
    }

    /// Were a value set aside until it is known what it belongs to, it would be read again by each level around it, from a
    /// depth of its own and a place of its own.
    #[test]
    fn what_a_placeholder_could_begin_with_is_read_once_where_it_is() {
        #[derive(Debug, Deserialize)]
        #[allow(dead_code)]
        struct Level {
            #[serde(alias = "_placeholder")]
            num: Option<Box<Level>>,
        }
        for key in ["num", "_placeholder"] {
            let nested = |depth: usize, attachments| {
                let json = format!("[{}true{}]", format!("{{\"{key}\":").repeat(depth), "}".repeat(depth));
                Args::new(Text::from(json), 0, None, attachments)
            };
            let one = || vec![Bytes::new()];
            nested(100, one()).decode::<Value>().unwrap();
            let error = nested(200, one()).decode::<Value>().unwrap_err();
            assert!(error.details().to_string().starts_with("recursion limit"), "{key}: {error}");
            let [plain, binary] =
                [vec![], one()].map(|bytes| nested(3, bytes).decode::<Level>().unwrap_err());
            assert_eq!(binary.details().to_string(), plain.details().to_string(), "{key}");
        }
    }

    /// Also where nobody checked them, as with another parser: what is binary to one type is binary to all.
    #[test]
    fn every_reader_finds_the_same_placeholders() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(untagged)]
        enum Untagged {
            Data(Bytes),
            Object(serde_json::Map<String, Value>),
        }
        let two = || vec![Bytes::from_static(b"0"), Bytes::from_static(b"1")];
        for (json, number) in [
            (r#"{"_placeholder":true,"num":1}"#, Some(1)),
            (r#"{ "num" : 1 , "_placeholder" : true , "x":[] }"#, Some(1)),
            (r#"{"_placeholder":true,"num":0,"num":1}"#, Some(0)),
            (r#"{"_placeholder":true,"num":0,"\u006eum":1}"#, Some(0)),
            (r#"{"num":0,"_placeholder":true,"num":1}"#, Some(0)),
            (r#"{"x":1,"_placeholder":true,"num":1}"#, None),
            (r#"{"_placeholder":true,"x":1,"num":1}"#, None),
            (r#"{"\u005fplaceholder":true,"num":1}"#, None),
            (r#"{"_placeholder":true,"num":1.0}"#, None),
        ] {
            let args = Args::new(Text::from(format!("[{json}]")), 0, None, two());
            let expected = number.map(|number: usize| two()[number].clone());
            assert_eq!(args.decode::<Bytes>().ok(), expected, "{json}");
            assert_eq!(args.decode::<(Bytes,)>().ok().map(|(bytes,)| bytes), expected, "{json}");
            assert_eq!(args.decode::<Value>().is_ok(), expected.is_none(), "{json}");
            let read = args.decode::<Untagged>().unwrap();
            match expected {
                Some(bytes) => assert_eq!(read, Untagged::Data(bytes), "{json}"),
                None => assert!(matches!(read, Untagged::Object(_)), "{json}: {read:?}"),
            }
        }
    }

    #[test]
    fn keys_are_numbers_of_any_size() {
        let read = |key: &str| {
            let json = format!(r#"[{{"{key}":{{"_placeholder":true,"num":0}}}}]"#);
            Args::new(Text::from(json), 0, None, vec![Bytes::new()])
        };
        let most = read(&u128::MAX.to_string()).decode::<std::collections::BTreeMap<u128, Bytes>>().unwrap();
        assert_eq!(most.into_keys().next(), Some(u128::MAX));
        let least = read(&i128::MIN.to_string()).decode::<std::collections::BTreeMap<i128, Bytes>>().unwrap();
        assert_eq!(least.into_keys().next(), Some(i128::MIN));
        assert!(read("x").decode::<std::collections::BTreeMap<u128, Bytes>>().is_err());
    }

    #[test]
    fn a_placeholder_that_points_nowhere_is_an_error() {
        let bytes = vec![Bytes::from_static(b"a")];
        let args = Args::new(Text::from("[{\"_placeholder\":true,\"num\":1}]"), 0, None, bytes);
        assert!(args.decode::<Bytes>().unwrap_err().to_string().contains("attachment 1"));
    }
}
