"""Methods of no other table, each on a real task: python benchmarks/methods.py METHOD ... [--runs DIR]

Three seeds, 50 episodes each. `sac` learns HalfCheetah-v5 from scratch; then its first seed plays 30 episodes, 30,000
transitions, which are what the others on that task start from; on "heavy" their live steps are under twice the gravity
(heavy.py), the evaluation is not. Those on cube-single start from the demo's recordings, 60 episodes of the noisy
player, with the demo's values and policy, which climbs them: theirs is how they go live. Networks and rates are each
method's own but for what METHODS says. Kept as results/TASK-METHOD here; without a method, their table is printed.
"""

from __future__ import annotations

import json
import pathlib

from keep import HERE, arguments, keep, offline, scored, stages, understudy

CHEETAH = "HalfCheetah-v5"
ENVS = {"cheetah": CHEETAH, "heavy": f"HalfCheetahHeavy-v0 --eval-env {CHEETAH}",
        "cube": "cube-single-play-singletask-v0"}  # fmt: skip
PROGRAMS = {"heavy": {"program": (str(HERE.parent / "heavy.py"),)}}
NOISY = "cube-single-noisy-singletask-v0"
CLIMBING = ("--critic td3_bc --extraction td3_bc --policy deterministic --extraction.alpha 0.1 --target_policy true "
            "--act_average true --policy_delay 1 --decay_steps 0 --learning_rate 1e-3 --policy.hidden 256 256 "
            "--critic.hidden 256 256 --critic.layer_norm after --critic.learning_rate 1e-3 --critic.backup mean "
            "--critic.aggregate mean --critic.target_period 1 --n-step 3 --offline-share 0.75 "
            "--offline 2000 --online 4000 --eval-every 2000")  # fmt: skip
ON_POLICY = "--online 100000 --eval-every 50000 --steps_per_rollout 1024 --reward-scale 0.1"
SHORT = "--offline 5000 --online 5000 --eval-every 5000"
METHODS = {
    "sac": ("cheetah", "--warmup 1000 --online 30000 --eval-every 10000"),
    "ppo": ("cheetah", f"--offline 2000 {ON_POLICY}"),
    "dppo": ("cheetah", f"--offline 5000 {ON_POLICY}"),
    "uni_o4": ("cheetah", f"--offline 10000 {ON_POLICY} --hidden 256 256 --policy.hidden 256 256 --clones 2"),
    "hnpg": ("cheetah", "--online 200000 --eval-every 100000"),
    "moorl": ("cheetah", "--online 30000 --eval-every 15000"),
    "h2o": ("heavy", "--online 20000 --eval-every 10000 && --online 50000"),
    "parrot": ("cheetah", "--offline 5000 --online 20000 --eval-every 10000"),
    "dsrl": ("cheetah", "--offline 5000 --utd 1 --online 10000 --eval-every 5000 --policy.base.steps 5"),
    "idql": ("cheetah", f"{SHORT} --extraction.samples 16 --policy.network mlp --policy.hidden 256 256"),
    "diffusion_ql": ("cheetah", f"{SHORT} --extraction.samples 10"),
    "arsq": ("cheetah", "--online 10000 --eval-every 5000 --levels 1 --bins 21 --hidden 256 256 --batch-size 256"),
    "cql": ("cheetah", "--offline 10000 --online 10000 --eval-every 5000 --critic.samples 4"),
    "ro2o": (
        "cheetah",
        "--offline 10000 --online 7500 --eval-every 5000 --critic.ensemble 4 --critic.samples 2 "
        "--extraction.samples 2 --critic.hidden 256 256 --policy.hidden 256 256",
    ),
    "jsrl": ("cube", CLIMBING),
    "ooo": ("cube", f"{CLIMBING} --online.bonus 1"),
}


def recordings(task: str, runs: pathlib.Path) -> pathlib.Path:
    """The data of a task, which are made where they are not there."""
    if task == "cube":
        path = runs / f"{NOISY}.npz"
        if not path.exists():
            understudy("data", "make", f"ogbench/{NOISY}", "--episodes", "60", "--out", str(path))
        return path
    path = runs / "halfcheetah-sac30k.npz"
    if not path.exists():
        if not (runs / "cheetah-sac").exists():
            raise SystemExit(f"There is no run {runs / 'cheetah-sac'} to record; make it: benchmarks/methods.py sac")
        record(runs / "cheetah-sac", path)
    return path


def record(run: pathlib.Path, path: pathlib.Path, episodes: int = 30, steps: int = 1000) -> None:
    """Episodes that a run's first seed plays, sampled as it does live, in D4RL's layout."""
    import numpy as np

    import understudy
    from understudy.envs import make

    policy, envs = understudy.load(run).policy, [make(CHEETAH) for _ in range(episodes)]
    observations = np.stack([env.reset(seed=i)[0] for i, env in enumerate(envs)])
    rows: dict[str, list] = {k: [] for k in ("observations", "actions", "rewards", "next_observations", "timeouts")}
    for t in range(steps):
        actions = policy(observations, greedy=False, key=t)
        following, rewards = zip(*(env.step(a)[:2] for env, a in zip(envs, actions)))
        for k, v in zip(rows, (observations, actions, rewards, following, [t == steps - 1] * episodes)):
            rows[k].append(np.array(v))
        observations = np.stack(following)
    flat = {k: np.concatenate(np.stack(v, 1)) for k, v in rows.items()}  # [episodes * steps, ...]
    np.savez_compressed(path, terminals=np.zeros(episodes * steps, bool), **flat)


def table() -> str:
    """Success in percent on the cube, returns on HalfCheetah."""
    lines = ["| method | task | offline | last | best | live steps |", "|---|---|---|---|---|---|"]
    for name, (task, _) in METHODS.items():
        folder = HERE / f"{task}-{name}"
        result = json.loads((folder / "result.json").read_text())
        lines.append(f"| {name} | {task} | {offline(folder, result)} | {scored(result)} | {scored(result, 'best_')} "
                     f"| {result['env_steps']:,} |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    args = arguments(__doc__, METHODS, "method", None)
    for name in args.names:
        task, words = METHODS[name]
        data = None if name == "sac" else args.data or str(recordings(task, args.runs))
        out = args.runs / f"{task}-{name}"
        stages(f"{name} {words}", data, f"--env {ENVS[task]} --seeds 3", out, **PROGRAMS.get(task, {}))
        keep(out, "benchmarks/heavy.py has the environment of its live steps" if task == "heavy" else "")
    print(table())


if __name__ == "__main__":
    main()
