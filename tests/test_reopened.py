"""Learning rates beyond those offered: a guided search goes there where the best lies past an end, and only there."""

import numpy as np
import pytest

import searching
import valleys
from small_study import forge_hashes
from welltuned.errors import InputError
from welltuned.records import Role
from welltuned.search import _box, _space, guided

WIDE = valleys.plan  # from 2^-12 to 2^-4; the planted optimum is near 2^-7.5


@pytest.fixture(autouse=True)
def forged(monkeypatch):
    forge_hashes(monkeypatch)


def selected(plan, surface):
    _, results = searching.run(plan, surface.answer)
    return [result for result in results if result.role is not Role.CONFIRM]


def rates_of(results):
    return sorted({result.config.learning_rate for result in results})


def regret(plan, surface):
    """Return the choice's log loss above the best of the wide box, whatever the plan offers."""
    (belief,) = guided.beliefs(plan, selected(plan, surface))
    return surface.regret(_space.choices(WIDE())[0], belief.best)


ENDS = {"too low": {"high": -10}, "too high": {"low": -5, "high": -2}}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_best_rate_is_found_where_the_box_misses_it(end, seed):
    """Within the box the best candidate is over 5 % worse than the best outside it."""
    surface = valleys.Surface(seed, edge=4.0)
    inside = regret(valleys.plan(settings="budget = 8\nreopen = false", **ENDS[end]), surface)
    assert inside > 0.05
    assert regret(valleys.plan(settings="budget = 8", **ENDS[end]), surface) < inside / 3


@pytest.mark.parametrize("end", ENDS)
def test_it_stays_within_the_box_where_it_is_told_to(end):
    plan = valleys.plan(settings="budget = 6\nreopen = false", **ENDS[end])
    offered = _box.rates(_space.choices(plan)[0])
    assert set(rates_of(selected(plan, valleys.Surface(1)))) <= set(offered)


def test_it_stays_within_a_box_that_holds_the_best():
    plan = valleys.plan(settings="budget = 8")
    offered = _box.rates(_space.choices(plan)[0])
    assert set(rates_of(selected(plan, valleys.Surface(1)))) <= set(offered)


def test_it_goes_outward_by_the_step_of_the_box():
    plan = valleys.plan(settings="budget = 8", high=-10)
    offered = _box.rates(_space.choices(plan)[0])
    tried = rates_of(selected(plan, valleys.Surface(1)))
    beyond = [rate for rate in tried if rate > offered[-1]]
    assert beyond == pytest.approx([offered[-1] * 2 ** (k + 1) for k in range(len(beyond))], rel=1e-4)
    assert len(beyond) >= 2


def test_one_offered_rate_is_no_box():
    plan = valleys.plan(settings="budget = 8", low=-10, high=-10)
    assert rates_of(selected(plan, valleys.Surface(1))) == _box.rates(_space.choices(plan)[0])


def test_each_method_has_a_box_of_its_own():
    """PiSSA's optimum lies within, LoRA's 4 octaves above."""
    surface = valleys.Surface(1, shifts=(("pissa", -4.0),), edge=4.0)
    plan = valleys.plan(("lora", "pissa"), "budget = 6", low=-14, high=-10)
    results = selected(plan, surface)
    top = {choice.method: _box.rates(choice)[-1] for choice in _space.choices(plan)}
    above = {one.config.method for one in results if one.config.learning_rate > top[one.config.method]}
    assert above == {"lora"}


def test_what_was_never_tried_beyond_the_box_is_not_chosen():
    plan, surface = valleys.plan(settings="budget = 3", high=-10), valleys.Surface(1)
    results = selected(plan, surface)
    for number in range(1, len(results) + 1):
        (belief,) = guided.beliefs(plan, results[:number])
        tried = {one.config.learning_rate for one in results[:number]}
        offered = _box.rates(_space.choices(plan)[0])
        if belief.best is not None:
            assert belief.best.learning_rate in {*offered, *tried}


def test_the_order_of_results_changes_nothing_beyond_the_box():
    plan, surface = valleys.plan(settings="budget = 5", high=-10), valleys.Surface(1)
    results = selected(plan, surface)
    shuffled = [results[place] for place in np.random.Generator(np.random.PCG64(0)).permutation(len(results))]
    assert guided.SEARCH.propose(plan, results) == guided.SEARCH.propose(plan, shuffled)


def test_another_search_cannot_be_told_to_stay_within():
    with pytest.raises(InputError, match=r"search.reopen: got False, expected true.*search = \"guided\""):
        valleys.plan(settings="budget = 4\nreopen = false", search="sobol")
