"""A character-level language model of a text that comes with Python: the language reference that ``help()`` shows (perplexity).

M: positions of a split. C: characters of context. V: characters of the vocabulary. The model is a feed-forward one (Bengio et al. 2003).
"""

from functools import cached_property
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.core.score import ScoreSpec
from paramgen.errors import ParamgenError, require_positive
from paramgen.tasks.arrays import ArraySplit
from paramgen.tasks.base import SplitData, Task
from paramgen.tasks.items import TaskSplit
from paramgen.tasks.score import Measured, cross_entropy

VOCABULARY = "\n !\"'()*,-./0123456789:;=[]_`abcdefghijklmnopqrstuvwxyz"  # V characters; any other is read as a blank


class CharMLP(nn.Module):
    """The next character from the characters before it.

    Args:
        context: C.
        embedding: Width of a character's embedding.
        hidden: Width of the hidden layer.
    """

    def __init__(self, context: int = 6, embedding: int = 8, hidden: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), embedding)
        self.hidden = nn.Linear(context * embedding, hidden)
        self.last = nn.Linear(hidden, len(VOCABULARY))

    def forward(self, characters: Tensor) -> Tensor:
        """Characters (B, C) as places in the vocabulary to logits (B, V)."""
        logits: Tensor = self.last(F.relu(self.hidden(self.embedding(characters).flatten(1))))
        return logits


class TextTask(Task):
    """Predict the next character of Python's language reference (``pydoc_data.topics``; its text differs between versions of Python).

    Args:
        context: Characters that the network sees.
        embedding: Width of a character's embedding.
        hidden: Width of the hidden layer.
        train: Positions of the train split, from the start of the text.
        held: Positions of the val split, and of the test split, which follow it.

    Raises:
        ParamgenError: A size below 1, or more positions than the text has.
    """

    score = ScoreSpec("perplexity", unit="plain", higher_is_better=False, margin=0.1, axis="log")

    def __init__(
        self, context: int = 6, embedding: int = 8, hidden: int = 64, train: int = 50_000, held: int = 5_000
    ) -> None:
        require_positive(context=context, embedding=embedding, hidden=hidden, train=train, held=held)
        self.context, self.embedding, self.hidden, self.train, self.held = context, embedding, hidden, train, held

    def build(self) -> nn.Module:
        """The plain network, freshly initialised from torch's global seed."""
        return CharMLP(self.context, self.embedding, self.hidden)

    def data(self, split: str) -> SplitData:
        """Contexts (M, C) and the characters that follow (M,), as places in the vocabulary."""
        self.check([None], split)
        sizes = (self.train, self.held, self.held)
        parts = self._text[: sum(sizes) + 3 * self.context].split([size + self.context for size in sizes])
        windows = parts[get_args(TaskSplit).index(split)].unfold(0, self.context + 1, 1)  # (M, C + 1)
        return ArraySplit(windows[:, :-1].contiguous(), windows[:, -1].contiguous())

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy (N, B) of logits (N, B, V)."""
        return cross_entropy(output, target)

    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """Cross-entropy of every character, and the likeliest characters."""
        return Measured(self.loss(output, target.expand(len(output), -1)), output.argmax(-1))

    def value(self, items: Tensor) -> Tensor:
        """Perplexity (N,): the exponential of the mean cross-entropy."""
        return items.double().mean(1).exp()

    @cached_property
    def _text(self) -> Tensor:
        """The complete text as indices into the vocabulary."""
        from pydoc_data.topics import topics

        place = {character: i for i, character in enumerate(VOCABULARY)}
        text = "\n".join(topics[name] for name in sorted(topics)).lower()
        needed = self.train + 2 * self.held + 3 * self.context
        if needed > len(text):
            raise ParamgenError(
                f"train {self.train} and twice held {self.held} need {needed} characters; the text has {len(text)}"
            )
        return torch.tensor([place.get(character, 1) for character in text])
