"""Where a study lives: opening it, its places, its artifacts and its export. Knows nothing of training."""
