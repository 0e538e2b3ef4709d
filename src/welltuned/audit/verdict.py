"""An audit's verdict in two sentences: whether the baseline was tuned, and how many conclusions survive."""

from collections import Counter

from welltuned.analysis.wording import plural
from welltuned.audit.conclusions import Standing
from welltuned.audit.facts import Facts
from welltuned.audit.tuned import NEEDED, NOUNS
from welltuned.audit.wording import counts_text

CRITERION = "tuned means at least " + ", ".join(f"{count} {NOUNS[name]}s" for name, count in NEEDED.items())


def verdict(facts: Facts) -> tuple[str, ...]:
    """Return the audit in two sentences: the baseline, then the conclusions."""
    if len(facts.methods) == 1 and facts.unchosen:
        text = (
            f"No method but {facts.baseline} has numbers that choose its configuration, so that none can be compared."
        )
        return (_baseline(facts), text)
    if len(facts.methods) == 1:
        return (_baseline(facts), f"{facts.baseline} is the only method, so that the table compares no methods.")
    if not facts.conclusions and all(len(found) == 1 for found in facts.by_problem.values()):
        where = ", ".join(name for name, _ in facts.tuned[0].problem)
        do = "if it tells no data or models apart, add --value problem=all"
        return (_baseline(facts), f"No two methods share a problem ({where}), so that none can be compared; {do}.")
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
    tied = any(row.knob("learning_rate").is_tied for row in facts.base)
    rates = f"{given[0]} (one at its best batch size and rank)" if tied else given[0]
    text = f"The baseline {facts.baseline} was tuned over {rates}, {given[1]} and {given[2]}{on}"
    failing = [name for name in NEEDED if any(row.knob(name).passes is False for row in facts.base)]
    if not failing:
        known = all(row.passes for row in facts.base)
        return f"{text}: {'it passes' if known else 'whether it passes is not said'} ({CRITERION})."
    if "learning_rate" in failing and len(facts.methods) > 1:
        return f"{text}: comparisons in this table say little about the methods ({CRITERION})."
    short = " and ".join(f"{NOUNS[name]}s" for name in failing)
    rest = "" if len(facts.methods) == 1 else ", so that a conclusion holds at most for those tried"
    return f"{text}: too few {short}{rest} ({CRITERION})."
