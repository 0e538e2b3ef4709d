"""Measure every method on a bundled model, and write the tables of docs/methods.md from it.

`python scripts/measure_methods.py` measures (some minutes; leave the machine alone) and writes numbers and page;
`--part training --part generation` measures these parts only (PARTS below) and keeps the other numbers; those of `kept`
need no quiet machine; `--page` writes the page from the numbers that are there.
"""

import argparse
import functools
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from welltuned import data, plugins
from welltuned.cli.doctor import PROBE
from welltuned.cli.methods import MEASURED
from welltuned.evaluate import conformance
from welltuned.evaluate.generate import greedy
from welltuned.export import _peft
from welltuned.models import base as bases
from welltuned.packing.batch import RowTable
from welltuned.packing.group import Group
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import PackState, grouped, initial, site_scaling
from welltuned.plan import expand
from welltuned.records import Config, Trial
from welltuned.spec import Spec

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
BASE = "abacus-small"
NUM_TRIALS, NUM_ROWS = 4, 16  # of the timed packs
FORWARD_RANKS = RANK, WIDE = 8, 32
PROMPT_TOKENS, NEW_TOKENS, NO_TOKEN = 16, 64, -2  # of a generated answer, which no token ends
ROUNDS, STEPS = 5, 2  # the fastest round counts: what else runs on a machine only ever adds time
MARKS = ("<!-- measured: begin -->", "<!-- measured: end -->")


PARTS = ("training", "wide", "reading", "generation", "kept")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--part", action="append", choices=PARTS, help="measure this only; may be given again")
    given = parser.parse_args()
    numbers = json.loads(MEASURED.read_text(encoding="utf-8"))
    for part in () if given.page else given.part or PARTS:
        start = time.perf_counter()
        numbers = with_part(numbers, part)
        MEASURED.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")  # a later part may be cut off
        print(f"wrote {part} to {MEASURED} after {time.perf_counter() - start:.0f} s", flush=True)
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")


# Numbers --------------------------------------------------------------------------------------------------------------

NO_FIT = "does not fit"  # a rank that a method cannot have on this base
KEYS = ("time", "time_wide", "unmerged", "generation", "memory", "unmerged_memory", "conformance")


def with_part(numbers: dict, part: str) -> dict:
    """Return the numbers with those of a part measured anew; what no run has measured is null."""
    (config,) = expand(Spec.parse(PROBE))
    names = plugins.names("methods")
    found: dict[str, dict[str, Any]] = {
        name: {key: numbers["methods"].get(name, {}).get(key) for key in KEYS} for name in names
    }
    numbers = numbers | {"base": BASE, "methods": found}
    if part == "training":
        seconds = of_kinds(names, RANK, lambda some: training(config, some, RANK))
        numbers["lora_step_seconds"] = round(seconds["lora"], 5)
        numbers["machine"] = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        _put(found, "time", {name: one / seconds["lora"] for name, one in seconds.items()})
    elif part == "wide":  # relative to LoRA's of the other rank, measured in the same minutes
        seconds = of_kinds(names, WIDE, lambda some: training(config, some, WIDE))
        narrow = training(config, ["lora"], RANK)["lora"]
        _put(found, "time_wide", {name: one / narrow for name, one in seconds.items()})
    elif part in ("reading", "generation"):
        work = reading if part == "reading" else generating
        by_rank = {
            str(rank): of_kinds(names, rank, lambda some, rank=rank: work(config, some, rank)) for rank in FORWARD_RANKS
        }
        key = "unmerged" if part == "reading" else "generation"
        for name in names:
            found[name][key] = {rank: _rounded(times, name) for rank, times in by_rank.items()}
    else:
        state_bytes = keeping(config, names)
        served = {
            str(rank): serving(config, [name for name in names if fits(name, rank)], rank) for rank in FORWARD_RANKS
        }
        _put(found, "memory", {name: state_bytes[name] / state_bytes["lora"] for name in names})
        for name in names:
            found[name]["unmerged_memory"] = {rank: _rounded(bytes_of, name) for rank, bytes_of in served.items()}
            found[name]["conformance"] = properties(config, name)
    return numbers


def _put(found: dict[str, dict[str, Any]], key: str, values: dict[str, float]) -> None:
    for name, one in found.items():
        one[key] = _rounded(values, name)


def _rounded(values: dict[str, float], name: str) -> float | str:
    return round(values[name], 3) if name in values else NO_FIT


def of_kinds(names: list[str], rank: int, work: Callable[[list[str]], dict[str, float]]) -> dict[str, float]:
    """Measure one method of each parametrisation that can have the rank; the others compute the same."""
    kinds = {name: plugins.load("methods", name).parametrisation().name for name in names}
    first = {kind: name for name, kind in reversed(kinds.items())} | {"low_rank": "lora"}
    measured = work([name for name in first.values() if fits(name, rank)])
    return {name: measured[first[kind]] for name, kind in kinds.items() if first[kind] in measured}


def fits(name: str, rank: int) -> bool:
    """Say whether a method can have a rank at every site of the base."""
    model = PackedModel(bases.load(BASE, None, "float32", ("all-linear",)))
    method = plugins.load("methods", name)
    return not any(method.misfit(*model.base.shape(site), rank) for site in model.base.sites)


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


def reading(config: Config, names: list[str], rank: int) -> dict[str, float]:
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


def generating(config: Config, names: list[str], rank: int) -> dict[str, float]:
    """Return the time of writing an answer to one prompt, token by token, relative to a merged model, the bare base."""
    model = PackedModel(bases.load(BASE, None, "float32", ("all-linear",)))
    table = table_of(model, config)
    states = {name: initial(model.base, trials_of(config, name, rank)[:1], table) for name in names}
    prompt = np.asarray(table.block([range(NUM_ROWS)], NUM_ROWS).ids_RT[0, :PROMPT_TOKENS].cpu())

    def write(state: PackState) -> None:
        ((answer,),) = greedy(model, state, [prompt], NEW_TOKENS, NO_TOKEN, 0)
        assert len(answer) == NEW_TOKENS

    # One trial that trains every weight, of which there are none: nothing is added anywhere.
    whole = plugins.load("methods", "full_all").parametrisation()
    bare = PackState([Group.fresh(whole, 0, torch.zeros(1, 0), {}, {}, {}, ({},))])
    seconds = fastest({name: functools.partial(write, state) for name, state in {**states, "": bare}.items()})
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
    lora = numbers["methods"]["lora"]
    for name, found in numbers["methods"].items():
        served = [found[key] or dict.fromkeys(map(str, FORWARD_RANKS)) for key in ("unmerged", "generation")]
        numbers_of = [found["time"], found["time_wide"], found["memory"]]
        numbers_of += [time for times in served for time in times.values()]
        numbers_of += [_ratio(time, (lora["generation"] or {}).get(rank)) for rank, time in served[1].items()]
        costs.append((f"`{name}`", *map(_two, numbers_of), *map(_two, found["unmerged_memory"].values())))
        proof = found["conformance"]
        keys = ("step 0 is the base", "packed equals alone", "merged equals applied")
        told = [proof.get(key, "never packed").removesuffix(" relative") for key in keys]
        proofs.append((f"`{name}`", *told, proof["as PEFT"] or "no class"))
    kinds = ("reading", "writing", "writing, LoRA = 1", "memory")
    unmerged = [f"{what}, rank {rank}" for what in kinds for rank in FORWARD_RANKS]
    parts = [
        "## The methods\n",
        _table(("method", "what it is", "paper", "trains", "in PEFT"), what),
        "## What each costs\n",
        f"Measured on {numbers['base']} ({numbers['machine']}): packs of {NUM_TRIALS} trials of rank {RANK}, "
        f"{NUM_ROWS} rows of each a step, where LoRA takes {milliseconds:.1f} ms a step. Times "
        "and memory are relative to those of LoRA of this rank; memory is what a trial keeps: its numbers, their "
        "gradients, Adam's moments and its anchors. `full_all` trains one trial after the other; the others' four "
        "trials train side by side. One method of each parametrisation is timed: the others compute the same. For BOFT "
        "the rank is the size of a block.\n\n"
        "The other columns are of inference with one adapter that is not merged, relative to the merged model, whose "
        f"times and memory are the base's for every method and rank: reading {NUM_ROWS} rows; writing {NEW_TOKENS} "
        "tokens to one prompt, one after the other, which is what a user of a served adapter waits for, and the same "
        "relative to LoRA's; and the memory of the weights. On a base this small the adapters are a large part of the "
        "work; on a large one all ratios of time are nearer to 1.\n",
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


def _ratio(number: float | str | None, other: float | None) -> float | str | None:
    return number if number is None or other is None or isinstance(number, str) else number / other


def _two(number: float | str | None) -> str:
    return "not measured" if number is None else number if isinstance(number, str) else f"{number:.2f}"


def _code(text: str) -> str:
    return f"`{text}`" if text else "no class"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
