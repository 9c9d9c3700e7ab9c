"""Where a study lives: opening it, its places, its artifacts and its export. Knows nothing of training."""

# Default values. They are here because commands show them without loading a database.
DEFAULT_STORAGE = "sqlite:///affinity-search.db"
DEFAULT_LEASE_S = 120.0  # seconds until a silent worker loses its place
DEFAULT_LIMIT_S = 1800.0  # seconds that workers wait for a database that does not answer
SENDING_LEASE_S = 30.0  # seconds until what a silent collector was sending is sent by another
