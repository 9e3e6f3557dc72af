"""A stand-in for a VS Code server, run as a process: ``fake_ide.py SOCKET|PORT``. It tells what it received."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from aiohttp import WSMsgType, web

SEEN: list[str] = []
RELEASED = asyncio.Event()
STUBBORN = "import signal,time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"


async def healthz(_request: web.Request) -> web.Response:
    return web.json_response({"status": "alive"})


async def stream(request: web.Request) -> web.StreamResponse:
    """Events 100 ms apart; notes when the reader left."""
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    try:
        for number in range(int(request.query.get("events", "5"))):
            await answer.write(f"data: {number}\n\n".encode())
            await asyncio.sleep(0.1)
    except (ConnectionError, asyncio.CancelledError):
        SEEN.append("reader left")
        raise
    return answer


async def gated(request: web.Request) -> web.StreamResponse:
    """One event, and a second after ``POST /release``."""
    RELEASED.clear()
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    await answer.write(b"data: first\n\n")
    await RELEASED.wait()
    await answer.write(b"data: second\n\n")
    return answer


async def release(_request: web.Request) -> web.Response:
    RELEASED.set()
    return web.Response()


async def silent(_request: web.Request) -> web.Response:
    """Takes the request and says nothing, as VS Code's server does when it fails on one."""
    await asyncio.Event().wait()
    return web.Response()


async def swallow(request: web.Request) -> web.Response:
    size = 0
    async for chunk in request.content.iter_chunked(1 << 16):
        size += len(chunk)
    return web.json_response({"size": size})


async def pour(request: web.Request) -> web.StreamResponse:
    size = int(request.query["size"])
    answer = web.StreamResponse(headers={"Content-Length": str(size)})
    await answer.prepare(request)
    for _ in range(size >> 16 if request.method == "GET" else 0):
        await answer.write(b"x" * (1 << 16))
    return answer


async def small(_request: web.Request) -> web.Response:
    """A 2 kB file."""
    return web.Response(body=bytes(2048), content_type="application/octet-stream")


async def cut(request: web.Request) -> web.StreamResponse:
    """Promises 1000 bytes and ends after 10."""
    answer = web.StreamResponse(headers={"Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b"0123456789")
    assert request.transport is not None
    request.transport.abort()
    return answer


async def socket(request: web.Request) -> web.StreamResponse:
    if "refuse" in request.query:
        return web.Response(status=409)
    answer = web.WebSocketResponse(protocols=("second",), max_msg_size=0)
    await answer.prepare(request)
    if "hello" in request.query:
        await answer.send_json(dict(request.headers))
    async for message in answer:
        if message.type is WSMsgType.TEXT:
            await answer.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await answer.send_bytes(message.data)
    SEEN.append(f"socket closed {answer.close_code}")
    return answer


async def leave_child(_request: web.Request) -> web.Response:
    """A child that ignores SIGTERM, as an extension host that hangs."""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", STUBBORN, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    await child.stdout.readline()
    return web.json_response({"pid": child.pid})


async def tell(request: web.Request) -> web.StreamResponse:
    """Everything else: what arrived."""
    if request.path == "/redirect":
        return web.Response(status=302, headers={"Location": request.query["to"]})
    body = await request.read()
    told = {
        "method": request.method,
        "raw": request.raw_path,
        "headers": [list(pair) for pair in request.headers.items()],
        "body": body.decode("latin-1"),
        "pid": os.getpid(),
        "environ": dict(os.environ),
        "seen": SEEN,
    }
    return web.Response(
        text=json.dumps(told),
        content_type="application/json",
        headers={
            "X-Kept": "yes",
            "Service-Worker-Allowed": "/",
            "Set-Cookie": "ide=1",
            "Connection": "x-hop",
            "X-Hop": "1",
        },
    )


def main() -> None:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/stream", stream)
    app.router.add_get("/gated", gated)
    app.router.add_post("/release", release)
    app.router.add_get("/silent", silent)
    app.router.add_post("/swallow", swallow)
    app.router.add_get("/pour", pour)
    app.router.add_get("/small", small)
    app.router.add_get("/cut", cut)
    app.router.add_get("/socket", socket)
    app.router.add_post("/leave-child", leave_child)
    app.router.add_route("*", "/{rest:.*}", tell)
    print("fake IDE starts", flush=True)
    place = sys.argv[1]
    if place.isdigit():
        web.run_app(app, host="127.0.0.1", port=int(place), print=None, access_log=None)
    else:
        web.run_app(app, path=place, print=None, access_log=None)


if __name__ == "__main__":
    main()
