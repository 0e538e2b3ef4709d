"""Draws docs/gallery.md and docs/images/ from the recorded study: `python scripts/make_gallery.py`.

Every figure that the study has numbers for is on the page (it has no stored verdict), in the report's order, with the
caption and the text in its place that the figure computes; tests/test_gallery.py finds out when the page and the code
part.
"""

import textwrap
from pathlib import Path
from typing import Any

from welltuned import plugins
from welltuned.store import recorded

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "tests" / "recorded" / "batch_by_method.jsonl.gz"
PAGE = ROOT / "docs" / "gallery.md"
IMAGES = ROOT / "docs" / "images"
DPI = 160  # sharp at the width of a page, and a tenth of the bytes that print needs
COLOURS = 128  # of a palette: flat ink and its soft edges need no more
LINE = 120  # letters

HEAD = """\
# Gallery

The figures of a report, here of [studies/batch_by_method.toml](../studies/batch_by_method.toml): LoRA, PiSSA and MiLoRA
at four batch sizes and six learning rates on the bundled model and task, 72 selection trials and 36 reruns on fresh
seeds. The trials are recorded in `tests/recorded/`; `python scripts/make_gallery.py` makes this page from them. Each
caption is the one that the figure computes from its numbers.
"""


def figures() -> list[tuple[str, Any, Any]]:
    """Return (name, picture, its numbers of the recorded study) in the order of a report."""
    declaration, results = recorded.read(TABLE)
    pictures = {name: plugins.load("figures", name) for name in plugins.names("figures")}
    ordered = sorted(pictures, key=lambda name: (pictures[name].position, name))
    made = [(name, pictures[name], pictures[name].compute(results, declaration)) for name in ordered]
    return [(name, picture, numbers) for name, picture, numbers in made if not isinstance(numbers, str)]


def page() -> str:
    """Return the page's text."""
    return "\n".join([HEAD, *(_section(name, picture, numbers) for name, picture, numbers in figures())])


def _section(name: str, picture: Any, numbers: Any) -> str:
    alt = picture.alt(numbers).replace("[", "(").replace("]", ")")
    return f"## {picture.title}\n\n![{alt}](images/{name}.png)\n\n{textwrap.fill(picture.caption(numbers), LINE)}\n"


def draw(name: str, picture: Any, numbers: Any) -> None:
    """Write one image."""
    from PIL import Image

    path = IMAGES / f"{name}.png"
    with picture.style():
        picture.draw(numbers).savefig(path, dpi=DPI, metadata={"Software": None})
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLOURS).save(path, optimize=True)


def main() -> None:
    """Write the page and its images, and remove the images of figures that are no more."""
    for old in IMAGES.glob("*.png"):
        old.unlink()
    for name, picture, numbers in figures():
        draw(name, picture, numbers)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
