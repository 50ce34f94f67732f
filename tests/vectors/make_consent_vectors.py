"""Writes vectors/consent/decision.json: `python tests/vectors/make_consent_vectors.py`.

Every expectation below is written by hand from DESIGN 5.3; none is computed by the code under test. Both Python and
the web app run the file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
NOW = 1_760_000_000_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NETWORK = "ab" * 32


def token(name: str) -> str:
    """A text of a token's shape; its checksum plays no part in decisions."""
    digest = hashlib.sha512(name.encode()).digest()
    return "cl1" + "".join(ALPHABET[byte % 32] for byte in digest[:46])


def hex16(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def hex32(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


PEOPLE = [
    "patient",
    "other-patient",
    "ada",
    "bea",
    "cyd",
    "dan",
    "eve",
    "fay",
    "gus",
    "hal",
    "ivy",
    "jon",
    "kim",
    "lou",
    "max",
    "ned",
    "approver-1",
    "approver-2",
    "approver-3",
    "stranger",
    "gone",
]
ORGANISATIONS = ["clinic", "hospital", "gone-clinic", "outsider", "manager"]
T = {name: token(name) for name in PEOPLE + ORGANISATIONS}
C = {name: hex16("compartment " + name) for name in ["about", "warnings", "results", "private", "inbox", "spare"]}
R = {
    name: hex16("record " + name)
    for name in [
        "r-about",
        "r-warn",
        "r-res",
        "r-priv",
        "r-inbox",
        "r-old",
        "r-moved",
        "r-torn",
        "r-first",
        "r-late",
        "r-none",
    ]
}
HEAD = hex32("head")


def grant(name: str, grantee: str, **changes: Any) -> tuple[str, dict[str, Any]]:
    revoked = changes.pop("revoked", False)
    terms: dict[str, Any] = {
        "box": hex32("box " + name),
        "compartments": [C["about"], C["warnings"]],
        "expires": NOW + 30 * DAY,
        "grant": hex16("grant " + name),
        "grantee": T[grantee],
        "network": NETWORK,
        "policy": "https://careledger.example/policy/1",
        "prev": hex32("before " + name),
        "purposes": ["ETREAT", "TREAT"],
        "rights": ["read"],
        "role": "subject",
        "seq": 2,
        "subject": T["patient"],
        "text_hash": hex32("text"),
        "text_language": "en",
        "time": NOW - DAY,
        "to": T[grantee] + "#0",
        "type": "grant",
        "v": 1,
    }
    terms.update(changes)
    terms = {key: value for key, value in terms.items() if value is not None}
    return terms["grant"], {"terms": terms, "event": hex32("event " + name), "revoked": revoked}


G: dict[str, str] = {}


def grants(*given: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    table = {}
    for name, grantee, changes in given:
        grant_id, value = grant(name, grantee, **changes)
        G[name] = grant_id
        table[grant_id] = value
    return table


ALL_GRANTS = grants(
    ("ada", "ada", {}),
    ("clinic", "clinic", {"compartments": [C["results"]], "rights": ["contribute", "read"]}),
    ("bea", "bea", {"revoked": True}),
    ("cyd", "cyd", {"expires": NOW}),
    ("dan", "dan", {"purposes": ["HRESCH"]}),
    ("eve", "eve", {"compartments": None, "records": [R["r-priv"], R["r-about"]]}),
    ("fay", "fay", {"compartments": [C["about"]], "range": {"from": NOW - 10 * DAY, "until": NOW - DAY}}),
    (
        "gus",
        "gus",
        {"joint": {"k": 2, "tokens": [T["approver-1"], T["approver-2"], T["approver-3"], T["gus"], T["gone"]]}},
    ),
    ("hal", "hal", {"rights": ["contribute"], "compartments": [C["about"]]}),
    ("ivy-1", "ivy", {"revoked": True}),
    ("ivy-2", "ivy", {}),
    ("jon-1", "jon", {"expires": NOW - 1}),
    ("jon-2", "jon", {"revoked": True}),
    ("kim-1", "kim", {"purposes": ["HRESCH"]}),
    ("kim-2", "kim", {"compartments": [C["results"]]}),
    ("lou-1", "lou", {"compartments": [C["about"]]}),
    ("lou-2", "lou", {"compartments": [C["results"]], "rights": ["contribute", "read"]}),
    ("approver-3", "approver-3", {"compartments": [C["about"]], "range": {"from": NOW - 10 * DAY}}),
    ("approver-2", "approver-2", {"compartments": [C["about"]], "range": {"until": NOW - DAY}}),
    ("ned-2", "ned", {"rights": ["contribute"], "compartments": [C["results"]]}),
    ("ned-3", "ned", {"rights": ["contribute"], "compartments": [C["warnings"]]}),
    ("lou-3", "lou", {"compartments": [C["about"]]}),
    ("max-1", "max", {"joint": {"k": 1, "tokens": [T["approver-1"]]}}),
    ("max-2", "max", {"compartments": [C["results"]]}),
    ("gone", "gone", {}),
    ("hospital-off", "hospital", {"revoked": True, "rights": ["contribute"], "compartments": [C["about"]]}),
    ("ned", "ned", {"expires": NOW + 1}),
)


def index(table: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for grant_id, value in table.items():
        found.setdefault(value["terms"]["grantee"], []).append(grant_id)
    return found


def state(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "subject": T["patient"],
        "seq": 40,
        "head": HEAD,
        "heads": [HEAD],
        "compartments": {compartment: [3, name[0].upper() * 1622] for name, compartment in sorted(C.items())},
        "inbox": C["inbox"],
        "grants": ALL_GRANTS,
        "filed": {R["r-inbox"]: C["about"], R["r-moved"]: C["private"]},
        "contested": {},
    }
    value.update(changes)
    value["by_grantee"] = index(value["grants"])
    return value


FORK_HEADS = sorted([hex32("branch one"), hex32("branch two")])
STATES = {
    "main": state(),
    "empty": {
        **state(compartments={}, inbox="", grants={}, filed={}),
        "subject": "",
        "seq": 0,
        "head": "00" * 32,
        "heads": ["00" * 32],
    },
    "forked": state(
        head=hex32("fork"),
        heads=FORK_HEADS,
        filed={R["r-inbox"]: C["about"]},
        contested={R["r-moved"]: [C["private"]], R["r-torn"]: [C["about"], C["warnings"]]},
    ),
}
EVERYBODY = sorted(T[name] for name in T if name not in ("stranger", "gone", "gone-clinic"))
LICENCES = [{"person": T[name], "from": NOW - DAY, "until": NOW + DAY} for name in ("ada", "kim", "stranger")]
LICENCES += [{"person": T["cyd"], "from": NOW - 2 * DAY, "until": NOW}]


def directory(age: int) -> dict[str, Any]:
    members = sorted(T[name] for name in ("clinic", "hospital", "manager"))
    return {"height": 7, "time_ms": NOW - age, "active": EVERYBODY, "licences": LICENCES, "members": members}


DIRECTORIES = {
    "fresh": directory(MINUTE),
    "ten-minutes": directory(10 * MINUTE),
    "eleven-minutes": directory(11 * MINUTE),
    "a-day": directory(DAY),
    "over-a-day": directory(DAY + 1),
    "ahead": directory(-MINUTE),
}


def manifest(record: str, compartment: str, recorded: int = NOW - 5 * DAY) -> dict[str, Any]:
    return {"record": R[record], "compartment": C[compartment], "epoch": 1, "recorded": recorded}


MANIFESTS = {
    "r-about": manifest("r-about", "about"),
    "r-warn": manifest("r-warn", "warnings"),
    "r-res": manifest("r-res", "results"),
    "r-priv": manifest("r-priv", "private"),
    "r-inbox": manifest("r-inbox", "inbox"),
    "r-old": manifest("r-old", "about", NOW - 10 * DAY - 1),
    "r-moved": manifest("r-moved", "about"),
    "r-torn": manifest("r-torn", "about"),
}
ALL = list(MANIFESTS)
MANIFESTS["r-first"] = manifest("r-first", "about", NOW - 10 * DAY)
MANIFESTS["r-late"] = manifest("r-late", "about", NOW - DAY)
CASES: list[dict[str, Any]] = []
CONTRIBUTIONS: list[dict[str, Any]] = []


def affiliated(person: dict[str, Any]) -> Any:
    until = person.pop("until", NOW + HOUR)
    organisation = person.pop("affiliated", person.get("for"))
    return [T[organisation], until] if organisation else None


def case(name: str, expect: Any, **given: Any) -> None:
    """`expect`: a denial's code, or (basis, grant, records covered)."""
    asked = given.pop("records", ["r-about"])
    request: dict[str, Any] = {"for": given.pop("for_", None), "until": given.pop("until", NOW + HOUR)}
    request["affiliated"] = given.pop("affiliated", request["for"])
    value = {
        "reader": T[given.pop("reader", "ada")],
        "affiliated": affiliated(request),
        "for": T[request["for"]] if request["for"] else None,
        "subject": T["patient"],
        "records": None if asked is None else [R[record] for record in asked],
        "purpose": given.pop("purpose", "TREAT"),
        "basis": given.pop("basis", "grant"),
        "grant": G[named] if (named := given.pop("grant", None)) else None,
        "head": given.pop("head", [40, HEAD]),
        "approvals": [{"approver": T[who], "expires": until} for who, until in given.pop("approvals", [])],
    }
    shown = given.pop("manifests", ALL if asked is None else [record for record in asked if record in MANIFESTS])
    manager = given.pop("manager", None)
    CASES.append(
        {
            "name": name,
            "state": given.pop("state", "main"),
            "directory": given.pop("directory", "fresh"),
            "now": given.pop("now", NOW),
            "manager": T[manager] if manager else None,
            "request": value,
            "manifests": shown,
            "counters": given.pop("counters", {}),
            "expect": expected(expect),
        }
    )
    assert not given, given


def contribution(name: str, expect: Any, **given: Any) -> None:
    person: dict[str, Any] = {"for": given.pop("for_", None), "until": given.pop("until", NOW + HOUR)}
    person["affiliated"] = given.pop("affiliated", person["for"])
    slots = given.pop("slots", [("about", 3, 1)])
    manager = given.pop("manager", None)
    CONTRIBUTIONS.append(
        {
            "name": name,
            "state": given.pop("state", "main"),
            "directory": given.pop("directory", "fresh"),
            "now": given.pop("now", NOW),
            "manager": T[manager] if manager else None,
            "contribution": {
                "author": T[given.pop("author")],
                "affiliated": affiliated(person),
                "for": T[person["for"]] if person["for"] else None,
                "subject": T["patient"],
                "compartments": [[C.get(slot, hex16(slot)), epoch, count] for slot, epoch, count in slots],
            },
            "counters": given.pop("counters", {}),
            "expect": expected(expect),
        }
    )
    assert not given, given


def expected(expect: Any) -> dict[str, Any]:
    if isinstance(expect, str):
        return {"allow": False, "reason": expect, "grant": None, "covered": []}
    reason, named, covered = expect
    return {
        "allow": True,
        "reason": reason,
        "grant": G[named] if named else None,
        "covered": [R[record] for record in covered],
    }


def access_cases() -> None:
    one = ["r-about"]
    case("a grant to the person opens its compartment", ("grant", "ada", one))
    case("the grant named is the one used", ("grant", "ada", one), grant="ada")
    case("of two grants that allow, the first given", ("grant", "lou-1", one), reader="lou")
    case("of two grants that allow, the one named", ("grant", "lou-3", one), reader="lou", grant="lou-3")
    case("another purpose of the same grant", ("grant", "ada", one), purpose="ETREAT")
    case(
        "two records of two granted compartments",
        ("grant", "ada", ["r-about", "r-warn"]),
        records=["r-about", "r-warn"],
    )
    case(
        "covered follows the order of the request",
        ("grant", "ada", ["r-warn", "r-about"]),
        records=["r-warn", "r-about"],
    )
    case("a person's grant also holds while acting for an organisation", ("grant", "ada", one), for_="hospital")
    case("one record out of two isn't covered: nothing opens", "out-of-scope", records=["r-about", "r-res"])
    case("another compartment", "out-of-scope", records=["r-res"])
    case("a record that doesn't exist looks like one not covered", "out-of-scope", records=["r-none"])
    case("a record whose manifest isn't here looks the same", "out-of-scope", manifests=[])
    case("manifests of other records don't help", "out-of-scope", records=["r-priv"], manifests=["r-about"])
    # no-grant
    case("no grant at all", "no-grant", reader="approver-1")
    case("no consent chain yet", "no-grant", state="empty", head=[0, "00" * 32])
    case("another person's grant named", "no-grant", reader="approver-1", grant="ada")
    case("a grant to contribute doesn't open", "no-grant", reader="hal")
    case("an unknown basis grants nothing: emergency", "no-grant", basis="emergency")
    case("an unknown basis grants nothing: warrant", "no-grant", basis="warrant")
    # organisation
    case(
        "a grant to the organisation",
        ("grant", "clinic", ["r-res"]),
        reader="approver-1",
        for_="clinic",
        records=["r-res"],
    )
    case("without naming the organisation its grant is nobody's", "no-grant", reader="approver-1", records=["r-res"])
    case(
        "named, but not affiliated",
        "not-affiliated",
        reader="approver-1",
        for_="clinic",
        affiliated=None,
        records=["r-res"],
    )
    case(
        "affiliated with another organisation",
        "not-affiliated",
        for_="clinic",
        affiliated="hospital",
        records=["r-res"],
    )
    case("affiliation ended this very moment", "not-affiliated", for_="clinic", until=NOW, records=["r-res"])
    case("affiliation that ends next", ("grant", "clinic", ["r-res"]), for_="clinic", until=NOW + 1, records=["r-res"])
    case(
        "own and organisation's grants together",
        ("grant", "ada", ["r-about", "r-res"]),
        for_="clinic",
        records=["r-about", "r-res"],
    )
    case("affiliated but not acting for it", "no-grant", reader="approver-1", affiliated="clinic", records=["r-res"])
    case("not affiliated comes before the person's own grant", "not-affiliated", for_="clinic", affiliated=None)
    case("an organisation that isn't a member may read by grant", ("grant", "ada", one), for_="outsider")
    # identity
    case("an unknown reader", "unknown-identity", reader="stranger")
    case("a deactivated reader with a grant", "unknown-identity", reader="gone")
    case("a deactivated organisation", "unknown-identity", for_="gone-clinic")
    case("unknown comes before not affiliated", "unknown-identity", for_="gone-clinic", affiliated=None)
    # revoked, expired, purpose
    case("revoked", "revoked", reader="bea")
    case("revoked, and the record isn't covered either", "revoked", reader="bea", records=["r-res"])
    case("revoked, and for another purpose", "revoked", reader="bea", purpose="HRESCH")
    case("revoked, record doesn't exist", "revoked", reader="bea", records=["r-none"])
    case("expires at this very moment", "expired", reader="cyd")
    case("a millisecond left", ("grant", "ned", one), reader="ned")
    case("the same a millisecond later", "expired", reader="ned", now=NOW + 1)
    case("expired comes before purpose", "expired", reader="cyd", purpose="HRESCH")
    case("a purpose the patient did not name", "wrong-purpose", purpose="HRESCH")
    case("a purpose in part of a granted one", "wrong-purpose", purpose="TREA")
    case("research only", "wrong-purpose", reader="dan")
    case("research for research", ("grant", "dan", one), reader="dan", purpose="HRESCH")
    case("wrong purpose comes before scope", "wrong-purpose", purpose="HRESCH", records=["r-res"])
    case("a good grant beside a revoked one", ("grant", "ivy-2", one), reader="ivy")
    case("a good grant, though the revoked one is named", ("grant", "ivy-2", one), reader="ivy", grant="ivy-1")
    case("a revoked one and one out of scope", "revoked", reader="ivy", records=["r-res"])
    case("revoked and expired: the first in order", "revoked", reader="jon")
    case("wrong purpose and out of scope: the first in order", "wrong-purpose", reader="kim")
    case("the second grant covers it", ("grant", "kim-2", ["r-res"]), reader="kim", records=["r-res"])
    case(
        "each record by another grant",
        ("grant", "lou-1", ["r-about", "r-res"]),
        reader="lou",
        records=["r-about", "r-res"],
    )
    case(
        "the grant used is that of the first record",
        ("grant", "lou-2", ["r-res", "r-about"]),
        reader="lou",
        records=["r-res", "r-about"],
    )
    case("two grants, one record in neither", "out-of-scope", reader="lou", records=["r-about", "r-priv"])
    # records and range
    case("a single record granted", ("grant", "eve", ["r-priv"]), reader="eve", records=["r-priv"])
    case("a neighbour of the granted record", "out-of-scope", reader="eve", records=["r-warn"])
    case(
        "granted by id wherever it was filed",
        ("grant", "eve", one),
        reader="eve",
        state="forked",
        head=[40, FORK_HEADS[0]],
    )
    case("within the range", ("grant", "fay", one), reader="fay")
    case("at the beginning of the range", ("grant", "fay", ["r-first"]), reader="fay", records=["r-first"])
    case("at the end of the range", "out-of-scope", reader="fay", records=["r-late"])
    case("a range without end", ("grant", "approver-3", ["r-late"]), reader="approver-3", records=["r-late"])
    case("a range without end still begins", "out-of-scope", reader="approver-3", records=["r-old"])
    case("a range without beginning", ("grant", "approver-2", ["r-old"]), reader="approver-2", records=["r-old"])
    case("a range without beginning still ends", "out-of-scope", reader="approver-2", records=["r-late"])
    case("before the range", "out-of-scope", reader="fay", records=["r-old"])
    # filing
    case("filed from the inbox into a granted compartment", ("grant", "ada", ["r-inbox"]), records=["r-inbox"])
    case("filed away into a closed compartment", "out-of-scope", records=["r-moved"])
    # joint
    case("joint without approvals", "not-enough-approvals", reader="gus")
    case("joint with one of two", "not-enough-approvals", reader="gus", approvals=[("approver-1", NOW + HOUR)])
    both = [("approver-1", NOW + HOUR), ("approver-3", NOW + HOUR)]
    case("joint with two", ("grant", "gus", one), reader="gus", approvals=both)
    case("one person twice", "not-enough-approvals", reader="gus", approvals=[both[0], both[0]])
    case("an approval that has expired", "not-enough-approvals", reader="gus", approvals=[both[0], ("approver-2", NOW)])
    case(
        "an approval by somebody not named",
        "not-enough-approvals",
        reader="gus",
        approvals=[both[0], ("kim", NOW + HOUR)],
    )
    case("the reader's own approval", "not-enough-approvals", reader="gus", approvals=[both[0], ("gus", NOW + HOUR)])
    case(
        "an approval by somebody deactivated",
        "not-enough-approvals",
        reader="gus",
        approvals=[both[0], ("gone", NOW + HOUR)],
    )
    case("three approvals", ("grant", "gus", one), reader="gus", approvals=[*both, ("approver-2", NOW + 1)])
    case("joint and out of scope", "out-of-scope", reader="gus", records=["r-res"])
    case("joint, out of scope with approvals", "out-of-scope", reader="gus", records=["r-res"], approvals=both)
    case("joint beside a free grant", ("grant", "max-2", ["r-res"]), reader="max", records=["r-res"])
    case(
        "one grant needs an approval, the other does not cover it: the first in order",
        "out-of-scope",
        reader="max",
        records=["r-res", "r-about"],
    )
    case(
        "the approval given",
        ("grant", "max-2", ["r-res", "r-about"]),
        reader="max",
        records=["r-res", "r-about"],
        approvals=[both[0]],
    )
    # lists
    everything = ["r-about", "r-warn", "r-inbox", "r-old", "r-torn"]
    case("a list shows what is covered", ("grant", "ada", everything), records=None)
    case("a list of the covered alone looks the same", ("grant", "ada", everything), records=None, manifests=everything)
    case("a list over no records", ("grant", "ada", []), records=None, manifests=[])
    case("a list where nothing is covered", ("grant", "ada", []), records=None, manifests=["r-res", "r-priv"])
    case(
        "a list by several grants",
        ("grant", "lou-1", ["r-about", "r-res", "r-inbox", "r-old", "r-torn"]),
        reader="lou",
        records=None,
    )
    case("a list by record ids", ("grant", "eve", ["r-about", "r-priv"]), reader="eve", records=None)
    case("a list within a range", ("grant", "fay", ["r-about", "r-inbox", "r-torn"]), reader="fay", records=None)
    case("a list for another purpose", "wrong-purpose", records=None, purpose="HRESCH")
    case("a list after revocation", "revoked", reader="bea", records=None)
    case("a list without a grant", "no-grant", reader="approver-1", records=None)
    case("a list without approvals", "not-enough-approvals", reader="gus", records=None)
    case("a list leaves out what needs approvals", ("grant", "max-2", ["r-res"]), reader="max", records=None)
    # stale
    case("the reader knows a newer head", "stale", head=[41, hex32("newer")])
    case("the reader knows an older head", ("grant", "ada", one), head=[39, hex32("older")])
    case("the reader knows no head", ("grant", "ada", one), head=[0, "00" * 32])
    case("the reader knows another event of that number", "stale", head=[40, hex32("other")])
    case("stale comes before an unknown reader", "stale", reader="stranger", head=[41, hex32("newer")])
    case("heads compared a minute ago", ("grant", "ada", one), counters={"heads_age_ms": MINUTE})
    case("heads compared longer ago", "stale", counters={"heads_age_ms": MINUTE + 1})
    shorter = {"heads_age_ms": MINUTE, "heads_age_max_ms": MINUTE - 1}
    case("heads_age_max_ms is a parameter", "stale", counters=shorter)
    case("a directory a day old still opens", ("grant", "ada", one), directory="a-day")
    case("a directory older than a day", "stale", directory="over-a-day")
    case("stale_max_ms is a parameter", "stale", directory="a-day", counters={"stale_max_ms": DAY - 1})
    case("a directory ahead of the node's clock", ("grant", "ada", one), directory="ahead")
    case("somebody new, directory fresh enough", ("grant", "ada", one), directory="ten-minutes", counters={"unseen": 1})
    case("somebody new, directory too old for that", "stale", directory="eleven-minutes", counters={"unseen": 1})
    case("nobody new, directory as old", ("grant", "ada", one), directory="eleven-minutes", counters={"unseen": 0})
    # limits
    case("the last request within the limit", ("grant", "ada", one), counters={"requests": 9, "requests_max": 10})
    case("over the limit", "over-limit", counters={"requests": 10, "requests_max": 10})
    case("over the limit comes last", "out-of-scope", records=["r-res"], counters={"requests": 10, "requests_max": 10})
    case("counted without a limit", ("grant", "ada", one), counters={"requests": 10_000})
    # owner
    case(
        "the subject opens everything",
        ("owner", None, ["r-priv", "r-moved"]),
        reader="patient",
        basis="owner",
        records=["r-priv", "r-moved"],
    )
    case("the subject's list", ("owner", None, ALL), reader="patient", basis="owner", records=None)
    case(
        "the subject asks for what isn't here", ("owner", None, []), reader="patient", basis="owner", records=["r-none"]
    )
    case("the subject needs no head", ("owner", None, one), reader="patient", basis="owner", head=[99, hex32("x")])
    case(
        "the subject is served by a custodian left alone",
        ("owner", None, one),
        reader="patient",
        basis="owner",
        directory="over-a-day",
        counters={"heads_age_ms": DAY},
    )
    case("the subject before any consent", ("owner", None, one), reader="patient", basis="owner", state="empty")
    case(
        "the subject has limits too",
        "over-limit",
        reader="patient",
        basis="owner",
        counters={"requests": 5, "requests_max": 5},
    )
    case("somebody else says owner", "no-grant", basis="owner")
    case("a stranger says owner", "unknown-identity", reader="stranger", basis="owner")
    # managed
    case(
        "the manager itself",
        ("managed", None, ["r-priv"]),
        reader="manager",
        basis="managed",
        manager="manager",
        records=["r-priv"],
    )
    case(
        "a person acting for the manager",
        ("managed", None, ["r-priv"]),
        basis="managed",
        for_="manager",
        manager="manager",
        records=["r-priv"],
    )
    case("the manager's list", ("managed", None, ALL), basis="managed", for_="manager", manager="manager", records=None)
    case(
        "acting for the manager without affiliation",
        "not-affiliated",
        basis="managed",
        for_="manager",
        affiliated=None,
        manager="manager",
    )
    case("nobody's manager, for nobody", "no-grant", basis="managed")
    case("no manager is named", "no-grant", basis="managed", for_="manager")
    case("another manager is named", "no-grant", basis="managed", for_="clinic", manager="manager")
    case("the manager without saying so", "no-grant", reader="approver-1", for_="manager", manager="manager")
    case(
        "managed with a directory too old",
        "stale",
        basis="managed",
        for_="manager",
        manager="manager",
        directory="over-a-day",
    )
    case(
        "the manager is limited",
        "over-limit",
        basis="managed",
        for_="manager",
        manager="manager",
        counters={"requests": 1, "requests_max": 1},
    )
    # fork
    case("a fork: the reader knows one branch", ("grant", "ada", one), state="forked", head=[40, FORK_HEADS[1]])
    case("a fork: the reader knows both", ("grant", "ada", one), state="forked", head=[40, hex32("fork")])
    case("a fork: a third branch", "stale", state="forked", head=[40, HEAD])
    case("a fork: moved away in one branch", "out-of-scope", state="forked", head=[39, HEAD], records=["r-moved"])
    case(
        "a fork: moved among granted compartments",
        ("grant", "ada", ["r-torn"]),
        state="forked",
        head=[39, HEAD],
        records=["r-torn"],
    )
    case(
        "a fork: moved out of one of them",
        "out-of-scope",
        reader="lou",
        state="forked",
        head=[39, HEAD],
        records=["r-torn"],
    )


def contribution_cases() -> None:
    kept = ("grant", "clinic", [])
    contribution("the subject contributes", ("owner", None, []), author="patient", slots=[("private", 3, 5)])
    contribution(
        "the subject, alone with an old directory", ("owner", None, []), author="patient", directory="over-a-day"
    )
    contribution("a grant to contribute", ("grant", "hal", []), author="hal")
    contribution("a grant to read doesn't let write", "no-grant", author="ada")
    contribution("contributing to another compartment", "out-of-scope", author="hal", slots=[("results", 3, 1)])
    contribution("one of two compartments", "out-of-scope", author="hal", slots=[("about", 3, 1), ("results", 3, 1)])
    contribution("by the organisation's grant", kept, author="kim", for_="clinic", slots=[("results", 3, 2)])
    contribution(
        "not affiliated", "not-affiliated", author="kim", for_="clinic", affiliated=None, slots=[("results", 3, 2)]
    )
    contribution("an organisation whose grant is revoked", "revoked", author="kim", for_="hospital")
    two = [("results", 3, 1), ("warnings", 3, 1)]
    contribution("each compartment by another grant, the first named", ("grant", "ned-2", []), author="ned", slots=two)
    contribution("an unknown author", "unknown-identity", author="stranger", for_="clinic", slots=[("inbox", 3, 1)])
    contribution("a directory too old", "stale", author="hal", directory="over-a-day")
    contribution(
        "a new author with an old directory", "stale", author="hal", directory="eleven-minutes", counters={"unseen": 1}
    )
    contribution("sealed to an older epoch", "stale-epoch", author="hal", slots=[("about", 2, 1)])
    contribution("sealed to an epoch this custodian doesn't know yet", "stale", author="hal", slots=[("about", 4, 1)])
    contribution("one epoch older, one newer", "stale", author="patient", slots=[("about", 2, 1), ("results", 4, 1)])
    contribution("a compartment that doesn't exist", "out-of-scope", author="patient", slots=[("nowhere", 1, 1)])
    contribution("an outsider learns nothing of compartments", "no-grant", author="ada", slots=[("nowhere", 1, 1)])
    contribution("no records at all", "out-of-scope", author="patient", slots=[])
    inbox = [("inbox", 3, 2)]
    contribution("the inbox takes a licensed author's", ("inbox", None, []), author="ada", for_="hospital", slots=inbox)
    contribution("the inbox: not licensed", "not-licensed", author="dan", for_="hospital", slots=inbox)
    contribution(
        "the inbox: licence ended this very moment", "not-licensed", author="cyd", for_="hospital", slots=inbox
    )
    contribution("the inbox: for nobody", "not-affiliated", author="ada", slots=inbox)
    contribution(
        "the inbox: for an organisation that isn't a member",
        "not-affiliated",
        author="ada",
        for_="outsider",
        slots=inbox,
    )
    contribution(
        "the inbox: quota",
        "over-limit",
        author="ada",
        for_="hospital",
        slots=inbox,
        counters={"inbox_records": 9, "inbox_records_max": 10},
    )
    contribution(
        "the inbox: up to the quota",
        ("inbox", None, []),
        author="ada",
        for_="hospital",
        slots=inbox,
        counters={"inbox_records": 8, "inbox_records_max": 10},
    )
    contribution(
        "the inbox: default quota",
        "over-limit",
        author="ada",
        for_="hospital",
        slots=inbox,
        counters={"inbox_records": 999},
    )
    contribution(
        "the inbox and a compartment not granted",
        "no-grant",
        author="ada",
        for_="manager",
        slots=[*inbox, ("about", 3, 1)],
    )
    contribution(
        "the inbox beside a granted compartment",
        ("inbox", "clinic", []),
        author="kim",
        for_="clinic",
        slots=[("results", 3, 1), *inbox],
    )
    contribution(
        "the inbox: sealed to an older epoch", "stale-epoch", author="ada", for_="hospital", slots=[("inbox", 1, 1)]
    )
    contribution("no inbox before any consent", "no-grant", author="ada", for_="hospital", slots=inbox, state="empty")
    contribution(
        "the manager contributes",
        ("managed", None, []),
        author="ada",
        for_="manager",
        manager="manager",
        slots=[("private", 3, 1)],
    )
    contribution(
        "the manager of somebody else",
        "no-grant",
        author="ada",
        for_="manager",
        manager="clinic",
        slots=[("private", 3, 1)],
    )


def vectors() -> dict[str, Any]:
    CASES.clear()
    CONTRIBUTIONS.clear()
    access_cases()
    contribution_cases()
    names = [item["name"] for item in (*CASES, *CONTRIBUTIONS)]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return {
        "source": "careledger; DESIGN 5.3",
        "section": "docs/spec/consent.md section 6",
        "how_made": "written by hand in tests/vectors/make_consent_vectors.py: states, requests and every expectation",
        "states": STATES,
        "directories": DIRECTORIES,
        "manifests": MANIFESTS,
        "access": CASES,
        "contribution": CONTRIBUTIONS,
    }


if __name__ == "__main__":
    folder = Path(__file__).resolve().parents[2] / "vectors" / "consent"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"
    (folder / "decision.json").write_text(text, encoding="utf-8")
