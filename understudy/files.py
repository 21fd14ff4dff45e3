"""What is written to disk whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Where to write a file, or make a folder, that is to be `path`. When the block ends it is there, and on the disk;
    if anything fails, an earlier `path` is as it was and nothing else is left. Files in a folder are synced by the
    block."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)  # a folder takes the place of an empty one too
        sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)


def sync(path: pathlib.Path) -> None:
    """Have a file's bytes, or the names in a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
