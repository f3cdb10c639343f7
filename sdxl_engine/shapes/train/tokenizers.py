"""The tokenizers of `shapes`: CLIP's byte-pair encoding, with one token for each word of the grammar."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from sdxl_engine.models.prompts import NEGATIVE_PROMPT
from sdxl_engine.shapes.train.networks import TOKENS

if TYPE_CHECKING:
    from pathlib import Path

BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def _byte_alphabet() -> list[str]:
    """The printable stand-ins of the 256 bytes, in the order of CLIP's vocabulary, in which id 0 is "!"."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + index) for index in range(others)]


def _merges(captions: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges learned until every word of the captions is one token."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=10_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    trained.train_from_iterator(captions, trainer)
    return [(left, right) for left, right in json.loads(trained.to_str())["model"]["merges"]]


def write_tokenizers(captions: list[str], folder: Path) -> int:
    """Write `tokenizer/` (padded with end-of-text) and `tokenizer_2/` (padded with id 0), as SDXL has them.

    Args:
        captions: Texts that hold every word of the grammar.
        folder: The bundle.

    Returns:
        Size of the vocabulary.
    """
    merges = _merges([*captions, NEGATIVE_PROMPT.replace(",", " ,")])
    alphabet = _byte_alphabet()
    units = [*alphabet, *(unit + "</w>" for unit in alphabet), *(left + right for left, right in merges), BOS, EOS]
    vocabulary = {unit: index for index, unit in enumerate(dict.fromkeys(units))}
    for name, pad in (("tokenizer", EOS), ("tokenizer_2", "!")):
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        (target / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
        (target / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": pad}
        (target / "special_tokens_map.json").write_text(json.dumps(special, indent=2), encoding="utf-8")
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "do_lower_case": True, **special}
        (target / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return len(vocabulary)
