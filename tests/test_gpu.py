"""The same promises on a GPU: run where there is one, `pytest -m gpu`, and skipped visibly elsewhere."""

import copy
import json

import numpy as np
import pytest
import torch

import tiny
from test_quantised import held
from test_summed import KINDS, NUM_IN, NUM_OUT, NUM_SLOTS, exact, layer, numbers, share_kept
from welltuned import plan as plans
from welltuned import worker
from welltuned.evaluate.generate import greedy
from welltuned.evaluate.nll import validation_nll
from welltuned.models.summed import bare, summed
from welltuned.packing.batch import RowTable
from welltuned.packing.state import initial
from welltuned.records import Checkpoint, JobEnd, Outcome, Role, Runtime, TrainJob, Trial
from welltuned.spec import Spec

pytestmark = pytest.mark.gpu

SETTINGS = [
    {"batch_size": 4, "rank": 2},
    {"batch_size": 7, "rank": 3, "scaling": 0.5, "weight_decay": 0.1},
    {"batch_size": 5, "rank": 5, "dropout": 0.2, "order_seed": 3},
]


def on(device, model):
    """The packed model on a device."""
    return tiny.packed(copy.deepcopy(model).to(device))


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])
@pytest.mark.parametrize("method", ["lora", "pissa", "full"])
def test_training_there_equals_training_here(method, make, tmp_path):
    """Float64, mixed batch sizes, ranks and dropout: <= 1e-9 relative."""
    model = make()
    trials = [tiny.trial(method=method, max_steps=12, **changes) for changes in SETTINGS]
    here = tiny.outcomes(tiny.run_pack(on("cpu", model), trials, 3, tmp_path))
    there = tiny.outcomes(tiny.run_pack(on("cuda", model), trials, 3, tmp_path))
    for one in trials:
        assert there[one.id].train_losses == pytest.approx(here[one.id].train_losses, rel=1e-9, abs=0)
        assert there[one.id].validation_nll == pytest.approx(here[one.id].validation_nll, rel=1e-9, abs=0)


@pytest.mark.parametrize("kind", KINDS)
def test_small_changes_are_kept_in_bfloat16(kind, monkeypatch):
    """As the worker has it; a change of zeros leaves the bare layer to the bit."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False)
    module, x = layer(kind, torch.bfloat16).cuda(), numbers(NUM_SLOTS, NUM_IN).bfloat16().cuda()
    change = numbers(1, NUM_SLOTS, NUM_OUT, size=1e-3)[0].bfloat16().cuda()
    y = summed(module, x, change.clone())
    assert share_kept(y, exact(module, x), change.double()) == pytest.approx(1, abs=0.05)
    assert torch.equal(summed(module, x, torch.zeros_like(change)), bare(module, x))


def test_two_runs_give_the_same_bits_and_so_does_resuming(tmp_path):
    """Float32, every micro-step a checkpoint."""
    model = tiny.llama(torch.float32)
    trials = [tiny.trial(dtype="float32", **changes) for changes in SETTINGS]
    events = tiny.run_pack(on("cuda", model), trials, 3, tmp_path, checkpoint_seconds=0)
    whole = tiny.outcomes(events)
    again = tiny.outcomes(tiny.run_pack(on("cuda", model), trials, 3, tmp_path))
    saved = [event for event in events if isinstance(event, Checkpoint)]
    rest = tiny.outcomes(tiny.run_pack(on("cuda", model), trials, 3, tmp_path, resume=saved[len(saved) // 2].blob))
    for one in trials:
        assert again[one.id].adapter == whole[one.id].adapter
        if one.id in rest:
            assert rest[one.id].adapter == whole[one.id].adapter


def test_bfloat16_compiled_is_bfloat16_uncompiled(tmp_path):
    """Final validation losses within half a percent."""
    model = tiny.llama(torch.bfloat16)
    trials = [tiny.trial(dtype="bfloat16", batch_size=4, rank=rank) for rank in (2, 3)]
    plain = tiny.outcomes(tiny.run_pack(on("cuda", model), trials, 4, tmp_path))
    fast = tiny.outcomes(tiny.run_pack(on("cuda", model), trials, 4, tmp_path, compiled=True))
    for one in trials:
        assert fast[one.id].validation_nll == pytest.approx(plain[one.id].validation_nll, rel=5e-3)


@pytest.mark.parametrize("compiled", [False, True])
def test_blocks_of_lines_are_computed_again_there(compiled, tmp_path):
    """In the thread of the device's backward pass; the same losses within half a percent."""
    model = tiny.llama(torch.bfloat16)
    trials = [tiny.trial(dtype="bfloat16", batch_size=4, rank=rank) for rank in (2, 3)]
    plain = tiny.outcomes(tiny.run_pack(on("cuda", model), trials, 4, tmp_path))
    again = tiny.outcomes(tiny.run_pack(on("cuda", model), trials, 4, tmp_path, compiled=compiled, recompute=True))
    for one in trials:
        assert again[one.id].validation_nll == pytest.approx(plain[one.id].validation_nll, rel=5e-3)


def test_step_0_is_the_base_there_too():
    """Bfloat16 with the attention of that device."""
    model = on("cuda", tiny.llama(torch.bfloat16))
    table = RowTable(tiny.rows(), 0, model.base.device)
    state = initial(model.base, [tiny.trial(dtype="bfloat16", method=method) for method in ("lora", "pissa")])
    bare = validation_nll(model, None, table)[0]
    assert validation_nll(model, state, table) == [bare, bare]


@pytest.mark.parametrize("optimizer", ["sgd", "sign_sgd"])
def test_every_optimizer_steps_there_as_here(optimizer, tmp_path):
    """AdamW is in the test of all methods; some trials step while others gather, and slices are another size there."""
    model = tiny.llama()
    trials = [tiny.trial(optimizer=optimizer, max_steps=6, **changes) for changes in SETTINGS[:2]]
    here = tiny.outcomes(tiny.run_pack(on("cpu", model), trials, 3, tmp_path))
    there = tiny.outcomes(tiny.run_pack(on("cuda", model), trials, 3, tmp_path))
    for one in trials:
        assert there[one.id].train_losses == pytest.approx(here[one.id].train_losses, rel=1e-9, abs=0)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_a_base_in_8_bits_trains_there_as_here(method, tmp_path):
    eight, _ = held(tiny.llama())
    one = tiny.trial(method=method, max_steps=6)
    here = tiny.outcomes(tiny.run_pack(on("cpu", eight), [one], 3, tmp_path))
    there = tiny.outcomes(tiny.run_pack(on("cuda", eight), [one], 3, tmp_path))
    assert there[one.id].train_losses == pytest.approx(here[one.id].train_losses, rel=1e-9, abs=0)


def test_blocks_are_pinned_and_arrive_whole():
    """Copies do not wait, so the source must stay as it is until they are done: many blocks in a row."""
    rows = tiny.rows()
    here, there = (RowTable(rows, 0, torch.device(name)) for name in ("cpu", "cuda"))
    numbers = np.arange(len(rows.token_ids))
    for shift in range(100):
        chosen = [np.roll(numbers, shift)[:4]]
        for one, other in zip(vars(here.block(chosen, 4)).values(), vars(there.block(chosen, 4)).values(), strict=True):
            assert other.device.type == "cuda" and torch.equal(one, other.cpu())


def test_answers_there_are_the_answers_here():
    """Float64, so that no near tie of two tokens is broken in another way."""
    model = tiny.llama()
    trials = [tiny.trial(method="lora", init_seed=seed) for seed in range(2)]
    prompts = [np.arange(3, 3 + length) for length in (2, 5, 3)]
    found = []
    for device in ("cpu", "cuda"):
        packed = on(device, model)
        state = initial(packed.base, trials)
        for leaves in state.groups[0].leaves.values():
            with torch.no_grad():
                leaves["B"] += (
                    torch.linspace(-1, 1, leaves["B"].numel(), dtype=torch.float64)
                    .view_as(leaves["B"])
                    .to(leaves["B"].device)
                )
        found.append(greedy(packed, state, prompts, 6, 1, 0))
    assert found[0] == found[1]


def through_the_worker(dtype, folder):
    """The events of a pack of the bundled base, as a study runs it on that device."""
    tree = {
        "name": "gpu",
        "model": {"base": "abacus-small", "dtype": dtype},
        "task": {"task": "abacus", "num_train": 32, "num_validation": 8, "num_test": 4},
        "train": {"rank": 4, "batch_size": 8},
        "axes": {"method": ["lora", "pissa"], "learning_rate": [1e-3, 1e-2]},
    }
    trials = tuple(Trial(config, Role.SELECT) for config in plans.expand(Spec.model_validate(tree)))
    runtime = Runtime("cuda:0", 1, 1e9, str(folder))
    return list(worker.run(TrainJob("pack", trials, 4), runtime))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_worker_gives_the_same_bits_twice_and_tells_the_device_s_memory(dtype, tmp_path):
    """With fused attention, whose backward pass adds up in any order unless it is asked not to."""
    runs = [through_the_worker(dtype, tmp_path) for _ in range(2)]
    adapters = [[event.adapter for event in events if isinstance(event, Outcome)] for events in runs]
    assert len(adapters[0]) == 4 and adapters[0] == adapters[1]
    (end,) = (event for event in runs[0] if isinstance(event, JobEnd))
    assert 0 < end.peak_bytes <= torch.cuda.get_device_properties(0).total_memory
    assert json.loads(end.environment)["capability"] == torch.cuda.get_device_name(0)
