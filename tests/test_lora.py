"""Adapters: peft reads what is written, the gauge changes no function, the paper's count is met."""

import json

import pytest
import timm
import torch
from torch import nn

from paramgen.errors import ParamgenError
from paramgen.tasks.lora import (
    LoraSettings,
    adaptable,
    adapter_names,
    adapter_spec,
    align_gauge,
    fix_gauge,
    inject,
    into_adapted,
    pairs,
    read_adapter,
    write_adapter,
)

peft = pytest.importorskip("peft")
SETTINGS = LoraSettings(["conv", "deep", "head"], r=3)


class Small(nn.Module):
    """A convolution, a depthwise one, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.wise = nn.Conv2d(8, 8, 3, groups=8)
        self.deep = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(torch.relu(self.deep(torch.relu(self.wise(torch.relu(self.conv(x)))))).mean((2, 3)))


def plain() -> Small:
    torch.manual_seed(0)
    return Small().eval()


def trained(seed: int = 1) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """An adapted network whose adapters all do something."""
    adapted = inject(plain(), SETTINGS).eval()
    noise = torch.Generator().manual_seed(seed)
    state = adapted.state_dict()
    for name in adapter_names(state):
        state[name] = 0.3 * torch.randn(state[name].shape, generator=noise)
    adapted.load_state_dict(state)
    return adapted, {name: tensor.clone() for name, tensor in state.items()}


@pytest.fixture
def x():
    return torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(7))


def outputs(adapted, state, x):
    adapted.load_state_dict(state)
    return adapted(x)


def test_fresh_adapters_change_nothing(x):
    assert torch.equal(inject(plain(), SETTINGS).eval()(x), plain()(x))


def test_peft_loads_what_is_written_and_computes_the_same(tmp_path, x):
    adapted, state = trained()
    write_adapter(tmp_path / "adapter", state, SETTINGS, base_name="small")
    loaded = peft.PeftModel.from_pretrained(plain(), tmp_path / "adapter").eval()
    assert torch.allclose(loaded(x), adapted(x), atol=1e-6)
    assert not torch.allclose(loaded(x), plain()(x), atol=1e-2)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 3


def test_a_folder_written_by_peft_is_read(tmp_path, x):
    theirs = peft.get_peft_model(plain(), peft.LoraConfig(r=3, lora_alpha=3, target_modules=["conv", "deep", "head"]))
    with torch.no_grad():
        for name, tensor in theirs.named_parameters():
            if "lora_" in name:
                tensor.normal_(0, 0.3)
    theirs.save_pretrained(tmp_path)
    adapted = inject(plain(), SETTINGS).eval()
    state = {**adapted.state_dict(), **read_adapter(tmp_path, adapted)}
    assert torch.allclose(outputs(adapted, state, x), theirs.eval()(x), atol=1e-6)


def test_fixing_the_gauge_changes_no_function_and_forgets_every_other_gauge(x):
    adapted, state = trained()
    before, fixed = adapted(x), fix_gauge(state)
    turned = dict(state)
    for a, b in pairs(state):
        G = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        turned[a] = (torch.linalg.inv(G) @ state[a].double().flatten(1)).float().view_as(state[a])
        turned[b] = (state[b].double().flatten(1) @ G).float().view_as(state[b])
    assert torch.allclose(outputs(adapted, turned, x), before, atol=1e-4)
    assert torch.allclose(outputs(adapted, fixed, x), before, atol=1e-5)
    again = fix_gauge(turned)
    for name in adapter_names(state):
        assert torch.allclose(again[name], fixed[name], atol=1e-4), name
        assert not torch.allclose(state[name], fixed[name], atol=1e-2)


def test_the_fixed_gauge_is_balanced():
    _, state = trained()
    fixed = fix_gauge(state)
    for a, b in pairs(fixed):
        A, B = fixed[a].flatten(1), fixed[b].flatten(1)
        assert torch.allclose(A @ A.T, B.T @ B, atol=1e-5)
        assert torch.allclose(A @ A.T, torch.diag((A @ A.T).diag()), atol=1e-5)


def test_the_fixed_gauge_of_fresh_adapters_is_zero():
    adapted = inject(plain(), SETTINGS)
    assert all(not fix_gauge(adapted.state_dict())[n].any() for n in adapter_names(adapted.state_dict()))


def test_turning_to_a_reference_undoes_a_turn(x):
    adapted, state = trained()
    before, turned = adapted(x), dict(state)
    for a, b in pairs(state):
        G = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3))).Q
        turned[a] = (G.T @ state[a].flatten(1)).view_as(state[a])
        turned[b] = (state[b].flatten(1) @ G).view_as(state[b])
    back = align_gauge(turned, state)
    for name in adapter_names(state):
        assert torch.allclose(back[name], state[name], atol=1e-5)
    other = trained(seed=2)[1]
    assert torch.allclose(outputs(adapted, align_gauge(state, other), x), before, atol=1e-5)


def test_depthwise_convolutions_are_passed_over():
    assert adaptable(plain()) == ["conv", "deep", "head"]
    names = adapter_names(inject(plain(), LoraSettings(["*"], r=3)).state_dict())
    assert {n.partition(".lora_")[0] for n in names} == {"conv", "deep", "head"}


def test_pretrained_weights_go_under_the_adapters(x):
    network = plain()
    with torch.no_grad():
        network.conv.weight.mul_(2)
    adapted = inject(plain(), SETTINGS).eval()
    assert torch.equal(outputs(adapted, into_adapted(network.state_dict(), adapted), x), network(x))


def test_efficientnet_has_as_many_adapter_parameters_as_the_paper_says():
    """0.34 M counts in 2^20, as all of Table 7: 354,092 at rank 4 over all convolutions; peft no longer adapts the depthwise ones."""
    network = timm.create_model("efficientnet_b0", num_classes=19)
    first_six = [
        m
        for n, m in network.named_modules()
        if isinstance(m, nn.Conv2d) and n.startswith(("conv_stem", *(f"blocks.{i}." for i in range(5))))
    ]
    paper = 4 * sum(m.in_channels * m.kernel_size[0] ** 2 + m.out_channels for m in first_six)
    whole = sum(p.numel() for n, p in network.named_parameters() if n.startswith(("conv_stem", "bn1", "blocks")))
    later = sum(p.numel() for n, p in network.named_parameters() if n.startswith(("blocks.5.", "blocks.6.")))
    assert round((whole - later) / 2**20, 2) == 0.81  # Table 7, first 6 layers
    assert (paper, round(paper / 2**20, 2)) == (354_092, 0.34)
    ours = adapter_spec(inject(network, LoraSettings(["conv_stem", "blocks.[0-4].*"], r=22))).numel
    assert (ours, round(ours / 2**20, 2)) == (360_690, 0.34)


def test_transformers_models_are_adapted_by_target_modules():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=50
    )
    model = transformers.BertModel(config)
    spec = adapter_spec(inject(model, LoraSettings(["*.query", "*.value"], r=2)))
    assert spec.numel == 2 * 2 * 2 * (16 + 16)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ParamgenError, match=r"'haed' matches no layer. Did you mean 'head'"):
        inject(plain(), LoraSettings(["haed"]))
    with pytest.raises(ParamgenError, match=r"lora\.r is 0"):
        LoraSettings(["head"], r=0)
    with pytest.raises(ParamgenError, match=r"lora\.dropout is 1\.5, expected 0 or more and less than 1"):
        LoraSettings(["head"], dropout=1.5)
    with pytest.raises(ParamgenError, match="is empty"):
        LoraSettings([])
    with pytest.raises(ParamgenError, match="no adapters"):
        adapter_spec(plain())
    with pytest.raises(ParamgenError, match="no adapters to write"):
        write_adapter(tmp_path, plain().state_dict(), SETTINGS)


def test_an_adapter_for_another_model_is_refused(tmp_path):
    write_adapter(tmp_path / "a", trained()[1], SETTINGS)
    with pytest.raises(ParamgenError, match=r"for another model: .*conv.*no such adapter"):
        read_adapter(tmp_path / "a", inject(plain(), LoraSettings(["head", "deep"], r=3)))
    with pytest.raises(ParamgenError, match=r"for another model.*shape"):
        read_adapter(tmp_path / "a", inject(plain(), LoraSettings(["conv", "deep", "head"], r=2)))
    with pytest.raises(ParamgenError, match=r"adapter_config\.json"):
        read_adapter(tmp_path / "none", inject(plain(), SETTINGS))
