//! WebTransport's IO: the UDP port, what becomes of a connection on it, and the one stream a session lives on. QUIC and
//! HTTP/3 are web-transport-quinn's.

pub(crate) mod certificate;
pub(crate) mod handshake;
pub(crate) mod listener;
pub(crate) mod stream;
