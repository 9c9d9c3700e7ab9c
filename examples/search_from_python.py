"""A search of the digits from Python: create a study, run two workers, judge the winner on the test set.

    python examples/search_from_python.py

It takes about two minutes on two cores and writes digits-example.db into the current folder. Run it again: it goes on
where it stopped, for a study keeps its trials and its test scores.
"""

import affinity_search


def main() -> None:
    """Workers are processes of their own, so the calls stand under `if __name__ == "__main__"`."""
    with affinity_search.create(
        "digits", "sqlite:///digits-example.db", trials=8, overrides={"training.epochs": 10}
    ) as study:
        study.launch(workers=2)
        for trial in study.best(top=3):
            print(f"trial {trial.trial}: macro F1 {trial.macro_f1:.4f} on validation images, {trial.params}")
        scores = study.evaluate(draws=3, workers=2)[0].test
        print(
            f"trained again on {len(scores['draws'])} fresh draws, on the test set: "
            f"macro F1 {scores['macro_f1_mean']:.4f} "
            f"(from {scores['macro_f1_least']:.4f} to {scores['macro_f1_greatest']:.4f})"
        )


if __name__ == "__main__":
    main()
