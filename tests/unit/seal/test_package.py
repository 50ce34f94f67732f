import careledger.seal as seal


def test_the_package_exports_exactly_what_it_names() -> None:
    assert seal.__all__ == sorted(seal.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    functions = [name for name in dir(seal) if not name.startswith("_") and callable(getattr(seal, name))]
    assert set(functions) | {"ALG_SEAL", "ALG_SIGN"} == set(seal.__all__)


def test_every_public_name_says_what_it_promises() -> None:
    for name in seal.__all__:
        if not name.startswith("ALG_"):
            assert (getattr(seal, name).__doc__ or "").strip(), name
