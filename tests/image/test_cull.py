"""The idle culler of the shipped template ends who is idle, and nobody else."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.image.engine import until
from tests.image.hub import PASSWORD, PEOPLE, SERVER, names_of, serving

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]


def test_an_idle_server_is_culled_and_a_busy_one_is_not(image: str, tmp_path: Path) -> None:
    with serving(image, tmp_path, {"WAIIDE_TRIAL_PASSWORD": PASSWORD, "WAIIDE_IDLE_S": "20"}) as hub:
        for user in PEOPLE:
            hub.api("POST", f"/users/{user}")
        token, done = hub.token_of("alice"), threading.Event()

        def work() -> None:
            """As a person at work: something of the server's every two seconds."""
            while not done.wait(2):
                hub.visit(f"/user/alice/{SERVER}/", token)

        hub.start("alice")
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        hub.start("bob")
        try:
            until(lambda: not hub.server("bob").get("ready"), "the idle server's end", 120)
            until(lambda: names_of("bob") == [], "its container's end", 30)
            # As long again: nobody at work was only lucky.
            with pytest.raises(AssertionError):
                until(lambda: not hub.server("alice").get("ready"), "an end that must not come", 40)
        finally:
            done.set()
            worker.join()
        until(lambda: not hub.server("alice").get("ready"), "the end of who has gone home", 120)
