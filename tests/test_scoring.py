"""Scoring many networks at once equals scoring each alone, with sklearn and plain loops as the reference."""

import time

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from paramgen.tasks import ClassificationTask, scoring
from paramgen.tasks.score import CLASSIFIES, cross_entropy
from paramgen.tasks.scoring import score_networks
from paramgen.tasks.stacked import can_stack, stack_states, stacked_forward
from paramgen.tasks.vision.networks import build_network
from paramgen.tasks.vision.splits import TensorSplit


class Branching(nn.Module):
    """Chooses its path by the data, which vmap cannot follow."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(x) if x.sum() > 0 else -self.head(x)


def states(make, n):
    torch.manual_seed(0)
    return [make().state_dict() for _ in range(n)]


def reference(network, weights, data):
    """(N, M, classes) by plain modules, one network and one image batch at a time."""
    out = []
    for state in weights:
        network.load_state_dict(state)
        with torch.no_grad():
            out.append(torch.cat([network.eval()(x) for x, _ in data.batches(100)]))
    return torch.stack(out)


MAKERS = {
    "mlp": lambda: build_network("mlp", 10, (1, 8, 8)),
    "batch-norm cnn": lambda: build_network("cnn_digits", 10, (1, 8, 8)),
    "branching": Branching,
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("batch_size", [64, 1024])
def test_predictions_equal_plain_modules_one_by_one(kind, batch_size):
    data = ClassificationTask().data("test")
    weights = states(MAKERS[kind], 7)
    if kind == "branching":
        batch_size = 100  # its answer depends on the batch
    found = score_networks(CLASSIFIES, MAKERS[kind](), weights, data, batch_size)
    logits = reference(MAKERS[kind](), weights, data)
    assert found.predictions.shape == (7, len(data))
    assert (found.predictions == logits.argmax(-1)).float().mean() > 0.999  # a tie may fall either way
    for i in range(7):
        assert found.value[i].item() == pytest.approx(accuracy_score(data.targets, found.predictions[i]), abs=1e-6)
        expected = log_loss(data.targets, logits[i].double().softmax(-1), labels=range(10))
        assert found.loss[i].item() == pytest.approx(expected, rel=1e-4)


def test_convolutions_give_the_same_stacked_as_alone():
    make, data = MAKERS["batch-norm cnn"], ClassificationTask().data("val")
    weights = states(make, 3)
    x = next(data.batches(32))[0]
    stacked = stacked_forward(make().eval(), shared_inputs=True)(stack_states(weights), x)
    assert torch.allclose(stacked, reference(make(), weights, data)[:, :32], atol=1e-5)


def test_a_convolutional_network_takes_no_more_images_at_once_than_fit(monkeypatch):
    make, data = MAKERS["batch-norm cnn"], ClassificationTask().data("test")
    weights, taken = states(make, 2), []
    whole = score_networks(CLASSIFIES, make(), weights, data)
    monkeypatch.setattr(scoring, "MEMORY", 50 * 8 * 8 * 8)  # the first layer's output for 50 images
    network = make()
    network.convs[0].register_forward_hook(lambda _m, inputs, _out: taken.append(len(inputs[0])))
    pieces = score_networks(CLASSIFIES, network, weights, data)
    assert max(taken) == 50
    assert torch.equal(pieces.predictions, whole.predictions)
    assert torch.allclose(pieces.loss, whole.loss, rtol=1e-5)


def test_data_dependent_network_is_found_out():
    network = Branching()
    assert not can_stack(network, network.state_dict(), torch.randn(2, 1, 8, 8))
    assert can_stack(MAKERS["mlp"](), MAKERS["mlp"]().state_dict(), torch.randn(2, 1, 8, 8))


def test_non_finite_weights_are_scored_and_spoil_no_neighbour():
    data = ClassificationTask().data("val")
    weights = states(MAKERS["mlp"], 3)
    alone = score_networks(CLASSIFIES, MAKERS["mlp"](), [weights[0], weights[2]], data)
    weights[1] = {name: tensor * float("nan") for name, tensor in weights[1].items()}
    found = score_networks(CLASSIFIES, MAKERS["mlp"](), weights, data)
    assert found.loss[1].isnan()
    assert 0 <= found.value[1] <= 1
    assert torch.equal(found.predictions[[0, 2]], alone.predictions)


def test_half_precision_weights_are_scored_in_float32():
    data = ClassificationTask().data("val")
    weights = [{k: v.bfloat16() for k, v in s.items()} for s in states(MAKERS["mlp"], 2)]
    expected = score_networks(
        CLASSIFIES, MAKERS["mlp"](), [{k: v.float() for k, v in s.items()} for s in weights], data
    )
    assert torch.equal(score_networks(CLASSIFIES, MAKERS["mlp"](), weights, data).predictions, expected.predictions)


def test_model_comes_back_as_it_was():
    network = MAKERS["batch-norm cnn"]().train()
    network.norms[0].eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    score_networks(CLASSIFIES, network, states(MAKERS["batch-norm cnn"], 2), ClassificationTask().data("val"))
    assert network.training
    assert not network.norms[0].training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_incomplete_state_dict_is_refused():
    first, second = states(MAKERS["mlp"], 2)
    del second["layers.2.bias"]
    with pytest.raises(ValueError, match=r"lacks 'layers.2.bias'"):
        score_networks(CLASSIFIES, MAKERS["mlp"](), [first, second], ClassificationTask().data("val"))


def test_hundred_networks_take_well_under_a_second():
    data = ClassificationTask().data("test")
    weights = states(MAKERS["mlp"], 100)
    score_networks(CLASSIFIES, MAKERS["mlp"](), weights[:2], data)
    start = time.process_time()
    score_networks(CLASSIFIES, MAKERS["mlp"](), weights, data)
    assert time.process_time() - start < 0.5


def test_empty_and_single_lists():
    data = TensorSplit(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2]), (0.5,), (0.5,))
    assert score_networks(CLASSIFIES, MAKERS["mlp"](), [], data).value.shape == (0,)
    assert score_networks(CLASSIFIES, MAKERS["mlp"](), states(MAKERS["mlp"], 1), data).predictions.shape == (1, 3)


def test_cross_entropy_equals_torchs():
    logits, labels = torch.randn(4, 7, 10), torch.randint(10, (4, 7))
    expected = torch.stack(
        [nn.functional.cross_entropy(a, b, reduction="none") for a, b in zip(logits, labels, strict=True)]
    )
    assert torch.allclose(cross_entropy(logits, labels), expected, atol=1e-6)
