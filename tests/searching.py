"""What the tests of the searches share: plans of an invented study, and a search run to its end on invented losses."""

from collections.abc import Callable

from small_study import TEXT, graded, plan_of, result_of
from welltuned import plugins
from welltuned.plan import Plan
from welltuned.records import Config, Proposal, Result, Status, Trial
from welltuned.spec import Spec

Answer = Callable[[Trial], Result]


def plan_with(search: str, settings: str, text: str = TEXT) -> Plan:
    return plan_of(Spec.parse(text.replace("[search]", f'[search]\nsearch = "{search}"\n{settings}')))


RATES = str([float(f"{10 ** (exponent / 4):.6g}") for exponent in range(-16, -3)])  # 1e-4 to 1e-1, 4 a decade


def wide(rates: str = RATES, batches: str = "[4, 8, 16, 32]") -> str:
    """Return the small study with one method and more to choose from."""
    text = TEXT.replace('method = ["lora", "pissa"]\n', "").replace("batch_size = [4, 16]", f"batch_size = {batches}")
    return text.replace("learning_rate = [1e-3, 1e-2]", f"learning_rate = {rates}")


def answering(loss: Callable[[Config], float]) -> Answer:
    return lambda trial: result_of(trial, loss(trial.config))


def diverged(trial: Trial) -> Result:
    return result_of(trial, 3.0, Status.DIVERGED)


def lost(trial: Trial) -> Result:
    return result_of(trial, None, Status.LOST)


def run(plan: Plan, answer: Answer, most: int = 200) -> tuple[list[Proposal], list[Result]]:
    """Run a plan's search to its end, and return its proposals and all results."""
    search = plugins.load("searches", plan.spec.search.search)
    proposals: list[Proposal] = []
    results: list[Result] = []
    for _ in range(most):
        proposals.append(search.propose(plan, results))
        if proposals[-1].finished:
            return proposals, results
        assert proposals[-1].trials or proposals[-1].exams
        results += [answer(trial) for trial in proposals[-1].trials]
        wanted = {trial.id for trial in proposals[-1].exams}
        results = [graded(result) if result.trial_id in wanted else result for result in results]
    raise AssertionError(f"the search wants more after {most} rounds")
