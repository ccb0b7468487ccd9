"""Causal language models of transformers as networks: tokens in, logits out.

B: sequences. T: tokens. V: vocabulary. Tensors have transformers' own names, so adapters of these networks are adapters of the models.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from paramgen.core.params import REAL
from paramgen.core.score import ScoreSpec
from paramgen.errors import ParamgenError, one_line
from paramgen.tasks.published import require_language_model
from paramgen.tasks.score import Measured, Scored, at_least_float32, cross_entropy

IGNORED = -100  # target of a token that is not learned: padding, or part of a question
Model = str | dict[str, Any]


def transformers_module() -> Any:
    """The package transformers.

    Raises:
        ParamgenError: It is not installed.
    """
    try:
        import transformers  # takes seconds, and is an optional dependency
    except ImportError as error:
        raise ParamgenError("language models need transformers: pip install 'paramgen[lora]'") from error
    return transformers


def causal_lm(model: Model, vocabulary: int, pretrained: bool = False, dtype: str = "float32") -> nn.Module:
    """A causal language model as transformers has it.

    Args:
        model: A configuration with ``model_type``, of which the weights are random; or a folder or a name at Hugging Face.
        vocabulary: V, where a configuration does not give ``vocab_size``.
        pretrained: Read the weights of the folder or name; else they are random.
        dtype: Data type of the weights.

    Raises:
        ParamgenError: No such model, or arguments that it does not take.
    """
    transformers = transformers_module()
    if getattr(torch, dtype, None) not in REAL:
        raise ParamgenError(f"dtype is {dtype!r}, expected float32, float64, bfloat16 or float16")
    if isinstance(model, str):
        require_language_model(model)
    kind, how = transformers.AutoModelForCausalLM, {"dtype": getattr(torch, dtype), "attn_implementation": "sdpa"}
    try:
        if isinstance(model, str):
            if pretrained:
                loaded: nn.Module = kind.from_pretrained(model, use_safetensors=True, **how)
                return loaded
            config = transformers.AutoConfig.from_pretrained(model)
        else:
            config = transformers.AutoConfig.for_model(**{"vocab_size": vocabulary, **model})
        built: nn.Module = kind.from_config(config, **how)
    except Exception as error:  # transformers and huggingface_hub raise errors of many classes
        raise ParamgenError(f"cannot build the language model {model!r}: {one_line(error)}") from error
    return built


def logits_only(model: nn.Module) -> nn.Module:
    """The same model, which returns logits (B, T, V) for tokens (B, T) and keeps no cache."""
    model.config.use_cache = False  # type: ignore[union-attr]  # each model of transformers has a config
    model.register_forward_hook(_logits)
    return model


def _logits(_model: nn.Module, _inputs: Any, output: Any) -> Any:
    return output.logits if hasattr(output, "logits") else output


class PredictsTokens(Scored):
    """Prediction of the next token: perplexity, by cross-entropy. Targets that are -100 do not count."""

    score = ScoreSpec("perplexity", unit="plain", higher_is_better=False, margin=0.1, axis="log")

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy (N, B) of the sequences, of logits (N, B, T, V)."""
        counts = target != IGNORED
        tokens = cross_entropy(output.flatten(1, 2), target.clamp_min(0).flatten(1)).view(target.shape)  # (N, B, T)
        return (tokens * counts).sum(-1) / counts.sum(-1).clamp_min(1)

    def measure(self, output: Tensor, target: Tensor) -> Measured:
        """Mean cross-entropy (N, B) of every sequence."""
        return Measured(self.loss(at_least_float32(output), target.expand(len(output), *target.shape[-2:])))

    def value(self, items: Tensor) -> Tensor:
        """Perplexity (N,): the exponential of the mean cross-entropy."""
        return items.double().mean(1).exp()


def plain_model(model: Model | None, default: Mapping[str, Any]) -> Model:
    """A model's argument as a plain value, with a default."""
    return dict(default if model is None else model) if not isinstance(model, str) else model
