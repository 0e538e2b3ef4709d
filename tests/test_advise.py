"""`welltuned advise`: widths from every kind of model, the page, JSON, and the text of each error; torch stays away."""

import dataclasses
import json
import struct
import subprocess
import sys

import gguf
import pytest

from welltuned import cli, model_facts
from welltuned.errors import InputError
from welltuned.model_facts import ModelFacts
from welltuned.transfer import advice, combine
from welltuned.transfer.setting import Setting

RUN = ["--r", "32", "--batch-size", "16"]


def printed(capsys, *arguments):
    """What the verb prints, run in this process."""
    with pytest.raises(SystemExit) as left:
        cli.main(["advise", *arguments])
    assert left.value.code == 0
    return capsys.readouterr().out


def refused(capsys, *arguments):
    """The error that it prints, after which it leaves with 2."""
    with pytest.raises(SystemExit) as left:
        cli.main(["advise", *arguments])
    assert left.value.code == 2
    return capsys.readouterr().err.strip()


def write_gguf(path, width=96, inner=None, tokens=()):
    """A header as converters write it: the tokenizer's arrays between the sizes."""
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_string("general.name", "a model")
    if tokens:
        writer.add_token_list(list(tokens))
        writer.add_token_types([1] * len(tokens))
    writer.add_layer_norm_rms_eps(1e-5)
    if width:
        writer.add_embedding_length(width)
    if inner:
        writer.add_feed_forward_length(inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


# Where the width comes from -------------------------------------------------------------------------------------------


def test_bundled_models_folders_gguf_files_and_cached_hub_names_tell_their_width(tmp_path, monkeypatch):
    assert model_facts.read("abacus-middle") == ModelFacts(128, 384, "llama")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_embd": 768, "n_inner": null}')
    assert model_facts.read(str(tmp_path)) == ModelFacts(768, None, "gpt2")
    (tmp_path / "config.json").write_text('{"text_config": {"model_type": "gemma3_text", "hidden_size": 1152}}')
    assert model_facts.read(str(tmp_path)) == ModelFacts(1152, None, "gemma3_text")
    cached = tmp_path / "hub" / "models--owner--name"
    for folder in (cached / "refs", cached / "snapshots" / "abc"):
        folder.mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc" / "config.json").write_text('{"hidden_size": 512, "model_type": "llama"}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert model_facts.read("owner/name") == ModelFacts(512, None, "llama")


def test_a_gguf_header_is_read_past_the_tokenizers_arrays_as_the_gguf_library_reads_it(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", 96, 320, ["a", "b", "the"])
    fields = gguf.GGUFReader(path).fields
    assert model_facts.read(str(path)) == ModelFacts(96, 320, "qwen3")
    assert int(fields["qwen3.embedding_length"].parts[-1][0]) == 96
    assert model_facts.read(str(tmp_path)) == ModelFacts(96, 320, "qwen3")  # the only one in its folder
    assert model_facts.read(str(write_gguf(tmp_path / "b.gguf"))) == ModelFacts(96, None, "qwen3")


def test_modules_behind_the_mlp_have_its_inner_width():
    facts = ModelFacts(64, 160, "llama")
    assert model_facts.inputs(facts, ()) == model_facts.inputs(facts, ("q_proj", "down_proj")) == 64
    assert model_facts.inputs(facts, ("model.layers.0.mlp.down_proj",)) == 160


def test_every_way_of_not_knowing_the_width_is_said(tmp_path, monkeypatch):
    give = "give the hidden size yourself: --hidden-size 4096"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    bare, broken, whole = tmp_path / "bare", tmp_path / "broken", tmp_path / "whole"
    for folder in (bare, broken, whole):
        folder.mkdir()
    (broken / "config.json").write_text("{")
    (whole / "config.json").write_text('{"model_type": "odd"}')
    (tmp_path / "short.gguf").write_bytes(b"GGUF\x03")
    (tmp_path / "other.gguf").write_bytes(b"PK\x03\x04" + bytes(40))
    header = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 1) + b"x" + struct.pack("<I", 99)
    (tmp_path / "odd.gguf").write_bytes(header)
    messages = {
        str(bare): "model: got a folder with 0 .gguf files and no config.json, expected config.json or one .gguf file; "
        f"name the file, or {give}",
        str(broken): f"model: {broken / 'config.json'} is not valid JSON (",
        str(whole): f"model: the config.json of '{whole}' names no hidden size, expected one of hidden_size, n_embd, "
        f"d_model, dim; {give}",
        "./nowhere": f"model: got './nowhere', expected a folder or .gguf file that exists; check the path, or {give}",
        "owner/name": "model: got 'owner/name', which is no local path and whose config.json is not in the hub's cache "
        "here, expected a bundled name (abacus-small, abacus-middle, abacus-large), a folder, a .gguf file or a "
        f"downloaded hub model; nothing is downloaded here: run `hf download owner/name config.json` first, or {give}",
        str(tmp_path / "short.gguf"): "ends within its header, expected a whole GGUF file; download it again",
        str(tmp_path / "other.gguf"): f"expected a GGUF file of version 2 or 3; download it again, or {give}",
        str(tmp_path / "odd.gguf"): f"has a value of unknown type 99 in its header; {give}",
        str(write_gguf(tmp_path / "none.gguf", width=0)): f"has no embedding_length, expected the hidden size; {give}",
    }
    for name, message in messages.items():
        with pytest.raises(InputError) as caught:
            model_facts.read(name)
        assert message in str(caught.value)
    with pytest.raises(InputError, match="for down_proj give the hidden size yourself"):
        model_facts.inputs(ModelFacts(64, None, "odd"), ("down_proj",))


# The verb -------------------------------------------------------------------------------------------------------------


def test_the_page_has_every_formula_and_rule_with_source_and_known_error(capsys):
    page = printed(capsys, "--model", "abacus-small", *RUN, "--num-samples", "4096")
    assert page.startswith(
        "lora on abacus-small (hidden size 64, llama): rank 32, alpha r (s = 1), batch size 16, 4,096 sa"
    )
    for words in (
        "muA",
        "fitted",
        "LoRA Without Regret: nothing, it",
        "QLoRA's habit: nothing",
        "together: ",
        "90 % within",
    ):
        assert words in page
    for words in ("rank x 2", "lora_alpha x 2", "hidden size x 2", "batch size x 2", "samples x 2", "full fine-tuning"):
        assert words in page
    assert "x 0.71" in page and "x 1.41" in page


def test_json_says_the_same_with_all_facts(capsys):
    found = json.loads(printed(capsys, "--hidden-size", "4096", *RUN, "--method", "pissa", "--alpha", "2.0r", "--json"))
    assert found["setting"]["alpha"] == "2r" and found["setting"]["scaling"] == 2.0
    by_name = {one["name"]: one for one in found["suggestions"]}
    assert by_name["muA"]["learning_rate"] == pytest.approx(0.2 * (2 * 4096 * 32) ** -0.5 / 2 * 2.0**-1.7)
    assert by_name["muA"]["error"]["num"] > 20 and "2602.06204" in by_name["muA"]["source"]
    assert by_name["fitted"]["learning_rate"] is None and by_name["fitted"]["reason"] == "needs the number of samples"
    assert found["together"]["low"] < found["together"]["learning_rate"] < found["together"]["high"]
    moves = {one["with"]: one for one in found["moves"]}
    assert moves["lora_alpha x 2"]["factor"] == pytest.approx(2**-0.5) and moves["rank x 2, alpha policy kept"]["error"]
    assert any("the factor of pissa against it" in note for note in found["notes"])


def test_what_the_numbers_do_not_cover_is_noted(capsys):
    page = printed(capsys, "--hidden-size", "32", "--r", "8", "--batch-size", "64", "--num-samples", "640")
    assert "note: this run has 10 optimizer steps; the rules were measured with 32 or more" in page
    assert "the interval rests on" not in page  # on data that no constant was fitted to
    page = printed(capsys, "--hidden-size", "400000", *RUN, "--target-modules", "q_proj, v_proj")
    assert "no model of about this width was measured: the nearest have hidden sizes" in page
    assert "only attention is adapted" in page and "the number of samples is not known" in page


def test_an_interval_from_development_data_says_so():
    setting = Setting("lora", 8, "r", 16, 64, 1024)
    known = combine.combined(setting)
    fitted = dataclasses.replace(known, error=dataclasses.replace(known.error, held_out=False))
    assert advice.cautions(setting, known) == ()
    (caution,) = advice.cautions(setting, fitted)
    assert caution.startswith("the interval rests on") and caution.endswith("it may be too narrow")


def test_a_width_given_by_hand_serves_a_model_that_cannot_be_read_and_says_so(capsys):
    page = printed(capsys, "--model", "./nowhere", "--width", "2048", *RUN)
    assert "hidden size 2048" in page and "note: ./nowhere could not be read: its family is not known" in page


def test_the_full_fine_tuning_rate_gives_the_tenfold_formula(capsys):
    found = json.loads(printed(capsys, "--hidden-size", "4096", *RUN, "--full-learning-rate", "2e-5", "--json"))
    rate = next(one["learning_rate"] for one in found["suggestions"] if one["name"] == "10 x full fine-tuning")
    assert rate == pytest.approx(2e-4)


def test_target_modules_behind_the_mlp_change_the_width(capsys):
    page = printed(capsys, "--model", "abacus-small", *RUN, "--target-modules", "down_proj")
    assert "hidden size 160" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (RUN, "error: advise: got nothing, expected --model or --hidden-size; name the model, or say its width"),
        (
            ["--hidden-size", "0", *RUN],
            "error: --hidden-size: got 0, expected an integer >= 1; look it up in the config.json",
        ),
        (
            ["--hidden-size", "64", "--r", "0", "--batch-size", "16"],
            "error: rank: got 0, expected an integer >= 1; give the number of the run you plan",
        ),
        (
            ["--hidden-size", "64", *RUN, "--alpha", "half"],
            'error: alpha: got \'half\', expected "r", "2r", 16 or "16/sqrt(r)"; write "r" for lora_alpha = r',
        ),
        (["--hidden-size", "64", *RUN, "--method", "pisa"], "error: no methods plug-in 'pisa'; did you mean 'pissa'? "),
        (
            ["--hidden-size", "64", *RUN, "--full-learning-rate", "3"],
            "error: full learning rate: got 3.0, expected a number between 0 and 1; write it as in 2e-5",
        ),
    ],
)
def test_the_text_of_each_error(capsys, arguments, message):
    assert refused(capsys, *arguments).startswith(message)


def test_it_trains_nothing_and_loads_nothing_heavy():
    code = (
        "import sys; from welltuned import cli\n"
        "try: cli.main(['advise', '--model', 'abacus-small', '--r', '8', '--batch-size', '16'])\n"
        "except SystemExit as left: assert left.code == 0\n"
        "print([name for name in ('torch', 'numpy', 'transformers', 'pandas', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
