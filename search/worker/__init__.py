"""One process that trains places, one after the other: set-up, loop, attempt."""
