"""Measure what a proxy is worth on recorded surfaces: regret and cost against tuning the target itself (F46).

    python -m scripts.measure_proxies

A proxy is tuned exhaustively (every batch size and learning rate of its table), its best cell is moved to the target by
`transfer/proxy.py`, and the target is judged at what comes out: at the suggested learning rate alone, and at the best
of the suggested probes. Losses are means over seeds, between learning rates interpolated in their logarithm. Regret is
relative to the target's own best; cost is in operations of training, relative to the target's own sweep. Three kinds of
proxy: a lower rank, a smaller model, and (the negative control) less data. `section` is of docs/tuner.md.
"""

import bisect
import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scripts import surface_tables
from scripts.rule_tables import ABACUS_WIDTHS
from scripts.surface_tables import Surface as Recorded

from welltuned import plan
from welltuned.analysis import optimum
from welltuned.analysis.cells import score_nats
from welltuned.analysis.wording import DASH
from welltuned.cli._text import table
from welltuned.costs import flops
from welltuned.errors import InputError
from welltuned.records import Result, Role
from welltuned.transfer.proxy import Found, transfer
from welltuned.transfer.setting import Setting

KINDS = ("rank", "model", "data")
NAMES = {"rank": "a lower rank", "model": "a smaller model", "data": "a quarter of the rows (negative control)"}


@dataclass(frozen=True)
class Surface:
    """A recorded surface: mean loss by batch size and learning rate, and the operations of one seed of each."""

    base: str
    width: int
    method: str
    rank: int
    alpha: str
    num_samples: int
    losses: Mapping[int, Mapping[float, float]]
    operations: Mapping[int, Mapping[float, float]]

    def setting(self, batch_size: int) -> Setting:
        """Return the setting of one of its batch sizes."""
        return Setting(self.method, self.rank, self.alpha, batch_size, self.width, self.num_samples, "llama")

    def best(self) -> float:
        """Return the smallest loss anywhere on the surface."""
        return min(min(cell.values()) for cell in self.losses.values())

    def total_operations(self) -> float:
        """Return what one seed of the whole sweep costs."""
        return math.fsum(math.fsum(cell.values()) for cell in self.operations.values())


@dataclass(frozen=True)
class Outcome:
    """What one proxy came to on one target; regrets relative to the target's best loss, costs to its own sweep."""

    kind: str
    proxy: Surface
    target: Surface
    batch_size: int
    learning_rate: float
    num_probes: int
    regret: float | None  # at the suggested learning rate; None: beyond the target's rates
    probed_regret: float | None  # at the best of the probes
    cost: float  # of the proxy's sweep
    probed_cost: float  # and the probes on the target


def main() -> None:
    """Read what is there, pair it, and print a table for each kind."""
    found = surfaces_of(surface_tables.load())
    print(f"{len(found)} surfaces")
    for kind in KINDS:
        outcomes = [outcome for one, other in pairs(found, kind) if (outcome := judge(kind, one, other)) is not None]
        if outcomes:
            print(f"\n{kind}\n{shown(outcomes)}")
        else:
            print(
                f"\nmissing: two surfaces that differ in {kind} alone, the smaller with an enclosed best learning rate"
            )


def surfaces_of(recordings: Sequence[Recorded]) -> list[Surface]:
    """Gather the selection trials of recordings into surfaces, one for each number of samples."""
    groups: defaultdict[tuple[str, str, int, str, int], list[tuple[Result, float]]] = defaultdict(list)
    for recording in recordings:
        surveys = {survey.config_key: survey for survey in recording.declaration.surveys}
        for result in recording.results:
            config = result.config
            if result.role is Role.SELECT and config.base in ABACUS_WIDTHS:
                num_samples = config.num_train * config.num_train_epochs
                operations = flops.work(config, surveys[plan.survey_key(config)]).train_flops
                key = (config.base, config.method, config.rank, config.alpha, num_samples)
                groups[key].append((result, operations))
    return [_surface(*key, results) for key, results in groups.items()]


def _surface(
    base: str, method: str, rank: int, alpha: str, num_samples: int, results: Sequence[tuple[Result, float]]
) -> Surface:
    losses: defaultdict[int, defaultdict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    costs: defaultdict[int, defaultdict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result, operations in results:
        loss, at = score_nats(result), result.config
        if loss is not None:
            losses[at.batch_size][at.learning_rate].append(loss)
            costs[at.batch_size][at.learning_rate].append(operations)
    width = ABACUS_WIDTHS[base]
    return Surface(base, width, method, max(rank, 1), alpha, num_samples, _means(losses), _means(costs))


def _means(values: Mapping[int, Mapping[float, list[float]]]) -> dict[int, dict[float, float]]:
    return {
        batch: {rate: math.fsum(cell[rate]) / len(cell[rate]) for rate in sorted(cell)}
        for batch, cell in sorted(values.items())
    }


def pairs(surfaces: Sequence[Surface], kind: str) -> Iterator[tuple[Surface, Surface]]:
    """Yield (proxy, target) that differ in one thing, the proxy having less of it."""
    size = {"rank": lambda at: at.rank, "model": lambda at: at.width, "data": lambda at: at.num_samples}
    for one, other in itertools.permutations(surfaces, 2):
        same = all(
            size[name](one) == size[name](other) if name != kind else size[name](one) < size[name](other)
            for name in KINDS
        )
        if same and (one.method, one.alpha) == (other.method, other.alpha):
            yield one, other


def judge(kind: str, proxy: Surface, target: Surface) -> Outcome | None:
    """Tune the proxy, move its best cell, and judge the target there; None where the proxy's best is on an edge."""
    found = tuned(proxy)
    if found is None:
        return None
    # Less data is the negative control: it is used as if its best cell were the target's.
    there = found.setting if kind == "data" else target.setting(found.setting.batch_size)
    try:
        moved = transfer(found, there)
    except InputError as error:
        print(f"left out: {proxy.base} to {target.base}, {proxy.method}: {error}")
        return None
    batch = moved.setting.batch_size
    if batch not in target.losses:
        print(f"left out: {target.base}, {target.method} rank {target.rank} has no batch size {batch}")
        return None
    best = target.best()
    losses = [loss_at(target.losses[batch], rate) for rate in moved.probes]
    known = [loss for loss in losses if loss is not None]
    mean_operations = math.fsum(target.operations[batch].values()) / len(target.operations[batch])
    cost = proxy.total_operations() / target.total_operations()
    probed_cost = cost + len(moved.probes) * mean_operations / target.total_operations()
    regret = None if losses[0] is None else losses[0] / best - 1
    probed = min(known) / best - 1 if known else None
    return Outcome(
        kind, proxy, target, batch, moved.learning_rate, len(moved.probes), regret, probed, cost, probed_cost
    )


def tuned(surface: Surface) -> Found | None:
    """Return the best cell of a surface: its batch size, and the vertex with the near-optimal band of its rates."""
    batch = min(surface.losses, key=lambda size: min(surface.losses[size].values()))
    cell = surface.losses[batch]
    found = optimum.estimate(list(cell), list(cell.values()))
    if found.learning_rate is None:
        return None
    low, high = min(found.band_low, found.learning_rate), max(found.band_high, found.learning_rate)
    return Found(surface.setting(batch), found.learning_rate, low, high)


def loss_at(cell: Mapping[float, float], rate: float) -> float | None:
    """Return the loss at a rate, linear between its neighbours in log rate; None beyond the rates tried."""
    rates = list(cell)
    if not rates[0] <= rate <= rates[-1]:
        return None
    at = min(max(bisect.bisect(rates, rate), 1), len(rates) - 1)
    low, high = rates[at - 1], rates[at]
    share = math.log(rate / low) / math.log(high / low)
    return cell[low] + share * (cell[high] - cell[low])


def shown(outcomes: Sequence[Outcome]) -> str:
    """Lay the outcomes out."""
    headings = ("method", "proxy", "target", "batch", "rate", "regret", "probed", "probes", "cost", "with probes")
    return table(headings, [_row(one) for one in outcomes])


def section(recordings: Sequence[Recorded]) -> str:
    """Return a table of the kinds of proxy, over the pairs whose target has the most samples of its kind."""
    found = surfaces_of(recordings)
    most = max((surface.num_samples for surface in found), default=0)
    lines = ["| proxy | pairs | regret | worst | with probes | worst | cost of a sweep |", "| --- |" + " ---: |" * 6]
    for kind in KINDS:
        outcomes = [judge(kind, *pair) for pair in pairs(found, kind) if pair[1].num_samples == most]
        known = [one for one in outcomes if one is not None]
        regrets = [one.regret for one in known if one.regret is not None]
        probed = [one.probed_regret for one in known if one.probed_regret is not None]
        if regrets and probed:
            values = [statistics.median(regrets), max(regrets), statistics.median(probed), max(probed)]
            cost = statistics.median(one.probed_cost for one in known)
            cells = [NAMES[kind], f"{len(known)}", *(f"{100 * value:.1f} %" for value in values), f"{100 * cost:.0f} %"]
        else:
            cells = [NAMES[kind], "0", *[DASH] * 5]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def models(recordings: Sequence[Recorded]) -> str:
    """Return a table of every pair of a smaller model and a larger one, at the most samples that any has."""
    found = surfaces_of(recordings)
    most = max((surface.num_samples for surface in found), default=0)
    head = ("method", "proxy", "target", "regret", "with probes", "cost of a sweep", "with probes")
    lines = [f"| {' | '.join(head)} |", "| --- | --- | --- |" + " ---: |" * 4]
    for pair in pairs(found, "model"):
        outcome = judge("model", *pair) if pair[1].num_samples == most else None
        if outcome is not None:
            method, proxy, target, _, _, regret, probed, _, cost, probed_cost = _row(outcome)
            cells = [method, *(name.rpartition(" ")[0] for name in (proxy, target)), regret, probed, cost, probed_cost]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(one: Outcome) -> list[str]:
    return [
        one.proxy.method,
        *(f"{at.base} r{at.rank} n{at.num_samples}" for at in (one.proxy, one.target)),
        f"{one.batch_size}",
        f"{one.learning_rate:.2g}",
        *(DASH if value is None else f"{value:.1%}" for value in (one.regret, one.probed_regret)),
        f"{one.num_probes}",
        *(f"{value:.0%}" for value in (one.cost, one.probed_cost)),
    ]


if __name__ == "__main__":
    main()
