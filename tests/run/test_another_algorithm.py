"""A run that goes on with another algorithm, and algorithms given as objects: they bring what their recipe says."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from small import SMALL, arrays_of, small

import understudy
from understudy import registry
from understudy.errors import SettingsError
from understudy.run import checkpoint
from understudy.run.policy import bare

FEW = {"policy.hidden": (8,), "policy.base.hidden": (8,), "critic.hidden": (8,), "critic.subset": 0}
RESFIT_LIVE = {"extraction.alpha": 0.0, "learning_rate": 1e-5}


def settings_of(run) -> list[dict]:
    return [dict(p["settings"]) for p in run.manifest["phases"]]


def kernels(run) -> dict:
    return {k: x for k, x in arrays_of(run).items() if "['state'].actor.params" in k}


def test_a_live_run_goes_on_with_another_algorithm_as_that_ones_recipe_says(pendulum, tmp_path, capsys):
    options = dict(offline=6, online=4, settings={"policy.hidden": (8,)})
    run = small(pendulum, tmp_path / "run", "bc", **options)
    base = kernels(run)
    run = understudy.resume(run, algorithm="resfit", settings=FEW | {"learning_rate": 3e-5}, online=8)
    assert settings_of(run) == [{}, {"extraction.alpha": 0.0}]  # the rate is the user's
    said = capsys.readouterr().err
    for words in ("--utd 4; the run keeps its 1.", "--warmup 10000; the run keeps its 0.", "--n-step 3"):
        assert f"resfit comes with {words}" in said
    frozen = kernels(run)
    for name, before in base.items():  # nobody imitates any more, and no moment of the imitation is left
        np.testing.assert_array_equal(frozen[name.replace("params", "params['base']", 1)], before)
    steps = {k: x for k, x in arrays_of(run).items() if k.endswith(".opt[0].count")}  # of Adam, not its rate's
    assert steps and all((x <= 4).all() for x in steps.values()), "moments are new, and so is their number"


def test_an_offline_phase_that_grows_with_another_algorithm_is_as_that_ones_recipe_says(pendulum, tmp_path):
    run = small(pendulum, tmp_path / "run", "bc", offline=6, settings={"policy.hidden": (8,)})
    run = understudy.resume(run, algorithm="resfit", settings=FEW, offline=9)
    assert settings_of(run) == [{"policy.scale": 0.0}]
    last = max(k for k in kernels(run) if "['base']" not in k and k.endswith("['kernel']"))
    assert not kernels(run)[last].any(), "the correction is nothing until it is learned live"
    run = understudy.resume(run, online=2, switch="warmup:0", utd=1)
    assert settings_of(run) == [{"policy.scale": 0.0}, RESFIT_LIVE]


def test_an_object_brings_what_its_recipe_and_preset_say_of_the_run(pendulum, tmp_path):
    few = dict(offline=2, online=3, warmup=2, utd=1, settings=None)
    made = understudy.make("wsrl", 1, SMALL | {"critic.samples": 2}, preset="adroit-sparse")
    by_object = small(pendulum, tmp_path / "object", made, **few | {"batch_size": None})
    by_name = small(pendulum, tmp_path / "name", "wsrl", preset="adroit-sparse",
                    **few | {"batch_size": None, "settings": SMALL | {"critic.samples": 2}})  # fmt: skip
    assert registry.run_of(registry.adjust(made, {"critic.tau": 0.1})) == registry.run_of("wsrl")
    plain = lambda run: {k: run.manifest[k] for k in ("phases", "plan", "switch")}
    assert plain(by_object) == plain(by_name)
    assert by_object.manifest["plan"]["reward_bias"] < 0 and settings_of(by_object)[-1] == {"critic.weight": 0.0}


def init(name, key, **settings):
    like = lambda *shape: np.zeros((1, *shape))
    batch = {"observations": like(3), "actions": like(1), "rewards": like(), "masks": like(), "mc_returns": like(),
             "next_observations": like(3)}  # fmt: skip
    algorithm = understudy.make(name, 1, settings)
    return algorithm, algorithm.init(jax.random.key(key), batch)


def carried(before, after, updates=0):
    (old, state), (new, like) = before, after
    acted = [x for x in getattr(old, "acts_with", ()) if x not in getattr(new, "acts_with", ())]
    arrays = checkpoint.flatten({"state": state})
    return checkpoint.carry_over({"state": like}, arrays, acted=acted, updates=updates)[0]["state"]


def test_what_acted_goes_on_where_it_was_an_average():
    same = lambda x, y: jax.tree.map(np.testing.assert_array_equal, x, y)
    algorithm, state = init("iql", 1, act_average=True)
    state = dataclasses.replace(state, target=jax.tree.map(lambda x: x + 1, state.target))
    same(carried((algorithm, state), init("iql", 2)).actor.params, state.target)
    kept = carried((algorithm, state), init("iql", 2, act_average=True))
    same((kept.actor.params, kept.target), (state.actor.params, state.target))
    residual = carried((algorithm, state), init("resfit", 2, **{"policy.base": "gaussian"}))
    same(residual.actor.params["base"], state.target)
    algorithm, state = init("moorl", 1)
    state = dataclasses.replace(state, slow=jax.tree.map(lambda x: x + 1, state.slow))
    new = carried((algorithm, state), init("sac", 2))
    same((new.actor.params, new.critic.q.params), (state.slow.actor.params, state.slow.critic.q.params))
    again = carried((algorithm, state), init("moorl", 2))
    same((bare(again.slow), bare(again.inner.actor)), (bare(state.slow), bare(state.inner.actor)))


def test_what_the_checkpoint_did_not_count_is_as_many_updates_as_the_run_made():
    before = init("uni_o4", 1, **{"hidden": (8,), "policy.hidden": (8,)})
    assert carried(before, init("pa_rl", 2, **{"policy": "gaussian"}), updates=20).step == 20


@pytest.mark.parametrize("algorithm", ["h2o", "uni_o4"])
def test_several_steps_in_one_are_refused_where_single_ones_are_learned(algorithm, pendulum, tmp_path):
    with pytest.raises(SettingsError, match="n_step is 2 and .* learns where single steps lead; leave out n_step"):
        small(pendulum, tmp_path / "run", algorithm, offline=0, online=4, n_step=2, settings=None)
