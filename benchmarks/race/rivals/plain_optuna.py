"""Plain Optuna, started twice on one SQLite study, as its tutorial on parallel optimisation shows."""

import keras
import network
import optuna


def objective(trial):
    keras.backend.clear_session()
    margin = trial.suggest_float("lambda", 0.003, 1.0, log=True)
    sigma = trial.suggest_float("sigma", *job["sigma"], log=True)
    n_centers = trial.suggest_int("n_centers", 1, job["centers"], log=True)
    return network.train(margin, sigma, n_centers)


if __name__ == "__main__":
    job = network.job()
    study = optuna.load_study(study_name="race", storage="sqlite:///race.db")
    study.optimize(objective, n_trials=job["trials"] // 2)
    print(study.best_params)
