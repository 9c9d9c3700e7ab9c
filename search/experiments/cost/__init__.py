"""What a launch would train, and how long it would take: measured here, or taken from the study's own trials."""
