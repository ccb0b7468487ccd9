"""T2W: an adapter of CLIP per task, and the text features of the tasks.

``checkpoints/ID/task.pt`` holds the adapter under ``clip_adapter``; ``train.json`` lists the tasks.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paramgen.collect.readers.found import Found, Layout, Value, below
from paramgen.core.io import read_json
from paramgen.core.weight_files import read_state_dict
from paramgen.core.zoo import Split
from paramgen.errors import ParamgenError, shown

_KEY = "clip_adapter"
_LISTS: dict[str, Split] = {"train.json": "train", "val.json": "val", "test.json": "heldout"}


class TextToWeights(Layout):
    """Adapters with the text features of their tasks."""

    name = "t2w"
    what = "train.json (and test.json) with index, selected_classes, text_features and path of each adapter"

    @staticmethod
    def recognises(source: Path) -> bool:
        """Whether it has a list of tasks and their checkpoints."""
        return (source / "train.json").is_file() and (source / "checkpoints").is_dir()

    def find(self) -> Iterator[Found]:
        """The adapters of each list; text features are the condition."""
        for name, split in _LISTS.items():
            path = self.source / name
            if not path.is_file():
                continue
            tasks = read_json(path)
            if not isinstance(tasks, list):
                raise ParamgenError(f"{path} holds {shown(tasks)}, expected a list of tasks")
            for i, task in enumerate(tasks):
                yield self._found(task, split, f"{path}, task {i}")

    def read(self, found: Found) -> Mapping[str, Any]:
        """One adapter."""
        return read_state_dict(found.path, self.reading.key or _KEY)

    def _found(self, task: Any, split: Split, where: str) -> Found:
        if not isinstance(task, dict) or "path" not in task:
            raise ParamgenError(f"{where} is {shown(task)}, expected an object with path and text_features")
        features, classes = task.get("text_features"), task.get("selected_classes")
        condition: dict[str, Value] = {}
        if isinstance(features, list) and all(isinstance(number, int | float) for number in features):
            condition["text_features"] = tuple(float(number) for number in features)
        elif isinstance(classes, list):
            condition["selected_classes"] = frozenset(str(name) for name in classes)
        path = self._located(str(task["path"]), where)
        return Found(
            path.relative_to(self.source).as_posix(),
            path,
            run=str(task.get("index", path.parent.name)),
            step=0,
            split=split,
            condition=condition,
        )

    def _located(self, name: str, where: str) -> Path:
        """A checkpoint, whose path may begin in a folder of its author's computer."""
        parts = name.replace("\\", "/").split("/")
        start = parts.index("checkpoints") if "checkpoints" in parts else 0
        path = below(self.source, "/".join(part for part in parts[start:] if part not in ("", ".")))
        if path.is_dir():
            path = path / "task.pt"
        if not path.is_file():
            raise ParamgenError(f"{where}: {name!r} is not in {self.source}")
        return path
