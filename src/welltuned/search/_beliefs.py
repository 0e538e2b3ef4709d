"""What a guided search believes about each choice, as frozen records: for `tune`, for reports, and for its own end."""

from dataclasses import dataclass

from welltuned.records import Config


@dataclass(frozen=True)
class BestRate:
    """Where the optimal learning rate of full trials lies at one batch size and rank, as the posterior has it."""

    batch_size: int
    rank: int
    log2_rate: float  # mean of log2 of the optimal learning rate
    sd: float  # in octaves
    expected_nll: float  # of a full trial at the best offered learning rate there: posterior median
    edge: str  # "low" | "high": the best of the offered rates is likelier that end than any inside; "" otherwise


@dataclass(frozen=True)
class Belief:
    """The posterior of one choice (a method within a problem), of full trials only.

    "Regret" is the loss of `best` over that of the best candidate there is, relative to the latter. Intervals are 95 %
    credible intervals of the mean over seeds, not of a single run.
    """

    method: str
    problem: tuple[object, ...]  # the values of the plan's problem fields
    num_full: int  # full trials with a score, diverged ones included
    num_probes: int  # short ones
    spent: float  # run-equivalents
    best: Config | None  # what is chosen, on the first selection seed; None: no trial has a score
    is_trained: bool  # in full: best is more than an expectation
    expected_nll: float | None  # of best; None without best
    low_nll: float | None
    high_nll: float | None
    favourite: Config  # what the posterior expects to be best, also before anything was trained
    probability_near_best: float | None  # that the regret of `best` is below `epsilon`; None without best
    epsilon: float  # relative
    expected_regret: float | None  # relative; None without best
    best_rates: tuple[BestRate, ...]  # by batch size, then rank
    plateau: tuple[int, int] | None  # batch sizes around the best whose best candidates are within `margin` of it
    efficient_batch: int | None  # the largest batch size that is
    margin: float  # relative, of plateau and efficient batch
    batch_edge: str  # "low" | "high" | "both": the best batch size is the smallest | largest offered; "" inside
    rank_edge: str  # likewise
    dropped_shares: tuple[float, ...]  # probes whose ranking disagreed with the full trials'
    prior_widened: float  # factor by which the learning rate's prior was widened, for the results contradict it; 1: not
    valley_weight: float  # of the valley model against the plain process, 0 to 1
    ended: str  # why the search chooses nothing more for this choice; "" while it goes on
