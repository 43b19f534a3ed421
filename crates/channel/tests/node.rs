//! The channel against real Node: what it says is not documented anywhere, so only Node can tell whether we have it
//! right. Other versions: `SUNDEW_TEST_NODE=/path/to/node`.

mod node_support;

use std::os::fd::OwnedFd;

use node_support::{Door, PORT, Worker, node};
use sundew_channel::node::{
    AddressType, FromWorker, Handed, Limits, Query, Serialization, SockName, ToWorker, WhyNot,
};

const BOTH: [Serialization; 2] = [Serialization::Advanced, Serialization::Json];

/// Answers with the client's port and the path: proof of whose connection it is.
const HTTP: &str = "
    const server = require('http').createServer((req, res) => {
        res.setHeader('Content-Length', Buffer.byteLength(req.socket.remotePort + req.url));
        res.end(req.socket.remotePort + req.url);
    });
";

fn http(rest: &str) -> String {
    format!("{HTTP}\n{rest}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmodified_server_gets_its_connections_from_us() {
    let Some(node) = node() else { return };
    for serialization in BOTH {
        let script = http(
            "server.listen(0, () => {
            if (server.address().port !== 4242) throw new Error('port ' + server.address().port);
            process.send('ready');
        })",
        );
        let mut worker = Worker::start(&node, serialization, &script);
        worker.expect(FromWorker::Online).await;
        let Some(FromWorker::QueryServer { seq, query }) = worker.recv().await else { panic!("no query") };
        let asked = Query {
            address: None,
            port: Some(0),
            address_type: AddressType::Tcp4,
            fd: None,
            index: 0,
            backlog: query.backlog,
            ticket_keys: None,
            data_given: false,
            flags: 0,
        };
        assert_eq!(query, asked);
        let key = query.key();
        assert_eq!(key, "null:0:4:null:0");
        let sockname = Some(SockName { address: "::".into(), port: PORT, ipv6: true });
        worker.send(ToWorker::Bound { ack: seq, key: key.clone(), sockname, ticket_keys: None });
        let listening = FromWorker::Listening(Query { port: Some(PORT.into()), ..asked });
        // In either order, by version.
        let told = [worker.recv().await.unwrap(), worker.recv().await.unwrap()];
        assert!(told.contains(&listening) && told.contains(&FromWorker::Ready), "{told:?}");

        let door = Door::open();
        for seq in [7, 8] {
            let (mut client, fd) = door.connect();
            client.ask("/hello");
            let expected = format!("{}/hello", client.address().port());
            worker.hand(&key, seq, fd);
            worker.expect(FromWorker::HandleAck { seq: Some(seq) }).await;
            worker.expect(FromWorker::Accepted { seq, accepted: true }).await;
            assert_eq!(client.answer().await, expected);
            worker.send(ToWorker::Ping);
            worker.expect(FromWorker::HandleNack { seq: None }).await;
            assert_eq!(worker.channel.unanswered_since(), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_still_whole_for_another_worker() {
    let Some(node) = node() else { return };
    let script = http("server.maxConnections = 1; server.listen(8080, () => process.send('ready'))");
    let mut full = Worker::start(&node, Serialization::Advanced, &script);
    let mut other = Worker::start(&node, Serialization::Advanced, &script);
    // The port must be the one asked for.
    let mut keys = Vec::new();
    for worker in [&mut full, &mut other] {
        let (ack, query) = worker.query().await;
        assert_eq!(query.port, Some(8080));
        let sockname = Some(SockName { address: "::".into(), port: 8080, ipv6: true });
        worker.send(ToWorker::Bound { ack, key: query.key(), sockname, ticket_keys: None });
        worker.find(|message| (*message == FromWorker::Ready).then_some(())).await;
        keys.push(query.key());
    }
    let door = Door::open();
    let (_first, fd) = door.connect();
    full.hand(&keys[0], 1, fd);
    let (mut second, fd) = door.connect();
    let copy: OwnedFd = fd.try_clone().unwrap();
    full.hand(&keys[0], 2, fd);
    let accepted = |message: &FromWorker| match message {
        FromWorker::Accepted { seq, accepted } => Some((*seq, *accepted)),
        _ => None,
    };
    assert_eq!(full.find(accepted).await, (1, true));
    assert_eq!(full.find(accepted).await, (2, false));
    other.hand(&keys[1], 2, copy);
    assert_eq!(other.find(accepted).await, (2, true));
    second.ask("/again");
    assert_eq!(second.answer().await.split_once('/').unwrap().1, "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn listen_can_be_refused_also_for_tls_and_goes_on_afterwards() {
    let Some(node) = node() else { return };
    for serialization in BOTH {
        let script = "
            const https = require('https');
            const server = https.createServer({});
            server.on('error', (error) => {
                if (error.code !== 'EADDRINUSE') throw error;
                const next = https.createServer({});
                next.listen('/nowhere/päth 🦔.sock', () => {
                    if (next.getTicketKeys().toString('hex') !== 'ab'.repeat(48)) throw new Error('other keys');
                    next.close();
                });
            });
            server.listen(8443, '127.0.0.1');
        ";
        let mut worker = Worker::start(&node, serialization, script);
        let (ack, query) = worker.query().await;
        assert_eq!((query.address.as_deref(), query.port), (Some("127.0.0.1"), Some(8443)));
        let ticket_keys = query.ticket_keys.clone();
        assert!(query.data_given);
        assert_eq!(ticket_keys.as_deref().map(str::len), Some(96));
        worker.send(ToWorker::Refused { ack, errno: -98, key: query.key(), ticket_keys });
        let (ack, query) = worker.query().await;
        assert_eq!(query.address.as_deref(), Some("/nowhere/päth 🦔.sock"));
        assert_eq!((query.port, query.address_type.clone()), (Some(-1), AddressType::Pipe));
        let key = query.key();
        let ticket_keys = Some("ab".repeat(48));
        worker.send(ToWorker::Bound { ack, key: key.clone(), sockname: None, ticket_keys });
        let closed = worker.find(|message| match message {
            FromWorker::Close { key } => Some(key.clone()),
            _ => None,
        });
        assert_eq!(closed.await, key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_app_sends_no_message_after_it_is_lost() {
    let Some(node) = node() else { return };
    for serialization in BOTH {
        let script = format!(
            "const advanced = {};
            const deep = (levels) => {{ let value = 1; while (levels--) value = {{ value }}; return value; }};
            const cyclic = {{ name: 'cyclic' }}; cyclic.self = cyclic;
            const sparse = [1, , 3]; sparse[1000] = 4; sparse.name = 'sparse';
            const shared = Buffer.from('shared');
            class Own {{ constructor() {{ this.a = 1; }} }}
            const values = [
                1, -1, 2 ** 31, -(2 ** 31), 2 ** 40, 1.5, NaN, true, null, 'text', 'grün', 'ẞ🦔 two bytes', '',
                'x'.repeat(300000), {{}}, [], [[[]]], [1, 'a', null, undefined], {{ 1: 2, '-1': 3, ü: {{ '🦔': 1 }} }},
                new Date(), Buffer.alloc(200000, 7), new Float64Array([1, 2]), [shared, shared], deep(400), new Own(),
                {{ cmd: 5, act: [], seq: 'x' }}, {{ cmd: 'NODE_CLUSTER', act: 'future', data: [1] }},
                {{ cmd: 'NODE_CLUSTER' }}, {{ cmd: 'NODE_SUNDEW', act: 1 }}, {{ source: '_sio_adapter', type: 'x' }},
                {{ data: {{ workerId: {{ a: 1 }}, ticketKeys: [1] }} }},
            ];
            if (advanced) values.push(
                new Map([['a', new Map()], [{{}}, new Set([1, [2]])]]), new Set(), 10n, -(2n ** 200n), 0n, cyclic, sparse,
                /r[eä]g/giu, new Error('bad'), new TypeError('wörse', {{ cause: new Error('inner') }}),
                new Error('c', {{ cause: Buffer.from('x') }}), Object(1), Object('s'), Object(true), Object(3n),
                new ArrayBuffer(5), [new ArrayBuffer(5), new DataView(new ArrayBuffer(9), 1, 3)], deep(2000), undefined,
                [, ,], [undefined, , null],
            );
            for (const value of values) {{
                process.send({{ value }});
                // These two Node refuses itself.
                if (value !== undefined && typeof value !== 'bigint') process.send(value);
            }}
            process.send('ready');
            setInterval(() => {{}}, 1000);",
            serialization == Serialization::Advanced
        );
        let mut worker = Worker::start(&node, serialization, &script);
        worker.expect(FromWorker::Online).await;
        let mut others = 0;
        loop {
            match worker.recv().await {
                Some(FromWorker::Other) => others += 1,
                Some(FromWorker::Ready) => break,
                unexpected => panic!("{unexpected:?} after {others}"),
            }
        }
        assert!(others > 60, "{others}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn adapter_messages_are_relayed_as_they_are() {
    let Some(node) = node() else { return };
    for serialization in BOTH {
        let advanced = serialization == Serialization::Advanced;
        let common = format!(
            "const assert = require('assert');
            const data = () => ({{
                text: 'Grüße 🦔', latin: 'ü'.repeat(1000), nested: [{{ a: [1, 2.5, -3] }}],
                {}
            }});",
            if advanced {
                "bytes: Buffer.alloc(200000, 7), map: new Map([['a', new Uint8Array([1, 2])]]), set: new Set([1n])"
            } else {
                "long: 'x'.repeat(200000)"
            }
        );
        let sender = format!(
            "{common}
            process.send({{ type: 4, data: data(), uid: 'me', nsp: '/', source: '_sio_adapter' }});
            process.send({{ source: '_sio_adapter', type: 8, requesterUid: 'ü🦔', data: data(), uid: 'me' }});
            process.send({{ source: '_sio_adapter', type: 9, data: {{ sockets: [data()], requestId: 'r', workerId: 12 }} }});
            process.send({{ source: '_sio_adapter', type: 8, data: {{ requestId: 'r', workerId: 12 }} }});
            setInterval(() => {{}}, 1000);"
        );
        let receiver = format!(
            "{common}
            process.on('message', (message) => {{
                assert.deepStrictEqual(message.data, data());
                process.send({{ source: '_sio_adapter', type: 100, uid: message.nsp }});
            }});"
        );
        let mut sender = Worker::start(&node, serialization, &sender);
        let mut receiver = Worker::start(&node, serialization, &receiver);
        receiver.expect(FromWorker::Online).await;
        sender.expect(FromWorker::Online).await;
        let mut heard = Vec::new();
        for _ in 0..4 {
            let Some(FromWorker::Adapter { kind, uid, requester, frame, .. }) = sender.recv().await else {
                panic!("not an adapter's message");
            };
            if heard.is_empty() {
                assert!(frame.len() > 200_000);
                receiver.send(ToWorker::Relay(frame));
            }
            heard.push((kind, uid, requester));
        }
        use sundew_channel::node::Requester;
        assert_eq!(
            heard,
            [
                (4, Some("me".into()), None),
                (8, Some("me".into()), Some(Requester::Uid("ü🦔".into()))),
                (9, None, Some(Requester::Worker(12))),
                (8, None, None),
            ]
        );
        let got = receiver.find(|message| match message {
            FromWorker::Adapter { kind: 100, uid, .. } => Some(uid.clone()),
            other => panic!("{other:?}"),
        });
        assert_eq!(got.await.as_deref(), Some("/"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_from_a_worker_is_closed_and_confirmed() {
    let Some(node) = node() else { return };
    for serialization in BOTH {
        // The second one is only sent once the first was confirmed, and so is every message behind them.
        let script = "
            const server = require('net').createServer({ pauseOnConnect: true }, (socket) => {
                process.send({ padding: 'x'.repeat(100000) }, socket);
                process.send({ data: [1] });
                if (server.second) process.send('ready');
                server.second = true;
            });
            server.listen(0, () => process.send('ready'));
        ";
        let mut worker = Worker::start(&node, serialization, script);
        let key = worker.serve().await;
        let door = Door::open();
        let (first, fd) = door.connect();
        worker.hand(&key, 1, fd);
        let (second, fd) = door.connect();
        worker.hand(&key, 2, fd);
        let mut handles = 0;
        loop {
            match worker.recv().await {
                Some(FromWorker::Handle) => handles += 1,
                Some(FromWorker::Ready) => break,
                Some(_) => {}
                None => panic!("ended"),
            }
        }
        assert_eq!(handles, 2);
        // Nobody holds them any more.
        assert_eq!(first.answer().await, "");
        assert_eq!(second.answer().await, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_long_is_skipped_and_a_descriptor_with_it_confirmed() {
    let Some(node) = node() else { return };
    for serialization in BOTH {
        let script = "
            const server = require('net').createServer({ pauseOnConnect: true }, (socket) => {
                process.send({ padding: 'x'.repeat(3000000) }, socket);
                process.send({ padding: 'y'.repeat(3000000) });
                process.send('ready');
            });
            server.listen(0, () => process.send('ready'));
        ";
        let limits = Limits { message_bytes: 100_000, ..Limits::default() };
        let mut worker = Worker::start_with(&node, serialization, limits, script);
        let key = worker.serve().await;
        let (client, fd) = Door::open().connect();
        worker.hand(&key, 1, fd);
        let mut sizes = Vec::new();
        loop {
            match worker.recv().await {
                Some(FromWorker::TooLong { bytes }) => sizes.push(bytes),
                Some(FromWorker::Ready) => break,
                Some(_) => {}
                None => panic!("ended"),
            }
        }
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|size| (3_000_000..3_001_000).contains(size)), "{sizes:?}");
        assert_eq!(client.answer().await, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_can_leave_in_order() {
    let Some(node) = node() else { return };
    for serialization in BOTH {
        let script = http(
            "server.listen(0, () => process.send('ready'));
            process.on('message', (message) => {
                if (message === 'shutdown') require('cluster').worker.disconnect();
            });",
        );
        let mut worker = Worker::start(&node, serialization, &script);
        let key = worker.serve().await;
        worker.send(ToWorker::Shutdown);
        worker.expect(FromWorker::Close { key }).await;
        let Some(FromWorker::ExitedAfterDisconnect { seq }) = worker.recv().await else { panic!("not said") };
        worker.send(ToWorker::Ack { ack: seq });
        assert_eq!(worker.recv().await, None);
        assert!(worker.child.wait().unwrap().success());
        assert!(worker.channel.is_closed());
        let refused = worker.channel.send(ToWorker::Shutdown).unwrap_err();
        assert_eq!(refused.why, WhyNot::Closed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listening_descriptors_can_be_shared() {
    let Some(node) = node() else { return };
    let script = http(
        "
        const socket = require('dgram').createSocket('udp4');
        socket.on('message', (text, from) => socket.send('udp ' + text, from.port, from.address));
        socket.bind(0, '127.0.0.1', () => server.listen(0, '127.0.0.1', () => process.send('ready')));
    ",
    );
    let mut worker = Worker::start(&node, Serialization::Advanced, &script);
    let (ack, query) = worker.query().await;
    assert_eq!(query.address_type, AddressType::Udp4);
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_nonblocking(true).unwrap();
    let udp_address = udp.local_addr().unwrap();
    let key = query.key();
    worker.send(ToWorker::Shared { ack, key, fd: udp.into(), udp: true, sockname: None, ticket_keys: None });
    let (ack, query) = worker.query().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    worker.send(ToWorker::Shared {
        ack,
        key: query.key(),
        fd: listener.into(),
        udp: false,
        sockname: Some(address.into()),
        ticket_keys: None,
    });
    worker.find(|message| (*message == FromWorker::Ready).then_some(())).await;

    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(node_support::PATIENCE)).unwrap();
    client.send_to(b"hello", udp_address).unwrap();
    let mut answer = [0; 100];
    let length = client.recv(&mut answer).unwrap();
    assert_eq!(&answer[..length], b"udp hello");
    let mut client = node_support::Client::to(address);
    client.ask("/shared");
    assert_eq!(client.answer().await.split_once('/').unwrap().1, "shared");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_key_reach_workers_of_the_sticky_package() {
    let Some(node) = node() else { return };
    for serialization in BOTH {
        // As version 1 and version 2 of @socket.io/sticky take them in.
        for take in ["socket.emit('data', Buffer.from(data)); socket.resume()", "socket.unshift(data)"] {
            let script = http(&format!(
                "process.on('message', ({{ type, data }}, socket) => {{
                    if (type !== 'sticky:connection' || !socket) throw new Error('not this');
                    server.emit('connection', socket);
                    {take};
                }});
                process.send('ready');"
            ));
            let mut worker = Worker::start(&node, serialization, &script);
            worker.expect(FromWorker::Online).await;
            worker.expect(FromWorker::Ready).await;
            let door = Door::open();
            let (mut early, fd) = door.connect();
            early.ask("/early");
            worker.send(ToWorker::Connection(Handed { key: None, seq: 5, leg: false, client: None, fd }));
            worker.expect(FromWorker::HandleAck { seq: Some(5) }).await;
            let (mut late, fd) = door.connect();
            worker.send(ToWorker::Connection(Handed { key: None, seq: 6, leg: false, client: None, fd }));
            worker.expect(FromWorker::HandleAck { seq: Some(6) }).await;
            late.ask("/late");
            let expected =
                [format!("{}/early", early.address().port()), format!("{}/late", late.address().port())];
            assert_eq!([early.answer().await, late.answer().await], expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preload_hears_us_and_is_heard() {
    let Some(node) = node() else { return };
    for serialization in BOTH {
        let script = http("
            const marks = [];
            process.prependListener('internalMessage', (message, handle) => {
                if (message.cmd === 'NODE_HANDLE') marks.push(message.sundew, Boolean(handle));
                if (message.act === 'letgo') {
                    require('assert').deepStrictEqual(message, { cmd: 'NODE_SUNDEW', act: 'letgo', batch: 100, pause: 50 });
                    require('assert').deepStrictEqual(marks, ['leg', true, 'client', true]);
                    process.send({ cmd: 'NODE_SUNDEW', act: 'closed', total: 2 });
                }
            });
            process.send({ cmd: 'NODE_SUNDEW', act: 'serves', http: true, server: 3 });
            process.send({ cmd: 'NODE_SUNDEW', act: 'sticky' });
            server.listen(0, () => process.send('ready'));
        ");
        let mut worker = Worker::start(&node, serialization, &script);
        worker.expect(FromWorker::Online).await;
        worker.expect(FromWorker::Serves { http: true, server: Some(3) }).await;
        worker.expect(FromWorker::Sticky).await;
        let key = worker.serve().await;
        // A leg: one end of a socket pair.
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        worker.send(ToWorker::Connection(Handed {
            key: Some(key.clone()),
            seq: 1,
            leg: true,
            client: None,
            fd: far.into(),
        }));
        let (_client, fd) = Door::open().connect();
        worker.hand(&key, 2, fd);
        worker.send(ToWorker::LetGo { batch: 100, pause_ms: 50 });
        worker.find(|message| (*message == FromWorker::Closed { total: 2 }).then_some(())).await;
        use std::io::{Read, Write};
        near.write_all(b"GET /leg HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        near.set_read_timeout(Some(node_support::PATIENCE)).unwrap();
        near.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("undefined/leg"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_worker_holds_few_connections_and_the_rest_can_be_taken_back() {
    let Some(node) = node() else { return };
    let script = http(
        "server.listen(0, () => process.send('ready'));
        process.on('message', () => {
            process.send('ready');
            // Stuck until the test has looked.
            const until = Date.now() + 60000;
            const fs = require('fs');
            while (Date.now() < until && !fs.existsSync(__dirname + '/go'));
        });",
    );
    let limits = Limits { queued_handles: 20, ..Limits::default() };
    let mut worker = Worker::start_with(&node, Serialization::Advanced, limits, &script);
    let key = worker.serve().await;
    worker.send(ToWorker::Shutdown);
    worker.expect(FromWorker::Ready).await;
    let door = Door::open();
    let mut clients = Vec::new();
    for seq in 0..28 {
        let (client, fd) = door.connect();
        clients.push(client);
        worker.hand(&key, seq, fd);
    }
    assert!(worker.channel.unanswered_since().is_some());
    let (_client, fd) = door.connect();
    let one_more =
        ToWorker::Connection(Handed { key: Some(key.clone()), seq: 28, leg: false, client: None, fd });
    let refused = worker.channel.send(one_more).unwrap_err();
    assert_eq!(refused.why, WhyNot::QueuedHandles);
    assert!(matches!(*refused.message, ToWorker::Connection(Handed { seq: 28, .. })));

    let odd = worker.channel.take_unsent(|handed| handed.seq % 2 == 1);
    assert_eq!(
        odd.iter().map(|handed| handed.seq).collect::<Vec<_>>(),
        (9..28).step_by(2).collect::<Vec<_>>()
    );
    drop(odd);
    worker.unblock();
    let mut accepted = Vec::new();
    while accepted.len() < 18 {
        accepted.push(
            worker
                .find(|message| match message {
                    FromWorker::Accepted { seq, accepted: true } => Some(*seq),
                    FromWorker::HandleNack { .. } => panic!("lost"),
                    _ => None,
                })
                .await,
        );
    }
    let expected: Vec<u64> = (0..28).filter(|seq| *seq < 8 || seq % 2 == 0).collect();
    assert_eq!(accepted, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_offs_between_big_relays_never_mix_up_connections() {
    let Some(node) = node() else { return };
    for serialization in BOTH {
        let advanced = serialization == Serialization::Advanced;
        let script = |name: &str| {
            http(&format!(
                "const name = '{name}';
                server.on('request', (req) => {{ if (req.url !== '/' + name) throw new Error('not mine'); }});
                let heard = 0;
                process.on('message', (message) => {{
                    if (message === 'shutdown') {{
                        for (let i = 0; i < 40; i++) {{
                            const data = {{ big: {}, i }};
                            process.send({{ source: '_sio_adapter', type: 4, uid: name, data }});
                        }}
                    }} else if (++heard === 40) {{
                        process.send({{ source: '_sio_adapter', type: 100, uid: name }});
                    }}
                }});
                server.listen(0, () => process.send('ready'));",
                if advanced { "Buffer.alloc(200000 + i, i)" } else { "'ü'.repeat(100000 + i)" }
            ))
        };
        let names = ["a", "b"];
        let mut workers = names.map(|name| Worker::start(&node, serialization, &script(name)));
        let mut keys = Vec::new();
        for worker in &mut workers {
            keys.push(worker.serve().await);
            worker.send(ToWorker::Shutdown);
        }
        let door = Door::open();
        let mut clients = Vec::new();
        let mut relayed = 0;
        // Hand-offs go out while the relays come in, so that every mixture of the two is on the way.
        let mut next = 0;
        let mut done = [false; 2];
        let mut accepted = 0;
        let (left, right) = workers.split_at_mut(1);
        while !(done == [true; 2] && accepted == 300) {
            let (from, message) = tokio::select! {
                message = left[0].recv() => (0, message),
                message = right[0].recv() => (1, message),
            };
            let both = [&left[0], &right[0]];
            match message.expect("a worker has ended") {
                FromWorker::Adapter { kind: 100, .. } => done[from] = true,
                FromWorker::Adapter { frame, .. } => {
                    relayed += 1;
                    both[1 - from].send(ToWorker::Relay(frame));
                    for _ in 0..8 {
                        if next < 300 {
                            let to = next % 2;
                            let (mut client, fd) = door.connect();
                            client.ask(&format!("/{}", names[to]));
                            let expected = format!("{}/{}", client.address().port(), names[to]);
                            both[to].hand(&keys[to], next as u64, fd);
                            clients.push((client, expected));
                            next += 1;
                        }
                    }
                }
                FromWorker::Accepted { seq, accepted: true } => {
                    assert_eq!(seq as usize % 2, from);
                    accepted += 1;
                }
                FromWorker::HandleAck { seq: Some(_) } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((relayed, next), (80, 300));
        for (client, expected) in clients {
            assert_eq!(client.answer().await, expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_relays_all_arrive() {
    let Some(node) = node() else { return };
    // A reader that is behind most of the time: its reads are as full as they can be.
    let sender = "
        for (let i = 0; i < 20000; i++) {
            process.send({ source: '_sio_adapter', type: 4, uid: 'me', data: 'x'.repeat(i % 997) });
        }
        setInterval(() => {}, 1000);
    ";
    let receiver = "
        let next = 0;
        process.on('message', (message) => {
            if (message.data.length !== next++ % 997) throw new Error('lost one');
            if (next % 50 === 0) { const until = Date.now() + 1; while (Date.now() < until); }
            if (next === 20000) process.send('ready');
        });
    ";
    let mut sender = Worker::start(&node, Serialization::Advanced, sender);
    let mut receiver = Worker::start(&node, Serialization::Advanced, receiver);
    receiver.expect(FromWorker::Online).await;
    sender.expect(FromWorker::Online).await;
    for _ in 0..20000 {
        let Some(FromWorker::Adapter { frame, .. }) = sender.recv().await else { panic!("not relayed") };
        receiver.send(ToWorker::Relay(frame));
    }
    receiver.expect(FromWorker::Ready).await;
}
