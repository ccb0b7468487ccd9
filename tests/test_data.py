from pathlib import Path
from threading import current_thread
from time import sleep

import pytest
import torch

from conftest import write_zoo
from paramgen.core.codec import FlatCodec, TokenCodec
from paramgen.core.params import ParamSpec
from paramgen.core.zoo import Zoo
from paramgen.core.zoo_writer import ZooWriter
from paramgen.errors import ParamgenError
from paramgen.generators.batches import AHEAD, BatchStream, NetworkTokens
from paramgen.generators.data import ParameterDataModule

CPU = torch.device("cpu")


def module(zoo, **arguments):
    data = ParameterDataModule(str(zoo.path), **arguments)
    data.setup()
    return data


def stream(data, *, batch_size, rank=0, world_size=1, tokens_per_step=None, steps=5, residency="ram"):
    tokens = NetworkTokens(data.zoo, data.train_indices, data.codec, residency, CPU)
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


@pytest.mark.parametrize("residency", ["ram", "disk"])
def test_resumed_stream_goes_on_with_the_next_batch(tiny_zoo, residency):
    data = module(tiny_zoo, codec=TokenCodec(5))
    stopped, resumed = (stream(data, batch_size=2, tokens_per_step=3, residency=residency) for _ in range(2))
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
        assert torch.equal(batches[0].x, other.x)
        assert torch.equal(batches[0].index, other.index)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counted by Linux")
def test_disk_reads_no_more_than_the_tokens_of_a_batch(tmp_path):
    weights = {"a.weight": torch.randn(3, 64, 1000), "b.weight": torch.randn(3, 1000)}
    writer = ZooWriter(tmp_path / "zoo", ParamSpec.of({k: t[0] for k, t in weights.items()}), {}, None, {})
    for i in range(3):
        writer.add({name: t[i] for name, t in weights.items()}, run=0, step=i, seed=0)
    data = module(writer.close(), codec=TokenCodec(100), residency="disk")
    tokens, token = data.training_networks(), torch.tensor([3, 4, 250, 649])
    assert tokens.tokens is None
    before = bytes_read()
    tokens.read(torch.tensor([2, 0, 2]), token)
    read = bytes_read() - before - cost_of_counting()
    assert read == 2 * 4 * 100 * 4  # of network 2 once


def bytes_read():
    return int(Path("/proc/self/io").read_text().split()[1])


def cost_of_counting():
    before = bytes_read()
    return bytes_read() - before


def test_disk_reads_ahead_of_the_step(tiny_zoo, monkeypatch):
    data = module(tiny_zoo, codec=TokenCodec(5), residency="disk", batch_size=2, steps_per_epoch=6)
    read, plain = [], NetworkTokens.read
    monkeypatch.setattr(NetworkTokens, "read", lambda self, *of: read.append(current_thread()) or plain(self, *of))
    batches = iter(data.train_dataloader())
    next(batches)
    wait_for(lambda: len(read) == 1 + AHEAD)
    next(batches)
    wait_for(lambda: len(read) == 2 + AHEAD)
    assert current_thread() not in read
    batches.close()
    assert not any(thread.is_alive() for thread in read)


def wait_for(done):
    for _ in range(1000):
        if done():
            return
        sleep(0.01)
    raise AssertionError("it did not happen")


def test_a_file_that_disappears_during_a_fit_is_named(tiny_zoo):
    data = module(tiny_zoo, codec=TokenCodec(5), residency="disk", batch_size=3, tokens_per_step=2)
    batches = iter(data.train_dataloader())
    next(batches)
    path = tiny_zoo.file(data.train_indices[1])
    path.unlink()
    with pytest.raises(ParamgenError, match=rf"cannot read .*{path.name}: no such file"):
        list(batches)


@pytest.mark.parametrize("residency", ["ram", "disk"])
def test_an_altered_file_is_named_before_the_first_step(tiny_zoo, residency):
    path = tiny_zoo.file(0)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(ParamgenError, match=rf"{path.name}: checksum mismatch"):
        module(tiny_zoo, residency=residency)


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
