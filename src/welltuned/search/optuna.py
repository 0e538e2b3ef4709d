"""Optuna's samplers through ask and tell, for whoever knows and trusts one (Akiba et al. 2019, arXiv 1907.10902).

`[search] sampler = "TPESampler"` names the class, `sampler_options = { multivariate = true }` are its arguments. Each
choice is an Optuna study of its own. Its parameters are the axes that vary, as places on the grid: whole numbers where
the values are numbers, since a grid of learning rates is even in the logarithm, and categories elsewhere. Trials of one
round are asked for together and wait as RUNNING, from which samplers that can keep a distance. A suggestion that was
trained before is asked for anew, and after some repetitions its nearest free candidate is taken.

A diverged trial is told as the base's step-0 loss, and one that the machine lost as failed. The study is made anew from
the history: seeds are fixed, so the same answers lead to the same questions, on one machine at least.
"""

import functools
import importlib.util
import inspect
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned import rng
from welltuned.errors import problem, suggestion
from welltuned.records import Named, Proposal, Result, Trial
from welltuned.search import _axes, _final, _space, _warm
from welltuned.search._search import Plan, Search

if TYPE_CHECKING:
    import optuna

REPETITIONS = 8  # of what was trained before, then its nearest free candidate is taken; assumed
NEEDS = {"CmaEsSampler": "cmaes"}  # samplers with a package of their own, by Optuna's documentation
Told = tuple[tuple[float | None, ...], ...]  # for each round the losses of its candidates; None: no score


def propose(plan: Plan, results: Sequence[Result]) -> Proposal:
    """Want what the sampler asks for, then the reruns of each choice's best, then their grading; then nothing."""
    return _final.conduct(plan, results, rounds)


def rounds(plan: Plan, choice: _space.Choice, done: _final.Done) -> Iterator[Sequence[Trial]]:
    """Yield round after round until the next candidate is not paid for."""
    question = _question(plan, choice)
    told: Told = ()
    while asked := asked_after(question, told):
        candidates = [choice.candidates[place] for place in asked]
        yield [trial for candidate in candidates for trial in candidate.trials]
        told = (*told, tuple(_final.mean_score(candidate, done) for candidate in candidates))


@dataclass(frozen=True)
class Question:
    """All that a choice's questions depend on, beside the answers so far."""

    sampler: Named
    seed: int
    box: _axes.Box
    costs: tuple[float, ...]  # of each candidate in full, in run-equivalents
    budget: float
    number: int  # of candidates that are asked for at once
    first: int | None  # the candidate's place that the study begins with; None: the sampler decides


def _question(plan: Plan, choice: _space.Choice) -> Question:
    assert plan.budget is not None, "a study with this search has a budget: spec/_rules.py"
    seeds = max(len(candidate.configs) for candidate in choice.candidates)
    return Question(
        sampler=plan.sampler,
        seed=rng.seed_of(plan.seed, "search", "optuna", choice.name) % 2**32,
        box=_axes.box(choice),
        costs=tuple(map(choice.full_cost, choice.candidates)),
        budget=plan.budget + _space.ROUNDING,
        number=max(1, plan.width // seeds),
        first=choice.candidates.index(_warm.expected(plan, choice)) if plan.warm_start else None,
    )


def asked_after(question: Question, told: Told) -> tuple[int, ...]:
    """Return the candidates' places that are asked for after these answers; none where nothing more is paid for."""
    return _asking(question).after(told)


class _Asking:
    """An Optuna study in progress, and how it came about: what is known of it need not be asked again."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.points = question.box.points()
        self.begin()

    def begin(self) -> None:
        """Start from the first question."""
        self.study = _study(self.question.sampler, self.question.seed)
        self.left = self.question.budget
        self.told: Told = ()
        self.taken: set[int] = set()
        self.open: dict[int, optuna.Trial] = {}
        if self.question.first is not None:
            self._enqueue(self.question.first)
        self.asked = [self._ask()]

    def after(self, told: Told) -> tuple[int, ...]:
        """Return what is asked for after these answers."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a sampler is experimental, or falls back to random draws
            if told[: len(self.told)] != self.told[: len(told)]:
                self.begin()
            for losses in told[len(self.told) :]:
                self._tell(losses)
                self.asked.append(self._ask())
            return self.asked[len(told)]

    def _tell(self, losses: tuple[float | None, ...]) -> None:
        for trial, loss in zip(self.open.values(), losses, strict=True):
            _tell(self.study, trial, loss)
        self.told = (*self.told, losses)

    def _ask(self) -> tuple[int, ...]:
        """Ask for a round."""
        self.open = {}
        while len(self.open) < self.question.number and len(self.taken) < len(self.points):
            place, trial = self._suggestion()
            if self.question.costs[place] > self.left:
                _tell(self.study, trial, None)
                break
            self.left -= self.question.costs[place]
            self.taken.add(place)
            self.open[place] = trial
        return tuple(self.open)

    def _suggestion(self) -> "tuple[int, optuna.Trial]":
        """Return a candidate that was not trained yet, with the trial that asks for it."""
        places = {place: number for number, place in enumerate(self.question.box.places)}
        wanted: tuple[int, ...] = ()
        for _ in range(REPETITIONS):
            trial = self.study.ask(_distributions(self.question.box))
            wanted = tuple(trial.params[axis.field] for axis in self.question.box.axes)
            if wanted in places and places[wanted] not in self.taken:
                return places[wanted], trial
            _tell(self.study, trial, None)
        place = _axes.nearest(self.points, self.question.box.point(wanted), self.taken)
        self._enqueue(place)
        return place, self.study.ask(_distributions(self.question.box))

    def _enqueue(self, place: int) -> None:
        fields = [axis.field for axis in self.question.box.axes]
        self.study.enqueue_trial(dict(zip(fields, self.question.box.places[place], strict=True)))


@functools.lru_cache(maxsize=64)
def _asking(question: Question) -> _Asking:
    """Keep the studies of late, so that a round costs its own questions and not those of all rounds before it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _Asking(question)


# Optuna's side --------------------------------------------------------------------------------------------------------


def _study(sampler: Named, seed: int) -> "optuna.Study":
    import optuna  # optional, and slow to import

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # that a study was made is not worth a line
    try:
        return optuna.create_study(sampler=_made(sampler, seed))
    finally:
        optuna.logging.set_verbosity(level)


def _made(sampler: Named, seed: int) -> "optuna.samplers.BaseSampler":
    return _classes()[sampler.name](seed=seed, **dict(sampler.options))


def _classes() -> dict[str, Any]:
    """Return Optuna's samplers that can be seeded, by name."""
    import optuna

    found: dict[str, Any] = {name: vars(optuna.samplers)[name] for name in optuna.samplers.__all__}
    kinds = {name: kind for name, kind in found.items() if inspect.isclass(kind)}
    return {name: kind for name, kind in kinds.items() if "seed" in inspect.signature(kind).parameters}


def _distributions(box: _axes.Box) -> "dict[str, optuna.distributions.BaseDistribution]":
    from optuna.distributions import CategoricalDistribution, IntDistribution

    return {
        axis.field: IntDistribution(0, len(axis.values) - 1)
        if axis.is_number
        else CategoricalDistribution(range(len(axis.values)))
        for axis in box.axes
    }


def _tell(study: "optuna.Study", trial: "optuna.Trial", loss: float | None) -> None:
    from optuna.trial import TrialState

    study.tell(trial, loss, state=TrialState.FAIL if loss is None else TrialState.COMPLETE)


def problems(plan: Plan) -> list[str]:
    """Say what of the settings Optuna does not have; an empty list where it can be asked."""
    if importlib.util.find_spec("optuna") is None:
        expected = "a search that is installed"
        return [problem("search.search", "optuna", expected, "install Optuna: pip install 'welltuned[optuna]'")]
    sampler = plan.sampler
    known = _classes()
    if sampler.name not in known:
        return [problem("search.sampler", sampler.name, "a sampler of Optuna", suggestion(sampler.name, tuple(known)))]
    package = NEEDS.get(sampler.name)
    if package is not None and importlib.util.find_spec(package) is None:
        expected = f"the package {package} beside it"
        return [problem("search.sampler", sampler.name, expected, f"install it: pip install {package}")]
    options = [name for name in inspect.signature(known[sampler.name]).parameters if name not in ("self", "seed")]
    unknown = [name for name, _ in sampler.options if name not in options]
    if unknown:
        expected = f"an option of {sampler.name}"
        return [problem("search.sampler_options", name, expected, suggestion(name, options)) for name in unknown]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _made(sampler, 0)
    except (TypeError, ValueError) as error:
        expected = f"what {sampler.name} takes ({error})"
        return [problem("search.sampler_options", dict(sampler.options), expected, "see Optuna's documentation")]
    return []


SEARCH = Search(
    summary="what a sampler of Optuna asks for until the budget is spent; each method's best is rerun and graded",
    propose=propose,
    problems=problems,
)
