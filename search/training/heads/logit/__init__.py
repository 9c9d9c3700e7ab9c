"""Heads that end in one layer of logits, and differ in what the loss makes of the class sizes."""
