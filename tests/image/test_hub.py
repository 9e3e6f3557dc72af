"""A real JupyterHub with the shipped template spawns real containers through podman's Docker socket."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Iterator

import pytest

from tests.image.engine import podman
from tests.image.hub import PASSWORD, PEOPLE, SERVER, Hub, names_of, serving
from tests.image.test_life import TOKEN

pytestmark = [pytest.mark.image, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def hub(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with serving(image, tmp_path_factory.mktemp("hub"), {"WAIIDE_TRIAL_PASSWORD": PASSWORD}) as found:
        for user in PEOPLE:
            found.api("POST", f"/users/{user}")
        yield found


def test_two_people_with_one_server_name_stay_apart(hub: Hub) -> None:
    started = time.monotonic()
    hub.start("alice")
    print(f"spawn to ready: {time.monotonic() - started:.1f} s")
    hub.start("bob")
    alice, bob = names_of("alice"), names_of("bob")
    assert len(alice) == len(bob) == 1
    assert alice[0].startswith("alice-same-waiide-abc123-")
    podman("exec", "--user", "1000:100", alice[0], "touch", "/home/alice/workspace/hers")
    assert podman("exec", bob[0], "ls", "/home/bob/workspace") == ""
    for user, status in (("alice", 200), ("bob", 403)):
        code, page = hub.as_user(user, f"/user/alice/{SERVER}/")
        assert code == status, page[-500:]
    code, page = hub.as_user("alice", f"/user/alice/{SERVER}/?folder=/home/alice/workspace")
    assert "workbench" in page


def test_it_streams_through_the_agent_in_there(hub: Hub) -> None:
    name = names_of("alice")[0]
    script = (
        "import json,os,urllib.request as u;"
        "b=json.dumps({'model':'openai/gpt-4o','stream':True,'messages':[{'role':'user','content':'x'}]}).encode();"
        f"h={{'authorization':'Bearer {TOKEN}','content-type':'application/json'}};"
        "p=os.environ['CALLIOPE_AGENT_PORT'];"
        "print(u.urlopen(u.Request(f'http://127.0.0.1:{p}/v1/chat/completions',b,h)).read().count(b'data: '))"
    )
    assert podman("exec", "--user", "1000:100", name, "python3", "-c", script) == "52"


def test_a_file_a_setting_and_an_extension_survive_a_respawn(hub: Hub) -> None:
    files = (
        "workspace/kept",
        ".calliope-ide/User/settings.json",
        ".calliope-ide/extensions/mine.mine-1.0.0/package.json",
    )
    for file in files:
        script = f"mkdir -p $(dirname /home/alice/{file}) && echo '{{\"mine\": 1}}' > /home/alice/{file}"
        podman("exec", "--user", "1000:100", names_of("alice")[0], "bash", "-c", script)
    hub.stop("alice")
    assert names_of("alice") == []
    hub.start("alice")
    for file in files:
        assert podman("exec", names_of("alice")[0], "cat", f"/home/alice/{file}") == '{"mine": 1}'


def test_the_address_of_old_leads_to_the_server_of_now(hub: Hub) -> None:
    opener = hub.browser("alice")
    for old, new in (("waiide/lab?a=b", "lab?a=b"), ("waiide/WAIIDE/?folder=x", "?folder=x"), ("waiide", "")):
        try:
            url = opener.open(f"{hub.origin}/user/alice/{old}", timeout=60).url
        except urllib.error.HTTPError as exc:
            url = exc.url  # no JupyterLab in this image, so /lab is a 404 of the right server
        assert url.startswith(f"{hub.origin}/user/alice/{SERVER}/{new}"), url


@pytest.mark.parametrize("name", ["Bad_Name", "-x", "x" * 49, "a..b", "a%2Fb"])
def test_a_name_that_is_none_is_refused(hub: Hub, name: str) -> None:
    code, _ = hub.api("POST", f"/users/alice/servers/{name}", {})
    assert code >= 400
