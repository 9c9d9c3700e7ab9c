"""TensorFlow as Keras' backend: its devices and its training steps."""
