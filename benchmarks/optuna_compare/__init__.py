"""What users of distributed Optuna complain about, on plain `study.optimize` and on affinity-search, side by side."""
