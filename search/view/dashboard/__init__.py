"""The web page: Optuna's own dashboard behind our checks. Each check is one module, as WSGI middleware."""
