"""Successive halving and ASHA: who climbs, what it costs, and how well the bound on false kills holds."""

import math
import statistics

import pytest

from searching import answering, diverged, lost, plan_with, run, wide
from small_study import forge_hashes, result_of
from welltuned import plugins, rng
from welltuned.costs import flops
from welltuned.records import Role
from welltuned.search import _false_kills, _rungs, _space, halving

BOTH = ("halving", "asha")


@pytest.fixture(autouse=True)
def forged(monkeypatch):
    forge_hashes(monkeypatch)


def loss_of(config) -> float:
    return loss_at(setting(config))


def setting(config) -> tuple:
    return config.learning_rate, config.batch_size


def settings_at(results, rung: int) -> list:
    """Return the settings trained at a rung, of the small study's ladder of 1/27, 1/9, 1/3 and all of 512 rows."""
    if rung == 3:
        return [setting(r.config) for r in results if r.role is Role.SELECT]
    probes = [r.config for r in results if r.role is Role.PROBE]
    return [setting(c) for c in probes if round(math.log(512 / flops.num_samples(c), 3)) == 3 - rung]


def cost_of(plan, results) -> float:
    choice = _space.choices(plan)[0]
    return sum(choice.cost(r.config) for r in results if r.role is not Role.CONFIRM)


# 1/27 of 512 rows is 19 rows: of batch 2 and 4 these are 9 and 5 optimizer steps. 26 candidates.
FINE = wide(batches="[2, 4]")


@pytest.mark.parametrize(("batches", "shares"), [("[2, 4]", 3), ("[2, 8]", 2), ("[2, 32]", 1), ("[2, 64]", 0)])
def test_the_shortest_probe_has_a_few_optimizer_steps_at_the_largest_batch(batches, shares):
    ladder = _rungs.ladder(_space.choices(plan_with("halving", "budget = 8", wide(batches=batches)))[0])
    assert ladder.shares == tuple(3.0**-k for k in range(shares, 0, -1))
    fewest = min(flops.num_steps(t.config) for c in ladder.choice.candidates for t in ladder.trials(c, 0))
    assert fewest >= 4


def test_halving_climbs_in_the_order_of_the_losses():
    """Beside a plain loop over sorted lists: 26 start, 8, 2 and 1 climb."""
    plan = plan_with("halving", "budget = 8.2", FINE)
    ladder = _rungs.ladder(_space.choices(plan)[0])
    number = halving.num_started(ladder, ladder.choice.candidates, 8.2)
    proposals, results = run(plan, answering(loss_of))
    members = settings_at(results, 0)
    assert len(members) == number == len(proposals[0].trials) == 26
    losses = {setting(c): loss_of(c) for c in plan.arms[0].configs}
    for rung in (1, 2, 3):
        members = sorted(members, key=lambda one: losses[one])[: max(1, len(members) // 3)]
        climbed = settings_at(results, rung)
        # After the climb to the top, others may be bought back.
        assert climbed[: len(members)] == members and (rung == 3 or len(climbed) == len(members))


@pytest.mark.parametrize("search", BOTH)
@pytest.mark.parametrize(("budget", "seeds"), [(1, 1), (1.5, 1), (3, 1), (8, 1), (30, 1), (2, 2), (3.5, 2), (12, 2)])
def test_the_budget_is_never_overspent_and_something_is_always_trained_in_full(search, budget, seeds):
    plan = plan_with(search, f"budget = {budget}\nseeds = {seeds}\nwidth = 6", FINE)
    proposals, results = run(plan, answering(lambda c: loss_of(c) + 0.01 * c.init_seed))
    assert cost_of(plan, results) <= budget + 1e-9
    full = [r for r in results if r.role is Role.SELECT]
    assert full and len({setting(r.config) for r in full}) * seeds == len(full)
    assert any(r.role is Role.CONFIRM for r in results)
    assert search == "halving" or all(len(p.trials) <= max(6, seeds) for p in proposals[:-3])


def test_nobody_climbs_past_a_better_one_of_the_same_rung():
    _, results = run(plan_with("halving", "budget = 12", FINE), answering(loss_of))
    for rung in (0, 1):
        here, above = settings_at(results, rung), settings_at(results, rung + 1)
        assert set(above) <= set(here) and len(above) == len(here) // 3
        stopped = set(here) - set(above)
        assert max(map(loss_at, above)) < min(map(loss_at, stopped))


def loss_at(one: tuple) -> float:
    return 1.0 + (math.log10(one[0]) + 2) ** 2 + 0.05 * (math.log2(one[1]) - 3) ** 2


def test_asha_climbs_as_soon_as_a_third_allows_it():
    """One trial at a time, beside the paper's algorithm 2 written with plain lists."""
    plan = plan_with("asha", "budget = 6\nwidth = 1", FINE)
    proposals, results = run(plan, answering(loss_of))
    losses = {setting(c): loss_of(c) for c in plan.arms[0].configs}
    by_id = {r.trial_id: r for r in results}
    rungs: list[list] = [[], [], [], []]
    climbed: list[set] = [set(), set(), set()]
    checked = 0
    for proposal in proposals:
        if len(proposal.trials) != 1 or proposal.trials[0].role is Role.CONFIRM:
            break
        done = by_id[proposal.trials[0].id]
        rung = next(k for k in range(4) if setting(done.config) in settings_at([done], k))
        expected = None
        for k in (2, 1, 0):
            best = sorted(rungs[k], key=lambda one: losses[one])[: len(rungs[k]) // 3]
            ready = [one for one in best if one not in climbed[k]]
            if ready:
                expected = (ready[0], k + 1)
                climbed[k].add(ready[0])
                break
        if expected is not None:
            assert (setting(done.config), rung) == expected
            checked += 1
        else:
            assert rung in (0, 3)  # 3: the end, where the best is trained in full
        if rung == 3:
            break
        rungs[rung].append(setting(done.config))
    assert checked >= 5


@pytest.mark.parametrize("search", BOTH)
def test_diverged_probes_do_not_climb_and_lost_ones_do_no_harm(search):
    def answer(trial):
        if trial.config.batch_size == 2 and trial.role is Role.PROBE:
            return lost(trial)
        return diverged(trial) if trial.config.learning_rate > 1e-3 else result_of(trial, loss_of(trial.config))

    _, results = run(plan_with(search, "budget = 9\nwidth = 6", FINE), answer)
    full = [r for r in results if r.role is Role.SELECT]
    assert full and all(r.config.learning_rate <= 1e-3 and r.config.batch_size == 4 for r in full)


@pytest.mark.parametrize("search", BOTH)
@pytest.mark.parametrize("end", [diverged, lost])
def test_a_study_in_which_everything_fails_ends(search, end):
    proposals, results = run(plan_with(search, "budget = 5\nwidth = 6", FINE), end)
    assert proposals[-1].finished and any(r.role is Role.SELECT for r in results)


@pytest.mark.parametrize("search", BOTH)
def test_any_interruption_leads_back_to_the_same_trials(search):
    plan = plan_with(search, "budget = 8\nwidth = 4", FINE)
    propose = plugins.load("searches", search).propose
    proposals, results = run(plan, answering(loss_of))
    by_id = {r.trial_id: r for r in results}
    before: list = []
    for proposal in (p for p in proposals if p.trials and p.trials[0].role is not Role.CONFIRM):
        answers = [by_id[t.id] for t in proposal.trials]
        assert propose(plan, [*answers[1::2], *before[::-1]]).trials == proposal.trials[::2]
        before += answers


# The bound on false kills --------------------------------------------------------------------------------------------


def noisy(seed: int, noise: float, spread: float = 1.0):
    """Losses at a rung are the truth, a fall common to all, and noise of that rung's own."""

    def answer(trial):
        name = (*map(str, setting(trial.config)), str(flops.num_samples(trial.config)))
        shift = 0.3 * math.log(512 / flops.num_samples(trial.config))
        draw = float(rng.stream(seed, "noise", *name).normal())
        truth = spread * float(rng.stream(seed, "truth", *map(str, setting(trial.config))).normal())
        return result_of(trial, 20 + truth + shift + noise * draw, base_validation_nll=99.0)

    return answer


def test_a_move_between_rungs_is_read_from_those_who_climbed():
    climbs = [(5.0, 4.0, 3.5), (5.2, 4.4, 3.5), (5.4, 4.2), (5.6, 4.5), (9.0,)]
    seen = _false_kills.moves(climbs, 2)
    first, second = [-1.0, -0.8, -1.2, -1.1], [-0.5, -0.9]
    assert seen is not None and seen.counts == (4, 2) and seen.degrees == 4
    assert seen.means == pytest.approx((statistics.fmean(first), statistics.fmean(second)))
    squares = sum((x - statistics.fmean(first)) ** 2 for x in first) + sum((x + 0.7) ** 2 for x in second)
    assert seen.variance == pytest.approx(squares / 4)
    # By hand for the one stopped at the lowest rung: predicted 9 + m1 + m2, its variance s^2 (2 + 1/4 + 1/2).
    from scipy import stats

    gap = 3.5 - 9.0 - seen.means[0] - seen.means[1]
    expected = stats.t.cdf(gap / math.sqrt(squares / 4 * 2.75), 4)
    assert _false_kills.chance((9.0,), 3.5, seen) == pytest.approx(expected, rel=1e-12)


def test_too_few_climbs_say_nothing_about_the_noise():
    assert _false_kills.moves([(5.0, 4.0, 3.5), (5.2, 4.4), (5.4, 4.2), (9.0,)], 2) is None


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_faithful_ranking_buys_nobody_back(noise):
    """What is left of the budget is then left: nobody who was stopped had a chance."""
    plan = plan_with("halving", "budget = 60", FINE)
    _, results = run(plan, noisy(1, noise))
    assert len(settings_at(results, 3)) == 1 and cost_of(plan, results) < 25


def test_a_noisy_ranking_buys_the_likeliest_back():
    plan = plan_with("halving", "budget = 60\nwidth = 2", FINE)
    _, results = run(plan, noisy(1, 0.5))
    assert len(settings_at(results, 3)) > 5 and cost_of(plan, results) <= 60


@pytest.mark.parametrize("noise", [0.1, 0.3, 1.0])
def test_the_bound_on_false_kills_holds_where_losses_are_noisy(noise):
    """Over 100 studies with as much noise as this beside a spread of 1: how often a stopped one would have won."""
    told, happened = [], []
    choice = _space.choices(plan_with("halving", "budget = 14", FINE))[0]
    ladder = _rungs.ladder(choice)
    for seed in range(100):
        answer = noisy(seed, noise)
        climbs, members = {}, list(choice.candidates)
        for rung in range(ladder.top + 1):
            for one in members:
                climbs[one] = (*climbs.get(one, ()), answer(ladder.trials(one, rung)[0]).validation_nll)
            members = sorted(members, key=lambda one: climbs[one][-1])[: max(1, len(members) // 3)]
        best = min(climb[-1] for climb in climbs.values() if len(climb) > ladder.top)
        seen = _false_kills.moves(list(climbs.values()), ladder.top)
        stopped = [one for one, climb in climbs.items() if len(climb) <= ladder.top]
        told.append(min(1.0, sum(_false_kills.chance(climbs[one], best, seen) for one in stopped)))
        happened.append(min(answer(one.trials[0]).validation_nll for one in stopped) < best)
    error = math.sqrt(statistics.fmean(happened) * (1 - statistics.fmean(happened)) / len(happened))
    assert statistics.fmean(happened) <= statistics.fmean(told) + 2 * error
