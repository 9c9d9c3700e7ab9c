"""The errors that a person meets, and lists of words as their messages have them."""

from collections.abc import Sequence


def enumeration(words: Sequence[str], conjunction: str = "and") -> str:
    """`a, b and c`; a single word as it is."""
    *others, last = words
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def either(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return enumeration(words, "or")


class AffinitySearchError(Exception):
    """The message is shown to a person as it is; no traceback."""


class StudyFileError(AffinitySearchError):
    """A study file that cannot be used; the person mends the file and starts again.

    `mistakes` holds one line for each thing to mend, `left_out` how many more there are.
    """

    def __init__(self, source: str, mistakes: list[str], left_out: int = 0) -> None:
        self.source = source
        self.mistakes = mistakes
        self.left_out = left_out
        total = len(mistakes) + left_out
        heading = f"{source} has {total} mistake{'' if total == 1 else 's'}:"
        rest = [f"and {left_out} more"] if left_out else []
        super().__init__("\n  ".join([heading, *mistakes, *rest]))

    def __reduce__(self) -> tuple[type["StudyFileError"], tuple[str, list[str], int]]:
        # Exceptions are pickled by their message, which is not what __init__ takes; workers send errors over pipes.
        return type(self), (self.source, self.mistakes, self.left_out)
