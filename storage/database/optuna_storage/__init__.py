"""Optuna's storage as workers need it: patient, in few statements, with drafts of trials."""
