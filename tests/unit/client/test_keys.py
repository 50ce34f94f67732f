"""The key folder: encrypted, private, whole after a crash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from careledger.client import HeldKeys, KeyFolder
from careledger.errors import ConflictError, Error, NotFoundError, NotPermittedError
from careledger.identity import NewIdentity, new_person, renewed_secrets
from careledger.seal import SealingPublicKey

SECRET = "Anna Kowalczyk, HbA1c"


@pytest.fixture(scope="module")
def made() -> NewIdentity:
    return new_person(custodians=(), rand=os.urandom)


@pytest.fixture
def folder(tmp_path: Path, made: NewIdentity) -> KeyFolder:
    return KeyFolder.create(
        tmp_path / "keys",
        network="ab" * 32,
        token=made.token,
        kind="person",
        device=made.secrets.device,
        root=made.secrets.root,
        passphrase="correct horse",
        rand=os.urandom,
    )


def test_opens_with_the_passphrase_and_with_the_kit(folder: KeyFolder, made: NewIdentity) -> None:
    folder.save("note", {"a": 1})
    opened = KeyFolder.open(folder.path, passphrase="correct horse", rand=os.urandom)
    assert opened.keys.device == made.secrets.device
    assert opened.load("note", dict[str, int]) == {"a": 1}
    assert KeyFolder.open_with_kit(folder.path, root=made.secrets.root, rand=os.urandom).token == made.token


def test_wrong_passphrase_has_its_code(folder: KeyFolder) -> None:
    with pytest.raises(NotPermittedError) as refused:
        KeyFolder.open(folder.path, passphrase="wrong", rand=os.urandom)
    assert refused.value.code == "wrong-passphrase"


def test_no_folder_and_a_folder_in_use(folder: KeyFolder, tmp_path: Path, made: NewIdentity) -> None:
    with pytest.raises(NotFoundError) as missing:
        KeyFolder.open(tmp_path / "nothing", passphrase="x", rand=os.urandom)
    assert missing.value.code == "no-keys"
    with pytest.raises(ConflictError) as used:
        KeyFolder.create(
            folder.path,
            network="ab" * 32,
            token=made.token,
            kind="person",
            device=made.secrets.device,
            root=made.secrets.root,
            passphrase="x",
            rand=os.urandom,
        )
    assert used.value.code == "folder-in-use"


def test_every_file_is_private_and_holds_no_word_of_what_was_saved(folder: KeyFolder, made: NewIdentity) -> None:
    folder.save("kept", [SECRET])
    files = [file for file in folder.path.rglob("*") if file.is_file()]
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}
    written = b"".join(file.read_bytes() for file in files)
    for secret in (SECRET.encode(), made.secrets.root, made.secrets.device.sign, made.secrets.device.seal):
        assert secret not in written


def test_altered_state_is_refused(folder: KeyFolder) -> None:
    folder.save("note", 1)
    file = folder.path / "state" / "note"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(Error) as refused:
        folder.load("note", int)
    assert refused.value.code == "not-openable"


def test_one_state_does_not_pass_for_another(folder: KeyFolder) -> None:
    folder.save("one", 1)
    os.replace(folder.path / "state" / "one", folder.path / "state" / "two")
    with pytest.raises(Error):
        folder.load("two", int)


def test_renewal_keeps_state_under_a_new_account_key(folder: KeyFolder, made: NewIdentity) -> None:
    folder.save("note", "kept")
    account_key = folder.account_key
    device = renewed_secrets(made.secrets.device, sequence=1, rand=os.urandom)
    folder.renew(device, root=made.secrets.root, passphrase="correct horse")
    assert folder.account_key != account_key
    opened = KeyFolder.open(folder.path, passphrase="correct horse", rand=os.urandom)
    assert opened.load("note", str) == "kept"
    assert opened.keys.keyid.endswith("#1")


@pytest.mark.parametrize("crash", ["before the box", "after the box"])
def test_a_crash_during_renewal_leaves_the_old_or_the_new_folder_whole(
    folder: KeyFolder, made: NewIdentity, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    folder.save("note", "kept")
    device = renewed_secrets(made.secrets.device, sequence=1, rand=os.urandom)
    real = KeyFolder._finish_renewal

    def die(self: KeyFolder) -> None:
        raise KeyboardInterrupt

    if crash == "after the box":
        monkeypatch.setattr(KeyFolder, "_finish_renewal", die)
    else:
        replaced = os.replace

        def replace(source: Path, target: Path) -> None:
            if Path(target).name == "box.json":
                raise KeyboardInterrupt
            replaced(source, target)

        monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        folder.renew(device, root=made.secrets.root, passphrase="correct horse")
    monkeypatch.undo()
    assert KeyFolder._finish_renewal is real
    opened = KeyFolder.open(folder.path, passphrase="correct horse", rand=os.urandom)
    assert opened.load("note", str) == "kept"
    assert opened.keys.sequence == (1 if crash == "after the box" else 0)


def test_held_keys_open_what_was_sealed_to_earlier_sequences(made: NewIdentity) -> None:
    device = renewed_secrets(made.secrets.device, sequence=3, rand=os.urandom)
    keys = HeldKeys(token=made.token, kind="person", device=device, sequence=4)
    assert keys.keyid == f"{made.token}#4"
    old = made.secrets.device.sealing_key().public
    wire = SealingPublicKey(old).seal(b"old", info=b"x")
    assert keys.sealing(f"{made.token}#2").open(wire, info=b"x") == b"old"
    assert keys.sealing(f"{made.token}#3").public == device.sealing_key().public
    with pytest.raises(NotFoundError):
        keys.sealing("cl1" + "q" * 46 + "#0")


def test_a_folder_made_before_its_network_joins_one_network_only(folder: KeyFolder) -> None:
    folder.network = ""
    folder.join("cd" * 32)
    assert KeyFolder.open(folder.path, passphrase="correct horse", rand=os.urandom).network == "cd" * 32
    with pytest.raises(ConflictError):
        folder.join("ef" * 32)
