"""The network of a study file: what it may leave out, and what each kind allows."""

from dataclasses import replace
from pathlib import Path

import pytest
from making import TINY

from affinity_search.search.launch.workload import trial_flop
from affinity_search.studies import data
from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.files import load
from affinity_search.studies.model.spec import NetworkSpec, StudySpec

FILE = """
name = "mine"
trials = 1
[data]
set = "cifar10"
minority = 10
[network]
{network}
[training]
epochs = 1
batch = 8
learning_rate = 0.1
"""


def study(folder: Path, network: str, overrides: tuple[str, ...] = ()) -> StudySpec:
    (folder / "mine.toml").write_text(FILE.format(network=network))
    return load(str(folder / "mine.toml"), overrides)


def mistakes(folder: Path, network: str, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(StudyFileError) as refused:
        study(folder, network, overrides)
    return refused.value.mistakes


def test_resnet32_has_the_paper_s_sizes_where_none_are_given(tmp_path: Path) -> None:
    spec = study(tmp_path, 'kind = "resnet32"')
    assert (spec.network.widths, spec.network.depth) == ((16, 32, 64), 5)
    stored = spec.to_dict()
    assert (stored["network"]["widths"], stored["network"]["depth"]) == ([16, 32, 64], 5)
    assert StudySpec.from_dict(stored) == spec
    smaller = study(tmp_path, 'kind = "resnet32"\nwidths = [8, 16]').network
    assert (smaller.widths, smaller.depth) == ((8, 16), 5)
    assert study(tmp_path, 'kind = "resnet32"\ndepth = 1').network.widths == (16, 32, 64)
    assert NetworkSpec(kind="resnet32").depth == 5  # type: ignore[call-arg]


def test_plain_and_mlp_need_widths(tmp_path: Path) -> None:
    missing = ["network.widths: missing; allowed: a list of 1 to 6 whole numbers from 1 to 4096"]
    assert mistakes(tmp_path, "") == mistakes(tmp_path, 'kind = "mlp"') == missing
    assert study(tmp_path, "widths = [4]").network.depth == 1


def test_only_an_mlp_may_have_no_widths(tmp_path: Path) -> None:
    assert study(tmp_path, 'kind = "mlp"\nwidths = []').network.widths == ()
    for kind in ("plain", "resnet32"):
        (line,) = mistakes(tmp_path, f'kind = "{kind}"\nwidths = []')
        assert line.startswith("network.widths: [] given; allowed: a list of 1 to 6")


def test_a_shortcut_drops_no_channels(tmp_path: Path) -> None:
    line = "network.widths: [16, 8] given; allowed: widths that do not fall from one to the next for resnet32"
    assert mistakes(tmp_path, 'kind = "resnet32"\nwidths = [16, 8]') == [line]
    assert study(tmp_path, 'kind = "resnet32"\nwidths = [8, 8]').network.widths == (8, 8)
    assert study(tmp_path, "widths = [16, 8]").network.widths == (16, 8)


@pytest.mark.parametrize("kind", ["plain", "resnet32"])
def test_images_are_halved_as_often_as_their_smaller_side_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setitem(data.SOURCES, "cifar10", replace(data.SOURCES["cifar10"], shape=(4, 32, 3)))
    text = f'kind = "{kind}"\nwidths = [1, 1, 1'
    assert study(tmp_path, text + "]").network.widths == (1, 1, 1)
    (line,) = mistakes(tmp_path, text + ", 1]")
    assert line.endswith("allowed: at most 3 widths for cifar10, whose 4 pixels are halved between them")
    assert len(study(tmp_path, 'kind = "mlp"\nwidths = [1, 1, 1, 1]').network.widths) == 4


def test_a_bundled_study_takes_another_network(tmp_path: Path) -> None:
    other = ["network.kind=resnet32", "network.widths=none", "network.depth=none"]
    assert load(TINY, other).network.widths == (16, 32, 64)


@pytest.mark.parametrize(
    ("network", "millions"),
    [
        ('kind = "resnet32"\nwidths = [4096]\ndepth = 3', 755),  # 9 · 4096 · (3 + 5 · 4096)
        ('kind = "mlp"\nwidths = [4096]\ndepth = 32', 533),  # 4096 · (3072 + 31 · 4096)
    ],
)
def test_each_kind_counts_its_own_weights(tmp_path: Path, network: str, millions: int) -> None:
    (line,) = mistakes(tmp_path, network)
    assert line.endswith(f"make {millions} million weights; allowed: up to 500 million"), line
    less = network.replace("32", "29") if "mlp" in network else network.replace("depth = 3", "depth = 2")
    assert study(tmp_path, less).network.widths == (4096,)


def test_the_work_of_a_trial_is_that_of_the_kind(tmp_path: Path) -> None:
    images = 5 * 5000 + 5 * 5 * 10

    def forward(network: str) -> float:
        return trial_flop(study(tmp_path, network)) / images / 3

    # 69 million multiplications for an image, as He et al.'s successors count them for ResNet-32.
    assert forward('kind = "resnet32"') == pytest.approx(2 * 69e6, rel=0.05)
    assert forward('kind = "mlp"\nwidths = [10, 4]\ndepth = 2') == 2 * (3072 * 10 + 10 * 10 + 10 * 4 + 4 * 4)
    assert forward('kind = "mlp"\nwidths = []') == 0


def test_what_is_left_out_is_as_if_it_stood_there(tmp_path: Path) -> None:
    spec = study(tmp_path, 'kind = "resnet32"')
    named = study(tmp_path, 'kind = "resnet32"\nwidths = [16, 32, 64]\ndepth = 5')
    assert named == spec
