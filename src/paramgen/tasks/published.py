"""Weights that others publish on the Hugging Face Hub, and that their libraries download."""

from paramgen.core.hub import is_repository, require_model

TIMM_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def require_language_model(name: str) -> None:
    """Refuse a model or tokenizer of transformers that is neither here nor can be downloaded, before transformers tries for a minute.

    Args:
        name: A folder, or a name on the Hub.

    Raises:
        ParamgenError: It says why.
    """
    if is_repository(name):
        require_model(name, ["config.json", "tokenizer_config.json"])


def require_timm_weights(name: str) -> None:
    """Refuse a network of timm whose weights are neither here nor can be downloaded, before timm tries for a minute.

    Args:
        name: Of the network.

    Raises:
        ParamgenError: It says why.
    """
    import timm  # 3 s

    published = timm.get_pretrained_cfg(name)
    if published and published.hf_hub_id:
        require_model(published.hf_hub_id, TIMM_FILES)
