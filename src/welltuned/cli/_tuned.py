"""What tuning found, in words: the choice, what would be as good, and what the budget could not tell."""

import dataclasses

from welltuned.analysis.wording import DASH, nats_text, plural, rate_text
from welltuned.cli._text import table
from welltuned.records import Status
from welltuned.search._beliefs import Belief
from welltuned.study.tune import Tuned

WIDE = 2.0  # factor between the ends of a learning rate's interval and its middle from which on it is said; assumed
NORMAL_95 = 1.96


def tuned_text(tuned: Tuned) -> str:
    """Return the choice with its uncertainty, what would be best elsewhere, and how far the budget went."""
    belief, config = tuned.belief, tuned.config
    own = tuned.best_rate
    low, high = (None, None) if own is None else rate_interval(own.log2_rate, own.sd)
    rate_span = DASH if low is None else f"{rate_text(low)} to {rate_text(high)} (95 %)"
    good = f"as good within {100 * belief.margin:g} %: {_span(belief.plateau)}"
    loss_span = f"{nats_text(belief.low_nll)} to {nats_text(belief.high_nll)} (95 %)"
    reruns = ", ".join(nats_text(result.validation_nll) for result in tuned.reruns) or DASH
    rows = [
        ("batch size", str(config.batch_size), good),
        ("learning rate", rate_text(config.learning_rate), rate_span),
        ("rank", str(config.rank), f"lora_alpha {config.scaling * config.rank:g}"),
        (
            "validation loss",
            nats_text(belief.expected_nll),
            f"{loss_span}; the base model: {nats_text(tuned.base_nll)}",
        ),
        ("on fresh seeds", reruns, plural(len(tuned.reruns), "rerun")),
    ]
    spent = f"{tuned.num_runs:.1f} of {tuned.budget_runs:.1f} full trials' worth"
    full, probes = plural(belief.num_full, "full trial"), plural(belief.num_probes, "short one")
    return "\n".join(
        [
            f"tuned {config.method} on {config.base}: {full}, {probes} and the reruns, {spent}",
            "",
            table(("", "choice", ""), rows),
            "",
            "best learning rate and expected loss elsewhere:",
            table(("rank", "batch size", "learning rate", "95 %", "expected loss"), _elsewhere(belief)),
            "",
            *endings(tuned),
        ]
    )


def _span(ends: tuple[int, int] | None) -> str:
    """Write a range of batch sizes.

    >>> _span((8, 32)), _span((4, 4)), _span(None) == DASH
    ('8 to 32', '4 only', True)
    """
    if ends is None:
        return DASH
    return f"{ends[0]} only" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _elsewhere(belief: Belief) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one in sorted(belief.best_rates, key=lambda one: (one.rank, one.batch_size)):
        low, high = rate_interval(one.log2_rate, one.sd)
        span = f"{rate_text(low)} to {rate_text(high)}"
        rows.append(
            (str(one.rank), str(one.batch_size), rate_text(2.0**one.log2_rate), span, nats_text(one.expected_nll))
        )
    return rows


def rate_interval(log2_rate: float, sd: float) -> tuple[float, float]:
    """Return the ends of a learning rate's 95 % interval."""
    return 2.0 ** (log2_rate - NORMAL_95 * sd), 2.0 ** (log2_rate + NORMAL_95 * sd)


def endings(tuned: Tuned) -> list[str]:
    """Say plainly what the budget could not tell."""
    belief = tuned.belief
    lines = _diverged(tuned)
    own = tuned.best_rate
    if own is not None and 2.0 ** (NORMAL_95 * own.sd) > WIDE:
        lines.append(f"Your budget only separates learning rates within a factor of {2.0 ** (NORMAL_95 * own.sd):.1f}.")
    if own is not None and own.edge:
        lines.append(f"The best learning rate may lie beyond the {own.edge} end of those looked at.")
    lines += _edge("batch size", belief.batch_edge, {one.batch_size for one in belief.best_rates})
    lines += _edge("rank", belief.rank_edge, {one.rank for one in belief.best_rates})
    if belief.probability_near_best is not None:
        chance, epsilon = 100 * belief.probability_near_best, 100 * belief.epsilon
        lines.append(
            f"With {chance:.0f} % the choice is within {epsilon:g} % of the best loss there is among those offered."
        )
    if belief.dropped_shares:
        shares = ", ".join(f"{100 * share:g} %" for share in belief.dropped_shares)
        lines.append(f"Short trials of {shares} of the course ranked otherwise than full ones and were not used.")
    if belief.prior_widened > 1:
        lines.append("The learning rates contradicted what is known of other models, which was then trusted less.")
    return lines


def _diverged(tuned: Tuned) -> list[str]:
    """Say where the choice did not hold on fresh seeds."""
    number = sum(result.status is Status.DIVERGED for result in tuned.reruns)
    if not number:
        return []
    what = "All reruns" if number == len(tuned.reruns) else f"{number} of {len(tuned.reruns)} reruns"
    return [f"{what} of the choice on fresh seeds diverged: do not rely on it; a smaller learning rate is safer."]


def _edge(what: str, edge: str, offered: set[int]) -> list[str]:
    """Say where the best is an end of what was offered; of one value there is nothing to say."""
    if len(offered) == 1 or not edge:
        return []
    end, beyond = ("largest", "larger") if edge == "high" else ("smallest", "smaller")
    return [f"The best {what} is the {end} offered; a {beyond} one may be better."]


def as_data(tuned: Tuned) -> dict[str, object]:
    """Return the result as plain data."""
    belief, config = tuned.belief, tuned.config
    return {
        "method": config.method,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "rank": config.rank,
        "lora_alpha": config.scaling * config.rank,
        "base_nll": tuned.base_nll,
        "fresh_nll": [result.validation_nll for result in tuned.reruns],
        "spent_runs": tuned.num_runs,
        "budget_runs": tuned.budget_runs,
        "endings": endings(tuned),
        "belief": dataclasses.asdict(belief) | {"best": None, "favourite": None},
    }
