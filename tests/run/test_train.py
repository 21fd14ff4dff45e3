"""`train` and `resume` from Python: what they write, how a run is extended, and what bad input gets."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

import understudy
from understudy.data import from_arrays
from understudy.errors import CheckpointError, DataError, DivergenceError, EnvError, SettingsError
from understudy.run import checkpoint, programs
from understudy.run.collect import Collector
from understudy.run.phases import Phase, settle
from understudy.run.policy import bare, load_policy

SMALL = {"critic.hidden": (16, 16), "policy.hidden": (16, 16)}


def small(data, out, algorithm="td3_bc", **options):
    options = dict(env="Pendulum-v1", offline=60, batch_size=16, episodes=2, settings=SMALL, eval_every=0) | options
    return understudy.train(algorithm, data, out=out, **options)


@pytest.fixture(scope="module")
def finished(pendulum, tmp_path_factory):
    """A run with 60 updates and 80 steps, three seeds."""
    return small(pendulum, tmp_path_factory.mktemp("finished") / "run", online=80, seeds=3)


def test_a_finished_run_leaves_everything_in_its_folder(finished):
    for name in ("manifest.json", "metrics.jsonl", "episodes.jsonl", "policy.safetensors", "policy.json", "report.html",
                 "result.json", "checkpoints"):  # fmt: skip
        assert (finished.path / name).exists(), name
    manifest = json.loads((finished.path / "manifest.json").read_text())
    assert manifest["seeds"] == [0, 1, 2] and manifest["settings"]["critic.hidden"] == [16, 16]
    assert [p["name"] for p in manifest["phases"]] == ["offline", "online"]
    assert manifest["versions"]["jax"] and len(manifest["dataset"]["sha256"]) == 64
    rows = [json.loads(line) for line in (finished.path / "episodes.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * 2 * 2 and {r["phase"] for r in rows} == {"offline", "online"}
    assert len({(r["seed"], r["env_seed"]) for r in rows if r["phase"] == "online"}) == 6
    result = finished.result
    keys = "success offline_success success_by_seed return interval episodes protocol updates env_steps seconds run"
    for key in keys.split():
        assert key in result
    assert result["updates"] == 140 and result["env_steps"] == 80 and result["success"] is None


def test_the_policy_acts_alone_and_as_it_was_evaluated(finished):
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    actions = finished.policy(observations, seed=1)
    assert actions.shape == (5, 1) and (np.abs(actions) <= 1).all()
    np.testing.assert_allclose(finished.policy(observations[2], seed=1), actions[2], atol=1e-6)
    assert not np.allclose(finished.policy(observations, seed=2), actions)
    policy = load_policy(finished.path)
    all_seeds = policy.player()(np.broadcast_to(observations, (3, 5, 3)), 0, np.zeros((3, 5), bool))
    np.testing.assert_allclose(all_seeds[1], actions, atol=1e-6)
    with pytest.raises(DataError, match=r"takes observations \('B', 3\); got \(5, 4\)"):
        finished.policy(np.zeros((5, 4)))
    with pytest.raises(SettingsError, match="3 seed"):
        finished.policy(observations, seed=3)


def test_evaluate_plays_the_same_episodes_again(finished):
    one, two = (finished.evaluate(episodes=2, seed=finished.manifest["protocol"]["env_seed"]) for _ in range(2))
    assert one["return"] == two["return"]
    rows = [json.loads(line) for line in (finished.path / "episodes.jsonl").read_text().splitlines()]
    last = np.mean([r["return"] for r in rows if r["phase"] == "online"])
    assert one["return"] == pytest.approx(last, rel=1e-6)
    assert finished.evaluate(episodes=2)["return"] != one["return"]


def test_a_run_says_what_it_is(finished):
    assert "td3_bc on pendulum" in repr(finished) and "3 seed(s)" in repr(finished)
    assert "report.html" in finished._repr_html_()


def test_a_run_extended_online_equals_one_that_was_longer_from_the_start(pendulum, tmp_path):
    short = small(pendulum, tmp_path / "short", online=60)
    longer = understudy.resume(short, online=100)
    whole = small(pendulum, tmp_path / "whole", online=100)
    a, b = (checkpoint.latest(r.path)[0] for r in (longer, whole))
    assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
    assert longer.result["env_steps"] == 100
    resumes = json.loads((short.path / "manifest.json").read_text())["resumes"]
    assert resumes[0]["changed"] == {"online": 100} and resumes[0]["env_steps"] == 60


def test_a_decay_over_the_offline_phase_ends_where_it_does_and_the_live_phase_learns_on(pendulum, tmp_path):
    settings = SMALL | {"decay_steps": -1}
    run = small(pendulum, tmp_path / "decay", "iql", settings=settings)
    assert run.manifest["settings"]["decay_steps"] == 60
    before = checkpoint.latest(run.path)[0]
    longer = run.finetune(online=40)
    assert longer.manifest["settings"]["decay_steps"] == 60
    after = checkpoint.latest(longer.path)[0]
    weights = [k for k in before if "actor.params" in k and "kernel" in k]
    assert weights and all(np.abs(before[k] - after[k]).max() > 1e-4 for k in weights)


def test_a_change_to_a_finished_run_needs_steps_to_act_in(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run")
    before = (run.path / "policy.safetensors").read_bytes(), (run.path / "result.json").read_bytes()
    for change in (dict(algorithm="rebrac"), dict(settings={"policy.hidden": (8, 8)})):
        with pytest.raises(SettingsError, match="has finished, so the change would do nothing; give it more steps"):
            understudy.resume(run.path, **change)
    assert before == ((run.path / "policy.safetensors").read_bytes(), (run.path / "result.json").read_bytes())
    assert understudy.load(run.path).manifest["algorithm"] == "td3_bc"


def test_a_run_without_an_environment_can_be_given_one(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", env=None)
    assert run.manifest["env"] is None and run.result["success"] is None
    with pytest.raises(EnvError, match="HalfCheetah-v5 gives"):
        run.finetune("HalfCheetah-v5", online=20)
    live = run.finetune("Pendulum-v1", online=20, utd=2, offline_share=0.25)
    phase = live.manifest["phases"][-1]
    assert (phase["utd"], phase["offline_share"]) == (2, 0.25) and live.result["updates"] == 60 + 40
    assert live.result["episodes"] == 2 and understudy.load(run.path).evaluate(episodes=1)["return"] < 0
    assert len((run.path / "evaluations.jsonl").read_text().splitlines()) == 1
    with pytest.raises(EnvError, match="belongs to Pendulum-v1; got HalfCheetah-v5"):
        live.finetune("HalfCheetah-v5", online=40)
    with pytest.raises(SettingsError, match="already has its utd"):
        live.finetune(online=40, utd=3)


def test_what_train_was_given_for_a_live_phase_waits_for_it(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", utd=3, offline_share=1.0)
    phase = run.finetune(online=10).manifest["phases"][-1]
    assert (phase["utd"], phase["offline_share"]) == (3, 1.0)


def test_an_algorithm_that_learns_live_only_has_no_offline_phase_of_itself(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", "rlpd", offline=None, online=20)
    assert [p["name"] for p in run.manifest["phases"]] == ["online"]
    rows = [json.loads(line) for line in (run.path / "episodes.jsonl").read_text().splitlines()]
    assert [r["env_steps"] for r in rows] == [0, 0, 20, 20]  # before and after
    with pytest.raises(SettingsError, match="Nothing to do"):
        small(pendulum, tmp_path / "nothing", "sac", offline=None)


def test_an_interrupted_extension_is_unfinished(pendulum, tmp_path, monkeypatch):
    run = small(pendulum, tmp_path / "run")

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(Collector, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            run.finetune(online=20)
    assert "unfinished" in repr(understudy.load(run.path)) and not (run.path / "result.json").exists()
    assert understudy.resume(run.path).result["env_steps"] == 20


def test_nan_actions_of_a_live_policy_stop_the_run_with_the_metric(pendulum, tmp_path):
    settings = SMALL | {"critic.learning_rate": 1e30, "learning_rate": 1e30}
    with pytest.raises(DivergenceError, match=r"became NaN (or infinite at|by) update \d+.*last good checkpoint"):
        small(pendulum, tmp_path / "run", offline=0, online=200, settings=settings, evaluate=False)


def test_an_evaluation_stops_at_its_next_step_and_is_made_anew(pendulum, tmp_path, monkeypatch):
    call, steps = programs.Player.__call__, []

    def asked(self, *observed):
        steps.append(observed[1])
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        return call(self, *observed)

    monkeypatch.setattr(programs.Player, "__call__", asked)
    with pytest.raises(KeyboardInterrupt):
        small(pendulum, tmp_path / "run", evaluate=True)
    assert steps == [0, 1, 2] and not (tmp_path / "run" / "result.json").exists()
    run = understudy.resume(tmp_path / "run")
    assert len(steps) == 3 + 200 and run.result["episodes"] == 2 and run.result["finished"]


def test_policies_of_dictionaries_of_observations_act(tmp_path):
    rng = np.random.default_rng(0)
    tree = {"arm": {"pose": rng.normal(size=(20, 3))}, "cube": rng.normal(size=(20, 2))}
    data = from_arrays(tree, rng.uniform(-1, 1, (20, 1)), rng.normal(size=20), truncations=np.arange(20) % 10 == 9)
    run = small(data, tmp_path / "run", env=None)
    one = {"arm": {"pose": np.zeros(3)}, "cube": np.zeros(2)}
    many = {"arm": {"pose": np.zeros((4, 3))}, "cube": np.zeros((4, 2))}
    assert run.policy(one).shape == (1,) and run.policy(many).shape == (4, 1)
    np.testing.assert_allclose(run.policy(many)[0], run.policy(one), rtol=1e-6)
    for wrong in (np.zeros(5), {"arm": np.zeros(3)}, {"arm": {"pose": np.zeros((4, 3))}, "cube": np.zeros((5, 2))}):
        with pytest.raises(DataError, match="The policy takes observations"):
            run.policy(wrong)


def test_settings_of_a_resume_come_on_top_under_their_full_names(pendulum, tmp_path):
    given = SMALL | {"expectile": np.float32(0.75), "deviation": "state"}
    run = small(pendulum, tmp_path / "run", "iql", settings=given)
    assert run.manifest["overrides"]["critic.expectile"] == 0.75
    longer = run.finetune(online=20, settings={"critic.expectile": 0.8})
    assert longer.manifest["overrides"] == {"critic.hidden": [16, 16], "policy.hidden": [16, 16],
                                            "critic.expectile": 0.8, "policy.deviation": "state"}  # fmt: skip
    assert longer.manifest["resumes"][0]["changed"]["settings"] == {"critic.expectile": 0.8}
    other = longer.finetune(online=40, settings={"policy": "flow", "policy.steps": 2})
    assert "policy.deviation" not in other.manifest["overrides"]  # a flow has none
    assert other.manifest["settings"]["policy.hidden"] == [16, 16]
    again = understudy.load(run.path)
    assert again.policy(np.zeros((3, 3))).shape == (3, 1) and again.evaluate(episodes=1)["env_steps"] == 40


def test_numbers_from_numpy_are_numbers(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", offline=np.int64(20), reward_scale=np.float32(2), episodes=np.int32(1))
    assert run.manifest["plan"]["reward_scale"] == 2 and run.result["updates"] == 20
    with pytest.raises(SettingsError, match="offline is 1.5; give a whole number"):
        small(pendulum, tmp_path / "half", offline=1.5)


def test_a_preset_goes_with_a_name(pendulum, tmp_path):
    with pytest.raises(SettingsError, match="A preset goes with an algorithm's name"):
        small(pendulum, tmp_path / "run", understudy.make("iql", 1), settings=None, preset="d4rl")


def test_dictionaries_of_observations_do_not_fit_an_environment(tmp_path):
    data = from_arrays({"state": np.zeros((20, 3))}, np.zeros((20, 1)), np.zeros(20), truncations=np.arange(20) > 18)
    with pytest.raises(EnvError, match="join them into one array"):
        small(data, tmp_path / "run")


def test_a_store_has_its_action_range_already(pendulum, tmp_path):
    folder = understudy.data.store.write(understudy.data.load(pendulum), tmp_path / "store")
    with pytest.raises(DataError, match="already scaled"):
        small(folder, tmp_path / "run", action_range=(-2, 2))


def test_a_recipes_n_step_gives_way_to_chunks_and_a_users_does_not(pendulum, tmp_path):
    few = {"policy.hidden": (8,), "policy.base.hidden": (8,), "critic.hidden": (8,)}
    steps = lambda out, **options: small(pendulum, tmp_path / out, "resfit", offline=2, evaluate=False, **options)
    assert steps("chunks", settings=few | {"chunk": 2}).manifest["plan"]["n_step"] == 1
    with pytest.raises(SettingsError, match="n_step is 3 and chunk 2"):
        steps("both", settings=few | {"chunk": 2}, n_step=3)


def test_another_algorithm_gets_whole_networks_and_targets_that_follow_them(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", "bc", settings={"policy": "deterministic", "policy.hidden": (16, 16)})
    cloned = checkpoint.latest(run.path)[0]
    algorithm = understudy.make("td3_bc", 1, SMALL | {"learning_rate": 0.0})
    state = algorithm.init(jax.random.key(5), {
        "observations": np.zeros((1, 3)), "actions": np.zeros((1, 1)), "rewards": np.zeros(1), "masks": np.ones(1),
        "next_observations": np.zeros((1, 3))})  # fmt: skip
    state = jax.tree.map(lambda x: x[None], state)
    carried, going, afresh = checkpoint.carry_over({"state": state}, cloned)
    carried = carried["state"]
    for name in ("Dense_0", "Dense_2"):
        actor = carried.actor.params["params"][name]["kernel"]
        np.testing.assert_array_equal(actor, cloned[f"['state'].actor.params['params']['{name}']['kernel']"])
        np.testing.assert_array_equal(actor, carried.target["params"][name]["kernel"])
    assert going == ["actor"] and afresh == ["critic.q"]
    other = {k: v for k, v in cloned.items() if "Dense_1" not in k}  # part of a network is none
    untouched, going, _ = checkpoint.carry_over({"state": state}, other)
    np.testing.assert_array_equal(untouched["state"].actor.params["params"]["Dense_0"]["kernel"],
                                  state.actor.params["params"]["Dense_0"]["kernel"])  # fmt: skip
    assert not going


@pytest.mark.parametrize("before, after", [("iql", "jsrl"), ("iql", "ooo"), ("sac", "moorl"), ("ooo", "iql"),
                                           ("moorl", "sac"), ("ooo", "jsrl")])  # fmt: skip
def test_what_is_learned_around_an_algorithm_goes_over_to_it_alone_and_back(before, after):
    """Every network of the inner algorithm and the number of its updates; what follows it begins as its copy."""
    like = lambda *shape: np.zeros((1, *shape))
    batch = {"observations": like(3), "actions": like(1), "rewards": like(), "masks": like(),
             "next_observations": like(3)}  # fmt: skip
    init = lambda name, key: understudy.make(name, 1).init(jax.random.key(key), batch)
    inner = lambda state: getattr(state, "inner", state)
    old = init(before, 1)
    core = dataclasses.replace(inner(old), step=np.int32(70))
    old = dataclasses.replace(old, inner=core) if hasattr(old, "inner") else core
    new = checkpoint.carry_over({"state": init(after, 2)}, checkpoint.flatten({"state": old}))[0]["state"]
    same = lambda x, y: jax.tree.map(np.testing.assert_array_equal, x, y)
    assert inner(new).step == 70
    same(bare(inner(new)), bare(inner(old)))
    if after == "jsrl":
        same(bare(new.guide), bare(inner(old)))
    if after == "moorl":
        same(new.slow.actor.params, inner(old).actor.params)
        same(new.slow.critic.q.params, inner(old).critic.q.params)


@pytest.mark.parametrize("live", [{}, {"policy_delay": 0}])
def test_a_rate_that_falls_offline_has_fallen_for_another_algorithm_live(pendulum, tmp_path, live):
    """As in one call: it does not begin anew with the algorithm, nor where there is a policy step for a live step."""
    run = small(pendulum, tmp_path / "run", "bc", settings={"policy.hidden": (16, 16)}, offline=6)
    utd = 3 if live else 1
    run = understudy.resume(run, algorithm="iql", settings=SMALL | {"decay_steps": -1} | live, online=4, utd=utd)
    counts = {k: v for k, v in checkpoint.latest(run.path)[0].items() if ".actor.opt" in k and k.endswith(".count")}
    assert counts and any((v == 6 + 4).all() for v in counts.values()), counts


def test_damaged_checkpoints_are_put_aside_and_not_counted(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run")
    good, newest = checkpoint.names(run.path)[-2:]
    (run.path / "checkpoints" / newest / "arrays.safetensors").write_bytes(b"damaged")
    understudy.resume(run.path)
    left = {p.name for p in (run.path / "checkpoints").iterdir()}
    assert good in left and f"damaged-{newest}" in left and len(left) == 3


def test_a_run_without_a_checkpoint_is_left_as_it_is(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", offline=20)
    shutil.rmtree(run.path / "checkpoints")
    files = {p.name: p.read_bytes() for p in run.path.iterdir() if p.is_file() and p.name != ".lock"}
    with pytest.raises(CheckpointError, match="no whole checkpoint left, so that it could only start over"):
        understudy.resume(run, offline=40)
    assert files == {p.name: p.read_bytes() for p in run.path.iterdir() if p.is_file() and p.name != ".lock"}


def test_damaged_results_are_said_to_be(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", offline=20, evaluate=False)
    (run.path / "result.json").write_text("{")
    with pytest.raises(CheckpointError, match="result.json is damaged; write it again with: understudy resume"):
        run.result  # noqa: B018
    (run.path / "policy.json").write_text('{"format": 1}')
    with pytest.raises(CheckpointError, match="policy.json is damaged; write it again with"):
        load_policy(run.path)
    with pytest.raises(SettingsError, match="--baseline compares evaluations, and there are none"):
        understudy.resume(run, online=5, baseline=True)
    understudy.resume(run)
    with pytest.raises(DataError, match="The observations hold NaN or infinity"):
        run.policy(np.full(3, np.nan))


def test_an_on_policy_phase_shorter_than_a_rollout_is_warned_of(tmp_path, capsys):
    options = dict(env="Pendulum-v1", online=6, episodes=1, eval_every=0, evaluate=False)
    understudy.train("ppo", out=tmp_path / "run", settings={"hidden": (8,), "policy.hidden": (8,)}, **options)
    assert "warning: PPO learns after every 256 live steps, and the online phase has 6" in capsys.readouterr().err


def test_a_policy_step_for_each_live_step_whatever_the_utd():
    algorithm = understudy.make("rlpd", 1, {"policy_delay": 0})
    assert settle(algorithm, [Phase("online", env_steps=9, utd=20)]).policy_delay == 20
    assert settle(algorithm, [Phase("online", env_steps=9, utd=0.5)]).policy_delay == 1
    assert settle(algorithm, [Phase("offline", updates=9)]).policy_delay == 1
    decaying = understudy.make("td3_bc", 1, {"decay_steps": -1})
    assert settle(decaying, [Phase("offline", updates=900)]).decay_steps == 450  # steps of the policy


def test_a_retraining_lasts_as_long_as_itself_and_its_successes_are_no_demonstrations():
    phases = [Phase("offline", updates=900), Phase("online", env_steps=9, utd=1, offline_share=0.5),
              Phase("retrain", updates=70, restart=True, offline_share=0.5, successes=0.2)]  # fmt: skip
    for phase, lasts in zip(phases, (900, 900, 70)):
        assert settle(understudy.make("pa_rl", 1), phases, phase=phase).extraction.imitation_steps == lasts
        assert settle(understudy.make("uni_o4", 1), phases, phase=phase).offline_steps == lasts
    arsq = understudy.make("arsq", 1)
    assert [settle(arsq, phases, phase=p).demo_share for p in phases[1:]] == [0.5, pytest.approx(0.4)]


def test_the_demonstrations_of_arsq_are_the_offline_share_of_a_live_batch():
    algorithm, offline = understudy.make("arsq", 1), Phase("offline", updates=9)
    live = Phase("online", env_steps=9, utd=1, offline_share=0.25)
    assert settle(algorithm, [offline, live]).demo_share == 0.25
    assert settle(algorithm, [offline]).demo_share == 1.0
    assert settle(understudy.make("arsq", 1, {"demo_share": 0.5}), [live]).demo_share == 0.5


def test_a_live_episode_has_a_return_without_data_too(tmp_path):
    run = small(None, tmp_path / "run", "cal_ql", offline=0, online=201, settings=SMALL | {"critic.samples": 2},
                evaluate=False)  # fmt: skip
    returns = checkpoint.latest(run.path)[0]["['replay']['mc_returns']"][0]
    assert (returns[:200] < 0).all() and np.isneginf(returns[200])  # of the second nothing is known yet


@pytest.mark.parametrize("given, message", [
    ({"data": {"observations": np.zeros((3, 3))}}, "dataset is dict; give a name, a path, or understudy.data.from_arr"),
    ({"algorithm": None}, "algorithm is NoneType; give a name"),
    ({"algorithm": Phase}, "algorithm is the class Phase; give a name .* or an object"),
    ({"env": 3}, "env is int; give the id that it is registered under"),
])  # fmt: skip
def test_what_is_none_of_the_things_that_train_takes_is_refused(given, message, pendulum, tmp_path):
    with pytest.raises(SettingsError, match=message):
        small(given.pop("data", pendulum), tmp_path / "run", **given)


def test_images_are_refused_before_anything_is_compiled(tmp_path):
    data = from_arrays(np.zeros((20, 4, 4, 3)), np.zeros((20, 1)), np.zeros(20), truncations=np.arange(20) % 10 == 9)
    with pytest.raises(DataError, match="the networks take vectors"):
        small(data, tmp_path / "run", env=None)


def test_a_run_on_arrays_in_memory_goes_on_with_them(tmp_path):
    rng = np.random.default_rng(0)
    given = from_arrays(rng.normal(size=(20, 3)), rng.uniform(-1, 1, (20, 1)), rng.normal(size=20),
                        truncations=np.arange(20) % 10 == 9)  # fmt: skip
    run = small(given, tmp_path / "run")
    assert run.finetune(online=20).finetune(online=30).result["env_steps"] == 30
    with pytest.raises(CheckpointError, match="resume it with dataset="):
        understudy.resume(run.path, online=40)
    report = (run.path / "report.html").read_text()
    assert "understudy resume" not in report and "understudy train" not in report, "no command line has the arrays"


def test_a_run_resumes_from_another_working_directory(pendulum, tmp_path, monkeypatch):
    """As a file, and as a name that was looked up in ./data."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"swings{pendulum.suffix}").symlink_to(pendulum)
    for place, given in ((pendulum.parent, pendulum.name), (tmp_path, "swings")):
        monkeypatch.chdir(place)
        run = small(given, tmp_path / f"run-{given}", offline=20)
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert understudy.resume(run, online=10).result["env_steps"] == 10


def test_an_offline_run_goes_on_live_with_another_algorithm(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", algorithm="cal_ql", settings=SMALL | {"critic.samples": 2})
    before = checkpoint.latest(run.path)[0]
    run = understudy.resume(run, algorithm="sac", online=20, settings=SMALL)
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["algorithm"] == "sac" and manifest["resumes"][0]["changed"]["algorithm"] == "sac"
    assert [p["name"] for p in manifest["phases"]] == ["offline", "online"]
    after = checkpoint.latest(run.path)[0]
    shared = [k for k in before if ".params" in k and k in after and ".opt" not in k]
    moved = max(float(np.abs(before[k] - after[k]).max()) for k in shared)
    assert len(shared) > 8 and 0 < moved < 0.2, "the networks were carried over and trained on"
    assert run.policy(np.zeros(3)).shape == (1,)
    again = understudy.resume(run, online=30)  # the manifest now describes the new algorithm
    assert again.result["env_steps"] == 30


def test_learning_live_without_data(tmp_path):
    run = understudy.train(
        "sac", env="Pendulum-v1", warmup=40, online=40, out=tmp_path / "run", batch_size=16, episodes=2, eval_every=0,
        settings=SMALL, num_envs=2, utd=0.5,
    )  # fmt: skip
    assert run.result["env_steps"] == 80 and run.result["updates"] == 20
    arrays, meta = checkpoint.latest(run.path)
    assert meta["replay"]["size"] == 80
    actions = arrays["['replay']['actions']"][0, :40]
    assert 0.45 < np.abs(actions).mean() < 0.55  # the warm-up acted uniformly at random


def test_the_host_path_draws_and_learns_the_same(pendulum, tmp_path):
    ends = []
    for place in ("device", "host"):
        run = small(pendulum, tmp_path / place, algorithm="rebrac", online=30, data_on=place, n_step=3)
        ends.append(checkpoint.latest(run.path)[0])
    for k, x in ends[0].items():
        np.testing.assert_allclose(x, ends[1][k], rtol=2e-4, atol=2e-5, err_msg=k)


def test_monte_carlo_returns_of_live_episodes_reach_the_replay(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", algorithm="cal_ql", offline=10, online=410, utd=0.02, num_envs=2,
                settings=SMALL | {"critic.samples": 2})  # fmt: skip
    arrays, meta = checkpoint.latest(run.path)
    returns, rewards = (arrays[f"['replay']['{k}']"][0, : meta["replay"]["size"]] for k in ("mc_returns", "rewards"))
    for lane in range(2):
        r, g = rewards[lane::2], returns[lane::2]
        expected = min(r[199], 0) / (1 - 0.99)  # its last reward goes on
        for t in reversed(range(200)):  # the first episode of this lane: 200 steps, cut off by the time limit
            expected = r[t] + 0.99 * expected
            assert g[t] == pytest.approx(expected, rel=1e-4)
        assert np.isneginf(g[200:]).all()  # the second has not ended


def test_a_loss_that_turns_nan_stops_the_run_and_keeps_the_last_checkpoint(pendulum, tmp_path):
    with pytest.raises(DivergenceError, match=r"critic/\S+ became NaN or infinite at update \d+"):
        small(pendulum, tmp_path / "run", settings=SMALL | {"critic.learning_rate": 1e30})
    arrays, _ = checkpoint.latest(tmp_path / "run")
    assert all(np.isfinite(x).all() for k, x in arrays.items() if "params" in k)


def test_what_bad_input_gets(pendulum, tmp_path):
    rng = np.random.default_rng(0)
    arrays = dict(observations=rng.normal(size=(20, 3)), actions=rng.uniform(-1, 1, (20, 1)),
                  terminations=np.zeros(20, bool), truncations=np.arange(20) % 10 == 9)  # fmt: skip
    bare, out = from_arrays(rewards=None, **arrays), tmp_path / "a"
    mistyped = {"critic.discont": 1}
    cases = [
        (DataError, "has no rewards and the algorithm learns values", dict(data=bare)),
        (EnvError, "takes 6; name the environment", dict(env="HalfCheetah-v5")),
        (EnvError, "Unknown environment", dict(env="Pendulun-v1")),
        (SettingsError, "Did you mean 'iql'", dict(algorithm="iqll")),
        (SettingsError, "[Dd]id you mean '?critic.discount", dict(settings=mistyped)),
        (SettingsError, "Nothing to do", dict(offline=0)),
        (SettingsError, "offline_share is 1.5", dict(offline_share=1.5)),
        (SettingsError, "seeds is 0", dict(seeds=0)),
        (SettingsError, "seeds is 3000000000; give at most 10,000", dict(seeds=3_000_000_000)),
        (SettingsError, "seeds is '2'; give how many, or a list", dict(seeds="2")),
        (SettingsError, "seeds is .0.5.; give how many, or a list", dict(seeds=[0.5])),
        (SettingsError, "seeds is 2.5; give how many", dict(seeds=2.5)),
        (SettingsError, "seed is 'a'; give a whole number", dict(seed="a")),
        (SettingsError, "settings is .'a'.; give .name: value", dict(settings=["a"])),
        (SettingsError, "offline_settings is 3; give .name: value", dict(offline_settings=3)),
        (SettingsError, "needs a policy with sample_and_log_prob",
         dict(algorithm="sac", settings={"policy": "deterministic"})),
    ]  # fmt: skip
    for kind, message, changed in cases:
        with pytest.raises(kind, match=message):
            small(**dict(data=pendulum, out=out) | changed)
        assert not out.exists(), "nothing is written for a run that cannot start"
    with pytest.raises(CheckpointError, match="holds no run"):
        understudy.resume(tmp_path)


def test_a_folder_with_another_run_or_format_is_refused(finished, pendulum, tmp_path):
    with pytest.raises(CheckpointError, match="holds another run"):
        small(pendulum, finished.path)
    manifest = finished.path / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"format": 1', '"format": 99'))
    try:
        with pytest.raises(CheckpointError, match="format 99, this is format 1"):
            understudy.resume(finished.path)
    finally:
        manifest.write_text(text)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        small(pendulum, tmp_path / "file")


def test_other_data_than_the_run_was_trained_on_are_refused(pendulum, tmp_path):
    copy = tmp_path / "data.hdf5"
    copy.write_bytes(pendulum.read_bytes())
    run = small(copy, tmp_path / "run")
    import h5py

    with h5py.File(copy, "r+") as file:
        file["rewards"][0] = 7.0
    with pytest.raises(CheckpointError, match="is not the one that"):
        understudy.resume(run, online=10)


def test_a_full_disk_stops_the_run_with_the_last_checkpoint_intact(pendulum, tmp_path):
    """The limit on a file's size makes real writes fail half way, as a full disk does."""
    script = f"""
        import resource, understudy
        from understudy.run import checkpoint
        write, count = checkpoint.write_arrays, 0
        def limited(path, arrays):
            global count
            count += 1
            if count == 5:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.RLIM_INFINITY}))
            return write(path, arrays)
        checkpoint.write_arrays = limited
        understudy.train("td3_bc", {str(pendulum)!r}, env="Pendulum-v1", offline=3000, out={str(tmp_path / "run")!r},
                         batch_size=16, evaluate=False, checkpoint_every=0.0, settings={SMALL!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "Could not write" in done.stderr and "Free space" in done.stderr, done.stderr[
        -2000:
    ]
    arrays, meta = checkpoint.latest(tmp_path / "run")
    assert meta["counters"]["updates"] > 0
    run = understudy.resume(tmp_path / "run")
    assert run.result["updates"] == 3000


def test_an_on_policy_algorithm_may_learn_from_data_as_well(pendulum, tmp_path, monkeypatch):
    seen, interact = [], programs.interact
    spy = lambda *args, **kwargs: seen.append((args[4].sizes(), kwargs["updates"])) or interact(*args, **kwargs)
    monkeypatch.setattr(programs, "interact", spy)
    settings = {"hidden": (8,), "policy.hidden": (8,), "steps_per_rollout": 4, "critic_steps": 2, "samples": 2}
    run = understudy.train("hnpg", pendulum, out=tmp_path / "run", env="Pendulum-v1", online=8, batch_size=6,
                           settings=settings, evaluate=False)  # fmt: skip
    assert seen == [({"prior": 6}, int(t % 4 == 3)) for t in range(8)]
    rows = [json.loads(line)["metrics"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["critic/data"][0] > 0 and rows[-1]["actor/share"][0] <= 1
