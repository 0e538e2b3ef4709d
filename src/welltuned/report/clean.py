"""Texts from outside made fit to be shown: no character that cannot be seen or written, and none that fills a page.

The names of methods, models, data sets and files come from a user's study. Before anything is drawn or set, each is
rid of what XML, LaTeX or a reader's eye cannot take, and cut to a line; where it is cut, a hash of the whole stands at
its end, so that different names stay different. Escaping for HTML, SVG and LaTeX is done by those who write these.
"""

import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Sequence
from typing import Any, cast

from welltuned.records import Config, Declaration, Result

NAME_LETTERS = 72  # a SHA-256 in hex is 64; assumed otherwise
LINE_LETTERS = 300  # of a reason or an environment's entry; assumed
PAGE_LETTERS = 20_000  # of the study file on the page, which is about 600 lines; assumed
UNSEEN = "�"  # what stands for a character that cannot be shown
# Controls, formats (bidirectional overrides among them), surrogates, unassigned; line and paragraph separators.
UNSHOWABLE = frozenset(("Cc", "Cf", "Cs", "Cn", "Zl", "Zp"))


def line(text: str, letters: int = NAME_LETTERS) -> str:
    """Return a text as one line of at most so many letters, and the same line for the same text.

    >>> line("lo\\x00ra\\n"), line("x" * 1000, 24)
    ('lo�ra�', 'xxxxxxxxxxxxxx… (44f835)')
    """
    cut = text if len(text) <= letters else f"{text[: letters - 10]}… ({_hash(text)})"
    return "".join(UNSEEN if unicodedata.category(letter) in UNSHOWABLE else letter for letter in cut)


def lines(text: str, letters: int = PAGE_LETTERS) -> str:
    """Return a text of several lines, cut after so many letters with a word about the rest."""
    shown = "".join(
        UNSEEN if letter != "\n" and unicodedata.category(letter) in UNSHOWABLE else letter for letter in text[:letters]
    )
    rest = len(text) - letters
    return f"{shown}\n… and {rest:,} letters more" if rest > 0 else shown


def results(given: Sequence[Result]) -> tuple[Result, ...]:
    """Return results with every text fit to be shown; nothing else about them changes."""
    known: dict[Config, Config] = {}
    return tuple(_result(result, known) for result in given)


def _result(result: Result, known: dict[Config, Config]) -> Result:
    if result.config not in known:
        known[result.config] = _strings_cleaned(result.config)
    config, reason = known[result.config], line(result.reason, LINE_LETTERS)
    if config is result.config and reason == result.reason:
        return result
    return dataclasses.replace(result, config=config, reason=reason)


def declaration(given: Declaration) -> Declaration:
    """Return a declaration with every text fit to be shown; its study file is cut after `PAGE_LETTERS`."""
    return dataclasses.replace(
        given,
        name=line(given.name),
        spec_hash=line(given.spec_hash, 2 * NAME_LETTERS),
        spec_text=lines(given.spec_text),
        environments=tuple(_environment(text) for text in given.environments),
        comparison=_texts_cleaned(given.comparison),
        hindsight=_texts_cleaned(given.hindsight),
        ledger_problem=line(given.ledger_problem, LINE_LETTERS),
    )


def _texts_cleaned(value: Any) -> Any:
    """Return a record, or a tuple of them, with every text in it fit to be shown."""
    if isinstance(value, tuple):
        return tuple(_texts_cleaned(item) for item in cast("tuple[Any, ...]", value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _texts_cleaned(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return _entry(value)


def _environment(text: str) -> str:
    found = json.loads(text)
    shown = {line(str(name)): _entry(value) for name, value in found.items()}
    return json.dumps(shown)


def _entry(value: Any) -> Any:
    return line(value, LINE_LETTERS) if isinstance(value, str) else value


def _strings_cleaned(config: Config) -> Config:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, str):
            cleaned: Any = line(value)
        elif isinstance(value, tuple):
            cleaned = tuple(line(part) if isinstance(part, str) else part for part in value)
        else:
            continue
        if cleaned != value:
            changes[field.name] = cleaned
    return config.replace(**changes) if changes else config


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]
