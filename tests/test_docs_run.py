"""Every command and every Python block of the documentation runs, page by page, as docs_shortened.py says."""

import re
import sys

import pytest

from docs_pages import FENCED, PAGES, ROOT, steps
from docs_runs import Reader, StepError
from docs_shortened import INSTEAD, NAMES, SHORTER, STAND_INS
from hub_server import TOKEN, serving

WITH_STEPS = [page for page in PAGES if steps(page)]
RUN_ELSEWHERE = {
    "tutorial.md",
    "own-task.md",
    "python.md",
}  # test_tutorial.py, test_docs_task.py, test_api.py: with their figures
REFUSES_FULL = re.compile(r"paramgen +(?:sample|merge|export|adapters|generator|zoo) .*--out ([a-z_/]+)(?!.*--shard)")
PLACEHOLDER = re.compile(r"(?<![\w/.$])[A-Z]{2,}(?![\w.=-])")
WORDS_OF_OTHERS = {"DDIM", "DDPM", "OMP", "SBATCH"}


@pytest.fixture
def reader(tmp_path, monkeypatch, no_checksums):
    """A reader in an empty folder, with a Hub of their own."""
    with serving() as hub:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        before = set(sys.modules)
        yield Reader(hub, monkeypatch)
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]


@pytest.mark.parametrize(
    "page",
    [page for page in WITH_STEPS if page.name not in RUN_ELSEWHERE],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_a_reader_can_follow_the_page(page, reader):
    reader.follow(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_STEPS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_reader_with_time_can_follow_the_page(page, reader):
    reader.thorough = True
    reader.follow(page)


def test_a_step_that_no_row_mentions_and_that_fails_is_an_error(reader, tmp_path):
    page = tmp_path / "page.md"
    for command, message in (
        ("sbatch fit.sh", "says how 'sbatch' runs"),
        ("paramgen zoo info --zoo none", "Unknown zoo"),
    ):
        page.write_text(f"```bash\n{command}\n```\n")
        with pytest.raises(StepError, match=message):
            reader.follow(page)


def test_every_row_of_the_tables_is_for_a_step():
    texts = [step.text for page in PAGES for step in steps(page)]
    seen = {*texts}
    for row in [*NAMES, *SHORTER]:
        assert any(re.search(row.pattern, text) for text in texts), row
        texts = [re.sub(row.pattern, row.to, text) for text in texts]
        seen |= {*texts}
    for row in [*STAND_INS, *INSTEAD]:
        assert any(re.search(row.pattern, text) for text in seen), row


@pytest.mark.parametrize("page", WITH_STEPS, ids=lambda page: str(page.relative_to(ROOT)))
def test_words_to_replace_are_explained_on_their_page(page):
    words = {word for step in steps(page) if step.language == "bash" for word in PLACEHOLDER.findall(step.text)}
    text = FENCED.sub("", page.read_text())
    assert [word for word in sorted(words - WORDS_OF_OTHERS) if f"`{word}`" not in text] == []


def test_who_follows_all_pages_in_one_folder_meets_no_folder_that_another_page_filled():
    pages = [page for page in WITH_STEPS if "in an empty folder" not in page.read_text()]
    assert len(pages) >= len(WITH_STEPS) - 3  # tutorials
    written = [match[1] for page in pages for step in steps(page) if (match := REFUSES_FULL.match(step.text))]
    assert len(written) > 20
    assert sorted(written) == sorted({*written})
