import pytest
import torch

from paramgen.errors import ParamgenError
from paramgen.nn.recurrence import RecurrenceSettings
from paramgen.nn.states import StateEmbeddings

KINDS = ["mamba", "mamba1", "lstm", "transformer", "none"]


def make(kind):
    torch.manual_seed(0)
    return RecurrenceSettings(kind, [64, 64], d_state=16).make(chunk_size=8)


@pytest.mark.parametrize("kind", KINDS)
def test_no_model_looks_ahead(kind):
    model, u = make(kind), torch.randn(2, 20, 64)
    changed = u.clone()
    changed[:, 12:] += 1
    before, after = model(u), model(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(before[:, 12:], after[:, 12:])


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_ablation_forgets_what_came_before(kind):
    model, u = make(kind), torch.randn(2, 20, 64)
    changed = u.clone()
    changed[:, 0] = torch.randn(2, 64)
    same = torch.allclose(model(u)[:, -1], model(changed)[:, -1], atol=1e-7)
    assert same == (kind == "none")


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_give_the_same_as_the_whole(kind):
    model, u = make(kind), torch.randn(3, 21, 64)
    state, ys = None, []
    for piece in u.split([8, 1, 12], 1):
        y, state = model.resume(piece, state)
        ys.append(y)
    torch.testing.assert_close(torch.cat(ys, 1), model(u), rtol=1e-4, atol=1e-5)


def test_mamba_may_widen_in_its_second_layer():
    model = RecurrenceSettings("mamba", [64, 128], d_state=16).make()
    assert model(torch.randn(1, 5, 64)).shape == (1, 5, 128)
    assert model.layers[1].in_proj.in_features == 64


@pytest.mark.parametrize(
    ("kind", "widths", "message"),
    [
        ("gru", [64], "expected mamba, mamba1, lstm, transformer or none"),
        ("lstm", [64, 128], "only those of mamba may differ"),
        ("mamba", [], "d_model is empty"),
        ("transformer", [30], "multiple of the transformer's 8 heads"),
    ],
)
def test_what_does_not_fit_is_refused(kind, widths, message):
    with pytest.raises(ParamgenError, match=message):
        RecurrenceSettings(kind, widths).make()


def test_one_hot_states_are_rows_of_the_identity_and_stay_fixed():
    states = StateEmbeddings("one_hot", 3, 5)
    assert torch.equal(states(states.weights(torch.tensor([0, 2]))), torch.eye(5)[[0, 2]])
    assert not list(states.parameters())


@pytest.mark.parametrize(("kind", "trained"), [("normal", 0), ("trained", 15)])
def test_tables_of_states_are_trained_or_not(kind, trained):
    states = StateEmbeddings(kind, 3, 5)
    assert sum(p.numel() for p in states.parameters()) == trained
    assert "table" in states.state_dict()


def test_unknown_state_is_the_mean_of_all():
    states = StateEmbeddings("normal", 4, 8)
    unknown = states(states.weights(torch.tensor([-1])))[0]
    torch.testing.assert_close(unknown, states.table.mean(0))


def test_random_states_come_equally_often():
    drawn = StateEmbeddings("one_hot", 7, 8).draw(21)
    assert torch.equal(drawn.sum(0), torch.full((7,), 3.0))


def test_mixtures_are_convex_and_of_two():
    drawn = StateEmbeddings("one_hot", 9, 16).draw(50, mixture=True)
    torch.testing.assert_close(drawn.sum(1), torch.ones(50))
    assert drawn.min() >= 0
    assert (drawn > 0).sum(1).max() <= 2
    assert ((drawn > 0) & (drawn < 1)).any()


def test_states_out_of_range_and_too_many_one_hot_ones_are_refused():
    with pytest.raises(ParamgenError, match="state 4 is out of range: the generator knows the states 0 to 3"):
        StateEmbeddings("one_hot", 4, 8).asked(2, [1, 4])
    with pytest.raises(ParamgenError, match="state 4 is out of range: the generator knows the states 0 to 3"):
        StateEmbeddings("one_hot", 4, 8).weights(torch.tensor([-1, 4]))
    with pytest.raises(ParamgenError, match="9 one-hot states do not fit d_model 8"):
        StateEmbeddings("one_hot", 9, 8)
    with pytest.raises(ParamgenError, match="expected one_hot, normal or trained"):
        StateEmbeddings("two_hot", 4, 8)
