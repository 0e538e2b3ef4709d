"""Every message about a study file: one line each that says what, got, expected, and what to do next."""

import math

import pytest

from small_study import TEXT, edited
from welltuned.errors import InputError
from welltuned.spec import Spec


def problems(tree: dict) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        Spec.model_validate(tree)
    return caught.value.problems


MESSAGES = [
    (
        dict(train={"rank": 0}),
        "train.rank: got 0, expected a whole number >= 1; write rank = 8, for instance",
    ),
    (
        dict(train={"rank": 8.0}),
        "train.rank: got 8.0, expected a whole number >= 1; write rank = 8, for instance",
    ),
    (
        dict(train={"rank": True}),
        "train.rank: got True, expected a whole number >= 1; write rank = 8, for instance",
    ),
    (
        dict(train={"rnak": 4}),
        "train.rnak: got an unknown key, expected one that this table knows; did you mean 'rank'?",
    ),
    (
        dict(train={"num_train": 4}),
        "train.num_train: got an unknown key, expected one that this table knows; move it to [task]",
    ),
    (
        dict(nmae="x"),
        "nmae: got an unknown key, expected one that this table knows; did you mean 'name'?",
    ),
    (
        dict(rank=8),
        "rank: got an unknown key, expected one that this table knows; move it to [train]",
    ),
    (
        dict(name=""),
        "name: got '', expected the study's name in quotes; write name = \"my-study\" at the top",
    ),
    (
        dict(seed=-1),
        "seed: got -1, expected a whole number >= 0; write seed = 0",
    ),
    (
        dict(task=3),
        "task: got 3, expected a table [task]; write [task] and its settings below it",
    ),
    (
        dict(axes=3),
        "axes: got 3, expected a table [axes]; write [axes] and its settings below it",
    ),
    (
        dict(methods={"lora": 3}),
        "methods.lora: got 3, expected a table [methods.lora]; write [methods.lora] and",
    ),
    (
        dict(train={"batch_size": "16"}),
        "train.batch_size: got '16', expected a whole number >= 1; write it without the quotes: batch_size = 16",
    ),
    (
        dict(train={"learning_rate": "1e-4"}),
        "train.learning_rate: got '1e-4', expected a finite number > 0; write it without the quotes: "
        "learning_rate = 1e-4",
    ),
    (
        dict(train={"learning_rate": 0.0}),
        "train.learning_rate: got 0.0, expected a finite number > 0; write learning_rate = 0.001, for instance",
    ),
    (
        dict(train={"learning_rate": -0.001}),
        "train.learning_rate: got -0.001, expected a finite number > 0",
    ),
    (
        dict(train={"learning_rate": math.nan}),
        "train.learning_rate: got nan, expected a finite number > 0",
    ),
    (
        dict(train={"learning_rate": math.inf}),
        "train.learning_rate: got inf, expected a finite number > 0",
    ),
    (
        dict(train={"optimizer": "adam"}),
        "train.optimizer: got 'adam', expected an optimizer; did you mean 'adamw'? Known: adamw, sgd, sign_sgd",
    ),
    (
        dict(train={"lr_scheduler_type": "cosin"}),
        "train.lr_scheduler_type: got 'cosin', expected a schedule; did you mean 'cosine'?",
    ),
    (
        dict(train={"dropout": 1.0}),
        "train.dropout: got 1.0, expected a number >= 0 and < 1; write dropout = 0.9, for instance",
    ),
    (
        dict(train={"lr_floor": 2.0}),
        "train.lr_floor: got 2.0, expected a number from 0 to 1; write lr_floor = 0.1, for instance",
    ),
    (
        dict(train={"weight_decay": -0.1}),
        "train.weight_decay: got -0.1, expected a finite number >= 0",
    ),
    (
        dict(train={"max_grad_norm": 0}),
        'train.max_grad_norm: got 0, expected a finite number > 0, or "none"; write max_grad_norm = "none"',
    ),
    (
        dict(train={"max_steps": 0}),
        'train.max_steps: got 0, expected a whole number >= 1, or "none"',
    ),
    (
        dict(train={"init_seed": -1}),
        'train.init_seed: got -1, expected a whole number >= 0, or "none"',
    ),
    (
        dict(train={"clamp_rank": "yes"}),
        "train.clamp_rank: got 'yes', expected true or false; write clamp_rank = true, for instance",
    ),
    (
        dict(axes={"method": ["pisa"]}),
        "axes.method: got 'pisa', expected the name of a method; did you mean 'pissa'? Known: ",
    ),
    (
        dict(task={"task": "abacu"}),
        "task.task: got 'abacu', expected the name of a task; did you mean 'abacus'? Known: ",
    ),
    (
        dict(search={"search": "gird"}),
        "search.search: got 'gird', expected the name of a search; did you mean 'grid'? Known: ",
    ),
    (
        dict(search={"seeds": 0}),
        "search.seeds: got 0, expected a whole number from 1 to 1000; write seeds = 1, for instance",
    ),
    (
        dict(model={"dtype": "fp16"}),
        "model.dtype: got 'fp16', expected a dtype; Known: bfloat16, float32, float64",
    ),
    (
        dict(model={"target_modules": []}),
        'model.target_modules: got [], expected a list of module names; write target_modules = ["all-linear"]',
    ),
    (
        dict(task={"max_length": 1}),
        "task.max_length: got 1, expected a whole number >= 2",
    ),
    (
        dict(task={"data_train": 3}),
        'task.data_train: got 3, expected a file name or a list of them; write data_train = "train.jsonl"',
    ),
    (
        dict(model={"base": None}),
        "model.base: got nothing, expected a bundled name, a folder, a .gguf file or a hub name; write base = "
        '"abacus-small" in [model], or an axis',
    ),
    (
        dict(task={"num_train": None}),
        "task.num_train: got nothing, expected a whole number >= 1; write num_train = 2048 in [task], or an axis",
    ),
    (
        dict(train={"learning_rate": None}, axes={"learning_rate": None}),
        "train.learning_rate: got nothing, expected a finite number > 0; write learning_rate = 0.001 in [train], "
        "or an axis",
    ),
    (
        dict(axes={"batch_size": [4, 1024]}),
        "train.batch_size: got 1024, expected at most num_train = 512; lower it, or raise num_train in [task]",
    ),
    (
        dict(axes={"rank": []}),
        "axes.rank: got an empty list, expected at least one value; add values or remove the axis",
    ),
    (
        dict(axes={"rank": [4, 4]}),
        "axes.rank: got 4, expected every value once; remove the repeated one",
    ),
    (
        dict(axes={"rank": 4}),
        "axes.rank: got 4, expected a list or a named grid; write rank = [4], or set it in [train]",
    ),
    (
        dict(axes={"learning_rate": ["1e-3"]}),
        "axes.learning_rate: got '1e-3', expected a finite number > 0; write it without the quotes: "
        "learning_rate = 1e-3",
    ),
    (
        dict(axes={"rnak": [4]}),
        "axes.rnak: got an unknown key, expected one that this table knows; did you mean 'rank'?",
    ),
    (
        dict(axes={"seeds": [1, 2]}),
        "axes.seeds: got an axis over the study itself, expected a setting of a trial; remove it",
    ),
    (
        dict(axes={"learning_rate": {"grid": "1-2-5"}}),
        "axes.learning_rate: got a grid with the keys grid, expected grid, from and to; write { grid = ",
    ),
    (
        dict(axes={"learning_rate": {"grid": "1-2-4", "from": 1, "to": 2}}),
        "axes.learning_rate: got '1-2-4', expected the name of a grid; did you mean '1-2-5'? Known: 1-2-5, "
        "4-per-decade, powers-of-two",
    ),
    (
        dict(axes={"learning_rate": {"grid": "1-2-5", "from": 0.002, "to": 0.001}}),
        "axes.learning_rate: got from = 0.002 and to = 0.001, expected from <= to; swap the two ends",
    ),
    (
        dict(axes={"learning_rate": {"grid": "1-2-5", "from": 0.003, "to": 0.004}}),
        "axes.learning_rate: got no member of 1-2-5 from 0.003 to 0.004, expected at least one; widen the range",
    ),
    (
        dict(axes={"learning_rate": {"grid": "1-2-5", "from": 0, "to": 1}}),
        "axes.learning_rate.from: got 0, expected a finite number > 0; write { grid = ",
    ),
    (
        dict(axes={"learning_rate": {"grid": "1-2-5", "from": 1, "to": "2"}}),
        "axes.learning_rate.to: got '2', expected a finite number > 0; write { grid = ",
    ),
    (
        dict(axes={"learning_rate": {"grid": "powers-of-two", "from": 1, "to": 1.79e308}}),
        "axes.learning_rate.to: got 1.79e+308, expected a number from 1e-100 to 1e+100; write { grid = ",
    ),
    (
        dict(axes={"method": {"grid": "1-2-5", "from": 1, "to": 2}}),
        "axes.method: got a named grid, expected the name of a method; write a list of values",
    ),
    (
        dict(methods={"lora": {"num_train": 4}}),
        "methods.lora.num_train: got a setting that must be equal for all methods, expected one of [train]; move "
        "it to [task] or [axes]",
    ),
    (
        dict(methods={"milora": {"rank": 4}}),
        "methods.milora: got settings for a method that is not in the study, expected one that is; did you mean "
        "'lora'? Known: lora, pissa",
    ),
    (
        dict(methods={"lora": {"rank": [0]}}),
        "methods.lora.rank: got 0, expected a whole number >= 1",
    ),
    (
        dict(train={"init_seed": 0, "order_seed": 0}),
        "search.fresh_seeds: got 2, expected a seed that is free to move; set fresh_seeds = 0, or remove "
        "init_seed or order_seed from [train]",
    ),
    (
        dict(train={"init_seed": 0, "order_seed": 0}, search={"fresh_seeds": 0, "seeds": 2}),
        "search.seeds: got 2, expected a seed that is free to move; set seeds = 1, or remove init_seed",
    ),
    (
        dict(axes={"init_seed": [0, 1000]}),
        "axes.init_seed: got 1000, expected whole numbers below 1000, where the fresh seeds begin; choose "
        "smaller seeds",
    ),
    (
        dict(task={"data_train": "x.jsonl"}),
        "task.data_train: got 'x.jsonl', expected nothing: task 'abacus' makes its own examples; remove data_train",
    ),
    (
        dict(task={"task": "gsm8k"}),
        "task.data_train: got nothing, expected the training rows of task 'gsm8k'; write data_train = "
        '"train.jsonl" in [task]',
    ),
]


@pytest.mark.parametrize(("changes", "expected"), MESSAGES, ids=[message.split(",")[0] for _, message in MESSAGES])
def test_one_line_says_what_is_wrong(changes, expected):
    lines = problems(edited(**changes))
    assert len(lines) == 1, lines
    assert "\n" not in lines[0]
    assert lines[0].startswith(expected)


def test_all_problems_are_reported_at_once():
    tree = edited(
        train={"rank": 0, "optimzer": "sgd"}, task={"max_length": "long"}, axes={"alpha": []}, search={"seeds": 0}
    )
    assert [line.partition(":")[0] for line in problems(tree)] == [
        "task.max_length", "train.rank", "train.optimzer", "search.seeds", "axes.alpha",
    ]  # fmt: skip


def test_broken_toml_is_reported_with_its_line():
    with pytest.raises(
        InputError,
        match=r"study file: got broken TOML, .*\(at line 2, column 8\), expected lines like rank = 8; correct",
    ):
        Spec.parse('name = "x"\nrank = = 3\n')


def test_missing_study_file(tmp_path):
    with pytest.raises(
        InputError, match=r"study file: got '.*no\.toml', expected an existing TOML file; check the path"
    ):
        Spec.load(tmp_path / "no.toml")


def test_study_file_that_is_not_utf8(tmp_path):
    (tmp_path / "s.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(InputError, match=r"expected text in UTF-8; save it as UTF-8 \(byte 8 is not\)"):
        Spec.load(tmp_path / "s.toml")


def test_load_looks_for_files_and_parse_does_not(tmp_path):
    text = TEXT.replace('"abacus-small"', '"./no-model"')
    assert Spec.parse(text).model.base == "./no-model"
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(
        InputError, match=r"model\.base: got '\./no-model', expected a folder or \.gguf file that exists; check"
    ):
        Spec.load(tmp_path / "s.toml")


def test_a_misspelt_bundled_base_is_found_without_asking_the_hub(tmp_path):
    (tmp_path / "s.toml").write_text(TEXT.replace('"abacus-small"', '"abacus-smal"'))
    with pytest.raises(
        InputError, match=r"model\.base: got 'abacus-smal', expected a bundled model; did you mean 'abacus-small'\?"
    ):
        Spec.load(tmp_path / "s.toml")


def test_missing_files_are_reported_with_the_other_problems(tmp_path):
    (tmp_path / "s.toml").write_text(
        TEXT.replace('"abacus-small"', '"./a.gguf"').replace("num_test = 64", "num_test = 0")
    )
    with pytest.raises(InputError) as caught:
        Spec.load(tmp_path / "s.toml")
    assert [line.partition(":")[0] for line in caught.value.problems] == ["task.num_test", "model.base"]


def test_missing_data_files_are_named_with_their_setting(tmp_path):
    text = TEXT.replace('task = "abacus"', 'task = "gsm8k"\ndata_train = ["a.jsonl", "b.jsonl"]')
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        Spec.load(tmp_path / "s.toml")
    starts = [line.partition(", expected")[0] for line in caught.value.problems]
    assert starts == ["task.data_train: data file: got 'a.jsonl'", "task.data_train: data file: got 'b.jsonl'"]
