"""The video, and the commands with which to go on."""

from __future__ import annotations

import contextlib
import pathlib
import shlex

from understudy.evaluate.curves import Curves
from understudy.evaluate.plot import escape
from understudy.run import switch as switches

# Numbers of a run that a command needs to name only where they differ from these.
RUN_DEFAULTS = {"batch_size": 256, "n_step": 1, "num_envs": 1, "reward_scale": 1.0, "reward_bias": 0.0, "utd": 1.0,
                "offline_share": 0.5, "replay_capacity": 1_000_000, "eval_every": None, "episodes": 50}  # fmt: skip


def section(curves: Curves, folder: pathlib.Path) -> str:
    film = folder / "video.mp4"
    video = ""
    if film.is_file():
        video = (
            '<section class="film"><h2>The final policy</h2>'
            '<video controls muted loop playsinline preload="metadata" src="video.mp4">video.mp4</video></section>'
        )
    rows = "".join(
        f"<dt>{escape(what)}</dt><dd><pre>{escape(command)}</pre></dd>" for what, command in _commands(curves, folder)
    )
    go_on = f"<section><h2>How to go on</h2><dl>{rows}</dl></section>"
    return f'<div class="{"two" if video else "one"}">{video}{go_on}</div>'


def _commands(curves: Curves, folder: pathlib.Path) -> list[tuple[str, str]]:
    """(What for, the exact command)."""
    manifest, run = curves.manifest, str(folder)
    shell = _shell
    if not manifest:
        return [("Start a run anew", "understudy train ALGORITHM DATASET --env ID")]
    found, named = [], bool(manifest.get("algorithm"))  # else an object, which only Python has
    env, data = manifest.get("env"), manifest.get("dataset")
    held = bool(data) and "given" in data and data["given"] is None  # in memory: only Python can give it again
    live = sum(int(p.get("env_steps") or 0) for p in manifest.get("phases", ()) if p.get("name") == "online")
    if named and not held and not curves.finished:
        found.append(("Finish this run", shell("understudy", "resume", run)))
    if named and env and curves.finished:
        film = folder / "video.mp4"
        found.append(("Play fresh episodes and film some", shell("understudy", "evaluate", run, "--episodes", 200,
                                                                 "--video", film)))  # fmt: skip
        if not held and (manifest.get("phases") or [{}])[-1].get("name") != "retrain":
            total = 2 * live or 20_000
            what = f"Learn on, to {total:,} live steps in all" if live else f"Improve it live, {total:,} steps"
            found.append((what, shell("understudy", "resume", run, "--online", total)))
    changed = {name for r in manifest.get("resumes") or () for name in r.get("changed") or {}}
    apart = changed & {"algorithm", "settings", "batch_size", "n_step"}  # no one command says both
    if named and not held and not apart:
        source = data and (data.get("given") or data.get("source") or data.get("name"))
        words = ["understudy", "train", manifest["algorithm"], *([source] if source else [])]
        stage = (manifest.get("plan") or {}).get("eval_env")
        for flag, value in (("--env", env), ("--eval-env", stage), ("--preset", manifest.get("preset"))):
            words += [flag, value] if value else []
        phases, plan = manifest.get("phases", ()), manifest.get("plan") or {}
        live_phase = next((p for p in phases if p.get("name") == "online"), {})
        layers = _usual(manifest)
        switch, expected = switches.said_by(phases), switches.resolve({"offline_share": switches.SHARE}, *layers)
        usual, settings = RUN_DEFAULTS | {"offline_share": expected.share}, {"offline": {}, "online": {}}
        usual |= {"warmup": expected.warmup} if expected.warmup else {}
        for layer in switches.without(layers, "switch", "offline_share", "warmup"):
            for name, known in settings.items():
                known |= layer.pop(f"{name}_settings", {})
            usual |= layer
        # Options one by one say the usual; what they cannot say takes the whole switch.
        told = lambda s: (s.end, s.reset, s.successes if switch.retrain else None, s.share == switches.AS_ONE)
        whole = bool(live_phase) and told(switch) != told(expected)
        units = {"offline": "updates", "warmup": "env_steps", "online": "env_steps", "retrain": "updates"}
        for name, unit in units.items():
            length = sum(int(p.get(unit) or 0) for p in phases if p.get("name") == name)
            if not (whole and length and name in ("warmup", "retrain")):
                words += [f"--{name}", length] if length or name in usual or (name == "offline" and data) else []
        words += ["--switch", switch] if whole else []
        chosen = {k: plan.get(k, v) for k, v in RUN_DEFAULTS.items()}
        chosen |= {k: live_phase.get(k, usual[k]) for k in ("utd", "offline_share")}
        if whole or switch.share == switches.AS_ONE:
            del chosen["offline_share"]
        words += [w for k, v in chosen.items() if v != usual[k] for w in (f"--{k.replace('_', '-')}", v)]
        for phase in (p for p in phases if p.get("name") in settings):
            name, own = phase["name"], dict(map(tuple, phase.get("settings") or ()))
            words += [w for k, v in own.items() if v != settings[name].get(k) for w in (f"--{name}.{k}", v)]
        words += ["--baseline"] if manifest.get("baseline") else []
        words += ["--no-eval"] if plan.get("evaluate") is False else []
        if (bounds := (data or {}).get("action_range")) and not any(isinstance(b, list) for b in bounds):
            words += ["--action-range", *bounds]
        words += ["--seeds", 3, "--seed", max([-1, *(s for s in curves.seeds if isinstance(s, int))]) + 1]
        for key, value in (manifest.get("overrides") or {}).items():
            words += [f"--{key}", *(value if isinstance(value, list) else [value])]
        found.append(("Train anew with three other seeds", shell(*words)))
    if (folder / "tensorboard").is_dir():
        found.append(("Look at the metrics in TensorBoard", shell("tensorboard", "--logdir", folder / "tensorboard")))
    lines, which = ["import understudy"], "" if named else ", algorithm=algorithm"
    if not named:
        lines.append(f"# algorithm: the {manifest.get('object')} that it was trained with")
    if held and not curves.finished:
        lines.append(f"# dataset: the data that it was trained on, {data.get('transitions', 0):,} transitions")
    if curves.finished:
        lines.append(f"run = understudy.load({run!r}{which})")
        lines.append("actions = run.policy(observations)  # [B, ...] -> [B, A] in [-1, 1]")
    else:
        lines.append(f"run = understudy.resume({run!r}{which}{', dataset=dataset' if held else ''})")
    if env and curves.finished:
        lines.append("run.evaluate(episodes=200)")
    found.append(("In Python", "\n".join(lines)))
    return found


def _usual(manifest: dict) -> list[dict]:
    """What its recipe and its preset bring to a run, where this release still has them."""
    from understudy import presets, registry
    from understudy.errors import SettingsError

    found = [registry.run_of(manifest["algorithm"])]
    with contextlib.suppress(SettingsError):
        found += [presets.get(manifest["preset"]).run_for(manifest["algorithm"])] if manifest.get("preset") else []
    return found


def _shell(*words) -> str:
    """A command to paste; a long one goes on over lines, broken before its options."""
    groups: list[list[str]] = [[]]
    for word in map(str, words):
        if word.startswith("--"):
            groups.append([])
        groups[-1].append(word)
    lines = [""]
    for text in (shlex.join(g) for g in groups):
        if lines[-1] and len(lines[-1]) + len(text) > 64:
            lines.append(f"    {text}")
        else:
            lines[-1] = f"{lines[-1]} {text}".strip() if len(lines) == 1 else f"{lines[-1]} {text}"
    return " \\\n".join(lines)
