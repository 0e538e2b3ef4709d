"""The study file: what it says, its canonical text and hash, its grids and its alpha policies."""

import dataclasses
import doctest
import itertools
import math
import tomllib

import pytest

from small_study import STUDIES, TEXT, edited
from welltuned.errors import InputError
from welltuned.records import Config
from welltuned.spec import Spec, _grids, field_rows
from welltuned.transfer import alpha

# Fields of a configuration that a study file does not set: they are looked up or worked out.
DERIVED = {
    "study_seed": "the file's seed",
    "base_hash": "of the base's bytes",
    "task_version": "of the task plug-in",
    "data_hash": "of the data's bytes",
    "method_version": "of the method plug-in",
    "method_source": "of an outside plug-in's file",
    "scaling": "from alpha and rank",
    "start_hash": "of the adapter's bytes",
}


def problems(tree: dict) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        Spec.model_validate(tree)
    return caught.value.problems


# What it says ---------------------------------------------------------------------------------------------------------


def test_text_reads_back_as_the_same_study():
    spec = Spec.parse(TEXT)
    again = Spec.parse(spec.text())
    assert again.text() == spec.text()
    assert again.hash() == spec.hash()
    assert list(again.combinations()) == list(spec.combinations())


def test_hash_does_not_depend_on_the_order_of_keys_and_sections():
    tree = tomllib.loads(TEXT)

    def turned(value):
        return {key: turned(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    assert Spec.model_validate(turned(tree)).hash() == Spec.model_validate(tree).hash()


def test_writing_a_default_changes_nothing_but_writing_another_value_does():
    same = edited(train={"rank": 8, "max_steps": "none"}, seed=0)
    assert Spec.model_validate(same).hash() == Spec.parse(TEXT).hash()
    for section, changes in [("train", {"rank": 9}), ("task", {"split_seed": 1}), ("search", {"seeds": 2})]:
        assert Spec.model_validate(edited(**{section: changes})).hash() != Spec.parse(TEXT).hash()


def test_text_survives_awkward_strings():
    name = 'quote " backslash \\ newline \n delete \x7f bell \x07 e-acute \u00e9 smile \U0001f600'
    spec = Spec.model_validate(edited(name=name))
    assert Spec.parse(spec.text()).name == name


def test_a_spec_built_in_code_equals_one_from_text():
    tree = tomllib.loads(TEXT)
    built = Spec(
        name="small",
        model=tree["model"],
        task=tree["task"],
        train=tree["train"],
        axes=tree["axes"],
        search=tree["search"],
    )
    assert built.hash() == Spec.parse(TEXT).hash()


def test_every_field_of_a_configuration_is_settable_or_derived():
    settable = {field for section, field, _, _ in field_rows() if section not in ("search", "compare")}
    fields = {field.name for field in dataclasses.fields(Config)}
    assert settable | set(DERIVED) == fields
    assert not settable & set(DERIVED)


def test_field_names_are_unique_and_every_field_says_what_it_means():
    names = [field for _, field, _, _ in field_rows()]
    assert len(names) == len(set(names))
    assert [field for _, field, _, meaning in field_rows() if not meaning] == []


def test_combinations_are_the_product_of_each_methods_own_axes():
    tree = edited(
        axes={"learning_rate": [1e-3, 1e-2]}, methods={"pissa": {"learning_rate": [1e-4, 2e-4, 5e-4], "rank": 4}}
    )
    found = [
        (s["method"], s["rank"], s["batch_size"], s["learning_rate"]) for s in Spec.model_validate(tree).combinations()
    ]
    expected = [("lora", 8, b, lr) for b in (4, 16) for lr in (1e-3, 1e-2)]
    expected += [("pissa", 4, b, lr) for b in (4, 16) for lr in (1e-4, 2e-4, 5e-4)]
    assert found == expected


def test_a_learning_rate_may_be_given_by_each_methods_table_only():
    methods = {"lora": {"learning_rate": [1e-3]}, "pissa": {"learning_rate": 1e-4}}
    spec = Spec.model_validate(edited(train={"learning_rate": None}, axes={"learning_rate": None}, methods=methods))
    assert {(s["method"], s["learning_rate"]) for s in spec.combinations()} == {("lora", 1e-3), ("pissa", 1e-4)}
    assert Spec.parse(spec.text()).hash() == spec.hash()


def test_any_setting_can_be_an_axis():
    axes = {"base": ["abacus-small", "abacus-middle"], "target_modules": [["q_proj", "v_proj"], "all-linear"]}
    axes |= {"max_grad_norm": ["none", 1.0], "lr_scheduler_type": ["cosine", "constant"]}
    spec = Spec.model_validate(edited(model={"base": None}, axes=axes))
    assert len(list(spec.combinations())) == 2 * 2 * 2 * 2 * 2 * 2 * 2
    assert spec.axes["target_modules"] == (("q_proj", "v_proj"), ("all-linear",))
    assert spec.axes["max_grad_norm"] == (None, 1.0)
    assert Spec.parse(spec.text()).text() == spec.text()


def test_rows_say_where_each_value_comes_from():
    sources = {row.field: (row.value, row.source) for row in Spec.parse(TEXT).rows()}
    assert sources["seed"] == ("0", "default")
    assert sources["num_train"] == ("512", "file")
    assert sources["rank"] == ("8", "default")
    assert sources["batch_size"] == ("[4, 16]", "axis")
    assert sources["max_steps"] == ('"none"', "default")


# Grids and alpha ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [_grids, alpha])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_grids_against_plain_lists():
    ladder = sorted(digit * 10.0**power for power in range(-7, 3) for digit in (1, 2, 5))
    found = _grids.values("1-2-5", 1e-5, 3e-3)
    assert found == pytest.approx([value for value in ladder if 0.99e-5 < value < 3e-3])
    # The 12 learning rates of "Learning Rate Matters" (arXiv 2602.04998), as its scripts print them.
    printed = [digits * 10.0**power for power in (-5, -4, -3) for digits in (1.1247, 2.0, 3.5566, 6.3246)]
    assert _grids.values("4-per-decade", 1.1e-5, 6.4e-3) == pytest.approx(printed, rel=1e-4)
    assert _grids.values("powers-of-two", 2**-8, 2**-5) == (2**-8, 2**-7, 2**-6, 2**-5)


@pytest.mark.parametrize(("grid", "members"), [("1-2-5", (1e-4, 5e-3, 2e-2)), ("powers-of-two", (0.25, 4.0, 256.0))])
def test_both_ends_of_a_grid_are_included_however_they_were_rounded(grid, members):
    for low, high in itertools.combinations_with_replacement(members, 2):
        found = _grids.values(grid, math.nextafter(low, 1e9), math.nextafter(high, 0))
        assert (found[0], found[-1]) == (low, high)


def test_a_grid_of_whole_numbers_gives_whole_numbers():
    spec = Spec.model_validate(edited(axes={"batch_size": {"grid": "powers-of-two", "from": 4, "to": 64}}))
    assert spec.axes["batch_size"] == (4, 8, 16, 32, 64)
    assert all(type(value) is int for value in spec.axes["batch_size"])


@pytest.mark.parametrize("rank", [1, 4, 8, 100])
def test_alpha_policies_against_their_formulas(rank):
    expected = {"r": 1, "2r": 2, "0.5r": 0.5, "16": 16 / rank, "16/sqrt(r)": 16 / rank**0.5, 16: 16 / rank}
    for policy, multiplier in expected.items():
        spec = Spec.model_validate(edited(train={"alpha": policy}))
        assert Spec.multiplier(spec.train.alpha, rank) == pytest.approx(multiplier, rel=1e-15)


@pytest.mark.parametrize("policy", ["", "rr", "-1", "0", "0r", "r/2", "r/sqrt(r)", "nan", "inf", True, ".r", "1e400"])
def test_what_is_no_alpha_policy(policy):
    (line,) = problems(edited(train={"alpha": policy}))
    assert line.startswith(f'train.alpha: got {policy!r}, expected "r", "2r", 16 or "16/sqrt(r)"; write alpha = "r"')


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_study_files_load(path):
    spec = Spec.load(path)
    assert Spec.parse(spec.text()).hash() == spec.hash()
