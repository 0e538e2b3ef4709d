"""The doctor on a user's model: every method keeps its promises there, and one that does not is found out."""

import dataclasses

import pytest
import torch

import tiny
from welltuned import plugins
from welltuned.errors import InputError
from welltuned.evaluate import conformance
from welltuned.evaluate.conformance import check_method
from welltuned.methods._method import Method

NAMES = [
    "step 0 is the base",
    "packed equals alone",
    "rows one behind the other equal padded rows",
    "every trained tensor moves within 2 steps",
    "merged equals applied",
    "the base's bits are unchanged",
]


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", plugins.names("methods"))
def test_every_method_keeps_its_promises(method, dtype, make):
    model = tiny.packed(make(dtype))
    checks = check_method(model, tiny.config(dtype=str(dtype).removeprefix("torch.")), method)
    alone = plugins.load("methods", method).parametrisation().whole  # which is never packed
    assert [check.name for check in checks] == NAMES[:1] + NAMES[1 + 2 * alone :]
    assert all(check.ok for check in checks), checks


def broken(monkeypatch, **changes):
    """Let "lora" be a method that does something wrong."""
    method: Method = plugins.load("methods", "lora")
    monkeypatch.setattr("welltuned.methods.lora.METHOD", dataclasses.replace(method, **changes))


def wrong(model) -> list[str]:
    checks = check_method(model, tiny.config(dtype="float32"), "lora")
    return [check.name for check in checks if not check.ok]


def test_a_start_that_is_not_the_base_is_found(monkeypatch):
    init = plugins.load("methods", "lora").init

    def moved(*given):
        state = init(*given)
        return {**state, "B": state["B"] + 0.1}

    broken(monkeypatch, init=moved)
    assert wrong(tiny.packed(tiny.llama(torch.float32))) == NAMES[:1]


def test_a_method_that_no_rank_fits_is_said(monkeypatch):
    broken(monkeypatch, misfit=lambda num_out, num_in, rank: "a multiple of 7" if rank % 7 else "")
    assert conformance.fitting_ranks(tiny.base(), "lora") == (7, 7)
    broken(monkeypatch, misfit=lambda num_out, num_in, rank: "a multiple of 70" if rank % 70 else "")
    line = r"doctor --method lora: rank: got '1 to 8', expected a multiple of 70 at model\.layers\.0\.\S+; name another"
    with pytest.raises(InputError, match=line):
        check_method(tiny.packed(), tiny.config(), "lora")


def test_trials_that_are_mixed_are_found(monkeypatch):
    """Each takes a part of its neighbour's B, which is zero at step 0 and its own when it is alone."""
    plain = plugins.load("methods", "lora").parametrisation()

    def apply(x_NSI, state, scaling_N, frozen):
        mixed = {**state, "B": 0.9 * state["B"] + 0.1 * state["B"].mean(0, keepdim=True)}
        return plain.apply(x_NSI, mixed, scaling_N, frozen)

    broken(monkeypatch, parametrisation=lambda: dataclasses.replace(plain, apply=apply))
    assert NAMES[1] in wrong(tiny.packed(tiny.llama(torch.float32)))


def test_a_tensor_that_never_moves_is_found(monkeypatch):
    init = plugins.load("methods", "lora").init
    broken(monkeypatch, init=lambda *given: {name: 0 * tensor for name, tensor in init(*given).items()})
    assert wrong(tiny.packed(tiny.llama(torch.float32))) == NAMES[3:4]


def test_a_merge_that_differs_and_a_base_that_is_written_are_found(monkeypatch):
    method: Method = plugins.load("methods", "lora")
    plain = method.parametrisation()

    def delta(state, scaling, weight_OI):
        return 2 * plain.delta(state, scaling, weight_OI)

    broken(monkeypatch, parametrisation=lambda: dataclasses.replace(plain, delta=delta))
    assert wrong(tiny.packed(tiny.llama(torch.float32))) == NAMES[4:5]

    def apply(x_NSI, state, scaling_N, frozen):
        frozen.weight_OI.data.add_(1e-7)
        return plain.apply(x_NSI, state, scaling_N, frozen)

    broken(monkeypatch, parametrisation=lambda: dataclasses.replace(plain, apply=apply))
    assert NAMES[5] in wrong(tiny.packed(tiny.llama(torch.float32)))
