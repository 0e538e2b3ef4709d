"""The tasks that read rows: what they make of a row, and how answers are found and graded."""

import gzip
import json
import math
import pathlib

import pytest

from welltuned import plugins
from welltuned.tasks import alpaca, completion, gsm8k, messages, metamath, svamp
from welltuned.tasks._numbers import extract, number
from welltuned.tasks._task import Example

REAL = pathlib.Path(__file__).parents[2] / "shared" / "data"
needs_real_data = [
    pytest.mark.realdata,
    pytest.mark.skipif(not REAL.is_dir(), reason="the published data sets are not at ../shared/data"),
]
READERS = [name for name in plugins.names("tasks") if plugins.load("tasks", name).read_row is not None]


# Every task -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", plugins.names("tasks"))
def test_a_task_has_one_source_and_grades_wholly_or_not_at_all(name):
    task = plugins.load("tasks", name)
    assert (task.generate is None) != (task.read_row is None)
    assert (task.extract is None) == (task.grade is None)
    assert task.summary and task.version >= 1 and task.max_new_tokens >= 1


@pytest.mark.parametrize("name", READERS)
def test_a_missing_column_is_named(name):
    with pytest.raises(KeyError) as caught:
        plugins.load("tasks", name).read_row({"unrelated": "x"})
    assert isinstance(caught.value.args[0], str)


ROWS = {
    "alpaca": {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    "completion": {"prompt": "1 + 2 =", "completion": " 3"},
    "gsm8k": {"question": "1 + 2?", "answer": "1+2=<<1+2=3>>3\n#### 3"},
    "messages": {"messages": [{"role": "user", "content": "1 + 2?"}, {"role": "assistant", "content": "3"}]},
    "metamath": {"query": "1 + 2?", "response": "It is 3.\n#### 3\nThe answer is: 3"},
    "svamp": {"Body": "Ann has 1.", "Question": "2 more?", "Equation": "( 1.0 + 2.0 )", "Answer": 3.0},
}


@pytest.mark.parametrize("name", READERS)
def test_a_completion_is_graded_as_right_and_another_as_wrong(name):
    task = plugins.load("tasks", name)
    example = task.read_row(ROWS[name])
    assert example.prompt.strip() and example.completion.strip()
    if task.grade is not None:
        assert task.grade(example.completion, example)
        assert not task.grade(example.completion.replace("3", "4"), example)
        assert not task.grade("", example)
        with pytest.raises(ValueError, match="to grade against"):
            task.grade("The answer is: 3", Example("p", "c", None))


# What a row becomes ---------------------------------------------------------------------------------------------------


def test_gsm8k_has_no_annotations_and_one_answer_line():
    example = gsm8k.read_row(
        {"question": " How many?\r\n", "answer": "She has 2*600=<<2*600=1200>>1200 \nSo 1200.\n#### 1,200"}
    )
    assert example == Example("How many?\n", "She has 2*600=1200\nSo 1200.\nThe answer is: 1,200", "1200")
    assert gsm8k.read_row({"question": "q", "answer": "#### 7"}).completion == "The answer is: 7"
    for answer in ("7", "#### seven", "", None):
        with pytest.raises(ValueError, match="does not end in '#### n'"):
            gsm8k.read_row({"question": "q", "answer": answer})


def test_svamp_has_whole_numbers_and_no_outer_brackets():
    row = ROWS["svamp"] | {"Body": "Ann has 1", "Equation": "( ( 1.0 + 2.5 ) * 20.0 )", "Answer": 70.0}
    example = svamp.read_row(row)
    assert example == Example("Ann has 1 2 more?\n", "( ( 1 + 2.5 ) * 20 ) = 70\nThe answer is: 70", "70")
    assert svamp.read_row(ROWS["svamp"]).completion == "1 + 2 = 3\nThe answer is: 3"
    with pytest.raises(ValueError, match="holds no number"):
        svamp.read_row(row | {"Answer": math.nan})


def test_alpaca_shows_an_input_only_where_there_is_one():
    assert alpaca.read_row(ROWS["alpaca"]).prompt == "Add.\n\n### Input:\n1 and 2\n"
    for row in ({"input": ""}, {"input": None}, {"input": math.nan}):
        assert alpaca.read_row(ROWS["alpaca"] | row).prompt == "Add.\n"
    assert alpaca.read_row({"instruction": "Add.", "output": 3.0}) == Example("Add.\n", "3")


def test_completion_joins_exactly_what_is_written():
    assert completion.read_row({"prompt": " a\r\n", "completion": "  b "}) == Example(" a\n", "  b ")
    assert completion.read_row({"prompt": "\ufeffa", "completion": None}) == Example("a", "")
    with pytest.raises(ValueError, match="column 'prompt' is empty"):
        completion.read_row({"prompt": " ", "completion": "b"})
    with pytest.raises(ValueError, match="column 'completion' holds a list, expected text"):
        completion.read_row({"prompt": "a", "completion": ["b"]})


def test_messages_and_conversations_read_alike():
    turns = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "So long")]
    openai = {"messages": [{"role": role, "content": text} for role, text in turns]}
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    sharegpt = {"conversations": [{"from": names[role], "value": text} for role, text in turns]}
    prompt = "System: Be kind.\nUser: Hi\nAssistant: Hello\nUser: Bye\nAssistant:\n"
    assert messages.read_row(openai) == messages.read_row(sharegpt) == Example(prompt, "So long")
    parts = [{"type": "text", "text": "1 + "}, {"type": "text", "text": "2?"}]
    single = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "!"},
    ]
    assert messages.read_row({"messages": single}) == Example("1 + 2?\n", "3")


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([], "no assistant's turn"),
        ([{"role": "assistant", "content": "a"}], "no assistant's turn after another"),
        ([{"role": "robot", "content": "a"}], "role 'robot', expected one of user"),
        (["a"], "a turn is a str"),
        ("a", "holds a str, expected a list"),
        ([{"role": "user", "content": [{"type": "image"}]}], "a part of type 'image'"),
        ([{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}], "is empty"),
    ],
)
def test_conversations_that_cannot_be_learned_from_are_refused(turns, expected):
    with pytest.raises(ValueError, match=expected):
        messages.read_row({"messages": turns})


# Answers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", "18"),
        (" 18.", "18"),
        ("18.00", "18"),
        ("1,234,567", "1234567"),
        ("$1,200.50 a year", "2401/2"),
        ("\\$5", "5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("\u22125", "-5"),
        ("20%", "20"),
        (".5", "1/2"),
        ("3/4 of it", "3/4"),
        ("1/0", None),
        ("**7**", "7"),
        ("007", "7"),
        ("18 dollars", "18"),
        ("18, then", "18"),
        ("-0", "0"),
        ("", None),
        ("about 3", None),
        ("12,5", None),
        ("1.2.3", None),
        ("-", None),
        ("$", None),
        ("9" * 5000, None),
    ],
)
def test_numbers_have_one_spelling_each(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3 + 4 = 7\n#### 7", "7"),
        ("The answer is: 7", "7"),
        ("the answer is 7.", "7"),
        ("#### 1\nNo: #### 2\nThe answer is: 3", "3"),
        ("The answer is: 3\n#### 4", "4"),
        ("So there are 7", None),  # never the last number of the text instead
        ("The answer is: unknown, 7", None),
        ("#### 7\nThe answer is:", None),
        ("", None),
    ],
)
def test_the_last_mark_decides(text, value):
    assert extract(text) == value


def test_an_answer_in_the_file_s_spelling_grades_by_value():
    assert gsm8k.TASK.grade is not None and gsm8k.TASK.grade("#### 1200.0", Example("p", "c", "1,200"))


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("The answer is: $\\dfrac{1}{2}$.", "\\frac{1}{2}", True),
        ("The answer is: \\left( 3, 4 \\right)", "(3,4)", True),
        ("The answer is: 18.00", "18", True),
        ("The answer is: -2", "-2.0", True),
        ("The answer is: 2x", "2", False),
        ("The answer is: \\frac{2}{4}", "\\frac{1}{2}", False),  # a documented limit
        ("The answer is: 7\nQuestion: 8", "7", True),
    ],
)
def test_metamath_compares_numbers_by_value_and_the_rest_as_text(text, answer, right):
    assert metamath.grade(text, Example("p", "c", answer)) is right


# Published data -------------------------------------------------------------------------------------------------------


def read_lines(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(name, marks=needs_real_data)
        for name in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    ],
)
def test_grading_agrees_with_the_recorded_flags(model):
    rows = read_lines(REAL / "gsm8k" / "example_model_solutions.jsonl.gz")
    assert len(rows) == 1319
    agreed = 0
    for row in rows:
        # These recordings write the mark "#### " as "A: ".
        answer = gsm8k.read_row({"question": "q", "answer": row["ground_truth"].replace("\nA: ", "\n#### ")})
        text = row[model]["solution"].replace("\nA: ", "\n#### ")
        agreed += gsm8k.grade(text, answer) == row[model]["is_correct"]
    assert agreed == 1319  # the data's own note asks for 1318 of the last model


@pytest.mark.parametrize("name", [pytest.param("gsm8k", marks=needs_real_data)])
def test_every_published_gsm8k_solution_is_right_by_its_own_answer(name):
    for path, count in (("train.jsonl.gz", 7473), ("test.jsonl", 1319)):
        examples = [gsm8k.read_row(row) for row in read_lines(REAL / name / path)]
        assert len(examples) == count
        assert all(gsm8k.grade(example.completion, example) for example in examples)
        assert not any("<<" in example.completion or "####" in example.completion for example in examples)


@pytest.mark.parametrize("name", [pytest.param("svamp", marks=needs_real_data)])
def test_published_svamp_equations_work_out(name):
    examples = [svamp.read_row(row) for row in json.loads((REAL / name / "SVAMP.json").read_text())]
    assert len(examples) == 1000
    contradictions = 0
    for example in examples:
        equation, _, shown = example.completion.split("\n")[0].partition(" = ")
        contradictions += not math.isclose(eval(equation, {}), float(shown))
        assert svamp.grade(example.completion, example)
    assert contradictions == 1  # an error of the data set: chal-680 says that (4 - 2) + 3 is 1


@pytest.mark.parametrize("name", [pytest.param("rasbt_instruct", marks=needs_real_data)])
def test_published_instructions_are_read(name):
    rows = json.loads((REAL / name / "instruction-data.json").read_text())
    examples = [alpaca.read_row(row) for row in rows]
    assert len(examples) == 1100 and all(example.completion for example in examples)
