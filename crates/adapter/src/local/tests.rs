//! One bus, and raw sockets in the place of other workers: what they may do to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use sundew_socketio::adapter::{Adapter, AdapterError, BroadcastOptions, Operation, Request, Response};
use sundew_socketio::{Ack, Packet, SocketIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::answer::SOON_LIMIT;
use super::frame::{GREETING, read_frame, read_greeting};
use super::link::QUEUE_LIMIT;
use super::pending::ANSWER_LIMIT;
use super::wire::{self, Message};
use super::{LocalBus, PeerName};

const LONG: Duration = Duration::from_secs(60);

/// Another worker's end of a link.
struct Raw(UnixStream);

impl Raw {
    /// Links a new peer to the bus and greets.
    async fn join(bus: &LocalBus, slot: u16) -> Raw {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        bus.add_peer(PeerName { slot, generation: 1 }, theirs).unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut stream = UnixStream::from_std(ours).unwrap();
        stream.write_all(&GREETING).await.unwrap();
        read_greeting(&mut stream).await.unwrap();
        Raw(stream)
    }

    async fn recv(&mut self) -> Option<Message> {
        read_frame(&mut self.0).await.unwrap().map(|frame| wire::read(frame).unwrap())
    }

    async fn request(&mut self) -> u64 {
        match self.recv().await {
            Some(Message::Request { id, .. }) => id,
            other => panic!("no request: {other:?}"),
        }
    }

    async fn send(&mut self, frame: Result<Bytes, wire::WireError>) {
        self.0.write_all(&frame.unwrap()).await.unwrap();
    }
}

fn broadcast(json: &str, attachments: Vec<Bytes>) -> Operation {
    let packet = Packet::from_parts(json.to_owned(), attachments).unwrap();
    Operation::Broadcast {
        packet,
        opts: BroadcastOptions { rooms: vec!["r".into()], ..Default::default() },
        mark: None,
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(10), async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("never {what}"));
}

#[tokio::test]
async fn a_published_operation_reaches_all_with_its_binary_values() {
    let bus = LocalBus::new();
    let mut peers = [Raw::join(&bus, 0).await, Raw::join(&bus, 1).await, Raw::join(&bus, 2).await];
    assert_eq!(bus.server_count(), 4);
    let json = r#"["e",{"_placeholder":true,"num":0},"ü"]"#;
    let blob = Bytes::from((0..=255u8).cycle().take(300_000).collect::<Vec<_>>());
    let reading = async {
        for peer in &mut peers {
            let Some(Message::Operation { nsp, operation: Operation::Broadcast { packet, opts, .. } }) =
                peer.recv().await
            else {
                panic!("no broadcast")
            };
            assert_eq!((nsp.as_str(), opts.rooms.as_slice()), ("/ws", ["r".to_owned()].as_slice()));
            assert_eq!(
                (packet.json(), packet.attachments()),
                (json, [blob.clone(), Bytes::new()].as_slice())
            );
        }
    };
    bus.publish("/ws", &broadcast(json, vec![blob.clone(), Bytes::new()])).unwrap();
    reading.await;
}

#[tokio::test]
async fn a_request_ends_when_all_have_answered_or_are_gone() {
    let bus = LocalBus::new();
    let (mut first, mut second, mut third) =
        (Raw::join(&bus, 0).await, Raw::join(&bus, 1).await, Raw::join(&bus, 2).await);
    let mut answers = bus.request("/", Request::AllRooms, LONG);
    let id = first.request().await;
    first.send(wire::answer(id, Response::Clients(1))).await;
    first.send(wire::done(id)).await;
    assert_eq!(second.request().await, id);
    second.send(wire::answer(id, Response::Clients(2))).await;
    for _ in 0..2 {
        assert!(matches!(answers.next().await, Some(Ok(Response::Clients(1 | 2)))));
    }
    // The second dies in the middle of its answers, the third before its first.
    third.request().await;
    drop((second, third));
    assert!(answers.next().await.is_none());
    until("gone", || bus.peers() == [PeerName { slot: 0, generation: 1 }]).await;

    // Whoever is gone is not asked, and alone nobody is waited for.
    drop(first);
    until("alone", || bus.server_count() == 1).await;
    assert!(bus.request("/", Request::AllRooms, LONG).next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_nobody_answers_says_how_many_are_missing() {
    let bus = LocalBus::new();
    let (mut first, _second) = (Raw::join(&bus, 0).await, Raw::join(&bus, 1).await);
    let mut answers = bus.request("/", Request::AllRooms, Duration::from_secs(5));
    let id = first.request().await;
    first.send(wire::done(id)).await;
    match answers.next().await {
        Some(Err(AdapterError::Timeout { missing: 1, timeout })) => {
            assert_eq!(timeout, Duration::from_secs(5))
        }
        other => panic!("{other:?}"),
    }
    assert!(answers.next().await.is_none());
    // What comes too late harms nobody.
    first.send(wire::answer(id, Response::Clients(1))).await;
    first.send(wire::done(id)).await;
    assert_eq!(bus.peers().len(), 2);
}

#[tokio::test]
async fn a_request_may_wait_for_ever() {
    let bus = LocalBus::new();
    let io = SocketIo::builder().adapter(bus.clone()).build();
    io.on_server_event("soon", async |ack: Ack| ack.send("here").unwrap());
    let mut peer = Raw::join(&bus, 0).await;
    for timeout in [Duration::MAX, Duration::from_secs(u64::MAX / 4)] {
        let mut answers = bus.request("/", Request::AllRooms, timeout);
        let id = peer.request().await;
        peer.send(wire::answer(id, Response::Clients(1))).await;
        assert!(matches!(answers.next().await, Some(Ok(Response::Clients(1)))));
        assert!(answers.next().now_or_never().is_none());
        peer.send(wire::done(id)).await;
        assert!(answers.next().await.is_none());

        // And the other way round.
        peer.send(question("soon", id, timeout)).await;
        assert!(matches!(peer.recv().await, Some(Message::Answer { .. })));
        assert!(matches!(peer.recv().await, Some(Message::Done { .. })));
    }
}

#[tokio::test]
async fn answers_beyond_those_that_may_wait_end_the_request_with_an_error() {
    let bus = LocalBus::new();
    let (mut first, mut second) = (Raw::join(&bus, 0).await, Raw::join(&bus, 1).await);
    let mut answers = bus.request("/", Request::AllRooms, LONG);
    let id = first.request().await;
    second.request().await;
    first.send(wire::failed(id, "too tired")).await;
    assert!(matches!(answers.next().await, Some(Err(AdapterError::Failed(_)))));
    let frame = wire::answer(id, Response::Clients(1)).unwrap();
    for _ in 0..=ANSWER_LIMIT {
        second.send(Ok(frame.clone())).await;
    }
    // It may stop.
    assert!(matches!(second.recv().await, Some(Message::Cancel { id: cancelled }) if cancelled == id));
    for _ in 0..ANSWER_LIMIT {
        assert!(matches!(answers.next().await, Some(Ok(Response::Clients(1)))));
    }
    match answers.next().await {
        Some(Err(AdapterError::Failed(why))) => assert_eq!(why, "65536 of them were not read in time"),
        other => panic!("{other:?}"),
    }
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_peer_that_cannot_answer_is_an_error_at_once_and_the_others_answer() {
    let bus = LocalBus::new();
    let (mut first, mut second) = (Raw::join(&bus, 0).await, Raw::join(&bus, 1).await);
    let mut answers = bus.request("/", Request::AllRooms, LONG);
    let id = first.request().await;
    first.send(wire::failed(id, "too tired")).await;
    match answers.next().await {
        Some(Err(AdapterError::Failed(why))) => assert_eq!(why, "worker 0 (generation 1): too tired"),
        other => panic!("{other:?}"),
    }
    assert_eq!(second.request().await, id);
    second.send(wire::answer(id, Response::Clients(2))).await;
    second.send(wire::done(id)).await;
    assert!(matches!(answers.next().await, Some(Ok(Response::Clients(2)))));
    assert!(answers.next().await.is_none());
    // Said twice, or when nobody asks any more, it is nothing.
    first.send(wire::failed(id, "still")).await;
    assert!(matches!(bus.publish("/", &broadcast("[\"e\"]", vec![])), Ok(())));
    assert!(first.recv().await.is_some());
}

/// A server whose answer to another's event is long, and a worker that has not read what it was sent until there was no
/// room for more.
async fn answerer() -> (SocketIo, LocalBus, Raw) {
    let bus = LocalBus::new();
    let io = SocketIo::builder().adapter(bus.clone()).build();
    io.on_server_event("long", async |ack: Ack| ack.send("x".repeat(1 << 20)).unwrap());
    let peer = Raw::join(&bus, 0).await;
    while io.server_side_emit("none", "x".repeat(1 << 20)).is_ok() {}
    (io, bus, peer)
}

fn question(event: &str, id: u64, timeout: Duration) -> Result<Bytes, wire::WireError> {
    let packet = Packet::from_parts(format!("[\"{event}\"]"), Vec::new()).unwrap();
    wire::request(id, "/", Request::ServerSideEmit { packet }, timeout)
}

/// What comes behind what was published.
async fn answered(peer: &mut Raw) -> Message {
    loop {
        match peer.recv().await.expect("the link has ended") {
            Message::Operation { .. } => {}
            message => return message,
        }
    }
}

#[tokio::test]
async fn an_answer_waits_for_room() {
    let (_io, bus, mut peer) = answerer().await;
    let dropped = bus.dropped();
    peer.send(question("long", 1, LONG)).await;
    peer.send(question("long", 2, LONG)).await;
    let mut ended = Vec::new();
    while ended.len() < 2 {
        let Message::Answer { id, .. } = answered(&mut peer).await else { panic!("no answer") };
        match answered(&mut peer).await {
            Message::Done { id: done } if done == id => ended.push(id),
            // The other's came between them.
            Message::Answer { id: other, .. } => {
                for id in [id, other] {
                    assert!(matches!(answered(&mut peer).await, Message::Done { id: done } if done == id));
                    ended.push(id);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [1, 2]);
    assert_eq!(bus.dropped(), dropped);
}

#[tokio::test]
async fn an_answer_there_was_no_room_for_in_time_is_told_to_be_none() {
    let (_io, bus, mut peer) = answerer().await;
    let dropped = bus.dropped();
    peer.send(question("long", 1, Duration::from_millis(50))).await;
    until("given up", || bus.dropped() > dropped).await;
    let Message::Failed { id: 1, why } = answered(&mut peer).await else { panic!("not said to have failed") };
    assert!(why.contains("50ms"), "{why}");
}

#[tokio::test]
async fn too_many_requests_at_once_are_refused_at_once_and_a_cancelled_one_makes_room() {
    let bus = LocalBus::new();
    let io = SocketIo::builder().adapter(bus.clone()).max_server_events(2 * SOON_LIMIT).build();
    io.on_server_event("never", async |_ack: Ack| std::future::pending::<()>().await);
    io.on_server_event("soon", async |ack: Ack| ack.send("here").unwrap());
    let mut peer = Raw::join(&bus, 0).await;
    let most = SOON_LIMIT as u64;
    for id in 1..=most + 1 {
        peer.send(question("never", id, LONG)).await;
    }
    match peer.recv().await {
        Some(Message::Failed { id, why }) => {
            assert_eq!((id, &*why), (most + 1, "it answers too many requests at once already"))
        }
        other => panic!("{other:?}"),
    }
    peer.send(wire::cancel(1)).await;
    assert!(matches!(peer.recv().await, Some(Message::Failed { id: 1, .. })));
    // What was cancelled gives its place back a moment later.
    let answered = tokio::time::timeout(Duration::from_secs(10), async {
        for id in most + 2.. {
            peer.send(question("soon", id, LONG)).await;
            match peer.recv().await {
                Some(Message::Answer { id: answered, .. }) => return answered == id,
                Some(Message::Failed { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        false
    });
    assert!(answered.await.unwrap());
}

#[tokio::test]
async fn whoever_gives_up_says_so() {
    let bus = LocalBus::new();
    let (mut first, mut second) = (Raw::join(&bus, 0).await, Raw::join(&bus, 1).await);
    let mut answers = bus.request("/", Request::AllRooms, LONG);
    let id = first.request().await;
    assert_eq!(second.request().await, id);
    first.send(wire::answer(id, Response::Clients(1))).await;
    first.send(wire::done(id)).await;
    assert!(answers.next().await.is_some());
    until("done", || !bus.0.pending.is_waiting_for(PeerName { slot: 0, generation: 1 })).await;
    drop(answers);
    assert!(matches!(second.recv().await, Some(Message::Cancel { id: cancelled }) if cancelled == id));
    // The first has finished, and hears of the next thing only.
    bus.publish("/", &broadcast("[\"e\"]", vec![])).unwrap();
    assert!(matches!(first.recv().await, Some(Message::Operation { .. })));
}

#[tokio::test]
async fn a_peer_that_does_not_read_costs_its_bound_and_nobody_else() {
    let bus = LocalBus::new();
    let (mut slow, mut good) = (Raw::join(&bus, 7).await, Raw::join(&bus, 1).await);
    let blob = Bytes::from(vec![1; 1 << 20]);
    let mut refused = 0;
    let sent = 40;
    for number in 0..sent {
        match bus.publish("/", &broadcast(&format!("[\"e\",{number}]"), vec![blob.clone()])) {
            Ok(()) => {}
            Err(AdapterError::Full(who)) => {
                assert!(who.starts_with("worker 7"), "{who}");
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
        assert!(matches!(good.recv().await, Some(Message::Operation { .. })));
    }
    assert_eq!((bus.dropped(), Adapter::dropped(&bus)), (refused, refused));
    let kept = sent - refused;
    let fits = (QUEUE_LIMIT >> 20) as u64;
    assert!((fits - 1..=fits + 2).contains(&kept), "{kept} of {sent} were kept");

    // It gets the first ones, whole and in order, and then what is sent from now on.
    for number in 0..kept {
        let Some(Message::Operation { operation, .. }) = slow.recv().await else { panic!("no operation") };
        assert_eq!(operation.packet().unwrap().json(), format!("[\"e\",{number}]"));
    }
    bus.publish("/", &broadcast("[\"after\"]", vec![])).unwrap();
    let Some(Message::Operation { operation, .. }) = slow.recv().await else { panic!("no operation") };
    assert_eq!(operation.packet().unwrap().json(), "[\"after\"]");
}

/// A log that the app shows to other servers: of each line, it asks and tells them.
struct Shown {
    bus: LocalBus,
    lines: Arc<AtomicUsize>,
    busy: AtomicBool,
}

impl tracing::Subscriber for Shown {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        if self.busy.swap(true, Ordering::Relaxed) {
            return;
        }
        drop(self.bus.request("/", Request::AllRooms, LONG));
        let _ = self.bus.publish("/", &broadcast("[\"line\"]", vec![]));
        self.lines.fetch_add(1, Ordering::Relaxed);
        self.busy.store(false, Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_log_line_may_use_the_bus() {
    let (sender, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (bus, lines) = (LocalBus::new(), Arc::new(AtomicUsize::new(0)));
            let _slow = Raw::join(&bus, 0).await;
            let shown = Shown { bus: bus.clone(), lines: lines.clone(), busy: AtomicBool::new(false) };
            let _shown = tracing::subscriber::set_default(shown);
            let blob = Bytes::from(vec![1; 1 << 20]);
            while bus.dropped() == 0 {
                let packet = Packet::from_parts("[\"e\"]".to_owned(), vec![blob.clone()]).unwrap();
                drop(bus.request("/", Request::ServerSideEmit { packet }, LONG));
            }
            until("told", || lines.load(Ordering::Relaxed) > 0).await;
        });
        sender.send(()).unwrap();
    });
    done.recv_timeout(Duration::from_secs(20)).expect("it waits for itself");
}

#[tokio::test]
async fn a_peer_of_another_version_or_with_broken_frames_is_cut_off() {
    for first in [b"sundewb\x09\x04\0\0\0".as_slice(), b"sundewb\x01\xff\xff\xff\xff"] {
        let bus = LocalBus::new();
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        bus.add_peer(PeerName { slot: 0, generation: 1 }, theirs).unwrap();
        std::io::Write::write_all(&mut ours, first).unwrap();
        until("cut off", || bus.peers().is_empty()).await;
    }
    // A head nobody understands is one message lost, not the link.
    let bus = LocalBus::new();
    let mut peer = Raw::join(&bus, 0).await;
    peer.send(Ok(super::frame::encode(b"{\"sing\":{}}", &[]).unwrap())).await;
    bus.publish("/", &broadcast("[\"e\"]", vec![])).unwrap();
    assert!(peer.recv().await.is_some());
    assert_eq!(bus.peers().len(), 1);
}

#[tokio::test]
async fn closing_sends_what_is_queued_first() {
    let bus = LocalBus::new();
    let mut peer = Raw::join(&bus, 0).await;
    for _ in 0..3 {
        bus.publish("/", &broadcast("[\"e\"]", vec![Bytes::from(vec![0; 400_000])])).unwrap();
    }
    bus.close();
    for _ in 0..3 {
        assert!(matches!(peer.recv().await, Some(Message::Operation { .. })));
    }
    assert!(peer.recv().await.is_none());
    assert_eq!(peer.0.read(&mut [0]).await.unwrap(), 0);
}
