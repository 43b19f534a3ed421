//! What goes over a link: frames of a JSON head and raw attachments, after a greeting.
//!
//! ```text
//! greeting  "sundewb" and a version byte, once, by both sides
//! frame     u32 length of the rest · u32 length of the head · head · for each attachment: u32 length · bytes
//! ```
//! Numbers are little-endian. Nothing here knows what a head means.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The version byte says which heads are understood.
pub(super) const GREETING: [u8; 8] = *b"sundewb\x01";

/// The largest frame: an own broadcast beyond it is refused, a peer that sends one is cut off.
pub(crate) const FRAME_LIMIT: usize = 64 << 20;

/// A link that cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("a frame of {size} bytes is over the limit of {FRAME_LIMIT}")]
    TooLong { size: usize },
    #[error("a frame that does not add up")]
    Malformed,
    #[error(
        "the other side is no bus of this version (it greets with {got:?}): reload all workers with one build"
    )]
    Greeting { got: [u8; 8] },
}

/// A frame that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) head: Bytes,
    pub(super) attachments: Vec<Bytes>,
}

/// One frame's bytes, made once and shared by all links it goes to.
pub(super) fn encode(head: &[u8], attachments: &[Bytes]) -> Result<Bytes, FrameError> {
    let size = 4 + head.len() + attachments.iter().map(|bytes| 4 + bytes.len()).sum::<usize>();
    if size > FRAME_LIMIT {
        return Err(FrameError::TooLong { size });
    }
    let mut frame = BytesMut::with_capacity(4 + size);
    // No length here exceeds FRAME_LIMIT.
    frame.put_u32_le(size as u32);
    frame.put_u32_le(head.len() as u32);
    frame.put_slice(head);
    for bytes in attachments {
        frame.put_u32_le(bytes.len() as u32);
        frame.put_slice(bytes);
    }
    Ok(frame.freeze())
}

/// Reads and checks the greeting.
pub(super) async fn read_greeting(reader: &mut (impl AsyncRead + Unpin)) -> Result<(), FrameError> {
    let mut got = [0; GREETING.len()];
    reader.read_exact(&mut got).await?;
    if got == GREETING { Ok(()) } else { Err(FrameError::Greeting { got }) }
}

/// Reads one frame. `None` when the other side has ended, between two frames.
pub(super) async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>, FrameError> {
    let mut length = [0; 4];
    if reader.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut length[1..]).await?;
    let size = u32::from_le_bytes(length) as usize;
    if size > FRAME_LIMIT {
        return Err(FrameError::TooLong { size });
    }
    let mut body = BytesMut::new();
    // The buffer grows as bytes come: an announced length alone costs nothing.
    let mut reader = reader.take(size as u64);
    while body.len() < size {
        if reader.read_buf(&mut body).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
    split(body.freeze()).map(Some)
}

fn split(mut body: Bytes) -> Result<Frame, FrameError> {
    let head = part(&mut body)?;
    let mut attachments = Vec::new();
    while !body.is_empty() {
        attachments.push(part(&mut body)?);
    }
    Ok(Frame { head, attachments })
}

fn part(body: &mut Bytes) -> Result<Bytes, FrameError> {
    let length = body.try_get_u32_le().map_err(|_| FrameError::Malformed)? as usize;
    if length > body.len() {
        return Err(FrameError::Malformed);
    }
    Ok(body.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_out_as_they_went_in() {
        let mut wire = Vec::new();
        let frames = [
            (b"{}".as_slice(), vec![]),
            (b"{\"a\":1}", vec![Bytes::from_static(b"\0\xff"), Bytes::new(), Bytes::from(vec![7; 70_000])]),
            (b"", vec![Bytes::new()]),
        ];
        for (head, attachments) in &frames {
            wire.extend_from_slice(&encode(head, attachments).unwrap());
        }
        let mut reader = wire.as_slice();
        for (head, attachments) in frames {
            let frame = read_frame(&mut reader).await.unwrap().unwrap();
            assert_eq!(frame, Frame { head: head.into(), attachments });
        }
        assert!(read_frame(&mut reader).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_does_not_add_up_is_an_error() {
        let cases: [&[u8]; 6] = [
            b"\x01",                         // ends inside the length
            b"\x08\0\0\0\x01\0\0\0",         // ends inside the frame
            b"\x04\0\0\0\x01\0\0\0",         // the head is longer than the frame
            b"\x06\0\0\0\0\0\0\0\0\0",       // an attachment without its length
            b"\x08\0\0\0\0\0\0\0\x01\0\0\0", // an attachment longer than the frame
            b"\xff\xff\xff\xff",             // over the limit
        ];
        for case in cases {
            let mut reader = case;
            assert!(read_frame(&mut reader).await.is_err(), "{case:?}");
        }
    }

    #[tokio::test]
    async fn an_announced_length_alone_reserves_nothing() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut theirs, &(FRAME_LIMIT as u32).to_le_bytes()).await.unwrap();
        drop(theirs);
        assert!(matches!(read_frame(&mut ours).await, Err(FrameError::Io(_))));
    }

    #[tokio::test]
    async fn another_version_is_named() {
        assert!(read_greeting(&mut GREETING.as_slice()).await.is_ok());
        let error = read_greeting(&mut b"sundewb\x09".as_slice()).await.unwrap_err();
        assert!(error.to_string().contains("reload all workers"));
    }
}
