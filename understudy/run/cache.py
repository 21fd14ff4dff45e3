"""Compiled programs are kept on disk, so that the second run of a program does not compile it again."""

from __future__ import annotations

import os
import pathlib


def home() -> pathlib.Path:
    """Where understudy keeps what can be made again: $UNDERSTUDY_CACHE, or ~/.cache/understudy."""
    given = os.environ.get("UNDERSTUDY_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(given) if given else pathlib.Path(base) / "understudy"


def keep_compiled() -> None:
    """Turn JAX's persistent compilation cache on, unless the user has already set it up or the folder can't be made."""
    import jax

    if jax.config.jax_compilation_cache_dir is not None:
        return
    folder = home() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
