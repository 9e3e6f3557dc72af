"""The encrypted file: nothing is lost by a wrong passphrase, a full disk, two writers or a newer version."""

import errno
import json
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope_agent.errors import ConfigError, KeyMissing
from calliope_agent.keys import seal
from calliope_agent.keys.lock import locked
from calliope_agent.keys.stored import Stored
from calliope_agent.keys.vault import Vault
from calliope_agent.secret import Secret
from tests.keys.conftest import KEY, NEED, OWN, Bench


def entry(name: str, value: str = KEY) -> Stored:
    return Stored(name, NEED.origin, Secret(value), 1.0)


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


async def test_a_wrong_passphrase_is_one_clear_error_and_nothing_is_lost(bench: Bench) -> None:
    await bench.store(passphrase="right one").set("mistral", NEED.origin, OWN)
    before = files(bench.directory)
    for wrong in ("wrong one", None):
        store = bench.store(passphrase=wrong)
        with pytest.raises(KeyMissing, match="CALLIOPE_KEYS_PASSPHRASE"):
            await store.require(NEED)
        with pytest.raises(ConfigError, match=r"CALLIOPE_KEYS_PASSPHRASE.*[Nn]othing"):
            await store.set("openai", "https://o.example:443", KEY)
        with pytest.raises(ConfigError, match="CALLIOPE_KEYS_PASSPHRASE"):
            await store.remove("mistral")
        assert any("CALLIOPE_KEYS_PASSPHRASE" in note for note in (await store.describe()).notes)
    assert {name: data for name, data in files(bench.directory).items() if name in before} == before
    assert (await bench.store(passphrase="right one").require(NEED)).value.reveal() == OWN


async def test_a_passphrase_given_later_closes_the_file_at_the_next_write(bench: Bench) -> None:
    await bench.store().set("mistral", NEED.origin, OWN)
    later = bench.store(passphrase="new phrase")
    assert (await later.require(NEED)).value.reveal() == OWN
    await later.set("openai", "https://o.example:443", KEY)
    assert (await bench.store(passphrase="new phrase").require(NEED)).value.reveal() == OWN
    assert await bench.store().find(NEED) is None


async def test_no_plain_key_is_in_any_file_and_no_other_user_reads_one(bench: Bench) -> None:
    await bench.store(passphrase="phrase").set("mistral", NEED.origin, OWN)
    await bench.store(passphrase="phrase").set("openai", NEED.origin, KEY)
    for path in bench.directory.iterdir():
        assert b"canary" not in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert bench.directory.stat().st_mode & 0o777 == 0o700


def test_a_lost_or_wrong_key_file_is_said_and_nothing_is_overwritten(tmp_path: Path) -> None:
    Vault(tmp_path, None).put(entry("a"))
    before = (tmp_path / "keys.enc").read_bytes()
    for content, why in (
        (b"x" * 32, "not the one it was closed with"),
        (b"short", "32 bytes"),
        (None, "which is gone"),
    ):
        (tmp_path / "keys.key").unlink(missing_ok=True)
        if content is not None:
            (tmp_path / "keys.key").write_bytes(content)
            (tmp_path / "keys.key").chmod(0o600)
        for call in (lambda: Vault(tmp_path, None).read(), lambda: Vault(tmp_path, None).put(entry("b"))):
            with pytest.raises(ConfigError, match=why):
                call()
    assert (tmp_path / "keys.enc").read_bytes() == before


@given(st.data())
def test_any_damage_is_noticed_and_never_taken_for_keys(data: st.DataObject) -> None:
    unlock = seal.Unlock(None, b"k" * 32)
    raw = bytearray(seal.seal({"keys": {"a": entry("a").plain()}}, unlock))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    try:
        opened = seal.open_sealed(seal.parse(bytes(raw), "F"), unlock, "F")
    except ConfigError:
        return
    # White space, or a digit of base64 whose spare bits differ: the content is what it was.
    assert opened == {"keys": {"a": entry("a").plain()}}


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b"null", b"\xff", b'{"header": {"schema": 1}}', b'{"header": {"schema": "1"}}', b"[" * 50_000],
)
def test_a_file_of_another_shape_is_left_alone(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "keys.enc"
    path.write_bytes(raw)
    path.chmod(0o600)
    for call in (lambda: Vault(tmp_path, None).read(), lambda: Vault(tmp_path, None).put(entry("a"))):
        with pytest.raises(ConfigError, match=r"damaged or not a key file.*Move it away"):
            call()
    assert path.read_bytes() == raw


def test_scrypts_numbers_from_a_file_are_bounded(tmp_path: Path) -> None:
    vault = Vault(tmp_path, Secret("phrase"))
    vault.put(entry("a"))
    outer = json.loads(vault.path.read_bytes())
    outer["header"]["kdf"]["n"] = 1 << 30
    vault.path.write_text(json.dumps(outer))
    with pytest.raises(ConfigError, match="damaged"):
        Vault(tmp_path, Secret("phrase")).read()


async def test_a_newer_versions_file_is_set_aside_untouched_and_said(bench: Bench) -> None:
    await bench.store().set("mistral", NEED.origin, OWN)
    path = bench.directory / "keys.enc"
    outer = json.loads(path.read_bytes())
    outer["header"]["schema"] = 2
    path.write_text(json.dumps(outer))
    newer = path.read_bytes()
    store = bench.store()
    assert await store.find(NEED) is None
    assert path.read_bytes() == newer
    assert any("newer calliope-agent" in note for note in (await store.describe()).notes)
    await store.set("mistral", NEED.origin, KEY)
    aside = list(bench.directory.glob("keys.enc.newer-*"))
    assert [one.read_bytes() for one in aside] == [newer]
    assert any(str(aside[0]) in note for note in (await store.describe()).notes)
    assert (await bench.store().require(NEED)).value.reveal() == KEY


@pytest.mark.parametrize("name", ["keys.enc", "keys.key"])
def test_a_file_that_is_a_link_or_open_to_others_is_refused_with_the_mend(tmp_path: Path, name: str) -> None:
    Vault(tmp_path, None).put(entry("a"))
    path = tmp_path / name
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
            Vault(tmp_path, None).read()
    path.chmod(0o600)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    for call in (lambda: Vault(tmp_path, None).read(), lambda: Vault(tmp_path, None).put(entry("b"))):
        with pytest.raises(ConfigError, match="symbolic link"):
            call()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file to another user")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    Vault(tmp_path, None).put(entry("a"))
    os.chown(tmp_path / "keys.enc", 61001, 61001)
    with pytest.raises(ConfigError, match=r"belongs to user 61001.*chown"):
        Vault(tmp_path, None).read()


def test_a_directory_that_everybody_writes_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match=f"chmod 700 {tmp_path}"):
        Vault(tmp_path, None).put(entry("a"))


WRITER = """
import sys
from pathlib import Path
from calliope_agent.keys.stored import Stored
from calliope_agent.keys.vault import Vault
from calliope_agent.secret import Secret
mine, directory, phrase = sys.argv[1:4]
vault = Vault(Path(directory), Secret(phrase) if phrase else None)
sys.stdin.readline()
for number in range(12):
    vault.put(Stored(f"{mine}-{number}", "https://x:443", Secret(f"value-{mine}-{number}"), 1.0))
    if number % 3 == 2:
        vault.delete(f"{mine}-{number - 1}")
"""


def test_writers_of_several_processes_lose_nothing(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, name, str(tmp_path), ""], env=environ, stdin=subprocess.PIPE)
        for name in "abcd"
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=50)
    assert [writer.returncode for writer in writers] == [0] * 4
    found = Vault(tmp_path, None).read()
    assert sorted(found) == sorted(f"{name}-{number}" for name in "abcd" for number in range(12) if number % 3 != 1)
    assert all(stored.value.reveal() == f"value-{name}" for name, stored in found.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.enc", "keys.key", "keys.lock"]


def refused_flock(_handle: int, _operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def append(path: Path, name: str) -> None:
    for number in range(12):
        with locked(path / "lock", timeout_s=30, flock=refused_flock) as kind:
            assert kind == "lock file"
            text = (path / "log").read_text()
            (path / "log").write_text(f"{text}{name}{number}\n")


def test_where_flock_fails_a_lock_file_keeps_writers_apart(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append, args=(tmp_path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(50)
    assert [writer.exitcode for writer in writers] == [0] * 3
    lines = (tmp_path / "log").read_text().split()
    assert sorted(lines) == sorted(f"{name}{number}" for name in "abc" for number in range(12))
    assert not (tmp_path / "lock.held").exists()


def test_a_dead_writers_lock_file_is_taken_over_and_a_living_ones_is_not(tmp_path: Path) -> None:
    held = tmp_path / "lock.held"
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    held.write_text(f"{socket.gethostname()} {gone.pid} abc")
    with locked(tmp_path / "lock", flock=refused_flock):
        assert held.read_text().split()[1] == str(os.getpid())
    for living in (f"{socket.gethostname()} {os.getppid()} abc", "another-host 1 abc", ""):
        held.write_text(living)
        with (
            pytest.raises(ConfigError, match="held by another process"),
            locked(tmp_path / "lock", timeout_s=0.1, flock=refused_flock),
        ):
            pytest.fail("taken from a living holder")
    os.utime(held, (0, 0))
    with locked(tmp_path / "lock", timeout_s=0.1, flock=refused_flock):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from calliope_agent.keys.lock import locked\n" + (
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="held by another process"), locked(tmp_path / "lock", timeout_s=0.05):
            pytest.fail("held twice")
        holder.kill()
    with locked(tmp_path / "lock", timeout_s=5) as kind:
        assert kind == "flock"


FULL = """
import resource, signal, sys
from pathlib import Path
from calliope_agent.errors import ConfigError
from calliope_agent.keys.stored import Stored
from calliope_agent.keys.vault import Vault
from calliope_agent.secret import Secret
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    Vault(Path(sys.argv[1]), None).put(Stored("b", "https://x:443", Secret("v" * 5000), 1.0))
except ConfigError as exc:
    print(exc.message)
"""


def test_a_write_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    Vault(tmp_path, None).put(entry("a"))
    before = files(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert "full: free some space and try again. Nothing was changed." in done.stdout
    assert files(tmp_path) == before


def _can_mount() -> bool:
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and done.returncode == 0


ON_TMPFS = """
set -e
mount -t tmpfs -o size=64k tmpfs "$1"
"$2" - "$1" <<'END'
import sys
from pathlib import Path
from calliope_agent.errors import ConfigError
from calliope_agent.keys.stored import Stored
from calliope_agent.keys.vault import Vault
from calliope_agent.secret import Secret
directory = Path(sys.argv[1])
put = lambda name, value: Vault(directory, None).put(Stored(name, "https://x:443", Secret(value), 1.0))
put("a", "first")
(directory / "ballast").touch()
with open(directory / "ballast", "wb", buffering=0) as file:
    try:
        while file.write(b"x" * 512):
            pass
    except OSError:
        pass
before = sorted(path.name for path in directory.iterdir())
try:
    put("b", "v" * 8000)
except ConfigError as exc:
    print(exc.message)
print({name: one.value.reveal() for name, one in Vault(directory, None).read().items()})
print(sorted(path.name for path in directory.iterdir()) == before)
END
"""


@pytest.mark.skipif(not _can_mount(), reason="needs root and a mount namespace, to fill a small disk")
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "-m", "/bin/sh", "-c", ON_TMPFS, "sh", str(tmp_path), sys.executable],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    said, kept, same = done.stdout.splitlines()
    assert "No space left on device" in said
    assert "Nothing was changed." in said
    assert kept == "{'a': 'first'}"
    assert same == "True"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_another_user_reads_no_file_of_the_store(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Vault(tmp_path, None).put(entry("a"))
    code = "\n".join(
        f"try: print(open({str(path)!r}, 'rb').read())\nexcept PermissionError: print('refused')"
        for path in (tmp_path / "keys.enc", tmp_path / "keys.key")
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.setgroups([]); os.setgid(61002); os.setuid(61002)\n{code}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stdout == "refused\nrefused\n"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 0


def test_what_killed_writers_left_is_swept_by_the_next(tmp_path: Path) -> None:
    left = [tmp_path / f".{name}.0123456789ab.tmp" for name in ("keys.enc", "keys.key")]
    for path in left:
        path.write_bytes(b"half")
    Vault(tmp_path, None).put(entry("mistral"))
    assert [path for path in left if path.exists()] == []
    assert Vault(tmp_path, None).read()["mistral"].value.reveal() == KEY
