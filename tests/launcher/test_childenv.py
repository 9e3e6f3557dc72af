"""What the children's environments hold, and what they never hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calliope_agent import environment
from calliope_agent.launcher import childenv
from calliope_agent.secret import Secret

GIVEN = {
    "PATH": "/bin",
    "LC_ALL": "C.UTF-8",
    "HTTPS_PROXY": "http://proxy:3128",
    "OPENAI_API_KEY": "sk-real",
    "AWS_SECRET_ACCESS_KEY": "aws",
    "NVIDIA_API_KEY": "nv",
    "JUPYTERHUB_API_TOKEN": "hub",
    "JPY_API_TOKEN": "hub",
    "JUPYTERHUB_USER": "alice",
    "DATABASE_URL": "postgres://db",
}
ACCESS = childenv.AgentAccess("http://127.0.0.1:8072", Secret("cal-the-complete-token"))


def test_no_key_and_no_hub_token_reaches_a_person_s_processes() -> None:
    found = childenv.personal(GIVEN)
    assert found == {name: GIVEN[name] for name in ("PATH", "LC_ALL", "HTTPS_PROXY", "JUPYTERHUB_USER")}


def test_a_persons_processes_see_what_every_child_may_see() -> None:
    tuned = {"OMP_NUM_THREADS": "2", "PIP_INDEX_URL": "https://mirror.example/simple", "SSH_AUTH_SOCK": "/run/ssh"}
    assert childenv.personal(GIVEN | tuned) == environment.allowed(GIVEN | tuned)
    assert childenv.personal(tuned) == tuned


def test_the_operator_may_pass_more_but_not_the_hub_s_token() -> None:
    found = childenv.personal(GIVEN, ["DATABASE_*", "JPY_API_TOKEN", "JUPYTERHUB_*"])
    assert found["DATABASE_URL"] == "postgres://db"
    assert "hub" not in found.values()


def test_a_descriptor_named_from_outside_reaches_nobody() -> None:
    """What stands under that number in a child is another file, or none."""
    given = {"WAIIDE_CONTROL_FD": "0", "WAIIDE_LISTEN_FDS": "0", "WAIIDE_NOTE": "x"}
    assert childenv.for_jupyter(given, ["WAIIDE_*"]) == {"WAIIDE_NOTE": "x"}
    assert childenv.for_agent(given) == {"WAIIDE_NOTE": "x"}


def test_jupyter_gets_the_hub_s_names_and_the_agent_gets_the_keys() -> None:
    assert childenv.for_jupyter(GIVEN)["JUPYTERHUB_API_TOKEN"] == "hub"
    assert "OPENAI_API_KEY" not in childenv.for_jupyter(GIVEN)
    agent = childenv.for_agent(GIVEN)
    assert agent["OPENAI_API_KEY"] == "sk-real"
    assert "hub" not in agent.values()


def test_tools_find_the_agent_by_the_common_names() -> None:
    found = childenv.with_agent(childenv.personal(GIVEN), ACCESS)
    assert found["OPENAI_BASE_URL"] == "http://127.0.0.1:8072/v1"
    assert found["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8072"
    assert found["OPENAI_API_KEY"] == found["ANTHROPIC_API_KEY"] == "cal-the-complete-token"
    assert {"127.0.0.1", "localhost"} <= set(found["NO_PROXY"].split(","))


def test_without_an_agent_nothing_is_added() -> None:
    assert childenv.with_agent({"PATH": "/bin"}, None) == {"PATH": "/bin"}


@given(st.dictionaries(st.from_regex(r"[A-Z]{1,8}_(API_KEY|TOKEN|SECRET)", fullmatch=True), st.text(), max_size=5))
def test_names_of_secrets_never_pass_by_themselves(environ: dict[str, str]) -> None:
    assert childenv.personal(environ) == {}
