"""What an application on aiohttp does: requests and WebSockets through one ClientSession, whose pool has one connection. See aiohttp-check.sh."""

import asyncio
import os
import secrets
import uuid

import aiohttp

PASSWORD = "a password of theirs"


class Connections:
    """Counts what the pool of a session does."""

    def __init__(self):
        self.made = self.reused = 0
        self.trace = aiohttp.TraceConfig()
        self.trace.on_connection_create_end.append(self.on_made)
        self.trace.on_connection_reuseconn.append(self.on_reused)

    async def on_made(self, *_):
        self.made += 1

    async def on_reused(self, *_):
        self.reused += 1


def cid(now_ms):
    """A UUID of version 7 in the server's time."""
    value = (now_ms << 80) | (7 << 76) | (secrets.randbits(12) << 64) | (2 << 62) | secrets.randbits(62)
    return str(uuid.UUID(int=value))


async def until(ws, kind):
    while True:
        frame = await ws.receive_json(timeout=20)
        assert frame["t"] != "error", frame
        if frame["t"] == kind:
            return frame


async def chats(session, connections, tokens):
    """One WebSocket over the connection that the requests before it have left in the pool."""
    made, reused = connections.made, connections.reused
    async with session.ws_connect("/v1/ws", protocols=("natterjack.v1.json",)) as ws:
        assert (connections.made, connections.reused) == (made, reused + 1), "the upgrade went over a connection of its own"
        assert ws.protocol == "natterjack.v1.json"
        await ws.send_json({"t": "hello", "token": tokens["access"], "device": tokens["device"]})
        welcome = await until(ws, "welcome")
        await until(ws, "attached")
        thread = f"dm.{tokens['user']}.{tokens['user']}"
        body = {"text": "from aiohttp"}
        await ws.send_json({"t": "send", "r": 1, "cid": cid(welcome["now"]), "thread": thread, "kind": "text", "body": body})
        sent = await until(ws, "sent")
        await ws.send_json({"t": "bye"})
        closed = await ws.receive(timeout=20)
        while closed.type is aiohttp.WSMsgType.TEXT:
            closed = await ws.receive(timeout=20)
        assert closed.type is aiohttp.WSMsgType.CLOSE and closed.data == 1000, closed
        return sent["id"]


async def main():
    connections = Connections()
    pool = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(os.environ["NATTERJACK_EDGE"], connector=pool, trace_configs=[connections.trace]) as session:
        async with session.post("/v1/register", json={"name": "aiohttp", "password": PASSWORD}) as answer:
            assert answer.status == 200, await answer.text()
            tokens = await answer.json()
        first = await chats(session, connections, tokens)
        # Whatever comes before it on the connection: a refusal, a body that is wrong, an answer that is large.
        headers = {"Authorization": f"Bearer {tokens['access']}"}
        for method, path, status in [("GET", "/nothing", 404), ("PUT", "/v1/groups", 405), ("GET", "/v1/openapi.json", 200), ("GET", "/v1/threads", 200)]:
            async with session.request(method, path, headers=headers) as answer:
                await answer.read()
                assert answer.status == status, (path, answer.status)
        async with session.post("/v1/groups", json={"name": 5}, headers=headers) as answer:
            assert answer.status == 400, await answer.text()
        second = await chats(session, connections, tokens)
        assert second > first
        # A poll and a message without a socket, over the pool as well.
        async with session.post("/v1/sync", json={"wait_ms": 0}, headers=headers) as answer:
            polled = await answer.json()
        assert any(e["id"] == second for f in polled["frames"] for e in f.get("events", [f])), polled
    print(f"aiohttp {aiohttp.__version__}: {connections.made} connections, {connections.reused} requests over kept ones, 2 of them WebSockets")


asyncio.run(main())
