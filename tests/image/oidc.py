"""A small OpenID Connect provider with Keycloak's addresses: discovery, keys, authorization code with PKCE, userinfo.

It refuses what a real one refuses: another client, another redirect address, a code that was used, a wrong verifier or
secret, an unknown access token. So a login that works here was asked for properly.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

REALM = "/realms/waiide"
CLIENT, CLIENT_SECRET = "waiide", "a-client-secret-of-the-test"
FORM = """<!doctype html><title>Log in</title><form method="post"><input id="user" name="user">
<input id="password" name="password" type="password"><button id="login">Log in</button></form><p>{}</p>"""


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Realm:
    """``people``: name → (password, groups). ``redirect`` is the one address that codes are given to."""

    people: Mapping[str, tuple[str, tuple[str, ...]]]
    redirect: str
    issuer: str = ""
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    codes: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    granted: dict[str, str] = field(default_factory=dict)

    def claims(self, user: str) -> dict[str, Any]:
        return {"sub": f"id-{user}", "preferred_username": user, "groups": list(self.people[user][1])}

    def id_token(self, user: str) -> str:
        now = int(time.time())
        said = {**self.claims(user), "iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300}
        parts = [unpadded(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": "1", "typ": "JWT"}, said)]
        signature = self.key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
        return ".".join((*parts, unpadded(signature)))

    def keys(self) -> dict[str, Any]:
        public = self.key.public_key().public_numbers()
        numbers = {"n": public.n.to_bytes(256, "big"), "e": public.e.to_bytes(3, "big")}
        made = {name: unpadded(number) for name, number in numbers.items()}
        return {"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", **made}]}

    def discovery(self) -> dict[str, Any]:
        base = f"{self.issuer}/protocol/openid-connect"
        return {
            "issuer": self.issuer, "authorization_endpoint": f"{base}/auth", "token_endpoint": f"{base}/token",
            "userinfo_endpoint": f"{base}/userinfo", "jwks_uri": f"{base}/certs", "response_types_supported": ["code"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }  # fmt: skip

    def refuses(self, query: Mapping[str, str]) -> str:
        """Why nobody may log in for this; empty when they may."""
        wanted = {"client_id": CLIENT, "redirect_uri": self.redirect, "response_type": "code"}
        wrong = [name for name, value in wanted.items() if query.get(name) != value]
        if "openid" not in query.get("scope", "").split():
            wrong.append("scope")
        if query.get("code_challenge_method") != "S256" or not query.get("state"):
            wrong.append("code_challenge_method or state")
        return ", ".join(wrong)

    def give_code(self, user: str, query: dict[str, str]) -> str:
        code = secrets.token_urlsafe(16)
        self.codes[code] = (user, query)
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def redeem(self, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        user, asked = self.codes.pop(form.get("code", ""), ("", {}))
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, CLIENT_SECRET):
            return 401, {"error": "invalid_client"}
        challenge = unpadded(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        same = asked.get("redirect_uri") == form.get("redirect_uri") and asked.get("code_challenge") == challenge
        if not same or form.get("grant_type") != "authorization_code":
            return 400, {"error": "invalid_grant"}
        token = secrets.token_urlsafe(16)
        self.granted[token] = user
        return 200, {
            "access_token": token, "token_type": "Bearer", "expires_in": 300, "scope": asked["scope"],
            "id_token": self.id_token(user),
        }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    realm: Realm

    def do_GET(self) -> None:
        path, query = self._asked()
        if path == "/.well-known/openid-configuration":
            self._json(200, self.realm.discovery())
        elif path == "/protocol/openid-connect/certs":
            self._json(200, self.realm.keys())
        elif path == "/protocol/openid-connect/auth":
            refused = self.realm.refuses(query)
            self._page(400 if refused else 200, f"Refused: {refused}" if refused else "")
        elif path == "/protocol/openid-connect/userinfo":
            user = self.realm.granted.get(self.headers.get("authorization", "").removeprefix("Bearer "))
            self._json(200, self.realm.claims(user)) if user else self._json(401, {"error": "invalid_token"})
        else:
            self._json(404, {"error": "not_found"})

    def do_POST(self) -> None:
        path, query = self._asked()
        form = self._form()
        if path == "/protocol/openid-connect/token":
            self._json(*self._redeemed(form))
        elif path == "/protocol/openid-connect/auth" and not self.realm.refuses(query):
            user = form.get("user", "")
            if user in self.realm.people and secrets.compare_digest(
                form.get("password", ""), self.realm.people[user][0]
            ):
                self.send_response(302)
                self.send_header("location", self.realm.give_code(user, query))
                self.end_headers()
            else:
                self._page(401, "No such user, or another password.")
        else:
            self._json(400, {"error": "invalid_request"})

    def _redeemed(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """The client may name itself in the form or in the Authorization header."""
        basic = self.headers.get("authorization", "")
        if basic.startswith("Basic "):
            name, _, secret = base64.b64decode(basic.removeprefix("Basic ")).decode().partition(":")
            form |= {"client_id": name, "client_secret": secret}
        return self.realm.redeem(form)

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        path = parts.path.removeprefix(REALM) if parts.path.startswith(REALM) else ""
        return path, dict(parse_qsl(parts.query))

    def _form(self) -> dict[str, str]:
        return dict(parse_qsl(self.rfile.read(int(self.headers.get("content-length", 0))).decode()))

    def _json(self, status: int, told: Mapping[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(told).encode())

    def _page(self, status: int, said: str) -> None:
        self._send(status, "text/html", FORM.format(html.escape(said)).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def serving(realm: Realm) -> Iterator[dict[str, str]]:
    """The variables of the hub's template that lead there, and no others."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfThisRealm", (Handler,), {"realm": realm}))
    server.daemon_threads = True
    realm.issuer = f"http://127.0.0.1:{server.server_port}{REALM}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {"OIDC_ISSUER": realm.issuer, "OIDC_CLIENT_ID": CLIENT, "OIDC_CLIENT_SECRET": CLIENT_SECRET}
    finally:
        server.shutdown()
        server.server_close()
