"""The page in a real headless Chromium; skipped where there is none."""

import html as markup
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from measured import measured_results
from paramgen.report.figures import pictures_of
from paramgen.report.page import comparison_page, page

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium here: `make test-browser` installs Debian's as root"
)

WATCH = """<script>
window.wrong = [];
addEventListener("error", (e) => wrong.push("error: " + e.message));
addEventListener("unhandledrejection", (e) => wrong.push("rejection: " + e.reason));
document.addEventListener("securitypolicyviolation", (e) => wrong.push("request: " + e.blockedURI));
for (const kind of ["error", "warn"]) console[kind] = (...words) => wrong.push(kind + ": " + words.join(" "));
</script>"""
REPORT = """<script>
const settled = () => new Promise((done) => setTimeout(done, 60));
addEventListener("load", async () => {
  let found;
  try { await settled(); found = await probe(); } catch (e) { wrong.push(String(e)); }
  wrong.push(...performance.getEntriesByType("resource").map((r) => "request: " + r.name));
  document.title = JSON.stringify({ wrong, found });
});
</script>"""


def visit(html: str, probe: str, width: int, folder: Path, *flags: str) -> dict:
    """Open the page, run the probe in it, and return what it found; errors, warnings and requests fail."""
    file = folder / "page.html"
    asked = f"<script>async function probe() {{ {probe} }}</script>{REPORT}"
    whole = html.replace("<head>", "<head>" + WATCH).replace("</body>", asked + "</body>")
    file.write_text(whole)
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        f"--user-data-dir={folder}/b",
    ]
    command += [*flags, f"--window-size={width},900", "--virtual-time-budget=8000", "--dump-dom", f"file://{file}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seen = json.loads(markup.unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.S).group(1)))
    assert seen["wrong"] == []
    return seen["found"]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    return measured_results(tmp_path_factory.mktemp("browser"))


@pytest.mark.parametrize("width", [1280, 500])
def test_figures_draw_fit_the_page_and_answer_the_pointer(results, width, tmp_path):
    found = visit(
        page(results),
        """
        const plots = [...document.querySelectorAll(".plot")], tips = {};
        for (const plot of plots) {
          const svg = plot.querySelector("svg.fig");
          const dots = svg.querySelectorAll("[aria-label=dot] circle, [aria-label=rect] rect, [aria-label=line] path");
          const at = dots[dots.length - 1].getBoundingClientRect();
          const where = { clientX: at.x + at.width / 2, clientY: at.y + at.height / 2, pointerType: "mouse", bubbles: true };
          svg.dispatchEvent(new PointerEvent("pointerenter", where)); svg.dispatchEvent(new PointerEvent("pointermove", where));
          await settled();
          tips[plot.dataset.figure] = svg.querySelector("[aria-label=tip]").textContent;
        }
        return {
          tips, fits: document.documentElement.scrollWidth <= innerWidth,
          dots: document.querySelector("[data-figure=strips] svg").querySelectorAll("[aria-label=dot] circle").length,
          ticks: [...document.querySelectorAll("[data-figure=strips] svg.fig")].map(
            (svg) => [...svg.querySelectorAll("[aria-label='x-axis tick label'] text")].map((text) => text.textContent)),
          high: plots.every((p) => p.getBoundingClientRect().height > 200),
        };""",
        width,
        tmp_path,
    )
    assert found["fits"]
    assert found["high"]
    assert found["dots"] == sum(len(row["points"]["score"]) for row in results["rows"])
    panels = pictures_of(results).pictures["strips"].panels
    assert found["ticks"] == [[text for _, text in panel.x.ticks_between(*panel.x.limits())] for panel in panels]
    names = [row["name"] for row in results["rows"]]
    assert set(found["tips"]) == {"strips", "plane", "novelty", "alike", "map", "trajectories", "weights", "training"}
    layer = found["tips"].pop("weights")
    assert layer.strip("\u200b").startswith("layers.0.weight [")
    assert [key for key, tip in found["tips"].items() if not any(name in tip for name in names)] == []


def test_the_plane_and_the_strips_shade_what_lies_within_a_run(results, tmp_path):
    probe = """
        await settled();
        return [...document.querySelectorAll("[data-figure=plane] svg text")].map((text) => text.textContent)
          .concat(document.querySelectorAll("[data-figure=strips] [aria-label=rect] rect").length);"""
    *one, bands = visit(page(results), probe, 1280, tmp_path)  # one checkpoint a run: there is none to stay within
    assert "within a run" not in one
    *dense, more = visit(page({**results, "checkpoints": 10}), probe, 1280, tmp_path)
    assert "within a run" in dense
    assert more == bands + 1


def test_rows_switched_off_leave_every_figure(results, tmp_path):
    found = visit(
        page(results),
        """
        const texts = () => [...document.querySelectorAll("[data-figure=strips] svg")][0].textContent;
        const circles = () => document.querySelectorAll("[data-figure=map] circle").length;
        const before = [texts().includes("kde"), texts().includes("copies"), circles()];
        document.querySelector(".chip[data-row=copies]").click(); document.querySelector(".chips-baselines").click(); await settled();
        const after = [texts().includes("kde"), texts().includes("copies"), circles()];
        const dimmed = document.querySelectorAll("tr.off").length;
        document.querySelector(".chip[data-row=copies]").click(); document.querySelector(".chips-baselines").click(); await settled();
        return { before, after, dimmed, again: [texts().includes("kde"), texts().includes("copies"), circles()] };""",
        1280,
        tmp_path,
    )
    assert found["before"] == found["again"]
    assert found["before"][:2] == [True, True]
    assert found["after"][:2] == [False, False]
    noise = len(next(r for r in results["rows"] if r["name"] == "noise-1")["points"]["xy"])
    assert found["before"][2] - found["after"][2] == 4 + noise
    assert found["dimmed"] == 1 + sum(row["kind"] == "baseline" for row in results["rows"])


def test_any_choice_of_rows_can_be_drawn(results, tmp_path):
    found = visit(
        page(results),
        """
        const chips = [...document.querySelectorAll(".chip")];
        for (const chip of chips) { chip.click(); await settled(); }
        const none = document.querySelectorAll("svg.fig").length;
        for (const chip of chips.reverse()) { chip.click(); await settled(); }
        return [none, document.querySelectorAll("svg.fig").length];""",
        1280,
        tmp_path,
    )
    assert found[0] == 0
    assert found[1] > 7


def test_the_table_sorts_explains_and_shows_more(results, tmp_path):
    found = visit(
        page(results),
        """
        const order = () => [...document.querySelectorAll(".rows tbody th .name")].map((n) => n.textContent);
        const heads = document.querySelectorAll(".rows .sort");
        heads[0].click(); const byName = order();
        heads[1].click(); const byN = order();
        [...heads].find((h) => h.textContent === "Mean").click(); const byMean = order();
        document.querySelector('[popovertarget="def-mean"]').click();
        const says = document.querySelector("#def-mean").matches(":popover-open");
        document.querySelector('[popovertarget="def-plane"]').click();
        const explains = document.querySelector("#def-plane").matches(":popover-open");
        const columns = () => [...document.querySelectorAll(".rows thead th")].filter((th) => th.offsetWidth).length;
        const few = columns(); document.querySelector(".more-switch").click();
        return { byName, byMean, says, explains, few, all: columns() };""",
        1280,
        tmp_path,
    )
    rows = results["rows"]
    assert sorted(found["byName"], key=str.lower) == found["byName"]
    means = {row["name"]: row["values"]["mean"] for row in rows}
    assert [means[name] for name in found["byMean"]] == sorted(means.values(), reverse=True)
    assert found["says"]
    assert found["explains"]
    assert found["all"] > found["few"]


def test_light_and_dark_follow_the_system_and_the_button(results, tmp_path):
    probe = """
        const of = (s) => getComputedStyle(document.querySelector(s)), colours = () => [of("body").backgroundColor, of(".fig text").color];
        const first = colours(); document.querySelector(".theme").click();
        return [first, colours()];"""
    (paper, text), (other_paper, other_text) = visit(page(results), probe, 1280, tmp_path)
    assert paper != other_paper
    assert text != other_text


def test_a_comparison_shows_one_report_at_a_time(results, tmp_path):
    figure = {"mean": 0.9, "std": 0.01}
    summary = [
        {
            "zoo": zoo,
            "name": row["name"],
            "kind": row["kind"],
            "role": row["role"],
            "n": 4,
            "seeds": 2,
            "figures": {"mean": figure},
            "flags": [],
        }
        for zoo in ("a", "b")
        for row in results["rows"]
    ]
    comparison = {
        "title": "Two zoos",
        "about": "",
        "seeds": [0, 1],
        "paper": {},
        "reports": [{"zoo": zoo, "seed": seed, "file": "results.json"} for zoo in ("a", "b") for seed in (0, 1)],
        "scores": dict.fromkeys(("a", "b"), results["score"]),
        "summary": summary,
        "differences": [],
        "machine": "a machine",
        "command": "paramgen compare",
    }
    found = visit(
        comparison_page(comparison, [results] * 4),
        """
        const open = () => [...document.querySelectorAll("section.evaluation")].map((s) => !s.hidden);
        const drawn = () => [...document.querySelectorAll("section.evaluation")].map((s) => s.querySelectorAll("svg.fig").length > 0);
        await settled(); const before = [open(), drawn()];
        document.querySelectorAll(".tab")[2].click(); await settled();
        return { before, after: [open(), drawn()] };""",
        1280,
        tmp_path,
    )
    assert found["before"] == [[True, False, False, False], [True, False, False, False]]
    assert found["after"] == [[False, False, True, False], [True, False, True, False]]


@pytest.mark.parametrize(("width", "sideways"), [(500, True), (1280, False)])
def test_the_three_strips_scroll_sideways_on_a_phone_and_the_next_one_shows(results, tmp_path, width, sideways):
    found = visit(
        page(results),
        """
        await settled();
        const box = document.querySelector("[data-figure=strips]"), strips = [...box.querySelectorAll("svg.fig")];
        const at = strips.map((s) => s.getBoundingClientRect()), edge = box.getBoundingClientRect().right;
        return { scrolls: box.scrollWidth > box.clientWidth, seen: at[1].left < edge - 20,
          level: new Set(at.map((r) => Math.round(r.top))).size === 1,
          page: document.documentElement.scrollWidth <= innerWidth };""",
        width,
        tmp_path,
    )
    assert found == {"scrolls": sideways, "seen": True, "level": True, "page": True}


def test_without_scores_the_strips_have_no_column_of_them(results, tmp_path):
    rows = [
        {**row, "values": {**row["values"], "mean": None}, "points": {**row["points"], "score": []}}
        for row in results["rows"]
    ]
    blank = {**results, "score": None, "good_from": None, "test_items": 0, "train_items": 0, "rows": rows}
    columns = "return [...document.querySelectorAll('[data-figure=strips] svg.fig')].map((svg) => svg.textContent);"
    found = visit(page(blank), columns, 1280, tmp_path)
    assert len(found) == 2
    assert not any("Test" in text for text in found)
