"""The page beside a trained model: what it is, what it was made of, how well it does, and what to beware of."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from affinity_search.search.experiments.report.markdown import escaped
from affinity_search.studies.heads import HEADS
from affinity_search.studies.metrics import METRICS

FEW_TEST = 20  # with fewer images one answer moves a class's recall by more than five points
FEW_TRAIN = 50
About = Mapping[str, Any]


def card(about: About, file: str) -> str:
    """Markdown of what `train` found; `file` is the model's path, as a person types it."""
    return "\n".join(_lines(about, file)).rstrip() + "\n"


def warnings(about: About) -> Iterator[str]:
    """What its scores cannot be trusted for, a sentence each."""
    test, names = about["test"], about["classes"]
    trained = dict(zip(names, about["data"]["train"], strict=True))
    tested = dict(zip(names, test["support"], strict=True))
    small = [name for name, n in tested.items() if n < FEW_TEST]
    if small:
        yield f"Under {FEW_TEST} test images: {_named(small, tested)}. One answer more or less moves their recall much."
    rare = [name for name, n in trained.items() if n < FEW_TRAIN]
    if rare:
        yield f"Under {FEW_TRAIN} training images: {_named(rare, trained)}. Expect less of other images of them."
    unseen = [name for name, recall in zip(names, test["per_class_recall"], strict=True) if recall == 0]
    if unseen:
        yield f"Not one test image was recognised of {', '.join(unseen[:10])}."
    if about["protocol"] == "article":
        yield "Settings and epochs were chosen on these test images (protocol article): the scores are too high."
    yield "The scores are of this one division into training and test images. Images from elsewhere may give others."
    if about["outputs"] == "similarities":
        yield "The model gives similarities from 0 to 1, not probabilities: the greatest is the prediction."


def _named(names: list[str], counts: Mapping[str, int]) -> str:
    shown = [f"{name} ({counts[name]})" for name in names[:10]]
    return ", ".join(shown) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _lines(about: About, file: str) -> Iterator[str]:
    head, settings = HEADS[about["head"]], about["settings"]
    yield f"# {escaped(file)}\n"
    yield f"{_takes(about)} Made by `affinity-search train` on {about['made_at'][:10]}.\n"
    yield "## Scores on the test images\n"
    metric = METRICS[about["metric"]]
    keys = dict.fromkeys((about["metric"], "macro_f1", "accuracy"))
    yield ", ".join(f"{METRICS[key].label} **{about['test'][key]:.4f}**" for key in keys)
    yield f"\nThe search maximised {metric.label}: {metric.about}.\n"
    yield from _classes(about)
    yield "\n## Beware\n"
    yield from (f"- {escaped(line)}" for line in warnings(about))
    yield "\n## How it was made\n"
    yield f"- Loss: {escaped(head.about)} (`{head.name}`)"
    values = ", ".join(f"{key} {value:.6g}" for key, value in settings["params"].items()) or "nothing was searched"
    yield f"- Settings: {escaped(values)}, of trial {settings['trial']} of study {escaped(about['study'])}"
    yield (
        f"- {settings['epochs']} of {about['schedule_epochs']} epochs, seed {settings['seed']}: the schedule of the "
        "learning rate is that of all epochs, and training ends where the trial was best"
    )
    if settings["adjustment"] is not None:
        yield f"- Probabilities are adjusted: τ = {settings['adjustment']:g} times each class's log share is subtracted"
    parts = "training images" if about["protocol"] == "article" else "training images and the validation images"
    yield f"- Trained on the {parts} of the search; the test images were kept out"
    yield from _origin(about)
    shown = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    yield f"- Computed in {about['training']['precision']}, saved as float32. {escaped(shown)}"
    yield "\n## Commands\n"
    name = shlex.quote(file)
    repeat = f"--trial {settings['trial']} --epochs {settings['epochs']} -o {name}"
    yield f"```sh\naffinity-search train {shlex.quote(about['study'])} {repeat}"
    yield f"affinity-search predict {name} {'IMAGES/' if about['input']['kind'] == 'images' else 'VECTORS.npz'}\n```"


def _takes(about: About) -> str:
    shape, kind = about["input"]["shape"], about["input"]["kind"]
    many = f"{len(about['classes'])} classes"
    if kind == "vectors":
        return f"A network that tells {many} apart by vectors of {shape[0]} numbers."
    colour = "grey" if shape[2] == 1 else "colour"
    return f"A network that tells {many} apart in {colour} images, which are stretched to {shape[0]}×{shape[1]} pixels."


def _classes(about: About) -> Iterator[str]:
    test = about["test"]
    columns = (
        about["classes"],
        about["data"]["train"],
        test["support"],
        test["per_class_recall"],
        test["per_class_f1"],
    )
    yield "| class | trained on | test images | recall | F1 |\n|---|---:|---:|---:|---:|"
    for name, trained, tested, recall, f1 in zip(*columns, strict=True):
        shown = "–" if recall is None else f"{recall:.4f}"
        yield f"| {escaped(name)} | {trained} | {tested} | {shown} | {f1:.4f} |"


def _origin(about: About) -> Iterator[str]:
    data = about["data"]
    where = data["set"] if data["path"] is None else f"{data['set']} {data['path']}"
    digests = data["sha256_by_part"] if data["sha256"] is None else {"all": data["sha256"]}
    shown = ", ".join(f"{part} {digest}" for part, digest in digests.items())
    yield f"- Images: {escaped(where)} ({escaped(data['imbalance'])}); SHA-256 of their content: {shown or 'unknown'}"
