"""A comparison's file: contestants over one base study, resolved to whole studies; every mistake at once."""

from pathlib import Path

import pytest

from affinity_search.studies import bundled
from affinity_search.studies.comparisons import ComparisonSpec, load_comparison
from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.files import load as load_study

FILE = """
study = "digits"
trials = 7
draws = 6
metric = "balanced_accuracy"
baseline = "plain"

[set]
training.epochs = 4

[levels]
data.minority = [20, 10]

[contestants.plain]
head = "softmax"

[contestants.affinity]
set = { training.reweight_from = 0.8 }

[contestants.fixed]
head = "affinity"
space = { lambda = 0.75, sigma = 10, n_centers = 1 }
published = [0.9, 0.8]
"""


def load(tmp_path: Path, text: str = FILE, **asked: object) -> ComparisonSpec:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return load_comparison(str(file), asked)


def mistakes(tmp_path: Path, text: str, **asked: object) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        load(tmp_path, text, **asked)
    return caught.value.mistakes


def test_every_contestant_at_every_level_is_a_whole_study(tmp_path: Path) -> None:
    spec = load(tmp_path)
    assert (spec.name, spec.draws, spec.baseline) == ("digits-comparison", 6, "plain")
    assert spec.contestants == ["plain", "affinity", "fixed"]
    assert [(each.contestant, each.level_text) for each in spec.entries[:4]] == [
        ("plain", "minority 20"),
        ("affinity", "minority 20"),
        ("fixed", "minority 20"),
        ("plain", "minority 10"),
    ]
    for each in spec.entries:
        assert each.spec.metric == "balanced_accuracy"
        assert each.spec.training.epochs == 4
        assert each.spec.data.minority == each.level["data.minority"]
    names = [each.spec.name for each in spec.entries]
    assert names[0] == "digits-comparison.minority20.plain"
    assert len(set(names)) == 6
    assert ComparisonSpec.from_dict(spec.to_dict()) == spec


def test_every_contestant_searches_its_own_learning_rate(tmp_path: Path) -> None:
    by_name = {each.contestant: each.spec for each in load(tmp_path).entries}
    assert "learning_rate" in by_name["plain"].searched
    assert by_name["plain"].training.learning_rate is None
    assert by_name["affinity"].training.reweight_from == 0.8
    assert by_name["plain"].training.reweight_from is None
    assert by_name["fixed"].training.learning_rate == 5e-3, "a space without it keeps the base's"


def test_equal_places_but_one_for_constants(tmp_path: Path) -> None:
    trials = {each.contestant: each.spec.trials for each in load(tmp_path).entries}
    assert trials == {"plain": 7, "affinity": 7, "fixed": 1}


def test_published_figures_stand_beside_their_level(tmp_path: Path) -> None:
    found = {(each.contestant, each.level_text): each.published for each in load(tmp_path).entries}
    assert found["fixed", "minority 20"] == 0.9
    assert found["fixed", "minority 10"] == 0.8
    assert found["plain", "minority 10"] is None


def test_over_a_bundled_study_with_heads() -> None:
    spec = load_comparison("digits", {"heads": ["affinity", "softmax"], "draws": 3, "trials": 2}, ["training.epochs=2"])
    assert (spec.name, spec.baseline, spec.draws) == ("digits-comparison", "softmax", 3)
    assert {each.spec.training.epochs for each in spec.entries} == {2}


def test_a_study_file_with_heads(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(bundled.text("digits"))
    spec = load_comparison(str(tmp_path / "own.toml"), {"heads": ["focal", "ldam"]})
    assert (spec.name, spec.baseline) == ("own-comparison", "focal")


@pytest.mark.parametrize("name", bundled.comparisons())
def test_every_bundled_comparison_is_valid(name: str) -> None:
    spec = load_comparison(name, {})
    assert spec.name == name
    assert ComparisonSpec.from_dict(spec.to_dict()) == spec


def test_every_mistake_at_once(tmp_path: Path) -> None:
    text = """
study = "digits"
trials = 0
draws = true
baseline = "nobody"
colour = "red"

[levels]
data.minority = 10

[contestants.sofmax]

[contestants."a b"]
head = "affinity"
spcae = {}
published = [2.0]
"""
    found = mistakes(tmp_path, text)
    assert "trials: 0 given; allowed: a whole number from 1 to 100000" in found
    assert "draws: true given; allowed: a whole number from 1 to 10000" in found
    assert "baseline: 'nobody' given; allowed: sofmax or a b" in found
    assert "levels.data.minority: 10 given; allowed: a list of values" in found
    assert any(line.startswith("contestants.sofmax.head: 'sofmax' given; allowed: affinity,") for line in found)
    assert any(line.startswith("contestants.a b: 'a b' given; allowed: a name of") for line in found)
    assert any("did you mean space?" in line for line in found)
    assert any(line.startswith("contestants.a b.published: ") for line in found)
    assert any(line.startswith("colour: unknown key") for line in found)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('study = "digits"\n[contestants.softmax]', "contestants: ['softmax'] given; allowed: at least two"),
        ('study = "digits"', "contestants: missing"),
        ("[contestants.softmax]\n[contestants.focal]", "study: missing"),
        ('study = "nothing"\n[contestants.softmax]\n[contestants.focal]', "study: 'nothing' given; allowed: cifar10"),
        (
            'study = "digits"\n[contestants.softmax]\n[contestants.focal]\nspace = { sigma = 1 }',
            "contestants.focal: space.sigma: ",
        ),
        (
            'study = "digits"\nmetric = "calibration"\n[contestants.softmax]\n[contestants.affinity]',
            "contestants.affinity: metric: calibration needs probabilities",
        ),
        (
            'study = "digits"\n[set]\ntraining.epochs = 0\n[contestants.softmax]\n[contestants.focal]',
            "contestants.softmax: training.epochs: 0 given",
        ),
    ],
)
def test_one_line_for_each_mistake(tmp_path: Path, text: str, line: str) -> None:
    assert any(each.startswith(line) for each in mistakes(tmp_path, text)), mistakes(tmp_path, text)


@pytest.mark.parametrize("name", bundled.comparisons())
def test_a_comparison_written_as_a_file_is_the_same(tmp_path: Path, name: str) -> None:
    whole = load_comparison(name, {})
    file = tmp_path / "written.toml"
    file.write_text(whole.to_toml(), encoding="utf-8")
    assert load_comparison(str(file), {}) == whole
    if not whole.entries[0].level:  # launch reads the base study, which levels leave open
        assert load_study(str(file)).data == whole.base.data


def test_a_figure_may_be_missing_at_a_level() -> None:
    entries = load_comparison("cifar10-long-tail", {}).entries
    told = {entry.level_text: entry.published for entry in entries if entry.contestant == "logit_adjusted"}
    assert told == {"imbalance_factor 100": 0.779, "imbalance_factor 50": None, "imbalance_factor 10": None}


def test_a_file_that_holds_its_base_takes_set_too(tmp_path: Path) -> None:
    text = load_comparison("digits-demo", {}).to_toml().replace("[data]", "[set]\ntraining.epochs = 3\n\n[data]", 1)
    file = tmp_path / "one.toml"
    file.write_text(text, encoding="utf-8")
    assert load_comparison(str(file), {}).base.training.epochs == 3
    assert load_study(str(file)).training.epochs != 3, "launch searches the base study alone"
