"""The page: sections in the order in which a reader should meet them. Every text that is not ours is escaped here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from welltuned.analysis.caveats import Caveat
from welltuned.analysis.wording import count_text, plural
from welltuned.records import Declaration, Survey
from welltuned.report import frame, provenance, table
from welltuned.report.answer import note
from welltuned.report.files import FIGURE_FORMATS, TABLE_FORMATS, Drawn
from welltuned.report.table import Table, escaped
from welltuned.report.terms import TERMS
from welltuned.report.verdicts import reads_text


@dataclass(frozen=True)
class Content:
    """Everything that a page shows, every text of it fit to be shown (report/clean.py) and not yet escaped."""

    declaration: Declaration
    num_trials: int
    question: str
    answers: tuple[str, ...]
    caveats: tuple[Caveat, ...]
    figures: tuple[Drawn, ...]
    tables: tuple[Table, ...]
    hashes: Mapping[str, str]


def html(content: Content) -> str:
    """Return the whole page."""
    sections = {
        "Answer": _answer(content),
        "Caveats": _caveats(content.caveats),
        "Figures": "\n".join(_figure(drawn) for drawn in sorted(content.figures, key=_is_missing)),
        "Tables": _tables(content.tables),
        "Declaration": _declaration(content.declaration),
        "Provenance": _provenance(content),
        "How to reproduce": _reproduce(content.declaration),
        "Terms": frame.facts(dict(TERMS)),
    }
    footer = (
        f"Made by welltuned {escaped(provenance.version())} from declaration "
        f"<code>{escaped(content.declaration.spec_hash)}</code>. "
        'Every trial is a row of <a href="results.csv">results.csv</a>.'
    )
    title = f"{content.declaration.name} – welltuned report"
    return frame.document(title, _header(content), sections, footer)


def _header(content: Content) -> str:
    declaration = content.declaration
    state = "finished" if declaration.finished else "unfinished"
    planned = f" of {declaration.num_planned:,}" if declaration.num_planned and not declaration.finished else ""
    facts = f"welltuned study, {state} · {content.num_trials:,}{planned} trials · declaration "
    return f"<h1>{escaped(declaration.name)}</h1><p>{facts}<code>{escaped(declaration.spec_hash[:16])}</code></p>"


def _answer(content: Content) -> str:
    declaration = content.declaration
    unfinished = [caveat.text for caveat in content.caveats if caveat.kind == "unfinished"]
    banner = "".join(f"<p class=unfinished>{escaped(text)}</p>\n" for text in unfinished)
    answers = "\n".join(f"<p class=answer>{escaped(answer)}</p>" for answer in content.answers)
    return (
        f"<p class=question>{escaped(content.question)}</p>\n{banner}{answers}"
        f"\n<p class=note>{escaped(note(declaration.comparison))}</p>"
    )


def _caveats(caveats: Sequence[Caveat]) -> str:
    if not caveats:
        return "<p>None of the doubts that a report looks for applies.</p>"
    return frame.doubts([(caveat.serious, "", caveat.text) for caveat in caveats])


def _is_missing(drawn: Drawn) -> bool:
    """Say whether there was nothing to draw, of which a reader hears last."""
    return drawn.svg is None


def _figure(drawn: Drawn) -> str:
    title = f"<h3>{escaped(drawn.title)}</h3>"
    if drawn.svg is None or drawn.numbers is None:
        return f"{title}<p class=note>Not drawn: {escaped(drawn.caption[:1].lower() + drawn.caption[1:])}</p>"
    label = escaped(drawn.title)
    ink = f'<div class="scroll ink" role=region tabindex=0 aria-label="{label}, the figure">{drawn.svg}</div>'
    links = _files("figures", drawn.name, FIGURE_FORMATS)
    caption = f"<figcaption>{escaped(drawn.caption)} {links}</figcaption>"
    note = f"<p class=note>{escaped(drawn.numbers.note)}</p>" if drawn.numbers.note else ""
    numbers = f"<details><summary>The numbers</summary>{table.html(drawn.numbers)}{note}</details>"
    width = "wide" if drawn.wide else "narrow"
    return f"<figure class={width}>{title}\n{ink}\n<div class=beside>{caption}\n{numbers}</div></figure>"


def _files(folder: str, name: str, formats: Sequence[str]) -> str:
    names = {"tex": "LaTeX"}
    links = " · ".join(
        f'<a href="{folder}/{escaped(name)}.{suffix}">{names.get(suffix, suffix.upper())}</a>' for suffix in formats
    )
    return f"<span class=files>{links}</span>"


def _tables(tables: Sequence[Table]) -> str:
    return "\n".join(_table(made) for made in tables)


def _table(made: Table) -> str:
    text = frame.folded(made.folded, table.html(made)) if made.folded else table.html(made)
    note = f"{escaped(made.note)} {_files('tables', made.name, TABLE_FORMATS)}".strip()
    return f"<h3>{escaped(made.title)}</h3>\n{text}\n<p class=note>{note}</p>"


def _declaration(declaration: Declaration) -> str:
    reads = plural(declaration.num_test_reads, "rerun")
    return (
        "<p>What was to be run was fixed before the first trial; this is its hash: "
        f"<code>{escaped(declaration.spec_hash)}</code>. The test split was read for {reads}. "
        f"{escaped(reads_text(declaration))} {escaped(provenance.hardware(declaration.environments))}</p>\n"
        f"<pre tabindex=0>{escaped(declaration.spec_text)}</pre>"
    )


def _provenance(content: Content) -> str:
    declaration = content.declaration
    surveys = "\n".join(_survey(survey) for survey in declaration.surveys)
    environments = "\n".join(frame.facts(provenance.environment(text)) for text in declaration.environments)
    return (
        f"<h3>Hashes</h3>\n{frame.facts(content.hashes)}\n"
        + (f"<h3>Base model and data</h3>\n{surveys}\n" if surveys else "")
        + (f"<h3>Versions and hardware</h3>\n{environments}" if environments else "")
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
    return frame.facts(facts)


def _reproduce(declaration: Declaration) -> str:
    install = provenance.install_command(declaration.environments)
    steps = []
    if install is not None:
        note = provenance.differing_environments(declaration.environments)
        steps.append(f"Install what the trials ran with. {note}<pre tabindex=0>{escaped(install)}</pre>")
    steps += [
        f'Run the declaration, which lies beside this page as <a href="{provenance.STUDY_FILE}">'
        f"{provenance.STUDY_FILE}</a>, into a new folder.<pre tabindex=0>{escaped(provenance.RUN_COMMANDS)}</pre>",
        "Compare: the new results.csv must have the same trial_id in every row, since the id is the hash of everything "
        "that decides a trial, base model and data included. The numbers are the same to the bit for the same packs on "
        "the same machine and versions; elsewhere they differ by rounding.",
    ]
    return "<ol>\n" + "\n".join(f"<li>{step}</li>" for step in steps) + "\n</ol>"
