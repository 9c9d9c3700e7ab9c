"""The Keras part that the three rivals' scripts share, as their user would write it: data, network, macro F1.

The job stands in `job.json` of the current folder, the images in `images.npz`.
"""

import json
import math
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import f1_score

from affinity_search import AffinityHead, AffinityLoss

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


def job(folder="."):
    return json.loads(Path(folder, "job.json").read_text())


def build(job, margin, sigma, n_centers):
    inputs = keras.Input(job["shape"])
    x = inputs
    for block, width in enumerate(job["widths"]):
        if block > 0:
            x = keras.layers.AveragePooling2D(2)(x)
        for _ in range(job["depth"]):
            x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = keras.layers.BatchNormalization(momentum=job["momentum"])(x)
            x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.BatchNormalization(momentum=job["momentum"])(x)
    model = keras.Model(inputs, AffinityHead(n_classes=10, n_centers=n_centers, sigma=sigma)(x))
    optimizer = keras.optimizers.Adam(job["learning_rate"])
    model.compile(optimizer=optimizer, loss=AffinityLoss(margin), jit_compile=job["jit_compile"])
    return model


class MacroF1(keras.callbacks.Callback):
    """After every epoch, on the validation images."""

    def __init__(self, x, y, tell=None):
        super().__init__()
        self.x, self.y, self.tell, self.scores = x, y, tell, []

    def on_epoch_end(self, epoch, logs=None):
        predicted = self.model.predict(self.x, batch_size=1024, verbose=0).argmax(axis=1)
        self.scores.append(f1_score(self.y, predicted, average="macro"))
        if self.tell:
            self.tell({"f1": self.scores[-1]})


def train(margin, sigma, n_centers, folder=".", tell=None):
    """Macro F1 of the best epoch."""
    task = job(folder)
    with np.load(Path(folder, "images.npz")) as images:
        x, y, x_val, y_val = (images[name] for name in ("x", "y", "x_val", "y_val"))

    def rate(epoch, _):
        passed = sum(epoch >= math.ceil(drop * task["epochs"]) for drop in task["drops"])
        return task["learning_rate"] / 5**passed

    score = MacroF1(x_val / np.float32(255), y_val, tell)
    model = build(task, margin, sigma, n_centers)
    callbacks = [keras.callbacks.LearningRateScheduler(rate), score]
    model.fit(x / np.float32(255), y, epochs=task["epochs"], batch_size=task["batch"], callbacks=callbacks, verbose=0)
    return max(score.scores)
