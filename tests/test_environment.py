"""What a child may see of our environment: secrets by every name first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calliope_agent import environment

CANARY = "sk-canary-0123456789abcdefghijkl"
SECRETS = {
    "OPENAI_API_KEY": CANARY,
    "MISTRAL_API_KEY_FILE": "/run/secrets/canary",
    "HF_TOKEN": CANARY,
    "JUPYTERHUB_API_TOKEN": CANARY,
    "JPY_API_TOKEN": CANARY,
    "JUPYTER_TOKEN": CANARY,
    "CALLIOPE_KEYS_PASSPHRASE": CANARY,
    "CALLIOPE_AGENT_TOKEN": CANARY,
    "AWS_ACCESS_KEY_ID": CANARY,
    "AWS_SESSION_TOKEN": CANARY,
    "AWS_PROFILE": CANARY,
    "GOOGLE_APPLICATION_CREDENTIALS": CANARY,
    "AZURE_OPENAI_API_KEY": CANARY,
    "PIP_INDEX_PASSWORD": CANARY,
    "PIP_EXTRA_INDEX_URL": "https://robot:canary@mirror.example/simple",
    "PIP_FIND_LINKS": "https://glpat-0123456789abcdefghij@mirror.example/simple",
    "UV_INDEX": "site=https://0123456789abcdef0123456789abcdef:@mirror.example/simple",
    "UV_DEFAULT_INDEX": "https://a1b2c3d4e5f6a7b8c9d0e1@mirror.example/simple",
    "CONDA_CHANNEL_ALIAS": "https://conda.example/t/ab-01234567-89ab-cdef-0123-456789abcdef/main",
    "UV_PUBLISH_TOKEN": CANARY,
    "NPM_CONFIG__AUTH_TOKEN": CANARY,
    "NPM_CONFIG__AUTH": "Y2FuYXJ5OmNhbmFyeQ==",
    "NB_SECRET": CANARY,
    "NB_ANYTHING": CANARY,
    "LD_PRELOAD": "/canary.so",
    "SOMETHING_NEW": CANARY,
    "path": "/canary",
}
NEEDED = {
    "PATH": "/bin",
    "HOME": "/home/p",
    "LC_ALL": "C",
    "LANG": "sk_SK.UTF-8",
    "XDG_RUNTIME_DIR": "/run/user/1",
    "https_proxy": "http://person:word@proxy:3128",
    "SSL_CERT_FILE": "/etc/ca.pem",
    "SSH_AUTH_SOCK": "/run/user/1/keyring/ssh",
    "PYTHONPATH": "/lib/x",
    "PIP_INDEX_URL": "https://mirror.example/simple",
    "PIP_EXTRA_INDEX_URL_OF": "https://oauth2accesstoken@mirror.example/simple git+ssh://git@host/a/b@v1.2",
    "CONDA_CHANNELS": "https://conda.example/t/main/label",
    "OMP_NUM_THREADS": "2",
    "CUDA_VISIBLE_DEVICES": "0",
    "GOPATH": "/opt/go",
    "JUPYTERHUB_SERVICE_PREFIX": "/user/p/",
    "NB_USER": "p",
}


def test_children_get_no_secret_by_any_name() -> None:
    assert environment.allowed(SECRETS) == {}


def test_children_get_what_programs_need() -> None:
    assert environment.allowed({**NEEDED, **SECRETS}) == NEEDED


@given(
    st.sampled_from(environment.ALLOWED).map(lambda name: name.removesuffix("*")),
    st.sampled_from(["API_KEY", "ACCESS_TOKEN", "CLIENT_SECRET", "PASSWORD", "SIGNING_KEY", "_AUTH"]),
)
def test_no_family_of_names_opens_a_way_for_its_secrets(family: str, secret: str) -> None:
    assert environment.allowed({f"{family}{secret}": "x", f"{family}_{secret}": "x"}) == {}
