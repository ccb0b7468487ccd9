import pytest
import torch

from conftest import write_zoo
from paramgen.core.codec import FlatCodec, TokenCodec
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.generators.batches import BatchStream, NetworkTokens
from paramgen.generators.data import ParameterDataModule

CPU = torch.device("cpu")


def module(zoo, **arguments):
    data = ParameterDataModule(str(zoo.path), **arguments)
    data.setup()
    return data


def stream(data, *, batch_size, rank=0, world_size=1, tokens_per_step=None, steps=5):
    tokens = NetworkTokens(data.zoo, data.train_indices, data.codec, "ram", CPU)
    runs = torch.zeros(len(tokens), dtype=torch.long)
    return BatchStream(tokens, runs, batch_size, steps, tokens_per_step, 0, rank, world_size)


def test_sizes_are_known_before_any_network_is_read(tiny_zoo):
    data = ParameterDataModule(str(tiny_zoo.path), TokenCodec(5))
    for entry in tiny_zoo.entries:
        (tiny_zoo.path / entry.file).unlink()
    assert data.token_dim == 5
    assert data.seq_len == data.codec.mask.shape[0]
    assert (data.num_networks, data.num_runs, data.cond_dim) == (3, 1, 0)


def test_a_batch_holds_the_tokens_of_its_networks(tiny_zoo):
    data = module(tiny_zoo, codec=TokenCodec(5), batch_size=3, steps_per_epoch=1)
    (batch,) = data.train_dataloader()
    assert sorted(batch.index.tolist()) == [0, 1, 2]
    for x, index in zip(batch.x, batch.index, strict=True):
        assert torch.equal(x, data.codec.encode(tiny_zoo[data.train_indices[index]]))


def test_statistics_are_of_the_train_split_alone(tiny_zoo):
    data = module(tiny_zoo)
    expected = FlatCodec().bind(tiny_zoo.spec, [tiny_zoo[i] for i in tiny_zoo.indices("train")])
    assert torch.equal(data.codec.shift, expected.shift)


def test_every_network_is_seen_equally_often_even_when_the_batch_exceeds_the_zoo(tiny_zoo):
    data = module(tiny_zoo)
    index = torch.cat([b.index for b in stream(data, batch_size=7, steps=9)])
    assert torch.bincount(index).tolist() == [21, 21, 21]


def test_two_ranks_split_the_batch_that_one_process_would_get(tiny_zoo):
    data = module(tiny_zoo, codec=TokenCodec(5))
    alone = list(stream(data, batch_size=4, tokens_per_step=3))
    halves = [list(stream(data, batch_size=2, rank=r, world_size=2, tokens_per_step=3)) for r in (0, 1)]
    for whole, first, second in zip(alone, *halves, strict=True):
        assert torch.equal(whole.x, torch.cat([first.x, second.x]))
        assert torch.equal(whole.token, first.token)
        assert torch.equal(whole.token, second.token)


def test_epochs_differ_and_runs_repeat(tiny_zoo):
    data = module(tiny_zoo)
    first, second = stream(data, batch_size=2), stream(data, batch_size=2)
    epochs = [torch.cat([b.index for b in first]) for _ in range(2)]
    assert not torch.equal(*epochs)
    assert torch.equal(epochs[0], torch.cat([b.index for b in second]))


def test_resumed_stream_goes_on_with_the_next_batch(tiny_zoo):
    data = module(tiny_zoo, codec=TokenCodec(5))
    stopped, resumed = (stream(data, batch_size=2, tokens_per_step=3) for _ in range(2))
    uninterrupted = stream(data, batch_size=2, tokens_per_step=3)
    whole = [b for _ in range(2) for b in uninterrupted]
    taken = []
    for _ in range(2):
        for batch in stopped:
            taken.append(batch)
            if len(taken) == 7:
                break
    resumed.load_state_dict(stopped.state_dict())
    rest = list(resumed)
    assert len(taken) + len(rest) == len(whole) == 10
    for expected, got in zip(whole[7:], rest, strict=True):
        assert torch.equal(expected.x, got.x)


@pytest.mark.parametrize("tokens_per_step", [None, 3])
def test_disk_and_ram_give_the_same_batches(tiny_zoo, tokens_per_step):
    batches = []
    for residency in ("ram", "disk", "device"):
        data = module(tiny_zoo, codec=TokenCodec(5), tokens_per_step=tokens_per_step, residency=residency, batch_size=2)
        batches.append(next(iter(data.train_dataloader())))
    for other in batches[1:]:
        torch.testing.assert_close(batches[0].x, other.x)
        assert torch.equal(batches[0].index, other.index)


def test_disk_holds_no_network_in_memory(tiny_zoo):
    data = module(tiny_zoo, codec=TokenCodec(5), residency="disk")
    assert NetworkTokens(data.zoo, data.train_indices, data.codec, "disk", CPU).tokens is None


def test_training_networks_are_read_once_whoever_asks(tiny_zoo, monkeypatch):
    read, plain = [], Zoo.__getitem__

    def counted(self, index):
        read.append(index)
        return plain(self, index)

    monkeypatch.setattr(Zoo, "__getitem__", counted)
    data = module(tiny_zoo, codec=TokenCodec(5), batch_size=2)
    for loader in (data.train_dataloader(), data.predict_dataloader()):
        assert len(next(iter(loader)).x) == 2
    assert data.training_networks() is data.training_networks()
    weights = data.training_weights()
    assert sorted(read) == data.train_indices
    assert torch.allclose(weights, tiny_zoo.matrix(data.train_indices), atol=1e-6)


def test_the_order_of_the_batches_is_that_of_the_seed_alone(tiny_zoo):
    def order(seed):
        return torch.cat([b.index for b in module(tiny_zoo, batch_size=2, seed=seed).train_dataloader()]).tolist()

    assert order(3) == order(3) != order(4)
    with pytest.raises(ParamgenError, match=r"data\.seed is -1, expected 0 or more"):
        ParameterDataModule(str(tiny_zoo.path), seed=-1)


def test_val_and_heldout_networks_have_no_identity(tiny_zoo):
    data = module(tiny_zoo)
    for loader, split in ((data.val_dataloader(), "val"), (data.test_dataloader(), "heldout")):
        batches = list(loader)
        assert sum(len(b.x) for b in batches) == len(tiny_zoo.indices(split))
        assert all((b.index == -1).all() and (b.run == -1).all() for b in batches)


def test_zoo_of_one_run_has_no_validation(tmp_path):
    data = module(write_zoo(tmp_path / "one", networks=3, runs=1))
    assert data.val_dataloader() == []


def test_max_networks_takes_them_spread_out(tmp_path):
    zoo = write_zoo(tmp_path / "one", networks=9, runs=1)
    assert module(zoo, max_networks=3).train_indices == [0, 3, 6]


def test_one_training_network_is_refused(tmp_path):
    zoo = write_zoo(tmp_path / "one", networks=1, runs=1)
    with pytest.raises(ParamgenError, match="gives 1 training network"):
        ParameterDataModule(str(zoo.path))


@pytest.mark.parametrize("name", ["batch_size", "steps_per_epoch", "tokens_per_step"])
def test_sizes_below_one_are_refused_by_name(tiny_zoo, name):
    with pytest.raises(ParamgenError, match=rf"data\.{name} is 0"):
        ParameterDataModule(str(tiny_zoo.path), **{name: 0})


def test_damaged_network_is_named(tiny_zoo):
    path = tiny_zoo.path / tiny_zoo.entries[0].file
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ParamgenError, match=path.name):
        module(tiny_zoo)
