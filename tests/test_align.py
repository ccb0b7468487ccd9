"""Canonicalisation: the function stays, known permutations are found again, copies in disguise are at distance 0."""

from collections.abc import Callable
from itertools import pairwise, permutations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import vary
from paramgen.core import distances
from paramgen.core.params import ParamSpec, StateDict
from paramgen.evaluation import metrics
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
from paramgen.symmetry.axes import Groups, Segment, fixed, length
from paramgen.tasks.vision.datasets import load_pool


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class ResidualCNN(nn.Module):
    """Batch norm, a residual addition without and one with a projection, maps flattened into blocks of 4 columns."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.a1, self.n1 = nn.Conv2d(12, 9, 3, padding=1), nn.BatchNorm2d(9)
        self.a2, self.n2 = nn.Conv2d(9, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.b1, self.m1 = nn.Conv2d(12, 7, 3, stride=2, padding=1), nn.BatchNorm2d(7)
        self.project = nn.Conv2d(12, 7, 1, stride=2)
        self.head = nn.Linear(7 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem_norm(self.stem(x))), 2)
        x = F.relu(x + self.n2(self.a2(F.relu(self.n1(self.a1(x))))))
        x = F.relu(self.m1(self.b1(x)) + self.project(x))
        return self.head(x.flatten(1))


class Concatenating(nn.Module):
    """Dense connections, a gate that splits its input, and a residual addition onto a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.gate = nn.Linear(6, 8), nn.Linear(14, 10), nn.Linear(24, 16)
        self.back, self.out = nn.Linear(8, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([x, self.a(x).relu()], 1)
        h = torch.cat([h, self.b(h).relu()], 1)
        value, gate = self.gate(h).chunk(2, 1)
        return self.out(self.back(value * gate.sigmoid()).relu() + h)


class Tied(nn.Module):
    """One weight used twice, so that its rows and its columns are the same units."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b, self.last = nn.Linear(5, 7), nn.Linear(7, 7), nn.Linear(7, 7), nn.Linear(7, 2)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.b(self.a(self.first(x).relu()).relu()).relu())


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(h) if h.sum() > 0 else self.b(-h)


def conv_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 9, 3, padding=1), nn.BatchNorm2d(9),
        nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(9 * 16, 11), nn.Dropout(0.5), nn.ReLU(), nn.Linear(11, 4))  # fmt: skip


def depthwise() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 6, 1),
        nn.PReLU(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))  # fmt: skip


def one_dimensional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(2, 8, 3), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(8, 6, 3), nn.GroupNorm(1, 6), nn.SiLU(), nn.Flatten(), nn.Linear(30, 3)
    )  # fmt: skip


def layer_normed() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(13, 17), nn.LayerNorm(17), nn.GELU(), nn.Linear(17, 9, bias=False), nn.ReLU(), nn.Linear(9, 3)
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]] = {
    "mlp": (lambda: mlp(13, 17, 11, 3), (13,), {"0.weight[0]": 17, "2.weight[0]": 11}),
    "layer norm": (layer_normed, (13,), {"0.weight[0]": 17, "3.weight[0]": 9}),
    "conv net": (conv_net, (3, 8, 8), {"0.weight[0]": 8, "4.weight[0]": 9, "8.weight[0]": 11}),
    "residual": (ResidualCNN, (3, 8, 8), {"stem.weight[0]": 12, "a1.weight[0]": 9, "b1.weight[0]": 7}),
    "concatenation": (Concatenating, (6,), {"a.weight[0]": 8, "b.weight[0]": 10, "gate.weight[0]": 8}),
    "depthwise": (depthwise, (3, 8, 8), {"0.weight[0]": 8, "5.weight[0]": 6}),
    "one dimension": (one_dimensional, (2, 16), {"0.weight[0]": 8, "3.weight[0]": 6}),
    "tied": (Tied, (5,), {"first.weight[0]": 7}),
}
named = pytest.mark.parametrize("name", NETWORKS)


class Case:
    """A network with weights at random, its spec and inputs."""

    def __init__(self, name: str, seed: int = 0) -> None:
        make, shape, self.units = NETWORKS[name]
        torch.manual_seed(seed)
        self.network = make()
        self.state = {k: t * 0.3 if t.is_floating_point() else t for k, t in vary(self.network, seed).items()}
        self.x = torch.randn(16, *shape)
        self.spec = PermutationSpec.of(self.network, self.x[:2])

    def shuffled(self, seed: int = 1) -> tuple[StateDict, dict[str, Tensor]]:
        torch.manual_seed(seed)
        perms = {group: torch.randperm(units) for group, units in self.spec.units.items()}
        return self.spec.apply(self.state, perms), perms

    def run(self, state: StateDict, train: bool = False) -> Tensor:
        network = self.network.train(train)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        return torch.func.functional_call(
            network, {k: t.clone() for k, t in state.items()}, (self.x,), tie_weights=False
        ).detach()


@named
def test_groups_are_read_from_the_graph(name: str) -> None:
    case = Case(name)
    assert case.spec.units == case.units


@named
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_permuted_and_aligned_networks_compute_the_same(name: str, train: bool) -> None:
    case = Case(name)
    shuffled, _ = case.shuffled()
    assert not torch.equal(case.spec.params.flatten(shuffled), case.spec.params.flatten(case.state))
    other = Case(name, seed=5).state
    aligned = case.spec.apply(other, weight_matching(shuffled, other, case.spec))
    expected, tolerance = case.run(case.state, train), 1e-5 * (1 + case.run(case.state, train).abs().max())
    assert expected.std() > 1e-3
    assert (case.run(shuffled, train) - expected).abs().max() < tolerance
    assert torch.allclose(case.run(aligned, train), case.run(other, train), atol=tolerance, rtol=1e-4)


@named
def test_matching_recovers_a_known_permutation_exactly(name: str) -> None:
    case = Case(name)
    shuffled, perms = case.shuffled()
    found = weight_matching(case.state, shuffled, case.spec)
    assert all(torch.equal(perms[g][found[g]], torch.arange(units)) for g, units in case.units.items())
    restored = case.spec.apply(shuffled, found)
    assert all(torch.equal(restored[k], t) for k, t in case.state.items())


@named
def test_balancing_keeps_the_function_and_shrinks_the_weights(name: str) -> None:
    case = Case(name)
    balanced = balance_scale(case.state, case.spec)
    assert case.spec.gauges
    assert torch.allclose(case.run(balanced), case.run(case.state), rtol=1e-4, atol=1e-5)
    assert torch.allclose(case.run(balanced, True), case.run(case.state, True), rtol=1e-4, atol=1e-5)
    assert case.spec.params.flatten(balanced).norm() < case.spec.params.flatten(case.state).norm()


def test_balanced_units_have_equal_input_and_output_norm_and_one_form() -> None:
    case = Case("mlp")
    balanced = balance_scale(case.state, case.spec)
    into = (balanced["0.weight"].square().sum(1) + balanced["0.bias"].square()).sqrt()
    assert torch.allclose(into, balanced["2.weight"].norm(dim=0), rtol=1e-5)
    factor = torch.rand(17) * 9 + 0.1
    scaled = {
        **case.state,
        "0.weight": case.state["0.weight"] * factor[:, None],
        "0.bias": case.state["0.bias"] * factor,
    }
    scaled["2.weight"] = case.state["2.weight"] / factor
    again = balance_scale(scaled, case.spec)
    assert all(torch.allclose(again[k], t, rtol=1e-4, atol=1e-6) for k, t in balanced.items())


def test_gauges_stop_at_what_is_not_homogeneous() -> None:
    spec = PermutationSpec.of(
        nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)), torch.zeros(2, 3)
    )
    assert set(spec.units) == {"0.weight[0]", "2.weight[0]"}
    assert set(spec.gauges) == {"2.weight[0]"}
    # a batch norm divides its input's scale out up to eps alone: the weight before it has no exact gauge
    assert set(Case("conv net").spec.gauges) == {"1.weight[0]", "5.weight[0]", "8.weight[0]"}


SMOOTH = "ELU SELU CELU GELU SiLU Mish LogSigmoid Sigmoid Tanh Softplus Softsign Tanhshrink"
BROKEN = "ReLU6 Hardswish Hardsigmoid Hardtanh Softshrink Hardshrink Threshold"


@pytest.mark.parametrize("activation", (SMOOTH + " " + BROKEN).split())
def test_elementwise_activations_let_units_move_but_not_scale(activation: str) -> None:
    function = nn.Threshold(0.5, 0.0) if activation == "Threshold" else getattr(nn, activation)()
    spec = PermutationSpec.of(nn.Sequential(nn.Linear(3, 4), function, nn.Linear(4, 2)), torch.zeros(2, 3))
    assert spec.units == {"0.weight[0]": 4}
    assert not spec.gauges


@pytest.mark.parametrize(
    ("network", "shape", "why"),
    [
        (Branching(), (4,), "cannot be traced"),
        (nn.Sequential(nn.Linear(4, 6), nn.Softmin(1), nn.GLU(1), nn.Linear(3, 2)), (4,), "glu"),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.PixelShuffle(2), nn.Flatten(), nn.Linear(32, 2)), (3, 2, 2), "pixel_shuffle"),
    ],
)  # fmt: skip
def test_what_cannot_be_aligned_says_why(network: nn.Module, shape: tuple[int, ...], why: str) -> None:
    with pytest.raises(CannotAlign, match=why):
        PermutationSpec.of(network, torch.zeros(2, *shape))


def test_tensors_that_are_not_generated_stay_where_they_are() -> None:
    network = mlp(4, 6, 5, 2)
    spec = PermutationSpec.of(
        network, torch.zeros(2, 4), ParamSpec.of(network, ["0.weight", "0.bias", "2.weight", "2.bias"])
    )
    assert set(spec.units) == {"0.weight[0]"}  # the units before the last layer are held by its columns


def test_units_flattened_from_a_map_move_in_blocks() -> None:
    places = {(p.tensor, p.axis, p.units, p.block) for p in Case("conv net").spec.groups["4.weight[0]"]}
    assert ("8.weight", 1, 9, 16) in places


def test_alignment_does_not_depend_on_the_order_a_network_comes_in() -> None:
    case = Case("conv net")
    shuffled, _ = case.shuffled()
    reference = case.spec.params.flatten(Case("conv net", seed=9).state)[None]
    rows = case.spec.params.flatten_many([case.state, shuffled])
    aligned = match(reference, rows, case.spec).weights
    assert torch.equal(aligned[0], aligned[1])


def test_a_single_group_is_matched_optimally() -> None:
    torch.manual_seed(0)
    network = mlp(3, 5, 2)
    spec = PermutationSpec.of(network, torch.zeros(2, 3))
    a, b = vary(network, 0), vary(network, 1)
    best = min(
        (spec.params.flatten(spec.apply(b, {"0.weight[0]": torch.tensor(p)})) - spec.params.flatten(a)).norm()
        for p in permutations(range(5))
    )
    found = spec.apply(b, weight_matching(a, b, spec))
    assert torch.isclose((spec.params.flatten(found) - spec.params.flatten(a)).norm(), best)


def disguised(case: Case) -> tuple[Tensor, Tensor]:
    """Four networks, and copies of them permuted and rescaled."""
    rows = case.spec.params.flatten_many([Case("mlp", seed=s).state for s in range(4)])
    copies = rows.clone()
    torch.manual_seed(3)
    for group, units in case.units.items():
        case.spec.permute_(copies, group, torch.stack([torch.randperm(units) for _ in range(4)]))
        factor = torch.rand(4, units) + 0.5
        for p in case.spec.gauges[group]:
            window = case.spec.window(copies, p)
            by = factor[:, :, None] if window.dim() == 3 else factor
            window.copy_(window / by if p.inverted else window * by)
    return rows, copies


def test_a_permuted_and_rescaled_copy_is_at_aligned_distance_0() -> None:
    case = Case("mlp")
    rows, copies = disguised(case)
    assert distances.nearest(copies, rows).distance.min() > 1
    found = aligned_distances(copies, rows, case.spec)
    assert found.diagonal().max() < 1e-5
    assert (found + torch.eye(4) * 99).min() > 1
    unscaled = aligned_distances(copies, rows, case.spec, scale=False)
    assert unscaled.diagonal().min() > 0.1


def test_aligned_zoo_finds_copies_and_its_own_scale() -> None:
    case = Case("mlp")
    rows, copies = disguised(case)
    zoo = AlignedZoo(rows, case.spec, candidates=2)
    near = zoo.nearest(copies)
    assert near.distance.max() < 1e-5
    assert near.index.tolist() == [0, 1, 2, 3]
    balanced = balance_matrix(rows, case.spec)
    exact = aligned_distances(rows, rows, case.spec).fill_diagonal_(float("inf")).amin(1)
    assert exact.median() * 0.98 <= zoo.tau() <= exact.median() * 1.05
    assert zoo.tau() <= metrics.tau(balanced)


def test_aligned_distance_is_never_more_than_the_plain_one() -> None:
    case = Case("residual")
    rows = case.spec.params.flatten_many([Case("residual", seed=s).state for s in range(5)])
    plain = torch.cdist(rows.double(), rows.double())
    assert (aligned_distances(rows, rows, case.spec, scale=False) <= plain + 1e-4).all()


def test_networks_with_nan_are_infinitely_far_and_disturb_no_other() -> None:
    case = Case("mlp")
    rows, copies = disguised(case)
    broken = copies.clone()
    broken[1, 3], broken[2, 0] = float("nan"), float("inf")
    near = AlignedZoo(rows, case.spec).nearest(broken)
    assert near.distance[1:3].isinf().all()
    assert near.distance[[0, 3]].max() < 1e-5


def test_no_groups_leaves_networks_alone() -> None:
    spec = PermutationSpec.of(nn.Linear(3, 2), torch.zeros(2, 3))
    rows = torch.randn(3, 8)
    assert not spec.groups
    assert torch.equal(match(rows[:1], rows, spec).weights, rows)
    assert torch.allclose(aligned_distances(rows, rows, spec), torch.cdist(rows.double(), rows.double()), atol=1e-6)


segments = st.lists(st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 3, 4]), st.booleans()), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(segments, segments)
def test_unification_makes_two_axes_one_or_refuses(a: list, b: list) -> None:
    groups = Groups()

    def axis(parts: list) -> tuple[Segment, ...]:
        out: tuple[Segment, ...] = ()
        for units, block, free in parts:
            out += tuple(s._replace(block=block) for s in groups.fresh(units)) if free else fixed(units * block)
        return out

    left, right = axis(a), axis(b)
    shorter = length(right) - length(left)
    left, right = left + fixed(max(shorter, 0)), right + fixed(max(-shorter, 0))
    sizes = [s for s in (*left, *right) if s.group >= 0]
    try:
        groups.unify(left, right)
    except CannotAlign:
        return
    assert groups.resolve(left) == groups.resolve(right)
    for s in sizes:  # what a group is bound to is still of its length
        assert length(groups.resolve([s])) == s.length


def test_units_of_different_blocks_move_in_their_least_common_multiple() -> None:
    groups = Groups()
    six, four = groups.fresh(6)[0], groups.fresh(4)[0]
    common = groups.unify((six._replace(block=2),), (four._replace(block=3),))
    assert [(s.units, s.block) for s in common] == [(2, 6)]


def digits(train: bool) -> tuple[Tensor, Tensor]:
    pool = load_pool("digits", None, train)
    assert pool.raw is not None
    return (pool.raw.flatten(1) / 16 - 0.305) / 0.376, pool.labels


def forward(w: list[Tensor], x: Tensor) -> Tensor:
    hidden = torch.baddbmm(w[1][:, None], x, w[0].mT).relu()
    return torch.baddbmm(w[3][:, None], hidden, w[2].mT)


@pytest.fixture(scope="module")
def trained() -> list[StateDict]:
    """24 networks 64-128-10 from their own seeds, trained side by side."""
    x, y = digits(train=True)
    starts = []
    for seed in range(24):
        torch.manual_seed(seed)
        starts.append(mlp(64, 128, 10).state_dict())
    weights = [torch.stack([s[name] for s in starts]).requires_grad_() for name in starts[0]]
    optimizer = torch.optim.AdamW(weights, lr=2e-2, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        rows = torch.randint(len(x), (24, 64))
        loss = F.cross_entropy(forward(weights, x[rows]).flatten(0, 1), y[rows].flatten()) * 24
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return [dict(zip(starts[0], (w[k].detach() for w in weights), strict=True)) for k in range(24)]


def accuracy_of_mean(states: list[StateDict]) -> float:
    x, y = digits(train=False)
    mean = [torch.stack([s[name] for s in states]).mean(0, keepdim=True) for name in states[0]]
    return (forward(mean, x[None])[0].argmax(1) == y).double().mean().item()


def test_soup_of_aligned_digits_networks_works_where_the_raw_one_does_not(trained: list[StateDict]) -> None:
    result = align_state_dicts(mlp(64, 128, 10), torch.zeros(2, 64), trained)
    assert accuracy_of_mean(trained) < 0.6
    assert accuracy_of_mean(result.state_dicts) >= 0.955
    assert result.mean_cost_after < 0.8 * result.mean_cost_before
    x, _ = digits(train=False)
    for before, after in zip(trained[:3], result.state_dicts, strict=False):
        same = [forward([t[None] for t in s.values()], x[None])[0] for s in (before, after)]
        assert torch.allclose(*same, atol=1e-3)


def test_rounds_to_the_mean_bring_networks_nearer_together(trained: list[StateDict]) -> None:
    spec = PermutationSpec.of(mlp(64, 128, 10), torch.zeros(2, 64))

    def spread(states: list[StateDict]) -> float:
        rows = spec.params.flatten_many(states)
        return (rows - rows.mean(0)).norm().item()

    once, refined = (spread(align_to(trained[0], trained, spec, rounds)) for rounds in (0, 4))
    assert refined < once < spread(trained)


def test_held_out_networks_have_no_part_in_the_mean(trained: list[StateDict]) -> None:
    members = list(range(8))
    changed = [*trained[:10], {k: t + 1 for k, t in trained[10].items()}]
    a, b = (
        align_state_dicts(mlp(64, 128, 10), torch.zeros(2, 64), states, members=members).state_dicts
        for states in (trained[:11], changed)
    )
    assert all(torch.equal(a[k]["0.weight"], b[k]["0.weight"]) for k in range(10))
