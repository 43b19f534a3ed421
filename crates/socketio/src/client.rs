//! The browser client, served from an installed npm package (Node's `serveClient`). Nothing of it is compiled in, and
//! nothing but its known files is ever read.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{Method, Request, Response, StatusCode};
use sundew_engineio::Body;

use crate::SocketIo;

/// The files of a `dist` folder that are served, each with its `.map`.
const FILES: [&str; 6] = [
    "socket.io.js",
    "socket.io.min.js",
    "socket.io.esm.js",
    "socket.io.esm.min.js",
    "socket.io.msgpack.js",
    "socket.io.msgpack.min.js",
];

/// A file a request asks for.
pub(crate) struct Wanted {
    path: PathBuf,
    known: Option<HeaderValue>,
    head: bool,
}

/// Whether the request asks for the client, and the server offers it.
pub(crate) fn wanted<B>(io: &SocketIo, request: &Request<B>) -> Option<Wanted> {
    let dist = io.shared().options.client_dir.as_deref()?;
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return None;
    }
    let name = request.uri().path().strip_prefix(io.engine().config().path.as_str())?;
    FILES.contains(&name.strip_suffix(".map").unwrap_or(name)).then(|| Wanted {
        path: dist.join(name),
        known: request.headers().get(IF_NONE_MATCH).cloned(),
        head: request.method() == Method::HEAD,
    })
}

impl Wanted {
    /// Answers as Node does: ETag is the package's version, 304 if the client has it.
    pub(crate) async fn serve(self) -> Response<Body> {
        let read = tokio::task::spawn_blocking(move || self.read()).await;
        read.unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
    }

    fn read(self) -> Response<Body> {
        let etag =
            version(&self.path).and_then(|version| HeaderValue::try_from(format!("\"{version}\"")).ok());
        if etag.is_some()
            && (etag == self.known || self.known.as_ref().is_some_and(|known| weak(known, &etag)))
        {
            let mut response = status(StatusCode::NOT_MODIFIED);
            tag(&mut response, etag);
            return response;
        }
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                tracing::warn!(
                    path = %self.path.display(), %error,
                    "the client cannot be served: serve_client wants the dist folder of an installed socket.io-client"
                );
                return status(StatusCode::NOT_FOUND);
            }
        };
        let map = self.path.extension().is_some_and(|extension| extension == "map");
        let kind = if map { "application/json" } else { "application/javascript" };
        let length = bytes.len();
        let mut response = Response::new(if self.head { Body::empty() } else { Body::from(bytes) });
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if self.head {
            headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        tag(&mut response, etag);
        response
    }
}

/// `W/"..."` of the same version.
fn weak(known: &HeaderValue, etag: &Option<HeaderValue>) -> bool {
    let known = known.as_bytes().strip_prefix(b"W/");
    known.is_some() && known == etag.as_ref().map(HeaderValue::as_bytes)
}

fn tag(response: &mut Response<Body>, etag: Option<HeaderValue>) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=0"));
    if let Some(etag) = etag {
        headers.insert(ETAG, etag);
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The version in the package.json beside the dist folder.
fn version(file: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Package {
        version: String,
    }
    let text = std::fs::read(file.parent()?.parent()?.join("package.json")).ok()?;
    serde_json::from_slice::<Package>(&text).ok().map(|package| package.version)
}
