"""One new thing, one new entry: what only this file knows of each kind goes all the way."""

import io
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from making import holder, open_study
from PIL import Image

from affinity_search.search import devices

DEVICE = devices.configure("cpu", 2)

import keras  # the device comes first

from affinity_search.search.training import data as training_data
from affinity_search.search.training import heads, networks
from affinity_search.search.training import metrics as computed
from affinity_search.search.training.data import own_parts, profiles
from affinity_search.search.training.data.profiles import Imbalance, Wish
from affinity_search.search.training.heads.base import Head, Params, Tensor, redraw, require
from affinity_search.search.view.figures.study import About, figures, points_of
from affinity_search.search.view.notes import trial_note
from affinity_search.search.view.pictures import history_of
from affinity_search.search.view.publishing import Reporter, note_of
from affinity_search.search.view.snapshot import take
from affinity_search.search.view.standing import standing_of
from affinity_search.search.view.terminal import best_text
from affinity_search.search.worker.loop import Worker
from affinity_search.search.worker.setup import WorkerOptions, work
from affinity_search.search.worker.study_trainer import StudyTrainer
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.files import StudyFiles, default_root
from affinity_search.storage.places.claims import Places
from affinity_search.storage.results.export import export, to_plain
from affinity_search.storage.stored.agenda import OneStudy
from affinity_search.storage.study import StoredStudy
from affinity_search.storage.trials.facts import TrialFacts, TrialScores
from affinity_search.studies import data as declared
from affinity_search.studies import heads as declared_heads
from affinity_search.studies import metrics as declared_metrics
from affinity_search.studies import networks as declared_networks
from affinity_search.studies.data import SOURCES, ProfileDefinition, SourceDefinition
from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.files import load
from affinity_search.studies.heads import HeadDefinition, HeadParameter
from affinity_search.studies.metrics import METRICS, Metric
from affinity_search.studies.model.spec import SpaceSpec, StudySpec, fingerprint, fingerprint_differences
from affinity_search.studies.networks import NetworkDefinition

STUDY = """
trials = 2
{top}

[data]
set = "{set}"
minority = 4
validation = 0.3

[network]
widths = [4]
head = "{head}"
{network}

[training]
epochs = 3
batch = 16
learning_rate = 5e-3
precision = "float32"

[space]
{space}

[pruner]
kind = "none"
"""
SPACE = """
lambda = 0.5
sigma = { low = 1, high = 100 }
n_centers = 2
"""
PLAIN = {"set": "digits", "top": "", "head": "affinity", "network": "", "space": SPACE}


def test_what_is_declared_is_made() -> None:
    assert declared.SOURCES.keys() == training_data.READERS.keys() | own_parts.READERS.keys()
    assert declared.own_sets() == list(own_parts.READERS)
    assert declared.PROFILES.keys() == profiles.PROFILES.keys()
    assert declared_metrics.METRICS.keys() == computed.METRICS.keys()
    assert declared_heads.HEADS.keys() == heads.HEADS.keys()
    assert declared_networks.NETWORKS.keys() == networks.NETWORKS.keys()
    assert declared_networks.DEFAULT == networks.FIRST
    assert {source.profile for source in SOURCES.values()} <= declared.PROFILES.keys()
    own = (declared_metrics.METRICS, declared_heads.HEADS, declared_networks.NETWORKS)
    for registry in (declared.SOURCES, declared.PROFILES, *own):
        for key, entry in registry.items():
            assert key == getattr(entry, "key", getattr(entry, "name", None))


@pytest.mark.parametrize("name", declared_heads.HEADS)
def test_a_head_is_a_layer_and_may_be_searched_as_recommended(name: str) -> None:
    made: Any = heads.head_class(name).make((7, 3), room=2)
    assert isinstance(made, keras.layers.Layer)
    assert (made.name, made.compute_dtype) == ("head", "float32")
    declared = declared_heads.HEADS[name]
    whole = tomllib.loads("\n".join(f"{each.key} = {each.recommended}" for each in declared.searchable))
    space = SpaceSpec.of(whole, name)
    assert [key for key, _ in space.items()] == [each.key for each in declared.searchable]
    recommended = SpaceSpec.recommended(name)
    assert set(recommended) == set(whole) - {each.key for each in declared.searchable if each.asked}
    assert {key for pair in declared.together for key in pair} <= recommended.keys()
    assert declared.logits == made.logits


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> SourceDefinition:
    """Three classes of random images, of which the last is the brightest."""
    source = SourceDefinition(
        "toy",
        shape=(6, 6, 1),
        classes=("dark", "grey", "bright"),
        train=(40, 40, 40),
        train_per_test=3,
        most_minority=8,
        shift_px=1,
        flip=False,
        part_of="the tests",
    )

    def read(facts: Any, data_dir: Path | None, part: str) -> Any:
        each = facts.train[0] if part == "train" else 10
        labels = np.repeat(np.arange(facts.n_classes, dtype=np.int32), each)
        noise = np.random.default_rng(len(part)).integers(0, 60, (len(labels), *facts.shape))
        return (noise + 80 * labels[:, None, None, None]).astype(np.uint8), labels

    monkeypatch.setitem(declared.SOURCES, "toy", source)
    monkeypatch.setitem(training_data.READERS, "toy", training_data.Reader(read))
    return source


@dataclass(frozen=True)
class Ended:
    """A search all of whose places are used, the first of them by two attempts."""

    study: StoredStudy
    path: Path

    @property
    def complete(self) -> list[Any]:
        return [trial for trial in self.study.optuna.trials if trial.state.name == "COMPLETE"]


def stop_after_an_epoch(study: StoredStudy) -> None:
    """A worker that is asked to stop: it saves its checkpoint and gives its place back."""
    trainer = StudyTrainer(DEVICE, study.spec, study.settled_precision, None)
    files = StudyFiles(default_root(study.backend.url), study.token)
    worker = Worker(study, holder(), trainer, Places.of(study), {"python": "3"}, files)
    claim = worker.places.claim(worker.holder)
    assert claim is not None
    assert not worker.run(claim, lambda: trainer.epoch_share > 0 and bool(trainer.state().epochs))
    assert files.checkpoint(claim.number).is_file()


def searched(backend: Backend, folder: Path, **values: str) -> Ended:
    """From a study file to its end, with a worker that is stopped and a checkpoint that another goes on from."""
    path = folder / "own.toml"
    path.write_text(STUDY.format(**(PLAIN | values)))
    study, _ = open_study(backend, str(path))
    study = study.settle_precision("float32")
    stop_after_an_epoch(study)
    assert work(OneStudy(study), WorkerOptions("cpu", 2)) == 2
    ended = Ended(study.refreshed(), path)
    assert len(ended.complete) == 2
    assert TrialFacts.of(ended.complete[0]).resumed_epochs == 1
    return ended


def pictures(ended: Ended) -> dict[str, bytes]:
    """Those of the first complete trial, drawn and readable."""
    files = StudyFiles(default_root(ended.study.backend.url), ended.study.token)
    history = history_of(files, ended.complete[0])
    assert history is not None
    drawn = history.draw()
    for content in drawn.values():
        assert Image.open(io.BytesIO(content)).format == "PNG"
    return drawn


def notes(ended: Ended) -> str:
    """The study's, and that of its first complete trial."""
    trials = ended.study.optuna.trials
    assert Reporter(ended.study).write()
    note = note_of(ended.study, Places.of(ended.study).counts(), trials)
    return note + trial_note(standing_of(ended.study, trials), ended.complete[0])


def test_a_data_set(sqlite: Backend, tmp_path: Path, toy: SourceDefinition, cli: Cli) -> None:
    ended = searched(sqlite, tmp_path, set="toy")
    exported = export(ended.study)
    assert (exported.dataset, exported.minority, len(exported.per_class_f1)) == ("toy", 4, 3)
    assert exported.macro_f1 > 0.2
    assert len(pictures(ended)) == 4
    assert "| dark | minority | " in notes(ended)
    assert "| grey | majority | " in notes(ended)
    images = json.loads(cli("studies", "show", str(ended.path), "--json").out)["images"]
    assert [sum(each) for each in zip(images["training"], images["validation"], strict=True)] == [12, 40, 12]
    assert images["test"] == [4, 10, 4]


def test_a_profile(
    sqlite: Backend, tmp_path: Path, toy: SourceDefinition, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def last(counts: Sequence[int], wish: Wish) -> Imbalance:
        return Imbalance((*counts[:-1], wish.few or 0), (False,) * (len(counts) - 1) + (True,))

    monkeypatch.setitem(
        declared.PROFILES, "last", ProfileDefinition("last", "the last class is small", needs=("minority",))
    )
    monkeypatch.setitem(profiles.PROFILES, "last", last)
    monkeypatch.setitem(declared.SOURCES, "toy", replace(toy, profile="last"))
    ended = searched(sqlite, tmp_path, set="toy")
    images = json.loads(cli("studies", "show", str(ended.path), "--json").out)["images"]
    assert [sum(each) for each in zip(images["training"], images["validation"], strict=True)] == [40, 40, 12]
    shown = cli("studies", "show", str(ended.path))
    assert "bright*" in shown.out + shown.err
    assert "dark*" not in shown.out + shown.err
    scores = TrialScores.of(ended.complete[0])
    assert scores is not None
    assert scores.minority_f1 == scores.per_class_f1[2]
    assert scores.majority_f1 == pytest.approx(sum(scores.per_class_f1[:2]) / 2)
    assert "| dark | majority | " in notes(ended)
    assert "| bright | minority | " in notes(ended)
    assert len(pictures(ended)) == 4
    assert export(ended.study).macro_f1 == max(trial.user_attrs["scores"]["macro_f1"] for trial in ended.complete)


def test_a_metric(sqlite: Backend, tmp_path: Path, toy: SourceDefinition, monkeypatch: pytest.MonkeyPatch) -> None:
    def best_recall(counted: computed.Counted) -> float:
        return max(float(row[number] / row.sum()) for number, row in enumerate(counted.confusion))

    monkeypatch.setitem(declared_metrics.METRICS, "best_recall", Metric("best_recall", "best recall", "most recall"))
    monkeypatch.setitem(computed.METRICS, "best_recall", best_recall)
    ended = searched(sqlite, tmp_path, set="toy", top='metric = "best_recall"')
    for trial in ended.complete:
        told = trial.user_attrs["scores"]
        confusion = told["confusion"]
        assert told["best_recall"] == max(row[i] / sum(row) for i, row in enumerate(confusion))
        assert trial.value == 1 - told["best_recall"]
        assert trial.value == min(trial.intermediate_values.values())
    assert ended.study.optuna.metric_names == ["1 - best recall (holdout)"]
    exported = json.loads(json.dumps(to_plain(export(ended.study, 2))))
    assert {trial["metric"] for trial in (exported, *exported["top"])} == {"best_recall"}
    assert exported["value"] == min(trial.value for trial in ended.complete)
    best = take(ended.study).best
    assert best is not None
    assert best_text(best, "holdout").startswith(f"best recall {1 - exported['value']:.4f} on validation images")
    assert "| rank | trial | best recall | " in notes(ended)
    assert len(pictures(ended)) == 4


class CoolHead(Head, keras.layers.Dense):  # type: ignore[misc]
    """Softmax of logits that are divided by a temperature."""

    temperature_initializer = keras.initializers.Ones()

    @classmethod
    def make(cls, class_sizes: Sequence[int], room: int) -> "CoolHead":
        return cls(len(class_sizes), dtype="float32", name="head")

    def build(self, features_shape: Any) -> None:
        super().build(features_shape)
        self.temperature = self.add_weight(
            shape=(), initializer=self.temperature_initializer, trainable=False, name="temperature"
        )

    def call(self, features: Tensor, training: bool = False) -> Tensor:
        return super().call(features) / keras.ops.convert_to_tensor(self.temperature)

    def loss(self, labels: Tensor, scores: Tensor) -> Tensor:
        return keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=True)

    def begin(self, params: Params, seed: int) -> None:
        require(params, "temperature")
        redraw(self, seed)
        self.temperature.assign(params["temperature"])


@pytest.fixture
def cool(monkeypatch: pytest.MonkeyPatch) -> HeadDefinition:
    temperature = HeadParameter(
        key="temperature",
        symbol="T",
        about="temperature",
        least=0,
        exclusive=True,
        most=100,
        recommended="{ low = 0.1, high = 10, log = true }",
    )
    head = HeadDefinition(name="cool", about="cooled", loss="cooled cross-entropy", parameters=(temperature,))
    monkeypatch.setitem(declared_heads.HEADS, "cool", head)
    monkeypatch.setitem(heads.HEADS, "cool", f"{__name__}:CoolHead")
    return head


@pytest.mark.usefixtures("toy", "cool")
def test_a_head(sqlite: Backend, sqlite_url: str, tmp_path: Path, cli: Cli) -> None:
    space = "temperature = { low = 0.5, high = 4, log = true }"
    ended = searched(sqlite, tmp_path, set="toy", head="cool", space=space)
    first, second = (trial.params["temperature"] for trial in ended.complete)
    assert 0.5 <= first != second <= 4
    exported = json.loads(json.dumps(to_plain(export(ended.study))))
    assert exported["params"] in ({"temperature": first}, {"temperature": second})
    assert exported["value"] == min(trial.value for trial in ended.complete)
    assert len(pictures(ended)) == 3, "it tells nothing of its loss"
    assert "- temperature: 0.5 to 4 (log)" in notes(ended)
    assert set(figures(points_of(ended.complete), About("holdout", ended.study.spec.head))) == {
        *("best-value", "minority-majority", "time-by-worker"),
        "f1-by-temperature",
    }
    best = take(ended.study).best
    assert best is not None
    assert best_text(best, "holdout").endswith(f": T {best.params['temperature']:.4g}")
    assert " T " in cli("trials", ended.study.name, "--storage", sqlite_url).out
    assert load(str(ended.path)) == StudySpec.from_dict(ended.study.spec.to_dict()) == ended.study.spec
    assert ended.study.spec.max_centers == 1


def test_the_mistakes_are_those_of_the_head(tmp_path: Path, cool: HeadDefinition) -> None:
    path = tmp_path / "own.toml"
    path.write_text(STUDY.format(set="digits", top="", head="cool", network="", space="temperature = 0\nsigma = 3"))
    with pytest.raises(StudyFileError) as refused:
        load(str(path))
    assert refused.value.mistakes == [
        f"space.temperature: 0 given; allowed: {cool.parameters[0].allowed}",
        "space.sigma: a setting of affinity and joint, which the cool head has not; it takes temperature, "
        "learning_rate and weight_decay (--set space=none takes the recommended space)",
    ]
    assert load(str(path), ["space=none"]).space == SpaceSpec.of(
        {"temperature": {"low": 0.1, "high": 10, "log": True}}, "cool"
    ), "what is recommended; the file has a learning rate"


def flat(x: Any, config: Any, precision: str) -> Any:
    """One convolution by a single pixel."""
    return keras.layers.Conv2D(config.widths[-1], 1, dtype=precision, name="flat")(x)


@pytest.mark.usefixtures("toy")
def test_a_network(sqlite: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(declared_networks.NETWORKS, "flat", NetworkDefinition("flat", "one convolution"))
    monkeypatch.setitem(networks.NETWORKS, "flat", networks.Network(f"{__name__}:flat"))
    ended = searched(sqlite, tmp_path, set="toy", network='kind = "flat"')
    spec = ended.study.spec
    assert StudySpec.from_dict(spec.to_dict()) == spec
    assert "- network: flat, widths [4]" in notes(ended)
    plain = load(str(ended.path), ["network.kind=plain"])
    assert "kind" not in plain.to_dict()["network"], "studies that were stored before there was a choice have none"
    assert fingerprint_differences(plain, spec) == ["network.kind: stored plain, given flat"]
    assert fingerprint(plain, "float32") != fingerprint(spec, "float32")
    assert len(pictures(ended)) == 4


def test_the_metric_is_part_of_what_a_score_means() -> None:
    plain = load("digits")
    named, other = load("digits", ["metric=macro_f1"]), load("digits", ["metric=accuracy"])
    assert "metric" not in plain.to_dict(), "studies that were stored before there was a choice have none"
    assert named == plain
    assert fingerprint(named, "float32") == fingerprint(plain, "float32") != fingerprint(other, "float32")
    assert StudySpec.from_dict(other.to_dict()) == other
    assert fingerprint_differences(plain, other) == ["metric: stored macro_f1, given accuracy"]
    assert METRICS[plain.metric].label == "macro F1"


def test_an_unknown_entry_names_the_known_ones() -> None:
    with pytest.raises(StudyFileError) as refused:
        load("digits", ["metric=f2", "data.set=imagenet", "network.head=cosine", "network.kind=deep"])
    assert refused.value.mistakes == [
        "metric: 'f2' given; allowed: macro_f1, balanced_accuracy, geometric_mean, worst_recall, recall_many, "
        "recall_medium, recall_few, accuracy or calibration",
        "data.set: 'imagenet' given; allowed: digits, mnist, cifar10, cifar100, folder, npz or features",
        "network.kind: 'deep' given; allowed: plain, resnet32 or mlp",
        "network.head: 'cosine' given; allowed: affinity, joint, softmax, weighted, class_balanced, focal, "
        "logit_adjusted or ldam",
    ]
