"""``python -m tests.bench.launcher_bench [--quick]``: what the launcher's start, memory and proxy cost, in one run.

The proxy is measured against the same server asked directly and through the stock jupyter-server-proxy of the same Jupyter
process. On a shared machine read the ratios and the CPU, not the wall clock.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import aiohttp

from tests.launcher.stack import FAKE_IDE, TOKEN, Stack, free_port, running, wait_for

TICKS = os.sysconf("SC_CLK_TCK")
FRAME = os.urandom(1 << 16)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    rounds = 60 if parser.parse_args().quick else 400
    with tempfile.TemporaryDirectory(prefix="cal-bench-") as folder:
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        stack = Stack(Path(folder), _environ())
        _start(stack)
        with running(stack):
            _memory(stack)
            other = free_port()
            server = subprocess.Popen([sys.executable, FAKE_IDE, str(other)], stdout=subprocess.DEVNULL)
            try:
                wait_for(lambda: _listens(other), "the server behind jupyter-server-proxy")
                asyncio.run(_compare(stack, other, rounds))
            finally:
                server.terminate()
                server.wait()
    return 0


def _environ() -> dict[str, str]:
    """The real IDE where one is installed: its start is the longest part."""
    data = os.environ.get("CALLIOPE_DATA_DIR")
    return {"USE_ALL_COMPONENTS": "true", **({"REAL_DATA_DIR": data} if data else {})}


def _start(stack: Stack) -> None:
    """A start of its own, of the real IDE when there is one, stopped again."""
    environ = dict(stack.environ)
    if data := environ.get("REAL_DATA_DIR"):
        stack.environ |= {"WAIIDE_IDE_COMMAND": "", "CALLIOPE_DATA_DIR": data}
    began = time.monotonic()
    stack.start()
    marks = {}
    for name, path, headers in (("/health", "/health", {}), ("Jupyter", "api/status", None), ("IDE page", "", None)):
        wait_for(partial(_answers, stack, path, headers), name, 90)
        marks[name] = time.monotonic() - began
    print("start: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in marks.items()))
    _memory(stack)
    began = time.monotonic()
    stack.stop()
    print(f"stop: {time.monotonic() - began:.2f} s")
    stack.environ = environ


def _answers(stack: Stack, path: str, headers: dict[str, str] | None) -> bool:
    return stack.get(path, headers).status in (200, 302)


def _memory(stack: Stack) -> None:
    assert stack.process is not None
    guard = stack.process.pid
    rows = []
    for pid in sorted(stack.below()):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        name = (
            "guard"
            if pid == guard
            else next((w for w in words if w in NAMES), NAMES.get(Path(words[0]).name, "launcher"))
        )
        rows.append(f"{NAMES.get(name, name)} {_pss_mib(pid):.0f}")
    print("memory, PSS in MiB: " + ", ".join(rows))


NAMES = {"jupyter_server": "Jupyter", "calliope_agent": "agent", "node": "IDE", str(FAKE_IDE): "stand-in IDE"}


def _pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def _compare(stack: Stack, other: int, rounds: int) -> None:
    jupyter = _jupyter(stack)
    ways = {
        "direct": f"http://127.0.0.1:{other}/",
        "ours": stack.url(""),
        "jupyter-server-proxy": stack.url(f"proxy/{other}/"),
    }
    headers = {"Authorization": f"token {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for name, root in ways.items():
            before, waits = _cpu_s(jupyter), []
            for _ in range(rounds):
                began = time.perf_counter()
                async with session.get(f"{root}small") as answer:
                    await answer.read()
                waits.append(time.perf_counter() - began)
            cpu = (_cpu_s(jupyter) - before) / rounds * 1000
            print(f"2 kB page, {name}: p50 {statistics.median(waits) * 1000:.2f} ms, Jupyter's CPU {cpu:.2f} ms")
        for name, root in ways.items():
            speed = await _echo(session, f"{root}socket", max(20, rounds // 4))
            print(f"websocket echo of 64 KiB, {name}: {speed:.0f} MB/s")


async def _echo(session: aiohttp.ClientSession, url: str, count: int) -> float:
    async with session.ws_connect(url, max_msg_size=0) as connection:
        began = time.perf_counter()

        async def send() -> None:
            for _ in range(count):
                await connection.send_bytes(FRAME)

        sending = asyncio.create_task(send())
        for _ in range(count):
            await connection.receive_bytes()
        await sending
        return 2 * count * len(FRAME) / (time.perf_counter() - began) / 1e6


def _jupyter(stack: Stack) -> int:
    return next(pid for pid in stack.below() if b"jupyter_server" in Path(f"/proc/{pid}/cmdline").read_bytes())


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


if __name__ == "__main__":
    sys.exit(main())
