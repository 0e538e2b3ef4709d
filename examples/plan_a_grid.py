"""How much would each grid cost? Plans studies of growing size and trains none of them."""

import welltuned
from welltuned.plan_cost import summary
from welltuned.study import Options, preview
from welltuned.study.speed import speed

options = Options()
speeds = {"bfloat16": speed(options, "bfloat16")}  # measured once on this machine, in a few seconds

for num_train in (512, 1024, 2048):
    spec = welltuned.Spec(
        name=f"grid-{num_train}",
        model={"base": "abacus-small", "dtype": "bfloat16"},
        task={"task": "abacus", "num_train": num_train},
        axes={
            "method": ["lora", "pissa", "milora"],
            "batch_size": [4, 16],
            "learning_rate": {"grid": "4-per-decade", "from": 1e-4, "to": 1e-2},
        },
    )
    cost = summary(preview(spec), options.new_memory_bytes(), speeds).cost
    print(f"{num_train} rows: {cost.num_trials} trials, {cost.num_tokens:,} tokens, {cost.seconds:.0f} s")
