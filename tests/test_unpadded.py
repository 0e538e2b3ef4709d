"""Rows one behind the other: read as padded rows are read, by models that can, and trained to the same losses."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import tiny
from welltuned.data import Rows
from welltuned.evaluate import conformance, doctor
from welltuned.models import unpadded
from welltuned.models.attention import best_attention
from welltuned.models.base import adapt
from welltuned.packing import lines
from welltuned.packing.batch import RowTable
from welltuned.packing.state import initial
from welltuned.records import Status
from welltuned.tasks._task import Example

SIZES = {"vocab_size": tiny.VOCAB, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = SIZES | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "initializer_range": 0.3}
MOE = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [2.0, 2.0], "short_factor": [1.0, 1.0]}
READ = {
    "llama": HEADS,
    "mistral": HEADS | {"sliding_window": 3},
    "qwen2": HEADS | {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    "qwen3": HEADS,
    "gemma3_text": HEADS | {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt2": {"vocab_size": tiny.VOCAB, "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3},
    "gpt_neox": SIZES | {"num_attention_heads": 2, "initializer_range": 0.3},
}
NOT_READ = {
    "gemma2": HEADS,  # caps its scores
    "gptj": {"vocab_size": tiny.VOCAB, "n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4},
    "bloom": {"vocab_size": tiny.VOCAB, "hidden_size": 16, "n_layer": 2, "n_head": 2},
    "gpt_oss": HEADS | {"num_local_experts": 2, "num_experts_per_tok": 1},  # an attention sink of each head
    "qwen3_next": HEADS | {"layer_types": ["linear_attention", "full_attention"], "num_experts": 2},
    # windows that stand in the mask only, of which attention is not told
    "qwen2_moe": HEADS | MOE | {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 2},
    # told of a window that is not in the mask
    "olmoe": HEADS | MOE | {"sliding_window": 4096},
    "phi3": HEADS | {"rope_parameters": LONGROPE, "original_max_position_embeddings": 8, "pad_token_id": 0},
}


def model(kind: str, settings: dict, dtype: torch.dtype = torch.float64):
    """A random model of a kind, with the attention that welltuned would give it."""
    torch.manual_seed(0)
    usual = "eager" if kind in ("gemma2", "gptj", "bloom", "gpt_oss") else best_attention(dtype, "cpu")
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings), attn_implementation=usual)
    return made.to(dtype).eval().requires_grad_(False)


def table(lengths=(9, 4, 12, 7, 5, 8)) -> RowTable:
    """Rows of random tokens, the first third of each its prompt."""
    numbers = np.random.default_rng(0)
    ids = tuple(numbers.integers(2, tiny.VOCAB, length).astype(np.int32) for length in lengths)
    prompts = np.array([length // 3 for length in lengths])
    return RowTable(Rows(ids, prompts, tuple(Example("", "") for _ in ids), 0, 0), 0, torch.device("cpu"))


ROWS = [np.array([2, 0, 1]), np.array([3]), np.array([], dtype=np.int64), np.array([4, 5])]


def read(rows=ROWS, joined=True, of=None) -> lines.Lines:
    """The lines of some trials' rows, at most three each."""
    held = of or table()
    return lines.gather(held, rows, 3, lines.needed(held, [own for own in rows if len(own)], joined), joined)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", READ)
def test_lines_are_read_as_padded_rows_are(kind, dtype):
    """Features where targets are predicted, with windows shorter than the rows; float64 to 1e-12, bfloat16 rounded."""
    network = model(kind, READ[kind], dtype)
    base = adapt(network, None, ("all-linear",))
    assert base.reads_lines
    joined, apart = read(), read(joined=False)
    with torch.no_grad():
        expected = base.features(apart.ids_LS).flatten(0, 1)[apart.positions_K]
        with unpadded.reading(network, joined.places):
            found = base.features(joined.ids_LS, joined.position_LS).flatten(0, 1)[joined.positions_K]
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) < (1e-12 if dtype == torch.float64 else 0.04) * scale
    assert network.config._attn_implementation == best_attention(dtype, "cpu")


@pytest.mark.parametrize("kind", NOT_READ)
def test_other_models_are_not_asked_to(kind):
    """Nothing is said of these, and their rows are padded."""
    network = model(kind, NOT_READ[kind], torch.float32)
    usual = network.config._attn_implementation
    assert not unpadded.reads_lines(network, network.get_decoder())
    assert network.config._attn_implementation == usual


def test_attention_refuses_what_it_does_not_know():
    query = torch.zeros(1, 2, 3, 4)
    with pytest.raises(NotImplementedError, match="got no lines, expected causal attention inside `reading`"):
        unpadded.attend(torch.nn.Identity(), query, query, query, None)
    for told in ({"softcap": 30.0}, {"dropout": 0.1}, {"is_causal": False}, {"attention_mask": query}):
        given = {"attention_mask": None} | told
        with (
            unpadded.reading(tiny.llama(), read().places),
            pytest.raises(NotImplementedError, match=f"got {next(iter(told))}, .* let this model read padded rows"),
        ):
            unpadded.attend(torch.nn.Identity(), query, query, query, **given)


def test_reading_goes_back_to_what_was_read_before():
    """A base that is loaded on the way, which tries its own lines, leaves those of another as they were."""
    network, inner = tiny.llama(), tiny.llama(seed=1)
    usual, places = network.config._attn_implementation, read().places
    with unpadded.reading(network, places):
        adapt(inner, None, ("all-linear",))
        with pytest.raises(ZeroDivisionError), unpadded.reading(network, read().places):
            raise ZeroDivisionError
        assert unpadded._bound.places is places and network.config._attn_implementation == unpadded.NAME
    assert unpadded._bound.places is None and network.config._attn_implementation == usual


def test_windows_are_as_they_were_after_lines_were_tried():
    network = model("mistral", HEADS | {"sliding_window": 4096}, torch.float32)
    assert unpadded.reads_lines(network, network.get_decoder())
    assert network.config.sliding_window == 4096
    held = {vars(module).get("sliding_window", 4096) for module in network.modules()}
    assert held == {4096}


def test_lines_hold_the_rows_and_their_targets():
    held = table()
    both = {name: read(joined=name == "joined") for name in ("joined", "apart")}
    for trial, rows in enumerate(ROWS):
        expected = [int(held.ids[row, t]) for row in rows for t in range(held.prompt_lengths[row], held.lengths[row])]
        for mine in both.values():
            assert sorted(mine.targets_K[mine.trial_K == trial].tolist()) == sorted(expected)
            before = mine.ids_LS.flatten()[mine.positions_K + 1]
            assert before.tolist() == mine.targets_K.tolist()
    line = both["joined"].ids_LS[0].tolist()
    assert line[:25] == [int(held.ids[row, t]) for row in (2, 0, 1) for t in range(held.lengths[row])]
    assert both["joined"].ids_LS.shape == (4, 32)  # 12 + 9 + 4 tokens, in sixteens
    assert both["joined"].position_LS[0, :25].tolist() == [*range(12), *range(9), *range(4)]
    assert both["apart"].ids_LS.shape == (12, 12)
    for mine in both.values():  # dropout is named by these
        per_trial = mine.row_LS.view(4, -1), mine.position_LS.view(4, -1)
        places = zip(*(of[0].tolist() for of in per_trial), strict=True)
        assert {(row, t) for row, length in enumerate((12, 9, 4)) for t in range(length)} <= set(places)


def test_no_place_leads_to_another_line():
    """So what is not finite in a trial stays with it."""
    places = read().places
    num_lines, num_slots = places.row_NS.shape
    num_rows, num_tokens = places.slot_RT.shape
    line_of_row = torch.arange(num_rows) // (num_rows // num_lines)
    assert (places.slot_RT // num_slots == line_of_row[:, None]).all()
    assert (line_of_row[places.row_NS // num_tokens] == torch.arange(num_lines)[:, None]).all()
    there_and_back = places.row_NS.flatten()[places.slot_RT[places.token_RT]]
    assert there_and_back.tolist() == places.token_RT.flatten().nonzero().flatten().tolist()


def test_gradients_in_bfloat16_are_those_of_padded_rows():
    """Of all adapters, through plain attention with grouped queries; as near to float64's as padded ones are."""
    found = {}
    for dtype, joined in ((torch.float64, False), (torch.bfloat16, False), (torch.bfloat16, True)):
        packed = tiny.packed(tiny.llama(dtype))
        order = [tiny.trial(init_seed=seed, dtype=str(dtype).removeprefix("torch.")) for seed in range(2)]
        state = initial(packed.base, order)
        for group in state.groups:
            group.flat_NP.copy_(torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, group.flat_NP.shape)))
        conformance._accumulate(packed, state, table(), joined)
        found[dtype, joined] = torch.cat([group.grad_NP.double().flatten() for group in state.groups])
    exact = found.pop((torch.float64, False))
    padded, joined = (float((one - exact).norm() / exact.norm()) for one in found.values())
    assert joined < 1.2 * padded < 0.1


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])
@pytest.mark.parametrize("recompute", [False, True])
def test_training_on_lines_equals_training_on_padded_rows(make, recompute, tmp_path):
    """Mixed batch sizes, ranks and orders, dropout, float64: losses to 1e-9, although rows are split another way."""
    settings = [{"batch_size": 4}, {"batch_size": 7, "rank": 3}, {"batch_size": 5, "order_seed": 3, "dropout": 0.3}]
    trials = [tiny.trial(max_steps=10, **changes) for changes in settings]
    found = []
    for joined in (True, False):
        packed = tiny.packed(copy.deepcopy(make()))
        assert packed.base.reads_lines
        packed.base.reads_lines = joined
        found.append(tiny.outcomes(tiny.run_pack(packed, trials, 3, tmp_path, recompute=recompute)))
    for one in trials:
        assert found[0][one.id].train_losses == pytest.approx(found[1][one.id].train_losses, rel=1e-9, abs=0)
        assert found[0][one.id].validation_nll == pytest.approx(found[1][one.id].validation_nll, rel=1e-9, abs=0)
        assert found[0][one.id].status is Status.FINISHED


def test_one_row_at_a_time_is_a_line_where_that_keeps_less(monkeypatch, tmp_path):
    """In bfloat16 on a CPU; with the losses of padded rows, as far as bfloat16 goes."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert unpadded.pays(torch.bfloat16, cpu, 1) and unpadded.pays(torch.float32, cpu, 2)
    assert not unpadded.pays(torch.float32, cpu, 1) and not unpadded.pays(torch.bfloat16, gpu, 1)
    trials = [tiny.trial(max_steps=6, init_seed=seed, dtype="bfloat16") for seed in range(2)]
    called, plain = [], unpadded._plain
    monkeypatch.setattr(unpadded, "_plain", lambda *given: called.append(given[0].shape[2]) or plain(*given))
    found = []
    for joined in (True, False):
        packed = tiny.packed(tiny.llama(torch.bfloat16))
        packed.base.reads_lines = joined
        called.clear()
        found.append(tiny.outcomes(tiny.run_pack(packed, trials, 1, tmp_path)))
        assert bool(called) is joined
    for one in trials:
        assert found[0][one.id].train_losses == pytest.approx(found[1][one.id].train_losses, rel=5e-3)


def test_doctor_compares_lines_and_padded_rows(monkeypatch):
    """So a gather that went to the wrong token is found: forwards on a user's model, backwards on the doctor's."""
    rows_padded = "rows one behind the other equal padded rows"

    def found(model):
        return {check.name: check.ok for check in conformance.check_method(model, tiny.config(dtype="float64"), "lora")}

    assert all(found(tiny.packed()).values()) and rows_padded in found(tiny.packed())
    all_equal = doctor.packed_equals_alone(tiny.config())
    assert all(check.ok for check in all_equal)
    model, gathered = tiny.packed(tiny.llama()), unpadded._gathered
    monkeypatch.setattr(unpadded, "_gathered", lambda *given: gathered(*given) * (1 + 1e-13))
    assert all(check.measured != "0.0e+00 relative" for check in doctor.packed_equals_alone(tiny.config()))
    monkeypatch.setattr(unpadded, "_gathered", lambda x, index, back, there: gathered(x, index, back.roll(1), there))
    assert not any(check.ok for check in doctor.packed_equals_alone(tiny.config()))
    monkeypatch.setattr(unpadded, "_gathered", lambda x, index, back, there: gathered(x, index.roll(1), back, there))
    assert not found(model)[rows_padded]
    assert rows_padded not in found(tiny.packed())  # loaded with it, the base is found not to read lines


def test_doctor_says_how_rows_are_read():
    told = {doctor.how_rows_are_read(model.base).measured for model in (tiny.packed(tiny.llama()), tiny.packed())}
    model = tiny.packed()
    model.base.reads_lines = False
    assert told == {"one behind the other"}
    assert doctor.how_rows_are_read(model.base).measured == "padded to the longest"


def test_lines_need_fewer_slots_than_padded_rows():
    """32 rows of 5 to 12 tokens, four of each of eight trials."""
    of = table(tuple(np.random.default_rng(0).integers(20, 90, 32)))
    rows = list(np.arange(32).reshape(8, 4))
    joined, apart = (lines.needed(of, rows, joined) for joined in (True, False))
    assert joined.num_slots < 0.85 * 4 * apart.num_slots
    assert joined.num_tokens == 96 > apart.num_tokens  # in sixteens, too
