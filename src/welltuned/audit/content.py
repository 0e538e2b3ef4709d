"""What an audit's page says, section by section, before markdown.py or webpage.py sets it."""

from dataclasses import dataclass

from welltuned.analysis.claims import Verdict, counted, missing_text
from welltuned.audit.assemble import Audit
from welltuned.audit.facts import Finding
from welltuned.audit.tables import TextTable, claims_sheet, conclusions_sheet, flips_sheet, reading, tuned_sheet


@dataclass(frozen=True)
class Explained:
    """A term and what it means."""

    term: str
    text: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in this order; what is empty is left out."""

    title: str
    findings: tuple[Finding, ...] = ()
    table: TextTable | None = None
    folded: str = ""  # where not empty, a page that can hides the table behind these words
    texts: tuple[str, ...] = ()
    terms: tuple[Explained, ...] = ()


HOW = (
    Explained(
        "Baseline",
        "Tuned means at least 3 learning rates, 3 batch sizes and 2 ranks (the criterion of the audit of 64 papers in "
        "arXiv 2602.04998). What a table does not say neither meets nor fails it.",
    ),
    Explained("Edge", "The best value is the lowest or highest of those tried at the method's best configuration."),
    Explained(
        "Noise",
        "The standard error of a difference: low, if two methods agree on most test items, and high, if they answer "
        "independently; seeds by paired or Welch's t, else from repeats pooled over configurations; items "
        "binomial. Each end has degrees of freedom of its own.",
    ),
    Explained(
        "Survives",
        "The loser was tuned (3 learning rates, the best inside, no fewer batch sizes and ranks than the winner), and "
        "the difference exceeds the high noise, with Holm's correction, and after what choosing the best of k adds "
        "(sigma sqrt(2 ln k)). It holds of the two configurations that are named.",
    ),
    Explained("Does not survive", "The difference lies within the low noise."),
    Explained("Cannot be told", "Everything else; the reasons stand beside it."),
    Explained(
        "Claims",
        "Each is one number with an interval and a region: supported inside it, contradicted outside, else undecided.",
    ),
)


def kind(one: Finding) -> str:
    """Return the word before a finding: of what kind it is, and whether it is serious."""
    return f"serious: {one.kind}" if one.serious else one.kind


def title(audit: Audit) -> str:
    """Return the page's title."""
    return f"Audit of {audit.book.source}"


def opening(audit: Audit) -> str:
    """Say which metric is read which way, and who is the baseline."""
    side = audit.book.judging
    which = "higher" if side.higher_is_better else "lower"
    return f"Metric: {side.metric} ({which} is better). Baseline: {audit.baseline}."


def sections(audit: Audit) -> tuple[Section, ...]:
    """Return what follows the verdict."""
    return (
        Section("Findings", findings=tuple(sorted(audit.findings, key=lambda one: not one.serious))),
        Section("What was tuned for whom", table=tuned_sheet(audit)),
        _tabled("Which conclusions survive", conclusions_sheet(audit), "The table compares no methods."),
        _tabled("Flips", flips_sheet(audit), "No method shares two or more configurations with the baseline."),
        _claims(audit),
        Section("How the table was read", table=reading(audit)),
        Section("How each finding is computed", terms=HOW),
    )


def _tabled(title: str, sheet: TextTable, empty: str) -> Section:
    return Section(title, table=sheet) if sheet.rows else Section(title, texts=(empty,))


def _claims(audit: Audit) -> Section:
    """List the claims that the table can reach; of the others, say what it lacks."""
    sheet = claims_sheet(audit)
    rest = [f"{one.claim.id}: {missing_text(one)}" for one in audit.claims if one.verdict is Verdict.NOT_APPLICABLE]
    told = (f"Out of reach, for want of: {'; '.join(rest)}.",) if rest else ()
    count = f"{counted(audit.claims)}."
    if not sheet.rows:
        return Section("Claims of the literature", texts=(count, "The table can reach none of them.", *told))
    words = f"Show the {len(sheet.rows)} that the table can reach"
    return Section("Claims of the literature", table=sheet, folded=words, texts=(count, *told))
