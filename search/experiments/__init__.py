"""Stored trials trained once more and judged."""
