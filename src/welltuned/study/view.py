"""A study folder seen from a notebook: its results as records, as a table, as a report."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from welltuned.analysis.hindsight import hindsight
from welltuned.errors import StoreError
from welltuned.records import Config, Declaration, Result
from welltuned.spec import Spec
from welltuned.store import Counts, Store, ledger

if TYPE_CHECKING:
    import pandas


class Study:
    """What is stored of a study, finished or still running. Reading never disturbs the process that runs it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        with Store.open(self.folder) as store:
            self.name = store.name

    def __repr__(self) -> str:
        return f"Study({str(self.folder)!r})"

    @property
    def spec(self) -> Spec:
        """Return the study's file, with defaults filled in."""
        with Store.open(self.folder) as store:
            return Spec.parse(store.spec_text)

    def counts(self) -> Counts:
        """Count trials and jobs by their state."""
        with Store.open(self.folder) as store:
            return store.counts()

    def results(self) -> tuple[Result, ...]:
        """Return the result of every trial that has ended."""
        with Store.open(self.folder) as store:
            return store.results()

    def declaration(self) -> Declaration:
        """Return what a report says about the study besides its results."""
        with Store.open(self.folder) as store:
            cell = store.fact("cell")
            if cell is None:
                raise StoreError(f"study folder {self.folder}: got a study without a plan, expected one; run it first")
            results, oracle = store.results(), store.oracle()
            reads, ledger_problem = ledger.count(store.test_reads(), store.spec_hash)
            return Declaration(
                name=store.name,
                spec_text=store.spec_text,
                spec_hash=store.spec_hash,
                cell=tuple(json.loads(cell)),
                surveys=tuple(store.surveys().values()),
                num_test_reads=store.num_test_reads(),
                num_lost=store.num_lost(),
                environments=store.environments(),
                finished=store.fact("finished") is not None,
                budget=Spec.parse(store.spec_text).search.budget,
                num_planned=store.counts().num_trials,
                comparison=store.comparison(),
                hindsight=hindsight(results, oracle, tuple(json.loads(cell))) if oracle else (),
                test_reads=reads,
                ledger_problem=ledger_problem,
            )

    def table(self) -> "pandas.DataFrame":
        """Return one row a trial: its name, the settings that vary, its outcome, the settings that do not."""
        import pandas

        from welltuned.analysis.table import trial_rows

        rows = trial_rows(self.results())
        names = list(rows[0]) if rows else []
        settings = [field.name for field in dataclasses.fields(Config) if field.name in names]
        varying = [name for name in settings if len({row[name] for row in rows}) > 1]
        first = [*(name for name in ("trial_id", "role") if rows), *varying]
        outcome = [name for name in names if name not in (*first, *settings)]
        fixed = [name for name in settings if name not in varying]
        return pandas.DataFrame(rows, columns=[*first, *outcome, *fixed])

    def report(self) -> Path:
        """Write the report of what is stored by now and return its page."""
        from welltuned import report

        return report.build(self.results(), self.declaration(), self.folder / "report")
