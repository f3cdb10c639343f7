"""`preprocess-data` with CLIP's real vocabulary, against open_clip's tokenizer, which shares no code with ours."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import open_clip.tokenizer
import pytest
import torch

from sdxl_engine.assets.benchmark_inputs import other_inputs
from sdxl_engine.assets.captions import read_captions, write_captions
from sdxl_engine.cli import main
from sdxl_engine.engines.cache import MANIFEST
from sdxl_engine.files import sha256
from sdxl_engine.models.full_size import CONFIGS
from sdxl_engine.models.prompts import NEGATIVE_PROMPT
from sdxl_engine.shapes.bundle import BUNDLE

REAL = Path(os.environ.get("SDXL_CAPTIONS", os.devnull))
START, END = 49406, 49407
CAPTIONS = [
    "A city at night with people walking around.",
    'A sign that reads "STOP" and, below it, "All Way".',
    "tabs\tbetween\twords",
    "it's the dog's bowl, they've said; we'll see",
    "a caf\u00e9 in Z\u00fcrich, na\u00efve \u00e6ther",
    "42 zebras, 3.5 metres, no. 7b",
    "MiXeD CaSe AND  two   spaces",
    "hyphen-ated (words) & signs: 100% #1 @home?",
    "wow! what!? a view !",
    "antidisestablishmentarianism floccinaucinihilipilification",
    " ".join(["a very long caption that goes on"] * 20),
    "word " * 75,
    "word " * 76,
    "x",
]
NAMES = ("prompt_ids_clip1", "prompt_ids_clip2", "negative_prompt_ids_clip1", "negative_prompt_ids_clip2")


@pytest.fixture(scope="module")
def simple():
    return open_clip.tokenizer.SimpleTokenizer()


@pytest.fixture(scope="module")
def checkpoint(simple, tmp_path_factory):
    """SDXL's configuration and tokenizers, without weights."""
    folder = tmp_path_factory.mktemp("checkpoint")
    shutil.copyfile(BUNDLE / "model_index.json", folder / "model_index.json")
    for part, config in CONFIGS.items():
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps(config))
    words = {word: number for word, number in simple.encoder.items() if number < START}
    words |= {"<|startoftext|>": START, "<|endoftext|>": END}
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in simple.bpe_ranks)])
    for name in ("tokenizer", "tokenizer_2"):
        (folder / name).mkdir()
        (folder / name / "vocab.json").write_text(json.dumps(words))
        (folder / name / "merges.txt").write_text(merges)
        for file in ("tokenizer_config.json", "special_tokens_map.json"):
            shutil.copyfile(BUNDLE / name / file, folder / name / file)
    return folder


@pytest.fixture
def run(checkpoint, tmp_path):
    latent = np.random.default_rng(2).standard_normal((1, 4, 128, 128), dtype=np.float32)
    np.save(tmp_path / "latents.npy", latent)
    write_captions(tmp_path / "captions.tsv", CAPTIONS, 1024)

    def call(*options, captions=tmp_path / "captions.tsv", latents=tmp_path / "latents.npy"):
        files = {"--captions": captions, "--latents": latents, "--output": tmp_path / "out"}
        arguments = [str(part) for pair in files.items() for part in pair]
        given = ["--model", str(checkpoint), *arguments, "--json", str(tmp_path / "result.json")]
        return main(["preprocess-data", *given, *options])

    return call


def expected(simple, texts, pad):
    """Rows as the reference's pipeline pads and truncates them."""
    rows = np.full((len(texts), 77), pad, np.int32)
    for row, text in zip(rows, texts, strict=True):
        # The second tokenizer pads with "!", which makes it a special token, cut out of every text: id 0, where CLIP's
        # own tokenizer has 256 for it at the end of a word, or a longer token such as "!?".
        pieces = text.split("!") if pad == 0 else [text]
        ids = [START, *[number for piece in pieces for number in (0, *simple.encode(piece))][1:][:75], END]
        row[: len(ids)] = ids
    return rows


def check_tokens(folder, simple, texts):
    negative = [NEGATIVE_PROMPT] * len(texts)
    wanted = [expected(simple, rows, pad) for rows in (texts, negative) for pad in (END, 0)]
    for name, rows in zip(NAMES, wanted, strict=True):
        array = np.load(folder / f"{name}_padded_5k.npy")
        assert array.dtype == np.int32
        differing = [texts[row] for row in np.flatnonzero((array != rows).any(axis=1))[:3]]
        assert not differing, name
        assert array.shape == rows.shape


def test_every_row_is_what_open_clips_tokenizer_gives(run, simple, tmp_path):
    assert run() == 0
    check_tokens(tmp_path / "out", simple, CAPTIONS)


@pytest.mark.skipif(
    not REAL.is_file() or bool(other_inputs(REAL, REAL.parent)),
    reason="SDXL_CAPTIONS does not name the benchmark's captions_source.tsv",
)
def test_the_benchmarks_own_captions(run, simple, tmp_path):
    assert run(captions=REAL) == 0
    captions = read_captions(REAL)
    assert len(captions) == 5000
    check_tokens(tmp_path / "out", simple, [caption.text for caption in captions])
    assert np.load(tmp_path / "out" / "ids.npy").tolist() == [caption.id for caption in captions]
    assert json.loads((tmp_path / "result.json").read_text())["seconds"] < 10


def test_latent_ids_and_manifest(run, checkpoint, tmp_path):
    assert run("--samples", "5") == 0
    out = tmp_path / "out"
    latent = np.load(tmp_path / "latents.npy")
    np.testing.assert_array_equal(np.load(out / "latents.npy"), latent)
    np.testing.assert_array_equal(torch.load(out / "latents.pt", weights_only=True).numpy(), latent)
    assert np.load(out / "ids.npy").tolist() == [0, 1, 2, 3, 4]
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["sha256"] == {path.name: sha256(path) for path in out.iterdir() if path.name != MANIFEST}
    assert len(manifest["sha256"]) == 7
    made_from = manifest["ingredients"]
    assert (made_from["captions"], made_from["rows"]) == (sha256(tmp_path / "captions.tsv"), 5)
    assert made_from["tokenizers"]["tokenizer/vocab.json"] == sha256(checkpoint / "tokenizer" / "vocab.json")


def test_it_is_written_again_only_for_other_inputs(run, tmp_path):
    def built():
        assert run() == 0
        return json.loads((tmp_path / "result.json").read_text())["built"]

    assert built()
    assert not built()
    write_captions(tmp_path / "captions.tsv", CAPTIONS[::-1], 1024)
    assert built()
    assert np.load(tmp_path / "out" / "prompt_ids_clip1_padded_5k.npy")[0, 2] == END


def test_a_folder_with_other_files_is_left_alone(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_text('{"ingredients": {"what": "mine"}}')
    assert run() == 4
    assert "the output folder holds other files" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [MANIFEST]


@pytest.mark.parametrize(
    ("values", "says"), [(None, "latent is missing"), (np.zeros((1, 4, 64, 64), np.float32), "does not fit the model")]
)
def test_a_latent_that_cannot_be_leaves_nothing(run, tmp_path, capsys, values, says):
    path = tmp_path / "other.npy"
    if values is not None:
        np.save(path, values)
    assert run(latents=path) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_is_not_there_is_named(run, checkpoint, tmp_path, capsys):
    (checkpoint / "tokenizer_2").rename(checkpoint / "away")
    try:
        assert run() == 1
    finally:
        (checkpoint / "away").rename(checkpoint / "tokenizer_2")
    assert "cannot load tokenizer_2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
