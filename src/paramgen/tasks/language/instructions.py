"""Instructions to fine-tune a language model on, and the public tests of lm-eval that measure it: RPG's Table 3 (arXiv:2501.11587).

M: instructions of a split. T: tokens of a sequence. Departs: RPG does not say how it scores. Here lm-eval compares the likelihoods of
the answers (``acc``), so figures are not comparable with the paper's one by one.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from paramgen.core.io import read_json
from paramgen.core.params import with_versions
from paramgen.core.score import ACCURACY
from paramgen.errors import ParamgenError, one_line, require_positive
from paramgen.tasks.arrays import ArraySplit
from paramgen.tasks.base import SplitData, Task
from paramgen.tasks.language.models import IGNORED, Model, PredictsTokens, causal_lm, logits_only
from paramgen.tasks.language.texts import load_tokenizer
from paramgen.tasks.lora import LoraSettings, inject, lora_settings
from paramgen.tasks.score import Measured, Scores
from paramgen.tasks.weights import load_weights_file

COMMONSENSE = ("boolq", "piqa", "social_iqa", "hellaswag", "arc_easy", "arc_challenge", "openbookqa")  # lm-eval's names
PROMPT = (  # Alpaca's, which the commonsense instructions are used with
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


class InstructionTask(PredictsTokens, Task):
    """Follow instructions, with LoRA or DoRA. The score is an accuracy.

    ``train`` and ``val``: the share of answers whose every token is the likeliest. ``test``: the mean accuracy on public tests by lm-eval.

    Args:
        file: A JSON list of ``{"instruction", "output"}`` (and ``input``), such as LLM-Adapters' ``commonsense_170k.json``.
        model: Folder or name at Hugging Face of a causal language model with its tokenizer; or a configuration with ``model_type``.
        lora: The adapters. Default: complete models are trained.
        tokenizer: Folder or name of the tokenizer. Default: the model's.
        tests: Tests of lm-eval. Default: the seven of commonsense reasoning.
        test_folder: Folder with one's own tests for lm-eval, as YAML.
        test_items: Maximum number of items of each test. Default: all.
        context: Tokens of a sequence; longer instructions lose their start.
        val_items: Number of instructions, the last of the file, that are the val split.
        batch_size: Items that lm-eval runs at once.
        dtype: Data type of the model's weights.

    Raises:
        ParamgenError: A number below 1, no tests, or a configuration without a tokenizer.
    """

    score = ACCURACY
    reads: ClassVar[Sequence[str]] = ("file", "model", "tokenizer", "test_folder")

    def __init__(
        self,
        file: str,
        model: Model,
        lora: LoraSettings | None = None,
        tokenizer: str | None = None,
        tests: Sequence[str] = COMMONSENSE,
        test_folder: str | None = None,
        test_items: int | None = None,
        context: int = 256,
        val_items: int = 120,
        batch_size: int = 8,
        dtype: str = "float32",
    ) -> None:
        require_positive(context=context, val_items=val_items, batch_size=batch_size, test_items=test_items)
        if not tests:
            raise ParamgenError(f"tests is empty; name tests of lm-eval, such as {', '.join(COMMONSENSE)}")
        if tokenizer is None and not isinstance(model, str):
            raise ParamgenError("tokenizer is missing: a model that is a configuration has none of its own")
        self.file, self.model, self.tokenizer, self.lora = file, model, tokenizer, lora_settings(lora)
        self.tests, self.test_folder, self.test_items = list(tests), test_folder, test_items
        self.context, self.val_items, self.batch_size, self.dtype = context, val_items, batch_size, dtype

    def plain(self) -> nn.Module:
        """The model without adapters, with random weights."""
        return logits_only(self._model())

    def build(self) -> nn.Module:
        """The model with adapters, where there are any, and random weights."""
        return self.adapted()

    def start(self, source: str) -> nn.Module:
        """The model with its published weights (``pretrained``) or those of a weights file, and fresh adapters."""
        if source == "pretrained":
            network = logits_only(self._model(pretrained=True))
        else:
            network = self.plain()
            load_weights_file(network, source)
        return network if self.lora is None else inject(network, self.lora)

    def data(self, split: str) -> SplitData:
        """Sequences (M, T), and the tokens of their answers (M, T); elsewhere targets are -100.

        Raises:
            ParamgenError: The file cannot be read; or the test split, which lm-eval reads.
        """
        self.check([None], split)
        if split == "test":
            raise ParamgenError("the test split is read by lm-eval, and has no items here")
        return self._splits_of_file[split]

    def count(self, split: str, most: int | None = None) -> int:
        """Number of items; of the test split, an upper bound or 1."""
        return (self.test_items or 1) * len(self.tests) if split == "test" else super().count(split, most)

    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """Whether every token of an answer is the likeliest (N, B)."""
        return Measured(((output.argmax(-1) == target) | (target == IGNORED)).all(-1))

    def value(self, items: Tensor) -> Tensor:
        """Accuracy (N,)."""
        return items.double().mean(1)

    def evaluate(
        self,
        states: Sequence[Mapping[str, Tensor]],
        split: str,
        most: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Scores:
        """Accuracies of complete models; on the test split, `most` has no effect."""
        if split != "test":
            return super().evaluate(states, split, most, device)
        each = [self.accuracies(state, device) for state in states]
        return Scores(torch.tensor([sum(a.values()) / len(a) for a in each], dtype=torch.float64))

    def accuracies(self, state: Mapping[str, Tensor], device: torch.device | str = "cpu") -> dict[str, float]:
        """Accuracy of a complete model on each of the tests.

        Raises:
            ParamgenError: lm-eval is not installed, has no such test, or cannot read its data.
        """
        harness, model = _harness(), self._bare.to(device)
        model.load_state_dict(with_versions(state, model))
        wrapped = harness.model(pretrained=model.eval(), tokenizer=self._tokenizer, batch_size=self.batch_size)
        try:
            found = harness.evaluate(wrapped, self._tests, limit=self.test_items, bootstrap_iters=0, log_samples=False)
        except (OSError, ValueError, KeyError) as error:
            raise ParamgenError(f"lm-eval cannot run {', '.join(self.tests)}: {one_line(error)}") from error
        return {name: float(found["results"][name]["acc,none"]) for name in self.tests}

    def _model(self, pretrained: bool = False) -> nn.Module:
        return causal_lm(self.model, len(self._tokenizer), pretrained, self.dtype)

    @cached_property
    def _bare(self) -> nn.Module:
        """The model as lm-eval takes it: it returns what transformers returns."""
        with torch.random.fork_rng(devices=[]):
            model = self._model()
            return model if self.lora is None else inject(model, self.lora)

    @cached_property
    def _tests(self) -> Any:
        """The tests as lm-eval has them; its own thousands are looked through only where a name is not in the folder."""
        manager = _harness().manager
        found = manager(include_path=self.test_folder, include_defaults=False) if self.test_folder else None
        if found is None or not {*self.tests} <= {*found.all_tasks}:
            found = manager(include_path=self.test_folder)
        return found.load(self.tests)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.tokenizer or str(self.model))

    @cached_property
    def _splits_of_file(self) -> dict[str, ArraySplit]:
        records = read_json(Path(self.file))
        if not isinstance(records, list) or not all(_is_instruction(record) for record in records):
            raise ParamgenError(f'{self.file}: expected a list of {{"instruction": "…", "output": "…"}}')
        if len(records) <= self.val_items:
            raise ParamgenError(f"{self.file} has {len(records)} instructions, and val_items is {self.val_items}")
        tokens, targets = (torch.stack(column) for column in zip(*map(self._encode, records), strict=True))
        train = len(records) - self.val_items
        return {
            "train": ArraySplit(tokens[:train], targets[:train]),
            "val": ArraySplit(tokens[train:], targets[train:]),
        }

    def _encode(self, record: Mapping[str, str]) -> tuple[Tensor, Tensor]:
        """One instruction: tokens (T,), padded after its end, and targets (T,)."""
        asked = "\n".join(part for part in (record["instruction"], record.get("input", "")) if part)
        end = [] if self._tokenizer.eos_token_id is None else [self._tokenizer.eos_token_id]
        question = self._tokenizer(PROMPT.format(instruction=asked))["input_ids"]
        answer = self._tokenizer(record["output"], add_special_tokens=False)["input_ids"] + end
        line = [*question, *answer][-(self.context + 1) :]
        start = max(0, len(line) - len(answer))
        learned = [IGNORED] * start + line[start:]
        padding = self.context + 1 - len(line)  # to the right, where no earlier token sees it
        return torch.tensor(line + padding * [0])[:-1], torch.tensor(learned + padding * [IGNORED])[1:]


def _is_instruction(record: Any) -> bool:
    return isinstance(record, dict) and all(isinstance(record.get(key), str) for key in ("instruction", "output"))


class _Harness(NamedTuple):
    """What is used of lm-eval."""

    evaluate: Any
    model: Any
    manager: Any


def _harness() -> _Harness:
    try:
        import lm_eval  # takes seconds, and is an optional dependency
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ParamgenError("these tests need lm-eval, which is not installed: pip install 'paramgen[lm]'") from error
    return _Harness(lm_eval.evaluate, HFLM, TaskManager)
