"""Addresses: what is refused, how variables are read, what a key is bound to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope_agent import address


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ftp://host/v1", "http"),
        ("host.example/v1", "http"),
        ("https://", "host"),
        ("https://user:secret@host/v1", "user"),
        ("https://@host/v1", "user"),
        ("https://host/v1?key=secret", "query"),
        ("https://host/v1?", "query"),
        ("https://host/v1#part", "fragment"),
        ("https://host:99999/v1", "port"),
        ("https://[::1/v1", "port"),
        ("https://ho st/v1", "spaces"),
        ("https://höst/v1", "plain"),
        ("https://host/v1\n", "plain"),
        ("", "http"),
    ],
)
def test_a_bad_address_is_refused_and_never_repeated(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        address.checked(text)
    assert "secret" not in str(caught.value)


def test_a_good_address_loses_its_final_slash_only() -> None:
    assert address.checked("https://host.example:8443/a/v1/") == "https://host.example:8443/a/v1"
    assert address.checked("http://[::1]:11434") == "http://[::1]:11434"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        (":::8080", "http://[:::8080]:11434"),
        ("::", "http://127.0.0.1:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:9", "http://[::1]:9"),
        ("ollama", "http://ollama:11434"),
        ("ollama:1234/sub/", "http://ollama:1234/sub"),
        ("http://ollama", "http://ollama"),
        ("https://0.0.0.0:4/v1", "https://127.0.0.1:4/v1"),
    ],
)
def test_a_variable_may_leave_out_scheme_and_port(text: str, found: str) -> None:
    try:
        assert address.from_variable(text, "http://127.0.0.1:11434/v1") == found
    except ValueError:
        assert text == ":::8080"


def test_a_variable_cannot_smuggle_a_user() -> None:
    for text in ("user:secret@host", "http://user:secret@0.0.0.0:1"):
        with pytest.raises(ValueError, match="user") as caught:
            address.from_variable(text, None)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given_url", "path", "found"),
    [
        ("https://h", "/v1", "https://h/v1"),
        ("https://h/", "/v1", "https://h/v1"),
        ("https://h/v1", "/v1", "https://h/v1"),
        ("https://h/gw", "/v1", "https://h/gw/v1"),
        ("https://h/v1beta", "/v1beta/openai", "https://h/v1beta/openai"),
        ("https://h/openai", "/openai/v1", "https://h/openai/v1"),
        ("https://h/openai/v1", "/openai/v1", "https://h/openai/v1"),
    ],
)
def test_the_missing_part_of_the_path_is_added_once(given_url: str, path: str, found: str) -> None:
    assert address.completed(given_url, path, "missing") == found
    assert address.completed(found, path, "missing") == found


def test_a_whole_base_url_is_completed_only_when_it_has_no_path() -> None:
    assert address.completed("https://h", "/v1", "empty") == "https://h/v1"
    assert address.completed("https://h/gw/openai", "/v1", "empty") == "https://h/gw/openai"


def test_origins_are_compared_with_their_ports_and_loopback_names_are_one() -> None:
    assert address.origin("https://Host.Example/v1") == "https://host.example:443"
    assert address.origin("http://[::1]/x") == "http://[::1]:80"
    own = ["http://127.0.0.1:8072"]
    for same in ("http://localhost:8072/v1", "http://127.8.9.1:8072", "https://[::1]:8072/"):
        assert address.is_one_of(same, own)
    for other in ("http://localhost:8073", "http://10.0.0.1:8072"):
        assert not address.is_one_of(other, own)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        found = address.from_variable(text, "http://127.0.0.1:11434/v1")
    except ValueError:
        return
    assert found.startswith(("http://", "https://"))
    assert address.checked(found) == found
    assert address.origin(found)
