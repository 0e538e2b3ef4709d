"""Packed greedy generation equals `generate` of transformers with each adapter merged."""

import copy

import numpy as np
import pytest
import torch

import tiny
from welltuned import plugins
from welltuned.evaluate import generate
from welltuned.evaluate.generate import greedy
from welltuned.packing.state import initial


@pytest.mark.parametrize("shrink_steps", [1, 1000])
def test_packed_generation_equals_generate(shrink_steps, monkeypatch):
    """Prompts of unequal length, mixed methods, ends at unequal places; answered prompts leave at once or never."""
    monkeypatch.setattr(generate, "SHRINK_STEPS", shrink_steps)
    monkeypatch.setattr(generate, "SHRINK_SHARE", 0.99)
    model = tiny.llama(torch.float64)
    packed = tiny.packed(copy.deepcopy(model))
    trials = [
        tiny.trial(method=method, rank=rank) for method, rank in (("lora", 2), ("lora", 4), ("pissa", 2), ("full", 0))
    ]
    state = initial(packed.base, trials)
    generator = torch.Generator().manual_seed(0)
    for group in state.groups:
        group.flat_NP += 0.3 * torch.randn(group.flat_NP.shape, generator=generator, dtype=torch.float64)
    numbers = np.random.default_rng(0)
    prompts = [numbers.integers(2, tiny.VOCAB, length) for length in (3, 9, 5, 4, 7, 6)]
    ours = greedy(packed, state, prompts, 12, end_id=1, pad_id=0)
    ends = set()
    for place, trial in enumerate(trials):
        merged = _merged(model, trial, state.trial_state(place))
        for prompt, mine in zip(prompts, ours[place], strict=True):
            whole = merged.generate(
                torch.tensor(prompt)[None], max_new_tokens=12, do_sample=False, eos_token_id=1, pad_token_id=0
            )[0, len(prompt) :].tolist()
            expected = whole[: whole.index(1)] if 1 in whole else whole
            assert mine == expected
            ends.add(len(mine))
    assert len(ends) > 1


def _merged(model, trial, states):
    merged = copy.deepcopy(model)
    parametrisation = plugins.load("methods", trial.config.method).parametrisation()
    for site, state in states.items():
        weight = merged.get_submodule(site).weight.data
        weight += parametrisation.delta(state, trial.config.scaling, weight)
    return merged


def test_learned_positions_end_the_generation():
    """A model with 64 learned positions stops there instead of failing, and a finished row never runs past them."""
    packed = tiny.packed(tiny.gpt2(torch.float64))
    state = initial(packed.base, [tiny.trial()])
    prompts = [np.arange(2, 32).repeat(2), np.arange(2, 6)]
    (answers,) = greedy(packed, state, prompts, 50, end_id=1, pad_id=0)
    assert len(answers[0]) <= 5
    alone = packed.base.model.generate(
        torch.tensor(prompts[0])[None], max_new_tokens=4, do_sample=False, eos_token_id=1, pad_token_id=0
    )
    expected = alone[0, 60:].tolist()
    assert answers[0][:4] == (expected[: expected.index(1)] if 1 in expected else expected)
