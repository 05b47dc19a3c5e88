"""A real server process, for tests and for clients of it."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests._xla import QUICK

READY_S = 300  # until it has compiled, on a busy machine


class Server:
    """A running `jalign serve`.

    Attributes:
      url: http://127.0.0.1:PORT.
      lines: what it has printed.
    """

    def __init__(self, *args: str):
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK, "COLUMNS": "200"}
        command = [sys.executable, "-m", "jalign", "serve", *args, "--port", "0"]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self.url = ""
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._ready.wait(READY_S) and self.url, "\n".join(self.lines)

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if match := re.search(r"serving at (http://\S+)/v1", line):
                self.url = match[1]
                self._ready.set()
        self._ready.set()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(READY_S)

    def close(self) -> None:
        """Kill it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(10)
        self.process.stdout.close()


@contextmanager
def serving(*args: str) -> Iterator[Server]:
    """A server of these arguments, until the block ends."""
    server = Server(*args)
    try:
        yield server
    finally:
        server.close()
