"""Results as a table on the screen, as JSON, and as a dated section of a Markdown page."""

import dataclasses
import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.compare import AGREEMENT, Compared, Row
from benchmarks.settings import Tried

GIB = 2**30

HEADINGS = (
    *("runner", "trials", "seconds", "compile s", "trials/h", "target tok/s", "real tok/s", "padded tok/s"),
    *("peak GiB", "matmul fraction", "speed", "packing's gain"),
)
TRIED = ("Trainer's setting", "rows/s", "once s", "a trial s", "all trials s", "")


def cells(row: Row) -> tuple[str, ...]:
    """Return a row's cells as text."""
    measured = f"{row.num_measured} of {row.num_trials}, scaled" if row.num_measured < row.num_trials else "all"
    return (
        row.contender if not row.setting else f"{row.contender} ({row.setting})",
        measured if measured != "all" else str(row.num_trials),
        f"{row.seconds:.1f}",
        f"{row.compile_seconds:.0f}",
        f"{row.trials_per_hour:,.0f}",
        f"{row.target_tokens_per_second:,.0f}",
        f"{row.real_tokens_per_second:,.0f}",
        f"{row.padded_tokens_per_second:,.0f}",
        f"{row.peak_bytes / GIB:.2f}",
        f"{row.matmul_fraction:.3f}",
        f"{row.speed:.2f} x",
        "" if row.packing_gain is None else f"{row.packing_gain:.2f} x",
    )


def tried_cells(tried: Tried) -> tuple[str, ...]:
    """Return the cells of a setting of Trainer's that was tried."""
    if tried.rows_per_second is None or tried.once_seconds is None or tried.trial_seconds is None:
        return (tried.setting.name, "", "", "", f"> {tried.projected_seconds:.0f}", "stopped: it cannot win")
    note = ""
    if tried.setting.by_length:
        note = "for the record: another order of rows"
    elif not tried.may_be_chosen:
        note = f"for the record: final losses {tried.largest_difference:.1%} from float32's"
    rates = (f"{tried.rows_per_second:.1f}", f"{tried.once_seconds:.1f}", f"{tried.trial_seconds:.2f}")
    return (tried.setting.name, *rates, f"{tried.projected_seconds:.0f}", note)


def verdict(case: Compared) -> str:
    """Say in a line whether the rows count and whether the target is met."""
    first = case.rows[0]
    reached = f"{first.speed:.2f} x {case.against}, aimed at {case.target:g} x"
    if case.largest_difference is None:
        return f"{reached}."
    compared = f"{case.compared_trials} trials, mean loss of the last quarter of the steps"
    agree = f"{case.largest_difference:.2%} ({compared})"
    if not case.counts:
        return f"{reached}. DOES NOT COUNT: final losses differ by up to {agree}, at most {AGREEMENT:.1%} is allowed."
    return f"{reached}. Final losses differ by at most {agree}."


def faster(case: Compared, tried: Sequence[Tried]) -> list[str]:
    """Say what the speed would be against the fastest setting, where that was not chosen for its losses.

    Its projected time over packed's, or over that of the chosen setting, whichever is less in packed's favour.
    """
    chosen = min(item.projected_seconds for item in tried if item.may_be_chosen)
    others = [item for item in tried if item.rows_per_second and not item.setting.by_length]
    best = min(others, key=lambda item: item.projected_seconds)
    if best.projected_seconds >= chosen:
        return []
    packed = case.rows[0]
    speed = min(packed.speed * best.projected_seconds / chosen, best.projected_seconds / packed.seconds)
    return [
        f"{best.setting.name} is faster with other losses ({best.largest_difference:.1%} from float32's). Against it "
        f"packed would be at {speed:.2f} x, by its short trials."
    ]


def show(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]], console: Console | None = None) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 else "right")
    for line in lines:
        table.add_row(*line)
    (console or Console(width=200)).print(table)


def shown(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Print a table, and return it as Markdown with its title above."""
    show(title, headings, lines)
    return f"### {title}\n\n{markdown(headings, lines)}"


def markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rule = ["---", *("---:" for _ in headings[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *lines))


def section(title: str, date: str, command: str, machine: Mapping[str, str], parts: Sequence[str]) -> str:
    """Return a dated section: the machine, the command, and what was found."""
    facts = "; ".join(f"{name} {value}" for name, value in machine.items())
    return "\n\n".join([f"## {date}: {title}", f"`{command}`", f"Machine: {facts}.", *parts]) + "\n"


def case_markdown(case: Compared, tried: Sequence[Tried]) -> str:
    """Return a case as Markdown."""
    parts = [f"### {case.title}", markdown(HEADINGS, [cells(row) for row in case.rows]), verdict(case)]
    if tried:
        parts += ["What Trainer's setting was chosen from:", markdown(TRIED, [tried_cells(item) for item in tried])]
        parts += faster(case, tried)
    return "\n\n".join(parts)


def finish(
    module: str,
    title: str,
    threads: int,
    results: Mapping[str, object],
    parts: Sequence[str],
    output: Path,
    page: Path | None,
) -> None:
    """Write the results as JSON with the date, the command and the machine, and add them to a page if one is named."""
    date, facts = datetime.date.today().isoformat(), machine.describe(threads)
    command = " ".join([f"python -m benchmarks.{module}", *(_without_folder(part) for part in sys.argv[1:])])
    write_json(output, {"date": date, "command": command, "machine": facts, **results})
    print(f"results: {output}")
    if page is not None:
        append(page, section(title, date, command, facts, parts))


def _without_folder(argument: str) -> str:
    """Return an argument of the command line; of a path that is this machine's, the file's name.

    >>> _without_folder("/home/me/train.jsonl"), _without_folder("docs/performance.md"), _without_folder("--write")
    ('train.jsonl', 'docs/performance.md', '--write')
    """
    return Path(argument).name if Path(argument).is_absolute() else argument


def append(page: Path, text: str) -> None:
    """Add a section to the end of a page."""
    before = page.read_text(encoding="utf-8").rstrip() + "\n\n" if page.exists() else ""
    page.write_text(before + text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write records as JSON; a number that is none (NaN) is refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, allow_nan=False, default=_plain) + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} is not written as JSON")
