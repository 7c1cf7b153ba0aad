"""``python -m elemta``: the `elemta` command."""

from elemta.cli import main

main()
