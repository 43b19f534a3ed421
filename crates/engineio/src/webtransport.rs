//! WebTransport: sessions over HTTP/3, where the engine has a UDP port of its own.
//!
//! A [`Listener`] binds the port and holds the [`Certificate`]; [`Engine::serve_webtransport`] serves it. It is offered
//! once [`Transports::webtransport`] is on. What bounds it: [`Options`] for what QUIC holds,
//! [`Config::upgrade_timeout`] for clients that do not come to the point, and the engine's other limits as on every
//! transport.
//!
//! [`Engine::serve_webtransport`]: crate::Engine::serve_webtransport
//! [`Transports::webtransport`]: crate::Transports::webtransport
//! [`Config::upgrade_timeout`]: crate::Config::upgrade_timeout

pub use crate::engine::webtransport::ServeError;
pub use crate::server::webtransport::certificate::{Certificate, CertificateError};
pub use crate::server::webtransport::listener::{Listener, Options};
