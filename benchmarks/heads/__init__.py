"""Which head is best on two imbalanced sets, each with its own searched settings and equal places."""
