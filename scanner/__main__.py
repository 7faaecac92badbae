"""`python -m scanner`: the same as the `adapter-scanner` command."""

from scanner.cli import main

main()
