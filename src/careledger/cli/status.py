"""`careledger network status`: every node of the network at a glance, as the nodes themselves say it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from careledger.cli.session import Session, say
from careledger.client import Network
from careledger.client.nodes import Node
from careledger.errors import Error

__all__ = ["NodeStatus", "network_status", "show_status"]

_ANSWER_S = 5.0


class NodeStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one node says of itself. `lag` = entries that are not published, `unanchored` = not yet anchored,
    `behind` = blocks behind the highest node. `problem` says what is wrong and what to do, empty when nothing is."""

    node: str
    member: str
    url: str
    status: str
    entries: int = 0
    lag: int = 0
    unanchored: int = 0
    cosigned_by: int = 0
    height: int = 0
    app_hash: str = ""
    behind: int = 0
    engine: str = "embedded"
    faults: dict[str, str] = {}
    problem: str = ""


async def network_status(network: Network) -> list[NodeStatus]:
    """Ask every node that the genesis or the directory named; a node that does not answer is `unreachable`."""
    nodes = sorted(network.nodes.values(), key=lambda node: (node.member, node.token))
    found = await asyncio.gather(*(_status(network, node) for node in nodes))
    highest = max((one.height for one in found), default=0)
    return [
        one if one.status == "unreachable" else msgspec.structs.replace(one, behind=highest - one.height)
        for one in found
    ]


async def _status(network: Network, node: Node) -> NodeStatus:
    try:
        async with asyncio.timeout(_ANSWER_S):
            answers = await asyncio.gather(
                network.wire.get(node.url, "/health"), network.wire.get(node.url, "/v1/directory/head")
            )
        health, head = (msgspec.json.decode(answer.body, type=dict[str, Any]) for answer in answers)
        engine = head.get("engine") or {}
        entries, published = int(health["log_entries"]), int(health["published_entries"])
        return NodeStatus(
            node=node.token,
            member=node.member,
            url=node.url,
            status=str(health["status"]),
            entries=entries,
            lag=entries - published,
            unanchored=published - int(health["anchored_entries"]),
            cosigned_by=len(health["cosigned_by"]),
            height=int(head["height"]),
            app_hash=str(head["app_hash"]),
            engine=str(engine.get("state", "embedded")),
            faults=dict(health["faults"]),
            problem=str(health["todo"] or head["fault"] or engine.get("message", "")),
        )
    except (Error, TimeoutError) as problem:
        said = str(problem) or f"no answer within {_ANSWER_S:g} s"
        return NodeStatus(node=node.token, member=node.member, url=node.url, status="unreachable", problem=said)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return NodeStatus(
            node=node.token,
            member=node.member,
            url=node.url,
            status="garbage",
            problem="it answers something else",
        )


def disagreements(found: list[NodeStatus]) -> list[int]:
    """Heights at which two nodes state different app hashes: one of them is wrong."""
    stated: dict[int, set[str]] = {}
    for one in found:
        if one.app_hash:
            stated.setdefault(one.height, set()).add(one.app_hash)
    return sorted(height for height, hashes in stated.items() if len(hashes) > 1)


async def show_status(session: Session, *, as_json: bool) -> int:
    """Print it; the exit code is 0 when every node is well and none contradicts another."""
    found = await network_status(session.network)
    wrong = disagreements(found)
    well = not wrong and all(one.status == "ok" and not one.problem and not one.faults for one in found)
    if as_json:
        say(True, {"network": session.network.id, "well": well, "disagree_at": wrong, "nodes": found}, "")
        return 0 if well else 1
    table = Table("member", "node", "status", "entries", "lag", "cosigned", "height", "engine", box=None)
    for one in found:
        lag = f"{one.lag}+{one.unanchored}"
        behind = f" (-{one.behind})" if one.behind else ""
        cells = (str(one.entries), lag, str(one.cosigned_by), f"{one.height}{behind}", one.engine)
        table.add_row(one.member[:12], one.node[:12], one.status, *cells)
    Console(markup=False, highlight=False).print(table)
    for one in found:
        for what in (one.problem, *(f"{peer[:12]} did wrong: {code}" for peer, code in one.faults.items())):
            if what:
                print(f"{one.node[:12]} ({one.url}): {what}")
    for height in wrong:
        print(f"two nodes state different directories at height {height}: verify their folders")
    print(f"network {session.network.id[:16]}: {'all well' if well else 'needs attention'}, as its nodes say")
    return 0 if well else 1
