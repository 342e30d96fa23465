"""`python -m p2pcity` is the command line."""

from p2pcity.cli.main import main

main()
