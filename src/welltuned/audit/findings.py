"""An audit's findings in words, the verdict first: what a reader must know before believing the table.

Each check is a function of the facts that gives no, one or several findings, and each has a test where it fires and one
where it does not.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from welltuned.analysis.wording import plural
from welltuned.audit.conclusions import Conclusion, Standing
from welltuned.audit.configurations import Configuration
from welltuned.audit.records import Book
from welltuned.audit.tuned import NEEDED, NOUNS, Tuned
from welltuned.audit.wording import counts_text, listed


@dataclass(frozen=True)
class Finding:
    """One thing that was found. A serious one can change a conclusion; the others are for the record."""

    kind: str
    serious: bool
    text: str


@dataclass(frozen=True)
class Facts:
    """What the checks look at."""

    book: Book
    baseline: str
    tuned: tuple[Tuned, ...]
    conclusions: tuple[Conclusion, ...]
    configurations: tuple[Configuration, ...]

    @property
    def base(self) -> tuple[Tuned, ...]:
        """Return the baseline's rows."""
        return tuple(row for row in self.tuned if row.method == self.baseline)

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the methods in the table's order."""
        return tuple(dict.fromkeys(row.method for row in self.tuned))


def verdict(facts: Facts) -> tuple[str, ...]:
    """Return the audit in two or three sentences: the baseline, then the conclusions."""
    lines = [_baseline(facts)]
    if len(facts.methods) == 1:
        return (*lines, f"{facts.baseline} is the only method, so that the table compares no methods.")
    counts = Counter(one.standing for one in facts.conclusions)
    standing = f"{counts[Standing.SURVIVES]} survive, {counts[Standing.DOES_NOT]} do not"
    lines.append(
        f"Of {plural(len(facts.conclusions), 'conclusion')} that the table invites, {standing}, and of "
        f"{counts[Standing.CANNOT_TELL]} the table cannot tell."
    )
    return tuple(lines)


def _baseline(facts: Facts) -> str:
    given = [counts_text(name, [row.knob(name).count for row in facts.base]) for name in NEEDED]
    text = f"The baseline {facts.baseline} was tuned over {given[0]}, {given[1]} and {given[2]}"
    where = _where(facts)
    passes = {row.passes for row in facts.base}
    needed = ", ".join(f"{count} {NOUNS[name]}s" for name, count in NEEDED.items())
    if passes == {True}:
        return f"{text}{where}: it passes as a tuned baseline (at least {needed})."
    if False not in passes:
        return f"{text}{where}: the table does not say whether it is a tuned baseline (at least {needed})."
    little = "comparisons in this table say little about the methods" if len(facts.methods) > 1 else "it fails"
    return f"{text}{where}: {little} (a tuned baseline has at least {needed})."


def _where(facts: Facts) -> str:
    failing = sum(row.passes is not True for row in facts.base)
    if len(facts.base) == 1 or failing in (0, len(facts.base)):
        return f" on each of {len(facts.base)} problems" if len(facts.base) > 1 else ""
    return f" ({failing} of {len(facts.base)} problems fall short)"


def findings(facts: Facts) -> tuple[Finding, ...]:
    """Return every finding that applies, in the order a reader should meet them."""
    return tuple(finding for check in CHECKS for finding in check(facts))


def _criterion(facts: Facts) -> list[Finding]:
    found: list[Finding] = []
    for name, least in NEEDED.items():
        knobs = [row.knob(name) for row in facts.base]
        if any(knob.passes is False for knob in knobs):
            counts = counts_text(name, [knob.count for knob in knobs])
            text = f"The baseline {facts.baseline} was given {counts}, not at least {least}."
            found.append(Finding("baseline", True, text))
        elif any(knob.passes is None for knob in knobs):
            do = f"write --column {name}=NAME or --value {name}=VALUE if you know"
            text = f"Which {NOUNS[name]}s the baseline {facts.baseline} was given is not said; {do}."
            found.append(Finding("baseline", True, text))
    return found


def _unequal(facts: Facts) -> list[Finding]:
    """Tell who was given more configurations than the baseline, and who was given fewer."""
    given: Counter[str] = Counter()
    for row in facts.tuned:
        given[row.method] += row.num_configurations
    base = given[facts.baseline]
    more = [f"{method} ({count})" for method, count in given.items() if count > base]
    fewer = [f"{method} ({count})" for method, count in given.items() if count < base]
    found: list[Finding] = []
    own = f"the baseline {facts.baseline} ({base})"
    if more:
        text = f"More configurations were tried than for {own}: {listed(more)}."
        found.append(Finding("unequal tuning", True, text))
    if fewer:
        text = f"Fewer configurations were tried than for {own}: {listed(fewer)}."
        found.append(Finding("unequal tuning", True, text))
    return found


def _edges(facts: Facts) -> list[Finding]:
    found: list[Finding] = []
    for name in NEEDED:
        for side, word in (("low", "lowest"), ("high", "highest")):
            rows = [row for row in facts.tuned if row.knob(name).edge == side]
            if rows:
                text = f"The best {NOUNS[name]} is the {word} tried for {_named(rows, facts)}: a better one may lie beyond."
                found.append(Finding("edge", name == "learning_rate", text))
    single = [row for row in facts.tuned if row.knob("learning_rate").count == 1]
    if single:
        text = f"A single learning rate, hence none tuned: {_named(single, facts)}."
        found.append(Finding("edge", True, text))
    return found


def _seeds(facts: Facts) -> list[Finding]:
    known = [row for row in facts.tuned if row.num_seeds is not None]
    if not known:
        return [Finding("seeds", True, "The table does not say how many seeds stand behind its numbers.")]
    single = [row for row in known if row.num_seeds == 1]
    if single and not facts.book.fresh:
        return [Finding("seeds", True, f"One seed only for {_named(single, facts)}.")]
    return []


def _repeats(facts: Facts) -> list[Finding]:
    shared = [one for one in facts.configurations if one.shares_seed]
    if not shared:
        return []
    text = (
        f"{plural(len(shared), 'configuration')} were run repeatedly with one and the same seed: their spread is from the "
        "software and the machine alone, and a new seed would change more."
    )
    return [Finding("seeds", True, text)]


def _noise(facts: Facts) -> list[Finding]:
    blind = [one for one in facts.conclusions if not one.noise.known]
    if not blind:
        return []
    text = (
        f"No noise can be computed for {plural(len(blind), 'comparison')}: the table has no spread with its number of seeds, "
        "no repeated configuration, and no number of test items. If you know them: --value num_seeds=N, num_items=N."
    )
    return [Finding("noise", True, text)]


def _selection(facts: Facts) -> list[Finding]:
    tried = max(row.num_configurations for row in facts.tuned)
    if facts.book.fresh or tried < 2:
        return []
    splits = {entry.run.split for entry in facts.book.judging.entries}
    on = "the test split itself" if splits == {"test"} else "the numbers that are shown"
    text = f"A method's number is the best of up to {tried} configurations, picked by {on}: it is too good."
    return [Finding("selection", True, text)]


def _diverged(facts: Facts) -> list[Finding]:
    counts: Counter[str] = Counter()
    for entry in facts.book.choosing.entries:
        counts[entry.run.method] += entry.run.diverged
    named = [f"{method} {count}" for method, count in counts.items() if count]
    if not named:
        return []
    return [Finding("diverged", False, f"{plural(counts.total(), 'run')} diverged and counted: {listed(named)}.")]


def _unscored(facts: Facts) -> list[Finding]:
    rows = facts.book.unscored
    if not rows:
        return []
    named = [f"{row.place} ({row.method}: {row.why})" for row in rows]
    text = f"{plural(len(rows), 'row')} without a number, in no average: {listed(named)}."
    return [Finding("missing", True, text)]


def _reading(facts: Facts) -> list[Finding]:
    return [Finding("reading", False, note) for note in facts.book.notes]


def _named(rows: Sequence[Tuned], facts: Facts) -> str:
    """Name the methods of some rows, with on how many of the problems where there are several."""
    total = len({row.problem for row in facts.tuned})
    counts = Counter(row.method for row in rows)
    if total == 1:
        return listed(list(counts))
    return listed([f"{method} (on {count} of {total} problems)" for method, count in counts.items()])


CHECKS: tuple[Callable[[Facts], list[Finding]], ...] = (
    _criterion,
    _unequal,
    _edges,
    _seeds,
    _repeats,
    _noise,
    _selection,
    _diverged,
    _unscored,
    _reading,
)
