"""Language models: texts as tasks, LoRA and DoRA adapters that peft and transformers read, and the line from texts to a report."""

import json
from math import exp

import pytest
import torch
import yaml
from torch.nn import functional as F

from language_files import ANSWERS, write_instructions, write_tokenizer
from paramgen.cli.commands import adapters, evaluate
from paramgen.collect import multi, single
from paramgen.collect.multi import Pretraining
from paramgen.collect.train import OptimSettings
from paramgen.core.io import read_json, read_tensors
from paramgen.core.paths import list_configs
from paramgen.core.sample_writer import PerNetwork, write_samples
from paramgen.core.samples import SampleInfo
from paramgen.core.trust import UntrustedError
from paramgen.core.zoo import Zoo
from paramgen.errors import ParamgenError
from paramgen.tasks import InstructionTask, LanguageFamily, family_of, task_of
from paramgen.tasks.conditions import CodeCondition
from paramgen.tasks.language.instructions import PROMPT
from paramgen.tasks.language.models import IGNORED
from paramgen.tasks.language.texts import CHARACTERS, encode_characters
from paramgen.tasks.lora import (
    LoraSettings,
    adapter_names,
    adapter_spec,
    align_gauge,
    fix_gauge,
    read_adapter,
    write_adapter,
)
from whole_line import fitted_samples

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
TINY = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}
GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16, "resid_pdrop": 0.0}


def authors(dora=False, **given) -> LanguageFamily:
    lora = LoraSettings(["*_proj"], r=2, dora=dora)
    sizes = {"context": 16, "train": 640, "held": 160, "model": TINY, "lora": lora}
    return LanguageFamily(["turtle", "difflib", "argparse"], ["doctest"], ["typing", "ast"], **(sizes | given))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    out = tmp_path_factory.mktemp("language") / "zoo"
    optim = OptimSettings("adam", lr=0.01, batch_size=8)
    start = {
        "start": "converged",
        "start_task": "pooled",
        "start_steps": 10,
        "steps": 10,
        "networks": 2,
        "save_every": 5,
    }
    return multi.main(authors(), str(out), CodeCondition(96), **start, optim=optim, pretraining=Pretraining(40, optim))


def test_a_text_is_read_as_characters_in_order_and_its_splits_do_not_overlap():
    assert "".join(CHARACTERS[i] for i in encode_characters("def f(x):\n\té")) == "def f(x):\n??"
    family = authors(context=10, train=100, held=50)
    source = "".join(CHARACTERS[i] for i in family._tokens("turtle").tolist())
    pieces = []
    for split, count in (("train", 9), ("val", 5), ("test", 5)):
        data = family.pooled(["turtle"], split)
        assert len(data) == count
        for tokens, target in zip(data.inputs, data.targets, strict=True):
            text = "".join(CHARACTERS[i] for i in tokens)
            place = source.index(text)
            assert source[place + 1 : place + 11] == "".join(CHARACTERS[i] for i in target)
            pieces.append(text)
    assert sorted(pieces) == sorted(source[i : i + 10] for i in range(0, 190, 10))  # each piece is in one split


def test_perplexity_is_that_of_transformers_own_loss(zoo):
    family, name = family_of(zoo), zoo.entries[0].task
    data = family.pooled([name], "test")
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(vocab_size=96, **TINY))
    plain = {n.replace(".base_layer.", "."): t for n, t in zoo.base().items()}
    model.load_state_dict(plain)  # without its adapter
    with torch.no_grad():
        logits = model(input_ids=data.inputs).logits
    expected = exp(F.cross_entropy(logits.flatten(0, 1), data.targets.flatten()).item())
    none = {n: torch.zeros_like(t) for n, t in zoo[0].items()}
    value = family.evaluate_each([zoo.complete(none)], [name], "test").value
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_adapters_are_the_better_for_their_training(zoo):
    family = family_of(zoo)
    none = {n: torch.zeros_like(t) for n, t in zoo[0].items()}
    for i, entry in enumerate(zoo.entries):
        values = family.evaluate_each([zoo.full(i), zoo.complete(none)], [entry.task] * 2, "train").value
        assert values[0] < values[1]


def test_generated_adapters_go_through_the_report_and_to_peft(zoo, tmp_path):
    seen = [e for e in zoo.entries if e.split == "train"]
    names = [e.task for e in seen] + ["doctest"]
    drawn = [zoo.full(zoo.entries.index(e)) for e in seen] + [zoo.full(0)]
    samples = write_samples(tmp_path / "copies", drawn, SampleInfo(), PerNetwork(task=names))
    generated = fitted_samples("pdiff_language", zoo, tmp_path / "pdiff", zoo=str(zoo.path), per_task=1, seen_tasks=3)
    evaluate.main(zoo=str(zoo.path), samples=[str(samples), str(generated)], out=str(tmp_path / "out"), n=2)
    results = read_json(tmp_path / "out" / "results.json")
    assert results["score"]["name"] == "perplexity"
    rows = {row["name"]: row["values"] for row in results["rows"]}
    assert {"copies", "pdiff", "direct", "nearest", "ridge"} <= rows.keys()
    assert "vote-5" not in rows  # there are no classes to vote for

    adapters.main(str(samples), str(zoo.path), str(tmp_path / "adapters"))
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(vocab_size=96, **TINY))
    model.load_state_dict(read_tensors(tmp_path / "adapters" / "base.safetensors"), strict=False)
    model.tie_weights()
    adapted = peft.PeftModel.from_pretrained(model, str(tmp_path / "adapters" / "network_0000")).eval()
    tokens = family_of(zoo).pooled(["turtle"], "test").inputs
    ours = family_of(zoo).build().eval()
    ours.load_state_dict(zoo.full(0))
    with torch.no_grad():
        torch.testing.assert_close(adapted(input_ids=tokens).logits, ours(tokens), atol=1e-5, rtol=1e-5)


def test_dora_starts_from_its_model_and_keeps_its_function_in_any_gauge_and_in_peft(tmp_path):
    family = authors(dora=True)
    optim = OptimSettings("adam", lr=0.01, batch_size=8)
    zoo = multi.main(
        family,
        str(tmp_path / "zoo"),
        steps=5,
        start="random",
        pretraining=Pretraining(10, optim),
        optim=optim,
        heldout=False,
    )
    magnitudes = [name for name in zoo.spec.names if "lora_magnitude_vector" in name]
    assert len(magnitudes) == 7
    state = zoo.full(0)
    for name in magnitudes:  # trained for 5 steps of 0.01 from the lengths of the pretrained weight's rows
        lengths = zoo.base()[name.partition(".lora_")[0] + ".base_layer.weight"].norm(dim=1)
        assert (state[name] - lengths).abs().max() < 0.06
    tokens, network = family.pooled(["turtle"], "test").inputs, family.build().eval()

    def run(weights):
        network.load_state_dict(weights)
        with torch.no_grad():
            return network(tokens)

    expected = run(state)
    for other in (fix_gauge(state), align_gauge(state, zoo.full(1))):
        torch.testing.assert_close(run(other), expected, atol=1e-4, rtol=1e-4)
    write_adapter(tmp_path / "adapter", state, family.lora)
    read = read_adapter(tmp_path / "adapter", network)
    assert set(read) == set(adapter_names(state))
    plain = family.plain()
    plain.load_state_dict({n.replace(".base_layer.", "."): t for n, t in zoo.base().items()})
    adapted = peft.PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted.get_base_model()(tokens), expected, atol=1e-4, rtol=1e-4)


def test_any_model_of_transformers_can_be_adapted():
    family = authors(model=GPT2, lora=LoraSettings(["*.c_attn"], r=1))
    network = family.build().eval()
    assert len(adapter_names(network.state_dict())) == 2
    scores = family.evaluate_each([network.state_dict()] * 2, ["turtle"] * 2, "val")
    assert scores.value[0] == scores.value[1]
    assert 20 < scores.value[0] < 400  # near the 96 of guessing


def test_texts_and_models_of_ones_own_are_read_from_a_folder(tmp_path):
    for name in ("anna", "ben"):
        (tmp_path / f"{name}.txt").write_text(f"I am {name}. " * 100)
    transformers.LlamaForCausalLM(transformers.AutoConfig.for_model(vocab_size=96, **TINY)).save_pretrained(
        tmp_path / "model"
    )
    given = {"root": str(tmp_path), "model": str(tmp_path / "model"), "pretrained": True}
    family = LanguageFamily(["anna"], ["ben"], context=16, train=640, held=160, lora=LoraSettings(["*_proj"]), **given)
    saved = read_tensors(tmp_path / "model" / "model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    torch.testing.assert_close(family.build().state_dict()[f"{name}.base_layer.weight"], saved[f"{name}.weight"])
    assert family.pretraining("train") is None  # its weights are there already
    assert family.task("ben").data("train").inputs.shape == (39, 16)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"train": 10**7}, "tokens; train and twice held need"),
        ({"context": 500}, "expected more tokens than context 500"),
        ({"train": 100}, "no more than train 100"),
        ({"root": "nowhere"}, "no text 'typing' in nowhere"),
        ({"model": {"model_type": "lama"}}, "cannot build the language model"),
        ({"model": {**TINY, "num_attention_heads": 3}}, "cannot build the language model"),
        ({"dtype": "int8"}, "dtype is 'int8', expected float32"),
        ({"tokenizer": "./nowhere"}, "cannot read the tokenizer './nowhere'"),
    ],
)
def test_mistakes_with_texts_and_models_are_named(given, expected):
    def use():
        family = authors(**given)
        family.pretraining("train")
        family.build()

    with pytest.raises(ParamgenError, match=expected):
        use()


@pytest.fixture
def instructions(tmp_path):
    """Files as LLM-Adapters and lm-eval have them: instructions, a model with its tokenizer, and a test with its data."""
    folder = tmp_path / "model"
    write_tokenizer(folder)
    torch.manual_seed(0)
    larger = {**TINY, "hidden_size": 16, "initializer_range": 0.3}
    config = transformers.AutoConfig.for_model(vocab_size=4, **larger)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    write_instructions(tmp_path / "instructions.json")
    questions = [{"question": f"not {a}", "answer": 1 - i} for i, a in enumerate(ANSWERS)] * 3
    (tmp_path / "questions.json").write_text("\n".join(map(json.dumps, questions)))
    (tmp_path / "tests").mkdir()
    test = {
        "task": "say",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "questions.json")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": PROMPT.format(instruction="{{question}}").rstrip(),
        "doc_to_choice": ANSWERS,
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "tests" / "say.yaml").write_text(yaml.safe_dump(test))
    return {"file": str(tmp_path / "instructions.json"), "model": str(folder), "tests": ["say"], "val_items": 4}


def test_dora_of_instructions_goes_from_files_through_training_to_the_tests_of_lm_eval(
    instructions, tmp_path, monkeypatch
):
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    lora = LoraSettings(["*_proj"], r=4, dora=True)
    task = InstructionTask(**instructions, lora=lora, context=32, test_folder=str(tmp_path / "tests"))
    optim = OptimSettings("adam", lr=0.03, batch_size=10)
    how = {"start": "pretrained", "parameters": ["*.lora_*"], "checkpoints": 2, "save_every": 40, "finetune": optim}
    zoo = single.main(task, str(tmp_path / "zoo"), **how)
    assert all("lora" in name for name in zoo.spec.names)
    assert zoo.entries[-1].scores["val"]["score"] > 0.4  # learned to say the opposite
    with pytest.raises(UntrustedError, match="which would be read or fetched"):
        task_of(zoo)
    again = task_of(Zoo(zoo.path, trust=True))
    none = zoo.complete({n: t if "magnitude" in n else 0 * t for n, t in zoo[1].items()})
    before, after = again.evaluate([none, zoo.full(1)], "test").value.tolist()
    assert before <= 0.5 < after
    assert again.accuracies(zoo.full(1)) == {"say": after}


def test_only_answers_are_learned_and_padding_is_not(instructions):
    task = InstructionTask(**instructions, context=40)
    data = task.data("train")
    assert len(data) == 20
    learned = [row[row != IGNORED].tolist() for row in data.targets]
    assert learned == [[3, 1], [2, 1]] * 10  # the answer and the end
    places = (data.targets[0] != IGNORED).nonzero()[:, 0]
    assert data.inputs[0][places[1]] == 3  # each is predicted from the one before it
    assert task.build()(data.inputs[:2]).shape == (2, 40, 4)
    with pytest.raises(ParamgenError, match="test_items is 0, expected 1 or more"):
        InstructionTask(**instructions, test_items=0)


def test_the_dora_of_llama_7b_has_the_papers_size():
    config = {"model_type": "llama", "vocab_size": 8, "num_hidden_layers": 2}  # two of 32 layers, at LLaMA-7B's widths
    with open(list_configs("zoo")["llama7b_commonsense"]) as file:
        lora = yaml.safe_load(file)["task"]["init_args"]["lora"]
    with torch.device("meta"):
        network = LanguageFamily(["turtle"], model=config, lora=lora).build()
    spec = adapter_spec(network)
    assert spec.numel / 2 * 32 == 7_888_896  # the paper: 7.8 M
