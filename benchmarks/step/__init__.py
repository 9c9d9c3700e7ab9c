"""How fast one training step is, against PyTorch, on the same machine in the same run."""
