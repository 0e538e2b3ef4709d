"""The gallery shows every figure, with what the code says of it; whether the ink is right is looked at by people."""

import importlib.util
import re
from pathlib import Path

from welltuned import plugins

ROOT = Path(__file__).parents[1]
NOT_DRAWN = {"differences", "pareto"}  # which need a stored verdict, and trials that take different times
BYTES = 500_000  # of all images; assumed: what a clone should not notice


def load_script():
    spec = importlib.util.spec_from_file_location("make_gallery", ROOT / "scripts" / "make_gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gallery_says_what_the_figures_compute():
    assert (ROOT / "docs/gallery.md").read_text(encoding="utf-8") == load_script().page(), (
        "docs/gallery.md is not what the figures say; run `python scripts/make_gallery.py` and look at the images"
    )


def test_the_gallery_has_an_image_of_every_figure_and_no_other():
    images = {path.stem: path.stat().st_size for path in (ROOT / "docs/images").iterdir()}
    assert sorted(images) == sorted(set(plugins.names("figures")) - NOT_DRAWN)
    assert sum(images.values()) < BYTES


def test_the_figure_of_the_readme_is_one_of_the_gallery():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\]\(docs/images/(\w+)\.png\)", text)
    assert shown and set(shown) <= set(plugins.names("figures")) and "](docs/gallery.md)" in text
