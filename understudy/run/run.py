"""A run as its user holds it: its result, its policy, and the ways to go on."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np

from understudy.errors import CheckpointError, EnvError, SettingsError
from understudy.evaluate.statistics import successes_of
from understudy.progress import say
from understudy.run.folder import RunFolder
from understudy.run.policy import load_policy


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
        except ValueError:
            raise CheckpointError(
                f"{self.path / 'result.json'} is damaged; write it again with: understudy resume {self.path}"
            ) from None

    def summarise(self, counters) -> dict[str, Any]:
        """The result from the run's files."""
        from understudy.evaluate.summary import summary
        from understudy.run import baseline

        found = summary(self.path)
        return found | {
            "baseline": baseline.summary(self.path),
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

    def policy(self, observations, *, seed: int = 0, key: int | None = None, greedy: bool = True) -> np.ndarray:
        """Act: observations [B, ...] (or one, without B) -> actions [B, A] in [-1, 1].

        Args:
          observations: as the environment gives them.
          seed: which of the run's seeds acts, counted from 0.
          key: seed of the policy's own randomness, where it has any; None: drawn anew in each call.
          greedy: the most likely action instead of a sample, where the policy has one."""
        if self._policy is None:
            self._policy = load_policy(self.path, self.algorithm)
        return self._policy(observations, seed=seed, key=key, greedy=greedy)

    @property
    def _stage(self) -> str | None:
        """The environment that it is evaluated in."""
        return self.manifest["plan"].get("eval_env") or self.manifest["env"]

    def record(self, path: str | pathlib.Path | None = None, *, seed: int | None = None) -> pathlib.Path | None:
        """Write an mp4 of a few episodes of the first seed's final policy, by default video.mp4 in the run folder.

        Returns None, having said why, where the machine cannot draw."""
        from understudy.evaluate.video import record

        if self.manifest["env"] is None:
            raise EnvError("The run names no environment to film; train with --env ID.")
        policy = load_policy(self.path, self.algorithm)
        seed = self.manifest["protocol"]["env_seed"] + 1 if seed is None else seed
        return record(policy.player(only=0), self._stage, path or self.path / "video.mp4", seed=seed)

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

        env = self._stage
        if env is None:
            raise EnvError("The run names no environment to evaluate in; train with --env ID.")
        if episodes < 1:
            raise SettingsError(f"episodes is {episodes}; give at least 1.")
        policy, seeds = load_policy(self.path, self.algorithm), self.manifest["seeds"]
        saved = self.result if (self.path / "result.json").exists() else {}
        at = {"updates": 0, "env_steps": 0} | policy.about  # an older policy.json does not say
        if not (self.path / "result.json").exists():
            say(f"The run is unfinished; its policy at {at['updates']:,} updates, {at['env_steps']:,} steps acts.")
        seed = self.manifest["protocol"]["env_seed"] + 1 if seed is None else seed
        envs = min(self.manifest["protocol"]["num_envs"], episodes)
        with bar("evaluation", episodes * len(seeds), "episodes") as progress:
            played = rollouts(policy.player(), env, episodes=episodes, seed=seed, num_envs=envs, policies=len(seeds),
                              on_episode=lambda *_: progress.advance())  # fmt: skip
        returns = np.array([[e.return_ for e in one] for one in played])
        success = successes_of(e.success for one in played for e in one)
        has = success is not None
        success = np.reshape(success, returns.shape) if has else None
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
        from understudy.run.resume import resume

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
