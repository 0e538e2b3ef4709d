"""Adapters leave as PEFT folders that the real PEFT loads with the same logits, or merged, with a card."""

import copy
import dataclasses
import json
import os
import re

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

import tiny
import welltuned
from welltuned import data, export, plugins
from welltuned.errors import InputError
from welltuned.evaluate.generate import greedy
from welltuned.export import _agreement, _peft, _place
from welltuned.fingerprint import resolve_base
from welltuned.models import base as bases
from welltuned.packing import adapter_file
from welltuned.packing.batch import RowTable
from welltuned.packing.linear import PackedModel
from welltuned.packing.state import assemble, initial
from welltuned.records import Result

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings(r"ignore:Found missing adapter keys .*\.randlora_A:UserWarning"),  # each site's own copy
]
IDS = torch.arange(2, 14).view(2, 6)
METHODS = (*plugins.names("methods"), "dora+pissa")
PARAMETRISATION = {name: plugins.load("methods", name).parametrisation().name for name in METHODS}
WITH_CLASS = sorted(name for name, kind in PARAMETRISATION.items() if kind in _peft.WRITERS)


def trained(model, trial):
    """A packed model with one trial whose tensors are far from their start; its logits."""
    packed = tiny.packed(copy.deepcopy(model))
    state = initial(packed.base, [trial], RowTable(tiny.rows(), 0, packed.base.device))
    (group,) = state.groups
    noise = torch.randn(group.flat_NP.shape, generator=torch.Generator().manual_seed(0), dtype=group.flat_NP.dtype)
    group.flat_NP += 0.1 * noise
    with torch.no_grad(), packed.bound(state):
        logits = packed.base.model(input_ids=IDS).logits
    packed.close()
    return logits, state.trial_state(0)


def tiny_trial(method, **changes):
    plugin = plugins.load("methods", method)
    settings = {"rank": 4 if plugin.uses_rank else 0, "scaling": 1.5 if plugin.uses_alpha else 1.0}
    return tiny.trial(method=method, **(settings | changes))


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch):
    """PEFT looks for a CUDA compiler, warns that there is none, and goes on."""
    monkeypatch.setattr("peft.tuners.boft.layer.get_fbd_cuda", lambda: None)


@pytest.fixture
def no_files(monkeypatch):
    """The tiny base has no files to name."""
    monkeypatch.setattr(export, "_base_name", lambda config: "tiny")


# The function ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_files")
@pytest.mark.parametrize(
    ("method", "make"),
    [(name, make) for name in WITH_CLASS for make in (tiny.llama, tiny.gpt2) if (name, make) != ("boft", tiny.gpt2)],
)
def test_peft_gives_the_same_logits(method, make, tmp_path):
    """The folder, loaded by PEFT on the bare base; a scaling other than 1."""
    model = make(torch.float32)
    trial = tiny_trial(method)
    logits, states = trained(model, trial)
    export._write_peft(tiny.base(model), trial, states, tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path)
    assert set(loaded.peft_config["default"].target_modules) == set(states)
    with torch.no_grad():
        assert (loaded(input_ids=IDS).logits - logits).abs().max() < 1e-5
        assert (model(input_ids=IDS).logits - logits).abs().max() > 1e-2


@pytest.mark.usefixtures("no_files")
def test_clamped_ranks_reach_peft(tmp_path):
    """Where a site's full rank is below the trial's, the folder says so for that site."""
    model = tiny.llama(torch.float32)
    trial = tiny_trial("pissa", rank=12, clamp_rank=True)
    logits, states = trained(model, trial)
    export._write_peft(tiny.base(model), trial, states, tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path)
    assert loaded.peft_config["default"].rank_pattern
    with torch.no_grad():
        assert (loaded(input_ids=IDS).logits - logits).abs().max() < 1e-5


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2])
@pytest.mark.parametrize("method", PARAMETRISATION)
def test_merge_equals_apply(method, make):
    """Base weight plus delta is the same function."""
    model = make(torch.float64)
    trial = tiny_trial(method)
    logits, states = trained(model, trial)
    merged = export.merge(tiny.base(model), trial, states)
    with torch.no_grad():
        assert torch.allclose(merged(input_ids=IDS).logits, logits, rtol=1e-9, atol=1e-12)


def test_what_peft_s_one_factor_of_boft_cannot_say_is_refused(tmp_path, no_files):
    """Two quarter turns of the same plane, one by each factor: half a turn has no Cayley transform."""
    model = tiny.llama(torch.float32)
    trial = tiny_trial("boft")
    _, states = trained(model, trial)
    one = next(iter(states.values()))
    one["R"].zero_()
    one["R"][:, 0, 0, 1], one["R"][:, 0, 1, 0] = 1, -1
    with pytest.raises(InputError, match=r"got a turn by half a circle at .*q_proj \(.* is off by .*use --merged"):
        export._write_peft(tiny.base(model), trial, states, tmp_path)


def test_what_peft_s_boft_does_not_adapt_is_refused(tmp_path, no_files):
    model = tiny.gpt2(torch.float32)
    trial = tiny_trial("boft")
    _, states = trained(model, trial)
    line = (
        r"got a Conv1D, transformer.h.0.attn.c_attn, expected linear modules, .* PEFT's BOFTConfig adapts; use --merged"
    )
    with pytest.raises(InputError, match=line):
        export._write_peft(tiny.base(model), trial, states, tmp_path)


def test_what_peft_has_no_class_for_is_refused():
    with pytest.raises(InputError, match=r"method 'full', for which PEFT has no adapter class, .*; use --merged"):
        export._check_class(tiny.config(method="full"))
    export._check_class(tiny.config(method="lora"))


@pytest.mark.parametrize(
    ("method", "changes", "line"),
    [
        (
            "vera",
            {"rank_pattern": ("q_proj=2",)},
            r"got ranks 2, 4, expected one for all sites, as PEFT's VeraConfig has",
        ),
        (
            "randlora",
            {"rank_pattern": ("q_proj=2",)},
            r"got ranks 2, 4, expected one for all sites, as PEFT's RandLoraConfig has",
        ),
        (
            "boft",
            {"rank_pattern": ("q_proj=2",)},
            r"got block sizes 4, 8, expected one for all sites, as PEFT's BOFTConfig has; use --merged",
        ),
        (
            "gralora",
            {"alpha_pattern": ("q_proj=2r",)},
            r"got multipliers 1, 2, expected one .* GraloraConfig has; use --m",
        ),
    ],
)
def test_what_peft_s_class_cannot_say_is_refused(method, changes, line, tmp_path, no_files):
    model = tiny.llama(torch.float32)
    trial = tiny_trial(method, **changes)
    _, states = trained(model, trial)
    with pytest.raises(InputError, match=line):
        export._write_peft(tiny.base(model), trial, states, tmp_path)


@pytest.mark.usefixtures("no_files")
def test_ranks_and_multipliers_of_single_modules_reach_peft(tmp_path):
    model = tiny.llama(torch.float32)
    trial = tiny_trial("dora", rank_pattern=("q_proj=2", "1.mlp.down_proj=6"), alpha_pattern=("v_proj=3r",))
    logits, states = trained(model, trial)
    export._write_peft(tiny.base(model), trial, states, tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path)
    with torch.no_grad():
        assert (loaded(input_ids=IDS).logits - logits).abs().max() < 1e-5


# The folder -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a\\b", r"expected a name without / \\ and :"),
        ("a:b", r"expected a name without / \\ and :"),
        ("a\nb", "without control characters"),
        ("a\u200bb", "without control characters"),
        ("..", "that no system keeps for itself"),
        ("CON", "that no system keeps for itself"),
        ("nul.txt", "that no system keeps for itself"),
        (" a", "neither begins nor ends with a space or a dot"),
        ("a.", "neither begins nor ends with a space or a dot"),
        ("-rf", "nor begins with a dash"),
        ("a" * 97, "of at most 96 characters, not 97"),
    ],
)
def test_a_name_that_others_cannot_take_is_refused(name, line, tmp_path):
    with pytest.raises(InputError, match=line):
        _place.checked(tmp_path / name, force=True)


@pytest.mark.parametrize("name", ["adapter", "my adapter 1.0", "ü" * 96, "lora_r=8", "console"])
def test_other_names_are_taken(name, tmp_path):
    assert _place.checked(tmp_path / name, force=False) == tmp_path / name


def test_a_folder_is_replaced_only_where_asked_and_only_an_export(tmp_path):
    (tmp_path / "there").mkdir()
    assert _place.checked(tmp_path / "there", force=False)
    (tmp_path / "there" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="a new or empty folder; name another one, or replace it with --force"):
        _place.checked(tmp_path / "there", force=False)
    with pytest.raises(InputError, match=r"which alone --force may replace; name another one \(there: letter.txt\)"):
        _place.checked(tmp_path / "there", force=True)
    for name in ("config.json", "adapter_config.json", "README.md"):  # as any model of others has them
        (tmp_path / "there" / name).write_text("{}")
        with pytest.raises(InputError, match="expected a folder that an export wrote, which alone --force may replace"):
            _place.checked(tmp_path / "there", force=True)
    (tmp_path / "there" / "README.md").write_text(f"# A card\n\n{_place.CARD_MARK}(https://pypi.org)")
    assert _place.checked(tmp_path / "there", force=True)
    with pytest.raises(InputError, match="a folder, and there is a file"):
        _place.checked(tmp_path / "there" / "letter.txt", force=True)


def test_what_a_trial_needs_and_what_was_trained_there_are_never_replaced(tmp_path):
    place = tmp_path / "there"
    (place / "deep").mkdir(parents=True)
    (place / "trl.yaml").write_text(f"# trl sft\n{_place.SETTINGS_MARK} 1234\n")
    config = tiny.config(base=str(place / "deep"))
    (place / "deep" / "config.json").write_text('{"model_type": "llama"}')
    (place / "deep" / "model.safetensors").write_bytes(b"")
    (place / "deep" / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"a folder without what the trial needs \(.*deep\); name another one"):
        _place.checked(place, True, _place.needed(config))
    with pytest.raises(InputError, match="without what the trial needs"):
        _place.checked(place, True, _place.needed(tiny.config(base="abacus-small", start_from=str(place))))
    assert _place.checked(place, True) == place
    (place / "trained").mkdir()
    with pytest.raises(InputError, match=r"expected a folder without trained/, which a trainer wrote there; move"):
        _place.checked(place, True)


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    place = tmp_path / "deep" / "there"
    _place.written(place, lambda folder: (folder / "one").write_text("1") and None)
    assert os.listdir(place.parent) == ["there"] and os.listdir(place) == ["one"]

    def broken(folder):
        (folder / "two").write_text("2")
        raise ValueError("no")

    with pytest.raises(ValueError):
        _place.written(place, broken)
    assert os.listdir(place.parent) == ["there"] and os.listdir(place) == ["one"]
    _place.written(place, lambda folder: (folder / "three").write_text("3") and None)
    assert os.listdir(place.parent) == ["there"] and os.listdir(place) == ["three"]


# A whole study --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small study on the bundled model: a LoRA and a PiSSA trial, each with a rerun."""
    spec = welltuned.Spec(
        name="exports | `all`",
        model={"base": "abacus-small"},
        task={"task": "abacus", "num_train": 64, "num_validation": 50, "num_test": 4, "max_length": 128},
        train={"rank": 4, "batch_size": 8, "learning_rate": 5e-3},
        axes={"method": ["lora", "pissa"]},
        search={"fresh_seeds": 2},
    )
    return welltuned.run(spec, folder=tmp_path_factory.mktemp("runs") / "exports")


def best(study, method) -> Result:
    return next(one for one in study.results() if one.config.method == method and one.adapter)


def packed_side(study, result: Result):
    """The bundled base with the trial bound, as training had it."""
    config = result.config
    trial, states = adapter_file.load(study.folder / "blobs" / result.adapter)
    model = PackedModel(bases.load(config.base, None, config.dtype, config.target_modules))
    return model, assemble(model.base, [trial], [states])


def prompts(config, tokenizer):
    rows = data.load(config, tokenizer, ("validation",))["validation"]
    return [ids[:length] for ids, length in zip(rows.token_ids, rows.prompt_lengths, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "pissa"])
def test_a_merged_model_writes_the_same_text(study, method, tmp_path):
    """Float32: logits within 1e-4, and 50 prompts answered alike; the folder is a model that transformers loads."""
    result = best(study, method)
    done = export.export(study.folder, result.trial_id, tmp_path / "model", merged=True)
    assert (done.agreement.share, done.agreement.num_rows, done.form) == (1.0, 50, "merged")
    assert done.agreement.largest < 1e-4
    assert (done.agreement.num_texts, done.agreement.num_same_texts) == (50, 50)
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    model, state = packed_side(study, result)
    ids = prompts(result.config, model.base.tokenizer)
    assert len(ids) == 50
    end, pad = model.base.tokenizer.eos_token_id, model.base.tokenizer.eos_token_id
    (answers,) = greedy(model, state, ids, 24, end, pad)
    for prompt, answer in zip(ids, answers, strict=True):
        given = torch.as_tensor(prompt, dtype=torch.long)[None]
        said = merged.generate(
            given, attention_mask=given * 0 + 1, max_new_tokens=24, do_sample=False, pad_token_id=pad
        )[0, given.shape[1] :].tolist()
        assert (said[: said.index(end)] if end in said else said) == answer
    with torch.no_grad(), model.bound(state):
        given = torch.as_tensor(ids[0], dtype=torch.long)[None]
        own = model.base.model(input_ids=given).logits
        assert (merged(input_ids=given).logits - own).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "pissa"])
def test_an_exported_folder_is_complete(study, method, tmp_path):
    """PEFT loads it with the same logits; its card tells all; a study goes on from it with the same loss."""
    result = best(study, method)
    done = export.export(study.folder, result.trial_id, tmp_path / "adapter")
    assert done.agreement is None and done.folder == tmp_path / "adapter"
    model, state = packed_side(study, result)
    given = torch.as_tensor(prompts(result.config, model.base.tokenizer)[0], dtype=torch.long)[None]
    with torch.no_grad(), model.bound(state):
        own = model.base.model(input_ids=given).logits
    bare = transformers.AutoModelForCausalLM.from_pretrained(resolve_base("abacus-small", None).folder, dtype="float32")
    with torch.no_grad():
        assert (PeftModel.from_pretrained(bare, done.folder)(input_ids=given).logits - own).abs().max() < 1e-5
    kept = load_file(done.folder / "welltuned.safetensors")
    assert {name.rpartition(":")[2] for name in kept} == ({"A", "B"} if method == "lora" else {"A0", "B0", "dA", "dB"})
    card = (done.folder / "README.md").read_text()
    for part in (
        f"# exports all, trial {result.trial_id}".replace("exports all", "exports    all "),
        study.declaration().spec_hash,
        f"`{result.config.base_hash}`",
        f"| `learning_rate` | `{result.config.learning_rate}` |",
        "mean over 2 fresh-seed reruns of the cell",
        "64 rows to train, 50 to validate",
        "## Licence\n\nNot stated",
    ):
        assert part in card
    assert re.search(
        r"\| validation loss, nats per token \| \d\.\d{4} \| \d\.\d{4} \[-?\d\.\d{4}, \d\.\d{4}\] \|", card
    )
    assert str(study.folder) not in card and "/home" not in card
    with pytest.raises(InputError, match="with --force"):
        export.export(study.folder, result.trial_id, tmp_path / "adapter")
    export.export(study.folder, result.trial_id, tmp_path / "adapter", force=True)
    spec = welltuned.Spec(
        name="continued",
        model={"base": "abacus-small"},
        task={"task": "abacus", "num_train": 16, "num_validation": 50, "num_test": 4, "max_length": 128},
        train={"rank": 4, "batch_size": 16, "learning_rate": 1e-12, "method": method, "start_from": str(done.folder)},
        search={"fresh_seeds": 0},
    )
    (again,) = welltuned.run(spec, folder=tmp_path / "continued").results()
    assert again.validation_nll == pytest.approx(result.validation_nll, rel=1e-5)


@pytest.mark.slow
def test_bfloat16_agreement_is_measured_and_told(study, tmp_path, monkeypatch):
    """Rounding W + dW to bfloat16 moves logits; the share of equal next tokens is on the card."""
    result = best(study, "lora")
    found = export._adapter(study.folder, result.trial_id)
    coarse = dataclasses.replace(found.trial, config=found.trial.config.replace(dtype="bfloat16"))
    monkeypatch.setattr(export, "_adapter", lambda *given: dataclasses.replace(found, trial=coarse))
    done = export.export(study.folder, result.trial_id, tmp_path / "model", merged=True)
    assert 0.8 < done.agreement.share <= 1 and 1e-4 < done.agreement.largest < 10
    assert done.agreement.num_texts == 50 and 20 < done.agreement.num_same_texts <= 50
    assert done.agreement.text() in (tmp_path / "model" / "README.md").read_text()
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.slow
def test_without_its_rows_an_export_is_compared_on_random_tokens(study, tmp_path, monkeypatch):
    def gone(*given):
        raise InputError("data file: got 'rows.jsonl', expected a file; check the path")

    monkeypatch.setattr(data, "load", gone)
    done = export.export(study.folder, best(study, "lora").trial_id, tmp_path / "model", merged=True)
    assert (done.agreement.num_rows, done.agreement.num_tokens, done.agreement.num_texts) == (50, 400, 50)
    assert done.agreement.largest < 1e-4 and done.agreement.num_same_texts == 50
    assert "on 50 rows of random tokens (the validation rows cannot be read: data file: got" in (
        (tmp_path / "model" / "README.md").read_text()
    )


# The texts of a merged model ------------------------------------------------------------------------------------------


def witness(monkeypatch, method, dtype=torch.float64, **changes):
    """A witness of a tiny model with a trial far from its start, and the base to merge into."""
    monkeypatch.setattr(data, "load", lambda *given: {"validation": tiny.rows(60)})
    trial = tiny_trial(method, **changes)
    base = tiny.base(tiny.llama(dtype))
    _, states = trained(tiny.llama(dtype), trial)
    return _agreement.Witness(base, trial, states), base, trial, states


@pytest.mark.parametrize("method", ["lora", "pissa", "dora", "full", "full_all"])
def test_a_merged_model_writes_what_its_adapter_wrote(method, monkeypatch):
    seen, base, trial, states = witness(monkeypatch, method)
    assert len(seen.texts) == 50 and sum(map(len, seen.texts)) > 500  # not empty ones
    export.merge(base, trial, states)
    found = seen.compare(base)
    assert (found.share, found.num_texts, found.num_same_texts) == (1.0, 50, 50) and found.largest < 1e-9


def test_a_model_that_was_merged_wrongly_writes_other_texts(monkeypatch):
    seen, base, _, _ = witness(monkeypatch, "lora")
    found = seen.compare(base)  # not merged at all
    assert found.num_same_texts < 40 and found.share < 0.9
    assert f"Of 50 texts written greedily, {found.num_same_texts} are the same." in found.text()


def test_texts_are_bounded_in_time(monkeypatch):
    """The prompts that there is time for, at least a few, and as many by the merged model."""
    monkeypatch.setattr(_agreement, "TEXT_SECONDS", 0)
    seen, base, trial, states = witness(monkeypatch, "lora")
    export.merge(base, trial, states)
    found = seen.compare(base)
    assert (found.num_texts, found.num_same_texts, found.num_rows) == (5, 5, 50)
