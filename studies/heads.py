"""The heads that a study may name: each is a last layer with its loss, and brings parameters of its own to search."""

from __future__ import annotations

from dataclasses import dataclass

Number = int | float


@dataclass(frozen=True, kw_only=True)
class HeadParameter:
    """One parameter of a head, and what its numbers may be."""

    key: str  # as in a study's [space], in storage and in exports
    symbol: str  # as tables and pictures show it
    about: str
    least: Number
    most: Number
    recommended: str  # as it may stand in a study's [space]
    exclusive: bool = False  # whether `least` itself is too little
    whole: bool = False
    sizes_arrays: bool = False  # whether the network needs room for the largest value of the space
    most_stored: Number | None = None  # what a study may have that was stored when there was no such bound

    def accepts(self, value: object) -> bool:
        """Whether a value out of a file is a number within the limits."""
        # bool is a subclass of int, and `true` is no number.
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        most = self.most if self.most_stored is None else self.most_stored
        # NaN and infinity lie within no limits.
        return (self.least < value if self.exclusive else self.least <= value) and value <= most

    def number(self, value: Number) -> Number:
        """An accepted number in the parameter's own type: reals are floats, also where the file has an integer."""
        return int(value) if self.whole else float(value)

    @property
    def numbers(self) -> str:
        """What a single number may be, as a mistake says it."""
        what = "a whole number" if self.whole else "a number"
        least, most = _shown(self.least), _shown(self.most)
        return f"{what} above {least} and up to {most}" if self.exclusive else f"{what} from {least} to {most}"

    @property
    def allowed(self) -> str:
        """Everything that may stand for the parameter."""
        return f"{self.numbers}, a list of such, or {{ low, high }} with two such"


def _shown(value: Number) -> str:
    return repr(value).removesuffix(".0")


@dataclass(frozen=True, kw_only=True)
class HeadDefinition:
    """A head as all know it that train nothing; `search/training/heads/NAME.py` makes it."""

    name: str  # as a study's `network.head`
    about: str
    loss: str  # what pictures call the training loss
    parameters: tuple[HeadParameter, ...] = ()
    together: tuple[tuple[str, str], ...] = ()  # pairs of parameters that are shown in one figure
    legend: str = ""  # explains the symbols that explain themselves least
    diagnostics: bool = False  # whether it tells after each epoch what its loss does

    @property
    def keys(self) -> str:
        """Its parameters in words: `a, b and c`."""
        *others, last = [parameter.key for parameter in self.parameters]
        return f"{', '.join(others)} and {last}" if others else last

    def symbol(self, key: str) -> str:
        """How the parameter is shown; the key itself for one that an earlier version had."""
        return next((parameter.symbol for parameter in self.parameters if parameter.key == key), key)


AFFINITY = HeadDefinition(
    name="affinity",
    about="the affinity loss of Hayat et al. 2019: classes are m centres each, with a margin between them",
    loss="eq. (7)",
    parameters=(
        HeadParameter(
            key="lambda",
            symbol="λ",
            about="margin between classes, in affinity units",
            least=0,
            exclusive=True,
            most=1,
            recommended="{ low = 0.01, high = 1, log = true }",
        ),
        HeadParameter(
            key="sigma",
            symbol="σ",
            about="width of the Gaussian affinity",
            least=0,
            exclusive=True,
            most=1_000_000,
            # The largest float: a larger integer has no float beside it.
            most_stored=1.7976931348623157e308,
            recommended="{ low = 1, high = 1000, log = true }",
        ),
        HeadParameter(
            key="n_centers",
            symbol="m",
            about="centres per class",
            least=1,
            most=1000,
            recommended="{ low = 1, high = 30 }",
            whole=True,
            sizes_arrays=True,
        ),
    ),
    together=(("lambda", "sigma"),),
    legend="m: centres per class",
    diagnostics=True,
)
SOFTMAX = HeadDefinition(name="softmax", about="the baseline: softmax with cross-entropy", loss="cross-entropy")

HEADS = {head.name: head for head in (AFFINITY, SOFTMAX)}
DEFAULT = AFFINITY.name
