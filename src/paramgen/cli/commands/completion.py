"""``paramgen completion bash | zsh | fish``: a script that completes commands, verbs, options and the names of configs and zoos.

The script asks ``paramgen completion --words …`` for candidates. Nothing heavy is imported to answer: options are read from the source of
the commands.
"""

import ast
from importlib.util import find_spec
from pathlib import Path

from paramgen.cli.dispatch import FUNCTIONS, LIGHTNING
from paramgen.cli.given import PLAN_OPTIONS
from paramgen.core.paths import CONFIG_KINDS, DEVICE_CONFIGS, list_configs, zoo_dirs, zoo_recipes
from paramgen.errors import ParamgenError, did_you_mean

ASK = "--words"
SCRIPTS = {
    "bash": """\
# bash completion of paramgen: eval "$(paramgen completion bash)" in ~/.bashrc
_paramgen() {
    local IFS=$'\\n'
    COMPREPLY=($(paramgen completion --words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _paramgen paramgen""",
    "zsh": """\
#compdef paramgen
# zsh completion of paramgen: eval "$(paramgen completion zsh)" in ~/.zshrc, after compinit
_paramgen() {
    local -a found
    found=("${(@f)$(paramgen completion --words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then compadd -a found; else _files; fi
}
compdef _paramgen paramgen""",
    "fish": """\
# fish completion of paramgen: paramgen completion fish | source, in ~/.config/fish/config.fish
function __paramgen_words
    set -l words (commandline -opc) (commandline -ct)
    paramgen completion --words $words[2..-1] 2>/dev/null
end
complete -c paramgen -a '(__paramgen_words)'""",
}
FIT_OPTIONS = (
    "config",
    "model",
    "model.optimizer.lr",
    "data.zoo",
    "data.codec",
    "data.batch_size",
    "data.trust",
    "trainer.max_steps",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.precision",
    "trainer.default_root_dir",
    "checkpoint.dirpath",
    "ckpt_path",
    "seed_everything",
)


def main(args: list[str]) -> None:
    """Print the script that completes commands, options and names in bash, zsh or fish.

    Args:
        args: The shell; or ``--words`` and the words after ``paramgen`` up to the cursor, which prints the candidates.

    Raises:
        ParamgenError: Another shell.
    """
    if args[:1] == [ASK]:
        print("\n".join(candidates(args[1:])))
        return
    if not args or args[0] in ("-h", "--help"):
        print(f"usage: paramgen completion {' | '.join(SCRIPTS)}\n\n{(main.__doc__ or '').splitlines()[0]}")
        return
    if args[0] not in SCRIPTS:
        raise ParamgenError(f"Unknown shell {args[0]!r}. {did_you_mean(args[0], SCRIPTS)}")
    print(SCRIPTS[args[0]])


def candidates(words: list[str]) -> list[str]:
    """What the last word may become, in order.

    Args:
        words: The words after ``paramgen`` up to the cursor; the last one may be empty. bash makes ``=`` a word of its own.
    """
    *before, current = [word for word in words if word != "="] or [""]
    return sorted(name for name in _names(before) if name.startswith(current) and not name.startswith("_"))


def _names(before: list[str]) -> list[str]:
    """All that may follow some words."""
    if not before:
        return [*LIGHTNING, *FUNCTIONS, "--help", "--version"]
    command, last, verbs = before[0], before[-1], _verbs(before[0])
    if last in ("-c", "--config"):
        return _configs(command)
    if last in ("--zoo", "--data.zoo"):
        return [path.parent.name for folder in zoo_dirs() for path in folder.glob("*/zoo.json")]
    if command == "configs" and last in ("--show", "--folder"):
        kinds = [kind for kind in CONFIG_KINDS if kind]
        return kinds if last == "--folder" else [name for kind in CONFIG_KINDS for name in list_configs(kind)]
    if command == "completion":
        return [*SCRIPTS] if len(before) == 1 else []
    if verbs and len(before) == 1:
        return [*verbs]
    return [f"--{name}" for name in _options(command, verbs.get(before[1], "") if verbs else "main")]


def _configs(command: str) -> list[str]:
    """The shipped configs of a command."""
    if command in ("collect", "collect_tasks"):
        return [name for name, recipe in zoo_recipes().items() if recipe.of_tasks == (command == "collect_tasks")]
    if command in (*LIGHTNING, "plan"):
        return [*list_configs(), *(f"{DEVICE_CONFIGS}/{name}" for name in list_configs(DEVICE_CONFIGS))]
    folder = FUNCTIONS[command].configs if command in FUNCTIONS else ""
    return [*list_configs(folder)] if folder else []


def _verbs(command: str) -> dict[str, str]:
    """The verbs of a command such as ``zoo``, and the names of their functions."""
    if command not in FUNCTIONS:
        return {}
    for node in _source(f"paramgen.{FUNCTIONS[command].module}").body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        target, value = node.targets[0] if isinstance(node, ast.Assign) else node.target, node.value
        if isinstance(target, ast.Name) and target.id == "COMMANDS" and isinstance(value, ast.Dict):
            pairs = zip(value.keys, value.values, strict=True)
            return {str(k.value): v.id for k, v in pairs if isinstance(k, ast.Constant) and isinstance(v, ast.Name)}
    return {}


def _options(command: str, function: str) -> list[str]:
    """The options of a command, or of the function of one of its verbs."""
    if command in LIGHTNING or command == "plan":
        return [*FIT_OPTIONS, *(PLAN_OPTIONS if command == "plan" else ())]
    if command not in FUNCTIONS:
        return []
    return ["config", *_parameters(f"paramgen.{FUNCTIONS[command].module}", function)]


def _parameters(module: str, function: str) -> list[str]:
    """The parameters of a function of a module, or of one that it imports by this name."""
    for node in _source(module).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
        if isinstance(node, ast.ImportFrom) and node.module and function in [a.asname or a.name for a in node.names]:
            (name,) = [alias.name for alias in node.names if (alias.asname or alias.name) == function]
            return _parameters(node.module, name)
    return []


def _source(module: str) -> ast.Module:
    spec = find_spec(module)
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else "")
