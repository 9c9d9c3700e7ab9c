"""The web page: Optuna's own dashboard behind our doors. Each module is one door, as WSGI middleware."""
