"""python-socketio as a client: `client.py URL --client sync|asyncio --transports polling|websocket|default`.

Goes through a scenario against the echo example and prints the name of each part that is done; the first thing that is not
as it should be ends it with a traceback. `--crowd N` has many clients instead, for several workers.
"""

import argparse
import asyncio
import os
import socket
import sys
import threading
import time
import traceback
from urllib.parse import urlsplit

import socketio

PATIENCE = 15

# The blocking client hands each message to a thread of its own. Nothing but the order in which they start says which bytes
# belong to which event, so they should not take turns in between.
sys.setswitchinterval(1)


class Refused(Exception):
    """By namespace, what the server says."""


class Client:
    """One client of either kind, awaited; what it hears is in `heard`."""

    def __init__(self, options, **more):
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.heard = asyncio.Queue()
        self.blocking = options.client == "sync"
        kind = socketio.Client if self.blocking else socketio.AsyncClient
        settings = {"reconnection": False, "serializer": options.serializer, "handle_sigint": False}
        self.io = kind(**{**settings, **more})

    async def connect(self, namespaces=("/",), auth=None, url=None):
        for namespace in namespaces:
            self.io.on("*", self._catch(namespace), namespace=namespace)
            for name in ("connect", "connect_error", "disconnect"):
                self.io.on(name, self._catch(namespace, name), namespace=namespace)
        transports = None if self.options.transports == "default" else [self.options.transports]
        arguments = {"namespaces": list(namespaces), "auth": auth, "transports": transports, "wait": False}
        await self._run(self.io.connect, url or self.options.url, **arguments)
        refused, waiting = {}, set(namespaces)
        while waiting:
            namespace, event, args = await asyncio.wait_for(self.heard.get(), PATIENCE)
            waiting.discard(namespace)
            if event == "connect_error":
                refused[namespace] = args[0]
        if refused:
            await self.disconnect()
            raise Refused(refused)
        return self

    def _catch(self, namespace, name=None):
        def heard(*args):
            event, args = (name, args) if name else (args[0], args[1:])
            self.loop.call_soon_threadsafe(self.heard.put_nowait, (namespace, event, args))
            if event == "ask-me":
                return {"answered": list(args)}

        return heard

    async def _run(self, method, *args, **named):
        if self.blocking:
            return await asyncio.to_thread(method, *args, **named)
        return await method(*args, **named)

    async def emit(self, event, *args, namespace=None):
        await self._run(self.io.emit, event, args, namespace=namespace)

    async def ask(self, event, *args, namespace=None):
        """The acknowledgement: one value, or a tuple of several."""
        return await self._run(self.io.call, event, args, namespace=namespace, timeout=PATIENCE)

    async def disconnect(self):
        # Told to leave while a POST is not answered yet, it forgets its goodbye, and waits for the next heartbeat.
        await self._run(self.io.eio.queue.join)
        await self._run(self.io.disconnect)

    async def next(self, event, namespace="/"):
        """The arguments of the next event of this name; others are passed over."""
        while True:
            got = await asyncio.wait_for(self.heard.get(), PATIENCE)
            if got[:2] == (namespace, event):
                return got[2]

    def nothing(self, event):
        """Nothing of this name has come."""
        while not self.heard.empty():
            got = self.heard.get_nowait()
            assert got[1] != event, got


class Relay:
    """A way to the server that can be cut."""

    def __init__(self, url):
        self.target = (urlsplit(url).hostname, urlsplit(url).port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.ends = []
        self.polling = {}
        self.lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.target)
            self.ends += [client, server]
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for way in ((client, server, client), (server, client, None)):
                threading.Thread(target=self._copy, args=way, daemon=True).start()

    def _copy(self, source, sink, client):
        try:
            while data := source.recv(65536):
                if client and data.startswith(b"GET ") and b"transport=polling" in data:
                    # It is open from when the server can know of it until the first byte of an answer.
                    with self.lock:
                        sink.sendall(data)
                        self.polling[client] = time.monotonic()
                    continue
                if not client:
                    with self.lock:
                        self.polling.pop(sink, None)
                sink.sendall(data)
        except OSError:
            pass
        self._end(source, sink)

    def _end(self, *ends):
        for end in ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _poll_is_out(self):
        with self.lock:
            return any(time.monotonic() - since > 0.5 for since in self.polling.values())

    async def cut(self, transport):
        """Not between two polls, where neither side would notice; nor right behind one, as whoever has said all may do."""
        async with asyncio.timeout(PATIENCE):
            while transport == "polling" and not self._poll_is_out():
                await asyncio.sleep(0.01)
        ends, self.ends = self.ends, []
        with self.lock:
            self.polling.clear()
        self._end(*ends)


async def sessions(options):
    """Two namespaces over one connection, each with an id that is not the session's."""
    client = await Client(options).connect(("/", "/ws"))
    expected = "websocket" if options.transports == "default" else options.transports
    assert client.io.transport() == expected, client.io.transport()
    ids = {client.io.get_sid("/"), client.io.get_sid("/ws"), client.io.eio.sid}
    assert len(ids) == 3 and all(len(each) == 20 for each in ids), ids
    for namespace in ("/", "/ws"):
        assert (await client.ask("whoami", namespace=namespace))["transport"] == expected
    await client.emit("echo", "for ws", namespace="/ws")
    assert await client.next("echo", "/ws") == ("for ws",)
    client.nothing("echo")
    await client.disconnect()


async def events(options):
    """Text and binary, both ways."""
    client = await Client(options).connect(("/ws",))
    values = ("text", 7, -70_000, 1.5, None, True, {"nested": [1, {"deep": "ü→🌱"}]}, ["a", []], "x" * 70_000)
    await client.emit("echo", *values, namespace="/ws")
    assert await client.next("echo", "/ws") == values
    blob = os.urandom(200_000)
    for sent in ((blob,), (b"",), ({"name": "file", "parts": [blob, b"", os.urandom(3)]}, "and", b"\0\xff")):
        await client.emit("echo", *sent, namespace="/ws")
        assert await client.next("echo", "/ws") == sent
    # It takes at most 16 packets from one poll, and gives up its session otherwise: so many are under way at most.
    for start in range(0, 200, 10):
        numbers = list(range(start, start + 10))
        for number in numbers:
            await client.emit("echo", number, namespace="/ws")
        replies = [(await client.next("echo", "/ws"))[0] for _ in numbers]
        assert (sorted(replies) if client.blocking else replies) == numbers, replies
    await client.disconnect()


async def acknowledgements(options):
    """Both ways, none, one and several values, binary."""
    client = await Client(options).connect()
    assert await client.ask("echo-ack") is None
    assert await client.ask("echo-ack", {"question": 1}) == {"question": 1}
    blob = os.urandom(100_000)
    assert await client.ask("echo-ack", 1, [blob, {"more": b"\0"}], "ü") == (1, [blob, {"more": b"\0"}], "ü")
    assert await client.ask("ask-me", "how", 7) == {"answered": ["how", 7]}
    answers = await asyncio.gather(*(client.ask("echo-ack", number) for number in range(10)))
    assert answers == list(range(10)), answers
    await client.disconnect()


async def rooms(options):
    """Broadcasts reach who is in the room, and nobody else."""
    inside = [await Client(options).connect() for _ in range(2)]
    outside = await Client(options).connect()
    for client in inside:
        await client.ask("join", "r")
    for payload in ({"text": "é"}, os.urandom(5000)):
        await inside[0].emit("room-broadcast", "r", payload)
        for client in inside:
            assert await client.next("broadcast") == (payload,)
    await outside.ask("echo-ack", 1)
    outside.nothing("broadcast")
    await inside[1].ask("leave", "r")
    await inside[0].emit("room-broadcast", "r", "one")
    assert await inside[0].next("broadcast") == ("one",)
    await inside[1].ask("echo-ack", 1)
    inside[1].nothing("broadcast")
    for client in (*inside, outside):
        await client.disconnect()


async def refusals(options):
    """The middleware's word, with data; a namespace that is not there; the others go on."""
    allowed = await Client(options).connect(("/auth",), auth={"token": "secret"})
    assert await allowed.ask("echo-ack", "in", namespace="/auth") == "in"
    await allowed.disconnect()
    for namespace, message in (("/auth", "not authorized"), ("/nowhere", "Invalid namespace")):
        try:
            await Client(options).connect(("/ws", namespace), auth={"token": "wrong"})
        except Refused as refused:
            (errors,) = refused.args
            assert list(errors) == [namespace] and errors[namespace]["message"] == message, errors
            assert namespace != "/auth" or isinstance(errors[namespace]["data"]["content"], str), errors
        else:
            raise AssertionError(f"let in to {namespace}")


async def reasons(options):
    """Why a client left, as each side has it."""
    watcher = await Client(options).connect()
    await watcher.ask("join", "watchers")

    async def ends(leave, *expected, **how):
        client = await Client(options).connect(**how)
        own = client.io.get_sid("/")
        await leave(client)
        (ours,) = await client.next("disconnect")
        # Somebody who was here before may only now be missed.
        while (left := await watcher.next("left"))[0] != own:
            pass
        assert (ours, left[1]) in expected, (ours, left[1])

    # It says goodbye and closes in one go: of the two, the server may hear of the end first. With msgpack its goodbye has a
    # null, which Node's parser does not accept.
    words = ("forced close", "client namespace disconnect", "transport close", "transport error")
    await ends(lambda client: client.disconnect(), *(("client disconnect", theirs) for theirs in words))
    for close in (False, True):
        await ends(lambda client: client.emit("go", close), ("server disconnect", "server namespace disconnect"))
    relay = Relay(options.url)
    # A poll that is cut off is an error, a websocket that ends is not.
    theirs = "transport error" if options.transports == "polling" else "transport close"
    await ends(lambda client: relay.cut(client.io.transport()), ("transport error", theirs), url=relay.url)
    await watcher.disconnect()


async def reconnects(options):
    """Cut off, it comes back on its own, as somebody else, to the same namespaces."""
    relay = Relay(options.url)
    client = Client(options, reconnection=True, reconnection_delay=0.2, randomization_factor=0)
    await client.connect(("/", "/ws"), url=relay.url)
    before = [client.io.get_sid(namespace) for namespace in ("/", "/ws")]
    for _ in range(3):
        await relay.cut(client.io.transport())
        assert await client.next("disconnect", "/ws") == ("transport error",)
        await client.next("connect", "/ws")
        async with asyncio.timeout(PATIENCE):
            while not client.io.connected:
                await asyncio.sleep(0.01)
        now = [client.io.get_sid(namespace) for namespace in ("/", "/ws")]
        assert not set(now) & set(before), (before, now)
        before = now
        assert await client.ask("echo-ack", "again", namespace="/ws") == "again"
    await client.disconnect()


async def crowd(options):
    """Many over all workers: each stays with its own, and all hear each other."""
    clients = await asyncio.gather(*(Client(options).connect() for _ in range(options.crowd)))
    owners = [(await client.ask("whoami"))["pid"] for client in clients]
    assert len(set(owners)) == 4, f"workers used: {set(owners)}"
    for round in range(5):
        assert await asyncio.gather(*(client.ask("echo-ack", [round, b"\0\1"]) for client in clients)) == [[round, b"\0\1"]] * len(clients)
    await asyncio.gather(*(client.ask("join", "all") for client in clients))
    for payload in ("to all", os.urandom(3000)):
        await clients[0].emit("room-broadcast", "all", payload)
        for client in clients:
            assert await client.next("broadcast") == (payload,)
    assert [(await client.ask("whoami"))["pid"] for client in clients] == owners
    async with asyncio.timeout(PATIENCE):
        while (count := await clients[0].ask("count")) != len(clients):
            assert count > len(clients), count
    await asyncio.gather(*(client.disconnect() for client in clients))


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("url")
    arguments.add_argument("--client", choices=("sync", "asyncio"), required=True)
    arguments.add_argument("--transports", choices=("polling", "websocket", "default"), required=True)
    arguments.add_argument("--serializer", default="default")
    arguments.add_argument("--crowd", type=int)
    options = arguments.parse_args()
    parts = (crowd,) if options.crowd else (sessions, events, acknowledgements, rooms, refusals, reasons, reconnects)
    for part in parts:
        await asyncio.wait_for(part(options), 60)
        print(part.__name__, flush=True)


try:
    asyncio.run(main())
except Exception:
    traceback.print_exc()
    os._exit(1)
# The blocking client's threads would be waited for.
os._exit(0)
