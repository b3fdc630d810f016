"""`python -m store`."""

from store.cli import main

main()
