"""Every shipped comparison parses against the real signature, names what exists, and has a paper's figures beside rows it has."""

from functools import cache
from inspect import signature
from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningArgumentParser

from paramgen.cli.commands import compare
from paramgen.cli.commands.compare import _check
from paramgen.cli.commands.compare_steps import GeneratorSource, ZooSource, collecting
from paramgen.cli.lightning import LINKED
from paramgen.cli.parser import ConfigFile, OneLineErrors
from paramgen.cli.recipes import with_recipes
from paramgen.core.command_line import words
from paramgen.core.paths import list_configs
from paramgen.evaluation.baselines import BASELINES
from paramgen.generators.base import ParameterGenerator
from paramgen.generators.data import ParameterDataModule
from paramgen.generators.recipe import Facts

import paramgen.backends  # noqa: F401  isort: skip

NAMES = list(list_configs("compare"))
NO_FRACTIONS = ("FID",)
PAPER_ROWS = ("zoo", "held-out runs", "direct", "no adapter", *BASELINES)


@cache
def parsed(name):
    parser = OneLineErrors()
    parser.add_argument("--config", action=ConfigFile, folder="compare")
    parser.add_function_arguments(compare.main, sub_configs=True)
    return parser.instantiate(parser.parse_args(["--config", name]))


@pytest.mark.parametrize("name", NAMES)
def test_it_parses_and_its_parts_fit_together(name):
    config = parsed(name)
    _check(config.zoos, config.generators or {}, config.seeds or [0])
    assert config.title
    assert config.about
    assert config.out != signature(compare.main).parameters["out"].default
    assert all(isinstance(zoo, ZooSource) for zoo in config.zoos.values())
    asked = config.baselines if isinstance(config.baselines, list) else []
    assert set(asked) <= BASELINES.keys()
    for key in config.paper or {}:
        zoo, _, row = key.rpartition("/")
        assert zoo in ("", *config.zoos)
        assert row in (*PAPER_ROWS, *config.generators)
        assert all(0 <= value <= 1 or name in NO_FRACTIONS for name, value in config.paper[key].items())


@pytest.mark.parametrize("name", NAMES)
def test_every_zoo_that_it_collects_is_a_shipped_config_that_takes_its_arguments(name):
    for source in parsed(name).zoos.values():
        if source.collect or source.collect_tasks:
            parser, line = collecting(source, 3, Path("somewhere"))
            parsed_line = parser.parse_args(line)
            assert (parsed_line.out, parsed_line.seed) == ("somewhere", source.arguments.get("seed", 3))


@pytest.mark.parametrize("name", NAMES)
def test_every_generator_that_it_fits_is_a_shipped_config_that_takes_its_arguments(name):
    for source in (parsed(name).generators or {}).values():
        assert isinstance(source, GeneratorSource)
        if source.fit is None:
            continue
        given = {k: v for k, v in source.arguments.items() if not k.startswith("trainer.")}
        line = ["fit", "--config", source.fit, *words({**given, "data.zoo": "somewhere"})]
        parse_fit(*with_recipes(line, lambda zoo: Facts(networks=200, runs=20, parameters=5018))[1:])


@cache
def parse_fit(*line):
    """Parse the line of a fit; comparisons share many."""
    _fit_parser().parse_args([*line])


@cache
def _fit_parser():
    class Parser(OneLineErrors, LightningArgumentParser):
        pass

    parser = Parser()
    parser.add_argument("--config", action=ConfigFile)
    parser.add_lightning_class_args(ParameterGenerator, "model", subclass_mode=True, required=True)
    parser.add_lightning_class_args(ParameterDataModule, "data")
    for name in LINKED:
        parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
    for name in ("trainer", "quality", "checkpoint"):
        parser.add_argument(f"--{name}", type=dict, default={})
    return parser
