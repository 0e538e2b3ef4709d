"""What other trainers are told: the chosen configuration in their words, or the reason why it cannot be said."""

import json

import pytest
import yaml

from small_study import SITES, forge_hashes, plan_of
from welltuned.errors import InputError
from welltuned.export import trainers
from welltuned.spec import Spec

TEXT = """
name = "one"
[model]
base = "abacus-small"
[task]
task = "abacus"
num_train = 96
num_validation = 8
num_test = 8
[train]
method = "METHOD"
learning_rate = 3e-3
batch_size = 12
rank = 4
alpha = "2r"
warmup_ratio = 0.1
"""


def config_of(method="lora", extra=""):
    return plan_of(Spec.parse(TEXT.replace("METHOD", method) + extra)).arms[0].configs[0]


def written(config, folder) -> tuple[dict, trainers.Written]:
    done = trainers.write_config(config, SITES, folder)
    files = {name: yaml.safe_load((folder / name).read_text()) for name in done.files if name.endswith(".yaml")}
    return files, done


def test_all_three_are_told_the_same(tmp_path):
    files, done = written(config_of(), tmp_path / "out")
    assert done.left_out == {}
    trl, axolotl, factory = (files[f"{name}.yaml"] for name in ("trl", "axolotl", "llama_factory"))
    assert trl["lora_r"] == axolotl["lora_r"] == factory["lora_rank"] == 4
    assert trl["lora_alpha"] == axolotl["lora_alpha"] == factory["lora_alpha"] == 8
    assert trl["learning_rate"] == axolotl["learning_rate"] == factory["learning_rate"] == 3e-3
    for one in (trl, factory):
        assert one["per_device_train_batch_size"] * one["gradient_accumulation_steps"] == 12
    assert axolotl["micro_batch_size"] * axolotl["gradient_accumulation_steps"] == 12
    assert {one["warmup_steps"] for one in (trl, axolotl, factory)} == {1}  # a tenth of 8 steps, rounded up
    assert trl["lora_target_modules"] == ["q_proj", "up_proj"]


def test_the_rows_are_those_that_the_trial_trained_on(tmp_path):
    written(config_of(), tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 96
    assert all(row["prompt"].startswith("Question:") and "The answer is:" in row["completion"] for row in rows)
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert info["welltuned_rows"]["file_name"] == "train.jsonl"


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")  # TRL's own default
def test_trl_takes_its_file(tmp_path):
    trl = pytest.importorskip("trl")
    files, _ = written(config_of("dora"), tmp_path / "out")
    settings = files["trl.yaml"]
    datasets = settings.pop("datasets")
    assert datasets == [{"path": "json", "data_files": "train.jsonl"}]
    parser = trl.TrlParser((trl.SFTConfig, trl.ModelConfig))
    arguments = [part for name, value in settings.items() for part in (f"--{name}", *_words(value))]
    training, model = parser.parse_args_and_config([*arguments, "--use_cpu", "true"])
    assert (model.lora_r, model.lora_alpha, model.use_dora, model.use_peft) == (4, 8, True, True)
    assert training.learning_rate == 3e-3
    assert training.per_device_train_batch_size * training.gradient_accumulation_steps == 12
    assert (training.warmup_steps, str(training.lr_scheduler_type.value)) == (1, "cosine")


def _words(value) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else [str(value)]


def test_a_start_that_a_trainer_has_no_name_for_is_left_out_with_the_reason(tmp_path):
    files, done = written(config_of("pissa"), tmp_path / "out")
    assert set(files) == {"axolotl.yaml", "llama_factory.yaml"}
    assert done.left_out == {"trl": "its command line has no init_lora_weights='pissa'"}
    assert files["axolotl.yaml"]["peft_init_lora_weights"] == "pissa"
    assert (files["llama_factory.yaml"]["pissa_init"], files["llama_factory.yaml"]["pissa_iter"]) == (True, -1)


@pytest.mark.parametrize("method", ["milora", "full", "vera", "eva", "lora_ga"])
def test_what_nobody_can_say_is_refused(method, tmp_path):
    with pytest.raises(InputError, match=r"no other trainer has words for .*; leave out --settings"):
        trainers.write_config(config_of(method), SITES, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ('alpha_pattern = ["q_proj=2r"]', "rank_pattern or alpha_pattern"),
        ('optimizer = "sgd"', "sgd is not theirs"),
    ],
)
def test_settings_that_they_lack_are_refused(extra, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        trainers.write_config(config_of(extra=extra), SITES, tmp_path / "out")


def test_a_fractional_lora_alpha_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"lora_alpha is a whole number, and this one is 1\.5"):
        trainers.write_config(config_of().replace(scaling=0.375), SITES, tmp_path / "out")


def test_a_floor_and_a_scaled_beta2_are_translated(tmp_path):
    extra = 'lr_scheduler_type = "cosine_with_floor"\nlr_floor = 0.2\nbeta2_batch_size = 6'
    files, _ = written(config_of(extra=extra), tmp_path / "out")
    assert files["trl.yaml"]["lr_scheduler_type"] == "cosine_with_min_lr"
    assert files["trl.yaml"]["lr_scheduler_kwargs"] == {"min_lr_rate": 0.2}
    assert (files["axolotl.yaml"]["lr_scheduler"], files["axolotl.yaml"]["cosine_min_lr_ratio"]) == ("cosine", 0.2)
    assert files["trl.yaml"]["adam_beta2"] == pytest.approx(0.999**2)


@pytest.fixture(autouse=True)
def forged(request, monkeypatch):
    """Hash the base by its name in the tests that plan; its files are the bundled ones."""
    from welltuned import fingerprint

    resolve = fingerprint.resolve_base
    forge_hashes(monkeypatch)
    monkeypatch.setattr(fingerprint, "resolve_base", resolve)
