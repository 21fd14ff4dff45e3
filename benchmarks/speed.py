"""Speed, as ratios measured in one run: `make bench`.

For every algorithm: updates per second of the compiled chunk, floating-point operations per update by the compiler's
own cost analysis, the share of the float32 matrix-product rate (the hidden layer, batch x width x width, measured
in turn with it), and the speed-up over two loops that call the same compiled update once per step: one that samples its
batches with NumPy, as published implementations do, and one that samples on the device and donates its state, the best
that a per-step loop can be. Then the live loop: the share of its time outside the compiled call and the environment;
and the start-up of the command line.

    python benchmarks/speed.py [--algorithms iql td3_bc] [--rounds 5] [--seconds 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from understudy import registry
from understudy.data.replay import Buffer, example
from understudy.data.samplers import Sampler
from understudy.run import programs

OBSERVATION, ACTION, BATCH, WIDTH, ROWS = 29, 8, 256, 256, 100_000


def random_data(rng) -> dict:
    """Transitions of the right shapes; speed does not depend on their values."""
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    return dict(
        observations=normal(ROWS, OBSERVATION),
        actions=rng.uniform(-0.99, 0.99, (ROWS, ACTION)).astype(np.float32),
        rewards=normal(ROWS),
        masks=np.ones(ROWS, np.float32),
        next_observations=normal(ROWS, OBSERVATION),
        mc_returns=normal(ROWS),
        ends=np.arange(ROWS) % 1000 == 999,
    )


def matrix_rate(seconds: float) -> float:
    """GFLOP/s of [B, W] x [W, W] in float32, the product of a hidden layer."""
    count = 500
    x, w = jnp.ones((BATCH, WIDTH)), jnp.ones((WIDTH, WIDTH)) / WIDTH
    product = jax.jit(lambda x, w: jax.lax.fori_loop(0, count, lambda _, x: x @ w, x))
    product(x, w).block_until_ready()
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        product(x, w).block_until_ready()
        done += count
    return 2 * BATCH * WIDTH * WIDTH * done / (time.perf_counter() - begin) / 1e9


class Case:
    """One algorithm on random data, as the loop runs it and as a per-step loop would."""

    def __init__(self, name: str, data: dict, sources: dict):
        self.name, self.sources, self.data = name, sources, data
        self.algo = registry.make(name, ACTION, {})
        self.sampler = Sampler(batch_size=BATCH, next_actions="next_actions" in self.algo.requires)
        self.keys = programs.seed_keys([0], programs.UPDATE)
        one = {k: jnp.asarray(v) for k, v in example(data).items() if k != "ends"}
        one |= {"next_actions": one["actions"], "next_valids": jnp.ones(1)}
        self.state = programs.initialise(self.algo, self.keys, one)
        self.at = 0

        def step(algo, state, key, i):
            key_sample, key_update = jax.random.split(jax.random.fold_in(key, i))
            return algo.update(state, self.sampler(sources, key_sample), key_update)[0]

        self.single = jax.tree.map(lambda x: x[0].copy(), self.state)
        self.step = jax.jit(step, donate_argnums=1)
        self.plain = jax.jit(lambda algo, state, batch, key: algo.update(state, batch, key))
        self.rng = np.random.default_rng(0)
        metrics = jax.eval_shape(lambda s, k: algo_metrics(self.algo, s, self.sampler(sources, k), k), self.single,
                                 self.keys[0])  # fmt: skip
        self.names = tuple(metrics)
        flops = jax.jit(step).lower(self.algo, self.single, self.keys[0], 0).compile().cost_analysis()["flops"]
        self.flops = float(flops)
        self.chunk(20)
        self.per_step(3)
        self.numpy_loop(3)

    def chunk(self, count: int) -> float:
        begin = time.perf_counter()
        self.state, total, _ = programs.chunk(
            self.algo, self.state, self.sources, None, self.sampler, self.keys, self.at, self.at + count, {}, self.names
        )
        jax.block_until_ready((self.state, total))
        self.at += count
        return count / (time.perf_counter() - begin)

    def per_step(self, count: int) -> float:
        begin = time.perf_counter()
        for i in range(count):
            self.single = self.step(self.algo, self.single, self.keys[0], i)
        jax.block_until_ready(self.single)
        return count / (time.perf_counter() - begin)

    def numpy_loop(self, count: int) -> float:
        state, key = self.single, self.keys[0]
        begin = time.perf_counter()
        for _ in range(count):
            rows = self.rng.integers(ROWS - 1, size=BATCH)
            batch = {k: v[rows] for k, v in self.data.items() if k in self.algo.requires}
            if "next_actions" in self.algo.requires:
                batch |= {"next_actions": self.data["actions"][rows + 1], "next_valids": np.ones(BATCH, np.float32)}
            key, now = jax.random.split(key)
            state, _ = self.plain(self.algo, state, batch, now)
        jax.block_until_ready(state)
        return count / (time.perf_counter() - begin)


def algo_metrics(algo, state, batch, key):
    return algo.update(state, batch, key)[1]


def updates(names: list[str], rounds: int, seconds: float) -> list[dict]:
    data = random_data(np.random.default_rng(0))
    sources = {"prior": Buffer.full(data)}
    rows = []
    print(f"{'algorithm':<10}{'updates/s':>12}{'MFLOP/update':>14}{'of matmul rate':>16}{'x NumPy loop':>14}"
          f"{'x device loop':>15}")  # fmt: skip
    for name in names:
        case = Case(name, data, sources)
        count = max(int(case.chunk(20) * seconds), 5)
        rate, share, ratio, numpy_ratio = [], [], [], []
        for _ in range(rounds):
            before = matrix_rate(seconds / 2)
            rate.append(case.chunk(count))
            after = matrix_rate(seconds / 2)
            ratio.append(rate[-1] / case.per_step(count))
            numpy_ratio.append(rate[-1] / case.numpy_loop(count))
            share.append(rate[-1] * case.flops / 1e9 / ((before + after) / 2))
        row = dict(algorithm=name, updates_per_second=statistics.median(rate), flops_per_update=case.flops,
                   of_matrix_rate=statistics.median(share), of_matrix_rate_range=[min(share), max(share)],
                   times_numpy_loop=statistics.median(numpy_ratio),
                   times_numpy_loop_range=[min(numpy_ratio), max(numpy_ratio)],
                   times_device_loop=statistics.median(ratio),
                   times_device_loop_range=[min(ratio), max(ratio)])  # fmt: skip
        rows.append(row)
        print(f"{name:<10}{row['updates_per_second']:>12,.0f}{case.flops / 1e6:>14,.0f}{row['of_matrix_rate']:>16.2f}"
              f"{row['times_numpy_loop']:>14.2f}{row['times_device_loop']:>15.2f}", flush=True)  # fmt: skip
    return rows


def live(env: str, steps: int) -> dict | None:
    """Where the time of the live loop goes: one environment, one update per step, IQL at 256x2."""
    from understudy.envs import describe
    from understudy.errors import EnvError
    from understudy.run.folder import RunFolder
    from understudy.run.loop import Loop
    from understudy.run.phases import plan
    from understudy.run.plan import Plan
    from understudy.run.switch import Switch

    try:
        spec = describe(env)
    except EnvError as error:
        print(f"live loop skipped: {error}")
        return None
    one = dict(observations=np.zeros((1, *spec.observation_shape), np.float32),
               actions=np.zeros((1, spec.action_size), np.float32), rewards=np.zeros(1, np.float32),
               masks=np.ones(1, np.float32), ends=np.zeros(1, bool))  # fmt: skip
    one["next_observations"] = one["observations"]
    with tempfile.TemporaryDirectory() as folder:
        phases = plan(online=steps + 200, switch=Switch(warmup=100), data=False)
        loop = Loop(registry.make("iql", spec.action_size, {}), Plan(phases=tuple(phases), seeds=(0,), env=env,
                    evaluate=False, checkpoint_every=1e9), RunFolder(folder), None, one)  # fmt: skip
        spent = {"program": 0.0, "env": 0.0, "loop": 0.0}
        interact = programs.interact

        def timed(*args, **kwargs):
            begin = time.perf_counter()
            out = interact(*args, **kwargs)
            jax.block_until_ready(out)
            spent["program"] += time.perf_counter() - begin
            return out

        programs.interact = timed
        try:
            loop.prepare()
            live_loop = loop._live

            def counted(*args):
                if loop.counters.env_steps < 300:  # compiling
                    shown = live_loop(*args)
                    spent.update(program=0.0, env=0.0, loop=0.0)
                    loop.collector.seconds = 0.0
                    return shown
                begin = time.perf_counter()
                shown = live_loop(*args)
                spent["loop"] += time.perf_counter() - begin
                spent["env"] = loop.collector.seconds
                return shown

            loop._live = counted
            loop.run()
        finally:
            programs.interact = interact
    outside = 1 - (spent["program"] + spent["env"]) / spent["loop"]
    print(f"live loop on {env}: {spent['program'] / spent['loop']:.1%} in the compiled update, "
          f"{spent['env'] / spent['loop']:.1%} in env.step, {outside:.1%} outside both")  # fmt: skip
    share = {k: spent[k] / spent["loop"] for k in ("program", "env")}
    return dict(env=env, update=share["program"], env_step=share["env"], outside=outside)


def start_up() -> dict:
    """Seconds of `understudy --help`, the least of 5, and as a multiple of an empty Python program."""
    time_of = lambda *args: min(_time(args) for _ in range(5))
    helped = time_of(sys.executable, "-m", "understudy", "--help")
    empty = time_of(sys.executable, "-c", "pass")
    print(f"understudy --help: {helped:.2f} s ({helped / empty:.1f} times an empty Python program)")
    return dict(help_seconds=helped, empty_python_seconds=empty)


def _time(args) -> float:
    begin = time.perf_counter()
    subprocess.run(args, check=True, capture_output=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--algorithms", nargs="+", default=list(registry.ALGORITHMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--env", default="cube-single-play-singletask-v0")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    print(f"observations {OBSERVATION}, actions {ACTION}, batch {BATCH}, hidden {WIDTH} x 2, {jax.devices()[0]}")
    result = dict(updates=updates(args.algorithms, args.rounds, args.seconds), live=live(args.env, 2000),
                  start_up=start_up())  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
