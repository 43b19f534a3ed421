//! What is proved to clients: a certificate and its key, replaced while connections come in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use web_transport_quinn::crypto::sha256;

/// A certificate with its key. HTTP/3 is always encrypted, and browsers want a certificate they know: one of an authority,
/// or one whose hash the page gives them (`serverCertificateHashes`; ECDSA, valid for 14 days at most).
#[derive(Clone)]
pub struct Certificate(Arc<CertifiedKey>);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is none in the text.
    #[error("no certificate: a PEM file with -----BEGIN CERTIFICATE----- is needed")]
    NoCertificate,
    /// There is no key in the text.
    #[error("no private key: a PEM file with -----BEGIN PRIVATE KEY----- is needed, without a passphrase")]
    NoKey,
    /// The text is no PEM.
    #[error("not PEM: {0}")]
    Pem(String),
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// Anything else about them.
    #[error("{0}")]
    Other(String),
}

impl Certificate {
    /// A chain (the server's own certificate first) and its key, as PEM.
    ///
    /// # Errors
    /// When either cannot be read, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Certificate, CertificateError> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(not_pem)?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => CertificateError::NoKey,
            error => not_pem(error),
        })?;
        match CertifiedKey::from_der(chain, key, &provider()) {
            Ok(key) => Ok(Certificate(Arc::new(key))),
            Err(rustls::Error::InconsistentKeys(_)) => Err(CertificateError::Mismatch),
            Err(error) => Err(CertificateError::Other(error.to_string())),
        }
    }

    /// The same, read from files.
    ///
    /// # Errors
    /// The same, and when a file cannot be read.
    pub fn from_pem_files(
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Certificate, CertificateError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source })
        };
        Certificate::from_pem(&read(chain.as_ref())?, &read(key.as_ref())?)
    }
}

impl Certificate {
    /// The SHA-256 of the server's own certificate: what a page gives a browser as `serverCertificateHashes`.
    pub fn sha256(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        // Of a chain that was read, so it has a first one.
        if let Some(certificate) = self.0.cert.first() {
            hash.copy_from_slice(sha256(&Arc::new(provider()), certificate).as_ref());
        }
        hash
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("chain", &self.0.cert.len()).finish_non_exhaustive()
    }
}

fn not_pem(error: pem::Error) -> CertificateError {
    CertificateError::Pem(error.to_string())
}

pub(super) fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// What new connections are shown.
pub(super) struct Shown(RwLock<Certificate>);

impl Shown {
    pub(super) fn new(certificate: Certificate) -> Shown {
        Shown(RwLock::new(certificate))
    }

    pub(super) fn replace(&self, certificate: Certificate) {
        *self.0.write() = certificate;
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.read().fmt(f)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().0.clone())
    }
}
