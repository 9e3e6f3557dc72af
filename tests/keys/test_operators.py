"""The operator's keys: variables, mounted files, commands; their faults first."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from calliope_agent.errors import KeyMissing
from tests.keys.conftest import KEY, NEED, OWN, Bench


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (f"{KEY}\nsecond line", "more than one line"),
        (f"{KEY}\r\nX-Injected: 1", "more than one line"),
        (f"{KEY}\x00", "control character"),
        (f"{KEY}\x1b[2J", "control character"),
        (f"{KEY} {KEY}", "a space"),
        ("sk–dash", "outside ASCII"),
        (f"Bearer {KEY}", "the word Bearer"),
        ("k" * 20_000, "longer than"),
    ],
)
async def test_a_file_that_is_no_key_is_refused_with_its_reason(
    bench: Bench, tmp_path: Path, content: str, why: str
) -> None:
    path = tmp_path / "key"
    path.write_text(content, newline="")
    store = bench.store({"MISTRAL_API_KEY_FILE": str(path)})
    await store.set("mistral", NEED.origin, OWN)
    assert await store.find(NEED) is None, "a person's key must not stand in for a broken key of the operator"
    with pytest.raises(KeyMissing, match=why) as caught:
        await store.require(NEED)
    assert str(path) in caught.value.message
    assert "canary" not in caught.value.message


async def test_a_variable_that_is_no_key_is_refused(bench: Bench) -> None:
    with pytest.raises(KeyMissing, match="environment MISTRAL_API_KEY holds more than one line"):
        await bench.store({"MISTRAL_API_KEY": f"{KEY}\nX: y"}).require(NEED)


async def test_a_pipe_and_a_directory_are_refused_and_do_not_hang(bench: Bench, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(KeyMissing, match=f"{path} (is not a plain file|cannot be read)"):
            await bench.store({"MISTRAL_API_KEY_FILE": str(path)}).require(NEED)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
async def test_an_unreadable_file_says_who_must_read_it(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(0)
    with pytest.raises(KeyMissing, match=f"Let user {os.geteuid()} read it"):
        await bench.store({"MISTRAL_API_KEY_FILE": str(path)}).require(NEED)


async def test_nothing_set_names_the_command_and_the_variable(bench: Bench) -> None:
    store = bench.store({"MISTRAL_API_KEY": "", "CODESTRAL_API_KEY": " "})
    assert await store.find(NEED) is None
    with pytest.raises(KeyMissing, match="calliope-agent keys set mistral, or set MISTRAL_API_KEY"):
        await store.require(NEED)


async def test_names_count_in_order_and_the_label_says_which(bench: Bench) -> None:
    store = bench.store({"CODESTRAL_API_KEY": KEY})
    assert (await store.require(NEED)).label == "sk-…aaaa (environment CODESTRAL_API_KEY)"
    store = bench.store({"CODESTRAL_API_KEY": KEY, "MISTRAL_API_KEY": OWN})
    assert (await store.require(NEED)).source == "environment MISTRAL_API_KEY"
    assert [(line.source, line.state) for line in await store.sources(NEED) if line.state != "unset"] == [
        ("environment MISTRAL_API_KEY", "used"),
        ("environment CODESTRAL_API_KEY", "shadowed"),
    ]


async def test_a_token_of_the_agent_is_no_key(bench: Bench) -> None:
    store = bench.store({"MISTRAL_API_KEY": "cal-0123456789abcdef", "CODESTRAL_API_KEY": KEY})
    assert (await store.require(NEED)).source == "environment CODESTRAL_API_KEY"
    first = (await store.sources(NEED))[0]
    assert (first.state, first.note) == ("ignored", "Ignored: it is a token of this agent, which opens no provider.")


async def test_a_mounted_file_counts_at_once_when_it_appears_changes_and_goes(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "key"
    store = bench.store({"MISTRAL_API_KEY_FILE": str(path)})
    with pytest.raises(KeyMissing, match=f"There is no file {path}"):
        await store.require(NEED)
    path.write_text(f"{KEY}\r\n")
    first = await store.require(NEED)
    assert (first.value.reveal(), first.source) == (KEY, f"file {path} (environment MISTRAL_API_KEY_FILE)")
    assert await store.find(NEED) is first
    # Of the same length and with the old modification time: rotation by a tool that restores times.
    times = path.stat()
    path.write_text(f"{OWN}xx\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = await store.require(NEED)
    assert second.value.reveal() == f"{OWN}xx"
    assert second.identity != first.identity
    path.unlink()
    assert await store.find(NEED) is None


async def test_a_kubernetes_rotation_swaps_the_link_of_the_directory(bench: Bench, tmp_path: Path) -> None:
    for name, key in (("..1", KEY), ("..2", OWN)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mistral").write_text(key)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "mistral").symlink_to("..data/mistral")
    store = bench.store({"MISTRAL_API_KEY_FILE": str(tmp_path / "mistral")})
    assert (await store.require(NEED)).value.reveal() == KEY
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert (await store.require(NEED)).value.reveal() == OWN


async def test_a_manifests_own_file_comes_after_the_variables(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(OWN)
    need = replace(NEED, file=str(path))
    assert (await bench.store().require(need)).source == f"file {path}"
    assert (await bench.store({"MISTRAL_API_KEY": KEY}).require(need)).value.reveal() == KEY


def command(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("/no/such/program",), "cannot be started"),
        (command(f"print('{KEY}'); raise SystemExit(3)"), "exit status 3"),
        (command("print('x' * 100_000)"), "more than 65536 bytes"),
        (command("print('one\\ntwo')"), "more than one line"),
        (command("pass"), "printed no key"),
    ],
)
async def test_a_failing_command_says_why_and_nothing_of_its_output(
    bench: Bench, argv: tuple[str, ...], why: str
) -> None:
    with pytest.raises(KeyMissing, match=why) as caught:
        await bench.store().require(replace(NEED, command=argv))
    assert "canary" not in caught.value.message


async def test_a_command_gets_no_other_key_and_no_shell(bench: Bench) -> None:
    code = (
        "import os; print('-'.join(sorted(name for name in os.environ if 'KEY' in name or 'TOKEN' in name)) or 'none')"
    )
    environ = {"PATH": os.environ["PATH"], "OPENAI_API_KEY": KEY, "JUPYTERHUB_API_TOKEN": KEY}
    key = await bench.store(environ).require(replace(NEED, command=command(code)))
    assert key.value.reveal() == "none"


async def test_a_command_is_asked_once_and_again_after_its_time_or_a_rejection(bench: Bench, tmp_path: Path) -> None:
    counter = tmp_path / "count"
    code = f"p = {str(counter)!r}; open(p, 'a').write('x'); print('key-number-%d' % len(open(p).read()))"
    need = replace(NEED, command=command(code))
    store = bench.store()
    assert [(await store.require(need)).value.reveal() for _ in range(2)] == ["key-number-1"] * 2
    bench.clock.now += 301
    assert (await store.require(need)).value.reveal() == "key-number-2"
    store.rejected(need)
    assert (await store.require(need)).value.reveal() == "key-number-3"
    assert (await store.require(need)).source == f"command {sys.executable}"


async def test_a_command_does_not_run_while_a_variable_has_the_key(bench: Bench, tmp_path: Path) -> None:
    need = replace(NEED, command=command(f"open({str(tmp_path / 'ran')!r}, 'w')"))
    assert (await bench.store({"MISTRAL_API_KEY": KEY}).require(need)).value.reveal() == KEY
    assert not (tmp_path / "ran").exists()


async def test_the_hot_path_reads_no_file(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    store = bench.store({"MISTRAL_API_KEY_FILE": str(path)})
    first = await store.find(NEED)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("a key in hand is not read again"))
    assert await store.find(NEED) is first
