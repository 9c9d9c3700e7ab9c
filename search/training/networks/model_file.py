"""What a file of `train` says of itself, read without Keras: a mistake is told before a framework is imported."""

import json
import zipfile
from pathlib import Path
from typing import Any

from affinity_search.search.training.errors import ModelFileError

FORMAT = 1  # of what the layer "about" holds
ABOUT = "about"  # the layer's name
REGISTERED = "affinity_search>About"


def about_in(path: Path) -> dict[str, Any]:
    """What `model.get_layer("about").about` of the opened model is.

    Raises ModelFileError if the file is not there, holds no Keras model or another one, or is of a later version.
    """
    if not path.exists():
        raise ModelFileError(f"there is no file {path}; affinity-search train STUDY -o {path} writes one")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ModelFileError(f"{path} is no Keras model (.keras), or not whole; give one that train wrote") from error
    about = _about_of(config)
    if about is None:
        raise ModelFileError(
            f"{path} is a Keras model that affinity-search train did not write: it does not say its classes and how "
            "images are prepared"
        )
    if about.get("format") != FORMAT:
        raise ModelFileError(f"{path} was written by another version of affinity-search; use that one, or train again")
    return about


def _about_of(config: Any) -> dict[str, Any] | None:
    layers = config.get("config", {}).get("layers", []) if isinstance(config, dict) else []
    found = [layer["config"][ABOUT] for layer in layers if layer.get("registered_name") == REGISTERED]
    return dict(found[0]) if found else None
