"""Write the tables of docs/rules.md from what the rules say of themselves and from their measured errors.

    python -m scripts.rules_page

scripts/measure_rules.py measures; a test holds the page to the committed numbers.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from welltuned.transfer import known_errors
from welltuned.transfer.combine import NAME
from welltuned.transfer.formulas import FORMULAS
from welltuned.transfer.known_errors import KnownError
from welltuned.transfer.rules import RULES

PAGE = Path(__file__).parents[1] / "docs" / "rules.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
ERROR_HEADINGS = ("data", "of", "median", "90 %", "bias", "n", "models")


def main() -> None:
    """Rewrite the page's measured part."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def page(text: str) -> str:
    """Return the page with its tables as they are now."""
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n\n{tables()}\n\n{END}", text, flags=re.DOTALL)


def tables() -> str:
    """Return all tables."""
    found = known_errors.measured()
    laws = [
        [law.scale, f"{law.constant:.3g}", f"(B/{law.batch_size})^{law.batch_power:.2f}",
         f"(N/{law.num_samples:,})^{law.samples_power:.2f}", ", ".join(law.fitted_powers) or "none", law.data]
        for law in found.laws
    ]  # fmt: skip
    parts = [
        "## The formulas",
        _table(("formula", "says", "source"), [[one.name, one.statement, one.source] for one in FORMULAS]),
        "How far each was off, on plain LoRA:",
        _errors(("formula", "combined"), [*(one.name for one in FORMULAS), NAME]),
        "The constants of `fitted`; a power that is not fitted is the literature's, since the data do not vary it:",
        _table(("data", "C", "batch size", "samples", "fitted powers", "tables"), laws),
        "## The rules",
        _table(("rule", "says", "source", "domain"), [[f"{one.name} ({one.standing})", one.statement, one.source,
                                                       one.domain] for one in RULES]),
        "How far each was off between two best rates that differ in its one thing (`slope`: the exponent observed):",
        _errors(("rule",), list(dict.fromkeys(row.name for row in found.errors if row.kind == "rule"))),
    ]  # fmt: skip
    return "\n\n".join(parts)


def _errors(kinds: Sequence[str], names: Sequence[str]) -> str:
    rows = [row for name in names for row in known_errors.measured().errors if row.kind in kinds and row.name == name]
    rule = "rule" in kinds
    return _table(
        (kinds[0], *ERROR_HEADINGS, *(("slope",) if rule else ())),
        [[row.name, *_row(row), *([_slope(row)] if rule else [])] for row in rows],
    )


def _row(row: KnownError) -> list[str]:
    split = "held out" if row.held_out else "development"
    numbers = [f"{row.median:.2f}", f"{row.q90:.2f}", f"{row.bias:+.2f}", f"{row.num}", f"{row.num_groups}"]
    return [row.scale, split, *numbers]


def _slope(row: KnownError) -> str:
    return "–" if row.observed_slope is None else f"{row.observed_slope:+.2f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
