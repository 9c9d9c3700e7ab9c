"""Optuna's storage as workers need it: it waits out outages, uses few statements and drafts trials."""
