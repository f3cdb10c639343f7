import dataclasses
import hashlib
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from file_server import Fault

from sdxl_engine.assets import transfer
from sdxl_engine.assets.manifest import Asset
from sdxl_engine.assets.part import Part
from sdxl_engine.assets.sources import Place
from sdxl_engine.assets.transfer import MissingAtSourceError, Patience, fetch
from sdxl_engine.errors import AssetError

CONTENT = bytes(range(256)) * 400
SIZE = len(CONTENT)
ASSET = Asset("a.bin", Path("a.bin"), hashlib.sha256(CONTENT).hexdigest(), size=SIZE)
UNSIZED = dataclasses.replace(ASSET, size=None)
BLOB = dataclasses.replace(UNSIZED, digest=hashlib.sha1(b"blob %d\0" % SIZE + CONTENT).hexdigest(), algorithm="blob")
PATIENCE = Patience(failures=4, first_s=0.0, most_s=30.0)


class Target:
    """A file to be, what was told of it, and the waits."""

    def __init__(self, folder, server):
        self.path = folder / "below" / "a.bin"
        self.part = folder / "below" / "a.bin.part"
        self.note = folder / "below" / "a.bin.part.json"
        self.server = server
        self.told = []
        self.waits = []

    def fetch(self, asset=ASSET, **place):
        where = Place(f"{self.server.address}/a.bin", **place)
        fetch(where, Part(self.path, asset), lambda *there: self.told.append(there), PATIENCE)

    def leave(self, content, asset=ASSET, etag='"first"'):
        """What a download that was interrupted leaves."""
        part = Part(self.path, asset)
        with part.opened(etag, anew=True):
            part.write(content)

    def is_whole(self):
        return self.path.read_bytes() == CONTENT and not self.part.exists() and not self.note.exists()


@pytest.fixture
def target(tmp_path, server, monkeypatch):
    server.files["/a.bin"] = CONTENT
    found = Target(tmp_path, server)
    monkeypatch.setattr(transfer.time, "sleep", found.waits.append)
    return found


@pytest.mark.parametrize("asset", [ASSET, UNSIZED, BLOB], ids=["size known", "size from the server", "git's digest"])
def test_a_file_arrives_whole(target, asset):
    target.fetch(asset)
    assert target.is_whole()
    assert target.told[-1] == (SIZE, SIZE)
    assert target.server.asked[0][1]["accept-encoding"] == "identity"


def test_a_connection_that_is_cut_is_gone_on_with(target):
    target.server.faults += [Fault(cut=30_000), Fault(cut=1), Fault(cut=50_000)]
    target.fetch()
    assert target.is_whole()
    assert target.server.ranges == [None, "bytes=30000-", "bytes=30001-", "bytes=80001-"]


@pytest.mark.parametrize("asset", [ASSET, BLOB])
def test_the_next_command_goes_on_where_one_was_interrupted(target, asset):
    def interrupt(there, _total):
        if there == 30_000:
            raise KeyboardInterrupt

    target.server.faults.append(Fault(cut=30_000))
    with pytest.raises(KeyboardInterrupt):
        fetch(Place(f"{target.server.address}/a.bin"), Part(target.path, asset), interrupt, PATIENCE)
    assert not target.path.exists()
    target.fetch(asset)
    assert target.is_whole()
    assert target.server.ranges == [None, "bytes=30000-"]


CHILD = """
import pathlib, sys
from sdxl_engine.assets.manifest import Asset
from sdxl_engine.assets.part import Part
from sdxl_engine.assets.sources import Place
from sdxl_engine.assets.transfer import fetch
url, target, digest, size = sys.argv[1:]
asset = Asset("a.bin", pathlib.Path("a.bin"), digest, size=int(size))
fetch(Place(url), Part(pathlib.Path(target), asset), lambda there, total: print(there, flush=True))
"""


def test_a_download_that_is_killed_is_gone_on_with(target):
    target.server.faults.append(Fault(stall=30_000))
    arguments = [f"{target.server.address}/a.bin", str(target.path), ASSET.digest, str(SIZE)]
    with subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True) as child:
        assert any(line == "30000\n" for line in child.stdout)
        child.kill()
    assert not target.path.exists()
    target.fetch()
    assert target.is_whole()
    assert target.server.ranges == [None, "bytes=30000-"]


def test_a_part_that_is_whole_needs_no_request(target):
    target.leave(CONTENT)
    target.fetch()
    assert target.is_whole()
    assert target.server.asked == []


@pytest.mark.parametrize("retry_after", ["7", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", None])
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_is_asked_again_when_it_says(target, status, retry_after):
    target.server.faults.append(Fault(status, {"Retry-After": retry_after} if retry_after else {}))
    target.fetch()
    assert target.is_whole()
    assert target.waits == [7.0 if retry_after == "7" else 0.0]


def test_waits_grow_and_end(target):
    target.server.faults += [Fault(503)] * 9
    with pytest.raises(AssetError, match="the download failed") as caught:
        fetch(
            Place(f"{target.server.address}/a.bin"), Part(target.path, ASSET), lambda *_: None, Patience(4, 2.0, 300.0)
        )
    assert target.waits == [2.0, 4.0, 8.0]
    assert caught.value.parts["got"].startswith("HTTP 503")
    assert "goes on where it stopped" in caught.value.parts["fix"]
    assert not target.path.exists()


def test_a_wait_of_hours_is_left_to_the_user(target):
    target.server.faults.append(Fault(429, {"Retry-After": "7200"}))
    with pytest.raises(AssetError) as caught:
        target.fetch()
    assert caught.value.parts["fix"] == "repeat the command in 7200 s"
    assert target.waits == []


def test_a_server_that_cuts_at_the_same_place_for_ever_is_given_up(target):
    target.server.faults += [Fault(cut=30_000, ignore_range=True)] * 9
    with pytest.raises(AssetError, match="the download failed"):
        target.fetch()
    assert len(target.server.asked) == PATIENCE.failures
    assert not target.path.exists()


def test_a_range_that_the_server_ignores_begins_anew(target):
    target.leave(CONTENT[:30_000])
    target.server.faults.append(Fault(ignore_range=True))
    target.fetch()
    assert target.is_whole()
    assert target.server.ranges == ["bytes=30000-"]


@pytest.mark.parametrize("fault", [Fault(416), Fault(shift=5)], ids=["416", "another range than asked for"])
def test_a_range_that_the_server_does_not_give_begins_anew(target, fault):
    target.leave(CONTENT[:30_000])
    target.server.faults.append(fault)
    target.fetch()
    assert target.is_whole()
    assert target.server.ranges == ["bytes=30000-", None]


def test_a_part_longer_than_the_file_is_thrown_away(target):
    target.leave(CONTENT + b"x")
    target.fetch()
    assert target.is_whole()
    assert target.server.ranges == [None]


def test_a_file_that_changed_at_its_source_begins_anew(target):
    target.leave(b"x" * 30_000, etag='"before"')
    target.fetch()
    assert target.is_whole()
    assert target.server.asked[0][1]["if-range"] == '"before"'
    assert len(target.server.asked) == 1


def test_wrong_bytes_of_an_earlier_download_cost_one_more_and_no_wrong_file(target):
    target.leave(b"x" * 30_000)
    target.fetch()
    assert target.is_whole()
    assert target.server.ranges == ["bytes=30000-", None]


@pytest.mark.parametrize("note", ["", '{"digest": "sha256:0", "etag": ""}', "[]", '{"etag": 1}'])
def test_a_part_of_nobody_knows_what_is_not_gone_on_with(target, note):
    target.leave(CONTENT[:30_000])
    target.note.write_text(note, encoding="utf-8")
    target.fetch()
    assert target.is_whole()
    assert target.server.ranges == [None]


@pytest.mark.parametrize(
    ("asset", "fault", "got"),
    [
        (ASSET, Fault(flip=77), "sha256 "),
        (BLOB, Fault(flip=77), "blob "),
        (UNSIZED, Fault(no_length=True, cut=30_000), "sha256 "),
        (ASSET, Fault(no_length=True, more=b"x"), f"more than {SIZE} bytes"),
        (ASSET, Fault(more=b"x"), f"{SIZE + 1} bytes"),
        (UNSIZED, Fault(more=b"x"), "sha256 "),
    ],
    ids=["wrong byte", "wrong byte, git", "ends early unseen", "too long unseen", "other size", "too long"],
)
def test_nothing_wrong_is_taken_for_whole(target, asset, fault, got):
    target.server.faults.append(fault)
    with pytest.raises(AssetError, match="nothing of it is kept") as caught:
        target.fetch(asset)
    assert caught.value.parts["got"].startswith(got)
    assert asset.digest in caught.value.parts["expected"]
    assert not target.path.exists()
    assert not target.part.exists()


def test_an_end_that_only_the_size_shows_is_gone_on_with(target):
    target.server.faults.append(Fault(no_length=True, cut=30_000))
    target.fetch()
    assert target.is_whole()
    assert target.server.ranges == [None, "bytes=30000-"]


def test_what_is_not_there_is_not_asked_for_again(target):
    target.server.files.clear()
    with pytest.raises(MissingAtSourceError, match="does not have this file") as caught:
        target.fetch()
    assert caught.value.parts["got"] == "HTTP 404 Not Found"
    assert len(target.server.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 416])
def test_a_refusal_is_final(target, status):
    target.server.faults.append(Fault(status))
    with pytest.raises(AssetError, match="the source refused") as caught:
        target.fetch()
    assert caught.value.parts["got"].startswith(f"HTTP {status}")
    assert ("HF_TOKEN" in caught.value.parts.get("fix", "")) == (status != 416)


def test_a_server_that_is_not_there_is_an_error(target):
    target.server.address = "http://127.0.0.1:1"
    with pytest.raises(AssetError, match="the download failed"):
        target.fetch()
    assert len(target.waits) == PATIENCE.failures - 1


def test_an_address_that_is_none_is_not_asked_for_again(target):
    target.server.address = "http://"
    with pytest.raises(AssetError, match="the download failed"):
        target.fetch()
    assert target.waits == []


def test_a_redirect_is_followed_only_where_it_may_be(target):
    target.server.files["/b.bin"] = CONTENT
    away = Fault(302, {"Location": "/b.bin"})
    target.server.faults.append(away)
    with pytest.raises(AssetError, match="the source refused") as caught:
        target.fetch(redirects=False)
    assert "CF_ACCESS_TOKEN" in caught.value.parts["fix"]
    target.server.faults.append(away)
    target.fetch()
    assert target.is_whole()


def test_a_full_disk_is_one_error_and_the_rest_comes_later(target):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(AssetError, match=r"cannot write a\.bin") as caught:
            target.fetch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in caught.value.parts["got"]
    assert not target.path.exists()
    target.fetch()
    assert target.is_whole()
    assert target.server.ranges == [None, "bytes=30000-"]


def test_a_folder_that_cannot_be_made_is_an_error(target, tmp_path):
    (tmp_path / "below").write_text("a file")
    with pytest.raises(AssetError, match=r"cannot write a\.bin"):
        target.fetch()
