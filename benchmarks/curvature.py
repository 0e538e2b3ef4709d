"""How fast is curvature measured? All blocks of a model, packed and one at a time; and some blocks of a larger model.

    python -W ignore -m benchmarks.curvature small                      # all blocks of abacus-small
    python -W ignore -m benchmarks.curvature large --model M --data D   # 6 q_proj blocks of M on D, a file for gsm8k

`small` measures both ends of the Hessian of every block, by the same Lanczos with the same tolerance, in three ways:
packed (what the program does), one block at a time through the same code, and one at a time the plain way:
`torch.autograd.functional.vhp` on the whole model, as published scripts do (lr-matters-lora). They must agree.
`large` times `welltuned curvature` itself, all of its quantities included, on blocks at evenly spaced layers.
"""

import argparse
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from benchmarks import machine
from welltuned.curvature.blocks import Blocks, Member
from welltuned.curvature.lanczos import Spectrum, extremes
from welltuned.curvature.survey import Request, Survey, passes
from welltuned.executors.machine import memory_bytes
from welltuned.packing.state import PackState, grouped, initial
from welltuned.plan import expand
from welltuned.records import Role, Runtime, Trial
from welltuned.spec import Spec

METHODS = ["lora", "init_ab", "milora", "pissa", "olora"]  # those with published ratios
AGREEMENT = 0.03  # of the largest |eigenvalue| of a block; the tolerance is 1 %, and each way has its own rounding


class Timed(NamedTuple):
    """One way to measure, in all."""

    name: str
    seconds: float
    num_products: int
    ends: dict[tuple[str, str], Spectrum]  # by method and site


def spec_of(base: str, methods: Sequence[str], task: dict, rank: int = 8) -> Spec:
    """The study whose trials are measured."""
    train = {"rank": rank, "learning_rate": 1e-3}
    return Spec(name="curvature", model={"base": base}, task=task, train=train, axes={"method": list(methods)})


def survey_of(spec: Spec, args: argparse.Namespace, blocks: tuple[str, ...]) -> Survey:
    """The measurement, with the model and rows loaded."""
    request = Request(expand(spec), args.samples, (0,), blocks)
    return Survey(request, Runtime("cpu", args.threads, 1e9, "."), memory_bytes("cpu"))


def small(args: argparse.Namespace) -> None:
    """Time the three ways on all blocks."""
    survey = survey_of(spec_of("abacus-small", args.method, {"task": "abacus", "num_train": 64}), args, ())
    trials = grouped([Trial(config, Role.SELECT) for config in survey.trials[0]])
    sites = list(survey.sites)[:: args.every]
    whole = initial(survey.model.base, trials, survey.train)
    ways = [packed(survey, trials, whole, sites), alone(survey, trials, whole, sites), plain(survey, trials, sites)]
    print(f"{len(sites)} sites x {len(trials)} methods, {args.samples} rows, {survey.rows.num_targets} target tokens")
    for way in ways:
        ratio = way.seconds / ways[0].seconds
        each = 1e3 * way.seconds / len(way.ends)
        print(
            f"{way.name:28} {way.seconds:8.1f} s  {each:7.0f} ms a block  {way.num_products:6} products  {ratio:5.2f} x"
        )
    for way in ways[1:]:
        gaps = [_gap(way.ends[key], ways[0].ends[key]) for key in way.ends]
        print(f"{way.name}: largest difference from packed {max(gaps):.2%} of an eigenvalue")
        assert max(gaps) < AGREEMENT, "the ways do not agree"


def _gap(one: Spectrum, other: Spectrum) -> float:
    scale = max(abs(other.largest.value), abs(other.smallest.value))
    return max(abs(one.largest.value - other.largest.value), abs(one.smallest.value - other.smallest.value)) / scale


def _starts(number: int, blocks: Blocks) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(blocks.length, generator=generator).expand(blocks.num_blocks, -1) * blocks.own_NP


def packed(survey: Survey, trials: Sequence[Trial], state: PackState, sites: Sequence[str]) -> Timed:
    """Blocks in passes of several sites and all methods, as the program measures them."""
    began, ends, count = time.perf_counter(), {}, 0
    for mine in passes(sites, len(trials), survey.rows):
        members = [Member(site, group) for site in mine for group in state.groups]
        blocks = Blocks(survey.model, None, members, survey.rows, survey.kept_bytes)
        found = extremes(blocks.hessian, _starts(0, blocks))
        places = [(trial.config.method, site) for site in mine for trial in trials]
        ends |= dict(zip(places, found, strict=True))
        count += sum(spectrum.num_products for spectrum in found)
    return Timed("packed", time.perf_counter() - began, count, ends)


def alone(survey: Survey, trials: Sequence[Trial], state: PackState, sites: Sequence[str]) -> Timed:
    """One block at a time, through the same code: the graphs are still built once for each block."""
    began, ends, count = time.perf_counter(), {}, 0
    for place, trial in enumerate(trials):
        one = state.select([place])
        for site in sites:
            blocks = Blocks(survey.model, None, [Member(site, one.groups[0])], survey.rows, survey.kept_bytes)
            (found,) = extremes(blocks.hessian, _starts(0, blocks))
            ends[trial.config.method, site] = found
            count += found.num_products
    return Timed("one at a time", time.perf_counter() - began, count, ends)


def plain(survey: Survey, trials: Sequence[Trial], sites: Sequence[str]) -> Timed:
    """One block at a time by `vhp` on the model itself, with the change of the weight as a hook."""
    base, rows = survey.model.base, survey.rows
    state = initial(base, trials, survey.train)
    block = rows.table.block([rows.numbers], len(rows.numbers))
    survey.model.close()
    began, ends, count = time.perf_counter(), {}, 0
    for place, trial in enumerate(trials):
        for site in sites:
            tensors = state.trial_state(place)[site]
            scaling = trial.config.scaling
            product, start_P = _plain_product(base, site, tensors, scaling, block)
            (found,) = extremes(product, start_P[None])
            ends[trial.config.method, site] = found
            count += found.num_products
    return Timed("one at a time, plain vhp", time.perf_counter() - began, count, ends)


def _plain_product(base, site: str, tensors: dict, scaling: float, block):
    A0, B0 = tensors.get("A0", tensors.get("A")), tensors.get("B0", tensors.get("B"))
    offset = 1.0 if "A0" in tensors else 0.0
    linear = base.sites[site]

    def loss(A, B):
        def change(module, inputs, output):
            x = inputs[0]
            return output + scaling * ((x @ A.T) @ B.T - offset * (x @ A0.T) @ B0.T)

        hook = linear.register_forward_hook(change)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                logits = base.model(input_ids=block.ids_RT, use_cache=False).logits
        finally:
            hook.remove()
        return cross_entropy(logits.flatten(0, 1)[block.positions_K], block.targets_K)

    def product(v_1P, numbers):
        del numbers
        parts = v_1P[0].split([A0.numel(), B0.numel()])
        _, moved = torch.autograd.functional.vhp(loss, (A0, B0), (parts[0].view_as(A0), parts[1].view_as(B0)))
        return torch.cat([part.reshape(-1) for part in moved])[None]

    generator = torch.Generator().manual_seed(0)
    return product, torch.randn(A0.numel() + B0.numel(), generator=generator)


def large(args: argparse.Namespace) -> None:
    """Time the verb's own measurement on blocks of evenly spaced layers."""
    task = {"task": "gsm8k", "data_train": [args.data], "num_train": 64, "num_validation": 16, "num_test": 16}
    spec = spec_of(args.model, args.method, task)
    sites = list(survey_of(spec, args, ("q_proj",)).sites)
    chosen = [sites[round(place * (len(sites) - 1) / (args.blocks - 1))] for place in range(args.blocks)]
    survey = survey_of(spec, args, tuple(chosen))
    began = time.perf_counter()
    for rows in survey.blocks():
        for row in rows:
            ends = f"{row.hessian_min:9.4g} {row.hessian_max:9.4g}, Gauss-Newton {row.gauss_newton_max:9.4g}"
            note = f"{row.num_products} products, converged {row.converged}"
            print(f"{time.perf_counter() - began:7.1f} s  {row.method:8} {row.block}: {ends}, {note}", flush=True)
    seconds = time.perf_counter() - began
    tokens = int(survey.train.lengths[survey.rows.numbers].sum())
    print(f"{survey.num_blocks} blocks, {args.samples} rows of {tokens} tokens: {seconds:.0f} s")


def main() -> None:
    """Read the command line and run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["small", "large"])
    parser.add_argument("--method", action="append", help="repeatable; default: those with published ratios")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="small: only every so manieth site")
    parser.add_argument("--blocks", type=int, default=6, help="large: q_proj blocks")
    parser.add_argument("--model", help="large: a GGUF file, a folder, or a hub name")
    parser.add_argument("--data", help="large: a file with GSM8K's rows")
    args = parser.parse_args()
    args.method = args.method or METHODS
    for name, fact in machine.describe(args.threads).items():
        print(f"{name}: {fact}")
    small(args) if args.case == "small" else large(args)


if __name__ == "__main__":
    main()
