"""Names: matching, laziness, plug-ins, and `make`."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types

import pytest

from understudy import registry
from understudy.algorithm import ActorCritic
from understudy.errors import SettingsError
from understudy.exchange import keep_policy
from understudy.run.given import phase_settings
from understudy.wrappers import action_size_of, core_of


@pytest.mark.parametrize(
    ("given", "name"),
    [("iql", "iql"), ("IQL", "iql"), ("td3-bc", "td3_bc"), ("TD3+BC", "td3_bc"), ("Cal-QL", "cal_ql"),
     ("calql", "cal_ql"), ("ReBRAC", "rebrac")],
)  # fmt: skip
def test_case_and_hyphens_do_not_matter(given, name):
    assert registry.match("algorithm", given, registry.ALGORITHMS) == name


def test_an_unknown_name_gets_a_suggestion_and_where_to_look():
    with pytest.raises(SettingsError) as error:
        registry.make("iqll", 2)
    assert str(error.value) == ("There is no algorithm 'iqll'. Did you mean 'iql'? See: understudy list algorithms")
    with pytest.raises(SettingsError, match="understudy list policies"):
        registry.load("policy", "transfusion")


def test_importing_understudy_and_its_names_loads_nothing_heavy():
    code = (
        "import sys, understudy, understudy.registry, understudy.presets, understudy.settings;"
        "understudy.presets.presets(); understudy.registry.entries('algorithm'); understudy.__version__;"
        "heavy = {'jax', 'numpy', 'flax', 'optax', 'gymnasium', 'matplotlib', 'h5py', 'rich'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_every_recipe_loads_and_takes_the_action_size(name):
    algorithm = registry.make(name, 3)
    assert action_size_of(algorithm) == 3
    assert registry.load("algorithm", name).__doc__, "a recipe says in one line what it is"


def test_policies_tell_their_capabilities():
    can = {name: registry.capabilities(registry.load("policy", name)) for name in registry.POLICIES}
    assert can["gaussian"] == ["mode", "rsample", "log_prob"]
    assert can["deterministic"] == ["mode", "rsample"]
    assert "sample_and_log_prob" in can["tanh_gaussian"]
    assert can["flow"] == can["diffusion"] == can["shortcut"] == ["rsample", "latent"]
    assert can["mixture"] == ["mode", "log_prob"]
    assert "rsample" in can["one_step_flow"]
    assert can["tokens"] == can["coarse_to_fine"] == ["mode", "log_prob", "sample_and_log_prob"]
    assert can["residual"] == ["rsample"], "what it has only with some bases is not promised"


def test_a_base_is_named_like_a_policy_and_keeps_the_shape_of_its_networks():
    algorithm = registry.make("resfit", 3, {"policy.base": "gaussian", "policy.base.std": 0.5, "policy.scale": "0.2"})
    assert type(algorithm.policy).__name__ == "Residual" and algorithm.policy.scale == 0.2
    base = algorithm.policy.base
    assert (type(base).__name__, base.action_size, base.hidden, base.std) == ("Gaussian", 3, (256, 256), 0.5)
    assert hasattr(algorithm.policy, "mode") and not hasattr(registry.make("resfit", 3).policy, "mode")
    both = registry.make("rlpd", 3, {"policy": "latent", "policy.base": "Real-NVP", "policy.base.layers": 6})
    assert (type(both.policy.base).__name__, both.policy.base.layers) == ("RealNVP", 6)
    same = registry.make("parrot", 3, {"policy.base": "real_nvp"})
    assert same == registry.make("parrot", 3), "naming the base it has keeps its settings"


def test_a_base_that_does_not_fit_is_refused():
    with pytest.raises(SettingsError, match="TanhGaussian, acts through no base; leave out --policy.base"):
        registry.make("sac", 3, {"policy.base": "flow"})
    with pytest.raises(SettingsError, match="Gaussian has none; name a base with latent"):
        registry.make("dsrl", 3, {"policy.base": "gaussian"})
    with pytest.raises(SettingsError, match="policy.base is 7; give the name of a policy class"):
        registry.make("dsrl", 3, {"policy.base": 7})


def test_overrides_make_the_same_algorithm_again_whatever_was_changed_before():
    plain = registry.make("resfit", 3)
    first = registry.overrides(plain, {"policy.base": "gaussian", "policy.base.std": "0.5", "policy.base.hidden": "8"})
    assert first == {"policy.base": "gaussian", "policy.base.std": 0.5, "policy.base.hidden": [8]}
    assert registry.adjust(plain, first).policy.base.std == 0.5
    second = registry.overrides(plain, {"policy.base": "deterministic", "policy.scale": 0.3}, before=first)
    assert second == {"policy.base": "deterministic", "policy.base.hidden": [8], "policy.scale": 0.3}
    third = registry.overrides(plain, {"policy": "flow"}, before=second)
    assert third == {"policy": "flow"}, "another policy has no such base"
    with pytest.raises(SettingsError, match="There is no policy 'gausian'. Did you mean 'gaussian'"):
        registry.overrides(plain, {"policy.base": "gausian"})


def test_a_critic_or_an_extraction_is_that_of_another_algorithm():
    algorithm = registry.make("pa_rl", 3, {"critic": "Cal-QL", "extraction": "iql", "critic.hidden": "8 8"}, "ogbench")
    cal_ql = registry.make("cal_ql", 3).critic
    same = dataclasses.replace(cal_ql, hidden=(8, 8), activation="gelu", layer_norm="after")
    assert algorithm.critic == same, "the recipe's, in the shape of the networks that were there"
    assert algorithm.extraction == registry.make("iql", 3).extraction
    assert registry.make("bc", 3, {"critic": "iql"}).critic == registry.make("iql", 3).critic
    assert registry.make("iql", 4, {"extraction": "td3_bc"}).extraction.alpha == 0.1, "the action size is 4"
    chunks = registry.make("qc", 3, {"critic": "iql"})
    assert type(chunks).__name__ == "Chunked" and type(core_of(chunks).critic).__name__ == "IQLCritic"
    assert registry.overrides(registry.make("bc", 3), {"critic": "IQL", "critic.expectile": 0.8}) == {
        "critic": "iql", "critic.expectile": 0.8,
    }  # fmt: skip
    with pytest.raises(SettingsError, match="PPO has no exchangeable critic; leave out --critic"):
        registry.make("ppo", 3, {"critic": "iql"})
    with pytest.raises(SettingsError, match="whose critic is taken, and ppo has none; name one that does"):
        registry.make("bc", 3, {"critic": "ppo"})
    with pytest.raises(SettingsError, match="There is no algorithm 'iqll'. Did you mean 'iql'"):
        registry.make("bc", 3, {"critic": "iqll"})


def test_an_algorithm_keeps_the_policy_of_the_one_before_where_that_fits():
    def kept(before, settings, name, given={}):  # noqa: B006
        algorithm = registry.make(name, 3)
        found, why = keep_policy(algorithm, registry.make(before, 3, settings), given)
        return core_of(registry.adjust(algorithm, registry.overrides(algorithm, given, before=found))).policy, why

    diffusion = {"policy": "diffusion", "policy.hidden": "8 8", "policy.steps": 3}
    assert kept("bc", diffusion, "pa_rl") == (registry.make("bc", 3, diffusion).policy, "")
    policy, why = kept("bc", diffusion, "pa_rl", {"policy.steps": 4})
    assert (type(policy).__name__, policy.hidden, policy.steps, why) == ("Diffusion", (8, 8), 4, "")
    policy, why = kept("bc", diffusion, "pa_rl", {"policy": "mixture"})
    assert (type(policy).__name__, policy.hidden, why) == ("Mixture", (8, 8), "")
    own, why = kept("bc", diffusion, "sac")
    assert own == registry.make("sac", 3).policy and "needs a policy with sample_and_log_prob" in why
    residual = {"policy": "residual", "policy.base": "gaussian", "policy.base.std": 0.3}
    assert kept("bc", residual, "resfit")[0] == registry.make("bc", 3, residual).policy
    assert kept("arsq", {}, "iql") == (registry.make("iql", 3).policy, ""), "it has none that could go on"
    arsq = registry.make("arsq", 3)
    assert keep_policy(arsq, registry.make("bc", 3), {}) == ({}, "ARSQ has one of its own.")
    chunks, _ = keep_policy(registry.make("pa_rl", 3), registry.make("qc", 3), {})
    assert chunks["chunk"] == 5 and chunks["policy"] == "flow"


def test_another_policy_class_keeps_the_shape_of_the_networks():
    given = {"policy": "flow", "policy.hidden": "32 32", "policy.steps": 4}
    algorithm = registry.make("iql", 3, given, preset="ogbench")
    assert type(algorithm.policy).__name__ == "Flow"
    assert algorithm.policy.action_size == 3
    assert algorithm.policy.activation == "gelu"  # the preset's, carried over
    assert algorithm.policy.hidden == (32, 32)
    assert algorithm.policy.steps == 4
    assert registry.make("iql", 3, {"policy": "flow"}, preset="ogbench").policy.hidden == (512,) * 4


def test_naming_the_policy_it_has_keeps_its_settings():
    usual = registry.make("iql", 3, preset="ogbench")
    assert registry.make("iql", 3, {"policy": "Gaussian"}, preset="ogbench") == usual


def test_a_policy_that_is_not_a_name_is_refused():
    with pytest.raises(SettingsError, match="give the name of a policy class"):
        registry.make("iql", 3, {"policy": 7})


def test_settings_win_over_the_preset_and_the_preset_over_the_recipe():
    assert registry.make("iql", 2).extraction.beta == 1.0
    assert registry.make("iql", 2, preset="ogbench").extraction.beta == 10.0
    assert registry.make("iql", 2, {"extraction.beta": 4.0}, preset="ogbench").extraction.beta == 4.0


def test_adjust_changes_a_made_algorithm():
    algorithm = registry.adjust(registry.make("td3_bc", 4), {"policy": "gaussian", "alpha": "0.2"})
    assert (type(algorithm.policy).__name__, algorithm.policy.action_size) == ("Gaussian", 4)
    assert algorithm.extraction.alpha == 0.2


def test_the_data_sets_are_all_that_the_players_record():
    from understudy.data import players

    single, raw = registry.datasets(), registry.datasets(single=False)
    assert [n.removeprefix("ogbench/") for n in raw] == players.names()
    assert len(single) == len(raw) and "ogbench/puzzle-4x6-noisy-singletask-v0" in single
    assert all(players.protocol(n.removeprefix("ogbench/")).task_env for n in single)
    assert single["ogbench/pointmaze-giant-stitch-singletask-v0"] == "point maze, short pieces"


# --- plug-ins -------------------------------------------------------------------------------------------------------


def point(name: str, value: str):
    """What importlib.metadata gives for an entry point."""
    return types.SimpleNamespace(name=name, value=value, dist=types.SimpleNamespace(name="understudy-outside"))


@pytest.fixture
def outside(monkeypatch, tmp_path):
    """A package that brings an algorithm, one that does not import, and one under a name that is taken."""
    (tmp_path / "outside_good.py").write_text(
        "from understudy.algorithms.bc import bc\ndef mine(action_size):\n    return bc(action_size)\n"
    )
    (tmp_path / "outside_bad.py").write_text("raise RuntimeError('no such device')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = {
        "understudy.algorithms": [point("mine", "outside_good:mine"), point("broken", "outside_bad:mine"),
                                  point("iql", "outside_bad:mine")],
        "understudy.policies": [],
    }  # fmt: skip
    monkeypatch.setattr(registry, "_points", lambda group: points[group])
    yield
    for name in ("outside_good", "outside_bad"):
        sys.modules.pop(name, None)


def test_a_plug_in_is_listed_without_being_imported_and_loaded_by_name(outside):
    found = registry.entries("algorithm")
    assert found["mine"].package == "understudy-outside"
    assert "outside_good" not in sys.modules
    assert type(registry.make("mine", 2).extraction).__name__ == "Imitate"
    assert "outside_good" in sys.modules and "outside_bad" not in sys.modules


def test_a_plug_in_that_does_not_import_is_named(outside):
    with pytest.raises(SettingsError, match="'broken' of the package understudy-outside.*no such device"):
        registry.make("broken", 2)


def test_a_plug_in_does_not_replace_what_is_there(outside):
    assert registry.entries("algorithm")["iql"] == registry.ALGORITHMS["iql"]


@pytest.mark.parametrize("name", [n for n, entry in registry.ALGORITHMS.items() if "online_settings" in entry.run])
def test_what_a_recipe_sets_in_a_phase_is_left_out_with_a_word_where_its_part_was_exchanged(name, capsys):
    recipe, own = registry.run_of(name), registry.make(name, 2)
    for which in ("online_settings", "offline_settings"):
        assert phase_settings(own, [recipe], {}, which) == recipe.get(which, {}), "all of it has its place"
    assert not capsys.readouterr().err
    if not isinstance(core_of(own), ActorCritic):
        return
    other = registry.adjust(own, {"critic": "iql"})
    kept = phase_settings(other, [recipe], {"critic.expectile": 0.8}, "online_settings")
    gone = {k for k in recipe["online_settings"] if k not in kept}
    assert kept["critic.expectile"] == 0.8 and all(k.startswith("critic.") for k in gone)
    said = capsys.readouterr().err
    assert all(k in said for k in gone), said
    with pytest.raises(SettingsError, match="There is no setting 'critic.weight'"):
        phase_settings(other, [recipe], {"critic.weight": 1.0}, "online_settings")


def test_an_object_may_bring_the_defaults_of_its_run():
    from understudy.algorithms.external_pa_rl import ExternalPARL

    assert registry.run_of(ExternalPARL) == registry.run_of("pa_rl") == {"switch": "reset-optimizer"}
    assert registry.run_of(registry.make("iql", 2)) == {}


@pytest.mark.parametrize("name, settings, way_out", [
    ("pa_rl", {"critic": "cal_ql"}, "--critic.importance false --critic.entropy false"),
    ("pa_rl", {"critic": "sac"}, "--critic.entropy false"),
    ("rlpd", {"policy": "flow"}, "an algorithm whose extraction only samples"),
])  # fmt: skip
def test_a_refused_product_names_a_way_out_that_works(name, settings, way_out):
    batch = dict.fromkeys((*core_of(registry.make(name, 2, settings)).requires, "mc_returns"))
    with pytest.raises(SettingsError, match=way_out):
        core_of(registry.make(name, 2, settings)).check(batch)
    if way_out.startswith("--"):
        flags = way_out.replace("--", "").split()
        known = dict(zip(flags[::2], flags[1::2]))
        core_of(registry.make(name, 2, settings | {k: v for k, v in known.items()})).check(batch)


def test_numbers_that_are_wrong_anyhow_are_not_blamed_on_the_policy_of_a_clone():
    kept, why = keep_policy(registry.make("ppo", 1), registry.make("bc", 1), {"steps_per_rollout": 250})
    assert not why and kept["policy"] == "gaussian"
    kept, why = keep_policy(registry.make("rlpd", 1), registry.make("bc", 1, {"policy": "flow"}), {})
    assert not kept and "needs a policy with sample_and_log_prob" in why
