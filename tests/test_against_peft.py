"""Trained alone, welltuned agrees with what everyone runs today: Hugging Face PEFT with `transformers.Trainer`."""

import copy

import peft
import pytest
import torch
import transformers

import tiny
from welltuned import rng
from welltuned.train.cursor import batches

# PEFT 0.21 reads a name that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

NUM_STEPS, BATCH_SIZE, RANK = 30, 4, 4


class Losses(transformers.TrainerCallback):
    """Collects the loss of every step."""

    def __init__(self):
        self.values = []

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.values.append(logs["loss"])


class OrderedTrainer(transformers.Trainer):
    """A Trainer that reads the data set in the order given."""

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def ordered_examples(config):
    """The rows as Trainer wants them, in welltuned's order, labels on the completion only."""
    rows = tiny.rows()
    examples = []
    for batch in batches(config, len(rows.token_ids)):
        for row in batch:
            ids = torch.tensor(rows.token_ids[row], dtype=torch.long)
            labels = ids.clone()
            labels[: rows.prompt_lengths[row]] = -100
            examples.append({"input_ids": ids, "labels": labels})
    return examples


def collate(examples):
    """Right-pad a batch."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([example["input_ids"] for example in examples], batch_first=True)
    labels = pad([example["labels"] for example in examples], batch_first=True, padding_value=-100)
    mask = pad([torch.ones_like(example["input_ids"]) for example in examples], batch_first=True)
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def trainer_losses(model, config, init, folder):
    """Train with PEFT and Trainer."""
    settings = peft.LoraConfig(
        r=RANK, lora_alpha=RANK * config.scaling, target_modules="all-linear", init_lora_weights=init, lora_dropout=0.0
    )
    model = peft.get_peft_model(model, settings)
    if init is True:
        for name, module in model.named_modules():
            if isinstance(module, peft.tuners.lora.Linear):
                site = name.removeprefix("base_model.model.")
                seed = rng.seed_of(config.study_seed, "init", config.init_seed, site)
                uniform = torch.rand(
                    RANK, module.in_features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
                )
                module.lora_A["default"].weight.data = ((2 * uniform - 1) / module.in_features**0.5).float()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH_SIZE,
        max_steps=NUM_STEPS,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        adam_beta2=config.beta2,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        optim="adamw_torch",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    losses = Losses()
    trainer = OrderedTrainer(
        model=model,
        args=arguments,
        train_dataset=ordered_examples(config),
        data_collator=collate,
        callbacks=[losses],
    )
    trainer.train()
    return losses.values


@pytest.mark.parametrize(("method", "init"), [("lora", True), ("pissa", "pissa")])
def test_alone_equals_peft_and_trainer(method, init, tmp_path):
    """30 steps in float32, same rows, schedule with warm-up, clip and decay: losses agree to 1e-4 relative."""
    model = tiny.llama(torch.float32)
    one = tiny.trial(
        method=method,
        rank=RANK,
        batch_size=BATCH_SIZE,
        learning_rate=3e-3,
        num_train_epochs=5,
        max_grad_norm=0.5,
        warmup_steps=3,
        weight_decay=0.01 if method == "lora" else 0.0,
    )
    packed = tiny.packed(copy.deepcopy(model))
    ours = tiny.outcomes(tiny.run_pack(packed, [one], BATCH_SIZE, tmp_path))[one.id]
    theirs = trainer_losses(model, one.config, init, tmp_path / "trainer")
    assert len(ours.train_losses) == NUM_STEPS
    assert ours.clip_fraction > 0
    assert ours.train_losses == pytest.approx(theirs, rel=1e-4)
