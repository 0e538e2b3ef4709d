"""What the audit's checks look at, and what each of them gives: a finding in words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.analysis.flips import Flips
from welltuned.analysis.grid import Mean
from welltuned.analysis.runs import Pairs
from welltuned.audit.conclusions import Conclusion
from welltuned.audit.records import Book
from welltuned.audit.tuned import Tuned
from welltuned.audit.wording import listed


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
    def unchosen(self) -> tuple[str, ...]:
        """Return the methods that have numbers which judge, on some problem, and none that choose."""
        known = {(row.method, row.problem) for row in self.tuned}
        runs = self.book.judging.table.runs
        return tuple(dict.fromkeys(run.method for run in runs if (run.method, run.problem) not in known))

    @property
    def by_problem(self) -> dict[Pairs, set[str]]:
        """Return the methods on each problem."""
        found: dict[Pairs, set[str]] = {}
        for row in self.tuned:
            found.setdefault(row.problem, set()).add(row.method)
        return found

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the methods in the table's order."""
        return tuple(dict.fromkeys(row.method for row in self.tuned))


def named(rows: Sequence[Tuned], facts: Facts) -> str:
    """Name the methods of some rows, with on how many of the problems where there are several."""
    total = len({row.problem for row in facts.tuned})
    counts = Counter(row.method for row in rows)
    if total == 1:
        return listed(list(counts))
    return listed([f"{method} (on {count} of {total} problems)" for method, count in counts.items()])
