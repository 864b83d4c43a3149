"""`python -m baserunner`."""

from baserunner.cli import main

main()
