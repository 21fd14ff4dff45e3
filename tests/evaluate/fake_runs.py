"""Run folders written from fixed numbers, for the tests of curves and report."""

from __future__ import annotations

import json
import math
import pathlib

OFFLINE = {"name": "offline", "updates": 30_000, "env_steps": 0, "utd": 0.0, "offline_share": 1.0}
ONLINE = {"name": "online", "updates": 0, "env_steps": 20_000, "utd": 1.0, "offline_share": 0.5}


def manifest(**changes) -> dict:
    return {
        "format": 1,
        "understudy": "0.1.0",
        "command": ["understudy", "train", "td3_bc", "ogbench/cube-single-play-singletask-v0", "--seeds", "3"],
        "algorithm": "td3_bc",
        "preset": None,
        "overrides": {"policy.hidden": [256, 256, 256]},
        "settings": {
            "critic.activation": "relu", "critic.discount": 0.99, "critic.ensemble": 2,
            "critic.hidden": [256, 256, 256], "critic.layer_norm": "none", "critic.learning_rate": 3e-4,
            "critic.target_noise": 0.2, "critic.target_noise_clip": 0.5, "critic.target_period": 2, "critic.tau": 0.005,
            "extraction.alpha": 0.4, "extraction.exploration": 0.1, "extraction.normalise": True,
            "learning_rate": 3e-4, "policy.hidden": [256, 256, 256], "policy.layer_norm": "none", "policy_delay": 2,
            "target_policy": True,
        },
        "env": "cube-single-play-singletask-v0",
        "seeds": [0, 1, 2],
        "dataset": {
            "name": "cube-single-play-singletask-v0", "source": "demo-data/cube-single-play-singletask-v0.npz",
            "given": "ogbench/cube-single-play-singletask-v0", "sha256": "9f2b" * 16, "transitions": 100_000,
            "episodes": 100, "notes": ["clipped 5.6% of action entries to [-1, 1]"],
        },
        "phases": [OFFLINE, ONLINE],
        "plan": {"batch_size": 256, "n_step": 1, "num_envs": 1, "eval_every": 5000, "reward_scale": 1.0},
        "protocol": {"episodes": 50, "env_seed": 1_000_003, "num_envs": 10, "every": 5000},
        "versions": {"python": "3.11.9", "jax": "0.10.2", "numpy": "2.4.6", "mujoco": "3.11.0", "ogbench": "1.2.2"},
        "platform": "Linux-6.1-x86_64",
        "created": "2026-11-20T14:00:00+00:00",
        "resumes": [],
    } | changes  # fmt: skip


def evaluation(phase: str, updates: int, env_steps: int, successes, episodes: int = 50, returns=None) -> list[dict]:
    """Rows of one evaluation. successes: how many of the episodes succeeded, for each seed (None: not defined)."""
    rows = []
    for seed, won in enumerate(successes):
        for j in range(episodes):
            success = None if won is None else float(j < won)
            total = returns[seed] + math.sin(j) if returns is not None else -200.0 + 120.0 * success
            rows.append(
                {
                    "phase": phase, "updates": updates, "env_steps": env_steps, "seed": seed, "episode": j,
                    "env_seed": 17 + j, "return": total, "success": success, "length": 200, "score": None,
                }
            )  # fmt: skip
    return rows


def metrics(phases, seeds: int, offline: int = 30_000) -> list[dict]:
    """Lines a second apart: 800 updates a second offline, 160 online."""
    rows, seconds, updates = [], 0.0, 0

    def row(phase, step, progress):
        wave = [math.sin(0.7 * len(rows) + 2 * k) for k in range(seeds)]
        values = {
            "actor/imitation": [0.4 - 0.2 * progress + 0.01 * w for w in wave],
            "actor/loss": [-0.6 - 0.3 * progress + 0.03 * w for w in wave],
            "actor/q": [-60 + 30 * progress + w for w in wave],
            "critic/loss": [9 * math.exp(-4 * progress) + 0.8 + 0.2 * w for w in wave],
            "critic/q": [-62 + 30 * progress + w for w in wave],
            "critic/target": [-61 + 30 * progress + w for w in wave],
        }
        return {"phase": phase, "updates": updates, "env_steps": step, "seconds": seconds, "metrics": values}

    if "offline" in phases:
        while updates < offline:
            updates, seconds = updates + 750, seconds + 1
            rows.append(row("offline", 0, updates / offline / 2))
    if "online" in phases:
        for step in range(200, 20_001, 200):
            updates, seconds = updates + 200, seconds + 1.25
            line = row("online", step, 0.5 + step / 40_000)
            won = float(step % 2000 < 2000 * step / 20_000)
            rows.append(line | {"episodes": {"return": [-200 + 120 * won] * seeds, "success": [won] * seeds}})
    return rows


def write(folder: pathlib.Path, *, manifest=None, episodes=None, metrics=None) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    if manifest is not None:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    for name, rows in (("episodes", episodes), ("metrics", metrics)):
        if rows is not None:
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def offline_to_online(folder: pathlib.Path) -> pathlib.Path:
    """3 seeds: 0.30 at the switch, a dip to 0.20, back at 10,000 steps, best 0.86 at 15,000, last 0.82."""
    episodes = [
        *evaluation("offline", 10_000, 0, (5, 8, 11)),
        *evaluation("offline", 20_000, 0, (11, 10, 15)),
        *evaluation("offline", 30_000, 0, (12, 15, 18)),  # 45 / 150 = 0.30
        *evaluation("online", 35_000, 5_000, (8, 10, 12)),  # 0.20
        *evaluation("online", 40_000, 10_000, (28, 30, 32)),  # 0.60
        *evaluation("online", 45_000, 15_000, (41, 43, 45)),  # 0.86
        *evaluation("online", 50_000, 20_000, (38, 42, 43)),  # 123 / 150 = 0.82
    ]
    return write(folder, manifest=manifest(), episodes=episodes, metrics=metrics(("offline", "online"), 3))


def offline_only(folder: pathlib.Path) -> pathlib.Path:
    """One seed, three evaluations, 0.46 at the end."""
    episodes = [evaluation("offline", n, 0, (won,)) for n, won in ((10_000, 9), (20_000, 17), (30_000, 23))]
    return write(
        folder,
        manifest=manifest(seeds=[0], phases=[OFFLINE], algorithm="iql", overrides={}),
        episodes=[r for rows in episodes for r in rows],
        metrics=metrics(("offline",), 1),
    )


def no_success(folder: pathlib.Path) -> pathlib.Path:
    """Two seeds of a task with returns only: about 2,100 at the switch, 3,800 at the end."""
    counts = [("start", 0, 0, (5, 7)), ("offline", 15_000, 0, (1500, 1300)), ("offline", 30_000, 0, (2200, 2000)),
              ("online", 40_000, 10_000, (3100, 2900)), ("online", 50_000, 20_000, (3900, 3700))]  # fmt: skip
    episodes = [
        row | {"score": row["return"] / 40}
        for phase, updates, steps, returns in counts
        for row in evaluation(phase, updates, steps, (None, None), 10, returns)
    ]
    protocol = {"episodes": 10, "env_seed": 1_000_003, "num_envs": 10, "every": 10_000}
    return write(
        folder,
        manifest=manifest(seeds=[0, 1], env="HalfCheetah-v5", algorithm="cal_ql", protocol=protocol),
        episodes=episodes,
        metrics=[
            r | ({"episodes": r["episodes"] | {"success": [None, None]}} if "episodes" in r else {})
            for r in metrics(("offline", "online"), 2)
        ],
    )
