"""One side of the replay, in a process of its own: `python side.py embedded|cometbft FOLDER`.

Reads blocks as JSON lines on stdin and says, a line each, what they did. The embedded side is a Sequencer with a
Follower behind it; the other one is the ABCI application, spoken to in the bytes that CometBFT would send, which on the
way is asked for proposals, interrupted before a commit, and restarted.
"""

from __future__ import annotations

import json
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from careledger.directory.engines import Follower, Sequencer
from careledger.directory.engines.cometbft import messages as abci
from careledger.directory.engines.cometbft.application import Application
from careledger.directory.engines.cometbft.replica import EngineReplica, parse_transaction
from careledger.directory.engines.cometbft.wire import decode, encode
from careledger.errors import Error
from careledger.seal import Envelope, SigningKey

Side = Callable[[int, int, list[bytes]], dict[str, Any]]


def embedded(folder: Path, start: dict[str, Any]) -> Side:
    """What a node of the embedded engine does with transactions that come in together."""
    genesis = bytes.fromhex(start["genesis"])
    sequencer = Sequencer(
        folder / "sequencer.db",
        genesis=genesis,
        node=start["node"],
        log_key=SigningKey(bytes.fromhex(start["log_key"])),
        witness=SigningKey(bytes.fromhex(start["witness"])),
        now_ms=start["time"],
    )
    follower = Follower(
        folder / "follower.db",
        genesis=genesis,
        node=start["other"],
        witness=SigningKey(bytes.fromhex(start["other_witness"])),
    )

    def block(time_ms: int, _nanos: int, transactions: list[bytes]) -> dict[str, Any]:
        codes = ["" for _ in transactions]
        places: list[int] = []
        envelopes: list[Envelope] = []
        for place, data in enumerate(transactions):
            try:
                envelopes.append(parse_transaction(data))
                places.append(place)
            except Error as error:
                codes[place] = error.code
        before = sequencer.height
        for place, result in zip(places, sequencer.submit(envelopes, now_ms=time_ms), strict=True):
            codes[place] = result.code
        if sequencer.height == before:
            sequencer.heartbeat(now_ms=time_ms)
        news = sequencer.blocks_after(follower.height)
        assert news is not None
        follower.accept(*news, now_ms=time_ms)
        assert follower.directory.app_hash() == sequencer.directory.app_hash()
        return {"height": sequencer.height, "app_hash": sequencer.directory.app_hash().hex(), "codes": codes}

    return block


def cometbft(folder: Path, start: dict[str, Any]) -> Side:
    """What the application does when CometBFT decides the same."""
    dice = random.Random(start["seed"])
    path, genesis = folder / "directory.db", bytes.fromhex(start["genesis"])
    open_ = EngineReplica(path, genesis=genesis)
    state = {"replica": open_, "application": Application(open_)}

    def call(**named: Any) -> Any:
        request = decode(encode(abci.Request(**named)), abci.Request)
        response = decode(encode(state["application"].answer(request)), abci.Response)
        return getattr(response, next(iter(named)))

    def restart() -> None:
        state["replica"].close()
        state["replica"] = EngineReplica(path, genesis=genesis)
        state["application"] = Application(state["replica"])
        call(info=abci.InfoRequest())

    def decide(height: int, time_ms: int, nanos: int, transactions: tuple[bytes, ...]) -> Any:
        time = abci.Timestamp(time_ms // 1000, time_ms % 1000 * 1_000_000 + nanos)
        for data in transactions:
            if dice.random() < 0.7:
                call(check_tx=abci.CheckTxRequest(data))
        if dice.random() < 0.3:
            call(prepare_proposal=abci.PrepareProposalRequest(1 << 20, transactions, height, time))
        if dice.random() < 0.5:
            call(process_proposal=abci.ProcessProposalRequest(transactions, height, time))
        answer = call(finalize_block=abci.FinalizeBlockRequest(transactions, (), b"", height, time))
        if dice.random() < 0.05:
            call(info=abci.InfoRequest())
            answer = call(finalize_block=abci.FinalizeBlockRequest(transactions, (), b"", height, time))
        return answer

    def block(time_ms: int, nanos: int, transactions: list[bytes]) -> dict[str, Any]:
        height = state["replica"].height + 1
        answer = decide(height, time_ms, nanos, tuple(transactions))
        call(commit=abci.Empty())
        if dice.random() < start["restarts"]:
            restart()
        assert state["replica"].directory.app_hash() == answer.app_hash
        codes = [result.log or "ok" for result in answer.tx_results]
        return {"height": height, "app_hash": answer.app_hash.hex(), "codes": codes}

    block(start["time"], 0, [])  # the embedded engine begins with an empty block
    return block


def main(which: str, folder: Path) -> None:
    side: Side | None = None
    for number, line in enumerate(sys.stdin):
        asked = json.loads(line)
        if "genesis" in asked:
            place = folder / f"{which}-{number}"
            place.mkdir()
            side = embedded(place, asked) if which == "embedded" else cometbft(place, asked)
            continue
        assert side is not None
        transactions = [bytes.fromhex(one) for one in asked["transactions"]]
        sys.stdout.write(json.dumps(side(asked["time"], asked["nanos"], transactions)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    logging.disable()  # a rejected proposal is a warning, and many are
    main(sys.argv[1], Path(sys.argv[2]))
