"""What a method must keep on a model: the base at step 0, packed equal to alone, the base's bits, merged as applied.

The tests ask the same of every method on tiny models in float64; this asks it of one method on the user's own model.
Shape letters: N trials, K target positions, I in, O out, S token slots.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from welltuned import plugins, rng
from welltuned.data import Rows
from welltuned.errors import InputError, problem
from welltuned.methods._method import Method
from welltuned.models.base import Base
from welltuned.objectives import causal_lm
from welltuned.packing import lines, optimizer
from welltuned.packing.batch import RowTable
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState, grouped, initial, site_scaling
from welltuned.records import Config, Role, Trial
from welltuned.tasks._task import Example

NUM_STEPS = 5
RANKS = (4, 6)  # near enough to share a group, where the smaller one is padded
# Times the rank: two trials of a method without a rank differ, too. At 2.5e-3, OLoRA made 6e-5 of rounding in 5 steps.
RATE = 5e-4
LENGTHS, PROMPT_LENGTHS = (9, 7, 12, 10), (3, 2, 5, 4)
NEIGHBOUR = "lora"  # which the method shares a pack with
SITES = 3  # of different shapes, at which merging is compared
# Relative differences of losses between packed and alone. float64: the promise of the packed trainer's tests; the
# others: assumed, that many roundings more.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Check:
    """One finding: what was measured, what was expected, and whether that is fine."""

    name: str
    ok: bool
    measured: str
    expected: str


@dataclass(frozen=True)
class ShortRun:
    """Some steps of a pack: each trial's losses, and the state that they led to."""

    losses: dict[str, list[float]]
    state: PackState
    order: list[Trial]


def check_method(model: PackedModel, config: Config, name: str) -> tuple[Check, ...]:
    """Run a method's conformance on a model, with trials that start from the training fields of any configuration."""
    base = model.base
    ranks = fitting_ranks(base, name)
    trials = [trial_of(config, name, rank) for rank in (ranks[:1] if is_alone(name) else ranks)]
    trials = list({trial.id: trial for trial in trials}.values())
    table = RowTable(random_rows(base.vocab_size), 0, base.device)
    before = _fingerprint(base)
    order = grouped(trials)
    start = initial(base, order, table)
    checks = [_step_0(model, start, table)]
    if is_alone(name):
        together = train(model, trials, table)
        checks.append(_everything_trains(model, order, table, start))
        checks.append(_merged_model_equals_applied(model, together, table))
    else:
        neighbours = [trial_of(config, NEIGHBOUR, rank) for rank in RANKS if name != NEIGHBOUR]
        together = train(model, [*trials, *neighbours], table, joined=base.reads_lines)
        checks.append(_packed_equals_alone(model, trials, together, table))
        if base.reads_lines:
            checks.append(_lines_equal_padded_rows(model, together, table))
        checks.append(_everything_trains(model, order, table, start))
        checks.append(_merged_equals_applied(model, together))
    same = _fingerprint(base) == before
    checks.append(Check("the base's bits are unchanged", same, "equal" if same else "changed", "equal"))
    return tuple(checks)


def is_alone(name: str) -> bool:
    """Say whether a method's trials train alone, since they change the whole model."""
    return plugins.load("methods", name).parametrisation().whole


def fitting_ranks(base: Base, name: str) -> tuple[int, ...]:
    """Return for each of RANKS the next that the method can have at every site, else one below it; or InputError."""
    return tuple(_fitting_rank(base, name, rank) for rank in RANKS)


def _fitting_rank(base: Base, name: str, rank: int) -> int:
    method: Method = plugins.load("methods", name)
    reasons: list[str] = []
    for one in (*range(rank, 2 * rank + 1), *range(rank - 1, 0, -1)) if method.uses_rank else (rank,):
        misfits = {site: method.misfit(*base.shape(site), min(one, *base.shape(site))) for site in base.sites}
        reasons = [f"{reason} at {site}" for site, reason in misfits.items() if reason]
        if not reasons:
            return one
    advice = "name another method, or a model with other sizes"
    raise InputError(problem(f"doctor --method {name}: rank", f"1 to {2 * rank}", reasons[0], advice))


def trial_of(config: Config, method: str, rank: int) -> Trial:
    """Return a probe trial of a method."""
    plugin: Method = plugins.load("methods", method)
    changes = {"rank": rank if plugin.uses_rank else 0, "method_version": plugin.version, "clamp_rank": True}
    rows = {"num_train": len(LENGTHS), "subset": "first"}  # what an initialisation may look at
    return Trial(config.replace(method=method, scaling=1.0, learning_rate=RATE * rank, **changes, **rows), Role.SELECT)


def random_rows(vocab_size: int) -> Rows:
    """Return a few short rows of random tokens."""
    numbers = rng.stream(0, "doctor", "rows")
    ids = tuple(numbers.integers(0, vocab_size, length).astype(np.int32) for length in LENGTHS)
    return Rows(ids, np.array(PROMPT_LENGTHS), tuple(Example("", "") for _ in ids), 0, 0)


def train(
    model: PackedModel, trials: Sequence[Trial], table: RowTable, num_steps: int = NUM_STEPS, joined: bool = False
) -> ShortRun:
    """Take a few steps of all trials on the rows of the table: padded, or `joined` in lines."""
    order = grouped(trials)
    state = initial(model.base, order, table)
    losses: dict[str, list[float]] = {trial.id: [] for trial in order}
    for count in range(1, num_steps + 1):
        for trial, loss in zip(order, step(model, state, order, table, count, joined), strict=True):
            losses[trial.id].append(loss)
    return ShortRun(losses, state, order)


def step(
    model: PackedModel, state: PackState, order: Sequence[Trial], table: RowTable, count: int, joined: bool = False
) -> list[float]:
    """Take the `count`-th step of all trials on all rows of the table; return their losses before it."""
    losses = _accumulate(model, state, table, joined)
    for group in state.groups:
        configs = [trial.config for trial in order[group.start : group.stop]]
        rates = [config.learning_rate for config in configs]
        optimizer.step(model.base, group, range(len(configs)), configs, rates, [count] * len(configs))
    return losses


def _accumulate(model: PackedModel, state: PackState, table: RowTable, joined: bool) -> list[float]:
    """Take the gradients of the mean loss of all rows of the table; return the sum of each trial's."""
    base, rows = model.base, [np.arange(len(table.lengths))] * state.num_trials
    read = lines.gather(table, rows, len(table.lengths), lines.needed(table, rows, joined), joined)
    weight = 1 / int(table.num_targets.sum())
    dtype = torch.promote_types(base.dtype, torch.float32)
    with model.bound(state, places=read.places):
        chosen_KF = base.features(read.ids_LS, read.told_LS).flatten(0, 1).index_select(0, read.positions_K)
        weights_K = torch.full(read.targets_K.shape, weight, dtype=dtype, device=base.device)
        total, loss_K = causal_lm.weighted_loss(chosen_KF, base.head, read.targets_K, weights_K, base.vocab_size)
        state.accumulate(total)
    sums_N = torch.zeros(state.num_trials, dtype=torch.float64, device=base.device)
    return sums_N.index_add_(0, read.trial_K, loss_K.double()).tolist()


def largest_difference(together: ShortRun, alone: ShortRun) -> float:
    """Return the largest relative difference between losses of the trials that ran alone and in the pack."""
    pairs = [pair for name, losses in alone.losses.items() for pair in zip(together.losses[name], losses, strict=True)]
    return max(abs(packed - single) / abs(single) for packed, single in pairs)


def _step_0(model: PackedModel, state: PackState, table: RowTable) -> Check:
    """Compare the features with and without the fresh adapters, bit for bit."""
    num_rows = len(table.lengths)
    block = table.block([np.arange(num_rows)] * state.num_trials, num_rows)
    with torch.no_grad():
        bare = model.base.features(block.ids_RT)
        with model.bound(state):
            adapted = model.base.features(block.ids_RT)
    largest = float((adapted - bare).abs().max())
    return Check("step 0 is the base", largest == 0, f"{largest:.1e}", "0, to the bit")


def _packed_equals_alone(model: PackedModel, trials: Sequence[Trial], together: ShortRun, table: RowTable) -> Check:
    joined = model.base.reads_lines
    worst = max(largest_difference(together, train(model, [trial], table, joined=joined)) for trial in trials)
    tolerance = TOLERANCES[model.base.dtype]
    return Check("packed equals alone", worst <= tolerance, f"{worst:.1e} relative", f"at most {tolerance:.0e}")


def _lines_equal_padded_rows(model: PackedModel, together: ShortRun, table: RowTable) -> Check:
    """Compare losses and gradients of trained adapters; training from them may amplify rounding a thousandfold."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for joined in (True, False):
        state = together.state.select(range(together.state.num_trials))
        losses = _accumulate(model, state, table, joined)
        found.append((torch.tensor(losses), torch.cat([group.grad_NP.flatten() for group in state.groups])))
    worst = max(float((one - other).norm() / other.norm()) for one, other in zip(*found, strict=True))
    tolerance = TOLERANCES[model.base.dtype]
    name = "rows one behind the other equal padded rows"
    return Check(name, worst <= tolerance, f"{worst:.1e} relative", f"at most {tolerance:.0e}")


def _everything_trains(model: PackedModel, order: list[Trial], table: RowTable, start: PackState) -> Check:
    """Say whether every trained tensor has moved after two steps: B = 0 lets A move from the second step on only."""
    moved = train(model, order, table, num_steps=2).state
    still = [
        f"{site}:{name}"
        for old, new in zip(start.groups, moved.groups, strict=True)
        for site, leaves in old.leaves.items()
        for name, leaf in leaves.items()
        if any(torch.equal(before, after) for before, after in zip(leaf, new.leaves[site][name], strict=True))
    ]
    told = "all moved" if not still else f"{len(still)} did not, first {still[0]}"
    return Check("every trained tensor moves within 2 steps", not still, told, "all moved")


def _merged_equals_applied(model: PackedModel, run: ShortRun) -> Check:
    """Compare W x + dW x with the packed output, at sites of different shapes, after training."""
    base = model.base
    numbers = rng.stream(0, "doctor", "inputs")
    worst = 0.0
    for site in list({base.shape(site): site for site in base.sites}.values())[:SITES]:
        weight_OI, linear = base.weight(site), model.linears[site]
        x_SI = torch.from_numpy(numbers.standard_normal((8, weight_OI.shape[1]))).to(weight_OI)
        with torch.no_grad():
            bare_SO = linear(x_SI)
            with model.bound(run.state):
                applied_NSO = linear(x_SI.repeat(len(run.order), 1)).view(len(run.order), *bare_SO.shape)
        for place, trial in enumerate(run.order):
            parametrisation = plugins.load("methods", trial.config.method).parametrisation()
            state = run.state.trial_state(place)[site]
            delta_OI = parametrisation.delta(state, site_scaling(trial, site), weight_OI)
            merged_SO = bare_SO + (x_SI.to(delta_OI) @ delta_OI.T).to(bare_SO)
            worst = max(worst, float((merged_SO - applied_NSO[place]).abs().max() / merged_SO.abs().max()))
    tolerance = TOLERANCES[base.dtype]
    return Check("merged equals applied", worst <= tolerance, f"{worst:.1e} relative", f"at most {tolerance:.0e}")


def _merged_model_equals_applied(model: PackedModel, run: ShortRun, table: RowTable) -> Check:
    """Compare the logits of a model whose parameters are W + dW with those of the bound one, after training."""
    base = model.base
    ids_RT = table.block([np.arange(len(table.lengths))], len(table.lengths)).ids_RT
    merged: dict[int, torch.Tensor] = {}
    for name, state in run.state.trial_state(0).items():
        parameter = base.parameters[name].parameter
        merged[id(parameter)] = sum(state.values(), start=parameter).to(parameter.dtype).detach()
    weights = {name: merged[id(one)] for name, one in base.model.named_parameters(remove_duplicate=False)}
    with torch.no_grad():
        expected = torch.func.functional_call(base.model, weights, (ids_RT,), {"use_cache": False}).logits
        with model.bound(run.state):
            applied = base.model(ids_RT, use_cache=False).logits
    worst = float((expected - applied).abs().max() / expected.abs().max())
    tolerance = TOLERANCES[base.dtype]
    return Check("merged equals applied", worst <= tolerance, f"{worst:.1e} relative", f"at most {tolerance:.0e}")


def _fingerprint(base: Base) -> str:
    """Return SHA-256 over the bytes of every parameter."""
    digest = hashlib.sha256()
    for parameter in base.model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
