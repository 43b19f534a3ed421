//! The answers the front door gives itself. Each says what is wrong and, where there is something, what to do.

use super::request::Fault;
use super::{push_line, push_number};

/// An answer of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Fault(Fault),
    /// 431: longer than this many bytes.
    HeadTooLong(usize),
    /// 400, in plain: the port speaks TLS.
    NotTls,
    /// 404: no app has this path.
    NoPath,
    /// 421: no app has this host.
    NoHost,
    /// 408.
    Slow,
    /// 400, Engine.IO's code 1.
    UnknownSid,
    /// 200 with the Engine.IO close packet: the session's worker is gone.
    SessionOver {
        eio3: bool,
        jsonp: Option<u32>,
    },
    /// 502.
    WorkerGone,
    /// 502.
    WorkerInvalid,
    /// 503.
    NoWorker,
    /// 503.
    Full,
    /// 429: its address has as many connections as it may.
    TooManyOfClient,
    /// 503: as many sessions as there may be.
    TooManySessions,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner<'a> {
    /// The connection stays open.
    pub(crate) keep_alive: bool,
    /// Asked by HEAD: no body.
    pub(crate) head: bool,
    pub(crate) is_1_1: bool,
    /// Allow this origin to read it.
    pub(crate) origin: Option<&'a [u8]>,
}

impl Manner<'_> {
    /// For requests that could not be read.
    pub(crate) const CLOSE: Self = Self { keep_alive: false, head: false, is_1_1: true, origin: None };
}

impl Answer {
    pub(crate) fn write(self, out: &mut Vec<u8>, manner: Manner<'_>) {
        let (status, body) = self.content();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_bytes());
        out.extend_from_slice(b"\r\ncontent-type: ");
        let text = matches!(self, Self::SessionOver { .. });
        out.extend_from_slice(if text { b"text/plain; charset=UTF-8" } else { b"application/json" });
        out.extend_from_slice(b"\r\ncontent-length: ");
        push_number(out, body.len() as u64);
        out.extend_from_slice(b"\r\n");
        if matches!(self, Self::UnknownSid | Self::SessionOver { .. })
            && let Some(origin) = manner.origin
        {
            push_line(out, b"access-control-allow-origin", origin);
            out.extend_from_slice(b"access-control-allow-credentials: true\r\nvary: origin\r\n");
        }
        if matches!(self, Self::NoWorker | Self::Full | Self::TooManyOfClient | Self::TooManySessions) {
            out.extend_from_slice(b"retry-after: 1\r\n");
        }
        match (manner.keep_alive, manner.is_1_1) {
            (false, _) => out.extend_from_slice(b"connection: close\r\n"),
            (true, false) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (true, true) => {}
        }
        out.extend_from_slice(b"cache-control: no-store\r\n\r\n");
        if !manner.head {
            out.extend_from_slice(body.as_bytes());
        }
    }

    fn content(self) -> (&'static str, String) {
        let (status, text) = match self {
            Self::UnknownSid => {
                return ("400 Bad Request", r#"{"code":1,"message":"Session ID unknown"}"#.to_owned());
            }
            Self::SessionOver { eio3, jsonp } => {
                let packet = if eio3 { "1:1" } else { "1" };
                let body = match jsonp {
                    Some(index) => format!("___eio[{index}](\"{packet}\");"),
                    None => packet.to_owned(),
                };
                return ("200 OK", body);
            }
            Self::Fault(Fault::Malformed(what)) => ("400 Bad Request", format!("malformed request: {what}")),
            Self::Fault(Fault::Headers) => (
                "431 Request Header Fields Too Large",
                format!("more than {} request headers", super::MAX_HEADERS),
            ),
            Self::Fault(Fault::Unsupported(what)) => {
                ("501 Not Implemented", format!("not supported: {what}"))
            }
            Self::Fault(Fault::Version) => {
                ("505 HTTP Version Not Supported", "this port speaks HTTP/1.1 and HTTP/1.0".to_owned())
            }
            Self::HeadTooLong(limit) => (
                "431 Request Header Fields Too Large",
                format!("the request head is longer than {limit} bytes: check for large cookies"),
            ),
            Self::NoPath => ("404 Not Found", "no app here has this path (sundew.prefix)".to_owned()),
            Self::NoHost => {
                ("421 Misdirected Request", "no app here has this host (sundew.hosts)".to_owned())
            }
            Self::NotTls => ("400 Bad Request", "this port speaks TLS: use https://".to_owned()),
            Self::Slow => ("408 Request Timeout", "the request did not arrive in time".to_owned()),
            Self::WorkerGone => (
                "502 Bad Gateway",
                "the worker went away before it answered: the request may have been carried out".to_owned(),
            ),
            Self::WorkerInvalid => ("502 Bad Gateway", "the worker's answer is not HTTP/1.1".to_owned()),
            Self::NoWorker => {
                ("503 Service Unavailable", "no worker can take the request now: try again".to_owned())
            }
            Self::TooManySessions => {
                ("503 Service Unavailable", "too many sessions: raise limits.learnedSids".to_owned())
            }
            Self::TooManyOfClient => {
                ("429 Too Many Requests", "too many connections from this address: use fewer".to_owned())
            }
            Self::Full => ("503 Service Unavailable", "too many connections: try again".to_owned()),
        };
        // None of the texts has a character that JSON escapes.
        (status, format!(r#"{{"error":"{text}"}}"#))
    }
}

/// Whether a payload is Engine.IO's close packet and nothing else.
pub(crate) fn is_close(payload: &[u8], eio3: bool) -> bool {
    payload == b"1" || (eio3 && matches!(payload, b"1:1" | b"\x00\x01\xff1"))
}

/// Whether a worker's answer says that the session is over: it does not know it (400), or closes it.
pub(crate) fn is_over(status: u16, body: &[u8], poll: bool, eio3: bool) -> bool {
    match status {
        200 if poll => {
            is_close(body, eio3)
                || (body.starts_with(b"___eio[")
                    && (body.ends_with(b"](\"1\");") || body.ends_with(b"](\"1:1\");")))
        }
        400 => [&br#""code":1,"#[..], br#""code":1}"#]
            .iter()
            .any(|code| memchr::memmem::find(body, code).is_some()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(answer: Answer, manner: Manner<'_>) -> String {
        let mut out = Vec::new();
        answer.write(&mut out, manner);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_unknown_session_is_told_as_engine_io_tells_it() {
        let manner = Manner { keep_alive: true, origin: Some(b"https://a.b"), ..Manner::CLOSE };
        assert_eq!(
            of(Answer::UnknownSid, manner),
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 41\r\n\
             access-control-allow-origin: https://a.b\r\naccess-control-allow-credentials: true\r\nvary: origin\r\n\
             cache-control: no-store\r\n\r\n{\"code\":1,\"message\":\"Session ID unknown\"}"
        );
    }

    #[test]
    fn the_close_packet_is_written_in_each_dialect() {
        let body = |eio3, jsonp| {
            let answer = of(Answer::SessionOver { eio3, jsonp }, Manner::CLOSE);
            answer.split("\r\n\r\n").nth(1).unwrap().to_owned()
        };
        assert_eq!(body(false, None), "1");
        assert_eq!(body(true, None), "1:1");
        assert_eq!(body(false, Some(7)), "___eio[7](\"1\");");
    }

    #[test]
    fn every_error_is_json_with_its_length() {
        for answer in [
            Answer::Fault(Fault::Malformed("x")),
            Answer::Fault(Fault::Headers),
            Answer::Fault(Fault::Version),
            Answer::Fault(Fault::Unsupported("x")),
            Answer::HeadTooLong(1),
            Answer::Slow,
            Answer::WorkerGone,
            Answer::WorkerInvalid,
            Answer::NoWorker,
            Answer::Full,
            Answer::TooManyOfClient,
            Answer::TooManySessions,
            Answer::UnknownSid,
        ] {
            let text = of(answer, Manner::CLOSE);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{text}");
            assert!(head.contains("connection: close"), "{text}");
            let quotes = body.matches('"').count();
            assert!(body.starts_with('{') && body.ends_with('}') && quotes % 2 == 0, "{text}");
            let headless = of(answer, Manner { head: true, ..Manner::CLOSE });
            assert_eq!(headless, format!("{head}\r\n\r\n"), "HEAD gets the head alone");
        }
    }
}
