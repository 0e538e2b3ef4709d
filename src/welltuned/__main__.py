"""`python -m welltuned`: the command line where no script is installed."""

from welltuned.cli import main

main()
