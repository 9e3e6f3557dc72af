"""The launcher as a process, and requests to it over plain sockets."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).parents[2]
FAKE_IDE = Path(__file__).with_name("fake_ide.py")
TOKEN = "a-token-for-the-tests"
COMMAND = (
    "import argparse,os,sys\nfrom calliope_agent.cli import launch\n"
    "p=argparse.ArgumentParser(); launch.configure(p)\nsys.exit(launch.run(p.parse_args(), os.environ))"
)
KEEP = ("PATH", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], what: str, limit_s: float = 30.0) -> Any:
    """Poll until ``condition`` gives something true; its OSErrors count as not yet."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            found = condition()
            if found:
                return found
        time.sleep(0.05)
    raise AssertionError(f"waited {limit_s} s for {what}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for given, value in self.headers if given.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Stack:
    """One launcher. ``environ`` is the whole environment it gets."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ("--ServerApp.ip=127.0.0.1",)
    prefix: str = "/"
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.port, self.ide_port, self.agent_port = free_port(), free_port(), free_port()
        self.home, self.log = self.folder / "home", self.folder / "log"
        self.home.mkdir()
        self.environ = {
            **{name: os.environ[name] for name in KEEP if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.home),
            "CALLIOPE_RUNTIME_DIR": str(self.folder / "run"),
            "PORT": str(self.port),
            "VSCODE_PORT": str(self.ide_port),
            "CALLIOPE_AGENT_PORT": str(self.agent_port),
            "USE_ALL_COMPONENTS": "false",
            "JUPYTER_TOKEN": TOKEN,
            "WAIIDE_IDE_COMMAND": f"{shlex.join([sys.executable, str(FAKE_IDE)])} $SOCKET",
            **self.environ,
        }

    @staticmethod
    def command() -> str:
        return COMMAND

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, *self.arguments],
                env=self.environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ready(self) -> None:
        """Until Jupyter answers and the IDE behind it."""
        wait_for(lambda: self.get("api/status", limit_s=5).status == 200, "Jupyter")
        wait_for(lambda: self.services()["WAIIDE"]["status"] == "running", "the IDE")

    def services(self) -> Any:
        return self.get("api/status").json()["services"]

    def get(self, path: str, headers: Mapping[str, str] | None = None, limit_s: float = 20.0) -> Answer:
        return self.ask("GET", path, headers, limit_s=limit_s)

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        limit_s: float = 20.0,
    ) -> Answer:
        """``path`` is below the prefix, or absolute with a slash; the token goes along unless headers say otherwise."""
        target = path if path.startswith(("/", "http:")) else self.prefix + path
        given = {"Authorization": f"token {TOKEN}"} if headers is None else dict(headers)
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
        if "Host" not in given:
            lines.append(f"Host: 127.0.0.1:{self.port}")
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        return self.raw("\r\n".join([*lines, "Connection: close", "", ""]).encode() + (body or b""), limit_s)

    def raw(self, request: bytes, limit_s: float = 20.0) -> Answer:
        with socket.create_connection(("127.0.0.1", self.port), limit_s) as connection:
            connection.sendall(request)
            return read_answer(connection, head=request.startswith(b"HEAD "))

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}{path}"

    def session(self, **more: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers={"Authorization": f"token {TOKEN}"}, **more)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM, limit_s: float = 20.0) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(limit_s)

    def below(self) -> set[int]:
        """Every process that this launcher started, by its runtime directory in their environment."""
        mark = f"HOME={self.home}".encode()
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0") and alive(int(entry.name)):
                        found.add(int(entry.name))
        return found


@contextlib.contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """Started and ready; ended, and its log shown when something failed."""
    stack.start()
    try:
        stack.ready()
        yield stack
    except BaseException:
        sys.stderr.write(stack.text()[-6000:])
        raise
    finally:
        stack.stop()
        leftovers = stack.below()
        for pid in leftovers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not leftovers


def read_answer(connection: socket.socket, *, head: bool = False) -> Answer:
    """One HTTP/1.1 answer, chunked or not."""
    with connection.makefile("rb") as reader:
        return _read(reader, head=head)


def _read(reader: io.BufferedReader, *, head: bool) -> Answer:
    status = int(reader.readline().split()[1])
    headers = []
    while (line := reader.readline().strip()) != b"":
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name, value.strip()))
    answer = Answer(status, headers, b"")
    length = answer.get("Content-Length")
    if head:
        answer.body = b""
    elif length is not None:
        answer.body = reader.read(int(length))
    elif (answer.get("Transfer-Encoding") or "") == "chunked":
        while size := int(reader.readline(), 16):
            answer.body += reader.read(size)
            reader.readline()
    else:
        answer.body = reader.read()
    return answer


async def terminal_environment(stack: Stack) -> dict[str, str]:
    """What a terminal of Jupyter's holds, asked in a real one."""
    async with stack.session() as session:
        async with session.post(stack.url("api/terminals")) as answer:
            name = (await answer.json())["name"]
        script = "import json,os;print('BE'+'GIN'+json.dumps(dict(os.environ))+'E'+'ND')"
        async with session.ws_connect(stack.url(f"terminals/websocket/{name}")) as terminal:
            await terminal.send_json(["stdin", f'{shlex.quote(sys.executable)} -c "{script}"\r'])
            text = ""
            while "END" not in text:
                kind, *rest = await asyncio.wait_for(terminal.receive_json(), 20)
                text += rest[0] if kind == "stdout" else ""
        await session.delete(stack.url(f"api/terminals/{name}"))
    told: dict[str, str] = json.loads(text[text.index("BEGIN") + 5 : text.index("END")].replace("\r\n", ""))
    return told


def login(stack: Stack) -> str:
    """A Cookie header of a stand-alone login."""
    answer = stack.get(f"?token={TOKEN}", {})
    return "; ".join(value.partition(";")[0] for value in answer.all("Set-Cookie"))
