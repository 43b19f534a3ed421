//! What a session receives: text and binary messages, as slices of the bytes that were read.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use tungstenite::Utf8Bytes;

/// One Engine.IO message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text message, without the leading packet type.
    Text(Text),
    /// A binary message.
    Binary(Bytes),
}

impl From<&str> for Message {
    fn from(text: &str) -> Message {
        Message::Text(text.into())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Message {
        Message::Text(text.into())
    }
}

impl From<Bytes> for Message {
    fn from(data: Bytes) -> Message {
        Message::Binary(data)
    }
}

/// Validated UTF-8 over shared bytes: cloning copies nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(Utf8Bytes);

impl Text {
    /// Checks `bytes` once.
    ///
    /// # Errors
    /// The bytes are not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Text, std::str::Utf8Error> {
        Utf8Bytes::try_from(bytes).map(Text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The bytes underneath, to slice from without copying.
    pub fn into_bytes(self) -> Bytes {
        self.0.into()
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(Utf8Bytes::from(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text(Utf8Bytes::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_as_good_as_a_str() {
        let text = Text::from("hé");
        assert!(text == "hé" && text == *"hé" && text != "he");
        assert_eq!(format!("{text:>4}"), "  hé");
        assert_eq!(AsRef::<str>::as_ref(&text), "hé");
    }

    #[test]
    fn messages_are_made_of_what_they_hold() {
        assert_eq!(Message::from("a"), Message::Text("a".into()));
        assert_eq!(Message::from("a".to_owned()), Message::Text("a".into()));
        let data = Bytes::from_static(b"a");
        assert_eq!(Message::from(data.clone()), Message::Binary(data));
    }
}
