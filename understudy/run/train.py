"""`train`: what the command line and a notebook call. `run.resume` goes on with what it leaves."""

from __future__ import annotations

import dataclasses
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from understudy.data.replay import HostBuffer
from understudy.errors import EnvError, SettingsError
from understudy.progress import say
from understudy.run import baseline as baseline_module
from understudy.run import sinks
from understudy.run.folder import FORMAT, RunFolder, Taken, write_json
from understudy.run.given import (
    canonical,
    check_fit,
    check_kinds,
    check_mappings,
    check_plan,
    columns_of,
    example_of,
    fresh_folder,
    identity_of,
    introduce,
    now,
    number_of,
    phase_settings,
    seeds_of,
    spec_of,
    versions,
)
from understudy.run.loop import Loop, Stopped
from understudy.run.phases import plan
from understudy.run.plan import Plan
from understudy.run.policy import export_policy
from understudy.run.run import Run
from understudy.run.switch import SHARE, check_switch, resolve, without

IDENTITY = ("algorithm", "object", "overrides", "preset")  # of the manifest: what made the algorithm


def train(
    algorithm: str | Any,
    dataset: Any = None,
    *,
    env: str | None = None,
    eval_env: str | None = None,
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
    switch: str | None = None,
    offline_share: float | None = None,
    offline_settings: Mapping[str, Any] | None = None,
    online_settings: Mapping[str, Any] | None = None,
    num_envs: int = 1,
    replay_capacity: int | None = None,
    eval_every: int | None = None,
    episodes: int = 50,
    eval_seed: int = 1_000_003,
    evaluate: bool = True,
    reward_scale: float | None = None,
    reward_bias: float | None = None,
    baseline: bool = False,
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
      eval_env: another environment to evaluate in, e.g. the real system of the data where `env` is a simulator of it.
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
      switch: what happens between offline and online, in words that combine with "+": "mix:0.5", "keep",
        "anneal:0.5->0", "drop", "warmup:5000", "reset-optimizer", "reset-critic", "retrain:N" (`run.switch`).
      offline_share: share of each online batch from the data set, 0 to 1 (0.5).
      offline_settings, online_settings: {dotted name: number} that hold in that phase only, e.g. {"critic.weight": 0}.
      num_envs: parallel environments of each seed.
      eval_every: updates or environment steps between evaluations, 0: only where phases end; by default five times in
        an offline phase, ten times in an online one.
      episodes: evaluation episodes of each seed, started from `eval_seed`.
      reward_scale, reward_bias: the learner sees scale * reward + bias; reported returns are the environment's.
      baseline: train RLPD from scratch as well, with as many live steps, in RUN/baseline (`run.baseline`).
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
    from understudy.envs import describe

    check_kinds(algorithm, dataset, env, eval_env)
    check_mappings(settings=settings, offline_settings=offline_settings, online_settings=online_settings)
    named = canonical(algorithm) or algorithm
    recipe, published = registry.run_of(named), registry.preset_run_of(named, preset)
    run_settings = recipe | published
    given = {"switch": switch, "offline_share": number_of("offline_share", offline_share, None),
             "warmup": number_of("warmup", warmup, None), "retrain": number_of("retrain", retrain, None)}  # fmt: skip
    layers = ({"offline_share": SHARE}, recipe, published, given)
    chosen = later = resolve(*layers)  # raises what is wrong with it before minutes of loading
    pick = lambda given, name, default: number_of(name, given, run_settings.get(name, default))
    scale, bias = pick(reward_scale, "reward_scale", 1.0), pick(reward_bias, "reward_bias", 0.0)
    if out is not None:
        RunFolder(out).refuse()  # before minutes of loading and compiling
    data = dataset
    if isinstance(dataset, str | pathlib.Path):
        data = load_data(dataset, env=eval_env or env, action_range=action_range)
    elif action_range is not None:
        raise SettingsError("action_range belongs to a data set given by name or path; a Dataset already has its own.")
    offline, online = pick(offline, "offline", 100_000 if data is not None else 0), pick(online, "online", 0)
    needed = env is not None or evaluate or online
    env = env or (data.env if data is not None else None)
    if env is not None and not needed:  # the data name one that need not be here, as nothing is to be played in it
        try:
            describe(env)
        except EnvError as error:
            say(f"The data are of an environment that is left out: {error}")
            env = None
    spec = spec_of(env, data)
    if eval_env is not None and spec_of(eval_env, data) != spec:
        raise EnvError(
            f"{eval_env} and {env} differ in the sizes of observations or actions; evaluate in one that fits."
        )
    if preset is not None and not isinstance(algorithm, str):
        raise SettingsError("A preset goes with an algorithm's name; build the object with make(..., preset=...).")
    base = registry.make(algorithm, spec.action_size, {}, preset) if isinstance(algorithm, str) else algorithm
    overrides = registry.overrides(base, settings, spec.action_size) if settings else {}
    algo = registry.adjust(base, overrides, spec.action_size) if settings else base
    chunked = getattr(algo, "chunk", 0)
    if not online:  # the switch is yet to come, but for what was asked for by options of their own
        played = [k for k in ("warmup", "retrain") if given[k]]
        chosen = resolve(*without(layers[:-1], "switch", "warmup", "retrain"), *without([given], "switch"))
        later = resolve(*layers[:-1], *without([given], *played))
    if not offline:  # a recipe's reset has nothing to reset
        chosen = dataclasses.replace(chosen, reset=None if switch is None else resolve(given).reset)
    check_switch(switch, data)
    if data is None and offline_share:
        raise SettingsError(
            f"offline_share is {offline_share:g} and there are no data; give a data set, or leave it out."
        )
    if baseline:
        baseline_module.check(canonical(algorithm), data, online, evaluate)
    bring = [recipe, published]
    live = {"utd": pick(utd, "utd", 1.0), "offline_share": pick(offline_share, "offline_share", SHARE),
            "online_settings": phase_settings(algo, bring, online_settings, "online_settings")}  # fmt: skip
    before = phase_settings(algo, bring, offline_settings, "offline_settings")
    phases = plan(
        offline=offline, online=online, utd=live["utd"], switch=chosen, data=data is not None,
        offline_settings=before.items(), online_settings=live["online_settings"].items(),
    )  # fmt: skip
    if env is None and any(p.acts for p in phases):
        raise SettingsError("An online phase needs an environment; name it with --env ID (env= in Python).")
    seeds = seeds_of(seeds, seed)
    the_plan = Plan(
        phases=tuple(phases),
        seeds=seeds,
        env=env,
        eval_env=eval_env,
        batch_size=pick(batch_size, "batch_size", 256),
        n_step=pick(n_step, "n_step", 1) if n_step is not None or not chunked else 1,  # a chunk is one of its own
        num_envs=number_of("num_envs", num_envs, 1),
        replay_capacity=number_of("replay_capacity", replay_capacity, 1_000_000),
        eval_every=eval_every if eval_every is None else number_of("eval_every", eval_every, 0),
        episodes=number_of("episodes", episodes, 50),
        eval_seed=number_of("eval_seed", eval_seed, 0),
        evaluate=evaluate,
        checkpoint_every=number_of("checkpoint_every", checkpoint_every, 60.0),
        reward_scale=scale,
        reward_bias=bias,
        evaluate_start=phases[0].acts,
    )
    check_plan(the_plan)
    check_fit(algo, the_plan, data)
    sinks.check(log)
    columns = columns_of(data, algo, the_plan, data_on)
    name = algorithm if isinstance(algorithm, str) else type(algorithm).__name__
    folder = RunFolder(fresh_folder(name, data, env) if out is None else out)
    loop = Loop(algo, the_plan, folder, columns, example_of(columns, spec, algo))
    loop.prepare()  # refuses what cannot work before anything is written
    manifest = {
        "format": FORMAT,
        "understudy": versions()["understudy"],
        "command": list(command or []),
        "algorithm": canonical(algorithm),
        "object": None if isinstance(algorithm, str) else name,
        "preset": preset,
        "overrides": overrides,
        "settings": settings_module.as_dict(loop.algo),
        "env": env,
        "seeds": list(seeds),
        "dataset": identity_of(data, dataset, action_range),
        "data_on": "host" if isinstance(columns, HostBuffer) else "device",
        "phases": [dataclasses.asdict(p) for p in phases],
        "plan": {k: v for k, v in dataclasses.asdict(the_plan).items() if k not in ("phases", "seeds", "env")},
        "switch": str(later if data is not None else dataclasses.replace(later, share=None, end=None)),
        "live": live,
        "baseline": bool(baseline),
        "protocol": protocol_of(the_plan),
        "log": list(log),
        "versions": versions(),
        "platform": platform.platform(),
        "created": now(),
        "resumes": [],
    }  # fmt: skip
    loop.identity = {k: manifest[k] for k in IDENTITY}
    while True:
        try:
            folder.create()
            break
        except Taken:
            if out is not None:
                raise
            folder = RunFolder(fresh_folder(name, data, env))  # another run was faster
            loop.record.folder = folder
    try:
        folder.write_manifest(manifest)
    except BaseException:
        folder.unlock()
        raise
    if preset is None and env is not None and (found := presets.published(canonical(algorithm) or "", env)):
        say(f"There are published settings for this environment: --preset {found}")
    if data is not None:
        introduce(data)
    return conclude(go(loop, folder, manifest, data if data is dataset else None), command)


def protocol_of(p: Plan) -> dict:
    """How a run is evaluated."""
    return {"episodes": p.episodes, "env_seed": p.eval_seed, "num_envs": p.eval_envs,
            "every": {phase.name: p.every(phase) for phase in p.phases}}  # fmt: skip


def _how_to_resume(manifest: dict, path) -> str:
    """What goes on with a run: the command line cannot where the data or the algorithm are objects."""
    objects = [] if manifest["algorithm"] else ["algorithm=algorithm"]
    objects += ["dataset=dataset"] if manifest["dataset"] and manifest["dataset"]["given"] is None else []
    return f"understudy.resume({', '.join([repr(str(path)), *objects])})" if objects else f"understudy resume {path}"


def go(loop: Loop, folder: RunFolder, manifest: dict, dataset=None) -> Run:
    """Run the loop to its end and write what it leaves: policy, result, report. `dataset`: where given in memory."""
    try:
        loop.record.sinks = tuple(sinks.open_sink(name, folder.path, manifest) for name in manifest["log"])
        if loop.counters.phase < len(loop.plan.phases):
            (folder.path / "result.json").unlink(missing_ok=True)  # of before; the run is under way again
        try:
            loop.run()
        except Stopped as stopped:
            c = loop.counters
            say(f"Stopped at {c.updates:,} updates and {c.env_steps:,} steps, saved. Go on with: "
                f"{_how_to_resume(manifest, baseline_module.owner(folder.path))}")  # fmt: skip
            export_policy(folder.path, loop, manifest)
            Run(folder.path).report()
            if stopped.signum == 2:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + stopped.signum) from None
        export_policy(folder.path, loop, manifest)
        run = Run(folder.path, loop.given if manifest["algorithm"] is None else None, dataset)
        write_json(folder.path / "result.json", run.summarise(loop.counters))
        run.report()
        return run
    finally:
        folder.unlock()


def conclude(run: Run, command) -> Run:
    """What follows a finished run: its baseline, where it has one, and its result and report beside that."""
    if run.manifest.get("baseline"):
        baseline_module.finish(run, run.dataset, command)
        write_json(run.path / "result.json", run.result | {"baseline": baseline_module.summary(run.path)})
        run.report()
    return run
