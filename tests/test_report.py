import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from math import log1p

import pytest
import torch

from measured import folder_of, make_zoo, measured_results
from paramgen.core.samples import read_samples
from paramgen.evaluation.registry import with_values
from paramgen.evaluation.thresholds import THRESHOLDS
from paramgen.report.figures import FIGURES, pictures_of
from paramgen.report.page import page
from paramgen.report.picture import Band, Dots, DottedLine, Line, PanelAxis
from paramgen.report.png import draw_picture, save_plots
from paramgen.report.verdicts import score_of_noise, verdict
from paramgen.report.weights import weight_pictures


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    return measured_results(tmp_path_factory.mktemp("report"))


class Parsed(HTMLParser):
    """Tags with their attributes, and whether every tag is closed in order."""

    VOID = frozenset({"meta", "link", "br", "wbr", "input", "circle", "line", "polyline", "rect"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_page_is_whole_and_asks_nothing_of_the_network(results):
    html = page(results)
    parsed = Parsed(html)
    assert parsed.open == []
    assert not [a for _, attrs in parsed.tags for a in ("src", "srcset", "action") if a in attrs]
    assert [link["href"] for link in parsed.all("link")] == ["data:,"]
    ours = re.sub(
        r"<script>.*?</script>", "", html, flags=re.S
    )  # the libraries hold addresses of namespaces and of themselves
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", ours)
    assert "default-src 'none'" in parsed.all("meta")[2]["content"]  # nor may the scripts


def test_every_row_and_column_stands_in_the_table(results):
    html = page(results)
    parsed = Parsed(html)
    table = html[html.index("<tbody>") : html.index("</tbody>")]
    assert table.count("<tr") == len(results["rows"])
    shown = [m for m in with_values(results["rows"]) if m.report != "absent"]
    assert table.count("<td") == len(shown) * len(results["rows"])
    for row in results["rows"]:
        assert f'data-value="{row["values"]["mean"]}"' in table
    asked = {b["popovertarget"] for b in parsed.all("button") if "popovertarget" in b}
    explained = {d["id"] for d in parsed.all("div") if "popover" in d}
    assert asked == explained
    assert {f"def-{c.key}" for c in shown} <= explained


def test_names_cannot_put_markup_into_the_page(results):
    html = page(results)
    assert "mean&lt;b&gt;" in html
    assert "mean<b>" not in html


def test_the_page_holds_results_json_itself(results):
    text = re.search(r'<script type="application/json" class="results">(.*?)</script>', page(results), re.S).group(1)
    assert json.loads(text) == results


def test_every_figure_has_a_place_and_a_definition_where_there_is_data_for_it(results):
    parsed = Parsed(page(results))
    drawn = [attrs["data-figure"] for attrs in parsed.all("div") if "data-figure" in attrs]
    assert drawn == ["strips", "plane", "novelty", "alike", "map", "trajectories", "weights", "training"]
    asked = {b["popovertarget"] for b in parsed.all("button") if "popovertarget" in b}
    assert {f"def-{key}" for key in drawn} <= asked
    chips = [b["data-row"] for b in parsed.all("button") if "data-row" in b]
    assert chips == [row["name"] for row in results["rows"]]


def test_the_vendored_libraries_are_what_their_readme_says():
    vendor = files("paramgen.report") / "templates" / "vendor"
    readme = (vendor / "README.md").read_text()
    for name in ("d3.min.js", "plot.umd.min.js"):
        digest = hashlib.sha256((vendor / name).read_bytes()).hexdigest()
        assert re.search(rf"`{re.escape(name)}`.*{digest}", readme)
    for name in ("d3", "plot"):
        assert "Permission to use, copy, modify" in (vendor / f"LICENSE.{name}").read_text()


def test_verdict_says_what_storing_the_generator_takes_in_networks(results):
    row = next(row for row in results["rows"] if row["name"] == "copies")
    assert "Stored, it takes" not in " ".join(verdict(row, results))  # samples that do not say
    network = 4 * results["params"]
    generators = {"copies": {"generator_bytes": 41 * network + 1}}
    said = verdict(row, {**results, "generators": generators})[-1]
    assert f"as much as 42 networks of {network / 1e3:.3g} kB; it learned from {results['networks']}" in said


def test_verdict_says_collapse_copies_and_better_baselines(results):
    by_name = {r["name"]: r for r in results["rows"]}
    collapsed, copies = (" ".join(verdict(by_name[name], results)) for name in ("mean<b>", "copies"))
    assert "the generator has collapsed" in collapsed
    assert "cannot be told apart from it in accuracy, and none of them is nearer" in collapsed
    assert "the generator has no advantage over simpler methods" in collapsed
    assert "copies with small changes" in copies
    assert f"{100 * by_name['copies']['values']['mean']:.1f} %" in copies


def test_verdict_tells_networks_without_a_mean_from_a_zoo_without_one(results):
    holes = json.loads(json.dumps(results))
    rows = {row["name"]: row for row in holes["rows"]}
    rows["zoo"]["values"]["mean"] = None
    mean = f"{100 * rows['copies']['values']['mean']:.1f} %"
    assert (
        f"networks have a mean accuracy of {mean}; that of the zoo is not finite." in verdict(rows["copies"], holes)[0]
    )
    rows["copies"]["values"]["mean"] = None
    assert "The mean accuracy of its " in verdict(rows["copies"], holes)[0]


@pytest.mark.parametrize(
    ("steps", "ratio", "checkpoints", "said"),
    [
        (
            12.0,
            0.02,
            10,
            "at 0.02 of the distance of a held-out run (12 steps between neighbouring checkpoints): within the",
        ),
        (300.0, 0.7, 10, "nearer to a training network than a held-out run is."),
        (
            0.7,
            0.7,
            1,
            "They lie at 0.70 of the distance of a held-out run: nearer to a training network than a held-out run is.",
        ),
        (
            0.3,
            0.3,
            1,
            "nearer to a training network than a held-out run is.",
        ),  # one checkpoint a run: nothing to stay within
        (400.0, 1.0, 10, "as far from the training networks as a held-out run."),
        (800.0, 2.0, 10, "farther from the training networks than a held-out run."),
        (3.0, None, 100, "They lie 3 steps between neighbouring checkpoints from the nearest training network."),
    ],
)
def test_verdict_on_distance_goes_by_whole_runs(steps, ratio, checkpoints, said, results):
    changed = json.loads(json.dumps(results)) | {"checkpoints": checkpoints}
    changed["rows"][3]["flags"] = []
    changed["rows"][3]["values"] |= {"nn_ratio": steps, "run_ratio": ratio}
    assert said in " ".join(verdict(changed["rows"][3], changed))


def test_verdict_says_that_networks_at_the_distance_of_a_new_run_are_nearer_throughout(results):
    changed = json.loads(json.dumps(results))
    changed["rows"][3]["values"] |= {"run_ratio": 0.93, "zu": -5.0, "zu_limit": 5.0}
    changed["rows"][3]["flags"] = [{"kind": "nearer_than_heldout", "detail": None}]
    said = " ".join(verdict(changed["rows"][3], changed))
    assert (
        "as far from the training networks as a held-out run. Yet more of them than chance explains are nearer" in said
    )
    assert "(zu ≤ −5.0)." in said


def test_verdict_says_how_many_networks_are_copies(results):
    changed = json.loads(json.dumps(results))
    kinds = ("some_near", "same_predictions")
    changed["rows"][3]["values"]["run_ratio"] = 1.0
    changed["rows"][3] |= {"flags": [{"kind": kind, "detail": "2 of 50"} for kind in kinds]}
    said = " ".join(verdict(changed["rows"][3], changed))
    assert "2 of 50 networks are nearer to a training network than new runs." in said
    assert "2 of 50 networks predict as one training network does on every test item." in said


def test_verdict_says_that_spread_without_structure_is_noise(results):
    changed = json.loads(json.dumps(results))
    changed["rows"][3]["flags"] = [{"kind": "mean_plus_noise", "detail": None}]
    changed["rows"][3]["values"] |= {"dispersion": 0.92, "variance_inside": 0.041}
    changed["subspace"] |= {"share": 0.52}
    said = " ".join(verdict(changed["rows"][3], changed))
    assert "Dispersion 0.92: about as varied as the zoo, but without its structure: 4.1 % of the variance" in said
    assert "against 52 % of held-out networks. They are a mean with independent noise on each weight" in said


def test_a_saturated_zu_is_shown_as_such(results):
    html = page(results)
    copies = next(row for row in results["rows"] if row["name"] == "copies")
    assert copies["values"]["zu"] == pytest.approx(-copies["values"]["zu_limit"])
    assert "≤ −2.1" in html


def test_thresholds_are_data_of_the_page_and_of_no_script(results):
    values = results["thresholds"]
    assert values == json.loads(json.dumps(THRESHOLDS._asdict()))
    moved = {**values, "collapsed": 0.7, "within_run": 0.1}
    strips = pictures_of({**results, "checkpoints": 10, "thresholds": moved}).pictures["strips"]
    bands = [mark.high for panel in strips.panels for mark in panel.marks if isinstance(mark, Band)]
    assert bands == pytest.approx([log1p(0.1 / 0.1), 0.7])


def test_noise_at_the_same_distance_is_read_off_the_sweep():
    rows = [
        {"name": "any", "noise": i, "values": {"nn_ratio": r, "mean": a}} for i, r, a in ((1, 0.1, 0.9), (2, 10.0, 0.5))
    ]
    assert score_of_noise(1.0, rows) == pytest.approx(0.7)  # half-way on the log axis
    assert score_of_noise(10.0, rows) == pytest.approx(0.5)
    assert score_of_noise(0.01, rows) is None
    assert score_of_noise(20.0, rows) is None


@pytest.mark.parametrize("row", [{"nonfinite": 4}, {"uses_task_data": True}])
def test_a_row_with_gaps_is_told_and_drawn(row, results):
    holes = json.loads(json.dumps(results))
    holes["rows"][2] |= row
    holes["rows"][2]["values"] |= {"selected": None}
    if "nonfinite" in row:
        holes["rows"][2]["values"] |= {"nn_ratio": None, "run_ratio": None, "dispersion": None, "structure": None}
    holes["rows"][2]["points"]["distance"] = [None] * 4
    holes["rows"][2]["points"]["xy"] = [[None, None]] * 4
    html = page(holes)
    assert ("hold NaN or inf" in html) == bool(row.get("nonfinite"))
    assert ("used the task&#39;s data" in html) == bool(row.get("uses_task_data"))


def test_a_zoo_alone_has_a_page_and_pictures(results, tmp_path):
    alone = {
        **results,
        "rows": results["rows"][:1],
        "heldout": 0,
        "generators": {},
        "command": None,
        "notes": ["No held-out row."],
    }
    html = page(alone)
    assert "Not run: copy" in html
    assert "No held-out row." in html
    assert "strips.png" in [file.name for file in save_plots(alone, tmp_path)]


@pytest.mark.parametrize(("unit", "checkpoints", "shaded"), [("run", 10, True), ("run", 1, False), ("step", 10, False)])
def test_the_plane_shades_what_lies_within_a_run_where_runs_have_checkpoints(unit, checkpoints, shaded, results):
    (axes,) = draw_picture(pictures_of({**results, "unit": unit, "checkpoints": checkpoints}).pictures["plane"]).axes
    assert ("within a run" in [text.get_text() for text in axes.texts]) == shaded
    assert axes.get_xlabel() == "distance to the zoo " + ("÷ a new run's" if unit == "run" else "in steps")


def test_pictures_are_written_as_png(results, tmp_path):
    paths = save_plots(results, tmp_path)
    drawn = ["strips", "plane", "novelty", "alike", "map", "trajectories"]
    assert [p.name for p in paths] == [f"{name}.png" for name in drawn]
    assert all(p.read_bytes().startswith(b"\x89PNG") and p.stat().st_size > 5000 for p in paths)


def test_the_page_holds_the_prepared_pictures_and_no_other_data_to_draw(results):
    text = re.search(r'<script type="application/json" class="pictures">(.*?)</script>', page(results), re.S).group(1)
    prepared = pictures_of(results)
    kept = json.loads(text)
    assert kept["pictures"].keys() == prepared.pictures.keys()
    for key, picture in prepared.pictures.items():
        for panel, drawn in zip(picture.panels, kept["pictures"][key]["panels"], strict=True):
            dots = [mark for mark in panel.marks if isinstance(mark, Dots) and len(mark.x)]
            same = [mark for mark in drawn["marks"] if mark["mark"] == "dots" and mark.get("x")]
            for mark, other in zip(dots, same, strict=True):
                assert other["x"] == pytest.approx(mark.x, rel=1e-3)
                assert other["y"] == pytest.approx(mark.y, rel=1e-3)
    script = (files("paramgen.report") / "templates" / "figures.js").read_text()
    assert "results" not in re.sub(r"//.*", "", script)


def test_every_figure_can_be_drawn_as_a_png_too(results):
    pictures = pictures_of({**results, "checkpoints": 10}).pictures
    assert pictures.keys() == {figure.key for figure in FIGURES} - {"tasks", "renders"}
    for picture in pictures.values():
        figure = draw_picture(picture)
        assert len(figure.axes) == len(picture.panels)
        for axes, panel in zip(figure.axes, picture.panels, strict=True):
            assert len(axes.collections) >= sum(isinstance(mark, Dots) for mark in panel.marks)
            assert len(axes.lines) == sum(isinstance(mark, Line | DottedLine) for mark in panel.marks)


def test_an_axis_reaches_over_its_rows_and_takes_the_first_level_with_enough_ticks():
    coarse, fine = [(0.0, "0"), (1.0, "1")], [(at / 4, f"{at / 4:g}") for at in range(9)]
    axis = PanelAxis(reach={"a": (0.0, 1.0), "b": (0.5, 2.0)}, always=(0.2,), margin=(0.1, 0.1), ticks=[coarse, fine])
    assert axis.limits() == pytest.approx((-0.2, 2.2))
    assert [text for _, text in axis.ticks_between(0, 1)] == ["0", "0.25", "0.5", "0.75", "1"]
    assert replace(axis, least=0.0).limits()[0] == 0
    assert PanelAxis().limits() == pytest.approx((-0.05, 1.05))


def test_untrained_networks_do_not_stretch_the_axes_and_are_drawn_at_their_edge(results):
    changed = json.loads(json.dumps(results))
    row = next(row for row in changed["rows"] if row["role"] == "untrained")
    row["values"] |= {"mean": 0.01, "run_ratio": 1e6, "nn_ratio": 1e6}
    panel = pictures_of(changed).pictures["plane"].panels[0]
    assert row["name"] not in panel.x.reach
    (axes,) = draw_picture(pictures_of(changed).pictures["plane"]).axes
    assert axes.get_xlim()[1] < log1p(1e6 / 0.1)
    spots = [tuple(spot) for dots in axes.collections for spot in getattr(dots, "get_offsets", list)()]
    assert (axes.get_xlim()[1], axes.get_ylim()[0]) in spots


def test_weight_pictures_are_the_weights_of_a_sample_and_of_its_nearest_training_network(tmp_path):
    zoo = make_zoo(tmp_path / "zoo", runs=4, heldout=1, hidden=[40])
    W = zoo.matrix(zoo.indices("train"))
    weights = torch.stack(
        [torch.full_like(W[0], float("nan")), W[2] + 1e-4]
    )  # the first holds NaN, so the second is shown
    pictures = weight_pictures(zoo, [read_samples(folder_of(zoo, weights, tmp_path / "drawn"), zoo)])
    assert [p["shape"] for p in pictures] == [[40, 64], [10, 40]]
    for picture in pictures:
        (pair,) = picture["pairs"]
        assert (pair["name"], pair["network"]) == ("drawn", 1)
        expected = zoo.full(zoo.indices("train")[2])[picture["tensor"]][:16, :32]
        torch.testing.assert_close(torch.tensor(pair["nearest"]), expected, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(torch.tensor(pair["sample"]), expected + 1e-4, rtol=1e-3, atol=1e-6)


def test_the_page_says_how_to_make_it_again(results):
    html = page(results)
    assert "paramgen fit" in html
    assert "paramgen evaluate --zoo zoo" in html
