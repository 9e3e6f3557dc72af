"""Streams and their ends: the hold, leaving, stopping, deadlines, waits, breakers, fallback and the local model in need."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from calliope_agent.cli.why import story
from calliope_agent.completion.breaker import Breaker
from calliope_agent.completion.line import Clockwork
from calliope_agent.secret import Secret
from calliope_agent.upstream.local import LocalAddress
from tests.agents import ServedAgent, chat, message
from tests.passage import until
from tests.upstream import ScriptedProvider, hang, status, text

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
WINDOWS = {"one": 8_000, "two": 8_000, "wide": 200_000}


class Stage:
    """An agent with three providers of the OpenAI wire and, at the first one's address, one of Anthropic's."""

    def __init__(
        self, agent: ServedAgent, one: ScriptedProvider, two: ScriptedProvider, wide: ScriptedProvider
    ) -> None:
        self.agent, self.one, self.two, self.wide = agent, one, two, wide
        self.waits: list[float] = []
        self.now = 1000.0
        line = agent.agent.line
        line.clockwork = Clockwork(line.clockwork.now, self.sleep, lambda: 0.5)

    @property
    def calls(self) -> tuple[int, int, int]:
        return self.one.calls, self.two.calls, self.wide.calls

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def own_breaker(self, **settings: float) -> None:
        """A breaker on the stage's clock."""
        self.agent.agent.line.breaker = Breaker(lambda: self.now, **settings)  # type: ignore[arg-type]

    async def record(self, headers: Mapping[str, str]) -> dict[str, Any]:
        _, record = await self.agent.get(f"/v1/requests/{headers['x-request-id']}")
        assert isinstance(record, dict)
        return record

    async def asked(self, model: str = "chat", *, stream: bool = False) -> tuple[int, str, Mapping[str, str]]:
        return await self.agent.post(CHAT, chat(stream, model))


@asynccontextmanager
async def stage(folder: Path, **environ: str) -> AsyncIterator[Stage]:
    async with ScriptedProvider() as one, ScriptedProvider() as two, ScriptedProvider() as wide:
        operator = folder / "operator"
        operator.mkdir()
        for name, provider in (("one", one), ("two", two), ("wide", wide)):
            provider.always = text("From ", name)
            file = (
                f'title = "{name}"\nwire = "openai"\nbase_url = "{provider.base_url}"\nkey_required = false\n'
                f'[[models]]\nname = "m"\ncontext_tokens = {WINDOWS[name]}\ncapabilities = ["chat"]\n'
            )
            (operator / f"{name}.toml").write_text(file)
        anthropic = f'title = "A"\nwire = "anthropic"\nbase_url = "{one.base_url}"\nkey_required = false\n'
        (operator / "a.toml").write_text(anthropic)
        async with ServedAgent(folder, {"CALLIOPE_CHAT_MODEL": "one/m", **environ}) as agent:
            yield Stage(agent, one, two, wide)


# The hold and the pings.


@pytest.mark.parametrize(("path", "body"), [(CHAT, chat(True, "one/m")), (MESSAGES, message(True, "a/m"))])
async def test_after_the_hold_pings_go_out_and_a_failure_is_an_event(tmp_path: Path, path: str, body: Any) -> None:
    gate = asyncio.Event()
    async with stage(tmp_path, CALLIOPE_FIRST_BYTE_HOLD_S="0.1") as made:
        made.one.script(status(500).hold_headers(gate), status(500), status(500))
        async with made.agent.http.post(path, json=body) as answer:
            assert answer.status == 200
            assert await answer.content.readany() == b": ping\n\n"
            gate.set()
            told = (await answer.content.read()).decode()
        assert told.count("overloaded") >= 1
        assert ("event: error" in told) == (path == MESSAGES)
        assert "[DONE]" not in told
        assert "message_stop" not in told
        assert made.calls == (3, 0, 0)
        record = await made.record(answer.headers)
        assert (record["outcome"], record["status"], record["code"]) == ("error", 503, "overloaded")


async def test_after_the_hold_fallback_still_saves_the_stream(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with stage(tmp_path, CALLIOPE_FIRST_BYTE_HOLD_S="0.1", CALLIOPE_FALLBACKS_CHAT="two/m") as made:
        made.one.script(status(401).hold_headers(gate))
        async with made.agent.http.post(CHAT, json=chat(True, "chat")) as answer:
            assert await answer.content.readany() == b": ping\n\n"
            gate.set()
            told = (await answer.content.read()).decode()
        assert '"two"' in told
        assert told.endswith("data: [DONE]\n\n")
        record = await made.record(answer.headers)
    assert record["target"] == "two/m"
    assert record["fallback_cause"] == "key_rejected at one/m"


# Leaving.


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize(("path", "body"), [(CHAT, chat), (MESSAGES, message)], ids=["openai", "anthropic"])
async def test_who_leaves_before_the_first_word_is_not_paid_for(
    tmp_path: Path, path: str, body: Any, stream: bool
) -> None:
    async with stage(tmp_path) as made:
        made.one.script(hang())
        model = "one/m" if path == CHAT else "a/m"
        asking = asyncio.create_task(made.agent.post(path, body(stream, model)))
        await made.one.arrived(0)
        asking.cancel()
        await made.one.client_gone(0, timeout=20)
        _, listed = await made.agent.get("/v1/requests")
        assert listed["data"][0]["outcome"] == "cancelled"
        assert made.calls == (1, 0, 0)


@pytest.mark.parametrize(("path", "body"), [(CHAT, chat), (MESSAGES, message)], ids=["openai", "anthropic"])
async def test_who_leaves_after_the_first_word_ends_the_provider_too(tmp_path: Path, path: str, body: Any) -> None:
    async with stage(tmp_path) as made:
        made.one.script(text("Hel", "lo", "never").stall_after(1))
        model = "one/m" if path == CHAT else "a/m"
        async with made.agent.http.post(path, json=body(True, model)) as answer:
            assert b"Hel" in await until(answer, b"Hel")
        await made.one.client_gone(0, timeout=20)
        assert made.calls == (1, 0, 0)


async def test_who_leaves_during_a_wait_is_not_asked_for_again(tmp_path: Path) -> None:
    waiting = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async with stage(tmp_path) as made:
        line = made.agent.agent.line
        line.clockwork = Clockwork(line.clockwork.now, sleep, lambda: 0.5)
        made.one.script(status(429, headers={"Retry-After": "5"}))
        asking = asyncio.create_task(made.asked("one/m"))
        async with asyncio.timeout(20):
            await waiting.wait()
        asking.cancel()
        async with asyncio.timeout(20):
            while running := made.agent.agent.flights.running:
                await asyncio.gather(*(flight.gone() for flight in running))
        assert made.calls == (1, 0, 0)


# The server's stop.


@pytest.mark.parametrize(("path", "body"), [(CHAT, chat), (MESSAGES, message)], ids=["openai", "anthropic"])
async def test_a_stop_ends_streams_with_an_event_and_refuses_new_work(tmp_path: Path, path: str, body: Any) -> None:
    async with stage(tmp_path) as made:
        made.one.script(text("Hel", "lo", "never").stall_after(2), hang())
        model = "one/m" if path == CHAT else "a/m"
        async with made.agent.http.post(path, json=body(True, model)) as answer:
            told = await until(answer, b"lo")
            plain = asyncio.create_task(made.agent.post(path, body(False, model)))
            await made.one.arrived(1)
            await made.agent.agent.stop(0.05)
            told += await answer.content.read()
        assert b"server_stopping" in told
        assert b"[DONE]" not in told
        assert b"message_stop" not in told
        code, body_text, _ = await plain
        assert (code, "server_stopping" in body_text) == (503, True)
        code, body_text, headers = await made.agent.post(path, body(False, model))
        assert (code, "server_stopping" in body_text) == (503, True)
        assert headers["retry-after"] == "1"
        await made.one.client_gone(0, timeout=20)


async def test_a_stream_that_ends_within_the_drain_is_whole(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with stage(tmp_path) as made:
        made.one.script(text("Hel", "lo").hold(gate, before=1))
        async with made.agent.http.post(CHAT, json=chat(True, "one/m")) as answer:
            told = await until(answer, b"Hel")
            stopping = asyncio.create_task(made.agent.agent.stop(60))
            gate.set()
            told += await answer.content.read()
            await stopping
        assert told.endswith(b"data: [DONE]\n\n")
        assert b"server_stopping" not in told


@pytest.mark.slow
async def test_sigterm_ends_the_process_with_the_stream_told_why(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        provider.script(text("Hel", "lo", "never").stall_after(1))
        environ = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "CALLIOPE_RUNTIME_DIR": str(tmp_path / "run"),
            "CALLIOPE_STATE_DIR": str(tmp_path / "state"),
            "CALLIOPE_AGENT_PORT": "0",
            "CALLIOPE_DRAIN_S": "0.2",
            "CALLIOPE_AGENT_TOKEN": "cal-complete-token-for-the-sigterm-test",
            "OPENAI_BASE_URL": provider.base_url,
            "OPENAI_API_KEY": "sk-of-the-sigterm-test-1234",
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "calliope_agent", "serve"), env=environ, stderr=asyncio.subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(50):
                url = await _url_told(process.stderr)
                headers = {"authorization": f"Bearer {environ['CALLIOPE_AGENT_TOKEN']}"}
                async with (
                    aiohttp.ClientSession(base_url=url, headers=headers) as http,
                    http.post(CHAT, json=chat(True)) as answer,
                ):
                    told = await until(answer, b"Hel")
                    process.send_signal(signal.SIGTERM)
                    told += await answer.content.read()
                assert b"server_stopping" in told
                assert b"[DONE]" not in told
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


# Time.


async def test_the_deadline_covers_all_attempts_and_counts_against_the_target(tmp_path: Path) -> None:
    async with stage(tmp_path, CALLIOPE_REQUEST_DEADLINE_S="1", CALLIOPE_FALLBACKS_CHAT="two/m") as made:
        made.one.script(hang())
        code, body, headers = await made.asked(stream=True)
        assert (code, "upstream_timeout" in body) == (504, True)
        assert headers["x-should-retry"] == "false"
        assert made.calls == (1, 0, 0)
        record = await made.record(headers)
        assert [one["code"] for one in record["attempts"]] == ["upstream_timeout"]


async def test_a_long_healthy_stream_outlives_the_deadline(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with stage(tmp_path, CALLIOPE_REQUEST_DEADLINE_S="1", CALLIOPE_FIRST_TOKEN_TIMEOUT_S="1") as made:
        made.one.script(text("Hel", "lo").hold(gate, before=1))
        async with made.agent.http.post(CHAT, json=chat(True, "one/m")) as answer:
            told = await until(answer, b"Hel")
            asyncio.get_running_loop().call_later(1.5, gate.set)
            told += await answer.content.read()
        assert told.endswith(b"data: [DONE]\n\n")


async def test_a_providers_pings_hold_off_the_stall_but_not_the_first_word(tmp_path: Path) -> None:
    limits = {"CALLIOPE_FIRST_TOKEN_TIMEOUT_S": "3.5", "CALLIOPE_IDLE_TIMEOUT_S": "2", "CALLIOPE_MAX_ATTEMPTS": "1"}
    async with stage(tmp_path, **limits) as made:
        made.one.script(text(*[""] * 100).every(0.25))
        code, body, _ = await made.asked("one/m", stream=True)
    assert (code, "No content came within 3.5 s" in body) == (504, True)


@pytest.mark.parametrize("headers_first", [False, True])
async def test_a_wait_longer_than_idle_before_the_first_byte_is_no_stall(tmp_path: Path, headers_first: bool) -> None:
    thought = asyncio.Event()
    async with stage(tmp_path, CALLIOPE_IDLE_TIMEOUT_S="0.3", CALLIOPE_MAX_ATTEMPTS="1") as made:
        made.one.script(text("Hello").opening(0).hold(thought, before=0 if headers_first else -1))
        asking = asyncio.create_task(made.asked("one/m", stream=True))
        await made.one.arrived(0)
        asyncio.get_running_loop().call_later(1, thought.set)
        code, body, _ = await asking
    assert (code, "[DONE]" in body) == (200, True), body


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_whose_body_falls_silent_keeps_its_status(tmp_path: Path, stream: bool) -> None:
    async with stage(tmp_path, CALLIOPE_IDLE_TIMEOUT_S="0.3", CALLIOPE_MAX_ATTEMPTS="1") as made:
        made.one.script(status(429).cut_at(10, "stall"))
        code, body, _ = await made.asked("one/m", stream=stream)
    assert (code, "rate_limited" in body) == (429, True)


# Waits.


@pytest.mark.parametrize(
    ("headers", "least", "told"),
    [
        ({"Retry-After": "4"}, 4, "4"),
        ({"retry-after-ms": "2500", "Retry-After": "9"}, 2.5, "3"),
        ({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)}, None, None),
        ({"Retry-After": "soon"}, 0.1, None),
        ({"Retry-After": "-5"}, 0.1, None),
    ],
)
async def test_retry_after_in_every_form(
    tmp_path: Path, headers: dict[str, str], least: float | None, told: str | None
) -> None:
    async with stage(tmp_path) as made:
        made.one.script(*[status(429, headers=headers)] * 3)
        code, _, answered = await made.asked("one/m")
        assert code == 429
        if least is None:  # a day is longer than the deadline: no wait, no second call, but the client is told
            assert made.calls == (1, 0, 0)
            assert 86_000 < int(answered["retry-after"]) <= 86_400
            return
        assert made.calls == (3, 0, 0)
        assert len(made.waits) == 2
        assert all(least <= wait < least + 2 for wait in made.waits)
        assert answered.get("retry-after") == told
        record = await made.record(answered)
        assert [round(one["waited_ms"]) for one in record["attempts"]] == [*(round(w * 1000) for w in made.waits), 0]


async def test_a_wait_too_long_for_a_person_falls_back_at_once(tmp_path: Path) -> None:
    async with stage(tmp_path, CALLIOPE_FALLBACKS_CHAT="two/m") as made:
        made.one.script(status(429, headers={"Retry-After": "30"}))
        code, body, headers = await made.asked()
        assert (code, '"From two"' in body) == (200, True)
        assert made.calls == (1, 1, 0)
        assert made.waits == []
        assert headers["x-calliope-target"] == "two/m"
        assert headers["x-calliope-fallback"] == "rate_limited at one/m"


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_the_budget_is_attempts_and_targets_together(tmp_path: Path, attempts: int) -> None:
    chain = "two/m,wide/m"
    async with stage(tmp_path, CALLIOPE_FALLBACKS_CHAT=chain, CALLIOPE_MAX_ATTEMPTS=str(attempts)) as made:
        for provider in (made.one, made.two, made.wide):
            provider.always = status(500)
        code, body, headers = await made.asked()
        assert code == 503
        assert "Also tried: two/m: overloaded, wide/m: overloaded" in body
        assert headers["x-should-retry"] == "false"
        assert sum(made.calls) == attempts + 2
        assert min(made.calls) >= 1
        record = await made.record(headers)
        assert len(record["attempts"]) == attempts + 2


# The breaker.


async def test_a_failing_target_is_left_alone_probed_once_and_taken_back(tmp_path: Path) -> None:
    async with stage(tmp_path, CALLIOPE_FALLBACKS_CHAT="two/m") as made:
        made.own_breaker(threshold=2, open_s=30)
        made.one.script(status(500), status(500))
        assert (await made.asked())[0] == 200
        assert made.calls == (2, 1, 0)
        _, _, headers = await made.asked()
        assert made.calls == (2, 2, 0)
        assert headers["x-calliope-fallback"] == "circuit_open at one/m"
        made.now += 31
        gate = asyncio.Event()
        made.one.script(text("probe").hold_headers(gate))
        probing = asyncio.create_task(made.asked())
        await made.one.arrived(2)
        assert (await made.asked())[2]["x-calliope-target"] == "two/m"
        gate.set()
        assert (await probing)[2]["x-calliope-target"] == "one/m"
        assert (await made.asked())[2]["x-calliope-target"] == "one/m"


async def test_a_failed_probe_opens_again_and_a_lost_one_is_forgotten(tmp_path: Path) -> None:
    async with stage(tmp_path, CALLIOPE_FALLBACKS_CHAT="two/m") as made:
        made.own_breaker(threshold=2, open_s=30)
        made.one.script(status(500), status(500), status(500))
        await made.asked()
        made.now += 31
        await made.asked()
        assert made.one.calls == 3
        await made.asked()
        assert made.one.calls == 3
        made.now += 31
        made.one.script(hang())
        probing = asyncio.create_task(made.asked())
        await made.one.arrived(3)
        probing.cancel()
        await made.one.client_gone(3, timeout=20)
        made.now += 31
        assert (await made.asked())[2]["x-calliope-target"] == "one/m"


async def test_a_named_model_is_asked_although_its_breaker_is_open(tmp_path: Path) -> None:
    async with stage(tmp_path) as made:
        made.own_breaker(threshold=1, open_s=30)
        made.one.script(*[status(500)] * 3)
        await made.asked("one/m")
        code, _, headers = await made.asked("one/m")
        assert code == 200
        assert "asked all the same, since it was named" in headers["x-calliope-note"]
        made.one.script(*[status(500)] * 3)
        await made.asked("one/m")
        calls = made.one.calls
        code, body, headers = await made.asked("chat")
        assert (code, "circuit_open" in body) == (503, True)
        assert headers["retry-after"] == "30"
        assert made.one.calls == calls


async def test_a_target_that_set_a_time_is_limited_and_not_broken(tmp_path: Path) -> None:
    async with stage(tmp_path) as made:
        made.own_breaker()
        made.one.script(status(429, headers={"Retry-After": "900"}))
        await made.asked()
        code, body, headers = await made.asked()
        assert (code, "rate_limited" in body) == (429, True)
        assert headers["retry-after"] == "300"
        assert made.one.calls == 1


# Fallback.


@pytest.mark.parametrize("chain", ["two/m,wide/m", "wide/m"])
async def test_a_prompt_too_long_goes_to_wider_windows_only(tmp_path: Path, chain: str) -> None:
    async with stage(tmp_path, CALLIOPE_FALLBACKS_CHAT=chain) as made:
        made.one.script(status(400, message="prompt is too long"))
        code, body, headers = await made.asked()
        assert (code, '"From wide"' in body) == (200, True)
        assert made.calls == (1, 0, 1)
        assert headers["x-calliope-fallback"] == "context_length_exceeded at one/m"


async def test_no_wider_window_is_the_first_ones_error(tmp_path: Path) -> None:
    async with stage(tmp_path, CALLIOPE_FALLBACKS_CHAT="two/m") as made:
        made.one.script(status(400, message="prompt is too long"))
        code, body, _ = await made.asked()
    assert (code, "context_length_exceeded" in body) == (400, True)
    assert made.calls == (1, 0, 0)


@pytest.mark.parametrize(("configured", "calls"), [("false", (1, 0, 0)), ("true", (1, 1, 0))])
async def test_refused_content_falls_back_only_where_configured(
    tmp_path: Path, configured: str, calls: tuple[int, int, int]
) -> None:
    environ = {"CALLIOPE_FALLBACKS_CHAT": "two/m", "CALLIOPE_FALLBACK_ON_REFUSAL": configured}
    async with stage(tmp_path, **environ) as made:
        made.one.script(status(400, message="content_policy violation"))
        code, _, _ = await made.asked()
    assert code == (200 if configured == "true" else 400)
    assert made.calls == calls


async def test_a_named_model_is_never_swapped_silently(tmp_path: Path) -> None:
    async with stage(tmp_path, CALLIOPE_FALLBACKS="two/m", CALLIOPE_FALLBACKS_CHAT="two/m") as made:
        made.one.script(*[status(500)] * 3)
        code, _, _ = await made.asked("one/m")
    assert code == 503
    assert made.calls == (3, 0, 0)


@pytest.mark.parametrize("asked", ["chat", "one/m"])
async def test_the_local_model_answers_for_a_role_whose_targets_are_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """A scripted provider on a unix socket stands in for the child that serves the embedded model."""
    place = tmp_path / "local.sock"
    async with ScriptedProvider(unix_socket=place) as child, stage(tmp_path, CALLIOPE_OFFLINE="local") as made:

        async def start(name: str) -> LocalAddress:
            return LocalAddress("http://local/v1", str(place), Secret(f"local-key-of-{name}"))

        monkeypatch.setattr(made.agent.agent.local, "start", start)
        made.one.script(*[status(503)] * 3)
        code, body, headers = await made.asked(asked)
        if asked == "one/m":
            assert (code, made.calls, child.calls) == (503, (3, 0, 0), 0)
            return
        assert (code, made.calls, child.calls) == (200, (2, 0, 0), 1)
        assert '"Hello world"' in body
        assert headers["x-calliope-target"].startswith("local/")
        assert headers["x-calliope-fallback"] == "overloaded at one/m"
        assert "the local model answers" in headers["x-calliope-note"]


async def test_the_local_model_does_not_answer_for_a_refusal(tmp_path: Path) -> None:
    async with stage(tmp_path, CALLIOPE_OFFLINE="local") as made:
        made.one.script(status(401))
        code, body, _ = await made.asked()
    assert (code, "key_rejected" in body) == (424, True)


async def test_why_tells_the_whole_story(tmp_path: Path) -> None:
    async with stage(tmp_path, CALLIOPE_FALLBACKS_CHAT="two/m") as made:
        made.one.script(status(500), status(429, headers={"Retry-After": "60"}))
        _, _, headers = await made.asked()
        told = "\n".join(story(await made.record(headers)))
    for words in (
        "chat for 'chat'",
        "attempt 1: one/m: overloaded, status 500",
        "then waited",
        "attempt 2: one/m: rate_limited, status 429",
        "attempt 3: two/m: answered, status 200",
        "fell back because of rate_limited at one/m",
        "outcome: complete",
    ):
        assert words in told


async def test_the_last_five_hundred_requests_are_kept(tmp_path: Path) -> None:
    async with stage(tmp_path) as made:
        for _ in range(3):
            await made.asked()
        code, _, headers = await made.agent.post(CHAT, chat(model="nobody/none"))
        _, listed = await made.agent.get("/v1/requests?limit=2")
        assert [one["code"] for one in listed["data"]] == ["model_not_found", None]
        assert (code, listed["data"][0]["id"]) == (404, headers["x-request-id"])
        missing, _ = await made.agent.get("/v1/requests/req_unknown")
        assert missing == 404


async def test_the_answer_of_a_role_says_who_gave_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as made:
        code, _, headers = await made.asked()
        assert (code, headers["x-calliope-target"]) == (200, "one/m")
        assert "x-calliope-fallback" not in headers
        assert "total;dur=" in headers["server-timing"]
        record = await made.record(headers)
        assert (record["role"], record["asked"], record["usage"]["total_tokens"]) == ("chat", "chat", 12)
        assert record["ttft_ms"] >= record["overhead_ms"] >= 0


async def _url_told(lines: asyncio.StreamReader) -> str:
    while line := (await lines.readline()).decode():
        if "listens at " in line:
            return line.rpartition("listens at ")[2].strip()
    raise AssertionError("the agent ended before it listened")
