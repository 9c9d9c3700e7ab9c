"""What a search tells others: finished trials to MLflow, news to a web address, both from a process of its own."""
