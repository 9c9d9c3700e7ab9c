"""What a study's trials have in common."""

from making import TINY

from affinity_search.search import devices

DEVICE = devices.configure("cpu", 2)

from affinity_search.search.worker.study_trainer import StudyTrainer  # the device comes first
from affinity_search.studies.files import load


def test_a_batch_above_the_training_images_is_cut_and_told() -> None:
    params = {"lambda": 0.5, "sigma": 10.0, "n_centers": 2}
    small = ["training.epochs=1", "training.batch=5000"]
    wide = StudyTrainer(DEVICE, load(TINY, small), "float32", None)
    images = sum(wide.class_sizes)
    assert wide.note == f"training.batch is 5000, but there are {images} training images; batches have {images}"
    exact = StudyTrainer(DEVICE, load(TINY, [*small, f"training.batch={images}"]), "float32", None)
    assert exact.note is None
    assert next(wide.epochs(params, 0)).loss == next(exact.epochs(params, 0)).loss
