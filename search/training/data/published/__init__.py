"""Readers of the published sets."""
