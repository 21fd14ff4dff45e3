"""The loop: phases, compiled calls, evaluation, checkpoints. It knows no algorithm, data set or environment by name.

Everything a run will do next is a function of `Counters`, the learned state, the replay and the environments' episode
recipes; all of them are in a checkpoint, so a resumed run takes the same steps bit for bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from understudy.data.replay import Buffer, HostBuffer
from understudy.data.samplers import Sampler, successes
from understudy.errors import DivergenceError, SettingsError
from understudy.evaluate.statistics import successes_of
from understudy.progress import bar, say
from understudy.run import candidates, checkpoint, external, programs, record, ring
from understudy.run.cache import keep_compiled
from understudy.run.collect import Collector
from understudy.run.folder import RunFolder
from understudy.run.phases import Phase, settle
from understudy.run.plan import UNEVALUATED, Counters, Plan, whole
from understudy.run.prefetch import Prefetch
from understudy.run.switch import at_update, critic_of, start_afresh
from understudy.wrappers import core_of, discount_of, shaped

CHUNK_MOST = 5000  # updates in one compiled call
HOST_CHUNK = 50  # updates whose batches are read ahead from the host


class Stopped(Exception):
    """The run was asked to stop (Ctrl-C, SIGTERM) and has saved."""

    def __init__(self, signum: int):
        self.signum = signum


class Loop:
    """One run, from any point to its end.

    Args:
      algo: the algorithm.
      plan: see `Plan`.
      folder: where it is written; locked by the caller.
      data: columns [N, ...] of the data set for the device, or a `HostBuffer`, or None.
      example: a batch of one, shaped like the data (from the environment where there are none).
    """

    def __init__(self, algo, plan: Plan, folder: RunFolder, data, example: dict):
        self.plan, self.example = plan, example
        self.record = record.Record(folder, plan.seeds, plan.num_envs)
        self.given = algo
        self.algo = settle(algo, plan.phases, plan.num_envs)  # as it is in the current phase
        self.calls = external.programs_of(self.algo)
        self.host = data if isinstance(data, HostBuffer) else None
        self.sources = {} if data is None or self.host else {"prior": Buffer.full(data)}
        self.has_data = data is not None
        self.keys = {n: programs.seed_keys(plan.seeds, n) for n in range(5)}
        self.counters = Counters()
        self.state: Any = None
        self.carry: Any = None  # of live acting, see `core`
        self.replay: Buffer | None = None
        self.collector: Collector | None = None
        self.pool = None
        self.marks: dict = {}  # of the phase's sampler
        self.columns: dict = {}  # beside the sources, by their name: proposals of the policy
        self.proposer: Any = None  # its parameters as these were drawn
        self._kept: tuple[dict, dict] | None = None  # the collector as it was last saved
        self._stop: int | None = None
        self._chunk, self._compiled = HOST_CHUNK, False
        self._saved_at = time.monotonic()
        self.identity: dict = {}  # what made the algorithm, and what was asked for since, for the checkpoints
        self._fresh = True  # no checkpoint was gone back to

    @property
    def folder(self) -> RunFolder:
        """Where it is written."""
        return self.record.folder

    # --- set-up -------------------------------------------------------------------------------------------------

    def prepare(self, found=None, *, before=None, old_phases=()) -> None:
        """Initialise every seed, or go to where the checkpoint `found` (arrays, meta) stands.

        Args:
          before: the algorithm of another structure that the checkpoint was written with, of which networks of the
            same name and shape are carried over; None: it was of this structure, though its numbers may differ.
          old_phases: the phases it was written under; the last may have grown since, others may follow."""
        keep_compiled()
        batch = self._example_batch()
        if hasattr(self.algo, "check"):
            self.algo.check(batch)
        external.probe(self.algo, batch)
        self.state = programs.initialise(self.algo, self.keys[programs.INIT], batch)
        one = jax.tree.map(lambda x: x[0], self.state)
        names: list[str] = []  # in the algorithm's own order, which a dict loses on its way through jax
        jax.eval_shape(lambda s, k: names.extend(self.algo.update(s, batch, k)[1]), one, jax.random.key(0))
        self.record.names = tuple(names)
        if found is not None:
            self._restore(*found, before, old_phases)
            self._fresh = False
        to_enter = self.plan.phases[self.counters.phase + self.counters.entered :]
        if any("critic" in p.reset for p in to_enter) and not jax.tree.leaves(critic_of(self.state)):
            raise SettingsError(
                "reset-critic needs an algorithm with a critic beside the policy, and this one has none; leave it out."
            )

    def _example_batch(self) -> dict:
        """A batch of one with every key that the sampler will give, in its shapes."""
        batch = {k: jax.tree.map(jnp.asarray, v) for k, v in self.example.items() if k != "ends"}
        if "next_actions" in self.algo.requires:
            batch |= {"next_actions": batch["actions"], "next_valids": jnp.ones(1)}
        return shaped(self.algo, batch)

    def _sampler(self, phase: Phase) -> Sampler:
        moves = self.has_data and (phase.anneal is not None or (phase.as_one and phase.acts))
        share = 0.5 if moves else self._share(phase, 0) if self.has_data else 0.0
        rest = 1 - phase.successes
        shares = (("prior", rest * share), ("replay", rest * (1 - share)), ("successes", phase.successes))
        return Sampler(
            batch_size=self.plan.batch_size,
            shares=tuple((n, s) for n, s in shares if s > 0),
            n_step=self.plan.n_step,
            chunk=getattr(self.algo, "chunk", 0),
            masked=getattr(self.algo, "masked", False),
            history=getattr(self.algo, "history", 0),
            next_actions="next_actions" in self.algo.requires,
            discount=discount_of(self.algo),
            share=self._share(phase, 0) if moves else None,
        )

    def _share(self, phase: Phase, more: int) -> float:
        """Share of a batch from the data, at this point of the phase, once `more` live steps are in the replay."""
        if not (phase.as_one and self.has_data):
            return phase.share_at(self.counters.unit if phase.acts else 0)
        data = self.host.size if self.host else int(self.sources["prior"].size)
        live = 0
        if self.replay is not None:  # its columns have a row for each seed
            live = min(int(self.replay.size) + more, self.replay.data["ends"].shape[1])
        return data / (data + live)

    def _marks(self, sampler: Sampler) -> dict:
        """Where the steps of highest reward lie in the sources of `sampler`, {} where it asks for none."""
        shares = dict(sampler.shares)
        if "successes" not in shares:
            return {}
        rewards = {}
        if "prior" in shares:
            data = self.host.take("rewards", slice(None)) if self.host else self.sources["prior"].data["rewards"]
            rewards["prior"] = np.broadcast_to(data, (len(self.plan.seeds), len(data)))
        if "replay" in shares:
            rewards["replay"] = np.asarray(self.replay.data["rewards"])[:, : int(self.replay.size)]
        return successes(rewards)

    def _propose(self, sampler: Sampler, reader) -> None:
        """Draw the policy's proposals where they are due. After a resume they are drawn again from what the policy was
        when they were drawn last."""
        c, every = self.counters, candidates.lasting(self.algo)
        if not every or (self.columns and c.unit % every):
            return
        since = c.unit % every
        if not since or self.proposer is None:
            self.proposer = jax.tree.map(jnp.copy, candidates.proposer_of(self.algo, self.state))
        sources = {"prior": self.host or self.sources.get("prior"), "replay": self.replay}
        self.columns = {}  # no memory for two
        for i, name in enumerate(n for n, _ in sampler.shares if n in sources):
            keys = jax.vmap(lambda k: jax.random.fold_in(jax.random.fold_in(k, c.updates - since), i))(  # noqa: B023
                self.keys[programs.PROPOSE])  # fmt: skip
            found = candidates.of_seeds(self.algo, self.proposer, sources[name], name == "replay", keys)
            self.columns[name] = found
            if sources[name] is self.host:
                reader.beside(found)

    # --- the run ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Go through the remaining phases. Raises Stopped after a signal and DivergenceError on NaN."""
        with self._signals():
            try:
                if self._fresh:
                    self.folder.cut({})
                    self.save()  # so that even a run that diverges at once leaves something good
                while self.counters.phase < len(self.plan.phases):
                    phase = self.plan.phases[self.counters.phase]
                    self._before(phase)
                    self._enter(phase)
                    label = phase.name if len(self.plan.seeds) == 1 else f"{phase.name} x{len(self.plan.seeds)}"
                    with bar(label, phase.units, "steps" if phase.acts else "updates",
                             done=min(self.counters.unit, phase.units)) as b:  # fmt: skip
                        self._phase(phase, b)
                    self.counters.phase, self.counters.unit = self.counters.phase + 1, 0
                    self.counters.entered = False
                    self.save()
            except Stopped:
                self.save()
                raise
            finally:
                self._close()

    def _before(self, phase: Phase) -> None:
        """Evaluate what goes live where it never was, since the offline phase had no environment."""
        c, before = self.counters, self.plan.phases[: self.counters.phase]
        if phase.acts and not c.entered and c.evaluated == UNEVALUATED and any(p.name == "offline" for p in before):
            self.algo = settle(self.given, self.plan.phases, self.plan.num_envs, before[-1])
            self.evaluate("offline")

    def _enter(self, phase: Phase) -> None:
        self.algo = settle(self.given, self.plan.phases, self.plan.num_envs, phase)
        if phase.acts and self.replay is None:
            self.replay = self._empty_ring()
        if phase.acts and self.collector is None:
            self._make_collector()
        if not self.counters.entered:
            self.proposer = None
            if phase.restart or phase.reset:
                keys = jax.vmap(lambda k: jax.random.fold_in(k, self.counters.phase + 1))(self.keys[programs.INIT])
                fresh = programs.initialise(self.algo, keys, self._example_batch())
                self.state = fresh if phase.restart else start_afresh(self.state, fresh, phase.reset)
        if phase.acts and self.carry is None:  # live for the first time, or another algorithm in the middle of episodes
            if self.collector.actions is None:
                self.collector.start()
            self.carry = self._empty_carry()
            self.collector.actions = self._first_actions(phase)
        self.counters.entered = True

    def _phase(self, phase: Phase, progress) -> None:
        c, plan = self.counters, self.plan
        advance = self._live if phase.acts else self._fit
        if plan.evaluate_start and c.phase == 0 and c.unit == 0:
            self.evaluate("start")
        with contextlib.ExitStack() as stack:
            sampler = self._sampler(phase)
            self.marks, keys = self._marks(sampler), self.keys[programs.UPDATE]
            reader = stack.enter_context(Prefetch(self.host, sampler, keys, HOST_CHUNK, self.marks))
            while True:
                if self._due(phase):
                    self.record.log(c, phase.name, force=True)
                    self.evaluate(phase.name)
                if c.unit >= phase.units:
                    break
                self._pause()
                stop = phase.units
                for every in (plan.every(phase), candidates.lasting(self.algo)):
                    stop = min(stop, (c.unit // every + 1) * every) if every else stop
                self._propose(sampler, reader)
                before = c.unit
                shown = advance(phase, sampler, reader, stop)
                progress.advance(min(c.unit, phase.units) - before, **shown)
            self.record.log(c, phase.name, force=True)
            self.columns = {}

    def _due(self, phase: Phase) -> bool:
        c, every = self.counters, self.plan.every(phase)
        if phase.acts and not phase.utd:
            return False  # the policy is as it was
        last = c.evaluated[1] if c.evaluated[0] == c.phase else 0
        return c.unit >= phase.units or bool(every and c.unit // every > last // every)

    # --- updates without an environment -------------------------------------------------------------------------

    def _fit(self, phase: Phase, sampler: Sampler, reader, stop: int) -> dict:
        """One compiled call of about a second."""
        c = self.counters
        count = min(stop - c.unit, self._chunk)
        replay = self.replay if "replay" in dict(sampler.shares) else None
        sources = {n: s.beside(self.columns.get(n, {})) for n, s in self.sources.items()}
        if "replay" in self.columns:
            replay = replay.beside(self.columns["replay"])
        begin = time.monotonic()
        given = reader.take(c.updates, count)
        self.state, totals, bad = self.calls.chunk(
            self.algo, self.state, sources, replay, sampler, self.keys[programs.UPDATE],
            c.updates, c.updates + count, given, self.record.names, self.marks,
        )  # fmt: skip
        totals, bad = np.asarray(totals), np.asarray(bad)
        if self._compiled and self.host is None:
            rate = count / (time.monotonic() - begin)
            self._chunk = int(min(max(rate * record.LOG_SECONDS, 1), 4 * self._chunk, CHUNK_MOST))
        self._compiled = True
        if (bad != programs.NEVER).any():
            raise self.record.diverged(int(bad.min()), bad == bad.min())
        c.unit, c.updates = c.unit + count, c.updates + count
        self.record.add(totals, count)
        return self.record.log(c, phase.name)

    # --- live learning ------------------------------------------------------------------------------------------

    def _live(self, phase: Phase, sampler: Sampler, reader, stop: int) -> dict:
        """Vector steps for about a tenth of a second."""
        c, lanes, collector = self.counters, self.plan.num_envs, self.collector
        until = time.monotonic() + 0.1
        act_keys, update_keys = self.keys[programs.ACT], self.keys[programs.UPDATE]
        while c.unit < stop and self._stop is None:
            slot_start = c.env_steps
            if not np.isfinite(collector.actions).all():
                self.record.log(c, phase.name, force=True)  # where a metric went bad before, it says which
                raise DivergenceError(f"The policy's actions became NaN by update {c.updates:,}; {self.record.way_out}")
            slot, finished, returns = collector.step()
            updates = self._due_updates(phase)
            if sampler.share is not None:
                sampler = dataclasses.replace(sampler, share=self._share(phase, lanes))
            c.unit, c.env_steps = c.unit + lanes, c.env_steps + lanes
            given = reader.take(c.updates, updates) if updates else {}
            self.state, self.replay, actions, self.carry, metrics = self.calls.interact(
                self.algo, self.state, self.sources, self.replay, sampler, slot, collector.observations, self.carry,
                update_keys, act_keys, c.updates, c.env_steps, given, names=self.record.names if updates else (),
                updates=updates,
            )  # fmt: skip
            if phase.random_actions:
                actions = programs.random_actions(act_keys, c.env_steps, actions)
            for seed, lane, values in returns:
                self.replay = ring.with_returns(self.replay, seed, lane, slot_start, values)
            collector.actions = np.asarray(actions)
            self.record.add_episodes(finished)
            if updates:
                self.record.add_live(metrics, c.updates)  # numbered from 0, as in `programs.chunk`
            c.updates += updates
            if time.monotonic() > until:
                break
        return self.record.log(c, phase.name)

    def _due_updates(self, phase: Phase) -> int:
        """Updates that follow this vector step: by the phase's ratio, or in bursts where the algorithm has them."""
        c, burst = self.counters, getattr(self.algo, "burst", None)
        if burst is None:
            return phase.updates_at(c.unit, self.plan.num_envs)
        steps, updates = burst
        c.played = (c.played + 1) % steps
        return 0 if c.played or not phase.utd else updates

    def _first_actions(self, phase: Phase) -> np.ndarray:
        keys, observations = self.keys[programs.ACT], self.collector.observations
        begun = np.ones(self.collector.shape, bool)
        actions, self.carry = self.calls.act(
            self.algo, self.state, observations, self.carry, begun, keys, self.counters.env_steps, False
        )
        if phase.random_actions:
            actions = programs.random_actions(keys, self.counters.env_steps, actions)
        return np.asarray(actions)

    def _empty_carry(self):
        return self.calls.empty_carry(self.algo, self.state, self.collector.observations, self.keys[programs.ACT])

    def _empty_ring(self) -> Buffer:
        lanes = self.plan.num_envs
        capacity = min(self.plan.replay_capacity, sum(whole(p.env_steps, lanes) for p in self.plan.phases))
        return ring.empty(self.example, capacity, lanes, len(self.plan.seeds))

    def _make_collector(self) -> None:
        discount = discount_of(self.given) if "mc_returns" in self.example else None
        self.collector = Collector(self.plan.env, self.plan.seeds, self.plan.num_envs, mc_discount=discount,
                                   scale=self.plan.reward_scale, bias=self.plan.reward_bias)  # fmt: skip

    # --- evaluation ---------------------------------------------------------------------------------------------

    def evaluate(self, phase_name: str) -> None:
        """Play the evaluation episodes with every seed's greedy policy and write them down; once for each point."""
        c, plan = self.counters, self.plan
        if not plan.evaluate or plan.env is None or c.evaluated == (c.phase, c.unit):
            return
        rows = self.evaluation_rows(plan.episodes, plan.eval_seed, phase_name)
        self.record.evaluated(c, rows)
        c.evaluated = (c.phase, c.unit)
        say(f"  {phase_name} at {c.updates:,} updates, {c.env_steps:,} steps: {describe_rows(rows)}")

    def evaluation_rows(self, episodes: int, seed: int, phase_name: str) -> list[dict]:
        """Episodes of every seed as rows of episodes.jsonl."""
        from understudy.envs import Pool
        from understudy.evaluate.rollouts import rollouts

        c, plan, k = self.counters, self.plan, len(self.plan.seeds)
        player = self.calls.Player(self.algo, self.state, self.keys[programs.EVALUATE])
        envs = min(plan.eval_envs, episodes)

        def act(*observed) -> np.ndarray:
            if self._stop is not None:  # the evaluation will be made anew
                raise Stopped(self._stop)
            return player(*observed)

        with bar("evaluation", episodes * k, "episodes", leave=False) as progress:
            env = plan.eval_env or plan.env
            if self.pool is None:
                self.pool = Pool(env, envs * k)
            played = rollouts(act, env, episodes=episodes, seed=seed, num_envs=envs, policies=k,
                              on_episode=lambda *_: progress.advance(), pool=self.pool)  # fmt: skip
        return [
            {
                "phase": phase_name, "updates": c.updates, "env_steps": c.env_steps, "seed": plan.seeds[i],
                "episode": e.episode, "env_seed": e.env_seed, "return": e.return_, "success": e.success,
                "length": e.length, "score": e.score,
            }
            for i, episodes_of in enumerate(played) for e in episodes_of
        ]  # fmt: skip

    # --- checkpoints --------------------------------------------------------------------------------------------

    def _pause(self) -> None:
        """Between calls: stop if asked to, checkpoint if it is time."""
        if self._stop is None and time.monotonic() - self._saved_at <= self.plan.checkpoint_every:
            return
        self.record.log(self.counters, self.plan.phases[self.counters.phase].name, force=True)
        if self._stop is not None:
            raise Stopped(self._stop)
        self.save()

    def save(self) -> None:
        """Write a checkpoint of everything the rest of the run depends on."""
        c = self.counters
        self.record.count_seconds(c)
        arrays = checkpoint.flatten({"state": self.state}) | external.arrays_of(self.algo)
        if bad := next((k for k, x in arrays.items() if x.dtype.kind == "f" and np.isnan(x).any()), None):
            raise DivergenceError(  # the last update's gradient, which no metric has shown yet
                f"{bad.partition('.')[2] or bad} became NaN by update {c.updates:,}; {self.record.way_out}"
            )
        if self.proposer is not None:
            arrays |= checkpoint.flatten({"proposer": self.proposer})
        meta = {"counters": dataclasses.asdict(c), "logs": self.folder.offsets(), "identity": self.identity,
                "phases": [dataclasses.asdict(p) for p in self.plan.phases]}  # fmt: skip
        if self.replay is not None:
            held, meta["replay"] = ring.saved(self.replay)
            arrays |= held
        if self.collector is not None and self.collector.actions is not None:
            self._kept = self.collector.save()
            self._kept[0].update(checkpoint.flatten({"carry": self.carry}))
        if self._kept is not None:
            arrays |= self._kept[0]
            meta["collector"] = self._kept[1]
        checkpoint.save(self.folder.path, f"{c.updates:010d}-{c.env_steps:010d}", arrays, meta)
        self._saved_at = time.monotonic()

    def _restore(self, arrays: dict, meta: dict, before, old_phases) -> None:
        if before is None:
            self.state = checkpoint.restore({"state": self.state}, arrays)["state"]
            external.restore(self.algo, arrays)
            if any(k.startswith("['proposer']") for k in arrays) and candidates.lasting(self.algo):
                like = candidates.proposer_of(self.algo, self.state)
                self.proposer = checkpoint.restore({"proposer": like}, arrays)["proposer"]
        else:
            still = getattr(self.given, "acts_with", ())
            acted = [x for x in getattr(before, "acts_with", ()) if x not in still]
            like, updates = {"state": self.state}, meta["counters"]["updates"]
            found, going, afresh = checkpoint.carry_over(like, arrays, acted=acted, updates=updates)
            self.state, said = found["state"], [f"{', '.join(going)} go on" if going else "nothing goes on"]
            said += [f"{', '.join(afresh)} start afresh"] * bool(afresh)
            say(f"Another algorithm or structure from here on: {'; '.join(said)}.")
            if any(k.startswith(external.PREFIX) for k in arrays):
                external.restore(self.algo, arrays)
        c = self.counters = Counters(**meta["counters"] | {"evaluated": tuple(meta["counters"]["evaluated"])})
        if before is not None:
            c.played = 0
            offline_delay = max(getattr(core_of(self.given), "policy_delay", 1), 1)  # 0 is the live ratio, offline 1
            self.state = at_update(self.state, c.updates // offline_delay)
        last = len(old_phases) - 1
        if c.phase > last >= 0 and self.plan.phases[last].units > old_phases[last].units:
            lanes = self.plan.num_envs if old_phases[last].acts else 1
            c.phase, c.unit, c.entered = last, whole(old_phases[last].units, lanes), True
        if "replay" in meta:
            self.replay = ring.refilled(self._empty_ring(), arrays, **meta["replay"])
        if "collector" in meta and any(p.acts for p in self.plan.phases[self.counters.phase :]):
            self._make_collector()
            self.collector.load(arrays, meta["collector"])
            if before is None:
                self.carry = checkpoint.restore({"carry": self._empty_carry()}, arrays)["carry"]
        elif "collector" in meta:  # not needed by what is left, but by a run that is extended later
            mine = ("collector.", "['carry']")
            self._kept = {k: v for k, v in arrays.items() if k.startswith(mine)}, meta["collector"]
        self.folder.cut(meta["logs"])

    # --- the outside world --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self):
        """Ctrl-C and SIGTERM ask the loop to stop at the next call; a second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(signum, frame):
            if self._stop is not None:
                raise KeyboardInterrupt
            self._stop = signum
            say("Stopping after this step and saving; press Ctrl-C again to stop at once.")

        old = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for s, handler in old.items():
                signal.signal(s, handler)

    def _close(self) -> None:
        if self.collector is not None:
            self.collector.close()
            self.collector = None
        if self.pool is not None:
            self.pool.close()
            self.pool = None
        self.record.close()


def describe_rows(rows: list[dict]) -> str:
    """One line on evaluation episodes."""
    returns = np.mean([r["return"] for r in rows])
    if (success := successes_of(r["success"] for r in rows)) is None:
        return f"return {returns:.1f}"
    return f"success {np.mean(success):.2f}, return {returns:.1f}"
