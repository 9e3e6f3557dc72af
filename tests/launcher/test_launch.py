"""The launcher's life: starts, deaths, stops. Each test has a stack of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launcher.stack import TOKEN, Stack, alive, free_port, running, terminal_environment, wait_for


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with running(Stack(tmp_path)) as found:
        yield found


def ide_pid(stack: Stack) -> int:
    return int(stack.get("x").json()["pid"])


def test_health_answers_and_a_page_says_what_failed(tmp_path: Path) -> None:
    stack = Stack(tmp_path, {"WAIIDE_IDE_COMMAND": "/nonexistent/ide"})
    stack.start()
    try:
        healthy = wait_for(lambda: stack.get("/health", {}), "the front")
        assert healthy.json()["status"] == "healthy"
        assert healthy.json()["timestamp"].endswith("Z")
        wait_for(lambda: stack.get("api/status").status == 200, "Jupyter")
        assert stack.services()["WAIIDE"]["status"] in ("restarting", "failed", "starting")
        page = stack.get("")
        assert page.status == 503
        assert b"cannot be started" in page.body
    finally:
        stack.stop()


def test_no_ide_is_one_clear_line_and_everything_else_works(tmp_path: Path) -> None:
    stack = Stack(tmp_path, {"WAIIDE_IDE_COMMAND": "", "CALLIOPE_DATA_DIR": str(tmp_path / "nothing")})
    stack.start()
    try:
        wait_for(lambda: stack.get("api/status").status == 200, "Jupyter")
        assert "No IDE is installed. Run `calliope-agent ide install`" in stack.text()
        assert stack.get("api/contents").status == 200
        assert b"No IDE is installed" in stack.get("").body
    finally:
        stack.stop()


def test_a_launcher_that_does_not_answer_costs_the_page_its_log_only(tmp_path: Path) -> None:
    stack = Stack(tmp_path, {"WAIIDE_IDE_COMMAND": "/nonexistent/ide"})
    stack.start()
    try:
        wait_for(lambda: stack.get("api/status").status == 200, "Jupyter")
        assert b"Last lines" in stack.get("").body
        assert stack.process is not None
        guard = stack.process.pid
        launcher = int(Path(f"/proc/{guard}/task/{guard}/children").read_text().split()[0])
        os.kill(launcher, signal.SIGSTOP)
        try:
            page = stack.get("")
        finally:
            os.kill(launcher, signal.SIGCONT)
        assert page.status == 503
        assert b"The IDE does not listen yet" in page.body
        assert b"Last lines" not in page.body
        wait_for(lambda: "the launcher does not tell the IDE's last lines" in stack.text(), "the word about it")
    finally:
        stack.stop()


def test_a_killed_ide_comes_back_and_is_told(stack: Stack) -> None:
    before = ide_pid(stack)
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: stack.services()["WAIIDE"].get("restarts") == 1, "the restart", 10)
    wait_for(lambda: stack.services()["WAIIDE"]["status"] == "running", "the IDE", 10)
    assert ide_pid(stack) != before
    assert stack.services()["WAIIDE"]["reason"] == "SIGKILL"


def test_a_killed_ide_leaves_no_extension_host(stack: Stack) -> None:
    left = stack.ask("POST", "leave-child").json()["pid"]
    os.kill(ide_pid(stack), signal.SIGKILL)
    wait_for(lambda: not alive(left), "the end of the extension host", 10)


@pytest.mark.parametrize("victim", ["launcher", "guard"])
def test_a_killed_launcher_leaves_nobody(tmp_path: Path, victim: str) -> None:
    stack = Stack(tmp_path)
    stack.start()
    try:
        stack.ready()
        stack.ask("POST", "leave-child")
        assert stack.process is not None
        guard = stack.process.pid
        children = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
        everybody = stack.below()
        assert len(everybody) >= 4
        os.kill(guard if victim == "guard" else int(children[0]), signal.SIGKILL)
        wait_for(lambda: not any(map(alive, everybody - {guard})), "the end of all", 15)
    finally:
        for pid in stack.below():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert stack.process is not None
        stack.process.wait(10)


def test_a_killed_jupyter_comes_back_while_health_goes_on(stack: Stack) -> None:
    pid = next(p for p in stack.below() if b"jupyter_server" in Path(f"/proc/{p}/cmdline").read_bytes())
    ide = ide_pid(stack)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: stack.get("/health", {}).status == 200, "health", 10)
    stack.ready()
    assert ide_pid(stack) == ide


async def test_sigterm_during_a_stream_ends_everything_in_time(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.start()
    try:
        await asyncio.to_thread(stack.ready)
        async with stack.session() as session, session.get(stack.url("stream?events=600")) as answer:
            await answer.content.readany()
            assert await asyncio.to_thread(stack.stop, signal.SIGTERM, 9.5) == 128 + signal.SIGTERM
        assert stack.below() == set()
    finally:
        stack.stop(signal.SIGKILL)


def test_a_taken_port_is_one_line_with_its_holder(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", stack.port))
        holder.listen()
        stack.start()
        assert stack.process is not None
        assert stack.process.wait(20) == 1
    lines = [line for line in stack.text().splitlines() if line]
    assert len(lines) == 1
    assert f"Port {stack.port} (PORT) is taken by" in lines[0]
    assert f"(pid {os.getpid()})" in lines[0]


def test_a_second_start_says_where_the_first_is(stack: Stack) -> None:
    second = subprocess.run(
        [sys.executable, "-c", Stack.command()],
        env={**stack.environ, "PORT": str(free_port())},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 0
    assert second.stdout.strip() == f"already running at {stack.url('')}"


def test_restart_restarts_the_ide_and_not_jupyter(stack: Stack) -> None:
    started, before = stack.get("api/status").json()["started"], ide_pid(stack)
    answer = stack.ask("POST", "api/restart", body=b"")
    assert answer.status == 202
    assert answer.json() == {"status": "restarting", "services": ["ide"]}
    wait_for(lambda: (told := stack.get("x")).status == 200 and told.json()["pid"] != before, "the new IDE", 10)
    assert stack.get("api/status").json()["started"] == started


def test_an_idle_server_ends_itself_and_a_busy_one_does_not(tmp_path: Path) -> None:
    stack = Stack(tmp_path, {"WAIIDE_IDLE_SHUTDOWN_S": "8"})
    stack.start()
    try:
        stack.ready()
        for _ in range(3):  # asking for the state is no activity
            stack.get("api/status")
        assert stack.process is not None
        assert stack.process.wait(40) == 0
        assert "nobody was active for 8 s" in stack.text()
    finally:
        stack.stop()


def test_the_home_is_prepared_and_survives(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    with running(stack):
        assert (stack.home / "workspace").is_dir()
        settings = next(stack.home.rglob("User/settings.json"))
        settings.write_text("{}")
    with running(stack):
        assert settings.read_text() == "{}"


def test_terminals_and_notebooks_hold_no_secret(alone: Stack) -> None:
    """The environment that Jupyter hands to what it starts, seen from a real terminal."""
    found = asyncio.run(terminal_environment(alone))
    assert "JUPYTER_TOKEN" not in found
    assert "WAIIDE_CONTROL_FD" not in found
    assert not {name for name in found if name.endswith(("_API_KEY", "_API_TOKEN"))}
    assert found["HOME"] == str(alone.home)


def test_the_ide_holds_no_secret(alone: Stack) -> None:
    environ = alone.get("x").json()["environ"]
    assert not {name for name, value in environ.items() if "provider-key" in value or TOKEN in value}
    assert environ["JUPYTERHUB_USER"] == "alice"
