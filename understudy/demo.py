"""`understudy demo`: a robot arm learns to move a cube from recordings, then gets better live, in a few minutes."""

from __future__ import annotations

import pathlib
import shutil
import time

from understudy.errors import CheckpointError
from understudy.progress import say
from understudy.run.folder import RunFolder
from understudy.run.run import Run
from understudy.run.train import train

TASK = "cube-single-play-singletask-v0"
# The same arm and cube, played by ogbench's other scripted player: it acts with noise, so that few recordings show
# what a little more or less of each action does. The published play recordings need hours of training, not minutes.
RECORDINGS, EPISODES = "cube-single-noisy-singletask-v0", 60  # of 1,000 transitions
ALGORITHM, OFFLINE, ONLINE = "td3_bc", 2_000, 16_000
SETTINGS = {
    "critic.hidden": (256, 256, 256),
    "policy.hidden": (256, 256, 256),
    "critic.layer_norm": "after",
    "critic.learning_rate": 1e-3,
    "learning_rate": 1e-3,
    "extraction.alpha": 0.1,
    "critic.target_period": 1,
    "critic.backup": "mean",
    "critic.aggregate": "mean",
    "policy_delay": 1,
    "act_average": True,
}
OFFLINE_SHARE = 0.75  # at 0.5 seed 0 fell from 0.92 at 2,000 live steps to 0.6, until 14,000


def demo(
    out: str | pathlib.Path = "runs/demo", seed: int = 0, *, offline: int = OFFLINE, online: int = ONLINE, command=()
) -> Run:
    """Make the data on all cores, pretrain, evaluate, fine-tune live, evaluate; leave a report and a video in `out`.

    An earlier demo in the same folder is moved aside to OUT-1, OUT-2, ...; its recordings are used again.

    Args:
      out: run folder.
      seed: of the training; the recordings are the same for every seed.
      offline: updates on the recordings. online: environment steps after that, each followed by one update.
      command: what was typed, for the manifest.
    """
    from understudy import data

    out, begin = pathlib.Path(out), time.monotonic()
    if (out / "manifest.json").exists():
        _move_aside(out)
    RunFolder(out).refuse()
    say(f"1/3  Recordings: a scripted arm moves a cube about, {EPISODES} episodes of 1,000 steps")
    recordings = out.parent / f"demo-data-{EPISODES}" / f"{RECORDINGS}.npz"
    if not recordings.exists():
        data.make(f"ogbench/{RECORDINGS}", out=recordings, episodes=EPISODES, seed=0)
    say(f"2/3  Training: {offline:,} updates of {ALGORITHM} on the recordings alone,")
    say(f"     then {online:,} live steps with the arm, an update after each")
    run = train(
        ALGORITHM, recordings, env=TASK, offline=offline, online=online, seed=seed, out=out,
        settings=SETTINGS | {"decay_steps": offline + online}, n_step=3, offline_share=OFFLINE_SHARE, eval_every=2_000,
        command=command,
    )  # fmt: skip
    say("3/3  Video and report")
    run.record()
    run.report()
    say(f"Ready after {time.monotonic() - begin:.0f} s. Open {run.path / 'report.html'}")
    return run


def _move_aside(out: pathlib.Path) -> None:
    folder = RunFolder(out)
    folder.lock()  # refuses where it is in use
    folder.unlock()
    number = 1
    while (aside := out.with_name(f"{out.name}-{number}")).exists():
        number += 1
    try:
        shutil.move(out, aside)
    except OSError as error:
        raise CheckpointError(f"Could not move the earlier demo from {out} to {aside} ({error}); move it.") from error
    say(f"The earlier demo is now in {aside}.")
