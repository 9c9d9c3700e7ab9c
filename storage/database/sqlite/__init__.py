"""A SQLite file that many processes share, and what is saved of it should it vanish."""
