import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from paramgen.generators.optim import fused_kernel


class _Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        self.optimizer = torch.optim.AdamW(self.parameters(), fused=fused_kernel(self))
        return self.optimizer


@pytest.mark.parametrize(
    ("precision", "clip", "fused"),
    [("32-true", 1.0, True), ("bf16-mixed", None, True), ("bf16-mixed", 1.0, None)],
)
def test_adamw_is_fused_wherever_lightning_can_still_clip(precision, clip, fused, tmp_path):
    module = _Line()
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_steps=2,
        precision=precision,
        gradient_clip_val=clip,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(torch.randn(8, 4), batch_size=4))  # would refuse to clip a fused optimizer in bf16
    assert module.optimizer.param_groups[0]["fused"] is fused
