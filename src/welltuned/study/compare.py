"""A comparison: equal budgets, selection, fresh seeds, verdict, in this order and no other; then, if asked, the oracle.

The order is the program's, not the user's: budgets are checked before the folder is made; the loop trains, selects,
freezes and reads the test data once; the verdict is stored and never changed; and only then may anything else be scored
on the test data. Each step is found done or not done in the store, so a comparison resumes wherever it was stopped.
"""

from collections.abc import Sequence
from pathlib import Path

from welltuned import fingerprint, protocol
from welltuned.analysis import comparison
from welltuned.analysis.summary import summarise, winners
from welltuned.costs import flops
from welltuned.errors import InputError, StoreError, problem
from welltuned.records import ORACLE, Comparison, Result, Role, Status, Trial
from welltuned.spec import Spec
from welltuned.store import Store
from welltuned.study import loop, lost
from welltuned.study.loop import Session
from welltuned.study.options import Note, Observer, Options, silent
from welltuned.study.surveys import preview
from welltuned.study.view import Study

RETENTION_TRIALS = 16  # adapters that are measured on a text together at the most; assumed, as for exams


def compare(
    spec: Spec | str | Path,
    folder: str | Path | None = None,
    observe: Observer = silent,
    options: Options | None = None,
) -> Study:
    """Run a study, or go on with it, to its stored verdict. It trains the same trials as `run`, and no other.

    Raises InputError before anything is trained where the study is no fair comparison.
    """
    loaded = spec if isinstance(spec, Spec) else Spec.load(spec)
    protocol.check(preview(loaded, options, observe))
    return loop.within(spec, folder, observe, options, _to_verdict)


def oracle(
    spec: Spec | str | Path,
    folder: str | Path | None = None,
    observe: Observer = silent,
    options: Options | None = None,
) -> Study:
    """Score every kept selection adapter on the test data, which shows what choosing on it would have claimed.

    Raises StoreError before the verdict is stored. Nothing is selected from it: it is no part of any result.
    """
    loaded = spec if isinstance(spec, Spec) else Spec.load(spec)
    with Store.open(loop.folder_of(loaded, folder)) as store:
        store.require_verdict()
    return loop.within(spec, folder, observe, options, _to_hindsight)


def _to_verdict(session: Session) -> None:
    loop.train(session)
    _retain(session)
    if session.store.comparison() is None:
        session.store.store_verdict(_judge(session))
        session.observe(Note("The verdict is stored."))


def _judge(session: Session) -> Comparison:
    store, plan = session.store, session.plan
    return comparison.compare(
        store.results(),
        store.retained(),
        plan.cell,
        plan.spec.compare.baseline,
        [ground.terms() for ground in protocol.grounds(plan)],
        store.spec_hash,
    )


def _retain(session: Session) -> None:
    """Measure each method's finalists on the named texts, those that were not measured yet."""
    store, texts = session.store, session.plan.spec.compare.retention
    _check_same_texts(store, texts)
    results = store.results()
    chosen = {row.key for row in winners(summarise(results, session.plan.cell))}
    finalists = [
        Trial(result.config, result.role)
        for result in results
        if result.role is Role.CONFIRM
        and result.status is Status.FINISHED
        and tuple((name, getattr(result.config, name)) for name in session.plan.cell) in chosen
    ]
    measured = {(event.trial_id, event.text) for event in store.retained()}
    for text in texts:
        missing = [trial for trial in finalists if (trial.id, text) not in measured]
        parts = loop.parts_of(missing, store, _retention_width)
        store.add_jobs([lost.retention(part, adapters, text) for part, adapters in parts])
    loop.finish_open_jobs(session)


def _retention_width(trial: Trial) -> int:
    """Return the number of adapters that are measured together; one that is a whole model has the base to itself."""
    return 1 if flops.trains_whole(trial.config) else RETENTION_TRIALS


def _check_same_texts(store: Store, texts: Sequence[str]) -> None:
    """Refuse a text that changed since the study began to measure on it."""
    for text in texts:
        path = Path(text).expanduser()
        if not path.is_file():
            raise InputError(problem("compare.retention", text, "a text file in UTF-8", "put it back"))
        now = fingerprint.file_hash(path)
        then = store.settle(f"retention {text}", now)
        if now != then:
            raise StoreError(
                f"study folder {store.folder}: the text {text} changed since the study began (got {now[:16]}, expected "
                f"{then[:16]}); put the old one back, or compare in another folder"
            )


def _to_hindsight(session: Session) -> None:
    store, plan = session.store, session.plan
    loop.finish_open_jobs(session)
    known = store.oracle()
    wanted = [
        Trial(result.config, result.role)
        for result in store.results()
        if _is_candidate(result) and result.config.task in plan.graded_tasks and result.trial_id not in known
    ]
    if not plan.graded_tasks:
        raise InputError(
            "oracle pass: got a study whose tasks grade no answers, expected graded ones; there is no test score"
        )
    store.add_jobs(loop.exams(wanted, plan, store, ORACLE))
    loop.finish_open_jobs(session)


def _is_candidate(result: Result) -> bool:
    return result.role is Role.SELECT and result.adapter is not None
