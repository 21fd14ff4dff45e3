"""Corners of a run that a review found wrong: extensions that are killed, other algorithms, lanes, shares."""

from __future__ import annotations

import json
import shutil

import gymnasium
import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from small import SMALL, arrays_of, small

import understudy
from understudy import cli
from understudy.algorithm import ActorCritic
from understudy.algorithms.bc import NoCritic
from understudy.algorithms.jsrl import JumpStart
from understudy.algorithms.ppo import ppo
from understudy.core import pytree
from understudy.errors import CheckpointError, DivergenceError, EnvError, SettingsError
from understudy.extractions import Imitate
from understudy.policies.deterministic import Deterministic
from understudy.run import checkpoint
from understudy.run.collect import Collector
from understudy.run.folder import RunFolder
from understudy.run.loop import Loop
from understudy.run.policy import load_policy


def assert_same(one, other) -> None:
    a, b = arrays_of(one), arrays_of(other)
    assert a.keys() == b.keys()
    assert not [k for k in a if not np.array_equal(a[k], b[k], equal_nan=True)]


class Killed(BaseException):
    """Nothing in the library catches it."""


def test_an_extended_run_may_be_killed_at_any_time(pendulum, tmp_path, monkeypatch):
    run = small(pendulum, tmp_path / "run", online=20, eval_every=5, checkpoint_every=0.0)
    step, count = Collector.step, 0

    def killed_at(number):
        def stepped(self):
            nonlocal count
            count += 1
            if count == number:
                raise Killed
            return step(self)

        return stepped

    for number in (1, 12):  # before anything was done, and after a checkpoint of the new part
        count = 0
        monkeypatch.setattr(Collector, "step", killed_at(number))
        with pytest.raises(Killed):
            understudy.resume(run, online=40) if number == 1 else understudy.resume(run)
    monkeypatch.setattr(Collector, "step", step)
    assert checkpoint.latest(run.path)[1]["counters"]["env_steps"] == 30
    assert understudy.resume(run).result["env_steps"] == 40
    assert_same(run, small(pendulum, tmp_path / "whole", online=40))


def test_a_change_of_algorithm_that_is_killed_at_once_is_not_forgotten(pendulum, tmp_path, monkeypatch):
    run = small(pendulum, tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Loop, "run", lambda self: (_ for _ in ()).throw(Killed()))
        understudy.resume(run, algorithm="sac", online=10, settings=SMALL | {"policy": "tanh_gaussian"})
    again = understudy.resume(run)
    assert again.result["env_steps"] == 10 and again.manifest["algorithm"] == "sac"


def test_an_algorithm_with_monte_carlo_returns_takes_over_a_replay_without_them(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", algorithm="sac", online=20)
    actor = {k: v for k, v in arrays_of(run).items() if ".actor.params" in k}
    few = SMALL | {"critic.samples": 1, "learning_rate": 0.0}
    run = understudy.resume(run, algorithm="cal_ql", online=210, settings=few)
    after = arrays_of(run)  # the policy, whose deviation comes from the network, goes on
    assert actor and all(np.array_equal(v, after[k]) for k, v in actor.items())
    returns = arrays_of(run)["['replay']['mc_returns']"][0]
    assert np.isneginf(returns[:20]).all() and np.isneginf(returns[200:]).all()
    assert np.isfinite(returns[20:200]).all()  # of the rest of the first episode


def test_another_number_keeps_the_optimisers(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run")
    run = understudy.resume(run, settings={"learning_rate": 1e-5}, offline=21)
    counts = {k: int(x[0]) for k, x in arrays_of(run).items() if "count" in k}
    assert counts and set(counts.values()) == {21, 10}  # critic; policy, every second update


def test_a_run_of_an_algorithm_object_acts_and_goes_on(pendulum, tmp_path):
    algorithm = understudy.make("td3_bc", 1, SMALL)
    run = small(pendulum, tmp_path / "run", algorithm=algorithm, settings={"extraction.alpha": 0.7})
    assert run.policy(np.zeros(3)).shape == (1,)
    assert run.finetune(online=5).result["env_steps"] == 5
    again = understudy.resume(str(run.path), algorithm=algorithm, online=8)  # as it was first given
    assert again.manifest["settings"]["extraction.alpha"] == 0.7 and again.result["env_steps"] == 8


def test_a_named_run_goes_on_with_an_algorithm_object(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run")
    run = understudy.resume(run, algorithm=understudy.make("sac", 1, SMALL), online=5)
    assert any("aux" in k for k in arrays_of(run)), "SAC's temperature is learned"
    assert run.manifest["algorithm"] is None and run.manifest["object"] == "ActorCritic"
    assert run.policy(np.zeros(3)).shape == (1,)


def test_a_run_that_was_never_evaluated_says_so(pendulum, tmp_path):
    assert ": not evaluated, 1 seed(s)" in repr(small(pendulum, tmp_path / "run"))


def test_retraining_without_a_live_phase_uses_the_data_alone(pendulum, tmp_path):
    assert small(pendulum, tmp_path / "run", retrain=10).result["updates"] == 30


def test_a_share_too_small_for_one_transition_needs_nothing_from_the_host(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", online=5, offline_share=0.01, data_on="host")
    assert run.result["updates"] == 25


def test_a_run_without_a_whole_checkpoint_starts_again_only_where_it_has_made_nothing(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", evaluate=True)
    for name in checkpoint.names(run.path):
        (run.path / "checkpoints" / name / "checkpoint.json").write_text("")
    with pytest.raises(CheckpointError, match="has no whole checkpoint left"):
        understudy.resume(run)
    made = [p for p in run.path.iterdir() if p.is_file() and p.name not in ("manifest.json", ".lock")]
    assert {"episodes.jsonl", "policy.safetensors"} <= {p.name for p in made}
    for file in made:
        file.unlink()
    run = understudy.resume(run)
    assert len((run.path / "episodes.jsonl").read_text().splitlines()) == 1
    assert checkpoint.latest(run.path)[1]["counters"]["updates"] == 20


def test_steps_that_lanes_do_not_divide_are_extended_exactly(pendulum, tmp_path):
    options = dict(warmup=10, num_envs=4)
    run = understudy.resume(small(pendulum, tmp_path / "run", online=30, **options), online=50)
    whole = small(pendulum, tmp_path / "whole", online=50, **options)
    assert_same(run, whole)
    assert run.result["env_steps"] == 12 + 52 and run.result["updates"] == whole.result["updates"]
    assert checkpoint.latest(whole.path)[1]["replay"] == {"size": 64, "head": 0, "capacity": 64}


def test_a_gradient_that_turns_nan_behind_finite_metrics_is_not_saved(pendulum, tmp_path):
    @pytree
    class Rooted(Imitate):
        def loss(self, params, *args):
            value, metrics = super().loss(params, *args)
            return value + jnp.sqrt(0 * jnp.sum(params["params"]["Dense_0"]["bias"])), metrics

    algorithm = ActorCritic(critic=NoCritic(), extraction=Rooted(), policy=Deterministic(action_size=1, hidden=(8,)))
    with pytest.raises(DivergenceError, match=r"actor.* became NaN by update 1"):
        small(pendulum, tmp_path / "run", algorithm=algorithm, offline=1, settings=None)
    assert all(np.isfinite(x).all() for x in checkpoint.latest(tmp_path / "run")[0].values())


def test_what_cannot_work_is_refused_before_anything_is_written(pendulum, tmp_path):
    for message, options in (
        ("critic.subset is 5", dict(settings=SMALL | {"critic.subset": 5})),
        ("no logger 'tensorbord'", dict(log=["tensorbord"])),
        ("replay_capacity is 0", dict(replay_capacity=0)),
    ):
        with pytest.raises(SettingsError, match=message):
            small(pendulum, tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()


def test_a_policy_that_cannot_be_written_is_one_sentence(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run")
    (run.path / "policy.safetensors").unlink()
    (run.path / "policy.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="Could not write .*policy.safetensors"):
        understudy.resume(run, offline=21)


def test_a_collector_that_keeps_no_returns_forgets_those_of_the_one_before():
    before, after = Collector("Pendulum-v1", [0], mc_discount=0.9), Collector("Pendulum-v1", [0])
    before.start()
    before.actions = np.zeros((1, 1, 1), np.float32)
    before.step()
    arrays, meta = before.save()
    assert len(arrays["collector.rewards.0"]) == 1
    after.load(arrays, meta)
    assert len(after.save()[0]["collector.rewards.0"]) == 0
    before.close(), after.close()


def test_a_log_shorter_than_its_checkpoint_says_is_not_padded(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    RunFolder(tmp_path).cut({"metrics.jsonl": 10})
    assert (tmp_path / "metrics.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize("algorithm, policy", [("ppo", "gaussian"), ("dppo", "diffusion")])
def test_a_clone_goes_on_as_an_on_policy_algorithm(pendulum, tmp_path, algorithm, policy):
    """The offline phase that is over is no reason to refuse an algorithm that learns live only."""
    few = {"policy.hidden": (8, 8)}
    run = small(pendulum, tmp_path / "run", "bc", settings=few | {"policy": policy})
    actor = {k: v for k, v in arrays_of(run).items() if ".actor.params" in k}
    run = understudy.resume(run, algorithm=algorithm, settings=few, online=4)  # too few steps for an update
    after = arrays_of(run)
    assert actor and all(np.array_equal(v, after[k]) for k, v in actor.items())
    base = {k: v for k, v in after.items() if ".base" in k}
    assert bool(base) == (algorithm == "dppo"), "the frozen half of the chain is the clone as well"
    assert all(np.array_equal(v, actor[k.replace(".base", ".actor.params")]) for k, v in base.items())


@pytest.mark.parametrize("algorithm", ["ppo", "dppo"])
def test_an_on_policy_algorithm_clones_and_then_improves_in_one_call(pendulum, tmp_path, algorithm):
    settings = {"policy.hidden": (8, 8), "hidden": (8,), "steps_per_rollout": 10, "minibatches": 2, "epochs": 2}
    run = small(pendulum, tmp_path / "run", algorithm, settings=settings, offline=20, online=10)
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    imitated = {row["phase"]: row["metrics"]["actor/imitation"] for row in rows}
    assert imitated["offline"] != [0.0] and imitated["online"] == [0.0], imitated
    assert run.result["updates"] == 20 + 4 and run.manifest["phases"][1]["reset"] == ["optimizer"]
    after = arrays_of(run)
    moved = lambda a, b: [not np.array_equal(after[k], after[k.replace(a, b)]) for k in after if a in k]
    if algorithm == "dppo":
        assert any(moved(".base", ".actor.params")), "the base stays the clone, the policy goes on"


def test_a_warm_up_at_random_is_nothing_for_an_on_policy_algorithm_to_learn_from(pendulum, tmp_path):
    live = dict(offline=0, online=40, settings={"policy.hidden": (8, 8)})
    with pytest.raises(SettingsError, match="PPO learns from what its policy has played.* give --warmup 0"):
        small(pendulum, tmp_path / "run", "ppo", warmup=20, **live)
    assert not (tmp_path / "run").exists()


def test_what_is_remembered_from_step_to_step_lasts_from_the_warm_up_into_the_live_phase(pendulum, tmp_path):
    """A warm-up of 10 steps, and chunks of 4: the third goes on where the phases meet."""
    options = dict(settings=SMALL | {"chunk": 4, "learning_rate": 0.0}, online=30)
    whole = arrays_of(small(pendulum, tmp_path / "whole", "td3_bc", warmup=0, utd=0, **options))
    parted = arrays_of(small(pendulum, tmp_path / "parted", "td3_bc", warmup=10, utd=0, **options | {"online": 20}))
    for name in ("actions", "observations"):
        np.testing.assert_array_equal(parted[f"['replay']['{name}']"], whole[f"['replay']['{name}']"])


@pytest.mark.parametrize("before", [True, False])
def test_a_resumed_run_is_evaluated_as_often_as_is_asked_for_now(pendulum, tmp_path, before):
    run = small(pendulum, tmp_path / "run", evaluate=before)
    run = understudy.resume(run, online=40, eval_every=20, episodes=2)
    rows = [json.loads(line) for line in (run.path / "episodes.jsonl").read_text().splitlines()]
    assert [r["env_steps"] for r in rows] == ([0] if before else [0, 0]) + [20, 20, 40, 40]
    assert run.manifest["plan"]["episodes"] == 2 and run.manifest["resumes"][0]["changed"]["eval_every"] == 20
    with pytest.raises(SettingsError, match="episodes is 2.5; give a whole number"):
        understudy.resume(run, online=60, episodes=2.5)
    with pytest.raises(SettingsError, match="episodes is 0; give at least 1"):
        understudy.resume(run, online=60, episodes=0)


def test_an_on_policy_algorithm_that_learns_offline_goes_live_in_the_same_run(pendulum, tmp_path):
    """20 updates on the data, the last of them improving; then a burst of 2 on each 16 live steps."""
    few = {"policy.hidden": (8, 8), "hidden": (8, 8), "model.hidden": (8,), "clones": 2, "horizon": 1, "rollouts": 4,
           "steps_per_rollout": 16, "epochs": 1, "minibatches": 2}  # fmt: skip
    run = small(pendulum, tmp_path / "run", "uni_o4", settings=few, online=40, checkpoint_every=0)
    after = arrays_of(run)
    assert after["['state'].updates"] == 20 + 2 * (40 // 16) and after["['state'].rollout.filled"] == 40
    assert (after["['state'].best"] > -1e30).all(), "clones were judged"
    accepted, acts = (after[f"['state'].{of}['network']['params']['Dense_0']['bias']"][0]
                      for of in ("accepted", "actor.params"))  # fmt: skip
    assert not any(np.array_equal(x, acts) for x in accepted), "what acts has learned from what it played"


def test_clones_begin_as_the_policy_that_was_trained(pendulum, tmp_path):
    """Whose stages are those of what is left: 18 updates of the first, 2 of the second."""
    few = {"policy.hidden": (8, 8), "hidden": (8, 8), "model.hidden": (8,), "clones": 2, "horizon": 1, "rollouts": 4}
    run = small(pendulum, tmp_path / "run", "bc", settings={"policy": "gaussian", "policy.hidden": (8, 8)})
    actor = {k: v for k, v in arrays_of(run).items() if ".actor.params" in k}
    run = understudy.resume(run, algorithm="uni_o4", settings=few | {"learning_rate": 0.0}, offline=40)
    after = arrays_of(run)
    assert actor and all(np.array_equal(v, after[k]) for k, v in actor.items())
    for of in (".clones.params", ".accepted"):
        assert all((after[k.replace(".actor.params", of)] == v[:, None]).all() for k, v in actor.items())
    assert after["['state'].begun"] == after["['state'].updates"] == 20 and (after["['state'].best"] > -1e30).all()


@pytest.mark.parametrize("algorithm, policy", [
    ("resfit", "flow"), pytest.param("resfit", "gaussian", marks=pytest.mark.slow),
    pytest.param("dsrl", "flow", marks=pytest.mark.slow), ("dsrl", "diffusion"), ("parrot", "real_nvp"),
])  # fmt: skip
def test_a_clone_becomes_the_base_of_what_acts_through_one(pendulum, tmp_path, algorithm, policy, capsys):
    few = {"critic.hidden": (8, 8), "critic.ensemble": 2, "policy.hidden": (8, 8)}
    clone = {"policy": policy, "policy.hidden": (16, 16), "chunk": 2}
    run = small(pendulum, tmp_path / "run", "bc", settings=clone)
    actor = {k: v for k, v in arrays_of(run).items() if ".actor.params" in k}
    seen = np.zeros((3, 3), np.float32)
    before = run.policy(seen)
    few |= {"critic.subset": 0} if algorithm == "resfit" else {}
    run = understudy.resume(run, algorithm=algorithm, settings=few, online=8, switch="warmup:4")
    assert "starts afresh" not in capsys.readouterr().err
    after, made = arrays_of(run), run.manifest["settings"]
    assert made["chunk"] == 2 and made["policy.base.hidden"] == [16, 16] and made["policy.hidden"] == [8, 8]
    base = lambda k: k.replace(".actor.params", ".actor.params['base']")
    assert actor and all(np.array_equal(v, after[base(k)]) for k, v in actor.items())
    if algorithm == "resfit":  # whose correction, not yet learned, is nothing
        run = understudy.resume(small(pendulum, tmp_path / "other", "bc", settings=clone).path, algorithm=algorithm,
                                settings=few, online=4, utd=0, switch="warmup:0")  # fmt: skip
        assert run.result["updates"] == 20
        np.testing.assert_allclose(run.policy(seen), before, atol=1e-6)


def test_a_clone_without_what_the_algorithm_acts_through_is_refused(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", "bc", settings={"policy": "gaussian", "policy.hidden": (8, 8)})
    with pytest.raises(SettingsError, match="dsrl cannot take over the run's policy: Latent acts .* Gaussian has none"):
        understudy.resume(run, algorithm="dsrl", online=8)


def test_fewer_episodes_from_here_on_are_a_whole_evaluation(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", evaluate=True, episodes=2, online=20)
    run = understudy.resume(run, online=40, episodes=1)
    rows = [json.loads(line) for line in (run.path / "episodes.jsonl").read_text().splitlines()]
    assert rows[-1]["env_steps"] == 40 and run.result["return"] == rows[-1]["return"] and run.result["episodes"] == 1
    assert "incomplete" not in (run.path / "report.html").read_text()


def test_more_episodes_from_here_on_leave_the_evaluations_so_far_whole(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", evaluate=True, episodes=1, online=20)
    before = run.result
    run = understudy.resume(run, episodes=2)
    assert run.result["points"] == before["points"] and run.result["return"] == before["return"]
    run = understudy.resume(run, online=40)
    assert run.result["episodes"] == 2
    assert [p["env_steps"] for p in run.result["points"]] == [0, 20, 40]


def test_a_folder_that_cannot_be_made_is_one_sentence(pendulum, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("")
    with pytest.raises(CheckpointError, match="runs"):
        small(pendulum, None)


def test_a_setting_that_only_another_policy_has_does_not_cost_the_base(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", "bc", settings={"policy": "gaussian", "policy.hidden": (8, 8)})
    with pytest.raises(SettingsError, match="policy.log_std_max"):
        understudy.resume(run, algorithm="resfit", settings={"policy.log_std_max": 1.0}, online=4)


def test_a_recipes_warm_up_waits_for_a_live_phase(pendulum, tmp_path):
    few = {"critic.hidden": (8, 8), "critic.ensemble": 2, "critic.subset": 0, "policy.hidden": (8, 8),
           "policy.base.hidden": (8, 8)}  # fmt: skip
    run = small(pendulum, tmp_path / "run", "resfit", settings=few)  # whose warm-up is of 10,000 steps
    assert [p["name"] for p in run.manifest["phases"]] == ["offline"] and "warmup:10000" in run.manifest["switch"]
    run = small(pendulum, tmp_path / "other", "resfit", settings=few, warmup=0)
    run = understudy.resume(run, online=4)
    assert [(p["name"], p["env_steps"]) for p in run.manifest["phases"]] == [("offline", 0), ("online", 4)]


def test_data_from_an_environment_that_is_not_here_can_be_learned_from(pendulum, tmp_path):
    path = shutil.copy(pendulum, tmp_path / "elsewhere.hdf5")
    with h5py.File(path, "a") as file:
        file.attrs["env_id"] = "Elsewhere-v3"
    run = small(path, tmp_path / "run", env=None)
    assert run.manifest["env"] is None and run.result["updates"] == 20
    with pytest.raises(EnvError, match="Elsewhere-v3"):
        small(path, tmp_path / "other", env=None, evaluate=True)
    with h5py.File(path, "a") as file:
        file.attrs["env_id"] = "MountainCarContinuous-v0"
    with pytest.raises(EnvError, match="observations"):  # which is here and is another
        small(path, tmp_path / "other", env=None)


def test_a_share_of_data_that_there_are_none_of_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="offline_share is 0.5 and there are no data"):
        understudy.train("sac", env="Pendulum-v1", online=10, offline_share=0.5, out=tmp_path / "run")


def test_a_deployed_policy_that_samples_draws_anew_in_each_call(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", "bc", settings={"policy": "flow", "policy.hidden": (8, 8)})
    policy, seen = run.policy, np.zeros(3, np.float32)
    drawn = [policy(seen) for _ in range(3)]
    assert len({float(x[0]) for x in drawn}) == 3
    other = understudy.load(run.path).policy
    np.testing.assert_array_equal([other(seen) for _ in range(3)], drawn)
    np.testing.assert_array_equal(policy(seen, key=5), policy(seen, key=5))
    carry, acted, policy = None, [], load_policy(run.path)
    for _ in range(3):
        action, carry = policy.act(seen, carry)
        acted.append(float(action[0]))
    assert len(set(acted)) == 3


def test_going_live_after_training_without_an_environment_measures_the_switch(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", env=None, evaluate=True)
    run = understudy.resume(run, env="Pendulum-v1", online=20, episodes=1)
    assert np.isfinite(run.result["offline_return"]) and run.result["switch"]["offline"] == run.result["offline_return"]


def test_an_environment_without_a_time_limit_is_refused_before_anything_is_written(pendulum, tmp_path):
    gymnasium.register("Endless-v0", "gymnasium.envs.classic_control.pendulum:PendulumEnv")
    try:
        with pytest.raises(EnvError, match="'Endless-v0' has no time limit, .* --no-eval"):
            small(pendulum, tmp_path / "run", env="Endless-v0", evaluate=True)
        assert not (tmp_path / "run").exists()
        small(pendulum, tmp_path / "run", env="Endless-v0", online=4)
    finally:
        gymnasium.registry.pop("Endless-v0")


def test_a_kill_before_the_manifest_is_written_forgets_nothing_that_was_asked_for(pendulum, tmp_path, monkeypatch):
    run = small(pendulum, tmp_path / "run", env=None)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_manifest", lambda self, manifest: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            understudy.resume(run, env="Pendulum-v1", online=10, utd=2)
    assert run.manifest["env"] is None
    with pytest.raises(EnvError, match="The run belongs to Pendulum-v1; got MountainCarContinuous-v0"):
        understudy.resume(run.path, env="MountainCarContinuous-v0", online=10)
    with pytest.raises(SettingsError, match="online phase already has its utd"):
        understudy.resume(run.path, env="Pendulum-v1", online=10, utd=2)
    run = understudy.resume(run.path)
    assert run.manifest["env"] == "Pendulum-v1" and run.manifest["live"]["utd"] == 2
    assert run.result["updates"] == 20 + 20 and run.result["env_steps"] == 10


def test_an_algorithm_object_goes_on_as_it_was_given(pendulum, tmp_path):
    """Not as it was settled for the phase that was last."""
    algorithm = understudy.make("td3_bc", 1, settings=SMALL | {"extraction.alpha": 2.5, "policy_delay": 0})
    run = small(pendulum, tmp_path / "run", algorithm, settings=None, online=20, utd=3,
                online_settings={"extraction.alpha": 9.0})  # fmt: skip
    assert run.algorithm == algorithm


def test_another_algorithm_says_what_of_its_recipe_the_run_does_not_have(pendulum, tmp_path, capsys):
    few = {"critic.hidden": (8, 8), "critic.ensemble": 2, "critic.subset": 0, "policy.hidden": (8, 8)}
    run = small(pendulum, tmp_path / "run", "bc", settings={"policy": "flow", "policy.hidden": (8, 8)})
    run = understudy.resume(run, algorithm="resfit", settings=few, online=4, switch="warmup:0")
    assert "resfit comes with --n-step 3; the run keeps its 1." in capsys.readouterr().err
    run = understudy.resume(run, online=8, n_step=3, batch_size=4)
    assert (run.manifest["plan"]["n_step"], run.manifest["plan"]["batch_size"]) == (3, 4)
    with pytest.raises(SettingsError, match="n_step is 0; give at least 1"):
        understudy.resume(run, online=12, n_step=0)


def test_runs_without_a_folder_of_their_own_that_start_together_get_one_each(pendulum, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare, faster = Loop.prepare, []

    def slowly(self, *args, **options):
        if not faster:  # another run takes the folder meanwhile
            faster.append(self)
            small(pendulum, None)
        return prepare(self, *args, **options)

    monkeypatch.setattr(Loop, "prepare", slowly)
    first = lambda: (tmp_path / "runs" / "td3_bc-pendulum-1" / "metrics.jsonl").read_text()
    run = small(pendulum, None, evaluate=True, episodes=1)
    assert run.path.name == "td3_bc-pendulum-2" and len(list((tmp_path / "runs").iterdir())) == 2
    assert run.result["finished"] and run.result["episodes"] == 1 and (run.path / "metrics.jsonl").exists()
    assert len(first().splitlines()) == 1, "each writes into its own"


def test_a_wrapper_that_hides_what_is_played_from_an_on_policy_algorithm_is_refused(pendulum, tmp_path):
    with pytest.raises(SettingsError, match="PPO learns from the steps that it has played, which JumpStart does not"):
        small(pendulum, tmp_path / "run", JumpStart(algorithm=ppo(1)), offline=0, online=40, settings=None)
    assert not (tmp_path / "run").exists()


def test_another_algorithm_goes_on_with_the_policy_that_was_trained(pendulum, tmp_path, capsys):
    few = {"policy": "diffusion", "policy.hidden": (8, 8), "policy.steps": 3}
    run = small(pendulum, tmp_path / "run", "bc", settings=few)
    actor = {k: v for k, v in arrays_of(run).items() if ".actor.params" in k}
    line = (
        f"resume {run.path} --algorithm iql --critic.hidden 8 8 --policy.temperature 0.5 --learning_rate 0 --online 2"
    )
    assert cli.main([*line.split(), "--quiet"]) == 0  # a setting of the policy that goes on
    run = understudy.load(run.path)
    assert run.manifest["settings"]["policy.temperature"] == 0.5 and run.manifest["settings"]["policy.steps"] == 3
    after = arrays_of(run)
    assert actor and all(np.array_equal(v, after[k]) for k, v in actor.items())
    understudy.resume(run, algorithm="td3_bc", settings={"critic.hidden": (8, 8)}, online=4)
    assert "starts afresh" not in capsys.readouterr().err
    with pytest.raises(SettingsError, match="sac cannot take over the run's policy: MaxEnt needs .* --policy NAME"):
        understudy.resume(run.path, algorithm="sac", settings={"critic.hidden": (8, 8)}, online=6)
    fresh = {"critic.hidden": (8, 8), "policy": "tanh_gaussian", "policy.hidden": (8, 8)}
    run = understudy.resume(run.path, algorithm="sac", settings=fresh, online=6)
    assert run.manifest["algorithm"] == "sac" and run.result["env_steps"] == 6
