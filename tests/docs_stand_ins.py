"""What stands in for the reader's own files, for data and for machines that the tests of the documentation do not have."""

import io
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch
import yaml
from safetensors.torch import save

from docs_pages import ROOT
from language_files import write_instructions, write_tokenizer
from paramgen.cli.commands import compare, plan
from paramgen.cli.dispatch import FUNCTIONS, arguments_of, parser_of
from paramgen.cli.planned_zoo import planned_zoo
from paramgen.core.paths import list_configs
from small_sets import write_cifar, write_folder, write_mnist

QUICK_FIT = "fit --config {} --data.zoo digits_small --trainer.max_steps 2 --trainer.enable_progress_bar false"

# ---- files of the reader's; each function returns what stands in the command


def data(reader):
    """Small sets where paramgen looks for data: ``./data``."""
    folder = Path("data")
    if not folder.exists():
        folder.mkdir()
        write_cifar(folder, "cifar10")
        write_mnist(folder, "mnist")
        for domain in ("photo", "art_painting", "cartoon", "sketch"):
            write_folder(folder / "PACS" / domain, 2, 20)
    return r"\g<0>"


def pacs(reader):
    data(reader)
    return "data/PACS"


PLANES = "mlp_weights/3d_128_plane_multires_4_manifoldplus_slower_no_clipgrad"


def new_folder(reader):
    """A folder that does not exist yet."""
    return f"new{len([*Path().glob('new*')])}"


def networks(reader):
    """Plain state dicts, one file a network."""
    return _written("mine", "network{0}.pth", 30)


def named_networks(reader):
    """The same, with run, step and score in their paths."""
    return _written("named", "run{1}/step{0}_acc0.9.pth", 60)


def planes(reader):
    """A file of weights for each plane."""
    return _written(PLANES, "plane{0}.pth", 12)


def _written(folder, names, count):
    for i in range(count):
        torch.manual_seed(i)
        path = Path(folder, names.format(i, i // 2))
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch.nn.Linear(10, 1).state_dict(), path)
    return folder


def adapters(reader):
    """Folders of peft, a network of each seed below its condition."""
    from peft import LoraConfig, get_peft_model

    for condition in ("cats", "dogs"):
        for seed in range(3):
            torch.manual_seed(seed)
            network = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
            lora = LoraConfig(target_modules=["0", "2"], r=2, init_lora_weights=False)
            get_peft_model(network, lora).save_pretrained(f"adapters_of_mine/{condition}/seed{seed}")
    return "adapters_of_mine"


def checkpoint(reader):
    """A generator's checkpoint."""
    if not reader.checkpoint:
        reader.paramgen(QUICK_FIT.format("pdiff").split())
    return reader.checkpoint


def released_checkpoint(reader):
    """The file of a release."""
    reader.paramgen(QUICK_FIT.format("rpg").split())
    shutil.copy(reader.checkpoint, "digits_rpg.ckpt")
    return "digits_rpg.ckpt"


def generator_on_hub(reader):
    """Somebody has shared a generator."""
    reader.paramgen(["generator", "push", "--ckpt_path", checkpoint(reader), "--repo", "owner/name"])
    return r"\g<0>"


def networks_on_hub(reader):
    """Somebody has shared networks."""
    states = {f"run{i % 2}/step{i}.safetensors": torch.nn.Linear(3, 2).state_dict() for i in range(6)}
    reader.hub.add("owner/name", {name: save(state) for name, state in states.items()})
    return r"\g<0>"


def llama(reader):
    """LLaMA-7B's configuration with a tokenizer of four words, in a recipe of the same name."""
    folder = Path("llama").absolute()
    if not folder.exists():
        from transformers import LlamaConfig

        LlamaConfig().save_pretrained(folder)
        write_tokenizer(folder)
        write_instructions(folder / "instructions.json")
        recipe = yaml.safe_load(list_configs("zoo")["llama7b_commonsense"].read_text())
        recipe["task"]["init_args"] |= {"model": str(folder), "file": str(folder / "instructions.json")}
        (folder / "zoo").mkdir()
        (folder / "zoo" / "llama7b_commonsense.yaml").write_text(yaml.safe_dump(recipe))
        reader.monkeypatch.setenv("PARAMGEN_CONFIG_PATH", str(folder))
    return r"\g<0>"


# ---- in place of a command


def not_run(reader, command):
    """Nothing."""


def target_exists(reader, command):
    """Every target is in the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    for name in command.split()[1:]:
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), f"the Makefile has no target {name!r}"


def extra_exists(reader, command):
    """paramgen has the extra that is installed."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = [word for word in shlex.split(command)[2:] if not word.startswith("-")]
    name, _, extra = wanted.rstrip("]").partition("[")
    assert name in ("paramgen", ".")  # from PyPI, or a clone
    assert extra in ("", *extras)


def parsed(reader, command):
    """The command's own parser accepts it, with all that its config says."""
    name, *words = shlex.split(command)[1:]
    arguments_of(_function(name), f"paramgen {name}", FUNCTIONS[name].configs, words)


def shortened_comparison(reader, command):
    """Run with one seed and no baselines, every zoo and every fit shortened as its own command is."""
    given = arguments_of(compare.main, "paramgen compare", "compare", shlex.split(command)[2:])
    zoos, generators = given["zoos"].items(), (given["generators"] or {}).items()
    given["zoos"] = {name: _shortened(reader, zoo, "collect", "collect_tasks") for name, zoo in zoos}
    given["generators"] = {name: _shortened(reader, generator, "fit") for name, generator in generators}
    small = {"seeds": [0], "n": 2, "baselines": "none", "per_task": 1, "seen_tasks": 2, "finetune": False}
    with redirect_stdout(io.StringIO()):
        compare.main(**given | small)


def _shortened(reader, source, *commands):
    options = {}
    for command in commands:
        if config := getattr(source, command):
            options |= reader.options(f"paramgen {command} --config {config}")
    return replace(source, arguments=source.arguments | options)


def resolved_fit(reader, command):
    """All settings of the fit are read, and the network of its zoo is built on the meta device."""
    words = shlex.split(command.partition("paramgen ")[2])[1:]
    with plan.quiet():
        plan.settings_of(plan.parsed(words))


def resolved_recipe(reader, command):
    """The recipe is read, and its network is built on the meta device."""
    name, *words = shlex.split(command.partition("paramgen ")[2])
    parser_of(_function(name), f"paramgen {name}", "zoo").parse_args(words)
    planned_zoo(words[words.index("--config") + 1])


def as_two_tasks(reader, command):
    """Run by two tasks of SLURM, one after the other."""
    for task in "01":
        with reader.monkeypatch.context() as patch:
            patch.setenv("SLURM_PROCID", task)
            patch.setenv("SLURM_NTASKS", "2")
            reader.paramgen(shlex.split(command.partition("paramgen ")[2]))


def _function(name):
    return import_module(f"paramgen.{FUNCTIONS[name].module}").main


def valid_script(reader, script):
    """bash can parse it, and its fit is resolved."""
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    joined = re.sub(r"\\\n\s*", "", script)
    (fit,) = re.findall(r"srun (paramgen fit .*)", joined)
    resolved_fit(reader, fit.replace('"${resume[@]}"', "").replace('"$SLURM_NNODES"', "2"))


def evaluated_by_bash(reader, command):
    """bash can run what paramgen prints."""
    words = re.search(r"\$\(paramgen (.*)\)", command)[1].split()
    subprocess.run(["bash"], input=reader.paramgen(words), text=True, check=True)


def options_exist(reader, command):
    """The script of the repository is there, and knows the command's options."""
    words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)][1:]
    options = [word for word in words if word.startswith("--")]
    assert (ROOT / words[0]).is_file(), words[0]
    if options:
        said = _help(str(ROOT / words[0]))
        assert [option for option in options if option not in said] == [], words[0]


def _help(script):
    out, before, path = io.StringIO(), sys.argv, [*sys.path]
    sys.argv = [script, "--help"]
    sys.path.insert(0, str(Path(script).parent))
    try:
        with redirect_stdout(out):
            runpy.run_path(script, run_name="__main__")
    except SystemExit:
        pass
    finally:
        sys.argv, sys.path[:] = before, path
    return out.getvalue()
