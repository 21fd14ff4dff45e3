"""The switch from offline to online: what its words mean, what starts afresh, what holds in one phase only."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import SMALL, arrays_of, small

import understudy
from understudy.core import Net
from understudy.data.replay import Buffer
from understudy.data.samplers import Sampler
from understudy.errors import SettingsError
from understudy.run import checkpoint, programs
from understudy.run.collect import Collector
from understudy.run.phases import Phase, plan, settle
from understudy.run.switch import AS_BEFORE, AS_ONE, Switch, parse, resolve, said_by, start_afresh

# --- words


@pytest.mark.parametrize(
    ("text", "said", "plain"),
    [
        ("keep", Switch(share=AS_ONE), "keep"),
        ("warmup:5000+keep", Switch(share=AS_ONE, warmup=5000), "warmup:5000+keep"),
        ("mix:0.25", Switch(share=0.25), "mix:0.25"),
        ("anneal:0.5→0", Switch(share=0.5, end=0.0), "anneal:0.5->0"),
        ("anneal:.5->.1", Switch(share=0.5, end=0.1), "anneal:0.5->0.1"),
        ("drop", Switch(share=0.0), "drop"),
        ("warmup:5000+drop", Switch(share=0.0, warmup=5000), "warmup:5000+drop"),
        ("drop, warmup:5k", Switch(share=0.0, warmup=5000), "warmup:5000+drop"),
        ("reset-critic+reset-optimizer", Switch(reset=("critic", "optimizer")), "reset-critic+reset-optimizer"),
        ("retrain", Switch(retrain=AS_BEFORE), "retrain"),
        ("retrain:9+successes:0.1", Switch(retrain=9, successes=0.1), "retrain:9+successes:0.1"),
        ("mix:1+retrain:1M", Switch(share=1.0, retrain=1_000_000), "mix:1+retrain:1000000"),
    ],
)
def test_words(text, said, plain):
    assert parse(text) == said and str(said) == plain and parse(plain) == said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dorp", "There is no switch 'dorp'. Did you mean 'drop'?"),
        ("reset-optimiser", "There is no switch 'reset-optimiser'. Did you mean 'reset-optimizer'?"),
        ("", "There is no switch ''. Known: anneal, drop, keep, mix, "),
        ("mix", "mix takes a share from 0 to 1, such as mix:0.5; got 'mix'."),
        ("mix:2", "mix takes a share from 0 to 1, such as mix:0.5; got 'mix:2'."),
        ("anneal:0.5", "anneal takes two shares from 0 to 1, such as anneal:0.5->0; got 'anneal:0.5'."),
        ("anneal:0.5->x", "anneal takes two shares"),
        ("warmup", "warmup takes a whole number, such as warmup:5000; got 'warmup'."),
        ("warmup:-1", "warmup takes a whole number"),
        ("retrain:1.5", "retrain takes a whole number, such as retrain:5000; got 'retrain:1.5'."),
        ("drop:3", "drop takes no number; got 'drop:3'."),
        ("reset-critic:1", "reset-critic takes no number"),
        ("retrain+successes", "successes takes a share from 0 to less than 1, such as successes:0.1; got 'successes'."),
        ("retrain+successes:1", "successes takes a share from 0 to less than 1"),
        ("mix:0.5+drop", "The switch says both mix:0.5 and drop; keep one."),
        ("keep+drop", "The switch says both keep and drop; keep one."),
        (0.5, "switch is 0.5; give words such as 'warmup:5000+drop'."),
    ],
)
def test_what_is_no_switch(text, message):
    with pytest.raises(SettingsError) as error:
        parse(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (({"offline_share": 0.5},), Switch(share=0.5)),
        (({"offline_share": 0.5}, {"switch": "warmup:9+drop"}), Switch(share=0.0, warmup=9)),
        (({"switch": "warmup:9+drop"}, {"switch": "mix:0.5"}), Switch(share=0.5)),  # the stronger replaces it whole
        (({"switch": "warmup:9+drop"}, {"switch": "keep"}), Switch(share=AS_ONE)),
        (({"switch": "warmup:9+drop"}, {"warmup": 0}), Switch(share=0.0, warmup=0)),  # an option only its own part
        (({"switch": "anneal:0.5->0"}, {"offline_share": 0.25}), Switch(share=0.25)),
        (({"warmup": 5000}, {"switch": "drop"}), Switch(share=0.0, warmup=5000)),
        (({"warmup": 5000}, {"switch": "warmup:7"}), Switch(warmup=7)),
        (({"switch": "drop", "reset": ("optimizer",)}, {"switch": "mix:0.5"}), Switch(share=0.5, reset=("optimizer",))),
        (({"reset": ("optimizer",)}, {"switch": "reset-critic"}), Switch(reset=("critic", "optimizer"))),
        (({"switch": "mix:0.5+retrain", "offline_share": 0.5, "retrain": 30},), Switch(share=0.5, retrain=30)),
    ],
)
def test_stronger_layers_win(layers, expected):
    assert resolve(*layers) == expected


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"switch": "drop", "offline_share": 0.5}, "--switch drop and --offline-share 0.5 contradict each other"),
        ({"switch": "anneal:0.5->0", "offline_share": 0.5}, "--offline-share 0.5 contradict each other"),
        ({"switch": "warmup:10", "warmup": 20}, "--switch warmup:10 and --warmup 20 contradict each other; give one."),
        ({"switch": "retrain:10", "retrain": 0}, "--switch retrain:10 and --retrain 0 contradict"),
        ({"switch": "retrain", "retrain": 0}, "--switch retrain and --retrain 0 contradict"),
        ({"switch": "drop+successes:0.1"}, "--switch drop+successes:0.1 retrains on nothing; say retrain as well"),
    ],
)
def test_a_switch_and_an_option_may_not_contradict_each_other(layer, message):
    with pytest.raises(SettingsError) as error:
        resolve(layer)
    assert message in str(error.value)


# --- phases


def test_the_phases_of_a_switch():
    phases = plan(offline=100, online=50, utd=2, switch=parse("warmup:10+anneal:0.5->0+reset-critic+retrain"),
                  online_settings=[("critic.weight", 0.0)])  # fmt: skip
    assert phases == [
        Phase("offline", updates=100),
        Phase("warmup", env_steps=10, offline_share=0.5),
        Phase("online", env_steps=50, utd=2, offline_share=0.5, anneal=(0.0, 50), reset=("critic",),
              settings=(("critic.weight", 0.0),)),
        Phase("retrain", updates=100 + 2 * 50, offline_share=0.5, restart=True),
    ]  # fmt: skip
    assert str(said_by(phases)) == "warmup:10+anneal:0.5->0+reset-critic+retrain:200"
    as_read = [Phase(**json.loads(json.dumps(vars(p)))) for p in phases]
    assert as_read == phases
    [offline, online, retrain] = plan(offline=1, online=9, switch=parse("drop+retrain:3"))
    assert (online.offline_share, retrain.offline_share) == (0.0, 0.5)  # retraining is on everything
    [offline, online, retrain] = plan(offline=1, online=9, switch=parse("mix:1+retrain:3"))
    assert (online.offline_share, retrain.offline_share) == (1.0, 0.5)
    phases = plan(offline=1, online=9, switch=parse("warmup:4+keep+retrain:3"))
    assert [p.as_one for p in phases] == [False, True, True, True]
    assert str(said_by(phases)) == "warmup:4+keep+retrain:3"
    assert not any(p.as_one or p.offline_share for p in plan(online=9, switch=parse("keep"), data=False))
    *others, retrain = plan(offline=1, online=9, switch=parse("retrain:3+successes:0.25"))
    assert retrain.successes == 0.25 and not any(p.successes for p in others)
    assert str(said_by([*others, retrain])) == "mix:0.5+retrain:3+successes:0.25"
    with pytest.raises(SettingsError, match="says reset-critic and there is nothing to reset before"):
        plan(online=9, switch=parse("reset-critic"))


def test_the_share_moves_linearly_and_stays_at_its_end():
    phase = Phase("online", env_steps=200, offline_share=0.5, anneal=(0.1, 100))
    assert [phase.share_at(t) for t in (0, 25, 50, 100, 150)] == pytest.approx([0.5, 0.4, 0.3, 0.1, 0.1])
    assert Phase("online", env_steps=200, offline_share=0.5).share_at(100) == 0.5


def test_a_policy_step_for_each_live_step_is_one_for_each_offline_update():
    phases = [Phase("offline", updates=90), Phase("online", env_steps=9, utd=4), Phase("retrain", 7, restart=True)]
    algorithm = understudy.make("rlpd", 1, {"policy_delay": 0, "decay_steps": -1})
    assert [settle(algorithm, phases, phase=p).policy_delay for p in phases] == [1, 4, 1]
    # steps of the policy offline, over which the rate has fallen; retraining falls anew, over its own
    assert [settle(algorithm, phases, phase=p).decay_steps for p in phases] == [90, 90, 7]


# --- batches


def test_a_share_as_a_number_divides_the_rows_and_compiles_once():
    column = lambda value: dict(rewards=np.full(5, value, np.float32), observations=np.full((5, 2), value, np.float32),
                                ends=np.zeros(5, bool))  # fmt: skip
    sources = {"prior": Buffer.full(column(1)), "replay": Buffer.full(column(0))}
    compiled = 0

    @jax.jit
    def rows(sampler, key):
        nonlocal compiled
        compiled += 1
        return sampler(sources, key)

    shares = (("prior", 0.5), ("replay", 0.5))
    for share, expected in ((0.5, 5), (0.26, 3), (0.25, 3), (0.24, 2), (0.0, 0), (1.0, 10)):
        batch = rows(Sampler(batch_size=10, shares=shares, share=share), jax.random.key(0))
        assert batch["rewards"].tolist() == [1.0] * expected + [0.0] * (10 - expected)
        np.testing.assert_array_equal(batch["observations"], np.repeat(batch["rewards"][:, None], 2, 1))
    assert compiled == 1


@pytest.mark.parametrize("place", ["device", "host"])
def test_an_annealed_run_gives_each_step_its_share_and_compiles_once(pendulum, tmp_path, monkeypatch, place):
    seen, interact = [], programs.interact

    def spy(algo, state, sources, replay, sampler, *args, **kwargs):
        seen.append(sampler.share)
        return interact(algo, state, sources, replay, sampler, *args, **kwargs)

    before = interact._cache_size()
    monkeypatch.setattr(programs, "interact", spy)
    run = small(pendulum, tmp_path / "run", online=20, switch="anneal:0.5->0", data_on=place, num_envs=2)
    assert seen == pytest.approx([0.5 * (1 - t / 20) for t in range(0, 20, 2)])
    assert interact._cache_size() - before == 1 and run.result["updates"] == 40
    assert run.manifest["switch"] == "anneal:0.5->0" and run.manifest["phases"][1]["anneal"] == [0.0, 20]


@pytest.mark.parametrize("place", ["device", "host"])
def test_as_one_buffer_the_data_have_the_share_of_their_number(pendulum, tmp_path, monkeypatch, place):
    """In live batches as they come in, in a retraining as they are, and as they were where a run goes on."""
    seen, retrained, interact, chunk = [], [], programs.interact, programs.chunk

    def spy(algo, state, sources, replay, sampler, *args, **kwargs):
        seen.append(sampler.share)
        return interact(algo, state, sources, replay, sampler, *args, **kwargs)

    def spy_chunk(algo, state, sources, replay, sampler, *args):
        retrained.append(dict(sampler.shares))
        return chunk(algo, state, sources, replay, sampler, *args)

    monkeypatch.setattr(programs, "interact", spy)
    monkeypatch.setattr(programs, "chunk", spy_chunk)
    options = dict(switch="keep", data_on=place, num_envs=2, warmup=4)
    whole = small(pendulum, tmp_path / "whole", online=20, **options)
    size = whole.manifest["dataset"]["transitions"]
    # the warm-up, which learns nothing, comes before
    assert seen[2:] == pytest.approx([size / (size + 4 + t) for t in range(2, 22, 2)])
    seen.clear()
    parts = small(pendulum, tmp_path / "parts", online=10, **options).finetune(online=20)
    assert seen[2:] == pytest.approx([size / (size + 4 + t) for t in range(2, 22, 2)])
    a, b = arrays_of(whole), arrays_of(parts)
    assert a.keys() == b.keys() and not [k for k in a if not np.array_equal(a[k], b[k], equal_nan=True)]
    assert whole.manifest["switch"] == "warmup:4+keep" and whole.manifest["phases"][-1]["as_one"]
    retrained.clear()
    understudy.resume(whole, switch="retrain:3")
    assert {n: s[n] for s in retrained for n in s} == pytest.approx(
        {"prior": size / (size + 24), "replay": 24 / (size + 24)}
    )


def test_dropped_data_are_in_no_online_batch(pendulum, tmp_path, monkeypatch):
    seen, interact = [], programs.interact
    spy = lambda *args, **kwargs: seen.append(args[4].sizes()) or interact(*args, **kwargs)
    monkeypatch.setattr(programs, "interact", spy)
    small(pendulum, tmp_path / "run", online=3, switch="drop")
    assert seen == [{"replay": 8}] * 3


# --- what starts afresh


def test_fresh_optimisers_keep_parameters_and_schedules():
    algorithm = understudy.make("cal_ql", 1, SMALL | {"critic.lagrange": True, "critic.samples": 2, "decay_steps": 9})
    batch = {"observations": jnp.ones((4, 3)), "actions": jnp.zeros((4, 1)), "rewards": jnp.ones(4),
             "masks": jnp.ones(4), "next_observations": jnp.ones((4, 3)), "mc_returns": jnp.zeros(4)}  # fmt: skip
    init, update = jax.jit(algorithm.init), jax.jit(algorithm.update)
    fresh = init(jax.random.key(1), batch)
    state, _ = update(init(jax.random.key(0), batch), batch, jax.random.key(2))
    nets = lambda s: [x for x in jax.tree.leaves(s, is_leaf=lambda x: isinstance(x, Net)) if isinstance(x, Net)]
    after = start_afresh(state, fresh, ("optimizer",))
    assert len(nets(after)) == 4  # policy, Q networks, the Lagrange multiplier, the temperature
    for old, new in zip(nets(state), nets(after)):
        jax.tree.map(np.testing.assert_array_equal, old.params, new.params)
        moments, schedule = new.opt
        assert int(moments.count) == 0 and int(schedule.count) == int(old.opt[1].count) == 1
        assert all(not np.asarray(x).any() for x in jax.tree.leaves((moments.mu, moments.nu)))
        assert any(np.asarray(x).any() for x in jax.tree.leaves(old.opt[0].mu))
    assert int(after.step) == 1
    after = start_afresh(state, fresh, ("critic",))
    jax.tree.map(np.testing.assert_array_equal, after.critic, fresh.critic)
    jax.tree.map(np.testing.assert_array_equal, after.actor, state.actor)


def test_the_critic_and_the_optimisers_of_a_run_start_afresh_at_its_switch(pendulum, tmp_path):
    texts = ("keep", "reset-critic", "reset-optimizer", "reset-critic+reset-optimizer")
    options = dict(algorithm="iql", online=4, warmup=6, utd=0)
    runs = {text: small(pendulum, tmp_path / text, switch=text, **options) for text in texts}
    same = lambda a, b, names: all(np.array_equal(a[k], b[k]) for k in names)
    kept = arrays_of(runs["keep"])
    critic = [k for k in kept if ".critic" in k and "kernel" in k and ".opt" not in k]
    policy = [k for k in kept if ".actor.params" in k]
    moments = [k for k in kept if ".opt" in k and (".mu" in k or ".nu" in k) and "actor" in k]
    assert critic and policy and moments and all(kept[k].any() for k in moments if "kernel" in k)
    for text, run in runs.items():
        found = arrays_of(run)
        assert same(kept, found, policy)
        assert same(kept, found, critic) == (text in ("keep", "reset-optimizer")), text
        assert all(not found[k].any() for k in moments) == ("optimizer" in text), text
        assert run.manifest["phases"][-1]["reset"] == [w.removeprefix("reset-") for w in text.split("+") if w != "keep"]
    fresh = arrays_of(small(pendulum, tmp_path / "start", "iql", offline=1, env=None))
    assert not any(np.array_equal(arrays_of(runs["reset-critic"])[k], fresh[k]) for k in critic if k in fresh)


@pytest.mark.parametrize("algorithm", ["resfit", "parrot"])
def test_a_frozen_base_rests_whatever_the_switch_says(pendulum, tmp_path, algorithm):
    """Here, and where the live phase comes later."""
    few = {"policy.hidden": (8,), "policy.base.hidden": (8,), "critic.hidden": (8,)}
    options = dict(settings=few, utd=1, n_step=1)
    at_once = small(pendulum, tmp_path / "once", algorithm, **options, offline=20, online=5, switch="mix:0.5", warmup=0)
    later = small(pendulum, tmp_path / "later", algorithm, **options, offline=20)
    base = {k: v for k, v in arrays_of(later).items() if ".actor.params['base']" in k}
    later = understudy.resume(later, online=5, switch="drop")
    assert base
    for run in (at_once, later):
        after = arrays_of(run)
        assert all(np.array_equal(v, after[k]) for k, v in base.items()), run.manifest["phases"]


@pytest.mark.parametrize("name, where", [("moorl", ("inner", "slow")), ("uni_o4", ("",)), ("ppo", ("",))])
def test_every_copy_of_a_critic_starts_afresh(name, where):
    """MOORL's slow copy as well as the fast one; the value that plays in Uni-O4 as well as the offline ones."""
    like = lambda *shape: np.zeros((1, *shape))
    batch = {k: like(3) for k in ("observations", "next_observations")} | {k: like() for k in ("rewards", "masks")}
    batch["actions"] = like(1)
    old, fresh = (understudy.make(name, 1).init(jax.random.key(k), batch) for k in (0, 1))
    found = start_afresh(old, fresh, ["critic"])
    for part in where:
        of = lambda state: getattr(state, part) if part else state  # noqa: B023
        for field in ("actor", "critic", "value"):
            if hasattr(of(old), field):
                params = lambda state: [x for x in jax.tree.leaves(getattr(of(state), field)) if x.ndim > 1]  # noqa: B023
                kept, new = ([np.array_equal(x, y) for x, y in zip(params(found), params(s))] for s in (old, fresh))
                assert all(kept if field == "actor" else new) and not all(new if field == "actor" else kept), field


def test_an_algorithm_without_a_critic_cannot_reset_it(pendulum, tmp_path):
    settings = {"policy.hidden": (8, 8)}
    with pytest.raises(SettingsError, match="reset-critic needs an algorithm with a critic beside the policy"):
        small(pendulum, tmp_path / "run", "bc", online=5, switch="reset-critic", settings=settings)
    assert not (tmp_path / "run").exists()


# --- settings of one phase


def test_settings_of_the_online_phase_hold_there_only(pendulum, tmp_path):
    offline = small(pendulum, tmp_path / "offline")
    still = {"learning_rate": 0.0, "critic.learning_rate": 0, "tau": 0, "target_policy_tau": np.float32(0)}
    run = small(pendulum, tmp_path / "run", online=6, online_settings=still)
    before, after = arrays_of(offline), arrays_of(run)
    parameters = [k for k in before if ".opt" not in k and "kernel" in k]
    assert len(parameters) > 8
    for name in parameters:  # learned offline, and nothing online
        np.testing.assert_array_equal(before[name], after[name])
    expected = {"learning_rate": 0.0, "critic.learning_rate": 0.0, "critic.tau": 0.0, "target_policy_tau": 0.0}
    assert dict(map(tuple, run.manifest["phases"][1]["settings"])) == expected
    assert dict(map(tuple, checkpoint.latest(run.path)[1]["phases"][1]["settings"])) == expected
    assert run.manifest["phases"][0]["settings"] == [] and run.manifest["settings"]["learning_rate"] == 3e-4
    about = json.loads((run.path / "policy.json").read_text())
    assert about["overrides"]["learning_rate"] == about["settings"]["learning_rate"] == 0.0
    assert run.policy(np.zeros(3)).shape == (1,)
    moved = arrays_of(understudy.resume(run, online=9, settings={"critic.discount": 0.9}))
    for name in parameters:  # a longer online phase keeps them
        np.testing.assert_array_equal(before[name], moved[name])
    own = understudy.resume(run, online=10, settings={"critic.tau": 0.1})  # what is asked for now holds
    names = [name for name, _ in own.manifest["phases"][1]["settings"]]
    assert names == ["learning_rate", "critic.learning_rate", "target_policy_tau"]
    fresh = SMALL | {"policy": "tanh_gaussian"}
    other = understudy.resume(run, online=12, algorithm="sac", settings=fresh)  # they were the other algorithm's
    assert other.manifest["phases"][1]["settings"] == []


def test_structure_cannot_differ_between_phases(pendulum, tmp_path):
    for settings, message in (
        ({"critic.ensemble": 3}, "critic.ensemble is structure, which stays the same for the whole run; only numbers"),
        ({"critic.discont": 1}, "Did you mean 'critic.discount'"),
        ({"critic.discount": 3}, "critic.discount is 3; give a number from 0 to 1."),
    ):
        with pytest.raises(SettingsError) as error:
            small(pendulum, tmp_path / "run", online=5, online_settings=settings)
        assert message in str(error.value) and not (tmp_path / "run").exists()


# --- a first online phase, later


def test_a_switch_that_is_yet_to_come_waits_for_the_first_online_phase(pendulum, tmp_path):
    given = dict(switch="warmup:4+drop", utd=2, online_settings={"learning_rate": 1e-5})
    run = small(pendulum, tmp_path / "run", **given)
    assert [p["name"] for p in run.manifest["phases"]] == ["offline"] and run.manifest["switch"] == "warmup:4+drop"
    whole = small(pendulum, tmp_path / "whole", online=6, **given)
    run = understudy.resume(run, online=6)
    assert run.manifest["phases"] == whole.manifest["phases"]
    assert [(p["name"], p["env_steps"], p["offline_share"]) for p in run.manifest["phases"]] == [
        ("offline", 0, 1.0), ("warmup", 4, 0.0), ("online", 6, 0.0)]  # fmt: skip
    assert not run.manifest["phases"][1]["random_actions"], "the policy was pretrained"
    a, b = arrays_of(run), arrays_of(whole)
    assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
    with pytest.raises(SettingsError, match="online phase already has its switch and online_settings"):
        understudy.resume(run, online=9, switch="drop", online_settings={"learning_rate": 1.0})


def test_a_resume_may_say_another_switch(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", offline_share=0.25, switch="warmup:4")
    run = understudy.resume(run, online=6, switch="reset-critic", online_settings={"learning_rate": 0})
    assert [p["name"] for p in run.manifest["phases"]] == ["offline", "online"]
    online = run.manifest["phases"][1]
    assert (online["offline_share"], online["reset"], online["settings"]) == (
        0.25,
        ["critic"],
        [["learning_rate", 0.0]],
    )
    assert run.manifest["switch"] == "mix:0.25+reset-critic"


def test_a_share_of_no_data_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="--switch mix:0.5 mixes in data and there are none"):
        small(None, tmp_path / "run", "sac", offline=0, online=10, switch="mix:0.5")


# --- a recipe's own run


def test_wsrl_brings_its_switch_its_utd_and_the_weight_of_its_online_phase(pendulum, tmp_path, monkeypatch):
    seen, interact = [], programs.interact
    spy = lambda *args, **kwargs: seen.append((args[4].sizes(), kwargs["updates"])) or interact(*args, **kwargs)
    monkeypatch.setattr(programs, "interact", spy)
    settings = SMALL | {"critic.samples": 2, "critic.ensemble": 3}
    run = small(pendulum, tmp_path / "run", "wsrl", online=3, warmup=5, settings=settings)
    offline, warmup, online = run.manifest["phases"]
    assert (warmup["env_steps"], warmup["random_actions"], online["offline_share"], online["utd"]) == (5, False, 0, 4)
    assert online["settings"] == [["critic.weight", 0.0]] and run.manifest["switch"] == "warmup:5+drop"
    assert seen == [({"replay": 8}, 0)] * 5 + [({"replay": 8}, 4)] * 3
    counts = {k: int(x[0]) for k, x in arrays_of(run).items() if "opt[0].count" in k}
    assert counts == {"['state'].actor.opt[0].count": 20 + 3, "['state'].aux.opt[0].count": 20 + 3,
                      "['state'].critic.q.opt[0].count": 20 + 12}  # fmt: skip
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    gaps = {r["phase"]: r["metrics"]["critic/gap"][0] for r in rows if "metrics" in r}
    assert gaps["offline"] > 0 and gaps["online"] == 0


def test_ooo_explores_with_a_bonus_and_retrains_without_it(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", "ooo", offline=3, online=4,
                settings=SMALL | {"bonus_hidden": (8,), "bonus_features": 4})  # fmt: skip
    offline, online, retrain = run.manifest["phases"]
    assert online["settings"] == [["bonus", 10.0]] and offline["settings"] == retrain["settings"] == []
    assert (retrain["updates"], retrain["restart"], retrain["successes"]) == (3 + 4, True, 8 / 256)
    assert offline["successes"] == online["successes"] == 0


@pytest.mark.parametrize("place", ["device", pytest.param("host", marks=pytest.mark.slow)])
def test_retraining_draws_its_share_of_successes_and_goes_on_bitwise(pendulum, tmp_path, monkeypatch, place):
    seen, chunk, killed = [], programs.chunk, [False]

    def spy(algo, state, sources, replay, sampler, *args):
        seen.append((sampler.sizes(), args[-1]))
        if killed[0] and args[1] >= 20 + 10 + 50:
            raise Killed
        return chunk(algo, state, sources, replay, sampler, *args)

    monkeypatch.setattr(programs, "chunk", spy)
    options = dict(algorithm="rebrac", online=10, switch="retrain:100+successes:0.25", data_on=place, seeds=2)
    whole = small(pendulum, tmp_path / "whole", **options)
    assert seen[0] == ({"prior": 8}, {}) and seen[-1][0] == {"prior": 3, "replay": 3, "successes": 2}
    marks = seen[-1][1]
    rewards = {"prior": understudy.data.load(pendulum).rewards, "replay": arrays_of(whole)["['replay']['rewards']"]}
    for seed in range(2):
        best = max(rewards["prior"].max(), rewards["replay"][seed].max())
        for name in ("prior", "replay"):
            x = rewards[name] if name == "prior" else rewards[name][seed]
            count = int(marks[name][1][seed])
            assert np.asarray(marks[name][0])[seed, :count].tolist() == np.flatnonzero(np.isclose(x, best)).tolist()
    killed[0] = True
    with pytest.raises(Killed):
        small(pendulum, tmp_path / "run", checkpoint_every=0.0, **options)
    killed[0] = False
    at = checkpoint.latest(tmp_path / "run")[1]["counters"]
    assert at["phase"] == 2 and 0 < at["unit"] < 100
    a, b = arrays_of(understudy.resume(tmp_path / "run")), arrays_of(whole)
    assert a.keys() == b.keys() and not [k for k in a if not np.array_equal(a[k], b[k], equal_nan=True)]


def test_a_run_that_was_live_can_still_retrain(pendulum, tmp_path):
    asked = dict(offline=3, online=4, switch="drop")
    whole = small(pendulum, tmp_path / "whole", **asked | {"switch": "drop+retrain:5+successes:0.25"})
    run = small(pendulum, tmp_path / "run", **asked)
    with pytest.raises(SettingsError, match="already has its switch; .* still be given is --switch retrain:N"):
        understudy.resume(run, switch="mix:0.5+retrain:5")
    run = understudy.resume(run, switch="retrain:5+successes:0.25")
    assert run.manifest["phases"] == whole.manifest["phases"] and run.manifest["switch"] == whole.manifest["switch"]
    a, b = arrays_of(run), arrays_of(whole)
    assert a.keys() == b.keys() and not [k for k in a if not np.array_equal(a[k], b[k], equal_nan=True)]
    with pytest.raises(SettingsError, match="already ends with 5 updates of retraining"):
        understudy.resume(run, switch="retrain:9")
    with pytest.raises(SettingsError, match="online phase is followed by a retraining, which ends a run"):
        understudy.resume(run, online=9)
    assert small(pendulum, tmp_path / "as", **asked).path and understudy.resume(
        tmp_path / "as", switch="retrain").manifest["phases"][-1]["updates"] == 3 + 4  # fmt: skip
    later = small(pendulum, tmp_path / "later", offline=3)
    later = understudy.resume(later, online=4, switch="retrain")
    assert later.manifest["phases"][-1]["updates"] == 3 + 4, "made offline and live"
    bare = small(None, tmp_path / "bare", "sac", offline=0, online=4)
    with pytest.raises(SettingsError, match="Retraining needs a data set"):
        understudy.resume(bare, switch="retrain:5")


def test_successes_of_data_without_rewards_are_refused(tmp_path):
    data = understudy.data.from_arrays(np.zeros((9, 3)), np.zeros((9, 1)), truncations=np.arange(9) == 8)
    with pytest.raises(SettingsError, match="draws successes, and .* has no rewards; leave successes out"):
        small(data, tmp_path / "run", "bc", online=5, switch="retrain+successes:0.1",
              settings={"policy.hidden": (8, 8)})  # fmt: skip


def test_the_critic_of_a_wrapped_algorithm_starts_afresh_as_well(pendulum, tmp_path):
    runs = [small(pendulum, tmp_path / text, "jsrl", offline=3, online=2, utd=0, settings=SMALL, switch=text)
            for text in ("keep", "reset-critic")]  # fmt: skip
    kept, fresh = map(arrays_of, runs)
    learned = lambda part: [k for k in kept if f"['state'].inner.{part}" in k and "kernel" in k and ".opt" not in k]
    assert learned("critic") and not any(np.array_equal(kept[k], fresh[k]) for k in learned("critic"))
    assert learned("actor") and all(np.array_equal(kept[k], fresh[k]) for k in learned("actor"))
    assert runs[0].manifest["phases"][1]["settings"] == [["follow", 0.0]]


def test_what_the_user_gives_wins_over_the_recipe(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", "wsrl", offline=2, online=2, switch="mix:0.25", utd=1,
                settings=SMALL | {"critic.samples": 2}, online_settings={"learning_rate": 1e-5})  # fmt: skip
    [_, online] = run.manifest["phases"]
    assert (online["offline_share"], online["utd"]) == (0.25, 1) and run.manifest["plan"]["batch_size"] == 8
    assert online["settings"] == [["critic.weight", 0.0], ["learning_rate", 1e-5]]


def test_another_recipe_brings_its_own_run_to_a_first_online_phase(pendulum, tmp_path):
    settings = SMALL | {"critic.samples": 2}
    run = small(pendulum, tmp_path / "run", "cal_ql", offline=4, settings=settings)
    run = understudy.resume(run, algorithm="wsrl", online=2, switch="warmup:3+drop", settings=settings)
    [_, warmup, online] = run.manifest["phases"]
    assert warmup["env_steps"] == 3 and (online["offline_share"], online["utd"]) == (0.0, 4)
    assert online["settings"] == [["critic.weight", 0.0]]


# --- bitwise


class Killed(BaseException):
    """Nothing in the library catches it."""


@pytest.mark.parametrize(
    ("step", "every", "phase", "entered"),
    [(1, 1e9, 1, False), (5, 1e9, 2, False), (5, 0.0, 2, True), (9, 0.0, 2, True)],
    ids=["at the warm-up", "entering the online phase", "having entered it", "in it"],
)
def test_a_run_killed_at_its_switch_goes_on_bitwise(pendulum, tmp_path, monkeypatch, step, every, phase, entered):
    options = dict(algorithm="rebrac", warmup=4, online=8, online_settings={"learning_rate": 1e-4},
                   switch="anneal:0.75->0.25+reset-optimizer+reset-critic")  # fmt: skip
    whole = small(pendulum, tmp_path / "whole", **options)
    steps, original = 0, Collector.step

    def stepped(self):
        nonlocal steps
        steps += 1
        if steps == step:
            raise Killed
        return original(self)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Collector, "step", stepped)
        small(pendulum, tmp_path / "run", checkpoint_every=every, **options)
    at = checkpoint.latest(tmp_path / "run")[1]["counters"]
    assert (at["phase"], at["entered"]) == (phase, entered)
    a, b = arrays_of(understudy.resume(tmp_path / "run")), arrays_of(whole)
    assert a.keys() == b.keys() and not [k for k in a if not np.array_equal(a[k], b[k], equal_nan=True)]


def test_a_recipes_reset_is_left_out_where_nothing_was_pretrained(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", "parrot", offline=0, online=3)
    (online,) = run.manifest["phases"]
    assert online["name"] == "online" and not online["reset"]


@pytest.mark.parametrize(("algorithm", "switch"), [("h2o", "anneal:0.5->0"), ("moorl", "keep"), ("arsq", "keep")])
def test_a_share_that_changes_is_refused_where_rows_must_be_told_apart(pendulum, tmp_path, algorithm, switch):
    with pytest.raises(SettingsError, match="must know which rows of a batch are the data's.* give mix:S"):
        understudy.train(algorithm, pendulum, env="Pendulum-v1", offline=0, online=10, switch=switch,
                         out=tmp_path / "run")  # fmt: skip
    assert not (tmp_path / "run").exists()
