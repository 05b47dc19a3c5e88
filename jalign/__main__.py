"""`python -m jalign` is the `jalign` command."""

from jalign.cli.main import main

main()
