"""An audit's findings in words, the verdict first: what a reader must know before believing the table.

Each check is a function of the facts that gives no, one or several findings, and each has a test where it fires and one
where it does not.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from welltuned.analysis.flips import Flips
from welltuned.analysis.grid import Mean
from welltuned.analysis.wording import plural
from welltuned.audit.conclusions import Conclusion, Standing
from welltuned.audit.configurations import shares_seed
from welltuned.audit.noise import pooled
from welltuned.audit.records import Book
from welltuned.audit.selection import bound, left_out
from welltuned.audit.tuned import NEEDED, NOUNS, Tuned
from welltuned.audit.wording import counts_text, difference_text, listed


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
    configurations: tuple[Mean, ...]  # of the side that judges
    flips: tuple[Flips, ...]  # of every method with the baseline

    @property
    def base(self) -> tuple[Tuned, ...]:
        """Return the baseline's rows."""
        return tuple(row for row in self.tuned if row.method == self.baseline)

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the methods in the table's order."""
        return tuple(dict.fromkeys(row.method for row in self.tuned))


def verdict(facts: Facts) -> tuple[str, ...]:
    """Return the audit in two sentences: the baseline, then the conclusions."""
    if len(facts.methods) == 1:
        return (_baseline(facts), f"{facts.baseline} is the only method, so that the table compares no methods.")
    counts = Counter(one.standing for one in facts.conclusions)
    stands, falls, open_ones = (counts[standing] for standing in Standing)
    return (
        _baseline(facts),
        f"Of {plural(len(facts.conclusions), 'conclusion')} that the table invites, {stands} "
        f"{'survives' if stands == 1 else 'survive'}, {falls} {'does' if falls == 1 else 'do'} not, and "
        f"{open_ones} cannot be told from it.",
    )


def _baseline(facts: Facts) -> str:
    """Say whether the baseline was tuned, and what follows if it was not."""
    given = [counts_text(name, [row.knob(name).count for row in facts.base]) for name in NEEDED]
    on = f" on each of {len(facts.base)} problems" if len(facts.base) > 1 else ""
    text = f"The baseline {facts.baseline} was tuned over {given[0]}, {given[1]} and {given[2]}{on}"
    failing = [name for name in NEEDED if any(row.knob(name).passes is False for row in facts.base)]
    if not failing:
        known = all(row.passes for row in facts.base)
        return f"{text}: {'it passes' if known else 'whether it passes is not said'} ({CRITERION})."
    if "learning_rate" in failing and len(facts.methods) > 1:
        return f"{text}: comparisons in this table say little about the methods ({CRITERION})."
    short = " and ".join(f"{NOUNS[name]}s" for name in failing)
    rest = "" if len(facts.methods) == 1 else ", so that a conclusion holds at most for those tried"
    return f"{text}: too few {short}{rest} ({CRITERION})."


CRITERION = "tuned means at least " + ", ".join(f"{count} {NOUNS[name]}s" for name, count in NEEDED.items())


def findings(facts: Facts) -> tuple[Finding, ...]:
    """Return every finding that applies, in the order a reader should meet them."""
    return tuple(finding for check in CHECKS for finding in check(facts))


def _criterion(facts: Facts) -> list[Finding]:
    found: list[Finding] = []
    for name, least in NEEDED.items():
        knobs = [row.knob(name) for row in facts.base]
        if any(knob.passes is False for knob in knobs):
            counts = counts_text(name, [knob.count for knob in knobs])
            failing = sum(knob.passes is False for knob in knobs)
            where = f" on {failing} of {len(knobs)} problems" if len(knobs) > 1 else ""
            text = f"The baseline {facts.baseline} was given {counts}, fewer than {least}{where}."
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
                text = f"The best {NOUNS[name]} is the {word} tried for {_named(rows, facts)}"
                found.append(Finding("edge", name == "learning_rate", f"{text}: a better one may lie beyond."))
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
    shared = [one for one in facts.configurations if shares_seed(one)]
    if not shared:
        return []
    text = (
        f"Repeats of {plural(len(shared), 'configuration')} carry one and the same seed: their spread is that of the "
        "software and the machine alone, and a new seed would change more."
    )
    return [Finding("seeds", True, text)]


def _noise(facts: Facts) -> list[Finding]:
    blind = [one for one in facts.conclusions if not one.noise.known]
    if not blind:
        return []
    text = (
        f"No noise can be computed for {plural(len(blind), 'comparison')}: no spread with its number of seeds, no "
        "repeated configuration, no number of test items. If you know them: --value num_seeds=N --value num_items=N."
    )
    return [Finding("noise", True, text)]


def _spread(facts: Facts) -> list[Finding]:
    """Say how much a single run varies, where the table has repeats."""
    found = pooled(facts.configurations, "configurations")
    if found is None or found.sd == 0:
        return []
    size = difference_text(found.sd, facts.book.judging)
    text = f"A single run varies by {size} (standard deviation within repeats, {found.degrees} degrees of freedom)."
    return [Finding("noise", False, text)]


def _selection(facts: Facts) -> list[Finding]:
    """Say what choosing by the numbers that are shown adds: measured by leaving seeds out, and bounded."""
    most = max(facts.tuned, key=lambda row: row.num_configurations)
    tried = most.num_configurations
    if facts.book.fresh or tried < 2:
        return []
    side = facts.book.judging
    on = "the test split itself" if {run.split for run in side.table.runs} == {"test"} else "the numbers that are shown"
    text = f"A method's number is the best of up to {tried} configurations, chosen by {on}: it is too good."
    noise = pooled([one for one in facts.configurations if one.place.problem == most.problem], "configurations")
    if noise is not None and noise.sd > 0:
        sigma = noise.sd / math.sqrt(most.headline.num_seeds)
        text += f" Chance adds at most {difference_text(bound(sigma, tried), side)} to the best of {tried}, on average."
    measured = left_out(facts.configurations, side)
    if measured:
        row = max(measured, key=lambda one: one.inflation)
        text += (
            f" Measured on {row.method} by leaving one of {row.num_seeds} seeds out: "
            f"{difference_text(row.inflation, side)}."
        )
    return [Finding("selection", True, text)]


def _flips(facts: Facts) -> list[Finding]:
    """Name the methods whose order with the baseline depends on the configuration that one fixes."""
    both = [one for one in facts.flips if one.side(one.one) and one.side(one.other)]
    if not both:
        return []
    named = [
        f"{one.one} ahead in {len(one.side(one.one))}, {one.other} in {len(one.side(one.other))} of "
        f"{len(one.configurations)}"
        for one in both
    ]
    text = f"Whoever fixes one configuration for both finds either order: {listed(named)}."
    return [Finding("flips", True, text)]


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
    _spread,
    _selection,
    _flips,
    _diverged,
    _unscored,
    _reading,
)
