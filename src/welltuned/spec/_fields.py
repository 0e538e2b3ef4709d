"""Every setting of a study file: its section, type, range and meaning, and its default, written here and nowhere else.

A field's name is unique across the sections and equals the one in `records.Config`, so it can be an axis by name alone.
A field whose default is None and that stands in REQUIRED must be given, in its section or as an axis.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from welltuned import plugins
from welltuned.errors import suggestion
from welltuned.transfer import alpha as policies

REQUIRED = ("base", "task", "num_train", "learning_rate")


@dataclass(frozen=True)
class Expected:
    """What an error message says about a type: what it expects, and one value that would do."""

    text: str
    example: object
    choices: tuple[str, ...] = ()


def _known(kind: str) -> Callable[[str], str]:
    """Refuse an unknown plug-in; one from outside, "module:NAME", is loaded when the study is planned."""

    def check(name: str) -> str:
        for part in name.split("+") if kind == "methods" else [name]:  # "dora+pissa": both must be known
            if ":" not in part and part not in plugins.names(kind):
                raise ValueError(suggestion(part, plugins.names(kind)))
        return name

    return check


def _none_word(value: object) -> object:
    """Read "none" as None, which TOML cannot write."""
    return None if value == "none" else value


def _names(value: Any) -> Any:
    """Read one name as a list of one, and order a list, since the order does not matter."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        return value
    names = cast("Sequence[Any]", value)
    return tuple(sorted(set(names))) if all(isinstance(name, str) for name in names) else names


def _paths(value: Any) -> Any:
    """Read one file as a list of one; the order of files is the order of rows and is kept."""
    if isinstance(value, str):
        return (value,)
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value


def _pattern(canonical: Callable[[str], object]) -> Callable[[Any], Any]:
    """Return a reader of "module=value" entries, whose order matters: the first that names a module holds."""

    def read(value: Any) -> Any:
        entries = (value,) if isinstance(value, str) else value
        if not isinstance(entries, list | tuple):
            return value
        return tuple(_entry(entry, canonical) for entry in cast("Sequence[Any]", entries))

    return read


def _entry(entry: Any, canonical: Callable[[str], object]) -> str:
    name, equals, value = str(entry).replace(" ", "").partition("=")
    if not name or not equals:
        raise ValueError("not an entry module=value")
    return f"{name}={canonical(value)}"


def _rank(text: str) -> int:
    rank = int(text)
    if rank < 1:
        raise ValueError("not a rank")
    return rank


NONE = BeforeValidator(_none_word)
Text = Annotated[str, Field(min_length=1), Expected("a text in quotes", "text")]
Flag = Annotated[bool, Expected("true or false", True)]
Count = Annotated[int, Field(ge=1), Expected("a whole number >= 1", 8)]
Whole = Annotated[int, Field(ge=0), Expected("a whole number >= 0", 0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), Expected("a finite number > 0", 1e-3)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), Expected("a finite number >= 0", 0.0)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), Expected("a number from 0 to 1", 0.1)]
BelowOne = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), Expected("a number >= 0 and < 1", 0.9)]
MaybeText = Annotated[str | None, NONE, Expected('a text in quotes, or "none"', "none")]
MaybeCount = Annotated[Count | None, NONE, Expected('a whole number >= 1, or "none"', "none")]
MaybeWhole = Annotated[Whole | None, NONE, Expected('a whole number >= 0, or "none"', "none")]
MaybePositive = Annotated[Positive | None, NONE, Expected('a finite number > 0, or "none"', "none")]
Alpha = Annotated[str, BeforeValidator(policies.canonical), Expected('"r", "2r", 16 or "16/sqrt(r)"', "r")]
Modules = Annotated[
    tuple[str, ...], BeforeValidator(_names), Field(min_length=1), Expected("a list of module names", ["all-linear"])
]
Paths = Annotated[tuple[str, ...], BeforeValidator(_paths), Expected("a file name or a list of them", "train.jsonl")]
RankPattern = Annotated[
    tuple[str, ...], BeforeValidator(_pattern(_rank)), Expected('a list like ["q_proj=4"]', ["q_proj=4"])
]
AlphaPattern = Annotated[
    tuple[str, ...],
    BeforeValidator(_pattern(policies.canonical)),
    Expected('a list like ["q_proj=2r"]', ["q_proj=2r"]),
]
Options = Annotated[
    dict[str, bool | int | float | str], Expected("a table like { multivariate = true }", {"multivariate": True})
]
MethodName = Annotated[str, AfterValidator(_known("methods")), Expected("the name of a method", "lora")]
TaskName = Annotated[str, AfterValidator(_known("tasks")), Expected("the name of a task", "abacus")]
SearchName = Annotated[str, AfterValidator(_known("searches")), Expected("the name of a search", "grid")]
DTYPES, TEMPLATES, SUBSETS = ("float32", "bfloat16", "float64"), ("none", "alpaca"), ("first", "seeded")
QUANTIZATIONS = ("none", "int8")
OPTIMIZERS, SCHEDULES = ("adamw", "sgd", "sign_sgd"), ("constant", "linear", "cosine", "cosine_with_floor")
Dtype = Annotated[Literal["float32", "bfloat16", "float64"], Expected("a dtype", "float32", DTYPES)]
Quantization = Annotated[Literal["none", "int8"], Expected("how weights are held", "none", QUANTIZATIONS)]
Template = Annotated[Literal["none", "alpaca"], Expected("a prompt template", "none", TEMPLATES)]
Subset = Annotated[Literal["first", "seeded"], Expected("a way to choose rows", "first", SUBSETS)]
Optimizer = Annotated[Literal["adamw", "sgd", "sign_sgd"], Expected("an optimizer", "adamw", OPTIMIZERS)]
Schedule = Annotated[
    Literal["constant", "linear", "cosine", "cosine_with_floor"], Expected("a schedule", "cosine", SCHEDULES)
]
METRICS = ("auto", "accuracy", "loss")
Metric = Annotated[Literal["auto", "accuracy", "loss"], Expected("a metric", "auto", METRICS)]


class Section(BaseModel):
    """A table of the study file: frozen, without unknown keys, and without silent conversions between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Model(Section):
    """The frozen base model that every trial adapts."""

    base: Annotated[str | None, Expected("a bundled name, a folder, a .gguf file or a hub name", "abacus-small")] = (
        Field(
            default=None,
            description="base model: a bundled name, a folder, a .gguf file, or a name on the Hugging Face hub",
        )
    )
    revision: MaybeText = Field(default=None, description="commit of a hub model; the one found is pinned and recorded")
    dtype: Dtype = Field(default="float32", description="of the frozen base and the activations; adapters are float32")
    quantization: Quantization = Field(
        default="none", description="int8: the frozen weights in 8 bits, for half of the memory; methods see these"
    )
    target_modules: Modules = Field(default=("all-linear",), description="names of the adapted modules, or all-linear")


class Task(Section):
    """What is learned, from which rows, and on which it is judged."""

    task: Annotated[TaskName | None, Expected("the name of a task", "abacus")] = Field(
        default=None, description="task plug-in: makes or reads the examples and grades the answers"
    )
    data_train: Paths = Field(
        default=(), description="training files or a hub data set; empty where the task makes its own"
    )
    data_validation: Paths = Field(default=(), description="validation files; empty: carved from the training rows")
    data_test: Paths = Field(default=(), description="test files; empty: carved from the training rows")
    prompt_template: Template = Field(default="none", description="text put around a prompt")
    num_train: Annotated[Count | None, Expected("a whole number >= 1", 2048)] = Field(
        default=None, description="training rows (samples of one epoch)"
    )
    subset: Subset = Field(default="first", description="which num_train rows: the first ones, or drawn by subset_seed")
    num_validation: Count = Field(default=256, description="validation rows: learning rates are selected on them")
    num_test: Count = Field(default=512, description="test rows: only frozen configurations are graded on them")
    split_seed: Whole = Field(default=0, description="seed that carves validation and test, before anything else")
    max_length: Annotated[int, Field(ge=2), Expected("a whole number >= 2", 256)] = Field(
        default=256, description="tokens of a row, prompt and completion; longer rows are truncated and counted"
    )


class Train(Section):
    """How one trial trains. Any of these can be an axis, for all methods or for one."""

    method: MethodName = Field(default="lora", description="fine-tuning method")
    rank: Count = Field(default=8, description="rank r of the adapter")
    alpha: Alpha = Field(
        default="r", description='lora_alpha: "r", "2r", a number, or "16/sqrt(r)"; multiplies B A x by alpha/r'
    )
    rank_pattern: RankPattern = Field(
        default=(), description='ranks of single modules, "q_proj=4"; the first entry that names a module holds'
    )
    alpha_pattern: AlphaPattern = Field(default=(), description='alpha policies of single modules, "q_proj=2r"')
    clamp_rank: Flag = Field(
        default=False, description="above a site's full rank, use the full rank instead of refusing"
    )
    dropout: BelowOne = Field(default=0.0, description="dropout on the adapter's input")
    start_from: MaybeText = Field(
        default=None, description="folder of a LoRA adapter to go on from; none: the method's own start"
    )
    start_step: Whole = Field(
        default=0,
        description="optimizer steps that start_from's trial has behind it: its moments and its place among the rows "
        "are gone on from; 0: a new trial from its numbers",
    )
    optimizer: Optimizer = Field(default="adamw", description="update rule")
    learning_rate: Annotated[Positive | None, Expected("a finite number > 0", 1e-3)] = Field(
        default=None, description="peak learning rate"
    )
    loraplus_lr_ratio: Positive = Field(
        default=1.0, description="LoRA+: learning rate of B, as a multiple of A's; 1 is plain LoRA"
    )
    batch_size: Count = Field(
        default=16, description="effective batch size in rows; never changed by the memory available"
    )
    beta1: BelowOne = Field(default=0.9, description="AdamW: decay of the first moment")
    beta2: BelowOne = Field(default=0.999, description="AdamW: decay of the second moment")
    beta2_batch_size: MaybeCount = Field(
        default=None, description="B0 of beta2^(B/B0); none: the same beta2 at every batch size"
    )
    epsilon: Positive = Field(default=1e-8, description="AdamW: epsilon")
    momentum: BelowOne = Field(default=0.9, description="SGD and sign-SGD: momentum")
    weight_decay: NotNegative = Field(
        default=0.0,
        description="decoupled weight decay, times the learning rate; of SGD the classical one, added to the gradient",
    )
    max_grad_norm: MaybePositive = Field(
        default=1.0, description="clip each trial's gradient to this norm; none: no clipping"
    )
    lr_scheduler_type: Schedule = Field(default="cosine", description="learning rate over the steps")
    lr_floor: Share = Field(default=0.1, description="cosine_with_floor: fraction of the peak it ends at")
    warmup_ratio: BelowOne = Field(default=0.0, description="linear warm-up, as a fraction of the steps")
    warmup_steps: Whole = Field(
        default=0, description="linear warm-up in steps; where > 0, used instead of warmup_ratio"
    )
    num_train_epochs: Count = Field(default=1, description="passes over the training rows")
    max_steps: MaybeCount = Field(
        default=None, description="train this many optimizer steps instead of num_train_epochs"
    )
    num_evaluations: Count = Field(
        default=4, description="validations, evenly spaced over the samples, the last at the end"
    )
    init_seed: MaybeWhole = Field(
        default=None, description="seed of the adapter's start; none: follows the trial's seed"
    )
    order_seed: MaybeWhole = Field(default=None, description="seed of the row order; none: follows the trial's seed")
    subset_seed: MaybeWhole = Field(default=None, description="seed of a seeded subset; none: follows the trial's seed")


class Search(Section):
    """How configurations are chosen, and how the chosen ones are confirmed."""

    search: SearchName = Field(default="grid", description="search plug-in")
    seeds: Annotated[int, Field(ge=1, le=1000), Expected("a whole number from 1 to 1000", 1)] = Field(
        default=1, description="selection seeds: each configuration is trained on seeds 0, 1, ..."
    )
    fresh_seeds: Whole = Field(default=3, description="reruns of each cell's winner, on seeds 1000, 1001, ...")
    keep_moments: Flag = Field(
        default=False,
        description="store the optimizer's moments with every adapter, so that an export can be continued exactly",
    )
    budget: MaybePositive = Field(
        default=None,
        description="what a search may spend on choosing, for each method within each problem: run-equivalents, the "
        "rows read by one full trial and its validations; none: grid, which trains all there is",
    )
    width: Count = Field(
        default=8, description="trials of each method that a search with a budget asks for at once, before it looks"
    )
    warm_start: Flag = Field(
        default=False,
        description="begin with the candidate that the learning-rate rules expect to be best; guided always does",
    )
    reopen: Flag = Field(
        default=True,
        description="search guided: go beyond the ends of the offered learning rates where the best may lie there",
    )
    curvature: MaybeText = Field(
        default=None,
        description="search guided: folder of `welltuned curvature --blocks joint`, whose largest eigenvalues say how "
        "the methods' and ranks' best learning rates differ; none: what is published of them",
    )
    sampler: Text = Field(default="TPESampler", description="search optuna: the sampler, a class of optuna.samplers")
    sampler_options: Options = Field(
        default={}, description="search optuna: the sampler's arguments, { multivariate = true }"
    )
    reserve: Whole = Field(
        default=0,
        description="more learning rates for each cell: outward from a best one on the edge, else beside the best",
    )


class Compare(Section):
    """What a verdict rests on, declared before the first run; it changes no trial."""

    baseline: MethodName = Field(default="lora", description="method that the others are judged against")
    metric: Metric = Field(
        default="auto", description="what is judged: test accuracy, validation loss; auto: accuracy where it is graded"
    )
    margin_points: MaybePositive = Field(
        default=None, description="points of accuracy that matter; none: 1 if the test items allow it, else 2"
    )
    margin_loss: Positive = Field(default=0.01, description="share of the baseline's loss that matters")
    retention: Paths = Field(
        default=(), description="text files; their loss before and after fine-tuning tells what was forgotten"
    )


SECTIONS: dict[str, type[Section]] = {
    "model": Model,
    "task": Task,
    "train": Train,
    "search": Search,
    "compare": Compare,
}
# Settings that came after the first studies were stored: their default is the value that changes nothing, and the
# canonical text leaves them out where they have it, so that older studies keep their hash (docs/decisions/0011).
LATER = frozenset(
    ("reserve", "budget", "width", "reopen", "curvature", "sampler", "sampler_options", *Compare.model_fields)
)
SEEDS = ("init_seed", "order_seed", "subset_seed")
AXES = {field: name for name in ("model", "task", "train") for field in SECTIONS[name].model_fields}  # field -> section


def expected(section: str, field: str) -> Expected:
    """Return what an error message says about a field."""
    metadata = SECTIONS[section].model_fields[field].metadata
    return next(item for item in reversed(metadata) if isinstance(item, Expected))


def default(field: str) -> Any:
    """Return the default of a setting that can be an axis."""
    return SECTIONS[AXES[field]].model_fields[field].default
