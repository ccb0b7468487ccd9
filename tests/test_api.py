"""Python: the public names, five lines from a zoo to a report, and the blocks of docs/python.md and of the README as they are written."""

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import paramgen
from paramgen.collect.train import OptimSettings

ROOT = Path(__file__).parents[1]
README, PYTHON, API = ROOT / "README.md", ROOT / "docs/python.md", ROOT / "docs/api.md"
TASK = paramgen.ClassificationTask(network_args={"hidden": [12]})
SMALL = {
    "trainer.max_steps": 20,
    "trainer.logger": False,
    "trainer.enable_progress_bar": False,
    "quality.sample_every": 10,
    "checkpoint.dirpath": "fit",
}
PARAMETERS = {  # of the public functions: they are kept
    "Zoo": "path trust",
    "fit": "config settings zoo",
    "evaluate": "zoo networks out n baselines seed device train_images aligned finetune partial trust task",
    "load_generator": "path device trust",
    "collect_zoo": "task out mode runs checkpoints save_every epochs optim finetune parameters start heldout_runs val_runs seed dtype "
    "score_images device shard",
    "collect_tasks": "family out condition steps networks save_every start start_task start_steps shared_order optim pretraining "
    "parameters gauge heldout score seed device shard",
    "sample": "ckpt_path n out scheduler num_inference_steps temperature condition guidance_scale state prompt start recalibrate "
    "trajectory zoo per_task seen_tasks seed device overwrite trust shard",
    "compare": "zoos generators out title about n baselines seeds aligned finetune per_task seen_tasks paper trust redo device",
    "read_samples": "folder zoo limit partial name",
    "GeneratedNetworks": "networks info identity run",
    "EvaluationReport": "results zoo samples command",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a small zoo, its generator and a report; with all files of the fit."""
    folder = tmp_path_factory.mktemp("python")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        optim = OptimSettings(lr=1e-3)
        place = "checkpoints_zoo/digits_mlp_trajectory"
        zoo = paramgen.collect_zoo(TASK, place, runs=3, checkpoints=8, epochs=2, heldout_runs=1, finetune=optim)
        generator = paramgen.fit("pdiff_digits_mlp", SMALL, zoo=zoo)
        networks = generator.sample(4)
        report = paramgen.evaluate(zoo, networks, n=4, baselines="soup-2")
    return folder, zoo, generator, networks, report


def test_importing_the_package_imports_nothing_else_and_dir_knows_the_names():
    code = "import paramgen, sys; dir(paramgen); print(sorted({m.partition('.')[0] for m in sys.modules} & {'torch', 'yaml', 'numpy'}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert set(paramgen.__all__) <= set(dir(paramgen))


def test_the_public_names_are_those_that_the_page_lists_and_type_checkers_see_the_same():
    (listed,) = re.findall(r"## Public names\n(.*)", PYTHON.read_text(), re.DOTALL)
    named = re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in re.findall(r"^\| `.*$", listed, re.MULTILINE)))
    assert sorted(named) == sorted(paramgen.__all__) == sorted(set(named))
    assert sorted(re.findall(r"^::: paramgen\.(\w+)$", API.read_text(), re.MULTILINE)) == sorted(named)
    tree = ast.parse(Path(paramgen.__file__).read_text())
    (block,) = [n for n in tree.body if isinstance(n, ast.If)]
    imported = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(imported) == sorted(paramgen.__all__)
    for name, place in imported.items():
        module, _, attribute = place.partition(":")
        assert getattr(paramgen, name) is getattr(sys.modules[module], attribute)
    with pytest.raises(AttributeError, match="no attribute 'zoo'"):
        _ = paramgen.zoo


def test_the_parameters_of_public_functions_are_kept():
    found = {name: " ".join(inspect.signature(getattr(paramgen, name)).parameters) for name in PARAMETERS}
    assert found == PARAMETERS


def test_networks_in_memory_are_measured_as_their_files_are(made, tmp_path, monkeypatch):
    folder, zoo, _, networks, report = made
    monkeypatch.chdir(folder)
    TASK.build().load_state_dict(networks[0], strict=True)
    written = paramgen.sample("fit/last.ckpt", n=4, out=str(tmp_path / "samples"))
    files = [TASK.build().state_dict() for _ in networks]
    for state, path in zip(files, sorted(written.glob("*.safetensors")), strict=True):
        state.update(paramgen.core.io.read_tensors(path))
    both = paramgen.evaluate(str(zoo.path), {"files": written, "memory": files}, n=4, baselines="none")
    by_name = {row.name: row for row in both.rows}
    assert list(by_name) == ["zoo", "held-out runs", "files", "memory"]
    for key in ("mean", "nn_ratio", "dispersion"):
        assert by_name["files"].value(key) == by_name["memory"].value(key)
    assert [row.name for row in report.rows] == ["zoo", "held-out runs", "PDiff", "soup-2"]
    again = paramgen.evaluate(zoo, [written], tmp_path / "report", n=4, baselines="none")
    assert again.rows[2].value("mean") == by_name["files"].value("mean")
    assert json.loads((tmp_path / "report/results.json").read_text())["rows"][2]["name"] == "samples"
    name = zoo.spec.tensors[0].name
    spoiled = [{**networks[0], name: torch.zeros(3)}]
    with pytest.raises(paramgen.ParamgenError, match=f"network 0 of samples: '{re.escape(name)}' has shape"):
        paramgen.evaluate(zoo, spoiled)


def test_networks_in_memory_say_what_made_them(made):
    _, _, generator, networks, report = made
    info = networks.info
    assert (info.generator, info.zoo, info.temperature) == ("PDiff", "digits_mlp_trajectory", 1.0)
    assert info.generator_bytes == generator.stored_bytes()
    assert 0 < info.fit_seconds < 60
    assert info.fit_command.startswith("paramgen fit --config pdiff_digits_mlp --data.zoo ")
    assert info.history
    assert report.results.generators["PDiff"]["generator_bytes"] == info.generator_bytes
    assert repr(networks) == "<4 networks by PDiff>"


def test_a_fitted_generator_is_what_its_checkpoint_holds(made):
    folder, _, generator, _, _ = made
    loaded = paramgen.load_generator(folder / "fit/last.ckpt")
    assert loaded.fit_config == generator.fit_config
    assert loaded.history == generator.history
    for name, tensor in generator.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])


def test_a_report_shows_itself_in_a_terminal_and_in_a_notebook(made):
    *_, report = made
    text, html = repr(report), report._repr_html_()
    for name in ("zoo", "held-out runs", "PDiff", "soup-2"):
        assert name in text
        assert name in html
    mean = f"{100 * report.rows[2].value('mean'):.1f}"
    assert mean in text
    assert f"<td>{mean}</td>" in html
    assert html.count("<tr>") == 1 + len(report.rows)
    assert "PDiff: Its 4 networks have a mean accuracy of" in " ".join(text.split())
    assert "<p><b>PDiff</b>: Its 4 networks have a mean accuracy of" in html


def test_a_report_is_a_data_frame_and_names_pandas_where_it_is_missing(made, monkeypatch):
    *_, report = made
    frame = report.to_pandas()
    assert list(frame.index) == [row.name for row in report.rows]
    assert frame.loc["PDiff", "mean"] == pytest.approx(report.rows[2].value("mean"), rel=1e-6)
    assert frame.loc["PDiff", "kind"] == "generator"
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(paramgen.ParamgenError, match=r"pip install 'paramgen\[notebook\]'"):
        report.to_pandas()


def test_a_zoo_says_what_it_holds_and_a_missing_one_is_a_mistake(made, tmp_path, monkeypatch):
    folder, zoo, *_ = made
    assert (
        repr(zoo) == "<zoo 'digits_mlp_trajectory': networks of 910 parameters, 16 train (2 runs), 8 heldout (1 run)>"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(paramgen.ParamgenError, match="Unknown zoo"):
        paramgen.Zoo("digits_mlp_trajectory")
    with pytest.raises(paramgen.ParamgenError, match="collect --config digits_mlp_trajectory makes it"):
        paramgen.fit("pdiff_digits_mlp")
    monkeypatch.chdir(folder)
    with pytest.raises(paramgen.ParamgenError, match="trainer"):
        paramgen.fit("pdiff_digits_mlp", {**SMALL, "trainer.max_stepss": 3}, zoo=zoo)


def test_the_page_and_the_readme_run_as_they_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    smaller = {
        'fit("pdiff_digits_mlp", zoo=zoo)': 'fit("pdiff_digits_mlp", SMALL, zoo=zoo)',
        '{"trainer.max_steps": 500, ': '{**SMALL, "trainer.max_steps": 5, ',
        "evaluate(zoo, networks)": 'evaluate(zoo, networks, n=3, baselines="soup-2")',
        "sample(100)": "sample(3)",
        'baselines="none"': 'baselines="none", n=3',
    }
    page = "".join(blocks(PYTHON)).replace("\nreport\n", "\nprint(report)\n")
    (readme,) = blocks(README)
    for text, used in ((page, smaller), (readme, [*smaller][:1] + [*smaller][2:4])):
        code = text
        for old in used:
            assert old in code, old
            code = code.replace(old, smaller[old])
        names = {"SMALL": SMALL}
        exec(code, names)
        assert "PDiff: Its 3 networks" in " ".join(capsys.readouterr().out.split())
        if text is page:
            assert len(names["zoo"]) == 30
            assert set(names["means"]) == {"zoo", "held-out runs", "PDiff", "soup-2"}
    assert json.loads(Path("report/results.json").read_text())["zoo"] == "digits_small"


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_readme_starts_with_the_demo_and_has_one_picture_and_two_short_tables():
    text = README.read_text()
    assert text.index("make demo ") < text.index("make test ") < text.index("![") < text.index("paramgen fit")
    assert text.count("![") == 1
    assert len(re.findall(r"^\| ---", text, re.MULTILINE)) == 2
    assert len(re.findall(r"^\| (?!---|trained)", text, re.MULTILINE)) == 4 + 6


def test_readme_links_lead_to_files():
    links = re.findall(r"\]\((docs/[^)#]+)", README.read_text())
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "paramgen", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
