//! Reads `sundew.tls`: where TLS ends at the front door, and with which certificates.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::coerce::{Given, Reader};
use super::context::Context;
use super::diagnostic::Span;
use super::node::Node;
use super::options::{Listen, TlsFiles, TlsOptions};
use super::sundew::each;

const KEYS: &[&str] = &["cert", "key", "listen"];

/// The most addresses, and the most certificates, of an app.
const MOST: usize = 64;

/// As written. Paths are not resolved yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Tls {
    listen: Vec<Listen>,
    certs: Vec<String>,
    keys: Vec<String>,
    key: String,
    at: Option<Span>,
}

pub(super) fn read(key: &str, node: &Node, reader: &mut Reader<'_>) -> Option<Tls> {
    let before = reader.report.errors.len();
    let mut tls = Tls { key: key.to_owned(), at: node.at, ..Tls::default() };
    each(key, node, KEYS, reader, |known, written, node, reader| match known {
        "cert" => tls.certs = files(written, node, reader),
        "key" => tls.keys = files(written, node, reader),
        _ => tls.listen = listen(written, node, reader),
    });
    let message = if reader.report.errors.len() > before {
        return None;
    } else if tls.listen.is_empty() {
        format!("`{key}` has no `listen`: the port, or ip:port, for TLS")
    } else if tls.certs.is_empty() {
        format!("`{key}` has no `cert`: a PEM file with the certificate and those it is signed by")
    } else if tls.certs.len() != tls.keys.len() {
        format!("`{key}` has {} `cert` and {} `key`: each needs its own", tls.certs.len(), tls.keys.len())
    } else {
        return Some(tls);
    };
    let hint = "\"tls\": { \"cert\": \"fullchain.pem\", \"key\": \"key.pem\", \"listen\": 8443 }";
    let diagnostic = reader.about(key, node.at, message).hint(hint);
    reader.report.error(diagnostic);
    None
}

/// One path as it is, spaces and all, or a list.
fn files(key: &str, node: &Node, reader: &mut Reader<'_>) -> Vec<String> {
    let files = match &node.value {
        super::node::Value::List(_) => reader.list(key, node).unwrap_or_default(),
        _ => reader.text(key, node).map(|given| given.value).into_iter().collect(),
    };
    few(key, node, files, reader)
}

fn listen(key: &str, node: &Node, reader: &mut Reader<'_>) -> Vec<Listen> {
    let mut all = Vec::new();
    for written in reader.list(key, node).unwrap_or_default() {
        let port = written.parse().ok().filter(|port| *port > 0).map(Listen::Port);
        match port.or_else(|| written.parse::<SocketAddr>().ok().map(Listen::Address)) {
            Some(listen) => all.push(listen),
            None => {
                let message = format!("{written:?} in `{key}` is neither a port nor ip:port");
                let diagnostic = reader.about(key, node.at, message);
                reader.report.error(diagnostic);
            }
        }
    }
    few(key, node, all, reader)
}

fn few<T>(key: &str, node: &Node, all: Vec<T>, reader: &mut Reader<'_>) -> Vec<T> {
    if all.len() > MOST {
        let message = format!("`{key}` has {} items: {MOST} are the most", all.len());
        let diagnostic = reader.about(key, node.at, message);
        reader.report.error(diagnostic);
    }
    all
}

impl Tls {
    /// With absolute paths. A relative one is looked for where the app runs, then beside its file.
    pub(super) fn resolve(
        &self,
        cwd: &Path,
        folder: Option<&Path>,
        context: &Context,
        reader: &mut Reader<'_>,
    ) -> Option<TlsOptions> {
        let mut files = Vec::new();
        for (cert, key) in self.certs.iter().zip(&self.keys) {
            let cert = self.file(cert, cwd, folder, context, reader)?;
            files.push(TlsFiles { cert, key: self.file(key, cwd, folder, context, reader)? });
        }
        Some(TlsOptions { listen: self.listen.clone(), files })
    }

    fn file(
        &self,
        written: &str,
        cwd: &Path,
        folder: Option<&Path>,
        context: &Context,
        reader: &mut Reader<'_>,
    ) -> Option<PathBuf> {
        let tried: Vec<PathBuf> =
            [Some(cwd), folder].into_iter().flatten().map(|base| context.path(written, base)).collect();
        if let Some(found) = tried.iter().find(|path| path.is_file()) {
            return Some(found.clone());
        }
        let message = format!("`{written}` of `{}` is not a file", self.key);
        let mut diagnostic = reader.about(&self.key, self.at, message);
        for path in &tried {
            diagnostic = diagnostic.note(format!("looked for {}", path.display()));
        }
        reader.report.error(diagnostic);
        None
    }

    /// As what is written here is named in messages.
    pub(super) fn given(&self) -> Given<()> {
        Given { value: (), key: self.key.clone(), at: self.at }
    }
}
