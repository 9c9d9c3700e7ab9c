"""Ray Tune with two trials at a time, as its guide to Keras shows: a function that reports after every epoch."""

from pathlib import Path

from ray import tune

HERE = str(Path.cwd())


def trainable(config):
    import keras
    import network

    keras.backend.clear_session()
    network.train(config["lambda"], config["sigma"], config["n_centers"], HERE, tune.report)


if __name__ == "__main__":
    import network

    job = network.job()
    space = {
        "lambda": tune.loguniform(0.003, 1.0),
        "sigma": tune.loguniform(*job["sigma"]),
        "n_centers": tune.lograndint(1, job["centers"] + 1),
    }
    config = tune.TuneConfig("max", "f1", num_samples=job["trials"], max_concurrent_trials=2, reuse_actors=True)
    run = tune.RunConfig(name="race", storage_path=f"{HERE}/tuner")
    results = tune.Tuner(trainable, param_space=space, tune_config=config, run_config=run).fit()
    print(results.get_best_result(scope="all").config)
