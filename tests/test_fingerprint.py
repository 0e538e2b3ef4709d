"""Base models and data are found, refused with a line that helps, and named by their bytes."""

import hashlib
import json
import re

import httpx2
import huggingface_hub
import huggingface_hub.errors as hub_errors
import pytest

from welltuned.errors import InputError
from welltuned.fingerprint import base_hash, data_hash, file_hash, hub_data, resolve_base

COMMIT = "c" * 40


def make_folder(folder, **config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]} | config))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def refusal(base, revision=None):
    with pytest.raises(InputError) as caught:
        resolve_base(str(base), revision)
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)
    return str(caught.value)


# The base model -------------------------------------------------------------------------------------------------------


def test_a_folder_is_found_and_hashed_by_its_contents(tmp_path):
    first, second = make_folder(tmp_path / "a"), make_folder(tmp_path / "b")
    (second / "README.md").write_text("not part of the model")
    files = resolve_base(str(first), None)
    assert (files.kind, files.folder, files.gguf, files.revision) == ("folder", first, None, None)
    assert base_hash(str(first), None) == base_hash(str(second), None)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        changed = make_folder(tmp_path / f"changed-{name}")
        (changed / name).write_text((changed / name).read_text() + " ")
        assert base_hash(str(changed), None) != base_hash(str(first), None), name


def test_the_hash_is_sha256_and_notices_a_change_in_place(tmp_path):
    path = tmp_path / "file"
    for content in (b"one", b"other"):
        path.write_bytes(content)
        assert file_hash(path) == hashlib.sha256(content).hexdigest()


def test_a_large_file_of_the_hub_cache_is_named_by_its_hash_already(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / ("a" * 64)).write_bytes(b"never read")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / ("a" * 64))
    assert file_hash(tmp_path / "model.safetensors") == "a" * 64


def test_a_gguf_file_is_found_alone_and_in_its_folder(tmp_path):
    path = tmp_path / "model-f16.gguf"
    path.write_bytes(b"GGUF and so on")
    for base in (path, tmp_path):
        files = resolve_base(str(base), None)
        assert (files.kind, files.folder, files.gguf) == ("gguf", tmp_path, "model-f16.gguf")
    assert base_hash(str(path), None) == base_hash(str(tmp_path), None)


def test_a_bundled_name_is_found():
    files = resolve_base("abacus-small", None)
    assert files.kind == "folder" and files.folder.parts[-2:] == ("abacus", "small")
    assert len(base_hash("abacus-small", None)) == 64


def test_a_folder_wins_over_a_bundled_name(tmp_path, monkeypatch):
    make_folder(tmp_path / "abacus-small")
    monkeypatch.chdir(tmp_path)
    assert resolve_base("abacus-small", None).folder.resolve() == tmp_path / "abacus-small"


def test_missing_and_unfit_files_are_refused_with_the_next_step(tmp_path):
    assert "check the path, or use one of abacus-small" in refusal(tmp_path / "nothing")
    assert "expected a folder or .gguf file that exists" in refusal("model.gguf")
    (tmp_path / "model.bin").write_bytes(b"x")
    assert "give the model's folder" in refusal(tmp_path / "model.bin")
    (tmp_path / "a.gguf").write_bytes(b"<html>")
    assert "download the file again" in refusal(tmp_path / "a.gguf")
    assert "remove revision" in refusal(make_folder(tmp_path / "fine"), "main")


def test_a_folder_without_a_config_is_refused(tmp_path):
    assert "has no config.json and no .gguf file" in refusal(tmp_path)
    for name in ("q4.gguf", "f16.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    message = refusal(tmp_path)
    assert "got a folder with 2 .gguf files, expected one" in message and "f16.gguf, q4.gguf" in message


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "BertForMaskedLM"),
        ({"architectures": ["T5ForConditionalGeneration"]}, "T5ForConditionalGeneration"),
        ({"architectures": None, "model_type": "t5"}, "t5"),
        ({"architectures": ["BartForCausalLM"], "model_type": "bart", "is_encoder_decoder": True}, "bart"),
        ({"architectures": []}, "no architecture"),
    ],
)
def test_what_is_not_a_causal_language_model_is_refused(tmp_path, config, found):
    message = refusal(make_folder(tmp_path / "model", **config))
    assert f"is not a causal language model: got {found}" in message and "decoder-only" in message


@pytest.mark.parametrize("architecture", ["GPT2LMHeadModel", "Qwen3ForCausalLM"])
def test_causal_language_models_are_accepted(tmp_path, architecture):
    assert resolve_base(str(make_folder(tmp_path / "model", architectures=[architecture])), None).kind == "folder"


def test_a_folder_that_lacks_a_part_is_refused(tmp_path):
    for name, expected in (("model.safetensors", "no weights"), ("tokenizer.json", "no tokenizer")):
        folder = make_folder(tmp_path / name)
        (folder / name).unlink()
        assert expected in refusal(folder)
    (tmp_path / "model.safetensors" / "pytorch_model.bin").write_bytes(b"")
    assert "only pytorch_model.bin, a pickle" in refusal(tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json" / "config.json").write_text("{")
    assert "not valid JSON" in refusal(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json" / "config.json").write_text("[]")
    assert "no JSON object" in refusal(tmp_path / "tokenizer.json")


# The hub --------------------------------------------------------------------------------------------------------------


def test_a_hub_name_while_offline_is_refused():
    message = refusal("some-lab/some-model")
    assert "base 'some-lab/some-model'" in message and "offline?" in message and "or give a local path" in message


def test_a_misspelt_bundled_name_is_suggested():
    assert "did you mean 'abacus-small'?" in refusal("abacus-smal")


def test_a_hub_model_is_pinned_to_its_commit(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "snapshots" / COMMIT)
    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision))
        assert not any(pattern.endswith(".bin") for pattern in allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    files = resolve_base("some-lab/some-model", "main")
    assert (files.kind, files.folder, files.revision) == ("hub", folder, COMMIT)
    assert asked == [("some-lab/some-model", "main")]
    assert base_hash("some-lab/some-model", COMMIT) == base_hash(str(folder), None)
    (folder / "config.json").unlink()
    assert 'write base = "some-lab/some-model/FILE.gguf"' in refusal("some-lab/some-model")


def test_one_gguf_file_of_a_hub_model_can_be_named(tmp_path, monkeypatch):
    folder = tmp_path / COMMIT
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, revision, allow_patterns: str(folder))
    assert "has no file 'model-q8.gguf'" in refusal("some-lab/some-model/model-q8.gguf")
    (folder / "model-q8.gguf").write_bytes(b"GGUF")
    files = resolve_base("some-lab/some-model/model-q8.gguf", None)
    assert (files.kind, files.gguf, files.revision) == ("gguf", "model-q8.gguf", COMMIT)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (hub_errors.RevisionNotFoundError, "the hub has no revision 'v9'"),
        (hub_errors.GatedRepoError, "accept its terms"),
        (hub_errors.RepositoryNotFoundError, "neither a local path nor on the hub"),
    ],
)
def test_the_hub_s_refusals_become_one_line(monkeypatch, error, expected):
    def download(name, revision, allow_patterns):
        raise error.__new__(error)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert expected in refusal("some-lab/some-model", "v9")


@pytest.mark.parametrize("name", ["my--model", "some-lab/na..me"])
def test_a_name_that_the_hub_cannot_have_is_one_line(name):
    assert re.search(
        rf"^base '{name}': neither a local path nor a name on the hub \(Cannot have -- or \.\. in", refusal(name)
    )
    with pytest.raises(InputError, match=r"data set 'some-lab/a--b': neither a local path .*; check the spelling"):
        data_hash(("some-lab/a--b",), "")


# The data -------------------------------------------------------------------------------------------------------------


def test_the_data_hash_depends_on_bytes_order_and_extra_and_on_no_name(tmp_path):
    for name, text in (("a", "1"), ("b", "2"), ("copy of a", "1")):
        (tmp_path / f"{name}.jsonl").write_text(text)
    a, b, copy = (str(tmp_path / f"{name}.jsonl") for name in ("a", "b", "copy of a"))
    assert data_hash((a, b), "x") == data_hash((copy, b), "x")
    others = [data_hash((b, a), "x"), data_hash((a, b), "y"), data_hash((a,), "x"), data_hash((), "x")]
    assert len({data_hash((a, b), "x"), *others}) == 5


def test_every_missing_data_file_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        data_hash((str(tmp_path / "a.jsonl"), "b.csv"), "")
    assert len(caught.value.problems) == 2
    assert "data file: got 'b.csv', expected a file (.jsonl, .json, .csv, .parquet" in caught.value.problems[1]
    assert "check the path" in caught.value.problems[1]


def test_hub_data_names_are_told_from_files(tmp_path, monkeypatch):
    assert hub_data("openai/gsm8k:main@abc") == hub_data("openai/gsm8k:main@abc")
    found = hub_data("openai/gsm8k:main@abc")
    assert found is not None and (found.name, found.subset, found.revision) == ("openai/gsm8k", "main", "abc")
    assert hub_data("data/train.jsonl") is None and hub_data("./data/train") is None and hub_data("train") is None
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").write_text("")
    monkeypatch.chdir(tmp_path)
    assert hub_data("data/train") is None


def test_the_hash_of_hub_data_is_that_of_its_commit(tmp_path, monkeypatch):
    references = tmp_path / "datasets--some-lab--some-data" / "refs"
    references.mkdir(parents=True)
    (references / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    followed = data_hash(("some-lab/some-data",), "")
    assert followed == data_hash((f"some-lab/some-data@{COMMIT}",), "")
    assert followed != data_hash((f"some-lab/some-data@{'d' * 40}",), "")
    with pytest.raises(InputError, match=r"data set 'some-lab/other': not a local path, not downloaded yet"):
        data_hash(("some-lab/other",), "")


def test_without_a_connection_hub_data_is_what_was_downloaded(tmp_path, monkeypatch):
    def fail(self, name, revision):
        raise httpx2.ConnectError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        InputError, match=r"not downloaded yet, and the hub cannot be reached \(offline\?\); connect and"
    ):
        data_hash(("some-lab/some-data",), "")
    references = tmp_path / "datasets--some-lab--some-data" / "refs"
    references.mkdir(parents=True)
    (references / "main").write_text(COMMIT)
    assert data_hash(("some-lab/some-data",), "") == data_hash((f"some-lab/some-data@{COMMIT}",), "")
