"""KerasTuner with a chief and two workers on this machine, as its guide to distributed tuning shows."""

import keras
import keras_tuner
import network


class Race(keras_tuner.RandomSearch):
    def run_trial(self, trial):
        keras.backend.clear_session()
        chosen = trial.hyperparameters
        margin = chosen.Float("lambda", 0.003, 1.0, sampling="log")
        sigma = chosen.Float("sigma", *job["sigma"], sampling="log")
        n_centers = chosen.Int("n_centers", 1, job["centers"], sampling="log")
        return network.train(margin, sigma, n_centers)


if __name__ == "__main__":
    job = network.job()
    objective = keras_tuner.Objective("f1", "max")
    tuner = Race(objective=objective, max_trials=job["trials"], overwrite=False, directory="tuner", project_name="race")
    tuner.search()
