"""An audit's findings in words: what a reader must know before believing the table.

Each check is a function of the facts that gives no, one or several findings, and each has a test where it fires and one
where it does not. Those of tuning and of noise have files of their own; here are those of the table itself.
"""

from collections import Counter
from collections.abc import Callable

from welltuned.analysis.wording import plural
from welltuned.audit import checks_noise, checks_tuning
from welltuned.audit.facts import Facts, Finding, named
from welltuned.audit.wording import listed


def findings(facts: Facts) -> tuple[Finding, ...]:
    """Return every finding that applies, in the order a reader should meet them."""
    return tuple(finding for check in CHECKS for finding in check(facts))


def _flips(facts: Facts) -> list[Finding]:
    """Name the methods whose order with the baseline depends on the configuration that one fixes."""
    both = [one for one in facts.flips if one.side(one.one) and one.side(one.other)]
    if not both:
        return []
    shown = [
        f"{one.one} ahead in {len(one.side(one.one))}, {one.other} in {len(one.side(one.other))} of "
        f"{len(one.configurations)}"
        for one in both
    ]
    text = f"Whoever fixes one configuration for both finds either order: {listed(shown)}."
    return [Finding("flips", True, text)]


def _diverged(facts: Facts) -> list[Finding]:
    counts: Counter[str] = Counter()
    for entry in facts.book.choosing.entries:
        counts[entry.run.method] += entry.run.diverged
    shown = [f"{method} {count}" for method, count in counts.items() if count]
    if not shown:
        return []
    return [Finding("diverged", False, f"{plural(counts.total(), 'run')} diverged and counted: {listed(shown)}.")]


def _unscored(facts: Facts) -> list[Finding]:
    rows = facts.book.unscored
    if not rows:
        return []
    shown = [f"{row.place} ({row.method}: {row.why})" for row in rows]
    text = f"{plural(len(rows), 'row')} without a number, in no average: {listed(shown)}."
    return [Finding("missing", True, text)]


def _unjudged(facts: Facts) -> list[Finding]:
    """Name the methods whose chosen configuration has no number of the kind that judges, or that nothing chose."""
    rows = [row for row in facts.tuned if row.headline is None]
    found: list[Finding] = []
    if rows:
        text = f"No {facts.book.judged_by} of the best configuration, hence no comparison: {named(rows, facts)}."
        found.append(Finding("missing", True, text))
    if facts.unchosen:
        text = (
            f"A {facts.book.judged_by} without one that could have chosen it, hence not used: {listed(facts.unchosen)}."
        )
        found.append(Finding("missing", True, text))
    return found


def _reading(facts: Facts) -> list[Finding]:
    doubts = [Finding("reading", True, doubt) for doubt in facts.book.doubts]
    return [*doubts, *(Finding("reading", False, note) for note in facts.book.notes)]


CHECKS: tuple[Callable[[Facts], list[Finding]], ...] = (
    checks_tuning.criterion,
    checks_tuning.unequal,
    checks_tuning.edges,
    checks_noise.seeds,
    checks_noise.repeats,
    checks_noise.noise,
    checks_noise.spread,
    checks_noise.selection,
    _flips,
    _diverged,
    _unscored,
    _unjudged,
    _reading,
)
