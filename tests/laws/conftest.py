"""The laws' fixtures; what they run over is in cases.py."""

from __future__ import annotations

import jax
import pytest
from cases import case_of, make_batch, recipes


@pytest.fixture(params=sorted(recipes()), scope="module")
def case(request):
    """Each algorithm in turn, all its laws together, with a batch, a fresh state and the shared compiled programs."""
    yield case_of(request.param)
    jax.clear_caches()


@pytest.fixture(scope="session")
def full_batch():
    return make_batch
