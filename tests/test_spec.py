import pytest
import torch
from torch import nn

from conftest import TinyNet
from paramgen.core.params import ParamSpec
from paramgen.errors import ParamgenError


def test_spec_lists_floating_tensors_once_and_ties_the_rest():
    spec = ParamSpec.of(TinyNet())
    assert spec.aliases == {"out.weight": "linear.weight"}
    assert "norm.num_batches_tracked" not in spec.names
    assert "steps" not in spec.names
    assert spec.numel == 12 + 3 + 3 + 3 + 3 + 3 + 1 + 1 + 3
    kinds = {t.name: t.kind for t in spec.tensors}
    assert kinds["norm.running_var"] == "running_var"
    assert kinds["norm.running_mean"] == "running_mean"
    assert kinds["norm.weight"] == "weight"


def test_unflatten_inverts_flatten_and_loads_strictly():
    model = TinyNet()
    spec = ParamSpec.of(model)
    state = spec.unflatten(spec.flatten(model.state_dict()))
    rest = {k: v for k, v in model.state_dict().items() if k not in state}
    assert set(rest) == {"norm.num_batches_tracked", "steps"}
    fresh = TinyNet()
    fresh.load_state_dict({**state, **rest}, strict=True)
    x = torch.randn(5, 4)
    torch.testing.assert_close(fresh.eval()(x), model.eval()(x))


def test_flatten_follows_the_spec_whatever_the_order_of_keys():
    model = TinyNet()
    spec = ParamSpec.of(model)
    shuffled = dict(reversed(list(model.state_dict().items())))
    assert torch.equal(spec.flatten(shuffled), spec.flatten(model.state_dict()))


def test_chosen_names_alone_are_generated():
    spec = ParamSpec.of(TinyNet(), ["norm.weight", "norm.bias"])
    assert spec.names == ["norm.weight", "norm.bias"]


def test_unknown_name_is_named():
    with pytest.raises(ParamgenError, match=r"norm\.wait"):
        ParamSpec.of(TinyNet(), ["norm.wait"])


def test_nothing_to_generate_is_refused():
    with pytest.raises(ParamgenError, match="nothing to generate"):
        ParamSpec.of({"n": torch.tensor(3)})


def test_spec_survives_json():
    spec = ParamSpec.of(TinyNet())
    assert ParamSpec.from_dict(spec.to_dict()) == spec


def test_spec_works_on_the_meta_device():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(1000, 1000), nn.Linear(1000, 10))
    assert ParamSpec.of(model).numel == 1001000 + 10010


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("linear.bias"), "no tensor 'linear.bias'"),
        (lambda s: s.update({"linear.bias": torch.zeros(4)}), r"shape \(4,\), expected \(3,\)"),
        (
            lambda s: s.update({"linear.bias": torch.tensor([0.0, torch.nan, torch.inf])}),
            "2 NaN or infinite values of 3",
        ),
    ],
)
def test_check_names_what_is_wrong(damage, message):
    model = TinyNet()
    state = dict(model.state_dict())
    damage(state)
    with pytest.raises(ParamgenError, match=message):
        ParamSpec.of(model).check(state, "file.pt")
