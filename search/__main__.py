"""`python -m search`: the command, for workers whose interpreter has no script folder on its path."""

from search.cli import main

main()
