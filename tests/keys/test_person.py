"""A person's keys: policy, origins, keyring and encrypted file side by side."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from keyring.backend import KeyringBackend
from keyring.backends import chainer, fail, null

from calliope_agent.errors import ConfigError, Forbidden, InvalidRequest, KeyMissing
from calliope_agent.keys.person import SHOWN_TTL_S
from calliope_agent.keys.ring import Probe, probe
from tests.keys.conftest import KEY, NEED, OWN, Bench, MemoryKeyring


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("one\ntwo", "more than one line"),
        ("a\tb", "control character"),
        ("cal-0123456789abcdef", "token of this agent"),
        ("Bearer abc", "the word Bearer"),
        ("x" * (10 << 20), "longer than"),
    ],
)
async def test_what_is_no_key_is_not_stored(bench: Bench, value: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        await bench.store().set("mistral", NEED.origin, value)
    assert caught.value.param == "key"
    assert not bench.directory.exists() or not list(bench.directory.glob("keys*"))


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", "-x", "x" * (10 << 20), "a\n", "\x00", "é", "."])
async def test_a_name_that_is_a_path_or_a_trick_is_refused(bench: Bench, name: str) -> None:
    for call in (bench.store().set(name, NEED.origin, KEY), bench.store().remove(name)):
        with pytest.raises(InvalidRequest) as caught:
            await call
        assert caught.value.param == "name"
        assert len(caught.value.message) < 200


async def test_deny_refuses_to_store_and_ignores_what_is_stored(bench: Bench) -> None:
    await bench.store().set("mistral", NEED.origin, OWN)
    store = bench.store(policy="deny")
    assert await store.find(NEED) is None
    with pytest.raises(Forbidden, match="CALLIOPE_USER_KEYS=deny"):
        await store.set("mistral", NEED.origin, OWN)
    with pytest.raises(KeyMissing, match="Ask who runs this server"):
        await store.require(NEED)
    assert (await store.describe()).backend == "none"


async def test_allow_uses_the_persons_key_where_the_operator_set_none(bench: Bench) -> None:
    await bench.store().set("mistral", NEED.origin, OWN)
    assert (await bench.store().require(NEED)).label == "sk-…bbbb (encrypted file)"
    store = bench.store({"MISTRAL_API_KEY": KEY})
    assert (await store.require(NEED)).value.reveal() == KEY
    assert [(line.source, line.state) for line in await store.sources(NEED) if line.state != "unset"] == [
        ("environment MISTRAL_API_KEY", "used"),
        ("encrypted file", "shadowed"),
    ]


async def test_override_uses_the_persons_key_first(bench: Bench) -> None:
    store = bench.store({"MISTRAL_API_KEY": KEY}, policy="override")
    assert (await store.require(NEED)).value.reveal() == KEY
    await store.set("mistral", NEED.origin, OWN)
    assert (await store.require(NEED)).value.reveal() == OWN
    assert await store.remove("mistral")
    assert (await store.require(NEED)).value.reveal() == KEY


@pytest.mark.parametrize(
    "origin",
    [
        "http://api.mistral.example:443",
        "https://api.mistral.example:444",
        "https://api.mistral.example.evil.example:443",
        "https://evil.example:443",
        "",
    ],
)
async def test_a_stored_key_goes_to_no_other_scheme_host_or_port(bench: Bench, origin: str) -> None:
    store = bench.store()
    await store.set("mistral", NEED.origin, OWN)
    moved = replace(NEED, origin=origin)
    assert await store.find(moved) is None
    with pytest.raises(KeyMissing, match="calliope-agent keys set mistral") as caught:
        await store.require(moved)
    assert f"The stored key is for {NEED.origin}" in caught.value.message
    assert (await store.require(NEED)).value.reveal() == OWN


async def test_a_persons_file_cannot_name_the_operators_variable_file_or_command(bench: Bench, tmp_path: Path) -> None:
    path, ran = tmp_path / "secret", tmp_path / "ran"
    path.write_text(KEY)
    hostile = replace(
        NEED,
        provider="mine",
        origin="https://evil.example:443",
        operator=False,
        file=str(path),
        command=("/bin/sh", "-c", f"touch {ran}; echo {KEY}"),
    )
    store = bench.store({"MISTRAL_API_KEY": KEY, "CODESTRAL_API_KEY_FILE": str(path)})
    assert await store.find(hostile) is None
    assert [line.source for line in await store.sources(hostile)] == ["stored key"]
    with pytest.raises(KeyMissing) as caught:
        await store.require(hostile)
    assert "MISTRAL_API_KEY" not in caught.value.message
    assert not ran.exists()


async def test_a_key_set_by_another_process_counts_at_once_and_a_removed_one_is_gone_at_once(bench: Bench) -> None:
    running, command_line = bench.store(), bench.store()
    assert await running.find(NEED) is None
    await command_line.set("mistral", NEED.origin, OWN)
    assert (await running.require(NEED)).value.reveal() == OWN
    await command_line.set("mistral", NEED.origin, KEY)
    assert (await running.require(NEED)).value.reveal() == KEY
    assert await command_line.remove("mistral")
    assert await running.find(NEED) is None
    assert not await command_line.remove("mistral")


async def test_the_same_holds_in_a_keyring(bench: Bench, ring: MemoryKeyring) -> None:
    running, command_line = bench.store(), bench.store()
    assert await running.find(NEED) is None
    assert (await command_line.set("mistral", NEED.origin, OWN)).source == "keyring"
    assert not (bench.directory / "keys.enc").exists()
    assert (await running.require(NEED)).label == "sk-…bbbb (keyring)"
    await command_line.set("mistral", NEED.origin, KEY)
    assert (await running.require(NEED)).value.reveal() == KEY
    assert await command_line.remove("mistral")
    assert await running.find(NEED) is None
    assert ring.held == {}


async def test_a_change_by_another_program_counts_after_a_minute(bench: Bench, ring: MemoryKeyring) -> None:
    store = bench.store()
    await store.set("mistral", NEED.origin, OWN)
    await store.require(NEED)
    ring.held.clear()
    assert await store.find(NEED) is not None
    bench.clock.now += 61
    assert await store.find(NEED) is None


async def test_a_keyring_that_goes_away_is_said_and_no_older_key_comes_back(bench: Bench, ring: MemoryKeyring) -> None:
    await bench.store().set("mistral", NEED.origin, OWN)
    ring.away = True
    store = bench.store()
    with pytest.raises(KeyMissing, match=r"keyring .* cannot read keys: OSError") as caught:
        await store.require(NEED)
    assert "canary" not in caught.value.message
    with pytest.raises(ConfigError, match="cannot read"):
        await store.remove("mistral")
    assert (await store.set("mistral", NEED.origin, KEY)).source == "encrypted file"
    ring.away = False
    assert (await bench.store().require(NEED)).value.reveal() == KEY, "the newer one, though the keyring is back"


async def test_a_key_moves_from_the_file_to_a_keyring_that_appears(bench: Bench) -> None:
    await bench.store().set("mistral", NEED.origin, OWN)
    bench.ring = MemoryKeyring()
    await bench.store().set("mistral", NEED.origin, KEY)
    bench.ring = None
    assert await bench.store().find(NEED) is None, "the old key must not be left in the file"


async def test_a_strangers_entry_in_the_keyring_is_no_key(bench: Bench, ring: MemoryKeyring) -> None:
    await bench.store().set("mistral", NEED.origin, OWN)
    for text in ("plain", "[]", '{"origin": 1}', '{"origin": "x", "value": "", "set_at": 1}', "[" * 100_000):
        ring.held = dict.fromkeys(ring.held, text)
        assert await bench.store().find(NEED) is None


async def test_without_a_keyring_the_report_says_where_keys_go_and_why(bench: Bench) -> None:
    report = await bench.store().describe()
    assert report.backend == "encrypted file"
    assert report.why.startswith(
        f"no D-Bus session, so no Secret Service: keys go to the encrypted file {bench.directory / 'keys.enc'}"
    )
    assert "CALLIOPE_KEYS_PASSPHRASE closes it" in report.why
    assert "closed by CALLIOPE_KEYS_PASSPHRASE" in (await bench.store(passphrase="long enough").describe()).why


async def test_with_a_keyring_the_report_says_so(bench: Bench, ring: MemoryKeyring) -> None:
    assert (await bench.store().describe()).backend == "keyring"


async def test_the_report_looks_for_a_keyring_once_in_a_while_and_after_every_key(bench: Bench) -> None:
    looks: list[Probe] = []
    store = bench.store()

    def look(environ: Mapping[str, str]) -> Probe:
        looks.append(bench.probe(environ))
        return looks[-1]

    store.person.look = look
    for _ in range(3):
        assert (await store.describe()).backend == "encrypted file"
    assert len(looks) == 1
    bench.ring = MemoryKeyring()
    await store.set("mistral", NEED.origin, OWN)
    assert (await store.describe()).backend == "keyring"
    assert len(looks) == 2
    bench.ring = None
    bench.clock.now += SHOWN_TTL_S
    assert (await store.describe()).backend == "encrypted file"


async def test_a_keyring_that_took_no_key_is_not_told_as_the_place_of_keys(bench: Bench, ring: MemoryKeyring) -> None:
    store = bench.store()
    ring.away = True
    await store.set("mistral", NEED.origin, OWN)
    report = await store.describe()
    assert (report.backend, "cannot write keys" in report.why) == ("encrypted file", True)


class PlaintextKeyring(MemoryKeyring):
    pass


class WeakKeyring(MemoryKeyring):
    priority = 0.5  # type: ignore[assignment]


def test_backends_that_keep_nothing_closed_count_as_none() -> None:
    useless: list[KeyringBackend] = [
        fail.Keyring(),  # type: ignore[no-untyped-call]
        null.Keyring(),  # type: ignore[no-untyped-call]
        chainer.ChainerBackend(),  # type: ignore[no-untyped-call]
        PlaintextKeyring(),
        WeakKeyring(),
    ]
    assert probe({}, lambda: useless) == Probe(None, "no D-Bus session, so no Secret Service")
    assert probe({"DBUS_SESSION_BUS_ADDRESS": "unix:path=/x"}, list).why == "no Secret Service on D-Bus"
    assert probe({}, lambda: [*useless, MemoryKeyring()]).ring is not None


def test_the_operator_may_choose_a_backend_or_none() -> None:
    switch = "PYTHON_KEYRING_BACKEND"
    ours = f"{MemoryKeyring.__module__}.MemoryKeyring"
    assert "keeps no key closed" in probe({switch: "keyring.backends.null.Keyring"}, lambda: [MemoryKeyring()]).why
    assert "keeps no key closed" in probe({switch: "keyrings.alt.file.PlaintextKeyring"}, list).why
    assert probe({switch: ours}, lambda: [MemoryKeyring()]).ring is not None
    assert probe({switch: "some.Other"}, lambda: [MemoryKeyring()]).why == "some.Other does not work here"


def test_a_plugin_that_breaks_while_it_is_looked_at_is_no_end() -> None:
    def broken() -> list[MemoryKeyring]:
        raise RuntimeError(KEY)

    assert probe({}, broken) == Probe(None, "the keyrings cannot be looked at (RuntimeError)")


def test_a_home_cannot_choose_the_keyrings_code(tmp_path: Path) -> None:
    """keyringrc.cfg may name a path to import from: in a person's home that would run in the agent."""
    config = tmp_path / "python_keyring"
    config.mkdir()
    (tmp_path / "thief.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (config / "keyringrc.cfg").write_text(f"[backend]\ndefault-keyring=thief.Keyring\nkeyring-path={tmp_path}\n")
    code = "from calliope_agent.keys.ring import probe; import os; print(probe(os.environ).why)"
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "no D-Bus session, so no Secret Service\n"
    assert not (tmp_path / "ran").exists()


HANGING = f"""
import asyncio, os, sys
from pathlib import Path
from calliope_agent.keys import KeyNeed, KeyStore
need = KeyNeed("mistral", (), "{NEED.origin}", operator=True)

async def main():
    store = KeyStore(os.environ, Path(sys.argv[1]), "allow", None)
    store.person.ring_timeout_s = 1.5
    print((await store.set("mistral", need.origin, "{OWN}")).source)
    print("did not answer in 1.5 s" in (await store.describe()).why)
    print((await store.require(need)).value.reveal() == "{OWN}")

asyncio.run(main())
"""


async def test_a_bus_that_never_answers_costs_a_bounded_time_at_work_and_at_exit(tmp_path: Path) -> None:
    async def let_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"AUTH")
        writer.write(b"OK 0123456789abcdef0123456789abcdef\r\n")
        await reader.read()
        writer.close()

    path = tmp_path / "bus"
    environ = {
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={path}",
        "PYTHON_KEYRING_BACKEND": "keyring.backends.SecretService.Keyring",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    async with await asyncio.start_unix_server(let_in, path):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HANGING, str(tmp_path / "config"), env=environ, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(30):
            output, _ = await process.communicate()
    assert output.decode().split("\n") == ["encrypted file", "True", "True", ""]


async def test_a_keyring_that_hangs_in_the_middle_is_left(bench: Bench, ring: MemoryKeyring) -> None:
    await bench.store().set("mistral", NEED.origin, OWN)
    forever = threading.Event()
    ring.before = lambda: forever.wait(20)
    store = bench.store()
    store.person.ring_timeout_s = 0.2
    with pytest.raises(KeyMissing, match=r"did not answer in 0\.2 s"):
        await store.require(NEED)
    forever.set()


async def test_many_ask_at_once_and_the_keyring_is_asked_once(bench: Bench, ring: MemoryKeyring) -> None:
    await bench.store().set("mistral", NEED.origin, OWN)
    asked: list[int] = []
    ring.before = lambda: asked.append(1)
    store = bench.store()
    found = await asyncio.gather(*(store.require(NEED) for _ in range(20)))
    assert {key.value.reveal() for key in found} == {OWN}
    assert asked == [1]


async def test_identities_tell_keys_apart_and_last_over_a_restart(bench: Bench) -> None:
    one = await bench.store({"MISTRAL_API_KEY": KEY}).require(NEED)
    again = await bench.store({"CODESTRAL_API_KEY": KEY}).require(NEED)
    other = await bench.store({"MISTRAL_API_KEY": OWN}).require(NEED)
    assert one.identity == again.identity != other.identity
    assert KEY not in one.identity
    (bench.directory / "identity.salt").unlink()
    assert (await bench.store({"MISTRAL_API_KEY": KEY}).require(NEED)).identity != one.identity


async def test_the_boundary_learns_every_key_and_forgets_no_replaced_one(bench: Bench) -> None:
    environ = {"MISTRAL_API_KEY": KEY, "SOMETHING_SECRET": "zq-other-secret-value"}
    store = bench.store(environ, passphrase="the-pass-phrase")
    await store.set("mistral", NEED.origin, OWN)
    known = {secret.reveal() for secret in store.known_values()}
    assert known == {KEY, OWN, "zq-other-secret-value", "the-pass-phrase"}
    assert "canary" not in repr(store.known_values())
    assert "canary" not in repr(await store.require(NEED))
    assert "canary" not in repr(await store.sources(NEED))
