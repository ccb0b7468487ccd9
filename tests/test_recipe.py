"""Settings that follow the zoo."""

from pathlib import Path

import pytest
import yaml

import paramgen.backends  # noqa: F401
from conftest import write_zoo
from paramgen.backends.pdiff import PDiff
from paramgen.backends.rpg import RPG
from paramgen.cli.lightning import main
from paramgen.cli.recipes import with_recipes
from paramgen.core.paths import find_config
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.generators.loading import load_generator
from paramgen.generators.recipe import Facts, needs_recipe, power_of_two, resolve

ONE_RUN = Facts(networks=100, runs=1, parameters=5018)
SEEDS = Facts(networks=200, runs=20, parameters=5018)
SIZES = [500, 2_864, 25_818, 300_000]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    return write_zoo(tmp_path_factory.mktemp("zoo") / "zoo", networks=8)


@pytest.mark.parametrize(("number", "expected"), [(1, 64), (95, 128), (90, 64), (250, 256), (1e9, 1024)])
def test_power_of_two_is_the_nearest_within_bounds(number, expected):
    assert power_of_two(number, 64, 1024) == expected


def test_facts_are_those_of_the_train_split(zoo):
    train = [zoo.entries[i] for i in zoo.indices("train")]
    assert len(train) < len(zoo)
    assert Facts.of(zoo) == (len(train), len({e.run for e in train}), zoo.spec.numel, False)


def test_only_what_is_auto_and_in_the_recipe_is_replaced():
    config = {
        "model": {"class_path": "X", "init_args": {"optimizer": {"lr": "auto"}, "width": 7}},
        "trainer": {"devices": "auto"},
    }
    found = resolve(config, {"model.optimizer.lr": 0.5, "model.width": 9})
    assert found.config["model"]["init_args"] == {"optimizer": {"lr": 0.5}, "width": 7}
    assert found.config["trainer"] == {"devices": "auto"}
    assert found.chosen == {"model.optimizer.lr": 0.5}


@pytest.mark.parametrize(("name", "backend"), [("rpg", RPG), ("pdiff", PDiff)])
@pytest.mark.parametrize("facts", [ONE_RUN, SEEDS, Facts(400, 400, 2146, conditional=True)])
def test_recipe_has_a_value_for_every_auto_of_the_config(name, backend, facts):
    config = yaml.safe_load(Path(find_config(name)).read_text())
    assert needs_recipe(config)
    assert not needs_recipe(resolve(config, backend.recipe(facts)).config)


def test_rpg_has_tokens_widths_and_rates_that_follow_the_parameters():
    recipes = [RPG.recipe(SEEDS._replace(parameters=size)) for size in SIZES]
    tokens = [recipe["data.codec.token_dim"] for recipe in recipes]
    rates = [recipe["model.optimizer.lr"] for recipe in recipes]
    assert tokens == sorted(tokens)
    assert tokens[0] < tokens[-1]
    assert all(20 <= size / token <= 60 for size, token in zip(SIZES[1:], tokens[1:], strict=True))
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(("facts", "name"), [(ONE_RUN, "rpg_digits_mlp"), (SEEDS, "rpg_digits_seeds")])
def test_on_digits_rpg_has_the_values_that_were_measured_there(facts, name):
    found = resolve(yaml.safe_load(Path(find_config("rpg")).read_text()), RPG.recipe(facts)).config
    measured = yaml.safe_load(Path(find_config(name)).read_text())
    assert found["trainer"]["max_steps"] == measured["trainer"]["max_steps"]
    assert found["data"]["batch_size"] == measured["data"]["batch_size"]
    codec, expected = (config["data"]["codec"]["init_args"] for config in (found, measured))
    assert codec == {"normalisation": "layer", **expected}
    model, expected = (config["model"]["init_args"] for config in (found, measured))
    state = {"kind": "checkpoint", **expected["state"]}
    head = {"hidden": 128, **expected["head"]}
    assert model == {**{k: v for k, v in expected.items() if k != "sampling"}, "state": state, "head": head}


def test_rpg_has_a_state_per_run_and_more_steps_for_more_runs():
    one, many = RPG.recipe(ONE_RUN), RPG.recipe(SEEDS)
    conditional = RPG.recipe(SEEDS._replace(conditional=True))
    assert [r["model.state.kind"] for r in (one, many, conditional)] == ["checkpoint", "run", "none"]
    assert one["trainer.max_steps"] < many["trainer.max_steps"]


@pytest.mark.parametrize("option", [["--data.zoo", "{zoo}"], ["--data.zoo={zoo}"]])
@pytest.mark.parametrize("first", [True, False])
def test_command_line_gets_numbers_wherever_the_zoo_is_named(zoo, option, first):
    named = [word.format(zoo=zoo.path) for word in option]
    words = ["fit", *named, "--config", "rpg"] if first else ["fit", "--config", "rpg", *named]
    config = yaml.safe_load(next(word for word in with_recipes(words) if "\n" in word))
    assert config["trainer"]["max_steps"] == RPG.recipe(Facts.of(zoo))["trainer.max_steps"]
    assert not needs_recipe(config)


def test_a_config_of_devices_has_no_recipe_and_the_zoo_may_be_in_another_config(zoo, tmp_path):
    (tmp_path / "data.yaml").write_text(f"data: {{zoo: {zoo.path}}}")
    words = ["fit", "--config", "rpg", "--config", "trainer/ddp", "--config", str(tmp_path / "data.yaml")]
    fit, _, generator, _, *rest = with_recipes(words)
    assert [fit, *rest] == ["fit", "trainer/ddp", "--config", str(tmp_path / "data.yaml")]
    assert yaml.safe_load(generator)["trainer"]["max_steps"] == RPG.recipe(Facts.of(zoo))["trainer.max_steps"]


def test_configs_without_auto_are_left_alone():
    words = ["fit", "--config=rpg_digits_mlp", "--data.zoo", "nowhere"]
    assert with_recipes(words) == words


def test_a_config_that_follows_the_zoo_needs_one():
    with pytest.raises(ParamgenError, match=r"'rpg' follows the zoo: pass one as --data\.zoo"):
        with_recipes(["fit", "--config", "rpg"])


def test_values_are_printed_stored_and_overridden(zoo, tmp_path, caplog):
    caplog.set_level("INFO", logger="paramgen")
    where = ["--checkpoint.dirpath", str(tmp_path), "--trainer.logger=false", "--quality.sample_every=0"]
    main(["fit", "--config", "pdiff", "--data.zoo", str(zoo.path), "--trainer.max_steps", "2", *where])
    assert f"for {Facts.of(zoo)}: model." in caplog.text
    stored = yaml.safe_load(load_generator(tmp_path / "last.ckpt").fit_config)
    assert stored["trainer"]["max_steps"] == 2
    lr = PDiff.recipe(Facts.of(zoo))["model.optimizer.lr"]
    assert stored["model"]["init_args"]["optimizer"]["lr"] == lr
