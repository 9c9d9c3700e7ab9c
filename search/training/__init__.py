"""One training run, usable alone: arrays and plain numbers in, a score for each epoch out."""
