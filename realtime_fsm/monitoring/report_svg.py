"""What becomes of the SVG that matplotlib writes: no foreign addresses, unique ids, light and dark."""

import re
from collections.abc import Iterator
from typing import Final
from xml.etree import ElementTree as ET

_SVG: Final = "http://www.w3.org/2000/svg"
_DARK: Final = {
    "#ffffff": "#0d1117",
    "#1f2328": "#e6edf3",
    "#59636e": "#9198a1",
    "#d1d9e0": "#3d444d",
    "#0969da": "#4493f8",
    "#bc4c00": "#f0883e",
    "#1a7f37": "#3fb950",
    "#8250df": "#ab7df8",
}
"""What each colour of the plots becomes in the dark."""

_REFERENCE: Final = re.compile(r"#([\w.-]+)\)")


def dark_rules(within: str = "") -> str:
    """Return the style sheet that turns the plots dark where people prefer it.

    The light colours stand in the drawing itself: what knows no style sheets shows it light.

    Args:
        within: A selector that the drawings are in.
    """
    rules = "".join(
        f'{within}[style*="{kind}: {light}"],{within}[{kind}="{light}"]{{{kind}:{dark}!important}}'
        for light, dark in _DARK.items()
        for kind in ("fill", "stroke")
    )
    return f"@media (prefers-color-scheme:dark){{{rules}}}"


def embedded(svg: str, name: str, title: str) -> str:
    """Return a drawing to stand inside a page of HTML.

    Args:
        svg: As matplotlib writes it.
        name: What makes its ids different from those of other drawings.
        title: What it shows, for who cannot see it.
    """
    return ET.tostring(_cleaned(svg, f"{name}-", title), encoding="unicode")


def standalone(svg: str, title: str) -> str:
    """Return a drawing for a file of its own."""
    root = _cleaned(svg, "", title)
    root.set("xmlns", _SVG)
    style = ET.Element("style")
    style.text = dark_rules()
    root.insert(1, style)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _cleaned(svg: str, prefix: str, title: str) -> ET.Element:
    root = ET.fromstring(svg)  # noqa: S314 - matplotlib has just written it
    for parent in list(root.iter()):
        for child in [one for one in parent if _name(one.tag) in {"metadata", "style"}]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _name(element.tag)
        element.attrib = dict(_attributes(element, prefix))
    # matplotlib says this of every element there is, in the page around it too.
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt", "role": "img"}
    root.attrib.pop("version", None)
    # In points not everything that draws SVG knows how large that is.
    root.attrib["width"], root.attrib["height"] = root.attrib["viewBox"].split()[2:]
    label = ET.Element("title")
    label.text = title
    root.insert(0, label)
    return root


def _attributes(element: ET.Element, prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in element.attrib.items():
        name = _name(key)
        if name == "id":
            yield name, prefix + value
        elif name == "href" and value.startswith("#"):
            yield name, f"#{prefix}{value[1:]}"
        else:
            yield name, _REFERENCE.sub(rf"#{prefix}\1)", value)


def _name(qualified: str) -> str:
    return qualified.rpartition("}")[2]
