"""The store on disk: what somebody else put there neither runs nor counts, and a broken file is set aside."""

from __future__ import annotations

import contextlib
import os
import pickle
import pickletools
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import diskcache
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope_agent.completion.bytesdisk import BytesDisk, Refused
from calliope_agent.completion.disk import DiskStore, StoreUnavailable
from calliope_agent.errors import ConfigError

KEY = b"k" * 32
OTHER = b"o" * 32
ROOM = 4 << 20


class Evil:
    """Unpickling it would leave a file behind."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self._marker}'",)


def bomb(marker: Path) -> bytes:
    return pickletools.optimize(pickle.dumps(Evil(marker)))


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def open_store(tmp_path: Path, lines: list[str]) -> Iterator[Callable[..., DiskStore]]:
    opened: list[DiskStore] = []

    def opener(name: str = "cache", room: int = ROOM) -> DiskStore:
        opened.append(DiskStore(tmp_path / name, room, lines.append))
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


@contextlib.contextmanager
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "cache" / "answers" / "cache.db", isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def plant(
    connection: sqlite3.Connection, key: object, value: object, *, raw: int = 1, mode: int = 1, name: str | None = None
) -> None:
    now = time.time()
    connection.execute(
        "INSERT INTO Cache (key, raw, store_time, access_time, tag, size, mode, filename, value)"
        " VALUES (?, ?, ?, ?, NULL, 0, ?, ?, ?)",
        (key, raw, now, now, mode, name, value),
    )


class TestPlantedRows:
    def test_a_pickled_value_does_not_run_and_is_deleted(
        self, tmp_path: Path, open_store: Callable[..., DiskStore], lines: list[str]
    ) -> None:
        store = open_store()
        marker = tmp_path / "ran"
        with database(tmp_path) as connection:
            plant(connection, KEY, bomb(marker), mode=4)
        assert store.get(KEY) is None
        with database(tmp_path) as connection:
            assert connection.execute("SELECT count(*) FROM Cache").fetchone() == (0,)
        assert not marker.exists()
        assert store.refused == 1
        assert "not as this program writes them were deleted: 1." in lines[0]

    def test_a_pickled_key_does_not_run_and_is_deleted_at_the_next_start(
        self, tmp_path: Path, open_store: Callable[..., DiskStore]
    ) -> None:
        open_store().put(KEY, b"kept", 60)
        marker = tmp_path / "ran"
        with database(tmp_path) as connection:
            plant(connection, bomb(marker), b"value", raw=0)
            plant(connection, OTHER, bomb(marker), mode=4)
        store = open_store()
        assert store.refused == 2
        assert store.size()[0] == 1
        assert store.get(KEY) == b"kept"
        assert not marker.exists()

    def test_the_bomb_is_real(self, tmp_path: Path, open_store: Callable[..., DiskStore]) -> None:
        """What diskcache does on its own with the same rows; without this the tests above could not fail."""
        open_store()
        with database(tmp_path) as connection:
            plant(connection, KEY, bomb(tmp_path / "value ran"), mode=4)
            plant(connection, bomb(tmp_path / "key ran"), b"value", raw=0)
        with contextlib.closing(diskcache.Cache(str(tmp_path / "cache" / "answers"))) as naive:
            naive.get(KEY)
            list(naive)
        assert (tmp_path / "value ran").exists()
        assert (tmp_path / "key ran").exists()

    def test_every_road_of_the_disk_refuses_pickles(self, tmp_path: Path) -> None:
        disk = BytesDisk(str(tmp_path))
        marker = tmp_path / "ran"
        roads: tuple[Callable[[], object], ...] = (
            lambda: disk.get(bomb(marker), False),
            lambda: disk.get("text", True),
            lambda: disk.fetch(4, None, bomb(marker), False),
            lambda: disk.fetch(1, None, "text", False),
            lambda: disk.fetch(1, None, 3, False),
            lambda: disk.fetch(2, "ab/cd.val", None, False),
            lambda: disk.fetch(1, "ab/cd.val", b"", False),
            lambda: disk.fetch(1, None, b"", True),
        )
        for act in roads:
            with pytest.raises(Refused):
                act()
        for value in ("text", 3, None, bytearray(b"x"), Evil(marker)):
            with pytest.raises(TypeError):
                disk.store(value, False)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                disk.put(value)  # type: ignore[arg-type]
        assert not marker.exists()

    @pytest.mark.parametrize("mode", [2, 3, 4])
    def test_a_row_that_points_at_a_file_neither_reads_nor_deletes_it(
        self, tmp_path: Path, open_store: Callable[..., DiskStore], mode: int
    ) -> None:
        precious = tmp_path / "precious"
        precious.write_bytes(b"secret")
        store = open_store()
        with database(tmp_path) as connection:
            plant(connection, KEY, None, mode=mode, name="../../precious")
        assert store.get(KEY) is None
        with database(tmp_path) as connection:
            plant(connection, KEY, None, mode=mode, name="../../precious")
        store.clear()
        with database(tmp_path) as connection:
            plant(connection, KEY, None, mode=mode, name="../../precious")
        open_store()
        assert precious.read_bytes() == b"secret"


class TestBrokenFiles:
    def replace(self, tmp_path: Path, content: bytes) -> None:
        folder = tmp_path / "cache" / "answers"
        folder.mkdir(parents=True, mode=0o700)
        (tmp_path / "cache").chmod(0o700)
        (folder / "cache.db").write_bytes(content)

    def goes_on(self, store: DiskStore, tmp_path: Path, lines: list[str], word: str) -> None:
        assert store.put(KEY, b"value", 60)
        assert store.get(KEY) == b"value"
        again = DiskStore(tmp_path / "cache", ROOM, lines.append)
        assert again.get(KEY) == b"value"
        again.close()
        assert len(lines) == 1
        assert word in lines[0]
        assert "set aside" in lines[0]
        assert len(list((tmp_path / "cache").glob("answers.aside-*"))) == 1

    def test_garbage_is_set_aside(self, tmp_path: Path, open_store: Callable[..., DiskStore], lines: list[str]) -> None:
        self.replace(tmp_path, b"not a database, but long enough to be read as one" * 100)
        self.goes_on(open_store(), tmp_path, lines, "is corrupt")

    def test_a_foreign_database_is_set_aside(
        self, tmp_path: Path, open_store: Callable[..., DiskStore], lines: list[str]
    ) -> None:
        (tmp_path / "cache" / "answers").mkdir(parents=True, mode=0o700)
        (tmp_path / "cache").chmod(0o700)
        with database(tmp_path) as connection:
            connection.execute("CREATE TABLE Mails (text TEXT)")
        self.goes_on(open_store(), tmp_path, lines, "another program")

    def test_a_plain_diskcache_is_foreign(
        self, tmp_path: Path, open_store: Callable[..., DiskStore], lines: list[str]
    ) -> None:
        (tmp_path / "cache").mkdir(mode=0o700)
        with contextlib.closing(diskcache.Cache(str(tmp_path / "cache" / "answers"))) as other:
            other.set("a", {"b": 1})
        (tmp_path / "cache" / "answers").chmod(0o700)
        self.goes_on(open_store(), tmp_path, lines, "another program")

    @pytest.mark.parametrize("schema", [0, 2, 99])
    def test_another_schema_is_set_aside(
        self, tmp_path: Path, open_store: Callable[..., DiskStore], lines: list[str], schema: int
    ) -> None:
        open_store().put(KEY, b"old", 60)
        with database(tmp_path) as connection:
            connection.execute(f"PRAGMA user_version = {schema}")
        self.goes_on(open_store(), tmp_path, lines, f"has schema {schema}")

    def test_settings_of_another_program_are_not_obeyed(
        self, tmp_path: Path, open_store: Callable[..., DiskStore], lines: list[str]
    ) -> None:
        open_store()
        with database(tmp_path) as connection:
            connection.execute("INSERT INTO Settings VALUES ('sqlite_writable_schema', 1)")
        self.goes_on(open_store(), tmp_path, lines, "settings of another program")

    def test_damage_met_while_running_is_set_aside(
        self, tmp_path: Path, open_store: Callable[..., DiskStore], lines: list[str]
    ) -> None:
        store = open_store()
        for number in range(200):
            store.put(number.to_bytes(32, "big"), b"x" * 5000, 60)
        store.close()
        path = tmp_path / "cache" / "answers" / "cache.db"
        data = bytearray(path.read_bytes())
        data[4096:] = b"\xaa" * (len(data) - 4096)
        path.write_bytes(data)
        for number in range(200):
            assert store.get(number.to_bytes(32, "big")) is None
        self.goes_on(store, tmp_path, lines, "is corrupt")

    def test_a_value_that_changed_on_the_disk_is_not_replayed(
        self, tmp_path: Path, open_store: Callable[..., DiskStore], lines: list[str]
    ) -> None:
        store = open_store()
        store.put(KEY, b"rm the test file", 60)
        store.put(OTHER, b"another answer", 60)
        with database(tmp_path) as connection:
            ((value,),) = connection.execute("SELECT value FROM Cache WHERE key = ?", (KEY,)).fetchall()
            changed = value.replace(b"test", b"main")
            connection.execute("UPDATE Cache SET value = ? WHERE key = ?", (changed, KEY))
        assert store.get(KEY) is None
        store.put(KEY, b"rm the test file", 60)
        with database(tmp_path) as connection:
            connection.execute("UPDATE Cache SET value = (SELECT value FROM Cache WHERE key = ?)", (OTHER,))
        assert store.get(KEY) is None
        assert store.get(OTHER) == b"another answer"
        assert len(lines) == store.refused == 2

    def test_two_that_meet_one_broken_file_set_it_aside_once(
        self, tmp_path: Path, open_store: Callable[..., DiskStore], lines: list[str]
    ) -> None:
        first, second = open_store(), open_store()
        for number in range(100):
            first.put(number.to_bytes(32, "big"), b"x" * 5000, 60)
        with database(tmp_path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with (tmp_path / "cache" / "answers" / "cache.db").open("r+b") as file:
            file.seek(4096)
            file.write(b"\xaa" * 400_000)
        assert first.get(KEY) is None
        assert first.put(KEY, b"value", 60)
        assert second.get(OTHER) is None
        assert second.get(KEY) == b"value"
        assert len(lines) == 1
        assert len(list((tmp_path / "cache").glob("answers.aside-*"))) == 1

    def test_only_the_newest_broken_file_is_kept(self, tmp_path: Path, open_store: Callable[..., DiskStore]) -> None:
        for schema in (7, 8, 9):
            open_store().close()
            with database(tmp_path) as connection:
                connection.execute(f"PRAGMA user_version = {schema}")
        open_store()
        assert len(list((tmp_path / "cache").glob("answers.aside-*"))) == 1

    def test_a_linked_database_is_set_aside(
        self, tmp_path: Path, open_store: Callable[..., DiskStore], lines: list[str]
    ) -> None:
        (tmp_path / "cache" / "answers").mkdir(parents=True, mode=0o700)
        (tmp_path / "cache").chmod(0o700)
        (tmp_path / "elsewhere").write_bytes(b"precious")
        (tmp_path / "cache" / "answers" / "cache.db").symlink_to(tmp_path / "elsewhere")
        self.goes_on(open_store(), tmp_path, lines, "is a link")
        assert (tmp_path / "elsewhere").read_bytes() == b"precious"

    @settings(max_examples=25, deadline=None)
    @given(place=st.integers(0, 60_000), junk=st.binary(min_size=1, max_size=40))
    def test_any_damage_ends_in_the_true_value_or_none(
        self, tmp_path_factory: pytest.TempPathFactory, place: int, junk: bytes
    ) -> None:
        root = tmp_path_factory.mktemp("damage")
        values = {number.to_bytes(32, "big"): bytes([number]) * 3000 for number in range(12)}
        first = DiskStore(root / "cache", ROOM, lambda _: None)
        for key, value in values.items():
            first.put(key, value, 60)
        first.close()
        path = root / "cache" / "answers" / "cache.db"
        data = bytearray(path.read_bytes())
        place %= len(data)
        data[place : place + len(junk)] = junk
        path.write_bytes(data)
        try:
            store = DiskStore(root / "cache", ROOM, lambda _: None)
        except StoreUnavailable:
            return
        try:
            for key, value in values.items():
                with contextlib.suppress(StoreUnavailable):
                    assert store.get(key) in {None, value}
            with contextlib.suppress(StoreUnavailable):
                store.put(KEY, b"new", 60)
        finally:
            store.close()


class TestBounds:
    def test_the_size_is_bounded_and_the_least_recently_used_goes_first(
        self, open_store: Callable[..., DiskStore]
    ) -> None:
        store = open_store(room=1 << 20)
        for number in range(400):
            store.put(number.to_bytes(32, "big"), os.urandom(10_000), 60)
            assert store.get((0).to_bytes(32, "big")) is not None
        entries, size = store.size()
        assert size <= 1 << 20
        assert 40 < entries < 105
        assert store.get((1).to_bytes(32, "big")) is None
        assert store.get((399).to_bytes(32, "big")) is not None

    def test_an_answer_too_large_is_not_kept(self, open_store: Callable[..., DiskStore]) -> None:
        store = open_store(room=1 << 20)
        assert not store.put(KEY, b"x" * (1 << 19), 60)
        assert store.get(KEY) is None

    def test_an_old_answer_is_a_miss(self, open_store: Callable[..., DiskStore]) -> None:
        store = open_store()
        store.put(KEY, b"value", 0.02)
        end = time.monotonic() + 10
        while store.get(KEY) is not None and time.monotonic() < end:
            pass
        assert store.get(KEY) is None

    def test_what_is_cleared_is_gone_from_the_files(self, tmp_path: Path, open_store: Callable[..., DiskStore]) -> None:
        store = open_store()
        for number in range(50):
            store.put(number.to_bytes(32, "big"), b"the-secret-prompt" * 1000, 60)
        assert store.clear() == 50
        assert store.size()[0] == 0
        for path in (tmp_path / "cache").rglob("*"):
            if path.is_file():
                assert b"the-secret-prompt" not in path.read_bytes()


class TestPlaces:
    def test_the_folders_are_closed_to_others(self, tmp_path: Path, open_store: Callable[..., DiskStore]) -> None:
        open_store().put(KEY, b"value", 60)
        for folder in (tmp_path / "cache", tmp_path / "cache" / "answers"):
            assert folder.stat().st_mode & 0o777 == 0o700
        for path in (tmp_path / "cache").rglob("*"):
            assert path.is_dir() or path.stat().st_mode & 0o077 == 0

    def test_a_folder_others_may_write_is_refused(self, tmp_path: Path, open_store: Callable[..., DiskStore]) -> None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache").chmod(0o777)
        with pytest.raises(ConfigError, match="written by others"):
            open_store()

    def test_a_linked_inner_folder_is_refused(self, tmp_path: Path, open_store: Callable[..., DiskStore]) -> None:
        (tmp_path / "real").mkdir(mode=0o700)
        (tmp_path / "cache").mkdir(mode=0o700)
        (tmp_path / "cache" / "answers").symlink_to(tmp_path / "real")
        with pytest.raises(ConfigError, match="is a link"):
            open_store()

    def test_variables_in_the_path_are_refused(self, open_store: Callable[..., DiskStore]) -> None:
        with pytest.raises(ConfigError, match="variables"):
            open_store("$HOME")

    def test_a_space_in_the_path_is_fine(self, open_store: Callable[..., DiskStore]) -> None:
        assert open_store("a cache % #?").put(KEY, b"value", 60)


WRITER = """
import sys
from pathlib import Path
from calliope_agent.completion.disk import DiskStore
lines = []
store = DiskStore(Path(sys.argv[1]), 1 << 22, lines.append)
mine = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for number in range(150):
    key = number.to_bytes(32, "big")
    store.put(key, b"%d:" % number + b"v" * 2000, 60)
    other = ((number * 7) % 150).to_bytes(32, "big")
    found = store.get(other)
    assert found is None or found.startswith(b"%d:" % ((number * 7) % 150)), found
assert lines == [], lines
store.close()
print("done", flush=True)
"""


@pytest.mark.slow
def test_several_processes_share_one_store(
    tmp_path: Path, open_store: Callable[..., DiskStore], lines: list[str]
) -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "cache")]
    children = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
        for number in range(3)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            out, _ = child.communicate(timeout=50)
            assert out == "done\n"
            assert child.returncode == 0
    finally:
        for child in children:
            child.kill()
            child.wait()
    store = open_store()
    assert store.size()[0] == 150
    for number in range(150):
        found = store.get(number.to_bytes(32, "big"))
        assert found is not None, (number, lines, store.refused)
        assert found.startswith(b"%d:" % number)
