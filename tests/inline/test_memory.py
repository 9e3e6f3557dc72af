"""The memory of suggestions: bounded in bytes, per document and in time; the least recently used go first."""

from __future__ import annotations

from calliope_agent.inline.memory import Memory
from calliope_agent.inline.place import Place, Window, place_of
from calliope_agent.inline.request import InlineRequest

LIMIT = 5000


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def at(prefix: str, path: str = "a.py") -> Place:
    return place_of(InlineRequest(prefix, "", "test/model", path=path), Window())


def texts(memory: Memory, place: Place) -> list[str]:
    return [match.left.text for match in memory.find(place)]


def test_several_suggestions_fit_and_the_newest_comes_first() -> None:
    memory = Memory(LIMIT, 60, Clock())
    memory.put(at("x = "), "abc")
    memory.put(at("x = a"), "bd")
    assert texts(memory, at("x = ab")) == ["d", "c"]
    assert texts(memory, at("x = ")) == ["abc"]


def test_a_place_has_one_suggestion_and_an_empty_one_is_none() -> None:
    memory = Memory(LIMIT, 60, Clock())
    memory.put(at("x = "), "old")
    memory.put(at("x = "), "new")
    assert texts(memory, at("x = ")) == ["new"]
    memory.put(at("x = "), "\n ")
    assert (len(memory), memory.size) == (0, 0)


def test_bytes_are_bounded_and_the_least_recently_used_goes() -> None:
    memory = Memory(LIMIT, 60, Clock())
    for number in range(5):
        memory.put(at(f"{number}" * 100, f"{number}.py"), "text")
    memory.touch(next(memory.find(at("0" * 100, "0.py"))))
    for number in range(5, 9):
        memory.put(at(f"{number}" * 100, f"{number}.py"), "text")
    assert memory.size <= LIMIT
    assert texts(memory, at("0" * 100, "0.py")) == ["text"]
    assert texts(memory, at("1" * 100, "1.py")) == []


def test_a_suggestion_larger_than_the_bound_is_not_kept() -> None:
    memory = Memory(1000, 60, Clock())
    memory.put(at("x"), "y" * 1000)
    assert (len(memory), memory.size) == (0, 0)


def test_one_document_does_not_fill_the_search() -> None:
    memory = Memory(10**7, 60, Clock())
    for number in range(200):
        memory.put(at(f"{number}"), "text")
    assert len(memory) == 64


def test_old_suggestions_are_forgotten() -> None:
    clock = Clock()
    memory = Memory(LIMIT, 60, clock)
    memory.put(at("x = "), "abc")
    clock.now = 61
    assert texts(memory, at("x = ")) == []
    assert memory.size == 0


def test_clearing_forgets_all() -> None:
    memory = Memory(LIMIT, 60, Clock())
    memory.put(at("x = "), "abc")
    memory.clear()
    assert texts(memory, at("x = ")) == []
    assert memory.size == 0


def test_another_file_is_another_memory() -> None:
    memory = Memory(LIMIT, 60, Clock())
    memory.put(at("x = "), "abc")
    assert texts(memory, at("x = ", "b.py")) == []
