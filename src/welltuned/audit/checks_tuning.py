"""Checks of what was tuned for whom: the baseline's share, unequal numbers of configurations, optima on an edge."""

from collections import Counter

from welltuned.audit.facts import Facts, Finding, named
from welltuned.audit.tuned import NEEDED, NOUNS
from welltuned.audit.wording import counts_text, listed


def criterion(facts: Facts) -> list[Finding]:
    """Say which of the knobs the baseline was given too few values of, or unknown ones."""
    found: list[Finding] = []
    for name, least in NEEDED.items():
        knobs = [row.knob(name) for row in facts.base]
        failing = sum(knob.count is not None and knob.count < least for knob in knobs)
        if failing:
            counts = counts_text(name, [knob.count for knob in knobs])
            where = f" on {failing} of {len(knobs)} problems" if len(knobs) > 1 else ""
            text = f"The baseline {facts.baseline} was given {counts}, fewer than {least}{where}."
            found.append(Finding("baseline", True, text))
        elif any(knob.count is None for knob in knobs):
            do = f"write --column {name}=NAME or --value {name}=VALUE if you know"
            text = f"Which {NOUNS[name]}s the baseline {facts.baseline} was given is not said; {do}."
            found.append(Finding("baseline", True, text))
    return found


def unequal(facts: Facts) -> list[Finding]:
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


def edges(facts: Facts) -> list[Finding]:
    """Name the methods whose best value lies at the end of what was tried, or who had one learning rate."""
    found: list[Finding] = []
    for name in NEEDED:
        for side, word in (("low", "lowest"), ("high", "highest")):
            rows = [row for row in facts.tuned if row.knob(name).edge == side]
            if rows:
                text = f"The best {NOUNS[name]} is the {word} tried for {named(rows, facts)}"
                found.append(Finding("edge", name == "learning_rate", f"{text}: a better one may lie beyond."))
    single = [row for row in facts.tuned if row.knob("learning_rate").count == 1]
    if single:
        text = f"A single learning rate, hence none tuned: {named(single, facts)}."
        found.append(Finding("edge", True, text))
    tied = [row for row in facts.tuned if row.knob("learning_rate").is_tied]
    if tied:
        text = "One learning rate at the best batch size and rank, others only elsewhere, hence none tuned"
        found.append(Finding("edge", True, f"{text}: {named(tied, facts)}."))
    return found
