"""The environments of the launcher's children: no provider key and no hub token reaches a person's shell.

Decisions
1. What may pass is `environment`'s to say; here stands who gets more.
2. The agent alone gets the launcher's whole environment (provider keys live there) minus the hub's.
3. Operators name further variables in WAIIDE_PASS_ENV (names or ``PREFIX_*``); a name of the hub's is refused even
   there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from calliope_agent.environment import allowed, matches, may_pass
from calliope_agent.secret import Secret

HUBS_OWN = ("JUPYTERHUB_*", "JPY_*", "JUPYTER_TOKEN", "WAIIDE_CONTROL_FD", "WAIIDE_LISTEN_FDS")


@dataclass(frozen=True, slots=True)
class AgentAccess:
    """What a person's tools need to reach the agent: its address and the token with the scope *complete*."""

    url: str
    token: Secret


def personal(environ: Mapping[str, str], extra: Iterable[str] = ()) -> dict[str, str]:
    """What the IDE, terminals and notebooks may see of the launcher's environment."""
    asked = tuple(extra)
    return allowed(environ) | {
        name: value for name, value in environ.items() if matches(name, asked) and not matches(name, HUBS_OWN)
    }


def with_agent(environ: Mapping[str, str], access: AgentAccess | None) -> dict[str, str]:
    """Add the names by which the common tools find an OpenAI or an Anthropic endpoint, and roles as model names."""
    if access is None:
        return dict(environ)
    token, models = access.token.reveal(), f"{access.url}/v1"
    return dict(environ) | {
        "CALLIOPE_AGENT_URL": access.url,
        "CALLIOPE_AGENT_TOKEN": token,
        "OPENAI_BASE_URL": models,
        "OPENAI_API_BASE": models,  # aider, through litellm, and older OpenAI clients
        "OPENAI_API_KEY": token,
        "OPENAI_MODEL": "chat",
        "AIDER_MODEL": "openai/chat",
        "ANTHROPIC_BASE_URL": access.url,
        "ANTHROPIC_API_KEY": token,
        "ANTHROPIC_MODEL": "chat",
        "ANTHROPIC_SMALL_FAST_MODEL": "fast",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "fast",
        "NO_PROXY": _bypass(environ, "NO_PROXY"),
        "no_proxy": _bypass(environ, "no_proxy"),
    }


def for_agent(environ: Mapping[str, str]) -> dict[str, str]:
    """The launcher's own environment without the hub's secrets: the keys are here and nowhere else."""
    return {n: value for n, value in environ.items() if may_pass(n) or not matches(n, HUBS_OWN)}


def for_jupyter(environ: Mapping[str, str], extra: Iterable[str] = ()) -> dict[str, str]:
    """A person's environment plus what single-user Jupyter needs of the hub's; the extension forgets that after use."""
    return personal(environ, extra) | {name: value for name, value in environ.items() if matches(name, HUBS_OWN[:2])}


def _bypass(environ: Mapping[str, str], name: str) -> str:
    """A proxy of the network cannot reach this container's loopback."""
    hosts = [host for host in environ.get(name, "").split(",") if host]
    return ",".join([*hosts, *(host for host in ("127.0.0.1", "localhost") if host not in hosts)])
