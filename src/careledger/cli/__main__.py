"""`python -m careledger.cli`: the command line, where its script is not on PATH."""

from careledger.cli import main

main()
