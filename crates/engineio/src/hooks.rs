//! What an app may add to answers, and what it is told about requests that are refused.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue};

/// Adds headers to an answer, given the request.
pub type AddHeaders = Arc<dyn Fn(&mut HeaderMap, &Parts) + Send + Sync>;

/// Is told of a refused request.
pub type OnConnectionError = Arc<dyn Fn(&ConnectionError<'_>) + Send + Sync>;

/// A request that was refused (Node's `connection_error` event). Its `Debug` form leaves out the query, which has the id of a
/// session, and the headers.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ConnectionError<'a> {
    /// The protocol's code: 0 transport unknown, 1 session id unknown, 2 bad handshake method, 3 bad request, 4
    /// forbidden, 5 unsupported protocol version. None where the protocol has no word for it: too many sessions, shutting
    /// down.
    pub code: Option<u8>,
    /// What the client was told; or what is wrong, if that was found when its websocket had been accepted.
    pub message: &'a str,
    /// The request, without its body.
    pub request: &'a Parts,
}

impl fmt::Debug for ConnectionError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionError")
            .field("code", &self.code)
            .field("message", &self.message)
            .field("method", &self.request.method)
            .field("path", &self.request.uri.path())
            .finish_non_exhaustive()
    }
}

/// A cookie with the session's id, set by the answer of a polling handshake (`cookie`). For load balancers that know
/// sessions by cookies; the server never reads it. The id is a secret: keep it out of scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cookie {
    /// Its name. Default `io`.
    pub name: String,
    /// Default `/`.
    pub path: Option<String>,
    /// Default none.
    pub domain: Option<String>,
    /// Whether scripts are kept from it. Default true.
    pub http_only: bool,
    /// Whether it is only sent over TLS. Default false.
    pub secure: bool,
    /// Default lax.
    pub same_site: Option<SameSite>,
    /// How long it lives, in whole seconds. Default: until the browser is closed.
    pub max_age: Option<Duration>,
}

/// Whether a cookie goes with requests of other sites' pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Never.
    Strict,
    /// When a link is followed.
    Lax,
    /// Always. Browsers want [`secure`](Cookie::secure) with it.
    None,
}

impl Default for Cookie {
    fn default() -> Cookie {
        Cookie {
            name: "io".into(),
            path: Some("/".into()),
            domain: None,
            http_only: true,
            secure: false,
            same_site: Some(SameSite::Lax),
            max_age: None,
        }
    }
}

impl Cookie {
    /// Its name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Cookie {
        self.name = name.into();
        self
    }

    /// The path it is sent to; with `None`, that of the request.
    #[must_use]
    pub fn path(mut self, path: Option<&str>) -> Cookie {
        self.path = path.map(String::from);
        self
    }

    /// The domain whose hosts it is sent to. Without it, it is the server's own host alone.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Cookie {
        self.domain = Some(domain.into());
        self
    }

    /// Whether scripts are kept from it.
    #[must_use]
    pub fn http_only(mut self, http_only: bool) -> Cookie {
        self.http_only = http_only;
        self
    }

    /// Whether it is only sent over TLS.
    #[must_use]
    pub fn secure(mut self, secure: bool) -> Cookie {
        self.secure = secure;
        self
    }

    /// Whether it goes with requests of other sites' pages; `None` leaves that to the browser.
    #[must_use]
    pub fn same_site(mut self, same_site: Option<SameSite>) -> Cookie {
        self.same_site = same_site;
        self
    }

    /// How long it lives, in whole seconds.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Cookie {
        self.max_age = Some(max_age);
        self
    }

    /// The `Set-Cookie` header for a session, in the order of npm's `cookie`. `None` if a part cannot be in a header.
    pub(crate) fn header(&self, sid: &str) -> Option<HeaderValue> {
        let mut text = format!("{}={sid}", self.name);
        let mut put = |name: &str, value: &str| {
            text.push_str("; ");
            text.push_str(name);
            text.push_str(value);
        };
        if let Some(max_age) = self.max_age {
            put("Max-Age=", &max_age.as_secs().to_string());
        }
        if let Some(domain) = &self.domain {
            put("Domain=", domain);
        }
        if let Some(path) = &self.path {
            put("Path=", path);
        }
        if self.http_only {
            put("HttpOnly", "");
        }
        if self.secure {
            put("Secure", "");
        }
        match self.same_site {
            Some(SameSite::Strict) => put("SameSite=", "Strict"),
            Some(SameSite::Lax) => put("SameSite=", "Lax"),
            Some(SameSite::None) => put("SameSite=", "None"),
            None => {}
        }
        HeaderValue::try_from(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_written_as_node_writes_it() {
        assert_eq!(Cookie::default().header("abc").unwrap(), "io=abc; Path=/; HttpOnly; SameSite=Lax");
        let cookie = Cookie::default()
            .name("session")
            .path(None)
            .domain("a.example")
            .http_only(false)
            .secure(true)
            .same_site(Some(SameSite::None))
            .max_age(Duration::from_secs(60));
        let expected = "session=abc; Max-Age=60; Domain=a.example; Secure; SameSite=None";
        assert_eq!(cookie.header("abc").unwrap(), expected);
        assert_eq!(cookie.name("a\nb").header("abc"), None);
    }
}
