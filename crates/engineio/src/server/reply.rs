//! HTTP answers: status, headers and bodies as Node's server gives them.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};

use super::upgrade::Accept;
use crate::Body;
use crate::proto::deflate::Agreed;
use crate::proto::dialect::{Answer, AnswerKind};
use crate::proto::encoding::Encoding;
use crate::proto::request::ErrorCode;

fn reply(status: StatusCode, content_type: Option<&'static str>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The answer of a poll. `encoding`: what the client takes, if compression is wanted, and how hard to try.
pub(crate) fn packets(answer: Answer, encoding: Option<(Encoding, u32)>) -> Response<Body> {
    let kind = match answer.kind {
        AnswerKind::Text => "text/plain; charset=UTF-8",
        AnswerKind::Octets => "application/octet-stream",
        AnswerKind::Script => "text/javascript; charset=UTF-8",
    };
    let encoded =
        encoding.and_then(|(encoding, level)| Some((encoding, encoding.encode(&answer.body, level)?)));
    let mut response = match encoded {
        Some((encoding, body)) => {
            let mut response = reply(StatusCode::OK, Some(kind), body.into());
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
            response
        }
        None => reply(StatusCode::OK, Some(kind), answer.body.into()),
    };
    if answer.kind == AnswerKind::Script {
        // What it is read as is not for browsers to guess.
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response
}

/// A body was received.
pub(crate) fn ok() -> Response<Body> {
    reply(StatusCode::OK, Some("text/html"), "ok".into())
}

/// A status and nothing else.
pub(crate) fn status(status: StatusCode) -> Response<Body> {
    reply(status, None, Body::empty())
}

/// A body was larger than `max_payload`.
pub(crate) fn too_large() -> Response<Body> {
    status(StatusCode::PAYLOAD_TOO_LARGE)
}

/// One of the protocol's errors. `message` replaces the usual text.
pub(crate) fn error(code: ErrorCode, message: Option<&str>) -> Response<Body> {
    let status = match code {
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    };
    let message = serde_json::Value::from(message.unwrap_or(code.message()));
    let body = format!(r#"{{"code":{},"message":{message}}}"#, code.code());
    reply(status, Some("application/json"), Bytes::from(body).into())
}

/// The same for a request that asked for an upgrade: always 400, in plain words. `closes`: its connection ends with it, as
/// one that carries other requests as well does not.
pub(crate) fn upgrade_error(code: ErrorCode, message: Option<&str>, closes: bool) -> Response<Body> {
    let message = message.unwrap_or(code.message()).to_owned();
    let mut response = reply(StatusCode::BAD_REQUEST, Some("text/html"), Bytes::from(message).into());
    if closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// No new session can be opened here.
pub(crate) fn unavailable(message: &'static str) -> Response<Body> {
    let body = format!(r#"{{"message":"{message}"}}"#);
    reply(StatusCode::SERVICE_UNAVAILABLE, Some("application/json"), Bytes::from(body).into())
}

/// A method that means nothing to a session.
pub(crate) fn method_not_served() -> Response<Body> {
    let mut response = status(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
    response
}

/// The connection, or the stream, becomes a websocket.
pub(crate) fn switching(
    accept: Accept,
    agreed: Option<Agreed>,
    subprotocol: Option<HeaderValue>,
) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    if let Accept::Switching(key) = accept {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    }
    let headers = response.headers_mut();
    if let Some(agreed) = agreed
        && let Ok(agreed) = HeaderValue::try_from(agreed.header())
    {
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, agreed);
    }
    if let Some(subprotocol) = subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    response
}
