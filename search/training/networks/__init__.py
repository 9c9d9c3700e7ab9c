"""What turns an image into features, and the layers for it."""
