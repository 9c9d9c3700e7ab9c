"""`report`: the same facts as a page, as Markdown and as JSON, whatever names and reasons hold."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from comparing import EIGHT, NAMES, dead, found, level, run
from conftest import Cli
from making import TINY, train

from affinity_search.search.experiments.document import ComparisonModel, IntervalModel, make_schema, schema_text
from affinity_search.search.experiments.report.drawing import (
    Axis,
    Drawing,
    padded_log,
    printable,
    shortened,
    text_width,
)
from affinity_search.search.experiments.report.looks import WIDTH
from affinity_search.search.experiments.report.markdown import escaped, markdown
from affinity_search.search.experiments.report.page import page
from affinity_search.search.experiments.report.words import missing, points, shown_verdict
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.results.export import ExportedPruning
from affinity_search.storage.stored.comparisons import StoredComparison, create_or_continue_comparison
from affinity_search.studies.comparisons import load_comparison

NASTY = "loss <script>alert('x')</script> & \"q\" | *b* `c`\nsecond line \x00\u202e{{ 7 * 7 }}"
THREE = {name: EIGHT[name] for name in ("affinity", "logit_adjusted", "softmax")}


def tree_of(text: str) -> ElementTree.Element:
    """The page is well-formed XML too, so that nothing in it is left open."""
    return ElementTree.fromstring(text)


def words_of(text: str) -> str:
    """What a reader sees, without the style sheet."""
    tree = tree_of(text)
    for head in tree.findall("head"):
        tree.remove(head)
    return " ".join(" ".join(tree.itertext()).split())


def rows_of(text: str, title: str) -> list[list[str]]:
    """The cells of the table with that title."""
    table = next(each for each in tree_of(text).iter("table") if each.get("aria-label") == title)
    return [[" ".join("".join(cell.itertext()).split()) for cell in row] for row in table.iter("tr")][1:]


@pytest.fixture(scope="module")
def eight() -> ComparisonModel:
    return found([level(EIGHT, extra=[dead("broken", NASTY)], correction=0.25)])


@pytest.fixture(scope="module")
def levels() -> ComparisonModel:
    lower = {name: mean - 0.1 for name, mean in THREE.items()}
    made = [
        level(THREE, text="minority 500", key={"data.minority": 500}),
        level(lower, text="minority 10", key={"data.minority": 10}, sizes=(50, 5000) * 5, seed=1),
    ]
    return found(made)


class TestPage:
    def test_it_is_whole_and_asks_for_nothing(self, eight: ComparisonModel, levels: ComparisonModel) -> None:
        for text in (page(eight), page(levels)):
            tree = tree_of(text)
            ids = [each.get("id") for each in tree.iter() if each.get("id")]
            assert len(ids) == len(set(ids))
            named = {name for each in tree.iter() for name in (each.get("aria-labelledby") or "").split()}
            assert named <= set(ids)
            assert not list(tree.iter("script")) + list(tree.iter("img")) + list(tree.iter("link"))
            links = [value for each in tree.iter() for key, value in each.items() if key in ("href", "src", "data")]
            assert all(link.startswith("#") and link[1:] in ids for link in links)
            assert not re.search(r"https?://|@import|url\(", text)
            assert not [key for each in tree.iter() for key, _ in each.items() if key.startswith("on")]

    def test_the_verdict_stands_first(self, eight: ComparisonModel) -> None:
        words = words_of(page(eight))
        order = ["eight-losses", "Better than softmax:", eight.levels[0].verdict, "The result", "Other metrics"]
        order += ["Differences to softmax", "Recall by class size", "Best score so far", "Where in λ and σ"]
        order += ["The chosen settings", "Medians over the draws", "What failed", "What was run", "Repeat it"]
        places = [words.index(each) for each in order]
        assert places == sorted(places)
        assert "No score: broken." in words

    def test_the_table_has_the_numbers(self, eight: ComparisonModel) -> None:
        rows = {row[0]: row for row in rows_of(page(eight), "The result")}
        assert list(rows) == [one.contestant for one in eight.levels[0].contestants]
        joint = next(one for one in eight.levels[0].contestants if one.contestant == "joint")
        assert joint.interval is not None
        assert joint.verdict is not None
        low, high = (
            points(joint.verdict.difference.low, signed=True),
            points(joint.verdict.difference.high, signed=True),
        )
        assert rows["joint"][1].startswith(points(joint.interval.mean))
        assert rows["joint"][2] == f"{points(joint.verdict.difference.mean, signed=True)}{low} to {high}"
        assert rows["joint"][3] == "▲ better"
        assert rows["joint"][4] == points(joint.verdict.smallest)
        assert "λ" in rows["joint"][5]
        assert rows["softmax"][2:5] == ["", "baseline", ""]
        assert rows["broken"][3] == "every trial failed"

    def test_names_and_reasons_are_text(self, eight: ComparisonModel) -> None:
        evil = eight.model_copy(update={"comparison": "<b>|</b>", "devices": [NASTY], "classes": ["<i>", *NAMES[1:]]})
        text = page(evil)
        assert "<script" not in text
        assert "<b>|" not in text
        assert "<i>" not in text
        assert "\x00" not in text
        assert "\u202e" not in text
        words = words_of(text)
        assert "loss <script>alert('x')</script> & \"q\" | *b*" in words
        assert "{{ 7 * 7 }}" in words
        assert tree_of(text).findtext("head/title") == "<b>|</b> – comparison"

    def test_everything_has_a_heading_and_every_figure_words(self, eight: ComparisonModel) -> None:
        tree = tree_of(page(eight))
        figures = [each for each in tree.iter("svg") if each.get("role") == "img"]
        assert len(figures) == 5, "two maps"
        assert all((each.findtext("title") or "") and (each.findtext("desc") or "") for each in figures)
        for table in tree.iter("table"):
            assert all(cell.get("scope") == "col" for row in table.findall("thead/tr") for cell in row)
            assert all(row[0].tag == "th" and row[0].get("scope") == "row" for row in table.findall("tbody/tr"))
        for figure in tree.iter("figure"):
            assert figure.findtext("figcaption")

    def test_it_says_how_it_came_about(self, eight: ComparisonModel) -> None:
        words = words_of(page(eight))
        for each in ("c = 0.25", "Student's t", "Holm", "ada@lab (80 final runs)", "H100", "python 3.11.7 and 3.12.1"):
            assert each in words
        assert f"1: {eight.levels[0].contestants[0].runs[0].seed}" in words
        assert "data.validation = 0.2" in words
        assert eight.command in words
        assert '"name": "eight-losses"' in words, "the definition"

    def test_many_classes_are_put_together(self) -> None:
        sizes = [int(500 * 0.955**at) + 5 for at in range(100)]
        many = found([level(THREE, sizes=sizes)], classes=[f"class {at}" for at in range(100)])
        words = words_of(page(many))
        assert "10 classes" in words
        assert "505–335" in words
        assert len(rows_of(page(many), "Recall of each class")) == 100, "the numbers are of each class"

    def test_many_contestants_with_long_names(self) -> None:
        names = {f"contestant-with-a-very-long-name-{at:07}": 0.5 + at / 100 for at in range(16)} | {"softmax": 0.5}
        text = page(found([level(names)]))
        tree_of(text)
        keys = {
            "".join(ElementTree.tostring(each[0], "unicode").split())
            for each in tree_of(text).iter("li")
            if len(each) == 2
        }
        assert len(keys) >= len(names), "each looks different"

    @pytest.mark.parametrize("draws", [1, 2])
    def test_hardly_any_draws(self, draws: int) -> None:
        words = words_of(page(found([level(THREE, draws=draws)])))
        assert "No verdict, too few draws: affinity" in words
        assert "nan" not in words.lower().replace("loss is nan", "")

    def test_no_scores_at_all(self) -> None:
        text = page(found([level({}, extra=[dead("softmax", "x"), dead("affinity", "y")])], draws=5))
        assert "No score: softmax, affinity." in words_of(text)
        assert not list(tree_of(text).iter("figure"))


class TestUnfinished:
    @pytest.fixture
    def unfinished(self) -> ComparisonModel:
        return found([level(THREE | {"focal": 0.9}, missing={"affinity": 3, "focal": 10})], finished=False)

    def test_it_says_what_is_missing_and_holds_the_verdict_back(self, unfinished: ComparisonModel) -> None:
        words = words_of(page(unfinished))
        assert "Not finished." in words
        assert "affinity: 3 of 10 final runs (draws 8, 9 and 10)" in words
        assert "focal: 10 of 10 final runs" in words
        assert "No verdict yet: affinity (+" in words
        assert "affinity is better" not in words
        rows = {row[0]: row for row in rows_of(page(unfinished), "The result")}
        assert rows["affinity"][2].startswith("+"), "the number is there"
        assert rows["affinity"][3:5] == ["not yet: 7 of 10 draws", ""]
        assert words.index("Not finished.") < words.index("No verdict yet")

    def test_without_the_whole_baseline_there_is_none(self) -> None:
        late = found([level(THREE, missing={"softmax": 1})], finished=False)
        words = words_of(page(late))
        assert "the baseline softmax has not all of its 10 draws" in words
        assert {shown_verdict(late, late.levels[0], one).kind for one in late.levels[0].contestants} == {
            "open",
            "baseline",
        }

    def test_a_search_that_goes_on(self) -> None:
        made = level(THREE)
        first = made.contestants[0]
        going = first.model_copy(
            update={"runs": [], "search": first.search.model_copy(update={"complete": 2, "pruned": 1})}
        )
        late = found(
            [made.model_copy(update={"contestants": [going, *made.contestants[1:]]})], draws=10, finished=False
        )
        assert missing(late) == [f"{first.contestant}: 17 of 20 trials of the search, and the 10 draws after it"]

    def test_a_failed_run_is_not_missing(self) -> None:
        made = level(THREE)
        first = made.contestants[0]
        failed = run(10, None, state="failed", reason="out of memory", opened_by=None)
        once = first.model_copy(update={"runs": [*first.runs[:-1], failed]})
        told = found([made.model_copy(update={"contestants": [once, *made.contestants[1:]]})])
        assert missing(told) == []
        assert [first.contestant, "final run, draw 10", "out of memory"] in rows_of(page(told), "What failed")

    def test_a_finished_one_misses_nothing(self, eight: ComparisonModel) -> None:
        assert missing(eight) == []
        assert "Not finished" not in page(eight)


class TestLevels:
    def test_an_overview_and_a_section_for_each(self, levels: ComparisonModel) -> None:
        text = page(levels)
        rows = {row[0]: row for row in rows_of(text, "The verdicts by level")}
        assert set(rows) == {"affinity", "logit_adjusted"}
        assert all("better" in cell for cell in rows["affinity"][1:])
        tree = tree_of(text)
        assert [each.text for each in tree.iter("h2")][:3] == ["The verdicts by level", "minority 500", "minority 10"]
        assert [each.get("href") for each in tree.iter("a")] == ["#level-1", "#level-2", "#run"]
        words = words_of(text)
        assert all(each.verdict in words for each in levels.levels)
        assert "Training images by class, minority 10 50, 5000, 50" in words

    def test_one_level_needs_none(self, eight: ComparisonModel) -> None:
        assert "The verdicts by level" not in page(eight)


def test_the_article_s_protocol_is_called_what_it_is() -> None:
    article = found([level(THREE)], protocol="article")
    for text in (words_of(page(article)), markdown(article)):
        assert "the test images chose the best epoch of every run, so all scores here are too high" in text
        assert "the median over the draws" in text
        assert "judged on fresh draws that no search has seen" not in " ".join(text.split())


def test_published_figures_stand_beside_our_medians() -> None:
    made = level(THREE)
    known = made.contestants[0].model_copy(update={"published": 0.9928})
    told = page(found([made.model_copy(update={"contestants": [known, *made.contestants[1:]]})]))
    rows = {row[0]: row for row in rows_of(told, "The result")}
    assert rows[known.contestant][2:4] == [points(known.median), "99.3"]
    assert rows["softmax"][3] == "–"


class TestMarkdown:
    def test_tables_stay_tables(self, eight: ComparisonModel) -> None:
        evil = eight.model_copy(update={"comparison": "a|b <script>", "devices": [NASTY]})
        text = markdown(evil)
        assert "<script>" not in text.replace(r"\<script\>", "")
        for line in text.splitlines():
            if line.startswith("|"):
                assert line.endswith("|")
        for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block

    def test_it_tells_what_the_page_tells(self, eight: ComparisonModel, levels: ComparisonModel) -> None:
        text = markdown(eight)
        assert text.startswith("# eight-losses\n")
        assert "| joint | " in text
        assert "**better**" in text
        assert "## Medians over the draws" in text
        assert eight.command in text
        assert "## minority 10\n" in markdown(levels)
        assert "### The result\n" in markdown(levels)

    def test_any_text_is_one_line_of_plain_text(self) -> None:
        assert escaped("a\n|b_c*<d>\x07") == r"a \|b\_c\*\<d\>�"
        assert escaped("- no list") == "- no list"


def test_numbers_are_written_for_people() -> None:
    assert [points(each, signed=True) for each in (0.0512, -0.0512, -0.0004, None)] == ["+5.1", "−5.1", "0.0", "–"]
    assert points(0.5) == "50.0"


class TestDrawing:
    def test_text_is_escaped_and_fits(self) -> None:
        drawing = Drawing("a", 100, 100, "<t>", "&")
        drawing.text(1, 2, "<b>\x00")
        assert "&lt;b&gt;�" in drawing.markup()
        assert text_width(shortened("x" * 100, 120)) <= 120
        assert shortened("short", 120) == "short"
        assert printable("a\tb\u00a0c") == "a\tb\u00a0c"

    def test_axes_have_ticks_inside_their_ends(self) -> None:
        for axis in (
            Axis(0.3, 87.0, 0, 100),
            Axis(*padded_log([0.01, 0.5]), 0, 100, log=True),
            Axis(-3.0, 9.0, 10, 90),
        ):
            assert len(axis.ticks()) >= 2
            assert all(axis.low <= tick <= axis.high for tick in axis.ticks())

    def test_one_value_has_an_axis_too(self) -> None:
        axis = Axis(*padded_log([0.75]), 0, 100, log=True)
        assert axis(0.75) == pytest.approx(50)
        assert axis.ticks()

    def test_an_interval_beyond_all_scores_is_cut(self) -> None:
        wide = level(THREE, draws=2)
        endless = IntervalModel(mean=0.05, low=-3.0, high=3.1, n=2, level=0.95)
        changed = []
        for one in wide.contestants:
            verdict = one.verdict and one.verdict.model_copy(update={"difference": endless})
            changed.append(one.model_copy(update={"verdict": verdict}))
        text = page(found([wide.model_copy(update={"contestants": changed})]))
        xs = [float(each.get("x2", 0)) for each in tree_of(text).iter("line")]
        assert max(xs) <= WIDTH


def test_the_schema_is_that_of_the_models(eight: ComparisonModel) -> None:
    assert schema_text() == make_schema()
    jsonschema.validate(json.loads(eight.model_dump_json()), json.loads(schema_text()))


# The command


@pytest.fixture
def compared(sqlite: Backend, fake_training: None) -> StoredComparison:
    """A small comparison, searched and judged."""
    spec = load_comparison(TINY, {"heads": ["affinity", "softmax"], "trials": 3, "draws": 5, "name": "small"})
    made, _ = create_or_continue_comparison(sqlite, spec)
    for part in made.parts():
        train(part.search.settle_precision("float32"))
    made.advance()
    return made


def judge(comparison: StoredComparison, most: int | None = None) -> None:
    for part in comparison.refreshed().parts():
        assert part.final is not None
        train(part.final.settle_precision("float32"), most)


class TestCommand:
    def test_a_page(self, compared: StoredComparison, sqlite_url: str, cli: Cli, tmp_path: Path) -> None:
        judge(compared)
        file = tmp_path / "report.html"
        ran = cli("report", "small", "-o", str(file), "--storage", sqlite_url)
        assert (ran.out, ran.err) == ("", f"wrote {file}\n")
        assert "small" in words_of(file.read_text())
        assert list(tmp_path.glob(".report*")) == []
        again = tmp_path / "again.html"
        cli("compare", "small", "-o", str(again), "--devices", "cpu", "--storage", sqlite_url)
        assert again.read_text() == file.read_text()

    def test_the_other_forms(self, compared: StoredComparison, sqlite_url: str, cli: Cli, tmp_path: Path) -> None:
        judge(compared)
        at = ("small", "--storage", sqlite_url)
        table = cli("report", *at).out
        assert "affinity" in table
        assert "<" not in table
        text = cli("report", *at, "--markdown").out
        assert text.startswith("# small\n")
        told: dict[str, Any] = json.loads(cli("report", *at, "--json").out)
        jsonschema.validate(told, json.loads(schema_text()))
        cli("report", *at, "--markdown", "-o", str(tmp_path / "report.md"))
        assert (tmp_path / "report.md").read_text() == text
        assert cli("report", "--schema").out == schema_text()

    def test_an_unfinished_one(self, compared: StoredComparison, sqlite_url: str, cli: Cli) -> None:
        judge(compared, most=2)
        told = cli("report", "small", "--markdown", "--storage", sqlite_url).out
        assert "**Not finished.**" in told
        assert "softmax: 3 of 5 final runs (draws 3, 4 and 5)" in told

    def test_an_unknown_name(self, compared: StoredComparison, sqlite_url: str, cli: Cli) -> None:
        assert "it holds small" in cli("report", "smal", "--storage", sqlite_url, fails=True).refused()

    def test_one_form_at_a_time(self, cli: Cli) -> None:
        assert cli("report", "small", "--json", "--markdown", fails=True).code == 2
        assert cli("report", fails=True).code == 2


def test_what_pruning_saved_and_how_often_it_was_wrong(eight: ComparisonModel) -> None:
    """In a comparison without a pruner there is no such column."""
    (one,) = eight.levels
    assert "Saved by pruning" not in markdown(eight)
    figures = {"share": 0.05, "stopped": 9, "epochs_saved": 63, "audited": 4, "epochs_cost": 21, "among_best": 1}
    told = ExportedPruning.model_validate(figures | {"best_tenth": 2, "scored": 20, "interval": (0.006, 0.806)})
    first, second, *rest = one.contestants
    pruned = [
        first.model_copy(update={"search": first.search.model_copy(update={"pruning": told})}),
        second.model_copy(
            update={"search": second.search.model_copy(update={"pruning": told.model_copy(update={"audited": 0})})}
        ),
    ]
    level = one.model_copy(update={"contestants": [*pruned, *rest]})
    text = markdown(eight.model_copy(update={"levels": [level]}))
    assert "| Saved by pruning |" in text
    assert "| 63 epochs (1 of 4 audited among the best tenth) |" in text
    assert "| 63 epochs (none audited) |" in text
    assert "the pruner was wrong" in text
