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
        write_array(&mut Vec::new(), &mut Vec::new(), None, std::collections::HashMap::from([((1, 2), 3)]))
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
    for data in [data, r#"{"num":0,"_placeholder":true}"#, r#"{"_placeholder":true,"num":0,"more":[1]}"#] {
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
        let [plain, binary] = [vec![], one()].map(|bytes| nested(3, bytes).decode::<Level>().unwrap_err());
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
