"""A bare PyTorch loop with PEFT, one trial after the other: Trainer without all that it could also do."""

import time

import torch
from transformers import PreTrainedModel

from benchmarks.peft_side import Example, collator, with_adapter
from benchmarks.records import Assignment, Measurement, Setting
from benchmarks.sequential import Trained, one_after_the_other
from welltuned.records import Config
from welltuned.train.schedule import learning_rate


def run(task: Assignment) -> Measurement:
    """Train the trials with a bare loop."""
    return one_after_the_other(task, train)


def train(model: PreTrainedModel, config: Config, examples: list[list[Example]], setting: Setting) -> Trained:
    """Train one trial."""
    wrapped = with_adapter(model, config).train()
    parameters = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )
    collate = collator(setting)
    start = time.perf_counter()
    losses: list[torch.Tensor] = []
    for step, batch in enumerate(examples):
        optimizer.param_groups[0]["lr"] = learning_rate(config, step, len(examples))
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.autocast):
            loss = wrapped(**collate(batch), use_cache=False).loss
        loss.backward()
        if config.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    seconds = time.perf_counter() - start
    wrapped.unload()
    return Trained(torch.stack(losses).tolist(), seconds)
