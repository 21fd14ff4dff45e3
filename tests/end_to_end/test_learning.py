"""Learning on real tasks: `make learn`. Bars lie well below what was measured (benchmarks/results)."""

from __future__ import annotations

import pytest

import understudy
from understudy.demo import demo

pytestmark = pytest.mark.learning
CUBE = "cube-single-play-singletask-v0"


def test_iql_learns_to_move_the_cube_from_recordings(shared_data, tmp_path):
    data = shared_data(f"{CUBE}.npz")
    run = understudy.train("iql", data, env=CUBE, offline=40_000, eval_every=0, out=tmp_path / "run")
    assert run.result["success"] >= 0.6 and run.result["episodes"] == 50


def test_the_demo_gets_better_live(tmp_path):
    result = demo(tmp_path / "demo").result
    assert result["success"] >= 0.8 and result["success"] >= result["offline_success"] + 0.2
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
