"""What a method is: a function of the frozen base weight, cut into an initialisation and a parametrisation.

Shape letters, here and in the method files: N trials, S token slots (rows x tokens), I in, O out, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Generator, Tensor

State = dict[str, "Tensor"]


@dataclass(frozen=True)
class Parametrisation:
    """How trained tensors, stacked over the N trials of a group, act on the frozen base.

    `trained` names the tensors that get gradients; `anchors` those that are kept as they were at step 0. `shape(name,
    O, I, R)` is one trial's shape. `apply(y_NSO, x_NSI, state, scaling_N)` returns the adapted output, given the
    base's y = W x. `decayed[name]` says what weight decay pulls to zero: the trained tensor itself (""), the sum with
    an anchor's tensor (its name), or the sum with the base weight ("base"). `delta(state, scaling)` is one trial's
    change of the weight, [O, I], for merging.
    """

    name: str
    trained: tuple[str, ...]
    anchors: tuple[str, ...]
    shape: Callable[[str, int, int, int], tuple[int, ...]]
    apply: Callable[[Tensor, Tensor, Mapping[str, Tensor], Tensor], Tensor]
    decayed: Mapping[str, str]
    delta: Callable[[Mapping[str, Tensor], float], Tensor]


@dataclass(frozen=True)
class Method:
    """A method plug-in.

    `analyse(W_OI)` is work on the weight that all trials of a site share (an SVD), or None. `init(W_OI, analysis,
    rank, scaling, generator)` returns one trial's tensors, trained and anchors, in at least float32; the function they
    define at step 0 is exactly the base's. `deterministic` says that `init` ignores the generator. `version` changes
    whenever a result could.
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
    analyse: Callable[[Tensor], Any] | None = None
