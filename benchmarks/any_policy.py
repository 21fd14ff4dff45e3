"""One start and one budget for every policy class: python benchmarks/any_policy.py CLASS ... [--data FILE] [--runs DIR]

Each class is cloned from the recordings while IQL's values are learned beside it, then goes on live by PA-RL (a
residual by ResFiT with PA-RL's critic, and twice as long), whose critic starts from those values. What is evaluated
first is the clone itself, one sample a step; live, what the algorithm plays.
Results are kept as benchmarks/results/any-CLASS; without a class, their table is printed. `torch` needs the extra of
that name.
"""

from __future__ import annotations

import dataclasses
import pathlib

from keep import HERE, arguments, curve, keep, rows_of, understudy

ENV = "cube-single-play-singletask-v0"
SHAPE = "--policy.hidden 256 256 --policy.activation relu --policy.layer_norm none"
BASE = "--policy.base.hidden 256 256 --policy.base.activation relu --policy.base.layer_norm none --policy.base.steps 5"
CLASSES = {
    "gaussian": f"--policy gaussian --policy.deviation state {SHAPE}",
    "mixture": f"--policy mixture {SHAPE}",
    "diffusion": f"--policy diffusion --policy.steps 5 {SHAPE}",
    "flow": f"--policy flow --policy.steps 5 {SHAPE}",
    "shortcut": f"--policy shortcut {SHAPE}",
    "tokens": "--policy tokens",
    "chunked-flow": f"--chunk 5 --policy flow --policy.steps 5 {SHAPE}",
    "residual": f"--policy residual --policy.base flow {BASE} {SHAPE}",
}
VALUES = "--critic.ensemble 3 --critic.backup lcb --critic.lcb_beta 2"
CLONE = f"--critic iql {VALUES} --learning_rate 1e-3 --offline 12000 --eval-every 0"
PA_RL = (f"pa_rl {VALUES} --critic.aggregate lcb --critic.subset 0 --critic.layer_norm none --critic.weight 2 "
         "--critic.samples 4 --extraction.samples 8 --extraction.keep 2 --extraction.steps 1 "
         "--extraction.imitation_steps 0 --learning_rate 1e-4 --decay_steps 0")  # fmt: skip
RESFIT = (f"resfit --critic pa_rl {VALUES} --critic.aggregate lcb --critic.subset 0 --critic.layer_norm none "
          "--critic.weight 2 --critic.samples 4 --online.learning_rate 1e-4 --utd 1 "
          "--switch mix:0.5+warmup:0 --online 3000 --eval-every 500")  # fmt: skip
LIVE = " --online 1500 --eval-every 500"


def by_ours(name: str, data: str, out: pathlib.Path) -> None:
    """A class of ours: three seeds in one run."""
    policy = CLASSES[name].split()
    understudy("train", "bc", data, "--env", ENV, *policy, *CLONE.split(), "--seeds", "3", "--out", str(out))
    understudy("resume", str(out), "--algorithm", *(RESFIT if name == "residual" else PA_RL + LIVE).split())


def torch_flow(observation_size: int, action_size: int, seed: int, steps: int = 5):
    """Flow matching in PyTorch, of the same size."""
    import torch
    from torch import nn

    torch.manual_seed(seed)

    class Flow(nn.Module):
        def __init__(self):
            super().__init__()
            layers = [nn.Linear(observation_size + action_size + 1, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
            self.network = nn.Sequential(*layers, nn.Linear(256, action_size))

        def velocity(self, observations, x, t):
            return self.network(torch.cat([observations, x, t[:, None]], -1))

        def loss(self, observations, actions):
            noise, t = torch.randn_like(actions), torch.rand(len(actions))
            x = noise + t[:, None] * (actions - noise)
            return ((self.velocity(observations, x, t) - (actions - noise)) ** 2).mean(-1)

        def sample(self, observations, n):
            many = observations.repeat_interleave(n, 0)
            x = torch.randn(len(many), action_size)
            for i in range(steps):
                x = x + self.velocity(many, x, torch.full((len(many),), i / steps)) / steps
            return x.reshape(-1, n, action_size)

    return Flow()


def by_external_pa_rl(data: str, out: pathlib.Path) -> None:
    """A torch module: a run for each seed; its values are learned beside a clone of ours, which it then replaces. The
    offline phase goes on for one update, so that the module is evaluated before the first live step, one sample a step.
    """
    import numpy as np
    import torch

    import understudy as library
    from understudy.algorithms.external_pa_rl import external_pa_rl
    from understudy.policies.torch_policy import TorchPolicy

    dataset = library.load(data, env=ENV)
    columns = dataset.transitions()
    observations, actions = np.asarray(columns["observations"]), np.asarray(columns["actions"])
    for seed in range(3):
        run = out.with_name(f"{out.name}-seed{seed}")
        understudy("train", "bc", data, "--env", ENV, *CLASSES["gaussian"].split(), *CLONE.split(), "--seed", str(seed),
                   "--no-eval", "--out", str(run))  # fmt: skip
        module, rng = torch_flow(observations.shape[-1], actions.shape[-1], seed), np.random.default_rng(seed)
        policy = TorchPolicy(module, torch.optim.Adam(module.parameters(), lr=1e-3))
        for step in range(12_000):
            rows = rng.integers(0, len(actions), 256)
            policy.fit(observations[rows], actions[rows], np.ones(256, np.float32), step)
        policy = TorchPolicy(module, torch.optim.Adam(module.parameters(), lr=1e-4))
        algorithm = external_pa_rl(actions.shape[-1], policy)
        words = dict(zip(PA_RL.split()[1::2], PA_RL.split()[2::2]))
        given = {k.removeprefix("--"): v for k, v in words.items() if k.startswith(("--critic", "--extraction"))}
        algorithm = dataclasses.replace(algorithm, fit_from=0.0)
        alone = given | {"extraction.samples": 1, "extraction.keep": 1}
        library.resume(run, algorithm=algorithm, settings=alone, offline=12_001, eval_every=500)
        library.resume(run, algorithm=algorithm, settings=given, online=1500)


def results() -> dict[str, list[dict]]:
    """The evaluation episodes of every class; the PyTorch module's seeds are runs of their own."""
    found = {name: rows_of(f"any-{name}") for name in CLASSES if (HERE / f"any-{name}").exists()}
    return found | {"PyTorch flow": rows_of(*(f"any-torch-seed{i}" for i in range(3)))}


def table() -> str:
    """Success in percent of the clone and after as many live steps for every class."""
    lines = ["| policy | clone | after 1,500 live steps | each seed |", "|---|---|---|---|"]
    for name, rows in results().items():
        percent = lambda points: f"{100 * dict(points)[1500]:.0f}"
        seeds = ", ".join(percent(curve(rows, seed)) for seed in sorted({row["seed"] for row in rows}))
        lines.append(f"| {name} | {100 * curve(rows)[0][1]:.0f} | {percent(curve(rows))} | {seeds} |")
    return "\n".join(lines)


def main() -> None:
    args = arguments(__doc__, (*CLASSES, "torch"), "class", f"../shared/data/{ENV}.npz")
    for name in args.names:
        out = args.runs / f"any-{name}"
        if name == "torch":
            by_external_pa_rl(args.data, out)
            kept = [out.with_name(f"{out.name}-seed{seed}") for seed in range(3)]
        else:
            by_ours(name, args.data, out)
            kept = [out]
        for run in kept:
            keep(run)
    print(table())


if __name__ == "__main__":
    main()
