"""A GGUF file is a base like any other: written here with random numbers, loaded, surveyed and adapted."""

import gguf
import numpy as np
import pytest
import torch

import tiny
from welltuned import worker
from welltuned.models import base as bases
from welltuned.packing.probe import check
from welltuned.records import Runtime, Survey, SurveyJob

WIDTH, MLP, LAYERS, HEADS = 32, 64, 2, 2
TOKENS = ["<unk>", "<s>", "</s>", *(chr(code) for code in range(33, 127)), "Ġ", "Ċ", "th", "the"]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A Llama of two blocks with a byte-level tokenizer."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, *([1] * (len(TOKENS) - 3))])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, shape in shapes().items():
        numbers = np.random.default_rng(len(name)).standard_normal(shape) * 0.2
        writer.add_tensor(name, (np.ones(shape) if "norm" in name else numbers).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def shapes():
    """The tensors of the file by llama.cpp's names."""
    found = {"token_embd.weight": (len(TOKENS), WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        found |= {
            f"blk.{layer}.{name}.weight": (WIDTH, WIDTH) for name in ("attn_q", "attn_k", "attn_v", "attn_output")
        }
        found |= {f"blk.{layer}.{name}.weight": (MLP, WIDTH) for name in ("ffn_gate", "ffn_up")}
        found |= {f"blk.{layer}.ffn_down.weight": (WIDTH, MLP)}
        found |= {f"blk.{layer}.{name}.weight": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
    return found


def test_a_gguf_file_is_a_base(model_file):
    """It loads in the dtype asked for, has its sites, and passes the probes."""
    base = bases.load(model_file, None, "float32", ("all-linear",))
    assert len(base.sites) == 7 * LAYERS
    assert base.dtype == torch.float32 and base.tokenizer.eos_token_id == 2
    check(tiny.PackedModel(base))


def test_a_gguf_file_is_surveyed_with_data(model_file, tmp_path):
    """The survey reads its tokenizer, too."""
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(f'{{"prompt": "say {number}", "completion": "{number}!"}}\n' for number in range(40)))
    config = tiny.config(
        base=model_file, task="completion", data_train=(str(data),), num_train=16, max_length=64, base_hash="x"
    )
    survey, _ = worker.run(SurveyJob("key", config), Runtime("cpu", 1, 1e9, str(tmp_path)))
    assert isinstance(survey, Survey)
    assert (survey.num_layers, survey.hidden_size, survey.num_train_available) == (LAYERS, WIDTH, 30)
    assert survey.stored_dtype is None
