"""Alignment of attention heads, groups of channels and adapters; what is not understood is held fixed and named."""

import copy
import inspect
import json
from collections.abc import Callable
from functools import cache

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3

import awkward
from paramgen.cli.main import main
from paramgen.core.params import StateDict
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.evaluation.evaluate import evaluate
from paramgen.symmetry import (
    AlignedZoo,
    CannotAlign,
    PermutationSpec,
    align_state_dicts,
    align_to,
    aligned_distances,
    balance_matrix,
    balance_scale,
    match,
    weight_matching,
)
from paramgen.tasks import ClassificationTask, RotatedFamily
from paramgen.tasks.lora import LoraSettings, adapter_spec, fix_gauge, inject


def vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=16, depth=2, embed_dim=24, num_heads=3, num_classes=5
    )


def torch_transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(12, 3, 20, dropout=0.0, batch_first=True, norm_first=True)
    return nn.Sequential(nn.Flatten(2), nn.Linear(1024, 12), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
                         nn.Flatten(), nn.Linear(36, 5))  # fmt: skip


def swin() -> nn.Module:
    return timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=12, depths=(1, 2), num_heads=(2, 3), num_classes=5
    )  # fmt: skip


def convnext() -> nn.Module:
    return timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(6, 8, 10, 12), num_classes=5)


def mobilenet() -> nn.Module:
    """MobileNetV3 of two blocks, one with squeeze and excitation."""
    blocks = [
        InvertedResidualConfig(8, 3, 12, 8, True, "RE", 1, 1, 1.0),
        InvertedResidualConfig(8, 5, 16, 10, False, "HS", 2, 1, 1.0),
    ]
    return MobileNetV3(blocks, 14, num_classes=5)


def adapted() -> nn.Module:
    pytest.importorskip("peft")
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 12), nn.GELU(), nn.Linear(12, 5)
    )
    return inject(network, LoraSettings(["0", "3", "5"], r=3))


ODD = {
    name: c
    for name, c in inspect.getmembers(awkward, inspect.isclass)
    if c.__module__ == awkward.__name__ and c not in (awkward.Block, awkward.Pictures)
}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vit": vit, "torch transformer": torch_transformer, "swin": swin, "convnext": convnext, "mobilenet": mobilenet,
    "adapted": adapted, **ODD,
}  # fmt: skip
named = pytest.mark.parametrize("name", NETWORKS)


class Case:
    """A network, its symmetries, and two sets of weights."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.network = NETWORKS[name]().eval()
        self.x = torch.randn(4, *((3, 6) if name in ODD else (3, 32, 32)))
        self.spec = PermutationSpec.of(
            self.network, self.x[:2], adapter_spec(self.network) if name == "adapted" else None
        )
        state = self.network.state_dict()
        self.states = [
            {k: t + 0.1 * torch.randn_like(t) if t.is_floating_point() else t for k, t in state.items()} for _ in "ab"
        ]
        for s in self.states:
            s.update({k: t.abs() + 0.5 for k, t in s.items() if k.endswith("running_var")})
        self.rows = self.spec.params.flatten_many(self.states)
        self.double = copy.deepcopy(self.network).double()

    def run(self, row: Tensor) -> Tensor:
        state = self.spec.filled(self.states[0], row)
        double = {k: t.double() if t.is_floating_point() else t for k, t in state.items()}
        return torch.func.functional_call(self.double, double, (self.x.double(),), tie_weights=False).detach()

    def same(self, row: Tensor, other: Tensor) -> bool:
        a, b = self.run(row), self.run(other)
        assert a.std() > 1e-3
        return bool(torch.allclose(a, b, rtol=1e-4, atol=1e-4 * a.std().item()))

    def disguised(self, seed: int = 0) -> Tensor:
        """Copies with units permuted, factors and bases changed."""
        g, W, spec = torch.Generator().manual_seed(seed), self.rows.clone(), self.spec
        for group, units in spec.units.items():
            spec.permute_(W, group, torch.stack([torch.randperm(units, generator=g) for _ in W]))
        for gauge, places in spec.gauges.items():
            spec.rescale_(W, gauge, torch.rand(len(W), places[0].units, generator=g) + 0.5)
        for places in spec.spaces.values():
            U = places[0].units
            G = torch.eye(U) + 0.5 / U**0.5 * torch.randn(len(W), U, U, generator=g)
            for p in places:
                spec.put_(W, p, (torch.linalg.inv(G).mT if p.inverted else G) @ spec.features(W, p))
        return W


@cache
def case(name: str) -> Case:
    return Case(name)


@named
def test_symmetries_do_not_change_the_function(name: str) -> None:
    c = case(name)
    assert c.spec.groups
    disguised = c.disguised()
    assert (disguised - c.rows).norm() > 0.5
    assert c.same(c.rows[0], disguised[0])


@named
def test_balanced_and_matched_networks_compute_the_same(name: str) -> None:
    c = case(name)
    balanced = balance_matrix(c.rows, c.spec)
    assert c.same(c.rows[1], balanced[1])
    matched = match(balanced[:1], balanced[1:], c.spec).weights[0]
    assert c.same(c.rows[1], matched)
    assert aligned_distances(c.rows[:1], c.rows[1:], c.spec) <= (balanced[1] - balanced[0]).norm() + 1e-4


@named
def test_a_disguised_copy_is_recovered(name: str) -> None:
    c = case(name)
    near = aligned_distances(c.disguised(), c.rows, c.spec)  # (2, 2)
    assert near.diagonal().max() < 1e-3 * balance_matrix(c.rows, c.spec).norm(dim=1).mean()
    assert near.diagonal().max() < 1e-2 * near[0, 1]


def test_heads_move_as_wholes_and_hold_two_spaces_each() -> None:
    spec = case("vit").spec
    heads = spec.groups["blocks.0.attn.qkv.weight[0]"]
    assert [(p.tensor, p.axis, p.start, p.units, p.block) for p in heads if p.tensor.endswith("weight")] == [
        *[("blocks.0.attn.qkv.weight", 0, start, 3, 8) for start in (0, 24, 48)],
        ("blocks.0.attn.proj.weight", 1, 0, 3, 8),
    ]
    q_with_k = spec.spaces["blocks.0.attn.qkv.weight[0]+8"]  # of the second head
    assert [(p.tensor, p.start, p.units, p.inverted) for p in q_with_k if p.tensor.endswith("weight")] == [
        ("blocks.0.attn.qkv.weight", 8, 8, False),
        ("blocks.0.attn.qkv.weight", 32, 8, True),
    ]
    assert len(spec.spaces) == 2 * 2 * 3
    assert not any("attn.qkv.weight[0]" in gauge for gauge in spec.gauges)


def test_nested_groups_are_told_from_plain_ones() -> None:
    spec = case("vit").spec
    assert set(spec.nested) == {"blocks.0.attn.qkv.weight[0]", "blocks.1.attn.qkv.weight[0]"}
    first, second = spec.nested["blocks.0.attn.qkv.weight[0]"]
    assert first == tuple(f"blocks.0.attn.qkv.weight[0]{at}" for at in ("", "+8", "+16"))
    assert second == tuple(f"blocks.0.attn.qkv.weight[0]{at}" for at in ("+48", "+56", "+64"))
    assert not case("convnext").spec.nested


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("Channels", {"first.weight[0]": 4}),  # 8 channels in 4 groups
        ("Grouped", {"embed.weight[0]": 12, "qkv.weight[0]": 2}),  # heads of k, each with two of q
        ("StackedAgain", {"embed.weight[0]": 12, "qkv.weight[0]": 3}),
        ("RolledHeads", {"embed.weight[0]": 12}),
        ("Unfused", {"embed.weight[0]": 12, "table[1]": 3}),
    ],
)
def test_wholes_that_may_change_places(name: str, units: dict[str, int]) -> None:
    assert case(name).spec.units == units


@pytest.mark.parametrize(
    ("name", "spaces"),
    [("OneHead", [12, 12]), ("RankOne", [1]), ("Rotary", [4] * 3), ("RolledHeads", [4] * 3), ("StackedAgain", [])],
)
def test_spaces_are_where_only_linear_operations_lie_between(name: str, spaces: list[int]) -> None:
    assert [places[0].units for places in case(name).spec.spaces.values()] == spaces


def test_a_permuted_transformer_is_recovered_in_its_permutations() -> None:
    c = case("vit")
    torch.manual_seed(1)
    perms = {group: torch.randperm(units) for group, units in c.spec.units.items()}
    found = weight_matching(c.states[0], c.spec.apply(c.states[0], perms), c.spec)
    assert all(torch.equal(perms[g][found[g]], torch.arange(units)) for g, units in c.spec.units.items())


def test_aligning_disguised_transformers_makes_them_one() -> None:
    c = case("vit")
    states = [c.spec.filled(c.states[0], row) for row in (c.rows[0], c.disguised()[0], c.disguised(1)[0])]
    result = align_state_dicts(c.network, c.x[:2], states)
    assert result.mean_cost_after < 1e-3 * result.mean_cost_before
    zoo = AlignedZoo(c.rows, c.spec)
    assert zoo.nearest(c.disguised()).distance.max() < 1e-2
    turned = align_to(states[0], states, c.spec)
    assert all(c.same(c.rows[0], c.spec.params.flatten(state)) for state in turned)


def test_adapters_take_the_form_that_fixing_their_gauge_gives() -> None:
    c = case("adapted")
    assert torch.allclose(balance_matrix(c.rows, c.spec)[0], c.spec.params.flatten(fix_gauge(c.states[0])), atol=1e-6)
    balanced = balance_scale(c.states[0], c.spec)
    assert balanced.keys() == c.states[0].keys()


def test_fresh_adapters_keep_their_function() -> None:
    c = case("adapted")
    fresh = c.spec.params.flatten(c.network.state_dict())
    assert c.same(fresh, balance_matrix(fresh[None], c.spec)[0])


def test_a_network_is_aligned_where_it_is_understood() -> None:
    spec = case("Unknown").spec
    assert spec.units == {"embed.weight[0]": 12, "back.weight[1]": 7}
    assert spec.stopped == {"glu: not understood": ["qkv.weight[0]", "qkv.bias[0]", "more.weight[1]"]}


def test_a_network_of_which_nothing_is_understood_cannot_be_aligned() -> None:
    with pytest.raises(CannotAlign, match=r"no hidden units can be placed; glu: not understood"):
        PermutationSpec.of(nn.Sequential(nn.Linear(4, 6), nn.GLU(1), nn.Linear(3, 2)), torch.zeros(2, 4))


def write_zoo(task: object, spec: PermutationSpec, states: list[StateDict], base: StateDict) -> None:
    writer = ZooWriter("zoo", spec.params, base, task.config(), {"made": "by hand"})  # type: ignore[attr-defined]
    for run, state in enumerate(states):
        writer.add({t.name: state[t.name] for t in spec.params.tensors}, run=run, step=1, seed=run, split="train")
    writer.close()


def test_zoo_align_names_what_it_could_not_place(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    task = ClassificationTask(dataset="digits", network="awkward.Pictures")
    network = task.build().eval()
    spec = PermutationSpec.of(network, torch.zeros(2, 1, 8, 8))
    write_zoo(task, spec, [dict(task.build().state_dict()) for _ in range(3)], {})
    assert main(["zoo", "align", "--zoo", "zoo", "--out", "aligned", "--trust", "true"]) == 0
    said = capsys.readouterr().out
    assert "Not aligned: 1.weight[0], 1.bias[0], 3.weight[1]. Reason: operation glu: not understood." in said
    listed = json.loads((tmp_path / "aligned" / "zoo.json").read_text())["unplaced"]
    assert [(place["tensor"], place["axis"]) for place in listed] == [("1.weight", 0), ("1.bias", 0), ("3.weight", 1)]
    assert Zoo("aligned").verify() == []
    results = evaluate(Zoo("aligned", trust=True), task, baselines=[], aligned=True, train_images=100)
    assert "Aligned distances compare 3 tensors as they are (glu: not understood)." in results.notes


def test_zoo_align_takes_the_adapters_of_a_family(tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    family = RotatedFamily([0, 30], [], network_args={"hidden": [8]}, lora={"target_modules": ["layers.*"], "r": 3})
    network = family.build().eval()
    spec = PermutationSpec.of(network, torch.zeros(2, 1, 8, 8), adapter_spec(network))
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(1, spec.params.numel, generator=generator)
    turned = row.clone()
    for places in spec.spaces.values():
        G = torch.eye(3) + 0.3 * torch.randn(3, 3, generator=generator)
        for p in places:
            spec.put_(turned, p, (torch.linalg.inv(G).T if p.inverted else G) @ spec.features(turned, p))
    states = [spec.params.unflatten(r[0]) for r in (row, turned)]
    write_zoo(family, spec, states, {k: t for k, t in network.state_dict().items() if "lora" not in k})
    assert main(["zoo", "align", "--zoo", "zoo", "--out", "aligned"]) == 0
    rows = Zoo("aligned").matrix()
    assert (row - turned).norm() > 1
    assert (rows[0] - rows[1]).norm() < 1e-4
