"""`welltuned doctor`: does packed training equal training alone here, how fast is it, how much memory is free.

With --method: does that method keep its promises on a model of yours.
"""

import dataclasses
from typing import Annotated

import typer

from welltuned.cli._options import Json, Threads
from welltuned.errors import InputError, problem

# Any study will do: the probe replaces everything but the settings that have defaults.
PROBE = """
name = "doctor"
[model]
base = "abacus-small"
[task]
task = "abacus"
num_train = 64
[train]
learning_rate = 1e-2
batch_size = 4
"""


def command(
    method: Annotated[
        str | None, typer.Option("--method", help='A method to check instead: "pissa", "my_lab.sparse:METHOD".')
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Base model that --method is checked on, in float32. Default: abacus-small."),
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Check this machine, or one method on a model. Exits 1 where something is not as it should be."""
    import torch

    from welltuned.cli._text import print_json, table
    from welltuned.evaluate import doctor
    from welltuned.plan import expand
    from welltuned.spec import Spec

    if method is None and model is not None:
        expected = "a --method beside it, which is checked on that model"
        raise InputError(problem("--model", model, expected, "add --method lora, for instance, or leave it out"))
    if threads is not None:
        torch.set_num_threads(threads)
    (probe,) = expand(Spec.parse(PROBE))
    on = probe.replace(base=model or probe.base)
    checks = doctor.check(probe) if method is None else doctor.check_on(on, method)
    if as_json:
        print_json([dataclasses.asdict(check) for check in checks])
    else:
        rows = [("ok" if check.ok else "WRONG", check.name, check.measured, check.expected) for check in checks]
        print(table(("", "check", "measured", "expected"), rows))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
