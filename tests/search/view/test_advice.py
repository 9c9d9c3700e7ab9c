"""When a sign becomes advice: only where the study's own trials bear it out."""

import random
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
from fake_objective import fake_scores
from making import trained
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from affinity_search.search.training.heads.affinity_diagnostics import Diagnostics
from affinity_search.search.view.notes import study_note, trial_note
from affinity_search.search.view.standing import LEAST, standing_of, verdicts
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.places.claims import Places
from affinity_search.storage.results.bounds import crowded_bounds
from affinity_search.storage.results.export import best_trials

SOUND = Diagnostics(0.1, 0.2, 0.5, (1, 1), 4, 1.0, 2.0, 1.5)
DEAD, INSIDE = replace(SOUND, dead=(3, 2)), replace(SOUND, inside=0.95)
SPACE = {"lambda": FloatDistribution(0, 1), "sigma": FloatDistribution(1, 1000), "n_centers": FloatDistribution(1, 20)}


def trial(
    number: int, macro_f1: float, told: Diagnostics, *, sigma: float = 10.0, m: float = 4.0, state: str = "COMPLETE"
) -> FrozenTrial:
    scores = fake_scores(macro_f1).to_dict() | {"diagnostics": asdict(told)}
    scores |= {"best_epoch": 1, "epochs": 1, "duration_s": 1.0}
    made = create_trial(
        state=TrialState[state],
        value=1 - macro_f1 if state != "FAIL" else None,
        params={"lambda": random.Random(number).random(), "sigma": sigma, "n_centers": m},
        distributions=SPACE,
        user_attrs={"scores": scores},
    )
    made.number = number
    return made


def study_of(
    n: int, bad: Diagnostics, macro_f1: Callable[[int, bool], float], **apart: Callable[[bool], float]
) -> list[FrozenTrial]:
    """Every second trial has the sign; `apart` gives parameters by whether it has."""
    return [
        trial(i, macro_f1(i, i % 2 == 1), bad if i % 2 else SOUND, **{k: of(i % 2 == 1) for k, of in apart.items()})  # type: ignore[arg-type]
        for i in range(n)
    ]


def worse(number: int, sign: bool) -> float:
    return (0.3 if sign else 0.6) + number / 1000


def test_a_verdict_carries_its_figures_and_names_what_sets_the_trials_apart() -> None:
    (found,) = verdicts(study_of(40, INSIDE, worse, sigma=lambda sign: 478.0 if sign else 40.0))
    assert found.text.startswith(
        "The 20 trials with more than 90 % of the training images inside the margin did worse than the 20 without: "
        "median macro F1 0.3200 against 0.6190 (rank test, p = "
    )
    assert "They differ most in sigma, median 478 against 40 (p = " in found.text
    assert found.text.endswith(": try a smaller sigma.")


def test_too_small_a_parameter_is_advised_to_be_larger() -> None:
    (found,) = verdicts(study_of(40, DEAD, worse, m=lambda sign: 2.0 if sign else 5.0))
    assert found.sign.text == "more than half of their centres dead"
    assert found.text.endswith("try a larger n_centers.")


def better(number: int, sign: bool) -> float:
    return worse(number, not sign)


def alike(number: int, sign: bool) -> float:
    return number * 7 % 60 / 60


@pytest.mark.parametrize("macro_f1", [better, alike])
def test_trials_that_do_no_worse_are_let_alone(macro_f1: Callable[[int, bool], float]) -> None:
    assert verdicts(study_of(60, DEAD, macro_f1, m=lambda sign: 9.0 if sign else 4.0)) == []


def test_worse_trials_whose_parameters_are_like_the_others_are_not_blamed_on_one() -> None:
    assert verdicts(study_of(60, INSIDE, worse)) == []


def test_few_trials_prove_nothing() -> None:
    def trials(n: int) -> list[FrozenTrial]:
        return study_of(n, DEAD, worse, m=lambda sign: 9.0 if sign else 4.0)

    assert len(verdicts(trials(2 * LEAST))) == 1
    assert verdicts(trials(2 * LEAST - 1)) == []


def test_pruned_trials_count_and_failed_ones_do_not() -> None:
    def others(state: str) -> list[FrozenTrial]:
        return [trial(i, 0.3 + i / 1000, DEAD, m=9.0, state=state) for i in range(20, 40)]

    sound = [trial(i, 0.6 + i / 1000, SOUND) for i in range(20)]
    assert len(verdicts(sound + others("PRUNED"))) == 1
    assert verdicts(sound + others("FAIL")) == []


def test_softmax_and_what_an_earlier_version_said_are_ignored() -> None:
    plain = study_of(40, SOUND, worse)
    for one in plain:
        one.user_attrs["scores"]["diagnostics"]["verdicts"] = ["65 of 80 centres are dead: n_centers is too large"]
    assert verdicts(plain) == []
    for one in plain:
        del one.user_attrs["scores"]["diagnostics"]
    assert verdicts(plain) == []


def test_the_best_trial_is_never_told_what_its_score_contradicts() -> None:
    trials = study_of(40, DEAD, worse, m=lambda sign: 9.0 if sign else 4.0)
    trials[1] = trial(1, 0.99, DEAD, m=9.0)
    (found,) = verdicts(trials)
    assert 1 not in found.concerns, "the best, in spite of the sign"
    assert 3 in found.concerns
    assert 2 not in found.concerns, "without the sign"


def test_notes_show_what_concerns_them(sqlite: Backend) -> None:
    study = trained(sqlite, trials=2)
    found = verdicts(study_of(40, DEAD, worse, m=lambda sign: 9.0 if sign else 4.0))
    note = study_note(study, Places.of(study).counts(), best_trials(study, 2), crowded_bounds(study), found, {})
    assert f"- {found[0].text}" in note
    described = study.optuna.trials[0]
    described.user_attrs["scores"]["diagnostics"] = asdict(DEAD)
    standing = replace(standing_of(study, [described]), verdicts=found)
    described.number = 2
    alone = trial_note(standing, described)
    assert "5 of 8 centres dead" in alone
    assert "too large" not in alone
    assert "did worse" not in alone
    described.number = 3
    assert found[0].text in trial_note(standing, described)
