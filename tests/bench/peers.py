"""The processes that are measured, each a context manager: the agent, the bare prototype, nginx, and the provider itself."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_S = 60
ROOT = Path(__file__).resolve().parents[2]
NGINX = """\
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 256; }}
http {{
  keepalive_requests 1000000; access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream provider {{ server {upstream}; keepalive 32; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location = /health {{ return 200 ok; }}
    location / {{ proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server. ``ready_s`` is the time from the process's start to the first 200 of /health."""

    name: str
    url: str
    pid: int
    ready_s: float
    token: str | None = None

    def cpu_s(self) -> float:
        """User and system time of the whole process so far (its CPU clock, clock_getcpuclockid(3))."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def provider() -> Iterator[Peer]:
    with _process([sys.executable, "-m", "tests.bench.lean_upstream"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield Peer("direct", f"http://127.0.0.1:{port}", process.pid, 0.0)


@contextmanager
def prototype(upstream: str) -> Iterator[Peer]:
    port = _free_port()
    with _started("prototype", [sys.executable, "-m", "tests.bench.prototype", str(port), upstream], port) as peer:
        yield peer


@contextmanager
def nginx(upstream: str, folder: Path) -> Iterator[Peer]:
    port = _free_port()
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, upstream=upstream.removeprefix("http://"), port=port))
    command = shutil.which("nginx") or "/usr/sbin/nginx"
    with _started("nginx", [command, "-p", str(folder), "-c", str(file)], port) as peer:
        yield peer


def has_nginx() -> bool:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None


@contextmanager
def agent(upstream: str, folder: Path, more: Mapping[str, str] | None = None) -> Iterator[Peer]:
    """A process of its own under an empty environment, with the lean provider as its OpenAI."""
    port = _free_port()
    environ = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder / "home"),
        "CALLIOPE_RUNTIME_DIR": str(folder / "run"),
        "CALLIOPE_STATE_DIR": str(folder / "state"),
        "CALLIOPE_DATA_DIR": str(folder / "data"),
        "CALLIOPE_PROVIDERS_DIR": str(folder / "operator"),
        "CALLIOPE_AGENT_TOKEN": "cal-" + "b" * 40,
        "OPENAI_BASE_URL": f"{upstream}/v1",
        "OPENAI_API_KEY": "sk-bench",
        "LOG_LEVEL": "WARNING",
        **(more or {}),
    }
    (folder / "home").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "calliope_agent", "serve", "--port", str(port)]
    with _started("agent", command, port, environ) as peer:
        yield Peer(peer.name, peer.url, peer.pid, peer.ready_s, environ["CALLIOPE_AGENT_TOKEN"])


def components(peer: Peer) -> Mapping[str, Mapping[str, str]]:
    """What /api/health of the agent says of its parts."""
    request = urllib.request.Request(f"{peer.url}/api/health", headers={"authorization": f"Bearer {peer.token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        told: Mapping[str, Mapping[str, str]] = json.load(answer)["components"]
        return told


@contextmanager
def _started(name: str, command: list[str], port: int, environ: Mapping[str, str] | None = None) -> Iterator[Peer]:
    begun = time.perf_counter()
    with _process(command, environ=environ) as process:
        url = f"http://127.0.0.1:{port}"
        while not _answers(port):
            if process.poll() is not None or time.perf_counter() - begun > START_S:
                raise RuntimeError(f"{name} did not start: {' '.join(command)}")
            time.sleep(0.002)
        yield Peer(name, url, process.pid, time.perf_counter() - begun)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


@contextmanager
def _process(
    command: list[str], *, environ: Mapping[str, str] | None = None, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=stdout)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
