"""What curvature says, as numbers: one row for each block, and each method's median ratio to LoRA.

Rows come from `welltuned curvature` (curvature/survey.py) and are stored as JSON lines; nothing here loads torch.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from welltuned.errors import InputError, problem
from welltuned.records import Config

Key = tuple[str, str, int, str]  # base, method, rank, alpha policy
LINES = "rows.jsonl"
JOINT = "joint"  # the block of all trained tensors of a trial
PUBLISHED_MODEL = "Qwen3-0.6B-Base, MetaMath, rank 128"
# Median ratios of the largest eigenvalue to LoRA's over 28 layers: arXiv 2602.04998, read off its heat maps.
PUBLISHED = {
    "q_proj": {"init_ab": 1.79, "milora": 2.09, "pissa": 11.8, "olora": 60.0, "lora_ga": 60.0},
    "k_proj": {"init_ab": 1.92, "milora": 0.77, "pissa": 8.5, "olora": 17.8, "lora_ga": 47.0},
}
ADAM_FACTOR = 38.0  # (2 + 2 beta1) / (1 - beta1) at beta1 = 0.9: Cohen et al. 2022, arXiv 2207.14484, equation 3


@dataclass(frozen=True)
class BlockRow:
    """What was measured of one block: one trial's trained tensors at one site, or at all ("joint")."""

    trial: str  # its id; at the start, of what the start depends on
    method: str
    rank: int
    alpha: str
    step: int  # optimizer steps behind it; 0: the start, where neither batch size nor learning rate matters
    batch_size: int | None  # None at the start, as the next
    learning_rate: float | None
    block: str  # the site's name, or "joint"
    scaling: float | None  # the multiplier of B A x; None of all sites together
    num_numbers: int
    num_rows: int
    num_tokens: int  # target tokens of the rows
    loss_nats: float
    hessian_max: float
    hessian_max_error: float  # at most, if the spectrum has no eigenvalue that Lanczos missed
    hessian_min: float
    hessian_min_error: float
    gauss_newton_max: float
    gauss_newton_max_error: float
    preconditioned_max: float | None  # of P^-1 H with Adam's P; None at the start
    preconditioned_max_error: float | None
    sign_curvature: float  # s' H s, s = sign(g)
    gradient_l1: float
    gradient_norm: float
    noise_trace: float | None  # of one row's gradient
    weight_gradient_norm: float | None  # ||dL/dW||_2 of the site; None of all sites together
    num_products: int
    converged: bool

    @property
    def module(self) -> str:
        """Return the last part of the site's name."""
        return self.block.rpartition(".")[2]

    @property
    def layer(self) -> int | None:
        """Return the first number in the site's name; None where there is none."""
        return next((int(part) for part in self.block.split(".") if part.isdigit()), None)

    @property
    def key(self) -> tuple[object, ...]:
        """Return what tells the row from all others of its measurement."""
        return (self.trial, self.step, self.block)

    @property
    def noise_scale(self) -> float | None:
        """Return tr(Sigma) / |G|^2 in rows (McCandlish et al. 2018, B_simple), |G|^2 without its bias.

        None where one row was measured, or where the noise leaves nothing of |G|^2.
        """
        if self.noise_trace is None:
            return None
        signal = self.gradient_norm**2 - self.noise_trace / self.num_rows
        return self.noise_trace / signal if signal > 0 else None

    @property
    def sign_step(self) -> float | None:
        """Return |g|_1 / (s' H s), the best step along the sign of the gradient; None where the loss bends down."""
        return self.gradient_l1 / self.sign_curvature if self.sign_curvature > 0 else None

    def gradient_rms(self, batch_size: int) -> float | None:
        """Return the root mean square of a batch's gradient over the block's numbers: one number for Adam's P."""
        if self.noise_trace is None:
            return None
        signal = max(0.0, self.gradient_norm**2 - self.noise_trace / self.num_rows)
        square = (signal + self.noise_trace / batch_size) / self.num_numbers
        return math.sqrt(square) if square > 0 else None

    @property
    def adam_ceiling(self) -> float | None:
        """Return 38 / lambda_max(P^-1 H), the learning rate at which Adam with P frozen is no longer stable."""
        top = self.preconditioned_max
        return ADAM_FACTOR / top if top is not None and top > 0 else None

    def text(self) -> str:
        """Return the row as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @staticmethod
    def parse(text: str) -> "BlockRow":
        """Rebuild a row from `text()`."""
        return BlockRow(**json.loads(text))


def read(path: Path) -> tuple[tuple[str, ...], tuple[BlockRow, ...]]:
    """Read what `welltuned curvature` has left: the base and data that were looked at, and the rows.

    `path` is its folder or its file. Raises InputError where there is none, or where it is another kind of file.
    """
    file = path / LINES if path.is_dir() else path
    advice = "run `welltuned curvature` on the study first, with --blocks joint"
    if not file.is_file():
        raise InputError(problem("search.curvature", str(path), f"a folder with {LINES}, or such a file", advice))
    try:
        first, *rest = file.read_text(encoding="utf-8").splitlines(keepends=True)
        lines = [line for line in rest if line.endswith("\n")]  # a kill leaves half a line
        return tuple(json.loads(first)["problem"]), tuple(BlockRow.parse(line) for line in lines)
    except (ValueError, KeyError, TypeError):
        raise InputError(problem("search.curvature", str(file), f"the {LINES} of a measurement", advice)) from None


def largest(path: Path, configs: Sequence[Config]) -> dict[Key, float]:
    """Return the largest eigenvalue of each base, method, rank and alpha policy, at the start, all numbers together.

    Raises InputError with a line for everything that was not measured, or was on another base or other data.
    """
    measured, rows = read(path)
    found = {(row.method, row.rank, row.alpha): row.hessian_max for row in rows if row.block == JOINT and row.step == 0}
    problems: dict[str, None] = {}
    eigenvalues: dict[Key, float] = {}
    advice = "run `welltuned curvature` on this study with --blocks joint, and name the folder that it prints"
    for config in configs:
        here = (config.method, config.rank, config.alpha)
        if tuple(str(part) for part in config.data_key()) != measured:
            got = "a measurement on another base, other data or another number of validation or test rows"
            problems[problem("search.curvature", got, "one on this study's", advice)] = None
        elif found.get(here, 0.0) <= 0:
            expected = f"a row of {config.method}, rank {config.rank}, alpha {config.alpha}, block joint"
            problems[problem("search.curvature", str(path), expected, advice)] = None
        else:
            eigenvalues[key_of(config)] = found[here]
    if problems:
        raise InputError(problems)
    return eigenvalues


def key_of(config: Config) -> Key:
    """Return what a configuration's curvature at the start depends on."""
    return config.base, config.method, config.rank, config.alpha


@dataclass(frozen=True)
class Ratio:
    """A method's median ratio to LoRA over the blocks of one module, at one rank."""

    module: str
    method: str
    rank: int
    median: float
    low: float  # smallest and largest of the blocks
    high: float
    num_blocks: int
    gauss_newton: float | None  # the median ratio of Gauss-Newton's largest eigenvalue
    published: float | None  # of another model (PUBLISHED_MODEL)


def ratios(rows: Sequence[BlockRow], baseline: str = "lora") -> tuple[Ratio, ...]:
    """Return each method's ratios to the baseline at the start, block by block, at equal rank and multiplier."""
    start = [row for row in rows if row.step == 0]
    base = {(row.block, row.rank, row.alpha): row for row in start if row.method == baseline}
    pairs: dict[tuple[str, str, int], list[tuple[BlockRow, BlockRow]]] = {}
    for row in start:
        other = base.get((row.block, row.rank, row.alpha))
        if row.method != baseline and other is not None and other.hessian_max > 0:
            pairs.setdefault((row.module, row.method, row.rank), []).append((row, other))
    return tuple(_ratio(*key, members) for key, members in pairs.items())


def _ratio(module: str, method: str, rank: int, pairs: Sequence[tuple[BlockRow, BlockRow]]) -> Ratio:
    found = [row.hessian_max / other.hessian_max for row, other in pairs]
    curved = [row.gauss_newton_max / other.gauss_newton_max for row, other in pairs if other.gauss_newton_max > 0]
    return Ratio(
        module=module,
        method=method,
        rank=rank,
        median=statistics.median(found),
        low=min(found),
        high=max(found),
        num_blocks=len(found),
        gauss_newton=statistics.median(curved) if curved else None,
        published=PUBLISHED.get(module, {}).get(method),
    )
