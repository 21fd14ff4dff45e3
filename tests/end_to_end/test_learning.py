"""Learning on real tasks: `make learn`. Bars lie well below what was measured (benchmarks/results)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from quick import as_a_user

pytestmark = pytest.mark.learning
CUBE = "cube-single-play-singletask-v0"


def ran(out, *words) -> dict:
    """What a command of understudy has left in `out`: result.json."""
    command = [sys.executable, "-m", "understudy", *map(str, words), "--out", str(out)]
    done = subprocess.run(command, env=as_a_user(), stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "result.json").read_text())


def test_iql_learns_to_move_the_cube_from_recordings(shared_data, tmp_path):
    data = shared_data(f"{CUBE}.npz")
    result = ran(tmp_path / "run", "train", "iql", data, "--env", CUBE, "--offline", 40_000, "--eval-every", 0)
    assert result["success"] >= 0.6 and result["episodes"] == 50


def test_the_demo_gets_better_live(tmp_path):
    result = ran(tmp_path / "demo", "demo")
    assert result["success"] >= 0.8 and result["success"] >= result["offline_success"] + 0.2
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
