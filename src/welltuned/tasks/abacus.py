"""The bundled task: word problems of 2 to 4 steps, generated from a seed without limit, for the `abacus` model family.

Why generated: train, validation and test of any size, with no network and no licence. Why so small (numbers up to 99,
about 68 tokens an example): models of 0.15 to 4 million parameters must be able to do each step, on two CPU cores.

Every draw is read from SHA-256 of (kind, seed, split, index), so an example is the same on every machine and Python
version. The three splits are disjoint by construction: SHA-256 of a prompt, modulo 10, says which split it may appear
in (0 to 7 train, 8 validation, 9 test), and an example is redrawn until its prompt falls into its own split.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from welltuned.tasks._task import Example, Task

MARK = "The answer is:"
LARGEST = 99  # assumed: two digits, so that the smallest model can do the arithmetic
SHARES = {"train": range(0, 8), "validation": range(8, 9), "test": range(9, 10)}  # of SHA-256(prompt) modulo 10

BOYS = ("Tom", "Ben", "Sam", "Max", "Leo", "Jack", "Paul", "Eric", "Omar", "Ravi", "Hugo", "Finn")
GIRLS = ("Ann", "Mia", "Eva", "Lily", "Sara", "Nina", "Kate", "Emma", "Zoe", "Ruth", "Maya", "Ines")
NAMES = BOYS + GIRLS
OBJECTS = (
    *("apples", "pears", "plums", "books", "coins", "stamps", "cards", "shells", "stones", "pens", "cups", "eggs"),
    *("nuts", "buttons", "balls", "toys", "beads", "marbles", "stickers", "flowers", "kites", "hats", "maps", "ropes"),
)
CONTAINERS = ("boxes", "bags", "jars", "baskets")
HAS = ("has", "owns", "starts with")

# Wordings: {s} who acts, {k} how many, {n} another name, {o} the one before a comparison.
WORDINGS = {
    "gain": ("{s} buys {k} more.", "{s} finds {k} more.", "{s} gets {k} from {n}.", "Then {s} makes {k} more."),
    "lose": ("{s} gives {k} to {n}.", "{s} loses {k} of them.", "{s} sells {k} of them.", "Then {s} throws {k} away."),
    "double": ("{s} doubles that number.", "Then {s} buys as many again."),
    "triple": ("{s} triples that number.",),
    "halve": ("{s} gives half of them to {n}.", "{s} loses half of them.", "Then {s} sells half of them."),
    "more": ("{n} has {k} more than {o}.",),
    "fewer": ("{n} has {k} fewer than {o}.",),
    "twice": ("{n} has twice as many as {o}.",),
    "thrice": ("{n} has three times as many as {o}.",),
    "half": ("{n} has half as many as {o}.",),
}
COMPARISONS = ("more", "fewer", "twice", "thrice", "half")  # after one of these the story is about the other person


T = TypeVar("T")


class Draws:
    """An endless stream of fair draws that depends on its key alone."""

    def __init__(self, *key: object) -> None:
        self._key = ":".join(map(str, key)).encode()
        self._block = 0
        self._bytes = b""

    def below(self, bound: int) -> int:
        """Draw from 0 .. bound - 1; the bias is below bound / 2**32."""
        if not self._bytes:
            self._bytes = hashlib.sha256(self._key + b"#%d" % self._block).digest()
            self._block += 1
        word, self._bytes = self._bytes[:4], self._bytes[4:]
        return int.from_bytes(word, "big") % bound

    def between(self, low: int, high: int) -> int:
        """Draw from low .. high, both included."""
        return low + self.below(high - low + 1)

    def pick(self, options: Sequence[T]) -> T:
        """Draw one of the options."""
        return options[self.below(len(options))]


@dataclass
class _Story:
    """A problem while it is being written: whom it is about, how many they have, and the text so far."""

    draws: Draws
    who: str = ""
    item: str = ""
    value: int = 0
    before: tuple[str, int] | None = None  # whom the last comparison was made with, and how many they have
    compared: bool = False
    sentences: list[str] = field(default_factory=list[str])
    steps: list[str] = field(default_factory=list[str])

    def add_step(self, left: int, sign: str, right: int) -> None:
        self.value = result(left, sign, right)
        self.steps.append(f"{left} {sign} {right} = {self.value}.")

    def other(self) -> str:
        return self.draws.pick([name for name in NAMES if name != self.who])


def result(left: int, sign: str, right: int) -> int:
    """Work out one step; halves are only ever drawn of even numbers."""
    return {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[sign]


def _start(story: _Story, in_containers: bool) -> None:
    """Open a story with a number of things, or (one step) with full containers that are to be multiplied."""
    draws = story.draws
    story.who, story.item = draws.pick(NAMES), draws.pick(OBJECTS)
    if in_containers:
        count, each = draws.between(2, 9), draws.between(2, 9)
        story.sentences.append(f"{story.who} has {count} {draws.pick(CONTAINERS)} with {each} {story.item} each.")
        story.add_step(count, "*", each)
    else:
        story.value = draws.between(3, 60)
        story.sentences.append(f"{story.who} {draws.pick(HAS)} {story.value} {story.item}.")


def _possible(value: int) -> list[str]:
    """List the kinds of step that keep the number between 1 and LARGEST, each as often as it is to be drawn."""
    kinds: list[str] = []
    if value + 2 <= LARGEST:
        kinds += ["gain"] * 3 + ["more"]
    if value >= 4:
        kinds += ["lose"] * 3 + ["fewer"]
    if 2 * value <= LARGEST:
        kinds += ["double", "twice"]
    if 3 * value <= LARGEST:
        kinds += ["triple", "thrice"]
    if value % 2 == 0:
        kinds += ["halve", "half"]
    return kinds


def _step(story: _Story, kind: str) -> None:
    """Write one step of the given kind: its sentence and its calculation."""
    draws, value = story.draws, story.value
    amount = 0
    if kind in ("gain", "more"):
        amount = draws.between(2, min(40, LARGEST - value))
    elif kind in ("lose", "fewer"):
        amount = draws.between(2, min(40, value - 1))
    pronoun = "he" if story.who in BOYS else "she"
    actor = story.who if story.compared else pronoun
    other = story.other()
    wording = draws.pick(WORDINGS[kind])
    if wording.startswith("{s}"):
        actor = actor[0].upper() + actor[1:]
    story.sentences.append(wording.format(s=actor, k=amount, n=other, o=story.who))
    story.before = None
    if kind in COMPARISONS:
        story.before, story.compared = (story.who, value), True
        story.who = other
    sign, right = {
        "gain": ("+", amount),
        "more": ("+", amount),
        "lose": ("-", amount),
        "fewer": ("-", amount),
        "double": ("*", 2),
        "twice": ("*", 2),
        "triple": ("*", 3),
        "thrice": ("*", 3),
    }.get(kind, ("/", 2))
    story.add_step(value, sign, right)


def _finish(story: _Story, total_with: tuple[str, int] | None) -> Example:
    """Ask for the last number, or (one more step) for the total of two people."""
    if total_with is None:
        now = story.draws.pick(("", " now"))
        question = f"How many {story.item} does {story.who} have{now}?"
    else:
        name, amount = total_with
        story.add_step(amount, "+", story.value)
        ending = story.draws.pick(("in total", "together"))
        question = f"How many {story.item} do {name} and {story.who} have {ending}?"
    return written_out(" ".join([*story.sentences, question]), story.steps, story.value)


def written_out(question: str, steps: list[str], answer: int) -> Example:
    """Put a question, its steps and its answer into the one form that base models and fine-tuning share."""
    return Example(f"Question: {question}\nAnswer:", f" {' '.join(steps)} {MARK} {answer}", str(answer))


def _multi_step(draws: Draws) -> Example:
    num_steps = draws.between(2, 4)
    story = _Story(draws)
    _start(story, in_containers=draws.below(5) == 0)
    while len(story.steps) < num_steps:
        last = len(story.steps) == num_steps - 1
        if last and story.before and story.before[1] + story.value <= LARGEST and draws.below(2):
            return _finish(story, story.before)
        _step(story, draws.pick(_possible(story.value)))
    return _finish(story, None)


def _single_step(draws: Draws) -> Example:
    story = _Story(draws)
    form = draws.below(10)
    _start(story, in_containers=form == 0)
    if form == 1:
        name, amount = story.who, story.value
        story.who = story.other()
        story.value = draws.between(2, LARGEST - amount)
        story.sentences.append(f"{story.who} has {story.value} {story.item}.")
        return _finish(story, (name, amount))
    if form > 1:
        _step(story, draws.pick(_possible(story.value)))
    return _finish(story, None)


def _drawn(write: Callable[[Draws], Example], kind: str, seed: int, split: str, index: int) -> Example:
    """Write examples until one belongs to the split; the first attempt that does is the example of this index."""
    if split not in SHARES:
        raise ValueError(f"no split {split!r}. Known: {', '.join(SHARES)}.")
    draws = Draws("abacus", TASK.version, kind, seed, split, index)
    while True:
        example = write(draws)
        if share_of(example.prompt) in SHARES[split]:
            return example


def share_of(prompt: str) -> int:
    """Say which tenth of all problems a prompt belongs to; the splits are made of whole tenths."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") % 10


def generate(seed: int, split: str, index: int) -> Example:
    """Make the multi-step problem of this index: what fine-tuning has to learn."""
    return _drawn(_multi_step, "multi", seed, split, index)


def one_step(seed: int, split: str, index: int) -> Example:
    """Make the one-step problem of this index: what the base models already solve."""
    return _drawn(_single_step, "one", seed, split, index)


# Up to 18 digits fit every integer type; a longer run, or one with a fraction or a thousands mark, is no answer at all.
_NUMBER = re.compile(r"\s*(-?[0-9]{1,18})(?![0-9]|[.,][0-9])")


def extract(text: str) -> str | None:
    """Find the whole number right after the last "The answer is:"; None where there is none."""
    _, mark, tail = text.rpartition(MARK)
    found = _NUMBER.match(tail) if mark else None
    return found.group(1) if found else None


def grade(text: str, example: Example) -> bool:
    """Judge generated text by exact match of the number, compared as integers."""
    if example.answer is None:
        raise ValueError("this example has no answer to grade against: use one that this task generated")
    found = extract(text)
    return found is not None and int(found) == int(example.answer)


TASK = Task(
    summary="word problems of 2 to 4 steps with written-out steps, graded by exact match of the final number",
    version=1,
    max_new_tokens=48,  # the longest completion has 42 tokens and the end mark
    generate=generate,
    extract=extract,
    grade=grade,
)
