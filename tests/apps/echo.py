"""The echo example in Python: a program with a port, nothing more."""

import json
import os

import socketio
import uvicorn

instance = int(os.environ.get("NODE_APP_INSTANCE", "0"))
port = int(os.environ.get("PORT", "8080"))
io = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")


@io.event
async def whoami(sid):
    return {"instance": instance, "pid": os.getpid(), "transport": io.transport(sid)}


@io.on("echo-ack")
async def echo_ack(sid, value):
    return value


@io.event
async def echo(sid, value):
    await io.emit("echo", value, to=sid)


async def index(scope, receive, send):
    if scope["type"] != "http":
        return
    forwarded = dict(scope["headers"]).get(b"x-forwarded-for", b"").decode()
    body = json.dumps({"instance": instance, "port": port, "forwarded": forwarded}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


uvicorn.run(socketio.ASGIApp(io, index), host="127.0.0.1", port=port, log_level="warning", ws="websockets-sansio", proxy_headers=False)
