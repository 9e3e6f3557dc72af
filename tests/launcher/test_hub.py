"""The hub's environment and the launcher's options."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from calliope_agent.errors import ConfigError
from calliope_agent.launcher import hub, options

SPAWNED = {
    "JUPYTERHUB_USER": "alice",
    "JUPYTERHUB_SERVER_NAME": "alice-waiide-abc123",
    "JUPYTERHUB_SERVICE_PREFIX": "/user/alice/alice-waiide-abc123/",
    "JUPYTERHUB_SERVICE_URL": "http://0.0.0.0:18010/user/alice/alice-waiide-abc123/",
    "JUPYTERHUB_API_TOKEN": "bbb9000000000000",
    "JUPYTERHUB_API_URL": "http://127.0.0.1:18002/hub/api",
    "JUPYTERHUB_BASE_URL": "/",
}


def test_a_spawned_server_is_under_a_hub() -> None:
    read = hub.read(SPAWNED)
    assert read.present
    assert read.bind == ("0.0.0.0", 18010)
    assert "bbb9000000000000" not in repr(read)


@pytest.mark.parametrize("missing", ["JUPYTERHUB_API_TOKEN", "JUPYTERHUB_API_URL"])
def test_the_reference_s_compose_environment_is_no_hub(missing: str) -> None:
    read = hub.read({**SPAWNED, missing: ""})
    assert not read.present
    assert read.bind is None
    assert read.prefix == "/user/alice/alice-waiide-abc123/"


@pytest.mark.parametrize("url", ["", "alice", "http://[::1:80/", "http://h:99999/", "ftp://h/"])
def test_a_hub_without_an_address_to_listen_on_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="JUPYTERHUB_SERVICE_URL"):
        hub.read({**SPAWNED, "JUPYTERHUB_SERVICE_URL": url})


@given(st.text(alphabet="/ab%é @", max_size=12))
def test_a_prefix_has_its_slashes_once_and_is_ascii(text: str) -> None:
    prefix = hub.slashed(text)
    assert prefix.startswith("/")
    assert prefix.endswith("/")
    assert "//" not in prefix
    assert prefix.isascii()
    assert hub.slashed(prefix) == prefix


@pytest.mark.parametrize("version", ["5.0.0", "5.4.1", "6.0.0b1", "6.1.1"])
def test_supported_hubs_pass(version: str) -> None:
    hub.check_version(version)


@pytest.mark.parametrize("version", ["4.1.6", "7.0.0", "", "six", "٦.0"])
def test_other_hubs_are_refused_with_both_versions(version: str) -> None:
    with pytest.raises(ConfigError, match=r"works with JupyterHub 5 to 6"):
        hub.check_version(version)


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"HTTP/1.1 200 OK\r\nX-JupyterHub-Version: 6.1.1\r\n\r\n", "6.1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
        (b"no", None),
    ],
)
async def test_the_hub_s_version_is_read_from_its_answer(head: bytes, found: str | None) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hub/api"
    async with server:
        if found:
            assert await hub.version(url) == found
        else:
            with pytest.raises(ValueError, match="what answers there"):
                await hub.version(url)


def test_the_hub_is_asked_with_its_own_certificates(tmp_path: Path) -> None:
    """That they do is shown with a real hub, in tests/e2e/test_hub_kinds.py."""
    assert hub.read(SPAWNED).tls() is None
    api = {**SPAWNED, "JUPYTERHUB_API_URL": "https://127.0.0.1:18002/hub/api"}
    assert hub.read(api).tls() is not None
    for name in ("SSL_CLIENT_CA", "SSL_CERTFILE"):
        with pytest.raises(OSError, match="No such file"):
            hub.read({**api, f"JUPYTERHUB_{name}": str(tmp_path / "missing.pem")}).tls()


def authority(folder: Path, name: str) -> Path:
    """A certificate for the loopback that vouches for itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    told = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(told, told, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / f"{name}.pem"
    file.write_bytes(made.public_bytes(Encoding.PEM) + written)
    return file


@pytest.mark.parametrize("name", ["hub", "world"])
async def test_no_authority_but_the_hub_s_own_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Not the machine's either: whoever holds a certificate of theirs for such a name is not the hub."""
    files = {each: authority(tmp_path, each) for each in ("hub", "world")}
    monkeypatch.setenv("SSL_CERT_FILE", str(files["world"]))
    spoken = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    spoken.load_cert_chain(files[name])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\nX-JupyterHub-Version: 5.2.1\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=spoken)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/hub/api"
    mine = hub.read({**SPAWNED, "JUPYTERHUB_API_URL": url, "JUPYTERHUB_SSL_CLIENT_CA": str(files["hub"])})
    async with server:
        if name == "hub":
            assert await hub.version(url, mine.tls()) == "5.2.1"
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                await hub.version(url, mine.tls())


def test_port_wins_over_jupyterhub_port() -> None:
    assert options.read({"PORT": "8080", "JUPYTERHUB_PORT": "8090"}, hub.Hub()).port == 8080
    assert options.read({"PORT": "", "JUPYTERHUB_PORT": "8090"}, hub.Hub()).port == 8090
    assert options.read({}, hub.Hub()).port == 8070


def test_under_a_hub_the_service_url_wins_and_the_disagreement_is_said() -> None:
    read = options.read({"PORT": "8080"}, hub.read(SPAWNED))
    assert read.port == 18010
    assert "18010" in read.notes[0]
    assert "8080" in read.notes[0]
    assert options.read({"PORT": "18010"}, hub.read(SPAWNED)).notes == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VSCODE_PORT", "eighty"),
        ("WAIIDE_RESTART_ROLE", "root"),
        ("WAIIDE_IDLE_SHUTDOWN_S", "-5"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_bad_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        options.read({name: value}, hub.Hub())


def test_a_bad_token_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        options.read({"CALLIOPE_MANAGE_TOKEN": "short secret"}, hub.Hub())
    assert "short" not in caught.value.message
