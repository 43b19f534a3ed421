//! `sundew-clients-rust URL KIND TRANSPORT`: a scenario against the echo example, with rust_socketio's blocking client (`sync`)
//! or the one on tokio (`async`). Prints the name of each part that is done; what is not as it should be ends it with a panic.
//!
//! What that client cannot do is left out: it answers no acknowledgements, takes one attachment per event, asks with binary by
//! an acknowledgement (BINARY_ACK) nobody waits for, and cuts binary websocket messages at each byte 1e.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rust_socketio::client::Client as Blocking;
use rust_socketio::{Event, Payload, TransportType, asynchronous};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(15);

/// A callback of the asynchronous client that has nothing more to do.
type Told = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a client hears: the event and what came with it.
type Heard = (String, Payload);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, kind, transport] = &arguments[..] else { panic!("URL sync|async TRANSPORT") };
    // A panic in one of the client's own threads is a failure too.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        std::process::exit(1);
    }));
    let transport = match &**transport {
        "polling" => TransportType::Polling,
        "websocket" => TransportType::Websocket,
        "websocket-upgrade" => TransportType::WebsocketUpgrade,
        "any" => TransportType::Any,
        other => panic!("no transport {other}"),
    };
    let runtime = match &**kind {
        "sync" => None,
        "async" => Some(Runtime::new().expect("a runtime")),
        other => panic!("no kind {other}"),
    };
    Scenario { url: url.clone(), transport, runtime }.run();
}

struct Scenario {
    url: String,
    transport: TransportType,
    /// With one, the client is the asynchronous one.
    runtime: Option<Runtime>,
}

enum Client<'a> {
    Blocking(Blocking),
    Async(asynchronous::Client, &'a Runtime),
}

struct Socket<'a> {
    client: Client<'a>,
    heard: Receiver<Heard>,
}

impl Scenario {
    fn run(&self) {
        self.events();
        done("events");
        self.acknowledgements();
        done("acknowledgements");
        self.rooms();
        done("rooms");
        self.refusals();
        done("refusals");
        self.leaving();
        done("leaving");
    }

    /// The asynchronous client takes each piece of a polling answer that it reads for a whole one.
    fn large(&self) -> usize {
        if self.runtime.is_some() && self.transport == TransportType::Polling { 2000 } else { 200_000 }
    }

    /// Connects, and waits for nothing.
    fn open(&self, namespace: &str, auth: Value) -> Socket<'_> {
        let (sender, heard) = channel();
        let client = match &self.runtime {
            None => Client::Blocking(self.open_blocking(sender, namespace, auth)),
            Some(runtime) => {
                Client::Async(runtime.block_on(self.open_async(sender, namespace, auth)), runtime)
            }
        };
        Socket { client, heard }
    }

    fn open_blocking(&self, sender: Sender<Heard>, namespace: &str, auth: Value) -> Blocking {
        let tell = |name: &'static str| {
            let sender = sender.clone();
            move |payload: Payload, _: rust_socketio::RawClient| drop(sender.send((name.into(), payload)))
        };
        rust_socketio::ClientBuilder::new(self.url.as_str())
            .namespace(namespace)
            .auth(auth)
            .transport_type(self.transport.clone())
            .reconnect(false)
            .on(Event::Connect, tell("connect"))
            .on(Event::Error, tell("error"))
            .on(Event::Close, tell("close"))
            .on_any({
                let sender = sender.clone();
                move |event, payload, _| drop(sender.send((String::from(event), payload)))
            })
            .connect()
            .expect("a connection")
    }

    async fn open_async(&self, sender: Sender<Heard>, namespace: &str, auth: Value) -> asynchronous::Client {
        let tell = |name: &'static str| {
            let sender = sender.clone();
            move |payload: Payload, _: asynchronous::Client| -> Told {
                drop(sender.send((name.into(), payload)));
                Box::pin(async {})
            }
        };
        asynchronous::ClientBuilder::new(self.url.as_str())
            .namespace(namespace)
            .auth(auth)
            .transport_type(self.transport.clone())
            .reconnect(false)
            .on(Event::Connect, tell("connect"))
            .on(Event::Error, tell("error"))
            .on(Event::Close, tell("close"))
            .on_any({
                let sender = sender.clone();
                move |event, payload, _| -> Told {
                    drop(sender.send((String::from(event), payload)));
                    Box::pin(async {})
                }
            })
            .connect()
            .await
            .expect("a connection")
    }

    fn connect(&self, namespace: &str) -> Socket<'_> {
        let socket = self.open(namespace, json!({ "token": "secret" }));
        socket.next("connect");
        socket
    }

    /// Text and binary, in order.
    fn events(&self) {
        for namespace in ["/", "/ws"] {
            let socket = self.connect(namespace);
            let values = values(self.large());
            socket.emit("echo", values.clone());
            assert_eq!(socket.next("echo"), Payload::Text(values));
            for bytes in blobs(self.large()) {
                socket.emit("echo", bytes.clone());
                assert_eq!(socket.next("echo"), Payload::from(bytes));
            }
            for number in 0..200 {
                socket.emit("echo", json!(number));
            }
            for number in 0..200 {
                assert_eq!(socket.next("echo"), Payload::from(json!(number)));
            }
            socket.close();
        }
    }

    fn acknowledgements(&self) {
        let socket = self.connect("/ws");
        assert_eq!(socket.ask("echo-ack", json!({ "question": "ü→🌱" })), json!([{ "question": "ü→🌱" }]));
        let who = socket.ask("whoami", Vec::<Value>::new());
        assert_eq!(who[0]["transport"], travels_by(&self.transport), "{who}");
        socket.close();
    }

    fn rooms(&self) {
        let inside = [self.connect("/"), self.connect("/")];
        let outside = self.connect("/");
        for socket in &inside {
            socket.ask("join", json!("rust"));
        }
        inside[0].emit("room-broadcast", vec![json!("rust"), json!({ "text": "é" })]);
        for socket in &inside {
            assert_eq!(socket.next("broadcast"), Payload::from(json!({ "text": "é" })));
        }
        inside[0].emit("broadcast", vec![1, 2, 254]);
        for socket in inside.iter().chain([&outside]) {
            // The first that the one outside hears.
            assert_eq!(socket.next("broadcast"), Payload::from(vec![1, 2, 254]));
        }
        inside.iter().chain([&outside]).for_each(|socket| socket.close());
    }

    fn refusals(&self) {
        self.connect("/auth").close();
        for (namespace, word) in [("/auth", "not authorized"), ("/nowhere", "Invalid namespace")] {
            let socket = self.open(namespace, json!({ "token": "wrong" }));
            let Payload::Text(error) = socket.next("error") else { panic!("no text") };
            assert!(error[0].as_str().is_some_and(|text| text.contains(word)), "{error:?}");
        }
    }

    /// Each side hears of the other's leaving.
    fn leaving(&self) {
        let watcher = self.connect("/");
        watcher.ask("join", json!("watchers"));
        let leaves = self.connect("/");
        leaves.close();
        let words = ["client namespace disconnect", "transport close", "transport error"];
        let word = reason(watcher.next("left"));
        assert!(words.contains(&&*word), "{word}");
        let sent_away = self.connect("/");
        sent_away.emit("go", json!(false));
        sent_away.next("close");
        assert_eq!(reason(watcher.next("left")), "server namespace disconnect");
        watcher.close();
    }
}

impl Socket<'_> {
    fn emit(&self, event: &str, payload: impl Into<Payload>) {
        match &self.client {
            Client::Blocking(client) => client.emit(event, payload),
            Client::Async(client, runtime) => runtime.block_on(client.emit(event, payload)),
        }
        .expect("it is sent");
    }

    /// The acknowledgement's values.
    fn ask(&self, event: &str, payload: impl Into<Payload>) -> Value {
        let (sender, answer) = channel();
        match &self.client {
            Client::Blocking(client) => {
                let told = move |payload, _| drop(sender.send(payload));
                client.emit_with_ack(event, payload, PATIENCE, told)
            }
            Client::Async(client, runtime) => {
                let told = move |payload, _| -> Told {
                    drop(sender.send(payload));
                    Box::pin(async {})
                };
                runtime.block_on(client.emit_with_ack(event, payload, PATIENCE, told))
            }
        }
        .expect("it is sent");
        match answer.recv_timeout(PATIENCE).expect("an acknowledgement") {
            Payload::Text(values) => values.into_iter().next().unwrap_or_default(),
            other => panic!("{other:?}"),
        }
    }

    /// What comes with the next event of this name; others are passed over.
    fn next(&self, event: &str) -> Payload {
        loop {
            let heard = self.heard.recv_timeout(PATIENCE);
            let (name, payload) = heard.unwrap_or_else(|_| panic!("no {event}"));
            if name == event {
                return payload;
            }
        }
    }

    fn close(&self) {
        match &self.client {
            Client::Blocking(client) => client.disconnect(),
            Client::Async(client, runtime) => runtime.block_on(client.disconnect()),
        }
        .expect("it leaves");
    }
}

fn values(large: usize) -> Vec<Value> {
    vec![
        json!("text"),
        json!(7),
        json!(-70_000),
        json!(1.5),
        json!(null),
        json!({ "nested": [1, { "deep": "ü→🌱" }] }),
        json!("x".repeat(large)),
    ]
}

fn blobs(large: usize) -> Vec<Vec<u8>> {
    let bytes = (0..large).map(|number| (number % 251) as u8);
    vec![vec![1, 2, 3], bytes.filter(|byte| *byte != 0x1e).collect()]
}

/// What the server says of a client's transport.
fn travels_by(transport: &TransportType) -> &'static str {
    if *transport == TransportType::Polling { "polling" } else { "websocket" }
}

fn reason(left: Payload) -> String {
    let Payload::Text(values) = left else { panic!("no text") };
    values[1].as_str().expect("a reason").to_owned()
}

fn done(part: &str) {
    println!("{part}");
}
