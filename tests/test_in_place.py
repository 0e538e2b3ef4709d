"""What the delta form changes: the published in-place form rounds W - s B0 A0 to the base's dtype, ours rounds nothing.

The reference is the in-place form as published, one trial at a time; it is checked against PEFT's own PiSSA.
"""

import copy

import peft
import pytest
import torch

import tiny
from reference.methods import adapted
from welltuned.packing.state import initial

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
IDS = torch.arange(2, 26).view(2, 12)
RANK = 6


def in_place(model, method, dtype):
    """The published numerics: factors from a float32 SVD, the residual rounded to the base's dtype."""
    model = copy.deepcopy(model)
    for name in tiny.base(copy.deepcopy(model)).sites:
        parent, _, last = name.rpartition(".")
        old = model.get_submodule(name)
        module = adapted(method, old.weight.data.float(), None, RANK, 1.0)
        module.weight = module.weight.to(dtype)  # what is stored of W - s B0 A0
        setattr(model.get_submodule(parent), last, module.to(dtype))
    return logits(model)


def logits(model):
    """Logits in float32."""
    with torch.no_grad():
        return model(input_ids=IDS).logits.float()


@pytest.mark.parametrize("method", ["pissa", "milora"])
def test_in_bfloat16_the_in_place_form_is_off_and_ours_is_not(method):
    """At step 0 the delta form is the base to the bit; the in-place form misses it by bfloat16's rounding of W."""
    model = tiny.llama(torch.bfloat16)
    base = logits(model)
    packed = tiny.packed(copy.deepcopy(model))
    with packed.bound(initial(packed.base, [tiny.trial(method=method, rank=RANK)])):
        assert torch.equal(logits(packed.base.model), base)
    error = (in_place(model, method, torch.bfloat16) - base).abs().max() / base.abs().max()
    assert 1e-4 < error < 0.2


@pytest.mark.parametrize("method", ["pissa", "milora"])
def test_in_float32_the_two_forms_agree(method):
    """Rounding is the whole difference."""
    model = tiny.llama(torch.float32)
    error = (in_place(model, method, torch.float32) - logits(model)).abs().max() / logits(model).abs().max()
    assert error < 1e-5


def test_the_reference_is_what_peft_does():
    """PEFT's PiSSA in bfloat16 has the same size of error at step 0 as the reference."""
    model = tiny.llama(torch.bfloat16)
    base = logits(model)
    settings = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", init_lora_weights="pissa")
    theirs = peft.get_peft_model(copy.deepcopy(model), settings, autocast_adapter_dtype=False)
    peft_error = (logits(theirs) - base).abs().max()
    our_error = (in_place(model, "pissa", torch.bfloat16) - base).abs().max()
    assert 0.2 < our_error / peft_error < 5
