"""Packed greedy generation equals `generate` of transformers with each adapter merged."""

import contextlib
import copy

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers.pytorch_utils import Conv1D

import tiny
from welltuned import plugins
from welltuned.errors import InputError
from welltuned.evaluate import attention, cache, generate
from welltuned.evaluate.frozen import frozen
from welltuned.evaluate.generate import greedy
from welltuned.packing.state import initial

END, NEW = 1, 12
METHODS = (("lora", 2), ("lora", 4), ("pissa", 2), ("full", 0))
LENGTHS = (3, 9, 5, 4, 7, 6, 9, 2, 8, 5)


def trained_pack(model, methods=METHODS, noise=0.3):
    """A pack whose adapters are far from the base and from each other."""
    packed = tiny.packed(copy.deepcopy(model))
    trials = [tiny.trial(method=method, rank=rank, scaling=0.5) for method, rank in methods]
    state = initial(packed.base, trials)
    generator = torch.Generator().manual_seed(0)
    for group in state.groups:
        group.flat_NP += noise * torch.randn(group.flat_NP.shape, generator=generator, dtype=torch.float64)
    return packed, trials, state


def random_prompts(lengths=LENGTHS):
    numbers = np.random.default_rng(0)
    return [numbers.integers(2, tiny.VOCAB, length) for length in lengths]


def alone(model, prompts, max_new_tokens=NEW):
    """What transformers' own `generate` writes, one prompt after another, without the end token."""
    answers = []
    for prompt in prompts:
        whole = model.generate(
            torch.tensor(prompt)[None],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=END,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        answers.append(whole[: whole.index(END)] if END in whole else whole)
    return answers


def merged(model, trial, states):
    whole = copy.deepcopy(model)
    parametrisation = plugins.load("methods", trial.config.method).parametrisation()
    for site, state in states.items():
        module = whole.get_submodule(site)
        weight_OI = module.weight.data.T if isinstance(module, Conv1D) else module.weight.data
        weight_OI += parametrisation.delta(state, trial.config.scaling, weight_OI)
    return whole


def assert_equals_alone(model, methods=METHODS, lengths=LENGTHS, noise=0.3):
    packed, trials, state = trained_pack(model, methods, noise)
    prompts = random_prompts(lengths)
    ours = greedy(packed, state, prompts, NEW, END, 0)
    for place, trial in enumerate(trials):
        assert ours[place] == alone(merged(model, trial, state.trial_state(place)), prompts)
    return {len(answer) for answers in ours for answer in answers}


@pytest.mark.parametrize("steps", [1, 3, 1000])
@pytest.mark.parametrize("rows", [1, 4, 9, 14, 1024])
def test_packed_generation_equals_generate(rows, steps, monkeypatch):
    """Unequal prompts, mixed methods, unequal ends; blocks from one row of a trial, refilled at once, to all rows."""
    monkeypatch.setattr(generate, "STEPS", steps)
    monkeypatch.setattr(generate, "ROWS_PER_BLOCK", rows)
    monkeypatch.setattr(generate, "READ_TOKENS", 40)
    monkeypatch.setattr(generate, "REFILL_SHARE", 0.25 if steps == 3 else 0.0)
    monkeypatch.setattr(generate, "ROOM", max(steps, 2))
    lengths = assert_equals_alone(tiny.llama(torch.float64))
    assert len(lengths) > 3


def test_a_model_with_learned_positions_equals_generate():
    assert len(assert_equals_alone(tiny.gpt2(torch.float64), (("lora", 2), ("milora", 4)), noise=0.5)) > 1


def test_a_sliding_window_is_kept(monkeypatch):
    """The cache holds every position and the model's mask hides the old ones, also after rows were moved."""
    monkeypatch.setattr(generate, "ROWS_PER_BLOCK", 6)
    monkeypatch.setattr(generate, "STEPS", 2)
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=tiny.VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=4,
        initializer_range=0.3,
    )
    model = MistralForCausalLM(config).to(dtype=torch.float64)  # pyright: ignore[reportCallIssue]
    assert_equals_alone(model, (("lora", 2), ("pissa", 2)))


def test_learned_positions_end_the_generation():
    """A model with 64 learned positions stops there instead of failing, and does not shorten its neighbours."""
    packed = tiny.packed(tiny.gpt2(torch.float64))
    state = initial(packed.base, [tiny.trial()])
    prompts = [np.arange(2, 32).repeat(2), np.arange(2, 6)]
    (answers,) = greedy(packed, state, prompts, 50, end_id=-7, pad_id=0)
    assert [len(answer) for answer in answers] == [5, 50]
    inside = packed.base.model.generate(
        torch.tensor(prompts[0])[None], max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert answers[0][:4] == inside[0, 60:].tolist()


def test_a_trial_that_never_ends_does_not_hold_up_the_others(monkeypatch):
    """Trials that are through leave, so the model computes little more rows than it must."""
    monkeypatch.setattr(generate, "ROWS_PER_BLOCK", 8)
    monkeypatch.setattr(generate, "STEPS", 1)
    model = tiny.llama(torch.float64)
    packed, _, state = trained_pack(model, (("lora", 2),) * 4)
    with torch.no_grad():
        for leaves in state.groups[0].leaves.values():
            leaves["B"][1:] = 0.0
    rows = []
    packed.base.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    answers = greedy(packed, state, random_prompts(), NEW, END, 0)
    assert max(rows) <= 8 and answers[1] == answers[2] == answers[3]
    assert rows[-1] < 8


def test_progress_grows_to_the_end(monkeypatch):
    monkeypatch.setattr(generate, "ROWS_PER_BLOCK", 8)
    packed, _, state = trained_pack(tiny.llama(torch.float64))
    generation = generate.Generation(packed, state, random_prompts(), NEW, END, 0)
    seen = [(generation.share, generation.num_tokens) for _ in generation.run()]
    assert len(seen) > 4 and seen == sorted(seen) and generation.share == 1.0
    ended = sum(len(answer) < NEW for answers in generation.answers() for answer in answers)
    assert generation.num_tokens == ended + sum(len(answer) for answers in generation.answers() for answer in answers)


def test_the_cache_stays_within_its_bytes(monkeypatch):
    """The formula of `token_bytes` is the size of the buffers, and a block never holds more than it may."""
    packed, _, state = trained_pack(tiny.llama(torch.float64))
    prompts = random_prompts()
    room = max(LENGTHS) + NEW + generate.ROOM
    position = 2 * 2 * 2 * 4 * 8  # keys and values, layers, heads, numbers of a head, bytes of float64
    assert cache.token_bytes(packed.base.model, 8) == position
    monkeypatch.setattr(generate, "CACHE_BYTES", 8 * room * position)
    generation = generate.Generation(packed, state, prompts, NEW, END, 0)
    held = []
    for _ in generation.run():
        layers = cache.layers(generation._cache) if generation._cache else []
        held.append(sum(buffer.nbytes for layer in layers for buffer in layer.buffers_RHLD or ()))
    assert 0 < max(held) <= 8 * room * position


def test_frozen_adapters_are_what_a_site_would_round_to():
    """In float64 the factors give the same output; other parametrisations and the order of the trials are kept."""
    packed, trials, state = trained_pack(tiny.llama(torch.float64))
    ids = torch.arange(2 * len(trials) * 5).view(-1, 5) % tiny.VOCAB
    with torch.no_grad(), packed.bound(state):
        whole = packed.base.features(ids)
    for positions in ([0, 1, 2, 3], [1, 3], [2]):
        fixed = frozen(state, positions, torch.float64)
        rows = torch.tensor([[2 * position, 2 * position + 1] for position in positions]).flatten()
        with torch.no_grad(), packed.bound(fixed):
            some = packed.base.features(ids[rows])
        assert fixed.num_trials == len(positions)
        assert torch.allclose(some, whole[rows], rtol=1e-12, atol=1e-12)


def test_plain_attention_gives_way_to_a_fast_one_and_comes_back():
    """A base in bfloat16 trains with the plain attention; more queries than one are left to the fused one."""
    model = tiny.llama(torch.float32)
    model.set_attn_implementation("eager")
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        usual = model(ids).logits
        with attention.fast(model):
            assert model.config._attn_implementation == attention.NAME
            fast = model(ids).logits
    assert model.config._attn_implementation == "eager"
    assert torch.allclose(usual, fast, atol=1e-5)


@pytest.mark.parametrize("masked", [0, 3])
def test_attention_of_one_query_is_attention(masked):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, length, 4).double() for heads, length in ((6, 1), (2, 7), (2, 7)))
    mask = (torch.arange(7) >= masked).expand(2, 1, 1, 7) if masked else None
    ours = attention.one_query(query, key, value, mask, 0.3)
    repeated = [tensor.repeat_interleave(3, dim=1) for tensor in (key, value)]
    theirs = torch.nn.functional.scaled_dot_product_attention(query, *repeated, attn_mask=mask, scale=0.3)
    assert torch.allclose(ours, theirs.transpose(1, 2), rtol=1e-12)


def test_bfloat16_generates_with_attention_of_one_query(monkeypatch):
    """The logits of a token behind a cache, one row padded, are the plain attention's up to rounding."""
    model = tiny.llama(torch.bfloat16)
    model.set_attn_implementation("eager")
    calls = []
    one_query = attention.one_query
    monkeypatch.setattr(attention, "one_query", lambda *args: calls.append(args) or one_query(*args))
    ids = (torch.arange(14).view(2, 7) * 5 + 2) % tiny.VOCAB
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, :3] = 0
    logits = []
    for context in (contextlib.nullcontext, attention.fast):
        with torch.no_grad(), context(model):
            held = cache.empty_cache()
            model(input_ids=ids[:, :-1], attention_mask=mask[:, :-1], past_key_values=held)
            # A block keeps its own buffers with room; the prompt's are only as long as the prompt.
            held = block_of(held, 6)
            logits.append(model(input_ids=ids[:, -1:], attention_mask=mask, past_key_values=held).logits.float())
    assert len(calls) == 2  # layers
    assert torch.allclose(*logits, atol=0.05 * logits[0].abs().max().item())


def block_of(part, length):
    rows = torch.arange(2)
    block = cache.like(part, 2, length, length + 4)
    cache.insert(block, part, rows, rows)
    return block


def test_a_model_with_other_memory_than_keys_and_values_is_refused():
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2)
    config.layer_types = ["full_attention", "linear_attention"]
    with torch.device("meta"):
        network = LlamaForCausalLM(config)
    with pytest.raises(InputError, match="got LlamaForCausalLM, which remembers earlier tokens in other ways"):
        cache.check(network)
