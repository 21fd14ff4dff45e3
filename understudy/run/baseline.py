"""The baseline of a run: RLPD (arXiv:2302.02948) from scratch on the same data and environment, with as many live steps
and updates after each. What it reaches without pretraining is what pretraining has to beat.

It is an ordinary run in RUN/baseline. The same: seeds, live steps (those of a warm-up are random there), utd, batch
size, n-step returns, number of critics, evaluation; without a preset also discount and network sizes. With a preset,
RLPD's own numbers of that preset, rewards among them.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from understudy.errors import SettingsError

FOLDER, ALGORITHM, SHARE = "baseline", "rlpd", 0.5
SIZES = ("critic.hidden", "critic.activation", "policy.hidden", "policy.activation", "critic.discount")
SAME = ("batch_size", "n_step", "num_envs", "replay_capacity", "eval_every", "episodes", "eval_seed", "evaluate",
        "checkpoint_every")  # fmt: skip


def check(algorithm: str | None, data: Any, online: int, evaluate: bool = True) -> None:
    """Raise SettingsError where there is nothing to compare with."""
    if not evaluate:
        raise SettingsError("--baseline compares evaluations, and there are none; leave out --no-eval or --baseline.")
    if data is None:
        raise SettingsError("--baseline is RLPD on the same data, and there are none; give a data set or leave it out.")
    if not online:
        raise SettingsError("--baseline compares live learning; give --online N as well, or leave it out.")
    if algorithm == ALGORITHM:
        raise SettingsError("--baseline is RLPD, and so is this run; leave it out.")


def arguments(manifest: dict) -> dict[str, Any]:
    """What `train` takes for the baseline of the run with this manifest."""
    from understudy import registry

    named = {p["name"]: p for p in manifest["phases"]}
    ours, preset, plan = manifest["settings"], manifest["preset"], manifest["plan"]
    base = registry.make(ALGORITHM, 1, {}, preset).critic
    ensemble = int(ours.get("critic.ensemble", ours.get("ensemble", base.ensemble)))
    known = manifest["overrides"] if preset else ours
    settings = {k: known[k] for k in SIZES if k in known}
    settings |= {"critic.ensemble": ensemble, "critic.subset": min(base.subset, ensemble)}
    return {
        "env": manifest["env"], "eval_env": plan.get("eval_env"), "seeds": manifest["seeds"], "preset": preset,
        "settings": settings,
        "offline": 0, "warmup": named.get("warmup", {}).get("env_steps", 0), "online": named["online"]["env_steps"],
        "utd": named["online"]["utd"], "offline_share": SHARE, "retrain": 0,
        "data_on": manifest["data_on"], "log": manifest["log"],
    } | {k: plan[k] for k in SAME} | _rewards(manifest)  # fmt: skip


def _rewards(manifest: dict) -> dict[str, float]:
    """The rewards that the run learns from, unless its preset has RLPD learn from others."""
    from understudy import presets

    ours = {k: manifest["plan"][k] for k in ("reward_scale", "reward_bias")}
    if not manifest["preset"]:
        return ours
    preset, usual = presets.get(manifest["preset"]), {"reward_scale": 1.0, "reward_bias": 0.0}
    of = lambda name: usual | {k: v for k, v in preset.run_for(name).items() if k in usual}
    return of(ALGORITHM) if ours == of(manifest["algorithm"]) else ours


def owner(path: pathlib.Path) -> pathlib.Path:
    """The run that this folder is the baseline of; else the folder itself."""
    try:
        wanted = json.loads((path.parent / "manifest.json").read_text()).get("baseline")
    except (OSError, ValueError, AttributeError):
        wanted = False
    return path.parent if path.name == FOLDER and wanted else path


def finish(run, dataset: Any, command) -> None:
    """Train the baseline of a finished run, or what is left of it. `dataset`: where the run has it in memory."""
    from understudy.progress import say
    from understudy.run.resume import resume
    from understudy.run.run import Run
    from understudy.run.train import train

    folder, manifest = run.path / FOLDER, run.manifest
    wanted = arguments(manifest)
    begun = (folder / "manifest.json").exists()
    if begun and (folder / "result.json").exists():
        steps = sum(p["env_steps"] for p in Run(folder).manifest["phases"] if p["name"] == "online")
        if steps >= wanted["online"]:
            return
    say(f"Baseline: RLPD from scratch, {wanted['online']:,} live steps, {wanted['utd']:g} updates after each")
    if begun:
        resume(folder, online=wanted["online"], dataset=dataset, command=command)
        return
    if dataset is None:
        record = manifest["dataset"]
        dataset = record["given"] if pathlib.Path(record["given"]).exists() else record.get("path") or record["given"]
        wanted["action_range"] = record.get("action_range")
    train(ALGORITHM, dataset, out=folder, command=command, **wanted)


def summary(path: pathlib.Path) -> dict[str, Any] | None:
    """The baseline's numbers for the result of the run in `path`; None where it has none."""
    from understudy.evaluate import curves
    from understudy.evaluate.summary import summary as summary_of

    folder = path / FOLDER
    if not (folder / "manifest.json").exists():
        return None
    read = curves.read(folder)
    found = summary_of(read)
    names = ("success", "success_by_seed", "return", "return_by_seed", "score", "interval", "best_success", "updates",
             "env_steps", "seconds", "finished")  # fmt: skip
    live = found["switch"] or dict.fromkeys(("area", "regret", "evaluated_regret"))
    online = next((p for p in read.manifest.get("phases", ()) if p["name"] == "online"), {})
    settings = read.manifest.get("settings", {})
    return (
        {"algorithm": ALGORITHM, "utd": online.get("utd"), "ensemble": settings.get("critic.ensemble")}
        | {k: found[k] for k in names}
        | {k: live[k] for k in ("area", "regret", "evaluated_regret")}
        | {"run": str(folder)}
    )
