"""Adroit's door from 25 human demonstrations: python benchmarks/door.py METHOD ... [--data FILE] [--runs DIR]

Three seeds of each method, sparse rewards, an evaluation every 2,500 live steps; kept as results/METHOD-door here.
Without a method: the table of those that are kept, with the live steps, warm-up included, to the first evaluation of at
least 0.5 and 0.9: of the mean over seeds and, in brackets, of each seed.

The demonstrations take 222 to 299 steps, and 7 of 25 open the door to 1.35 rad, where the environment counts success;
an episode has 200 steps. What imitates them must therefore be faster than they are. On one to three seeds: clones of
single actions succeeded in at most 2 percent, flow chunks of eight in none, deterministic and Gaussian ones in 0 to 78,
from one checkpoint to the next; live noise of 0.1 took IQL from 24 to 6 percent in 3,000 steps, 0.03 did not. IQL's own
decay leaves a tenth of its policy's live rate. Cal-QL and WSRL start from a clone of constant deviation, of which they
have no entropy: their policy climbs Q alone.
"""

from __future__ import annotations

from keep import HERE, arguments, curve, keep, rows_of, stages

ENV = "AdroitHandDoorSparse-v1"
RUN = f"--env {ENV} --reward-scale 0.0990099 --reward-bias -0.990099 --utd 1 --seeds 3"
CHUNKS = "--chunk 8 --batch-size 128 --offline.learning_rate 1e-3 --offline"
CLONE = f"--eval-every 2500 --act_average true {CHUNKS}"
GAUSSIAN = ("--policy gaussian --policy.deviation constant --policy.std 0.03 --policy.hidden 512 512 "
            "--policy.activation relu --policy.layer_norm before --offline-share 0.5 "
            "--critic.learning_rate 3e-4 --online.learning_rate")  # fmt: skip
VALUES = ("--critic.importance false --critic.hidden 256 256 --critic.layer_norm before --critic.ensemble 5 "
          "--critic.subset 2 --critic.aggregate mean --critic.weight 1 --critic.samples 2 "
          "--act_average true")  # fmt: skip
SLOPE = "--extraction td3_bc --extraction.alpha 0 --extraction.normalise false --extraction.exploration 0"
CLONED = f"bc {CHUNKS} 3000 {GAUSSIAN} 1e-6 --critic cal_ql {VALUES} --eval-every 0"
METHODS = {  # the arguments of train, && those of resume
    "iql": f"iql {CLONE} 3000 {GAUSSIAN} 3e-4 --critic.layer_norm before --critic.expectile 0.9 --extraction.beta 1 "
           "--online 50000",
    "qc": f"qc {CLONE} 1500 {GAUSSIAN} 1e-4 --critic.hidden 256 256 --extraction.samples 4 --online 20000",
    "resfit": f"resfit {CLONE} 1500 --policy.base deterministic --policy.base.hidden 512 512 "
              "--policy.base.layer_norm before --policy.scale 0.1 --critic.ensemble 5 --critic.subset 2 "
              "--critic.learning_rate 3e-4 --critic.hidden 256 256 --extraction.exploration 0.02 "
              "--online.learning_rate 1e-6 --n-step 1 --warmup 5000 --online 45000",
    "rlpd": "rlpd --offline 0 --warmup 1000 --online 120000 --eval-every 10000 --batch-size 256 --n-step 3 "
            "--critic.ensemble 2 --critic.subset 0 --critic.entropy false --policy.hidden 256 256 "
            "--critic.hidden 256 256",
    "cal_ql": f"{CLONED} && --algorithm cal_ql {VALUES} {SLOPE} --online.learning_rate 1e-6 --online 20000 "
              "--eval-every 2500",
    "wsrl": f"{CLONED} && --algorithm wsrl {VALUES} {SLOPE} --online.learning_rate 1e-6 --switch warmup:5000+drop "
            "--utd 1 --online 20000 --eval-every 2500",
    "pa_rl": f"pa_rl {CLONE} 1500 {GAUSSIAN} 1e-4 --critic.hidden 256 256 --critic.ensemble 2 --critic.subset 0 "
             "--critic.weight 1 --critic.samples 2 --extraction.samples 2 --extraction.keep 2 --extraction.steps 0 "
             "--target_policy true --online 20000",
    "pa_rl-climbing": f"pa_rl {CLONE} 1500 {GAUSSIAN} 1e-4 --critic.hidden 256 256 --critic.ensemble 2 "
                      "--critic.subset 0 --critic.weight 1 --critic.samples 2 --extraction.samples 8 "
                      "--extraction.keep 2 --extraction.steps 1 --target_policy true --online 20000",
}  # fmt: skip


def reached(points: list[tuple[int, float]], bar: float) -> str:
    """Live steps of the first evaluation with a success of `bar`, in thousands."""
    found = next((steps for steps, success in points if steps and success >= bar), None)
    return "not in " + f"{points[-1][0] / 1000:g}k" if found is None else f"{found / 1000:g}k"


def table() -> str:
    lines = [
        "| method | before | last | best | steps to 0.5 (seeds) | steps to 0.9 (seeds) |",
        "|---|---|---|---|---|---|",
    ]
    for folder in sorted(HERE.glob("*-door")):
        rows = rows_of(folder.name)
        every = curve(rows)
        seeds = [curve(rows, seed) for seed in sorted({row["seed"] for row in rows})]
        before = f"{100 * every[0][1]:.0f}" if every[0][0] == 0 else "–"
        bars = (f"{reached(every, bar)} ({', '.join(reached(one, bar) for one in seeds)})" for bar in (0.5, 0.9))
        lines.append(f"| {folder.name.removesuffix('-door')} | {before} | {100 * every[-1][1]:.0f} "
                     f"| {100 * max(s for _, s in every):.0f} | {' | '.join(bars)} |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    args = arguments(__doc__, METHODS, "method", "../shared/data/adroit-door-human.hdf5")
    for name in args.names:
        out = args.runs / f"{name}-door"
        stages(METHODS[name], args.data, RUN, out)
        keep(out)
    print(table())


if __name__ == "__main__":
    main()
