"""The Fréchet distance between two sets of images, in the features of a network (Heusel et al. 2017), by torchmetrics.

M: images. F: features.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from paramgen.errors import ParamgenError, one_line
from paramgen.tasks.vision.networks import DigitsCNN

Features = Literal["cnn", "inception"]
STEPS, BATCH_SIZE = 300, 64  # of the training of the small network
CHANNELS = (8, 16, 16)  # of its convolutions
LAST = 2  # side of its last feature maps


class CnnFeatures(nn.Module):
    """The features of the small network ``cnn_digits``: what its last linear layer sees, averaged to maps of 2x2.

    Args:
        network: The trained network.
    """

    def __init__(self, network: DigitsCNN) -> None:
        super().__init__()
        self.network, self.num_features = network, CHANNELS[-1] * LAST**2

    def forward(self, images: Tensor) -> Tensor:
        """Images (M, C, H, W) in [-1, 1] to features (M, F)."""
        x = images
        for i, (conv, norm) in enumerate(zip(self.network.convs, self.network.norms, strict=True)):
            x = norm(conv(x))
            x = F.relu(F.max_pool2d(x, 2) if i < 2 else x)
        return F.adaptive_avg_pool2d(x, LAST).flatten(1)


class Inception(nn.Module):
    """The 2,048 features of the Inception network that FID is defined by; torch-fidelity fetches its weights.

    Raises:
        ParamgenError: torch-fidelity is not installed, or the weights cannot be fetched.
    """

    num_features = 2048

    def __init__(self) -> None:
        super().__init__()
        from torchmetrics.image.fid import FrechetInceptionDistance

        try:
            self.network = FrechetInceptionDistance(self.num_features).inception
        except ImportError as error:
            raise ParamgenError("features 'inception' needs torch-fidelity: pip install 'paramgen[vision]'") from error
        except OSError as error:
            from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

            raise ParamgenError(
                f"features 'inception': its weights cannot be fetched ({one_line(error)}); put {URL_INCEPTION_V3} in "
                f"{torch.hub.get_dir()}/checkpoints, or use features cnn"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        """Images (M, C, H, W) in [-1, 1] to features (M, F)."""
        bytes_ = ((images + 1) * 127.5).round().clamp(0, 255).byte()
        features: Tensor = self.network(bytes_.expand(-1, 3, -1, -1))
        return features


def cnn_features(images: Tensor, labels: Tensor) -> CnnFeatures:
    """The small network, trained to classify images; the same at every call on one machine.

    Args:
        images: (M, C, H, W) in [-1, 1].
        labels: (M,).
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        network = DigitsCNN(int(labels.max()) + 1, tuple(images.shape[1:]), CHANNELS)  # type: ignore[arg-type]
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(STEPS):
            some = torch.randint(len(images), (BATCH_SIZE,))
            optimizer.zero_grad()
            F.cross_entropy(network(images[some]), labels[some]).backward()
            optimizer.step()
    return CnnFeatures(network.eval().requires_grad_(False))


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """The Fréchet distance between two sets of features (M, F) and (M', F), as normal distributions; NaN where one is not finite."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    if not (real.isfinite().all() and generated.isfinite().all()):
        return torch.nan
    identity: Any = nn.Identity()
    identity.num_features = real.shape[1]
    metric = FrechetInceptionDistance(identity)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return float(metric.compute())
