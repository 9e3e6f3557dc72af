"""What of our own environment a child may see: the IDE, terminals, notebooks, and the commands that print keys.

**Decisions**

1. A list of what may pass, not of what may not: a new provider's variable is then safe on the day it appears.
2. One list for every child. Who needs more says so by name: the launcher for the hub's variables and the agent's address, an operator
   with WAIIDE_PASS_ENV.
3. Within the list a name that sounds like a secret stays out all the same, and so does a value that is one: families of names
   (``PIP_*``, ``NPM_CONFIG_*``) hold both. A proxy's address may carry its password, since nobody gets out without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

_WHO_AND_WHERE = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "HOSTNAME", "TMPDIR", "UMASK", "XDG_*", "MANPATH", "LANG", "LANGUAGE", "LC_*", "TZ",
)  # fmt: skip
_SCREEN = (
    "TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "EDITOR", "VISUAL", "PAGER", "LESS", "DISPLAY",
)  # fmt: skip
# Doors to the person's own agents, which ask him before they do anything.
_SESSION = ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS")
# Without these nothing reaches a network that has a proxy or an authority of its own.
_PROXIES = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "FTP_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "ftp_proxy",
)  # fmt: skip
_AUTHORITIES = (
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO",
)  # fmt: skip
# Where an image has put its languages, and which mirrors a site has for their packages.
_LANGUAGES = (
    "PYTHON*", "VIRTUAL_ENV", "CONDA_*", "MAMBA_*", "PIP_*", "UV_*", "NPM_CONFIG_*", "NODE_*", "NVM_DIR", "JAVA_HOME", "GOPATH",
    "CARGO_HOME", "RUSTUP_HOME", "R_*", "JULIA_*", "SPARK_*", "HADOOP_*", "LD_LIBRARY_PATH", "GIT_AUTHOR_*", "GIT_COMMITTER_*",
)  # fmt: skip
# What the machine is, and how much of it may be used: a library that does not know takes every core of the node.
_MACHINE = (
    "CUDA_*", "NVIDIA_*", "NCCL_*", "ROCM_*", "OMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*", "MEM_LIMIT", "MEM_GUARANTEE", "CPU_LIMIT",
    "CPU_GUARANTEE",
)  # fmt: skip
_SERVER = (
    "NB_*", "JUPYTER_*", "JUPYTERHUB_USER", "JUPYTERHUB_SERVER_NAME", "JUPYTERHUB_SERVICE_PREFIX", "JUPYTERHUB_BASE_URL",
    "JUPYTERHUB_PUBLIC_URL", "JUPYTERHUB_PUBLIC_HUB_URL", "LOG_LEVEL", "LOG_FORMAT",
)  # fmt: skip
ALLOWED = (
    *_WHO_AND_WHERE, *_SCREEN, *_SESSION, *_PROXIES, *_AUTHORITIES, *_LANGUAGES, *_MACHINE, *_SERVER,
)  # fmt: skip
_SECRET_NAME = re.compile(
    r"(?i)(API_?KEY|ACCESS_?KEY|SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|PRIVATE|_KEY$|_PAT$|_DSN$|_AUTH$)"
)
_KEY = re.compile(r"(sk-|sk_|AIza|gsk_|hf_|xai-|AKIA|ASIA|cal-|ghp_|gho_|github_pat_|glpat-)[A-Za-z0-9_-]{12,}")
# A password, a token in the user's place (a mirror's ``https://TOKEN@…``; not ``git@``), and conda's place for one.
_SECRET_IN_URL = re.compile(
    r"://(?:[^/\s@]*:[^/\s@]+@|(?=[^/\s@:\d]*\d)[^/\s@:]{20,}:?@|\S*/t/[A-Za-z0-9-]{12,}(?:[/\s]|$))"
)


def allowed(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of ``environ`` that any child may see."""
    return {name: value for name, value in environ.items() if may_pass(name) and not _is_secret(name, value)}


def may_pass(name: str) -> bool:
    """Whether the name is on the list, whatever its value."""
    return matches(name, ALLOWED) and not sounds_secret(name)


def sounds_secret(name: str) -> bool:
    """Whether a variable of this name is to be hidden by its value."""
    return _SECRET_NAME.search(name) is not None


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of ``patterns`` (names or ``PREFIX_*``) means the name; case counts."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_secret(name: str, value: str) -> bool:
    """An allowed name whose value is a key all the same (``NB_X=sk-…``), or an address with a secret in it."""
    return bool(_KEY.match(value) or (name not in _PROXIES and _SECRET_IN_URL.search(value)))
