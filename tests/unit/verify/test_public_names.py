"""The package exports what it names, each with its promise; and it can't reach a network."""

import subprocess
import sys
import types

from careledger import verify


def test_every_public_name_says_what_it_promises():
    for name in verify.__all__:
        found = getattr(verify, name)
        if isinstance(found, type | types.FunctionType):
            assert (found.__doc__ or "").strip(), name


def test_importing_the_verifier_loads_nothing_that_could_reach_a_network():
    """Neither parts of ours that do, nor sockets at all."""
    code = (
        "import sys, careledger.verify\n"
        "parts = {'client', 'custody', 'node', 'fhir', 'transport'}\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('socket', 'ssl', 'asyncio', 'aiohttp')]\n"
        "    + [name for name in sys.modules if name.startswith('careledger.') and name.split('.')[1] in parts])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
