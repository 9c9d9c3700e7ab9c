"""What is wrong with this machine, its storage or a study, and what to do about it."""
