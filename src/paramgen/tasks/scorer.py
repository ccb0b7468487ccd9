"""A score computed by one function of the user: ``scorer(network) -> float``, for networks of any class, without paramgen's data."""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from math import nan
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from paramgen.core.params import state_digest
from paramgen.core.score import ScoreAxis, ScoreSpec, Unit
from paramgen.core.trust import import_class, import_function
from paramgen.errors import ParamgenError, arguments_for, one_line
from paramgen.tasks.base import Task
from paramgen.tasks.score import Scores
from paramgen.tasks.vision.networks import build_network
from paramgen.tasks.weights import load_weights

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Score(NamedTuple):
    """A network's score; NaN and the error if the function raised one."""

    value: float
    error: str = ""


class ScorerTask(Task):
    """Score networks one by one with a function of your own.

    A network has no score if the function raises an error or returns NaN or infinity; the others are still scored. There are no
    data, and nothing is trained.

    Args:
        network: ``package.module.Class`` of the networks, also of a module in the working folder; or a name that ClassificationTask takes,
            with ``num_classes`` and ``in_shape`` among `network_args`.
        scorer: ``package.module.function``, called as ``scorer(network)`` with a loaded ``nn.Module`` in evaluation mode, once for each
            network. Where it has a second argument, it is called for each split and given ``train``, ``val`` or ``test``.
        network_args: Arguments of the network's class.
        name: Of the score, in tables and on axes.
        unit: ``percent`` (the function returns a fraction), ``dB`` or ``plain``.
        higher_is_better: The direction.
        margin: A network is good when its score is not worse than the zoo's mean by more than this.
        axis: How a picture spreads the score: ``error`` (logarithm of 1 - score), ``log`` or ``linear``.

    Raises:
        ParamgenError: The function cannot be imported, or the margin is below 0.
    """

    has_data = False

    def __init__(
        self,
        network: str,
        scorer: str,
        network_args: dict[str, Any] | None = None,
        name: str = "score",
        unit: Unit = "plain",
        higher_is_better: bool = True,
        margin: float = 0.01,
        axis: ScoreAxis = "linear",
    ) -> None:
        if not margin >= 0:
            raise ParamgenError(f"margin is {margin}, expected 0 or more")
        self.network, self.scorer, self.network_args = network, scorer, dict(network_args or {})
        self.name, self.unit, self.higher_is_better, self.margin, self.axis = name, unit, higher_is_better, margin, axis
        self.score = ScoreSpec(name, unit, higher_is_better, margin, axis)
        self._function = import_function(scorer, "scorer")
        self._takes_split = _takes_split(self._function)
        self._known: dict[tuple[str, str], Score] = {}

    def build(self) -> nn.Module:
        """The plain network, freshly initialised from torch's global seed.

        Raises:
            ParamgenError: No such class, or arguments that it does not take.
        """
        if "." not in self.network or ":" in self.network:
            return self._named_network()
        make = import_class(self.network, nn.Module, "network")
        with arguments_for(f"network {self.network!r}"):
            return make(**self.network_args)

    def evaluate(
        self,
        states: Sequence[Mapping[str, Tensor]],
        split: str,
        most: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Scores:
        """Scores of complete networks, which the function is given one by one; `most` is left to the function.

        Equal networks are scored once: a function without a split gives one score for all splits.
        """
        results = [self._score(state, split, device) for state in states]
        value = torch.tensor([score.value for score in results], dtype=torch.float64)
        return Scores(value, failed={i: score.error for i, score in enumerate(results) if score.error})

    def count(self, split: str, most: int | None = None) -> int:
        """1: the function is called once a network."""
        return 1

    def data(self, split: str) -> NoReturn:
        """Always empty."""
        raise self._without_data()

    def loss(self, output: Tensor, target: Tensor) -> NoReturn:
        """Undefined: nothing is trained."""
        raise self._without_data()

    def measure(self, output: Tensor, target: Tensor) -> NoReturn:
        """Undefined: there are no items."""
        raise self._without_data()

    def _without_data(self) -> ParamgenError:
        return ParamgenError(
            f"ScorerTask has no data, so nothing can be trained with it; its score is {self.scorer}. "
            "Give a task with data instead: docs/own-task.md"
        )

    def _named_network(self) -> nn.Module:
        arguments = dict(self.network_args)
        if missing := [name for name in ("num_classes", "in_shape") if name not in arguments]:
            raise ParamgenError(f"network {self.network!r} of ScorerTask needs {missing[0]} in network_args")
        classes, shape = arguments.pop("num_classes"), tuple(arguments.pop("in_shape"))
        return build_network(self.network, classes, shape, **arguments)

    def _score(self, state: Mapping[str, Tensor], split: str, device: torch.device | str) -> Score:
        key = state_digest(state), split if self._takes_split else ""
        if key not in self._known:
            with torch.random.fork_rng(devices=[]):
                network = self.build()
            load_weights(network, dict(state), "network to score")
            self._known[key] = self._call(network.to(device).eval(), split)
        return self._known[key]

    def _call(self, network: nn.Module, split: str) -> Score:
        try:
            returned = self._function(network, split) if self._takes_split else self._function(network)
            return Score(float(returned.detach() if isinstance(returned, Tensor) else returned))
        except Exception as error:  # the user's code may raise anything
            return Score(nan, f"{self.scorer} raised {type(error).__name__}: {one_line(error)}")


def scorer_task(
    scorer: str | None, network: str | None, lower_is_better: bool = False, margin: float = 0.01
) -> ScorerTask | None:
    """The task of a function that is given without one; the score is called what the function is called.

    Args:
        scorer: ``package.module.function``; None: there is no such task.
        network: ``package.module.Class`` of the networks.
        lower_is_better: The direction of the score.
        margin: A network is good when its score is not worse than the zoo's mean by more than this.

    Raises:
        ParamgenError: One of scorer and network is missing, or cannot be imported.
    """
    if scorer is None and network is None:
        return None
    if scorer is None or network is None:
        given, missing = ("network", "scorer") if scorer is None else ("scorer", "network")
        what = "the function that scores a network" if scorer is None else "the class of the networks"
        raise ParamgenError(f"--{given} needs --{missing}: {what}, as a dotted path")
    name = scorer.rpartition(".")[2]
    return ScorerTask(scorer=scorer, network=network, name=name, higher_is_better=not lower_is_better, margin=margin)


def _takes_split(function: Callable[..., Any]) -> bool:
    """Whether a function has a second argument that is called ``split`` or must be given."""
    try:
        parameters = [p for p in signature(function).parameters.values() if p.kind in POSITIONAL]
    except (TypeError, ValueError):  # of some functions in C
        return False
    return len(parameters) > 1 and (parameters[1].name == "split" or parameters[1].default is Parameter.empty)
