//! Cross-origin headers, as the npm package `cors` (which Node's server uses) gives them.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_LENGTH, HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::{AllowOrigin, Body, Cors};

/// The answer to a preflight request.
pub(crate) fn preflight(cors: &Cors, request: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let mut vary = origin(cors, request, headers);
    put(headers, ACCESS_CONTROL_ALLOW_METHODS, &cors.methods.join(","));
    match &cors.allowed_headers {
        Some(allowed) => put(headers, ACCESS_CONTROL_ALLOW_HEADERS, &allowed.join(",")),
        None => {
            if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            }
            vary.push("Access-Control-Request-Headers");
        }
    }
    if let Some(max_age) = cors.max_age {
        put(headers, ACCESS_CONTROL_MAX_AGE, &max_age.as_secs().to_string());
    }
    put(headers, VARY, &vary.join(", "));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

/// The headers of every other answer.
pub(crate) fn headers(cors: &Cors, request: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let vary = origin(cors, request, &mut headers);
    put(&mut headers, VARY, &vary.join(", "));
    headers
}

/// What both have in common; returns what the answer varies by.
fn origin(cors: &Cors, request: &HeaderMap, headers: &mut HeaderMap) -> Vec<&'static str> {
    let asking = request.get(ORIGIN);
    let (allowed, varies) = match &cors.origin {
        AllowOrigin::Any => (Some(HeaderValue::from_static("*")), false),
        AllowOrigin::Exact(origin) => (HeaderValue::from_str(origin).ok(), true),
        AllowOrigin::Mirror => (asking.cloned(), true),
        AllowOrigin::List(list) => {
            let listed = |origin: &&HeaderValue| origin.to_str().is_ok_and(|origin| list.contains(origin));
            (asking.filter(listed).cloned(), true)
        }
    };
    if let Some(allowed) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    }
    if cors.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    put(headers, ACCESS_CONTROL_EXPOSE_HEADERS, &cors.exposed_headers.join(","));
    if varies { vec!["Origin"] } else { Vec::new() }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if !value.is_empty()
        && let Ok(value) = HeaderValue::from_str(value)
    {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn request(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn a_preflight_is_answered() {
        let asked = request(&[(ORIGIN, "http://a.example"), (ACCESS_CONTROL_REQUEST_HEADERS, "x-one,x-two")]);
        let response = preflight(&Cors::default().origin(["http://a.example"]).credentials(true), &asked);
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        let headers = response.headers();
        assert_eq!(text(headers, ACCESS_CONTROL_ALLOW_ORIGIN), Some("http://a.example"));
        assert_eq!(text(headers, ACCESS_CONTROL_ALLOW_CREDENTIALS), Some("true"));
        assert_eq!(text(headers, ACCESS_CONTROL_ALLOW_METHODS), Some("GET,HEAD,PUT,PATCH,POST,DELETE"));
        assert_eq!(text(headers, ACCESS_CONTROL_ALLOW_HEADERS), Some("x-one,x-two"));
        assert_eq!(text(headers, VARY), Some("Origin, Access-Control-Request-Headers"));
        assert_eq!(text(headers, CONTENT_LENGTH), Some("0"));
    }

    #[test]
    fn a_preflight_is_answered_as_the_options_say() {
        let cors = Cors::default()
            .origin("http://a.example")
            .methods(["GET", "POST"])
            .allowed_headers(["x-one"])
            .exposed_headers(["x-two", "x-three"])
            .max_age(Duration::from_secs(60));
        let response = preflight(&cors, &request(&[(ACCESS_CONTROL_REQUEST_HEADERS, "x-other")]));
        let headers = response.headers();
        assert_eq!(text(headers, ACCESS_CONTROL_ALLOW_ORIGIN), Some("http://a.example"));
        assert_eq!(text(headers, ACCESS_CONTROL_ALLOW_METHODS), Some("GET,POST"));
        assert_eq!(text(headers, ACCESS_CONTROL_ALLOW_HEADERS), Some("x-one"));
        assert_eq!(text(headers, ACCESS_CONTROL_EXPOSE_HEADERS), Some("x-two,x-three"));
        assert_eq!(text(headers, ACCESS_CONTROL_MAX_AGE), Some("60"));
        assert_eq!(text(headers, VARY), Some("Origin"));
    }

    #[test]
    fn an_origin_that_is_not_listed_gets_no_name() {
        let asked = request(&[(ORIGIN, "http://b.example")]);
        let headers = headers(&Cors::default().origin(["http://a.example"]).credentials(true), &asked);
        assert_eq!(text(&headers, ACCESS_CONTROL_ALLOW_ORIGIN), None);
        assert_eq!(text(&headers, ACCESS_CONTROL_ALLOW_CREDENTIALS), Some("true"));
        assert_eq!(text(&headers, VARY), Some("Origin"));
    }

    #[test]
    fn any_origin_does_not_vary() {
        for cors in [Cors::default(), Cors::default().origin("*")] {
            let headers = headers(&cors, &request(&[(ORIGIN, "http://b.example")]));
            assert_eq!(text(&headers, ACCESS_CONTROL_ALLOW_ORIGIN), Some("*"));
            assert_eq!(text(&headers, VARY), None);
        }
    }
}
