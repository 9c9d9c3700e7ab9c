"""Stored studies: created, listed, renamed, stopped, deleted."""
