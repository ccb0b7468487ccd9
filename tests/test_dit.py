"""DiT: the transformer, mixtures of networks, and what tokens that are denoised together can do."""

import pytest
import torch

from conftest import write_zoo
from every_backend import build
from paramgen.diffusion import Diffusion
from paramgen.errors import ParamgenError
from paramgen.generators.sampling import SampleRequest
from paramgen.nn.mixing import MixingSettings
from paramgen.nn.transformer import TransformerSettings

SMALL = {"width": 16, "depth": 1, "heads": 2}
CASE = {
    "model": {"class_path": "DiT", "init_args": {"denoiser": SMALL, "diffusion": {"num_inference_steps": 3}}},
    "data": {"codec": {"class_path": "TokenCodec", "init_args": {"token_dim": 8}}},
}


def transformer(L=5, D=6, **settings):
    torch.manual_seed(0)
    model = TransformerSettings(**{**SMALL, **settings}).make(L, D)
    model.positions.place(torch.stack([torch.arange(L) // 2, torch.arange(L) % 2], 1))
    return model


def awake(model):
    """The same network with no zero-initialised layer."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return model


def test_untrained_network_answers_the_mean():
    assert not transformer()(torch.randn(3, 5, 6), torch.tensor([1, 5, 900])).any()


def test_one_time_for_all_equals_the_same_time_for_each():
    model, x = awake(transformer()), torch.randn(3, 5, 6)
    torch.testing.assert_close(model(x, torch.tensor([7])), model(x, torch.full((3,), 7)))
    assert not torch.allclose(model(x, torch.tensor([7])), model(x, torch.tensor([700])))


def test_every_token_reads_every_other_token():
    model, x = awake(transformer()), torch.randn(1, 5, 6)
    changed = x.clone()
    changed[0, 2] += 1
    assert ((model(x, torch.tensor([7])) - model(changed, torch.tensor([7]))).abs().amax(-1) > 1e-5).all()


def test_equal_tokens_at_other_places_are_answered_differently():
    answer = awake(transformer())(torch.ones(1, 5, 6), torch.tensor([7]))[0]
    assert (torch.pdist(answer) > 1e-3).all()


@pytest.mark.parametrize(
    ("given", "said"), [({"width": 10, "heads": 4}, "multiple"), ({"dropout": 1.0}, "dropout"), ({"depth": 0}, "depth")]
)
def test_sizes_that_do_not_fit_are_refused(given, said):
    with pytest.raises(ParamgenError, match=said):
        transformer(**given)


def test_tokens_of_a_sample_are_of_one_network_without_any_state():
    """Of two networks with opposite tokens, tokens that are drawn independently of each other would be mixed half and half."""
    L, D = 4, 8
    network = torch.randn(L, D, generator=torch.Generator().manual_seed(1))
    data, model = torch.stack([network, -network]), transformer(L, D, width=32)
    diffusion = Diffusion(beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(200):
        loss = diffusion.loss(model, data[torch.randint(2, (32,))])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = diffusion.sample(model.eval(), (30, L, D), num_inference_steps=10)
    of_first = (x * network).sum(-1) > 0  # (30, L)
    together = of_first.all(1) | (~of_first).all(1)
    assert together.float().mean() > 0.9
    assert 5 <= of_first[together, 0].sum() <= 25


@pytest.mark.parametrize("concentration", [0.1, 1.0, 10.0])
def test_mixtures_keep_the_variance_of_the_networks(concentration):
    torch.manual_seed(0)
    x = torch.randn(64, 500)
    mixed = MixingSettings(concentration).mix(x)
    assert mixed.var().item() == pytest.approx(1, abs=0.1)
    assert MixingSettings(concentration, preserve_variance=False).mix(x).var() < mixed.var()


def test_averages_lie_between_the_networks():
    mixed = MixingSettings(0.5, preserve_variance=False).mix(torch.eye(10))
    assert mixed.min() >= 0
    torch.testing.assert_close(mixed.sum(1), torch.ones(10))


def test_without_mixing_networks_stay_as_they_are():
    x = torch.randn(4, 3)
    assert MixingSettings().mix(x) is x


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    zoo = write_zoo(tmp_path_factory.mktemp("zoo") / "zoo", networks=12)
    model, data = build(CASE, str(zoo.path), batch_size=4)
    data.setup("fit")
    model.codec, model.base = data.codec, zoo.base()
    model.denoiser.positions.place(data.codec.positions)
    awake(model.denoiser)
    return model, next(iter(data.train_dataloader()))


def test_mixtures_are_for_training_alone(fresh):
    model, batch = fresh
    model.mixing = MixingSettings(1.0)
    assert not torch.equal(model.train()._networks(batch), batch.x)
    assert torch.equal(model.eval()._networks(batch), batch.x)


def test_padding_changes_no_loss(fresh):
    model, batch = fresh
    model.eval()
    losses = []
    for padding in (0.0, 5.0):
        torch.manual_seed(0)
        answer = model.diffusion.loss(lambda x, t, p=padding: x + p * ~model.codec.mask, batch.x, model.token_mask())
        losses.append(answer)
    assert losses[0] == losses[1]


def test_predicted_networks_have_gradients_for_the_behavioural_loss(fresh):
    model, batch = fresh
    predicted = model.train().denoised(batch)
    assert predicted.tokens.shape == batch.x.shape
    assert predicted.signal.shape == (4,)
    predicted.tokens.square().sum().backward()
    assert all(p.grad is not None for p in model.denoiser.parameters())
    model.zero_grad()


def test_many_networks_are_sampled_in_pieces(fresh, monkeypatch):
    model, _ = fresh
    monkeypatch.setattr("paramgen.backends.dit.TOKENS_AT_ONCE", 2 * model.shape[0])
    drawn = model.draw(SampleRequest(5, keep_trajectory=True))
    assert drawn.tokens.shape == (5, *model.shape)
    assert len(drawn.tokens.flatten(1).unique(dim=0)) == 5
    assert drawn.trajectory.shape[1:] == (2, *model.shape)
    assert not drawn.tokens[:, ~model.codec.mask].any()


def test_some_tokens_of_a_network_are_refused(fresh):
    model, batch = fresh
    with pytest.raises(ParamgenError, match="tokens_per_step"):
        model.loss(batch._replace(token=torch.tensor([0])))
