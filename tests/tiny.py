"""Tiny random models, rows and configurations for tests of the trainer."""

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from welltuned.data import Rows
from welltuned.models.base import adapt
from welltuned.packing.batch import RowTable
from welltuned.packing.linear import PackedModel
from welltuned.records import Config, Outcome, Role, Runtime, TrainJob, Trial
from welltuned.tasks._task import Example
from welltuned.train.loop import PackRun

VOCAB = 32


class FakeTokenizer:
    """Enough of a tokenizer for code that never decodes."""

    eos_token_id, pad_token_id = 1, 0


def llama(dtype=torch.float64, seed=0):
    """A two-layer Llama with grouped queries."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)


def gpt2(dtype=torch.float64, seed=0):
    """A two-layer GPT-2: Conv1D sites, fused query-key-value, biases."""
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3)
    return GPT2LMHeadModel(config).to(dtype).eval().requires_grad_(False)


def base(model=None, target_modules=("all-linear",)):
    """Adapt a tiny model."""
    return adapt(llama() if model is None else model, FakeTokenizer(), target_modules)


def rows(num_rows=24, seed=0):
    """Random rows of unequal length, loss on the part after the prompt."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(5, 13, num_rows)
    token_ids = tuple(generator.integers(2, VOCAB, length).astype(np.int32) for length in lengths)
    prompt_lengths = np.array([generator.integers(1, length - 2) for length in lengths])
    return Rows(token_ids, prompt_lengths, tuple(Example("", "") for _ in lengths), 0, 0)


def config(**changes):
    """A complete configuration for the tiny rows."""
    fields = {
        "study_seed": 0,
        "base": "tiny",
        "revision": None,
        "base_hash": "",
        "dtype": "float64",
        "target_modules": ("all-linear",),
        "clamp_rank": False,
        "task": "completion",
        "task_version": 1,
        "data_train": (),
        "data_validation": (),
        "data_test": (),
        "data_hash": "",
        "prompt_template": "none",
        "num_train": 24,
        "subset": "first",
        "num_validation": 6,
        "num_test": 4,
        "split_seed": 0,
        "max_length": 64,
        "method": "lora",
        "method_version": 1,
        "method_source": "",
        "rank": 2,
        "alpha": "r",
        "scaling": 1.0,
        "dropout": 0.0,
        "optimizer": "adamw",
        "learning_rate": 1e-2,
        "batch_size": 4,
        "beta1": 0.9,
        "beta2": 0.999,
        "beta2_batch_size": None,
        "epsilon": 1e-8,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "lr_scheduler_type": "cosine",
        "lr_floor": 0.1,
        "warmup_ratio": 0.0,
        "warmup_steps": 0,
        "num_train_epochs": 1,
        "max_steps": None,
        "num_evaluations": 2,
        "init_seed": 0,
        "order_seed": 0,
        "subset_seed": 0,
    }
    return Config(**(fields | changes))


def trial(**changes):
    """A trial of `config`."""
    return Trial(config(**changes), Role.SELECT)


def run_pack(
    packed: PackedModel,
    trials,
    micro_rows,
    folder,
    num_rows=24,
    checkpoint_seconds=1e9,
    resume=None,
    compiled=False,
    keep_moments=False,
    recompute=False,
    threads=None,
):
    """Train a pack on the tiny rows, validate on some of them (so that training helps); return its events."""
    device = packed.base.device
    train = rows(num_rows)
    held_out = Rows(train.token_ids[:6], train.prompt_lengths[:6], train.examples[:6], 0, 0)
    tables = [RowTable(train, 0, device), RowTable(held_out, 0, device)]
    threads = threads or torch.get_num_threads()
    runtime = Runtime(str(device), threads, checkpoint_seconds, str(folder), keep_moments)
    job = TrainJob("pack", tuple(trials), micro_rows, resume, compiled, recompute)
    return list(PackRun(packed, job, *tables, runtime).events())


def outcomes(events) -> dict[str, Outcome]:
    """The outcomes of a pack by trial."""
    return {event.trial_id: event for event in events if isinstance(event, Outcome)}


def packed(model=None, target_modules=("all-linear",)) -> PackedModel:
    """A tiny packed model."""
    return PackedModel(base(model, target_modules))
