//! A store that servers share which know nothing else of each other: a client comes back to one that did not keep its
//! session.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Value, json};
use sundew_socketio::recovery::{
    Elsewhere, Fetching, Logged, Memory, Offset, Recipients, Recovery, SavedSession, Seen, Store,
};
use sundew_socketio::{Socket, SocketIo};
use support::{Client, client, serve};

type All = Arc<Mutex<Vec<Arc<Memory>>>>;

/// The memory of one server, and those of all.
struct Shared {
    own: Arc<Memory>,
    all: All,
}

impl Store for Shared {
    fn last(&self, nsp: &str) -> Offset {
        self.own.last(nsp)
    }

    fn append(&self, nsp: &str, event: Logged, to: Recipients, now: Instant, expires: Instant) {
        self.own.append(nsp, event, to, now, expires);
    }

    fn save(&self, nsp: &str, session: SavedSession, now: Instant, expires: Instant) {
        self.own.save(nsp, session, now, expires);
    }

    fn holds(&self, nsp: &str, pid: &str, now: Instant) -> bool {
        self.own.holds(nsp, pid, now)
    }

    fn take(&self, nsp: &str, pid: &str, now: Instant) -> Option<SavedSession> {
        self.own.take(nsp, pid, now)
    }

    fn since(&self, nsp: &str, after: Offset, session: &SavedSession) -> Option<Vec<Logged>> {
        self.own.since(nsp, after, session)
    }

    fn seen(&self, nsp: &str) -> Seen {
        self.own.seen(nsp)
    }

    fn unseen(&self, nsp: &str, seen: &Seen, from: Offset, session: &SavedSession) -> Option<Vec<Logged>> {
        self.own.unseen(nsp, seen, from, session)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn fetch<'a>(&'a self, nsp: &'a str, pid: &'a str, offset: Option<&'a str>) -> Fetching<'a> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let all = self.all.lock().clone();
            all.iter().find_map(|store| {
                let session = store.take(nsp, pid, Instant::now())?;
                let missed = store.since(nsp, session.received(offset)?, &session)?;
                Some(Elsewhere {
                    missed: missed.into_iter().map(|event| event.packet).collect(),
                    seen: store.seen(nsp),
                    rooms: session.rooms(),
                    id: session.id,
                    data: session.data,
                })
            })
        })
    }
}

fn server(all: &All) -> SocketIo {
    let own = Arc::new(Memory::new());
    all.lock().push(own.clone());
    let recovery = Recovery::new().store(Shared { own, all: all.clone() });
    let io = SocketIo::builder().connection_state_recovery(recovery).build();
    // One namespace by its name, one that a parent is asked for.
    for namespace in [io.of("/"), io.of_when(async |name: String, _: Value| name == "/asked")] {
        namespace.on_connect(async |socket: Socket| {
            if !socket.recovered() {
                socket.join("room");
                socket.set_data("kept").unwrap();
            }
        });
    }
    io
}

/// Connects, and returns the answer to CONNECT with what came before it.
fn connect(addr: SocketAddr, nsp: &str, auth: &Value) -> (Client, Value, Vec<String>) {
    let start = if nsp == "/" { "40".to_owned() } else { format!("40{nsp},") };
    let mut c = Client::open(addr);
    c.send(&format!("{start}{auth}"));
    let mut before = Vec::new();
    loop {
        let text = c.text();
        match text.strip_prefix(&start) {
            Some(json) => return (c, serde_json::from_str(json).unwrap(), before),
            None => before.push(text),
        }
    }
}

#[tokio::test]
async fn a_client_comes_back_to_a_server_that_did_not_keep_it() {
    for nsp in ["/", "/asked"] {
        let all = All::default();
        let servers = [server(&all), server(&all)];
        let (first, second) = (serve(&servers[0]).await, serve(&servers[1]).await);
        let (c, was, _) = client(move || connect(first, nsp, &json!({}))).await;
        client(move || c.vanish()).await;
        while servers[0].of(nsp).socket_count() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        servers[0].of(nsp).to("room").emit("missed", 1);
        servers[0].of(nsp).to("other").emit("not its", 1);
        servers[1].of(nsp).emit("another server's", 1);
        let pid = was["pid"].clone();
        let (c, is, before) = client(move || connect(second, nsp, &json!({"pid": pid}))).await;
        assert_eq!(is, was);
        assert_eq!(before.len(), 1, "{before:?}");
        assert!(before[0].contains("[\"missed\",1,"), "{before:?}");
        let socket = servers[1].of(nsp).sockets().remove(0);
        assert!(socket.recovered() && socket.rooms().contains(&"room".to_owned()));
        assert_eq!(socket.data(), json!("kept"));
        drop(c);
    }
}
