"""A child process that talks over pipes: length-prefixed messages of JSON or raw numbers, nothing executable.

The child is a fresh interpreter that runs one module's `main()`: it imports neither the user's script (which need not
have a `__main__` guard, and may be a notebook) nor JAX, and it ends when its parent does, however that dies, because
its standard input then closes.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
from typing import Any

_HEADER = struct.Struct("<cI")
_START = "import sys, importlib; sys.path.append({root!r}); importlib.import_module({module!r}).main()"


class Channel:
    """Messages (one-byte tag, payload) over two binary streams."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer

    def send(self, tag: bytes, *payload: bytes) -> None:
        self._writer.write(b"".join([_HEADER.pack(tag, sum(map(len, payload))), *payload]))
        self._writer.flush()

    def send_json(self, tag: bytes, value: Any) -> None:
        self.send(tag, json.dumps(value).encode())

    def receive(self) -> tuple[bytes, bytes]:
        """Return (tag, payload). Raises `EOFError` if the other side is gone."""
        header = self._reader.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise EOFError
        tag, size = _HEADER.unpack(header)
        payload = self._reader.read(size)
        if len(payload) < size:
            raise EOFError
        return tag, payload


class Child(Channel):
    """Start `module.main()` in a fresh interpreter.

    Args:
      module: dotted name of a module of this package.
      environment: variables added to the inherited ones.
      stderr: where its standard error goes; None is the parent's.
    """

    def __init__(self, module: str, environment: dict[str, str] | None = None, stderr: int | None = None):
        root = str(pathlib.Path(__file__).resolve().parents[2])
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START.format(root=root, module=module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | (environment or {}),
            start_new_session=True,  # Ctrl-C is for the parent, which then closes the child
        )
        super().__init__(self.process.stdout, self.process.stdin)

    def close(self, seconds: float = 5.0) -> int:
        """Let it end, else kill it; return its exit status. May be called twice."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        return self.process.returncode


def connect() -> Channel:
    """Return the child's side of the channel; from here on what it prints goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Channel(reader, writer)
