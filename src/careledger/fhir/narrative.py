"""Narrative is shown to nobody unescaped; this says only whether a `div` keeps to the XHTML subset of FHIR (warning).

R4 narrative: the elements of HTML 4 chapters 7 to 11 and 15, `a` and `img`; no scripts, forms, frames or handlers.
"""

from __future__ import annotations

import re

_TAG = re.compile(
    r"<(/?)([A-Za-z][A-Za-z0-9]*)((?:\s+[\w:.-]+\s*=\s*(?:\"[^\"<]*\"|'[^'<]*'))*)\s*(/?)>|<!--.*?-->|<", re.DOTALL
)
_ATTRIBUTE = re.compile(r"\s([\w:.-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_ELEMENT_NAMES = """
    div p br hr h1 h2 h3 h4 h5 h6 ul ol li dl dt dd table caption thead tbody tfoot tr td th colgroup col pre
    blockquote address span em strong b i u big small sub sup tt code samp kbd var cite abbr acronym dfn q ins del
    bdo a img map area
"""
_ELEMENTS = frozenset(_ELEMENT_NAMES.split())


def narrative_fault(div: str) -> str:
    """Why a `div` is outside the subset, "" if it is inside."""
    if not div.lstrip().startswith("<div"):
        return "does not start with a div"
    open_tags: list[str] = []
    for tag in _TAG.finditer(div):
        closing, name, attributes, empty = tag.groups()
        if name is None:
            if tag.group() == "<":
                return "is not well-formed XHTML"
            continue
        if name not in _ELEMENTS:
            return "has an element that narrative may not have"
        if any(_is_active(attribute, first or second) for attribute, first, second in _ATTRIBUTE.findall(attributes)):
            return "has an active attribute"
        if closing:
            if not open_tags or open_tags.pop() != name:
                return "is not well-formed XHTML"
        elif not empty:
            open_tags.append(name)
    return "is not well-formed XHTML" if open_tags else ""


def _is_active(attribute: str, value: str) -> bool:
    return attribute.lower().startswith("on") or value.strip().lower().startswith(("javascript:", "vbscript:"))
