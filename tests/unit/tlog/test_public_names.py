from __future__ import annotations

import careledger.tlog as tlog


def test_every_public_name_is_there_once_and_documented() -> None:
    assert len(set(tlog.__all__)) == len(tlog.__all__)
    for name in tlog.__all__:
        value = getattr(tlog, name)
        assert not callable(value) or value.__doc__, name
