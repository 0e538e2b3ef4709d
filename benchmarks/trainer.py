"""`transformers.Trainer` with PEFT, one trial after the other: what most people run."""

import tempfile
import time

import torch
import transformers
from transformers import PreTrainedModel

from benchmarks.peft_side import Example, collator, with_adapter
from benchmarks.records import Assignment, Measurement, Setting
from benchmarks.sequential import Trained, one_after_the_other
from welltuned.records import Config
from welltuned.train.schedule import num_warmup_steps

NEVER = 10**9  # logging_steps: a log line costs time, and the losses are kept below


class RecordingTrainer(transformers.Trainer):
    """A Trainer that keeps the loss of every step without logging it."""

    step_losses: list[torch.Tensor]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> torch.Tensor:
        """Return the loss and keep it."""
        assert not return_outputs, "only evaluation asks for outputs"
        loss = super().compute_loss(model, inputs, False, num_items_in_batch)
        assert isinstance(loss, torch.Tensor)
        self.step_losses.append(loss.detach())
        return loss


class Examples(torch.utils.data.Dataset):
    """Rows in the order in which they are to be read."""

    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, place: int) -> Example:
        return self.examples[place]


def run(task: Assignment) -> Measurement:
    """Train the trials with Trainer."""
    return one_after_the_other(task, train)


def train(model: PreTrainedModel, config: Config, examples: list[list[Example]], setting: Setting) -> Trained:
    """Train one trial."""
    transformers.logging.set_verbosity_error()
    wrapped = with_adapter(model, config)
    with tempfile.TemporaryDirectory() as folder:
        trainer = RecordingTrainer(
            model=wrapped,
            args=arguments(config, len(examples), setting, folder),
            train_dataset=Examples([example for batch in examples for example in batch]),
            data_collator=collator(setting),
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.step_losses = []
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    wrapped.unload()
    return Trained(torch.stack(trainer.step_losses).tolist(), seconds)


def arguments(config: Config, num_steps: int, setting: Setting, folder: str) -> transformers.TrainingArguments:
    """Return Trainer's arguments for a trial."""
    return transformers.TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=config.batch_size,
        max_steps=num_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=num_warmup_steps(config, num_steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm or 0.0,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        adam_epsilon=config.epsilon,
        optim="adamw_torch_fused",
        bf16=setting.autocast,
        torch_compile=setting.compiled,
        train_sampling_strategy="group_by_length" if setting.by_length else "sequential",
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        logging_strategy="steps",
        logging_steps=NEVER,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
