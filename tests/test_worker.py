"""The worker on the bundled base: surveys with every problem at once, training jobs that never open the test split."""

import json
import os
import types

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

import tiny
from small_study import result_of
from welltuned import data, export, fingerprint, plan, worker
from welltuned.errors import InputError
from welltuned.executors import machine
from welltuned.packing import adapter_file
from welltuned.records import JobEnd, Outcome, Runtime, Status, Survey, SurveyJob, TrainJob

ABACUS = {"base": "abacus-small", "task": "abacus", "dtype": "float32", "max_length": 128}


def abacus(**changes):
    """A configuration on the smallest bundled base."""
    hashes = {
        "base_hash": fingerprint.base_hash("abacus-small", None),
        "data_hash": plan._data_hash("abacus", [(), (), ()]),
    }
    return tiny.config(**(ABACUS | hashes | changes))


def runtime(folder):
    """One thread, blobs in a folder of the test."""
    return Runtime("cpu", 1, 1e9, str(folder))


@pytest.fixture
def short_gpt2(tmp_path):
    """A GPT-2 folder with 16 learned positions."""
    config = GPT2Config(vocab_size=160, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    folder = fingerprint.resolve_base("abacus-small", None).folder
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "gpt2")
    return str(tmp_path / "gpt2")


def test_a_survey_counts_the_base_and_the_data(tmp_path):
    """Sites, weights, rows and tokens, as the plan needs them."""
    survey, end = worker.run(SurveyJob("key", abacus()), runtime(tmp_path))
    assert isinstance(survey, Survey) and isinstance(end, JobEnd)
    assert json.loads(end.environment)["processor"] == machine.processor() != ""
    assert survey.config_key == "key"
    assert len(survey.sites) == 21
    assert survey.num_parameters == 150_400
    assert sum(site.num_out * site.num_in for site in survey.sites) < survey.num_base_weights < survey.num_parameters
    assert 40 < survey.mean_tokens < survey.longest_tokens < 100


def test_a_survey_tells_all_problems_of_model_and_data_at_once(short_gpt2, tmp_path):
    """Rows longer than the base's positions; and a wrong site together with a missing file."""
    with pytest.raises(
        InputError, match=r"task.max_length: got 128, expected rows within the base's 16 positions; set"
    ):
        list(worker.run(SurveyJob("key", abacus(base=short_gpt2)), runtime(tmp_path)))
    wrong = abacus(target_modules=("nothing",), task="completion", data_train=("no.jsonl",))
    with pytest.raises(InputError) as caught:
        list(worker.run(SurveyJob("key", wrong), runtime(tmp_path)))
    assert len(caught.value.problems) == 2


def test_a_training_job_never_opens_the_test_split(tmp_path, monkeypatch):
    """Design D8: only an exam reads it."""
    asked = []
    load = data.load

    def spy(config, tokenizer, splits):
        asked.extend(splits)
        return load(config, tokenizer, splits)

    monkeypatch.setattr(data, "load", spy)
    trial = tiny.Trial(abacus(num_train=16, num_validation=4, batch_size=8), tiny.Role.SELECT)
    events = list(worker.run(TrainJob("pack", (trial,), 4), runtime(tmp_path)))
    assert set(asked) == {"train", "validation"}
    (outcome,) = [event for event in events if isinstance(event, Outcome)]
    assert outcome.status is Status.FINISHED and outcome.num_trainable == 2 * 3552


def test_an_adapter_is_not_exported_onto_another_base(tmp_path, monkeypatch):
    """A base whose files have changed since would give a silently wrong model."""
    trial = tiny.Trial(abacus(base_hash="0" * 64), tiny.Role.SELECT)
    result = result_of(trial, adapter=adapter_file.save(str(tmp_path / "blobs"), trial, {}))
    monkeypatch.setattr(export, "Study", lambda folder: types.SimpleNamespace(results=lambda: (result,)))
    with pytest.raises(InputError, match=r"base 'abacus-small': got .*, expected 000000000000, the hash .*; put back"):
        export.export(tmp_path, trial.id, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_a_job_refuses_data_and_weights_that_are_not_the_ones_it_was_planned_with(tmp_path, monkeypatch):
    """A file that is edited while a study runs would mix two data sets under one trial id."""
    file = tmp_path / "rows.jsonl"
    lines = [f'{{"prompt": "{number} + 1 = ", "completion": "{number + 1}"}}\n' for number in range(40)]
    file.write_text("".join(lines))
    files = [(str(file),), (), ()]
    config = abacus(
        task="completion", data_train=files[0], data_hash=plan._data_hash("completion", files), num_train=16,
        num_validation=8, num_test=8, batch_size=8,
    )  # fmt: skip
    job = TrainJob("pack", (tiny.Trial(config, tiny.Role.SELECT),), 4)
    assert isinstance(list(worker.run(job, runtime(tmp_path)))[-1], JobEnd)
    file.write_text("".join(lines[1:]))
    expected = (
        rf"got '.*rows.jsonl', expected the rows whose hash is {config.data_hash[:12]}, as when the study began; put"
    )
    with pytest.raises(InputError, match=expected):
        list(worker.run(job, runtime(tmp_path)))
    monkeypatch.setattr(worker, "_held", worker._Held())
    other = TrainJob("pack", (tiny.Trial(abacus(base_hash="0" * 64), tiny.Role.SELECT),), 4)
    with pytest.raises(InputError, match=r"base 'abacus-small': got .*, expected 000000000000, the hash of what the"):
        list(worker.run(other, runtime(tmp_path)))


def test_a_gpu_worker_counts_gpus_as_the_driver_does(tmp_path, monkeypatch):
    """nvidia-smi, which the memory was planned by, counts by the PCI bus, and CUDA by speed unless it is asked."""
    for name in ("CUDA_DEVICE_ORDER", "CUBLAS_WORKSPACE_CONFIG"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda wanted: None)
    worker._prepare(Runtime("cuda:0", torch.get_num_threads(), 1e9, str(tmp_path)))
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
