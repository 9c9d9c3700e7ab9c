"""`[stop]` and `pruner.audit` in a study file."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from making import TINY

from affinity_search.studies.comparisons import load_comparison
from affinity_search.studies.errors import StudyFileError
from affinity_search.studies.files import load
from affinity_search.studies.model.spec import PrunerSpec, StopSpec, StudySpec, fingerprint
from affinity_search.studies.model.tables.sections import AUDIT

PRUNED = ("pruner.kind=median",)


def mistakes(*overrides: str) -> list[str]:
    with pytest.raises(StudyFileError) as raised:
        load(TINY, overrides)
    return raised.value.mistakes


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([*PRUNED, "pruner.audit=1"], "pruner.audit: 1 given; allowed: a number from 0 and below 1"),
        ([*PRUNED, "pruner.audit=-0.1"], "pruner.audit: -0.1 given; allowed: a number from 0 and below 1"),
        ([*PRUNED, "pruner.audit=true"], "pruner.audit: true given; allowed: a number from 0 and below 1"),
        (["pruner.audit=0.1"], "pruner.audit: not allowed: kind none stops no trial, so there is nothing to audit"),
        (["stop.min_gain=2"], "stop.min_gain: 2 given; allowed: a number from 0 and below 1; 0.002 is 0.2 points"),
        (["stop.patience=0"], "stop.patience: 0 given; allowed: a whole number from 1 to 100000"),
        (["stop.patience=100001"], "stop.patience: 100001 given; allowed: a whole number from 1 to 100000"),
        (["stop.patence=3"], "stop.patence: unknown key; did you mean stop.patience?"),
        (["stop=true"], "stop: true given; allowed: a table [stop]"),
    ],
)
def test_mistakes(overrides: Sequence[str], said: str) -> None:
    assert mistakes(*overrides) == [said]


def test_the_audit_is_ours_and_no_option_of_optunas() -> None:
    spec = load(TINY, [*PRUNED, "pruner.audit=0.2", "pruner.n_warmup_steps=1"])
    assert (spec.pruner.audit, spec.pruner.options) == (0.2, {"n_warmup_steps": 1})
    assert StudySpec.from_dict(spec.to_dict()) == spec


def test_the_default_is_not_written_and_a_stored_study_without_it_gets_it() -> None:
    spec = load(TINY, PRUNED)
    assert spec.pruner.audit == AUDIT
    assert spec.to_dict()["pruner"] == {"kind": "median"}
    assert load(TINY, [*PRUNED, "pruner.audit=0"]).to_dict()["pruner"] == {"kind": "median", "audit": 0.0}


def test_without_a_pruner_there_is_no_audit() -> None:
    assert PrunerSpec(kind="none").audit is None
    assert load(TINY, ["pruner.audit=0"]).to_dict()["pruner"] == {"kind": "none"}


def test_stop_is_off_unless_it_is_there() -> None:
    assert load(TINY).stop is None
    assert "stop" not in load(TINY).to_dict()
    assert load(TINY, ["stop={}"]).stop == StopSpec(min_gain=0.002, patience=20)
    assert load(TINY, ["stop.patience=5", "stop=none"]).stop is None


def test_neither_changes_what_a_score_means() -> None:
    changed = load(TINY, [*PRUNED, "pruner.audit=0.5", "stop.patience=5"])
    assert fingerprint(changed, "float32") == fingerprint(load(TINY), "float32")


class TestInAComparison:
    def refused(self, *overrides: str) -> list[str]:
        with pytest.raises(StudyFileError) as raised:
            load_comparison("digits-demo", {}, overrides)
        return raised.value.mistakes

    def test_in_the_base(self) -> None:
        (line,) = self.refused("stop.patience=5")
        assert line.startswith("stop: not allowed in a comparison: each contestant's search gets the same number of")
        assert load_comparison("digits-demo", {}, ["stop.patience=5", "stop=none"]) == load_comparison(
            "digits-demo", {}
        )

    def test_in_a_contestant(self, tmp_path: Path) -> None:
        file = tmp_path / "two.toml"
        head = "study = 'digits'\n[contestants.softmax]\n[contestants.affinity]\nset = { stop.patience = 3 }\n"
        file.write_text(head)
        with pytest.raises(StudyFileError, match=r"contestants\.affinity: stop: not allowed in a comparison"):
            load_comparison(str(file), {})

    def test_the_demo_audits_nothing_as_it_prunes_nothing(self) -> None:
        assert {entry.spec.pruner.audit for entry in load_comparison("digits-demo", {}).entries} == {None}
