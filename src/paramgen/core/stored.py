"""Networks whose tensors are made or read one at a time, so that memory does not grow with the size of a network."""

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from paramgen.core.io import cannot_read, read_header
from paramgen.errors import ParamgenError


class LazyTensors(Mapping[str, Tensor]):
    """A state dict whose tensors are made whenever they are asked for.

    Args:
        names: Its keys.
        make: The tensor of a name.
        outline: The tensor of a name, without values if they would have to be read. Default: `make`.
    """

    def __init__(
        self,
        names: Iterable[str],
        make: Callable[[str], Tensor],
        outline: Callable[[str], Tensor] | None = None,
    ) -> None:
        self._names, self._make, self._outline = dict.fromkeys(names), make, outline or make

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def outline(self, name: str) -> Tensor:
        """A tensor's shape and dtype: on the meta device if its values would have to be read."""
        if name not in self._names:
            raise KeyError(name)
        return self._outline(name)

    def __contains__(self, name: object) -> bool:  # Mapping's own makes the tensor
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def outline_of(state: Mapping[str, Any], name: str) -> Any:
    """A value of a state dict; of a tensor that would have to be read, its shape and dtype on the meta device."""
    return state.outline(name) if isinstance(state, LazyTensors) else state[name]


def merged(state: Mapping[str, Any], other: Mapping[str, Any]) -> LazyTensors:
    """Two state dicts as one; tensors of the second take the place of those of the first."""

    def of(name: str) -> Mapping[str, Any]:
        return other if name in other else state

    return LazyTensors([*state, *other], lambda name: of(name)[name], lambda name: outline_of(of(name), name))


class Numbers(NamedTuple):
    """Consecutive real numbers of one tensor; a complex number is two."""

    name: str
    first: int
    size: int


class StoredTensors(LazyTensors):
    """A safetensors file. Its header is read once, its tensors or parts of them whenever they are asked for.

    The file is read and not mapped: mapped pages count as memory of the process, and the system reads more than is touched.

    Args:
        path: The file.

    Raises:
        ParamgenError: The file is missing, truncated or altered; it is named.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._places = path, read_header(path)
        super().__init__(self._places, self._tensor, self._without_values)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, from the header."""
        return tuple(self._places[name].shape)

    def read(self, ranges: Sequence[Numbers]) -> list[Tensor]:
        """Each range of numbers, (size,) in the real dtype of its tensor.

        Raises:
            ParamgenError: The file became shorter, or cannot be read.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                if hasattr(os, "posix_fadvise"):  # no reading ahead: the next range is elsewhere
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                return [self._range(file, *numbers) for numbers in ranges]
        except OSError as error:
            raise cannot_read(self.path, error) from error

    def _tensor(self, name: str) -> Tensor:
        place = self._places[name]
        (reals,) = self.read([Numbers(name, 0, (place.end - place.begin) // place.dtype.to_real().itemsize)])
        return reals.view(place.dtype).view(place.shape)

    def _without_values(self, name: str) -> Tensor:
        place = self._places[name]
        return torch.empty(place.shape, dtype=place.dtype, device="meta")

    def _range(self, file: io.RawIOBase, name: str, first: int, size: int) -> Tensor:
        place = self._places[name]
        numbers = torch.empty(size, dtype=place.dtype.to_real())
        rest = numbers.view(torch.uint8).numpy().data
        file.seek(place.begin + first * numbers.itemsize)
        while len(rest):
            read = file.readinto(rest)
            if not read:
                raise ParamgenError(f"cannot read {self.path}: the file became shorter while paramgen read it")
            rest = rest[read:]
        return numbers
