"""From a URL to an open database, and all that leans on Optuna's inside."""
