import math

import pytest
import torch

from paramgen.errors import ParamgenError
from paramgen.nn.positions import Positions, layer_sinusoid, sinusoid

PLACES = torch.tensor([[0, 0], [0, 1], [0, 2], [1, 0], [2, 0], [2, 1]])


def test_sinusoid_interleaves_sine_and_cosine_at_base_ten_thousand():
    table = sinusoid(torch.arange(7), 8)
    for place in range(7):
        for pair in range(4):
            angle = place / 1e4 ** (2 * pair / 8)
            assert table[place, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[place, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_layer_position_has_the_token_in_its_first_half_and_the_tensor_in_its_second():
    table = layer_sinusoid(PLACES, 16)
    assert torch.equal(table[:, :8], sinusoid(PLACES[:, 1], 8))
    assert torch.equal(table[:, 8:], sinusoid(PLACES[:, 0], 8))


def test_index_position_ignores_the_tensors():
    one, other = Positions("index", PLACES, 8), Positions("index", torch.zeros_like(PLACES), 8)
    assert torch.equal(one(), other())
    assert torch.equal(one(), sinusoid(torch.arange(6), 8))


@pytest.mark.parametrize("kind", ["layer", "index", "learned"])
def test_a_piece_is_a_slice_of_the_whole(kind):
    positions = Positions(kind, PLACES, 8)
    assert torch.equal(positions(slice(2, 5)), positions()[2:5])


def test_learned_position_starts_as_layer_and_is_trained():
    positions = Positions("learned", torch.zeros_like(PLACES), 8)
    positions.place(PLACES)
    assert torch.equal(positions(), layer_sinusoid(PLACES, 8))
    assert [p.shape for p in positions.parameters()] == [(6, 8)]
    assert not list(Positions("layer", PLACES, 8).parameters())


@pytest.mark.parametrize(
    ("kind", "width", "message"),
    [("layer", 6, "multiple of 4"), ("index", 7, "even"), ("rotary", 8, "expected layer, index or learned")],
)
def test_what_does_not_fit_is_refused(kind, width, message):
    with pytest.raises(ParamgenError, match=message):
        Positions(kind, PLACES, width)()
