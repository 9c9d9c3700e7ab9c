"""What a search has found: the export, scores on the test set, bounds that are too narrow."""
