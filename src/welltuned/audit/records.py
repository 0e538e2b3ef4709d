"""The frozen values that an audit's steps exchange: a sheet of cells, entries with their runs, and a book of both.

A book has two sides. What chooses a configuration (`choosing`) and what it is judged by (`judging`) are the same
numbers in most published tables, and that is a finding; in a study of ours they are selection trials and reruns on
fresh seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from welltuned.analysis.runs import Run, Table
from welltuned.audit.parsing import Cell


@dataclass(frozen=True)
class Request:
    """What the caller says about a table beyond the table: which column is what, what holds for every row."""

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])  # role: names
    values: Mapping[str, str] = field(default_factory=dict[str, str])  # role: the value of every row
    baseline: str | None = None  # None: the method called lora
    higher_is_better: bool | None = None  # None: by the metric's name


@dataclass(frozen=True)
class Sheet:
    """A table as it was read: `rows` are its cells by column name, `places` where each row stands ("line 3")."""

    source: str
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Cell], ...]
    places: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A run and where it stands in the table."""

    run: Run
    place: str


@dataclass(frozen=True)
class Side:
    """Entries in one metric. `is_share` says that the metric counts correct items, in [0, 1] or in per cent."""

    entries: tuple[Entry, ...]
    metric: str
    higher_is_better: bool
    is_share: bool
    percent: bool = False

    @property
    def table(self) -> Table:
        """Return the runs as the table that all analyses read."""
        return Table(tuple(entry.run for entry in self.entries), self.metric, self.higher_is_better)

    @property
    def one(self) -> float:
        """Return what "all items correct" is in the metric's unit: 1, or 100 where it is in per cent."""
        return 100.0 if self.percent else 1.0


# What judges a configuration, where other numbers do than those that chose it.
TEST_ROW, RERUN, GRADED = "test row", "fresh rerun", "graded rerun"


@dataclass(frozen=True)
class Unscored:
    """A row without a number, and why it counts for nothing."""

    place: str
    method: str
    why: str


@dataclass(frozen=True)
class Book:
    """A table understood. `stated` are the knobs that it speaks of; what is not among them is unknown for every run."""

    source: str
    choosing: Side
    judging: Side
    stated: frozenset[str]
    used: tuple[tuple[str, str], ...]  # role, the column or value that was read for it
    notes: tuple[str, ...] = ()  # what a reader must know of how the table was read
    doubts: tuple[str, ...] = ()  # of the same, what can change a conclusion
    unread: tuple[str, ...] = ()  # columns not read in which rows of one configuration and seed differ
    unscored: tuple[Unscored, ...] = ()
    judged_by: str = TEST_ROW  # what a configuration needs to be judged, where `fresh`

    @property
    def fresh(self) -> bool:
        """Say whether configurations are judged by other numbers than those that chose them."""
        return self.choosing is not self.judging
