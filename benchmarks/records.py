"""The frozen values that the parent, the children and the writers of a benchmark exchange."""

from dataclasses import dataclass, field

from welltuned.records import TrainJob, Trial


@dataclass(frozen=True)
class Setting:
    """How `transformers.Trainer` (or the bare loop) runs: precision, attention, compiler, how rows are put together."""

    name: str
    dtype: str  # of the base's weights
    attention: str = "sdpa"
    autocast: bool = False  # bfloat16 autocast over float32 weights
    compiled: bool = False
    padding_free: bool = False  # rows of a batch are concatenated instead of padded
    by_length: bool = False  # group_by_length: changes the order of rows, so measured for the record only

    @property
    def precision(self) -> str:
        """Return the dtype of its matmuls."""
        return "bfloat16" if self.autocast else self.dtype


@dataclass(frozen=True)
class Assignment:
    """What one child measures: a runner's name, and its packs (packed, alone) or its trials one after the other."""

    runner: str
    jobs: tuple[TrainJob, ...]
    threads: int
    setting: Setting | None = None

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Return the trials of all jobs."""
        return tuple(trial for job in self.jobs for trial in job.trials)


@dataclass(frozen=True)
class Measurement:
    """What a child measured. Seconds begin when Python and its libraries are loaded, and include loading the base."""

    seconds: float
    compile_seconds: float
    peak_bytes: int
    num_padded_tokens: int  # token slots of all forward passes of training
    losses: dict[str, list[float]]  # trial -> loss of every optimizer step
    job_seconds: list[float] = field(default_factory=list)  # the first includes loading the base
    step_seconds: list[float] = field(default_factory=list)  # of the sequential runners: inside the optimizer's steps
    ended: dict[str, str] = field(default_factory=dict)  # trial -> status, where the runner knows one
