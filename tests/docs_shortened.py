"""How the tests shorten the steps of the documentation, what stands in for what is not here, and what is not run.

A step that no row mentions runs as it stands. Patterns are regular expressions. The first two tables are applied row by row to every step.
"""

from collections.abc import Callable
from typing import NamedTuple

import docs_stand_ins as make


class Change(NamedTuple):
    """A shorter form of a step."""

    why: str
    pattern: str
    to: str


class StandIn(NamedTuple):
    """A function that makes what is not here and returns its name."""

    why: str
    pattern: str
    made: Callable


class Instead(NamedTuple):
    """A check in place of a command whose beginning fits; if `quick`, in the normal suite alone."""

    why: str
    pattern: str
    run: Callable
    quick: bool = False
    page: str = ""  # of this one alone


END = r"(?= --shard|$)"  # options that shorten a command come before its shard


def more(why: str, command: str, options: str) -> Change:
    """Options at the end of a command."""
    return Change(why, rf"^((?:srun .*)?paramgen +(?:{command}).*?){END}", rf"\1 {options}")


NAMES = [  # words in capitals that a reader replaces
    Change("a recipe of a zoo", r"(?<=collect --config )NAME", "digits_mlp_trajectory"),
    Change("a recipe of a zoo of tasks", r"(?<=collect_tasks --config )NAME", "digits_relabel"),
    Change("a comparison", r"(?<=compare --config )NAME", "digits"),
    Change(
        "a generator",
        r"(?<=(?:plan|.fit) --config )NAME|(?<=predict --config )NAME",
        "pdiff_digits_mlp --data.zoo digits_small",
    ),
    Change("a zoo", r"(?<=--zoo )NAME|(?<=-zoo )ZOO|(?<=data.zoo )ZOO", "digits_small"),
    Change("a folder that a command writes", r"(paramgen (\w+) .*--out )DIR", r"\1\2_out"),
    Change("a folder of samples", r"(?<=--samples )DIR", "sample_out"),
    Change("a format", r"(?<=--format )FORMAT", "pth"),
    Change("two tasks", r"\[A, B\]", "[rotation-010, rotation+010]"),
]

STAND_INS = [
    StandIn("the reader's networks", r"(?<=--source )FOLDER(?=.*acc\{)", make.named_networks),
    StandIn("the reader's networks", r"(?<=--source )FOLDER", make.networks),
    StandIn("a new folder", r"(?<=--out )ZOO|(?<=--out )CONVERTED", make.new_folder),
    StandIn("the reader's adapters", r"(?<=--source )ADAPTERS", make.adapters),
    StandIn("the last fit's checkpoint", r"\bCKPT\b|(?<=consolidate --ckpt_path )FOLDER", make.checkpoint),
    StandIn("a file of a release", r"dist/generators/digits_rpg\.ckpt", make.released_checkpoint),
    StandIn("published networks of planes", make.PLANES, make.planes),
    StandIn("a generator on the Hub", r"hf://owner/name(?= )", make.generator_on_hub),
    StandIn("networks on the Hub", r"hf://owner/name@main", make.networks_on_hub),
    StandIn("a language model on the Hub", r"llama7b", make.llama),
    StandIn("a dataset", r"(?<=root )PACS", make.pacs),
    StandIn("datasets", r"cifar10|mnist|pacs", make.data),
]

SHORTER = [
    more(
        "few networks",
        r"collect (?!.*--task )",
        "--runs 4 --val_runs 1 --heldout_runs 1 --checkpoints 4 --save_every 1",
    ),
    more("little training", r"collect (?!.*(?:_common|_whole_training|--epochs))", "--epochs 1"),
    more("there are few steps in all", r"collect .*(?:field_seeds|vit_seeds|cifar10_|mnist)", "--checkpoints 1"),
    more("few pictures", r"collect .*digits_f(?:cn|cos)", "--task.init_args.scenes 40"),
    more(
        "few pictures", r"collect .*digits_unet", "--task.init_args.images 8 --task.init_args.steps 2 --score_images 8"
    ),
    more("little training", r"collect_tasks", "--steps 2"),
    more("little training", r"collect_tasks .*(?:_lora|language_author|pacs)", "--networks 2 --pretraining.steps 2"),
    more("few tasks", r"collect_tasks .*digits_relabel", "--family.init_args.seen 60 --family.init_args.unseen 10"),
    more("little training", r"collect_tasks .*(?:rotations_lora|pacs)", "--start_steps 2"),
    more("short texts", r"collect_tasks .*language_author", "--family.init_args.train 800 --family.init_args.held 200"),
    more("few fields", r"collect_tasks .*fields", "--family.init_args.fields 12 --family.init_args.heldout 4"),
    more(
        "little training",
        r"fit (?!.*print_config)",
        "--trainer.max_steps 2 --trainer.enable_progress_bar false --quality.sample_every 0",
    ),
    more(
        "the first phase ends before",
        r"fit .*(?:d2nwg|wild|pdiff_digits_(?:autoencoder|paper))",
        "--model.init_args.autoencoder.steps 1",
    ),
    more("few networks", r"sample", "--n 2"),
    more("few networks", r"evaluate", "--n 2"),
    more("no baselines", r"evaluate(?!.*--baselines)", "--baselines none"),
    more("little training", r"(?:tickets|zoo prune)", "--steps 2"),
    Change("few networks", r"--start 1008", "--start 3"),
    more("one recipe of a folder", r"collect .*pacs_photo", "--task.init_args.root data/PACS/photo"),
    more("one family of a folder", r"collect_tasks .*pacs_domains(?!.*root)", "--family.init_args.root data/PACS"),
    Change("little training", r'(?<=fit\("pdiff_digits_mlp", )zoo=zoo', '{"trainer.max_steps": 2}, zoo=zoo'),
    Change("little training", r'(?<="trainer.max_steps": )500', "2"),
    Change("few networks", r"(?<=range\()60", "30"),
    Change("few networks", r"(?<=\.sample\()100", "3"),
    Change("one baseline", r"(?<=evaluate\(zoo, networks)(?=\))", ', baselines="soup-2"'),
]

INSTEAD = [
    Instead("the suite is such a target", r"make ", make.target_exists),
    Instead("needs a network connection", r"git clone ", make.not_run),
    Instead("needs a network connection", r"pip install ", make.extra_exists),
    Instead("changes the reader's shell", r"eval ", make.evaluated_by_bash),
    Instead("needs machines", r"#!/bin/bash", make.valid_script),
    Instead("needs GPUs", r"(?:torchrun .*)?paramgen fit .*(?:rpg_vit_base|llama7b|efficientnet)", make.resolved_fit),
    Instead(
        "needs a GPU, data or weights",
        r"paramgen collect(?:_tasks)? .*(?:_imagenet|_ade20k|_coco|llama7b|efficientnet|mobilenet|ddpm_unet|resnet18_cifar10(?!_norms))",
        make.resolved_recipe,
    ),
    Instead("needs machines", r"srun --ntasks 8 paramgen ", make.as_two_tasks),
    Instead("is the reader's", r"cd |python3 -m venv |source ", make.not_run),
    Instead("runs on pages of its own", r"paramgen (?:interpolate|flips|tickets) .*digits_small", make.parsed),
    Instead("runs on pages of its own", r"paramgen (?:unseen|adapters|sample .*) .*--zoo digits_small", make.parsed),
    Instead("needs a comparison", r"paramgen interpolate --comparison", make.parsed, quick=True),
    Instead("takes 2 s", r"paramgen flips ", make.parsed, quick=True),
    Instead("takes 4 s", r"paramgen collect_tasks .*language_authors", make.resolved_recipe, quick=True),
    Instead("its zoo takes 4 s", r"paramgen fit .*pdiff_language", make.resolved_fit, quick=True),
    Instead("takes 10 s in all", r"paramgen collect", make.parsed, quick=True, page="checkpoints_zoo/README.md"),
    Instead("takes 10 s", r"paramgen plan .*rpg_vit_base", make.resolved_fit, quick=True),
    Instead(
        "takes 2 to 5 s",
        r"paramgen collect(?:_tasks)? .*(?:resnet18_cifar10|digits_unet|digits_fcos|vit_seeds(?! --runs 6))",
        make.resolved_recipe,
        quick=True,
    ),
    Instead("needs GPUs", r"paramgen compare --config (?:rpg_table3 |rpg_resnet18|hyperdiffusion)", make.parsed),
    Instead("takes minutes", r"paramgen compare ", make.parsed, quick=True),
    Instead("takes minutes", r"paramgen compare ", make.shortened_comparison),
    Instead("measures for hours", r"(?:\w+=\S+ )*python benchmarks/", make.options_exist),
]
