"""What the hub says to a single-user server: its environment, read once into one value.

Decisions
1. Under a hub means JUPYTERHUB_API_TOKEN *and* JUPYTERHUB_API_URL. The reference's own compose file sets the user, the
   server's name and the prefix without any hub, so those three alone mean a stand-alone server below a prefix.
2. The versions spoken to are those that the installed ``jupyterhub`` speaks with: majors 5 and 6. Below 5 the cookies
   and the XSRF rules are others; a later major has not been seen.
3. With the hub's own TLS (``internal_ssl``) the hub is asked with the certificate that it gave this server, and
   believed by its own authority. Jupyter does the same by itself.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from calliope_agent.errors import ConfigError
from calliope_agent.secret import Secret

HUB_MAJORS = range(5, 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """The hub's environment. ``prefix`` starts and ends with a slash; ``token`` is None when there is no hub."""

    user: str = ""
    server_name: str = ""
    prefix: str = "/"
    service_url: str = ""
    token: Secret | None = None
    api_url: str = ""
    base_url: str = "/"
    host: str = ""
    keyfile: str = ""
    certfile: str = ""
    client_ca: str = ""

    @property
    def present(self) -> bool:
        return self.token is not None and bool(self.api_url)

    @property
    def bind(self) -> tuple[str, int] | None:
        """The address the hub will look at, from the service URL; an empty host means every interface."""
        if not self.present:
            return None
        parts = urlsplit(self.service_url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def tls(self) -> ssl.SSLContext | None:
        """How to ask the hub, or None for plain HTTP. Raises OSError for certificates that cannot be read."""
        if urlsplit(self.api_url).scheme != "https":
            return None
        context = ssl.create_default_context(cafile=self.client_ca or None)  # with one of its own, no other counts
        if self.certfile:
            context.load_cert_chain(self.certfile, self.keyfile or None)
        return context

    def public(self, path: str) -> str:
        """``hub/…`` below the service prefix → the address of the hub itself."""
        return self.host + self.base_url + path.lstrip("/")


def read(environ: Mapping[str, str]) -> Hub:
    """Raises `ConfigError` for a hub that gives a token but no address to listen on."""

    def text(name: str) -> str:
        return environ.get(f"JUPYTERHUB_{name}", "").strip()

    token = text("API_TOKEN")
    hub = Hub(
        user=text("USER"),
        server_name=text("SERVER_NAME"),
        prefix=slashed(text("SERVICE_PREFIX")),
        service_url=text("SERVICE_URL"),
        token=Secret(token) if token else None,
        api_url=text("API_URL"),
        base_url=slashed(text("BASE_URL")),
        host=text("HOST"),
        keyfile=text("SSL_KEYFILE"),
        certfile=text("SSL_CERTFILE"),
        client_ca=text("SSL_CLIENT_CA"),
    )
    if hub.present and not _listenable(hub.service_url):
        raise ConfigError(
            "JUPYTERHUB_API_TOKEN is set but JUPYTERHUB_SERVICE_URL is no address to listen on. Let a JupyterHub"
            " spawner start this command, or unset JUPYTERHUB_API_TOKEN to run without a hub.",
            param="JUPYTERHUB_SERVICE_URL",
        )
    return hub


def slashed(prefix: str) -> str:
    """``user/alice`` → ``/user/alice/``; doubled slashes become one; what is not safe in a path is quoted."""
    inner = re.sub("/+", "/", quote(prefix, safe="/%@~!$&'()*+,;=:")).strip("/")
    return f"/{inner}/" if inner else "/"


async def version(api_url: str, tls: ssl.SSLContext | None = None) -> str:
    """Ask the hub, which tells anybody. Raises OSError, and ValueError when no hub answers there."""
    parts = urlsplit(api_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls)
    try:
        writer.write(f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as exc:
        raise ValueError("what answers there speaks no HTTP") from exc
    finally:
        writer.close()
    found = re.search(rb"(?im)^x-jupyterhub-version:[ \t]*([^\r\n]+)", head)
    if found is None:
        raise ValueError("what answers there is no JupyterHub")
    return found[1].decode("latin-1").strip()


def check_version(version: str) -> None:
    """Raises `ConfigError` outside the supported majors, and for what is no version at all."""
    major, _, _ = version.partition(".")
    if not major.isascii() or not major.isdigit() or int(major) not in HUB_MAJORS:
        raise ConfigError(
            f"This hub is JupyterHub {version[:40]!r}; this launcher works with JupyterHub {HUB_MAJORS[0]} to"
            f" {HUB_MAJORS[-1]}. Upgrade the hub, or use an image made for it.",
            param="JUPYTERHUB_API_URL",
        )


def _listenable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and port != 0
