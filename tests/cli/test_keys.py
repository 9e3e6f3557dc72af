"""``calliope-agent keys`` as real processes: no echo, no key in any output, a headless container's store."""

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KEY = "sk-canary-0123456789-abcdef-9z9z"


@dataclass
class Shell:
    """A shell in a container without D-Bus."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, given: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "calliope_agent", "keys", *words],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "PYTHONPATH": str(ROOT),
                **self.environ,
                **environ,
            },
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        assert "canary" not in done.stdout + done.stderr
        return done


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.mark.parametrize(
    ("words", "given", "environ", "said"),
    [
        (("set", "mitral"), KEY, {}, "no provider 'mitral'. Did you mean 'mistral'?"),
        (("set", "../../x"), KEY, {}, "no provider '../../x'"),
        (("set", "x\x1b[2J"), KEY, {}, "no provider 'x\\\\x1b[2J'"),
        (("set", "mistral"), "", {}, "is empty"),
        (("set", "mistral"), "cal-0123456789abcdef", {}, "token of this agent"),
        (("set", "mistral"), f"{KEY}\x00", {}, "control character"),
        (("set", "mistral"), KEY, {"CALLIOPE_USER_KEYS": "deny"}, "CALLIOPE_USER_KEYS=deny"),
        (("set", "azure"), KEY, {}, "has no address yet: set AZURE"),
        (("rm", "mistral"), "", {}, "set no key for mistral"),
        (("rm", "../../etc/passwd"), "", {}, "lower-case letters"),
    ],
)
def test_a_refusal_is_one_line_and_changes_nothing(
    shell: Shell, words: tuple[str, ...], given: str, environ: dict[str, str], said: str
) -> None:
    done = shell.run(*words, given=given, **environ)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("calliope-agent: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(shell.home.rglob("keys.enc"))


def test_a_key_survives_without_a_keyring_is_listed_by_label_and_removed(shell: Shell) -> None:
    done = shell.run("set", "mistral", given=f"{KEY}\n")
    first, second = done.stdout.splitlines()
    assert first == "mistral: sk-…9z9z (encrypted file)"
    assert second.startswith("no D-Bus session, so no Secret Service: keys go to the encrypted file ")
    assert json.loads(shell.run("list", "--json").stdout) == [
        {
            "provider": "mistral",
            "sources": [{"source": "encrypted file", "state": "used", "label": "sk-…9z9z", "note": ""}],
        }
    ]
    assert shell.run("rm", "mistral").stdout == "mistral: removed\n"
    assert shell.run("list").stdout == "No keys. Set one: calliope-agent keys set NAME\n"


def test_a_wrong_passphrase_is_one_clear_error_and_the_right_one_finds_everything(shell: Shell) -> None:
    phrase = {"CALLIOPE_KEYS_PASSPHRASE": "right canary phrase"}
    assert shell.run("set", "mistral", given=KEY, **phrase).returncode == 0
    done = shell.run("set", "openai", given=KEY, CALLIOPE_KEYS_PASSPHRASE="wrong canary phrase")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "CALLIOPE_KEYS_PASSPHRASE is not the one" in done.stderr
    assert "sk-…9z9z" in shell.run("list", **phrase).stdout


def test_a_key_that_the_operators_shadows_is_said_to_be_unused(shell: Shell) -> None:
    done = shell.run("set", "mistral", given=KEY, MISTRAL_API_KEY="sk-canary-operator-0123456789-opop")
    assert done.stdout.splitlines()[-1] == (
        "It is kept but not used: sk-…opop (environment MISTRAL_API_KEY) comes first (CALLIOPE_USER_KEYS=allow)."
    )


def test_at_a_terminal_the_key_is_asked_for_and_not_echoed(shell: Shell) -> None:
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "calliope_agent", "keys", "set", "mistral"],
        env={"PATH": os.environ["PATH"], "HOME": str(shell.home), "PYTHONPATH": str(ROOT)},
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    seen = b""
    asked = False
    with process:
        while chunk := _read(main):
            seen += chunk
            if not asked and b"it is not shown): " in seen:
                asked = True
                os.write(main, f"{KEY}\n".encode())
    os.close(main)
    assert process.returncode == 0
    assert asked
    assert b"canary" not in seen
    assert "mistral: sk-…9z9z (encrypted file)" in seen.decode()


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 4096)
    except OSError:
        # Linux answers EIO when the last process of the terminal is gone.
        return b""


class Agent(BaseHTTPRequestHandler):
    """Notes what it is asked and answers as the agent's API does."""

    seen: list[tuple[str, str, str | None, Any]]

    def _answer(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        self.seen.append((self.command, self.path, self.headers.get("authorization"), body))
        told: dict[str, Any] = {"label": "sk-…9z9z (keyring)", "note": "The running agent uses it now."}
        if self.command == "GET":
            told = {
                "providers": [
                    {
                        "name": "mistral",
                        "key_sources": [{"source": "keyring", "state": "used", "label": "x", "note": ""}],
                    }
                ]
            }
        text = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_PUT(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class names it so
        """Nothing on standard error."""


@pytest.fixture
def agent() -> Iterator[tuple[str, list[Any]]]:
    Agent.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Agent) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", Agent.seen
        server.shutdown()
        thread.join(5)


def test_with_an_agents_address_the_running_agent_keeps_the_key(shell: Shell, agent: tuple[str, list[Any]]) -> None:
    url, seen = agent
    shell.environ = {
        "CALLIOPE_AGENT_URL": url,
        "CALLIOPE_MANAGE_TOKEN": "cal-manage-0123456789",
        "CALLIOPE_AGENT_TOKEN": "cal-complete-0123456789",
    }
    done = shell.run("set", "mistral", given=f"{KEY}\n")
    assert done.stdout == "mistral: sk-…9z9z (keyring)\nThe running agent uses it now.\n"
    assert shell.run("list").stdout.splitlines()[1].split() == ["mistral", "x", "keyring", "used"]
    assert shell.run("rm", "a/../b").stdout == "a/../b: removed\n"
    assert [(method, path) for method, path, _, _ in seen] == [
        ("PUT", "/api/providers/mistral/key"),
        ("GET", "/api/providers"),
        ("DELETE", "/api/providers/a%2F..%2Fb/key"),
    ]
    assert seen[0][2:] == ("Bearer cal-manage-0123456789", {"key": KEY})
    assert not list(shell.home.rglob("keys.enc"))


def test_an_agent_that_does_not_run_is_said(shell: Shell) -> None:
    done = shell.run(
        "set",
        "mistral",
        given=KEY,
        CALLIOPE_AGENT_URL="http://127.0.0.1:9",
        CALLIOPE_MANAGE_TOKEN="cal-manage-0123456789",
    )
    assert done.returncode == 1
    assert "The agent is not running" in done.stderr
