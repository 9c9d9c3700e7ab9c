"""What a study is: the study file, its model and the bundled studies. Knows nothing of Optuna or Keras."""
