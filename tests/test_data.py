"""Files, splits, templates, tokens and their counts; the tokenizers are made here, so that every token is known."""

import csv
import gzip
import json
import pathlib

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from welltuned import data, fingerprint, rng
from welltuned.data import sources, splits, templates
from welltuned.data.encode import encode
from welltuned.errors import InputError
from welltuned.records import Config
from welltuned.tasks import abacus
from welltuned.tasks._task import Example

REAL = pathlib.Path(__file__).parents[2] / "shared" / "data"


def make_tokenizer(bos=False):
    """Give each character a token, so that lengths are those of the text; one beyond ASCII is "?"."""
    vocabulary = {"<eos>": 0, "<bos>": 1} | {chr(code): code - 30 for code in (10, *range(32, 127))}
    vocabulary["\n"] = 200
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A <eos>", special_tokens=[("<eos>", 0), ("<bos>", 1)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", bos_token="<bos>" if bos else None)


CHARACTERS = make_tokenizer()

DEFAULTS = dict(
    study_seed=0, base="abacus-small", revision=None, base_hash="", dtype="float32", target_modules=("all-linear",),
    clamp_rank=False, task="completion", task_version=1, data_train=(), data_validation=(), data_test=(), data_hash="",
    prompt_template="none", num_train=4, subset="first", num_validation=2, num_test=2, split_seed=0, max_length=64,
    method="lora", method_version=1, method_source="", rank=2, alpha="r", scaling=1.0, dropout=0.0, optimizer="adamw",
    learning_rate=1e-3, batch_size=2, beta1=0.9, beta2=0.999, beta2_batch_size=None, epsilon=1e-8, momentum=0.0,
    weight_decay=0.0, max_grad_norm=1.0, lr_scheduler_type="cosine", lr_floor=0.0, warmup_ratio=0.0, warmup_steps=0,
    num_train_epochs=1, max_steps=None, num_evaluations=1, init_seed=0, order_seed=0, subset_seed=0,
)  # fmt: skip


def make_config(**changes):
    return Config(**(DEFAULTS | changes))


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def numbered(path, count, start=0):
    return write_rows(
        path, [{"prompt": f"p{index} ", "completion": f"c{index}"} for index in range(start, start + count)]
    )


def prompts(examples):
    return [example.prompt for example in examples]


def refusal(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert all("\n" not in line for line in caught.value.problems)
    return str(caught.value)


# Files ----------------------------------------------------------------------------------------------------------------

TABLE = [
    {"prompt": "a, “b”\n", "completion": "1"},
    {"prompt": "ü\t", "completion": ""},
    {"prompt": "c", "completion": "3"},
]


def write_csv(path):
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"], lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(TABLE)


def write_parquet(path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(TABLE), path)


HALF_A_FILE = gzip.compress(b'{"a": 1}' * 99, mtime=0)[:-9]  # of no time: the bytes are a test's name

WRITERS = {
    "t.jsonl": lambda path: path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(row).encode() for row in TABLE)),
    "blank.jsonl": lambda path: path.write_text(
        "\n\n".join(json.dumps(row, ensure_ascii=False) for row in TABLE) + "\n"
    ),
    "t.json": lambda path: path.write_text(json.dumps(TABLE)),
    "object.json": lambda path: path.write_text(json.dumps({"version": 1, "data": TABLE})),
    "t.jsonl.gz": lambda path: path.write_bytes(gzip.compress("\n".join(map(json.dumps, TABLE)).encode())),
    "t.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(TABLE).encode())),
    "t.csv": write_csv,
    "t.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert sources.read(str(tmp_path / name), "train") == TABLE


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "a.jsonl",
            b'{"a": 1}\n\n{"a": 2\n',
            "a.jsonl, line 3: malformed (Expecting ',' delimiter): '{\"a\": 2'; correct",
        ),
        ("a.jsonl", b"[\n1]", "name the file .json if it holds one list"),
        ("a.jsonl", b"[1]\n", "a.jsonl, line 1: got list, expected a JSON object; correct the line"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "a.jsonl, line 2: not UTF-8 text; convert"),
        ("a.jsonl", b"\n", "a.jsonl: the file is empty, expected at least one row"),
        ("a.jsonl", b'{"a": "' + b"x" * 100, "xxxxx...'"),
        ("a.jsonl.gz", b"plain", "cannot be read (Not a gzipped file"),
        ("a.jsonl.gz", HALF_A_FILE, "expected a whole file; copy or download it again"),
        ("a.json", b"", "the file is empty"),
        ("a.json", b"[]", "the file is empty"),
        ("a.json", b'[{"a": 1},\n{]', "a.json, line 2: malformed"),
        ("a.json", b'{"a": 1}\n{"a": 1}', "name the file .jsonl if it has an object on each line"),
        ("a.json", b'{"a": [], "b": []}', "got dict with 2 lists, expected a list of objects"),
        ("a.json", b"3", "got int with 1 lists, expected a list of objects"),
        ("a.json", b'[{"a": 1}, 2]', "a.json, row 2: got int, expected an object"),
        ("a.csv", b"a,b\n1,2\n3\n", "a.csv, line 3: malformed (1 cells under 2 columns): '3'"),
        ("a.csv", b'a,b\n"1,2\n', "put cells that hold commas, quotes or line ends in double quotes"),
        ("a.csv", b"a,b\n", "the file is empty"),
        ("a.parquet", b"nothing", "not a Parquet file"),
        ("a.txt", b"x", "got a file ending in '.txt', expected .jsonl, .json, .csv or .parquet"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_line(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert expected in refusal(sources.read, str(tmp_path / name), "train")


def test_a_missing_file_is_refused(tmp_path):
    message = refusal(sources.read, str(tmp_path / "train.jsonl"), "train")
    assert "data file: got '" in message and "check the path" in message


def test_a_missing_column_names_row_columns_and_the_task_that_fits(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"question": "q", "answer": "#### 1", "id": 1}])
    message = refusal(sources.examples, "completion", [path], "train")
    assert f"{path}, row 1: no column 'prompt'" in message and "question, answer, id" in message
    assert 'task = "gsm8k" reads these columns' in message
    path = write_rows(tmp_path / "b.jsonl", [{"prompt": "p", "completion": "c"}, {"text": "t"}])
    message = refusal(sources.examples, "completion", [path], "train")
    assert "row 2: no column 'prompt'" in message and "rename a column" in message


def test_a_bad_row_and_every_bad_file_are_named(tmp_path):
    first = write_rows(tmp_path / "a.jsonl", [{"question": "q", "answer": "no mark"}])
    message = refusal(sources.examples, "gsm8k", [first, str(tmp_path / "none.csv")], "train")
    assert "a.jsonl, row 1: column 'answer' does not end in '#### n'" in message and "none.csv" in message


def test_half_a_character_is_refused_with_its_row(tmp_path):
    """JSON can say it, and no tokenizer takes it."""
    rows = [{"prompt": "p", "completion": "\U0001f600"}, {"prompt": "p", "completion": "a\ud800"}]
    path = write_rows(tmp_path / "a.jsonl", rows)
    message = refusal(sources.examples, "completion", [path], "train")
    assert f"{path}, row 2: got '\\ud800', half of a character (a lone surrogate), expected whole characters" in message


def test_rows_are_counted_and_every_bad_file_is_named(tmp_path):
    paths = [numbered(tmp_path / "b.jsonl", 2), numbered(tmp_path / "a.jsonl", 3)]
    assert sources.count(paths, "train") == 5
    (tmp_path / "bad.jsonl").write_text("{")
    message = refusal(sources.count, [str(tmp_path / "none.csv"), str(tmp_path / "bad.jsonl")], "train")
    assert "none.csv" in message and "bad.jsonl, line 1: malformed" in message


def test_several_files_are_read_in_order(tmp_path):
    paths = [numbered(tmp_path / "b.jsonl", 2), numbered(tmp_path / "a.jsonl", 2, start=2)]
    assert prompts(sources.examples("completion", paths, "train")) == ["p0 ", "p1 ", "p2 ", "p3 "]


def test_hub_data_is_read_at_its_commit_and_by_role(monkeypatch):
    import datasets

    asked = []

    def load_dataset(name, subset, split, revision):
        asked.append((name, subset, split, revision))
        if split == "validation":
            raise ValueError("Unknown split \"validation\".\nShould be one of ['train']")
        if split == "test":
            raise ConnectionError("offline")
        return datasets.Dataset.from_list(TABLE)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = f"some-lab/some-data:main@{'c' * 40}"
    assert sources.read(source, "train") == TABLE
    assert asked == [("some-lab/some-data", "main", "train", "c" * 40)]
    message = refusal(sources.read, source, "validation")
    assert "no split 'validation'" in message and "Should be one of" in message
    assert "leave data_validation and data_test out" in message
    assert "connect and run again" in refusal(sources.read, source, "test")


# Splits ---------------------------------------------------------------------------------------------------------------


def test_carved_splits_are_disjoint_whole_and_fixed_by_the_split_seed(tmp_path):
    config = make_config(data_train=(numbered(tmp_path / "a.jsonl", 20),), num_validation=5, num_test=3, num_train=12)
    found = splits.examples(config, splits.SPLITS)
    assert {name: len(part) for name, part in found.items()} == {"train": 12, "validation": 5, "test": 3}
    together = [prompt for part in found.values() for prompt in prompts(part)]
    assert sorted(together) == sorted(f"p{index} " for index in range(20))
    numbers = [int(prompt[1:]) for prompt in prompts(found["train"])]
    assert numbers == sorted(numbers)
    assert splits.examples(config.replace(study_seed=7, subset_seed=3, num_train=2), splits.SPLITS) == found
    assert splits.examples(config.replace(split_seed=1), splits.SPLITS) != found
    order = rng.stream(0, "split").permutation(20)
    assert prompts(found["validation"]) == [f"p{index} " for index in sorted(order[:5])]


def test_the_validation_split_does_not_depend_on_the_size_of_the_others(tmp_path):
    config = make_config(data_train=(numbered(tmp_path / "a.jsonl", 20),), num_train=2)
    small = splits.examples(config, ["validation"])
    assert small == splits.examples(config.replace(num_test=9, num_train=7), ["validation"])


def test_splits_of_their_own_files_are_taken_from_there(tmp_path):
    config = make_config(
        data_train=(numbered(tmp_path / "a.jsonl", 4),),
        data_validation=(numbered(tmp_path / "v.jsonl", 6, start=10),),
        data_test=(numbered(tmp_path / "t.jsonl", 2, start=20),),
    )
    found = splits.examples(config, splits.SPLITS)
    assert prompts(found["train"]) == ["p0 ", "p1 ", "p2 ", "p3 "]
    assert prompts(found["test"]) == ["p20 ", "p21 "]
    assert len(found["validation"]) == 2 and all(prompt.startswith("p1") for prompt in prompts(found["validation"]))
    message = refusal(splits.examples, config.replace(num_validation=7), ["validation"])
    assert message == "num_validation: got 7, expected at most 6, the rows of data_validation; lower num_validation"


def test_the_test_file_is_not_opened_unless_asked(tmp_path):
    config = make_config(data_train=(numbered(tmp_path / "a.jsonl", 9),), data_test=(str(tmp_path / "absent.jsonl"),))
    assert set(data.load(config, CHARACTERS, ("train", "validation"))) == {"train", "validation"}
    assert "absent.jsonl" in refusal(data.load, config, CHARACTERS, ("test",))


def test_asking_for_more_rows_than_there_are_is_refused(tmp_path):
    config = make_config(data_train=(numbered(tmp_path / "a.jsonl", 7),))
    assert refusal(splits.examples, config, ["train"]) == (
        "num_train: got 4, expected at most 3, what is left of the 7 rows of the training data after 2 for validation "
        "and 2 for test; lower num_train, num_validation or num_test"
    )


def test_missing_and_needless_data_are_refused():
    assert "data_train: got nothing" in refusal(splits.examples, make_config(), ["train"])
    message = refusal(splits.examples, make_config(task="abacus", data_train=("a.jsonl",)), ["train"])
    assert "task 'abacus' makes its own examples; remove it" in message


def test_a_generated_task_makes_its_splits_by_index():
    config = make_config(task="abacus", split_seed=3)
    found = splits.examples(config, splits.SPLITS)
    for split, count in (("train", 4), ("validation", 2), ("test", 2)):
        assert found[split] == tuple(abacus.generate(3, split, index) for index in range(count))


# Tokens ---------------------------------------------------------------------------------------------------------------


def test_a_row_is_prompt_completion_and_end_mark():
    rows = encode([Example("ab ", "cd")], CHARACTERS, "none", 64)
    assert CHARACTERS.decode(rows.token_ids[0]) == "ab cd<eos>"
    assert rows.token_ids[0].dtype == np.int64 and list(rows.prompt_lengths) == [3]
    assert (rows.num_truncated, rows.num_dropped) == (0, 0)


def test_a_start_token_is_added_only_where_the_tokenizer_does():
    rows = encode([Example("ab", "c")], make_tokenizer(bos=True), "none", 64)
    assert list(rows.token_ids[0]) == [1, ord("a") - 30, ord("b") - 30, ord("c") - 30, 0]
    assert list(rows.prompt_lengths) == [3]


def test_prompt_and_completion_join_to_the_whole_text_under_merging_tokens():
    """A byte-pair tokenizer merges across the seam when given the whole; the row still says the same text."""
    vocabulary = {"a": 0, "b": 1, "ab": 2, "<eos>": 3}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b")]))
    tokenizer.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    row = encode([Example("aa", "bb")], wrapped, "none", 9).token_ids[0]
    assert list(row) == [0, 0, 1, 1, 3] and wrapped("aabb")["input_ids"] == [0, 2, 1]
    assert wrapped.decode(row) == "aabb<eos>"


@pytest.mark.parametrize(
    ("max_length", "text", "num_truncated"), [(8, "abcdefg<eos>", 0), (7, "abcdefg", 1), (4, "abcd", 1)]
)
def test_a_long_row_is_cut_on_the_right_and_counted(max_length, text, num_truncated):
    rows = encode([Example("abc", "defg")], CHARACTERS, "none", max_length)
    assert CHARACTERS.decode(rows.token_ids[0]) == text and rows.num_truncated == num_truncated


def test_rows_without_a_completion_are_dropped_and_counted():
    examples = [Example("abc", "d"), Example("abcd", "e"), Example("a", ""), Example("a", " \n")]
    rows = encode(examples, CHARACTERS, "none", 4)
    assert (len(rows.token_ids), rows.num_dropped, rows.num_truncated) == (1, 3, 1)
    assert rows.examples == (examples[0],)


def test_an_empty_prompt_and_a_tokenizer_without_an_end_mark_are_refused():
    assert "the prompt of row 2 is empty" in refusal(
        encode, [Example("a", "b"), Example("", "b")], CHARACTERS, "none", 9
    )
    assert list(encode([Example("", "b")], make_tokenizer(bos=True), "none", 9).prompt_lengths) == [1]
    endless = PreTrainedTokenizerFast(tokenizer_object=CHARACTERS.backend_tokenizer)
    assert "tokenizer: got no end-of-text token" in refusal(encode, [Example("a", "b")], endless, "none", 9)


def test_the_alpaca_template_is_the_published_one():
    prompt, completion = templates.render("alpaca", Example("Add {1} and 2.\n", " 3 "))
    assert prompt == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd {1} and 2.\n\n### Response:"
    )
    assert completion == "3\n"
    assert templates.render("none", Example("a ", " b")) == ("a ", " b")
    assert "did you mean 'alpaca'?" in refusal(templates.render, "alpacca", Example("a", "b"))


# Loading, subsets and order -------------------------------------------------------------------------------------------


def test_dropped_rows_are_replaced_by_the_next_and_refused_above_one_percent(tmp_path):
    rows = [{"prompt": f"p{index} ", "completion": "" if index == 3 else "c"} for bad in [{3}] for index in range(300)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    config = make_config(data_train=(path,), num_train=200, num_validation=0, num_test=0)
    train = data.load(config, CHARACTERS, ("train",))["train"]
    assert (len(train.token_ids), train.num_dropped) == (200, 1)
    assert prompts(train.examples) == [f"p{index} " for index in range(201) if index != 3]
    message = refusal(data.load, config.replace(num_train=50), CHARACTERS, ("train",))
    assert message.startswith("train data: 1 of 51 rows have no completion within max_length = 64, expected at most 1%")
    message = refusal(data.load, config.replace(num_train=300), CHARACTERS, ("train",))
    assert "num_train: got 300, expected at most 299" in message and "1 rows without a completion" in message
    message = refusal(data.load, config.replace(max_length=3), CHARACTERS, ("train",))
    assert "300 of 300 rows have no completion" in message and "raise max_length" in message


def test_every_split_s_problem_is_reported_at_once(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"prompt": "a", "completion": ""}] * 9)
    message = refusal(data.load, make_config(data_train=(path,)), CHARACTERS, splits.SPLITS)
    assert [line.split(":")[0] for line in message.split("\n")] == ["train data", "validation data", "test data"]


def test_first_and_seeded_subsets(tmp_path):
    first = make_config(num_train=5)
    assert list(data.subset(first, 9)) == [0, 1, 2, 3, 4]
    seeded = first.replace(subset="seeded", subset_seed=1)
    chosen = data.subset(seeded, 100)
    reference = sorted(rng.stream(0, "subset", 1).permutation(100)[:5])
    assert list(chosen) == reference
    assert list(data.subset(seeded.replace(order_seed=5, init_seed=5, learning_rate=1.0), 100)) == reference
    assert list(data.subset(seeded.replace(subset_seed=2), 100)) != reference
    for config in (first, seeded):
        with pytest.raises(ValueError, match="3 training rows were loaded, 5 are wanted"):
            data.subset(config, 3)


def test_the_order_of_an_epoch_is_a_permutation_of_its_own_stream():
    config = make_config()
    orders = [data.epoch_order(config.replace(order_seed=seed), epoch, 50) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    same = data.epoch_order(config.replace(init_seed=9, subset_seed=9, method="pissa", batch_size=1), 0, 50)
    assert list(same) == list(orders[0]) == list(rng.stream(0, "order", 0, 0).permutation(50))


def test_one_load_serves_trials_with_different_subsets(tmp_path):
    path = numbered(tmp_path / "a.jsonl", 30)
    configs = [
        make_config(data_train=(path,), num_train=3),
        make_config(data_train=(path,), num_train=7),
        make_config(data_train=(path,), num_train=5, subset="seeded"),
    ]
    for group in (configs[:2], configs):
        together = data.load(data.widest(group), CHARACTERS, ("train",))["train"]
        for config in group:
            alone = data.load(config, CHARACTERS, ("train",))["train"]
            ours, theirs = (
                [rows.examples[index] for index in data.subset(config, len(rows.examples))]
                for rows in (together, alone)
            )
            assert ours == theirs and len(ours) == config.num_train


def test_a_seeded_subset_of_a_generated_task_has_a_pool_of_fixed_size(monkeypatch):
    monkeypatch.setattr(splits, "NUM_GENERATED", 40)
    tokenizer = make_tokenizer()
    seeded = make_config(task="abacus", subset="seeded", num_train=5, max_length=512)
    first = seeded.replace(subset="first", num_train=60)
    alone = data.load(seeded, tokenizer, ("train",))["train"]
    together = data.load(data.widest([seeded, first]), tokenizer, ("train",))["train"]
    assert (len(alone.examples), len(together.examples)) == (40, 60)
    assert list(data.subset(seeded, 40)) == list(data.subset(seeded, 60))
    too_many = seeded.replace(num_train=41)
    assert "expected at most 40, the pool of a seeded subset" in refusal(data.counts, too_many, tokenizer)


# Counts ---------------------------------------------------------------------------------------------------------------


def test_the_survey_s_counts_are_those_of_the_rows(tmp_path):
    train = [{"prompt": "a" * length, "completion": "bb"} for length in (1, 2, 3, 9)]
    held_out = [{"prompt": "AA ", "completion": "b"}, {"prompt": "z" * 9, "completion": "bb"}]
    config = make_config(
        data_train=(write_rows(tmp_path / "a.jsonl", train),),
        data_validation=(write_rows(tmp_path / "v.jsonl", held_out),),
        data_test=(write_rows(tmp_path / "t.jsonl", [{"prompt": "\uff41" * 3, "completion": "b"}] * 2),),
        max_length=10,
    )
    counts = data.counts(config, CHARACTERS)
    assert (counts.num_train_available, counts.num_validation, counts.num_test) == (4, 2, 2)
    assert counts.longest_tokens == 10 and counts.mean_tokens == np.mean([4, 5, 6, 10])
    assert counts.mean_target_tokens == np.mean([3, 3, 3, 1])
    assert (counts.num_truncated, counts.num_dropped) == (2, 0)
    assert counts.num_duplicates == 2  # "aa" in validation, "aaa" in test, up to case, width and white space


def test_the_counts_of_a_generated_task():
    tokenizer = make_tokenizer()
    counts = data.counts(make_config(task="abacus", num_train=30, num_validation=9, max_length=512), tokenizer)
    examples = [abacus.generate(0, "train", index) for index in range(30)]
    assert counts.mean_tokens == np.mean([len(example.prompt + example.completion) + 1 for example in examples])
    assert counts.num_duplicates == 0 and counts.num_train_available >= 30


def test_the_bundled_tokenizer_knows_every_token_of_its_task_and_joins_at_the_seam():
    tokenizer = AutoTokenizer.from_pretrained(fingerprint.resolve_base("abacus-small", None).folder)
    rows = data.load(make_config(task="abacus", num_train=100, max_length=256), tokenizer, ("train",))["train"]
    for ids, example, length in zip(rows.token_ids, rows.examples, rows.prompt_lengths, strict=True):
        text = example.prompt + example.completion
        assert list(ids) == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids[:length]) == example.prompt
    assert rows.num_truncated == 0


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="the published data sets are not at ../shared/data")
def test_published_word_problems_are_loaded():
    folder = REAL / "gsm8k"
    config = make_config(
        task="gsm8k", data_train=(str(folder / "train.jsonl.gz"),), data_test=(str(folder / "test.jsonl"),),
        num_train=512, num_validation=256, num_test=200, max_length=2048, prompt_template="alpaca",
    )  # fmt: skip
    counts = data.counts(config, CHARACTERS)
    assert (counts.num_train_available, counts.num_validation, counts.num_test) == (7473 - 256, 256, 200)
    assert (counts.num_dropped, counts.num_duplicates) == (0, 0)
