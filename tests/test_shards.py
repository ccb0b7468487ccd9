"""Work divided among processes: the same networks, bit for bit, and mistakes that are named."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from rich.console import Console

from conftest import write_zoo
from every_backend import build, cases
from measured import folder_of, make_zoo
from paramgen.cli.commands.evaluate import main as evaluate
from paramgen.cli.commands.sample import main as sample
from paramgen.collect import collector, multi, single
from paramgen.collect.merging import merge
from paramgen.collect.train import GroupTrainer, OptimSettings
from paramgen.core.shard_progress import ShardProgress
from paramgen.core.shards import Shard, parse_shard
from paramgen.core.zoo import Zoo
from paramgen.diffusion import Diffusion
from paramgen.errors import ParamgenError
from paramgen.evaluation.context import Failures
from paramgen.evaluation.flags import Flag
from paramgen.evaluation.intervals import Resampled
from paramgen.evaluation.results import Points, Row, TaskScores
from paramgen.evaluation.row_store import RowStore
from paramgen.evaluation.rows import MeasuredRow
from paramgen.evaluation.score_store import ScoreStore
from paramgen.evaluation.setup import Setup
from paramgen.evaluation.share import Share
from paramgen.generators.sampling import SampleRequest
from paramgen.tasks import ClassificationTask, RelabelFamily, family_of
from paramgen.tasks.conditions import CodeCondition
from paramgen.tasks.score import Scores

ADAM = OptimSettings(lr=5e-3, batch_size=128)


def collect_seeds(out, shard=None, **options):
    settings = {"mode": "seeds", "runs": 5, "checkpoints": 2, "epochs": 2, "val_runs": 1, "heldout_runs": 1, **options}
    task = ClassificationTask(network_args={"hidden": [13]})
    return single.main(task, str(out), optim=ADAM, shard=shard, **settings)


def collect_trajectory(out, shard=None):
    return collect_seeds(out, shard, mode="trajectory", finetune=ADAM)


def collect_cnns(out, shard=None):
    task = ClassificationTask(network="cnn_digits")
    settings = {"mode": "seeds", "runs": 3, "checkpoints": 1, "epochs": 1}
    return single.main(task, str(out), optim=ADAM, shard=shard, **settings)


def collect_family(out, shard=None):
    """Adapters would do as well: what runs start from is trained once."""
    family = RelabelFamily(network_args={"hidden": [12]}, seen=4, unseen=1)
    options = {"steps": 4, "networks": 2, "start": "converged", "start_steps": 16, "optim": ADAM}
    return multi.main(family, str(out), CodeCondition(dim=10), shard=shard, **options)


def killed_while_deleting(merging, monkeypatch):
    """Run a merge that ends while it deletes the shards."""

    def killed(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            merging()


def content(folder):
    """Every file of a finished zoo; the seconds it took are no part of it."""
    found = {p.name: p.read_bytes() for p in Path(folder).iterdir() if p.name != "zoo.json"}
    meta = json.loads((Path(folder) / "zoo.json").read_text())
    meta.pop("seconds", None)
    return found | {"zoo.json": meta}


@pytest.mark.parametrize(
    ("collect", "count"),
    [(collect_seeds, 2), (collect_seeds, 5), (collect_trajectory, 3), (collect_cnns, 2), (collect_family, 2)],
)
def test_merged_shards_are_the_unsharded_zoo_bit_for_bit(tmp_path, collect, count):
    collect(tmp_path / "whole")
    for number in range(count, 0, -1):  # in any order
        collect(tmp_path / "parts", f"{number}/{count}")
    merge(str(tmp_path / "parts"))
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_a_killed_shard_goes_on_by_itself(tmp_path, monkeypatch):
    collect_seeds(tmp_path / "whole")
    train = GroupTrainer.run

    def killed(trainer):
        for step in train(trainer):
            yield step
            if step == trainer.steps - 1:  # one of the two checkpoints is written
                raise KeyboardInterrupt

    monkeypatch.setattr(collector, "WAIT", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(GroupTrainer, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            collect_seeds(tmp_path / "parts", "1/2")
    collect_seeds(tmp_path / "parts", "2/2")
    with pytest.raises(ParamgenError, match="incomplete shard 1/2; resume it with --shard 1/2"):
        merge(str(tmp_path / "parts"))
    journal = tmp_path / "parts/shard-1-of-2/zoo.partial.jsonl"
    assert len(journal.read_text().splitlines()) == 1 + 3
    collect_seeds(tmp_path / "parts", "1/2")
    killed_while_deleting(lambda: merge(str(tmp_path / "parts")), monkeypatch)
    assert len(merge(str(tmp_path / "parts"))) == 5 * 2
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_what_runs_start_from_is_trained_by_one_shard_and_read_by_the_others(tmp_path, monkeypatch):
    lengths, train = [], GroupTrainer.run
    monkeypatch.setattr(GroupTrainer, "run", lambda self: (lengths.append(self.steps - self.step), train(self))[1])
    for number in (1, 2):
        collect_family(tmp_path / "parts", f"{number}/2")
    assert sorted(lengths) == [0, 5, 5, 16]


def test_wrong_shards_are_named(tmp_path):
    for text in ("0/2", "3/2", "2", "a/b", "1/0"):
        with pytest.raises(ParamgenError, match=f"--shard is '{text}', expected i/N"):
            parse_shard(text)
    with pytest.raises(ParamgenError, match="--shard 1/6: there are 5 runs to divide; use at most 5 shards"):
        collect_seeds(tmp_path / "zoo", "1/6")
    with pytest.raises(ParamgenError, match="holds no shards"):
        merge(str(tmp_path))
    for number in (1, 3):
        collect_seeds(tmp_path / "zoo", f"{number}/3")
    with pytest.raises(ParamgenError, match="missing shard 2/3; run the command with --shard 2/3"):
        merge(str(tmp_path / "zoo"))
    collect_seeds(tmp_path / "zoo", "2/3", seed=1)
    with pytest.raises(ParamgenError, match="not shards of one zoo: they differ in recipe"):
        merge(str(tmp_path / "zoo"))


def test_a_network_that_was_altered_is_named_at_merge(tmp_path):
    zoos = [collect_seeds(tmp_path / "zoo", f"{number}/2") for number in (1, 2)]
    zoos[1].file(0).write_bytes(zoos[1].file(1).read_bytes())
    with pytest.raises(ParamgenError, match=f"{zoos[1].file(0)}: missing, modified or truncated"):
        merge(str(tmp_path / "zoo"))
    assert len(Zoo(zoos[0].path)) == 6  # the shards are kept


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, Shard(1, 2)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "3"}, Shard(3, 3)),
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"},
            Shard(4, 8),
        ),
        ({"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Shard(2, 2)),
    ],
)
def test_auto_reads_what_the_launcher_set(environment, shard):
    assert parse_shard("auto", environment) == shard


def test_auto_without_a_launcher_names_the_variables():
    with pytest.raises(ParamgenError, match=r"RANK and WORLD_SIZE .torchrun.; SLURM_PROCID and SLURM_NTASKS"):
        parse_shard("auto", {})
    assert parse_shard(None, {"RANK": "0", "WORLD_SIZE": "2"}) is None  # read only when asked to


def test_progress_of_all_shards_is_one_count(tmp_path, capsys):
    now = [0.0]
    console = Console(file=io.StringIO(), force_terminal=False)
    first, second = (ShardProgress(Shard(n, 2), tmp_path, console, lambda: now[0]) for n in (1, 2))
    with first, second:
        for progress in (second, first):
            progress.expect("train", 20)
        for step in range(1, 11):
            now[0] = 30.0 * step
            for progress in (second, first):
                progress.begin("train 1 of 2", 10) if step == 1 else None
                progress.written = step
                progress.update(step)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "train, 2 shards: 20 of 40, 20 networks written, about 5 min left"
    assert len(lines) == 5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """RPG with a state for each network: samples say which network conditioned them."""
    folder = tmp_path_factory.mktemp("rpg")
    model, data = build(cases()["rpg_digits_mlp"], str(write_zoo(folder / "zoo", networks=24).path), batch_size=4)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(accelerator="cpu", max_steps=2, num_sanity_val_steps=0, enable_checkpointing=False, **quiet)
    trainer.fit(model, data)
    trainer.save_checkpoint(folder / "x.ckpt")
    return str(folder / "x.ckpt")


def drawn(folder):
    """Every file of a folder of samples; commands and seconds are no part of it."""
    found = {p.name: p.read_bytes() for p in Path(folder).iterdir() if p.name != "samples.json"}
    index = json.loads((Path(folder) / "samples.json").read_text())
    return found | {"samples.json": {k: v for k, v in index.items() if k not in ("command", "sample_seconds")}}


def test_merged_samples_are_those_of_one_process_bit_for_bit(checkpoint, tmp_path, capsys, monkeypatch):
    sample(checkpoint, n=20, out=str(tmp_path / "whole"))
    sample(checkpoint, n=20, out=str(tmp_path / "parts"), shard="2/2")
    with pytest.raises(ParamgenError, match="missing shard 1/2; run the command with --shard 1/2"):
        sample(checkpoint, n=20, out=str(tmp_path / "parts"), shard="merge")
    sample(checkpoint, n=20, out=str(tmp_path / "parts"), shard="1/2")
    assert "2 of 2 are: put them together with the same command and --shard merge" in capsys.readouterr().out
    sample(checkpoint, n=21, out=str(tmp_path / "earlier"), trajectory=True)  # samples that the merge replaces
    for file in (tmp_path / "earlier").iterdir():
        file.rename(tmp_path / "parts" / file.name)
    settings = {"n": 20, "out": str(tmp_path / "parts"), "shard": "merge"}
    killed_while_deleting(lambda: sample(checkpoint, overwrite=True, **settings), monkeypatch)
    sample(checkpoint, **settings)
    assert drawn(tmp_path / "parts") == drawn(tmp_path / "whole")


def test_a_shard_counts_its_networks_while_it_samples(checkpoint, tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(ShardProgress, "update", lambda self, done: counts.append(done))
    folder = sample(checkpoint, n=20, out=str(tmp_path / "parts"), shard="1/2", num_inference_steps=10)
    networks = len([*folder.glob("*.safetensors")])
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, networks)
    assert len(counts) > 10
    saved = json.loads((folder / "progress.json").read_text())
    assert (saved["total"], saved["running"]) == (networks, False)


@pytest.mark.parametrize("size", [3, 8])
def test_the_progress_of_parts_goes_from_start_to_end(size):
    counts = []
    for part in SampleRequest(8, progress=counts.append).parts(size):
        watch = part.watch(lambda done, x: None)
        watch(0.0, None)
        watch(1.0, None)
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 1)
    assert SampleRequest(8).watch(None) is None


def test_shards_of_other_samples_and_impossible_ones_are_named(checkpoint, tmp_path):
    out = str(tmp_path / "parts")
    with pytest.raises(ParamgenError, match="--shard 1/3: there are 2 networks to divide; use at most 2 shards"):
        sample(checkpoint, n=2, out=out, shard="1/3")
    with pytest.raises(ParamgenError, match="only the first networks keep a trajectory"):
        sample(checkpoint, n=4, out=out, shard="1/2", trajectory=True)
    with pytest.raises(ParamgenError, match="EulerAncestralDiscrete draws noise that shards cannot divide"):
        sample(checkpoint, n=4, out=out, shard="1/2", scheduler="EulerAncestralDiscrete", num_inference_steps=2)
    for number, seed in ((1, 0), (2, 1)):
        sample(checkpoint, n=4, out=out, shard=f"{number}/2", seed=seed)
    with pytest.raises(ParamgenError, match=r"shard-2-of-2 has seed=1, .*shard-1-of-2 has seed=0"):
        sample(checkpoint, n=4, out=out, shard="merge")


def test_a_part_without_wanted_networks_draws_their_noise_and_solves_nothing():
    diffusion = Diffusion(num_train_timesteps=20)

    def draw(rows):
        calls, generator = [], torch.Generator().manual_seed(0)
        options = {"scheduler": "DDPM", "num_inference_steps": 4, "generator": generator, "rows": rows}
        x = diffusion.sample(lambda x, t: calls.append(t) or 0.1 * x, (3, 5), **options)
        return x, calls, torch.rand(1, generator=generator)

    (whole, _, after), (none, calls, same) = draw(None), draw([])
    assert (none.shape, calls, same) == ((0, 5), [], after)
    assert torch.equal(draw([0, 2])[0], whole[[0, 2]])


def report(folder):
    """results.json without what depends on the clock or on the command line."""
    found = json.loads((Path(folder) / "results.json").read_text())
    for key in ("command", "seconds", "forward_seconds"):
        found.pop(key)
    for row in found["rows"]:
        row["values"].pop("sample_seconds", None)
    return found


def test_scores_that_no_shard_has_are_computed_at_the_merge(tmp_path):
    def measure(places):
        return Scores(torch.tensor([float(i) for i in places], dtype=torch.float64), failed={0: "no reason"})

    states = [{"w": torch.tensor([float(i)])} for i in range(5)]
    names = ["a"] * 5
    store = ScoreStore(tmp_path, Shard(1, 2))
    store.share("test", states, names, measure)
    merged = ScoreStore(tmp_path)
    assert merged.scores("test", states, names, measure).value.tolist() == [0, 1, 2, 3, 4]
    assert (store.computed, merged.computed) == (3, 2)
    assert merged.scores("test", states, names, measure).failed == {0: "no reason", 1: "no reason"}
    assert not merged.knows("train", states, names)


def test_a_stored_row_is_the_measured_one_and_belongs_to_its_settings(tmp_path):
    points = Points([0.1, float("nan")], [1 / 3, 2.0], [[0.0, 1e-30], [1.0, 2.0]])
    tasks = TaskScores({"a": 0.3}, None)
    row = Row(
        "x", "baseline", "baseline", 2, 0, {"mean": 0.1, "zu": None}, {}, None, False, [Flag("narrow")], points, tasks
    )
    resampled = Resampled(torch.rand(3, dtype=torch.float64), torch.rand(3, dtype=torch.float64))
    store = RowStore(tmp_path, "a" * 64, Shard(1, 2))
    with store.claimed(4) as free, RowStore(tmp_path, "a" * 64, Shard(2, 2)).claimed(5) as other:
        assert free
        assert other
        store.put(4, MeasuredRow(row, resampled, torch.ones(2, 3, 3), Failures("1 of 2", True)))
    found = RowStore(tmp_path, "a" * 64).get(4)
    assert repr(found.row) == repr(row)
    assert torch.equal(found.resampled.score, resampled.score)
    assert torch.equal(found.renders, torch.ones(2, 3, 3))
    assert found.failures == ("1 of 2", True)
    with store.claimed(4) as free:
        assert not free  # it is measured
    assert RowStore(tmp_path, "b" * 64).get(4) is None


def test_baselines_are_cut_into_pieces_of_equal_size(tmp_path):
    zoo = make_zoo(tmp_path / "zoo", runs=6, hidden=[4])
    setup = Setup.of(zoo, family_of(zoo), n=5)
    shares = [Share(setup, ScoreStore(tmp_path, Shard(i, 3))) for i in (1, 2, 3)]
    pieces, given = [share.pieces() for share in shares], len(shares[0].rows.given)
    sizes = [sum(map(len, piece.values())) for piece in pieces]
    assert max(sizes) - min(sizes) <= 1
    together = sorted((number, place) for piece in pieces for number, places in piece.items() for place in places)
    assert together == [(given + b, place) for b in range(len(setup.baselines)) for place in range(5)]
    assert setup.baselines[[*pieces[2]][-1] - given] == "kde"  # chooses by the zoo's scores, which come first


def test_merged_shards_of_an_evaluation_are_the_report_of_one_process(tmp_path, capsys):
    zoo = make_zoo(tmp_path / "zoo", runs=8, heldout=2, hidden=[8])
    samples = str(folder_of(zoo, zoo.matrix(zoo.indices("train"))[:5] * 1.1, tmp_path / "samples"))
    settings = {"samples": samples, "n": 5, "train_images": 200, "baselines": ["noise-1", "kde", "finetuned-copy"]}
    evaluate(str(zoo.path), out=str(tmp_path / "whole"), **settings)
    for shard in ("1/2", "2/2", "1/2"):  # the first one again: it has the ranks of the zoo's networks now
        evaluate(str(zoo.path), out=str(tmp_path / "parts"), shard=shard, **settings)
    said = capsys.readouterr().out
    assert "Shard 1/2 is complete, 2 of 2 are: put them together with the same command and --shard merge" in said
    counts = [json.loads(p.read_text()) for p in (tmp_path / "parts").glob("shard-*/progress.json")]
    assert [c["done"] for c in counts] == [c["total"] for c in counts]
    assert sum(c["total"] for c in counts) == 28  # networks, each scored by one shard
    measured = {p.stem for p in (tmp_path / "parts").glob("shard-*/rows/*.safetensors")}
    assert len(measured) == len(report(tmp_path / "whole")["rows"])  # nothing is left to measure
    evaluate(str(zoo.path), out=str(tmp_path / "parts"), shard="merge", **settings)
    assert "Computed here" not in capsys.readouterr().out  # nor to score
    assert report(tmp_path / "parts") == report(tmp_path / "whole")
    assert not [*(tmp_path / "parts").glob("shard-*")]
    evaluate(str(zoo.path), out=str(tmp_path / "one"), shard="1/2", **settings)
    with pytest.raises(ParamgenError, match="--shard 1/31: there are 28 networks to divide; use at most 28 shards"):
        evaluate(str(zoo.path), out=str(tmp_path / "one"), shard="1/31", **settings)
    with pytest.raises(ParamgenError, match="missing shard 2/2; run the command with --shard 2/2"):
        evaluate(str(zoo.path), out=str(tmp_path / "one"), shard="merge", **settings)
