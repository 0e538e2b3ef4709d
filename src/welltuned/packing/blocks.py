"""The decoder's blocks, compiled: `torch.compile` fuses what lies between the matmuls, once for all blocks of a model.

All blocks of a decoder run the same code on tensors of the same shapes, so one compilation serves them all; it is made
for lines and rows of any length (unpadded.py), and for any number of trials but one. On a CPU this needs a C++
compiler; without one the blocks run as they are. What calls the compiled kernels is C++ there, too: it lets other
threads run Python meanwhile (train/crew.py). The compiler keeps a limited number of graphs for the life of a process
and then runs others uncompiled: every pack begins anew (`begin`), so that what it computes does not depend on packs
before it (but on the compiler's cache on disk, should that hold code that was made in view of other sizes).
"""

import functools
import importlib
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as symbolic
from torch.utils import _pytree as pytree
from torch.utils._triton import has_triton
from torch.utils.checkpoint import checkpoint

from welltuned.models.base import Base
from welltuned.models.unpadded import Places, bound

COMPILERS = ("g++", "clang++", "c++")
MOST_GRAPHS = 64  # of one pack, at most: other numbers of groups or strands, and a group of one trial, count once more


def available(device: torch.device) -> bool:
    """Say whether blocks can be compiled here: a CPU takes a C++ compiler, a GPU Triton."""
    return any(shutil.which(name) for name in COMPILERS) if device.type == "cpu" else has_triton()


def get_ready(device: torch.device) -> None:
    """Let the compiler try the processor's vector instructions meanwhile: for that it compiles some lines.

    Where its cache is empty that takes 7 of the 28 s of a compilation (measured, two AMD cores), and is not needed
    before the base is loaded and the blocks are traced. What it finds is the same, in whichever thread. All modules
    are imported here, since two threads that import modules which need each other may see half of one.
    """
    if device.type == "cpu" and available(device):
        for name in ("torch._inductor.compile_fx", "torch.utils.cpp_extension"):
            importlib.import_module(name)
        instructions = importlib.import_module("torch._inductor.cpu_vec_isa")
        threading.Thread(target=instructions.pick_vec_isa, daemon=True).start()


class Blocks:
    """The blocks of a base's decoder: run as they are, compiled, or computed again in the backward pass."""

    def __init__(self, base: Base) -> None:
        self.modules, self.device = _find(base), base.device
        self.forwards: list[Callable[..., Any]] = []

    def begin(self) -> None:
        """Let a pack be compiled anew; code of the same shapes comes out of the compiler's cache on disk."""
        torch._dynamo.reset()
        torch._dynamo.config.recompile_limit = MOST_GRAPHS
        # Strides and offsets that happen to be equal in the first micro-step are not taken to be the same.
        symbolic.use_duck_shape = False
        options: dict[str, Any] = {"cpp_wrapper": True} if self.device.type == "cpu" else {}
        self.forwards = [torch.compile(block.forward, dynamic=False, options=options) for block in self.modules]

    @contextmanager
    def running(self, compiled: bool, recompute: bool, places: Places | None = None) -> Iterator[None]:
        """Run the blocks inside this context compiled, or computed again in the backward pass, or both.

        `places` are those of the lines that are read there.
        """
        if not compiled and not recompute:
            yield
            return
        forwards = self.forwards if compiled else [block.forward for block in self.modules]
        for block, forward in zip(self.modules, forwards, strict=True):
            block.forward = _recomputed(forward, places) if recompute else forward
        hooks = [block.register_forward_pre_hook(_with_gradient) for block in self.modules[:1]]
        if compiled:
            hooks += [block.register_forward_pre_hook(_any_size, with_kwargs=True) for block in self.modules]
            for tensor in () if places is None else vars(places).values():
                torch._dynamo.maybe_mark_dynamic(tensor, (0, 1))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for block in self.modules:
                del block.forward


@contextmanager
def no_compiling() -> Iterator[None]:
    """Let threads run compiled blocks inside this context; a block without code that fits raises (`asks_to_compile`).

    While one thread compiles, another must not run what is compiled: the compiler tells the two apart in one place for
    all threads.
    """
    with torch.compiler.set_stance("fail_on_recompile"):
        yield


def asks_to_compile(error: BaseException) -> bool:
    """Say whether a block would have had to be compiled."""
    return isinstance(error, RuntimeError) and "fail_on_recompile" in str(error)


def _recomputed(forward: Callable[..., Any], places: Places | None) -> Callable[..., Any]:
    """Return a forward that keeps its input only; dropout is a counter, so that computed again it is the same.

    A GPU's backward pass runs in a thread of its own, which has to be told of the places of lines.
    """
    settings: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    return functools.partial(checkpoint, forward, **settings, context_fn=lambda: (nullcontext(), bound(places)))


def _find(base: Base) -> list[nn.Module]:
    """Return the decoder's blocks: the members of the module list that holds most of the sites."""
    held = {
        name: sum(site.startswith(name + ".") for site in base.sites)
        for name, module in base.model.named_modules()
        if isinstance(module, nn.ModuleList)
    }
    if not held:
        return []
    blocks = base.model.get_submodule(max(held, key=lambda name: (held[name], -len(name))))
    return list(blocks.children())


def _with_gradient(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Give the frozen embeddings a gradient, so that the first block is no special case to the compiler."""
    del block
    if inputs[0].is_leaf:
        inputs[0].requires_grad_(torch.is_grad_enabled())


def _any_size(block: nn.Module, inputs: tuple[Tensor, ...], others: dict[str, Any]) -> None:
    """Tell the compiler what sizes lines have: hidden states and positions are [L, S, ...], masks [L, 1, S, S].

    A size of the model that is equal by chance is not named: lines of another length would be compiled once more.
    """
    del block
    for leaf in pytree.tree_leaves((inputs, others)):
        if isinstance(leaf, Tensor):
            sizes = inputs[0].shape[:2]
            places = ((0, 0), (2, 1), (3, 1)) if leaf.dim() == 4 else ((0, 0), (1, 1))
            named = [place for place, size in places if leaf.shape[place : place + 1] == sizes[size : size + 1]]
            torch._dynamo.maybe_mark_dynamic(leaf, named)


def any_number(tensors: Iterable[Tensor]) -> None:
    """Tell the compiler that these are of any number of trials, their first size."""
    for tensor in tensors:
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
