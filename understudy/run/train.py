"""`train`, `resume` and `Run`: what the command line and a notebook call."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from understudy.data.relabel import RULES
from understudy.data.replay import HostBuffer, example
from understudy.errors import CheckpointError, DataError, EnvError, SettingsError
from understudy.progress import say
from understudy.run import checkpoint, sinks
from understudy.run.folder import FORMAT, RunFolder, write_json
from understudy.run.loop import Loop, Plan, Stopped, discount_of
from understudy.run.phases import Phase, plan
from understudy.run.policy import export_policy, load_policy

FRACTIONS = ("utd", "offline_share", "reward_scale", "reward_bias", "checkpoint_every")
IDENTITY = ("algorithm", "object", "overrides", "preset")  # of the manifest: what made the algorithm
DEVICE_BYTES = 4 << 30  # a data set larger than this stays on the host


def train(
    algorithm: str | Any,
    dataset: Any = None,
    *,
    env: str | None = None,
    action_range: tuple[Any, Any] | None = None,
    offline: int | None = None,
    online: int | None = None,
    warmup: int | None = None,
    retrain: int | None = None,
    seeds: int | Sequence[int] = 1,
    seed: int = 0,
    out: str | pathlib.Path | None = None,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    n_step: int | None = None,
    utd: float | None = None,
    offline_share: float | None = None,
    num_envs: int = 1,
    replay_capacity: int | None = None,
    eval_every: int | None = None,
    episodes: int = 50,
    eval_seed: int = 1_000_003,
    evaluate: bool = True,
    reward_scale: float | None = None,
    reward_bias: float | None = None,
    log: Sequence[str] = (),
    checkpoint_every: float = 60.0,
    data_on: str = "auto",
    command: Sequence[str] | None = None,
) -> Run:
    """Train on recorded data, then live, and return the finished run.

    Args:
      algorithm: a name (`understudy list algorithms`) or an algorithm object, e.g. from `understudy.make`.
      dataset: a name, a path, a `Dataset`, or None to learn live only.
      env: environment id; by default the one the data set belongs to. Without one there is no live phase and no
        evaluation.
      action_range: (low, high) that the actions of the file were recorded in, mapped to [-1, 1].
      offline: updates on the data alone (default 100,000; 0 without data and for algorithms that learn live only).
      online: environment steps of each seed (default 0), `utd` updates after each.
      warmup: environment steps with a frozen policy before that (a random one where nothing was pretrained).
      retrain: updates from scratch on data and replay together, at the end.
      seeds: how many seeds, `seed`, `seed` + 1, ..., or the seeds themselves; all train in one compiled program.
      out: run folder; default runs/ALGORITHM-DATASET-NUMBER.
      preset: named settings (`understudy list presets`).
      settings: {dotted name: value}, e.g. {"critic.expectile": 0.9}; wins over the preset.
      batch_size: transitions in a batch (256). n_step: steps in a return (1). utd: updates per environment step (1).
      offline_share: share of each online batch from the data set, 0 to 1 (0.5).
      num_envs: parallel environments of each seed.
      eval_every: updates or environment steps between evaluations, 0: only where phases end; by default five times in
        an offline phase, ten times in an online one.
      episodes: evaluation episodes of each seed, started from `eval_seed`.
      reward_scale, reward_bias: the learner sees scale * reward + bias; reported returns are the environment's.
      log: further loggers, "tensorboard" or "wandb".
      checkpoint_every: seconds between checkpoints.
      data_on: "device", "host" (in memory, or memory-mapped from understudy's store) or "auto".

    Returns:
      the finished `Run`.

    Raises:
      UserError: a mistake in what was given, in one sentence; nothing that was there before is lost.
    """
    from understudy import presets, registry
    from understudy import settings as settings_module
    from understudy.data import load as load_data

    run_settings = presets.get(preset).run_for(_canonical(algorithm) or "") if preset else {}
    pick = lambda given, name, default: _number(name, given, run_settings.get(name, default))
    scale, bias = pick(reward_scale, "reward_scale", 1.0), pick(reward_bias, "reward_bias", 0.0)
    if out is not None:
        RunFolder(out).refuse()  # before minutes of loading and compiling
    data = dataset
    if isinstance(dataset, str | pathlib.Path):
        data = load_data(dataset, env=env, action_range=action_range)
    elif action_range is not None:
        raise SettingsError("action_range belongs to a data set given by name or path; a Dataset already has its own.")
    env = env or (data.env if data is not None else None)
    spec = _spec(env, data)
    if preset is not None and not isinstance(algorithm, str):
        raise SettingsError("A preset goes with an algorithm's name; build the object with make(..., preset=...).")
    base = registry.make(algorithm, spec.action_size, {}, preset) if isinstance(algorithm, str) else algorithm
    overrides = registry.overrides(base, settings, spec.action_size) if settings else {}
    algo = registry.adjust(base, overrides, spec.action_size) if settings else base
    live_only = isinstance(algorithm, str) and registry.entries("algorithm")[_canonical(algorithm)].live
    offline = pick(offline, "offline", 100_000 if data is not None and not live_only else 0)
    phases = plan(
        offline=offline,
        warmup=pick(warmup, "warmup", 0),
        online=pick(online, "online", 0),
        retrain=pick(retrain, "retrain", 0),
        utd=pick(utd, "utd", 1.0),
        offline_share=pick(offline_share, "offline_share", 0.5),
        data=data is not None,
    )
    if env is None and any(p.acts for p in phases):
        raise SettingsError("An online phase needs an environment; name it with --env ID (env= in Python).")
    seeds = _seeds(seeds, seed)
    the_plan = Plan(
        phases=tuple(phases),
        seeds=seeds,
        env=env,
        batch_size=pick(batch_size, "batch_size", 256),
        n_step=pick(n_step, "n_step", 1),
        num_envs=_number("num_envs", num_envs, 1),
        replay_capacity=_number("replay_capacity", replay_capacity, 1_000_000),
        eval_every=eval_every if eval_every is None else _number("eval_every", eval_every, 0),
        episodes=_number("episodes", episodes, 50),
        eval_seed=_number("eval_seed", eval_seed, 0),
        evaluate=evaluate,
        checkpoint_every=_number("checkpoint_every", checkpoint_every, 60.0),
        reward_scale=scale,
        reward_bias=bias,
        evaluate_start=phases[0].acts,
    )
    _check_plan(the_plan)
    sinks.check(log)
    columns = _columns(data, algo, the_plan, data_on)
    name = algorithm if isinstance(algorithm, str) else type(algorithm).__name__
    folder = RunFolder(out or _fresh(name, data, env))
    loop = Loop(algo, the_plan, folder, columns, _example(columns, spec, algo))
    loop.prepare()  # refuses what cannot work before anything is written
    manifest = {
        "format": FORMAT,
        "understudy": versions()["understudy"],
        "command": list(command or []),
        "algorithm": _canonical(algorithm),
        "object": None if isinstance(algorithm, str) else name,
        "preset": preset,
        "overrides": overrides,
        "settings": settings_module.as_dict(loop.algo),
        "env": env,
        "seeds": list(seeds),
        "dataset": _identity(data, dataset, action_range),
        "data_on": "host" if isinstance(columns, HostBuffer) else "device",
        "phases": [dataclasses.asdict(p) for p in phases],
        "plan": {k: v for k, v in dataclasses.asdict(the_plan).items() if k not in ("phases", "seeds", "env")},
        "live": {"utd": pick(utd, "utd", 1.0), "offline_share": pick(offline_share, "offline_share", 0.5)},
        "protocol": {"episodes": the_plan.episodes, "env_seed": the_plan.eval_seed, "num_envs": the_plan.eval_envs,
                     "every": {p.name: the_plan.every(p) for p in phases}},
        "log": list(log),
        "versions": versions(),
        "platform": platform.platform(),
        "created": _now(),
        "resumes": [],
    }  # fmt: skip
    loop.identity = {k: manifest[k] for k in IDENTITY}
    folder.create()
    try:
        folder.write_manifest(manifest)
    except BaseException:
        folder.unlock()
        raise
    if preset is None and env is not None and (found := presets.published(_canonical(algorithm) or "", env)):
        say(f"There are published settings for this environment: --preset {found}")
    if data is not None and data is not dataset:
        _introduce(data)
    return _go(loop, folder, manifest, data if data is dataset else None)


def resume(
    run: str | pathlib.Path | Run,
    *,
    offline: int | None = None,
    online: int | None = None,
    env: str | None = None,
    utd: float | None = None,
    offline_share: float | None = None,
    algorithm: str | Any | None = None,
    settings: Mapping[str, Any] | None = None,
    dataset: Any = None,
    command: Sequence[str] | None = None,
) -> Run:
    """Go on with a run exactly where its last whole checkpoint stands, or further than it was going to go.

    Args:
      run: the run or its folder.
      offline, online: new totals for these phases; a run that had no online phase gets one. Recorded in the manifest.
      env: the environment of a run that was trained without one.
      utd, offline_share: of an online phase that is new; by default what `train` was given.
      algorithm: another algorithm for the phases that are left; networks of the same shape are carried over.
      settings: changed settings, by dotted name; a change of structure starts what it touches afresh.
      dataset: the data set again, where it was given in memory.

    Raises:
      CheckpointError: no run there, a live run there, another format, other data than it was trained on.
    """
    from understudy import registry
    from understudy import settings as settings_module
    from understudy.data import load as load_data

    folder = RunFolder(run.path if isinstance(run, Run) else run)
    manifest = folder.manifest
    if algorithm is None and manifest["algorithm"] is None and isinstance(run, Run):
        algorithm = run.algorithm
    if dataset is None and isinstance(run, Run):
        dataset = run.dataset
    if env is not None and manifest["env"] not in (None, env):
        raise EnvError(f"The run belongs to {manifest['env']}; got {env}. Train anew with --env {env}.")
    live = {k: v for k, v in dict(utd=utd, offline_share=offline_share).items() if v is not None}
    if live and any(p["name"] == "online" for p in manifest["phases"]):
        raise SettingsError(
            f"The run's online phase already has its {' and '.join(live)}; leave out what only a first one can get."
        )
    folder.lock()
    try:
        manifest = manifest | {"env": manifest["env"] or env, "live": manifest.get("live", {}) | live}
        loop, manifest = _reopen(folder, manifest, offline, online, algorithm, settings, dataset, command,
                                 registry, settings_module, load_data)  # fmt: skip
    except BaseException:
        folder.unlock()
        raise
    return _go(loop, folder, manifest, dataset)


def _reopen(folder, manifest, offline, online, algorithm, settings, dataset, command, registry, settings_module, load):
    """The loop of a run, ready at its last checkpoint, with the changes that were asked for."""
    record = manifest["dataset"]
    data = dataset
    if record is not None and data is None:
        if record["given"] is None:
            raise CheckpointError(f"{folder.path} was trained on arrays in memory; resume it with dataset=....")
        # As it was typed, or, from another working directory, where it lay then.
        there = record.get("path") if not pathlib.Path(record["given"]).exists() else None
        data = load(there or record["given"], env=manifest["env"], action_range=record.get("action_range"))
    if record is not None and data.sha256 != record["sha256"]:
        raise CheckpointError(
            f"The data set {record['given'] or record['name']} is not the one that {folder.path} was trained on "
            f"(SHA-256 {data.sha256[:12]}, expected {record['sha256'][:12]}); put the original back."
        )
    found = checkpoint.latest(folder.path, mend=True)
    # A checkpoint says itself which algorithm it holds, so that a kill between it and the manifest loses nothing.
    identity = found[1]["identity"] if found else {k: manifest[k] for k in IDENTITY}
    spec = _spec(manifest["env"], data)
    given = None if isinstance(algorithm, str) else algorithm
    size = spec.action_size
    base = before = None
    if identity["algorithm"] is not None:
        base = registry.make(identity["algorithm"], size, {}, identity["preset"])
    elif given is not None:
        base, given = given, None
    elif algorithm is None:
        raise CheckpointError(
            f"{folder.path} was trained with an algorithm object ({manifest['object']}); resume it from Python with "
            f"understudy.resume(run, algorithm=THE_OBJECT)."
        )
    old = identity["overrides"]
    if base is not None:
        old = registry.overrides(base, old, size)
        before = registry.adjust(base, old, size)
    algo, changed = before, {k: v for k, v in dict(offline=offline, online=online).items() if v is not None}
    if isinstance(algorithm, str) or given is not None:
        base = registry.make(algorithm, size, {}, None) if isinstance(algorithm, str) else given
        new = registry.overrides(base, settings or {}, size)
        identity = {"algorithm": _canonical(algorithm), "object": None if given is None else type(given).__name__,
                    "overrides": new, "preset": None}  # fmt: skip
        changed |= {"algorithm": identity["algorithm"] or identity["object"], "settings": new}
        algo = registry.adjust(base, new, size)
    elif settings:
        merged = registry.overrides(base, settings, size, before=old)
        identity = identity | {"overrides": merged}
        changed |= {"settings": {k: v for k, v in merged.items() if old.get(k) != v}}
        algo = registry.adjust(base, merged, size)
    phases = [Phase(**p) for p in (found[1] if found else {}).get("phases", manifest["phases"])]
    extended = _extend(phases, offline, online, data is not None, manifest["env"], manifest["live"])
    options = manifest["plan"] | {"phases": tuple(extended), "seeds": tuple(manifest["seeds"]), "env": manifest["env"]}
    columns = _columns(data, algo, Plan(**options), manifest["data_on"])
    loop = Loop(algo, Plan(**options), folder, columns, _example(columns, spec, algo))
    loop.identity = identity
    loop.prepare(found, same=jax.tree.structure(before) == jax.tree.structure(algo), old_phases=phases)
    if algo is not before and loop.counters.phase >= len(extended):
        raise SettingsError(
            f"{folder.path} has finished, so the change would do nothing; give it more steps as well, such as "
            f"--online {loop.counters.env_steps + 20_000}."
        )
    if found and changed:
        loop.save()  # the change is made or not: a kill from here on does not forget it
    c = loop.counters
    entry = {"at": _now(), "updates": c.updates, "env_steps": c.env_steps, "changed": changed,
             "command": list(command or []), "versions": versions()}  # fmt: skip
    manifest = manifest | identity | {
        "settings": settings_module.as_dict(loop.algo),
        "phases": [dataclasses.asdict(p) for p in extended],
        "resumes": [*manifest["resumes"], entry],
    }  # fmt: skip
    folder.write_manifest(manifest)
    return loop, manifest


def _extend(phases: list[Phase], offline, online, data: bool, env, live: dict) -> list[Phase]:
    """The phases with new totals; `live` has the utd and offline_share of an online phase that is new. A total below
    the old one is refused."""
    phases = list(phases)
    for name, total in (("offline", offline), ("online", online)):
        if total is None:
            continue
        found = [i for i, p in enumerate(phases) if p.name == name]
        if not found and name == "online":
            if env is None:
                raise SettingsError("An online phase needs an environment, and the run has none; train with --env ID.")
            phases += plan(online=total, data=data, **live)
            continue
        if not found:
            raise SettingsError(f"The run has no {name} phase to extend.")
        i = found[-1]
        if total < phases[i].units:
            raise SettingsError(
                f"The run's {name} phase has {phases[i].units:,} steps already planned; give a total of at least that."
            )
        if total > phases[i].units and i != len(phases) - 1:
            later = ", ".join(p.name for p in phases[i + 1 :])
            raise SettingsError(f"The {name} phase is followed by {later} and cannot grow; extend the last phase.")
        unit = "env_steps" if phases[i].acts else "updates"
        phases[i] = dataclasses.replace(phases[i], **{unit: total})
    return phases


def _go(loop: Loop, folder: RunFolder, manifest: dict, dataset=None) -> Run:
    """Run the loop to its end and write what it leaves: policy, result, report. `dataset`: where given in memory."""
    try:
        loop.sinks = tuple(sinks.open_sink(name, folder.path, manifest) for name in manifest["log"])
        if loop.counters.phase < len(loop.plan.phases):
            (folder.path / "result.json").unlink(missing_ok=True)  # of before; the run is under way again
        try:
            loop.run()
        except Stopped as stopped:
            c = loop.counters
            say(f"Stopped at {c.updates:,} updates and {c.env_steps:,} steps, saved. Go on with: understudy resume "
                f"{folder.path}")  # fmt: skip
            export_policy(folder.path, loop.algo, loop.state, manifest, loop.example, c)
            Run(folder.path).report()
            if stopped.signum == 2:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + stopped.signum) from None
        export_policy(folder.path, loop.algo, loop.state, manifest, loop.example, loop.counters)
        run = Run(folder.path, loop.algo if manifest["algorithm"] is None else None, dataset)
        write_json(folder.path / "result.json", run.summarise(loop.counters))
        run.report()
        return run
    finally:
        folder.unlock()


class Run:
    """A run folder: its result, its policy, and the ways to go on.

    `run.policy(observations)` acts; `run.evaluate()` plays fresh episodes; `run.finetune(...)` goes on live;
    `run.result` is what `--json` prints."""

    def __init__(self, path: str | pathlib.Path, algorithm: Any = None, dataset: Any = None):
        self.path = pathlib.Path(path)
        self.algorithm, self.dataset = algorithm, dataset  # the objects, where the run has them and no names
        self.manifest = RunFolder(self.path).manifest
        self._policy = None

    @property
    def result(self) -> dict[str, Any]:
        """Final numbers of the run. Raises CheckpointError where it has not finished."""
        try:
            return json.loads((self.path / "result.json").read_text())
        except FileNotFoundError:
            raise CheckpointError(
                f"{self.path} has not finished; go on with it: understudy resume {self.path}"
            ) from None

    def summarise(self, counters) -> dict[str, Any]:
        """The result from the run's files."""
        from understudy.evaluate.curves import summary

        found = summary(self.path)
        return found | {
            "protocol": self.manifest["protocol"],
            "updates": counters.updates,
            "env_steps": counters.env_steps,
            "seconds": round(counters.seconds, 1),
            "run": str(self.path),
        }

    def report(self) -> pathlib.Path:
        """Write report.html anew."""
        from understudy.evaluate import report

        return report.write(self.path)

    def policy(self, observations, *, seed: int = 0, key: int = 0, greedy: bool = True) -> np.ndarray:
        """Act: observations [B, ...] (or one, without B) -> actions [B, A] in [-1, 1].

        Args:
          observations: as the environment gives them.
          seed: which of the run's seeds acts, counted from 0.
          key: seed of the policy's own randomness, where it has any.
          greedy: the most likely action instead of a sample, where the policy has one."""
        if self._policy is None:
            self._policy = load_policy(self.path, self.algorithm)
        return self._policy(observations, seed=seed, key=key, greedy=greedy)

    def record(self, path: str | pathlib.Path | None = None, *, seed: int | None = None) -> pathlib.Path | None:
        """Write an mp4 of a few episodes of the first seed's final policy, by default video.mp4 in the run folder.

        Returns None, having said why, where the machine cannot draw."""
        from understudy.evaluate.video import record

        if self.manifest["env"] is None:
            raise EnvError("The run names no environment to film; train with --env ID.")
        policy = load_policy(self.path, self.algorithm)
        seed = self.manifest["protocol"]["env_seed"] + 1 if seed is None else seed
        act = lambda observations, step: policy.act_all(observations, step, only=0)
        return record(act, self.manifest["env"], path or self.path / "video.mp4", seed=seed)

    def evaluate(self, episodes: int = 50, seed: int | None = None, video: str | pathlib.Path | None = None) -> dict:
        """Play fresh episodes with every seed's final policy.

        Args:
          episodes: per training seed.
          seed: of the episodes; default another one than during training.
          video: also write an mp4 of a few episodes of the first seed.

        Returns:
          what `understudy evaluate --json` prints; every episode is added to evaluations.jsonl."""
        from understudy.evaluate.rollouts import rollouts
        from understudy.evaluate.statistics import summary
        from understudy.progress import bar

        env = self.manifest["env"]
        if env is None:
            raise EnvError("The run names no environment to evaluate in; train with --env ID.")
        if episodes < 1:
            raise SettingsError(f"episodes is {episodes}; give at least 1.")
        policy, seeds = load_policy(self.path, self.algorithm), self.manifest["seeds"]
        at = policy.about
        if not (self.path / "result.json").exists():
            say(f"The run is unfinished; its policy at {at['updates']:,} updates, {at['env_steps']:,} steps acts.")
        seed = self.manifest["protocol"]["env_seed"] + 1 if seed is None else seed
        act = lambda observations, step: policy.act_all(observations, step)
        envs = min(self.manifest["protocol"]["num_envs"], episodes)
        with bar("evaluation", episodes * len(seeds), "episodes") as progress:
            played = rollouts(act, env, episodes=episodes, seed=seed, num_envs=envs, policies=len(seeds),
                              on_episode=lambda *_: progress.advance())  # fmt: skip
        returns = np.array([[e.return_ for e in one] for one in played])
        has = played[0][0].success is not None
        success = np.array([[e.success for e in one] for one in played]) if has else None
        mean, low, high = summary(success if has else returns)
        scored = played[0][0].score is not None
        rows = [
            {"env_seed": e.env_seed, "seed": seeds[i], "episode": e.episode, "return": e.return_, "success": e.success,
             "length": e.length, "score": e.score, "eval_seed": seed}
            for i, episodes_of in enumerate(played) for e in episodes_of
        ]  # fmt: skip
        try:
            RunFolder(self.path).append("evaluations.jsonl", rows)
        except CheckpointError as error:  # someone else's run, perhaps; the result stands
            say(f"warning: {error}")
        file = None
        if video is not None:
            file = self.record(video, seed=seed)
        saved = self.result if (self.path / "result.json").exists() else {}
        return {
            "success": mean if has else None,
            "offline_success": saved.get("offline_success"),
            "success_by_seed": success.mean(1).tolist() if has else None,
            "return": float(returns.mean()),
            "score": float(np.mean([[e.score for e in one] for one in played])) if scored else None,
            "interval": [low, high],
            "episodes": episodes,
            "protocol": {"episodes": episodes, "env_seed": seed, "num_envs": envs, "seeds": len(seeds)},
            "updates": at["updates"],
            "env_steps": at["env_steps"],
            "seconds": saved.get("seconds"),
            "video": str(file) if file else None,
            "run": str(self.path),
        }

    def finetune(self, env: str | None = None, online: int = 20_000, **changes) -> Run:
        """Go on live for `online` environment steps of each seed in all; `env` for a run that was trained without one,
        further `changes` as for `resume`."""
        return resume(self, online=online, env=env, **changes)

    def __repr__(self) -> str:
        m = self.manifest
        line = f"Run({m['algorithm'] or m['object']} on {(m['dataset'] or {}).get('name', 'live data')}"
        line += f" in {m['env']}" if m["env"] else ""
        if not (self.path / "result.json").exists():
            return f"{line}, unfinished: understudy.resume({str(self.path)!r}))"
        r = self.result
        what = "success" if r["success"] is not None else "return"
        value, low, high = r[what], *(r["interval"] or (float("nan"),) * 2)
        before = r.get("offline_success") if what == "success" else r.get("offline_return")
        before = f"{before:.2f} -> " if before is not None and r["env_steps"] else ""
        score = "not evaluated" if value is None else f"{what} {before}{value:.2f} [{low:.2f}, {high:.2f}]"
        return (
            f"{line}: {score}, {len(m['seeds'])} seed(s), {r['episodes']} episodes each, "
            f"{r['updates']:,} updates, {r['env_steps']:,} steps, {self.path})"
        )

    def _repr_html_(self) -> str:
        import html

        link = self.path / "report.html"
        return f"<pre>{html.escape(repr(self))}</pre><a href='{html.escape(str(link))}'>report</a>"


# --- what train and resume share ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Sizes that the data and the environment agree on."""

    observation_shape: tuple[int, ...]
    action_size: int


def _spec(env: str | None, data) -> Shapes:
    """Sizes of observations and actions. Raises where the data do not fit the environment."""
    if env is None and data is None:
        raise SettingsError("Give a data set, an environment (--env ID), or both; got neither.")
    found = None
    if env is not None:
        from understudy.envs import describe

        about = describe(env)
        found = Shapes(tuple(about.observation_shape), about.action_size)
    if data is None:
        return found
    leaves = jax.tree.leaves(data.observations)
    if flat := next((x.shape for x in leaves if x.ndim != 2), None):
        raise DataError(
            f"{data.name} has observations {list(flat)}; the networks take vectors [N, size] or dictionaries of "
            f"vectors. Flatten or encode them first."
        )
    mine = Shapes(tuple(leaves[0].shape[1:]) if len(leaves) == 1 else (), data.actions.shape[-1])
    if found is not None and isinstance(data.observations, dict):
        raise EnvError(
            f"{data.name} has dictionaries of observations and {env} gives arrays {found.observation_shape}; join them "
            f"into one array in the environment's order, or leave out --env."
        )
    if found is not None and mine != found:
        raise EnvError(
            f"{data.name} has observations {mine.observation_shape} and {mine.action_size} actions, {env} gives "
            f"observations {found.observation_shape} and takes {found.action_size}; name the environment that the data "
            f"were recorded in (--env ID)."
        )
    return mine


def _columns(data, algo, the_plan: Plan, data_on: str):
    """The data set as the loop takes it: columns for the device, or a host source."""
    if data is None:
        return None
    if "rewards" in algo.requires and data.rewards is None:
        raise DataError(
            f"{data.name} has no rewards and the algorithm learns values; name an environment whose rewards can be "
            f"derived (--env ID; {RULES}), or imitate with bc."
        )
    if data_on not in ("auto", "device", "host"):
        raise SettingsError(f"data_on is {data_on!r}; give auto, device or host.")
    if data.rewards is not None and (the_plan.reward_scale, the_plan.reward_bias) != (1.0, 0.0):
        rewards = (the_plan.reward_scale * data.rewards + the_plan.reward_bias).astype(np.float32)
        data = dataclasses.replace(data, rewards=rewards)
    discount = discount_of(algo) if "mc_returns" in algo.requires else None
    size = 2 * sum(np.asarray(x).nbytes for x in jax.tree.leaves(data.observations))
    if data_on == "host" or (data_on == "auto" and size > DEVICE_BYTES):
        return HostBuffer(data, discount)
    return data.transitions(mc_discount=discount)


def _example(columns, spec: Shapes, algo) -> dict:
    """A batch of one with the keys that data and replay share."""
    if columns is None:
        one = {"observations": np.zeros((1, *spec.observation_shape), np.float32),
               "actions": np.zeros((1, spec.action_size), np.float32), "rewards": np.zeros(1, np.float32),
               "masks": np.ones(1, np.float32), "ends": np.zeros(1, bool)}  # fmt: skip
        one["next_observations"] = one["observations"]
        if "mc_returns" in algo.requires:
            one["mc_returns"] = np.zeros(1, np.float32)
        return one
    if isinstance(columns, HostBuffer):
        one = {k: columns.take(k, np.arange(1)) for k in columns.data}
    else:
        one = example(columns)
    if "rewards" not in one:
        one["rewards"] = np.zeros(1, np.float32)
    return one


def _number(name: str, given, default: float):
    """`given` as a Python number of the default's kind, the default where it is None. Raises SettingsError."""
    if given is None:
        return default
    kind = float if name in FRACTIONS else int
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(given, str) or not math.isfinite(number) or kind(number) != number:
        raise SettingsError(f"{name} is {given!r}; give a {'number' if kind is float else 'whole number'}.")
    return kind(number)


def _check_plan(p: Plan) -> None:
    for name in ("batch_size", "n_step", "num_envs", "replay_capacity", "episodes"):
        if getattr(p, name) < 1:
            raise SettingsError(f"{name} is {getattr(p, name)}; give at least 1.")
    for name in ("eval_every", "checkpoint_every", "eval_seed"):
        if (getattr(p, name) or 0) < 0:
            raise SettingsError(f"{name} is {getattr(p, name)}; give at least 0.")


def _seeds(seeds: int | Sequence[int], first: int) -> tuple[int, ...]:
    if isinstance(seeds, int):
        if seeds < 1:
            raise SettingsError(f"seeds is {seeds}; give at least 1.")
        seeds = range(first, first + seeds)
    seeds = tuple(int(s) for s in seeds)
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= 2**31:
        raise SettingsError(f"seeds are {list(seeds)}; give different numbers from 0 to 2**31 - 1.")
    return seeds


def _introduce(data) -> None:
    """Say what was loaded and what loading changed."""
    rewards = "without rewards" if data.rewards is None else "with rewards"
    say(f"{data.name}: {data.size:,} transitions in {data.episodes:,} episodes, {rewards}")
    for note in data.notes:
        say(f"  {note}")


def _identity(data, given, action_range) -> dict | None:
    if data is None:
        return None
    return {"name": data.name, "source": data.source, "sha256": data.sha256, "transitions": int(data.size),
            "episodes": int(data.episodes), "notes": list(data.notes),
            "given": str(given) if isinstance(given, str | pathlib.Path) else None,
            "path": str(pathlib.Path(given).resolve()) if given is not None and _is_file(given) else None,
            "action_range": action_range and [np.asarray(x).tolist() for x in action_range]}  # fmt: skip


def _is_file(given) -> bool:
    return isinstance(given, str | pathlib.Path) and pathlib.Path(given).exists()


def _fresh(algorithm: str, data, env) -> pathlib.Path:
    """A new folder under runs/."""
    about = (data.name if data is not None else env).rpartition("/")[2]
    stem = f"{algorithm}-{about}"
    number = 1
    while (path := pathlib.Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return path


def versions() -> dict[str, str | None]:
    """Versions that decide what a run computes."""
    import importlib.metadata as metadata

    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("understudy", "jax", "jaxlib", "flax", "optax", "numpy", "gymnasium", "mujoco", "ogbench"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _canonical(algorithm) -> str | None:
    """The registered name of an algorithm given by name, None for an object."""
    from understudy import registry

    if not isinstance(algorithm, str):
        return None
    return registry.match("algorithm", algorithm, registry.entries("algorithm"))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
