"""Proves the program on one GPU in one call of a few minutes, and measures it: see `__main__.py`."""
