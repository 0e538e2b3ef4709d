"""The numbers of docs/tuner.md on a planted surface: who chooses what, areas, ratios, and what moves the prior."""

import dataclasses
import math

import numpy as np
import pytest
from scripts import hyperband_tpe, replay_page, replays
from scripts.replays import Case, Contender, Score, Variant

import planted_surface as planted
from small_study import forge_hashes
from welltuned.analysis import curvature
from welltuned.search import _prior
from welltuned.transfer import starts

PLAIN = Variant("as recorded")


@pytest.fixture(autouse=True)
def forged(monkeypatch):
    forge_hashes(monkeypatch)


def case_of(method=("lora",), sharpness=None):
    plan = planted.plan(method=method)
    results = tuple(planted.results(method=method))
    known = {
        curvature.key_of(arm.configs[0]): value for arm in plan.arms for value in [(sharpness or {}).get(arm.name)]
    }
    return Case("planted", "held out", plan.arms, results, plan.surveys, known if sharpness else {})


def computed(contender, variant=PLAIN, case=None, num_replays=6):
    return list(replays._computed(case or case_of(), contender, variant, num_replays))


def test_training_everything_has_no_regret_but_the_noise():
    found = computed(Contender("whole grid", "uniform", budgets=(1000,)))
    assert {score.cost for score in found} == {7.0 * len(planted.BATCHES)}
    # The planted seeds move all candidates alike, so they change no order, and the smoothing keeps a parabola.
    assert max(score.regret for score in found) < 1e-9


def test_each_replay_offers_neighbouring_rates_and_all_contenders_the_same():
    case = case_of()
    windows = {tuple(sorted({c.learning_rate for c in replays.offered(case, n)[0].configs})) for n in range(20)}
    assert len(windows) == 3
    assert all(list(window) in [planted.RATES[i : i + 7] for i in range(3)] for window in windows)
    assert replays.offered(case, 5) == replays.offered(case, 5)


def test_more_budget_is_spent_and_never_more_than_there_is():
    found = computed(dataclasses.replace(Contender("random", "uniform"), budgets=(2, 8)))
    assert {score.budget: score.cost for score in found} == {2: 2.0, 8: 8.0}


def test_hyperband_begins_with_the_rule_climbs_rungs_and_asks_tpe_once_it_knows_enough(monkeypatch):
    asked = []
    suggested = hyperband_tpe._asked
    monkeypatch.setattr(hyperband_tpe, "_asked", lambda *given: asked.append(suggested(*given)) or asked[-1])
    hyperband_tpe._suggested.cache_clear()
    contender = Contender("Hyperband with TPE", replays.HYPERBAND, {"warm_start": True})
    assert contender.search in {one.search for one in replays.available()}
    found = {budget: computed(dataclasses.replace(contender, budgets=(budget,)), num_replays=3) for budget in (1, 2, 8)}
    assert not asked or max(score.cost for score in found[1]) == 1.0  # one full trial, and nobody to ask
    alone = computed(Contender("random", "uniform", {"warm_start": True}, budgets=(1,)), num_replays=3)
    assert [score.regret for score in found[1]] == [score.regret for score in alone]  # the rule's candidate
    assert all(score.cost <= budget + 1e-6 for budget, scores in found.items() for score in scores)
    assert all(score.cost > 6 and score.num_rounds > 3 for score in found[8]) and asked
    assert np.mean([score.regret for score in found[8]]) < np.mean([score.regret for score in found[1]])
    assert found[8] == computed(dataclasses.replace(contender, budgets=(8,)), num_replays=3)


def test_a_bracket_that_is_not_paid_for_is_smaller_or_starts_higher():
    dearest = [1 / 9, 1 / 3, 1.0]
    assert hyperband_tpe._size(2, 0, dearest, 100.0, 99) == (0, 9)  # 9, 3 and 1 of them
    assert hyperband_tpe._size(2, 1, dearest, 100.0, 99) == (1, 5)  # ceil(3 / 2 x 3)
    assert hyperband_tpe._size(2, 0, dearest, 100.0, 4) == (0, 4)  # no more are left
    assert hyperband_tpe._size(2, 0, dearest, 2.0, 99) == (0, 5)  # 5/9 + 1/3 + 1
    assert hyperband_tpe._size(2, 0, dearest, 1.0, 99) == (2, 1)
    assert hyperband_tpe._size(2, 0, dearest, 0.9, 99) == (2, 0)


def test_methods_tuned_together_have_a_budget_each():
    found = computed(Contender("random", "uniform", budgets=(4,)), case=case_of(("lora", "pissa")), num_replays=2)
    assert all(len(score.regrets) == 2 and score.cost == pytest.approx(4) for score in found)


def test_a_moved_prior_expects_the_best_rate_elsewhere():
    case = case_of(("lora", "pissa"))
    configs = [arm.configs[0] for arm in case.arms]
    rule = _prior.rule([config for arm in case.arms for config in arm.configs], lambda config: 64, lambda config: None)
    true = rule.expected(configs)
    with replays._moved(Variant("high", shift_octaves=2.0), case.arms):
        assert rule.expected(configs) - true == pytest.approx([2.0, 2.0])
    with replays._moved(Variant("permuted", permuted=True), case.arms):
        apart = starts.shift("pissa").octaves - starts.shift("lora").octaves
        assert apart != 0 and rule.expected(configs) - true == pytest.approx([apart, -apart])
    assert rule.expected(configs) == pytest.approx(true)


def test_the_area_is_the_mean_over_the_logarithm_of_the_budget():
    curve = {1: 0.4, 2: 0.2, 4: 0.2, 16: 0.0}
    found = replays.area([Score(budget, 0, (regret,), 1.0, 1.0, 1) for budget, regret in curve.items()])
    assert found == {0: pytest.approx((0.3 * 1 + 0.2 * 1 + 0.1 * 2) / 4)}


def test_the_interval_of_a_ratio_covers_the_planted_one():
    covered = 0
    for place in range(200):
        generator = np.random.default_rng(place)
        shared = generator.normal(0, 0.1, 30)  # what makes a replay hard for both
        ours = 0.5 + shared * 0.5 + generator.normal(0, 0.05, 30)
        theirs = 1.0 + shared + generator.normal(0, 0.05, 30)
        found = replay_page.ratio([list(ours)], [list(theirs)])
        covered += found.low <= 0.5 <= found.high
    # 95 % but for three standard errors of 200 draws, and what a bootstrap of 30 lacks.
    assert covered / 200 >= 0.88


def test_a_computed_replay_is_read_from_the_cache(tmp_path, monkeypatch):
    contender = Contender("random", "uniform", budgets=(2,))
    first = replays.scores(case_of(), contender, PLAIN, 2, tmp_path)
    monkeypatch.setattr(replays, "_computed", lambda *rest: pytest.fail("computed again"))
    assert replays.scores(case_of(), contender, PLAIN, 2, tmp_path) == first


def test_the_rule_alone_chooses_one_candidate_at_the_usual_batch():
    (config,) = [replays.by_rule(arm, case_of()) for arm in case_of().arms]
    assert config.batch_size == 16 and config.learning_rate in planted.RATES


def test_a_regret_is_relative_to_the_best_offered():
    case = case_of()
    arm = dataclasses.replace(case.arms[0], configs=case.arms[0].configs[:9])  # batch 4
    recorded = case.recorded
    judged = replays._judged(case, replays.World(recorded, 1))
    chosen = next(config for config in arm.configs if config.learning_rate == planted.RATES[5])
    expected = planted.log_loss(chosen) - planted.log_loss(chosen.replace(learning_rate=planted.RATES[3]))
    assert replays._regret(arm, [chosen], judged, recorded) == pytest.approx(math.expm1(expected))
    nothing = replays._regret(arm, [], judged, recorded)
    assert nothing == pytest.approx(
        planted.BASE_NLL / math.exp(planted.log_loss(chosen.replace(learning_rate=planted.RATES[3]))) - 1
    )


def test_a_box_that_misses_the_best_offers_an_end_and_is_judged_by_all():
    case = case_of()
    ends = [sorted({c.learning_rate for c in replays.offered(case, n, replays.MISSED)[0].configs}) for n in range(2)]
    assert ends == [list(planted.RATES[: replays.FEW]), list(planted.RATES[-replays.FEW :])]
    floor = replays.best_inside(case, replays.MISSED, 6)
    inside = computed(dataclasses.replace(replays.GUIDED, budgets=(8,)), replays.MISSED, case)
    beyond = computed(dataclasses.replace(replays.REOPENING, budgets=(8,)), replays.MISSED, case)
    assert floor > 0.005
    assert min(score.regret for score in inside) >= 0 and np.mean([one.regret for one in inside]) >= floor - 1e-9
    assert np.mean([score.regret for score in beyond]) < floor / 2


def test_curvature_is_told_to_those_who_know_it_and_is_part_of_what_is_cached(tmp_path):
    """PiSSA's eigenvalue says that its best rate lies far below LoRA's, of which nothing is published here."""
    case = case_of(("lora", "pissa"), {"lora": 1.0, "pissa": 64.0})
    plan = replays.plan_of(case, case.arms, replays.BENT, 4, 0)
    assert plan.sharpness == case.sharpness and replays.plan_of(case, case.arms, replays.GUIDED, 4, 0).sharpness == {}
    with replays._moved(replays.UNPUBLISHED, case.arms):
        configs = [arm.configs[0] for arm in case.arms]
        every = [config for arm in case.arms for config in arm.configs]
        flat = _prior.rule(every, lambda config: 64, lambda config: None).expected(configs)
        bent = _prior.rule(every, lambda config: 64, plan.sharpness_of).expected(configs)
    assert flat[0] == pytest.approx(flat[1]) and bent[1] < bent[0] - 2
    files = {replays.cached(case, one, PLAIN, 3, tmp_path) for one in (replays.GUIDED, replays.BENT)}
    other = dataclasses.replace(case, sharpness=dict.fromkeys(case.sharpness, 1.0))
    assert replays.cached(other, replays.GUIDED, PLAIN, 3, tmp_path) in files
    assert replays.cached(other, replays.BENT, PLAIN, 3, tmp_path) not in files


def test_what_is_published_comes_back_after_a_replay_without_it():
    before = dict(starts.SHIFTS)
    with replays._moved(replays.UNPUBLISHED, case_of().arms):
        assert set(starts.SHIFTS) == {"lora"}
    assert before == starts.SHIFTS
