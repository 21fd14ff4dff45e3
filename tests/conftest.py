"""Shared fixtures. Real data sets lie beside the repository; tests that need one skip where it is absent."""

from __future__ import annotations

import pathlib

import pytest

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
