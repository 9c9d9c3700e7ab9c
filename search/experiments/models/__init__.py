"""The use of a search: a model of its settings in one file, the card beside it, and predictions of new images."""
