//! What may be emitted, and how it becomes the array of a packet: written once, binary lifted out on the way.

use std::fmt;
use std::io;

use bytes::Bytes;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use super::Args;
use super::binary::Lifted;
use super::plain::is_plain;
use super::spread::{NotSpread, Spread};

/// What can be emitted: anything serializable. A tuple is several arguments (so is a fixed-size array: serde does not
/// tell them apart), `()` none, anything else is one. Byte types (`bytes::Bytes`, `serde_bytes`) are sent as binary.
/// [`Args`] are sent as they came.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be emitted",
    label = "needs `serde::Serialize`",
    note = "derive `serde::Serialize` for it; several arguments are a tuple, `socket.emit(\"event\", (a, b))`"
)]
pub trait EmitArgs {
    #[doc(hidden)]
    fn write<W: io::Write>(self, out: &mut Writer<'_, W>) -> Result<(), serde_json::Error>;
}

impl<T: Serialize> EmitArgs for T {
    fn write<W: io::Write>(self, out: &mut Writer<'_, W>) -> Result<(), serde_json::Error> {
        // To serde, a null of `serde_json::Value` is the same.
        if matches!(std::any::type_name::<T>(), "()" | "&()") {
            return Ok(());
        }
        match self.serialize(Spread(out)) {
            Ok(()) => Ok(()),
            Err(NotSpread::One) => out.element(&self),
            Err(NotSpread::Failed(error)) => Err(error),
        }
    }
}

impl EmitArgs for Args {
    fn write<W: io::Write>(self, out: &mut Writer<'_, W>) -> Result<(), serde_json::Error> {
        (&self).write(out)
    }
}

impl EmitArgs for &Args {
    fn write<W: io::Write>(self, out: &mut Writer<'_, W>) -> Result<(), serde_json::Error> {
        let elements = self.elements();
        if !elements.is_empty() {
            out.separate()?;
            out.target.write_all(elements.as_bytes()).map_err(serde_json::Error::io)?;
            out.attachments.extend_from_slice(self.attachments());
        }
        Ok(())
    }
}

/// Writes the elements of a packet's array and collects the binary values in them.
#[doc(hidden)]
pub struct Writer<'a, W> {
    target: &'a mut W,
    attachments: &'a mut Vec<Bytes>,
    first: bool,
}

impl<W> fmt::Debug for Writer<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl<W: io::Write> Writer<'_, W> {
    fn separate(&mut self) -> Result<(), serde_json::Error> {
        if !std::mem::take(&mut self.first) {
            self.target.write_all(b",").map_err(serde_json::Error::io)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn name(&mut self, event: &str) -> Result<(), serde_json::Error> {
        // Hardly any name has something to escape.
        if !is_plain(event) {
            return self.element(event);
        }
        self.separate()?;
        let mut put = |part: &[u8]| self.target.write_all(part).map_err(serde_json::Error::io);
        put(b"\"").and_then(|()| put(event.as_bytes())).and_then(|()| put(b"\""))
    }

    pub(crate) fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), serde_json::Error> {
        self.separate()?;
        let lift = Lift(self.attachments);
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut *self.target, lift))
    }
}

/// Writes `["name",args...]`.
#[inline(always)]
pub(crate) fn write_array<W: io::Write>(
    target: &mut W,
    attachments: &mut Vec<Bytes>,
    event: Option<&str>,
    args: impl EmitArgs,
) -> Result<(), serde_json::Error> {
    target.write_all(b"[").map_err(serde_json::Error::io)?;
    let mut writer = Writer { target, attachments, first: true };
    if let Some(event) = event {
        writer.name(event)?;
    }
    args.write(&mut writer)?;
    target.write_all(b"]").map_err(serde_json::Error::io)
}

/// JSON whose byte arrays become placeholders.
struct Lift<'a>(&'a mut Vec<Bytes>);

impl Formatter for Lift<'_> {
    fn write_byte_array<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: &[u8]) -> io::Result<()> {
        let num = self.0.len();
        self.0.push(Bytes::copy_from_slice(value));
        write!(writer, "{{\"{}\":true,\"{}\":{num}}}", Lifted::MARK, Lifted::NUM)
    }

    fn write_null<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        CompactFormatter.write_null(writer)
    }
}
