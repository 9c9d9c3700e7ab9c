"""The studies and the comparisons that come with the package."""

from __future__ import annotations

from importlib.resources import files


def names() -> list[str]:
    """The bundled studies' names, sorted."""
    found = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def text(name: str) -> str:
    """A bundled study's file. Raises KeyError for a name that is not one of `names()`."""
    if name not in names():
        raise KeyError(name)
    return files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")


def summary(name: str) -> str:
    """What a bundled study is, in one line: its file's first. Raises KeyError as `text` does."""
    return text(name).partition("\n")[0].removeprefix("#").strip()


COMPARISONS = "comparisons"


def comparisons() -> list[str]:
    """The bundled comparisons' names, sorted."""
    found = (entry.name for entry in files(__name__).joinpath(COMPARISONS).iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def comparison_text(name: str) -> str:
    """A bundled comparison's file. Raises KeyError for a name that is not one of `comparisons()`."""
    if name not in comparisons():
        raise KeyError(name)
    return files(__name__).joinpath(COMPARISONS, f"{name}.toml").read_text(encoding="utf-8")
