"""Where a study lives: opening it, its places, its artifacts and its export. Knows nothing of training."""

# What holds where nobody says otherwise. Here, because commands show it without loading a database.
DEFAULT_STORAGE = "sqlite:///affinity-search.db"
DEFAULT_LEASE_S = 120.0  # until the place of a worker that has fallen silent is taken from it
DEFAULT_LIMIT_S = 1800.0  # for a database that is away
