"""Blocks that are computed again in the backward pass: the same losses and numbers to the bit, with less kept."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import tiny
from welltuned.costs import packing
from welltuned.packing.batch import RowTable
from welltuned.packing.state import initial
from welltuned.records import Outcome, Runtime, TrainJob
from welltuned.train.loop import PackRun


def outcomes(folder, recompute: bool, model) -> list[Outcome]:
    trials = [tiny.trial(method=method, learning_rate=1e-2, dropout=0.1) for method in ("lora", "pissa")]
    trials += [tiny.trial(learning_rate=3e-3, rank=4, batch_size=8)]
    packed = tiny.packed(model)
    tables = [RowTable(tiny.rows(), 0, packed.base.device)] * 2
    job = TrainJob("pack", tuple(trials), 2, recompute=recompute)
    events = PackRun(packed, job, *tables, Runtime("cpu", 1, 1e9, str(folder))).events()
    return sorted((e for e in events if isinstance(e, Outcome)), key=lambda outcome: outcome.trial_id)


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])
def test_recomputed_blocks_give_the_same_bits(tmp_path, make):
    kept, recomputed = (outcomes(tmp_path, flag, make()) for flag in (False, True))
    for one, other in zip(kept, recomputed, strict=True):
        assert one.train_losses == other.train_losses
        assert (one.validation_nll, one.adapter) == (other.validation_nll, other.adapter)


def test_blocks_of_lines_are_computed_again_in_any_thread(tmp_path, monkeypatch):
    """A GPU's backward pass runs in a thread of its own."""
    kept = outcomes(tmp_path, False, tiny.llama())
    gradient, pool = torch.autograd.grad, ThreadPoolExecutor(1)
    elsewhere = []

    def in_a_thread(*arguments, **settings):
        elsewhere.append(arguments)
        return pool.submit(gradient, *arguments, **settings).result()

    monkeypatch.setattr(torch.autograd, "grad", in_a_thread)
    recomputed = outcomes(tmp_path, True, tiny.llama())
    assert elsewhere and [one.train_losses for one in recomputed] == [one.train_losses for one in kept]


def test_recomputing_keeps_less_for_the_backward_pass():
    seen: dict[int, int] = {}

    def keep(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    sizes = []
    for recompute in (False, True):
        seen.clear()
        model = tiny.packed()
        state = initial(model.base, [tiny.trial()])
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, model.bound(state, recompute=recompute):
            features = model.base.features(torch.ones(8, 16, dtype=torch.long))
        sizes.append(sum(seen.values()))
        del features
    assert sizes[1] < 0.6 * sizes[0]


def test_the_last_thing_to_try_after_a_loss_is_to_recompute():
    job = packing.make_job([tiny.trial()], 1)
    (again,) = packing.smaller(job)
    assert again == dataclasses.replace(job, recompute=True)
    assert packing.smaller(again) == ()
