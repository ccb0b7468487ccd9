"""paramgen: models that generate the weights of other models."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("paramgen")  # the git tag, when it was built
except PackageNotFoundError:
    __version__ = "0+unknown"  # run from a source folder that is not installed
