"""Flips and crossovers: planted orders, the published configurations, and what noise alone must not decide."""

import pytest

import planted
from welltuned.analysis import crossover, flips
from welltuned.analysis.runs import Run, Table


def pissa_and_lora(run):
    """PiSSA's optimum is half a decade lower, and its top lower too: ahead at low rates only."""
    return planted.valley(run, {"lora": -2.5, "pissa": -3.0}[run.method], {"lora": 0.7, "pissa": 0.68}[run.method])


def test_flips_are_counted_against_the_tuned_verdict_as_by_hand():
    table = planted.table(pissa_and_lora, methods=("lora", "pissa"), noise=0.001)
    found = flips.flips(table, "pissa", "lora")
    ahead = [pissa_and_lora(Run("pissa", 0, rate)) > pissa_and_lora(Run("lora", 0, rate)) for rate in planted.RATES]
    assert [outcome.ahead == "pissa" for outcome in found.configurations] == ahead
    assert found.flip_rate == pytest.approx(sum(ahead) / len(ahead))
    assert found.verdicts[0].ahead == "lora" and found.verdicts[0].advantage.sign == -1
    assert len(found.side("pissa")) == sum(ahead) and len(found.side("lora")) == len(ahead) - sum(ahead)
    lowest = found.configurations[0]
    truth = pissa_and_lora(Run("pissa", 0, planted.RATES[0])) - pissa_and_lora(Run("lora", 0, planted.RATES[0]))
    assert lowest.advantage.low < truth < lowest.advantage.high


def test_flips_have_the_other_sign_for_the_other_order_and_for_a_loss():
    table = planted.table(pissa_and_lora, methods=("lora", "pissa"))
    one, other = flips.flips(table, "pissa", "lora"), flips.flips(table, "lora", "pissa")
    assert [outcome.advantage.value for outcome in one.configurations] == [
        -outcome.advantage.value for outcome in other.configurations
    ]
    loss = planted.table(lambda run: -pissa_and_lora(run), methods=("lora", "pissa"), higher=False)
    same = flips.flips(loss, "pissa", "lora")
    assert [outcome.ahead for outcome in same.configurations] == [outcome.ahead for outcome in one.configurations]
    assert same.flip_rate == one.flip_rate


def test_published_configurations_are_marked_exactly_or_as_the_nearest_point():
    """The order of "Learning Rate Matters" on Gemma: PiSSA ahead at 2e-5 and batch 128, behind at 3e-4 and batch 16."""
    table = planted.table(
        lambda run: {"lora": 0.07, "pissa": 0.118}[run.method] if run.batch_size == 128 else
                    {"lora": 0.199, "pissa": 0.161}[run.method],
        methods=("lora", "pissa"), batches=(16, 128), ranks=(128,), rates=(2e-5, 3.6e-4),
    )  # fmt: skip
    found = flips.flips(table, "pissa", "lora")
    (near, outcome), (also, milora) = found.published
    assert near.exact and outcome.ahead == "pissa" and near.place.batch_size == 128
    assert not also.exact and milora.ahead == "lora"
    assert (also.rate_factor, also.batch_factor, also.rank_factor) == pytest.approx((1.2, 1, 2))


def test_a_diverged_run_counts_at_its_declared_value_and_is_named():
    runs = (Run("lora", 0.0, 1e-2, 16, diverged=True), Run("pissa", 0.3, 1e-2, 16), Run("lora", 0.6, 1e-3, 16),
            Run("pissa", 0.5, 1e-3, 16))  # fmt: skip
    found = flips.flips(Table(runs, "accuracy", True), "lora", "pissa")
    by_rate = {outcome.place.learning_rate: outcome for outcome in found.configurations}
    assert by_rate[1e-2].diverged == ("lora",) and by_rate[1e-2].ahead == "pissa" and by_rate[1e-2].flipped
    assert found.flip_rate == 0.5
    assert by_rate[1e-2].advantage.low is None and not found.significant


def test_methods_that_never_met_have_no_flip_rate():
    table = Table((Run("lora", 0.5, 1e-3, 16), Run("pissa", 0.5, 1e-4, 16)), "accuracy", True)
    found = flips.flips(table, "lora", "pissa")
    assert found.flip_rate is None
    assert found.reason == "lora and pissa were never run at the same learning rate, batch size and rank"
    assert found.verdicts[0].ahead == ""


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method: got 'dora', expected one of lora, pissa"):
        flips.flips(planted.table(pissa_and_lora, methods=("lora", "pissa")), "dora", "lora")


def by_batch(slope):
    """PiSSA gains on MiLoRA by `slope` with each doubling over batch 32."""
    return lambda run: 0.6 + (slope * (run.batch_size.bit_length() - 6) if run.method == "pissa" else 0.0)


def test_a_planted_crossover_is_found_where_it_is():
    batches = (4, 16, 64, 256)
    table = planted.table(by_batch(0.02), methods=("pissa", "milora"), batches=batches, rates=(1e-3,), noise=0.001)
    (found,) = crossover.crossovers(table, "pissa", "milora")
    (crossing,) = found.crossings
    assert (crossing.low_batch, crossing.high_batch) == (16, 64)
    assert crossing.batch == pytest.approx(32, rel=0.1)
    assert (crossing.ahead_below, crossing.ahead_above, crossing.certain) == ("milora", "pissa", True)


def test_a_crossover_within_noise_is_not_certain_and_parallel_curves_have_none():
    batches = (4, 16, 64, 256)
    table = planted.table(by_batch(0.0005), methods=("pissa", "milora"), batches=batches, rates=(1e-3,), noise=0.02)
    (found,) = crossover.crossovers(table, "pissa", "milora")
    assert not any(crossing.certain for crossing in found.crossings)
    parallel = planted.table(
        lambda run: 0.6 + (run.method == "pissa") * 0.1, methods=("pissa", "milora"), batches=batches, rates=(1e-3,)
    )
    (none,) = crossover.crossovers(parallel, "pissa", "milora")
    assert none.crossings == ()


def test_a_size_at_which_both_are_equal_is_one_crossing():
    table = planted.table(by_batch(0.02), methods=("pissa", "milora"), batches=(16, 32, 64), rates=(1e-3,))
    (found,) = crossover.crossovers(table, "pissa", "milora")
    assert len(found.crossings) == 1 and found.crossings[0].batch == pytest.approx(32)
