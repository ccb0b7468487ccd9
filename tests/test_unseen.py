"""Weights for unseen tasks without a generator."""

import json

import lightning
import pytest
import torch
from sklearn.linear_model import RidgeCV

from dotted import nest
from paramgen.backends.pdiff import PDiff
from paramgen.cli.main import main as paramgen
from paramgen.collect.multi import main
from paramgen.core.samples import read_samples
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.evaluation.condition_baselines import PENALTIES, average, nearest_task, neighbours, ridge, vote
from paramgen.evaluation.evaluate import evaluate
from paramgen.evaluation.pool import NewTasks, Pool, SeenTasks, conditions_of, seen_tasks
from paramgen.evaluation.unseen import tasks_to_draw
from paramgen.generators.data import ParameterDataModule
from paramgen.tasks import RelabelFamily, family_of, load_family, score_family
from paramgen.tasks.conditions import CodeCondition
from paramgen.tasks.score import CLASSIFIES
from paramgen.tasks.scoring import score_networks


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    out = tmp_path_factory.mktemp("unseen") / "zoo"
    family = RelabelFamily(network_args={"hidden": [8]}, seen=40, unseen=4)
    main(family, str(out), CodeCondition(dim=10), steps=150, networks=2, score=False)
    return Zoo(out)


def some_tasks(T: int = 30, C: int = 4, P: int = 7, noise: float = 0.1) -> tuple[SeenTasks, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    condition = torch.randn(T + 5, C, generator=generator) * torch.tensor([1.0, 5.0, 0.2, 1.0])
    weights = condition @ torch.randn(C, P, generator=generator) + 3
    weights += noise * torch.randn(T + 5, P, generator=generator)
    return SeenTasks([str(i) for i in range(T)], condition[:T], weights[:T]), condition[T:]


@pytest.mark.parametrize("noise", [0.1, 5.0])
def test_ridge_is_sklearns_with_leave_one_out(noise):
    seen, new = some_tasks(noise=noise)
    reference = RidgeCV(alphas=PENALTIES).fit(seen.condition.double().numpy(), seen.weights.double().numpy())
    expected = torch.from_numpy(reference.predict(new.double().numpy())).float()
    assert torch.allclose(ridge(seen, new), expected, atol=1e-4)


def test_neighbours_are_nearest_in_standardised_conditions():
    seen, new = some_tasks()
    z = (seen.condition / seen.condition.std(0, correction=0)).numpy()
    at = (new / seen.condition.std(0, correction=0)).numpy()
    for row, chosen in zip(at, neighbours(seen, new, 3), strict=True):
        assert chosen.tolist() == ((z - row) ** 2).sum(1).argsort()[:3].tolist()
    assert torch.equal(nearest_task(seen, seen.condition), seen.weights)
    first, second = neighbours(seen, new, 2).unbind(1)
    assert torch.allclose(average(seen, new), (seen.weights[first] + seen.weights[second]) / 2)


def test_a_condition_that_never_varies_counts_for_nothing():
    seen, new = some_tasks()
    constant = torch.ones(len(seen.names), 1)
    more = seen._replace(condition=torch.cat([seen.condition, constant], 1))
    assert torch.equal(neighbours(more, torch.cat([new, 7 * torch.ones(5, 1)], 1), 3), neighbours(seen, new, 3))


def test_seen_tasks_are_the_train_splits_with_their_mean_networks(zoo):
    seen = seen_tasks(zoo)
    assert sorted(seen.names) == sorted(load_family(zoo.task_config).seen)
    rows = [i for i, e in enumerate(zoo.entries) if e.task == seen.names[3]]
    assert len(rows) == 2
    assert torch.allclose(seen.weights[3], zoo.matrix(rows).mean(0))
    assert seen.condition[3].tolist() == [float(bit) for bit in seen.names[3]]


def test_a_vote_of_one_is_the_nearest_task_and_of_three_their_majority(zoo):
    family = load_family(zoo.task_config)
    seen, names = seen_tasks(zoo), family.unseen
    condition = conditions_of(zoo, names)
    alone = score_family(zoo, [zoo.spec.unflatten(row) for row in nearest_task(seen, condition)], names, "test")
    pool = Pool(seen.weights, None, (), zoo, family, NewTasks(names, condition, seen))
    assert torch.allclose(vote(pool, k=1), alone)
    states = [zoo.complete(zoo.spec.unflatten(seen.weights[j])) for j in neighbours(seen, condition, 3)[0]]
    found = score_networks(CLASSIFIES, family.build(), states, family.task(names[0]).data("test"))
    majority = (found.predictions.sum(0) >= 2).long()
    expected = float((majority == family.task(names[0]).data("test").targets).float().mean())
    assert float(vote(pool, k=3)[0]) == pytest.approx(expected)


def test_direct_training_is_above_every_baseline_and_these_above_chance(zoo):
    results = evaluate(zoo, family_of(zoo))
    rows = {row.name: row.value("mean") for row in results.rows}
    assert list(rows) == ["direct", "nearest", "average-2", "average-all", "ridge", "vote-5"]
    assert rows["direct"] == max(rows.values())
    assert rows["ridge"] > 0.6
    assert abs(rows["average-all"] - 0.5) < 0.25


def test_zoos_without_tasks_and_tasks_without_conditions_are_named(zoo, tiny_zoo):
    with pytest.raises(ParamgenError, match="no tasks with conditions"):
        seen_tasks(tiny_zoo)
    with pytest.raises(ParamgenError, match="no condition of task '0000000001x'"):
        conditions_of(zoo, ["0000000001x"])


def test_generators_stand_beside_what_needs_none(zoo, tmp_path, capsys):
    data = ParameterDataModule(str(zoo.path), batch_size=16, steps_per_epoch=100)
    sizes = {"seq_len": data.seq_len, "token_dim": data.token_dim, "num_networks": data.num_networks}
    quick = {
        "autoencoder.kind": "pca",
        "denoiser.kind": "mlp",
        "denoiser.width": 64,
        "denoiser.depth": 1,
        "diffusion.prediction_type": "sample",
    }
    model = PDiff(
        **sizes,
        cond_dim=data.cond_dim,
        **nest({**quick, "diffusion.scheduler": "DDIM", "diffusion.num_inference_steps": 5}),
    )
    model.uses_task_data = True
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(max_steps=150, max_epochs=-1, accelerator="cpu", limit_val_batches=0, **quiet)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    arguments = ["--zoo", str(zoo.path), "--ckpt_path", json.dumps([str(tmp_path / "mine.ckpt")])]
    assert paramgen(["unseen", *arguments, "--per_task", "2", "--out", str(tmp_path / "unseen.json")]) == 0
    written = json.loads((tmp_path / "unseen.json").read_text())
    rows = {row["name"]: row for row in written["rows"]}
    assert {"direct", "nearest", "average-2", "average-all", "ridge", "vote-5", "PDiff"} == rows.keys()
    assert (len(rows["PDiff"]["unseen"]), len(rows["PDiff"]["seen"])) == (4, 40)
    assert sum(rows["PDiff"]["seen"]) / 40 > sum(rows["average-all"]["unseen"]) / 4 + 0.1
    assert [name for name, row in rows.items() if row["uses_task_data"]] == ["PDiff"]
    said = capsys.readouterr()
    assert "PDiff*" in said.out
    assert f"next: paramgen sample --ckpt_path {tmp_path / 'mine.ckpt'} --zoo {zoo.path}\n" in said.err
    ckpt = ["--ckpt_path", str(tmp_path / "mine.ckpt"), "--zoo", str(zoo.path), "--per_task", "2"]
    assert paramgen(["sample", *ckpt, "--out", str(tmp_path / "drawn")]) == 0
    assert paramgen(["sample", *ckpt, "--condition", "[0, 1]", "--out", str(tmp_path / "both")]) == 2
    assert "both zoo and condition" in capsys.readouterr().err
    listed = json.loads((tmp_path / "drawn" / "samples.json").read_text())["networks"]
    assert [entry["task"] for entry in listed[:8:2]] == written["unseen"]
    (drawn,) = evaluate(zoo, family_of(zoo), [read_samples(tmp_path / "drawn", zoo)], baselines=[]).rows[1:]
    assert list(drawn.tasks.unseen.values()) == pytest.approx(rows["PDiff"]["unseen"])


def test_mistakes_are_said_in_one_line(zoo, tmp_path, capsys):
    assert paramgen(["unseen", "--zoo", str(zoo.path), "--per_task", "0"]) == 2
    assert "per_task is 0" in capsys.readouterr().err
    with pytest.raises(ParamgenError, match="seen_tasks is -1, expected 0 or more"):
        tasks_to_draw(zoo, 1, -1)
    assert paramgen(["unseen", "--zoo", str(zoo.path), "--ckpt_path", str(tmp_path / "no.ckpt")]) == 2
    assert "checkpoint not found" in capsys.readouterr().err
