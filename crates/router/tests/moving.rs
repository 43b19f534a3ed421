//! A session that follows its websocket here, step by step, and what happens when a step fails.

#![allow(clippy::unwrap_used)]

mod support;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sundew_channel::tag::{self, Tag};
use sundew_router::{
    Arrival, Backend, BackendId, Front, HandOff, Leg, Listening, Mover, Moving, Node, Serve,
};
use support::{KEY, config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(10);

/// What the worker here says to an import.
#[derive(Debug, Clone, Copy)]
enum Says {
    Yes,
    No,
    Nothing,
}

/// The worker here.
struct Home {
    says: Mutex<Says>,
    imported: Mutex<Vec<Vec<u8>>>,
    /// What it is given: a connection, or that none will come.
    attached: mpsc::UnboundedSender<Option<OwnedFd>>,
}

impl Backend for Home {
    fn id(&self) -> BackendId {
        BackendId { slot: 0, generation: 0 }
    }
    fn hand_over(&self, connection: HandOff) -> Result<(), HandOff> {
        Err(connection)
    }
    fn open_leg(&self) -> io::Result<Leg> {
        Err(io::ErrorKind::NotConnected.into())
    }
    fn import(self: Arc<Self>, state: Vec<u8>) -> Moving<Result<Arrival, String>> {
        self.imported.lock().unwrap().push(state);
        let says = *self.says.lock().unwrap();
        let attached = self.attached.clone();
        let arrival = Arrival::new(move |socket| {
            attached.send(socket).unwrap();
            Ok(())
        });
        Box::pin(async move {
            match says {
                Says::Yes => Ok(arrival),
                Says::No => Err("no".to_owned()),
                Says::Nothing => std::future::pending().await,
            }
        })
    }
    fn sessions(&self) -> u32 {
        0
    }
    fn placements_seen(&self) -> u64 {
        0
    }
}

type Answer = oneshot::Sender<Option<Vec<u8>>>;

/// The way to the other node, whose end the test holds.
struct Away {
    legs: mpsc::UnboundedSender<UnixStream>,
    asker: Arc<Asker>,
}

#[derive(Debug)]
struct Asker {
    asked: mpsc::UnboundedSender<(String, Answer)>,
    settled: mpsc::UnboundedSender<bool>,
}

impl Node for Away {
    fn open_leg(&self) -> io::Result<Leg> {
        let (ours, theirs) = UnixStream::pair()?;
        self.legs.send(theirs).unwrap();
        Ok(Leg::Node(ours, self.asker.clone()))
    }
}

impl Mover for Asker {
    fn quiet(&self) -> Duration {
        Duration::from_millis(20)
    }
    fn patience(&self) -> Duration {
        PATIENCE
    }
    fn take(&self, sid: &str) -> Moving<Option<Vec<u8>>> {
        let (answer, state) = oneshot::channel();
        self.asked.send((sid.to_owned(), answer)).unwrap();
        Box::pin(async move { state.await.ok().flatten() })
    }
    fn settle(&self, moved: bool) {
        self.settled.send(moved).unwrap();
    }
}

/// A websocket that is relayed, from all sides.
struct Scene {
    front: Front,
    home: Arc<Home>,
    client: TcpStream,
    /// The other node's end.
    away: UnixStream,
    sid: String,
    asked: mpsc::UnboundedReceiver<(String, Answer)>,
    settled: mpsc::UnboundedReceiver<bool>,
    attached: mpsc::UnboundedReceiver<Option<OwnedFd>>,
    _listener: sundew_router::ListenerHandle,
}

impl Scene {
    async fn new() -> Self {
        let front = Front::new(config());
        let listening = Listening::Tcp(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let listener = front.listen(listening, Serve::Http).unwrap();
        let (attach, attached) = mpsc::unbounded_channel();
        let home = Home { says: Mutex::new(Says::Yes), imported: Mutex::default(), attached: attach };
        let home = Arc::new(home);
        front.add(home.clone());
        let ((legs, mut opened), (ask, asked), (settle, settled)) =
            (mpsc::unbounded_channel(), mpsc::unbounded_channel(), mpsc::unbounded_channel());
        front.add_node(1, Arc::new(Away { legs, asker: Arc::new(Asker { asked: ask, settled: settle }) }));
        let sid = tag::new_sid(&KEY, Tag { node: 1, slot: 0, generation: 0 });
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket&sid={sid} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let mut away = timeout(LONG, opened.recv()).await.unwrap().unwrap();
        let head = read_to(&mut away, b"\r\n\r\n").await;
        assert!(head.contains(&sid), "{head}");
        away.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await
        .unwrap();
        read_to(&mut client, b"\r\n\r\n").await;
        Self { front, home, client, away, sid, asked, settled, attached, _listener: listener }
    }

    async fn asked(&mut self) -> Answer {
        let (sid, answer) = timeout(LONG, self.asked.recv()).await.unwrap().unwrap();
        assert_eq!(sid, self.sid);
        answer
    }

    async fn settled(&mut self) -> bool {
        timeout(LONG, self.settled.recv()).await.unwrap().unwrap()
    }

    async fn attached(&mut self) -> Option<OwnedFd> {
        timeout(LONG, self.attached.recv()).await.unwrap().unwrap()
    }

    /// The relay carries both ways.
    async fn carries(&mut self) {
        self.client.write_all(b"there").await.unwrap();
        assert_eq!(read_to(&mut self.away, b"there").await, "there");
        self.away.write_all(b"back").await.unwrap();
        assert_eq!(read_to(&mut self.client, b"back").await, "back");
    }

    fn moved(&self) -> u64 {
        self.front.stats().moved
    }
}

async fn read_to(stream: &mut (impl AsyncReadExt + Unpin), end: &[u8]) -> String {
    let mut got = Vec::new();
    let reading = async {
        while !got.ends_with(end) {
            let length = stream.read_buf(&mut got).await.unwrap();
            assert!(length > 0, "ended after {:?}", String::from_utf8_lossy(&got));
        }
    };
    timeout(LONG, reading).await.unwrap();
    String::from_utf8(got).unwrap()
}

#[tokio::test]
async fn the_session_comes_and_its_worker_gets_the_connection() {
    let mut scene = Scene::new().await;
    scene.carries().await;
    let answer = scene.asked().await;
    // Said before it was frozen; and the client, which is not read from meanwhile, says something more.
    scene.away.write_all(b"last;").await.unwrap();
    scene.client.write_all(b"more").await.unwrap();
    answer.send(Some(b"the session".to_vec())).unwrap();
    assert!(scene.settled().await);
    assert_eq!(*scene.home.imported.lock().unwrap(), [b"the session"]);
    // Queued meanwhile, in two pieces; then it is let go of.
    scene.away.write_all(b"queued").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(scene.attached.try_recv().is_err(), "the other node has not said everything");
    scene.away.write_all(b" too;").await.unwrap();
    let mut nothing = [0; 8];
    assert!(
        timeout(Duration::from_millis(20), scene.away.read(&mut nothing)).await.is_err(),
        "the client's words are for the worker here now"
    );
    drop(scene.away);
    let socket = timeout(LONG, scene.attached.recv()).await.unwrap().unwrap().unwrap();
    let mut worker = TcpStream::from_std(std::net::TcpStream::from(socket)).unwrap();
    worker.write_all(b"here").await.unwrap();
    assert_eq!(read_to(&mut scene.client, b"here").await, "last;queued too;here");
    assert_eq!(read_to(&mut worker, b"more").await, "more");
    drop(worker);
    // Nothing of it is held here.
    assert_eq!(scene.client.read(&mut nothing).await.unwrap(), 0);
    assert_eq!(scene.front.stats().moved, 1);
}

#[tokio::test]
async fn one_that_stays_is_asked_again_later() {
    let mut scene = Scene::new().await;
    for _ in 0..2 {
        scene.asked().await.send(None).unwrap();
        assert!(!scene.settled().await);
        scene.carries().await;
    }
    scene.asked().await.send(Some(Vec::new())).unwrap();
    assert!(scene.settled().await);
    assert_eq!(scene.home.imported.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_nobody_answers_goes_on_as_before() {
    let mut scene = Scene::new().await;
    let _unanswered = scene.asked().await;
    scene.client.write_all(b"meanwhile;").await.unwrap();
    assert!(!scene.settled().await);
    assert_eq!(read_to(&mut scene.away, b"meanwhile;").await, "meanwhile;");
    scene.carries().await;

    for says in [Says::No, Says::Nothing] {
        *scene.home.says.lock().unwrap() = says;
        scene.asked().await.send(Some(Vec::new())).unwrap();
        assert!(!scene.settled().await, "{says:?}");
        assert!(scene.attached().await.is_none(), "what was taken is forgotten");
        scene.carries().await;
    }
    assert_eq!(scene.moved(), 0);
}

#[tokio::test]
async fn nobody_asks_while_something_is_on_its_way() {
    let mut scene = Scene::new().await;
    // More than the sockets hold, for a client that does not read.
    let flood = vec![b'x'; 16 << 20];
    let (mut reader, mut writer) = scene.away.into_split();
    let writing = tokio::spawn(async move {
        writer.write_all(&flood).await.unwrap();
        writer
    });
    if let Ok(Some((_, answer))) = timeout(Duration::from_millis(200), scene.asked.recv()).await {
        // The first time came before it.
        answer.send(None).unwrap();
        assert!(!scene.settled.recv().await.unwrap());
    }
    assert!(timeout(Duration::from_millis(300), scene.asked.recv()).await.is_err());
    let mut got = vec![0; 16 << 20];
    timeout(LONG, scene.client.read_exact(&mut got)).await.unwrap().unwrap();
    assert!(got.iter().all(|byte| *byte == b'x'));
    let _writer = writing.await.unwrap();
    timeout(LONG, scene.asked.recv()).await.unwrap().unwrap().1.send(None).unwrap();
    scene.client.write_all(b"there").await.unwrap();
    assert_eq!(read_to(&mut reader, b"there").await, "there");
}

#[tokio::test]
async fn a_node_that_dies_before_takes_its_session_along() {
    let mut scene = Scene::new().await;
    let answer = scene.asked().await;
    scene.front.lost_node(1);
    answer.send(Some(Vec::new())).unwrap();
    assert!(!scene.settled().await);
    assert_eq!(timeout(LONG, scene.client.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    assert!(scene.home.imported.lock().unwrap().is_empty());
}

#[tokio::test]
async fn once_it_has_moved_the_other_node_may_die() {
    let mut scene = Scene::new().await;
    scene.asked().await.send(Some(Vec::new())).unwrap();
    assert!(scene.settled().await);
    scene.front.lost_node(1);
    let socket = scene.attached().await.unwrap();
    let mut worker = TcpStream::from_std(std::net::TcpStream::from(socket)).unwrap();
    worker.write_all(b"here").await.unwrap();
    assert_eq!(read_to(&mut scene.client, b"here").await, "here");
}

#[tokio::test]
async fn one_whose_last_words_do_not_come_is_lost_and_its_client_hears_that() {
    let mut scene = Scene::new().await;
    scene.asked().await.send(Some(Vec::new())).unwrap();
    assert!(scene.settled().await);
    // Half a frame, perhaps: it must not be followed by another worker's.
    scene.away.write_all(b"ha").await.unwrap();
    assert!(scene.attached().await.is_none());
    assert_eq!(read_to(&mut scene.client, b"ha").await, "ha");
    assert_eq!(timeout(LONG, scene.client.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    assert_eq!(scene.moved(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_meanwhile_takes_its_session_along() {
    let mut scene = Scene::new().await;
    let answer = scene.asked().await;
    drop(scene.client);
    answer.send(Some(Vec::new())).unwrap();
    // Its connection says so to whoever has it.
    match timeout(LONG, scene.settled.recv()).await.unwrap().unwrap() {
        true => {
            drop(scene.away);
            let socket = timeout(LONG, scene.attached.recv()).await.unwrap().unwrap().unwrap();
            let mut worker = TcpStream::from_std(std::net::TcpStream::from(socket)).unwrap();
            assert_eq!(worker.read(&mut [0; 8]).await.unwrap(), 0);
        }
        false => assert_eq!(scene.away.read(&mut [0; 8]).await.unwrap(), 0),
    }
}
