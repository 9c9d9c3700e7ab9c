"""The budget: who holds a place, until when, how it ended, and how it comes back."""
