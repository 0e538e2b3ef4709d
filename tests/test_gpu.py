"""The same promises on a GPU: run where there is one, `pytest -m gpu`, and skipped visibly elsewhere."""

import copy

import pytest
import torch

import tiny
from welltuned.evaluate.nll import validation_nll
from welltuned.packing.batch import RowTable
from welltuned.packing.state import initial
from welltuned.records import Checkpoint

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


def test_step_0_is_the_base_there_too():
    """Bfloat16 with the attention of that device."""
    model = on("cuda", tiny.llama(torch.bfloat16))
    table = RowTable(tiny.rows(), 0, model.base.device)
    state = initial(model.base, [tiny.trial(dtype="bfloat16", method=method) for method in ("lora", "pissa")])
    bare = validation_nll(model, None, table)[0]
    assert validation_nll(model, state, table) == [bare, bare]
