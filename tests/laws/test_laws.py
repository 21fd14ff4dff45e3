"""What holds of every algorithm, whatever it computes."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import act as compiled_act
from cases import init, make_batch, needed

from understudy import registry
from understudy.errors import SettingsError
from understudy.run import checkpoint
from understudy.run.policy import bare


def equal(x, y) -> bool:
    """Bitwise equal trees."""
    x, y = jax.tree.leaves(x), jax.tree.leaves(y)
    return len(x) == len(y) and all(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True) for a, b in zip(x, y))


def assert_close(x, y, rtol=2e-4, atol=2e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol), x, y)


def test_shapes_and_ranges(case):
    state, metrics = case.update(case.algorithm, case.state, case.batch, case.key)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, case.state)
    assert jax.tree.map(jnp.dtype, jax.tree.leaves(state)) == jax.tree.map(jnp.dtype, jax.tree.leaves(case.state))
    assert metrics and all(v.shape == () and v.dtype == jnp.float32 for v in metrics.values())
    assert not equal(state, case.state)
    structures = set()
    for n, greedy in ((7, False), (7, True), (1, False)):
        observations = jax.tree.map(lambda x: x[:n], make_batch()["observations"])  # noqa: B023
        act = lambda *carry: compiled_act(case.algorithm, case.state, observations, case.key, *carry, greedy=greedy)  # noqa: B023
        actions, carry = act()
        assert actions.shape == (n, case.batch["actions"].shape[-1])
        assert float(jnp.abs(actions).max()) <= 1.0
        assert all(len(x) == n for x in jax.tree.leaves(carry)), "a carry has a row for each lane"
        assert_close(act(jax.tree.map(jnp.zeros_like, carry)), (actions, carry))  # zeros are a fresh start
        assert jax.tree.map(jnp.shape, act(carry)[1]) == jax.tree.map(jnp.shape, carry)
        structures.add(jax.tree.structure(carry))
    assert len(structures) == 1, "one carry, greedy or not"


def test_what_is_deployed_acts_as_the_whole_state_does(case):
    deployed, observations = bare(case.state), jax.tree.map(lambda x: x[:7], make_batch()["observations"])
    assert len(jax.tree.leaves(deployed)) <= len(jax.tree.leaves(case.state))
    for greedy in (False, True):
        act = lambda state: compiled_act(case.algorithm, state, observations, case.key, greedy=greedy)[0]  # noqa: B023
        assert_close(act(deployed), act(case.state))


def test_finite_after_100_steps(case):
    state = case.state
    for i in range(10):
        state, metrics = case.chunk(case.algorithm, state, case.batch, case.key, 10 * i)
        bad = [k for k, v in metrics.items() if not np.isfinite(v).all()]
        assert not bad, f"{bad} at step {10 * i}"
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


def test_scan_equals_loop(case):
    state, rows = case.state, []
    for i in range(10):
        state, metrics = case.update(case.algorithm, state, case.batch, jax.random.fold_in(case.key, i))
        rows.append(metrics)
    scanned, metrics = case.chunk(case.algorithm, case.state, case.batch, case.key, 0)
    assert_close(scanned, state)
    assert_close(metrics, jax.tree.map(lambda *x: jnp.stack(x), *rows))


def test_seeds_in_one_program_equal_separate_runs_and_every_leaf_may_be_swept(case, full_batch):
    """vmap over two seeds, each with its own batch and its own value of every leaf, equals two runs."""
    algorithms = [case.algorithm, jax.tree.map(lambda x: 0.9 * x, case.algorithm)]
    batches = [needed(case.algorithm, full_batch(seed)) for seed in (0, 1)]
    keys = [jax.random.key(5), jax.random.key(6)]
    stack = lambda trees: jax.tree.map(lambda *x: jnp.stack([jnp.asarray(i) for i in x]), *trees)

    def run(algorithm, batch, key):
        start = algorithm.init(key, batch)
        body = lambda state, i: algorithm.update(state, batch, jax.random.fold_in(key, i))
        return start, *jax.lax.scan(body, start, jnp.arange(3))

    alone = []
    for algorithm, batch, key in zip(algorithms, batches, keys):
        state, rows = init(algorithm, key, batch), []
        start = state
        for i in range(3):
            state, metrics = case.update(algorithm, state, batch, jax.random.fold_in(key, i))
            rows.append(metrics)
        alone.append((start, state, stack(rows)))
    assert not equal(alone[0][2], alone[1][2])
    assert_close(jax.jit(jax.vmap(run))(stack(algorithms), stack(batches), jnp.stack(keys)), stack(alone))


def test_a_new_number_does_not_recompile(case):
    case.update(case.algorithm, case.state, case.batch, case.key)
    before = case.update._cache_size()
    leaves, structure = jax.tree.flatten(case.algorithm)
    assert leaves and all(isinstance(x, float) for x in leaves), "numbers are leaves; what is not a number is static"
    for i in range(len(leaves)):
        changed = structure.unflatten(leaves[:i] + [leaves[i] * 0.5 + 0.01] + leaves[i + 1 :])
        case.update(changed, case.state, case.batch, case.key)
    assert case.update._cache_size() == before


def test_fields_are_documented_numbers_or_structure(case):
    def walk(part):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if dataclasses.is_dataclass(value):
                walk(value)
                continue
            assert field.metadata.get("help"), f"{type(part).__name__}.{field.name} has no help"
            if field.metadata.get("static"):
                hash(value)
                choices = field.metadata.get("choices")
                assert not choices or value in choices, f"{type(part).__name__}.{field.name}"
            else:
                assert isinstance(value, float), f"{type(part).__name__}.{field.name} is {value!r}"
            low, high = field.metadata.get("low"), field.metadata.get("high")
            for number in value if isinstance(value, tuple) else (value,):  # bounds of a tuple hold for each entry
                assert low is None or number >= low, f"{type(part).__name__}.{field.name}"
                assert high is None or number <= high, f"{type(part).__name__}.{field.name}"

    walk(case.algorithm)


def test_save_load_continue_equals_uninterrupted(case, tmp_path):
    first, _ = case.chunk(case.algorithm, case.state, case.batch, case.key, 0)
    straight, _ = case.chunk(case.algorithm, first, case.batch, case.key, 10)
    checkpoint.save(tmp_path, "0", checkpoint.flatten({"state": first}), {})
    arrays, _ = checkpoint.latest(tmp_path)
    fresh = init(case.algorithm, jax.random.key(9), case.batch)
    restored = checkpoint.restore({"state": fresh}, arrays)["state"]
    assert equal(restored, first) and not equal(fresh, first)
    continued, _ = case.chunk(case.algorithm, restored, case.batch, case.key, 10)
    assert equal(continued, straight)


def test_unused_batch_keys_change_nothing(case, full_batch):
    extra = full_batch() | case.batch | {"an_unused_key": jnp.full((16, 2), jnp.nan)}
    assert extra.keys() > case.batch.keys()
    assert equal(init(case.algorithm, jax.random.key(0), extra), case.state)
    program = lambda batch: case.update.lower(case.algorithm, case.state, batch, case.key).as_text()
    if program(extra) != program(case.batch):  # the same program gives the same bits; else compare those
        plain = case.update(case.algorithm, case.state, case.batch, case.key)
        assert equal(case.update(case.algorithm, case.state, extra, case.key), plain)


def test_each_missing_key_is_named(case):
    for key in sorted(case.algorithm.requires):
        batch = {k: v for k, v in case.batch.items() if k != key}
        with pytest.raises(SettingsError) as error:
            case.algorithm.init(jax.random.key(0), batch)
        assert f"needs batch keys ['{key}']; got " in str(error.value)


def test_init_leaves_no_buffer_shared(case):
    """A state is donated to the compiled update: no array may stand in it twice."""
    made = jax.make_jaxpr(case.algorithm.init)(case.key, case.batch).jaxpr.outvars
    large = [x for x in made if x.aval.size > 1]
    assert len(large) == len(set(large))


KINDS = ("bc", "sac", "iql", "fql", "qc", "ppo", "ooo", "arsq")  # each way to be an algorithm


@pytest.mark.parametrize(
    "names", [KINDS, pytest.param(sorted({*registry.ALGORITHMS} - {*KINDS}), marks=pytest.mark.slow)]
)
def test_one_device_equals_four(names):
    """Batch sharded over four virtual devices, against one (a process of its own: XLA_FLAGS)."""
    script = pathlib.Path(__file__).with_name("four_devices.py")
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count=4 {os.environ['XLA_FLAGS']}",
                                "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(script.parents[1])}  # fmt: skip
    command = [sys.executable, str(script), *names]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    worst = json.loads(done.stdout.splitlines()[-1])
    assert worst.keys() == set(names) and max(worst.values()) < 1e-4, worst
