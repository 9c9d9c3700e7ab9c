"""A SQLite file that many processes share, and the copy that is saved if it vanishes."""
