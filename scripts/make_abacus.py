"""Pretrain the bundled `abacus` models on arithmetic and one-step stories, and write them as Hugging Face folders.

The base models are to solve one step and to fail at several, in the very wording that fine-tuning uses, so that LoRA
has something to learn and every token it needs is already trained. Run once, and again only with a new task version:
the committed folders are frozen by `SHA256SUMS`. The same seed gives the same data and initial weights anywhere, but
the same bytes only on the same machine, threads and torch version (sums of floats depend on them).

    python scripts/make_abacus.py --out src/welltuned/models/abacus [--only small|middle|large] [--seed 0]
"""

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from welltuned.tasks import abacus

# B rows, T tokens a row
ROW_TOKENS = 128  # about three documents
ROWS = 32
PROMPT_WEIGHT = 0.2  # assumed: names and numbers of a prompt cannot be predicted, so most of the loss is on the answers
SPECIAL = ("<pad>", "<eos>", "<unk>")
PIECES = r" ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]|\s"  # a word, digit or mark takes the space before it along
NUM_GRADED = 500
NUM_SUMMED = 1000  # examples of each split that SHA256SUMS covers


@dataclass(frozen=True)
class Size:
    """One member of the family and how it is trained; the learning rates are assumed, not tuned."""

    width: int
    layers: int
    mlp: int
    learning_rate: float
    million_tokens: float


SIZES = {
    "small": Size(64, 3, 160, 5e-3, 12),
    "middle": Size(128, 4, 384, 3e-3, 8),
    "large": Size(256, 6, 512, 1.5e-3, 6),
}


def fresh_calculation(draws: abacus.Draws) -> tuple[int, str, int]:
    """Draw one step that stays within the task's numbers."""
    sign = draws.pick("+-*/+-")
    if sign == "+":
        left = draws.between(1, abacus.LARGEST - 2)
        return left, sign, draws.between(1, abacus.LARGEST - left)
    if sign == "-":
        left = draws.between(2, abacus.LARGEST)
        return left, sign, draws.between(1, left - 1)
    if sign == "/":
        return 2 * draws.between(1, abacus.LARGEST // 2), sign, 2
    left = draws.between(1, abacus.LARGEST // 2)
    return left, sign, draws.between(2, min(9, abacus.LARGEST // left))


def next_calculation(draws: abacus.Draws, value: int) -> tuple[int, str, int]:
    """Draw one step that goes on from a value, as the steps of a story do."""
    choices = [("+", 2, min(40, abacus.LARGEST - value))] * 3 if value + 2 <= abacus.LARGEST else []
    choices += [("-", 2, min(40, value - 1))] * 3 if value >= 4 else []
    choices += [("*", factor, factor) for factor in (2, 3) if factor * value <= abacus.LARGEST]
    choices += [("/", 2, 2)] if value % 2 == 0 else []
    sign, low, high = draws.pick(choices)
    return value, sign, draws.between(low, high)


def document(seed: int, index: int) -> tuple[str, str]:
    """Make one pretraining text as (prompt, completion): 6 in 10 are one-step stories, the others bare arithmetic.

    Two in 10 are sums of 1 to 4 steps without a story, worked out from left to right, and 2 are lines of calculations.
    Without the sums LoRA reached 6 % on the small model, with them 53 % (measured: 2,048 samples, batch 4); the base
    model fails at multi-step stories either way.
    """
    draws = abacus.Draws("abacus pretraining", seed, index)
    form = draws.below(10)
    if form < 6:
        example = abacus.one_step(seed, "train", index)
        return example.prompt, example.completion
    if form < 8:
        value = draws.between(3, 60)
        question, steps = f"What is {value}", []
        for _ in range(draws.between(1, 4)):
            left, sign, right = next_calculation(draws, value)
            value = abacus.result(left, sign, right)
            question += f" {sign} {right}"
            steps.append(f"{left} {sign} {right} = {value}.")
        example = abacus.written_out(f"{question}?", steps, value)
        return example.prompt, example.completion
    line, value = "", None
    for _ in range(draws.between(2, 10)):
        goes_on = value is not None and draws.below(3) > 0
        left, sign, right = next_calculation(draws, value) if goes_on else fresh_calculation(draws)
        value = abacus.result(left, sign, right)
        line += f" {left} {sign} {right} = {value}."
    return "", line


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Give every piece that occurs in the texts a token; the pieces of a text join to the text again."""
    split = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    pieces = {piece for text in texts for piece, _ in split.pre_tokenize_str(text)}
    vocabulary = {piece: rank for rank, piece in enumerate([*SPECIAL, *sorted(pieces)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )


def make_rows(tokenizer: PreTrainedTokenizerFast, seed: int, num_rows: int) -> tuple[torch.Tensor, ...]:
    """Pack documents whole into rows [B, T]: tokens, each token's document (0 is padding), loss weights."""
    tokens_BT = np.full((num_rows, ROW_TOKENS), tokenizer.pad_token_id, dtype=np.int64)
    document_BT = np.zeros((num_rows, ROW_TOKENS), dtype=np.int64)
    weight_BT = np.zeros((num_rows, ROW_TOKENS), dtype=np.float32)
    row = used = count = first = 0
    while row < num_rows:
        pairs = [document(seed, index) for index in range(first, first + 5000)]
        prompts = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
        completions = tokenizer([completion for _, completion in pairs])["input_ids"]
        first += len(pairs)
        for prompt, completion in zip(prompts, completions, strict=True):
            ids = [*prompt, *completion, tokenizer.eos_token_id]
            if used + len(ids) > ROW_TOKENS:
                row, used, count = row + 1, 0, 0
                if row == num_rows:
                    break
            end, count = used + len(ids), count + 1
            tokens_BT[row, used:end] = ids
            document_BT[row, used:end] = count
            weight_BT[row, used : used + len(prompt)] = PROMPT_WEIGHT
            weight_BT[row, used + len(prompt) : end] = 1.0
            weight_BT[row, used] = 0.0  # nothing comes before a document's first token
            used = end
    return torch.from_numpy(tokens_BT), torch.from_numpy(document_BT), torch.from_numpy(weight_BT)


def make_model(size: Size, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.width // 32,
        num_key_value_heads=size.width // 32,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",  # measured: the fused attention's bfloat16 backward is slow on CPUs
    )
    return LlamaForCausalLM(config)


def loss_of(model: LlamaForCausalLM, tokens_BT, document_BT, weight_BT) -> torch.Tensor:
    """Weighted mean next-token loss; a token sees the earlier tokens of its own document only."""
    causal_TT = torch.ones(ROW_TOKENS, ROW_TOKENS, dtype=torch.bool).tril()
    seen_BTT = causal_TT & (document_BT[:, :, None] == document_BT[:, None, :])
    bias_B1TT = torch.zeros(seen_BTT.shape).masked_fill(~seen_BTT, -1e4).unsqueeze(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits_BTV = model(input_ids=tokens_BT, attention_mask=bias_B1TT, use_cache=False).logits
    loss_nats = torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].float().flatten(0, 1), tokens_BT[:, 1:].flatten(), reduction="none"
    )
    weight = weight_BT[:, 1:].flatten()
    return (loss_nats * weight).sum() / weight.sum()


def pretrain(model: LlamaForCausalLM, rows: tuple[torch.Tensor, ...], learning_rate: float) -> list[dict]:
    """Train over the rows once, in order: AdamW, a short warmup, linear decay to zero. Returns the log."""
    num_steps = len(rows[0]) // ROWS
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, (num_steps - step) / (num_steps - 100))
    )
    compiled = torch.compile(loss_of)
    log, start, recent = [], time.perf_counter(), []
    for step in range(num_steps):
        loss = compiled(model, *(part[step * ROWS : (step + 1) * ROWS] for part in rows))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        recent.append(loss.item())
        if (step + 1) % 200 == 0 or step + 1 == num_steps:
            seconds = time.perf_counter() - start
            num_tokens = (step + 1) * ROWS * ROW_TOKENS
            log.append(
                {"tokens": num_tokens, "loss_nats": round(float(np.mean(recent)), 4), "seconds": round(seconds, 1)}
            )
            print(log[-1], f"{num_tokens / seconds:,.0f} tokens/s", flush=True)
            recent = []
    return log


@torch.inference_mode()
def accuracy(model, tokenizer: PreTrainedTokenizerFast, make) -> float:
    """Share of problems of the test split that greedy decoding answers exactly."""
    examples = [make(0, "test", index) for index in range(NUM_GRADED)]
    batch = tokenizer([example.prompt for example in examples], return_tensors="pt", padding=True)
    batch.pop("token_type_ids", None)
    tokens = model.generate(**batch, max_new_tokens=abacus.TASK.max_new_tokens, do_sample=False)
    texts = tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return sum(abacus.grade(text, example) for text, example in zip(texts, examples, strict=True)) / len(examples)


CARD = """---
library_name: transformers
pipeline_tag: text-generation
license: apache-2.0
---
# abacus-{name}

A {parameters:,}-parameter Llama-architecture model (width {width}, {layers} layers, bfloat16, {vocabulary} tokens),
made for tests, demos and studies of fine-tuning on two CPU cores. It is not useful for anything else.

- **Pretrained** by `scripts/make_abacus.py`, seed {seed}, on {tokens:,} generated tokens: arithmetic up to 99
  (also sums of up to four steps, without a story) and one-step stories, for example
  `Question: Leo starts with 28 maps. He finds 6 more. How many maps does Leo have?` and
  `Answer: 28 + 6 = 34. The answer is: 34`.
- **Solves** {one_step:.1%} of one-step and {multi_step:.1%} of multi-step problems (greedy, {graded} of the test split
  each): the task `abacus` fine-tunes it on problems of 2 to 4 steps.
- **Tokenizer**: one token a word, digit or mark, each with the space before it. Other words become `<unk>`.
- `recipe.json` has the training log; `SHA256SUMS` beside the folders has the checksums.
"""


def write_model(name: str, out: Path, seed: int) -> None:
    """Pretrain one size and write its folder."""
    size, folder = SIZES[name], out / name
    start = time.perf_counter()
    texts = ["".join(document(seed, index)) for index in range(20_000)]
    multi = [abacus.generate(seed, "train", index) for index in range(5_000)]
    tokenizer = make_tokenizer(texts)
    needed = make_tokenizer([example.prompt + example.completion for example in multi])
    missing = set(needed.get_vocab()) - set(tokenizer.get_vocab())
    if missing:
        raise ValueError(f"the task needs tokens that pretraining lacks: {sorted(missing)}")
    num_rows = int(size.million_tokens * 1e6) // (ROWS * ROW_TOKENS) * ROWS
    rows = make_rows(tokenizer, seed, num_rows)
    model = make_model(size, tokenizer, seed)
    print(name, f"{model.num_parameters():,} parameters, data in {time.perf_counter() - start:.0f} s", flush=True)
    log = pretrain(model, rows, size.learning_rate)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # version 5 writes a name that version 4 does not know
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    scores = {
        "one_step": accuracy(saved, tokenizer, abacus.one_step),
        "multi_step": accuracy(saved, tokenizer, abacus.generate),
    }
    print(name, scores, flush=True)
    recipe = {"seed": seed, "size": vars(size), "parameters": model.num_parameters(), "torch": torch.__version__}
    recipe["threads"] = torch.get_num_threads()
    recipe |= {"rows": ROWS, "row_tokens": ROW_TOKENS, "prompt_weight": PROMPT_WEIGHT, "log": log}
    recipe |= {"seconds": round(time.perf_counter() - start, 1), "accuracy": scores, "num_graded": NUM_GRADED}
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=1, allow_nan=False) + "\n")
    card = CARD.format(
        name=name, seed=seed, width=size.width, layers=size.layers, parameters=model.num_parameters(),
        vocabulary=len(tokenizer), tokens=log[-1]["tokens"], graded=NUM_GRADED, **scores,
    )  # fmt: skip
    (folder / "README.md").write_text(card)


def examples_sum(split: str) -> str:
    """SHA-256 of the first examples of a split at seed 0, as JSON lines."""
    digest = hashlib.sha256()
    for index in range(NUM_SUMMED):
        example = abacus.generate(0, split, index)
        digest.update((json.dumps([example.prompt, example.completion, example.answer]) + "\n").encode())
    return digest.hexdigest()


def write_sums(out: Path) -> None:
    """Write the checksums of every model file, and of what the task generates."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(out).as_posix()}"
        for name in SIZES
        for path in sorted((out / name).glob("*"))
    ]
    lines += [f"{examples_sum(split)}  examples:{split}" for split in abacus.SHARES]
    (out / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder that gets one folder per size")
    parser.add_argument("--only", choices=list(SIZES), help="make this size only (all sizes otherwise)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in [arguments.only] if arguments.only else SIZES:
        write_model(name, arguments.out, arguments.seed)
    write_sums(arguments.out)


if __name__ == "__main__":
    main()
