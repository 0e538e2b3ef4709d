"""What some methods take from the first rows before training, the plain way: one row at a time, no padding."""

import copy

import torch

from reference.train import batch_loss


def look(model, sites, rows):
    """Return, by site, the gradient [O, I] of the mean loss and the inputs [K, I] at target tokens."""
    model = copy.deepcopy(model)
    facts = {site: {"inputs": []} for site in sites}
    hooks = []
    for site in sites:
        module = model.get_submodule(site)
        module.weight.requires_grad_()
        hooks.append(
            module.register_forward_pre_hook(lambda _, inputs, seen=facts[site]["inputs"]: seen.append(inputs[0][0]))
        )
    batch_loss(model, rows).backward()
    for hook in hooks:
        hook.remove()
    for site in sites:
        module = model.get_submodule(site)
        gradient = module.weight.grad
        facts[site]["gradient"] = gradient if isinstance(module, torch.nn.Linear) else gradient.T
        kept = [
            inputs[max(prompt, 1) : len(ids)].detach()
            for inputs, (ids, prompt) in zip(facts[site]["inputs"], rows, strict=True)
        ]
        facts[site]["inputs"] = torch.cat(kept)
    shapes = [facts[site]["gradient"].shape for site in sites]
    for site in sites:
        facts[site]["largest"] = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    return facts
