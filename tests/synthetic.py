"""Studies with a known truth: results whose losses follow a planted log-parabola for each method and batch size."""

import dataclasses
import json
import math
from dataclasses import dataclass, field

import a_config
from welltuned import rng
from welltuned.records import Declaration, Point, Result, Role, Status, Survey

BASE_NLL = 1.5
RATES = tuple(10 ** (exponent / 4) for exponent in range(-16, -5))  # 1e-4 to 3.2e-2, four to a decade

CONFIG = a_config.CONFIG.replace(
    num_train=2048,
    num_validation=256,
    num_test=200,
    max_length=256,
    rank=8,
    batch_size=16,
    lr_scheduler_type="cosine",
    warmup_ratio=0.03,
)

SURVEY = Survey(
    config_key="k",
    sites=(),
    num_parameters=900_000,
    num_base_weights=800_000,
    num_head_weights=60_000,
    hidden_size=128,
    num_layers=4,
    num_heads=4,
    vocab_size=512,
    num_train_available=4096,
    num_validation=256,
    num_test=200,
    mean_tokens=90.0,
    longest_tokens=140,
    mean_target_tokens=50.0,
    num_truncated=0,
    num_dropped=0,
    num_duplicates=0,
)

DECLARATION = Declaration(
    name="synthetic",
    spec_text='name = "synthetic"\nseed = 0\n',
    spec_hash="0123456789abcdef",
    cell=("method", "batch_size"),
    surveys=(SURVEY,),
    num_test_reads=0,
    num_lost=0,
    environments=(json.dumps({"torch": "2.13.0", "threads": 2}),),
)


@dataclass(frozen=True)
class Valley:
    """One method's truth: log10 of the best rate at batch 16, moved by `slope` with log2 of the batch over 16."""

    method: str
    best_log10: float
    floor: float = 0.4
    curvature: float = 0.5  # nats per squared decade
    slope: float = 0.15  # decades for each doubling of the batch; 0.15 is the square-root rule
    batch_penalty: float = 0.03  # nats for each doubling of the batch over 4
    diverge_log10: float = 0.0  # rates above it diverge


@dataclass(frozen=True)
class Design:
    """What a synthetic study holds."""

    valleys: tuple[Valley, ...] = (
        Valley("lora", -2.5, diverge_log10=-1.6),
        Valley("milora", -2.6, floor=0.405, diverge_log10=-1.6),
        Valley("pissa", -3.1, floor=0.41, diverge_log10=-1.9),
    )
    batches: tuple[int, ...] = (4, 16, 64)
    rates: tuple[float, ...] = RATES
    seeds: int = 1
    fresh_seeds: int = 3
    noise: float = 0.0  # sd of the loss over seeds
    graded: bool = True
    num_items: int = 200
    changes: dict[str, object] = field(default_factory=dict)


def truth(valley: Valley, batch: int) -> float:
    """Return log10 of the planted optimal learning rate."""
    return valley.best_log10 + valley.slope * math.log2(batch / 16)


def nll(valley: Valley, batch: int, rate: float) -> float:
    """Return the planted loss, never above the base's."""
    away = math.log10(rate) - truth(valley, batch)
    floor = valley.floor + valley.batch_penalty * math.log2(batch / 4)
    return min(floor + valley.curvature * away**2, BASE_NLL)


def study(design: Design | None = None) -> tuple[tuple[Result, ...], Declaration]:
    """Return the results of a finished study of this design, and its declaration."""
    design = design or Design()
    results: list[Result] = []
    for valley in design.valleys:
        for batch in design.batches:
            losses: dict[float, float] = {}
            for rate in design.rates:
                seeds = [trial(design, valley, batch, rate, seed, Role.SELECT) for seed in range(design.seeds)]
                losses[rate] = sum(one.validation_nll or 0.0 for one in seeds) / len(seeds)
                results += seeds
            best = min(losses, key=losses.__getitem__)
            results += [
                trial(design, valley, batch, best, 1000 + seed, Role.CONFIRM) for seed in range(design.fresh_seeds)
            ]
    return tuple(results), DECLARATION


def trial(design: Design, valley: Valley, batch: int, rate: float, seed: int, role: Role) -> Result:
    """Return one trial of the planted valley."""
    config = dataclasses.replace(
        CONFIG.replace(method=valley.method, batch_size=batch, learning_rate=rate),
        **{"init_seed": seed, "order_seed": seed, "subset_seed": seed, **design.changes},
    )
    random = rng.stream(0, "synthetic", valley.method, batch, str(rate), seed)
    diverged = math.log10(rate) > valley.diverge_log10
    loss = BASE_NLL if diverged else nll(valley, batch, rate) + design.noise * float(random.normal())
    num_steps = 3 if diverged else config.num_train // batch
    correct = None
    if role is Role.CONFIRM and design.graded and not diverged:
        share = max(0.02, 1.2 - 1.1 * loss)
        correct = tuple(bool(draw < share) for draw in random.random(design.num_items))
    num_tokens = 90 * num_steps * batch
    return Result(
        trial_id=config.id(),
        role=role,
        config=config,
        status=Status.DIVERGED if diverged else Status.FINISHED,
        reason="training loss above the threshold" if diverged else "",
        curve=(Point(config.id(), 0, 0, 0, 0.0, None, BASE_NLL),),
        num_steps=num_steps,
        num_tokens=num_tokens,
        seconds=num_tokens / (16_000.0 + 2_500 * math.log2(batch)),
        pack_id="pack",
        num_pack=11,
        clip_fraction=0.25,
        validation_nll=loss,
        base_validation_nll=BASE_NLL,
        test_correct=correct,
        adapter=None if diverged else "a" * 64,
        num_trainable=24_576,
    )
