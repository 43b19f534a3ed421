//! Where a client should connect to, for a page that is rendered here: asked of the supervisor, which answers as
//! `GET /.sundew/route` does.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{StatusCode, header};
use parking_lot::Mutex;
use sundew_channel::native::{NoTarget, Target, ToSupervisor};
use sundew_io::PeerAddr;
use tokio::sync::oneshot;

use crate::{Cluster, try_cluster};

/// A `Host` header longer than this is no host.
const HOST_LIMIT: usize = 262;

/// Where the client of this request should connect to: the port of the worker that its session is meant for.
///
/// An extractor of handlers that render a page. Under the supervisor the app needs `direct` and `route` in its `sundew`
/// object; `balance` chooses the worker, and the client counts as a session there until it comes, or for 5 to 10
/// seconds. So take it only where the page is told. Alone, it is the address that the request was sent to.
///
/// ```
/// # use sundew_worker as sundew;
/// use axum::response::Html;
///
/// async fn page(route: sundew::Route) -> Html<String> {
///     // It has nothing that HTML or a script would need to escape.
///     Html(format!("<script>const socket = io('{}');</script>", route.url))
/// }
/// # let _: axum::Router = axum::Router::new().route("/page", axum::routing::get(page));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// For the client's `io(url)`: scheme, host and port, of letters, digits and `:/.-_[]`.
    pub url: String,
    /// The host in it; an IPv6 address is in brackets.
    pub host: String,
    /// The port in it.
    pub port: u16,
}

/// Why a [`Route`] cannot be told. As a response it says so, with the status named here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoRoute {
    /// 500: the app is not configured for it.
    #[error(
        "this app tells no routes: set \"direct\": {{ \"basePort\": 3131 }} and \"route\": true in its `sundew` object"
    )]
    Off,
    /// 400: the request's `Host` names no host.
    #[error("the request's Host names no host: set sundew.route.host to the one that clients reach")]
    NoHost,
    /// 503: no worker takes new sessions.
    #[error("no worker takes new sessions: ask again")]
    NoWorker,
    /// 503: as many questions as `route.waiting` allows wait for an answer.
    #[error("{0} requests wait for a route already (sundew.route.waiting): ask again")]
    Busy(u32),
    /// 503: no answer within `route.timeout`.
    #[error("the supervisor has not answered within {0:?} (sundew.route.timeout): ask again")]
    Late(Duration),
    /// 503: the supervisor is gone.
    #[error("the supervisor is gone: ask again")]
    Gone,
}

impl IntoResponse for NoRoute {
    fn into_response(self) -> Response {
        let status = match self {
            NoRoute::Off => StatusCode::INTERNAL_SERVER_ERROR,
            NoRoute::NoHost => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, [(header::CACHE_CONTROL, "no-store")], self.to_string()).into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for Route {
    type Rejection = NoRoute;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Route, NoRoute> {
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // Of HTTP/2 it is in the target.
        let host =
            host.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default();
        let client = parts.extensions.get::<PeerAddr>().map(|peer| peer.0.ip());
        match try_cluster() {
            Ok(Some(cluster)) => cluster.route(host, client).await,
            Ok(None) => alone(host),
            Err(_) => Err(NoRoute::Gone),
        }
    }
}

/// The address that the request was sent to.
fn alone(given: &str) -> Result<Route, NoRoute> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if given.len() > HOST_LIMIT || !given.bytes().all(plain) {
        return Err(NoRoute::NoHost);
    }
    let authority = given.parse::<http::uri::Authority>().map_err(|_| NoRoute::NoHost)?;
    let host = authority.host().to_owned();
    let port = match authority.port_u16() {
        Some(port) => port,
        None if authority.as_str() == host => 80,
        None => return Err(NoRoute::NoHost),
    };
    if host.is_empty() {
        return Err(NoRoute::NoHost);
    }
    Ok(Route { url: format!("http://{authority}"), host, port })
}

/// The questions under way.
#[derive(Debug, Default)]
pub(crate) struct Questions(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Nobody will answer.
    closed: bool,
    next: u64,
    answers: HashMap<u64, oneshot::Sender<Result<Target, NoTarget>>>,
}

impl Questions {
    fn ask(
        &self,
        limit: u32,
    ) -> Result<(Question<'_>, oneshot::Receiver<Result<Target, NoTarget>>), NoRoute> {
        let mut waiting = self.0.lock();
        if waiting.closed {
            return Err(NoRoute::Gone);
        }
        if waiting.answers.len() as u64 >= u64::from(limit) {
            return Err(NoRoute::Busy(limit));
        }
        let (sender, answer) = oneshot::channel();
        waiting.next += 1;
        let id = waiting.next;
        waiting.answers.insert(id, sender);
        Ok((Question { questions: self, id }, answer))
    }

    pub(crate) fn answer(&self, id: u64, result: Result<Target, NoTarget>) {
        // Who asked may have left meanwhile.
        if let Some(waiting) = self.0.lock().answers.remove(&id) {
            let _ = waiting.send(result);
        }
    }

    /// Nobody will answer any more.
    pub(crate) fn close(&self) {
        let mut waiting = self.0.lock();
        waiting.closed = true;
        waiting.answers.clear();
    }
}

/// One question, which is forgotten with whoever asked it.
struct Question<'a> {
    questions: &'a Questions,
    id: u64,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.questions.0.lock().answers.remove(&self.id);
    }
}

impl Cluster {
    /// Asks the supervisor where a client should connect to, given the `Host` of its request and its address.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn route(&self, host: &str, client: Option<IpAddr>) -> Result<Route, NoRoute> {
        let limits = self.welcome().route.ok_or(NoRoute::Off)?;
        let (question, answer) = self.questions().ask(limits.waiting)?;
        let host = if host.len() > HOST_LIMIT { String::new() } else { host.to_owned() };
        let asked = async {
            self.send(ToSupervisor::Route { id: question.id, host, client }).await;
            answer.await
        };
        let timeout = Duration::from_millis(limits.timeout_ms);
        match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(Ok(Target { scheme, host, port }))) => {
                Ok(Route { url: format!("{scheme}://{host}:{port}"), host, port })
            }
            Ok(Ok(Err(NoTarget::Off))) => Err(NoRoute::Off),
            Ok(Ok(Err(NoTarget::NoHost))) => Err(NoRoute::NoHost),
            Ok(Ok(Err(NoTarget::NoWorker))) => Err(NoRoute::NoWorker),
            Ok(Err(_)) => Err(NoRoute::Gone),
            Err(_) => Err(NoRoute::Late(timeout)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_it_is_the_address_that_was_asked() {
        for (given, host, port) in
            [("a.example", "a.example", 80), ("127.0.0.1:8080", "127.0.0.1", 8080), ("[::1]:81", "[::1]", 81)]
        {
            let url = format!("http://{given}");
            assert_eq!(alone(given), Ok(Route { url, host: host.to_owned(), port }));
        }
        for wrong in ["", ":80", "a:b", "a'b", "<b>", "a b", "u@a", "[::1"] {
            assert_eq!(alone(wrong), Err(NoRoute::NoHost), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_an_answer_that_says_so_and_is_not_stored() {
        for (why, status) in [
            (NoRoute::Off, 500),
            (NoRoute::NoHost, 400),
            (NoRoute::NoWorker, 503),
            (NoRoute::Busy(1024), 503),
            (NoRoute::Late(Duration::from_secs(5)), 503),
            (NoRoute::Gone, 503),
        ] {
            let response = why.into_response();
            assert_eq!(response.status().as_u16(), status, "{why}");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        }
        assert!(NoRoute::Off.to_string().contains(r#""direct": { "basePort": 3131 }"#));
    }
}
