"""Layouts of libraries and of public populations: a small copy of each, written by the library where the layout is its own, is imported."""

import csv
import gzip
import json
import warnings
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from conftest import write_own_module
from hub_server import serving
from paramgen.cli.main import main
from paramgen.collect.readers.models import read_model_folder
from paramgen.core.zoo import Zoo
from test_readers import import_line, imported, network, refused, same, state, write


def equal(zoo, index, expected):
    return zoo.full(index).keys() == expected.keys() and all(
        torch.equal(zoo.full(index)[n], t) for n, t in expected.items()
    )


# One network in several files


def sharded(folder, tensors, end="safetensors"):
    """A folder as ``save_pretrained`` writes a large model."""
    folder.mkdir(parents=True)
    stem = "model" if end == "safetensors" else "pytorch_model"
    places = {}
    for i, (name, tensor) in enumerate(tensors.items()):
        file = f"{stem}-{i + 1:05d}-of-{len(tensors):05d}.{end}"
        (save_file if end == "safetensors" else torch.save)({name: tensor}, folder / file)
        places[name] = file
    (folder / f"{stem}.{end}.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))


@pytest.mark.parametrize("end", ["safetensors", "bin"])
def test_sharded_weights_with_an_index_are_one_network(tmp_path, end, capsys):
    for i in range(2):
        sharded(tmp_path / "theirs" / f"net{i}", state(i), end)
    zoo = imported(tmp_path / "theirs")
    assert [(e.run, same(zoo, e.run, e.run)) for e in zoo.entries] == [(0, True), (1, True)]
    next((tmp_path / "theirs" / "net1").glob("*00003*")).unlink()
    capsys.readouterr()
    assert main(["zoo", "import", "--source", str(tmp_path / "theirs"), "--out", str(tmp_path / "again")]) == 2
    assert "which is missing" in capsys.readouterr().err


def test_a_trainers_checkpoints_are_steps_and_its_final_model_a_copy(tmp_path, capsys):
    source = tmp_path / "theirs"
    for step in (500, 1000):
        folder = source / f"checkpoint-{step}"
        write(
            folder,
            {
                "model.safetensors": state(step),
                "optimizer.pt": state(),
                "rng_state.pth": state(),
                "trainer_state.json": "{}",
            },
        )
    write(source, {"model.safetensors": state(1000), "training_args.bin": state()})
    zoo = imported(source)
    assert [(e.run, e.step) for e in zoo.entries] == [(0, 500), (0, 1000)]
    assert same(zoo, 1, 1000)
    assert "skipped model.safetensors: the same network as checkpoint-1000" in capsys.readouterr().err


VISION = """
from transformers import ViTConfig, ViTForImageClassification


class Vision(ViTForImageClassification):
    def __init__(self):
        size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        super().__init__(ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=10, **size))


def score(network):
    return 0.5
"""


def test_folders_whose_names_differ_in_memory_fit_the_network(tmp_path, monkeypatch, capsys):
    from transformers import ViTForImageClassification

    own = write_own_module(tmp_path, monkeypatch, VISION)
    monkeypatch.syspath_prepend(str(tmp_path))
    saved = []
    for i in range(2):
        torch.manual_seed(i)
        network = ViTForImageClassification(import_module(own).Vision().config)
        network.save_pretrained(tmp_path / "theirs" / f"net{i}", max_shard_size="2KB" if i else "1GB")
        saved.append(network.state_dict())
    capsys.readouterr()
    zoo = imported(tmp_path / "theirs", "--scorer", f"{own}.score", "--network", f"{own}.Vision")
    assert all(equal(zoo, i, state) for i, state in enumerate(saved))
    assert "Loading weights" not in capsys.readouterr().err

    config = tmp_path / "theirs" / "net0" / "config.json"  # one that could make transformers import or fetch more
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModel": "code.Model"}}))
    names = read_model_folder(config.parent, None).keys()
    assert names != saved[0].keys()
    assert len(names) == len(saved[0])


def test_distributed_checkpoints_are_put_together(tmp_path, capsys):
    from torch.distributed.checkpoint import FileSystemWriter, save

    for step in (1, 2):
        optimizer = torch.optim.Adam(network(step).parameters())
        content = {"model": state(step, "_orig_mod."), "optimizer": optimizer.state_dict(), "step": step}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            save(content, storage_writer=FileSystemWriter(tmp_path / "theirs" / f"step-{step}"), no_dist=True)
    zoo = imported(tmp_path / "theirs")
    assert [(e.step, same(zoo, i, e.step)) for i, e in enumerate(zoo.entries)] == [(1, True), (2, True)]
    file = next((tmp_path / "theirs" / "step-2").glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:100])
    assert main(["zoo", "import", "--source", str(tmp_path / "theirs"), "--out", str(tmp_path / "again")]) == 2
    assert "truncated" in capsys.readouterr().err


def test_parts_that_several_processes_wrote_are_put_together(tmp_path, capsys):
    import pickle

    from torch.distributed.checkpoint import FileSystemWriter, save

    whole = torch.arange(12.0).view(4, 3)
    folder = tmp_path / "theirs" / "step-1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save({"w": whole[:2].clone(), "rest": whole[2:].clone()}, storage_writer=FileSystemWriter(folder), no_dist=True)
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    first, rest = (next(i for i in metadata.storage_data if i.fqn == name) for name in ("w", "rest"))
    metadata.storage_data[replace(rest, fqn="w", offset=torch.Size((2, 0)))] = metadata.storage_data.pop(rest)
    del metadata.state_dict_metadata["rest"]
    metadata.state_dict_metadata["w"].size = whole.shape
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    assert torch.equal(imported(tmp_path / "theirs")[0]["w"], whole)
    del metadata.storage_data[first]
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    assert main(["zoo", "import", "--source", str(tmp_path / "theirs"), "--out", str(tmp_path / "again")]) == 2
    assert "the files hold 6 of 12 numbers of 'w'" in capsys.readouterr().err


def test_the_index_of_a_distributed_checkpoint_runs_no_code(tmp_path, capsys):
    import pickle

    class Evil:
        def __reduce__(self):
            return print, ("run",)

    write(tmp_path / "theirs" / "a", {".metadata": pickle.dumps(Evil()), "__0_0.distcp": b""})
    assert "it holds an object of builtins.print, and loading it would run its code" in refused(
        capsys, tmp_path / "theirs"
    )
    assert "run\n" not in capsys.readouterr().out


# Libraries


def test_timm_and_lightning_checkpoints_are_imported_and_load_back(tmp_path):
    import lightning
    import timm

    class Module(lightning.LightningModule):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.model = timm.create_model("test_resnet", num_classes=3)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

        def train_dataloader(self):
            return torch.utils.data.DataLoader(torch.randn(2, 3, 32, 32), 2)

        def training_step(self, batch, _):
            return self.model(batch).square().mean()

    (tmp_path / "timm").mkdir()
    for seed in range(2):
        module = Module(seed)
        quiet = {
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
        }
        trainer = lightning.Trainer(max_steps=1, accelerator="cpu", **quiet)
        trainer.fit(module)
        trainer.save_checkpoint(tmp_path / "lightning" / f"step={seed}.ckpt")
        saver = timm.utils.CheckpointSaver(
            module.model, torch.optim.SGD(module.parameters(), 0.1), model_ema=timm.utils.ModelEmaV3(module.model),
            checkpoint_dir=str(tmp_path / "timm"), recovery_dir=str(tmp_path),
        )  # fmt: skip
        saver.save_checkpoint(seed)
    for folder, options in (("lightning", []), ("timm", ["--key", "state_dict"])):
        source = tmp_path / folder
        assert main(["zoo", "import", "--source", str(source), "--out", str(tmp_path / f"zoo_{folder}"), *options]) == 0
        net = timm.create_model("test_resnet", num_classes=3)
        net.load_state_dict(Zoo(tmp_path / f"zoo_{folder}").full(1), strict=True)
        assert all(
            torch.equal(t, module.model.state_dict()[n]) for n, t in net.state_dict().items() if "num_b" not in n
        )


def test_parts_of_a_diffusers_pipeline_are_chosen_by_key(tmp_path, capsys):
    from diffusers import AutoencoderKL, UNet2DModel

    small = {"block_out_channels": (4,), "norm_num_groups": 2}
    for seed in range(2):
        torch.manual_seed(seed)
        folder = tmp_path / "theirs" / f"pipe{seed}"
        unet = UNet2DModel(
            8, in_channels=1, out_channels=1, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), **small
        )
        unet.save_pretrained(folder / "unet", max_shard_size="2KB" if seed else "1GB")
        AutoencoderKL(1, 1, latent_channels=1, **small).save_pretrained(folder / "vae")
        (folder / "model_index.json").write_text("{}")
    assert "holds several networks: unet, vae; choose one with --key" in refused(capsys, tmp_path / "theirs")
    zoo = imported(tmp_path / "theirs", "--key", "unet")
    fresh = UNet2DModel.from_config(unet.config)
    fresh.load_state_dict(zoo.full(1), strict=True)
    assert all(torch.equal(t, unet.state_dict()[n]) for n, t in fresh.state_dict().items())


def test_adapters_of_peft_go_in_are_learnt_generated_and_loaded_back_by_peft(tmp_path, monkeypatch):
    import peft

    def adapted(seed, alpha=4):
        torch.manual_seed(seed)
        model = peft.get_peft_model(network(), peft.LoraConfig(r=2, lora_alpha=alpha, target_modules=["0"]))
        return model, {n: nn.init.normal_(p, std=0.1) for n, p in model.named_parameters() if "lora" in n}

    for i, animal in enumerate(("cat", "dog", "ant", "bee")):
        for run in range(3):
            adapted(3 * i + run)[0].save_pretrained(tmp_path / "theirs" / animal / f"run{run}")
    zoo = imported(tmp_path / "theirs", "--pattern", "{condition}/run{run}", "--heldout_networks", "0")
    assert zoo.spec.names == ["0.lora_A.default.weight", "0.lora_B.default.weight"]
    assert zoo.meta["recipe"]["adapter"]["lora_alpha"] == 4
    monkeypatch.chdir(tmp_path)
    quiet = [
        "--trainer.max_steps",
        "4",
        "--trainer.logger",
        "false",
        "--trainer.accelerator",
        "cpu",
        "--trainer.enable_progress_bar",
        "false",
    ]
    assert main(["fit", "--config", "pdiff", "--data.zoo", str(zoo.path), *quiet, "--checkpoint.dirpath", "fit"]) == 0
    line = ["sample", "--ckpt_path", "fit/last.ckpt", "--n", "1", "--condition", "[0,1,0,0]", "--out", "samples"]
    assert main(line) == 0
    assert (
        main(["export", "--format", "peft", "--samples", "samples", "--zoo", str(zoo.path), "--out", "adapters"]) == 0
    )
    generated = load_file(next(Path("samples").glob("*.safetensors")))
    loaded = peft.PeftModel.from_pretrained(network(), next(Path("adapters").glob("*/"))).base_model.model
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in generated.items())


def test_a_vector_for_each_adapter_is_its_condition(tmp_path):
    names = ["task022", "task190", "task1711"]
    for i, name in enumerate(names):  # as text-to-LoRA's adapters
        folder = write(tmp_path / "theirs" / name, {"adapter_config.json": json.dumps({"r": 2, "lora_alpha": 4})})
        save_file({"base_model.model.0.lora_A.weight": torch.ones(2, 4) * i}, folder / "adapter_model.safetensors")
    save_file({name: torch.tensor([i / 2, 1.0]) for i, name in enumerate(names)}, tmp_path / "texts.safetensors")
    zoo = imported(tmp_path / "theirs", "--table", str(tmp_path / "texts.safetensors"), "--heldout_networks", "1")
    assert [(e.split, e.condition, zoo[i]["0.lora_A.default.weight"][0, 0]) for i, e in enumerate(zoo.entries)] == [
        ("train", [0, 1], 0), ("train", [0.5, 1], 1), ("heldout", [1, 1], 2),
    ]  # fmt: skip


def test_adapters_of_another_scale_are_no_part_of_the_zoo(tmp_path, capsys):
    for i, alpha in enumerate((4, 4, 8)):
        folder = write(
            tmp_path / "theirs" / f"task{i}", {"adapter_config.json": json.dumps({"r": 2, "lora_alpha": alpha})}
        )
        save_file({"base_model.model.0.lora_A.weight": torch.ones(2, 4) * i}, folder / "adapter_model.safetensors")
    assert "task2: lora_alpha is 8, 4 in the first adapter" in refused(capsys, tmp_path / "theirs")
    assert len(imported(tmp_path / "theirs", "--skip_bad")) == 2


# Public populations


def ray_zoo(source, start=0):
    for run, (lr, activation) in enumerate(((0.1, "tanh"), (0.01, "relu"), (0.1, "relu"))):
        folder = source / f"NN_tune_trainable_{run:05d}_lr={lr}"
        config = {
            "optim::lr": lr,
            "model::nlin": activation,
            "seed": run + 7,
            "dataset::dump": f"/data/{run}",
            "training::epochs": 2,
        }
        for step in range(start, 3):
            write(folder, {f"checkpoint_{step:06d}/checkpoints": state(10 * run + step)})
        lines = [
            {"train_acc": 0.5 + step / 10, "train_loss": float("nan") if step == 1 else 0.3, "validation_acc": 0.4, "test_acc": 0.9,
             "training_iteration": step, "config": config}
            for step in range(start, 3)
        ]  # fmt: skip
        (folder / "result.json").write_text("\n".join(map(json.dumps, lines)) + "\n")
        (folder / "params.json").write_text(json.dumps(config))
    return source


@pytest.mark.parametrize("start", [0, 1])
def test_ray_tune_runs_give_steps_scores_seeds_and_conditions(tmp_path, start, capsys):
    zoo = imported(ray_zoo(tmp_path / "theirs", start), "--heldout_networks", str(3 - start))
    assert [(e.run, e.step, e.seed, e.split) for e in zoo.entries] == [
        (run, step, run + 7, "heldout" if run == 2 else "train") for run in range(3) for step in range(start, 3)
    ]
    assert [e.scores["train"]["score"] for e in zoo.entries] == [
        0.5 + step / 10 for _ in range(3) for step in range(start, 3)
    ]
    assert "test" not in zoo.entries[0].scores
    said = capsys.readouterr().err
    assert "scores on test splits are dropped" in said
    assert "not recorded" not in said
    assert zoo.entries[1 - start].scores["train"].get("loss") is None
    assert [e.condition for e in zoo.entries[:: 3 - start]] == [[0.1, 0, 1], [0.01, 1, 0], [0.1, 1, 0]]
    assert [f["name"] for f in zoo.meta["condition"]["fields"]] == ["optim::lr", "model::nlin"]
    assert all(same(zoo, i, 10 * e.run + e.step) for i, e in enumerate(zoo.entries))


def test_zoos_of_ray_runs_in_one_folder_are_no_parents(tmp_path):
    for zoo in ("a", "b"):
        write(
            tmp_path / "theirs" / zoo / "run",
            {"checkpoint_1/checkpoints": state(len(zoo)), "params.json": '{"logit_scale": 1}'},
        )
    assert [(e.parent, e.run) for e in imported(tmp_path / "theirs").entries] == [(None, 0), (None, 1)]


def test_fine_tuned_ray_runs_have_a_parent_and_results_without_iterations_are_by_line(tmp_path):
    source = tmp_path / "finetuning"
    for parent in ("vit_a", "vit_b"):
        for model in ("m0", "m1"):
            folder = source / parent / model
            write(folder, {f"checkpoint_{step}/checkpoints": state(step) for step in (1, 2)})
            (folder / "result.json").write_text('{"train/acc": 0.1, "test_acc": 1}\n{"train/acc": 0.2}\n')
    zoo = imported(source)
    assert [(e.parent, e.scores["train"]["score"]) for e in zoo.entries] == [
        (p, s) for p in ("vit_a",) * 2 + ("vit_b",) * 2 for s in (0.1, 0.2)
    ]


def test_the_small_cnn_zoo_is_turned_from_tensorflows_axes(tmp_path, capsys):
    source = tmp_path / "theirs"
    source.mkdir()
    generator = np.random.default_rng(0)
    convs = [generator.normal(size=(3, 3, 1, 2)).astype(np.float32) for _ in range(4)]
    dense = [generator.normal(size=(2, 5)).astype(np.float32) for _ in range(4)]
    bias = np.arange(5, dtype=np.float32)
    np.save(
        source / "weights.npy",
        np.stack([np.concatenate([bias, c.ravel(), d.ravel()]) for c, d in zip(convs, dense, strict=True)]),
    )
    rows = [
        ("dense/bias:0", 0, 5, "(5,)"),
        ("conv2d/kernel:0", 5, 23, "(3, 3, 1, 2)"),
        ("dense/kernel:0", 23, 33, "(2, 5)"),
    ]
    with (source / "layout.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("varname", "start_idx", "end_idx", "shape"), *reversed(rows)])
    with gzip.open(source / "metrics.csv.gz", "wt") as file:
        file.write("config.activation,config.learning_rate,test_accuracy,train_accuracy,train_loss,step,modeldir\n")
        file.writelines(f"{('relu', 'tanh')[i % 2]},0.0{i + 1},0.9,0.{i + 1},1.5,86,/m/{i}\n" for i in (0, 1))
        file.writelines(f"relu,0.03,0.9,0.3,1.5,{step},/m/9\n" for step in (1, 86))
    zoo = imported(source, "--condition", "[learning_rate]")
    x = torch.randn(2, 1, 8, 8)
    expected = np.stack(
        [
            sum(x[0, 0].numpy()[i : i + 6, j : j + 6] * convs[2][i, j, 0, c] for i in range(3) for j in range(3))
            for c in range(2)
        ]
    )
    index = next(i for i, e in enumerate(zoo.entries) if (e.step, e.condition) == (1, [0.03]))
    weights = zoo.full(index)
    assert np.allclose(nn.functional.conv2d(x, weights["conv2d.weight"])[0].numpy(), expected, atol=1e-5)
    assert torch.equal(weights["dense.weight"], torch.from_numpy(dense[2].T))
    assert zoo.entries[index].scores == {"train": {"score": 0.3, "loss": 1.5}}
    assert "TensorFlow's order of axes" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["pt", "h5", "safetensors"])
def test_a_flat_matrix_is_cut_by_its_layout(tmp_path, form):
    source, rows = (
        tmp_path / "theirs",
        torch.stack([torch.cat([t.flatten() for t in state(i).values()]) for i in range(3)]),
    )
    if form == "pt":  # weights2weights: the flat shape, then the shape
        dimensions = {name: ((t.numel(),), tuple(t.shape)) for name, t in state().items()}
        write(source, {"all_weights.pt": rows, "weight_dimensions.pt": dimensions, "mean.pt": torch.zeros(3)})
    else:
        write(source, {"layout.json": json.dumps({name: list(t.shape) for name, t in state().items()})})
        if form == "safetensors":
            save_file({"dataset": rows}, source / "w.safetensors")
        else:
            import h5py

            with h5py.File(source / "w.h5", "w") as file:
                file["group/dataset"] = rows.numpy()
    zoo = imported(source)
    assert [(e.run, same(zoo, i, i)) for i, e in enumerate(zoo.entries)] == [(i, True) for i in range(3)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"layout.json": '{"a": [2]}', "w.pt": torch.ones(3, 3)}, r"w.pt has shape \(3, 3\), expected \(networks, 2\)"),
        ({"layout.json": "[1]", "w.pt": torch.ones(3, 3)}, "expected shapes by name"),
        ({"layout.json": '{"a": "x"}', "w.pt": torch.ones(3, 3)}, "a: shape is 'x', expected whole numbers"),
        ({"layout.csv": "varname,start_idx,shape\na,1,2", "w.pt": torch.ones(3, 3)}, "begins at 1, the tensor before it ends at 0"),
        ({"layout.csv": "varname,start_idx,end_idx,shape\na,0,3,os.system", "w.pt": torch.ones(3, 3)}, "line 2: expected varname"),
        ({"layout.json": '{"a": [3]}', "w.pt": torch.ones(3, 3), "metrics.csv": "step\n1\n"}, "metrics.csv has 1 rows, .* has 3"),
        ({"layout.json": '{"a": [3]}', "w.pt": torch.ones(3, 3), "v.pt": torch.ones(3, 3)}, "holds several matrices: v.pt, w.pt"),
    ],
)  # fmt: skip
def test_a_matrix_that_does_not_fit_its_layout_is_refused(files, message, tmp_path, capsys):
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(refused(capsys, write(tmp_path / "theirs", files)))


def test_a_truncated_npy_file_is_refused(tmp_path, capsys):
    source = write(tmp_path / "theirs", {"layout.json": '{"a": [3]}'})
    np.save(source / "w.npy", np.ones((4, 3), dtype=np.float32))
    (source / "w.npy").write_bytes((source / "w.npy").read_bytes()[:-4])
    assert "truncated; its header says (4, 3) of float32" in refused(capsys, source)
    np.save(source / "w.npy", np.asfortranarray(np.ones((4, 3), dtype=np.float32)))
    assert "column order" in refused(capsys, source)


def test_model_j_has_classes_from_the_files_headers_and_splits_from_folders(tmp_path):
    classes = {0: ["cat", "dog"], 1: ["dog", "ant"], 2: ["ant", "bee"]}
    for split, models in {"train": (0, 1), "test_holdout": (2,)}.items():
        for i in models:
            folder = tmp_path / "theirs" / split / f"model_idx_{i:04d}"
            folder.mkdir(parents=True)
            metadata = {
                "dataset_chosen_targets": str(classes[i]),
                "learning_rate": str(0.1),
                "format": "pt",
                "lora_seed": str(i),
            }
            save_file(state(i), folder / "pytorch_lora_weights.safetensors", metadata)
    zoo = imported(tmp_path / "theirs")
    assert sorted((e.split, e.condition) for e in zoo.entries) == [
        ("heldout", [1, 1, 0, 0]), ("train", [0, 0, 1, 1]), ("train", [1, 0, 0, 1]),
    ]  # fmt: skip


def test_lora_wise_rows_are_networks_with_their_number_of_images(tmp_path):
    import pyarrow
    from pyarrow import parquet

    source = tmp_path / "theirs"
    source.mkdir()
    columns = {name: [state(i)[name].double().tolist() for i in range(4)] for name in state()}
    table = pyarrow.table({"label": [1, 10, 100, 1000], "name": [f"n{i}" for i in range(4)], **columns})
    parquet.write_table(table, source / "train-00000.parquet", row_group_size=2)
    zoo = imported(source)
    assert [(e.condition, same(zoo, i, i)) for i, e in enumerate(zoo.entries)] == [([10**i], True) for i in range(4)]
    assert {t.dtype for t in zoo.spec.tensors} == {"float32"}


def test_sirens_have_the_splits_and_labels_of_their_index(tmp_path):
    source, index = tmp_path / "theirs", {}
    for i, split in enumerate(("train", "train", "val", "test")):
        name = f"mnist_png_{i % 2}_{i}/checkpoints/model_final.pth"
        write(source, {name: {f"seq.0.{n}": t for n, t in nn.Linear(2, 3).state_dict().items()}})
        lists = index.setdefault(split, {"path": [], "label": []})
        lists["path"].append(f"/home/author/dataset/mnist-inrs/{name}")
        lists["label"].append(str(i % 2))
    write(source, {"mnist_splits.json": json.dumps(index)})
    zoo = imported(source)
    assert sorted((e.split, e.condition) for e in zoo.entries) == [
        ("heldout", [0, 1]), ("train", [0, 1]), ("train", [1, 0]), ("val", [1, 0]),
    ]  # fmt: skip


def test_t2w_adapters_are_conditioned_on_text_features(tmp_path):
    source = tmp_path / "theirs"
    tasks = [
        {
            "index": i,
            "selected_classes": [i, 3],
            "text_features": [0.5 * i, 1.0, 2.0],
            "path": f"old/checkpoints/{i}/task.pt",
        }
        for i in range(3)
    ]
    for i in range(3):
        write(source, {f"checkpoints/{i}/task.pt": {"clip_adapter": state(i), "optimizer": {}, "epoch": 9}})
    write(source, {"train.json": json.dumps(tasks[:2]), "test.json": json.dumps(tasks[2:])})
    zoo = imported(source)
    assert [(e.run, e.split, e.condition) for e in zoo.entries] == [
        (i, "heldout" if i == 2 else "train", [0.5 * i, 1.0, 2.0]) for i in range(3)
    ]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def test_a_repository_of_the_hub_is_a_source_of_which_the_pattern_alone_is_fetched(tmp_path, hub, capsys):
    folder = tmp_path / "upload"
    files = {f"run{run}/step{step}.safetensors": state(10 * run + step) for run in range(2) for step in (1, 2)}
    write(folder, {**files, "run0/optimizer.pt": state(), "other/big.pt": state()})
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.add("ann/nets", contents, lfs={*contents})
    source = "hf://ann/nets@main/run{run}/step{step}.safetensors"
    assert main(["zoo", "import", "--source", source, "--out", str(tmp_path / "zoo")]) == 0
    zoo = Zoo(tmp_path / "zoo")
    assert [(e.run, e.step, same(zoo, i, 10 * e.run + e.step)) for i, e in enumerate(zoo.entries)] == [
        (run, step, True) for run in range(2) for step in (1, 2)
    ]
    assert zoo.meta["recipe"]["commit"] == hub.repositories["models/ann/nets"].refs["main"]
    fetched = {
        line.rpartition("resolve/")[2].partition("/")[2] for line in hub.requests if "GET" in line and "resolve" in line
    }
    assert fetched == {*files}
    begun = len(hub.requests)
    assert main(["zoo", "import", "--source", source, "--out", str(tmp_path / "again")]) == 0  # from the cache
    assert not [line for line in hub.requests[begun:] if "GET" in line and "resolve" in line]
    assert main(["zoo", "import", "--source", "hf://ann/none", "--out", str(tmp_path / "x")]) == 2
    assert "Unknown model repository 'ann/none'" in capsys.readouterr().err


def test_a_sharded_model_of_the_hub_is_read_through_the_links_of_its_cache(tmp_path, hub):
    for i in range(2):
        sharded(tmp_path / "upload" / f"net{i}", state(i))
    contents = {
        p.relative_to(tmp_path / "upload").as_posix(): p.read_bytes() for p in (tmp_path / "upload").rglob("*.*")
    }
    hub.add("ann/large", contents, lfs={name for name in contents if name.endswith("safetensors")})
    assert main(["zoo", "import", "--source", "hf://ann/large", "--out", str(tmp_path / "zoo")]) == 0
    assert all(same(Zoo(tmp_path / "zoo"), i, i) for i in range(2))


# Pickles with code


def test_pickles_of_ones_own_are_converted_in_a_process_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owncode.py").write_text("class Config:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import owncode

    source = tmp_path / "theirs"
    write(
        source,
        {"0.pt": {"model": state(0), "config": owncode.Config()}, "1.pth": network(1), "2.pt": [owncode.Config()]},
    )
    assert "object of owncode.Config, and loading it would run its code" in refused(capsys, source)
    line = ["zoo", "convert", "--source", str(source), "--out", str(tmp_path / "plain")]
    assert main(line) == 2
    assert "may run code that it names: give --trust if" in capsys.readouterr().err
    write(source, {"1.bin": state(1)})
    assert main(line) == 2
    assert "1.bin and 1.pth would all become 1.safetensors" in capsys.readouterr().err
    (source / "1.bin").unlink()
    assert main([*line, "--trust"]) == 2
    shown = capsys.readouterr()
    assert "2 of 3 files converted" in shown.out
    assert "2.pt: " in shown.err
    assert "holds a list, expected a network or a state dict" in shown.err
    zoo = imported(tmp_path / "plain")
    assert all(same(zoo, i, i) for i in range(2))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"r/checkpoint_1/checkpoints": state(), "r/result.json": "{bad"}, "result.json, line 1 is not valid JSON"),
        (
            {"r/checkpoint_1/checkpoints": state(), "r/result.json": "[1]"},
            "result.json: expected an object in each line",
        ),
        ({"train.json": "{}", "checkpoints/0/task.pt": state()}, "train.json holds {}, expected a list of tasks"),
        ({"train.json": '[{"path": "../x"}]', "checkpoints/0/task.pt": state()}, "without '..'"),
        ({"train.json": '[{"path": "checkpoints/1"}]', "checkpoints/0/task.pt": state()}, "'checkpoints/1' is not in"),
        (
            {"x_splits.json": '{"train": []}'},
            "expected the lists path and label of one length; --layout folder ignores",
        ),
        ({"x_splits.json": '{"train": {"path": ["a/b.pth"]}}'}, "lacks 'a/b.pth', which its splits name"),
        ({"n/model.safetensors.index.json": '{"weight_map": {"a": "../a.safetensors"}}'}, "without '..'"),
        ({"n/model.safetensors.index.json": '{"weight_map": 3}'}, "expected a weight_map of names and files"),
        ({"a.parquet": b"rubbish"}, "cannot read"),
        ({"layout.json": '{"a": [3]}', "w.h5": b"rubbish"}, "cannot read"),
        ({"n/.metadata": b"rubbish"}, "damaged"),
    ],
)
def test_a_damaged_source_is_one_line_that_names_the_file(files, message, tmp_path, capsys):
    assert message in refused(capsys, write(tmp_path / "theirs", files))


def test_a_dry_run_names_the_layout(tmp_path, capsys):
    assert main(import_line(ray_zoo(tmp_path / "theirs"), "--dry_run")) == 0
    out = capsys.readouterr().out
    assert "layout ray" in out
    assert not (tmp_path / "zoo").exists()
