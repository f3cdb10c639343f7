"""The two commands, on a manifest of the tests' own and a server on this machine."""

import collections
import errno
import hashlib
import io
import json
import os
import re
import shutil
import time
from types import SimpleNamespace

import pytest
from file_server import Fault, file_server
from filelock import FileLock

from sdxl_engine import download_command
from sdxl_engine.assets import plan as plans
from sdxl_engine.assets import transfer
from sdxl_engine.assets.manifest import Asset, read_manifest
from sdxl_engine.cli import main

WEIGHTS, CONFIG, INDEX, CAPTIONS, STATISTICS = b"weights" * 999, b"{}", b'{"a": 1}', b"id\n1\n", b"npz" * 50
HUB = "/org/model/resolve/abc"


def _entry(name, content, **more):
    digest = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} | more
    pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in {"name": name, **digest}.items())
    return "{ " + pairs + " }"


def _manifest(address):
    blob = hashlib.sha1(b"blob %d\0" % len(STATISTICS) + STATISTICS).hexdigest()
    md5 = hashlib.md5(WEIGHTS).hexdigest()
    return f"""
[model]
url = "https://huggingface.co{HUB}"
[model.fp16]
target = "models/fp16/checkpoint_pipe"
bucket = "{address}/metadata/fp16-checkpoint"
files = [{_entry("unet/w.fp16.safetensors", WEIGHTS, to="unet/w.safetensors", md5=md5)}]
[model.fp32]
target = "models/fp32/checkpoint_pipe"
files = [{_entry("unet/w.safetensors", WEIGHTS)}]
[model.both]
files = [{_entry("unet/config.json", CONFIG)}, {_entry("model_index.json", INDEX)}]
[data]
target = "data"
files = [{_entry("captions_source.tsv", CAPTIONS, to="captions.tsv", url=address + "/data")}]
[metrics]
target = "models/metrics"
files = [{{ name = "val2014.npz", blob = "{blob}", url = "{address}/data" }}]
"""


class Here:
    """A build folder and the command run in it."""

    def __init__(self, folder, server, capsys):
        self.build = folder / "build"
        self.checkpoint = self.build / "models" / "fp16" / "checkpoint_pipe"
        self.server = server
        self.capsys = capsys

    def run(self, *arguments):
        status = main([*arguments, "--build-dir", str(self.build)])
        said = self.capsys.readouterr()
        return status, said.out, said.err

    def files(self):
        found = (path for path in self.build.rglob("*") if path.is_file() and path.name != ".download.lock")
        return {path.relative_to(self.build).as_posix(): path.read_bytes() for path in found}


MODEL = {
    "models/fp16/checkpoint_pipe/unet/w.safetensors": WEIGHTS,
    "models/fp16/checkpoint_pipe/unet/config.json": CONFIG,
    "models/fp16/checkpoint_pipe/model_index.json": INDEX,
}
DATA = {"data/captions.tsv": CAPTIONS, "models/metrics/val2014.npz": STATISTICS}


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HF_TOKEN", "CF_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transfer.time, "sleep", lambda _seconds: None)
    with file_server() as server:
        manifest = tmp_path / "manifest.toml"
        manifest.write_text(_manifest(server.address))
        monkeypatch.setattr(download_command, "read_manifest", lambda: read_manifest(manifest))
        monkeypatch.setenv("HF_ENDPOINT", server.address + "/")
        server.files |= {
            f"{HUB}/unet/w.fp16.safetensors": WEIGHTS,
            f"{HUB}/unet/config.json": CONFIG,
            f"{HUB}/model_index.json": INDEX,
            "/data/captions_source.tsv": CAPTIONS,
            "/data/val2014.npz": STATISTICS,
        }
        yield Here(tmp_path, server, capsys)


def test_a_model_is_fetched_once(here, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    status, out, err = here.run("download-model")
    assert (status, here.files()) == (0, MODEL)
    assert "3 of 3 files to fetch" in out
    assert "3 files there, each of them verified" in out
    assert "fetching" in err
    assert "secret" not in out + err
    assert {headers["authorization"] for _, headers in here.server.asked} == {"Bearer secret"}
    assert [path.rpartition("/")[2] for path, _ in here.server.asked][-1] == "model_index.json"

    here.server.asked.clear()
    status, out, _ = here.run("download-model")
    assert (status, here.server.asked) == (0, [])
    assert "nothing to fetch" in out


def test_data_and_metrics_together_or_alone(here, tmp_path):
    result = tmp_path / "result.json"
    assert here.run("download-data", "--only", "metrics", "--json", str(result))[0] == 0
    assert list(here.files()) == ["models/metrics/val2014.npz"]
    (entry,) = json.loads(result.read_text())["files"]
    assert entry["fetched"]
    assert entry["there"]
    assert len(entry["blob"]) == 40
    assert here.run("download-data")[0] == 0
    assert here.files() == DATA
    assert [path for path, _ in here.server.asked] == ["/data/val2014.npz", "/data/captions_source.tsv"]


def test_a_dry_run_says_what_how_much_and_where_and_fetches_nothing(here):
    status, out, _ = here.run("download-model", "--dry-run")
    assert status == 0
    assert f"to:   {here.checkpoint}/" in out
    assert f"from: {here.server.address}{HUB}/" in out
    assert f"6.99 kB  sha256 {hashlib.sha256(WEIGHTS).hexdigest()[:12]} unet/w.safetensors" in out
    assert "3 of 3 files to fetch: 7.00 kB; " in out
    assert out.rstrip().endswith(" free")
    _, out, _ = here.run("download-data", "--dry-run")
    assert "1 of a size that only the server knows" in out
    assert not here.build.exists()
    assert here.server.asked == []


def test_offline_verifies_and_lists_what_is_missing(here):
    here.run("download-model")
    here.server.asked.clear()
    assert here.run("download-model", "--offline")[0] == 0
    (here.checkpoint / "unet" / "config.json").unlink()
    (here.checkpoint / "model_index.json").unlink()
    status, _, err = here.run("download-model", "--offline")
    assert status == 1
    assert "2 of 3 files are missing, and --offline fetches none" in err
    assert str(here.checkpoint / "unet" / "config.json") in err
    assert str(here.checkpoint / "model_index.json") in err
    assert here.server.asked == []


@pytest.mark.parametrize("content", [WEIGHTS[:-1] + b"x", WEIGHTS[:-1]], ids=["another byte", "cut off"])
@pytest.mark.parametrize("option", [[], ["--offline"]])
def test_another_file_in_the_place_is_left_alone_and_named(here, content, option):
    path = here.checkpoint / "unet" / "w.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    status, _, err = here.run("download-model", *option)
    assert status == 1
    assert "another w.safetensors is there" in err
    assert f"rm '{path}'" in err
    assert path.read_bytes() == content
    assert here.server.asked == []


def test_a_file_that_cannot_be_read_is_an_error(here, monkeypatch):
    here.run("download-data")

    def broken(_asset, _path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Asset, "found", broken)
    status, _, err = here.run("download-data", "--offline")
    assert status == 1
    assert "a file cannot be read" in err
    assert "Input/output error" in err


def test_a_folder_in_the_place_of_a_file_is_an_error(here):
    (here.checkpoint / "model_index.json").mkdir(parents=True)
    status, _, err = here.run("download-model")
    assert status == 1
    assert "a folder is in the place of a file" in err
    assert here.server.asked == []


def test_a_checkpoint_is_none_before_its_last_file(here):
    here.server.faults += [Fault(), Fault(flip=0)]
    status, _, err = here.run("download-model")
    assert status == 1
    assert "the source has another config.json" in err
    assert list(here.files()) == ["models/fp16/checkpoint_pipe/unet/w.safetensors"]
    assert here.run("download-model")[0] == 0
    assert here.files() == MODEL


def test_too_little_room_is_found_out_before_the_first_byte(here, monkeypatch):
    usage = collections.namedtuple("usage", "free")
    monkeypatch.setattr(plans.shutil, "disk_usage", lambda _path: usage(plans.SPARE_BYTES + 100))
    status, _, err = here.run("download-model")
    assert status == 1
    assert "the disk has too little room" in err
    assert "7.00 kB" in err
    assert here.server.asked == []


@pytest.mark.parametrize("layout", ["published", "build"])
def test_a_mirror_has_the_published_names_or_those_of_the_build_folder(here, layout):
    here.server.files = (
        {f"/m/{path.removeprefix(HUB + '/')}": content for path, content in here.server.files.items()}
        if layout == "published"
        else {f"/m/{path}": content for path, content in MODEL.items()}
    )
    assert here.run("download-model", "--source", here.server.address + "/m/")[0] == 0
    assert here.files() == MODEL
    assert all("authorization" not in headers for _, headers in here.server.asked)


@pytest.mark.parametrize("layout", ["published", "build"])
def test_a_folder_is_copied_from_and_verified(here, tmp_path, layout):
    folder = tmp_path / "mirror"
    weights = folder / ("unet/w.fp16.safetensors" if layout == "published" else next(iter(MODEL)))
    for path, content in (
        (weights, WEIGHTS),
        (folder / "unet/config.json", CONFIG),
        (folder / "model_index.json", INDEX),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert here.run("download-model", "--source", str(folder))[0] == 0
    assert here.files() == MODEL
    assert here.server.asked == []

    shutil.rmtree(here.build)
    weights.write_bytes(WEIGHTS + b"x")
    status, _, err = here.run("download-model", "--source", str(folder))
    assert status == 1
    assert "the source has another w.safetensors" in err
    weights.unlink()
    assert "the source does not have this file" in here.run("download-model", "--source", str(folder))[2]
    assert here.files() == {}


def _bucket(server, weights=WEIGHTS, listed=WEIGHTS):
    base = "/bucket/stable_diffusion_fp16"
    contents = {"unet/w.safetensors": weights, "unet/config.json": CONFIG, "model_index.json": INDEX}
    digests = contents | {"unet/w.safetensors": listed}
    server.files = {f"{base}/checkpoint_pipe/{name}": content for name, content in contents.items()}
    lines = [f"{hashlib.md5(content).hexdigest()}  ./checkpoint_pipe/{name}\n" for name, content in digests.items()]
    server.files["/metadata/fp16-checkpoint.md5"] = "".join(lines).encode()
    server.files["/metadata/fp16-checkpoint.uri"] = f"{server.address}{base}\n".encode()


def test_the_bucket_says_where_its_files_are_and_their_digests(here, monkeypatch):
    monkeypatch.setenv("CF_ACCESS_TOKEN", "secret")
    status, out, _ = here.run("download-model", "--source", "mlcommons", "--dry-run")
    assert status == 0
    assert f"md5 {hashlib.md5(WEIGHTS).hexdigest()[:12]}" in out
    assert out.count("from the server     ") == 2
    assert "no list of digests from MLCommons" in here.run("download-model", "--source", "mlcommons", "--offline")[2]

    _bucket(here.server)
    assert here.run("download-model", "--source", "mlcommons")[0] == 0
    assert here.files().keys() == MODEL.keys() | {"models/fp16/fp16-checkpoint.md5"}
    assert {headers["cf-access-token"] for _, headers in here.server.asked} == {"secret"}
    here.server.asked.clear()
    assert here.run("download-model", "--source", "mlcommons", "--offline")[0] == 0
    assert here.server.asked == []


def test_the_bucket_is_held_to_the_published_digests(here):
    _bucket(here.server, weights=b"other", listed=b"other")
    status, _, err = here.run("download-model", "--source", "mlcommons")
    assert status == 1
    assert "the list has another unet/w.safetensors than the published one" in err
    _bucket(here.server, weights=b"other")
    assert "the source has another w.safetensors" in here.run("download-model", "--source", "mlcommons")[2]
    assert list(here.files()) == ["models/fp16/fp16-checkpoint.md5"]


@pytest.mark.parametrize(
    ("faults", "files", "says"),
    [
        ([Fault(302, {"Location": "/login"})], {}, "CF_ACCESS_TOKEN"),
        ([Fault(503)], {}, "HTTP 503"),
        ([], {"uri": b"<html>"}, "no address of a folder"),
        ([], {"md5": b"<html>log in</html>"}, "no list of digests"),
        ([], {"md5": b"0" * 32 + b"  checkpoint_pipe/model_index.json\n"}, "has not one unet/w.safetensors"),
    ],
    ids=["login", "busy", "no address", "no list", "a file is not in it"],
)
def test_a_bucket_that_gives_no_list_is_an_error(here, faults, files, says):
    _bucket(here.server)
    here.server.faults += faults
    here.server.files |= {f"/metadata/fp16-checkpoint.{suffix}": content for suffix, content in files.items()}
    status, _, err = here.run("download-model", "--source", "mlcommons")
    assert status == 1
    assert says in err
    assert not set(here.files()) & set(MODEL)
    assert "/login" not in [path for path, _ in here.server.asked]


def test_one_download_at_a_time(here):
    here.build.mkdir()
    with FileLock(here.build / ".download.lock"):
        status, _, err = here.run("download-data")
    assert status == 4
    assert "another download is under way" in err
    assert here.server.asked == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["download-model", "--precision", "int8"], "one of fp16, fp32"),
        (["download-data", "--only", "metric"], "did you mean 'metrics'?"),
        (["download-model", "--source", "hugingface"], "huggingface, mlcommons, the address of a mirror"),
        (["download-data", "--source", "mlcommons"], "unknown source 'mlcommons'"),
        (["download-model", "--precision", "fp32", "--source", "mlcommons"], "MLCommons has no bucket with model-fp32"),
    ],
)
def test_wrong_options_end_with_status_4(here, arguments, says):
    status, _, err = here.run(*arguments)
    assert status == 4
    assert says in err
    assert here.files() == {}


def test_a_library_that_is_missing_is_named(here, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "requests" else name)
    status, _, err = here.run("download-data")
    assert status == 4
    assert "pip install 'pytest-sdxl[download]'" in err


def test_a_bar_says_bytes_and_time_left_where_standard_error_is_a_terminal(monkeypatch, tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    asset = SimpleNamespace(size=4_000_000)
    item = SimpleNamespace(target=tmp_path / "w.bin", wanted=SimpleNamespace(asset=asset), begun=1_000_000, rest=None)
    with download_command._bar(item) as progress:
        time.sleep(0.15)  # tqdm draws no more often
        progress(2_000_000, 4_000_000)
        time.sleep(0.15)
        progress(4_000_000, 4_000_000)
    shown = terminal.getvalue().split("\r")
    assert any(re.search(r"w\.bin: +25%.* 1\.00M/4\.00M ", line) for line in shown), shown
    # Bytes there and in all, and elapsed and left time.
    assert any(re.search(r"50%.* 2\.00M/4\.00M \[00:00<00:00,", line) for line in shown), shown
