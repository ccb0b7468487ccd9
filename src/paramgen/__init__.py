"""paramgen: models that generate the weights of other models."""

__version__ = "0.1.0"
