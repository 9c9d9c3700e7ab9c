"""NumPy's files of several arrays: which are a part's images, labels and groups, and what is wrong with them.

Known are the names of Keras (`x_train`, `y_train`), of MedMNIST (`train_images`, `train_labels`), and of undivided sets
(`images` or `x`, `labels` or `y`). Nothing in a file can run code: pickles are refused.
"""

import contextlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinity_search.search.training.data.own.collection import numbered
from affinity_search.search.training.errors import DataError, MissingDataError, listed

WORDS = (("train",), ("validation", "val", "valid"), ("test",))  # of each part


@dataclass
class Found:
    """What a file holds, part by part; `problems` has a line for each thing that is wrong."""

    parts: list[int] = field(default_factory=list)  # those that are there, as indices into PARTS
    names: list[str] = field(default_factory=list)  # of their arrays of images or features
    inputs: list[NDArray[Any]] = field(default_factory=list)  # images or features
    labels: list[NDArray[np.int64]] = field(default_factory=list)  # (N,) of each
    groups: list[NDArray[Any]] = field(default_factory=list)  # (N,) of each, or none
    classes: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)

    def part_numbers(self) -> NDArray[np.uint8]:
        """(N,) of all parts, one after the other."""
        return np.repeat(np.array(self.parts, np.uint8), [len(labels) for labels in self.labels])

    def group_numbers(self) -> NDArray[np.int32] | None:
        """(N,) of all parts, one after the other."""
        return numbered(np.concatenate(self.groups).tolist()) if self.groups else None


def found_in(path: Path, kinds: Sequence[str]) -> Found:
    """All parts' arrays. `kinds` are the words for what is no label: "images", or "features"; x is always one.

    Raises DataError if the file is not there or not readable.
    """
    found = Found()
    with opened(path) as arrays:
        _take(found, arrays, kinds)
    _judge_labels(found)
    return found


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file's arrays by name. Raises DataError if it is not there, or an array that is asked for is not readable."""
    if not path.exists():
        raise MissingDataError(f"Arrays were looked for in {path}, and there is no such file; check the path.")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not a file that numpy.savez writes, or not whole; save it again with numpy.savez.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except DataError:
        raise
    except Exception as error:  # a damaged file raises errors of zip, zlib, NumPy and the system
        raise DataError(f"{path} cannot be read: {str(error) or 'it does not fit into memory'}.") from error


def _take(found: Found, arrays: Any, kinds: Sequence[str]) -> None:
    inputs = [*(kind for kind in kinds), "x"]
    undivided = _only(found, arrays, inputs)
    if undivided is not None:
        _take_part(found, arrays, 0, undivided, ["labels", "y"], ["groups"])
    for part, words in enumerate(WORDS):
        name = _only(found, arrays, _spelled(words, inputs))
        labels = _spelled(words, ["labels", "y"])
        if name is None:
            lone = [each for each in labels if each in arrays]
            found.problems.extend(f"{each} has no {kinds[0]} beside it" for each in lone)
        elif undivided is not None:
            found.problems.append(f"it holds both {undivided} and {name}: leave one of them out")
        else:
            _take_part(found, arrays, part, name, labels, _spelled(words, ["groups"]))
    if not found.names and not found.problems:
        there = listed(arrays) or "nothing"
        found.problems.append(f"it holds {there}, but neither {kinds[0]} with labels, nor x_train with y_train")
    if found.groups and len(found.groups) < len(found.names):
        found.problems.append("some parts have groups and others have not: give all of them groups, or none")
    if "classes" in arrays:
        _take_classes(found, array_in(found, arrays, "classes"))


def _take_part(
    found: Found, arrays: Any, part: int, name: str, label_names: Sequence[str], group_names: Sequence[str]
) -> None:
    beside = _only(found, arrays, label_names)
    inputs = array_in(found, arrays, name)
    if beside is None:
        found.problems.append(f"{name} has no labels beside it; they would be called {label_names[0]}")
        return
    labels = array_in(found, arrays, beside)
    if inputs is None or labels is None or (labels := _labels(found, beside, labels)) is None:
        return
    if inputs.ndim == 0 or len(inputs) != len(labels):
        count = len(inputs) if inputs.ndim else "no"
        found.problems.append(
            f"{name} holds {count} {'vectors' if inputs.ndim == 2 else 'images'}, but {beside} {len(labels)} labels"
        )
        return
    if not len(labels):
        found.problems.append(f"{name} is empty; leave it out")
        return
    group_name = _only(found, arrays, group_names)
    groups = None if group_name is None else array_in(found, arrays, group_name)
    if groups is not None:
        groups = groups.reshape(-1) if groups.shape[1:] in ((), (1,)) else groups
        if groups.shape != labels.shape or groups.dtype.kind not in "iuUS":
            found.problems.append(f"{group_name} has {groups.dtype} of shape {groups.shape}, not a number or name each")
        found.groups.append(groups)
    found.parts.append(part)
    found.names.append(name)
    found.inputs.append(inputs)
    found.labels.append(labels)


def _labels(found: Found, name: str, labels: NDArray[Any]) -> NDArray[np.int64] | None:
    if labels.ndim == 2 and labels.shape[1] > 1:
        found.problems.append(f"{name} has {labels.shape[1]} labels for each image, not one")
    elif labels.ndim not in (1, 2):
        found.problems.append(f"{name} has the shape {labels.shape}, not one label for each image")
    elif labels.dtype.kind not in "iu":
        hint = "number the classes from 0 and put their names into classes" if labels.dtype.kind in "US" else ""
        found.problems.append(f"{name} holds {labels.dtype}, not whole numbers; {hint or 'save it as integers'}")
    elif len(labels) and int(labels.max()) > np.iinfo(np.int32).max:
        found.problems.append(f"{name} holds the label {labels.max()}; classes are numbered from 0 without gaps")
    else:
        return labels.reshape(-1).astype(np.int64)
    return None


def _take_classes(found: Found, classes: NDArray[Any] | None) -> None:
    if classes is None:
        return
    if classes.ndim != 1 or classes.dtype.kind not in "US":
        found.problems.append(f"classes has {classes.dtype} of shape {classes.shape}, not a list of names")
        return
    names = tuple(
        each.decode("utf-8", "backslashreplace") if isinstance(each, bytes) else str(each) for each in classes.tolist()
    )
    if len(set(names)) < len(names):
        found.problems.append("classes has a name more than once")
    found.classes = names


def _judge_labels(found: Found) -> None:
    """And name the classes where the file does not."""
    if not found.labels:
        return
    present = np.unique(np.concatenate(found.labels))
    negative = int((present < 0).sum())
    if negative:
        found.problems.append(f"there are negative labels: {listed(map(str, present), negative)}")
        return
    if len(present) == 1:
        found.problems.append(f"all labels are {present[0]}; a network learns to tell at least two classes apart")
    last = int(present[-1])
    if found.classes:
        if last >= len(found.classes):
            found.problems.append(f"there is a label {last}, but classes names {len(found.classes)}, numbered from 0")
        return
    missing = last + 1 - len(present)
    if missing:
        there = set(present.tolist())
        empty = (str(label) for label in range(last) if label not in there)
        found.problems.append(
            f"labels go up to {last}, but no image has {listed(empty, missing)}; number the classes from 0 without "
            "gaps, or name all of them in classes"
        )
        return
    found.classes = tuple(map(str, range(last + 1)))


def _only(found: Found, arrays: Any, names: Sequence[str]) -> str | None:
    there = [name for name in names if name in arrays]
    if len(there) > 1:
        found.problems.append(f"{' and '.join(there)} mean the same: leave one of them out")
    return there[0] if there else None


def array_in(found: Found, arrays: Any, name: str) -> NDArray[Any] | None:
    """The array of that name; None, and a problem, for one that is a pickle."""
    try:
        array: NDArray[Any] = arrays[name]
    except ValueError:
        # NumPy's own advice here is to load pickles, which would run whatever code the file holds.
        found.problems.append(f"{name} is not a plain array of numbers")
        return None
    return array


def _spelled(words: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """`x_train`, `train_x`, …"""
    return [name for word in words for kind in kinds for name in (f"{kind}_{word}", f"{word}_{kind}")]
