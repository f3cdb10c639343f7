"""A file that is wrong is refused by file, table and key."""

import pytest

from sdxl_engine.errors import AssetError
from sdxl_engine.models.spec import NETWORKS
from sdxl_engine.systems.reading import read_system

GOOD = """\
schema = 1
description = "Two GPUs"
[match]
gpu_names = ["NVIDIA A*"]
gpu_count = 2
gpu_memory_gib = [70, 82.5]
[defaults]
precision = "fp16"
use_graphs = true
gpu_batch_size = 8
[Offline.DeepCache]
shallow_unet_steps = 2
gpu_batch_size = { vae = 4 }
offline_expected_qps = 3
source = "measured"
"""


@pytest.fixture
def read(tmp_path):
    def call(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return read_system(path)

    return call


def test_a_scenarios_table_goes_over_the_defaults(read):
    config = read(GOOD)
    assert (config.name, config.description, config.match.gpu_memory_gib) == ("mine", "Two GPUs", (70.0, 82.5))
    assert (config.defaults.engine, config.defaults.devices, config.defaults.shallow_unet_steps) == ("auto", 2, 1)
    cached = config.run("Offline", "DeepCache")
    assert cached.gpu_batch_size == dict.fromkeys(NETWORKS, 8) | {"vae": 4}
    assert (cached.shallow_unet_steps, cached.offline_expected_qps, cached.precision) == (2, 3.0, "fp16")
    assert config.run("Offline", "NoOpt") is config.defaults


@pytest.mark.parametrize(
    ("old", "new", "where", "says"),
    [
        # Keys that are not there, or not known.
        ("schema = 1", "", "schema", "schema = 1"),
        ("schema = 1", "schema = 2", "schema", "got:      2"),
        ("schema = 1", "schema = true", "schema", "got:      True"),
        ('description = "Two GPUs"', "", "description", "missing"),
        ("[match]", "[macth]", "macth", "did you mean 'match'?"),
        ("[Offline.DeepCache]", "[Ofline.DeepCache]", "Ofline", "did you mean 'Offline'?"),
        ("[Offline.DeepCache]", "[Offline.DeepCach]", "[Offline] DeepCach", "did you mean 'DeepCache'?"),
        ("use_graphs = true", "use_graph = true", "[defaults] use_graph", "did you mean 'use_graphs'?"),
        ("use_graphs = true", "", "[defaults] use_graphs", "expected: true or false"),
        ('precision = "fp16"', "", "[defaults] precision", "one of fp32, fp16, int8, fp8"),
        ("gpu_batch_size = 8", "gpu_batch_size = { unet = 8 }", "[defaults] gpu_batch_size.clip1", "missing"),
        ("gpu_count = 2", "", "[match] gpu_count", "missing"),
        ('source = "measured"', "", "[Offline.DeepCache] source", "missing"),
        ("offline_expected_qps = 3", "", "[Offline.DeepCache] offline_expected_qps", "missing"),
        ("use_graphs = true", "use_graphs = true\nsource = 'x'", "[defaults] source", "there is no such key"),
        # Values of the wrong type, out of range, or not known.
        ('description = "Two GPUs"', 'description = " "', "description", "a text that is not empty"),
        ('precision = "fp16"', 'precision = "FP8"', "[defaults] precision", "did you mean 'fp8'?"),
        ('precision = "fp16"', "precision = 16", "[defaults] precision", "got:      16"),
        ("use_graphs = true", 'use_graphs = "true"', "[defaults] use_graphs", "got:      'true'"),
        ("use_graphs = true", 'use_graphs = true\nengine = "tourch"', "[defaults] engine", "did you mean 'torch'?"),
        ("gpu_batch_size = 8", "gpu_batch_size = 0", "[defaults] gpu_batch_size", "a whole number, 1 to 1024"),
        ("gpu_batch_size = 8", "gpu_batch_size = true", "[defaults] gpu_batch_size", "got:      True"),
        ("gpu_batch_size = 8", "gpu_batch_size = 8.0", "[defaults] gpu_batch_size", "got:      8.0"),
        ("{ vae = 4 }", "{ vea = 4 }", "[Offline.DeepCache] gpu_batch_size.vea", "did you mean 'vae'?"),
        ("{ vae = 4 }", "{ vae = 2000 }", "[Offline.DeepCache] gpu_batch_size.vae", "got:      2000"),
        ("{ vae = 4 }", "{ unet = 4 }", "[Offline.DeepCache] gpu_batch_size.shallow_unet", "both UNets share"),
        ("shallow_unet_steps = 2", "shallow_unet_steps = 20", "[Offline.DeepCache] shallow_unet_steps", "1 to 19"),
        ("qps = 3", "qps = 0", "[Offline.DeepCache] offline_expected_qps", "a number above 0"),
        ("qps = 3", "qps = nan", "[Offline.DeepCache] offline_expected_qps", "got:      nan"),
        ("qps = 3", "qps = inf", "[Offline.DeepCache] offline_expected_qps", "got:      inf"),
        ("[70, 82.5]", "[82.5, 70]", "[match] gpu_memory_gib", "two rising numbers"),
        ("[70, 82.5]", "80", "[match] gpu_memory_gib", "got:      80"),
        ('["NVIDIA A*"]', '"NVIDIA A*"', "[match] gpu_names", "a list of one or more texts"),
        ('["NVIDIA A*"]', "[]", "[match] gpu_names", "a list of one or more texts"),
        ("gpu_count = 2", "gpu_count = 0", "[match] gpu_count", "1 to 1024"),
        # Keys that do not go together.
        ("gpu_count = 2", "gpu_count = 2\ncpu = true", "[match] cpu", "got:      'both'"),
        ('gpu_names = ["NVIDIA A*"]', "", "[match] gpu_names", "got:      'neither'"),
        ('gpu_names = ["NVIDIA A*"]', "cpu = true", "[match] gpu_count", "does not go with the others"),
        ("gpu_count = 2", 'gpu_count = 2\ncpu_names = ["x"]', "[match] cpu_names", "cpu = false"),
        ("use_graphs = true", "use_graphs = true\ndevices = 3", "[defaults] devices", "at most 2"),
        # Tables that are none.
        ("[Offline.DeepCache]", "[Offline]\nDeepCache = 1\n[Offline.NoOpt]", "Offline.DeepCache", "is a table"),
    ],
)
def test_what_is_wrong_is_named(read, old, new, where, says):
    assert old in GOOD
    with pytest.raises(AssetError) as caught:
        read(GOOD.replace(old, new))
    message = str(caught.value)
    assert message.startswith(f"mine.toml: {where}: "), message
    assert says in message
    assert "mine.toml" in caught.value.parts["from"]


@pytest.mark.parametrize(
    ("name", "text"), [("defaults", "defaults = 1"), ("match", "match = []"), ("Offline", "Offline = 1")]
)
def test_a_table_has_to_be_one(read, name, text):
    lines = GOOD[: GOOD.index("[match]")] + text + "\n"
    tables = {"match": "[defaults]\n", "defaults": "[match]\ncpu = true\n"}
    rest = "[match]\ncpu = true\n[defaults]\nprecision = 'fp32'\nuse_graphs = false\ngpu_batch_size = 1\n"
    with pytest.raises(AssetError, match=rf"mine\.toml: {name}: "):
        read(lines + tables.get(name, rest))


def test_a_file_that_is_no_toml_or_is_not_there(read, tmp_path):
    with pytest.raises(AssetError, match="not valid TOML") as caught:
        read("schema = \n")
    assert "line 1" in caught.value.parts["got"]
    with pytest.raises(AssetError, match="is missing"):
        read_system(tmp_path / "none.toml")
