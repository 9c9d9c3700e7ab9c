"""What may not change between two starts of a study."""

from typing import Any

import pytest
from test_spec import REMOVED, changed, raw_study

from affinity_search.studies.model.spec import StudySpec, fingerprint, fingerprint_differences, widening_differences


def study(changes: dict[str, Any] | None = None) -> StudySpec:
    return StudySpec.from_dict(changed(changes or {}))


def test_fingerprint_is_the_same_in_every_version() -> None:
    # Stored studies carry it: a change here makes every stored study a stranger.
    assert fingerprint(study(), "float32") == "2259c11d4afdd2f23ec13e96365cda34c511dd1cba00e5e5439f12acc3b9d288"


GUARDED = [
    {"seed": 1},
    {"protocol": "article"},
    {"data.set": "cifar10"},
    {"data.minority": 11},
    {"data.validation": 0.25},
    {"network.widths": [32, 65]},
    {"network.depth": 2},
    {"network.batch_norm_momentum": 0.99},
    {"network.head": "softmax", "space": REMOVED},
    {"training.epochs": 4},
    {"training.batch": 65},
    {"training.learning_rate": 1.1e-3},
    {"training.drops": []},
    {"training.augment": True},
]


@pytest.mark.parametrize("changes", GUARDED)
def test_what_a_score_means_is_guarded(changes: dict[str, Any]) -> None:
    old, new = study(), study(changes)
    assert fingerprint(old, "float32") != fingerprint(new, "float32")
    differences = fingerprint_differences(old, new)
    assert all(any(line.startswith(f"{key}: stored ") for line in differences) for key in changes if key != "space")


FREE = [
    {"name": "other"},
    {"trials": 500},
    {"space.sigma.high": 2000},
    {"sampler.kind": "random"},
    {"pruner.kind": "none"},
    {"tracking.to": "mlflow=http://host:5000"},
    {"training.learning_rate": 0.001, "data.validation": 0.2, "network.depth": 1},
]


@pytest.mark.parametrize("changes", FREE)
def test_the_rest_is_free(changes: dict[str, Any]) -> None:
    assert fingerprint(study(), "float32") == fingerprint(study(changes), "float32")
    assert fingerprint_differences(study(), study(changes)) == []


def test_an_integer_is_the_float_of_its_value() -> None:
    one, real = study({"training.learning_rate": 1}), study({"training.learning_rate": 1.0})
    assert fingerprint(one, "float32") == fingerprint(real, "float32")


def test_the_settled_precision_stands_in_for_auto() -> None:
    settled = study({"training.precision": "mixed_bfloat16"})
    assert fingerprint(study(), "mixed_bfloat16") == fingerprint(settled, "mixed_bfloat16")
    assert fingerprint(study(), "mixed_bfloat16") != fingerprint(study(), "float32")


def test_auto_differs_from_no_precision() -> None:
    settled, other = study({"training.precision": "mixed_bfloat16"}), study({"training.precision": "float32"})
    assert fingerprint_differences(study(), settled) == []
    assert fingerprint_differences(settled, study()) == []
    assert fingerprint_differences(settled, other) == ["training.precision: stored mixed_bfloat16, given float32"]


def test_differences_name_the_keys() -> None:
    new = study({"training.epochs": 20, "protocol": "article", "network.widths": [8]})
    assert fingerprint_differences(study(), new) == [
        "data.validation: stored 0.2, given nothing",
        "protocol: stored holdout, given article",
        "network.widths: stored [32, 64], given [8]",
        "training.epochs: stored 3, given 20",
    ]


def test_the_fingerprint_ignores_the_order_of_keys() -> None:
    raw = raw_study()
    turned = {key: dict(reversed(value.items())) if isinstance(value, dict) else value for key, value in raw.items()}
    turned = dict(reversed(turned.items()))
    assert fingerprint(StudySpec.from_dict(turned), "float32") == fingerprint(study(), "float32")


def widening(name: str, old: Any, new: Any) -> list[str]:
    return widening_differences(study({f"space.{name}": old}).space, study({f"space.{name}": new}).space)


def ends(low: float, high: float, log: bool = False) -> dict[str, Any]:
    return {"low": low, "high": high, "log": log}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("sigma", ends(10, 100, True), ends(10, 100, True)),
        ("sigma", ends(10, 100, True), ends(10, 101, True)),
        ("sigma", ends(10, 100), ends(1, 100.5)),
        ("n_centers", ends(2, 3), ends(1, 4)),
        ("sigma", 10, ends(10, 20)),
        ("n_centers", 5, ends(1, 5)),
        ("sigma", 10, 10.0),
        ("sigma", [1, 2], [1.0, 2.0]),
    ],
)
def test_a_space_may_stay_or_widen(name: str, old: Any, new: Any) -> None:
    assert widening(name, old, new) == []


WIDER, LOG = "can only become wider", "log setting cannot change"
CHOICES, KIND = "list of choices cannot change", "cannot change between a list and a range"


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("sigma", ends(10, 100), ends(20, 100), WIDER),
        ("sigma", ends(10, 100), ends(10, 99), WIDER),
        ("sigma", ends(10, 100), ends(200, 300), WIDER),
        ("sigma", ends(10, 100), 50, WIDER),
        ("sigma", 10, 11, WIDER),
        ("sigma", 10, ends(11, 20), WIDER),
        ("sigma", ends(10, 100), ends(10, 100, True), LOG),
        ("sigma", ends(10, 100, True), ends(1, 1000), LOG),
        ("sigma", 10, ends(1, 100, True), LOG),
        ("sigma", ends(10, 100, True), 50, LOG),
        ("n_centers", [1, 5], [1, 5, 10], CHOICES),
        ("n_centers", [1, 5], [5, 1], CHOICES),
        ("n_centers", [1, 5], ends(1, 5), KIND),
        ("n_centers", ends(1, 5), [1, 2, 3, 4, 5], KIND),
        ("n_centers", 1, [1, 5], KIND),
        ("n_centers", [1], 1, KIND),
    ],
)
def test_nothing_else_may_change(name: str, old: Any, new: Any, reason: str) -> None:
    (line,) = widening(name, old, new)
    assert line.startswith(f"space.{name}: stored ")
    assert reason in line


def test_the_line_says_what_was_stored_and_given() -> None:
    assert widening("sigma", ends(10, 100, True), ends(20, 100, True)) == [
        "space.sigma: stored 10 to 100 (log), given 20 to 100 (log); a stored study's space can only become wider"
    ]


def test_every_narrowed_parameter_has_its_line() -> None:
    new = study({"space.sigma.low": 11, "space.lambda.high": 0.5, "space.n_centers.high": 40})
    lines = widening_differences(study().space, new.space)
    assert [line.partition(":")[0] for line in lines] == ["space.lambda", "space.sigma"]


def test_a_space_neither_comes_nor_goes() -> None:
    assert widening_differences(None, None) == []
    assert widening_differences(study().space, None) == ["space: stored a space, given no space"]
    assert widening_differences(None, study().space) == ["space: stored no space, given a space"]


def test_contains() -> None:
    space = study({"space.n_centers": [1, 5]}).space
    inner = study({"space.n_centers": 5}).space
    wide = study().space
    assert space is not None
    assert inner is not None
    assert wide is not None
    assert space["n_centers"].contains(inner["n_centers"])
    assert not inner["n_centers"].contains(space["n_centers"])
    assert wide["n_centers"].contains(space["n_centers"])
    assert not space["n_centers"].contains(wide["n_centers"])
    assert inner["n_centers"].contains(inner["n_centers"])
