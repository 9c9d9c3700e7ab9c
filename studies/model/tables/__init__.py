"""The tables of a study file, each with what its keys may hold."""
