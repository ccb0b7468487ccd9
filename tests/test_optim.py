import torch
from torch import nn

from paramgen.optim import fused_adamw


def test_fused_adamw_steps_as_adamw_does_and_lets_lightning_clip():
    torch.manual_seed(0)
    first = nn.Linear(5, 3)
    second = nn.Linear(5, 3)
    second.load_state_dict(first.state_dict())
    ours = fused_adamw([{"params": [*first.parameters()], "weight_decay": 0.1}], lr=0.01)
    plain = torch.optim.AdamW(second.parameters(), lr=0.01, weight_decay=0.1)
    assert ours.param_groups[0]["fused"]
    assert not getattr(ours, "_step_supports_amp_scaling", False)  # Lightning would not clip
    for _ in range(5):
        for p, q in zip(first.parameters(), second.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        ours.step()
        plain.step()
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)


def test_no_fused_kernel_where_torch_has_none():
    assert not fused_adamw(nn.Linear(2, 2, device="meta").parameters(), lr=0.01).param_groups[0]["fused"]
