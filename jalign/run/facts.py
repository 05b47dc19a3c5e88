"""What a session writes into the events of its run, for `jalign report` and `jalign runs`."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import jax
from jaxtyping import PyTree

from jalign import __version__
from jalign.core import Frozen, TrainState
from jalign.log import RunLog
from jalign.train.exit_code import ExitCode

if TYPE_CHECKING:
    from jalign.run.session import Session

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "transformers", "numpy")


def log_session(session: Session, log: RunLog, since: float) -> None:
    """Record what is about to train, where, and what it takes to repeat it.

    Args:
      since: `time.perf_counter()` when loading began.
    """
    s, devices = session, jax.devices()
    examples, held = s.setup.examples, s.setup.held
    versions = {"jalign": __version__, "python": platform.python_version()}
    log.event(
        "session",
        id=log.id,
        start=s.start,
        steps=s.steps,
        loading_s=round(time.perf_counter() - since, 3),
        command=_command(),
        from_python=list(s.setup.inputs.given),
        pid=os.getpid(),
        host=socket.gethostname(),
        versions=versions | {name: version(name) for name in _LIBRARIES},
        devices={
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
            "processes": jax.process_count(),
        },
        model=s.setup.roles.path,
        parameters={
            "trained": sum(x.size for x in jax.tree.leaves(s.state.params)),
            "frozen": sum(x.size for x in jax.tree.leaves(s.frozen.base)),
        },
        data={"examples": len(examples or ()), "held out": len(held or ())},
        identity=s.identity,
        resident_bytes=_resident(s.state, s.frozen),
    )


def _command() -> str:
    """The command line of this process; `python -m jalign` is the jalign command."""
    program = os.path.basename(sys.argv[0])
    if program == "__main__.py" and "jalign" in sys.orig_argv:
        program = "jalign"
    return shlex.join([program, *sys.argv[1:]])


@dataclass
class _End:
    code: ExitCode = ExitCode.OK


@contextmanager
def logged_end(session: Session) -> Iterator[_End]:
    """Record how the session ends: by its code, or by an error."""
    end = _End()
    try:
        yield end
    except BaseException as error:
        # the state may be what failed: it is not read
        _log_end(session, error=f"{type(error).__name__}: {error}")
        raise
    taken, code = int(session.state.step), end.code
    _log_end(session, taken=taken, code=int(code), meaning=code.meaning)


def _log_end(session: Session, **facts: object) -> None:
    # KiB, and bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    session.log.event("end", host_peak_bytes=peak, **facts)


def log_memory(log: RunLog, step: Any, state: TrainState, frozen: Frozen, data: Any) -> None:
    """Record the compiler's account of the training step, in bytes of one device.

    The program is compiled here and used by the call that follows.
    """
    memory = step.lower(state, frozen, data).compile().memory_analysis()
    if memory is None:  # some backends keep no account
        return
    sizes = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
    }
    log.event("memory", program="training step", bytes=sizes)


def _resident(state: TrainState, frozen: Frozen) -> dict[str, int]:
    """Bytes of each part on one device."""
    sizes = {
        "trained parameters": _bytes(state.params),
        "optimizer": _bytes(state.opt_state),
        "frozen weights": _bytes(frozen.base),
        "reference": _bytes((frozen.ref, state.ref, state.last)),
    }
    return {name: size for name, size in sizes.items() if size}


def _bytes(tree: PyTree) -> int:
    arrays = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    return sum(x.addressable_shards[0].data.nbytes for x in arrays if x.addressable_shards)
