//! WebTransport over real QUIC, with web-transport-quinn's own client: what good clients get, and what bad ones cost.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod hostile;

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use common::{Echo, calm, get, open, post, sid_of, until};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use sundew_engineio::webtransport::{Certificate, CertificateError, Listener, Options, ServeError};
use sundew_engineio::{CloseReason, Config, Engine, Frames, Transport, Transports};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use web_transport_quinn::proto::ConnectRequest;
use web_transport_quinn::quinn::{self, VarInt};
use web_transport_quinn::{ClientBuilder, RecvStream, SendStream, Session, SessionError, WebTransportError};

const SOON: Duration = Duration::from_secs(5);

fn config() -> Config {
    let mut config = calm();
    config.transports = Transports { polling: true, websocket: true, webtransport: true };
    config
}

fn certificate() -> (Certificate, Vec<u8>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = Certificate::from_pem(cert.pem().as_bytes(), signing_key.serialize_pem().as_bytes());
    (certificate.unwrap(), cert.der().to_vec())
}

/// A server of HTTP and WebTransport.
struct Rig {
    http: common::Server,
    listener: Listener,
    addr: SocketAddr,
    trusted: Vec<u8>,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl std::ops::Deref for Rig {
    type Target = common::Server;
    fn deref(&self) -> &common::Server {
        &self.http
    }
}

async fn serve(config: Config) -> Rig {
    serve_with(config, |_| {}).await
}

async fn serve_with(config: Config, change: impl FnOnce(&mut Options)) -> Rig {
    let http = common::serve(config).await;
    let (certificate, trusted) = certificate();
    let mut options = Options::default();
    change(&mut options);
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), certificate, options).unwrap();
    let addr = listener.local_addr().unwrap();
    let (engine, served) = (http.engine.clone(), listener.clone());
    let serving = tokio::spawn(async move { engine.serve_webtransport(served).await });
    Rig { http, listener, addr, trusted, serving }
}

impl Rig {
    async fn try_connect(&self, path: &str) -> Result<Session, web_transport_quinn::ClientError> {
        let client =
            ClientBuilder::new().with_server_certificates(vec![self.trusted.clone().into()]).unwrap();
        let url = format!("https://{}{path}", self.addr);
        let url = parsed(|request| request.url, &url);
        timeout(SOON, client.connect(url)).await.unwrap()
    }

    async fn connect(&self) -> Session {
        self.try_connect("/engine.io/?EIO=4&transport=webtransport").await.unwrap()
    }

    /// A session, and its open packet.
    async fn open(&self) -> (Client, String) {
        let mut client = Client::over(self.connect().await).await;
        client.text("0").await;
        let open = client.next_text().await;
        (client, open)
    }
}

/// The open packet of a new polling session.
async fn handshake(addr: SocketAddr) -> String {
    common::request(addr, "GET", "EIO=4&transport=polling", "", b"").await.body
}

/// `text` as what a request holds: the library's type for it has no name here.
fn parsed<T: FromStr<Err: Debug>>(_: fn(ConnectRequest) -> T, text: &str) -> T {
    text.parse().unwrap()
}

/// A client of Engine.IO on its one stream.
struct Client {
    session: Session,
    send: SendStream,
    receive: RecvStream,
}

#[derive(Debug, PartialEq, Eq)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
}

impl Client {
    async fn over(session: Session) -> Client {
        let (send, receive) = session.open_bi().await.unwrap();
        Client { session, send, receive }
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    async fn text(&mut self, text: &str) {
        self.raw(&frame(false, text.as_bytes())).await;
    }

    async fn binary(&mut self, data: &[u8]) {
        self.raw(&frame(true, data)).await;
    }

    async fn try_next(&mut self) -> Option<Got> {
        let mut header = [0; 1];
        self.receive.read_exact(&mut header).await.ok()?;
        let mut length = [0; 8];
        let size = match header[0] & 0x7f {
            126 => 2,
            127 => 8,
            short => {
                length[7] = short;
                0
            }
        };
        self.receive.read_exact(&mut length[8 - size..]).await.ok()?;
        let mut data = vec![0; usize::try_from(u64::from_be_bytes(length)).unwrap()];
        self.receive.read_exact(&mut data).await.ok()?;
        Some(match header[0] & 0x80 {
            0 => Got::Text(String::from_utf8(data).unwrap()),
            _ => Got::Binary(data),
        })
    }

    async fn next(&mut self) -> Got {
        timeout(SOON, self.try_next()).await.expect("in time").expect("another packet")
    }

    async fn next_text(&mut self) -> String {
        match self.next().await {
            Got::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    /// The code and reason the session is closed with, as a browser hears them.
    async fn closed(&self) -> (u32, String) {
        closed(&self.session).await
    }
}

async fn closed(session: &Session) -> (u32, String) {
    match timeout(SOON, session.closed()).await.expect("closed in time") {
        SessionError::WebTransportError(WebTransportError::Closed(code, reason)) => (code, reason),
        other => panic!("not closed as a session is: {other:?}"),
    }
}

fn frame(binary: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = match payload.len() {
        length @ ..126 => vec![length as u8],
        length @ ..0x1_0000 => [&[126], &(length as u16).to_be_bytes()[..]].concat(),
        length => [&[127], &(length as u64).to_be_bytes()[..]].concat(),
    };
    frame[0] |= u8::from(binary) << 7;
    frame.extend_from_slice(payload);
    frame
}

fn good() -> (u32, String) {
    (0, String::new())
}

// --- Good clients ---

#[tokio::test]
async fn times_without_end_can_be_waited_for() {
    let mut config = config();
    config.upgrade_timeout = Duration::MAX;
    config.close_timeout = Duration::MAX;
    let rig = serve_with(config, |options| options.keep_alive = Duration::MAX).await;
    let (mut client, _) = rig.open().await;
    client.text("4x").await;
    assert_eq!(client.next_text().await, "4x");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_binary_of_every_length_come_back() {
    let rig = serve(config()).await;
    let (mut client, open) = rig.open().await;
    assert!(open.contains(r#""upgrades":[],"#), "{open}");
    assert_eq!(rig.handle().transport(), Transport::WebTransport);
    assert_eq!(rig.echo.log.lock().unwrap().peers[0].unwrap().ip(), Ipv4Addr::LOCALHOST);
    for length in [1, 124, 125, 126, 65_534, 65_535, 65_536, 300_000] {
        let text = format!("4{}", "\u{e9}".repeat(length / 2 + 1));
        client.text(&text).await;
        assert_eq!(client.next().await, Got::Text(text));
        let data = vec![length as u8; length];
        client.binary(&data).await;
        assert_eq!(client.next().await, Got::Binary(data));
    }
    rig.handle().send(Frames::with_attachments("51-[]", &[vec![1, 2].into(), vec![3; 200].into()])).unwrap();
    assert_eq!(client.next_text().await, "451-[]");
    assert_eq!(client.next().await, Got::Binary(vec![1, 2]));
    assert_eq!(client.next().await, Got::Binary(vec![3; 200]));
    let stats = rig.engine.stats();
    assert_eq!((stats.sessions, stats.webtransport, stats.handshakes, stats.upgrades), (1, 1, 1, 0));
    client.session.close(0, b"");
    rig.until_closed(&[CloseReason::TransportClose]).await;
    until(|| rig.engine.stats().sessions == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_kept() {
    let mut config = config();
    config.ping_interval = Duration::from_millis(100);
    config.ping_timeout = Duration::from_millis(200);
    let rig = serve(config).await;
    let (mut client, _) = rig.open().await;
    for _ in 0..5 {
        assert_eq!(client.next_text().await, "2");
        client.text("3").await;
    }
    assert_eq!(client.next_text().await, "2");
    rig.until_closed(&[CloseReason::PingTimeout]).await;
    assert_eq!(client.closed().await, good());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polling_session_moves_here_with_its_backlog() {
    let rig = serve(config()).await;
    let packet = handshake(rig.http.addr).await;
    assert!(packet.contains(r#""upgrades":["websocket","webtransport"]"#), "{packet}");
    let sid = sid_of(&packet);
    let poll = tokio::spawn({
        let (addr, sid) = (rig.http.addr, sid.clone());
        async move { get(addr, &sid).await }
    });
    let mut client = Client::over(rig.connect().await).await;
    client.text(&format!(r#"0{{"sid":"{sid}"}}"#)).await;
    client.text("2probe").await;
    assert_eq!(client.next_text().await, "3probe");
    assert_eq!(poll.await.unwrap().body, "6", "the poll is let go");
    rig.handle().send(Frames::text("before")).unwrap();
    // Right behind one another, to be read at once.
    client.raw(&[frame(false, b"5"), frame(false, b"4behind"), frame(true, &[7])].concat()).await;
    assert_eq!(client.next_text().await, "4before");
    assert_eq!(client.next_text().await, "4behind");
    assert_eq!(client.next().await, Got::Binary(vec![7]));
    assert_eq!(rig.handle().transport(), Transport::WebTransport);
    let stats = rig.engine.stats();
    assert_eq!((stats.sessions, stats.polling, stats.webtransport, stats.upgrades), (1, 0, 1, 1));
    assert_eq!(post(rig.http.addr, &sid, "4no").await.status, 400);
    // A second one finds it moved.
    let mut second = Client::over(rig.connect().await).await;
    second.text(&format!(r#"0{{"sid":"{sid}"}}"#)).await;
    assert_eq!(second.closed().await, good());
    client.text("4alive").await;
    assert_eq!(client.next_text().await, "4alive");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_probe_leaves_the_polling_session_alive() {
    let mut config = config();
    config.upgrade_timeout = Duration::from_millis(300);
    let rig = serve(config).await;
    let sid = open(rig.http.addr).await;
    for (packet, answered) in [("4no", false), ("2probe", true), ("2", false)] {
        let mut client = Client::over(rig.connect().await).await;
        client.text(&format!(r#"0{{"sid":"{sid}"}}"#)).await;
        client.text(packet).await;
        if answered {
            assert_eq!(client.next_text().await, "3probe");
        }
        // At once, or when the time for the upgrade packet is over.
        assert_eq!(client.closed().await, good());
    }
    assert_eq!(post(rig.http.addr, &sid, "4still here").await.body, "ok");
    assert_eq!(get(rig.http.addr, &sid).await.body, "4still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_before_the_end_arrives() {
    let rig = serve(config()).await;
    for _ in 0..5 {
        let (mut client, _) = rig.open().await;
        let handle = rig.handle();
        for number in 0..50 {
            handle.send(Frames::text(&format!("{number} {}", "x".repeat(5_000)))).unwrap();
        }
        handle.close(CloseReason::ForcedClose);
        for number in 0..50 {
            let text = client.next_text().await;
            assert!(text.starts_with(&format!("4{number} ")), "{number}");
        }
        assert_eq!(client.closed().await, good());
    }
    until(|| rig.engine.stats().sessions == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_engine_lets_everybody_go_and_nobody_in() {
    let rig = serve(config()).await;
    let (mut client, _) = rig.open().await;
    rig.handle().send(Frames::text("last")).unwrap();
    timeout(SOON, rig.engine.close()).await.unwrap();
    assert_eq!(client.next_text().await, "4last");
    assert_eq!(client.closed().await, good());
    rig.until_closed(&[CloseReason::ServerShutdown]).await;
    timeout(SOON, rig.serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_while_it_serves() {
    let mut rig = serve(config()).await;
    let (mut old, _) = rig.open().await;
    let (certificate, trusted) = certificate();
    rig.listener.replace_certificate(certificate);
    assert!(rig.try_connect("/engine.io/").await.is_err(), "it trusts the old one");
    rig.trusted = trusted;
    let (mut new, _) = rig.open().await;
    for client in [&mut old, &mut new] {
        client.text("4hello").await;
        assert_eq!(client.next_text().await, "4hello");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_gets_everything_in_order() {
    let mut config = config();
    config.max_queued_bytes = 100_000;
    let rig = serve(config).await;
    let (mut client, _) = rig.open().await;
    let handle = rig.handle();
    let sending = tokio::spawn(async move {
        for number in 0..3_000 {
            let mut frames = Frames::text(&format!("{number} {}", "x".repeat(1_000)));
            while let Err(sundew_engineio::SendError::Full(back)) = handle.send(frames) {
                frames = back;
                handle.ready().await.unwrap();
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sending.is_finished(), "3 MB do not fit into what may wait and be on the way");
    for number in 0..3_000 {
        let text = client.next_text().await;
        assert!(text.starts_with(&format!("4{number} ")), "{number}");
    }
    sending.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_behind_holds_its_client_back() {
    let rig = serve(config()).await;
    let (mut client, _) = rig.open().await;
    client.text("4first").await;
    assert_eq!(client.next_text().await, "4first");
    rig.gate(true);
    let message = frame(false, format!("4{}", "x".repeat(9_999)).as_bytes());
    let flood = async {
        for _ in 0..1_000 {
            client.send.write_all(&message).await.unwrap();
        }
    };
    assert!(timeout(Duration::from_millis(500), flood).await.is_err(), "10 MB are not taken in");
    assert_eq!(rig.received(), 1);
}

// --- Bad clients ---

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_a_rule_are_parse_errors() {
    let mut config = config();
    config.max_payload = 1_000;
    let rig = serve(config).await;
    let bad: [&[u8]; 6] = [
        b"\x00",
        b"\x80",
        // One byte too long, and eight bytes of length: told by their headers alone.
        b"\x7e\x03\xe9",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        // No packet type.
        b"\x03abc",
        b"\x7e\x00\x00",
    ];
    for (count, bad) in bad.into_iter().enumerate() {
        let (mut client, _) = rig.open().await;
        client.text("4before").await;
        assert_eq!(client.next_text().await, "4before");
        client.raw(bad).await;
        assert_eq!(client.closed().await, good(), "{bad:?}");
        rig.until_closed(&vec![CloseReason::ParseError; count + 1]).await;
    }
    let (mut client, _) = rig.open().await;
    let most = format!("4{}", "x".repeat(999));
    client.text(&most).await;
    assert_eq!(client.next_text().await, most, "as much as is allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_that_do_not_belong_there_end_the_session() {
    let rig = serve(config()).await;
    for (packet, reason) in [("2", CloseReason::TransportError), ("1", CloseReason::TransportClose)] {
        let (mut client, _) = rig.open().await;
        client.text(packet).await;
        assert_eq!(client.closed().await, good());
        until(|| rig.closed().last() == Some(&reason)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_frame_is_waited_for_and_given_up() {
    let rig = serve(config()).await;
    let (mut client, _) = rig.open().await;
    let whole = frame(false, format!("4{}", "half".repeat(100)).as_bytes());
    for byte in &whole {
        client.raw(&[*byte]).await;
    }
    assert_eq!(client.next_text().await, format!("4{}", "half".repeat(100)));
    client.raw(&whole[..200]).await;
    client.send.finish().unwrap();
    rig.until_closed(&[CloseReason::TransportClose]).await;
    assert_eq!(rig.received(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_or_stopped_end_the_session() {
    let rig = serve(config()).await;
    let (mut client, _) = rig.open().await;
    client.raw(b"\x0a4ab").await;
    client.send.reset(7).unwrap();
    rig.until_closed(&[CloseReason::TransportClose]).await;
    assert_eq!(client.closed().await, good());

    let (mut client, _) = rig.open().await;
    client.receive.stop(7).unwrap();
    let handle = rig.handle();
    until(|| {
        let _ = handle.send(Frames::text("anybody there?"));
        !handle.is_open()
    })
    .await;
    assert_eq!(client.closed().await, good());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_vanishes_is_a_transport_close() {
    let rig = serve(config()).await;
    let (client, _) = rig.open().await;
    // The library's session dereferences to the connection of QUIC underneath.
    let connection: &quinn::Connection = &client.session;
    connection.close(VarInt::from_u32(1), b"gone");
    rig.until_closed(&[CloseReason::TransportClose]).await;
    until(|| rig.engine.stats().sessions == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_opens_nothing_is_sent_away() {
    let mut config = config();
    config.upgrade_timeout = Duration::from_millis(300);
    let rig = serve(config).await;
    let no_stream = rig.connect().await;
    let silent = Client::over(rig.connect().await).await;
    let mut half = Client::over(rig.connect().await).await;
    half.raw(b"\x1e0{\"sid\"").await;
    for session in [&no_stream, &silent.session, &half.session] {
        assert_eq!(closed(session).await, good());
    }
    // Half a handshake of QUIC, and one without a request.
    let mut raw = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    raw.set_default_client_config(client_config(&rig.trusted));
    let connection = raw.connect(rig.addr, "localhost").unwrap().await.unwrap();
    let ended = timeout(SOON, connection.closed()).await;
    assert!(ended.is_ok(), "a connection without a request");
    let stats = rig.engine.stats();
    assert_eq!((stats.sessions, stats.handshakes, stats.refused), (0, 0, 4));
}

fn client_config(trusted: &[u8]) -> quinn::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let mut tls = builder.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    quinn::ClientConfig::new(Arc::new(crypto))
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_openings_are_refused() {
    let rig = serve(config()).await;
    let long = format!(r#"0{{"sid":"{}"}}"#, "x".repeat(300));
    for bad in ["1", "4hello", "0{", "0{}", r#"0{"sid":7}"#, r#"0{"sid":""}"#, "2probe", &long] {
        let mut client = Client::over(rig.connect().await).await;
        client.text(bad).await;
        assert_eq!(client.closed().await, (0, "Bad request".into()), "{bad}");
    }
    let mut client = Client::over(rig.connect().await).await;
    client.binary(b"0").await;
    assert_eq!(client.closed().await, (0, "Bad request".into()));
    let mut client = Client::over(rig.connect().await).await;
    client.text(r#"0{"sid":"aBcDeFgHiJkLmNoPqRsT"}"#).await;
    assert_eq!(client.closed().await, (0, "Session ID unknown".into()));
    assert_eq!(rig.engine.stats().refused, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_of() {
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut config = config();
    config.max_sessions = 1;
    config.on_connection_error = Some(Arc::new({
        let told = told.clone();
        move |error: &sundew_engineio::ConnectionError<'_>| {
            let method = error.request.method.as_str().to_owned();
            told.lock().unwrap().push((error.code, error.message.to_owned(), method));
        }
    }));
    config.allow_request = Some(Arc::new(|parts| {
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let host = parts.headers.contains_key("host");
        Box::pin(async move { if query.contains("who=me") && host { Ok(()) } else { Err("not you".into()) } })
    }));
    let rig = serve(config).await;
    assert!(rig.try_connect("/elsewhere/").await.is_err());
    let mut client = Client::over(rig.connect().await).await;
    client.text("0").await;
    assert_eq!(client.closed().await, (0, "not you".into()));
    let path = "/engine.io/?who=me";
    let mut first = Client::over(rig.try_connect(path).await.unwrap()).await;
    first.text("0").await;
    assert!(first.next_text().await.starts_with("0{"));
    let mut second = Client::over(rig.try_connect(path).await.unwrap()).await;
    second.text("0").await;
    assert_eq!(second.closed().await, (0, "too many sessions".into()));
    let expected = [(None, "not the path of this server"), (Some(4), "not you"), (None, "too many sessions")];
    let expected = expected.map(|(code, message)| (code, message.to_owned(), "CONNECT".to_owned()));
    assert_eq!(*told.lock().unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_open_nothing_are_bounded() {
    let rig = serve_with(config(), |options| options.max_pending = 4).await;
    // Two as they come, two more that had to prove their address.
    let mut pending = Vec::new();
    for _ in 0..4 {
        pending.push(rig.connect().await);
    }
    assert!(rig.try_connect("/engine.io/").await.is_err(), "a fifth");
    pending[0].close(0, b"");
    until(|| rig.engine.stats().refused >= 2).await;
    let (mut client, _) = rig.open().await;
    client.text("4hello").await;
    assert_eq!(client.next_text().await, "4hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_costs_its_bound() {
    let mut config = config();
    config.max_queued_bytes = 100_000;
    config.ping_interval = Duration::from_millis(300);
    config.ping_timeout = Duration::from_millis(300);
    config.close_timeout = Duration::from_millis(300);
    let rig = serve(config).await;
    let (_client, _) = rig.open().await;
    let handle = rig.handle();
    let mut taken = 0;
    for _ in 0..200 {
        while handle.send(Frames::binary(&[0; 10_000])).is_ok() {
            taken += 10_000;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // What may wait, what may be on the way, and what the client's window takes.
    assert!(taken < 100_000 + 512 * 1024 + 1_250_000 + 20_000, "{taken} bytes were taken");
    rig.until_closed(&[CloseReason::PingTimeout]).await;
    until(|| rig.engine.stats().sessions == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_only_served_where_it_is_offered() {
    let mut config = config();
    config.transports.webtransport = false;
    let rig = serve(config).await;
    let packet = handshake(rig.http.addr).await;
    assert!(packet.contains(r#""upgrades":["websocket"]"#), "{packet}");
    assert!(matches!(timeout(SOON, rig.serving).await.unwrap().unwrap(), Err(ServeError::NotOffered)));
    // Over HTTP it is no transport, on or off.
    for config in [calm(), self::config()] {
        let server = common::serve(config).await;
        let answer = common::request(server.addr, "GET", "EIO=4&transport=webtransport", "", b"").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (400, r#"{"code":0,"message":"Transport unknown"}"#)
        );
    }
    let engine = Engine::new(self::config(), Echo::default());
    assert!(engine.config().transports.webtransport);
}

#[test]
fn certificates_are_checked_when_they_are_read() {
    let make = || generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (one, other) = (make(), make());
    let (chain, key) = (one.cert.pem(), other.signing_key.serialize_pem());
    let read = |chain: &str, key: &str| Certificate::from_pem(chain.as_bytes(), key.as_bytes());
    assert!(matches!(read(&chain, &key), Err(CertificateError::Mismatch)));
    assert!(matches!(read("", &key), Err(CertificateError::NoCertificate)));
    assert!(matches!(read(&chain, &chain), Err(CertificateError::NoKey)));
    let error = Certificate::from_pem_files("/nowhere/cert.pem", "/nowhere/key.pem").unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nowhere/cert.pem: "), "{error}");
    let (certificate, _) = certificate();
    let error = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), certificate, Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "a WebTransport listener is made inside a tokio runtime");
}

/// How often its peer is asked for a sign of life while nothing is said.
#[tokio::test(flavor = "multi_thread")]
async fn signs_of_life_are_asked_for_now_and_then_or_never() {
    // The option; the least and the most of times it happens in two seconds.
    for (keep_alive, least, most) in
        [(Duration::ZERO, 0, 0), (Duration::from_nanos(1), 1, 10), (Duration::from_secs(60), 0, 0)]
    {
        let rig = serve_with(config(), |options| options.keep_alive = keep_alive).await;
        let (client, _) = rig.open().await;
        let pings = || quinn::Connection::stats(&client.session).frame_rx.ping;
        // QUIC pings for reasons of its own while it finds out what fits into a datagram.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = pings();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let count = pings() - before;
        assert!((least..=most).contains(&count), "{count} for {keep_alive:?}");
    }
}

#[tokio::test]
async fn an_idle_timeout_of_nothing_is_refused() {
    for (idle_timeout, refused) in
        [(Duration::ZERO, true), (Duration::from_micros(999), true), (Duration::from_millis(1), false)]
    {
        let mut options = Options::default();
        options.idle_timeout = idle_timeout;
        let bound = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), certificate().0, options);
        assert_eq!(
            bound.err().map(|error| error.kind()),
            refused.then_some(std::io::ErrorKind::InvalidInput)
        );
    }
}
