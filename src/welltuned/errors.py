"""The errors a caller can react to: one class per reaction, every message says what, got, expected, and what to do."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class WelltunedError(Exception):
    """Anything that welltuned raises on purpose; its text is meant for the user. The command line exits 2 on it."""


class InputError(WelltunedError):
    """The study file, the model or the data must be changed. Holds every problem found, one line each."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class StoreError(WelltunedError):
    """The study folder cannot be used as it is: in use, made from another spec, or by a newer version."""


class MachineError(WelltunedError):
    """The machine is at fault (disk full, memory exhausted, worker killed): free it and run again; nothing is lost."""


def problem(what: str, got: object, expected: str, do: str) -> str:
    """Compose the one line of a user-facing error: `what: got X, expected Y; do this next`.

    >>> problem("rank", 0, "an integer >= 1", "set rank = 8, for instance")
    'rank: got 0, expected an integer >= 1; set rank = 8, for instance'
    """
    shown = got if isinstance(got, str) and got == "nothing" else repr(got)
    return f"{what}: got {shown}, expected {expected}; {do}"


def suggestion(name: str, known: Sequence[str]) -> str:
    """Say which known name was probably meant, and list all of them.

    >>> suggestion("pisa", ["lora", "pissa"])
    "did you mean 'pissa'? Known: lora, pissa"
    """
    close = get_close_matches(name, known, n=1)
    meant = f"did you mean '{close[0]}'? " if close else ""
    return f"{meant}Known: {', '.join(sorted(known))}"
