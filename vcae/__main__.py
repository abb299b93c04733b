"""`python -m vcae`."""

from vcae.cli.app import main

main()
