"""The rules of `transfer/`: against simulations of the steps they bound, against exact invariances, and by hand."""

import doctest
import math
from dataclasses import replace

import numpy as np
import pytest

from welltuned import plugins
from welltuned.analysis.rate_scaling import RatePoint
from welltuned.analysis.rate_scaling import surge as surge_with_interval
from welltuned.errors import InputError
from welltuned.transfer import alpha, combine, formulas, known_errors, mua, prior, proxy, rules, surge
from welltuned.transfer.reparametrise import Parametrisation, rescaled, with_scaling
from welltuned.transfer.setting import Setting, check

SETTING = Setting("lora", 32, "r", 64, 1024, 100_000, "llama")


@pytest.mark.parametrize("module", [alpha, mua, rules, combine, surge, proxy])
def test_the_examples_in_the_docstrings_are_true(module):
    assert doctest.testmod(module).failed == 0


# muA's bound against the steps that it bounds -------------------------------------------------------------------------


def starting_factors(kind, n, r, s, rng):
    """A0 [r, n] and B0 [m, r] of a start; of "SVD", singular values of order 1 with entries as of random directions."""
    m = 64
    a, b = rng.standard_normal((r, n)) / math.sqrt(n), rng.standard_normal((m, r))
    if kind == "A":
        return a, np.zeros((m, r))
    if kind == "B":
        return np.zeros((r, n)), b / math.sqrt(r)
    size = 1 / math.sqrt(n)
    return (a, b * size) if kind == "AB" else (a / math.sqrt(s), b * size / math.sqrt(s))


def output_change(kind, n, r, s, eta, seed=0, num_steps=3):
    """RMS change of s B A x after some sign-descent steps on one sample, as in muA's analysis."""
    rng = np.random.default_rng(seed)
    x, slope = rng.choice([-1.0, 1.0], n), rng.choice([-1.0, 1.0], 64)
    A, B = starting_factors(kind, n, r, s, rng)
    before = s * B @ (A @ x)
    for _ in range(num_steps):
        step_a = np.outer(np.sign(B.T @ slope), np.sign(x))
        step_b = np.outer(np.sign(slope), np.sign(A @ x))
        A, B = A - eta * step_a, B - eta * step_b
    return float(np.sqrt(np.mean((s * B @ (A @ x) - before) ** 2)))


@pytest.mark.parametrize("kind", ["A", "B", "AB", "SVD"])
@pytest.mark.parametrize("g", [0.0, 0.5, 1.0])
def test_at_muas_bound_steps_change_the_output_by_order_one_at_every_width_and_rank(kind, g):
    """And not at a fixed rate: there the change varies 20 times more over the same grid."""
    grid = [(n, r) for n in (256, 1024, 4096) for r in (4, 16, 64)]
    at_bound = [output_change(kind, n, r, r**-g, 2.0 ** mua.bound(kind, n, r, r**-g, g).log2) for n, r in grid]
    fixed = [output_change(kind, n, r, r**-g, 2.0 ** mua.bound(kind, 1024, 16, 16**-g, g).log2) for n, r in grid]
    assert max(at_bound) / min(at_bound) < 12
    assert max(fixed) / min(fixed) > 1.5 * max(at_bound) / min(at_bound)


@pytest.mark.parametrize(
    ("kind", "g", "n", "r", "slope"),
    [
        ("A", 0.0, 4096, 16, -0.5),
        ("A", 0.5, 4096, 16, -0.25),
        ("A", 1.0, 4096, 16, 0.0),
        ("B", 0.0, 4096, 16, 0.0),
        ("B", 1.0, 4096, 16, 1.0),  # r / n while r <= sqrt(n)
        ("B", 1.0, 4096, 256, 0.0),  # then n^-1/2
        ("AB", 0.0, 4096, 16, -0.5),
        ("AB", 0.5, 4096, 16, -0.25),
        ("SVD", 1.0, 4096, 16, 0.0),
    ],
)
def test_the_rank_exponents_are_those_of_the_papers_table(kind, g, n, r, slope):
    found = mua.bound(kind, n, r, r**-g, g)
    assert found.rank_slope == slope
    assert math.log2(2.0 ** mua.bound(kind, n, 2 * r, (2 * r) ** -g, g).log2 / 2.0**found.log2) == pytest.approx(slope)


def test_width_exponents_are_a_half_for_lora_and_one_for_init_b_and_full_fine_tuning():
    assert mua.bound("A", 1024, 8, 1.0, 0.0).width_slope == -0.5
    assert mua.bound("B", 1024, 8, 1.0, 0.0).width_slope == -1.0
    full = replace(SETTING, method="full")
    assert rules.moved(rules.WIDTH, 1e-4, full, replace(full, width=4096)) == pytest.approx(2.5e-5)


# The exact invariance -------------------------------------------------------------------------------------------------


def adam_outputs(s, A, B, rate_a, rate_b, num_steps=12):
    """Outputs of a rank-r regression trained by Adam with epsilon 0 (0/0 = 0), at every step, in float64."""
    rng = np.random.default_rng(5)
    X, Y = rng.standard_normal((6, 10)), rng.standard_normal((4, 10))
    state = [[np.zeros_like(one), np.zeros_like(one)] for one in (A, B)]
    outputs = []
    for step in range(1, num_steps + 1):
        error = s * B @ (A @ X) - Y
        gradients = (s * B.T @ error @ X.T, s * error @ (A @ X).T)
        moved = []
        for one, gradient, moments, rate in zip((A, B), gradients, state, (rate_a, rate_b), strict=True):
            moments[0] = 0.9 * moments[0] + 0.1 * gradient
            moments[1] = 0.999 * moments[1] + 0.001 * gradient**2
            first, second = moments[0] / (1 - 0.9**step), moments[1] / (1 - 0.999**step)
            ratio = np.divide(first, np.sqrt(second), out=np.zeros_like(first), where=second > 0)
            moved.append(one - rate * ratio)
        A, B = moved
        outputs.append(s * B @ (A @ X))
    return np.array(outputs)


@pytest.mark.parametrize("b_is_zero", [True, False])
def test_a_rescaled_parametrisation_trains_through_the_same_functions(b_is_zero):
    rng = np.random.default_rng(3)
    A, B = rng.standard_normal((3, 6)), rng.standard_normal((4, 3)) * (0.0 if b_is_zero else 1.0)
    given = Parametrisation(2.0, rate_a=0.03, rate_b=0.01)
    other = rescaled(given, 0.3, 5.0)
    one = adam_outputs(given.scaling, A, B, given.rate_a, given.rate_b)
    two = adam_outputs(other.scaling, other.start_a * A, other.start_b * B, other.rate_a, other.rate_b)
    np.testing.assert_allclose(two, one, rtol=1e-9)


def test_the_alpha_rule_is_exact_for_starts_that_follow_alpha_and_not_for_loras():
    """PiSSA's and MiLoRA's factors are divided by s^1/2, so that the rate moves as s^-1/2 exactly; LoRA's A is not."""
    rng = np.random.default_rng(3)
    A, B = rng.standard_normal((3, 6)), rng.standard_normal((4, 3))
    here, there = Setting("pissa", 8, "r", 16, 512), Setting("pissa", 8, "4r", 16, 512)
    rate = rules.moved(rules.ALPHA, 0.01, here, there)
    assert rate == pytest.approx(0.005)
    assert with_scaling(Parametrisation(1.0, rate_a=0.01, rate_b=0.01), 4.0).rate_b == pytest.approx(rate)
    pissa = adam_outputs(1.0, A, B, 0.01, 0.01)
    np.testing.assert_allclose(adam_outputs(4.0, A / 2, B / 2, rate, rate), pissa, rtol=1e-9)
    lora = adam_outputs(1.0, A, np.zeros_like(B), 0.01, 0.01)
    assert np.abs(adam_outputs(4.0, A, np.zeros_like(B), rate, rate) - lora).max() > 0.01


def test_a_rescaling_by_nothing_is_refused():
    with pytest.raises(InputError, match=r"rescaling: got \(0, 1\), expected two factors > 0; take p = q = "):
        rescaled(Parametrisation(1.0), 0, 1)


# Formulas and rules by hand -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "rank", "rate"), [(576, 32, 1.5e-3), (896, 64, 8.3e-4), (1024, 128, 5.5e-4), (4096, 128, 2.8e-4)]
)
def test_muas_formula_gives_the_worked_examples(width, rank, rate):
    assert formulas.MUA.rate(replace(SETTING, width=width, rank=rank)) == pytest.approx(rate, rel=0.03)


@pytest.mark.parametrize(
    ("family", "width", "rate"),
    [("llama", 2048, 4.9e-4), ("llama", 4096, 2.9e-4), ("llama", 8192, 1.7e-4), ("qwen3", 4096, 4.7e-4)],
)
def test_lora_without_regrets_formula_gives_the_published_values_at_alpha_32(family, width, rate):
    """Tinker's code rounds the ratio of 9.8 to 10, and these to two digits, hence 4.5 %."""
    at = replace(SETTING, family=family, width=width, alpha="32")
    assert formulas.LORA_WITHOUT_REGRET.rate(at) == pytest.approx(rate, rel=0.045)
    assert formulas.LORA_WITHOUT_REGRET.rate(replace(at, alpha="64")) == pytest.approx(rate / math.sqrt(2), rel=0.045)


def test_ten_times_full_fine_tuning_is_for_alpha_32_and_init_b_takes_the_same_rate():
    at = replace(SETTING, full_rate=2e-5)
    assert formulas.TENFOLD.rate(at) == pytest.approx(2e-4)  # alpha = r = 32
    assert formulas.TENFOLD.rate(replace(at, rank=8)) == pytest.approx(4e-4)
    assert formulas.TENFOLD.rate(replace(at, method="init_b")) == pytest.approx(2e-5)
    assert formulas.TENFOLD.rate(replace(at, method="init_b", alpha="2r")) == pytest.approx(1e-5)
    assert formulas.TENFOLD.rate(replace(at, method="full")) == 2e-5
    assert rules.moved(rules.METHOD, 4e-4, replace(at, rank=8), replace(at, rank=8, method="full")) == pytest.approx(
        2e-5
    )


@pytest.mark.parametrize(
    ("rule", "changes", "factor"),
    [
        (rules.RANK, {"rank": 128}, 0.5),
        (rules.WIDTH, {"width": 4096}, 0.5),
        (rules.ALPHA, {"alpha": "4r"}, 0.5),
        (rules.BATCH, {"batch_size": 16}, 0.5),
        (rules.SAMPLES, {"num_samples": 3_200_000}, 0.5),
        (rules.METHOD, {"method": "pissa"}, 2.0**-1.7),
    ],
)
def test_every_rule_moves_one_thing(rule, changes, factor):
    assert rules.moved(rule, 1e-3, SETTING, replace(SETTING, **changes)) == pytest.approx(1e-3 * factor)


def test_ranks_at_constant_alpha_keep_the_rate_and_at_rslora_lose_a_quarter_power():
    constant, root = replace(SETTING, alpha="16"), replace(SETTING, alpha="16/sqrt(r)")
    assert rules.moved(rules.RANK, 1e-3, constant, replace(constant, rank=128)) == pytest.approx(1e-3)
    assert rules.moved(rules.RANK, 1e-3, root, replace(root, rank=512)) == pytest.approx(5e-4)


REFUSALS = [
    (rules.RANK, {"method": "vera"}, {"rank": 8}, "rank rule: got method 'vera', whose start is not known to the rule, "
     "expected one that starts as LoRA, Init[B] or Init[AB] do; tune it at the new setting"),
    (rules.RANK, {"method": "full"}, {"rank": 8}, "rank rule: got method 'full', which has no rank and no alpha, "
     "expected a low-rank method; leave it as it is"),
    (rules.WIDTH, {}, {"width": None}, "width rule: got no hidden size, expected the number of inputs of the adapted "
     "layers; give --hidden-size"),
    (rules.BATCH, {"num_samples": 4096}, {"batch_size": 256}, "batch rule: got 16 optimizer steps at batch size 256, "
     "expected 32 or more; choose a smaller batch or more samples"),
    (rules.SAMPLES, {"num_samples": None}, {"num_samples": 64}, "samples rule: got no number of samples, expected "
     "rows times epochs of both runs; give --num-samples"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "start", "change", "message"), REFUSALS)
def test_a_rule_says_where_it_may_not_be_used(rule, start, change, message):
    here = replace(SETTING, **start)
    with pytest.raises(InputError) as caught:
        rules.moved(rule, 1e-3, here, replace(here, **change))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("formula", "change", "reason"),
    [
        (formulas.MUA, {"width": None}, "needs the hidden size"),
        (formulas.MUA_SAMPLES, {"num_samples": None}, "needs the number of samples"),
        (
            formulas.LORA_WITHOUT_REGRET,
            {"family": "gemma"},
            "was fitted to llama and qwen models, and this one's family is gemma",
        ),
        (formulas.LORA_WITHOUT_REGRET, {"width": 64}, "was fitted to hidden sizes within 1024 to 16384"),
        (formulas.LORA_WITHOUT_REGRET, {"width": None}, "needs the hidden size"),
        (formulas.TENFOLD, {}, "needs the best learning rate of full fine-tuning (--full-learning-rate)"),
        (formulas.QLORA_HABIT, {"width": 64}, "is meant for hidden sizes within 2048 to 8192"),
        (formulas.QLORA_HABIT, {"width": 4096, "method": "pissa"}, "is plain LoRA's"),
        (formulas.QLORA_HABIT, {"width": None}, "needs the hidden size"),
        (formulas.FITTED, {"num_samples": None}, "needs the number of samples"),
    ],
)
def test_a_formula_says_why_it_suggests_nothing(formula, change, reason):
    assert formula.misfit(replace(SETTING, **change)) == reason


def test_everything_wrong_with_a_setting_is_said_at_once():
    with pytest.raises(InputError) as caught:
        check(Setting("lora", 0, "no", 0, 0, 0, "", 2.0))
    assert list(caught.value.problems) == [
        "rank: got 0, expected an integer >= 1; give the number of the run you plan",
        "batch size: got 0, expected an integer >= 1; give the number of the run you plan",
        "hidden size: got 0, expected an integer >= 1; give the number of the run you plan",
        "num-samples: got 0, expected an integer >= 1; give the number of the run you plan",
        "full learning rate: got 2.0, expected a number between 0 and 1; write it as in 2e-5",
        'alpha: got \'no\', expected "r", "2r", 16 or "16/sqrt(r)"; write "r" for lora_alpha = r',
    ]


# The surge ------------------------------------------------------------------------------------------------------------


def test_a_fitted_surge_is_the_planted_one_and_that_of_the_fit_with_intervals():
    truth = surge.Surge(0.01, 48.0, True)
    rng = np.random.default_rng(0)
    batches = (4, 8, 16, 32, 64, 128)
    exact = surge.fit(batches, [truth.rate(batch) for batch in batches])
    assert (exact.peak_rate, exact.peak_batch) == pytest.approx((0.01, 48.0), rel=1e-3) and exact.reached
    rates = [truth.rate(batch) * 2.0 ** rng.normal(0, 0.1) for batch in batches]
    twin = surge_with_interval([RatePoint(None, batch, rate) for batch, rate in zip(batches, rates, strict=True)])
    found = surge.fit(batches, rates)
    assert (found.peak_rate, found.peak_batch) == pytest.approx((twin.peak_rate, twin.peak_batch.value), rel=1e-3)


def test_the_surge_is_the_best_sign_step_of_a_noisy_quadratic():
    """The closed form is derived: here the best step E[s.g] / E[s'Hs] of simulated signs, at eight batch sizes."""
    rng = np.random.default_rng(1)
    slope, noise, num_parameters = 0.05, 1.0, 20
    H = np.eye(num_parameters) * 0.5 + 0.5
    batches = [2.0**k for k in range(1, 9)]
    best = []
    for batch in batches:
        signs = np.sign(slope + noise / math.sqrt(batch) * rng.standard_normal((80_000, num_parameters)))
        best.append(
            float(np.mean(signs @ np.full(num_parameters, slope)) / np.mean(np.sum((signs @ H) * signs, axis=1)))
        )
    off_diagonal = H.sum() - np.trace(H)
    peak = math.pi / 2 * np.trace(H) / (off_diagonal * slope**2 / noise**2)  # B_n of the derivation
    below = [at for at, batch in enumerate(batches) if batch <= peak]
    found = surge.fit([batches[at] for at in below], [best[at] for at in below])
    assert found.peak_batch == pytest.approx(peak, rel=0.25)
    for at in below:
        assert found.rate(batches[at]) == pytest.approx(best[at], rel=0.05)


def test_a_surge_refuses_what_it_cannot_know():
    with pytest.raises(
        InputError, match=r"surge: batch size: got 512, expected at most 4 times the peak of 64; measure a"
    ):
        surge.Surge(0.01, 64.0, True).rate(512)
    with pytest.raises(
        InputError, match=r"surge: got '2 batch sizes and 2 rates', expected 3 batch sizes or more, a rate"
    ):
        surge.fit([4, 8], [1e-3, 2e-3])


def test_a_rise_that_never_turns_has_its_peak_beyond_the_data():
    assert not surge.fit([4, 16, 64], [1e-3, 2e-3, 4e-3]).reached


# Combination and prior ------------------------------------------------------------------------------------------------


def test_students_quantile_is_scipys():
    from scipy.stats import t

    for dof in (1, 2, 7, 10, 11, 14, 40):
        assert combine.student_90(dof) == pytest.approx(t.ppf(0.95, dof), rel=2e-3)


def test_the_combination_lies_among_its_formulas_and_its_interval_is_as_wide_as_its_error():
    here = replace(SETTING, width=2048)
    found = combine.combined(here)
    rates = combine.lawful(combine.suggestions(here)).values()
    assert min(rates) <= found.rate <= max(rates)
    assert sum(found.weights.values()) == pytest.approx(1)
    half = found.error.rms * combine.student_90(found.error.num_groups)
    assert math.log2(found.high / found.rate) == pytest.approx(half) == math.log2(found.rate / found.low)
    for change in ({"method": "pissa"}, {"method": "full"}, {"width": 2**17}):
        assert combine.combined(replace(here, **change)).sd_octaves > found.sd_octaves


def test_nothing_is_combined_where_no_error_is_known(tmp_path, monkeypatch):
    empty = tmp_path / "errors.toml"
    empty.write_text("")
    monkeypatch.setattr(known_errors, "FILE", empty)
    known_errors.measured.cache_clear()
    try:
        assert combine.combined(SETTING) is None
        assert all(one.error is None for one in combine.suggestions(SETTING))
    finally:
        known_errors.measured.cache_clear()


def test_a_prior_moves_as_its_slopes_say_along_the_rank():
    here, there = (prior(4096, "lora", rank, "r", 64, 100_000) for rank in (16, 64))
    assert there.centre_log2 - here.centre_log2 == pytest.approx(2 * here.rank_slope.value)
    constant = prior(4096, "lora", 16, "16", 64, 100_000)
    assert constant.rank_slope.value == 0.0 and constant.rank_slope.sd > 0


def test_a_prior_is_wider_where_less_is_known():
    known = prior(1024, "lora", 32, "r", 16, 10_000)
    assert prior(1024, "lora", 32, "r", 16).sd_octaves > known.sd_octaves
    assert prior(1024, "pissa", 32, "r", 16, 10_000).sd_octaves > known.sd_octaves
    unheard_of = prior(1024, "my_lab.sparse:METHOD", 32, "r", 16, 10_000)
    assert unheard_of.shift_sd_octaves == 1.5 and unheard_of.rank_slope.sd == 0.5
    assert prior(1024, "full", 32, "r", 16, 10_000).rank_slope.value == 0.0


def test_init_b_has_full_fine_tunings_prior_where_alpha_is_r():
    full, init_b = (prior(4096, method, 64, "r", 16, 10_000) for method in ("full", "init_b"))
    assert init_b.centre_log2 == pytest.approx(full.centre_log2) and init_b.rank_slope.value == 0.0


def test_every_method_that_ships_has_a_prior():
    for name in plugins.names("methods"):
        found = prior(64, name, 8, "r", 16, 4096)
        assert 1e-6 < found.centre < 1 and found.sd_octaves > 0


def test_full_fine_tunings_prior_does_not_depend_on_rank_and_alpha():
    rates = {round(prior(4096, "full", rank, policy, 64).centre, 9) for rank, policy in ((1, "r"), (64, "16"))}
    assert len(rates) == 1


def test_dora_from_another_start_has_that_starts_shift():
    assert prior(1024, "dora+pissa", 8, "r", 16).shift_octaves == prior(1024, "pissa", 8, "r", 16).shift_octaves


# Proxies --------------------------------------------------------------------------------------------------------------

SMALL = Setting("lora", 2, "r", 16, 64, 4096, "llama")


def test_a_proxys_batch_size_is_kept_and_its_rate_is_moved_by_rank_and_width():
    target = Setting("lora", 8, "r", 128, 256, 4096, "llama")
    moved = proxy.transfer(proxy.Found(SMALL, 0.02, 0.01, 0.04), target)
    assert moved.setting == replace(target, batch_size=16)
    assert moved.learning_rate == pytest.approx(0.02 / 4)  # r^-1/2 and n^-1/2, each over a factor of 4
    assert [move.rule.name for move in moved.moves] == ["rank", "width"]
    assert moved.low < 0.01 / 4 and moved.high > 0.04 / 4  # the rules' errors are added to the proxy's
    assert min(moved.probes) <= moved.low and max(moved.probes) >= moved.high
    assert moved.probes[0] == moved.learning_rate


def test_a_proxy_that_is_the_target_adds_no_error():
    moved = proxy.transfer(proxy.Found(SMALL, 0.02, 0.01, 0.03), SMALL)
    assert (moved.learning_rate, moved.low, moved.high) == pytest.approx((0.02, 0.01, 0.03))
    assert moved.moves == () and len(moved.probes) == 3


def test_a_lopsided_interval_stays_lopsided():
    moved = proxy.transfer(proxy.Found(SMALL, 0.02, 0.002, 0.021), replace(SMALL, rank=4))
    assert moved.learning_rate / moved.low > 4 * moved.high / moved.learning_rate


def test_a_transfer_recovers_a_planted_law():
    """eta* planted as the rules have it, over rank, width and alpha together."""
    target = replace(SMALL, rank=32, alpha="16", width=512)
    planted = lambda at: 0.3 * (at.scaling * at.width * at.rank) ** -0.5  # noqa: E731
    found = proxy.Found(SMALL, planted(SMALL), planted(SMALL) / 2, planted(SMALL) * 2)
    assert proxy.transfer(found, target).learning_rate == pytest.approx(planted(target))


def test_proxies_are_refused_with_a_reason():
    with pytest.raises(
        InputError, match=r"proxy's optimum: got \(0.03, 0.02, 0.04\), expected three positive learning"
    ):
        proxy.transfer(proxy.Found(SMALL, 0.02, 0.03, 0.04), SMALL)
    with pytest.raises(InputError, match=r"proxy: the width rule cannot be used: got no hidden size"):
        proxy.transfer(proxy.Found(replace(SMALL, width=None), 0.02, 0.01, 0.03), SMALL)
