//! What a session receives: text and binary messages, as slices of the bytes that were read.

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
