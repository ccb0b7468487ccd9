"""Networks that others stored, read as complete state dicts of one architecture and checked, one at a time."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from paramgen.collect.readers.found import Found, Layout
from paramgen.core.discrete import MASK
from paramgen.core.intake import Architecture, check_network, same_values
from paramgen.core.params import ParamSpec, StateDict, state_digest
from paramgen.core.stored import LazyTensors, merged
from paramgen.core.subsets import select_tensors
from paramgen.core.weight_files import read_state_dict, without_prefix, wrapper_prefix
from paramgen.errors import ParamgenError

_log = logging.getLogger(__name__)


class Candidates:
    """Reads the networks of a source. No more than one of them is in memory at a time.

    Args:
        layout: The source.
        network: The architecture; where it is not known, it is what the first network and the base file hold.
        parameters: Patterns of what is generated.
        prefix: Removed from the front of every name; names without it are ignored. Default: what wrappers put there.
        base: File with what is not generated.
    """

    def __init__(
        self, layout: Layout, network: nn.Module | None, parameters: list[str], prefix: str | None, base: str | None
    ) -> None:
        self.layout, self.network, self.parameters, self.prefix = layout, network, parameters, prefix
        self.own = None if network is None else Architecture(network)
        self.base_file = base
        self.problems: dict[str, str] = {}  # why networks are left out, by name
        self.copies: dict[str, str] = {}  # networks that are left out as they are copies of others
        self.equal: dict[str, str] = {}  # networks that are taken though they are copies of others
        self._prefixes: dict[str, str] = {}  # that were removed, by network
        self.spec: ParamSpec
        self.base: StateDict

    def check(self, founds: Sequence[Found], skip: bool, most: bool = True) -> list[Found]:
        """Read every network once.

        Args:
            founds: The networks, in order.
            skip: Leave out those that cannot be taken, and record why in `problems`.
            most: Refuse to leave out most of them.

        Returns:
            The networks that make the zoo, in order; copies at the end of a run are left out.

        Raises:
            ParamgenError: A network cannot be taken and `skip` is false; none can; or most do not fit the first.
        """
        kept: list[Found] = []
        first: dict[str, str] = {}
        for found in founds:
            try:
                digest = self._checked(found, fresh=not kept)
            except ParamgenError as error:
                if not skip:
                    raise
                self.problems[found.name] = str(error)
                continue
            if found.final and digest in first:
                self.copies[found.name] = first[digest]
                continue
            if digest in first:
                self.equal[found.name] = first[digest]
            first.setdefault(digest, found.name)
            kept.append(found)
        if not kept:
            raise ParamgenError(f"none of {len(founds)} networks can be taken: {next(iter(self.problems.values()))}")
        if most and self.network is None and len(self.problems) > len(founds) / 2:
            raise ParamgenError(
                f"{len(self.problems)} of {len(founds)} networks do not fit the first one, {kept[0].name}; choose which to take "
                f"with --pattern, or give their architecture with --task; for example {next(iter(self.problems.values()))}"
            )
        return kept

    def words(self) -> list[str]:
        """What was done to the names and kinds of tensors, and which networks were left out, in sentences."""
        lines = [f"skipped {name}: {why}" for name, why in self.problems.items()]
        lines += [f"skipped {name}: the same network as {other}" for name, other in self.copies.items()]
        lines += [f"{name} is the same network as {other}; both are taken" for name, other in self.equal.items()]
        removed = Counter(prefix for prefix in self._prefixes.values() if prefix)
        lines += [f"removed the prefix {p!r} from the names of tensors of {n} networks" for p, n in removed.items()]
        if self.architecture.extra:
            names = ", ".join(self.architecture.extra)
            lines.append(f"extra state belongs to the architecture and is not stored: {names}")
        return lines

    def read(self, found: Found) -> LazyTensors:
        """One complete state dict; each tensor is fitted to the architecture when it is asked for."""
        where, state = self.where(found), self._tensors(found)
        for name in self._rest.keys() & state.keys():
            if not same_values(state[name], self._rest[name]):
                raise ParamgenError(f"{where}: {name!r} is not generated, but differs from the one in the base file")
        missing = [name for name in self.architecture.missing(state) if name not in self._rest]
        if missing and not self._rest and not self._generated & {*missing}:
            raise ParamgenError(
                f"{where}: it holds the generated tensors, but not {missing[0]!r} ({len(missing)} missing); "
                "give a file that holds the others: --base FILE"
            )
        if self.base_file is not None and (kept := [name for name in missing if name in self._generated]):
            raise ParamgenError(
                f"{where}: no tensor {kept[0]!r} ({len(kept)} missing), and the base file gives none of the generated tensors; "
                "say which are generated: --parameters '[\"*lora*\"]'"
            )
        return self.architecture.fitted(merged(state, self._rest), where)

    def where(self, found: Found) -> str:
        """What to call a network in messages."""
        return str(found.path) if found.row is None else f"{found.path}, network {found.row}"

    def _checked(self, found: Found, fresh: bool) -> str:
        """Check one network, of which the first gives the tensors that are not generated, and return its digest."""
        if fresh:
            self._define(found)
            self._say_dtypes(found)
        state = self.read(found)  # a pickle is in memory from here on, and it alone
        if fresh:
            self.base = {name: state[name].clone() for name in state if name not in self._generated}
        where = self.where(found)
        self.spec.check(state, where)
        check_network(state, self.spec, self.base, where)
        return state_digest(state)

    def _define(self, found: Found) -> None:
        """Take the architecture from the first network, where no task gives it."""
        shared: Mapping[str, Any] = {} if self.base_file is None else self._base_tensors(self.base_file)
        structure: nn.Module | StateDict
        if self.network is None:
            tensors = merged(shared, self._tensors(found))
            self.architecture = Architecture(tensors, found.path.name)
            structure = {  # with the values of masks, whose ones are counted
                name: tensors[name] if name.endswith(MASK) else tensors.outline(name)
                for name in self.architecture.tensors
            }
            if not structure:
                under = f" under the prefix {self.prefix!r}" if self.prefix else ""
                raise ParamgenError(f"{self.where(found)} holds no tensors{under}")
        else:
            assert self.own is not None
            self.architecture, structure = self.own, self.network
        self.spec = ParamSpec.of(structure, select_tensors(structure, self.parameters))
        self._generated = {*self.spec.names, *self.spec.aliases}
        lacking = self.architecture.tensors.keys() - self._generated
        self._rest = {name: value for name, value in shared.items() if name in lacking}

    def _tensors(self, found: Found) -> LazyTensors:
        saved = self.layout.read(found)
        self._prefixes[found.name] = prefix = self._prefix(saved, found)
        return without_prefix(saved, prefix)

    def _base_tensors(self, file: str) -> LazyTensors:
        saved = read_state_dict(file, self.layout.reading.key)
        return without_prefix(saved, self._prefix(saved))

    def _prefix(self, saved: Mapping[str, Any], found: Found | None = None) -> str:
        if self.prefix is not None:
            return self.prefix
        if found is not None and not self.layout.wrapped(found):
            return ""
        names = (
            saved if isinstance(saved, LazyTensors) else [n for n, value in saved.items() if isinstance(value, Tensor)]
        )
        return wrapper_prefix(names, None if self.own is None else self.own.tensors)

    def _say_dtypes(self, found: Found) -> None:
        own = self.architecture.tensors
        given_tensors = self._tensors(found)
        pairs = {(given_tensors.outline(n).dtype, own[n].dtype) for n in given_tensors if n in own}
        for given, kept in sorted(pairs, key=str):
            if given != kept:
                _log.info("%s weights of the files are stored as %s, the network's own", given, kept)
