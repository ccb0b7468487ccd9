"""Authors or styles as tasks: one causal language model of transformers, and an adapter for each text."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from paramgen.errors import ParamgenError, require_positive
from paramgen.tasks.arrays import ArraySplit
from paramgen.tasks.base import Description, SplitData, TaskFamily
from paramgen.tasks.language.models import Model, PredictsTokens, causal_lm, logits_only, plain_model
from paramgen.tasks.language.texts import Tokenizer, character_shares, read_text, sequences, tokenizer_of
from paramgen.tasks.lora import LoraSettings, lora_settings

TINY_LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "tie_word_embeddings": True,
}


class LanguageFamily(PredictsTokens, TaskFamily):
    """Language modelling of several texts, each a task: perplexity, lower is better. A task's name is that of its text.

    The texts are the sources of Python's own modules, whose authors write differently (they also differ between versions of Python), or
    files ``NAME.txt`` of one's own.

    Args:
        seen: Seen texts: names of Python's modules, such as ``turtle``, or of files in `root`.
        unseen: Unseen texts.
        base: Texts that the model is pretrained on before adapters are put in. Default: the seen texts. They may be seen ones.
        model: A configuration of transformers with ``model_type``; or a folder or a name at Hugging Face. Default: a LLaMA of 2 layers.
        pretrained: Start from the weights of a `model` that is a folder or a name, which is then not pretrained here.
        tokenizer: Folder or name of a tokenizer. Default: characters.
        lora: Generate adapters (LoRA or DoRA) on the pretrained model, instead of complete models.
        root: Folder of the texts. Default: Python's modules.
        context: Tokens of a sequence.
        train: Tokens of a text's train split.
        held: Tokens of its val split, and of its test split. All are from the text's start; sequences of val and test are spread evenly.
        dtype: Data type of the model's weights.

    Raises:
        ParamgenError: A number that is too small, no seen text, a text given twice, or one that is missing or too short.
    """

    reads: ClassVar[Sequence[str]] = ("model", "tokenizer")

    def __init__(
        self,
        seen: list[str],
        unseen: list[str] | None = None,
        base: list[str] | None = None,
        model: Model | None = None,
        pretrained: bool = False,
        tokenizer: str | None = None,
        lora: LoraSettings | None = None,
        root: str | None = None,
        context: int = 64,
        train: int = 36_000,
        held: int = 4_000,
        dtype: str = "float32",
    ) -> None:
        require_positive(context=context, train=train, held=held)
        names = [*seen, *(unseen or [])]
        if not seen or len(set(names)) < len(names):
            raise ParamgenError(
                f"seen is {seen} and unseen is {unseen}, expected each text once and one seen text or more"
            )
        if held <= context or train < held:
            raise ParamgenError(
                f"held is {held}, expected more tokens than context {context}, and no more than train {train}"
            )
        self.seen, self.unseen, self.base = list(seen), list(unseen or []), base
        self.model, self.pretrained, self.tokenizer = plain_model(model, TINY_LLAMA), pretrained, tokenizer
        self.lora, self.root, self.dtype = lora_settings(lora), root, dtype
        self.context, self.train, self.held = context, train, held
        self._tokens, self._split = lru_cache(self._read), lru_cache(maxsize=None)(self._join)

    def plain(self) -> nn.Module:
        """The model without adapters: tokens (B, T) to logits (B, T, V)."""
        return logits_only(causal_lm(self.model, self._tokenizer.size, self.pretrained, self.dtype))

    def pooled(self, names: Sequence[str], split: str) -> SplitData:
        """Sequences (M, T) of one text, or of several together, and the tokens that follow (M, T)."""
        self.check(names, split)
        return self._split(tuple(names), split)

    def pretraining(self, split: str) -> SplitData | None:
        """The texts of the base; None where the weights are published ones, or nothing is adapted."""
        given = self.pretrained and isinstance(self.model, str)
        return None if given or self.lora is None else self._split(tuple(self.base or self.seen), split)

    def describe(self, name: str) -> Description:
        """Its code: how frequent each of 96 characters is in the part that is used, compared with the seen texts."""
        self.check([name])
        code = (self._shares(name) - self._seen_shares.mean(0)) / self._seen_shares.std(0, correction=0).clamp_min(0.1)
        return Description(name, self.names.index(name), code, None, torch.zeros(0, 1, 1, 1))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return tokenizer_of(self.tokenizer)

    @cached_property
    def _seen_shares(self) -> Tensor:
        return torch.stack([self._shares(name) for name in self.seen])  # (seen, 96)

    def _shares(self, name: str) -> Tensor:
        text = read_text(name, self.root)
        return character_shares(text[: len(text) * self._used // len(self._tokens(name))])

    def _join(self, names: tuple[str, ...], split: str) -> ArraySplit:
        """A split of some texts."""
        parts = [self._pieces(name) for name in names]
        index = self._places[split]
        return ArraySplit(torch.cat([p.inputs[index] for p in parts]), torch.cat([p.targets[index] for p in parts]))

    def _pieces(self, name: str) -> ArraySplit:
        """All sequences of a text that are used."""
        return sequences(self._tokens(name)[: self._used], self.context)

    @property
    def _used(self) -> int:
        """Tokens of a text that are used."""
        return self.train + 2 * self.held

    @cached_property
    def _places(self) -> dict[str, Tensor]:
        """Which sequences of a text each split has; val and test are spread evenly, for the style changes within a text."""
        count, held = (self._used - 1) // self.context, self.held // self.context
        step = torch.arange(held) * count / held
        val, test = (step + count / held / 4).long(), (step + 3 * count / held / 4).long()
        train = torch.ones(count, dtype=torch.bool).index_fill(0, torch.cat([val, test]), value=False)
        return {"train": train.nonzero()[:, 0], "val": val, "test": test}

    def _read(self, name: str) -> Tensor:
        """All tokens of a text."""
        tokens = torch.tensor(self._tokenizer.encode(read_text(name, self.root)))
        if len(tokens) < (needed := self._used):
            raise ParamgenError(f"text {name!r} has {len(tokens)} tokens; train and twice held need {needed}")
        return tokens
