"""Optuna's samplers: what they are asked and told, that the history repeats itself, and what is refused."""

import importlib.util
import itertools
import subprocess
import sys

import pytest

from searching import answering, diverged, lost, plan_with, run, wide
from small_study import TEXT, forge_hashes, plan_of, result_of
from welltuned import plugins
from welltuned.errors import InputError
from welltuned.records import Role
from welltuned.search import _space
from welltuned.spec import Spec

optuna = pytest.importorskip("optuna")
from welltuned.search import optuna as search  # noqa: E402  (the search of that name, not the library)


@pytest.fixture(autouse=True)
def forged(monkeypatch):
    forge_hashes(monkeypatch)
    search._asking.cache_clear()


def loss_of(config) -> float:
    """A valley at 1e-2 and batch 8, in decades and octaves."""
    import math

    return 1.0 + (math.log10(config.learning_rate) + 2) ** 2 + 0.05 * (math.log2(config.batch_size) - 3) ** 2


def selected(results):
    return [r for r in results if r.role is Role.SELECT]


SAMPLERS = ["TPESampler", "GPSampler", "RandomSampler", "QMCSampler", "NSGAIISampler", "BruteForceSampler"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_spends_the_budget_on_different_candidates_in_rounds(sampler):
    plan = plan_with("optuna", f'budget = 14\nwidth = 5\nsampler = "{sampler}"', wide())
    proposals, results = run(plan, answering(loss_of))
    assert [len(p.trials) for p in proposals if p.trials][:-1] == [5, 5, 4]
    assert len({r.trial_id for r in selected(results)}) == 14


@pytest.mark.parametrize("options", ["", "sampler_options = { multivariate = true, n_startup_trials = 4 }"])
def test_tpe_asks_what_optuna_itself_would_ask(options):
    """Beside a plain loop over Optuna's own ask and tell on the same places, one at a time and without repetitions."""
    text = wide()
    plan = plan_with("optuna", f"budget = 14\nwidth = 1\n{options}", text)
    _, results = run(plan, answering(loss_of))
    question = search._question(plan, _space.choices(plan)[0])
    study = search._study(plan.sampler, question.seed)
    fields = [axis.field for axis in question.box.axes]
    expected: list[tuple] = []
    while len(expected) < 14:
        trial = study.ask(
            {axis.field: optuna.distributions.IntDistribution(0, len(axis.values) - 1) for axis in question.box.axes}
        )
        setting = tuple(axis.values[trial.params[axis.field]] for axis in question.box.axes)
        if setting in expected:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        expected.append(setting)
        mine = dict(zip(fields, setting, strict=True))
        study.tell(trial, loss_of(plan.arms[0].configs[0].replace(**mine)))
    assert [tuple(getattr(r.config, field) for field in fields) for r in selected(results)] == expected


@pytest.mark.parametrize("sampler", ["TPESampler", pytest.param("GPSampler", marks=pytest.mark.slow)])
def test_a_model_finds_better_rates_than_chance(sampler):
    """Mean best loss of several seeds after 14 of 52 candidates, beside random draws."""
    found = {}
    for name in (sampler, "RandomSampler"):
        options = "" if name == "RandomSampler" else "sampler_options = { n_startup_trials = 6 }"
        best = []
        for seed in range(4 if sampler == "GPSampler" else 8):
            text = f"seed = {seed}\n{wide()}"
            plan = plan_with("optuna", f'budget = 14\nwidth = 2\nsampler = "{name}"\n{options}', text)
            best.append(min(r.validation_nll for r in selected(run(plan, answering(loss_of))[1])))
        found[name] = sum(best) / len(best)
    assert found[sampler] < found["RandomSampler"]


def test_the_history_repeats_itself_in_any_order_and_after_any_interruption():
    """A resumed search has nothing but the results; forgotten studies, shuffled results and half rounds lead back."""
    plan = plan_with("optuna", "budget = 16\nwidth = 4", wide())
    proposals, results = run(plan, answering(loss_of))
    rounds = [p.trials for p in proposals if p.trials and p.trials[0].role is Role.SELECT]
    for number in range(len(rounds)):
        before = [r for r in results if r.trial_id in {t.id for trials in rounds[:number] for t in trials}]
        search._asking.cache_clear()
        assert search.propose(plan, before[::-1]).trials == rounds[number]
        half = [result_of(trial, loss_of(trial.config)) for trial in rounds[number][1::2]]
        assert search.propose(plan, [*half, *before]).trials == rounds[number][::2]


def test_other_answers_lead_to_other_questions_though_a_study_is_kept():
    plan = plan_with("optuna", "budget = 24\nwidth = 2\nsampler_options = { n_startup_trials = 4 }", wide())
    low, high = (
        [r.config.learning_rate for r in selected(run(plan, answering(loss))[1])]
        for loss in (lambda config: config.learning_rate, lambda config: 1 - config.learning_rate)
    )
    again = [r.config.learning_rate for r in selected(run(plan, answering(lambda config: config.learning_rate))[1])]
    assert low == again and low[:4] == high[:4] and sum(low[4:]) < sum(high[4:])


def test_another_process_asks_the_same():
    code = (
        "import sys; sys.path[:0] = ['tests', 'src']\n"
        "import pytest, test_optuna as t\n"
        "with pytest.MonkeyPatch.context() as patch:\n"
        "    t.forge_hashes(patch)\n"
        "    plan = t.plan_with('optuna', 'budget = 14\\nwidth = 2', t.wide())\n"
        "    print(*[r.trial_id for r in t.selected(t.run(plan, t.answering(t.loss_of))[1])])"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    plan = plan_with("optuna", "budget = 14\nwidth = 2", wide())
    assert there == [r.trial_id for r in selected(run(plan, answering(loss_of))[1])]


def test_seeds_are_trained_together_and_their_mean_is_told():
    plan = plan_with("optuna", "budget = 12\nwidth = 4\nseeds = 2", wide())
    told = []

    def answer(trial):
        told.append(trial.config)
        return result_of(trial, loss_of(trial.config) + 0.5 * trial.config.init_seed)

    proposals, _ = run(plan, answer)
    assert [len(p.trials) for p in proposals if p.trials][:3] == [4, 4, 4]
    study = search._asking(search._question(plan, _space.choices(plan)[0])).study
    values = [t.value for t in study.trials if t.state is optuna.trial.TrialState.COMPLETE]
    expected = [loss_of(config) + 0.25 for config in told if config.init_seed == 0]
    assert values == pytest.approx(expected[: len(values)]) and len(values) == 6


def test_diverged_is_told_as_the_bases_loss_and_lost_as_failed():
    def answer(trial):
        if trial.config.batch_size == 4:
            return lost(trial)
        return diverged(trial) if trial.config.learning_rate > 1e-2 else result_of(trial, 1.0)

    plan = plan_with("optuna", "budget = 24\nwidth = 24", wide())
    _, results = run(plan, answer)
    study = search._asking(search._question(plan, _space.choices(plan)[0])).study
    rates = sorted({c.learning_rate for arm in plan.arms for c in arm.configs})
    for trial in study.trials:
        batch, rate = (4, 8, 16, 32)[trial.params["batch_size"]], rates[trial.params["learning_rate"]]
        if trial.state is optuna.trial.TrialState.COMPLETE:
            assert batch != 4 and trial.value == (3.0 if rate > 1e-2 else 1.0)
    assert sum(t.state is optuna.trial.TrialState.COMPLETE for t in study.trials) == sum(
        r.config.batch_size != 4 for r in selected(results)
    )


def test_a_small_grid_is_trained_to_the_end_though_the_sampler_repeats_itself():
    plan = plan_with("optuna", "budget = 9\nwidth = 2", TEXT)
    _, results = run(plan, answering(loss_of))
    assert sorted(r.trial_id for r in selected(results)) == sorted(c.id() for arm in plan.arms for c in arm.configs)


def test_settings_that_are_not_numbers_are_categories():
    text = wide("[1e-3, 1e-2]", "[4]").replace("[axes]", '[axes]\nlr_scheduler_type = ["constant", "cosine", "linear"]')
    plan = plan_with("optuna", "budget = 6", text)
    _, results = run(plan, answering(loss_of))
    assert len({(r.config.lr_scheduler_type, r.config.learning_rate) for r in selected(results)}) == 6
    study = search._asking(search._question(plan, _space.choices(plan)[0])).study
    kinds = {name: type(kind).__name__ for name, kind in study.trials[0].distributions.items()}
    assert kinds == {"lr_scheduler_type": "CategoricalDistribution", "learning_rate": "IntDistribution"}


MESSAGES = [
    (
        'sampler = "TPESample"',
        "search.sampler: got 'TPESample', expected a sampler of Optuna; did you mean 'TPESampler'? Known: ",
    ),
    ('sampler = "GridSampler"', "search.sampler_options: got {}, expected what GridSampler takes ("),
    (
        "sampler_options = { multivariat = true }",
        "search.sampler_options: got 'multivariat', expected an option of TPESampler; did you mean 'multivariate'?",
    ),
    (
        "sampler_options = { seed = 3 }",
        "search.sampler_options: got 'seed', expected an option of TPESampler; Known: ",
    ),
    (
        'sampler = "QMCSampler"\nsampler_options = { qmc_type = "soboll" }',
        "search.sampler_options: got {'qmc_type': 'soboll'}, expected what QMCSampler takes (",
    ),
    (
        "sampler_options = 3",
        "search.sampler_options: got 3, expected a table like { multivariate = true }; write sampler_options = "
        "{ multivariate = true }, for instance",
    ),
]


@pytest.mark.parametrize(("settings", "says"), MESSAGES)
def test_what_optuna_does_not_have_is_refused_before_anything_is_trained(settings, says):
    with pytest.raises(InputError) as caught:
        plan_with("optuna", f"budget = 4\n{settings}")
    assert len(caught.value.problems) == 1 and caught.value.problems[0].startswith(says)


@pytest.mark.parametrize(
    ("package", "settings", "says"),
    [
        ("optuna", "", "search.search: got 'optuna', expected a search that is installed; install Optuna: pip install"),
        ("cmaes", 'sampler = "CmaEsSampler"', "search.sampler: got 'CmaEsSampler', expected the package cmaes beside"),
    ],
)
def test_a_package_that_is_not_installed_is_named(monkeypatch, package, settings, says):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else there(name))
    with pytest.raises(InputError) as caught:
        plan_with("optuna", f"budget = 4\n{settings}")
    assert caught.value.problems[0].startswith(says)


@pytest.mark.parametrize("setting", ['sampler = "GPSampler"', "sampler_options = { seed = 1 }"])
def test_other_searches_have_no_sampler(setting):
    for name, budget in itertools.product(("grid", "uniform"), ("", "budget = 4")):
        if (name == "grid") == (budget == ""):
            with pytest.raises(InputError, match=rf"search\.{setting.split()[0]}: got .*, expected nothing: search"):
                plan_with(name, f"{budget}\n{setting}")


def test_the_samplers_settings_are_part_of_the_study():
    options = "sampler_options = { multivariate = true, prior_weight = 0.5, n_startup_trials = 3 }"
    spec = plan_with("optuna", f"budget = 4\n{options}").spec
    assert Spec.parse(spec.text()).text() == spec.text() and options in spec.text()
    assert plan_of(Spec.parse(TEXT)).spec.text().find("sampler") == -1


def test_planning_another_study_does_not_load_optuna():
    assert plugins.load("searches", "optuna").summary
    code = (
        "import sys; sys.path.insert(0, 'src')\n"
        "import welltuned.plan, welltuned.search.optuna; print('optuna' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
