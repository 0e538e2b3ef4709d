"""moe-peft 2.0.2 trains the trials of one folder, with the Python of its own environment; nothing of ours is imported.

`python -P benchmarks/moe_peft_side.py FOLDER DTYPE NUM_TRIALS BATCH_SIZE RANK THREADS`; prints its seconds and losses
as JSON in the last line. Seconds begin when its libraries are loaded, and include loading the base. Its code asserts a
dropout above 0, shuffles rows with a seed of its own, computes every layer again in the backward pass, and takes the
loss over all tokens of a row, so rows are of one length and the prompt is one token.
"""

import json
import logging
import sys
import time
from pathlib import Path

import moe_peft
import moe_peft.trainer
import torch
from moe_peft.common import InputData
from moe_peft.tasks import BasicTask, task_dict

DROPOUT = 1e-9  # more than 0, which it asks for; next to nothing is dropped
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Rows(BasicTask):
    """The rows of a file, as texts."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    @property
    def peft_task_type(self) -> str:
        return "CAUSAL_LM"

    def loading_data(self, is_train: bool = True, path: str | None = None) -> list[InputData]:
        del is_train, path
        rows = [json.loads(line) for line in self.file.read_text().splitlines()]
        return [InputData(inputs=f"{row['prompt']} {row['completion']} <end>") for row in rows]


def main() -> None:
    """Train and print."""
    folder, dtype = Path(sys.argv[1]), vars(torch)[sys.argv[2]]
    num_trials, batch_size, rank, threads = (int(text) for text in sys.argv[3:])
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    losses: dict[str, list[float]] = {}
    combine = moe_peft.trainer._compute_loss

    def kept(configs, outputs):
        for output in outputs:
            losses.setdefault(output.adapter_name, []).append(float(output.loss))
        return combine(configs, outputs)

    moe_peft.trainer._compute_loss = kept
    began = time.perf_counter()
    model = moe_peft.LLMModel.from_pretrained(str(folder / "model"), device="cpu", load_dtype=dtype)
    tokenizer = moe_peft.Tokenizer(str(folder / "model"))
    task_dict["rows"] = Rows(folder / "rows.jsonl")
    configs = []
    for trial in range(num_trials):
        shared = {"name": f"trial{trial}", "task_name": "rows"}
        lora = {"r": rank, "lora_alpha": rank, "lora_dropout": DROPOUT, "target_modules": MODULES}
        model.init_adapter(moe_peft.adapter_factory("LORA", f"trial{trial}", **shared, **lora))
        train = {"num_epochs": 1, "batch_size": batch_size, "micro_batch_size": batch_size, "scheduler_type": "cosine"}
        rate = {"learning_rate": 1e-4 * (1 + trial), "weight_decay": 0.0}
        configs.append(moe_peft.TrainConfig(adapter_name=f"trial{trial}", task_name="rows", **train, **rate))
    moe_peft.train(model, tokenizer, configs, cutoff_len=4096)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "losses": losses, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
