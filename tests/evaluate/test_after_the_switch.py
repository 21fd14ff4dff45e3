"""What going live did, by hand: dip, recovery, area, regret and the scale of values, of each seed and their mean."""

from __future__ import annotations

import json

import fake_runs
import numpy as np
import pytest

from understudy.evaluate import curves
from understudy.evaluate.summary import summary
from understudy.evaluate.switch import measure, shape


def measured(folder) -> dict:
    return measure(curves.read(folder))


def test_three_seeds_that_dip_and_come_back(tmp_path):
    live = measured(fake_runs.offline_to_online(tmp_path))
    assert (live["offline"], live["final"]) == (pytest.approx(45 / 150), pytest.approx(123 / 150))
    assert live["dip"] == pytest.approx(0.10)  # 0.30 -> 0.20
    assert live["dip_at"] == 5_000
    assert live["recovered"] == 10_000
    # trapezoids of 5,000 steps each: (.30+.20)/2 + (.20+.60)/2 + (.60+.86)/2 + (.86+.82)/2 over 4
    assert live["area"] == pytest.approx((0.25 + 0.40 + 0.73 + 0.84) / 4)
    assert live["evaluated_regret"] == pytest.approx(1 - (0.20 + 0.60 + 0.86 + 0.82) / 4)
    assert summary(tmp_path)["switch"] == live
    json.dumps(live, allow_nan=False)


def test_each_seed_has_its_own_dip(tmp_path):
    """12, 15 and 18 of 50 at the switch, then (8, 10, 12), (28, 30, 32), (41, 43, 45), (38, 42, 43)."""
    by_seed = measured(fake_runs.offline_to_online(tmp_path))["by_seed"]
    assert [s["offline"] for s in by_seed] == pytest.approx([0.24, 0.30, 0.36])
    assert [s["dip"] for s in by_seed] == pytest.approx([0.08, 0.10, 0.12])
    assert [s["final"] for s in by_seed] == pytest.approx([0.76, 0.84, 0.86])
    assert by_seed[0]["area"] == pytest.approx((0.20 + 0.36 + 0.69 + 0.79) / 4)
    assert by_seed[0]["evaluated_regret"] == pytest.approx(1 - (8 + 28 + 41 + 38) / 200)


@pytest.mark.parametrize(
    "won, dip, dip_at, recovered",
    [
        ((40, 35, 45), 0.0, None, 0),  # never below the 30 of the switch
        ((10, 5, 20), 0.5, 10_000, None),  # never back
        ((10, 5, 31), 0.5, 10_000, 15_000),
        ((30, 5, 4), 0.52, 15_000, None),  # level first, then lost
        ((10, 30, 5), 0.5, 15_000, None),  # back once, then the deepest dip: not recovered
        ((10, 29, 30), 0.4, 5_000, 15_000),  # exactly back
    ],
)
def test_dip_and_recovery(tmp_path, won, dip, dip_at, recovered):
    rows = fake_runs.evaluation("offline", 30_000, 0, (30,))
    for i, n in enumerate(won, 1):
        rows += fake_runs.evaluation("online", 30_000 + 5_000 * i, 5_000 * i, (n,))
    live = measured(fake_runs.write(tmp_path, manifest=fake_runs.manifest(seeds=[0]), episodes=rows))
    assert (live["dip"], live["dip_at"], live["recovered"]) == (pytest.approx(dip), dip_at, recovered)


def test_the_mean_of_seeds_need_not_dip_where_one_does(tmp_path):
    rows = fake_runs.evaluation("offline", 30_000, 0, (20, 20)) + fake_runs.evaluation(
        "online", 40_000, 10_000, (10, 40)
    )
    live = measured(fake_runs.write(tmp_path, manifest=fake_runs.manifest(seeds=[0, 1]), episodes=rows))
    assert (live["dip"], live["recovered"]) == (0.0, 0)
    assert [(s["dip"], s["dip_at"], s["recovered"]) for s in live["by_seed"]] == [
        (pytest.approx(0.2), 10_000, None), (0.0, None, 0)]  # fmt: skip


def test_steps_count_from_the_switch_whatever_the_spacing():
    found = shape([100, 200, 400], [1.0, 0.0, 2.0])
    assert found["area"] == pytest.approx((0.5 * 100 + 1.0 * 200) / 300)
    rounded = shape([0, 50], [0.24000000000000002, 0.24])
    assert rounded["dip"] == 0.0 and rounded["recovered"] == 0
    assert shape([0], [3.0]) == {"offline": 3.0, "final": 3.0, "dip": 0.0, "dip_at": None, "recovered": 0, "area": 3.0}


def test_regret_is_over_the_episodes_that_were_played_to_learn(tmp_path):
    folder = fake_runs.offline_to_online(tmp_path)
    line = dict(updates=1, seconds=0.0, metrics={})
    ended = [
        ("online", {"seed": [0, 1], "return": [0, 0], "success": [1.0, 0.0]}),
        ("online", {"seed": [0, 2, 2, 2], "return": [0, 0, 0, 0], "success": [0.0, 1.0, 1.0, 0.0]}),
        ("offline", {"seed": [0], "return": [0], "success": [1.0]}),  # none of a live phase
    ]
    rows = [line | {"phase": phase, "env_steps": i, "episodes": e} for i, (phase, e) in enumerate(ended)]
    fake_runs.write(folder, metrics=rows)
    live = measured(folder)
    assert [s["regret"] for s in live["by_seed"]] == pytest.approx([1 / 2, 1, 1 / 3])
    assert live["regret"] == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)
    for row in rows:  # logs that do not say whose they were: all together
        row["episodes"].pop("seed")
    fake_runs.write(folder, metrics=rows)
    live = measured(folder)
    assert live["regret"] == pytest.approx(1 - 3 / 6) and live["by_seed"][2]["regret"] == pytest.approx(1 / 2)


def test_without_success_there_is_no_regret_of_episodes_and_the_score_takes_its_place(tmp_path):
    live = measured(fake_runs.no_success(tmp_path))
    noise = np.sin(np.arange(10)).mean()
    assert live["regret"] is None
    assert live["evaluated_regret"] == pytest.approx(1 - (3000 + 3800 + 2 * noise) / 2 / 40 / 100)
    assert live["offline"] == pytest.approx(2100 + noise)


def test_the_scale_of_values_before_right_after_and_at_the_end(tmp_path):
    live = measured(fake_runs.offline_to_online(tmp_path))
    rows = fake_runs.metrics(("offline", "online"), 3)
    q = lambda row: np.array(row["metrics"]["critic/q"])
    [first] = [r for r in rows if r["phase"] == "online" and r["env_steps"] == 5_000]  # where it was evaluated first
    for name, row in (("q_before", rows[39]), ("q_after", first), ("q_final", rows[-1])):
        assert live[name] == pytest.approx(q(row).mean())
        assert [s[name] for s in live["by_seed"]] == pytest.approx(q(row))
    for row in rows:  # of an algorithm that learns no Q
        v = row["metrics"]["critic/q"]
        row["metrics"] = {k: x for k, x in row["metrics"].items() if not k.endswith("/q")} | {"critic/v": v}
    assert measured(fake_runs.write(tmp_path, metrics=rows))["q_before"] == live["q_before"]
    assert measured(fake_runs.write(tmp_path, metrics=[]))["q_before"] is None


def test_nothing_to_measure_without_a_live_evaluation(tmp_path):
    assert measured(fake_runs.offline_only(tmp_path)) is None
