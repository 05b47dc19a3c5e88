"""A server process: load, compile, listen, drain."""

from __future__ import annotations

import errno
import importlib
import signal
import socket
from collections.abc import Awaitable, Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jalign.options import MeshConfig
from jalign.options.serve import ServeConfig
from jalign.run.devices import mesh_of
from jalign.serve.encoding import Encoding
from jalign.serve.engine import Engine
from jalign.serve.models import load_models
from jalign.serve.schemas import Served
from jalign.serve.scorers import Scorers
from jalign.serve.types import Limits

Say = Callable[[str], object]
Asgi = Callable[[Any, Any, Any], Awaitable[None]]
"""An application as ASGI servers call it."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(options: ServeConfig, say: Say = lambda text: None) -> None:
    """Serve until SIGTERM or Ctrl-C; requests under way are answered first.

    Args:
      say: called with a line about each step, the last one with the address.

    Raises:
      ValueError: the extra `serve` is missing, an address that cannot be had, no such model, a key
        file without a key.
    """
    check_installed()
    keys = read_keys(options.api_key_file) if options.api_key_file else []
    with bound(options.host, options.port) as listener:  # a taken port costs no loading
        say(f"loading {', '.join(options.names.values())}")
        policies, scorers = load_models(options.names, options.template)
        limits = Limits(
            rows=options.rows,
            max_len=options.max_len,
            max_new_tokens=options.max_new_tokens,
            queue=options.queue,
            chunk=options.chunk,
        )
        with Engine(policies, limits, say) as engine:
            served = Served(engine, {name: Encoding(p) for name, p in policies.items()})
            app = app_of(served, Scorers(scorers, mesh_of(MeshConfig())), keys)
            host, port = listener.getsockname()[:2]
            if host not in LOOPBACK and not keys:
                say("warning: anybody who reaches this address may ask; --api_key_file sets keys")
            shown = f"[{host}]" if ":" in host else host
            run(app, listener, lambda: say(f"serving at http://{shown}:{port}/v1"))
        say("all requests are answered")


def app_of(served: Served, scorers: Scorers, keys: Collection[str] = ()) -> Asgi:
    """The ASGI application, for a server of your own.

    Raises:
      ValueError: the extra `serve` is missing.
    """
    check_installed()
    from jalign.serve.app import App  # which imports the extra

    return App(served, scorers, keys).asgi()


def run(app: Asgi, listener: socket.socket, ready: Callable[[], object]) -> None:
    """Run an application at a bound socket until SIGTERM or Ctrl-C, then answer what is left."""
    uvicorn = importlib.import_module("uvicorn")

    class Server(uvicorn.Server):
        async def startup(self, sockets=None) -> None:
            await super().startup(sockets=sockets)
            ready()

    # uvicorn raises the signal again once it has drained: to be told to stop is no failure.
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        Server(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address, which nothing reaches before a server listens.

    Raises:
      ValueError: the address cannot be had.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        taken = ": another process listens there" if error.errno == errno.EADDRINUSE else ""
        raise ValueError(
            f"{host}:{port} cannot be listened at ({error}){taken}; choose another --port or --host"
        ) from error
    return listener


def read_keys(file: str) -> list[str]:
    """The keys in a file, one per line; empty lines do not count.

    Raises:
      ValueError: no such file, or no key in it.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"--api_key_file: no file {file}")
    keys = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    if not keys:
        raise ValueError(f"--api_key_file: {file} has no key")
    return keys


def check_installed() -> None:
    """Raise ValueError if the extra `serve` is missing."""
    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise ValueError(
            f"a server needs {' and '.join(missing)}, which is not installed: "
            "pip install 'jalign[serve]'"
        )
