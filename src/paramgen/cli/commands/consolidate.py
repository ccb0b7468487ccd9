"""``paramgen consolidate``: a checkpoint that is a folder of shards, as one file."""

from pathlib import Path

from paramgen.errors import ParamgenError
from paramgen.generators.checkpoints import CompleteCheckpoints
from paramgen.generators.restore import read_checkpoint


def main(ckpt_path: str, out: str, weights_only: bool = False, overwrite: bool = False) -> Path:
    """Write a sharded checkpoint, a folder, as one file that every command reads.

    Args:
        ckpt_path: Folder written by ``paramgen fit --trainer.strategy fsdp2``.
        out: The file.
        weights_only: Leave the optimizer out: enough to sample, not to go on with the fit.
        overwrite: Replace an existing file.

    Raises:
        ParamgenError: No such checkpoint, or an existing file.
    """
    path = Path(out)
    if path.exists() and not overwrite:
        raise ParamgenError(f"{out} exists: choose another file, or add --overwrite true")
    checkpoint = read_checkpoint(ckpt_path, parts=("state_dict",) if weights_only else None)
    if weights_only:
        checkpoint = {k: v for k, v in checkpoint.items() if k not in ("optimizer_states", "current_model_state")}
    CompleteCheckpoints().save_checkpoint(checkpoint, path)
    print(f"checkpoint: {path}")
    return path
