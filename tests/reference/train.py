"""One trial, alone, the plain way: whole effective batches, torch.optim, a loss that is a mean over target tokens."""

import copy
import math

import torch

from reference.methods import adapted


def train(model, sites, config, batches, rows, draws, facts):
    """Return the loss of every step. `rows[i]` = (token ids, prompt length); `batches` lists row numbers per step.

    `draws[site]` is the generator of the site's random start; `facts[site]` what was seen in the first rows.
    """
    model = copy.deepcopy(model).requires_grad_(config.method == "full_all")
    for name in sites if config.method != "full_all" else ():
        parent, _, last = name.rpartition(".")
        old = model.get_submodule(name)
        weight = old.weight.data if isinstance(old, torch.nn.Linear) else old.weight.data.T
        rank, scaling = sizes(config, name)
        new = adapted(config.method, weight, old.bias, rank, scaling, draws[name], facts[name])
        setattr(model.get_submodule(parent), last, new)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(groups(model, config), config)
    losses = []
    for step, batch in enumerate(batches):
        loss = batch_loss(model, [rows[i] for i in batch])
        loss.backward()
        if config.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(config, step, len(batches)) * group["ratio"]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def sizes(config, site):
    """The rank and the multiplier at a site. Where there are patterns, alphas are plain numbers, PEFT's lora_alpha."""
    if not config.rank_pattern and not config.alpha_pattern:
        return config.rank, config.scaling
    rank, alpha = config.rank, config.alpha
    for entry in reversed(config.rank_pattern):
        if site.endswith(entry.split("=")[0]):
            rank = int(entry.split("=")[1])
    for entry in reversed(config.alpha_pattern):
        if site.endswith(entry.split("=")[0]):
            alpha = entry.split("=")[1]
    return rank, float(alpha) / rank if config.alpha_pattern else config.scaling


def groups(model, config):
    """LoRA+ (Hayou et al. 2024): B, and DoRA's m, learn at a multiple of the rate. Norms and biases do not decay."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if config.method == "full_all":
        vectors = [parameter for _, parameter in named if parameter.dim() == 1]
        others = [parameter for _, parameter in named if parameter.dim() > 1]
        return [{"params": others, "ratio": 1.0}, {"params": vectors, "ratio": 1.0, "weight_decay": 0.0}]
    fast = [parameter for name, parameter in named if name.endswith((".B", ".m"))]
    slow = [parameter for name, parameter in named if not name.endswith((".B", ".m"))]
    both = [{"params": slow, "ratio": 1.0}, {"params": fast, "ratio": config.loraplus_lr_ratio}]
    return [group for group in both if group["params"]]


def batch_loss(model, batch):
    """Mean cross entropy over all target tokens of the batch, one row at a time, no padding."""
    total, count = 0.0, 0
    for ids, prompt_length in batch:
        logits = model(input_ids=torch.tensor([ids])).logits[0]
        for t in range(max(prompt_length, 1), len(ids)):
            total = total - torch.log_softmax(logits[t - 1], -1)[ids[t]]
            count += 1
    return total / count


def schedule(config, step, num_steps):
    """The learning-rate factor, written out case by case."""
    warmup = config.warmup_steps or math.ceil(config.warmup_ratio * num_steps)
    if step < warmup:
        return step / warmup
    if config.lr_scheduler_type == "constant":
        return 1.0
    done = (step - warmup) / (num_steps - warmup)
    if config.lr_scheduler_type == "linear":
        return 1 - done
    if config.lr_scheduler_type == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return config.lr_floor + (1 - config.lr_floor) * (1 + math.cos(math.pi * done)) / 2


class SignSGD(torch.optim.Optimizer):
    """Signum with decoupled decay."""

    def __init__(self, parameters, lr, momentum, weight_decay):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                buffer = self.state[parameter].setdefault("buffer", torch.zeros_like(parameter))
                buffer.copy_(group["momentum"] * buffer + (1 - group["momentum"]) * parameter.grad)
                parameter.sub_(group["lr"] * group["weight_decay"] * parameter + group["lr"] * torch.sign(buffer))


def make_optimizer(parameters, config):
    """The optimizer of a configuration, from torch where torch has it."""
    if config.optimizer == "sign_sgd":
        return SignSGD(parameters, config.learning_rate, config.momentum, config.weight_decay)
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
    beta2 = config.beta2
    if config.beta2_batch_size is not None:
        beta2 = beta2 ** (config.batch_size / config.beta2_batch_size)
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=(config.beta1, beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )
