"""The page: sections in the order in which a reader should meet them. Every text that is not ours is escaped here."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from welltuned.analysis.caveats import Caveat
from welltuned.analysis.summary import SummaryRow, winners
from welltuned.analysis.throughput import SpeedRow
from welltuned.analysis.wording import count_text, plural
from welltuned.records import Declaration, Survey
from welltuned.report import tables
from welltuned.report.answer import note
from welltuned.report.css import CSS
from welltuned.report.files import Drawn
from welltuned.report.tables import escaped
from welltuned.report.terms import TERMS


@dataclass(frozen=True)
class Content:
    """Everything that a page shows."""

    declaration: Declaration
    num_trials: int
    answers: tuple[str, ...]
    caveats: tuple[Caveat, ...]
    rows: tuple[SummaryRow, ...]
    speeds: tuple[SpeedRow, ...]
    figures: tuple[Drawn, ...]


def html(content: Content) -> str:
    """Return the whole page."""
    sections = (
        _head(content),
        _caveats(content.caveats),
        _winners(content.rows),
        _figures(content.figures),
        _cells(content),
        _configurations(content.rows),
        _declaration(content.declaration),
        _terms(),
    )
    name = escaped(content.declaration.name)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{name} – welltuned report</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + f"\n<footer>Made by welltuned from declaration <code>{escaped(content.declaration.spec_hash)}</code>. "
        "Every trial is a row of <a href=results.csv>results.csv</a>.</footer>\n</main>\n</body>\n</html>\n"
    )


def _head(content: Content) -> str:
    declaration = content.declaration
    state = "finished" if declaration.finished else "unfinished"
    planned = f" of {declaration.num_planned:,}" if declaration.num_planned and not declaration.finished else ""
    facts = f"welltuned study, {state} · {content.num_trials:,}{planned} trials · declaration "
    unfinished = [caveat.text for caveat in content.caveats if caveat.kind == "unfinished"]
    banner = "".join(f"<p class=unfinished>{escaped(text)}</p>\n" for text in unfinished)
    answers = "\n".join(f"<p class=answer>{escaped(answer)}</p>" for answer in content.answers)
    return (
        f"<header><h1>{escaped(declaration.name)}</h1>"
        f"<p>{facts}<code>{escaped(declaration.spec_hash[:16])}</code></p></header>\n{banner}{answers}"
        f"\n<p class=note>{escaped(note(declaration.comparison))}</p>"
    )


def _caveats(caveats: Sequence[Caveat]) -> str:
    if not caveats:
        return "<h2>Caveats</h2>\n<p>None of the doubts that a report looks for applies.</p>"
    items = "\n".join(
        f"<li{' class=serious' if caveat.serious else ''}><b>{'serious' if caveat.serious else 'note'}</b>"
        f"{escaped(caveat.text)}</li>"
        for caveat in caveats
    )
    return f"<h2>Caveats</h2>\n<ul class=caveats>\n{items}\n</ul>"


def _winners(rows: Sequence[SummaryRow]) -> str:
    best = winners(rows)
    if not best:
        return ""
    num_items = sorted({row.num_items for row in best if row.num_items is not None})
    items = f" on {' and '.join(f'{count:,}' for count in num_items)} test items" if num_items else ""
    note = (
        "The configuration with the lowest validation loss of each method, rerun on fresh seeds"
        f"{items}. Small: the near-optimal band of η*, and 95 % intervals over seeds; the standard error over items "
        "(item SE) is stated beside them."
    )
    return f"<h2>The best of each method</h2>\n{tables.html(tables.winners_table(best))}\n<p class=note>{note}</p>"


def _figures(figures: Sequence[Drawn]) -> str:
    return "<h2>Figures</h2>\n" + "\n".join(_figure(drawn) for drawn in figures)


def _figure(drawn: Drawn) -> str:
    title = f"<h3>{escaped(drawn.title)}</h3>"
    if drawn.svg is None:
        return f"{title}<p class=note>Not drawn: {escaped(drawn.caption[:1].lower() + drawn.caption[1:])}</p>"
    links = " · ".join(
        f'<a href="figures/{escaped(drawn.name)}.{suffix}">{suffix.upper()}</a>'
        for suffix in ("svg", "png", "pdf", "csv")
    )
    caption = f"<figcaption>{escaped(drawn.caption)} <span class=files>{links}</span></figcaption>"
    return f"<figure>{title}<div class=scroll>{drawn.svg}</div>{caption}</figure>"


def _cells(content: Content) -> str:
    if not content.rows:
        return ""
    return (
        f"<h2>Every cell</h2>\n{tables.html(tables.cells_table(content.rows))}\n"
        "<p class=note>The best of each method in bold. The table of trials is "
        "<a href=results.csv>results.csv</a>.</p>\n"
        f"<h2>Cost</h2>\n{tables.html(tables.cost_table(content.speeds))}\n"
        "<p class=note>Diverged trials are included: they cost time too. A trial's time is its share of the time of "
        "the trials that it was trained together with, by tokens.</p>"
    )


def _configurations(rows: Sequence[SummaryRow]) -> str:
    best = winners(rows)
    if not best:
        return ""
    own, shared = tables.configuration_table(best)
    return (
        f"<h2>Selected configurations</h2>\n{tables.html(own)}\n<details><summary>Fields that all of them share"
        f"</summary>{tables.html(shared)}</details>"
    )


def _declaration(declaration: Declaration) -> str:
    surveys = "\n".join(_survey(survey) for survey in declaration.surveys)
    environments = "\n".join(_environment(text) for text in declaration.environments)
    reads = plural(declaration.num_test_reads, "rerun")
    return (
        "<h2>Declaration</h2>\n<p>What was to be run was fixed before the first trial; this is its hash: "
        f"<code>{escaped(declaration.spec_hash)}</code>. The test split was read for {reads}.</p>\n"
        f"<pre>{escaped(declaration.spec_text)}</pre>\n"
        + (f"<h3>Base model and data</h3>\n{surveys}\n" if surveys else "")
        + (f"<h3>Environment</h3>\n{environments}" if environments else "")
    )


def _survey(survey: Survey) -> str:
    facts = {
        "Parameters": f"{survey.num_parameters:,}, {plural(survey.num_layers, 'layer')}, width {survey.hidden_size}",
        "Adapted weights": plural(len(survey.sites), "matrix").replace("matrixs", "matrices"),
        "Rows": f"{survey.num_train_available:,} to train on, {survey.num_validation:,} validation, "
        f"{survey.num_test:,} test",
        "Tokens of a row": f"{survey.mean_tokens:.1f} on average, {survey.longest_tokens} at most; "
        f"{survey.mean_target_tokens:.1f} are targets",
        "Truncated, dropped": f"{count_text(survey.num_truncated)}, {count_text(survey.num_dropped)}",
    }
    return _facts(facts)


def _environment(text: str) -> str:
    found = json.loads(text)
    return _facts({str(name): value if isinstance(value, str) else json.dumps(value) for name, value in found.items()})


def _facts(facts: dict[str, str]) -> str:
    items = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>\n" for name, value in facts.items())
    return f"<dl>{items}</dl>"


def _terms() -> str:
    return f"<h2>Terms</h2>\n{_facts(dict(TERMS))}"
