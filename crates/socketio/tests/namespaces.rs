//! Namespaces that exist because a client asked for them: patterns and predicates, what children have from their parent,
//! and that they go.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use sundew_socketio::{
    Auth, BroadcastAckError, ConnectError, Data, Namespace, OnFull, Order, Params, PatternError, Socket,
    SocketIo,
};
use support::{Client, PATIENCE, client, serve, with};
use tokio::sync::Notify;

/// Waits for what other tasks do.
async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn connect(addr: SocketAddr, names: &[&str]) -> Vec<Client> {
    names.iter().map(|name| Client::connect(addr, name)).collect()
}

#[tokio::test]
async fn children_have_the_handlers_of_their_parent_and_the_parameters_of_their_name() {
    let io = SocketIo::new();
    let orgs = io.of_pattern("/org-{id}/{room}").unwrap();
    orgs.with(async |Params((_, room)): Params<(u32, String)>| match &*room {
        "closed" => Err(ConnectError::new("closed")),
        _ => Ok(()),
    });
    orgs.on_connect(async |socket: Socket, Params((id, room)): Params<(u32, String)>| {
        socket.emit("hello", (id, room)).unwrap();
    });
    orgs.on("which", async |socket: Socket, nsp: Namespace| {
        socket.emit("it-is", (nsp.name(), nsp.param("id"), nsp.param("none"))).unwrap();
    });
    orgs.on("own", async |socket: Socket| socket.emit("parent", ()).unwrap());
    // What a child has of its own goes before the parent's.
    io.of("/org-7/own").on("own", async |socket: Socket| socket.emit("child", ()).unwrap());
    let addr = serve(&io).await;
    let mut c = client(move || {
        let mut c = Client::open(addr);
        for nsp in ["/org-7/a", "/org-8/a", "/org-7/own"] {
            c.join(nsp);
            let room = nsp.rsplit('/').next().unwrap();
            c.expect(&format!("42{nsp},[\"hello\",{},\"{room}\"]", &nsp[5..6]));
            c.send(&format!("42{nsp},[\"which\"]"));
            c.expect(&format!("42{nsp},[\"it-is\",\"{nsp}\",\"{}\",null]", &nsp[5..6]));
        }
        c.send("42/org-7/own,[\"own\"]");
        c.expect("42/org-7/own,[\"child\"]");
        for (nsp, message) in [
            ("/org-7", "Invalid namespace"),
            ("/org-7/a/b", "Invalid namespace"),
            // The pattern fits, but not the type.
            ("/org-x/a", "Invalid namespace"),
            ("/org-9/closed", "closed"),
            // Parents are no namespaces, whatever one calls them.
            ("/org-{id}/", "Invalid namespace"),
        ] {
            c.send(&format!("40{nsp},"));
            c.expect(&format!("44{nsp},{{\"message\":\"{message}\"}}"));
        }
        c
    })
    .await;
    assert_eq!(io.troubles().handler_errors, 0);
    // Registered later, for those that exist.
    orgs.on("late", async |socket: Socket| socket.emit("too", ()).unwrap());
    client(move || {
        c.send("42/org-8/a,[\"late\"]");
        c.expect("42/org-8/a,[\"too\"]");
    })
    .await;
}

#[tokio::test]
async fn what_is_done_to_a_parent_is_done_to_all_children() {
    let io = SocketIo::new();
    let orgs = io.of_pattern("/org-{id}").unwrap();
    io.of("/other");
    orgs.on_connect(async |socket: Socket| socket.join("r"));
    let addr = serve(&io).await;
    let names = ["/org-a", "/org-b", "/other"];
    let mut clients = client(move || connect(addr, &names)).await;
    assert_eq!(orgs.emit("all", 1).sockets, 2);
    assert_eq!(orgs.to("r").emit_async("room", 2).await.sockets, 2);
    assert_eq!((orgs.socket_count(), orgs.sockets().len(), orgs.rooms()), (2, 2, vec!["r".into()]));
    let all = orgs.fetch_sockets().await.unwrap();
    assert_eq!(all.len(), 2);
    all[0].emit("one", ());
    let one = all[0].id().to_owned();
    assert_eq!(orgs.get(&one).unwrap().id(), one);
    orgs.sockets_join("s");
    orgs.except(&one).sockets_leave("s");
    assert_eq!(orgs.to("s").fetch_sockets().await.unwrap()[0].id(), one);
    io.of("/other").emit("mark", ());
    let first = usize::from(orgs.get(&one).unwrap().namespace().name() != names[0]);
    clients = client(move || {
        for (index, c) in clients[..2].iter_mut().enumerate() {
            c.expect(&format!("42{},[\"all\",1]", names[index]));
            c.expect(&format!("42{},[\"room\",2]", names[index]));
        }
        clients[first].expect(&format!("42{},[\"one\"]", names[first]));
        clients[2].expect("42/other,[\"mark\"]");
        clients
    })
    .await;

    // Acknowledgements are collected from all children; one that is missing is told.
    let ask = tokio::spawn({
        let orgs = orgs.clone();
        async move {
            let all = orgs.emit_with_ack::<String>("q", ()).await.unwrap();
            let some = orgs.timeout(Duration::from_millis(200)).emit_with_ack::<String>("q", ()).await;
            (all, some)
        }
    });
    clients = client(move || {
        for round in 0..2 {
            for (name, c) in names.iter().zip(&mut clients[..2 - round]) {
                let question = c.text();
                let id =
                    question.strip_prefix(&format!("42{name},")).unwrap().strip_suffix("[\"q\"]").unwrap();
                c.send(&format!("43{name},{id}[\"{name}\"]"));
            }
        }
        clients
    })
    .await;
    let (mut all, some) = ask.await.unwrap();
    all.sort();
    assert_eq!(all, names[..2]);
    match some {
        Err(BroadcastAckError::Incomplete { answers, expected: 2, missing: 1 }) => {
            assert_eq!(answers.len(), 1)
        }
        other => panic!("{other:?}"),
    }

    orgs.disconnect_sockets(false);
    assert_eq!((orgs.socket_count(), io.of("/other").socket_count()), (0, 1));
    drop(clients);
}

#[tokio::test]
async fn settings_of_a_parent_hold_for_children() {
    let io = SocketIo::builder().max_queued(500_000, 100).build();
    let all = io.of_pattern("/{any}").unwrap();
    all.order(Order::Serial).when_full(OnFull::Drop).on("n", async |socket: Socket, Data(n): Data<u64>| {
        tokio::time::sleep(Duration::from_millis(if n == 0 { 50 } else { 0 })).await;
        socket.emit("n", n).unwrap();
    });
    let addr = serve(&io).await;
    let c = client(move || {
        let mut c = Client::connect(addr, "/x");
        for n in 0..3 {
            c.send(&format!("42/x,[\"n\",{n}]"));
        }
        for n in 0..3 {
            c.expect(&format!("42/x,[\"n\",{n}]"));
        }
        c
    })
    .await;
    let socket = all.sockets().remove(0);
    let chunk = "x".repeat(100_000);
    while socket.emit("chunk", &chunk).is_ok() {}
    assert!(socket.is_connected());
    drop(c);
}

#[tokio::test]
async fn a_predicate_decides_while_everything_else_goes_on() {
    let io = SocketIo::new();
    let gate = Arc::new(Notify::new());
    let asked = Arc::new(AtomicUsize::new(0));
    let (waits, count) = (gate.clone(), asked.clone());
    let rooms = io.of_when(move |name, auth| {
        let (waits, count) = (waits.clone(), count.clone());
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            match &*name {
                "/slow" => waits.notified().await,
                "/panics" => panic!("boom"),
                _ => {}
            }
            name != "/denied" && auth["no"] != true
        }
    });
    // A later parent gets what the earlier ones do not want.
    io.of_pattern("/{x}nied").unwrap().on_connect(async |socket: Socket, Params(x): Params<String>| {
        socket.emit("x", x).unwrap();
    });
    rooms.on_connect(async |socket: Socket, Auth(auth): Auth<Value>| socket.emit("hello", (auth,)).unwrap());
    let errors = Arc::new(AtomicUsize::new(0));
    let seen = errors.clone();
    rooms.on_error(move |error| {
        assert_eq!((&*error.namespace, &*error.event), ("/panics", "of_when"));
        seen.fetch_add(1, Ordering::SeqCst);
    });
    io.on("ping", async |socket: Socket| socket.emit("pong", ()).unwrap());
    let addr = serve(&io).await;
    let mut c = client(move || {
        let mut c = Client::open(addr);
        c.send("40/slow,{\"a\":1}");
        c.join("/");
        c.send("42[\"ping\"]");
        c.expect("42[\"pong\"]");
        c.send("40/quick,");
        assert!(c.text().starts_with("40/quick,{\"sid\""));
        c.expect("42/quick,[\"hello\",null]");
        c.send("40/other,{\"no\":true}");
        c.expect("44/other,{\"message\":\"Invalid namespace\"}");
        c.send("40/panics,");
        c.expect("44/panics,{\"message\":\"Internal error\"}");
        c.send("40/denied,");
        assert!(c.text().starts_with("40/denied,{\"sid\""));
        c.expect("42/denied,[\"x\",\"de\"]");
        c
    })
    .await;
    assert_eq!((asked.load(Ordering::SeqCst), errors.load(Ordering::SeqCst)), (5, 1));
    gate.notify_one();
    client(move || {
        assert!(c.text().starts_with("40/slow,{\"sid\""));
        c.expect("42/slow,[\"hello\",{\"a\":1}]");
        // It exists now: nobody is asked again.
        let mut other = Client::connect(addr, "/slow");
        other.expect("42/slow,[\"hello\",null]");
        c
    })
    .await;
    assert_eq!(asked.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_client_that_asks_twice_takes_back_or_leaves_while_a_predicate_decides() {
    let io = SocketIo::builder().max_namespaces(3).build();
    let gate = Arc::new(Notify::new());
    let waits = gate.clone();
    let rooms = io.of_when(with!([waits] (name: String, _auth: Value) => {
        if name == "/w" {
            waits.notified().await;
        } else {
            std::future::pending::<()>().await;
        }
        true
    }));
    io.on("ping", async |socket: Socket| socket.emit("pong", ()).unwrap());
    let addr = serve(&io).await;
    let mut c = client(move || {
        let mut c = Client::connect(addr, "/");
        c.send("40/b,");
        // It waits for the first answer.
        c.send("40/b,");
        c.send("40/w,");
        c.send("41/w,");
        // Those that are asked about count.
        c.send("40/c,");
        c.expect("44/c,{\"message\":\"Too many namespaces\"}");
        c
    })
    .await;
    gate.notify_one();
    client(move || {
        // It was taken back: no answer, neither now nor later.
        c.send("42[\"ping\"]");
        c.expect("42[\"pong\"]");
        c.vanish();
    })
    .await;
    until("everybody has left", || io.socket_count() == 0).await;
    assert_eq!((rooms.socket_count(), rooms.children().len()), (0, 0));
}

/// The namespace is there from the moment the hook knows of it, but nobody enters before the hook is through.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_enters_a_new_namespace_before_the_app_has_set_it_up() {
    let io = SocketIo::new();
    io.of_pattern("/{any}").unwrap();
    let server = io.clone();
    io.on_new_namespace(move |nsp| {
        assert!(server.find(nsp.name()).is_some());
        std::thread::sleep(Duration::from_millis(200));
        server.of("/other");
        nsp.with(async || Err::<(), _>("not you"));
    });
    let addr = serve(&io).await;
    let refused = |n: u64| {
        client(move || {
            let mut c = Client::open(addr);
            std::thread::sleep(Duration::from_millis(30 * n));
            c.send("40/guarded,");
            c.expect("44/guarded,{\"message\":\"not you\"}");
        })
    };
    tokio::join!(refused(0), refused(1), refused(2));
}

#[tokio::test]
async fn where_setting_up_panics_nobody_enters_and_the_connection_lives() {
    let io = SocketIo::new();
    io.of_pattern("/{any}").unwrap();
    io.on_new_namespace(|nsp| assert_ne!(nsp.name(), "/bad", "as asked"));
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::open(addr);
        for _ in 0..2 {
            c.send("40/bad,");
            c.expect("44/bad,{\"message\":\"Internal error\"}");
        }
        c.join("/good");
    })
    .await;
    assert!(io.find("/bad").is_none());
}

/// Made by the app, it is made again by who asks for it next.
#[tokio::test]
async fn where_setting_up_panics_for_the_app_it_is_tried_again() {
    let io = SocketIo::new();
    let first = AtomicBool::new(true);
    io.on_new_namespace(move |_| assert!(!first.swap(false, Ordering::Relaxed), "as asked"));
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(io.of("/chat"))));
    assert!(made.is_err() && io.find("/chat").is_none());
    io.of("/chat");
    let addr = serve(&io).await;
    client(move || drop(Client::connect(addr, "/chat"))).await;
}

#[tokio::test]
async fn a_child_that_is_gone_keeps_nothing_of_what_holds_it() {
    let io = SocketIo::new();
    let orgs = io.of_pattern("/org-{id}").unwrap();
    let token = Arc::new(());
    let held = Arc::downgrade(&token);
    io.on_new_namespace(move |nsp| {
        let (nsp, token) = (nsp.clone(), held.upgrade());
        nsp.clone().on_connect(move |_: Socket| {
            let _ = (&nsp, &token);
            async {}
        });
    });
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::open(addr);
        c.join("/org-1");
        c.vanish();
    })
    .await;
    until("the child is gone", || orgs.children().is_empty()).await;
    until("its handlers are", || Arc::strong_count(&token) == 1).await;
}

#[tokio::test]
async fn asked_for_twice_while_a_predicate_decides_a_namespace_is_joined_once() {
    let io = SocketIo::new();
    let gate = Arc::new(Notify::new());
    let waits = gate.clone();
    io.of_when(with!([waits] (_name: String, _auth: Value) => {
        waits.notified().await;
        true
    }));
    io.on("ping", async |socket: Socket| socket.emit("pong", ()).unwrap());
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        c.send("40/a,");
        c.send("40/a,");
        c.send("42[\"ping\"]");
        c.expect("42[\"pong\"]");
        gate.notify_one();
        assert!(c.text().starts_with("40/a,{"));
        // Once it is joined it cannot be again.
        c.send("40/a,");
        c.expect_closed();
    })
    .await;
}

/// As `connect`, `disconnect`, `connect` of the official client before it has an answer.
#[tokio::test]
async fn asked_for_twice_while_the_middleware_decides_a_namespace_is_joined_once() {
    let io = SocketIo::new();
    let (gate, asked) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (waits, count) = (gate.clone(), asked.clone());
    let slow = io.of("/slow");
    slow.with(with!([waits, count] (Auth(auth): Auth<Value>) => {
        count.fetch_add(1, Ordering::SeqCst);
        waits.notified().await;
        if auth["no"].is_null() { Ok(()) } else { Err("no") }
    }));
    slow.on("ping", async |socket: Socket| socket.emit("pong", ()).unwrap());
    io.on("ping", async |socket: Socket| socket.emit("pong", ()).unwrap());
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        for no in [false, true] {
            for _ in 0..3 {
                c.send(if no { "40/slow,{\"no\":1}" } else { "40/slow," });
            }
            c.send("42/slow,[\"ping\"]");
            c.send("42[\"ping\"]");
            c.expect("42[\"pong\"]");
            gate.notify_one();
            if no {
                c.expect("44/slow,{\"message\":\"no\"}");
            } else {
                assert!(c.text().starts_with("40/slow,{"));
                c.expect("42/slow,[\"pong\"]");
                c.send("41/slow,");
            }
        }
    })
    .await;
    assert_eq!((asked.load(Ordering::SeqCst), slow.socket_count()), (2, 0));
}

#[tokio::test]
async fn taken_back_and_asked_for_again_a_namespace_is_decided_anew() {
    let io = SocketIo::builder().max_namespaces(4).build();
    let (gate, asked) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (waits, count) = (gate.clone(), asked.clone());
    let slow = io.of("/slow");
    slow.with(with!([waits, count] (Auth(who): Auth<Value>, socket: Socket) => {
        count.fetch_add(1, Ordering::SeqCst);
        socket.set_data(&who["who"]).unwrap();
        waits.notified().await;
        if who["who"] == 0 { Err("no") } else { Ok(()) }
    }));
    slow.on("who", async |socket: Socket| socket.emit("who", socket.data()).unwrap());
    io.on("ping", async |socket: Socket| socket.emit("pong", ()).unwrap());
    let addr = serve(&io).await;
    let mut c = client(move || {
        let mut c = Client::connect(addr, "/");
        for who in 0..3 {
            c.send(&format!("40/slow,{{\"who\":{who}}}"));
            // Nothing of the one that was taken back is heard by the next.
            c.send("42/slow,[\"who\"]");
            c.send("41/slow,");
        }
        // As many are at work as there may be namespaces.
        c.send("40/slow,{\"who\":3}");
        c.expect("44/slow,{\"message\":\"Too many namespaces\"}");
        c.send("42[\"ping\"]");
        c.expect("42[\"pong\"]");
        c
    })
    .await;
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    gate.notify_waiters();
    c = client(move || {
        c.send("42[\"ping\"]");
        c.expect("42[\"pong\"]");
        c.send("40/slow,{\"who\":4}");
        c.send("42/slow,[\"who\"]");
        c
    })
    .await;
    until("the last one is decided about", || asked.load(Ordering::SeqCst) == 4).await;
    gate.notify_waiters();
    client(move || {
        assert!(c.text().starts_with("40/slow,{"));
        c.expect("42/slow,[\"who\",4]");
        c.send("41/slow,");
        c.vanish();
    })
    .await;
    until("it has left", || slow.socket_count() == 0).await;
}

#[tokio::test]
async fn empty_children_go_and_those_the_app_named_stay() {
    let io = SocketIo::new();
    let made = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let names = made.clone();
    io.on_new_namespace(move |nsp| names.lock().push(nsp.name().to_owned()));
    let orgs = io.of_pattern("/org-{id}").unwrap();
    orgs.with(async |Params(id): Params<String>| if id == "no" { Err("no") } else { Ok(()) });
    io.of("/org-named");
    let addr = serve(&io).await;
    let mut c = client(move || {
        let mut c = Client::open(addr);
        c.join("/org-1");
        c.join("/org-2");
        c.join("/org-named");
        c.send("40/org-no,");
        c.expect("44/org-no,{\"message\":\"no\"}");
        c
    })
    .await;
    assert_eq!(*made.lock(), ["/org-named", "/org-1", "/org-2", "/org-no"]);
    assert!(io.find("/org-1").is_some() && io.find("org-no").is_none());
    io.find("/org-1").unwrap().disconnect_sockets(false);
    assert!(io.find("/org-1").is_none());
    // A handle that is kept does no harm.
    let kept = io.find("/org-2").unwrap();
    c = client(move || {
        c.expect("41/org-1,");
        c.send("41/org-named,");
        let _ = c.join("/org-1");
        c.vanish();
        Client::connect(addr, "/org-9")
    })
    .await;
    until("all but one are gone", || orgs.children().len() == 2).await;
    let mut left = io.namespaces();
    left.sort();
    assert_eq!(left, ["/", "/org-9", "/org-named"]);
    assert_eq!(kept.emit("x", ()).sockets, 0);
    // Asked for by name while it lives, it stays too.
    io.of("/org-9");
    client(move || c.vanish()).await;
    until("the client has left", || orgs.socket_count() == 0).await;
    assert!(io.find("/org-9").is_some());

    let io = SocketIo::builder().cleanup_empty_namespaces(false).build();
    let all = io.of_pattern("/{any}").unwrap();
    let addr = serve(&io).await;
    client(move || Client::connect(addr, "/x").vanish()).await;
    until("the client has left", || all.socket_count() == 0).await;
    assert_eq!(all.children().len(), 1);
}

#[tokio::test]
async fn clients_cannot_bring_about_more_than_allowed() {
    let io = SocketIo::builder().max_dynamic_namespaces(2).max_namespace_length(10).build();
    io.of_pattern("/{any}").unwrap();
    // The app's own do not count.
    io.of("/mine");
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::open(addr);
        for nsp in ["/mine", "/a", "/b"] {
            c.join(nsp);
        }
        c.send("40/c,");
        c.expect("44/c,{\"message\":\"Too many namespaces on this server\"}");
        // One that is there is open to others, and one that goes makes room.
        Client::connect(addr, "/b");
        c.send("41/a,");
        c.join("/c");
        // Nor is what it says of itself without a bound.
        c.send("41/b,");
        c.send(&format!("40/b,{{\"a\":\"{}\"}}", "x".repeat(65_536)));
        c.expect("44/b,{\"message\":\"Auth too large\"}");
        c.join("/b");
        c.send("40/longer-than-ten,");
        c.expect("44/longer-than-ten,{\"message\":\"Invalid namespace\"}");
    })
    .await;
    assert_eq!(io.troubles().namespaces_refused, 1);
}

#[tokio::test]
async fn a_connection_joins_at_most_so_many_namespaces() {
    let io = SocketIo::builder().max_namespaces(3).build();
    for nsp in ["/a", "/b", "/c"] {
        io.of(nsp);
    }
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        c.join("/a");
        c.join("/b");
        c.send("40/c,");
        c.expect("44/c,{\"message\":\"Too many namespaces\"}");
        c.send("41/a,");
        c.join("/c");
        // Another connection has its own.
        Client::connect(addr, "/a");
    })
    .await;
}

#[test]
fn patterns_that_are_none() {
    let io = SocketIo::new();
    assert!(matches!(io.of_pattern("/a{").unwrap_err(), PatternError::Brace(_)));
    assert!(matches!(io.of_pattern("a-{b}").unwrap_err(), PatternError::Name(_)));
}

/// What its last client sent before it left goes on, and what goes wrong is told: the child stays for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_stays_for_what_its_last_client_sent() {
    for says_goodbye in [true, false] {
        let io = SocketIo::new();
        io.of_pattern("/r-{n}").unwrap();
        let (handled, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        {
            let (handled, failed, begun, go_on) =
                (handled.clone(), failed.clone(), begun.clone(), go_on.clone());
            io.on_new_namespace(move |nsp| {
                nsp.order(Order::Serial);
                nsp.on(
                    "e",
                    with!([handled, begun, go_on] () => {
                        begun.notify_one();
                        go_on.notified().await;
                        handled.fetch_add(1, Ordering::SeqCst);
                        Err::<(), _>("as it is meant to")
                    }),
                );
                let failed = failed.clone();
                nsp.on_error(move |_| {
                    failed.fetch_add(1, Ordering::SeqCst);
                });
            });
        }
        let addr = serve(&io).await;
        client(move || {
            let mut c = Client::connect(addr, "/r-1");
            for _ in 0..3 {
                c.send("42/r-1,[\"e\"]");
            }
            if says_goodbye {
                c.send("41/r-1,");
                c.join("/");
            }
            c.vanish();
        })
        .await;
        for _ in 0..3 {
            tokio::time::timeout(PATIENCE, begun.notified()).await.expect("an event that never began");
            go_on.notify_one();
        }
        until("the child has gone", || io.find("/r-1").is_none()).await;
        assert_eq!((handled.load(Ordering::SeqCst), failed.load(Ordering::SeqCst)), (3, 3));
        assert_eq!(io.troubles().unhandled, 0);
    }
}

/// Children come and go while others enter them: nobody ends up in one that was taken out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_in_a_child_hears_it() {
    let io = SocketIo::new();
    let rooms = io.of_pattern("/r-{n}").unwrap();
    // On its way in while the last of the others leaves.
    rooms.with(async || {
        tokio::time::sleep(Duration::from_micros(100)).await;
        Ok::<(), String>(())
    });
    rooms.on("ask", async |socket: Socket, nsp: Namespace| {
        // As others find it, not as the socket knows it.
        let io = socket.io().unwrap();
        io.find(nsp.name()).unwrap().to(socket.id()).emit("heard", ());
    });
    let addr = serve(&io).await;
    let clients = (0..8).map(|_| {
        client(move || {
            let mut c = Client::open(addr);
            for round in 0..200 {
                let nsp = format!("/r-{}", round % 2);
                c.join(&nsp);
                c.send(&format!("42{nsp},[\"ask\"]"));
                c.expect(&format!("42{nsp},[\"heard\"]"));
                c.send(&format!("41{nsp},"));
            }
            // Its leaving has been read when this is answered.
            c.join("/");
        })
    });
    futures_util::future::join_all(clients).await;
    assert_eq!(io.namespaces(), ["/"]);
    assert_eq!(io.troubles().handler_errors, 0);
}
