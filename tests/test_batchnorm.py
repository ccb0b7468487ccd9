import copy

import pytest
import torch
from torch import nn

from paramgen.tasks.batchnorm import has_statistics, recalibrate


class Branching(nn.Module):
    """A network that vmap cannot run: its forward reads a value."""

    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(5)
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        x = self.bn(x)
        return self.fc(x) if self.fc(x).sum().item() > 0 else -self.fc(x)


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.Flatten()
    )


def torchs_own(model, images):
    model = copy.deepcopy(model).eval()
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.reset_running_stats()
            m.momentum = None
            m.train()
    with torch.no_grad():
        for x in images:
            model(x)
    return model.state_dict()


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize(("build", "shape"), [(small, (16, 1, 8, 8)), (Branching, (16, 5)), (dense, (16, 5))])
def test_recalibration_equals_torchs_cumulative_average(build, shape):
    torch.manual_seed(0)
    models = [build() for _ in range(5)]
    images = [torch.randn(shape) * 3 + 1 for _ in range(7)]
    states = [m.state_dict() for m in models]
    for i, found in enumerate(recalibrate(build(), states, images, chunk=2)):
        expected = torchs_own(models[i], images)
        assert found.keys() == expected.keys()
        for name in found:
            if not name.endswith("num_batches_tracked"):
                torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_the_model_and_the_given_states_are_left_as_they_were():
    torch.manual_seed(0)
    model = small().train()
    before = copy.deepcopy(model.state_dict())
    given = copy.deepcopy(before)
    recalibrate(model, [given], [torch.randn(8, 1, 8, 8)])
    assert all(torch.equal(before[k], model.state_dict()[k]) for k in before)
    assert all(torch.equal(before[k], given[k]) for k in before)
    assert all(m.training for m in model.modules())
    assert model[1].momentum == 0.1


def test_networks_without_statistics_are_handed_back():
    model = nn.Linear(2, 2)
    states = [model.state_dict()]
    assert not has_statistics(model)
    assert recalibrate(model, states, [torch.randn(3, 2)]) == states
