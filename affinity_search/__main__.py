"""`python -m affinity_search`: the command, for workers whose interpreter has no script folder on its path."""

from affinity_search.search.cli import main

main()
