"""Checks of what chance could do: seeds, repeats, the noise of a difference, and what choosing the best adds."""

import math

from welltuned.analysis.wording import plural
from welltuned.audit.configurations import shares_seed
from welltuned.audit.facts import Facts, Finding, named
from welltuned.audit.noise import pooled
from welltuned.audit.selection import bound, left_out
from welltuned.audit.wording import difference_text


def seeds(facts: Facts) -> list[Finding]:
    """Say that the seeds behind the numbers are not told, or are one."""
    known = [row for row in facts.tuned if row.num_seeds is not None]
    if not known:
        return [Finding("seeds", True, "The table does not say how many seeds stand behind its numbers.")]
    single = [row for row in known if row.num_seeds == 1]
    if single and not facts.book.fresh:
        return [Finding("seeds", True, f"One seed only for {named(single, facts)}.")]
    return []


def repeats(facts: Facts) -> list[Finding]:
    """Tell repeats that carry one seed, whose spread is too small."""
    shared = [one for one in facts.configurations if shares_seed(one)]
    if not shared:
        return []
    text = (
        f"Repeats of {plural(len(shared), 'configuration')} carry one and the same seed: their spread is that of the "
        "software and the machine alone, and a new seed would change more."
    )
    return [Finding("seeds", True, text)]


def noise(facts: Facts) -> list[Finding]:
    """Count the comparisons for which no noise can be computed, and say what would give it."""
    blind = [one for one in facts.conclusions if one.difference is not None and not one.noise.known]
    if not blind:
        return []
    text = (
        f"No noise can be computed for {plural(len(blind), 'comparison')}: no spread with its number of seeds, no "
        "repeated configuration, no number of test items. If you know them: --value num_seeds=N --value num_items=N."
    )
    return [Finding("noise", True, text)]


def spread(facts: Facts) -> list[Finding]:
    """Say how much a single run varies, where the table has repeats."""
    found = pooled(facts.configurations, "configurations")
    if found is None or found.sd == 0:
        return []
    size = difference_text(found.sd, facts.book.judging)
    text = f"A single run varies by {size} (standard deviation within repeats, {found.degrees} degrees of freedom)."
    return [Finding("noise", False, text)]


def selection(facts: Facts) -> list[Finding]:
    """Say what choosing by the numbers that are shown adds: measured by leaving seeds out, and bounded."""
    most = max(facts.tuned, key=lambda row: row.num_configurations)
    tried = most.num_configurations
    if facts.book.fresh or tried < 2 or most.headline is None:
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
