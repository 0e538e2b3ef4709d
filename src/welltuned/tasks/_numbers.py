"""The number after an answer mark: what GSM8K-style tasks grade.

The marks are GSM8K's own `#### n` (Cobbe et al. 2021) and MetaMathQA's `The answer is: n` (Yu et al. 2023). The last
mark in the text counts; where no number follows it there is no answer, and no other number of the text is ever taken
instead. Numbers are compared as exact fractions, so 1,200 = 1200.00 = $1,200. A percent sign is read as a unit: 20% is
20.
"""

import re
from fractions import Fraction

from welltuned.tasks._task import Example

MARK = "The answer is:"

_MARKS = re.compile(r"####|\bthe answer is\b:?", re.IGNORECASE)
# Sign and currency in either order. More than 30 digits (a model that repeats one for ever), "12,5" or "1.2.3" are
# no number rather than a guess.
_NUMBER = re.compile(
    r"[\s*]*(?P<sign>[-\u2212+]?)\s*(?:\\?\$|[\u20ac\u00a3])?\s*(?P<inner>[-\u2212]?)"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3}){1,8}|[0-9]{0,30})(?P<part>\.[0-9]{1,30})?(?![.,]?[0-9])"
    r"(?:\s*/\s*(?P<below>[0-9]{1,30})(?![0-9]))?"
)


def number(text: str) -> str | None:
    """Read the number that a text starts with, in one spelling for each value ("18", "-5/2"); None where there is none.

    >>> number(" $1,200.50."), number("18.00"), number("-5%"), number("about 3")
    ('2401/2', '18', '-5', None)
    """
    found = _NUMBER.match(text)
    if found is None or not (found["whole"] or found["part"]):
        return None
    value = Fraction((found["whole"].replace(",", "") or "0") + (found["part"] or ""))
    if found["below"] is not None:
        if int(found["below"]) == 0:
            return None
        value /= int(found["below"])
    negative = any(sign in "-\u2212" for sign in found["sign"] + found["inner"])
    return str(-value if negative else value)


def after_mark(text: str) -> str | None:
    """Return the text after its last answer mark; None where there is no mark.

    >>> after_mark("3 + 4 = 7\\n#### 7")
    ' 7'
    """
    marks = list(_MARKS.finditer(text))
    return text[marks[-1].end() :] if marks else None


def extract(text: str) -> str | None:
    """Find the number after the last answer mark; None where there is no mark or no number follows it."""
    tail = after_mark(text)
    return None if tail is None else number(tail)


def grade(text: str, example: Example) -> bool:
    """Judge generated text by the exact value of its number; without an answer it is wrong."""
    answer = None if example.answer is None else number(example.answer)
    if answer is None:
        raise ValueError(f"this example has no number to grade against, but the answer {example.answer!r}")
    return extract(text) == answer
