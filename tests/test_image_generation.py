"""Image generation: noisy inputs, drawn pictures, Fréchet distances, and the line from recipe to report."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from paramgen.core.params import state_tensors
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks import ImageGenerationTask
from paramgen.tasks.vision.frechet import Inception, frechet_distance
from paramgen.tasks.vision.unets import UNETS, build_unet, with_step
from whole_line import collecting, line_to_report, rows, run

SMALL = {"block_out_channels": [8, 16], "norm_num_groups": 4}


@pytest.fixture(scope="module")
def task():
    return ImageGenerationTask(network_args=SMALL, images=64, steps=4)


def test_noisy_images_have_the_share_of_noise_of_their_step(task):
    data = task.data("train")
    x, noise = next(iter(data.batches(500)))
    step, images = x[:, -1, 0, 0].long(), data.targets[:500]
    assert (x[:, -1] == step[:, None, None]).all()
    alpha = data.alphas[step].view(-1, 1, 1, 1)
    torch.testing.assert_close(x[:, :-1], alpha.sqrt() * images + (1 - alpha).sqrt() * noise)
    assert images.min() == -1
    assert images.max() == 1
    again, _ = next(iter(task.data("train").batches(500)))
    assert torch.equal(x, again)


def test_a_networks_noise_does_not_depend_on_its_neighbours(task):
    data, order = task.data("train"), torch.arange(6).view(1, 2, 3)
    ((both, _),) = data.training_batches(order, [torch.Generator().manual_seed(s) for s in (0, 1)])
    ((alone, _),) = data.training_batches(order[:, 1:], [torch.Generator().manual_seed(1)])
    assert torch.equal(both[1], alone[0])


def test_a_unet_is_the_one_of_diffusers_called_with_tensors():
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    network = build_unet("unet_small", (1, 8, 8), **SMALL).eval()
    plain = UNet2DModel(8, 1, 1, **{**UNETS["unet_small"], **SMALL}).eval()
    plain.load_state_dict(network.state_dict())
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([5, 900, 33])
    torch.testing.assert_close(network(with_step(x, t)), plain(x, t).sample)


def test_a_network_that_knows_the_noise_draws_the_image():
    """An ideal denoiser of a set of one image, against which the sampler is tested."""
    task = ImageGenerationTask(steps=20)
    image = task.data("test").targets[:1]

    class Ideal(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x):
            alpha = task.data("test").alphas[x[:, -1, 0, 0].long()].view(-1, 1, 1, 1)
            return (x[:, :-1] - alpha.sqrt() * image) / (1 - alpha).sqrt() + self.weight

    task.architecture = Ideal()  # a cached property
    drawn = task.draw(state_tensors(task.architecture), 3)
    assert (drawn - image).abs().max() < 0.05


def test_the_distance_is_that_of_normal_distributions():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(200, 5, generator=generator), 1.5 * torch.randn(300, 5, generator=generator) + 0.3
    means, covariances = [x.mean(0).numpy() for x in (a, b)], [np.cov(x.numpy().T) for x in (a, b)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-3)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-3)
    assert np.isnan(frechet_distance(a, a * torch.nan))


def test_digits_are_nearer_to_digits_than_to_noise_and_a_network_without_finite_images_has_no_score(task):
    features = task._in_features
    test, train = (task.data(split).targets for split in ("test", "train"))
    noise = torch.rand(test.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert frechet_distance(features(test), features(train)) < 0.1 * frechet_distance(features(test), features(noise))
    state = state_tensors(task.build())
    broken = {name: torch.full_like(tensor, torch.nan) for name, tensor in state.items()}
    scores = task.evaluate([state, broken], "test", most=32)
    assert scores.value[0] > 1
    assert scores.value[1].isnan()
    assert scores.loss[1].isnan()


def inception_weights():
    """Weights of the Inception network in a file of 0.2 MB: every convolution averages, so features are proportional to brightness."""
    from torchvision.models import inception_v3

    def constant(name, like):
        ones = name.endswith(("bn.weight", "running_var"))
        value = 1 / like[0].numel() if like.dim() == 4 else float(ones)
        return torch.tensor(value, dtype=like.dtype).expand(like.shape)

    with torch.device("meta"):
        like = inception_v3(num_classes=1008, aux_logits=False, init_weights=False).state_dict()
    return {name: constant(name, tensor) for name, tensor in like.items()}


def test_fid_has_the_features_of_the_weights_that_were_fetched(tmp_path, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(
        ParamgenError, match=rf"weights cannot be fetched .* put {URL_INCEPTION_V3} in .*, or use features cnn"
    ):
        Inception()
    torch.save(inception_weights(), tmp_path / "hub" / "checkpoints" / URL_INCEPTION_V3.rpartition("/")[2])
    task = ImageGenerationTask(features="inception")
    grey = torch.tensor([0.2, 1.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8)  # 25 and 127 above the middle of 0 to 255
    features = task._in_features(grey)
    assert features.shape == (2, 2048)
    assert (features[0] > 0).all()
    torch.testing.assert_close(features[1], features[0] * 127 / 25)
    assert task.score.name == "FID"


def test_mistakes_are_one_line():
    with pytest.raises(ParamgenError, match=r"Unknown dataset 'mnst'\. Did you mean 'mnist'"):
        ImageGenerationTask("mnst")
    with pytest.raises(ParamgenError, match=r"Unknown network 'unet'\. "):
        ImageGenerationTask(network="unet")
    with pytest.raises(ParamgenError, match="images is 1, expected 2 or more"):
        ImageGenerationTask(images=1)
    with pytest.raises(ParamgenError, match="beta_schedule is 'cosine', expected linear"):
        ImageGenerationTask(beta_schedule="cosine").data("train")
    with pytest.raises(ParamgenError, match=r"network .unet_small. does not take these arguments: .*channels"):
        ImageGenerationTask(network_args={"channels": 3}).build()


def test_recipe_and_generator_config_lead_to_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--task.init_args.images", "16", "--task.init_args.steps", "3", "--checkpoints", "3", "--epochs", "2"]
    collect = collecting("digits_unet_trajectory", *small, "--runs", "2", "--val_runs", "0")
    run(capsys, collect, *line_to_report("zoo", "pdiff_digits_unet", steps="4"))
    assert Zoo("zoo").spec.names[-1] == "conv_out.bias"
    found = rows()
    assert found["samples"]["values"]["mean"] == pytest.approx(found["zoo"]["values"]["mean"], rel=0.2)
