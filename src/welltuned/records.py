"""The frozen values that cross borders between the stages; they hold data and no behaviour beyond reading it.

`Config` is everything that decides a trial's result; its hash is the trial's id, so that equal work has one name.
`Job` is what a worker is asked to do; `Event` is what it answers; `Result` is what an analysis reads.
"""

import dataclasses
import enum
import hashlib
import json
from dataclasses import dataclass
from typing import Any


class Status(enum.StrEnum):
    """How a trial ended. DIVERGED is the method's fault and counts; LOST is the machine's fault and is run again."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    STOPPED = "stopped"
    LOST = "lost"


class Role(enum.StrEnum):
    """What a trial is for: SELECT trials choose a configuration, CONFIRM trials rerun the chosen one on fresh seeds.

    PROBE trials have a shorter course of their own (max_steps), which tells a search where to look. Their losses are
    never ranked beside those of full trials, so no analysis of a study's results reads them.
    """

    SELECT = "select"
    PROBE = "probe"
    CONFIRM = "confirm"


@dataclass(frozen=True)
class Config:
    """Everything that decides a trial's result. Defaults live in spec.py; here every field is required.

    But for those that came after the first studies were stored: their default is the value that changes nothing, and
    `text` leaves it out, so that finished trials keep their ids and old stores are read.
    """

    study_seed: int
    # the base model
    base: str  # bundled name ("abacus-small"), folder, hub name, or path of a .gguf file
    revision: str | None  # hub commit, pinned; None elsewhere
    base_hash: str  # of the weights' bytes
    dtype: str  # "float32" | "bfloat16" | "float64": of the frozen base and of the activations
    target_modules: tuple[str, ...]  # names, or ("all-linear",)
    clamp_rank: bool
    # task and data
    task: str
    task_version: int
    data_train: tuple[str, ...]  # files or hub name; empty for a task that generates its examples
    data_validation: tuple[str, ...]  # empty: carved from train
    data_test: tuple[str, ...]  # empty: carved from train
    data_hash: str
    prompt_template: str  # "none" | "alpaca"
    num_train: int
    subset: str  # "first" | "seeded": how num_train rows are chosen
    num_validation: int
    num_test: int
    split_seed: int
    max_length: int
    # the method
    method: str
    method_version: int
    method_source: str  # hash of an outside plug-in's file, else ""
    rank: int
    alpha: str  # the policy as written: "r", "2r", "16", "16/sqrt(r)"
    scaling: float  # the effective multiplier of B A x that the policy gives
    dropout: float
    # optimisation
    optimizer: str  # "adamw" | "sgd" | "sign_sgd"
    learning_rate: float
    batch_size: int  # always the effective batch
    beta1: float
    beta2: float
    beta2_batch_size: int | None  # B0 of beta2^(B/B0); None: beta2 as it is
    epsilon: float
    momentum: float  # of SGD and sign-SGD
    weight_decay: float
    max_grad_norm: float | None
    lr_scheduler_type: str  # "constant" | "linear" | "cosine" | "cosine_with_floor"
    lr_floor: float  # fraction of the peak that "cosine_with_floor" ends at
    warmup_ratio: float
    warmup_steps: int  # used where > 0, instead of warmup_ratio
    num_train_epochs: int
    max_steps: int | None  # fixed-step protocol; None: num_train_epochs
    num_evaluations: int  # validation NLL this often, evenly spaced over the samples, the last at the end
    # seeds: each names a stream of its own
    init_seed: int
    order_seed: int
    subset_seed: int
    # what came later
    start_from: str | None = None  # folder of the adapter that training goes on from; None: the method's own start
    start_hash: str = ""  # of that adapter's bytes
    loraplus_lr_ratio: float = 1.0  # LoRA+: the learning rate of B, as a multiple of A's
    rank_pattern: tuple[str, ...] = ()  # "q_proj=4": the rank at these modules
    alpha_pattern: tuple[str, ...] = ()  # "q_proj=2r": the alpha policy at these modules
    start_step: int = 0  # optimizer steps that start_from's trial has behind it, whose rest this trial is
    quantization: str = "none"  # "none" | "int8": how the frozen base's weights are held

    def text(self) -> str:
        """Return the canonical JSON whose hash is the trial's id."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        given = {name: value for name, value in dataclasses.asdict(self).items() if value != defaults[name]}
        return json.dumps(given, sort_keys=True, allow_nan=False)

    def id(self) -> str:
        """Return the content address of a trial with this configuration (16 hex digits)."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:16]

    def replace(self, **changes: Any) -> "Config":
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @staticmethod
    def parse(text: str) -> "Config":
        """Rebuild a configuration from `text()`."""
        fields: dict[str, Any] = json.loads(text)
        lists: dict[str, list[Any]] = {name: value for name, value in fields.items() if isinstance(value, list)}
        tuples: dict[str, Any] = {name: tuple(value) for name, value in lists.items()}
        return Config(**(fields | tuples))

    def wanted_rank_at(self, site: str) -> int:
        """Return the rank asked for at a site."""
        return int(value_at(self.rank_pattern, site) or self.rank)

    def rank_at(self, site: str, num_out: int, num_in: int) -> int:
        """Return the rank at a site of this size: the one asked for, clamped to the full rank where that is allowed."""
        rank = self.wanted_rank_at(site)
        return min(rank, num_out, num_in) if self.clamp_rank else rank

    def alpha_at(self, site: str) -> str:
        """Return the alpha policy at a site."""
        return value_at(self.alpha_pattern, site) or self.alpha

    def data_key(self) -> tuple[object, ...]:
        """Return what a pack's members must share: the base, its sites, and the data with its splits."""
        shared = ("study_seed", "base", "revision", "base_hash", "dtype", "target_modules", "task", "task_version")
        splits = ("data_train", "data_validation", "data_test", "data_hash", "prompt_template", "num_validation")
        rest = ("num_test", "split_seed", "max_length")
        later = ("quantization",) if self.quantization != "none" else ()  # keys of stored surveys stay
        return tuple(getattr(self, name) for name in shared + splits + rest + later)


def value_at(pattern: tuple[str, ...], site: str) -> str | None:
    """Return what the first entry "name=value" that names the site gives it, by its whole name or the end of it.

    >>> value_at(("layers.0.q_proj=2", "q_proj=4"), "model.layers.1.q_proj")
    '4'
    """
    entries = (entry.partition("=") for entry in pattern)
    return next((value for name, _, value in entries if site == name or site.endswith("." + name)), None)


@dataclass(frozen=True)
class Trial:
    """One training run: a configuration and what it is for."""

    config: Config
    role: Role

    @property
    def id(self) -> str:
        """Return the content address of the configuration."""
        return self.config.id()


# What a worker is asked to do -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Runtime:
    """Where and how a job runs; provenance, never part of a trial's id."""

    device: str  # "cpu", "cuda:0"
    threads: int
    checkpoint_seconds: float
    blobs: str  # folder of the content-addressed safetensors files
    keep_moments: bool = False  # the optimizer's, beside the numbers of every finished adapter


@dataclass(frozen=True)
class TrainJob:
    """A pack: trials that train together on one frozen base, `micro_rows` rows of each per micro-step."""

    id: str
    trials: tuple[Trial, ...]
    micro_rows: int
    resume: str | None = None  # blob of the checkpoint to go on from
    compiled: bool = False  # the decoder's blocks, which pays where the pack trains for long
    recompute: bool = False  # each block in the backward pass, where what it would keep does not fit into memory


ORACLE = "oracle"  # the test split read after the verdict, for adapters that were not selected: no result, no choice


@dataclass(frozen=True)
class ExamJob:
    """Grade finished adapters on a split by greedy generation; `adapters[i]` is the blob of `trials[i]`."""

    id: str
    trials: tuple[Trial, ...]
    adapters: tuple[str, ...]
    split: str  # "test" | "validation" | ORACLE


@dataclass(frozen=True)
class RetentionJob:
    """Measure the loss of finished adapters, and of the bare base, on a text that is not the study's task."""

    id: str
    trials: tuple[Trial, ...]
    adapters: tuple[str, ...]
    text: str  # a file, UTF-8


@dataclass(frozen=True)
class SurveyJob:
    """Look at a base model and data without training: sites, token counts, truncations, every problem found."""

    id: str
    config: Config


StoredJob = TrainJob | ExamJob | RetentionJob
Job = StoredJob | SurveyJob


# What a worker answers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """One adapted weight of the base: W has shape [num_out, num_in]."""

    name: str
    num_out: int
    num_in: int


@dataclass(frozen=True)
class Survey:
    """What there is to know about a base and its data before planning."""

    config_key: str  # hash of Config.data_key() and num_train
    sites: tuple[Site, ...]
    num_parameters: int
    num_base_weights: int  # non-embedding
    num_head_weights: int
    hidden_size: int
    num_layers: int
    num_heads: int
    vocab_size: int
    num_train_available: int
    num_validation: int
    num_test: int
    mean_tokens: float  # of a training row, prompt and completion
    longest_tokens: int
    mean_target_tokens: float
    num_truncated: int
    num_dropped: int  # rows without a completion after truncation
    num_duplicates: int  # training rows whose prompt also stands in validation or test
    has_fused_attention: bool = True  # False: the base's code has none, and keeps every score
    reads_lines: bool = False  # rows one behind the other (models/unpadded.py), as far as its code says
    stored_dtype: str | None = None  # of the base's safetensors files; None: GGUF or unknown, read in float32


@dataclass(frozen=True)
class Point:
    """One reading of a trial's curve. `train_loss` is the mean of the steps' losses since the previous point."""

    trial_id: str
    step: int
    num_samples: int
    num_tokens: int  # real (unpadded) tokens seen so far
    learning_rate: float
    train_loss: float | None
    validation_nll: float | None  # nats per target token


@dataclass(frozen=True)
class Checkpoint:
    """A pack's whole state was written as a blob after `micro_step` micro-steps."""

    pack_id: str
    micro_step: int
    blob: str


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. `train_losses` holds the loss of every optimizer step, nats per target token."""

    trial_id: str
    status: Status
    reason: str
    num_steps: int
    num_samples: int
    num_tokens: int
    seconds: float  # this trial's share of its pack's time, by tokens
    pack_seconds: float
    clip_fraction: float  # share of optimizer steps whose gradient was clipped
    validation_nll: float | None  # final; the base's step-0 value for a diverged trial
    adapter: str | None  # blob; None where diverged
    train_losses: tuple[float, ...]
    num_trainable: int


@dataclass(frozen=True)
class Graded:
    """A trial's graded answers on a split, in the split's order."""

    trial_id: str
    split: str
    correct: tuple[bool, ...]
    num_generated_tokens: int
    seconds: float


@dataclass(frozen=True)
class Retained:
    """The held-out loss of a trial on a text, beside the bare base's: what fine-tuning made it forget."""

    trial_id: str
    text: str
    text_hash: str
    num_tokens: int  # that the loss is a mean over
    base_nll: float  # nats per token
    nll: float


@dataclass(frozen=True)
class Progress:
    """A sign of life for the screen; never stored."""

    job_id: str
    fraction: float  # of the job, 0 to 1
    tokens_per_second: float
    note: str = ""


@dataclass(frozen=True)
class JobEnd:
    """The job is complete; peak memory of the worker's process so far."""

    job_id: str
    seconds: float
    peak_bytes: int
    environment: str  # JSON: versions, processor, threads, device


@dataclass(frozen=True)
class JobLost:
    """The job could not be completed through the machine's fault."""

    job_id: str
    reason: str
    differs: bool = False  # resumed, it did not repeat its own numbers: nothing failed, and no retry is used up


Event = Survey | Point | Checkpoint | Outcome | Graded | Retained | Progress | JobEnd | JobLost


# What an analysis reads -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """One trial as the store knows it. Missing is None, with `reason`; never 0, never NaN."""

    trial_id: str
    role: Role
    config: Config
    status: Status
    reason: str
    curve: tuple[Point, ...]
    num_steps: int
    num_tokens: int
    seconds: float
    pack_id: str
    num_pack: int  # trials that trained together
    clip_fraction: float
    validation_nll: float | None
    base_validation_nll: float | None  # step 0
    test_correct: tuple[bool, ...] | None
    adapter: str | None
    num_trainable: int

    @property
    def test_accuracy(self) -> float | None:
        """Share of test items answered correctly; 0 for a diverged trial; None where the test was not run."""
        if self.status is Status.DIVERGED and self.role is Role.CONFIRM:
            return 0.0
        return None if self.test_correct is None else sum(self.test_correct) / len(self.test_correct)


@dataclass(frozen=True)
class Pair:
    """One method against the baseline within one problem: each one's best cell, on the same fresh seeds and items.

    `difference` is method - baseline in the metric's unit (share of items, or nats), and so are its ends and
    the margin. A missing number has its `reason`.
    """

    problem: str  # in words; "" where the study has one
    method: str
    baseline: str
    method_label: str  # the chosen cell and learning rate
    baseline_label: str
    metric: str  # "accuracy", "loss"
    method_value: float | None  # mean over the fresh seeds
    baseline_value: float | None
    num_seeds: int  # that both have
    num_items: int | None  # None: the metric has no items of its own
    margin: float
    difference: float | None
    low: float | None  # of the 95 % interval
    high: float | None
    low_90: float | None  # of the 90 % interval, which equivalence is read from
    high_90: float | None
    p_value: float | None  # of "differs from 0", two-sided
    p_holm: float | None  # the same, corrected for all pairs of the study
    verdict: str  # "better", "worse", "equivalent", "undecided"
    words: str  # the verdict with its margin, and whether the difference is told from 0
    decides: str  # what would decide it, in words; "" where it is decided
    reason: str


@dataclass(frozen=True)
class Best:
    """The method with the best mean of a problem; does it beat every other, corrected for having been picked?"""

    problem: str
    method: str
    is_best: bool  # at a level of 5 %
    p_value: float | None  # of its nearest rival, adjusted for all pairs
    reason: str


@dataclass(frozen=True)
class Forgetting:
    """What fine-tuning did to the loss on a text that is not the task's: the chosen cell of a method, fresh seeds."""

    problem: str
    method: str
    text: str
    num_tokens: int
    base_nll: float
    nll: float  # mean over the seeds
    low: float | None  # of the 95 % interval over seeds; None for one seed
    high: float | None
    num_seeds: int


@dataclass(frozen=True)
class Comparison:
    """The verdict of a study, as it was stored: before anything but the finalists was scored on the test data."""

    baseline: str
    pairs: tuple[Pair, ...]
    best: tuple[Best, ...]  # of each problem with three methods or more
    forgetting: tuple[Forgetting, ...]
    inputs_hash: str  # of the declaration and the results that it was computed from


@dataclass(frozen=True)
class Hindsight:
    """What choosing on the test data would have shown, for one method: for the record, nothing is chosen from it."""

    problem: str
    method: str
    num_candidates: int  # selection trials that were scored on the test data
    chosen_label: str  # by validation loss, as the study did
    chosen_accuracy: float  # its test accuracy, on the seeds that selection saw
    best_label: str  # by test accuracy
    best_accuracy: float
    fresh_accuracy: float | None  # of what the study chose, on fresh seeds


@dataclass(frozen=True)
class ReadCount:
    """How often a test set was read on this machine, as far as its ledger knows, this study included."""

    test_set: str  # hash
    num_studies: int
    num_configurations: int


@dataclass(frozen=True)
class Declaration:
    """What a report says about the study besides its results."""

    name: str
    spec_text: str  # canonical, as hashed
    spec_hash: str
    cell: tuple[str, ...]  # Config fields within which the learning rate is tuned, e.g. ("method", "batch_size")
    surveys: tuple[Survey, ...]
    num_test_reads: int  # of this study's test data, counted in this store
    num_lost: int  # jobs that were lost to the machine and run again
    environments: tuple[str, ...]  # JSON, one for each distinct one
    finished: bool = True  # the search wants nothing more
    budget: float | None = None  # run-equivalents that a search could spend on each method; None: it trained the grid
    num_planned: int | None = None  # trials in all, fresh-seed reruns included; None where not known
    comparison: Comparison | None = None  # None: no verdict is stored
    hindsight: tuple[Hindsight, ...] = ()  # empty: no oracle pass was run
    test_reads: tuple[ReadCount, ...] = ()  # of each test set; empty: it was not read, or the ledger is not known
    ledger_problem: str = ""  # why reads by other studies are not counted


@dataclass(frozen=True)
class Arm:
    """One contender: the configurations that one value of the scientific axis (the method) may choose from."""

    name: str
    configs: tuple[Config, ...]
    num_confirm: int  # fresh-seed reruns of each cell's winner


Option = bool | int | float | str


@dataclass(frozen=True)
class Named:
    """A class of another library, by its name, and the arguments that it is made with."""

    name: str
    options: tuple[tuple[str, Option], ...] = ()


@dataclass(frozen=True)
class Proposal:
    """What a search wants next: trials to train, or (when all training is done) adapters to grade on the test split."""

    trials: tuple[Trial, ...]
    exams: tuple[Trial, ...]
    finished: bool
