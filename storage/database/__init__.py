"""From a URL to an open database, and all code that uses Optuna's private parts."""
