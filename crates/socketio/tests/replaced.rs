//! Handlers that are replaced or taken back: what they hold may call the namespace or the socket when it is dropped, which
//! must not wait for itself.

#![allow(clippy::unwrap_used)]

mod support;

use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use sundew_socketio::{Ack, Namespace, Socket, SocketIo};
use support::{Client, PATIENCE, serve};
use tokio::runtime::Runtime;

/// What a handler holds: calls back when it is dropped.
struct Held(Box<dyn Fn() + Send + Sync>);

impl Drop for Held {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn holding(held: Held) -> impl Fn() -> Ready<()> + Send + Sync + 'static {
    move || {
        let _ = &held;
        ready(())
    }
}

fn nothing() -> impl Fn() -> Ready<()> + Send + Sync + 'static {
    || ready(())
}

/// Runs in a thread of its own, runtime and all, and says what begins: if that never ends, the test fails all the same.
fn ends(run: impl FnOnce(Sender<&'static str>) + Send + 'static) {
    let (sender, began) = channel();
    let thread = std::thread::spawn(move || run(sender));
    let mut last = "the beginning";
    loop {
        match began.recv_timeout(PATIENCE) {
            Ok(name) => last = name,
            Err(RecvTimeoutError::Timeout) => panic!("it waits for itself: {last}"),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    thread.join().unwrap();
}

fn server(io: &SocketIo) -> (Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let addr = runtime.block_on(serve(io));
    (runtime, addr)
}

/// How a handler is set, and how it goes.
type Case<T> = (&'static str, fn(&T, Held), fn(&T));

macro_rules! cases {
    (|$of:ident, $held:ident| $($name:literal: $set:expr => $take:expr,)*) => {
        &[$(($name, |$of, $held| { $set; }, |$of| { $take; })),*]
    };
}

fn each<T: Clone + Send + Sync + 'static>(
    of: &T,
    cases: &[Case<T>],
    back: fn(&T),
    began: &Sender<&'static str>,
) {
    for &(name, set, take) in cases {
        began.send(name).unwrap();
        let dropped = Arc::new(AtomicUsize::new(0));
        let (count, this) = (dropped.clone(), of.clone());
        set(
            of,
            Held(Box::new(move || {
                back(&this);
                count.fetch_add(1, Ordering::Relaxed);
            })),
        );
        assert_eq!(dropped.load(Ordering::Relaxed), 0, "{name}");
        take(of);
        assert_eq!(dropped.load(Ordering::Relaxed), 1, "{name}");
    }
}

#[test]
fn what_handlers_of_a_namespace_hold_may_call_it() {
    let cases: &[Case<Namespace>] = cases! { |of, held|
        "on": of.on("e", holding(held)) => of.on("e", nothing()),
        "off": of.on("f", holding(held)) => of.off("f"),
        "on_connect": of.on_connect(holding(held)) => of.on_connect(nothing()),
        "on_fallback": of.on_fallback(holding(held)) => of.on_fallback(nothing()),
        "off_any": of.on_any(holding(held)) => of.off_any(),
        "off_any_outgoing": of.on_any_outgoing(move |_, _, _| { let _ = &held; }) => of.off_any_outgoing(),
        "on_disconnecting": of.on_disconnecting(holding(held)) => of.on_disconnecting(nothing()),
        "on_disconnect": of.on_disconnect(holding(held)) => of.on_disconnect(nothing()),
        "on_error": of.on_error(move |_| { let _ = &held; }) => of.on_error(|_| ()),
        "on_slow": of.on_slow(move |_, _| { let _ = &held; }) => of.on_slow(|_, _| ()),
        "on_arrive": of.on_arrive(holding(held)) => of.on_arrive(nothing()),
        "on_server_event": of.on_server_event("e", holding(held)) => of.on_server_event("e", nothing()),
        "off_server_event": of.on_server_event("f", holding(held)) => of.off_server_event("f"),
    };
    ends(move |began| {
        let io = SocketIo::new();
        // Sending looks for those who hear of it.
        io.on_any_outgoing(|_, _, _| ());
        let back = |namespace: &Namespace| {
            namespace.off("back").emit("back", ());
        };
        each(&*io, cases, back, &began);
    });
}

#[test]
fn what_handlers_of_a_socket_hold_may_call_it() {
    let cases: &[Case<Socket>] = cases! { |of, held|
        "on": of.on("e", holding(held)) => of.on("e", nothing()),
        "once": of.once("e", holding(held)) => of.once("e", nothing()),
        "off": of.on("f", holding(held)) => of.off("f"),
        "off_any": of.on_any(holding(held)) => of.off_any(),
        "off_any_outgoing": of.on_any_outgoing(move |_, _, _| { let _ = &held; }) => of.off_any_outgoing(),
        "on_disconnecting": of.on_disconnecting(holding(held)) => of.on_disconnecting(nothing()),
        "on_disconnect": of.on_disconnect(holding(held)) => of.on_disconnect(nothing()),
    };
    ends(move |began| {
        let io = SocketIo::new();
        let (_runtime, addr) = server(&io);
        let _client = Client::connect(addr, "/");
        let socket = io.sockets().remove(0);
        socket.on_any_outgoing(|_, _, _| ());
        let back = |socket: &Socket| {
            socket.off("back");
            socket.emit("back", ()).unwrap();
        };
        each(&socket, cases, back, &began);
    });
}

/// A connection remembers the handlers it has found: the last to hold one that was taken back.
#[test]
fn what_a_handler_that_a_connection_remembers_holds_may_call_its_namespace() {
    ends(|began| {
        let io = SocketIo::new();
        let dropped = Arc::new(AtomicUsize::new(0));
        let (count, namespace) = (dropped.clone(), (*io).clone());
        let held = Held(Box::new(move || {
            namespace.off("back");
            count.fetch_add(1, Ordering::Relaxed);
        }));
        let answer = |ack: Ack| {
            ack.send(1).unwrap();
            ready(())
        };
        io.on("other", answer).on("e", move |ack: Ack| {
            let _ = &held;
            answer(ack)
        });
        let (_runtime, addr) = server(&io);
        let mut c = Client::connect(addr, "/");
        c.send("420[\"e\"]");
        c.expect("430[1]");
        io.off("e");
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        began.send("the next event").unwrap();
        c.send("421[\"other\"]");
        c.expect("431[1]");
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}
