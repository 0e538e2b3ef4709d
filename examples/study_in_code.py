"""A study without a file: LoRA against PiSSA at two learning rates each, on the smallest bundled model.

Run it twice: the second time nothing is trained again.
"""

import welltuned

spec = welltuned.Spec(
    name="study-in-code",
    model={"base": "abacus-small"},
    task={"task": "abacus", "num_train": 32, "num_validation": 16, "num_test": 8},
    train={"rank": 4, "batch_size": 16},
    axes={"method": ["lora", "pissa"], "learning_rate": [1e-3, 1e-2]},
    search={"fresh_seeds": 1},
)

study = welltuned.run(spec)
table = study.table()
print(table[["role", "method", "learning_rate", "validation_nll", "test_accuracy"]].to_string(index=False))
