"""The bundled task and models: frozen to the byte, disjoint splits, strict grading, bases that solve one step only."""

import hashlib
import json
import re
from functools import cache
from pathlib import Path

import pytest

from welltuned.tasks import abacus
from welltuned.tasks._task import Example

FAMILY = Path(abacus.__file__).parents[1] / "models" / "abacus"
PARAMETERS = {"small": 150_400, "middle": 870_400, "large": 3_970_048}
SPLITS = ("train", "validation", "test")
FIRST = Example(
    "Question: Paul starts with 31 kites. He gets 27 from Finn. He loses 33 of them. He loses 24 of them. "
    "How many kites does Paul have now?\nAnswer:",
    " 31 + 27 = 58. 58 - 33 = 25. 25 - 24 = 1. The answer is: 1",
    "1",
)


def sums() -> dict[str, str]:
    lines = (FAMILY / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


@cache
def load(name: str):
    import transformers

    folder = FAMILY / name
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    return model, transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def solved(name: str, make, num: int) -> float:
    """Share of the first test problems that greedy decoding answers, counted one text at a time."""
    model, tokenizer = load(name)
    examples = [make(0, "test", index) for index in range(num)]
    tokenizer.padding_side = "left"
    batch = tokenizer([example.prompt for example in examples], return_tensors="pt", padding=True)
    tokens = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=abacus.TASK.max_new_tokens,
        do_sample=False,
    )
    texts = tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return sum(abacus.grade(text, example) for text, example in zip(texts, examples, strict=True)) / num


def test_first_example_is_frozen():
    assert abacus.generate(0, "train", 0) == FIRST


@pytest.mark.parametrize("split", SPLITS)
def test_generated_examples_match_the_committed_checksum(split):
    digest = hashlib.sha256()
    for index in range(1000):
        example = abacus.generate(0, split, index)
        digest.update((json.dumps([example.prompt, example.completion, example.answer]) + "\n").encode())
    assert digest.hexdigest() == sums()[f"examples:{split}"]


def test_examples_do_not_depend_on_what_was_drawn_before():
    later = abacus.generate(3, "validation", 17)
    abacus.generate(3, "validation", 16)
    assert abacus.generate(3, "validation", 17) == later
    assert abacus.generate(4, "validation", 17) != later


def test_splits_are_disjoint_and_hold_almost_no_duplicates():
    prompts = {split: [abacus.generate(0, split, index).prompt for index in range(3000)] for split in SPLITS}
    for split in SPLITS:
        assert len(set(prompts[split])) >= 2999
        assert {abacus.share_of(prompt) for prompt in prompts[split]} == set(abacus.SHARES[split])
    assert not set(prompts["train"]) & set(prompts["validation"])
    assert not set(prompts["train"]) & set(prompts["test"])
    assert not set(prompts["validation"]) & set(prompts["test"])


def test_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no split 'valid'. Known: train, validation, test"):
        abacus.generate(0, "valid", 0)


@pytest.mark.parametrize(("make", "allowed"), [(abacus.generate, {2, 3, 4}), (abacus.one_step, {1})])
def test_every_written_step_is_right_and_small(make, allowed):
    numbers_of_steps = set()
    for index in range(2000):
        example = make(1, "train", index)
        steps = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)\.", example.completion)
        numbers_of_steps.add(len(steps))
        for left, sign, right, value in steps:
            left, right, value = int(left), int(right), int(value)
            exact = {"+": left + right, "-": left - right, "*": left * right, "/": left / right}[sign]
            assert exact == value
            assert 0 <= value <= 99
        assert example.completion.endswith(f" {steps[-1][3]}. The answer is: {example.answer}")
        assert abacus.grade(example.completion, example)
    assert numbers_of_steps == allowed


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" 12 + 7 = 19. The answer is: 19", "19"),
        ("The answer is: 3. The answer is: 14", "14"),
        ("The answer is: 14. That is all, 15 in a row.", "14"),
        ("The answer is:\n 14\nQuestion: 2", "14"),
        ("The answer is: -5", "-5"),
        ("The answer is: 007", "007"),
        ("The answer is: 14.", "14"),
        ("The answer is:14<eos>", "14"),
        ("", None),
        ("14", None),
        ("the answer is: 14", None),
        ("The answer is 14", None),
        ("The answer is: fourteen", None),
        ("The answer is: 14. The answer is:", None),
        ("The answer is: 14.5", None),
        ("The answer is: 1,400", None),
        ("The answer is: - 5", None),
        ("The answer is: " + "9" * 5000, None),
        ("The answer is: \u0661\u0664", None),  # digits of another script
    ],
)
def test_extract(text, found):
    assert abacus.extract(text) == found


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The answer is: 14", True),
        ("The answer is: 014", True),
        ("The answer is: 14. The answer is: 15", False),
        ("The answer is: 15. The answer is: 14", True),
        ("The answer is: 140", False),
        ("The answer is: 1 4", False),
        ("The answer is: -14", False),
        ("14", False),
        ("The answer is: 999999999999999999999999999999", False),
    ],
)
def test_grade(text, right):
    assert abacus.grade(text, Example("p", "c", "14")) is right


def test_grading_against_no_answer_is_refused():
    with pytest.raises(ValueError, match="no answer to grade against"):
        abacus.grade("The answer is: 1", Example("p", "c", None))


def test_committed_files_match_their_checksums_and_are_all_listed():
    listed = {name: digest for name, digest in sums().items() if not name.startswith("examples:")}
    present = {path.relative_to(FAMILY).as_posix(): path for name in PARAMETERS for path in (FAMILY / name).glob("*")}
    assert set(listed) == set(present)
    for name, path in present.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name], name
    assert sum(path.stat().st_size for path in present.values()) <= 12_000_000


@pytest.mark.parametrize("name", PARAMETERS)
def test_models_are_llamas_of_the_stated_size(name):
    model, tokenizer = load(name)
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.config.tie_word_embeddings
    assert str(model.dtype) == "torch.bfloat16"
    assert model.num_parameters() == PARAMETERS[name]
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id


@pytest.mark.parametrize("split", SPLITS)
def test_tokenizer_is_reversible_and_splits_between_prompt_and_completion(split):
    _, tokenizer = load("small")
    lengths = []
    for index in range(500):
        example = abacus.generate(0, split, index)
        prompt, completion = tokenizer(example.prompt)["input_ids"], tokenizer(example.completion)["input_ids"]
        whole = tokenizer(example.prompt + example.completion)["input_ids"]
        assert prompt + completion == whole
        assert not {tokenizer.unk_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} & set(whole)
        assert tokenizer.decode(whole) == example.prompt + example.completion
        lengths.append(len(whole) + 1)
        assert len(completion) < abacus.TASK.max_new_tokens
    assert 60 <= sum(lengths) / len(lengths) <= 75  # the budget of every study rests on it


def test_all_sizes_share_one_tokenizer():
    assert len({sums()[f"{name}/tokenizer.json"] for name in PARAMETERS}) == 1


def test_small_base_solves_one_step_and_not_several():
    assert solved("small", abacus.one_step, 64) >= 0.9
    assert solved("small", abacus.generate, 64) <= 0.05
