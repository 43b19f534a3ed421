//! Connections between nodes: encrypted, and only for those who know the secret.
//!
//! The Noise protocol with a pre-shared key (`NNpsk0`, X25519, ChaCha20-Poly1305, SHA-256): both sides prove that they
//! know the secret, every connection has keys of its own that are gone with it, and what somebody recorded cannot be
//! played again, because the other side's part of the key is new each time. Records follow: a length (2 bytes, big
//! endian), then so many sealed bytes. An empty one is the end of that side.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use snow::{Builder, TransportState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::wire::PROTOCOL;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
/// What sealing adds, in bytes.
const TAG: usize = 16;
/// The most of one record that is no sealing, in bytes.
pub(crate) const PLAIN: usize = 16 * 1024;
/// The longest record, in bytes.
pub(crate) const SEALED: usize = PLAIN + TAG;
/// The longest message of a handshake, in bytes.
const HANDSHAKE: usize = 256;
/// A node that vanished without a word is probed for this often.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Most likely it knows another secret.
    #[error(
        "the other side does not know the secret of this cluster, or is of another version: `secret` has to be the same on every node"
    )]
    Stranger,
    #[error("no answer in time")]
    Timeout,
}

impl From<snow::Error> for SealError {
    fn from(_: snow::Error) -> Self {
        Self::Stranger
    }
}

/// A connection whose both ends have proved who they are.
pub(crate) struct Sealed {
    pub(crate) stream: TcpStream,
    pub(crate) noise: TransportState,
}

fn builder(key: &[u8; 32]) -> Result<Builder<'_>, SealError> {
    let pattern = PATTERN.parse().map_err(|_| SealError::Stranger)?;
    Ok(Builder::new(pattern).psk(0, key)?)
}

fn prologue() -> [u8; 11] {
    let [a, b, c, d] = PROTOCOL.to_be_bytes();
    [b's', b'u', b'n', b'd', b'e', b'w', b' ', a, b, c, d]
}

/// Connects to another node.
pub(crate) async fn connect(
    addr: &str,
    key: &[u8; 32],
    timeout: Duration,
    silence: Duration,
) -> Result<Sealed, SealError> {
    let connect = async {
        let mut stream = TcpStream::connect(addr).await?;
        watch(&stream, silence)?;
        let mut handshake = builder(key)?.prologue(&prologue())?.build_initiator()?;
        let mut buffer = [0; HANDSHAKE];
        let length = handshake.write_message(&[], &mut buffer)?;
        send(&mut stream, &buffer[..length]).await?;
        let answer = match receive(&mut stream, HANDSHAKE).await {
            Ok(answer) => answer,
            // It hangs up on strangers without a word.
            Err(error) if is_end(&error) => return Err(SealError::Stranger),
            Err(error) => return Err(error.into()),
        };
        handshake.read_message(&answer, &mut buffer)?;
        Ok(Sealed { stream, noise: handshake.into_transport_mode()? })
    };
    tokio::time::timeout(timeout, connect).await.map_err(|_| SealError::Timeout)?
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

/// Takes a connection of another node.
pub(crate) async fn accept(
    mut stream: TcpStream,
    key: &[u8; 32],
    timeout: Duration,
    silence: Duration,
) -> Result<Sealed, SealError> {
    let accept = async {
        watch(&stream, silence)?;
        let mut handshake = builder(key)?.prologue(&prologue())?.build_responder()?;
        let mut buffer = [0; HANDSHAKE];
        let first = receive(&mut stream, HANDSHAKE).await?;
        handshake.read_message(&first, &mut buffer)?;
        let length = handshake.write_message(&[], &mut buffer)?;
        send(&mut stream, &buffer[..length]).await?;
        Ok(Sealed { stream, noise: handshake.into_transport_mode()? })
    };
    tokio::time::timeout(timeout, accept).await.map_err(|_| SealError::Timeout)?
}

/// Finds out when the other host has vanished.
fn watch(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, KEEPALIVE_EVERY)?;
    rustix::net::sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY)?;
    // Also what was sent and is not confirmed ends the connection then.
    let silence = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(stream, silence)?;
    Ok(())
}

async fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let mut record = Vec::with_capacity(2 + message.len());
    put_length(&mut record, message.len());
    record.extend_from_slice(message);
    stream.write_all(&record).await
}

async fn receive(stream: &mut TcpStream, limit: usize) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > limit {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(crate) fn put_length(out: &mut Vec<u8>, length: usize) {
    // At most `SEALED`.
    out.extend_from_slice(&(length as u16).to_be_bytes());
}

/// Seals `plain` (at most [`PLAIN`] bytes) into a record behind what is in `out`.
pub(crate) fn seal(noise: &mut TransportState, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    put_length(out, plain.len() + TAG);
    let at = out.len();
    out.resize(at + plain.len() + TAG, 0);
    noise.write_message(plain, &mut out[at..]).map_err(io::Error::other)?;
    Ok(())
}

/// Opens a record, without its length, into `plain`; gives how many bytes there are.
pub(crate) fn open(noise: &mut TransportState, record: &[u8], plain: &mut [u8]) -> io::Result<usize> {
    noise.read_message(record, plain).map_err(|_| io::ErrorKind::InvalidData.into())
}

impl Sealed {
    /// Sends a message as one record.
    pub(crate) async fn say<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let json = serde_json::to_vec(message)?;
        if json.len() > PLAIN {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut record = Vec::with_capacity(2 + json.len() + TAG);
        seal(&mut self.noise, &json, &mut record)?;
        self.stream.write_all(&record).await
    }

    /// Waits for a message. Dropped before it comes, the connection is of no use any more: see [`Sealed::hear_any`].
    pub(crate) async fn hear<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let record = receive(&mut self.stream, SEALED).await?;
        let mut plain = vec![0; record.len()];
        let length = open(&mut self.noise, &record, &mut plain)?;
        Ok(serde_json::from_slice(&plain[..length])?)
    }

    /// As [`Sealed::hear`], but it can be dropped and called again: what came so far is kept in `buffer`.
    pub(crate) async fn hear_any<T: DeserializeOwned>(&mut self, buffer: &mut Vec<u8>) -> io::Result<T> {
        loop {
            if let [high, low, rest @ ..] = &buffer[..] {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length > SEALED {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if let Some(record) = rest.get(..length) {
                    let mut plain = vec![0; length];
                    let opened = open(&mut self.noise, record, &mut plain)?;
                    buffer.drain(..2 + length);
                    return Ok(serde_json::from_slice(&plain[..opened])?);
                }
            }
            if self.stream.read_buf(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
