"""A small study for the tests of planning, with hashes that need no files, and surveys of an invented base."""

import tomllib
from pathlib import Path

import pytest

from welltuned import fingerprint
from welltuned import plan as plans
from welltuned.plan import Plan
from welltuned.records import Config, Result, Role, Site, Status, Survey, Trial
from welltuned.spec import Spec

STUDIES = sorted((Path(__file__).parents[1] / "studies").glob("*.toml"))
TEXT = """
name = "small"
[model]
base = "abacus-small"
[task]
task = "abacus"
num_train = 512
num_validation = 32
num_test = 64
[train]
learning_rate = 1e-3
[axes]
method = ["lora", "pissa"]
batch_size = [4, 16]
learning_rate = [1e-3, 1e-2]
[search]
fresh_seeds = 2
"""
SITES = (Site("layers.0.q_proj", 64, 64), Site("layers.0.up_proj", 172, 64), Site("layers.1.q_proj", 64, 64))


def edited(**sections) -> dict:
    """Return the small study's tree with some settings changed; None removes one."""
    tree = tomllib.loads(TEXT)
    for name, changes in sections.items():
        if not isinstance(changes, dict):
            tree[name] = changes
            continue
        table = tree.setdefault(name, {})
        for key, value in changes.items():
            table.pop(key, None)
            if value is not None:
                table[key] = value
    return tree


def forge_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every base exist, with the hash of its name."""
    files = fingerprint.BaseFiles("folder", Path("nowhere"), None, None)
    monkeypatch.setattr(fingerprint, "resolve_base", lambda base, revision: files)
    monkeypatch.setattr(fingerprint, "base_hash", lambda base, revision: f"hash of {base}")


def survey_of(config: Config, **changes) -> Survey:
    facts = dict(
        config_key=plans.survey_key(config), sites=SITES, num_parameters=150_000, num_base_weights=100_000,
        num_head_weights=32_768, hidden_size=64, num_layers=3, num_heads=2, vocab_size=512, num_train_available=100_000,
        num_validation=config.num_validation, num_test=config.num_test, mean_tokens=64.0, longest_tokens=100,
        mean_target_tokens=24.0, num_truncated=0, num_dropped=0, num_duplicates=0,
    )  # fmt: skip
    return Survey(**(facts | changes))


def plan_of(spec: Spec, **changes) -> Plan:
    return plans.make(
        spec, {plans.survey_key(config): survey_of(config, **changes) for config in plans.survey_configs(spec)}
    )


def result_of(trial: Trial, nll: float | None = 1.0, status: Status = Status.FINISHED, **changes) -> Result:
    facts = dict(
        trial_id=trial.id, role=trial.role, config=trial.config, status=status, reason="", curve=(), num_steps=1,
        num_tokens=1, seconds=1.0, pack_id="p", num_pack=1, clip_fraction=0.0, validation_nll=nll,
        base_validation_nll=3.0, test_correct=None,
        adapter="a", num_trainable=1,
    )  # fmt: skip
    return Result(**(facts | changes))


def graded(result: Result) -> Result:
    assert result.role is Role.CONFIRM
    return Result(**{**vars(result), "test_correct": (True,)})


def fake_base(folder: Path) -> Path:
    """Write a base of no weights into the folder, for workers that train nothing, and return where it is."""
    base = folder / "base"
    base.mkdir(parents=True, exist_ok=True)
    (base / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    (base / "model.safetensors").write_bytes(b"weights")
    (base / "tokenizer.json").write_text("{}")
    return base
