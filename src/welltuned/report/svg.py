"""A drawn figure as SVG that can stand inside a page: tooltips, ids of its own, no metadata, the page's font."""

import io
import re
import xml.etree.ElementTree as ElementTree

from matplotlib.figure import Figure

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
TIP = "tip:"  # what figures/_ink.py starts the id of an artist with a tooltip with
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Helvetica, Arial, sans-serif"
LINES = "stroke-linejoin: round; stroke-linecap: butt"  # what matplotlib's own style sheet says


def render(drawing: Figure, name: str, description: str) -> str:
    """Return a figure's SVG: `name` makes its ids unique within a page, `description` is read to who cannot see it."""
    buffer = io.StringIO()
    drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return finish(buffer.getvalue(), name, description)


def finish(text: str, name: str, description: str) -> str:
    """Turn matplotlib's SVG into one for a page."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(text)
    root.set("role", "img")
    root.set("aria-label", description)
    root.set("style", LINES)
    _drop_metadata(root)
    for element in list(root.iter()):
        _own_ids(element, name)
        _tooltip(element)
        style = element.get("style")
        if style is not None and "'DejaVu Sans'" in style:
            element.set("style", style.replace("'DejaVu Sans'", FONT))
    return ElementTree.tostring(root, encoding="unicode")


def _drop_metadata(root: ElementTree.Element) -> None:
    """Remove the metadata, and the style sheet, which would apply to the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)


def _own_ids(element: ElementTree.Element, name: str) -> None:
    for attribute, value in list(element.attrib.items()):
        if attribute == "id" and not value.startswith(TIP):
            element.set("id", f"{name}-{value}")
        elif attribute == f"{{{XLINK}}}href" and value.startswith("#"):
            element.set(attribute, f"#{name}-{value[1:]}")
        elif attribute not in ("id", "aria-label") and "url(#" in value:
            element.set(attribute, re.sub(r"url\(#", f"url(#{name}-", value))


def _tooltip(element: ElementTree.Element) -> None:
    value = element.get("id", "")
    if value.startswith(TIP):
        del element.attrib["id"]
        title = ElementTree.Element(f"{{{SVG}}}title")
        title.text = value.removeprefix(TIP)
        element.insert(0, title)
