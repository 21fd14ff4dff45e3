"""The report: the numbers stand in the page, nothing is fetched or unescaped, whatever files are missing."""

from __future__ import annotations

import html.parser
import json
import os
import re
import xml.etree.ElementTree

import fake_runs
import numpy as np
import pytest

from understudy.errors import CheckpointError
from understudy.evaluate import plot, report
from understudy.evaluate.report import training

VOID = {"meta", "br"}


class Checker(html.parser.HTMLParser):
    """Tags balance; collects visible text and what would be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.fetched, self.tags = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.fetched += [v for k, v in attributes if k in ("src", "href", "data", "poster")]
        assert not any(k.startswith("on") for k, _ in attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def read(folder) -> tuple[str, str, Checker]:
    """Write the report; return (page, its text on one line, checker)."""
    path = report.write(folder)
    assert path == folder / "report.html"
    page = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    for svg in re.findall(r"<svg.*?</svg>", page, re.S):
        xml.etree.ElementTree.fromstring(svg)
    return page, re.sub(r"\s+", " ", " ".join(checker.text)), checker


def test_headline_of_three_seeds_offline_to_online(tmp_path):
    page, text, checker = read(fake_runs.offline_to_online(tmp_path / "run"))
    assert "td3_bc on cube-single-play-singletask-v0" in text
    assert "Success at the switch, offline only 30%" in text
    assert "Success after 20,000 live steps 82%" in text
    assert "+52 points" in text
    assert "Last evaluation: 82%; best of 7: 86% after 15,000 environment steps" in text
    assert "50 episodes for each of 3 seeds" in text
    assert len(page) < 500_000


def test_the_live_phase_in_numbers(tmp_path):
    _, text, _ = read(fake_runs.offline_to_online(tmp_path / "run"))
    assert "Deepest dip −10 points 5,000 steps after the switch" in text
    assert "Recovered after 10,000 steps" in text
    assert "Mean success while live 56%" in text  # 0.555
    assert "Q scale −47.0 → −43.2" in text and "−32.1 at the end" in text
    assert "Regret 0.45 1 − mean success of the episodes played to learn" in text
    assert "0 24% 8% 10,000 steps 51% 0.45 76% −46.2 → −42.5 → −31.9" in text  # the first seed


def test_the_deepest_dip_is_marked_in_the_curve(tmp_path):
    page, _, _ = read(fake_runs.offline_to_online(tmp_path / "run"))
    chart = re.search(r'<svg[^>]*aria-label="Success over the run".*?</svg>', page, re.S).group()
    ring = re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="7" class="dip"><title>([^<]*)', chart)
    assert ring.group(3) == "deepest dip: −10 points, after 5,000 environment steps"
    assert float(ring.group(2)) == pytest.approx(352 - (352 - 44) * 0.2, abs=0.051)
    assert "dip −10 points" in chart
    rising = fake_runs.evaluation("offline", 30_000, 0, (10,)) + fake_runs.evaluation("online", 50_000, 20_000, (20,))
    page, text, _ = read(fake_runs.write(tmp_path / "up", manifest=fake_runs.manifest(seeds=[0]), episodes=rising))
    assert 'class="dip"' not in page and "Deepest dip none" in text


def test_curve_points_are_where_the_numbers_are(tmp_path):
    page, _, _ = read(fake_runs.offline_to_online(tmp_path / "run"))
    chart = re.search(r'<svg[^>]*aria-label="Success over the run".*?</svg>', page, re.S).group()
    # margins 64, 66, 44, 48 of 1040 x 400; the offline part has 1 / 2.4 of the width
    width, edge = 1040 - 66 - 64, 64 + (1040 - 66 - 64) / 2.4
    x = [64 + (edge - 64) * u / 30_000 for u in (10_000, 20_000, 30_000)]
    x += [edge + (64 + width - edge) * s / 20_000 for s in (5_000, 10_000, 15_000, 20_000)]
    y = [352 - (352 - 44) * v for v in (0.16, 0.24, 0.30, 0.20, 0.60, 0.86, 0.82)]
    marks = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="3.6"', chart)
    np.testing.assert_allclose(np.array(marks, float), np.stack([x, y], 1), atol=0.051)
    switch = re.search(r'<line x1="([\d.]+)"[^>]*class="switch"', chart).group(1)
    assert float(switch) == pytest.approx(edge, abs=0.051)
    lines = {style: re.findall(rf'<polyline points="([^"]*)" class="{style}', chart) for style in ("thin", "mean")}
    assert (len(lines["thin"]), len(lines["mean"])) == (6, 2)  # 3 seeds and their mean, in 2 parts
    assert lines["mean"][1].split()[0] == lines["mean"][0].split()[-1]  # live starts from the switch
    assert chart.count("<polygon") == 2
    assert "best 86%" in chart


def test_the_baseline_is_drawn_and_told_beside_the_run(tmp_path):
    run = fake_runs.offline_to_online(tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    theirs = fake_runs.manifest(algorithm="rlpd", phases=[fake_runs.ONLINE], baseline=False)
    rows = [r for at, won in ((0, (0, 0, 0)), (10_000, (5, 10, 15)), (20_000, (20, 25, 30)))
            for r in fake_runs.evaluation("online" if at else "start", at, at, won)]  # fmt: skip
    fake_runs.write(run / "baseline", manifest=theirs, episodes=rows, metrics=fake_runs.metrics(("online",), 3))
    assert "Beside the baseline" not in read(run)[1], "it was not asked for"
    (run / "manifest.json").write_text(json.dumps(manifest | {"baseline": True}))
    page, text, _ = read(run)
    chart = re.search(r'<svg[^>]*aria-label="Success over the run".*?</svg>', page, re.S).group()
    places = re.search(r'<polyline points="([^"]*)" class="mean baseline"', chart).group(1).split()
    left, right = 64 + (1040 - 66 - 64) / 2.4, 1040 - 66  # the live part
    x, y = [left, (left + right) / 2, right], [352 - (352 - 44) * v for v in (0.0, 0.2, 0.5)]
    np.testing.assert_allclose([[float(v) for v in p.split(",")] for p in places], np.stack([x, y], 1), atol=0.051)
    assert "this run 82% 74 to 89% 56% 0.45 20,000 1 2" in text
    assert "rlpd from scratch 50%" in text and " 23% 0.45 20,000 1 2" in text  # 0.225 = (0 + .2) / 4 + (.2 + .5) / 4
    assert "It is unfinished" not in text and "--baseline --seeds 3" in text.replace("\\ ", "")


def test_nothing_is_fetched_and_no_script_runs(tmp_path):
    folder = fake_runs.offline_to_online(tmp_path / "run")
    page, _, checker = read(folder)
    assert checker.fetched == []
    assert "script" not in checker.tags
    assert "url(" not in page and "@import" not in page
    assert "video" not in checker.tags
    (folder / "video.mp4").write_bytes(b"film")
    _, text, checker = read(folder)
    assert checker.fetched == ["video.mp4"]
    assert "The final policy" in text


def test_how_to_go_on_names_exact_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fake_runs.offline_to_online(fake_runs.pathlib.Path("runs/my run"))
    _, text, _ = read(run)
    text = text.replace("\\ ", "")
    assert "understudy evaluate 'runs/my run' --episodes 200 --video 'runs/my run/video.mp4'" in text
    assert "understudy resume 'runs/my run' --online 40000" in text  # a total: twice as long as now
    assert (
        "understudy train td3_bc ogbench/cube-single-play-singletask-v0 --env cube-single-play-singletask-v0 "
        "--offline 30000 --online 20000 --eval-every 5000 --seeds 3 --seed 3 --policy.hidden 256 256 256" in text
    )
    assert "run = understudy.load('runs/my run')" in text
    manifest = json.loads((run / "manifest.json").read_text())
    entry = {"at": "", "updates": 30_000, "env_steps": 0, "changed": {"algorithm": "pa_rl"}}
    (run / "manifest.json").write_text(json.dumps(manifest | {"algorithm": "pa_rl", "resumes": [entry]}))
    assert "Train anew" not in read(run)[1], "no one command has two algorithms"


def test_train_anew_says_what_differs_from_the_preset_not_from_the_usual(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fake_runs.offline_to_online(fake_runs.pathlib.Path("runs/live"))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest |= {"algorithm": "rlpd", "preset": "adroit-sparse", "overrides": {}, "plan": {},
                 "phases": [{"name": "online", "env_steps": 20000, "utd": 1, "offline_share": 0.5}]}  # fmt: skip
    manifest["dataset"]["action_range"] = [-2.0, 2.0]
    (run / "manifest.json").write_text(json.dumps(manifest))
    text = read(run)[1].replace("\\ ", "")
    assert "--preset adroit-sparse --offline 0 --warmup 0 --online 20000 --reward-scale 1.0" in text
    assert "--reward-bias 0.0 --utd 1 --action-range -2.0 2.0 --seeds 3" in text
    assert "--offline-share" not in text  # the preset's own


def test_the_switch_is_among_the_phases_and_in_the_command_to_train_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fake_runs.offline_to_online(fake_runs.pathlib.Path("runs/live"))
    manifest = json.loads((run / "manifest.json").read_text())
    warmup = {"name": "warmup", "updates": 0, "env_steps": 500, "utd": 0.0, "offline_share": 0.5}
    online = fake_runs.ONLINE | {"anneal": [0.0, 20_000], "reset": ["critic"], "settings": [["critic.weight", 0.0]]}
    manifest["phases"] = [fake_runs.OFFLINE, warmup, online]
    (run / "manifest.json").write_text(json.dumps(manifest))
    text = read(run)[1].replace("\\ ", "")
    assert "online 0 20,000 1 0.5 → 0 over 20,000 steps critic critic.weight 0" in text
    assert "--online 20000 --switch 'warmup:500+anneal:0.5->0+reset-critic' --eval-every 5000" in text
    assert "--online.critic.weight 0.0" in text and "--offline-share" not in text and "--warmup" not in text


def test_one_buffer_is_among_the_phases_and_in_the_command_to_train_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fake_runs.offline_to_online(fake_runs.pathlib.Path("runs/live"))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["phases"] = [fake_runs.OFFLINE, fake_runs.ONLINE | {"as_one": True}]
    (run / "manifest.json").write_text(json.dumps(manifest))
    text = read(run)[1].replace("\\ ", "")
    assert "online 0 20,000 1 one buffer" in text
    assert "--online 20000 --switch keep --eval-every 5000" in text and "--offline-share" not in text


def test_the_share_of_successes_is_in_the_phases_and_in_the_command_to_train_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fake_runs.offline_to_online(fake_runs.pathlib.Path("runs/live"))
    manifest = json.loads((run / "manifest.json").read_text())
    retrain = {"name": "retrain", "updates": 700, "utd": 0.0, "offline_share": 0.5, "restart": True, "successes": 0.25}
    manifest["phases"] = [fake_runs.OFFLINE, fake_runs.ONLINE, retrain]
    (run / "manifest.json").write_text(json.dumps(manifest))
    text = read(run)[1].replace("\\ ", "")
    assert "retrain 700 0 0 0.5, successes 0.25 everything" in text
    assert "--online 20000 --switch mix:0.5+retrain:700+successes:0.25 --eval-every 5000" in text


def test_offline_only(tmp_path):
    _, text, _ = read(fake_runs.offline_only(tmp_path / "run"))
    assert "Success offline only 46%" in text
    assert "95% interval 33 to 60%" in text  # Wilson, 23 of 50: 0.3297 to 0.5964
    assert "After the switch" not in text
    assert "also the best of 3" in text
    assert "another seed may differ more" in text
    assert "--online 20000" in text


def test_returns_where_the_task_defines_no_success(tmp_path):
    page, text, _ = read(fake_runs.no_success(tmp_path / "run"))
    assert "Return at the switch, offline only 2,100" in text
    assert "Return after 20,000 live steps 3,800" in text
    assert "The task defines no success" in text
    assert "Normalised score of the benchmark 95.0" in text
    assert 'aria-label="Return over the run"' in page


def test_only_a_manifest(tmp_path):
    _, text, _ = read(fake_runs.write(tmp_path / "run", manifest=fake_runs.manifest()))
    assert "not started" in text
    assert "Planned: learn offline from 100,000 transitions" in text
    assert "episodes.jsonl is missing." in text and "metrics.jsonl is missing." in text
    assert "No complete evaluation is recorded" in text
    assert "Finish this run" in text and "understudy evaluate" not in text


def test_an_empty_folder_and_a_manifest_that_is_not_json(tmp_path):
    _, text, _ = read(fake_runs.write(tmp_path / "run"))
    assert "manifest.json is missing" in text
    (tmp_path / "run" / "manifest.json").write_text('{"format": 1, "algo')
    _, text, _ = read(tmp_path / "run")
    assert "manifest.json could not be read" in text


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    folder = fake_runs.offline_only(tmp_path / "run")
    before = report.write(folder).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        report.write(folder)
    assert (folder / "report.html").read_bytes() == before
    assert not list(folder.glob(".report*"))
    with pytest.raises(CheckpointError, match="Could not write"):
        report.write(tmp_path / "absent")


def test_logs_without_a_manifest_still_make_a_curve(tmp_path):
    folder = fake_runs.offline_to_online(tmp_path / "run")
    (folder / "manifest.json").unlink()
    page, text, _ = read(folder)
    assert "Success at the switch, offline only 30%" in text
    assert 'aria-label="Success over the run"' in page


def test_a_killed_run_says_how_far_it_is_and_how_to_finish(tmp_path):
    folder = fake_runs.offline_to_online(tmp_path / "run")
    for name, rows in (("episodes", 5 * 150), ("metrics", 40 + 55)):
        lines = (folder / f"{name}.jsonl").read_text().splitlines(keepends=True)
        (folder / f"{name}.jsonl").write_text("".join(lines[:rows]) + lines[rows][:25])
    _, text, _ = read(folder)
    assert "unfinished: 41,000 updates, 11,000 environment steps so far" in text
    assert f"understudy resume {folder}" in text.replace("\\ ", "")
    assert "Success after 10,000 live steps 60%" in text
    assert "last line of episodes.jsonl is cut short" in text


def test_a_run_without_an_environment_shows_its_metrics(tmp_path):
    manifest = fake_runs.manifest(env=None, phases=[fake_runs.OFFLINE])
    folder = fake_runs.write(tmp_path / "run", manifest=manifest, metrics=fake_runs.metrics(("offline",), 3))
    page, text, _ = read(folder)
    assert "names no environment" in text
    assert 'aria-label="critic/loss"' in page
    assert "understudy evaluate" not in text and "--online" not in text


def test_every_text_from_a_file_is_escaped(tmp_path):
    bad = "<script>alert(1)</script>\"&'"
    manifest = fake_runs.manifest(
        algorithm=bad, preset=bad, env=bad, understudy=bad, command=[bad], platform=bad, overrides={bad: bad},
        settings={bad: bad}, plan={bad: bad}, versions={bad: bad}, seeds=[bad],
        dataset={"name": bad, "source": bad, "sha256": bad, "transitions": 5, "episodes": 1, "notes": [bad]},
        phases=[dict(fake_runs.OFFLINE, name=bad)], protocol={"episodes": 50, "env_seed": bad},
        resumes=[{"at": bad, "updates": 1, "env_steps": 0, "changed": {bad: bad}}],
    )  # fmt: skip
    episodes = [r | {"seed": bad, "phase": bad} for r in fake_runs.evaluation("offline", 30_000, 0, (20,))]
    metrics = [r | {"phase": bad, "metrics": {bad: [1.0]}} for r in fake_runs.metrics(("offline",), 1)]
    page, text, checker = read(
        fake_runs.write(tmp_path / "<i>run", manifest=manifest, episodes=episodes, metrics=metrics)
    )
    assert "script" not in checker.tags and "i" not in checker.tags
    assert "40%" in text and text.count("<script>alert(1)</script>") > 10


def test_a_long_run_of_many_seeds_stays_small(tmp_path):
    seeds, points = 30, 400
    episodes = []
    for i in range(1, points + 1):
        episodes += fake_runs.evaluation("offline", 100 * i, 0, [i % 3] * seeds, 2)
    metrics = [
        {"phase": "offline", "updates": 10 * t, "env_steps": 0, "seconds": float(t),
         "metrics": {f"part{m}/loss": [1.0 / (t + k) for k in range(seeds)] for m in range(12)}}
        for t in range(1, 4001)
    ]  # fmt: skip
    manifest = fake_runs.manifest(
        seeds=list(range(seeds)), phases=[dict(fake_runs.OFFLINE, updates=40_000)], protocol={"episodes": 2}
    )
    page, text, _ = read(fake_runs.write(tmp_path / "run", manifest=manifest, episodes=episodes, metrics=metrics))
    assert len(page) < 500_000
    assert "5 more metrics in metrics.jsonl" in text


def test_details_hold_settings_data_versions_and_resumes(tmp_path):
    resumes = [{"at": "2026-11-20T15:00:00+00:00", "updates": 31_000, "env_steps": 1_000, "changed": {"online": 20000}}]
    folder = fake_runs.offline_to_online(tmp_path / "run")
    fake_runs.write(folder, manifest=fake_runs.manifest(resumes=resumes))
    _, text, _ = read(folder)
    for words in (
        "critic.tau 0.005", "policy.hidden 256 256 256 ●", "9f2b" * 16, "100,000 transitions, 100 episodes",
        "clipped 5.6% of action entries", "mujoco 3.11.0", '{"online": 20000}', "eval_every 5000",
    ):  # fmt: skip
        assert words in text


@pytest.mark.parametrize(
    "low, high, most, ticks",
    [
        (0.0, 1.0, 6, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 30_000.0, 4, [0, 10_000, 20_000, 30_000]),
        (-62.0, -31.0, 4, [-60, -50, -40]),
        (0.7, 9.8, 4, [2, 4, 6, 8]),
        (3.0, 3.0, 4, [3.0]),
    ],
)
def test_ticks_are_round_numbers(low, high, most, ticks):
    assert plot.round_numbers(low, high, most) == pytest.approx(ticks)


def test_running_mean_skips_gaps():
    values = np.array([np.nan, 1.0, np.nan, 3.0, 5.0, np.nan])
    np.testing.assert_allclose(training.running(values, 2), [np.nan, 1, 1, 2, 4, 4])
