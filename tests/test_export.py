"""Adapters leave as PEFT folders that the real PEFT loads with the same logits, or merged."""

import copy

import pytest
import torch
from peft import PeftModel

import tiny
from welltuned import export
from welltuned.packing.state import initial

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
IDS = torch.arange(2, 14).view(2, 6)


def trained(model, trial):
    """A packed model with one trial whose tensors are far from their start; its logits."""
    packed = tiny.packed(copy.deepcopy(model))
    state = initial(packed.base, [trial])
    (group,) = state.groups
    noise = torch.randn(group.flat_NP.shape, generator=torch.Generator().manual_seed(0), dtype=group.flat_NP.dtype)
    group.flat_NP += 0.1 * noise
    with torch.no_grad(), packed.bound(state):
        logits = packed.base.model(input_ids=IDS).logits
    packed.close()
    return logits, state.trial_state(0)


@pytest.fixture
def no_files(monkeypatch):
    """The tiny base has no files to name."""
    monkeypatch.setattr(export, "_base_name", lambda config: "tiny")


@pytest.mark.usefixtures("no_files")
@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])
@pytest.mark.parametrize("method", ["lora", "pissa", "milora"])
def test_peft_gives_the_same_logits(method, make, tmp_path):
    """The folder, loaded by PEFT on the bare base; a scaling other than 1."""
    model = make(torch.float32)
    trial = tiny.trial(method=method, rank=3, scaling=1.5)
    logits, states = trained(model, trial)
    export._write_peft(tiny.base(model), trial.config, states, tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path)
    assert set(loaded.peft_config["default"].target_modules) == set(states)
    with torch.no_grad():
        assert (loaded(input_ids=IDS).logits - logits).abs().max() < 1e-5
        assert (model(input_ids=IDS).logits - logits).abs().max() > 1e-2


@pytest.mark.usefixtures("no_files")
def test_clamped_ranks_reach_peft(tmp_path):
    """Where a site's full rank is below the trial's, the folder says so for that site."""
    model = tiny.llama(torch.float32)
    trial = tiny.trial(method="pissa", rank=12, clamp_rank=True)
    logits, states = trained(model, trial)
    export._write_peft(tiny.base(model), trial.config, states, tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path)
    assert loaded.peft_config["default"].rank_pattern
    with torch.no_grad():
        assert (loaded(input_ids=IDS).logits - logits).abs().max() < 1e-5


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])
@pytest.mark.parametrize("method", ["lora", "pissa", "milora", "full"])
def test_merge_equals_apply(method, make):
    """Base weight plus delta is the same function."""
    model = make(torch.float64)
    trial = tiny.trial(method=method, rank=3, scaling=1.5)
    logits, states = trained(model, trial)
    merged = export.merge(tiny.base(model), trial.config, states)
    with torch.no_grad():
        assert torch.allclose(merged(input_ids=IDS).logits, logits, rtol=1e-9, atol=1e-12)
