"""The hub's template with a domain and OpenID Connect: real TLS, a real browser, an origin for each person."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from playwright.async_api import BrowserContext, Page

from tests.e2e.browser import Workbench, chromium
from tests.image import oidc
from tests.image.engine import free_ports
from tests.image.hub import PASSWORD, PEOPLE, SERVER, Hub, Tls, serving

pytestmark = [pytest.mark.image, pytest.mark.timeout(1200)]

HOST = "hub.localhost"  # it and every name below it are the loopback to Chromium


def certificate(folder: Path) -> Tls:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    names = [x509.DNSName(HOST), x509.DNSName(f"*.{HOST}"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    told = Tls(HOST, folder / "hub.pem", folder / "hub.key")
    told.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    told.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return told


@pytest.fixture(scope="module")
def hub(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("domain")
    port = free_ports(1)[0]
    people = dict.fromkeys(PEOPLE, (PASSWORD, ("waiide", "others"))) | {"carol": (PASSWORD, ("others",))}
    realm = oidc.Realm(people, f"https://{HOST}:{port}/hub/oauth_callback")
    with oidc.serving(realm) as variables:
        settings = {**variables, "WAIIDE_DOMAIN": f"{HOST}:{port}", "OIDC_ALLOWED_GROUPS": "waiide"}
        with serving(image, folder, settings, port=port, tls=certificate(folder)) as found:
            yield found


@pytest.fixture
async def visitor() -> AsyncIterator[BrowserContext]:
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("Chromium is needed (Debian: apt-get install chromium)")
    async with chromium(executable) as browser:
        yield await browser.new_context(ignore_https_errors=True)


async def log_in(context: BrowserContext, hub: Hub, user: str) -> Page:
    """From the hub's first page to the provider's form and back; returns the page behind it."""
    page = await context.new_page()
    await page.goto(f"{hub.origin}/")
    await page.fill("#user", user)
    await page.fill("#password", PASSWORD)
    await page.click("#login")
    await page.wait_for_url(lambda url: "/realms/" not in url)
    return page


def at(hub: Hub, user: str) -> str:
    return f"https://{user}.{HOST}:{hub.port}/user/{user}/{SERVER}/"


async def test_the_ide_is_on_the_person_s_own_host_with_host_cookies(hub: Hub, visitor: BrowserContext) -> None:
    page = await log_in(visitor, hub, "alice")
    assert page.url == f"{hub.origin}/hub/home"
    hub.start("alice")
    await Workbench(page).open(f"{hub.origin}/user/alice/{SERVER}/?folder=/home/alice/workspace")
    assert page.url.startswith(at(hub, "alice"))
    cookies = await visitor.cookies()
    keys = {one["name"]: one for one in cookies if "-login" in one["name"] or "-user-" in one["name"]}
    assert {name: one["domain"] for name, one in keys.items()} == {
        "__Host-jupyterhub-hub-login": HOST,
        f"__Host-jupyterhub-user-alice-{SERVER}": f"alice.{HOST}",
    }
    for one in keys.values():
        assert one["path"] == "/"
        assert one["secure"], one
        assert one["httpOnly"], one
    # No key: what ends all of a person's logins at once is shared by their hosts, on purpose of the hub's.
    shared = {one["name"]: one for one in cookies if one["domain"].startswith(".")}
    assert list(shared) == ["jupyterhub-session-id"]
    assert shared["jupyterhub-session-id"]["secure"]
    assert all(one["secure"] for one in cookies if one["domain"] == HOST)


async def test_another_person_s_host_refuses(hub: Hub, visitor: BrowserContext) -> None:
    hub.start("alice")
    page = await log_in(visitor, hub, "bob")
    answer = await page.goto(at(hub, "alice"))
    assert answer is not None
    assert answer.status == 403
    assert "monaco-workbench" not in await page.content()
    assert f"__Host-jupyterhub-user-alice-{SERVER}" not in {one["name"] for one in await visitor.cookies()}
    # Nor is a server reached by its path on somebody else's host.
    answer = await page.goto(f"https://bob.{HOST}:{hub.port}/user/alice/{SERVER}/")
    assert answer is not None
    assert answer.status in (403, 404)


async def test_who_is_not_in_the_group_does_not_enter(hub: Hub, visitor: BrowserContext) -> None:
    page = await log_in(visitor, hub, "carol")
    assert urlsplit(page.url).path == "/hub/oauth_callback"
    assert "403" in await page.content()
    assert hub.api("GET", "/users/carol")[0] == 404


async def test_a_wrong_password_stays_at_the_provider(hub: Hub, visitor: BrowserContext) -> None:
    page = await visitor.new_page()
    await page.goto(f"{hub.origin}/")
    await page.fill("#user", "alice")
    await page.fill("#password", "wrong")
    await page.click("#login")
    await page.wait_for_selector("text=another password")
    assert "/realms/waiide/" in page.url
