"""Images and labels of each data set, made imbalanced and divided."""
