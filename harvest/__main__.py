"""`python -m harvest run` is `harvest run`."""

from harvest.cli import main

main()
