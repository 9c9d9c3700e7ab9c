"""The Optuna trial of an attempt: proposed, recorded, read, with its artifacts."""
