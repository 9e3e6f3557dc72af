"""What a hub with one of the templates calls people: ``usernames.py TEMPLATE NAME...``, each as the identity provider says it.

Run by a Python that has jupyterhub and oauthenticator. Prints a line a name: the hub's, or the status of its refusal.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from oauthenticator.generic import GenericOAuthenticator  # type: ignore[import-not-found]
from tornado import web
from traitlets.config import Config


def main(template: Path, names: list[str]) -> None:
    made = Config()
    text = template.read_text()
    if template.suffix == ".yaml":
        told = yaml.safe_load(text)["hub"]
        for name, traits in told["config"].items():
            made[name].update(traits)  # as the chart does
        text = told["extraConfig"]["10-waiide"]
    exec(compile(text, str(template), "exec"), {"get_config": lambda: made, "c": made})  # as the hub does
    authenticator = GenericOAuthenticator(config=made)
    for name in names:
        try:
            print(authenticator.normalize_username(authenticator.user_info_to_username({"preferred_username": name})))
        except web.HTTPError as refused:
            print(refused.status_code)


main(Path(sys.argv[1]), sys.argv[2:])
