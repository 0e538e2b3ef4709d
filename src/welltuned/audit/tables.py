"""The audit's tables as text, for screen and page alike: what was tuned, what survives, flips, how it was read."""

from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.analysis.claims import Verdict, counted, number_text
from welltuned.analysis.wording import DASH, plural, signed
from welltuned.audit.assemble import Audit
from welltuned.audit.conclusions import Conclusion, Standing
from welltuned.audit.records import Side
from welltuned.audit.tuned import NEEDED, NOUNS, Tuned
from welltuned.audit.wording import difference_text, differing, knob_text, problem_text, value_text

EDGE = {"low": "lowest", "high": "highest"}


@dataclass(frozen=True)
class TextTable:
    """A table of text; the first `num_text` columns are names, the rest are set to the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_text: int


def tuned_sheet(audit: Audit) -> TextTable:
    """Return what each method was given on each problem, the baseline first."""
    names = differing([row.problem for row in audit.tuned])
    rows = sorted(audit.tuned, key=lambda row: row.method != audit.baseline)
    header = (*(("problem",) if names else ()), "method", *(f"{NOUNS[name]}s" for name in NEEDED), "on the edge")
    header += ("configurations", "runs", "seeds", "diverged", audit.book.judging.metric, "tuned")
    body = tuple(
        (*((problem_text(row.problem, names),) if names else ()), *_given(row, audit.book.judging)) for row in rows
    )
    return TextTable(header, body, 5 + bool(names))


def _given(row: Tuned, side: Side) -> tuple[str, ...]:
    edges = [f"{NOUNS[knob.name]} {EDGE[knob.edge]}" for knob in row.knobs if knob.edge]
    passes = {True: "yes", False: "no", None: "not said"}[row.passes]
    return (
        row.method,
        *(knob_text(knob) for knob in row.knobs),
        ", ".join(edges) or DASH,
        f"{row.num_configurations:,}",
        f"{row.num_runs:,}",
        DASH if row.num_seeds is None else f"{row.num_seeds:,}",
        f"{row.num_diverged:,}",
        value_text(None if row.headline is None else row.headline.value, side),
        passes,
    )


def brief_sheet(audit: Audit) -> TextTable:
    """Return one short row a method, over all problems: counts or their span. Narrow enough for a terminal."""
    side = audit.book.judging
    several = len({row.problem for row in audit.tuned}) > 1
    methods = sorted(dict.fromkeys(row.method for row in audit.tuned), key=lambda method: method != audit.baseline)
    header = ("method", *(("problems",) if several else ()), *(f"{NOUNS[name]}s" for name in NEEDED))
    header += ("runs", "seeds", "diverged", *(() if several else ("value",)), "tuned")
    body: list[tuple[str, ...]] = []
    for method in methods:
        rows = [row for row in audit.tuned if row.method == method]
        passing = sum(row.passes is True for row in rows)
        unknown = all(row.passes is None for row in rows)
        verdict = {len(rows): "yes", 0: "not said" if unknown else "no"}.get(passing, f"{passing} of {len(rows)}")
        body.append(
            (
                method,
                *((str(len(rows)),) if several else ()),
                *(_span([row.knob(name).count for row in rows]) for name in NEEDED),
                f"{sum(row.num_runs for row in rows):,}",
                _span([row.num_seeds for row in rows]),
                f"{sum(row.num_diverged for row in rows):,}",
                *(() if several else (value_text(headline.value if (headline := rows[0].headline) else None, side),)),
                verdict,
            )
        )
    return TextTable(header, tuple(body), 1)


def conclusion_lines(audit: Audit) -> list[str]:
    """Return every conclusion as a line: how it stands, by how much of what noise, and the first reason."""
    side = audit.book.judging
    names = differing([row.problem for row in audit.tuned])
    lines: list[str] = []
    for one in ordered(audit):
        where = f", {problem_text(one.problem, names)}" if names else ""
        why = one.reasons[0] if one.reasons else "; ".join(one.scope)
        size = f" ({difference_text(one.difference, side)}, noise {noise_text(one, side)})"
        told = size if one.difference is not None else ""
        lines.append(f"{one.winner} > {one.loser}{where}{told}: {one.standing.value}: {why}")
    return lines


def _span(counts: Sequence[int | None]) -> str:
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return DASH
    low, high = min(known), max(known)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def ordered(audit: Audit) -> list[Conclusion]:
    """Return the conclusions in the order of interest: what beats the baseline first, then by how they stand."""
    rank = list(Standing)

    def place(one: Conclusion) -> tuple[bool, int, float]:
        return one.loser != audit.baseline, rank.index(one.standing), -(one.difference or 0.0)

    return sorted(audit.conclusions, key=place)


def conclusions_sheet(audit: Audit) -> TextTable:
    """Return every conclusion with its difference, its noise, how it stands and why."""
    side = audit.book.judging
    names = differing([row.problem for row in audit.tuned])
    body = tuple(
        (
            *((problem_text(one.problem, names),) if names else ()),
            f"{one.winner} better than {one.loser}",
            one.standing.value,
            "; ".join(one.reasons or one.scope) or DASH,
            difference_text(one.difference, side),
            noise_text(one, side),
        )
        for one in ordered(audit)
    )
    header = (*(("problem",) if names else ()), "conclusion", "stands", "because, or where", "difference", "noise (SE)")
    return TextTable(header, body, 3 + bool(names))


def noise_text(one: Conclusion, side: Side) -> str:
    """Write the standard error of a difference: one number, a range, or a lower end."""
    noise = one.noise
    if not noise.known:
        return DASH
    low = difference_text(noise.low, side)
    high = difference_text(noise.high, side)
    if noise.high is None:
        return f"≥ {low}"
    return low if low == high else f"{low.removesuffix(' points')} to {high}"


def flips_sheet(audit: Audit) -> TextTable:
    """Return, for each method, who is ahead at the configurations shared with the baseline."""
    side = audit.book.choosing
    body: list[tuple[str, ...]] = []
    for one in audit.flips:
        if len(one.configurations) < 2:
            continue
        gaps = [outcome.advantage.value for outcome in one.configurations]
        rate = one.flip_rate
        body.append(
            (
                f"{one.one} and {one.other}",
                str(len(gaps)),
                str(len(one.side(one.one))),
                str(len(one.side(one.other))),
                f"{_signed(min(gaps), side)} to {_signed(max(gaps), side)}",
                DASH if rate is None else f"{100 * rate:.0f} %",
            )
        )
    header = ("methods", "shared configurations", "first ahead", "baseline ahead", "advantage of the first", "flipped")
    return TextTable(header, tuple(body), 1)


def claims_sheet(audit: Audit) -> TextTable:
    """Return every claim of the literature that the table can reach, with its number, interval and verdict."""
    body = [
        (
            f"{found.claim.id} {found.claim.statement}",
            found.claim.threshold,
            number_text(found.answer),
            found.verdict.value,
            found.answer.detail or DASH,
        )
        for found in audit.claims
        if found.verdict is not Verdict.NOT_APPLICABLE
    ]
    return TextTable(("claim", "holds where", "number", "verdict", "detail"), tuple(body), 5)


def claims_line(audit: Audit) -> str:
    """Count the claims of the literature by what the table says of them."""
    return f"claims of the literature: {counted(audit.claims)}"


def reading(audit: Audit) -> TextTable:
    """Return which column was read for what."""
    rows = [(role.replace("_", " "), what) for role, what in audit.book.used]
    scored, unscored = len(audit.book.choosing.entries), len(audit.book.unscored)
    rows.append(("runs", f"{plural(scored, 'run')} with a number, {plural(unscored, 'row')} without"))
    return TextTable(("what", "read from"), tuple(rows), 2)


def _signed(difference: float, side: Side) -> str:
    return signed(100 * difference / side.one, 1) if side.is_share else f"{difference:+.2g}".replace("-", "−")
