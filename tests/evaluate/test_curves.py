"""Curves: hand-computed means; logs that a killed run leaves behind."""

from __future__ import annotations

import json

import fake_runs
import numpy as np
import pytest

from understudy.evaluate import curves, statistics
from understudy.evaluate.summary import summary


def test_three_seeds_offline_to_online(tmp_path):
    found = summary(fake_runs.offline_to_online(tmp_path))
    assert found["success"] == pytest.approx(123 / 150)
    assert found["offline_success"] == pytest.approx(45 / 150)
    assert found["best_success"] == pytest.approx(129 / 150)
    assert found["success_by_seed"] == pytest.approx([0.76, 0.84, 0.86])
    assert found["return"] == pytest.approx(-200 + 120 * 0.82)
    assert found["offline_return"] == pytest.approx(-200 + 120 * 0.30)
    assert found["best_at"] == {"phase": "online", "updates": 45_000, "env_steps": 15_000}
    assert (found["episodes"], found["seeds"]) == (50, [0, 1, 2])
    assert (found["updates"], found["env_steps"], found["finished"]) == (50_000, 20_000, True)
    assert found["seconds"] == pytest.approx(40 + 100 * 1.25)
    assert [p["success"] for p in found["points"]][2] == pytest.approx([12 / 50, 15 / 50, 18 / 50])
    assert [p["mean"] for p in found["points"]] == pytest.approx([0.16, 0.24, 0.30, 0.20, 0.60, 0.86, 0.82])
    json.dumps(found, allow_nan=False)


def test_intervals_are_those_of_the_episodes(tmp_path):
    found = summary(fake_runs.offline_to_online(tmp_path))
    won = lambda counts: np.array([[float(j < n) for j in range(50)] for n in counts])
    assert found["interval"] == pytest.approx(statistics.summary(won((38, 42, 43)))[1:])
    assert found["offline_interval"] == pytest.approx(statistics.summary(won((12, 15, 18)))[1:])
    assert found["best_interval"] == pytest.approx(statistics.summary(won((41, 43, 45)))[1:])
    assert found["interval"][0] < 0.82 < found["interval"][1]


def test_where_only_success_is_reported_the_rest_has_failed(tmp_path):
    """As from an environment whose info has the key only in the step that succeeds."""
    folder = fake_runs.offline_to_online(tmp_path / "told")
    expected = summary(folder)
    for name in ("episodes.jsonl", "metrics.jsonl"):
        rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for row in rows:
            row |= {"success": row["success"] or None} if "success" in row else {}
            if "episodes" in row:
                row["episodes"]["success"] = [s or None for s in row["episodes"]["success"]]
        (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert summary(folder) == expected and statistics.successes_of([None, None]) is None


def test_an_algorithm_that_learns_in_bursts_makes_other_numbers_of_updates_than_its_ratio_says(tmp_path):
    phases = [{"name": "online", "updates": 0, "env_steps": 4096, "utd": 1.0},
              {"name": "retrain", "updates": 1000, "env_steps": 0, "utd": 0.0, "restart": True}]  # fmt: skip
    rows = [*fake_runs.evaluation("online", 320, 4096, (10,)), *fake_runs.evaluation("retrain", 820, 4096, (20,)),
            *fake_runs.evaluation("retrain", 1320, 4096, (30,))]  # fmt: skip
    found = curves.read(
        fake_runs.write(tmp_path, manifest=fake_runs.manifest(seeds=[0], phases=phases), episodes=rows, metrics=[])
    )
    assert [(p.part, p.x) for p in found.points] == [(0, 4096), (1, 500), (1, 1000)] and found.finished


def test_offline_only_the_switch_is_the_end(tmp_path):
    found = summary(fake_runs.offline_only(tmp_path))
    assert found["success"] == found["offline_success"] == pytest.approx(0.46)
    assert found["offline_interval"] == found["interval"] == pytest.approx(statistics.wilson(23, 50))
    assert found["switch"] is None
    assert found["finished"]


def test_a_task_without_success_is_judged_by_its_return(tmp_path):
    found = summary(fake_runs.no_success(tmp_path))
    noise = np.sin(np.arange(10)).mean()
    assert found["success"] is found["best_success"] is found["offline_success"] is found["success_by_seed"] is None
    assert found["return"] == pytest.approx(3800 + noise)
    assert found["offline_return"] == pytest.approx(2100 + noise)
    assert found["return_by_seed"] == pytest.approx([3900 + noise, 3700 + noise])
    assert found["score"] == pytest.approx((3800 + noise) / 40)
    assert found["interval"][0] < 3800 < found["interval"][1]
    assert found["switch"]["area"] == pytest.approx((2550 + 3400) / 2 + noise)


def test_a_run_that_only_learns_live_is_compared_with_its_start(tmp_path):
    phases = [fake_runs.ONLINE]
    rows = fake_runs.evaluation("start", 0, 0, (2,)) + fake_runs.evaluation("online", 20_000, 20_000, (30,))
    folder = fake_runs.write(tmp_path, manifest=fake_runs.manifest(seeds=[0], phases=phases), episodes=rows)
    found = summary(folder)
    assert (found["offline_success"], found["success"]) == (pytest.approx(0.04), pytest.approx(0.6))
    fake_runs.write(folder, episodes=rows[50:])
    assert summary(folder)["offline_success"] is None


def test_the_axis_has_a_part_for_each_change_of_unit(tmp_path):
    phases = [
        {"name": "offline", "updates": 1000, "env_steps": 0, "utd": 0.0},
        {"name": "warmup", "updates": 0, "env_steps": 300, "utd": 0.0},
        {"name": "online", "updates": 0, "env_steps": 500, "utd": 2.0},
        {"name": "retrain", "updates": 400, "env_steps": 0, "utd": 0.0, "restart": True},
    ]
    found = curves.read(fake_runs.write(tmp_path, manifest=fake_runs.manifest(phases=phases)))
    assert [(p.unit, p.phases, p.bounds, p.start) for p in found.parts] == [
        ("updates", ("offline",), (1000,), 0),
        ("env_steps", ("warmup", "online"), (300, 800), 0),
        ("updates", ("retrain",), (400,), 2000),
    ]
    assert found.locate("offline", 250, 0) == (0, 250)
    assert found.locate("warmup", 1000, 300) == (1, 300)
    assert found.locate("online", 1600, 600) == (1, 600)
    assert found.locate("retrain", 2100, 800) == (2, 100)


def test_without_a_manifest_the_logs_tell_the_phases(tmp_path):
    folder = fake_runs.offline_to_online(tmp_path)
    (folder / "manifest.json").unlink()
    found = curves.read(folder)
    assert [(p.unit, p.phases, p.bounds) for p in found.parts] == [
        ("updates", ("offline",), (30_000,)),
        ("env_steps", ("online",), (20_000,)),
    ]
    assert found.seeds == (0, 1, 2)
    assert summary(folder)["offline_success"] == pytest.approx(0.30)
    assert "manifest.json is missing" in found.notes[0]


def test_a_killed_run_loses_its_half_written_evaluation_and_nothing_else(tmp_path):
    folder = fake_runs.offline_to_online(tmp_path)
    log = folder / "episodes.jsonl"
    text = log.read_bytes()
    lines = text.splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-20]) + lines[-20][:30])
    found = curves.read(folder)
    assert [p.env_steps for p in found.points] == [0, 0, 0, 5_000, 10_000, 15_000]
    assert "last line of episodes.jsonl is cut short" in found.notes[0]
    assert "online at 50,000 updates, 20,000 steps is incomplete" in found.notes[1]
    assert summary(folder)["success"] == pytest.approx(0.86)


def test_with_one_seed_a_half_written_evaluation_is_known_by_the_protocol(tmp_path):
    folder = fake_runs.offline_only(tmp_path)
    lines = (folder / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "episodes.jsonl").write_bytes(b"".join(lines[:-20]))
    assert summary(folder)["success"] == pytest.approx(17 / 50)


def test_damaged_lines_are_left_out_and_counted(tmp_path):
    folder = fake_runs.offline_to_online(tmp_path)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('not json\n[1, 2]\n{"phase": "online"}\n')
    found = curves.read(folder)
    assert found.notes == ("3 damaged lines of metrics.jsonl left out.",)
    assert len(found.metrics.phases) == 140


def test_an_empty_folder_has_no_numbers_but_says_why(tmp_path):
    found = summary(tmp_path)
    assert (found["success"], found["return"], found["interval"], found["episodes"]) == (None, None, None, 0)
    assert (found["updates"], found["finished"], found["points"]) == (0, False, [])
    assert len(curves.read(tmp_path).notes) == 3


def test_metrics_become_arrays_with_nan_where_a_line_has_none(tmp_path):
    rows = [
        {"phase": "offline", "updates": 100, "env_steps": 0, "seconds": 1.0, "metrics": {"critic/q": [1.0, 3.0]}},
        {"phase": "warmup", "updates": 100, "env_steps": 50, "seconds": 2.0,
         "episodes": {"return": [4.0, 8.0], "success": [0.0, 1.0]}},
        {"phase": "online", "updates": 500, "env_steps": 90, "seconds": 4.0,
         "metrics": {"critic/q": [2.0, float("nan")]}},
    ]  # fmt: skip
    found = curves.read(fake_runs.write(tmp_path, metrics=rows)).metrics
    np.testing.assert_array_equal(found.values["critic/q"], [[1, 3], [np.nan, np.nan], [2, np.nan]])
    np.testing.assert_array_equal(found.episodes["return"], [np.nan, 6, np.nan])
    np.testing.assert_array_equal(curves.rates(found), [np.nan, 0, 200])


def test_a_return_that_is_not_finite_has_no_interval(tmp_path):
    rows = fake_runs.evaluation("offline", 30_000, 0, (None,), 10, (5.0,))
    rows[3]["return"] = float("nan")
    phases = [fake_runs.OFFLINE]
    protocol = {"episodes": 10}
    folder = fake_runs.write(
        tmp_path, manifest=fake_runs.manifest(seeds=[0], phases=phases, protocol=protocol), episodes=rows
    )
    found = summary(folder)
    assert (found["return"], found["interval"], found["episodes"]) == (None, None, 10)
    json.dumps(found, allow_nan=False)


def test_thin_keeps_both_ends():
    assert curves.thin(range(10), 4) == [0, 3, 6, 9]
    assert curves.thin(range(3), 4) == [0, 1, 2]
