"""The main port's way from the launcher's front to Jupyter: the listening sockets are inherited, the port never closes.

Decisions
1. Jupyter inherits copies of the front's listening sockets at its start and serves them where it would bind its own.
   Whoever comes in between stands in the queue of the one socket that both hold: nobody is refused, /health included.
2. Jupyter has no public way to be given a socket, so two of its methods are replaced on the instance. Where a version
   does not have them, or was told another port, it binds as ever, and the port is closed for some 20 ms.
3. Only the first start inherits. Should a coming version have the methods and not call them, it ends because its port is
   taken, and the second start binds as ever.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

VARIABLE = "WAIIDE_LISTEN_FDS"
FIND, BIND = "_find_http_port", "_bind_http_server_tcp"


def name(descriptors: Iterable[int]) -> dict[str, str]:
    """The environment that tells Jupyter what it inherits."""
    told = ",".join(map(str, descriptors))
    return {VARIABLE: told} if told else {}


def inherited(environ: MutableMapping[str, str]) -> tuple[socket.socket, ...]:
    """The listening sockets of this process's start; the name is taken out of ``environ``."""
    told = environ.pop(VARIABLE, "")
    sockets = tuple(socket.socket(fileno=int(number)) for number in told.split(",") if number)
    for each in sockets:
        os.set_inheritable(each.fileno(), False)
        each.setblocking(False)
    return sockets


def install(app: Any, sockets: tuple[socket.socket, ...], leave: Callable[[], None]) -> None:
    """``leave`` makes the launcher's front leave the port; called when ``app``, Jupyter's ServerApp, would bind."""
    bind = app.init_httpserver

    def init_httpserver() -> None:
        if _usable(app, sockets):
            setattr(app, FIND, lambda: None)
            setattr(app, BIND, serve)
        else:
            for each in sockets:
                each.close()
        leave()
        bind()

    def serve() -> bool:
        app.http_server.add_sockets(sockets)
        return True

    app.init_httpserver = init_httpserver


def _usable(app: Any, sockets: tuple[socket.socket, ...]) -> bool:
    known = hasattr(app, FIND) and hasattr(app, BIND) and not app.sock
    return known and bool(sockets) and all(each.getsockname()[1] == app.port for each in sockets)
