"""Presets: every one fits every algorithm, and the numbers are those of the tables."""

from __future__ import annotations

import pytest

from understudy import presets, registry, settings
from understudy.errors import SettingsError
from understudy.run import switch


@pytest.mark.parametrize("name", presets.presets())
def test_every_preset_fits_every_algorithm(name):
    preset = presets.get(name)
    unknown = set(preset.algorithms) - set(registry.ALGORITHMS)
    assert not unknown, "a group for an algorithm that does not exist would never be applied"
    for algorithm in registry.ALGORITHMS:
        registry.make(algorithm, 2, preset=name)
        run = preset.run_for(algorithm)
        assert set(run) <= set(presets.RUN_KEYS)
        assert (registry.ALGORITHMS[algorithm].run | run)["batch_size"] >= 1 and 0 <= run.get("offline_share", 0.5) <= 1
    assert preset.source and preset.summary
    assert len(f"{preset.name:<38}{preset.summary}") <= 80, "the list fits a terminal of 80 columns"


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_the_runs_of_recipes_and_presets_can_be_planned(name):
    """Their switches parse, agree with the options beside them, and name settings that the algorithm has."""
    recipe = registry.ALGORITHMS[name].run
    assert set(recipe) <= set(presets.RUN_KEYS)
    for preset in (None, *presets.presets()):
        own = presets.get(preset).run_for(name) if preset else {}
        switch.resolve(recipe, own)
        algorithm = registry.make(name, 2, preset=preset)
        for run in (recipe, own):
            settings.numbers(algorithm, run.get("online_settings", {}))


def test_what_is_shared_gives_way_to_what_a_recipe_says_of_its_run():
    for name in presets.presets():
        assert "batch_size" not in presets.get(name).run_for("hnpg"), "the recipe's 1000"
        assert presets.get(name).run_for("iql")["batch_size"] == 256
    assert presets.get("d4rl").run_for("rlpd")["utd"] == presets.get("d4rl").run["rlpd"]["utd"]


def test_a_field_in_a_group_of_its_own_must_exist_and_a_shared_one_need_not():
    make = lambda settings: presets.Preset("p", "s", "s", settings)
    bc, iql = registry.make("bc", 2), registry.make("iql", 2)
    assert make({"*": {"critic.expectile": 0.9}}).apply("bc", bc) == bc
    with pytest.raises(SettingsError, match="Preset 'p' does not fit bc: There is no setting 'critic.expectile'"):
        make({"bc": {"critic.expectile": 0.9}}).apply("bc", bc)
    assert make({"bc": {"critic.expectile": 0.9}}).apply("iql", iql) == iql


def test_the_base_comes_first_and_each_own_group_wins_over_the_shared_one(monkeypatch):
    below = {"*": {"critic.tau": 0.1}, "iql": {"critic.expectile": 0.8}}
    above = {"*": {"critic.tau": 0.2, "critic.expectile": 0.9}, "iql": {"critic.tau": 0.3}}
    base = presets.Preset("base", "s", "s", below, {"*": {"utd": 2}})
    top = presets.Preset("top", "s", "s", above, {"iql": {"utd": 4, "warmup": 10}}, base="base")
    monkeypatch.setattr(presets, "presets", lambda: {"base": base, "top": top})
    critic = registry.make("iql", 2, preset="top").critic
    assert (critic.tau, critic.expectile) == (0.3, 0.9)
    assert top.run_for("iql") == {"utd": 4, "warmup": 10}
    assert top.run_for("cql") == {"utd": 2}


def test_unknown_presets_get_a_suggestion():
    with pytest.raises(SettingsError, match="no preset 'ogbench-cube-singel'. Did you mean 'ogbench-cube-single'"):
        presets.get("ogbench-cube-singel")
    assert presets.get("OGBench_Cube_Single").name == "ogbench-cube-single"


def value(algorithm: str, preset: str, name: str):
    return settings.as_dict(registry.make(algorithm, 2, preset=preset))[name]


VALUED = [  # those with a critic of ours
    a for a in registry.ALGORITHMS if a not in ("bc", "ppo", "dppo", "uni_o4", "arsq", "hnpg")
]


@pytest.mark.parametrize("algorithm", VALUED)
def test_the_two_stacks(algorithm):
    big = value(algorithm, "ogbench", "critic.hidden"), value(algorithm, "ogbench", "policy.hidden")
    assert big == ([512] * 4, [512] * 4)
    assert value(algorithm, "ogbench", "critic.activation") == "gelu"
    assert value(algorithm, "ogbench", "policy.activation") == "gelu"
    assert value(algorithm, "ogbench", "critic.layer_norm") == "after"
    deep = algorithm in ("rebrac", "diffusion_ql", "dsrl", "ro2o")
    assert value(algorithm, "d4rl", "critic.hidden") == ([256] * 3 if deep else [256] * 2)
    assert value(algorithm, "d4rl", "critic.backup") == "min"
    run = registry.ALGORITHMS[algorithm].run | presets.get("d4rl").run_for(algorithm)
    assert run["batch_size"] == (512 if algorithm in ("idql", "moorl") else 256)
    for stack in ("d4rl", "ogbench"):
        ten = algorithm in ("resfit", "ro2o") or (stack == "d4rl" and algorithm in ("rlpd", "wsrl", "pa_rl"))
        assert value(algorithm, stack, "critic.ensemble") == (10 if ten else 2)


def test_the_mean_of_two_is_ogbenchs_except_where_its_own_code_takes_the_minimum():
    backups = {a: value(a, "ogbench", "critic.backup") for a in VALUED}
    mean = {"td3_bc", "cql", "cal_ql", "wsrl", "ooo", "jsrl", "fql", "qc", "qc_fql", "idql", "diffusion_ql",
            "pa_rl"}  # fmt: skip
    assert {a for a, how in backups.items() if how == "mean"} == mean


@pytest.mark.parametrize(
    ("preset", "algorithm", "name", "expected"),
    [
        # arXiv:2502.02538, tables 6 and 7
        ("ogbench-cube-single", "iql", "extraction.beta", 1.0),
        ("ogbench-cube-single", "iql", "critic.expectile", 0.9),
        ("ogbench-cube-single", "rebrac", "extraction.alpha", 1.0),
        ("ogbench-cube-single", "rebrac", "critic.penalty", 0.0),
        ("ogbench-cube-single", "rebrac", "extraction.normalise", True),
        ("ogbench-cube-single", "fql", "extraction.alpha", 300.0),
        ("ogbench-cube-single", "fql", "extraction.normalise", False),
        ("ogbench-cube-single", "fql", "critic.backup", "mean"),
        ("ogbench-cube-single", "ifql", "extraction.samples", 32),
        ("ogbench-antmaze-giant", "fql", "critic.discount", 0.995),
        ("ogbench-antmaze-giant", "fql", "critic.backup", "min"),
        ("ogbench-puzzle-4x4", "iql", "extraction.beta", 3.0),
        ("ogbench-puzzle-4x4", "cal_ql", "critic.weight", 0.003),
        ("ogbench-antsoccer-arena-finetune", "ifql", "extraction.samples", 64),
        # own conversions: 300 / (1 / 0.01), 1000 / (9 / 0.01), 1 * (1 / 0.01)
        ("ogbench-cube-single-normalised", "fql", "extraction.alpha", 3.0),
        ("ogbench-cube-single-normalised", "fql", "extraction.normalise", True),
        ("ogbench-puzzle-3x3-normalised", "fql", "extraction.alpha", 1.11),
        ("ogbench-cube-single-raw", "rebrac", "extraction.alpha", 100.0),
        ("ogbench-cube-single-raw", "rebrac", "extraction.normalise", False),
        # ReBRAC, per data set
        ("d4rl-hopper-medium-replay", "rebrac", "extraction.alpha", 0.05),
        ("d4rl-hopper-medium-replay", "rebrac", "critic.penalty", 0.5),
        ("d4rl-hopper-medium-replay", "rebrac", "learning_rate", 1e-3),
        ("d4rl-walker2d-expert", "rebrac", "critic.penalty", 0.5),
        ("d4rl-antmaze-large-diverse", "rebrac", "extraction.alpha", 0.002),
        ("d4rl-antmaze-large-diverse", "rebrac", "critic.discount", 0.999),
        ("d4rl-antmaze-large-diverse", "rebrac", "critic.learning_rate", 5e-5),
        ("d4rl-door-cloned", "rebrac", "extraction.alpha", 0.01),
        ("d4rl-door-cloned", "rebrac", "critic.penalty", 0.1),
        # IQL, Cal-QL, RLPD
        ("d4rl-antmaze-medium-play", "iql", "extraction.beta", 10.0),
        ("d4rl-antmaze-medium-play", "cal_ql", "critic.gap_target", 0.8),
        ("d4rl-antmaze-medium-play", "cal_ql", "critic.hidden", [256] * 4),
        ("d4rl-antmaze-medium-play", "rlpd", "critic.subset", 1),
        ("d4rl-antmaze-medium-play", "rlpd", "critic.entropy", False),
        ("d4rl-antmaze-medium-play", "pa_rl", "critic.hidden", [256] * 4),
        ("d4rl-antmaze-medium-play", "pa_rl", "extraction.keep", 10),
        ("d4rl-antmaze-medium-play", "pa_rl", "after_decay", 1 / 6),  # 5e-5 / 3e-4
        ("d4rl-kitchen", "cal_ql", "critic.importance", False),
        ("adroit-sparse", "cal_ql", "critic.weight", 1.0),
        ("adroit-sparse", "cal_ql", "critic.hidden", [512] * 3),
        ("adroit-sparse", "cal_ql", "policy.hidden", [512] * 2),
        ("adroit-sparse", "cal_ql", "learning_rate", 1e-4),
        ("adroit-sparse", "rlpd", "critic.hidden", [256] * 3),
        ("adroit-sparse", "rlpd", "critic.ensemble", 10),
        # IDQL, Diffusion-QL
        ("d4rl", "idql", "policy.hidden", [256] * 3),
        ("d4rl-antmaze-large-play", "idql", "critic.expectile", 0.9),
        ("d4rl-antmaze-large-play", "diffusion_ql", "extraction.eta", 4.5),
        ("d4rl-antmaze-large-play", "diffusion_ql", "critic.backup_samples", 10),
        ("d4rl-antmaze-umaze", "diffusion_ql", "critic.backup_samples", 1),
        ("d4rl-antmaze-medium-play", "diffusion_ql", "learning_rate", 1e-3),
        # WSRL, per domain
        ("d4rl", "wsrl", "policy.layer_norm", "before"),
        ("d4rl", "wsrl", "learning_rate", 1e-4),
        ("d4rl-antmaze-large-diverse", "wsrl", "critic.hidden", [256] * 4),
        ("d4rl-antmaze-large-diverse", "wsrl", "critic.lagrange", True),
        ("d4rl-halfcheetah-medium-replay", "wsrl", "critic.calibrated", False),
        ("d4rl-kitchen", "wsrl", "critic.importance", False),
        ("adroit-sparse", "wsrl", "critic.weight", 1.0),
        ("adroit-sparse", "wsrl", "policy.hidden", [512] * 2),
        # TD3+BC's alpha of 2.5 divides the imitation here
        ("d4rl", "td3_bc", "extraction.alpha", 0.2),  # 1 / 2.5 A with A = 2
    ],
)  # fmt: skip
def test_numbers_of_the_tables(preset, algorithm, name, expected):
    assert value(algorithm, preset, name) == expected


@pytest.mark.parametrize("algorithm", ["cal_ql", "wsrl", "rlpd"])
def test_sparse_adroit_rewards_become_the_binary_ones(algorithm):
    binary, sparse = presets.get("adroit-binary").run_for(algorithm), presets.get("adroit-sparse").run_for(algorithm)
    shape = lambda run, r: run.get("reward_scale", 1.0) * r + run.get("reward_bias", 0.0)
    for before, after in ((-1, -0.1), (0, 10)):  # the same event in the two environments
        assert shape(sparse, after) == pytest.approx(shape(binary, before))


def test_numbers_of_runs():
    assert presets.get("adroit-binary").run_for("wsrl") == {
        "offline": 20_000, "reward_scale": 10.0, "reward_bias": 5.0}  # fmt: skip
    assert presets.get("adroit-binary").run_for("cal_ql") == {
        "batch_size": 256, "offline_share": 0.5, "utd": 1, "reward_scale": 10.0, "reward_bias": 5.0}  # fmt: skip
    assert presets.get("adroit-binary").run_for("rlpd") == {
        "offline": 0, "batch_size": 256, "utd": 20, "offline_share": 0.5, "warmup": 5000}  # fmt: skip
    assert presets.get("d4rl-halfcheetah-medium").run_for("rebrac")["batch_size"] == 1024
    assert presets.get("d4rl-antmaze-umaze").run_for("rebrac")["reward_scale"] == 100.0
    assert presets.get("d4rl-antmaze-umaze").run_for("iql")["reward_bias"] == -1.0
    assert presets.get("d4rl-antmaze-umaze").run_for("pa_rl") == {
        "batch_size": 256, "utd": 1, "offline_share": 0.5, "reward_bias": -1.0}  # fmt: skip
    assert presets.get("d4rl-kitchen").run_for("cal_ql") == {
        "batch_size": 256, "utd": 1, "offline_share": 0.25, "reward_bias": -4.0}  # fmt: skip


def test_a_preset_does_not_reach_an_algorithm_it_has_no_numbers_for():
    same = registry.make("td3_bc", 2, preset="d4rl") == registry.make("td3_bc", 2, preset="d4rl-antmaze-umaze")
    assert same and registry.make("iql", 2, preset="d4rl") != registry.make("iql", 2, preset="d4rl-antmaze-umaze")


@pytest.mark.parametrize(
    ("algorithm", "env", "expected"),
    [
        ("iql", "cube-single-play-singletask-task2-v0", "ogbench-cube-single"),
        ("rlpd", "AdroitHandDoorSparse-v1", "adroit-sparse"),
        ("td3_bc", "cube-single-play-singletask-v0", None),  # no numbers of its own there
        ("iql", "AdroitHandDoor-v1", None),  # dense rewards: D4RL's presets are per data set
        ("iql", "Pendulum-v1", None),
    ],
)
def test_published_settings_are_found_by_the_environment(algorithm, env, expected):
    assert presets.published(algorithm, env) == expected
