"""`welltuned curvature`: how curved the loss is in each method's own numbers, at the start and on the way.

Rows are appended to a file as they are measured, so that the command can be interrupted and goes on where it was.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from welltuned.cli._options import Device, Folder, Memory, StudyFile, Threads, parse_bytes

if TYPE_CHECKING:
    from welltuned.analysis.curvature import BlockRow
    from welltuned.curvature.survey import Progress


def command(
    file: StudyFile,
    samples: Annotated[int, typer.Option("--samples", help="Training rows that the loss is the mean over.")] = 8,
    blocks: Annotated[
        list[str] | None,
        typer.Option("--blocks", help='Modules to look at ("q_proj"), or "joint". Repeatable. Default: all.'),
    ] = None,
    steps: Annotated[
        list[int] | None, typer.Option("--steps", help="Optimizer steps behind a trial. Repeatable. Default: 0.")
    ] = None,
    folder: Folder = None,
    device: Device = "cpu",
    threads: Threads = None,
    memory: Memory = None,
) -> None:
    """Measure the curvature of the loss in each method's numbers, at the start and after some steps.

    Looks at each method and rank of the study's axes. It may be stopped at any time with Ctrl-C: the same command goes
    on. Nothing of the study itself is run or changed.
    """
    from welltuned.curvature import files
    from welltuned.curvature.survey import Request, Survey
    from welltuned.plan import expand
    from welltuned.spec import Spec
    from welltuned.study import Options

    spec = Spec.load(file)
    request = Request(expand(spec), samples, tuple(sorted({*(steps or [0])})), tuple(blocks or ()))
    options = Options(device=device, threads=threads, memory_bytes=parse_bytes(memory))
    place = (folder or Path("runs") / spec.name) / "curvature"
    runtime = options.runtime(str(place), options.new_threads())
    survey = Survey(request, runtime, options.new_memory_bytes())
    rows = files.Rows(place, files.about(request))
    screen = _Screen()
    try:
        for found in survey.blocks(rows.keys(), screen.tell):
            rows.add(found)
    except KeyboardInterrupt:
        print(f"Interrupted. {len(rows.rows)} blocks are stored in {place}; the same command goes on.", file=sys.stderr)
        raise typer.Exit(130) from None
    for line in survey.ended:
        print(f"not measured, since it had ended: {line}", file=sys.stderr)
    print(text(rows.rows))
    print(f"look at {rows.finish()}")


class _Screen:
    """Prints how far the measurement is, and about how long it will take."""

    def __init__(self) -> None:
        self._began: tuple[float, int] | None = None
        self._printed = 0.0

    def tell(self, progress: "Progress") -> None:
        """Print a line for each pass, and within a long one now and then."""
        from welltuned.analysis.wording import plural
        from welltuned.cli._progress import PLAIN_SECONDS
        from welltuned.cli._text import duration

        now = time.monotonic()
        if progress.num_products and now - self._printed < PLAIN_SECONDS:
            return
        self._printed = now
        if self._began is None:
            self._began = now, progress.done
        began, first = self._began
        line = f"{time.strftime('%H:%M:%S')} {progress.done}/{progress.total} blocks"
        if first < progress.done < progress.total:
            left = (now - began) / (progress.done - first) * (progress.total - progress.done)
            line += f", about {duration(left)} left"
        made = f"; {plural(progress.num_products, 'product')}" if progress.num_products else ""
        print(f"{line} ({progress.doing}{made})", file=sys.stderr, flush=True)


def text(rows: "Sequence[BlockRow]") -> str:
    """Return the tables that the screen shows."""
    from welltuned.analysis.curvature import PUBLISHED_MODEL, ratios
    from welltuned.analysis.wording import DASH
    from welltuned.cli._text import table

    parts = []
    found = ratios(rows)
    if found:
        lines = [
            (
                ratio.module,
                ratio.method,
                str(ratio.rank),
                f"{ratio.median:.3g}",
                f"{ratio.low:.3g} to {ratio.high:.3g}",
                DASH if ratio.gauss_newton is None else f"{ratio.gauss_newton:.3g}",
                DASH if ratio.published is None else f"{ratio.published:g}",
                str(ratio.num_blocks),
            )
            for ratio in found
        ]
        heads = ("module", "method", "rank", "ratio to lora", "range", "Gauss-Newton", "published", "blocks")
        parts += [table(heads, lines), f"Medians over layers at the start; published: {PUBLISHED_MODEL}.", ""]
    parts.append(_joint(rows) or _smallest_and_largest(rows))
    loose = sum(not row.converged for row in rows)
    if loose:
        parts.append(f"{loose} of {len(rows)} blocks have not converged: their errors are in curvature.csv.")
    return "\n".join(parts)


def _joint(rows: "Sequence[BlockRow]") -> str:
    """Return what is known of all trained numbers together, or nothing."""
    from welltuned.analysis.curvature import JOINT
    from welltuned.analysis.wording import DASH, rate_text
    from welltuned.cli._text import table

    lines = [
        (
            row.method,
            str(row.rank),
            str(row.step),
            DASH if row.batch_size is None else str(row.batch_size),
            f"{row.hessian_max:.3g}",
            f"{row.hessian_min:.3g}",
            f"{row.gauss_newton_max:.3g}",
            rate_text(row.sign_step),
            rate_text(row.adam_ceiling),
            DASH if row.noise_scale is None else f"{row.noise_scale:.3g}",
        )
        for row in rows
        if row.block == JOINT
    ]
    if not lines:
        return ""
    heads = ("method", "rank", "step", "batch", "largest", "smallest", "Gauss-Newton")
    heads += ("best sign step", "38 / P^-1 H", "noise, rows")
    return table(heads, lines) + "\nAll trained numbers together; the sign step and 38 / P^-1 H are learning rates."


def _smallest_and_largest(rows: "Sequence[BlockRow]") -> str:
    from welltuned.cli._text import table

    lines = [
        (row.method, str(row.rank), str(row.step), row.block, f"{row.hessian_max:.3g}", f"{row.hessian_min:.3g}")
        for row in rows
    ]
    return table(("method", "rank", "step", "block", "largest", "smallest"), lines)
