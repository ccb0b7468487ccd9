"""Shipped YAML files as files."""

from itertools import pairwise

import pytest
import yaml

from paramgen.core.paths import CONFIG_KINDS, find_config, list_configs

FILES = [path for folder in CONFIG_KINDS for path in list_configs(folder).values()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_nothing_is_said_twice(path):
    """YAML keeps the last of two equal keys and says nothing."""
    mappings = [yaml.compose(path.read_text())]
    while mappings:
        node = mappings.pop()
        if isinstance(node, yaml.MappingNode):
            keys = sorted(key.value for key, _ in node.value)
            assert not [key for key, after in pairwise(keys) if key == after]
            mappings += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            mappings += node.value


def test_a_config_of_devices_is_found_by_both_of_its_names():
    path = str(list_configs("trainer")["ddp"])
    assert [find_config(name) for name in ("ddp", "trainer/ddp", "trainer/ddp.yaml")] == [path] * 3
