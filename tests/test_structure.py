"""Rules of structure that keep the library small while it grows."""

import pathlib

from understudy import registry
from understudy.algorithm import ActorCritic
from understudy.core import CAPABILITIES
from understudy.wrappers import core_of

PACKAGE = pathlib.Path(registry.__file__).parent


def test_a_paper_is_one_short_file():
    long = {p.name: n for p in (PACKAGE / "algorithms").glob("*.py") if (n := len(p.read_text().splitlines())) >= 150}
    assert not long, f"split what is not the paper's own: {long}"


def test_policies_have_at_most_six_capabilities():
    assert len(CAPABILITIES) <= 6


def test_a_run_knows_no_algorithm_by_name():
    for path in (PACKAGE / "run").glob("*.py"):
        if path.name != "baseline.py":  # whose point is to be RLPD
            known = [n for n in registry.ALGORITHMS if f'"{n}"' in path.read_text()]
            assert not known, f"{path.name} names {known}; what a paper adds to a run belongs to its Entry"


def test_most_algorithms_are_the_one_composition():
    of_their_own = [n for n in registry.ALGORITHMS if not isinstance(core_of(registry.make(n, 2)), ActorCritic)]
    assert 3 * len(of_their_own) <= len(registry.ALGORITHMS), f"{of_their_own} bypass ActorCritic: mend the seams first"
