import math
import re
from dataclasses import replace

import numpy as np
import pytest

from affinity_search.search import devices
from affinity_search.studies.data import SOURCES

DEVICE = devices.configure("cpu", 2)

from keras import ops  # the device comes first

from affinity_search.search.training import checkpoints, schedule
from affinity_search.search.training.data import splits as datasets
from affinity_search.search.training.data.splits import Split, search_splits
from affinity_search.search.training.errors import CheckpointError, DivergedError, OutOfMemoryError, TrainingInterrupted
from affinity_search.search.training.fit import EpochScore, Trainer, TrainingConfig, TrainingResult
from affinity_search.search.training.metrics import score
from affinity_search.search.training.networks import building as networks
from affinity_search.search.training.networks.building import NetworkConfig, trainable_state
from affinity_search.search.training.schedule import (
    Pace,
    reset_optimizer,
)
from affinity_search.studies.files import load

DIGITS = SOURCES["digits"]
NETWORK = NetworkConfig((16, 32), 1, 0.9, "affinity")
TRAINING = TrainingConfig(epochs=4, batch=64, learning_rate=5e-3, drops=(0.75,))


def affinity(lambda_, sigma, n_centers):
    """A trial's parameters."""
    return {"lambda": lambda_, "sigma": sigma, "n_centers": n_centers}


PARAMS = affinity(0.75, 10.0, 1)
SHORT = replace(TRAINING, epochs=2)


@pytest.fixture(scope="module")
def splits():
    return *search_splits(DIGITS, 20, 0.2, "holdout", 0, None), datasets.test_split(DIGITS, 20, None)


@pytest.fixture(scope="module")
def trainer(splits):
    train, evaluation, test = splits
    return Trainer(DEVICE, train, evaluation, DIGITS, NETWORK, TRAINING, max_centers=4, test=test)


def few(split, n=40):
    return split.take(np.arange(n))


def small(splits, head="affinity", training=SHORT, **options):
    train, evaluation, _ = splits
    network = replace(NETWORK, widths=(4,), head=head)
    return Trainer(DEVICE, few(train), few(evaluation), DIGITS, network, training, **options)


@pytest.fixture(scope="module")
def shared(splits):
    """A `small` one with these options, the same for all tests that ask for them: building one takes a second."""
    made = {}

    def get(**options):
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = small(splits, **options)
        return made[key]

    return get


def outcome(result):
    """All but the durations."""
    return [(epoch.loss, epoch.scores) for epoch in result.epochs]


def test_the_affinity_head_learns_digits(trainer):
    seen = list(trainer.epochs(PARAMS, seed=1))
    result = TrainingResult(tuple(seen))
    assert [epoch.epoch for epoch in seen] == [0, 1, 2, 3]
    assert result.best.scores.macro_f1 > 0.6, "chance is 0.1"
    assert result.value == 1 - result.best.scores.macro_f1
    assert result.epochs[-1].loss < result.epochs[0].loss
    assert all(0 < epoch.duration_s < 60 for epoch in seen)


@pytest.fixture(scope="module")
def bundled_digits():
    spec = load("digits")
    network = NetworkConfig(spec.network.widths, spec.network.depth, spec.network.batch_norm_momentum, "affinity")
    training = replace(TRAINING, epochs=1, batch=spec.training.batch, learning_rate=spec.training.learning_rate)
    train, evaluation = search_splits(DIGITS, spec.data.minority, spec.data.validation, "holdout", spec.seed, None)
    return Trainer(DEVICE, train, evaluation, DIGITS, network, training, spec.space.max_centers)


@pytest.mark.parametrize("params", [affinity(0.43, 50.0, 3), affinity(0.3, 200.0, 5)], ids=str)
def test_the_first_epoch_of_the_bundled_digits_scores_well_above_chance(params, bundled_digits):
    """A pruner acts on early scores: a batch norm whose averages lag behind would make them noise (0.03 here)."""
    assert bundled_digits.run(params, seed=1).best.scores.macro_f1 > 0.4, "chance is 0.1"


def test_the_softmax_head_learns_digits(splits):
    train, evaluation, _ = splits
    network = replace(NETWORK, head="softmax")
    result = Trainer(DEVICE, train, evaluation, DIGITS, network, TRAINING).run({}, seed=1)
    assert result.best.scores.macro_f1 > 0.6


def test_a_run_depends_on_parameters_and_seed_alone(shared):
    augmented = shared(training=replace(SHORT, augment=True), max_centers=3)
    first = outcome(augmented.run(PARAMS, seed=1))
    other = outcome(augmented.run(affinity(0.3, 40.0, 3), seed=2))
    assert outcome(augmented.run(PARAMS, seed=1)) == first, "bit for bit"
    assert other != first
    assert outcome(augmented.run(PARAMS, seed=2)) != first, "the seed matters"
    assert outcome(augmented.run(PARAMS | {"sigma": 40.0}, seed=1)) != first, "the parameters matter"


def test_another_trainer_gives_the_same(splits, shared):
    trainers = (shared(max_centers=2), small(splits, max_centers=2), shared(max_centers=5))
    results = [outcome(one.run(PARAMS, seed=3)) for one in trainers]
    assert results[0] == results[1]
    losses = [[epoch[0] for epoch in result] for result in results]
    assert losses[2] == pytest.approx(losses[0], rel=1e-5), "room for more centres changes rounding only"


def test_interruption_and_failure_leave_no_trace(shared):
    subject = shared()
    expected = outcome(subject.run(PARAMS, seed=1))
    with pytest.raises(TrainingInterrupted):
        subject.run(PARAMS, seed=2, should_stop=lambda: True)
    for _ in subject.epochs(PARAMS, seed=2):
        break  # as a pruned trial does
    assert outcome(subject.run(PARAMS, seed=1)) == expected


def test_the_second_run_traces_nothing(splits, monkeypatch):
    calls = []
    traced = networks.Scale.call
    monkeypatch.setattr(networks.Scale, "call", lambda self, images: calls.append(1) or traced(self, images))
    subject = small(splits, training=replace(SHORT, augment=True), max_centers=3)
    subject.run(PARAMS, seed=1)
    after_first = len(calls)
    assert after_first > 0
    for m in (1, 2, 3):
        subject.run(affinity(0.1 * m, 10.0 * m, m), seed=m)
    assert len(calls) == after_first


@pytest.mark.skipif(devices.backend() != "jax", reason="the backend is not JAX")
def test_jax_compiles_nothing_for_a_second_run(splits):
    import jax

    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **about: compiled.append(event) if "backend_compile" in event else None
    )
    subject = small(splits, training=replace(SHORT, augment=True), max_centers=4)
    subject.run(affinity(0.5, 20.0, 1), seed=1)
    after_first = len(compiled)
    assert after_first > 0
    for m in (2, 3, 4):
        subject.run(affinity(0.1 * m, 10.0 * m, m), seed=m)
    assert len(compiled) == after_first


def test_an_epoch_evaluates_once_and_brings_back_the_head_s_scores_alone(shared, monkeypatch):
    subject = shared()
    brought, outputs = [], subject._outputs

    def watched(indices):
        brought.append(outputs(indices))
        return brought[-1]

    monkeypatch.setattr(subject, "_outputs", watched)
    result = subject.run(PARAMS, seed=1)
    assert [(each.shape, str(each.dtype)) for each in brought] == [((40, 10), "float32")] * len(result.epochs)


@pytest.mark.skipif(devices.backend() != "tensorflow", reason="the backend is not TensorFlow")
def test_no_variable_must_stay_in_the_host_s_memory(shared):
    """TensorFlow keeps variables of some types beside the CPU only, whatever device there is."""
    from tensorflow.python.framework.kernels import get_registered_kernels_for_op

    kernels = get_registered_kernels_for_op("VarHandleOp").kernel
    elsewhere = [kernel.constraint[0].allowed_values.list.type for kernel in kernels if kernel.device_type == "DEFAULT"]
    types = {number for numbers in elsewhere for number in numbers}
    model = shared(training=replace(SHORT, augment=True))._model
    variables = model.variables + model.optimizer.variables
    assert {variable.path for variable in variables if variable.value.dtype.as_datatype_enum not in types} == set()


@pytest.fixture
def single_steps(monkeypatch):
    """One step a call, as on a slow device."""
    monkeypatch.setattr("affinity_search.search.training.schedule.CALL_S", 0.0)


@pytest.mark.usefixtures("single_steps")
def test_should_stop_is_asked_after_every_call(trainer, splits):
    trainer.run(PARAMS, seed=1)  # the pace of the first call is another one's
    asked = []
    with pytest.raises(TrainingInterrupted):
        trainer.run(PARAMS, seed=1, should_stop=lambda: asked.append(1) or len(asked) == 20)
    assert len(asked) == 20, "in the second epoch, and never again"
    assert math.ceil(len(splits[0]) / TRAINING.batch) < 20


def test_going_back_puts_an_epochs_weights_back(splits, monkeypatch):
    """Scored once more, they give that epoch's scores; without it, the last epoch's."""
    planned = iter([0.2, 0.9, 0.9, 0.1])
    states = []
    subject = small(splits, training=replace(SHORT, epochs=4), test=few(splits[2]))
    scored = subject._score

    def planned_score(*split):
        states.append([ops.convert_to_numpy(variable).copy() for variable in trainable_state(subject._model)])
        return replace(scored(*split), macro_f1=next(planned))

    monkeypatch.setattr(subject, "_score", planned_score)
    kept = [(score, subject.state()) for score in subject.epochs(PARAMS, seed=1)]
    assert TrainingResult(tuple(score for score, _ in kept)).best.epoch == 1, "the earlier of equals"
    subject.go_back(kept[1][1])
    assert subject.state().epochs == tuple(score for score, _ in kept[:2])
    now = [ops.convert_to_numpy(variable) for variable in trainable_state(subject._model)]
    assert all((a == b).all() for a, b in zip(now, states[1], strict=True))
    assert any((a != b).any() for a, b in zip(now, states[3], strict=True))


def test_score_test_scores_the_test_split_with_present_weights(trainer, splits):
    result = trainer.run(PARAMS, seed=1)
    (scores,) = trainer.score_test()
    assert scores.support == splits[2].counts(10)
    assert scores.macro_f1 == pytest.approx(result.epochs[-1].scores.macro_f1, abs=0.15)


def test_score_test_without_a_test_split_is_refused(shared):
    with pytest.raises(ValueError, match="test split"):
        shared().score_test()


def test_padding_never_reaches_the_scores(trainer, splits, monkeypatch):
    """Any evaluation batch gives the same scores."""
    trainer.run(PARAMS, seed=1)
    expected = trainer.score_test()
    for batch in (1000, 100, 7):
        monkeypatch.setattr(trainer, "_evaluation_batch", batch)
        assert trainer.score_test() == expected


def test_a_diverging_run_ends_at_once(splits):
    train, evaluation, _ = splits
    subject = Trainer(
        DEVICE,
        few(train),
        few(evaluation),
        DIGITS,
        replace(NETWORK, head="softmax"),
        replace(SHORT, epochs=5, learning_rate=1e38),
    )
    epochs = []
    with pytest.raises(DivergedError, match="lower the learning rate") as caught:
        epochs.extend(subject.epochs({}, seed=1))
    assert not math.isfinite(caught.value.loss)
    assert caught.value.epoch == len(epochs), "not reported, and nothing after it"
    assert all(math.isfinite(epoch.loss) for epoch in epochs)


def test_a_batch_larger_than_the_data(splits):
    result = small(splits, training=replace(SHORT, batch=100)).run(PARAMS, seed=1)
    assert len(result.epochs) == 2


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_repeats(splits, precision):
    subject = small(splits, training=replace(SHORT, precision=precision, augment=True, epochs=6, batch=8))
    result = subject.run(PARAMS, seed=1)
    assert result.epochs[-1].loss < result.epochs[0].loss
    subject.run(PARAMS | {"sigma": 50.0}, seed=2)
    assert outcome(subject.run(PARAMS, seed=1)) == outcome(result), "the scale of the loss is set back as well"


def test_the_loss_of_half_precision_is_scaled(splits):
    optimizer = small(splits, training=replace(SHORT, precision="mixed_float16"))._model.optimizer
    reset_optimizer(optimizer)
    assert float(optimizer.scale_loss(1.0)) == optimizer.initial_scale > 1000


@pytest.mark.parametrize("call_s", [0.0, 1000.0])
def test_how_many_steps_a_call_makes_changes_no_bit(shared, call_s, monkeypatch):
    training = replace(SHORT, batch=8, augment=True)
    subject = shared(training=training)
    expected = outcome(subject.run(PARAMS, seed=1))
    monkeypatch.setattr("affinity_search.search.training.schedule.CALL_S", call_s)
    monkeypatch.setattr(subject, "_pace", Pace())
    calls = []
    run = subject._steps.run
    monkeypatch.setattr(subject._steps, "run", lambda *args: calls.append(args[4]) or run(*args))
    assert outcome(subject.run(PARAMS, seed=1)) == expected
    assert calls == [1] * 10 if call_s == 0 else [1, 4, 5]


def test_a_call_covers_a_second_and_grows_by_steps():
    pace = Pace()
    for took_s, expected in ((0.001, 8), (0.008, 64), (0.64, 100), (4.0, 25), (60.0, 1)):
        count = pace.steps(10_000)
        pace.learn(count, took_s)
        assert pace.steps(10_000) == expected
    assert Pace().steps(10_000) == 1


def test_parameters_must_fit_the_head(shared):
    with pytest.raises(ValueError, match="head"):
        shared().run({}, seed=1)
    with pytest.raises(ValueError, match="head"):
        shared(head="softmax").run(PARAMS, seed=1)
    with pytest.raises(ValueError, match="n_centers"):
        shared().run(PARAMS | {"n_centers": 2}, seed=1)


@pytest.mark.parametrize(("n", "batch", "total"), [(10, 4, 12), (8, 4, 8), (3, 8, 8)])
def test_an_epochs_order_is_a_permutation_filled_from_its_start(n, batch, total):
    images = np.arange(100, 100 + n, dtype=np.int32)
    indices, labels = schedule.epoch_order(images, np.arange(n), TrainingConfig(1, batch), seed=1, epoch=0)
    assert len(indices) == total
    assert sorted(indices[:n]) == list(range(100, 100 + n))
    assert all(indices[i] == indices[i % n] for i in range(total))
    assert (labels == indices - 100).all(), "labels follow their images"


def test_orders_differ_by_seed_and_epoch_and_repeat():
    def order(seed, epoch):
        return schedule.epoch_order(np.arange(50), np.arange(50), TrainingConfig(1, 10), seed, epoch)[0].tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(*key)) for key in [(1, 0), (1, 1), (2, 0), (0, 1)]}) == 4


def test_the_learning_rate_is_divided_at_each_drop():
    training = TrainingConfig(epochs=100, batch=1, learning_rate=1.0, drops=(0.5, 0.8))
    rates = [schedule.learning_rate(training, epoch, 1.0) for epoch in (0, 49, 50, 79, 80, 99)]
    assert rates == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])


def test_the_optimiser_uses_the_epochs_rate(splits):
    subject = small(splits, training=replace(SHORT, drops=(0.5,)))
    rates = [float(subject._model.optimizer.learning_rate) for _ in subject.epochs(PARAMS, seed=1)]
    assert rates == pytest.approx([5e-3, 1e-3])


def epoch_score(epoch, macro_f1):
    return EpochScore(epoch, 1.0, replace(score(np.array([0]), np.array([0]), 2), macro_f1=macro_f1), 0.1)


def test_best_is_the_earliest_of_equals():
    result = TrainingResult(tuple(epoch_score(epoch, f1) for epoch, f1 in enumerate([0.1, 0.7, 0.7, 0.6])))
    assert result.best.epoch == 1
    assert result.value == pytest.approx(0.3)


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"precision": "float8"}])
def test_impossible_training_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        replace(TRAINING, **bad)


def test_an_image_set_of_another_shape_works():
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (20, 8, 8, 3), np.uint8), np.arange(20, dtype=np.int32) % 10)
    subject = Trainer(
        DEVICE, split, split, SOURCES["cifar10"], replace(NETWORK, widths=(4,)), replace(SHORT, augment=True)
    )
    assert len(subject.run(PARAMS, seed=0).epochs) == 2


@pytest.fixture(scope="module")
def two_alike(splits):
    """As in two processes."""
    return [small(splits, training=replace(TRAINING, augment=True), max_centers=3) for _ in range(2)]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_resumed_run_ends_as_an_undisturbed_one_bit_for_bit(two_alike, epochs, tmp_path):
    subject, other = two_alike
    params = affinity(0.3, 40.0, 2)
    kept = [subject.state() for _ in subject.epochs(params, seed=1)]
    whole = TrainingResult(kept[-1].epochs)
    weights = [np.array(variable) for variable in trainable_state(subject._model)]

    checkpoints.save(tmp_path / "1.npz", kept[epochs - 1], {})
    other.run(PARAMS, seed=9)
    resumed = other.run(params, 1, resume=checkpoints.load(tmp_path / "1.npz", {}))

    assert outcome(resumed) == outcome(whole), "a new Optuna trial hears of every epoch"
    for variable, expected in zip(trainable_state(other._model), weights, strict=True):
        assert (np.array(variable) == expected).all(), variable.path


def test_a_checkpoint_leaves_the_images_out_and_holds_the_random_state(shared):
    subject = shared(training=replace(SHORT, augment=True))
    kept = [subject.state() for _ in subject.epochs(PARAMS, seed=1)]
    names = list(kept[-1].variables)
    assert not any("images" in name for name in names)
    assert any(name.startswith("random/") for name in names)
    assert any(name.startswith("adam/") for name in names)
    assert len(kept) == 2
    assert len(kept[-1].epochs) == 2


def test_a_checkpoint_of_another_network_is_refused_before_anything_is_told(shared):
    shared(max_centers=2).run(PARAMS, seed=1)
    kept = shared(max_centers=2).state()
    with pytest.raises(CheckpointError, match="another network"):
        next(shared(max_centers=3).epochs(PARAMS, 1, resume=kept))


def test_a_device_without_room_has_an_error_of_its_own(shared, monkeypatch):
    def too_much(*args, **options):
        return float(ops.sum(ops.zeros((2**45,), "float32")))  # 128 TiB: the real allocator refuses

    subject = shared()
    monkeypatch.setattr(subject._steps, "run", too_much)
    told = rf"{re.escape(DEVICE.describe())} ran out of memory .*smaller training\.batch"
    with pytest.raises(OutOfMemoryError, match=told):
        subject.run(PARAMS, seed=1)


@pytest.mark.usefixtures("single_steps")
def test_a_stop_is_heard_during_the_evaluation(splits):
    train, evaluation, _ = splits
    subject = Trainer(DEVICE, train, evaluation, DIGITS, NETWORK, SHORT)
    steps = math.ceil(len(train) / SHORT.batch)
    asked = []
    with pytest.raises(TrainingInterrupted):
        subject.run(PARAMS, seed=1, should_stop=lambda: asked.append(1) or len(asked) > steps)
    assert len(asked) == steps + 1
