"""Sites: the linear weights of a model that can be adapted, and the reasons for which a model is refused.

A site is an `nn.Linear` or GPT-2's `Conv1D` (fused query-key-value projections included) inside the decoder's blocks.
Output heads and embeddings are no sites. A model is refused where its linear sites cover under 90 % of its
non-embedding weights, or where a module reorders tokens (mixture of experts): a pack would mix its trials there.
"""

from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from welltuned.errors import InputError, suggestion
from welltuned.models.quantised import QuantisedLinear

MIN_COVERAGE = 0.9  # design: issue of the first release; below it "all-linear" would not mean what it says
EXPERT_WORDS = ("expert", "moe", "router")


def find(model: PreTrainedModel, target_modules: tuple[str, ...]) -> dict[str, nn.Module]:
    """Return the sites chosen by `target_modules`: ("all-linear",), or last or dotted parts of module names."""
    linear = linear_modules(model)
    refuse_unfit(model, linear)
    if target_modules == ("all-linear",):
        return linear
    chosen: dict[str, nn.Module] = {}
    problems = []
    kinds = sorted({name.rpartition(".")[2] for name in linear})
    for target in target_modules:
        matched = {name: module for name, module in linear.items() if name == target or name.endswith("." + target)}
        if not matched:
            problems.append(_unmatched(model, target, kinds))
        chosen |= matched
    if problems:
        raise InputError(problems)
    return {name: module for name, module in linear.items() if name in chosen}


def linear_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return every linear module by name, the output head left out, in the model's order."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) in (nn.Linear, Conv1D, QuantisedLinear) and module is not head
    }


def _unmatched(model: PreTrainedModel, target: str, kinds: list[str]) -> str:
    modules = dict(model.named_modules())
    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    hit = [name for name, module in modules.items() if (name == target or name.endswith("." + target)) and name]
    if any(modules[name] in embeddings for name in hit):
        tied = " tied" if model.config.get_text_config().tie_word_embeddings else ""
        return (
            f"model.target_modules: got '{target}', which is an embedding or output head{tied}; expected linear "
            f"modules of the blocks; choose among {', '.join(kinds)}"
        )
    return f"model.target_modules: got '{target}', which matches no linear module; {suggestion(target, kinds)}"


def refuse_unfit(model: PreTrainedModel, linear: Mapping[str, nn.Module]) -> None:
    """Raise InputError, with every reason, where packed training of this model could not be exact."""
    reasons = []
    experts = sorted({type(module).__name__ for module in model.modules() if _is_expert(module)})
    if experts:
        reasons.append(f"it routes tokens between experts ({', '.join(experts)}), which reorders the rows of a pack")
    covered, total, others = coverage(model, linear)
    if total == 0 or covered / total < MIN_COVERAGE:
        share = 0 if total == 0 else covered / total
        reasons.append(
            f"its linear modules hold {share:.0%} of its non-embedding weights, expected at least {MIN_COVERAGE:.0%}; "
            f"the largest others: {', '.join(others[:5]) or 'none'}"
        )
    if not model.config.is_encoder_decoder and not reasons:
        return
    if model.config.is_encoder_decoder:
        reasons.append("it is an encoder-decoder, not a causal language model")
    raise InputError(
        [
            f"model.base: {type(model).__name__} cannot be trained in packs: {reason}; choose a dense causal model"
            for reason in reasons
        ]
    )


def _is_expert(module: nn.Module) -> bool:
    return any(word in type(module).__name__.lower() for word in EXPERT_WORDS)


def head_size(model: PreTrainedModel) -> int:
    """Count the output head's weights."""
    head = model.get_output_embeddings()
    return 0 if head is None else sum(parameter.numel() for parameter in head.parameters())


def coverage(model: PreTrainedModel, linear: Mapping[str, nn.Module]) -> tuple[int, int, list[str]]:
    """Return (weights in linear modules, all non-embedding weights, names of the other large ones, largest first)."""
    excluded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = model.get_output_embeddings()
    if head is not None:
        excluded |= {id(parameter) for parameter in head.parameters()}
    inside = {id(parameter) for module in linear.values() for parameter in module.parameters()}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if id(parameter) not in excluded}
    covered = sum(parameter.numel() for name, parameter in model.named_parameters() if id(parameter) in inside)
    outside = [name for name, parameter in model.named_parameters() if name in sizes and id(parameter) not in inside]
    return covered, sum(sizes.values()), sorted(outside, key=lambda name: -sizes[name])
