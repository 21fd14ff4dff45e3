"""Shared fixtures. Real data sets lie beside the repository; tests that need one skip where it is absent."""

from __future__ import annotations

import gc
import os
import pathlib
import sys

import pytest
from quick import FLAGS

os.environ.setdefault("XLA_FLAGS", FLAGS)  # before anything imports JAX

SHARED = pathlib.Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture
def shared_data():
    """Return a function: file name -> path of a real data set, or skip the test."""

    def find(name: str) -> pathlib.Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"real data set {name} is not beside the repository (../shared/data)")
        return path

    return find


@pytest.fixture(scope="module", autouse=True)
def few_compiled_programs():
    """Forget a module's compiled programs: thousands of them exhaust the memory maps that a process may have."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()
