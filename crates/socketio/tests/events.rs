//! What every event goes through: observers, middleware for events, listeners to what is sent, handlers for once; and what a
//! client hears when its event fails.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use sundew_socketio::{Ack, Args, Data, Event, EventError, Failure, Order, Socket, SocketIo};
use support::{Client, PATIENCE, client, serve, with};
use tokio::sync::{Notify, mpsc};

type Log = Arc<Mutex<Vec<String>>>;

fn take(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock())
}

async fn next<T>(receiver: &mut mpsc::UnboundedReceiver<T>) -> T {
    tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("nothing happened").expect("sender gone")
}

/// Waits for what other tasks do.
async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn observers_hear_of_every_event_first_and_middleware_decides() {
    let io = SocketIo::new();
    let log = Log::default();
    macro_rules! note {
        ($tag:literal) => {
            with!([log] (event: Event, args: Args) => {
                log.lock().push(format!("{} {event} {}", $tag, args.elements()));
            })
        };
    }
    io.on_any(note!("any1"))
        .on_any(note!("any2"))
        .with_event(with!([log] (event: Event, Data(first): Data<Option<String>>) => {
            log.lock().push(format!("mw {event}"));
            match first.as_deref() {
                Some("bad") => Err(EventError::new("bad").with_data(json!({"code": 7}))),
                _ => Ok(()),
            }
        }))
        .with_event(with!([log] () => {
            log.lock().push("mw2".into());
            Ok::<(), String>(())
        }))
        .on(
            "hi",
            with!([log] (socket: Socket, ack: Ack) => {
                log.lock().push("handler".into());
                ack.send("done").unwrap();
                socket.on_any(with!([log] () => log.lock().push("own any".into())));
                socket.with_event(async || Err("not you"));
            }),
        );
    let errors = Log::default();
    let seen = errors.clone();
    io.on_error(move |error| {
        assert!(matches!(error.failure, Failure::Rejected(_)));
        seen.lock().push(error.to_string());
    });
    let addr = serve(&io).await;
    let mut c = client(move || {
        let mut c = Client::connect(addr, "/");
        // Unhandled, and refused: with and without an acknowledgement.
        c.send("42[\"none\"]");
        c.send("42[\"hi\",\"bad\"]");
        c.send("425[\"hi\",\"bad\"]");
        c.expect("435[{\"error\":{\"message\":\"bad\",\"data\":{\"code\":7}}}]");
        c.send("426[\"hi\",\"x\",1]");
        c.expect("436[\"done\"]");
        c
    })
    .await;
    assert_eq!(
        take(&log),
        [
            "any1 none ",
            "any2 none ",
            "mw none",
            "mw2",
            "any1 hi \"bad\"",
            "any2 hi \"bad\"",
            "mw hi",
            "any1 hi \"bad\"",
            "any2 hi \"bad\"",
            "mw hi",
            "any1 hi \"x\",1",
            "any2 hi \"x\",1",
            "mw hi",
            "mw2",
            "handler",
        ]
    );
    assert_eq!(take(&errors), ["hi in /: refused: bad"; 2]);
    io.off_any();
    c = client(move || {
        // What the socket has of its own comes after what the namespace has, and concerns nobody else.
        c.send("427[\"hi\"]");
        c.expect("437[{\"error\":{\"message\":\"not you\"}}]");
        let mut other = Client::connect(addr, "/");
        other.send("420[\"hi\"]");
        other.expect("430[\"done\"]");
        c
    })
    .await;
    assert_eq!(take(&log), ["own any", "mw hi", "mw2", "mw hi", "mw2", "handler"]);
    let troubles = io.troubles();
    assert_eq!((troubles.rejected, troubles.handler_errors, troubles.unhandled), (3, 0, 1));
    drop(c);
}

#[tokio::test]
async fn middleware_and_observers_are_inherited_by_children() {
    let io = SocketIo::new();
    let log = Log::default();
    let parent = io.of_pattern("/{any}").unwrap();
    parent.on_any(with!([log] () => log.lock().push("parent any".into())));
    parent.with_event(with!([log] () => {
        log.lock().push("parent mw".into());
        Ok::<(), String>(())
    }));
    let child = io.of("/child");
    child.on_any(with!([log] () => log.lock().push("child any".into())));
    child.with_event(async || Err("child"));
    let out = log.clone();
    parent.on_any_outgoing(move |socket, event, args| {
        out.lock().push(format!("{} {event} {}", socket.namespace().name(), args.elements()));
    });
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/child");
        c.send("42/child,1[\"x\"]");
        c.expect("43/child,1[{\"error\":{\"message\":\"child\"}}]");
        c
    })
    .await;
    assert_eq!(take(&log), ["parent any", "child any", "parent mw"]);
    let c = client(move || Client::connect(addr, "/child")).await;
    parent.emit("e", 1);
    assert_eq!(take(&log), ["/child e 1"]);
    drop(c);
}

#[tokio::test]
async fn middleware_that_waits_keeps_the_order_if_the_order_is_serial() {
    let io = SocketIo::new();
    io.of("/s").order(Order::Serial);
    for nsp in ["/s", "/c"] {
        io.of(nsp)
            .with_event(async |Data(n): Data<u64>| {
                tokio::time::sleep(Duration::from_millis(if n == 0 { 50 } else { 0 })).await;
                Ok::<(), String>(())
            })
            .on("n", async |Data(n): Data<u64>, ack: Ack| ack.send(n).unwrap());
    }
    let addr = serve(&io).await;
    client(move || {
        for (nsp, order) in [("/s", [0, 1]), ("/c", [1, 0])] {
            let mut c = Client::connect(addr, nsp);
            c.send(&format!("42{nsp},0[\"n\",0]"));
            c.send(&format!("42{nsp},1[\"n\",1]"));
            for n in order {
                c.expect(&format!("43{nsp},{n}[{n}]"));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn listeners_hear_what_is_sent_and_to_whom() {
    let io = SocketIo::new();
    let (log, own) = (Log::default(), Log::default());
    io.on("go", async |socket: Socket, ack: Ack| {
        ack.send("not heard").unwrap();
        socket.emit("one", (1, Bytes::from_static(b"x"))).unwrap();
        socket.emit_async("two", json!({"a": [1, "\u{e9}"]})).await.unwrap();
        drop(socket.emit_with_ack::<()>("three", ()));
        socket.volatile().emit("gone", ()).unwrap();
    });
    let addr = serve(&io).await;
    let mut clients = client(move || [Client::connect(addr, "/"), Client::connect(addr, "/")]).await;
    io.emit("before", ());
    let heard = log.clone();
    io.on_any_outgoing(move |_, event, args| {
        heard.lock().push(format!("{event} {} {}", args.elements(), args.attachments().len()));
    });
    let clients = client(move || {
        clients[0].expect("42[\"before\"]");
        clients[0].send("420[\"go\"]");
        clients[0].expect("430[\"not heard\"]");
        clients[0].text();
        clients[0].binary();
        clients[0].expect("42[\"two\",{\"a\":[1,\"\u{e9}\"]}]");
        clients[0].expect("420[\"three\"]");
        clients
    })
    .await;
    let mut all = take(&log);
    // Whether the volatile one was written at once is another test's.
    all.retain(|line| !line.starts_with("gone"));
    assert_eq!(
        all,
        ["one 1,{\"_placeholder\":true,\"num\":0} 1", "two {\"a\":[1,\"\u{e9}\"]} 0", "three  0"]
    );
    let mine = own.clone();
    let socket = io.sockets().remove(0);
    let id = socket.id().to_owned();
    socket.on_any_outgoing(move |socket, event, _| mine.lock().push(format!("{} {event}", socket.id())));
    assert_eq!(io.emit("all", ()).sockets, 2);
    io.local().emit_async("later", "x").await;
    io.to("nobody").emit("nobody", ());
    drop(tokio::time::timeout(Duration::from_millis(20), io.emit_with_ack::<()>("q", ())).await);
    assert_eq!(take(&log), ["all  0", "all  0", "later \"x\" 0", "later \"x\" 0", "q  0", "q  0"]);
    assert_eq!(take(&own), ["all", "later", "q"].map(|event| format!("{id} {event}")));
    // One that panics harms nobody.
    io.off_any_outgoing().on_any_outgoing(|_, _, _| panic!("listener"));
    assert_eq!(io.emit("all", ()).sockets, 2);
    socket.off_any_outgoing();
    io.off_any_outgoing();
    io.emit("all", ());
    assert_eq!((take(&log).len(), take(&own).len()), (0, 1));
    drop(clients);
}

#[tokio::test]
async fn what_is_refused_does_not_use_up_a_handler_for_once() {
    let io = SocketIo::new();
    let (wait, proceed, waiting) =
        (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    io.with_event(with!([wait, waiting] (Data(what): Data<String>) => {
        match &*what {
            "no" => return Err("no"),
            "wait" => {
                waiting.fetch_add(1, Ordering::SeqCst);
                wait.notified().await;
            }
            _ => {}
        }
        Ok(())
    }));
    let (tell, mut told) = mpsc::unbounded_channel();
    io.on("e", with!([tell] () => { tell.send("namespace").unwrap(); }));
    io.on_connect(with!([tell, proceed] (socket: Socket) => {
        socket.once("e", with!([tell] () => { tell.send("once").unwrap(); }));
        socket.once("only", with!([tell] () => { tell.send("only").unwrap(); }));
        socket.once("off", with!([tell] () => { tell.send("off").unwrap(); }));
        socket.on("take back", async |socket: Socket| socket.off("off"));
        socket.on("go on", with!([proceed] () => proceed.notify_one()));
    }));
    let addr = serve(&io).await;
    let start = |events: &'static [&'static str]| {
        client(move || {
            let mut c = Client::connect(addr, "/");
            for event in events {
                c.send(&format!("42{event}"));
            }
            c
        })
    };
    // Refused, then handled, and that once.
    let c = start(&["[\"e\",\"no\"]", "[\"e\",\"no\"]", "[\"e\",\"\"]", "[\"e\",\"\"]"]).await;
    assert_eq!((next(&mut told).await, next(&mut told).await), ("once", "namespace"));
    drop(c);
    // On their way together. Whoever is late goes to who handles it then, or to nobody.
    let c = start(&[
        "[\"e\",\"wait\"]",
        "[\"e\",\"wait\"]",
        "[\"only\",\"wait\"]",
        "[\"only\",\"wait\"]",
        "[\"off\",\"wait\"]",
        "[\"take back\",\"\"]",
        "[\"go on\",\"\"]",
    ])
    .await;
    tokio::time::timeout(PATIENCE, proceed.notified()).await.unwrap();
    wait.notify_waiters();
    let mut seen = [next(&mut told).await, next(&mut told).await, next(&mut told).await];
    seen.sort_unstable();
    assert_eq!(seen, ["namespace", "once", "only"]);
    until("nobody handles the others", || io.troubles().unhandled == 2).await;
    drop(c);
    // Their client has left by then.
    waiting.store(0, Ordering::SeqCst);
    let c = start(&["[\"only\",\"wait\"]", "[\"only\",\"wait\"]"]).await;
    until("both are on their way", || waiting.load(Ordering::SeqCst) == 2).await;
    client(move || {
        let mut c = c;
        c.send("41");
        c.vanish();
    })
    .await;
    until("it has left", || io.socket_count() == 0).await;
    wait.notify_waiters();
    assert_eq!(next(&mut told).await, "only");
    until("nobody handles the other", || io.troubles().unhandled == 3).await;
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn once_is_once_and_off_takes_back() {
    let io = SocketIo::new();
    io.on("e", async |ack: Ack| ack.send("namespace").unwrap());
    io.on_connect(async |socket: Socket| {
        socket.once("e", async |ack: Ack| ack.send("once").unwrap());
        socket.on("own", async |socket: Socket, ack: Ack| {
            ack.send("own").unwrap();
            socket.off("own");
            socket.off_any();
        });
        socket.on_any(async |socket: Socket, event: Event| socket.emit("seen", event.0.to_string()).unwrap());
    });
    io.on_fallback(async |event: Event, ack: Ack| ack.send(format!("fallback {event}")).unwrap());
    let addr = serve(&io).await;
    client(move || {
        let mut c = Client::connect(addr, "/");
        // Both are there before the first is handled: it still is once.
        c.send("420[\"e\"]");
        c.send("421[\"e\"]");
        for answer in ["42[\"seen\",\"e\"]", "430[\"once\"]", "42[\"seen\",\"e\"]", "431[\"namespace\"]"] {
            c.expect(answer);
        }
        c.send("422[\"own\"]");
        c.expect("42[\"seen\",\"own\"]");
        c.expect("432[\"own\"]");
        c.send("423[\"own\"]");
        c.expect("433[\"fallback own\"]");
        // Another socket has its own once.
        let mut c = Client::connect(addr, "/");
        c.send("420[\"e\"]");
        c.expect("42[\"seen\",\"e\"]");
        c.expect("430[\"once\"]");
    })
    .await;
    io.off("e");
    client(move || {
        let mut c = Client::connect(addr, "/");
        c.send("420[\"e\"]");
        c.send("421[\"e\"]");
        for answer in ["42[\"seen\",\"e\"]", "430[\"once\"]", "42[\"seen\",\"e\"]", "431[\"fallback e\"]"] {
            c.expect(answer);
        }
    })
    .await;
}

#[tokio::test]
async fn handlers_that_change_are_heard_by_clients_that_are_there() {
    let io = SocketIo::new();
    let parent = io.of_pattern("/rooms/{name}").unwrap();
    parent.on("e", async |ack: Ack| ack.send("parent").unwrap());
    let addr = serve(&io).await;
    let nsp = "/rooms/a";
    let answers = async |mut c: Client, event: &'static str, answer: Option<&'static str>| {
        client(move || {
            c.send(&format!("42{nsp},1[\"{event}\"]"));
            // A second one shows that the first was dropped.
            c.send(&format!("42{nsp},2[\"always\"]"));
            if let Some(answer) = answer {
                c.expect(&format!("43{nsp},1[\"{answer}\"]"));
            }
            c.expect(&format!("43{nsp},2[\"always\"]"));
            c
        })
        .await
    };
    parent.on("always", async |ack: Ack| ack.send("always").unwrap());
    let c = client(move || Client::connect(addr, nsp)).await;
    let child = io.of(nsp);
    let c = answers(c, "e", Some("parent")).await;
    let c = answers(c, "new", None).await;
    parent.on("e", async |ack: Ack| ack.send("parent's second").unwrap());
    let c = answers(c, "e", Some("parent's second")).await;
    child.on("e", async |ack: Ack| ack.send("child").unwrap());
    let c = answers(c, "e", Some("child")).await;
    child.on("new", async |ack: Ack| ack.send("new").unwrap());
    let c = answers(c, "new", Some("new")).await;
    child.off("e").off("new");
    let c = answers(c, "e", Some("parent's second")).await;
    let c = answers(c, "new", None).await;
    parent.off("e");
    let c = answers(c, "e", None).await;
    // Its own goes before, from then on.
    child.on("e", async |ack: Ack| ack.send("child").unwrap());
    child.sockets().remove(0).on("e", async |ack: Ack| ack.send("own").unwrap());
    let c = answers(c, "e", Some("own")).await;
    child.sockets().remove(0).off("e");
    drop(answers(c, "e", Some("child")).await);
}

#[tokio::test]
async fn a_failure_answers_the_acknowledgement_once_and_reaches_on_error() {
    let io = SocketIo::new();
    let gate = Arc::new(Notify::new());
    let log = Log::default();
    let (seen, waits) = (log.clone(), gate.clone());
    io.on("secret", async || Err::<(), _>("password 1234"))
        .on("told", async || Err(EventError::new("told").with_data([1, 2])))
        .on("ok", async || Ok::<(), String>(()))
        .on("panics", async |_ack: Ack| -> () { panic!("boom") })
        .on("number", async |Data(_): Data<u32>| {})
        .on("late", async |ack: Ack| {
            tokio::task::yield_now().await;
            drop(ack);
            Err::<(), _>("x")
        })
        .on("answered", async |ack: Ack| {
            ack.send(1).unwrap();
            Err::<(), _>("after the answer")
        })
        .on(
            "moved",
            with!([waits] (ack: Ack) => {
                tokio::spawn(async move {
                    waits.notified().await;
                    ack.send("too late").unwrap();
                });
                Err::<(), _>("first")
            }),
        )
        .on_error(move |error| seen.lock().push(format!("{}: {}", error.event, error.failure)));
    let addr = serve(&io).await;
    let mut c = client(move || {
        let mut c = Client::connect(addr, "/");
        let internal = "{\"error\":{\"message\":\"Internal error\"}}";
        for (n, event, answer) in [
            (0, "secret", internal),
            (1, "told", "{\"error\":{\"message\":\"told\",\"data\":[1,2]}}"),
            (2, "panics", internal),
            (3, "number", "{\"error\":{\"message\":\"Invalid arguments\"}}"),
            (4, "late", internal),
            (5, "answered", "1"),
            (6, "moved", internal),
        ] {
            c.send(&format!("42{n}[\"{event}\",\"x\"]"));
            c.expect(&format!("43{n}[{answer}]"));
        }
        // Nobody asked.
        c.send("42[\"told\"]");
        // Nobody answers.
        c.send("429[\"ok\"]");
        c
    })
    .await;
    gate.notify_one();
    client(move || {
        c.send("427[\"told\"]");
        c.expect("437[{\"error\":{\"message\":\"told\",\"data\":[1,2]}}]");
    })
    .await;
    let log = take(&log);
    assert_eq!(log.len(), 9, "{log:?}");
    assert_eq!(log[0], "secret: the handler failed: password 1234");
    assert_eq!(log[5], "answered: the handler failed: after the answer");
    let troubles = io.troubles();
    assert_eq!((troubles.handler_errors, troubles.bad_arguments, troubles.panics), (4, 1, 1));
    assert_eq!(troubles.rejected, 3);
}
