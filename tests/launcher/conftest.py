"""One stand-alone stack for the tests that only ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.launcher.stack import Stack, running


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Stand-alone with the reference's compose environment: a user, a server name and a prefix, but no hub."""
    prefix = "/user/alice/alice-waiide-abc123/"
    environ = {
        "JUPYTERHUB_USER": "alice",
        "JUPYTERHUB_SERVER_NAME": "alice-waiide-abc123",
        "JUPYTERHUB_SERVICE_PREFIX": prefix,
        "OPENAI_API_KEY": "sk-a-provider-key",
        "MISTRAL_API_KEY": "a-provider-key",
    }
    with running(Stack(tmp_path_factory.mktemp("alone"), environ, prefix=prefix)) as stack:
        yield stack
