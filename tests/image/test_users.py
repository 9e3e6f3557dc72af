"""Who runs as whom, what each may see, and what is done where not everything may be done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.image.engine import Running, container, podman, until, volume

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

KEY = "sk-canary-image-3f9b7c1d2e"


@pytest.fixture(scope="module")
def as_root(image: str) -> Iterator[Running]:
    with container(image, env={"OPENAI_API_KEY": KEY, "CALLIOPE_REQUIRE_KEY_SEPARATION": "true"}) as running:
        running.ready()
        yield running


def test_three_users_and_root_starts_them(as_root: Running) -> None:
    who = as_root.processes()
    assert {uid for uid, args in who if "jupyter_server" in args or "code-server" in args} == {1000}
    assert [uid for uid, args in who if "calliope_agent serve" in args] == [990]
    assert {uid for uid, args in who if args.startswith("/usr/bin/tini") or args.endswith("launch")} <= {0}


def test_the_person_sees_no_key(as_root: Running) -> None:
    # What `podman exec` starts gets the container's variables and is the operator's own doing, so it is left out.
    script = (
        "mine=$(ps -o sid= -p $$); for p in /proc/[0-9]*; do"
        '  [ "$(ps -o sid= -p ${p#/proc/})" = "$mine" ] || cat $p/environ; done 2>/dev/null | tr "\\0" "\\n";'
        "grep -rs . /var/lib/calliope-agent /home /tmp; echo looked"
    )
    seen = as_root.run("/bin/bash", "-c", script, user="1000:100", check=False)
    assert "CALLIOPE_AGENT_URL" in seen  # the person's own processes were read
    assert seen.endswith("looked")
    assert KEY not in seen
    # It is where it should be: the same command as root finds it.
    assert KEY in as_root.run("/bin/bash", "-c", "cat /proc/1/environ", user="0", check=False)


def test_the_person_reaches_neither_the_agent_s_folders_nor_its_manage_token(as_root: Running) -> None:
    script = "ls /var/lib/calliope-agent; cat /tmp/calliope-agent-0/default/agent/manage-token; ls /tmp/calliope-agent-0/default/agent"
    done = as_root.run("/bin/bash", "-c", f"({script}) 2>&1", user="1000:100", check=False)
    assert done.count("Permission denied") >= 2
    assert "cal-" not in done


def test_health_follows_the_port(as_root: Running) -> None:
    assert as_root.healthy()


def test_a_random_user_on_a_read_only_root(image: str) -> None:
    """As OpenShift starts it: a user id that no file knows, group 0, no capability at all."""
    options = ("--user", "123456:0", "--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp", "--pids-limit", "512")
    home = volume()
    try:
        with container(image, *options, "-v", f"{home}:/home/calliope", root=False) as running:
            found = running.ready()
            assert found["note"] == ""
            assert {uid for uid, _ in running.processes()} == {123456}
            assert running.healthy()
            running.run("touch", "/home/calliope/workspace/mine")
            took, code = running.stop()
            assert (code, took < 9) == (143, True)
    finally:
        podman("volume", "rm", "-f", home, check=False)


def test_a_home_that_cannot_be_written_is_said_and_the_ide_opens(image: str) -> None:
    options = ("--user", "1000:100", "--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp")
    with container(image, *options, root=False) as running:
        assert "cannot be made in /home/calliope" in running.ready()["note"]
        until(lambda: running.get("/")[0] == 200, "the IDE on a read-only home")
        assert "cannot be made" in running.log()


def test_a_home_that_is_root_s_alone_is_named_with_its_cure(image: str) -> None:
    """A tmpfs belongs to root, whoever starts."""
    with container(image, "--user", "1000:100", "--tmpfs", "/home/calliope", root=False) as running:
        until(lambda: "belongs to user id 0, mode 770; this is user id 1000" in running.log(), "the reason")


def test_without_a_model_something_is_advised_that_works_in_here(image: str) -> None:
    with container(image) as running:
        running.ready()
        asked = [("0", "status"), ("0", "chat hello"), ("0", "doctor"), ("0", "models pull")]
        asked += [("1000:100", "doctor"), ("1000:100", "models pull")]
        for user, words in asked:
            told = running.run("/bin/bash", "-c", f"calliope-agent {words} 2>&1", user=user, check=False)
            assert "keys set NAME" in told, told
            assert "LOCAL_MODEL=true" in told, told
            for wrong in ("models pull", "pip install", "Traceback"):
                assert wrong not in told, told


def test_too_few_capabilities_are_named(image: str) -> None:
    with container(image, root=False) as running:
        until(lambda: "exited" in podman("inspect", running.name, "--format", "{{.State.Status}}"), "its end", 60)
        lines = [line for line in running.log().splitlines() if line]
        assert len(lines) == 1
        assert "SETUID, SETGID, KILL, CHOWN and DAC_OVERRIDE" in lines[0]


def test_links_that_were_planted_in_the_home_are_not_followed_by_root(image: str) -> None:
    home = volume()
    mounted = ("-v", f"{home}:/home/calliope")
    plant = (
        "cd /home/calliope; rm -rf .calliope-ide workspace .config .local;"
        "ln -s /etc .calliope-ide; ln -s /root workspace; ln -s /etc .config; ln -s /var/lib/calliope-agent .local; ls -la"
    )
    try:
        podman("run", "--rm", "--user", "1000:100", *mounted, "--entrypoint", "/bin/bash", image, "-c", plant)
        with container(image, *mounted) as running:
            until(lambda: running.get("/health")[0] == 200, "health")
            until(running.status, "Jupyter")
            script = "find /etc /root /var/lib/calliope-agent -newer /proc/1/cmdline \\( -user 1000 -o -group 100 \\)"
            assert running.run("/bin/bash", "-c", script) == ""
            assert running.run("stat", "-c", "%u", "/etc", "/root") == "0\n0"
            assert running.run("stat", "-c", "%u:%a", "/var/lib/calliope-agent") == "990:700"
            assert "cannot be made" in running.log()
    finally:
        podman("volume", "rm", "-f", home, check=False)
