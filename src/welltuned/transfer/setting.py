"""What the rules of this package know of a training run: a few numbers, no model and no data."""

from dataclasses import dataclass

from welltuned.errors import InputError, problem
from welltuned.transfer import alpha as alpha_policy


@dataclass(frozen=True)
class Setting:
    """A run to be, or one whose best learning rate is known. None: not known, and rules that need it refuse."""

    method: str  # as in a study file: "lora", "pissa", "dora+pissa"; outside names count as unknown
    rank: int
    alpha: str  # the policy in its canonical spelling: "r", "2r", "16", "16/sqrt(r)"
    batch_size: int  # the effective one
    width: int | None = None  # inputs of the adapted layers: the hidden size
    num_samples: int | None = None  # training rows seen in all: rows times epochs
    family: str = ""  # model_type of config.json: "llama", "qwen3"
    full_rate: float | None = None  # the best learning rate of full fine-tuning, where it is known

    @property
    def scaling(self) -> float:
        """Return the multiplier of B A x."""
        return alpha_policy.multiplier(self.alpha, self.rank)

    @property
    def alpha_power(self) -> float:
        """Return g where the multiplier falls as r^-g when only the rank changes."""
        return alpha_policy.power(self.alpha)


def check(setting: Setting) -> Setting:
    """Return the setting, or raise InputError with everything that is wrong with it."""
    wrong: list[str] = []
    whole = {"rank": setting.rank, "batch size": setting.batch_size}
    optional = {"hidden size": setting.width, "num-samples": setting.num_samples}
    whole |= {name: number for name, number in optional.items() if number is not None}
    for name, number in whole.items():
        if number < 1:
            wrong.append(problem(name, number, "an integer >= 1", "give the number of the run you plan"))
    if setting.full_rate is not None and not 0 < setting.full_rate < 1:
        line = problem("full learning rate", setting.full_rate, "a number between 0 and 1", "write it as in 2e-5")
        wrong.append(line)
    try:
        if alpha_policy.canonical(setting.alpha) != setting.alpha:
            wrong.append(f"alpha: got '{setting.alpha}', expected its canonical spelling; a defect, please report it")
    except ValueError:
        line = problem("alpha", setting.alpha, '"r", "2r", 16 or "16/sqrt(r)"', 'write "r" for lora_alpha = r')
        wrong.append(line)
    if wrong:
        raise InputError(wrong)
    return setting
