"""The heads that a study may name: each is a last layer with its loss, and brings parameters of its own to search.

Beside them every study may search the optimiser's two parameters, `SHARED`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from affinity_search.studies.errors import enumeration

Number = int | float


@dataclass(frozen=True, kw_only=True)
class HeadParameter:
    """One parameter of a trial, and what its numbers may be."""

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
    default: Number | None = None  # what it is where a [space] leaves it out; None: no space may leave it out
    asked: bool = False  # whether only a [space] that names it searches it: the recommended one does not

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
    """A head as all know it that train nothing; `search/training/heads/` makes it."""

    name: str  # as a study's `network.head`
    about: str
    loss: str  # what pictures call the training loss
    parameters: tuple[HeadParameter, ...] = ()
    together: tuple[tuple[str, str], ...] = ()  # pairs of parameters that are shown in one figure
    legend: str = ""  # explains the symbols that explain themselves least
    diagnostics: bool = False  # whether it tells after each epoch what its loss does
    logits: bool = False  # whether its scores are logits: then there are probabilities, and they can be adjusted

    @property
    def searchable(self) -> tuple[HeadParameter, ...]:
        """All that a [space] may hold: its own parameters first, then those of the optimiser."""
        return (*self.parameters, *SHARED)

    @property
    def required(self) -> tuple[HeadParameter, ...]:
        """What no [space] may leave out."""
        return tuple(parameter for parameter in self.parameters if parameter.default is None)

    @property
    def recommended(self) -> dict[str, str]:
        """The space of a study that names none: what stands for each key in the study file."""
        return {parameter.key: parameter.recommended for parameter in self.searchable if not parameter.asked}

    @property
    def keys(self) -> str:
        """Its parameters in words: `a, b and c`."""
        return enumeration([parameter.key for parameter in self.parameters if not parameter.asked])

    def symbol(self, key: str) -> str:
        """How the parameter is shown; the key itself for one that an earlier version had."""
        return next((parameter.symbol for parameter in self.searchable if parameter.key == key), key)


SHARED = (
    HeadParameter(
        key="learning_rate",
        symbol="rate",
        about="the optimiser's learning rate before it is lowered",
        least=0,
        exclusive=True,
        most=10,
        recommended="{ low = 1e-4, high = 1e-2, log = true }",
        default=1e-3,
    ),
    HeadParameter(
        key="weight_decay",
        symbol="decay",
        about="decoupled weight decay, as in AdamW: a step shrinks each kernel by learning rate · weight decay",
        least=0,
        most=1,
        recommended="{ low = 1e-6, high = 1e-2, log = true }",
        default=0.0,
        asked=True,
    ),
)
CLASS_WEIGHT_POWER = HeadParameter(
    key="class_weight_power",
    symbol="p",
    about="a class of n images weighs n^(−p): 0 weighs all images alike, 1 all classes alike",
    least=0,
    most=4,
    recommended="{ low = 0, high = 1.5 }",
)
LAMBDA = HeadParameter(
    key="lambda",
    symbol="λ",
    about="margin between classes, in affinity units",
    least=0,
    exclusive=True,
    most=1,
    recommended="{ low = 0.003, high = 1, log = true }",
)
SIGMA = HeadParameter(
    key="sigma",
    symbol="σ",
    about="width of the Gaussian affinity",
    least=0,
    exclusive=True,
    most=1_000_000,
    # The largest float: a larger integer has no float beside it.
    most_stored=1.7976931348623157e308,
    recommended="{ low = 1, high = 1000, log = true }",
)
N_CENTERS = HeadParameter(
    key="n_centers",
    symbol="m",
    about="centres per class",
    least=1,
    most=1000,
    recommended="{ low = 1, high = 30, log = true }",
    whole=True,
    sizes_arrays=True,
)
MARGIN_POWER = HeadParameter(
    key="margin_power",
    symbol="q",
    about="the margin of a class of n images is λ (n_min / n)^q: 0 is the article's loss, with one margin for all",
    least=0,
    most=1,
    recommended="{ low = 0, high = 0.5 }",
    default=0.0,
    asked=True,
)
AFFINITY = HeadDefinition(
    name="affinity",
    about="the affinity loss of Hayat et al. 2019: classes are m centres each, with a margin between them",
    loss="eq. (7)",
    parameters=(LAMBDA, SIGMA, N_CENTERS, MARGIN_POWER),
    together=(("lambda", "sigma"),),
    legend="m: centres per class",
    diagnostics=True,
)
JOINT = HeadDefinition(
    name="joint",
    about="the affinity loss plus a softmax cross-entropy on the same features, predicted by the affinity",
    loss="eq. (7) + share · cross-entropy",
    parameters=(
        LAMBDA,
        SIGMA,
        N_CENTERS,
        HeadParameter(
            key="softmax_share",
            symbol="share",
            about="weight of the softmax cross-entropy beside the affinity loss",
            least=0,
            most=1000,
            recommended="{ low = 0.01, high = 10, log = true }",
        ),
        MARGIN_POWER,
    ),
    together=(("lambda", "sigma"),),
    legend="m: centres per class",
    diagnostics=True,
)
SOFTMAX = HeadDefinition(
    name="softmax", about="the baseline: softmax with cross-entropy", loss="cross-entropy", logits=True
)
WEIGHTED = HeadDefinition(
    name="weighted",
    about="softmax with a cross-entropy that weighs each image by its class's number of images",
    loss="weighted cross-entropy",
    parameters=(CLASS_WEIGHT_POWER,),
    logits=True,
)
CLASS_BALANCED = HeadDefinition(
    name="class_balanced",
    about="the class-balanced loss of Cui et al. 2019: cross-entropy weighted by each class's effective number",
    loss="class-balanced cross-entropy",
    parameters=(
        HeadParameter(
            key="one_minus_beta",
            symbol="1 − β",
            about="1 − β of the effective number (1 − β^n) / (1 − β): large weighs images alike, small classes alike",
            least=0,
            exclusive=True,
            most=1,
            recommended="{ low = 1e-4, high = 1e-1, log = true }",
        ),
    ),
    logits=True,
)
FOCAL = HeadDefinition(
    name="focal",
    about="the focal loss of Lin et al. 2017: images that are recognised well count less",
    loss="focal loss",
    parameters=(
        HeadParameter(
            key="gamma",
            symbol="γ",
            about="how much less: an image of probability q counts (1 − q)^γ; 0 is cross-entropy",
            least=0,
            most=20,
            recommended="{ low = 0, high = 5 }",
        ),
        replace(CLASS_WEIGHT_POWER, default=0.0),
    ),
    together=(("gamma", "class_weight_power"),),
    logits=True,
)
LOGIT_ADJUSTED = HeadDefinition(
    name="logit_adjusted",
    about="logit adjustment of Menon et al. 2021: training adds τ · log of each class's share to its logit",
    loss="logit-adjusted cross-entropy",
    parameters=(
        HeadParameter(
            key="tau",
            symbol="τ",
            about="strength of the adjustment: 0 is softmax, 1 is balanced softmax",
            least=0,
            most=10,
            recommended="{ low = 0, high = 2 }",
        ),
    ),
    logits=True,
)
LDAM = HeadDefinition(
    name="ldam",
    about="LDAM of Cao et al. 2019: a cosine softmax with a larger margin for smaller classes",
    loss="LDAM loss",
    parameters=(
        HeadParameter(
            key="max_margin",
            symbol="Δ",
            about="margin of the smallest class, in cosine units; a class of n images has (n_min / n)^(1/4) of it",
            least=0,
            most=2,
            recommended="{ low = 0.1, high = 1 }",
        ),
        HeadParameter(
            key="scale",
            symbol="s",
            about="what the cosines are multiplied by before the softmax",
            least=0,
            exclusive=True,
            most=1000,
            recommended="{ low = 5, high = 60, log = true }",
        ),
    ),
    together=(("max_margin", "scale"),),
    logits=True,
)

_HEADS = (AFFINITY, JOINT, SOFTMAX, WEIGHTED, CLASS_BALANCED, FOCAL, LOGIT_ADJUSTED, LDAM)
HEADS = {head.name: head for head in _HEADS}
DEFAULT = AFFINITY.name
