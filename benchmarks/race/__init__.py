"""The same whole job, side by side: ours, plain Optuna, KerasTuner and Ray Tune."""
