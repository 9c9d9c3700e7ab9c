"""KerasTuner with a chief and two workers on this machine, as its guide to distributed tuning shows."""

import keras
import keras_tuner
import network


class Race(keras_tuner.RandomSearch):
    def run_trial(self, trial):
        keras.backend.clear_session()
        chosen = trial.hyperparameters
        return network.train(chosen.get("lambda"), chosen.get("sigma"), chosen.get("n_centers"))


if __name__ == "__main__":
    job = network.job()
    space = keras_tuner.HyperParameters()  # told beforehand: a worker that knows of none finds nothing to try, and ends
    space.Float("lambda", 0.003, 1.0, sampling="log")
    space.Float("sigma", *job["sigma"], sampling="log")
    space.Int("n_centers", 1, job["centers"], sampling="log")
    settings = {"hyperparameters": space, "max_trials": job["trials"], "directory": "tuner", "project_name": "race"}
    tuner = Race(objective=keras_tuner.Objective("f1", "max"), **settings)
    tuner.search()
