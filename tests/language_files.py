"""Files of instructions for language models, as LLM-Adapters publishes them, and a tokenizer of four words."""

import json

ANSWERS = ["true", "false"]


def write_tokenizer(folder):
    """Words are tokens, and there are four."""
    import tokenizers
    import transformers

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "</s>": 1, "true": 2, "false": 3}, "[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", unk_token="[UNK]")
    tokenizer.save_pretrained(folder)


def write_instructions(path):
    """To say the opposite, 24 times."""
    records = [{"instruction": f"not {a}", "input": "", "output": b} for a, b in [ANSWERS, ANSWERS[::-1]] * 12]
    path.write_text(json.dumps(records))
