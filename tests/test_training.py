"""Many networks trained at once are what each would be alone; a plain torch loop is the reference."""

import itertools
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paramgen.collect.train import GroupTrainer, NetworkGroup, OptimSettings, fresh_states, generator
from paramgen.errors import ParamgenError
from paramgen.tasks import ClassificationTask
from paramgen.tasks.score import CLASSIFIES
from paramgen.tasks.scoring import score_networks
from paramgen.tasks.vision.networks import build_network
from paramgen.tasks.vision.splits import TensorSplit

SEEDS = [3, 11, 42]


class WithDropout(nn.Module):
    """Random in training, so that vmap refuses it."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(64, 24), nn.Linear(24, 10)

    def forward(self, x):
        return self.head(F.dropout(F.relu(self.body(x.flatten(1))), 0.5, self.training))


BUILD = {
    "mlp": lambda: build_network("mlp", 10, (1, 8, 8)),
    "cnn": lambda: build_network("cnn_digits", 10, (1, 8, 8), channels=[4, 6]),
    "dropout": WithDropout,
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=1e-3),
}


@pytest.fixture(scope="module")
def data():
    return ClassificationTask().data("train")


def chosen(build):
    return [n for n, t in build().state_dict().items() if t.is_floating_point()]


def trained(kind, data, seeds, steps=25, stacked=None, names=None, **settings):
    build = BUILD[kind]
    group = NetworkGroup(build(), fresh_states(build, seeds), names or chosen(build), stacked=stacked)
    trainer = GroupTrainer(group, data, OptimSettings(**{"lr": 0.02, **settings}), seeds, steps)
    assert list(trainer.run()) == list(range(1, steps + 1))
    return group.states()


def plain_loop(kind, data, seed, steps, optimizer):
    """The same training in the plainest torch."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = BUILD[kind]().train()
    update = OPTIMIZERS[optimizer](network.parameters())
    for step in range(steps):
        if step % (len(data) // 64) == 0:
            epoch = step // (len(data) // 64)
            order = torch.randperm(len(data), generator=generator(seed, epoch))
        index = order[(step % (len(data) // 64)) * 64 :][:64]
        update.zero_grad()
        F.cross_entropy(network(data.images[index]), data.targets[index]).backward()
        update.step()
    return network.state_dict()


def assert_close(first, second, tolerance=1e-5):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.allclose(tensor, second[name], atol=tolerance, rtol=1e-4), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("kind", "stacked"), [("mlp", True), ("mlp", False), ("cnn", True), ("cnn", False)])
def test_stacked_networks_equal_a_plain_loop_over_each(data, kind, stacked, optimizer):
    together = trained(kind, data, SEEDS, 20, stacked, optimizer=optimizer, weight_decay=1e-3)
    for seed, state in zip(SEEDS, together, strict=True):
        assert_close(state, plain_loop(kind, data, seed, 20, optimizer), 1e-4)  # Adam magnifies rounding


@pytest.mark.parametrize("kind", BUILD)
def test_network_of_many_is_the_one_trained_alone_with_its_seed(data, kind):
    seeds = list(range(20))
    together = trained(kind, data, seeds, 8, lr=0.005)
    assert_close(together[13], trained(kind, data, [13], 8, lr=0.005)[0], 1e-5)


def test_augmentation_of_a_network_does_not_depend_on_its_neighbours():
    raw = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=generator(0))
    data = TensorSplit(raw, torch.arange(60) % 10, (0.5,), (0.25,), pad=1, flip=True)
    together = trained("mlp", data, SEEDS, 6, batch_size=20)
    assert_close(together[2], trained("mlp", data, SEEDS[2:], 6, batch_size=20)[0])


def test_dropout_falls_back_to_one_after_the_other():
    build, x = BUILD["dropout"], torch.randn(2, 4, 1, 8, 8)
    group = NetworkGroup(build(), fresh_states(build, [0, 1]), chosen(build))
    group.backward(x, torch.zeros(2, 4, dtype=torch.long), [5, 5])
    first = {n: t.grad.clone() for n, t in group.leaves.items()}
    group.backward(x, torch.zeros(2, 4, dtype=torch.long), [5, 6])
    assert torch.equal(group.leaves["head.weight"].grad[0], first["head.weight"][0])
    assert not torch.equal(group.leaves["head.weight"].grad[1], first["head.weight"][1])


def test_only_chosen_parameters_move(data):
    names = ["classifier.weight"]
    start = fresh_states(BUILD["cnn"], [0])[0]
    state = trained("cnn", data, [0], 5, names=names)[0]
    assert {n for n in state if not torch.equal(state[n], start[n])} == set(names)


def test_statistics_move_only_where_they_are_chosen(data):
    start = fresh_states(BUILD["cnn"], [0])[0]
    names = ["norms.1.weight", "norms.1.bias", "norms.1.running_mean", "norms.1.running_var"]
    state = trained("cnn", data, [0], 5, names=names)[0]
    moved = {n for n in state if not torch.equal(state[n], start[n])}
    assert moved == {*names, "norms.1.num_batches_tracked"}


@pytest.mark.parametrize("stacked", [True, False])
def test_branches_share_their_frozen_tensors_and_equal_one_branch_alone(data, stacked):
    start = fresh_states(BUILD["cnn"], [0])[0]
    names = ["norms.1.weight", "classifier.weight", "classifier.bias"]

    def branch(seeds):
        group = NetworkGroup(BUILD["cnn"](), [start] * len(seeds), names, stacked=stacked)
        for _ in GroupTrainer(group, data, OptimSettings(lr=0.01), seeds, 5).run():
            pass
        assert "convs.0.weight" in group.fixed
        return group.states()

    assert_close(branch([1, 2, 3])[1], branch([2])[0])


def test_tied_tensors_stay_tied(data):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.head(F.relu(self.b(F.relu(self.a(x.flatten(1))))))

    group = NetworkGroup(Tied(), fresh_states(Tied, SEEDS), chosen(Tied))
    for _ in GroupTrainer(group, data, OptimSettings(lr=0.01), SEEDS, 5).run():
        pass
    for state in group.states():
        assert torch.equal(state["a.weight"], state["b.weight"])
        Tied().load_state_dict(state)


def test_stored_training_goes_on_as_if_never_stopped(data):
    build, steps = BUILD["cnn"], 3 * (len(data) // 64)
    settings = OptimSettings(lr=0.01, schedule="one_cycle")

    def make():
        return GroupTrainer(
            NetworkGroup(build(), fresh_states(build, SEEDS), chosen(build)), data, settings, SEEDS, steps
        )

    whole, first, second = make(), make(), make()
    list(whole.run())
    list(itertools.islice(first.run(), len(data) // 64))
    assert first.between_epochs
    second.load({k: v.clone() for k, v in first.state().items()})
    assert list(second.run()) == list(range(len(data) // 64 + 1, steps + 1))
    for a, b in zip(whole.group.states(), second.group.states(), strict=True):
        assert all(torch.equal(a[n], b[n]) for n in a)


def test_schedules_begin_and_end_where_they_should():
    assert [OptimSettings(schedule="constant").factor(s, 10) for s in (0, 9)] == [1, 1]
    assert OptimSettings(schedule="cosine").factor(0, 10) == 1
    assert OptimSettings(schedule="cosine").factor(5, 10) == pytest.approx(0.5)
    assert OptimSettings(schedule="cosine").factor(10, 10) == pytest.approx(0)
    cycle = [OptimSettings(schedule="one_cycle").factor(s, 100) for s in range(101)]
    assert (cycle[0], max(cycle), cycle.index(max(cycle))) == (0.04, pytest.approx(1), 30)
    assert cycle[100] == pytest.approx(0)


@pytest.mark.parametrize(("settings", "message"), [({"lr": 0}, "lr is 0"), ({"batch_size": 0}, "batch_size is 0")])
def test_wrong_settings_are_one_line(settings, message):
    with pytest.raises(ParamgenError, match=message):
        OptimSettings(**settings)


def test_statistics_alone_cannot_be_trained():
    build = BUILD["cnn"]
    with pytest.raises(ParamgenError, match="nothing to train"):
        NetworkGroup(build(), fresh_states(build, [0]), ["norms.0.running_mean"])


@pytest.mark.slow
def test_two_hundred_seeds_take_five_cpu_seconds(data):
    build, seeds = BUILD["mlp"], list(range(200))
    begun = time.process_time()
    states = trained("mlp", data, seeds, 20 * (len(data) // 64), lr=0.01, schedule="one_cycle")
    assert time.process_time() - begun < 5
    accuracy = score_networks(CLASSIFIES, build(), states, ClassificationTask().data("val")).value
    assert accuracy.mean() > 0.95
