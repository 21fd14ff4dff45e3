from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from understudy import data
from understudy.data.dataset import from_arrays, monte_carlo_returns
from understudy.errors import DataError


def two() -> dict:
    """Two trajectories of 2 and 3 transitions with all observations; the first terminates, the second is cut off."""
    o = np.array([0, 1, 2, 10, 11, 12, 13.0])[:, None]
    return dict(
        observations=o, actions=np.linspace(-1, 1, 5)[:, None], rewards=np.array([1, 2, 3, 4, 5.0]),
        terminations=[0, 1, 0, 0, 0], truncations=[0, 0, 0, 0, 1],
    )  # fmt: skip


def test_transitions_take_each_successor_from_the_same_trajectory():
    d = from_arrays(**two())
    t = d.transitions()
    assert (d.size, d.episodes, d.lengths.tolist()) == (5, 2, [2, 3])
    assert d.rows.tolist() == [0, 1, 3, 4, 5]
    assert t["observations"][:, 0].tolist() == [0, 1, 10, 11, 12]
    assert t["next_observations"][:, 0].tolist() == [1, 2, 11, 12, 13]
    assert t["masks"].tolist() == [1, 0, 1, 1, 1]
    assert t["ends"].tolist() == [False, True, False, False, True]
    assert d.truncations.tolist() == [False, False, False, False, True]
    assert t["rewards"].dtype == t["masks"].dtype == t["actions"].dtype == t["observations"].dtype == np.float32


def test_monte_carlo_returns_by_hand():
    # Terminated: 2, 1 + 0.5 * 2. Cut off with non-negative rewards: nothing is added.
    d = from_arrays(**two())
    assert d.transitions(mc_discount=0.5)["mc_returns"].tolist() == [2, 2, 3 + 0.5 * 6.5, 4 + 2.5, 5]
    # Cut off with rewards of -1: that goes on, -1 / (1 - 0.5) = -2 at the end. Cut off in success, nothing more comes.
    r, m, e = np.array([-1.0, -1, -1]), np.ones(3), np.array([0, 0, 1], bool)
    assert monte_carlo_returns(r, m, e, 0.5).tolist() == [-2, -2, -2]
    assert monte_carlo_returns(np.array([-1.0, 0, 0]), m, e, 0.5).tolist() == [-1, 0, 0]
    # A termination in mid-trajectory cuts what comes before from what comes after.
    assert monte_carlo_returns(np.array([1.0, 1, 1]), np.array([1, 0, 1]), e, 0.5).tolist() == [1.5, 1, 1]
    assert monte_carlo_returns(np.array([-5, -5, 5.0]), m, e, 0.5).tolist() == [-5 - 2.5 + 1.25, -5 + 2.5, 5]
    assert len(monte_carlo_returns(np.zeros(0), np.zeros(0), np.zeros(0, bool), 0.9)) == 0
    with pytest.raises(DataError, match=r"discount .* 1\.0"):
        monte_carlo_returns(r, m, e, 1.0)


def test_returns_do_not_reach_back_over_a_trajectory_end():
    e = np.array([1, 1], bool)
    assert monte_carlo_returns(np.array([1.0, 100]), np.ones(2), e, 0.9).tolist() == [1, 100]


def test_subset_takes_whole_trajectories():
    d = from_arrays(**two())
    first = d.subset(1)
    assert (first.size, first.episodes, len(first.observations)) == (2, 1, 3)
    assert first.sha256 != d.sha256
    assert d.subset(2).size == 2
    assert d.subset(3) is d and d.subset(99) is d
    with pytest.raises(DataError, match="at least 1"):
        d.subset(0)


def test_nested_observations_and_images():
    n = 4
    o = {"state": np.arange(n)[:, None] * 1.0, "camera": {"front": np.zeros((n, 2, 2, 3), np.uint8)}}
    after = {"state": o["state"] + 1, "camera": o["camera"]}
    d = from_arrays(o, np.zeros((n, 1)), truncations=[0, 1, 0, 1], next_observations=after)
    t = d.transitions()
    assert t["next_observations"]["state"][:, 0].tolist() == [1, 2, 3, 4]
    assert t["observations"]["camera"]["front"].dtype == np.uint8
    assert d.rewards is None and "rewards" not in t
    with pytest.raises(DataError, match="has no rewards"):
        d.transitions(mc_discount=0.9)


def test_without_successors_the_last_transition_before_a_time_out_is_left_out():
    d = from_arrays(np.arange(6.0)[:, None], np.zeros((6, 1)), np.arange(6.0), [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1])
    t = d.transitions()
    assert t["observations"][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert t["next_observations"][:, 0].tolist() == [1, 2, 2, 4, 5]  # 2 stands in for the final state
    assert t["rewards"].tolist() == [0, 1, 2, 3, 4]
    assert t["masks"].tolist() == [1, 1, 0, 1, 1]
    assert d.lengths.tolist() == [3, 2]
    assert d.truncations.tolist() == [False, False, False, False, True]


def test_a_trajectory_of_one_row_has_no_transition():
    d = from_arrays(np.arange(5.0)[:, None], np.zeros((5, 1)), truncations=[0, 1, 1, 0, 1])
    assert d.transitions()["observations"][:, 0].tolist() == [0, 3]
    assert d.transitions()["next_observations"][:, 0].tolist() == [1, 4]
    d = from_arrays(np.arange(4.0)[:, None], np.zeros((4, 1)), terminations=[1, 0, 0, 0], truncations=[0, 1, 0, 1])
    assert d.transitions()["observations"][:, 0].tolist() == [0, 2]
    assert d.lengths.tolist() == [1, 1]
    with pytest.raises(DataError, match="no row has a successor"):
        from_arrays(np.zeros((2, 1)), np.zeros((2, 1)), truncations=[1, 1])


def test_a_missing_mark_is_found_by_the_successor():
    d = from_arrays([[0.0], [1], [10], [11]], np.zeros((4, 1)), next_observations=[[1.0], [2], [11], [12]])
    assert d.lengths.tolist() == [2, 2]
    assert any("another trajectory" in note for note in d.notes)


def test_both_terminated_and_cut_off_counts_as_terminated():
    d = from_arrays([[0.0], [1]], np.zeros((2, 1)), terminations=[0, 1], truncations=[0, 1],
                    next_observations=[[1.0], [2]])  # fmt: skip
    assert d.masks.tolist() == [1, 0] and not d.truncations.any()


def test_actions_are_scaled_from_their_range():
    a = np.array([[0.0, -10], [2, 0], [4, 10]])
    d = from_arrays(np.zeros((3, 1)), a, terminations=[0, 0, 1], action_range=([0, -10], [4, 10]))
    assert d.actions.tolist() == [[-1, -1], [0, 0], [1, 1]]
    assert d.action_low.tolist() == [0, -10] and d.action_high.tolist() == [4, 10]


def test_few_actions_outside_are_clipped_and_many_are_refused():
    a = np.zeros((100, 1))
    a[7] = 1.5
    d = from_arrays(np.zeros((100, 1)), a, terminations=[0] * 99 + [1])
    assert d.actions.max() == 1 and any("1.0% of action entries" in note for note in d.notes)
    a[:30] = 2
    flags = dict(terminations=[0] * 99 + [1])
    with pytest.raises(DataError, match="30.0% of action entries .*action_range"):
        from_arrays(np.zeros((100, 1)), a, **flags)
    assert from_arrays(np.zeros((100, 1)), a, **flags, action_range=(-1, 1)).actions.max() == 1
    with pytest.raises(DataError, match="action range"):
        from_arrays(np.zeros((100, 1)), a, **flags, action_range=(1, -1))


def test_identity_depends_on_every_array_and_nothing_else():
    a, b = from_arrays(**two()), from_arrays(**two())
    assert a.sha256 == b.sha256 and len(a.sha256) == 64
    for key in ("observations", "actions", "rewards"):
        other = two()
        other[key] = other[key] * 0.5
        assert from_arrays(**other).sha256 != a.sha256
    other = two()
    other["rewards"] = None
    assert from_arrays(**other).sha256 != a.sha256


def test_the_exact_message_for_numbers_that_are_none():
    bad = two()
    bad["rewards"][3] = np.nan
    with pytest.raises(DataError) as error:
        from_arrays(**bad)
    assert str(error.value) == "arrays: rewards holds NaN, first in row 3; remove or repair that trajectory"


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(observations=np.full((7, 1), np.inf)), "observations holds infinity, first in row 0"),
        (dict(observations=np.full((7, 1), 1e300)), "observations holds infinity"),  # float32 cannot hold it
        (dict(actions=np.zeros(5, int)), r"actions has the shape \[5\]; expected \[N, A\].*discrete"),
        (dict(actions=np.array([["a"]] * 5)), "actions holds <U1 values; expected numbers"),
        (dict(rewards=np.zeros(4)), "rewards has 4 rows, actions has 5"),
        (dict(rewards=np.zeros((5, 2))), r"rewards has the shape \[5, 2\]; expected \[N\]"),
        (dict(observations=np.zeros((6, 1))), "observations has 6 rows, actions has 5"),
        (dict(observations=np.zeros(7)), r"observations has the shape \[7\]"),
        (dict(terminations=[0, 2, 0, 0, 0]), "terminations holds 2 in row 1; expected 0 or 1"),
        (dict(next_observations=np.zeros((5, 2)), observations=np.zeros((5, 1))), "next_observations .5, 2."),
        (dict(actions=np.zeros((0, 1))), "there are no rows"),
    ],
)
def test_bad_arrays_are_refused_in_one_sentence(change, message):
    with pytest.raises(DataError, match=message) as error:
        from_arrays(**(two() | change))
    assert "\n" not in str(error.value)


def test_rewards_in_a_column_are_taken():
    d = two()
    d["rewards"] = d["rewards"][:, None]
    assert from_arrays(**d).rewards.shape == (5,)


def test_time_limits_recorded_as_terminations_are_pointed_out():
    flags = np.zeros(9, bool)
    flags[[2, 5, 8]] = True
    d = from_arrays(np.zeros((9, 1)), np.zeros((9, 1)), np.zeros(9), terminations=flags)
    assert any("look like time limits" in note for note in d.notes)
    d = from_arrays(np.zeros((9, 1)), np.zeros((9, 1)), np.zeros(9), truncations=flags)
    assert not any("look like time limits" in note for note in d.notes)


def test_repr_says_what_it_is():
    assert repr(from_arrays(**two(), env="E-v0")) == (
        "Dataset(arrays: 5 transitions in 2 trajectories, observations (1,), 1 actions, with rewards, env E-v0)"
    )


def test_nothing_heavy_is_imported():
    code = ("import sys, understudy.data as d; d.load; d.check; d.info; d.from_arrays; d.make;"
            "heavy = {'jax', 'gymnasium', 'ogbench', 'h5py', 'rich', 'matplotlib'} & set(sys.modules);"
            "assert not heavy, heavy")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError):
        data.nothing  # noqa: B018
