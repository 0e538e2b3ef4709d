"""W x + bias + change, rounded once: nothing is lost of a change that is small beside the output."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import tiny
from test_conformance import PACKED, initial, trial
from welltuned.models.quantised import QuantisedLinear, product
from welltuned.models.summed import bare, summed

NUM_SLOTS, NUM_OUT, NUM_IN = 4096, 48, 64
SMALL = 2e-3  # of an output: a change
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
KINDS = ["linear", "with a bias", "turned", "in 8 bits", "in 8 bits, with a bias"]

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_kind = pytest.mark.parametrize("kind", KINDS)


def numbers(*shape, size=1.0):
    return size * torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape) + shape[-1])
    )


def layer(kind, dtype):
    module = Conv1D(NUM_OUT, NUM_IN) if kind == "turned" else nn.Linear(NUM_IN, NUM_OUT, bias="bias" in kind)
    with torch.no_grad():
        module.weight.copy_(numbers(*module.weight.shape, size=NUM_IN**-0.5))
        if module.bias is not None:
            module.bias.copy_(numbers(1, NUM_OUT, size=2.0)[0])
    module = module.to(dtype).requires_grad_(False)
    return QuantisedLinear(module) if "8 bits" in kind else module


def exact(module, x):
    """In float64, of the numbers that the layer holds."""
    weight = module.weight.double()
    y = x.double() @ (weight if isinstance(module, Conv1D) else weight.T)
    return y if module.bias is None else y + module.bias.double()


def share_kept(y, without, change):
    """How much of a change an output has, 1 where all of it, by least squares over all numbers."""
    return float(((y.double() - without) * change).sum() / change.square().sum())


@every_dtype
@every_kind
def test_a_change_of_zeros_leaves_the_bare_layer_to_the_bit(kind, dtype):
    module, x = layer(kind, dtype), numbers(NUM_SLOTS, NUM_IN).to(dtype)
    change = torch.zeros(NUM_SLOTS, NUM_OUT, dtype=dtype)
    assert torch.equal(summed(module, x, change.clone()), bare(module, x))
    assert torch.equal(summed(module, x, change.clone(), product(module, x)), bare(module, x))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.15}[dtype]
    assert (bare(module, x).double() - exact(module, x)).abs().max() < tolerance


@every_kind
def test_small_changes_are_kept_in_bfloat16(kind):
    """Half of them is lost where they are added to what is rounded already, more beside a large bias."""
    module, x = layer(kind, torch.bfloat16), numbers(NUM_SLOTS, NUM_IN).bfloat16()
    change = numbers(1, NUM_SLOTS, NUM_OUT, size=1e-3)[0].bfloat16()
    without = exact(module, x)
    assert share_kept(summed(module, x, change.clone()), without, change.double()) == pytest.approx(1, abs=0.05)
    assert share_kept(bare(module, x) + change, without, change.double()) < 0.6


@every_dtype
@every_kind
def test_gradients_are_those_of_the_plain_sum(kind, dtype):
    module = layer(kind, dtype)
    x, change = (numbers(NUM_SLOTS, size).to(dtype).requires_grad_() for size in (NUM_IN, NUM_OUT))
    dy = numbers(1, NUM_SLOTS, NUM_OUT)[0].to(dtype)
    found = torch.autograd.grad(summed(module, x, change * 1), [x, change], dy)
    expected = torch.autograd.grad(module(x) + change, [x, change], dy)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("method", PACKED)
def test_small_changes_of_every_method_are_kept_in_bfloat16(method):
    """At a site of a model, after a small step from the method's start in a random direction."""
    model = tiny.packed(tiny.llama(torch.bfloat16))
    pack = initial(model, [trial(method)])
    site, linear = next(iter(model.linears.items()))
    x = numbers(1, 4 * NUM_SLOTS, linear.base.weight.shape[1]).bfloat16()
    without = exact(linear.base, x)
    form, start = pack.groups[0].parametrisation, pack.trial_state(0)[site]
    scaling = float(pack.groups[0].scalings[site])

    def moved(size):
        steps = {name: numbers(*start[name].shape, size=size) for name in form.trained}
        state = {name: (tensor + steps.get(name, 0)).float() for name, tensor in start.items()}
        wide = {name: tensor.double() for name, tensor in state.items()}
        return state, x.double() @ form.delta(wide, scaling, linear.base.weight.double()).T

    _, probe = moved(1e-3)
    state, change = moved(1e-3 * SMALL * float(without.std() / probe.std()))
    assert change.std() / without.std() == pytest.approx(SMALL, rel=0.1)
    with torch.no_grad():
        for name in form.trained:
            pack.groups[0].leaves[site][name].copy_(state[name][None])
        with model.bound(pack):
            y = linear(x)
    assert share_kept(y, without, change) == pytest.approx(1, abs=0.03)
