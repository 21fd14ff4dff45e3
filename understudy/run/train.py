"""`train` and `resume`: what the command line and a notebook call."""

from __future__ import annotations

import dataclasses
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from understudy.data.replay import HostBuffer
from understudy.errors import CheckpointError, EnvError, SettingsError
from understudy.progress import say
from understudy.run import baseline as baseline_module
from understudy.run import checkpoint, sinks
from understudy.run.folder import FORMAT, RunFolder, write_json
from understudy.run.given import (
    canonical,
    check_fit,
    check_plan,
    columns_of,
    example_of,
    fresh_folder,
    identity_of,
    introduce,
    now,
    number_of,
    seeds_of,
    spec_of,
    versions,
)
from understudy.run.loop import Loop, Plan, Stopped
from understudy.run.phases import Phase, plan, with_retraining
from understudy.run.policy import export_policy
from understudy.run.run import Run
from understudy.run.switch import SHARE, check_switch, parse, resolve, said_by, without

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
      switch: what happens between offline and online, in words that combine with "+": "keep", "mix:0.5",
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

    recipe = registry.run_of(canonical(algorithm))
    published = presets.get(preset).run_for(canonical(algorithm) or "") if preset else {}
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
    env = env or (data.env if data is not None else None)
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
    offline = pick(offline, "offline", 100_000 if data is not None else 0)
    online = pick(online, "online", 0)
    if not online:  # the switch is yet to come, but for what was asked for by options of their own
        chosen, later = resolve(*without(layers, "switch")), resolve(*without(layers, "warmup", "retrain"))
    if not offline and switch is None:  # a recipe's reset has nothing to reset
        chosen = dataclasses.replace(chosen, reset=None)
    check_switch(switch, data)
    if baseline:
        baseline_module.check(canonical(algorithm), data, online)
    live = {"utd": pick(utd, "utd", 1.0), "offline_share": pick(offline_share, "offline_share", SHARE),
            "online_settings": {}}  # fmt: skip
    for own in (recipe.get("online_settings"), published.get("online_settings"), online_settings):
        live["online_settings"] |= settings_module.numbers(algo, own or {})
    before = {}
    for own in (recipe.get("offline_settings"), published.get("offline_settings"), offline_settings):
        before |= settings_module.numbers(algo, own or {})
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
        n_step=pick(n_step, "n_step", 1),
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
    folder = RunFolder(out or fresh_folder(name, data, env))
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
        "protocol": {"episodes": the_plan.episodes, "env_seed": the_plan.eval_seed, "num_envs": the_plan.eval_envs,
                     "every": {p.name: the_plan.every(p) for p in phases}},
        "log": list(log),
        "versions": versions(),
        "platform": platform.platform(),
        "created": now(),
        "resumes": [],
    }  # fmt: skip
    loop.identity = {k: manifest[k] for k in IDENTITY}
    folder.create()
    try:
        folder.write_manifest(manifest)
    except BaseException:
        folder.unlock()
        raise
    if preset is None and env is not None and (found := presets.published(canonical(algorithm) or "", env)):
        say(f"There are published settings for this environment: --preset {found}")
    if data is not None and data is not dataset:
        introduce(data)
    return _conclude(_go(loop, folder, manifest, data if data is dataset else None), command)


def resume(
    run: str | pathlib.Path | Run,
    *,
    offline: int | None = None,
    online: int | None = None,
    env: str | None = None,
    utd: float | None = None,
    switch: str | None = None,
    offline_share: float | None = None,
    online_settings: Mapping[str, Any] | None = None,
    algorithm: str | Any | None = None,
    settings: Mapping[str, Any] | None = None,
    eval_every: int | None = None,
    episodes: int | None = None,
    baseline: bool = False,
    dataset: Any = None,
    command: Sequence[str] | None = None,
) -> Run:
    """Go on with a run exactly where its last whole checkpoint stands, or further than it was going to go.

    Args:
      run: the run or its folder.
      offline, online: new totals for these phases; a run that had no online phase gets one. Recorded in the manifest.
      env: the environment of a run that was trained without one.
      utd, switch, offline_share, online_settings: of an online phase that is new, as for `train`; by default what
        `train` was given. A run that is or was live can still get the switch retrain[:N], with successes:S.
      algorithm: another algorithm for the phases that are left; it goes on with the run's policy where that fits
        (`settings` can name another), and networks of the same shape are carried over.
      settings: changed settings, by dotted name, for the phases that are left; a change of structure starts what it
        touches afresh.
      eval_every, episodes: of the evaluations that are left, as for `train`.
      baseline: train RLPD from scratch as well, as for `train`; a baseline that was asked for before goes on by itself.
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
    live = dict(utd=utd, switch=switch, offline_share=offline_share, online_settings=online_settings)
    live = {k: v for k, v in live.items() if v is not None}
    if live and any(p["name"] == "online" for p in manifest["phases"]) and not _only_retrains(live):
        raise SettingsError(
            f"The run's online phase already has its {' and '.join(live)}; leave out what only a first one can get. "
            "What can still be given is --switch retrain:N, with successes:S."
        )
    given = {"switch": switch, "offline_share": number_of("offline_share", offline_share, None)}
    resolve(given)  # raises what is wrong with it
    if baseline:
        steps = online or sum(p["env_steps"] for p in manifest["phases"] if p["name"] == "online")
        name = canonical(algorithm) if algorithm is not None else manifest["algorithm"]
        baseline_module.check(name, manifest["dataset"], steps)
    evaluations = {"eval_every": eval_every, "episodes": episodes}
    evaluations = {k: number_of(k, v, 0) for k, v in evaluations.items() if v is not None}
    evaluations |= {"evaluate": True} if evaluations else {}  # asked for, whatever the run did so far
    folder.lock()
    try:
        manifest = manifest | {"env": manifest["env"] or env, "baseline": bool(manifest.get("baseline") or baseline)}
        loop, manifest = _reopen(folder, manifest, offline, online, live, evaluations, algorithm, settings, dataset,
                                 command, registry, settings_module, load_data)  # fmt: skip
    except BaseException:
        folder.unlock()
        raise
    return _conclude(_go(loop, folder, manifest, dataset), command)


def _only_retrains(live: Mapping[str, Any]) -> bool:
    """Whether what is given of a live phase concerns the retraining after it alone."""
    said = parse(live.get("switch", "keep")).said
    return live.keys() == {"switch"} and "retrain" in said and said.keys() <= {"retrain", "successes"}


def _reopen(
    folder, manifest, offline, online, live, evaluations, algorithm, settings, dataset, command, registry,
    settings_module, load,
):  # fmt: skip
    """The loop of a run, ready at its last checkpoint, with the changes that were asked for."""
    record = manifest["dataset"]
    data = dataset
    if record is not None and data is None:
        if record["given"] is None:
            raise CheckpointError(f"{folder.path} was trained on arrays in memory; resume it with dataset=....")
        # As it was typed, or, from another working directory, where it lay then.
        there = record.get("path") if not pathlib.Path(record["given"]).exists() else None
        place = manifest["plan"].get("eval_env") or manifest["env"]
        data = load(there or record["given"], env=place, action_range=record.get("action_range"))
    if record is not None and data.sha256 != record["sha256"]:
        raise CheckpointError(
            f"The data set {record['given'] or record['name']} is not the one that {folder.path} was trained on "
            f"(SHA-256 {data.sha256[:12]}, expected {record['sha256'][:12]}); put the original back."
        )
    found = checkpoint.latest(folder.path, mend=True)
    # A checkpoint says itself which algorithm it holds, so that a kill between it and the manifest loses nothing.
    identity = found[1]["identity"] if found else {k: manifest[k] for k in IDENTITY}
    spec = spec_of(manifest["env"], data)
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
    algo, changed = before, {k: v for k, v in dict(offline=offline, online=online).items() if v is not None} | live
    changed |= evaluations
    manifest = manifest | {"plan": manifest["plan"] | evaluations}
    another = isinstance(algorithm, str) or given is not None
    if another:
        base = registry.make(algorithm, size, {}, None) if isinstance(algorithm, str) else given
        kept, why = registry.keep_policy(base, before, settings or {}, size) if before is not None else ({}, "")
        if why:
            say(f"The policy of the run so far starts afresh: {why}")
        new = registry.overrides(base, settings or {}, size, before=kept)
        identity = {"algorithm": canonical(algorithm), "object": None if given is None else type(given).__name__,
                    "overrides": new, "preset": None}  # fmt: skip
        changed |= {"algorithm": identity["algorithm"] or identity["object"], "settings": new}
        algo = registry.adjust(base, new, size)
    elif settings:
        merged = registry.overrides(base, settings, size, before=old)
        identity = identity | {"overrides": merged}
        changed |= {"settings": {k: v for k, v in merged.items() if old.get(k) != v}}
        algo = registry.adjust(base, merged, size)
    phases = [Phase(**p) for p in (found[1] if found else {}).get("phases", manifest["phases"])]
    # What holds in one phase belongs to the algorithm that it was meant for, and gives way to what is asked for now.
    asked = set() if another or not settings else set(registry.overrides(base, settings, size))
    fits = set() if another else {s.name for s in settings_module.fields(algo)} - asked
    recipe = registry.run_of(identity["algorithm"]) if another else {}
    left = min(found[1]["counters"]["phase"] if found else 0, len(phases) - 1)
    phases[left:] = [dataclasses.replace(p, settings=[x for x in p.settings if x[0] in fits]) for p in phases[left:]]
    first = _first_live(manifest, recipe, live, algo, fits, data, settings_module)
    extended = _extend(phases, offline, online, data is not None, manifest["env"], first)
    if live and any(p.name == "online" for p in phases):  # `resume` has seen that it says retrain, and no more
        if data is None:
            raise SettingsError("Retraining needs a data set, and the run has none; leave retrain out.")
        extended = with_retraining(extended, parse(live["switch"]))
        manifest = manifest | {"switch": str(said_by(extended))}
    options = manifest["plan"] | {"phases": tuple(extended), "seeds": tuple(manifest["seeds"]), "env": manifest["env"]}
    check_plan(Plan(**options))
    check_fit(algo, Plan(**options), data, found[1]["counters"]["phase"] if found else 0)
    columns = columns_of(data, algo, Plan(**options), manifest["data_on"])
    loop = Loop(algo, Plan(**options), folder, columns, example_of(columns, spec, algo))
    loop.identity = identity
    loop.prepare(found, same=jax.tree.structure(before) == jax.tree.structure(algo), old_phases=phases)
    if algo is not before and loop.counters.phase >= len(extended):
        raise SettingsError(
            f"{folder.path} has finished, so the change would do nothing; give it more steps as well, such as "
            f"--online {loop.counters.env_steps + 20_000}."
        )
    if found and changed:
        loop.save()  # the change is made or not: a kill from here on does not forget it
    if not any(p.name == "online" for p in phases):
        manifest = manifest | {"switch": str(first["switch"]), "live": manifest.get("live", {}) | {
            k: first[k] for k in ("utd", "online_settings")}}  # fmt: skip
    c = loop.counters
    entry = {"at": now(), "updates": c.updates, "env_steps": c.env_steps, "changed": changed,
             "command": list(command or []), "versions": versions()}  # fmt: skip
    manifest = manifest | identity | {
        "settings": settings_module.as_dict(loop.algo),
        "phases": [dataclasses.asdict(p) for p in extended],
        "resumes": [*manifest["resumes"], entry],
    }  # fmt: skip
    folder.write_manifest(manifest)
    return loop, manifest


def _first_live(manifest: dict, recipe: dict, live: dict, algo, fits: set[str], data, settings_module) -> dict:
    """What `plan` takes for an online phase that is new: `live` where the user gave it, else the `recipe` of another
    algorithm, else what `train` was given."""
    stored = manifest.get("live", {})
    check_switch(live.get("switch"), data)
    share = {"offline_share": stored.get("offline_share") if data is not None else None}
    settings = {k: v for k, v in stored.get("online_settings", {}).items() if k in fits}
    for own in (recipe.get("online_settings"), live.get("online_settings")):
        settings |= settings_module.numbers(algo, own or {})
    return {
        "utd": number_of("utd", live.get("utd"), recipe.get("utd", stored.get("utd", 1.0))),
        "switch": resolve(share, {"switch": manifest.get("switch")}, recipe, live),
        "online_settings": settings,
    }


def _extend(phases: list[Phase], offline, online, data: bool, env, live: dict) -> list[Phase]:
    """The phases with new totals; `live` is of an online phase that is new. A total below the old one is refused."""
    phases = list(phases)
    for name, total in (("offline", offline), ("online", online)):
        if total is None:
            continue
        found = [i for i, p in enumerate(phases) if p.name == name]
        if not found and name == "online":
            if env is None:
                raise SettingsError("An online phase needs an environment, and the run has none; train with --env ID.")
            held = live | {"online_settings": live["online_settings"].items()}
            phases += plan(online=total, data=data, pretrained=any(p.updates for p in phases), **held)
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
                f"{baseline_module.owner(folder.path)}")  # fmt: skip
            export_policy(folder.path, loop, manifest)
            Run(folder.path).report()
            if stopped.signum == 2:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + stopped.signum) from None
        export_policy(folder.path, loop, manifest)
        run = Run(folder.path, loop.algo if manifest["algorithm"] is None else None, dataset)
        write_json(folder.path / "result.json", run.summarise(loop.counters))
        run.report()
        return run
    finally:
        folder.unlock()


def _conclude(run: Run, command) -> Run:
    """What follows a finished run: its baseline, where it has one, and its result and report beside that."""
    if run.manifest.get("baseline"):
        baseline_module.finish(run, run.dataset, command)
        write_json(run.path / "result.json", run.result | {"baseline": baseline_module.summary(run.path)})
        run.report()
    return run
