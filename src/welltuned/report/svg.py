"""A drawn figure as SVG that can stand inside a page: tooltips, ids of its own, no metadata, the page's font.

Every style becomes an attribute, for two reasons: a page whose Content-Security-Policy forbids inline styles shows it,
and the page's style sheet can give a colour another value on a dark ground (report/css.py).
"""

import io
import re
import xml.etree.ElementTree as ElementTree

from matplotlib.figure import Figure

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
TIP = "tip:"  # what figures/_ink.py starts the id of an artist with a tooltip with
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Helvetica, Arial, sans-serif"
GEOMETRY = frozenset(("d", "x", "y", "width", "height", "transform", "points", "cx", "cy", "r", "x1", "x2", "y1", "y2"))
DIGITS = 2  # of a point: 1/100 of 1/72 inch, finer than any printer


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
    _drop_metadata(root)
    referred = _referred(root)
    for element in list(root.iter()):
        _own_ids(element, name, referred)
        _tooltip(element)
        _styles_to_attributes(element)
        _shorten(element)
    root.set("role", "img")
    root.set("aria-label", description)
    root.set("font-family", FONT)
    root.set("stroke-linejoin", "round")  # with the next line: what matplotlib's own style sheet says
    root.set("stroke-linecap", "butt")
    return ElementTree.tostring(root, encoding="unicode")


def _drop_metadata(root: ElementTree.Element) -> None:
    """Remove the metadata, and the style sheet, which would apply to the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)


def _referred(root: ElementTree.Element) -> set[str]:
    """Return the ids that something refers to; of the others a page needs none."""
    found: set[str] = set()
    for element in root.iter():
        for attribute, value in element.attrib.items():
            if attribute == f"{{{XLINK}}}href":
                found.add(value.removeprefix("#"))
            elif attribute not in ("id", "aria-label"):
                found.update(re.findall(r"url\(#([^)]+)\)", value))
    return found


def _own_ids(element: ElementTree.Element, name: str, referred: set[str]) -> None:
    for attribute, value in list(element.attrib.items()):
        if attribute == "id" and not value.startswith(TIP):
            if value in referred:
                element.set("id", f"{name}-{value}")
            else:
                del element.attrib["id"]
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


def _styles_to_attributes(element: ElementTree.Element) -> None:
    style = element.attrib.pop("style", None)
    for declaration in (style or "").split(";"):
        key, _, value = declaration.partition(":")
        if key.strip() and key.strip() != "font-family":  # the root has the page's
            element.set(key.strip(), value.strip())


def _shorten(element: ElementTree.Element) -> None:
    """Round coordinates and drop the white space between elements, which together is a third of the bytes."""
    for attribute, value in element.attrib.items():
        if attribute in GEOMETRY:
            element.set(attribute, re.sub(r"-?\d+\.\d+", lambda number: _rounded(number.group()), value).strip())
    if element.get("transform", "").startswith("rotate(0 "):
        del element.attrib["transform"]
    if element.text is not None and not element.text.strip():
        element.text = None
    if element.tail is not None and not element.tail.strip():
        element.tail = None


def _rounded(number: str) -> str:
    text = f"{float(number):.{DIGITS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
