"""Plans: canonical configurations and their ids, arms, cells, what does not fit, notes, budgets and costs."""

import dataclasses
import math
from pathlib import Path

import pytest

from small_study import SITES, STUDIES, TEXT, edited, forge_hashes, plan_of
from welltuned import plan as plans
from welltuned import plan_cost, plugins
from welltuned.costs import flops
from welltuned.errors import InputError
from welltuned.records import Config
from welltuned.spec import Spec

GIB = 2**30


@pytest.fixture(autouse=True)
def _no_files(monkeypatch):
    forge_hashes(monkeypatch)


def configs_of(**sections) -> tuple[Config, ...]:
    return plans.expand(Spec.model_validate(edited(**sections)))


def first(**sections) -> Config:
    """Return the only configuration of the small study without axes."""
    (config,) = plans.expand(Spec.model_validate({**edited(**sections), "axes": {}}))
    return config


# Configurations -------------------------------------------------------------------------------------------------------


def test_expansion_is_the_product_with_all_seeds():
    found = [
        (c.method, c.batch_size, c.learning_rate, c.init_seed, c.order_seed) for c in configs_of(search={"seeds": 2})
    ]
    rates = (1e-3, 1e-2)
    assert found == [(m, b, lr, k, k) for m in ("lora", "pissa") for b in (4, 16) for lr in rates for k in (0, 1)]


def test_same_spec_in_another_order_gives_the_same_ids():
    text = TEXT.replace(
        'method = ["lora", "pissa"]\nbatch_size = [4, 16]', 'batch_size = [16, 4]\nmethod = ["pissa", "lora"]'
    )
    assert text != TEXT
    ids = [{config.id() for config in plans.expand(Spec.parse(t))} for t in (TEXT, text)]
    assert ids[0] == ids[1]


# A changed value for every setting that decides a result, with what it needs to matter.
SGD, FLOOR = {"optimizer": "sgd"}, {"lr_scheduler_type": "cosine_with_floor"}
DECIDING = [
    ("seed", None, 1, {}), ("base", "model", "abacus-large", {}), ("dtype", "model", "bfloat16", {}),
    ("target_modules", "model", ["q_proj"], {}), ("num_train", "task", 500, {}), ("subset", "task", "seeded", {}),
    ("num_validation", "task", 8, {}), ("num_test", "task", 8, {}), ("split_seed", "task", 1, {}),
    ("max_length", "task", 99, {}), ("prompt_template", "task", "alpaca", {}), ("method", "train", "milora", {}),
    ("rank", "train", 4, {}), ("alpha", "train", "2r", {}), ("clamp_rank", "train", True, {}),
    ("dropout", "train", 0.1, {}), ("optimizer", "train", "sign_sgd", {}), ("learning_rate", "train", 2e-3, {}),
    ("batch_size", "train", 8, {}), ("beta1", "train", 0.8, {}), ("beta2", "train", 0.99, {}),
    ("beta2_batch_size", "train", 16, {}), ("epsilon", "train", 1e-6, {}), ("momentum", "train", 0.5, SGD),
    ("weight_decay", "train", 0.1, {}), ("max_grad_norm", "train", "none", {}),
    ("lr_scheduler_type", "train", "linear", {}), ("lr_floor", "train", 0.2, FLOOR), ("warmup_ratio", "train", 0.1, {}),
    ("warmup_steps", "train", 5, {}), ("num_train_epochs", "train", 2, {}), ("max_steps", "train", 50, {}),
    ("num_evaluations", "train", 8, {}), ("init_seed", "train", 7, {}), ("order_seed", "train", 7, {}),
    ("subset_seed", "train", 7, {"subset": "seeded"}), ("loraplus_lr_ratio", "train", 4.0, {}),
    ("quantization", "model", "int8", {}),
    ("rank_pattern", "train", ["q_proj=2"], {}), ("alpha_pattern", "train", ["q_proj=2r"], {}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "section", "value", "needs"), DECIDING, ids=[case[0] for case in DECIDING])
def test_a_deciding_setting_changes_the_id(field, section, value, needs):
    needed = {
        "train": {k: v for k, v in needs.items() if k != "subset"},
        "task": {k: v for k, v in needs.items() if k == "subset"},
    }
    before = first(**needed)
    changed = (
        {**needed, field: value} if section is None else {**needed, section: {**needed.get(section, {}), field: value}}
    )
    assert first(**changed).id() != before.id()


def test_every_setting_is_in_the_list_of_deciding_ones():
    # need a hub, another task, or files (start_from: tests/test_continued.py)
    untested = {"revision", "task", "data_train", "data_validation", "data_test", "start_from", "start_step"}
    fields = {
        name for section in ("model", "task", "train") for name in type(getattr(Spec.parse(TEXT), section)).model_fields
    }
    assert {case[0] for case in DECIDING} - {"seed"} == fields - untested


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({}, {"momentum": 0.5}),
        ({}, {"lr_floor": 0.3}),
        ({}, {"subset_seed": 3}),
        ({"optimizer": "sgd"}, {"beta1": 0.5, "beta2": 0.5, "epsilon": 1e-3, "beta2_batch_size": 4}),
        ({"warmup_steps": 5}, {"warmup_ratio": 0.5}),
        ({"max_steps": 50}, {"num_train_epochs": 3}),
        ({"method": "full"}, {"rank": 3, "alpha": "2r", "dropout": 0.1, "clamp_rank": True}),
        ({"method": "full"}, {"rank_pattern": ["q_proj=2"], "alpha_pattern": ["q_proj=1"], "loraplus_lr_ratio": 2.0}),
        ({"method": "vera"}, {"alpha": "2r", "alpha_pattern": ["q_proj=1"], "loraplus_lr_ratio": 2.0}),
    ],
)
def test_a_setting_that_changes_nothing_does_not_change_the_id(settings, change):
    assert first(train=settings).id() == first(train=settings | change).id()


def test_names_and_fresh_search_settings_do_not_change_ids():
    assert first().id() == first(name="other", search={"fresh_seeds": 9}).id()


def test_full_has_no_rank_and_is_not_repeated_for_each():
    spec = Spec.model_validate(
        {**edited(), "axes": {"method": ["lora", "full"], "rank": [2, 4, 8], "learning_rate": [1e-3, 2e-3]}}
    )
    plan = plan_of(spec)
    lora, full = plan.arms
    assert (len(lora.configs), len(full.configs)) == (6, 2)
    assert {(c.rank, c.alpha, c.scaling) for c in full.configs} == {(0, "r", 1.0)}
    assert "full: 6 combinations are 2 different trials." in plan.notes
    assert any(note.startswith("Budgets are not equal: lora 6 trials, ") for note in plan.notes)


def test_scaling_is_the_effective_multiplier():
    found = {
        c.rank: c.scaling
        for c in configs_of(train={"alpha": 16}, axes={"rank": [4, 32], "batch_size": [4], "method": ["lora"]})
    }
    assert found == {4: 4.0, 32: 0.5}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"method": "dora+vera"}, "method: got 'dora+vera', expected A+B where A takes another's initialisation"),
        ({"method": "lora+pissa"}, "method: got 'lora+pissa', expected A+B where A takes another's initialisation"),
        (
            {"rank_pattern": ["nowhere=2"]},
            "train.rank_pattern: got 'nowhere=2', expected the name of an adapted module",
        ),
        ({"rank_pattern": ["q_proj=4000"]}, "train.rank: got 4000, expected at most 64"),
        ({"method": "gralora", "rank": 3}, "train.rank: got 3, expected a multiple of 2, as GraLoRA's blocks need"),
        ({"method": "lora_ga", "rank": 40}, "train.rank: got 40, expected at most 32, half the full rank"),
    ],
)
def test_what_a_method_or_a_pattern_cannot_have_is_refused(settings, line):
    with pytest.raises(InputError) as caught:
        plan_of(Spec.model_validate({**edited(train=settings), "axes": {"learning_rate": [1e-3]}}))
    assert any(problem.startswith(line) for problem in caught.value.problems), caught.value.problems


def test_ranks_by_module_count_in_the_plan():
    small, large = (first(train={"rank": 2, "rank_pattern": pattern}) for pattern in ([], ["0.self_attn.q_proj=4"]))
    assert small.scaling == large.scaling == 1
    assert large.rank_at("model.layers.0.self_attn.q_proj", 32, 32) == 4
    assert large.rank_at("model.layers.1.self_attn.q_proj", 32, 32) == 2


def test_a_pinned_revision_is_recorded(monkeypatch):
    files = plans.fingerprint.BaseFiles("hub", Path("nowhere"), None, "c0ffee")
    monkeypatch.setattr(plans.fingerprint, "resolve_base", lambda base, revision: files)
    assert {config.revision for config in configs_of()} == {"c0ffee"}


def test_files_that_cannot_be_found_are_all_reported(monkeypatch):
    def missing(base, revision):
        raise InputError(f"no base {base}")

    monkeypatch.setattr(plans.fingerprint, "resolve_base", missing)
    with pytest.raises(InputError) as caught:
        configs_of(model={"base": None}, axes={"base": ["a", "b"]})
    assert caught.value.problems == ("no base a", "no base b")


# Surveys, arms, cells -------------------------------------------------------------------------------------------------


def test_one_survey_for_each_base_and_data():
    spec = Spec.model_validate(
        edited(model={"base": None}, axes={"base": ["a", "b"], "num_train": [64, 128], "rank": [2, 4]})
    )
    found = plans.survey_configs(spec)
    assert [(config.base, config.num_train) for config in found] == [("a", 64), ("a", 128), ("b", 64), ("b", 128)]
    assert len({plans.survey_key(config) for config in found}) == 4
    assert {plans.survey_key(config) for config in plans.expand(spec)} == {plans.survey_key(config) for config in found}


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        ({}, ("method", "batch_size")),
        ({"methods": {"pissa": {"rank": [2, 4]}}}, ("method", "rank", "batch_size")),
        ({"axes": {"init_seed": [0, 1], "rank": [2, 4]}}, ("method", "rank", "batch_size")),
        ({"axes": {"batch_size": None, "method": None, "base": ["a", "b"]}}, ("method", "base")),
    ],
)
def test_a_cell_is_every_axis_but_learning_rate_and_seeds(changes, cell):
    assert plan_of(Spec.model_validate(edited(**changes))).cell == cell


def test_confirmations_use_seeds_that_selection_never_saw():
    plan = plan_of(Spec.model_validate(edited(search={"seeds": 3}, task={"subset": "seeded"})))
    winner = plan.arms[0].configs[0]
    reruns = plan.confirmations(winner, 3)
    assert [(c.init_seed, c.order_seed, c.subset_seed) for c in reruns] == [(k, k, k) for k in (1000, 1001, 1002)]
    seen = {getattr(c, field) for c in plan.arms[0].configs for field in ("init_seed", "order_seed", "subset_seed")}
    assert seen == {0, 1, 2}
    assert {c.replace(init_seed=0, order_seed=0, subset_seed=0) for c in reruns} == {winner}


def test_a_fixed_seed_stays_fixed_and_an_axis_of_seeds_moves():
    plan = plan_of(Spec.model_validate(edited(train={"order_seed": 5}, axes={"init_seed": [1, 2]})))
    assert {(c.init_seed, c.order_seed) for arm in plan.arms for c in arm.configs} == {(1, 5), (2, 5)}
    reruns = plan.confirmations(plan.arms[0].configs[0], 2)
    assert [(c.init_seed, c.order_seed, c.subset_seed) for c in reruns] == [(1000, 5, 0), (1001, 5, 0)]


# What does not fit ----------------------------------------------------------------------------------------------------


def test_rank_above_a_sites_full_rank_names_the_sites():
    spec = Spec.model_validate(edited(train={"rank": 65}))
    with pytest.raises(InputError) as caught:
        plan_of(spec)
    names = ", ".join(site.name for site in SITES)
    advice = "lower it, or set clamp_rank = true in [train]"
    assert caught.value.problems == (f"train.rank: got 65, expected at most 64, the full rank of {names}; {advice}",)


def test_many_sites_are_counted():
    sites = tuple(dataclasses.replace(SITES[0], name=f"s{i}") for i in range(9))
    with pytest.raises(InputError, match=r"the full rank of s0, s1, s2 and 6 more; lower it"):
        plan_of(Spec.model_validate(edited(train={"rank": 65})), sites=sites)


def test_clamped_ranks_are_shown():
    plan = plan_of(Spec.model_validate(edited(train={"rank": 65, "clamp_rank": True})))
    assert "lora, rank 65: clamped to the full rank at 3 sites." in plan.notes


def test_more_training_rows_than_there_are():
    with pytest.raises(InputError) as caught:
        plan_of(Spec.parse(TEXT), num_train_available=100)
    expected = (
        "expected at most 100, the rows that are left after validation and test are carved; lower it, or add data"
    )
    assert caught.value.problems == (f"task.num_train: got 512, {expected}",)


def test_notes_say_what_should_be_known():
    tree = edited(train={"momentum": 0.5, "batch_size": 8}, axes={"batch_size": [4, 64]})
    plan = plan_of(Spec.model_validate(tree), num_truncated=3, num_dropped=2, num_duplicates=1)
    assert plan.notes == (
        "batch_size: [axes] replaces the value in its section.",
        "learning_rate: [axes] replaces the value in its section.",
        "momentum changes nothing here: adamw has beta1 and beta2.",
        "lora, batch_size 64: only 8 optimizer steps, under 32.",
        "pissa, batch_size 64: only 8 optimizer steps, under 32.",
        "3 rows are truncated at max_length.",
        "2 rows are dropped: nothing of their completion is left after truncation.",
        "1 training rows have a prompt that is also in validation or test.",
    )


def test_equal_budgets_are_not_noted():
    assert not any("Budgets" in note for note in plan_of(Spec.parse(TEXT)).notes)


# Cost -----------------------------------------------------------------------------------------------------------------


SPEEDS = {dtype: plan_cost.Speed(flops_per_second=1e11, token_seconds=1e-5) for dtype in ("float32", "bfloat16")}


def test_summary_shows_every_setting_and_the_whole_cost():
    plan = plan_of(Spec.parse(TEXT))
    shown = plan_cost.summary(plan, 4 * GIB, SPEEDS)
    assert {row.field for row in shown.settings} >= {"name", "seed", "rank", "epsilon", "fresh_seeds"}
    assert [(row.name, row.num_select, row.num_winners, row.num_confirm) for row in shown.arms] == [
        ("lora", 4, 2, 4),
        ("pissa", 4, 2, 4),
    ]
    assert shown.arms[0].num_trainable == (8 * (128 + 236 + 128),) * 2
    assert shown.arms[0].scalings == (1.0,)
    assert shown.arms[0].axes == (("batch_size", 2), ("learning_rate", 2))
    assert shown.cost.num_trials == 16
    assert shown.cost.num_tokens == 16 * 512 * 64
    assert shown.cost.num_packs == len(plan.packs(4 * GIB))
    assert shown.cost.seconds == pytest.approx(shown.cost.flops / 1e11 + shown.cost.num_tokens * 1e-5)
    assert shown.cost.seconds_from == "from a short measurement of this machine"


def test_a_measured_rate_gives_the_training_time_and_evaluation_in_proportion():
    plan = plan_of(Spec.parse(TEXT))
    cost = plan_cost.summary(plan, 4 * GIB, 1000.0).cost
    train = sum(flops.work(t.config, plan.survey_of(t.config)).train_flops for t in plan.trials()) * 2  # as many reruns
    assert cost.seconds == pytest.approx(cost.num_tokens / 1000 * cost.flops / train)
    assert cost.seconds_from == "measured 1,000 tokens/s"


def test_packs_of_several_bases_are_apart_and_complete():
    spec = Spec.model_validate(edited(model={"base": None}, axes={"base": ["a", "b"]}))
    plan = plan_of(spec)
    jobs = plan.packs(4 * GIB)
    assert sorted(t.id for job in jobs for t in job.trials) == sorted(t.id for t in plan.trials())
    assert all(len({t.config.base for t in job.trials}) == 1 for job in jobs)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_study_files_are_planned(path):
    spec = Spec.load(path)
    plan = plan_of(spec)
    cost = plan_cost.summary(plan, 8 * GIB, SPEEDS).cost
    assert math.isfinite(cost.seconds) and cost.num_packs >= 1
    declared = "batch_size 256: only 16 optimizer steps" if path.stem == "batch_by_method" else "nothing"
    notes = [note for note in plan.notes if declared not in note]
    assert not any("only" in note or "changes nothing" in note for note in notes), notes
    if "full" not in spec.method_names():  # it has no rank to sweep, hence fewer trials
        assert not notes
    assert {c.task for arm in plan.arms for c in arm.configs} <= set(plugins.names("tasks"))


def test_the_demo_is_what_it_promises():
    spec = Spec.load(next(path for path in STUDIES if path.stem == "demo"))
    plan = plan_of(spec)
    assert [arm.name for arm in plan.arms] == ["lora", "pissa", "milora"]
    assert spec.axes["batch_size"] == (4, 16, 64)
    assert all(len(spec.axes_of(arm.name)["learning_rate"]) >= 7 for arm in plan.arms)
    assert min(flops.num_steps(trial.config) for trial in plan.trials()) >= 32
    assert len({len(arm.configs) for arm in plan.arms}) == 1
