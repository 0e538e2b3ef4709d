"""Take the best rerun of a study, load it with PEFT, and let it answer. Run `study_in_code.py` before."""

import transformers

import welltuned
from welltuned.fingerprint import resolve_base

QUESTION = (
    "Question: Ann has 7 pears. She buys 5 more. Then she sells 4 of them. How many pears does Ann have?\nAnswer:"
)

study = welltuned.open("runs/study-in-code")
reruns = [result for result in study.results() if result.role == "confirm" and result.adapter]
best = min(reruns, key=lambda result: result.validation_nll or float("inf"))
print(f"best: {best.config.method} at learning rate {best.config.learning_rate:g}, trial {best.trial_id}")

model = welltuned.load_adapter(study.folder, best.trial_id, destination="adapter")
tokenizer = transformers.AutoTokenizer.from_pretrained(resolve_base(best.config.base, None).folder)
ids = tokenizer(QUESTION, return_tensors="pt").input_ids
answer = model.generate(input_ids=ids, attention_mask=ids.new_ones(ids.shape), max_new_tokens=48, do_sample=False)
print(tokenizer.decode(answer[0]))
