"""Sites, refusals and the cross-talk probe: which models are trained, and what is said of the others."""

import dataclasses
import gc
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

import tiny
from small_study import survey_of
from welltuned import fingerprint
from welltuned.costs import memory
from welltuned.errors import InputError
from welltuned.models import base as bases
from welltuned.models.base import adapt
from welltuned.packing.linear import PackedModel
from welltuned.packing.probe import check_causal, check_cross_talk

SIZES = {"vocab_size": tiny.VOCAB, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}


def test_all_linear_finds_every_projection():
    """Llama: seven sites a block, the tied head left out."""
    sites = list(tiny.base().sites)
    assert len(sites) == 14
    assert sites[0] == "model.layers.0.self_attn.q_proj"
    assert not any("lm_head" in site for site in sites)


def test_gpt2_sites_are_fused_and_oriented():
    """GPT-2: Conv1D and the fused query-key-value are sites, W is [O, I]."""
    base = tiny.base(tiny.gpt2())
    assert tuple(base.weight("transformer.h.0.attn.c_attn").shape) == (48, 16)
    assert len(base.sites) == 8


def test_target_modules_choose_by_name():
    """A last part, a dotted part, or a whole name."""
    assert len(tiny.base(target_modules=("q_proj", "mlp.up_proj")).sites) == 4
    assert list(tiny.base(target_modules=("model.layers.1.mlp.up_proj",)).sites) == ["model.layers.1.mlp.up_proj"]


def test_unmatched_names_list_what_exists():
    """Every wrong name is reported, with a suggestion and all names."""
    with pytest.raises(InputError) as caught:
        tiny.base(target_modules=("q_prj", "nothing", "v_proj"))
    first, second = caught.value.problems
    assert "got 'q_prj', which matches no linear module; did you mean 'q_proj'?" in first
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in second


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_head_and_embeddings_are_refused(name):
    """A tied head would change the embedding too."""
    with pytest.raises(InputError, match=f"got '{name}', which is an embedding or output head tied"):
        tiny.base(target_modules=(name,))


def test_mixture_of_experts_is_refused():
    """It reorders tokens; all reasons are given."""
    config = MixtralConfig(
        num_attention_heads=2, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1, **SIZES
    )
    with pytest.raises(InputError) as caught:
        adapt(MixtralForCausalLM(config).eval(), None, ("all-linear",))
    assert "routes tokens between experts" in str(caught.value)
    assert "choose a dense causal model" in str(caught.value)


def test_scaled_logits_are_kept():
    """A model that caps its logits (Gemma 2) is trained on the capped ones."""
    torch.manual_seed(0)
    sizes = SIZES | {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    model = Gemma2ForCausalLM(Gemma2Config(final_logit_softcapping=0.5, **sizes)).double().eval()
    base = adapt(model.requires_grad_(False), tiny.FakeTokenizer(), ("all-linear",))
    assert not base.head_is_split
    ids = torch.arange(6).view(1, 6)
    assert torch.equal(base.head(base.features(ids)), model(input_ids=ids).logits)
    assert float(base.features(ids).abs().max()) <= 0.5


class Mixing(torch.nn.Module):
    """An activation that looks at other rows."""

    def forward(self, x):
        return torch.relu(x - x.mean(dim=0, keepdim=True))


def test_cross_talk_is_found():
    """A module that mixes rows is refused; an honest model passes."""
    check_cross_talk(tiny.packed())
    check_cross_talk(tiny.packed(tiny.gpt2(torch.float32)))
    model = tiny.llama()
    model.model.layers[0].mlp.act_fn = Mixing()
    with pytest.raises(InputError, match="changing one trial's adapter changed another's output"):
        check_cross_talk(tiny.packed(model))


def test_a_bidirectional_model_is_refused():
    """An encoder sees to the right, where the padding is."""
    config = BertConfig(num_attention_heads=2, is_decoder=False, **SIZES)
    with pytest.raises(InputError, match="sees later tokens"):
        check_causal(PackedModel(adapt(BertLMHeadModel(config).eval().requires_grad_(False), None, ("all-linear",))))


def test_a_broken_folder_is_one_line(tmp_path):
    """A folder that transformers cannot load names the folder and what to look at."""
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        bases.load(str(tmp_path), None, "float32", ("all-linear",))
    assert len(caught.value.problems) == 1
    assert str(tmp_path) in str(caught.value)


TOKENIZER = json.loads((fingerprint.resolve_base("abacus-small", None).folder / "tokenizer.json").read_text())
BPE = {"type": "BPE", "vocab": {"a": 0}, "merges": ["q z"]}


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "newkind"},
        {"model_type": "llama", "hidden_size": "x"},
        {"model_type": "llama", "num_attention_heads": 0},
    ],
)
def test_a_config_that_transformers_cannot_read_is_one_line(config, tmp_path):
    folder = copy_of_small(tmp_path)
    (folder / "config.json").write_text(json.dumps(config))
    says = (
        rf"model.base: got '{folder}', expected a causal language model .* it says: .+; check the folder's config.json"
    )
    with pytest.raises(InputError, match=says) as caught:
        bases.skeleton(str(folder), None, ("all-linear",))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["{}", "{", json.dumps(TOKENIZER | {"model": BPE})])
def test_a_tokenizer_that_transformers_cannot_read_is_one_line(text, tmp_path):
    folder = copy_of_small(tmp_path)
    (folder / "tokenizer.json").write_text(text)
    says = rf"model.base: got '{folder}', expected a tokenizer .* it says: .+; check the folder's tokenizer.json"
    with pytest.raises(InputError, match=says):
        bases.load_tokenizer(str(folder), None)


def test_the_dtype_of_a_base_is_that_of_most_of_its_numbers(tmp_path):
    """However many tensors and files they are in, and whatever else lies beside them."""
    few, many = torch.zeros(2), torch.zeros(100)
    folder = copy_of_small(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "._model.safetensors").write_bytes(b"of another program")
    save_file({"x": few.half(), "y": few.half()}, folder / "a.safetensors")
    save_file({"z": many}, folder / "b.safetensors")
    save_file({"w": torch.zeros(1000).bfloat16()}, folder / "other.safetensors")
    names = {"x": "a.safetensors", "y": "a.safetensors", "z": "b.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert bases.stored_dtype(str(folder), None) == "float32"
    whole = folder / "model.safetensors"  # which transformers prefers
    for tensors, expected in (
        ({"x": many.bfloat16(), "y": few, "z": few.clone()}, "bfloat16"),
        ({"x": many.to(torch.float8_e4m3fn)}, None),
        ({}, None),
    ):
        save_file(tensors, whole)
        assert bases.stored_dtype(str(folder), None) == expected
    whole.write_bytes(b"cut")
    says = rf"model.base: got '{folder}', .* it says: .+; check the folder's safetensors files"
    with pytest.raises(InputError, match=says):
        bases.stored_dtype(str(folder), None)
    whole.unlink()
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="check the folder's safetensors files"):
        bases.stored_dtype(str(folder), None)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize(
    ("dtype", "quantization", "is_mapped"),
    [("bfloat16", "none", True), ("bfloat16", "int8", True), ("float32", "none", False), ("float32", "int8", False)],
)
def test_a_base_of_its_files_dtype_is_the_file(dtype, quantization, is_mapped, tmp_path):
    """What `costs.memory` counts on: transformers maps weights that need no conversion, and drops files of others."""
    folder = copy_of_small(tmp_path)
    assert bases.stored_dtype(str(folder), None) == "bfloat16"
    base = bases.load(str(folder), None, dtype, ("all-linear",), "cpu", quantization)
    gc.collect()
    assert (f"{folder}/model.safetensors" in Path("/proc/self/maps").read_text()) == is_mapped
    assert base.sites


def test_an_interruption_of_loading_passes():
    with pytest.raises(KeyboardInterrupt), bases._Loading("a", "b", "c"):
        raise KeyboardInterrupt


def copy_of_small(tmp_path):
    return shutil.copytree(fingerprint.resolve_base("abacus-small", None).folder, tmp_path / "base")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_loaded_base_is_the_model_to_the_bit(dtype):
    """What transformers loads in that dtype: no buffer (rotary frequencies) is rounded on the way."""
    base = bases.load("abacus-small", None, dtype, ("all-linear",))
    folder = fingerprint.resolve_base("abacus-small", None).folder
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=bases.DTYPES[dtype], attn_implementation="eager")
    ids = torch.arange(90).view(1, 90)
    with torch.no_grad():
        ours, theirs = base.model(input_ids=ids).logits, plain(input_ids=ids).logits
    assert torch.equal(ours, theirs) if dtype == "bfloat16" else torch.allclose(ours, theirs, atol=1e-4)
    frequencies = dict(base.model.named_buffers())["model.rotary_emb.inv_freq"]
    assert frequencies.dtype == torch.float32


@pytest.mark.parametrize("kind", ["gemma2", "gptj"])
def test_a_model_without_fused_attention_runs_with_its_own(kind, tmp_path):
    """Asked for the fused one, transformers raises; the survey, which plans the memory, knows which it will be."""
    settings = {"gemma2": SIZES | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}}
    settings["gptj"] = {"vocab_size": tiny.VOCAB, "n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings[kind]), attn_implementation="eager")
    model.save_pretrained(tmp_path)
    bundled = fingerprint.resolve_base("abacus-small", None).folder
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled / name, tmp_path / name)
    for dtype in ("float32", "bfloat16"):
        base = bases.load(str(tmp_path), None, dtype, ("all-linear",))
        assert base.model.config._attn_implementation == "eager"
    assert bases.skeleton(str(tmp_path), None, ("all-linear",)).model.config._attn_implementation == "eager"
    with pytest.raises(InputError, match=r"attention does not compute in float64; set dtype to float32 or"):
        bases.load(str(tmp_path), None, "float64", ("all-linear",))


def test_scores_that_are_kept_are_planned():
    config, survey = tiny.config(dtype="float32"), survey_of(tiny.config(dtype="float32"))
    plain = dataclasses.replace(survey, has_fused_attention=False)
    for device in ("cpu", "cuda"):
        assert memory.estimate([config], survey, 1, device).attention_bytes == 0
        assert memory.estimate([config], plain, 1, device).attention_bytes > 0
