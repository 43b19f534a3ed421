//! What is proved to clients: certificates with their keys, found by the name a client asks for, and replaced while
//! connections come in.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, client::verify_server_name};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// There is none in the text.
    #[error("it holds no certificate: a PEM file with -----BEGIN CERTIFICATE----- is needed")]
    NoCertificate,
    /// There is no key in the text.
    #[error(
        "it holds no private key: a PEM file with -----BEGIN PRIVATE KEY----- is needed, without a passphrase"
    )]
    NoKey,
    /// The text is no PEM.
    #[error("it is not PEM: {0}")]
    Pem(String),
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// Nothing was given.
    #[error("there is no certificate")]
    Empty,
    /// Anything else about them.
    #[error("{0}")]
    Other(String),
}

impl CertificateError {
    /// The private key is to blame, rather than the certificate.
    pub fn is_about_the_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::Mismatch)
    }
}

/// Certificates with their keys. The first is for clients that ask for no name, or for one that none of them has.
#[derive(Clone, Default)]
pub struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Adds a chain (the server's own certificate first) and its key, as PEM.
    ///
    /// # Errors
    /// When either cannot be read, or they do not belong together.
    pub fn add(&mut self, chain: &[u8], key: &[u8]) -> Result<(), CertificateError> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(pem)?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => CertificateError::NoKey,
            error => pem(error),
        })?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch,
            error => CertificateError::Other(error.to_string()),
        })?;
        self.keys.push(Arc::new(key));
        Ok(())
    }

    fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let asked = name.filter(|_| self.keys.len() > 1).and_then(|name| ServerName::try_from(name).ok());
        let named = asked.and_then(|name| {
            self.keys.iter().find(|key| {
                let certificate = key.end_entity_cert().and_then(ParsedCertificate::try_from);
                certificate.is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
            })
        });
        named.or(self.keys.first())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("count", &self.keys.len()).finish()
    }
}

fn pem(error: pem::Error) -> CertificateError {
    CertificateError::Pem(error.to_string())
}

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// What new connections are shown.
pub(super) struct Shown(RwLock<Certificates>);

impl Shown {
    pub(super) fn new(certificates: Certificates) -> Self {
        Self(RwLock::new(certificates))
    }

    pub(super) fn replace(&self, certificates: Certificates) {
        *self.0.write() = certificates;
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.read().fmt(f)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().find(hello.server_name()).cloned()
    }
}

/// How connections are encrypted: TLS 1.2 and 1.3, with the provider's own choice of suites.
pub(super) fn config(shown: Arc<Shown>, alpn: Vec<Vec<u8>>) -> Result<ServerConfig, CertificateError> {
    if shown.0.read().keys.is_empty() {
        return Err(CertificateError::Empty);
    }
    let other = |error: rustls::Error| CertificateError::Other(error.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::new(provider()));
    let versions = builder.with_safe_default_protocol_versions().map_err(other)?;
    let mut config = versions.with_no_client_auth().with_cert_resolver(shown);
    config.alpn_protocols = alpn;
    // Tickets hold the session's state themselves: nothing is kept here for a client that may come back.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(other)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}
