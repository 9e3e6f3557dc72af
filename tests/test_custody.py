"""Custody: what others of this machine see of the process, and what its children are given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from calliope_agent.custody import PERSON_UID, enforce_separation, separation
from calliope_agent.errors import ConfigError

CANARY = "sk-canary-0123456789abcdefghijkl"
AGENT, PERSON = 61001, 61002
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become two other users")

HOLDER = f"""
import os, sys
key = os.environ["OPENAI_API_KEY"]
from calliope_agent.custody import harden_process
os.setgroups([]); os.setgid({AGENT}); os.setuid({AGENT})
print(harden_process(), flush=True)
sys.stdin.read()
"""

THIEF = """
import ctypes, os, sys
pid = int(sys.argv[1])
os.setgroups([]); os.setgid(UID); os.setuid(UID)
got = []
for name in ("environ", "mem", "maps", "fd/0", "cwd/x", "root/etc/passwd", "stack", "syscall"):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            file.read(1)
        got.append(name)
    except OSError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(16, pid, 0, 0) == 0:
    got.append("ptrace attach")
if libc.ptrace(0x4206, pid, 0, 0) == 0:
    got.append("ptrace seize")
try:
    os.kill(pid, 0)
    got.append("signal")
except PermissionError:
    pass
print(got)
"""


def holder(environ: dict[str, str]) -> subprocess.Popen[str]:
    root = Path(__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        env={**environ, "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def stolen(pid: int, uid: int) -> str:
    code = THIEF.replace("UID", str(uid))
    return subprocess.run(
        [sys.executable, "-c", code, str(pid)], capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()


@as_root
def test_another_user_can_look_into_nothing_of_the_agent() -> None:
    with holder({"OPENAI_API_KEY": CANARY}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "Hardening(dumpable=False, core_dumps=False, problems=())\n"
        try:
            assert stolen(process.pid, PERSON) == "[]"
        finally:
            process.kill()


@as_root
def test_even_a_process_of_the_agents_own_user_cannot_look_in() -> None:
    with holder({"OPENAI_API_KEY": CANARY}) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert stolen(process.pid, AGENT) == "['signal']"
        finally:
            process.kill()


@as_root
def test_the_thief_of_these_tests_would_succeed_without_hardening() -> None:
    process = subprocess.Popen(
        ["/bin/cat"],
        env={"OPENAI_API_KEY": CANARY},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=AGENT,
        group=AGENT,
        extra_groups=[],
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("ready\n")
        process.stdin.flush()
        process.stdout.readline()
        try:
            assert "environ" in stolen(process.pid, AGENT)
            assert "environ" not in stolen(process.pid, PERSON)
        finally:
            process.kill()


def test_the_persons_own_user_is_no_separation() -> None:
    report = separation({PERSON_UID: str(os.geteuid())})
    assert not report.separated
    assert report.reasons


def test_another_user_is_a_separation_unless_a_mounted_file_is_open_to_him(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(CANARY)
    environ = {PERSON_UID: str(PERSON), "OPENAI_API_KEY_FILE": str(path)}
    path.chmod(0o600)
    assert separation(environ).separated
    path.chmod(0o644)
    assert separation(environ).reasons == (f"{path} can be read by user {PERSON}.",)
    assert not separation(environ).separated


def test_required_separation_refuses_keys_that_the_person_could_read() -> None:
    environ = {PERSON_UID: str(os.geteuid()), "OPENAI_API_KEY": CANARY}
    with pytest.raises(ConfigError, match="could read HF_TOKEN_FILE, OPENAI_API_KEY: ") as caught:
        enforce_separation(environ, {"OPENAI_API_KEY", "HF_TOKEN_FILE"})
    assert CANARY not in str(caught.value)
    assert "sidecar" in caught.value.message


def test_required_separation_is_content_without_operator_keys_or_with_another_user() -> None:
    enforce_separation({PERSON_UID: str(os.geteuid())}, ())
    enforce_separation({PERSON_UID: str(PERSON)}, {"OPENAI_API_KEY"})
