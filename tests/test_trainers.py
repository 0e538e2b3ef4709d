"""What other trainers are told: the chosen configuration in their words, or the reason why it cannot be said."""

import dataclasses
import json

import pytest
import yaml

import synthetic
from small_study import SITES, forge_hashes, plan_of, result_of
from welltuned import data
from welltuned import plan as plans
from welltuned.errors import InputError
from welltuned.export import trainers
from welltuned.models import base as bases
from welltuned.records import Role, Trial
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
    rows = lines(tmp_path / "out" / "train.jsonl")
    assert len(rows) == 96
    assert all(row["prompt"].startswith("Question:") and "The answer is:" in row["completion"] for row in rows)


def lines(file) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_llama_factory_is_told_the_end_token_that_its_template_does_not_add(tmp_path):
    files, _ = written(config_of(), tmp_path / "out")
    assert files["llama_factory.yaml"]["template"] == "empty"
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    plain, ended = (lines(tmp_path / "out" / name) for name in ("train.jsonl", info["welltuned_rows"]["file_name"]))
    tokenizer = bases.load_tokenizer("abacus-small", None)
    assert [row["completion"] + tokenizer.eos_token for row in plain] == [row["completion"] for row in ended]
    for row in ended:  # as its template encodes them, where split_special_tokens is off
        ids = tokenizer.encode(row["completion"], add_special_tokens=False)
        assert ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1


def test_axolotl_truncates_long_rows_as_welltuned_does(tmp_path):
    files, _ = written(config_of(), tmp_path / "out")
    assert files["axolotl.yaml"]["excess_length_strategy"] == "truncate"


@pytest.mark.parametrize("subset", ["first", "seeded"])
def test_rows_that_training_drops_are_not_exported(subset, tmp_path):
    pool = [{"prompt": f"{number} + {number} =", "completion": f" {2 * number}"} for number in range(200)]
    pool[50] = {"prompt": "x " * 600, "completion": "y"}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pool))
    task = f'task = "completion"\ndata_train = "{tmp_path / "rows.jsonl"}"\nmax_length = 64\nsubset = "{subset}"'
    text = TEXT.replace("METHOD", "lora").replace('task = "abacus"', task).replace("num_train = 96", "num_train = 120")
    config = plan_of(Spec.parse(text)).arms[0].configs[0]
    loaded = data.load(config, bases.load_tokenizer("abacus-small", None), ("train",))["train"]
    trained = [loaded.examples[place].prompt for place in data.subset(config, len(loaded.token_ids))]
    assert loaded.num_dropped == 1
    assert [row["prompt"] for row in trainers.rows(config)] == trained


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


def test_a_base_in_8_bits_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"axolotl: it does not hold the base in 8 bits as welltuned does"):
        trainers.write_config(config_of().replace(quantization="int8"), SITES, tmp_path / "out")


@pytest.fixture
def two_targets(monkeypatch):
    """A study in which trials adapt one module or all; its results."""
    axis = '[axes]\ntarget_modules = [["q_proj"], ["all-linear"]]'
    plan = plan_of(Spec.parse(TEXT.replace("METHOD", "lora") + axis))
    surveys = [
        dataclasses.replace(survey, sites=SITES if key == plans.survey_key(plan.arms[0].configs[1]) else SITES[:1])
        for key, survey in plan.surveys.items()
    ]

    class Stored:
        def __init__(self, folder):
            self.folder = folder

        def results(self):
            return tuple(result_of(Trial(config, Role.SELECT)) for config in plan.arms[0].configs)

        def declaration(self):
            return dataclasses.replace(synthetic.DECLARATION, surveys=tuple(surveys))

    monkeypatch.setattr(trainers, "Study", Stored)
    return Stored("study").results()


def test_a_trial_is_exported_with_the_sites_of_its_own_survey(two_targets, tmp_path):
    for number, expected in enumerate((["q_proj"], ["q_proj", "up_proj"])):
        folder = tmp_path / str(number)
        trainers.write("study", two_targets[number].trial_id, folder)
        assert yaml.safe_load((folder / "trl.yaml").read_text())["lora_target_modules"] == expected


def test_an_id_that_several_trials_share_is_refused(two_targets, tmp_path):
    with pytest.raises(InputError, match=r"trial: got '', expected the id of one ended trial, but 2 trials of 2 match"):
        trainers.write("study", "", tmp_path / "out")


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
