"""What a method is: a function of the frozen base weight, cut into an initialisation and a parametrisation.

Shape letters, here and in the method files: N trials, S token slots (rows x tokens), I in, O out, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from welltuned.errors import InputError

if TYPE_CHECKING:
    from torch import Generator, Tensor

State = dict[str, "Tensor"]


@dataclass
class Frozen:
    """The frozen layer that a parametrisation adds to, for one call."""

    num_out: int
    weight: Callable[[], Tensor]  # [O, I]; called only where it is needed: a base in 8 bits makes it anew each time
    multiply: Callable[[Tensor], Tensor]  # x -> W x; of a base in 8 bits no dense weight is kept for the backward pass
    input_NSI: Tensor | None = None  # what the layer itself reads: x, unless that has lost entries to dropout
    product_NSO: Tensor | None = None  # W x of what the layer reads, once it has been asked for

    @property
    def weight_OI(self) -> Tensor:
        """Return the weight, [O, I]."""
        return self.weight()

    def product(self, x_NSI: Tensor) -> Tensor:
        """Return W x, which must not be written to: the layer's own output may be made of it."""
        if x_NSI is not self.input_NSI:
            return self.multiply(x_NSI)
        if self.product_NSO is None:
            self.product_NSO = self.multiply(x_NSI)
        return self.product_NSO


@dataclass(frozen=True)
class Context:
    """What an initialisation may know of a site beside its weight; of the last two the one that the method asks for."""

    largest_out: int  # over all adapted sites
    largest_in: int
    gradient_OI: Tensor | None = None  # of the mean loss of the samples' target tokens, with respect to W
    covariance_II: Tensor | None = None  # of the site's inputs at the samples' target tokens, their mean removed


@dataclass(frozen=True)
class Parametrisation:
    """How trained tensors, stacked over the N trials of a group, act on the frozen base.

    `trained` names the tensors that get gradients; `anchors` those that are kept as they were at step 0. `shape(name,
    O, I, R)` is one trial's shape. `apply(x_NSI, state, scaling_N, frozen)` returns the change of the output [N, S, O],
    a new tensor: W x + bias are added into it, and the sum is rounded once (models/summed.py). `decayed[name]` says
    what weight decay pulls to zero: the trained tensor itself (""), the sum with an anchor's tensor (its name), the sum
    with the base weight ("base"), or nothing ("none").
    `delta(state, scaling, W_OI)` is one trial's change of the weight, [O, I], for merging. `fast` are the tensors that
    LoRA+ gives the larger rate. `whole` says that it acts on every parameter of the model, sites or not, in a pack of
    one trial (packing/whole.py). `shared` are anchors that are the first rows and columns of one tensor at all sites.
    `keeps_output` says that W x is kept for the backward pass, at every site (memory: costs/memory.py).
    `padded` says that zeros make a trial's tensors those of a higher rank; else only trials of one rank share a group.
    """

    name: str
    trained: tuple[str, ...]
    anchors: tuple[str, ...]
    shape: Callable[[str, int, int, int], tuple[int, ...]]
    apply: Callable[[Tensor, Mapping[str, Tensor], Tensor, Frozen], Tensor]
    decayed: Mapping[str, str]
    delta: Callable[[Mapping[str, Tensor], float, Tensor], Tensor]
    fast: tuple[str, ...] = ()
    whole: bool = False
    keeps_output: bool = False
    shared: tuple[str, ...] = ()
    padded: bool = True


def _none(num_out: int, num_in: int, rank: int) -> int:
    """Say that a token meets no weights beside W and the trained ones."""
    del num_out, num_in, rank
    return 0


def _fits(num_out: int, num_in: int, rank: int) -> str:
    """Say that any rank up to the full one can be adapted."""
    del num_out, num_in, rank
    return ""


@dataclass(frozen=True)
class Method:
    """A method plug-in.

    `analyse(W_OI, context)` is work on the weight that all trials of a site share (an SVD), or None. `init(W_OI,
    analysis, rank, scaling, generator)` returns one trial's tensors, trained and anchors, in at least float32; the
    function they define at step 0 is exactly the base's. `deterministic` says that `init` ignores the generator;
    `shared_stream` that the generator starts alike at every site. `samples` is the number of training rows that the
    context is computed from, and `looks_at` what of them: "gradient" or "inputs". `misfit(O, I, R)` says why a site
    cannot be adapted, or "". `num_frozen(O, I, R)` counts the frozen weights that a token is multiplied with beside W;
    `num_kept(O, I, R)` the values that it keeps for the backward pass, where these are not its rank (of both A's where
    anchored).
    `with_init(source)` is this method started by another's initialisation, "dora+pissa" in a
    study. `version` changes whenever a result could.
    """

    summary: str
    paper: str
    formula: str
    version: int
    uses_rank: bool
    deterministic: bool
    parametrisation: Callable[[], Parametrisation]
    num_trainable: Callable[[int, int, int], int]
    init: Callable[[Tensor, Any, int, float, Generator], State]
    analyse: Callable[[Tensor, Context], Any] | None = None
    uses_alpha: bool = True
    shared_stream: bool = False
    samples: int = 0
    looks_at: str = "gradient"
    misfit: Callable[[int, int, int], str] = _fits
    num_frozen: Callable[[int, int, int], int] = _none
    num_kept: Callable[[int, int, int], int] | None = None
    with_init: Callable[[Method], Method] | None = None
    trains: str = ""  # what is trained, in a few words
    peft: str = ""  # what PEFT calls it; empty where PEFT has none
    advice: str = ""  # on the learning rate relative to LoRA's, with its source

    def started_by(self, source: Method, name: str) -> Method:
        """Return this method started by another's initialisation; InputError where one of the two cannot."""
        kinds = ("low_rank", "anchored")
        if self.with_init is None or source.parametrisation().name not in kinds:
            raise InputError(
                f"method: got '{name}', expected A+B where A takes another's initialisation (dora) and B starts a pair "
                "of factors (lora, pissa, olora, ...); name one method, or such a pair"
            )
        return self.with_init(source)
