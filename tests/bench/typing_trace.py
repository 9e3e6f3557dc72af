"""The typing trace: how many keystrokes need no upstream call, and whether what is shown is ever stale.

    python -m tests.bench.typing_trace [--json FILE] [--seed N] [--documents N]

A person's seeded edits (`typing_edits`) of real files of this package and of the standard library go to each contender
(`typing_contenders`) on simulated time, over a scripted model (`typing_model`). The person types every character
and takes no suggestion with Tab, so that all contenders see the same keystrokes.

* **answered**: the share of ALL keystrokes (slips, deletions and pastes included) that got a text that is not empty,
  whole, before the next keystroke, and that caused no upstream call: not at once, not later, not ahead. A keystroke
  that was superseded, that got an empty text, or whose answer came too late is not answered.
* **shown**: the same with upstream calls allowed.
* **calls**: upstream calls per 100 keystrokes. **wasted**: the share of them of which no text was ever shown.
  **idle**: shown, but not one character of it was typed.
* **TTFT**: from the keystroke to the first text, over the shown ones.
* **stale**: shown texts that no call explains: some call's prefix, plus a beginning of its text, must be the document
  before the cursor, the shown text must be what follows in its text, and its suffix the document behind the cursor
  (or that behind the closing brackets and quotes which the editor set for typed ones).
* **cancel**: from the keystroke to the end of the call that it superseded, the longest; on simulated time, and for our
  lane once more on the real clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path

from calliope_agent.inline.lane import Lane, LaneSettings
from calliope_agent.inline.request import InlineCall
from tests.bench import virtual_loop
from tests.bench.typing_contenders import Cache, Contender, OurLane, request_of
from tests.bench.typing_edits import Edit, trace
from tests.bench.typing_model import Model
from tests.bench.typing_verdict import Row, Shown, judge

PACKAGE = Path(__file__).parents[2] / "calliope_agent"
LIBRARY = Path(json.__file__).parents[1]
FILES = (
    PACKAGE / "tomlfile.py",
    LIBRARY / "textwrap.py",
    PACKAGE / "errors.py",
    LIBRARY / "argparse.py",
    LIBRARY / "json" / "decoder.py",
    LIBRARY / "asyncio" / "queues.py",
    LIBRARY / "shlex.py",
    LIBRARY / "configparser.py",
)
CONTENDERS: dict[str, Callable[[Model], Contender]] = {
    "our lane": OurLane,
    "our lane, asking ahead": lambda model: OurLane(model, LaneSettings(prefetch_chars=4)),
    "exact match": lambda model: Cache(model, by_prefix=False),
    "prefix only": lambda model: Cache(model, by_prefix=True),
    "prefix only, 350 ms debounce": lambda model: Cache(model, by_prefix=True, debounce_s=0.35),
}


async def replay(edits: list[Edit], model: Model, make: Callable[[Model], Contender]) -> list[Shown]:
    """Plays the edits at their times; later edits do not wait for earlier answers."""
    loop = asyncio.get_running_loop()
    contender = make(model)
    shown = [Shown() for _ in edits]
    tasks = []
    for index, edit in enumerate(edits):
        await asyncio.sleep(edit.at_s - loop.time())
        model.now, model.keystroke = edit, index
        until = edits[index + 1].at_s if index + 1 < len(edits) else float("inf")
        tasks.append(asyncio.create_task(_look(contender, edit, shown[index], until)))
    await asyncio.gather(*tasks, return_exceptions=True)
    return shown


async def _look(contender: Contender, edit: Edit, shown: Shown, until: float) -> None:
    loop = asyncio.get_running_loop()
    async with aclosing(contender.pieces(edit)) as pieces:
        async for piece in pieces:
            shown.first_s = shown.first_s if shown.text else loop.time() - edit.at_s
            shown.text += piece
    shown.whole = bool(shown.text) and loop.time() < until


def measure(name: str, right: float, luck: str, edits: list[Edit], seed: int) -> Row:
    """One contender over one model."""
    noise = [line for path in FILES for line in path.read_text().splitlines() if line.strip()]
    model = Model(right, luck, seed, noise)
    shown = virtual_loop.run(replay(edits, model, CONTENDERS[name]))
    return judge(name, luck, right, edits, (model, shown))


async def real_cancel_ms(rounds: int) -> list[float]:
    """Real milliseconds from a superseding keystroke to the closed upstream call."""
    loop = asyncio.get_running_loop()
    started, ended = asyncio.Event(), asyncio.Event()

    async def silent(_: InlineCall) -> AsyncGenerator[str, None]:
        started.set()
        try:
            await loop.create_future()
            yield ""
        finally:
            ended.set()

    lane = Lane(silent, clock=loop.time, sleep=asyncio.sleep)
    tasks, taken = [], []
    for index in range(rounds):
        at = loop.time()
        edit = Edit(at, "typed", "a.py", f"place {index}\n", "", "")
        tasks.append(asyncio.create_task(lane.suggest(request_of(edit))))
        if index:
            await ended.wait()
            taken.append((loop.time() - at) * 1000)
        await started.wait()
        started.clear()
        ended.clear()
    await lane.aclose()
    await asyncio.gather(*tasks, return_exceptions=True)
    return taken


def table(rows: Sequence[Row]) -> str:
    """The rows for reading."""
    head = (
        f"{'contender':29} {'luck':5} {'p':>3} {'answered':>8} {'shown':>6} {'calls/100':>9} {'wasted':>6} {'idle':>5} "
        f"{'TTFT p50':>8} {'p95 ms':>6} {'stale':>5} {'cancel ms':>9}"
    )
    lines = [
        f"{row.contender:29} {row.luck:5} {row.right:3} {row.answered:8.1%} {row.shown:6.1%} {row.calls_per_100:9.1f} "
        f"{row.wasted:6.1%} {row.idle:5.0%} {row.ttft_p50_ms:8.0f} {row.ttft_p95_ms:6.0f} {row.stale:5} "
        f"{row.cancel_ms:9.1f}"
        for row in rows
    ]
    return "\n".join([head, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description="The typing trace over the inline lane and two caches.")
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=len(FILES))
    options = parser.parse_args()
    edits = trace(list(FILES[: options.documents]), options.seed)
    rows = [
        measure(name, right, luck, edits, options.seed)
        for luck in ("place", "line")
        for right in (0.3, 0.5, 0.8)
        for name in CONTENDERS
    ]
    cancel = sorted(asyncio.run(real_cancel_ms(200)))
    print(f"{len(edits)} keystrokes in {edits[-1].at_s:.0f} s of typing, seed {options.seed}")
    print(table(rows))
    print(f"real clock: superseded call closed after p50 {cancel[len(cancel) // 2]:.2f} ms, worst {cancel[-1]:.2f} ms")
    if options.json:
        report = {"seed": options.seed, "real_cancel_ms": cancel[-1], "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
