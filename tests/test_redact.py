"""The redaction boundary: known keys in every spelling, unknown ones by their looks, in one pass."""

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope_agent.redact import MAX_KNOWN, Redactor
from calliope_agent.secret import Secret

KEY = "sk-proj-Canary+0123/456789=abcdefghij4f2a"
keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=80)
around = st.text(max_size=60)


def knowing(*values: str) -> Redactor:
    redactor = Redactor()
    for value in values:
        redactor.add(Secret(value))
    return redactor


SPELLINGS = {
    "plain": KEY,
    "url": quote(KEY, safe=""),
    "url, lower case": quote(KEY, safe="").lower().replace(KEY.lower(), KEY),
    "form": quote_plus(KEY),
    "json": json.dumps({"key": KEY + '"'})[9:-3],
    "json in json": json.dumps(json.dumps(KEY)),
    "hex": KEY.encode().hex(),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 of a header": base64.b64encode(f"Bearer {KEY}\n".encode()).decode(),
    "base64 of user and password": base64.b64encode(f"user:{KEY}".encode()).decode(),
    "urlsafe base64, shifted": base64.urlsafe_b64encode(f"ab{KEY}".encode()).decode(),
    "its first half": KEY[:20],
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_a_known_key_is_hidden_in_every_spelling(spelling: str) -> None:
    redactor = Redactor()
    redactor.add(Secret(KEY))
    scrubbed = redactor.scrub(f"it said <{spelling}> and went")
    # Alignments of base64 leave up to three characters of what stood around the key.
    for length in range(len(spelling) - 12):
        assert spelling[length : length + 12] not in scrubbed
    assert scrubbed.startswith("it said <")
    assert scrubbed.endswith("> and went")


def test_the_label_tells_which_key_it_was() -> None:
    assert knowing(KEY).scrub(f"refused {KEY}.") == "refused [sk-…4f2a]."


@given(keys, around, around)
def test_no_known_key_survives(key: str, before: str, after: str) -> None:
    assert key not in knowing(key).scrub(before + key + after).replace("[redacted]", "")


@given(keys, st.binary(max_size=60), st.binary(max_size=60))
def test_bytes_stay_bytes_and_everything_else_stays(key: str, before: bytes, after: bytes) -> None:
    redactor = knowing(key)
    scrubbed = redactor.scrub(b"\x00" + before + b"\xff" + key.encode() + b"\xff" + after + b"\x00")
    assert isinstance(scrubbed, bytes)
    assert b"\xff" + key.encode() + b"\xff" not in scrubbed
    assert scrubbed[:1] == b"\x00"
    assert scrubbed[-1:] == b"\x00"


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_scrubbing_twice_changes_nothing_more(text: str) -> None:
    redactor = knowing(KEY)
    once = redactor.scrub(f"{text} {KEY} {text}")
    assert redactor.scrub(once) == once


@given(st.binary(max_size=200))
def test_bytes_without_keys_are_untouched(data: bytes) -> None:
    redactor = Redactor()
    if redactor.scrub(data.decode("utf-8", "replace")) == data.decode("utf-8", "replace"):
        assert redactor.scrub(data) == data


LOOKS = [
    "sk-ant-api03-Zm9vYmFyYmF6cXV4",
    "AIzaSyD4nary0123456789abcdefg",
    "gsk_Canary0123456789abcdef",
    "hf_CanaryAbcdefghijklmnop",
    "xai-Canary0123456789",
    "AKIAIOSFODNN7CANARY1",
    "cal-0123456789abcdefghij",
    "ghp_0123456789abcdefghijCanary",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dBjftJeZ4CVPmB92K27uhb",
]


@pytest.mark.parametrize("key", LOOKS)
@pytest.mark.parametrize(
    "text", ["{}", "key={}", '{{"k": "{}"}}', "line\\n{}", "q%3D{} ", "({})", "https://h/p?x={}&y=1", "'{}'", "é{}ü"]
)
def test_what_looks_like_a_key_is_hidden(text: str, key: str) -> None:
    assert key not in Redactor().scrub(text.format(key))


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}",
        "authorization: bearer  {}",
        "x-api-key: {}",
        '"api-key": "{}"',
        '{{\\"api_key\\": \\"{}\\"}}',
        "MISTRAL_API_KEY={}",
        "GET /v1beta/models?key={} 400",
        "https://user:{}@proxy.example:3128/",
        "CALLIOPE_KEYS_PASSPHRASE={}",
        "Proxy-Authorization: Basic {}",
        "X-Goog-Api-Key%3A{}",
    ],
)
def test_what_is_named_as_a_key_is_hidden_whatever_it_looks_like(text: str) -> None:
    assert "Zq81canaryZq82" not in Redactor().scrub(text.format("Zq81canaryZq82"))


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens: 4096, completion_tokens=12",
        "set OPENAI_API_KEY or run: calliope-agent keys set openai",
        "OPENAI_API_KEY: environment",
        "OPENAI_API_KEY_FILE=/run/secrets/openai2",
        "the task-force-of-the-disk-usage-committee",
        'tools: {"api_key": {"type": "string"}}',
        "https://host.example:8080/v1/chat",
        "model llama-3.1-70b-instruct from groq",
        "bearer of news",
    ],
)
def test_plain_words_stay(text: str) -> None:
    assert Redactor().scrub(text) == text


def test_a_short_word_is_no_key() -> None:
    assert knowing("ollama").scrub("ollama is not running") == "ollama is not running"


def test_the_number_of_known_keys_is_bounded_and_the_newest_stay() -> None:
    names = [f"{number:06d}-canary-value" for number in range(MAX_KNOWN + 5)]
    redactor = knowing(*names)
    assert names[-1] not in redactor.scrub(names[-1])
    assert redactor.scrub(names[0]) == names[0]


HOSTILE = [
    "sk-" * 300_000,
    "eyJ-" * 250_000,
    "%3DeyJaaaaaaaa" * 70_000,
    "eyJaaaaaaaa." * 80_000,
    "://a:" * 200_000,
    "api_key" + " " * 1_000_000,
    "bearer " * 150_000,
    "-----BEGIN PRIVATE KEY-----" * 40_000,
    "a" * 1_000_000,
    "password=" * 110_000,
    KEY[:12] * 80_000,
    "_token=" * 140_000,
    "%3D" * 330_000,
]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", HOSTILE, ids=[text[:16].strip() for text in HOSTILE])
def test_a_hostile_megabyte_ends(text: str) -> None:
    # No clock is read: a pattern of quadratic cost would take hours here, and the limit above ends the test.
    knowing(KEY).scrub(text)
