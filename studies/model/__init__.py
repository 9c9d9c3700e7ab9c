"""The study file's model: sections, search space, limits, and every mistake at once."""
