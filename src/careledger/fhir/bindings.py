"""Required code bindings of R4, which no Python validator checks (fhir.md 0, row 2): found ones are warnings.

`bindings.json` holds, for every R4 type, the path to each element bound with strength `required` whose value set can
be expanded offline, and the codes. Elements that lead to no binding are left out, so that a walk looks at few keys.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import TypeAlias, cast

import msgspec

Trie: TypeAlias = "dict[str, Trie | frozenset[str] | Mapping[str, frozenset[str]]]"
"""element -> what lies below it; a set of codes where a `code` is bound, codes by system for a `CodeableConcept`."""


class BoundConcept(dict[str, frozenset[str]]):
    """Codes by system of a bound `CodeableConcept`."""


@functools.cache
def tries() -> dict[str, Trie]:
    """Type name -> trie. Data types are shared between tries (Reference and Identifier contain each other)."""
    raw = msgspec.json.decode(resources.files(__package__).joinpath("bindings.json").read_bytes())
    codes = {name: frozenset(by_system[""].split()) for name, by_system in raw["sets"].items() if "" in by_system}
    concepts = {
        name: BoundConcept((system, frozenset(listed.split())) for system, listed in by_system.items())
        for name, by_system in raw["sets"].items()
        if "" not in by_system
    }
    types: dict[str, Trie] = {name: {} for name in raw["types"]}
    links: list[tuple[Trie, str, list[str]]] = []

    def fill(trie: Trie, source: dict[str, object]) -> None:
        for element, value in source.items():
            if isinstance(value, dict):
                below: Trie = {}
                fill(below, value)
                trie[element] = below
                continue
            text = cast("str", value)
            if text[0] == "=":
                trie[element] = types[text[1:]]
            elif text[0] == "~":
                trie[element] = concepts[text[1:]]
            elif text[0] == "^":
                links.append((trie, element, text[1:].split(".")))
            else:
                trie[element] = codes[text]

    for name, source in raw["types"].items():
        fill(types[name], source)
    for trie, element, (type_name, *steps) in links:
        target = types[type_name]
        for step in steps:
            target = cast("Trie", target[step])
        trie[element] = target
    return types
