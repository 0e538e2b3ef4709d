"""Measure every method on a bundled model, and write the tables of docs/methods.md from it.

`python scripts/measure_methods.py` measures (some minutes; leave the machine alone) and writes numbers and page;
`--keep-times` measures all but the times, which need a machine to themselves;
`python scripts/measure_methods.py --page` writes the page from the numbers that are there.
"""

import argparse
import functools
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel

from welltuned import data, plugins
from welltuned.cli.doctor import PROBE
from welltuned.cli.methods import MEASURED
from welltuned.evaluate import conformance
from welltuned.export import _peft
from welltuned.models import base as bases
from welltuned.packing.batch import RowTable
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState, grouped, initial, site_scaling
from welltuned.plan import expand
from welltuned.records import Config, Trial
from welltuned.spec import Spec

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
BASE = "abacus-small"
RANK, NUM_TRIALS, NUM_ROWS = 8, 4, 16  # of the timed packs
FORWARD_RANKS = (8, 32)
ROUNDS, STEPS = 5, 2  # the fastest round counts: what else runs on a machine only ever adds time
MARKS = ("<!-- measured: begin -->", "<!-- measured: end -->")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--keep-times", action="store_true", help="measure all but what the clock says")
    given = parser.parse_args()
    if not given.page:
        before = json.loads(MEASURED.read_text(encoding="utf-8")) if given.keep_times else None
        MEASURED.write_text(json.dumps(measured(before), indent=1) + "\n", encoding="utf-8")
        print(f"wrote {MEASURED}")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")


# Numbers --------------------------------------------------------------------------------------------------------------

TIMES = ("time", "time_wide", "unmerged")


def measured(before: dict | None) -> dict:
    """Return all measurements as JSON values; the times are those of `before`, where given, null where it has none."""
    (config,) = expand(Spec.parse(PROBE))
    names = plugins.names("methods")
    if before is None:
        machine, lora_seconds, times = timed(config, names)
    else:
        machine, lora_seconds = before["machine"], before["lora_step_seconds"]
        times = {name: {key: before["methods"].get(name, {}).get(key) for key in TIMES} for name in names}
    state_bytes = keeping(config, names)
    served = {rank: serving(config, names, rank) for rank in FORWARD_RANKS}
    methods = {
        name: times[name]
        | {
            "memory": round(state_bytes[name] / state_bytes["lora"], 3),
            "unmerged_memory": {str(rank): round(served[rank][name], 3) for rank in FORWARD_RANKS},
            "conformance": properties(config, name),
        }
        for name in names
    }
    return {"base": BASE, "machine": machine, "lora_step_seconds": lora_seconds, "methods": methods}


def timed(config: Config, names: list[str]) -> tuple[str, float, dict[str, dict]]:
    """Return the machine, the seconds of a LoRA step, and every method's times relative to LoRA's or the base's."""
    train = pooled(training(config, names, RANK))
    wide = pooled(training(config, names, FORWARD_RANKS[-1]))
    applied = {rank: pooled(forward(config, names, rank)) for rank in FORWARD_RANKS}
    times = {
        name: {
            "time": round(train[name] / train["lora"], 3),
            "time_wide": round(wide[name] / train["lora"], 3),
            "unmerged": {str(rank): round(applied[rank][name], 3) for rank in FORWARD_RANKS},
        }
        for name in names
    }
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return machine, round(train["lora"], 5), times


def table_of(model: PackedModel, config: Config) -> RowTable:
    rows = data.load(config, model.base.tokenizer, ("train",))["train"]
    few = data.Rows(rows.token_ids[:NUM_ROWS], rows.prompt_lengths[:NUM_ROWS], rows.examples[:NUM_ROWS], 0, 0)
    return RowTable(few, model.base.tokenizer.eos_token_id, model.base.device)


def trials_of(config: Config, name: str, rank: int) -> list[Trial]:
    seeds = range(NUM_TRIALS)
    trial = conformance.trial_of(config, name, rank)
    return [Trial(trial.config.replace(init_seed=seed, order_seed=seed), trial.role) for seed in seeds]


def training(config: Config, names: list[str], rank: int) -> dict[str, float]:
    """Return the seconds of a step of all trials: side by side, or one after the other where each has the model."""
    model = PackedModel(bases.load(BASE, None, "float32", ("all-linear",)))
    table = table_of(model, config)
    packs = {name: grouped(pack_of(config, name, rank)) for name in names}
    states = {name: initial(model.base, order, table) for name, order in packs.items()}

    def steps(name: str) -> None:
        for _ in range(STEPS):
            conformance.step(model, states[name], packs[name], table, count=1)

    seconds = fastest({name: functools.partial(steps, name) for name in names})
    return {name: NUM_TRIALS // len(packs[name]) * spent / STEPS for name, spent in seconds.items()}


def keeping(config: Config, names: list[str]) -> dict[str, int]:
    """Return the bytes that all trials keep: numbers, gradients, moments and anchors."""
    model = PackedModel(bases.load(BASE, None, "float32", ("all-linear",)))
    table = table_of(model, config)
    packs = {name: grouped(pack_of(config, name, RANK)) for name in names}
    return {name: NUM_TRIALS // len(order) * kept(initial(model.base, order, table)) for name, order in packs.items()}


def pack_of(config: Config, name: str, rank: int) -> list[Trial]:
    """Return the trials that train side by side: one where each has the whole model."""
    return trials_of(config, name, rank)[: 1 if conformance.is_alone(name) else None]


def kept(state: PackState) -> int:
    """Return the bytes that a pack keeps."""
    total = 0
    for group in state.groups:
        buffers = [group.flat_NP, group.grad_NP, group.moment1_NP, group.moment2_NP]
        anchors = [tensor for tensors in group.anchors.values() for tensor in tensors.values()]
        anchors += group.shared.values()
        total += sum(tensor.numel() * tensor.element_size() for tensor in (*buffers, *anchors))
    return total


def forward(config: Config, names: list[str], rank: int) -> dict[str, float]:
    """Return the time of reading rows with one adapter applied, relative to a merged model, which is the bare base."""
    model = PackedModel(bases.load(BASE, None, "float32", ("all-linear",)))
    table = table_of(model, config)
    states = {name: initial(model.base, trials_of(config, name, rank)[:1], table) for name in names}
    ids_RT = table.block([range(NUM_ROWS)], NUM_ROWS).ids_RT

    def read(state: PackState | None) -> None:
        with torch.no_grad(), model.bound(state):
            for _ in range(STEPS):
                model.base.features(ids_RT)

    seconds = fastest({name: functools.partial(read, state) for name, state in {**states, "": None}.items()})
    return {name: seconds[name] / seconds[""] for name in names}


def serving(config: Config, names: list[str], rank: int) -> dict[str, float]:
    """Return the bytes of the base and one adapter, relative to those of a merged model, which are the base's.

    A model of which all weights were trained is held beside the base while it is not merged.
    """
    model = PackedModel(bases.load(BASE, None, "float32", ("all-linear",)))
    table = table_of(model, config)
    base_bytes = sum(4 * placed.parameter.numel() for placed in model.base.parameters.values())
    states = {name: initial(model.base, trials_of(config, name, rank)[:1], table) for name in names}
    trained = {name: sum(4 * group.flat_NP.numel() for group in state.groups) for name, state in states.items()}
    return {name: 1 + (kept(state) - 3 * trained[name]) / base_bytes for name, state in states.items()}


def pooled(seconds: dict[str, float]) -> dict[str, float]:
    """Give methods of one parametrisation, which compute the same, the shortest of their times."""
    kinds = {name: plugins.load("methods", name).parametrisation().name for name in seconds}
    return {name: min(seconds[one] for one in seconds if kinds[one] == kinds[name]) for name in seconds}


def fastest(work: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Run all of the work in turns; return the shortest time of each."""
    best: dict[str, float] = {}
    for round_ in range(ROUNDS + 1):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            if round_:  # the first is to warm up
                best[name] = min(best.get(name, float("inf")), time.perf_counter() - start)
    return best


def properties(config: Config, name: str) -> dict[str, str]:
    """Return what the conformance checks measure, in float64, and how the real PEFT's logits differ, in float32."""
    model = PackedModel(bases.load(BASE, None, "float64", ("all-linear",)))
    checks = conformance.check_method(model, config.replace(dtype="float64"), name)
    assert all(check.ok for check in checks), checks
    found = {check.name: check.measured for check in checks}
    return found | {"as PEFT": _as_peft(config, name)}


def _as_peft(config: Config, name: str) -> str:
    """Train a little, export, and return the largest relative difference of PEFT's logits; "" without a class."""
    kind = plugins.load("methods", name).parametrisation().name
    if kind not in _peft.WRITERS:
        return ""
    model = PackedModel(bases.load(BASE, None, "float32", ("all-linear",)))
    table = table_of(model, config)
    run = conformance.train(model, [conformance.trial_of(config, name, RANK)], table)
    ids_RT = table.block([range(NUM_ROWS)], NUM_ROWS).ids_RT
    with torch.no_grad(), model.bound(run.state):
        own = model.base.model(input_ids=ids_RT).logits
    model.close()
    states = run.state.trial_state(0)
    scalings = {site: site_scaling(run.order[0], site) for site in states}
    with tempfile.TemporaryDirectory() as folder:
        _peft.write(model.base, kind, states, scalings, BASE, None, Path(folder))
        with torch.no_grad():
            theirs = PeftModel.from_pretrained(model.base.model, folder)(input_ids=ids_RT).logits
    return f"{float((theirs - own).abs().max() / own.abs().max()):.1e}"


# The page -------------------------------------------------------------------------------------------------------------


def page(text: str) -> str:
    """Return the page with its measured part written anew."""
    numbers = json.loads(MEASURED.read_text(encoding="utf-8"))
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n\n{_tables(numbers)}\n{MARKS[1]}{after}"


def _tables(numbers: dict) -> str:
    methods = {name: plugins.load("methods", name) for name in numbers["methods"]}
    what = [(f"`{name}`", one.summary, one.paper, one.trains, _code(one.peft)) for name, one in methods.items()]
    costs, proofs = [], []
    milliseconds = 1000 * numbers["lora_step_seconds"]
    for name, found in numbers["methods"].items():
        unmerged_times = found["unmerged"] or dict.fromkeys(FORWARD_RANKS)
        numbers_of = [found["time"], found["time_wide"], found["memory"]]
        numbers_of += [*unmerged_times.values(), *found["unmerged_memory"].values()]
        costs.append((f"`{name}`", *map(_two, numbers_of)))
        proof = found["conformance"]
        keys = ("step 0 is the base", "packed equals alone", "merged equals applied")
        told = [proof.get(key, "never packed").removesuffix(" relative") for key in keys]
        proofs.append((f"`{name}`", *told, proof["as PEFT"] or "no class"))
    unmerged = [f"unmerged {what}, rank {rank}" for what in ("time", "memory") for rank in FORWARD_RANKS]
    parts = [
        "## The methods\n",
        _table(("method", "what it is", "paper", "trains", "in PEFT"), what),
        "## What each costs\n",
        f"Measured on {numbers['base']} ({numbers['machine']}): packs of {NUM_TRIALS} trials of rank {RANK}, "
        f"{NUM_ROWS} rows of each a step, where LoRA takes {milliseconds:.1f} ms a step. Times and memory are relative "
        "to those of LoRA of this rank; memory is what a trial keeps: its numbers, their gradients, Adam's moments and "
        "its anchors. "
        "`full_all` trains one trial after the other; the others' four trials train side by side. "
        "Methods of one parametrisation compute the same and share the shortest of their times. The last columns are "
        "the time of reading rows with one adapter applied, and the memory of the weights, relative to the merged "
        "model, whose time and memory are the base's for every method and rank. On a base this small the adapters are "
        "a large part of the work; on a large one all ratios of time are nearer to 1.\n",
        _table(("method", f"time, rank {RANK}", f"time, rank {FORWARD_RANKS[-1]}", "memory", *unmerged), costs),
        "## What each keeps\n",
        f"Measured on {numbers['base']}. Step 0: largest difference of the adapted model's features from the base's. "
        f"Packed and alone: largest relative difference of losses over {conformance.NUM_STEPS} steps, beside LoRA "
        "trials, ranks mixed, in float64. Merged: (W + dW) x against the packed output, in float64. PEFT: largest "
        "difference of the exported folder's logits, loaded by PEFT, from ours, relative to the largest logit, in "
        "float32. For all of them every trained tensor moves "
        "within two steps, and the bits of the base stay as they are.\n",
        _table(("method", "step 0", "packed against alone", "merged against applied", "PEFT against ours"), proofs),
    ]
    return "\n".join(parts)


def _two(number: float | None) -> str:
    return "not measured" if number is None else f"{number:.2f}"


def _code(text: str) -> str:
    return f"`{text}`" if text else "no class"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
