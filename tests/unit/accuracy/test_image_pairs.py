import hashlib
import math

import numpy as np
import pytest
from PIL import Image
from scored_runs import picture, write_run

from sdxl_engine.accuracy import lpips
from sdxl_engine.accuracy.image_pairs import measure_distances, nearer, psnr
from sdxl_engine.accuracy.image_report import report_images
from sdxl_engine.accuracy.lpips import load_lpips
from sdxl_engine.errors import AssetError, UnavailableError


def write(folder, images):
    folder.mkdir()
    for key, image in images.items():
        Image.fromarray(image).save(folder / f"{key}.png")
    return folder


def test_psnr_is_its_formula():
    generator = np.random.default_rng(4)
    first, second = generator.integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    total = sum((int(a) - int(b)) ** 2 for a, b in zip(first.ravel(), second.ravel(), strict=True))
    assert psnr(first, second) == pytest.approx(20 * math.log10(255) - 10 * math.log10(total / first.size))
    assert psnr(picture(0), picture(255)) == 0.0
    assert psnr(first, first.copy()) == math.inf


def test_distances_of_two_folders(tmp_path):
    ids = list(range(30, 49))
    one = write(tmp_path / "one", {key: picture(100) for key in ids})
    two = write(tmp_path / "two", {key: picture(100 + key - 30) for key in ids})
    found = measure_distances(one, two, ids, lambda a, b: float(b[0, 0, 0]) - float(a[0, 0, 0]))
    assert found.psnr == {
        key: pytest.approx(20 * math.log10(255 / (key - 30))) if key > 30 else math.inf for key in ids
    }
    assert found.lpips == {key: key - 30.0 for key in ids}


@pytest.mark.parametrize("fault", ["missing", "larger", "oblong", "no picture"])
def test_a_picture_that_cannot_be_compared_is_named(tmp_path, fault):
    one, two = (write(tmp_path / name, {1: picture(1), 2: picture(2)}) for name in ("one", "two"))
    path = one / "1.png" if fault == "oblong" else two / "2.png"
    path.unlink()
    if fault == "no picture":
        path.write_text("x")
    elif fault != "missing":
        Image.fromarray(np.zeros((32, 32 if fault == "larger" else 16, 3), np.uint8)).save(path)
    with pytest.raises(AssetError) as caught:
        measure_distances(one, two, [1, 2])
    assert caught.value.parts["from"] == str(path)


def test_equal_infinities_are_a_tie():
    test = nearer({1: math.inf, 2: math.inf, 3: 20.0, 4: 31.0}, {1: math.inf, 2: 30.0, 3: 30.0, 4: 30.0})
    assert (test.lower, test.higher, test.equal) == (1, 2, 1)


@pytest.fixture
def runs(tmp_path):
    """A run, a baseline, and a reference that the baseline is nearer to for nine captions of ten."""
    clip = dict.fromkeys(range(10), 99.0)
    levels = {"run": (110, 101), "baseline": (102, 102), "reference": (100, 100), "bare": None}
    folders = {}
    for name, level in levels.items():
        images = {key: picture(level[key == 9]) for key in clip} if level else None
        folders[name] = write_run(tmp_path / name, clip, images)
    return folders


def test_psnr_of_a_run_to_its_baseline(runs):
    report = report_images(runs["run"], runs["baseline"], range(12))
    assert report.lines == (
        "PSNR of the 10 kept images that differ from the baseline's: median 30.07 dB, worst 30.07 dB",
    )
    assert report.distances["run to baseline"].psnr[9] == pytest.approx(20 * math.log10(255))


def test_images_that_are_equal_do_not_hide_the_others(runs, tmp_path):
    images = {key: picture(103 if key < 3 else 102) for key in range(10)}
    run = write_run(tmp_path / "nearly", dict.fromkeys(images, 99.0), images)
    (line,) = report_images(run, runs["baseline"], range(10)).lines
    assert line == "PSNR of the 3 kept images that differ from the baseline's: median 48.13 dB, worst 48.13 dB"
    assert report_images(run, run, range(10)).lines == ("PSNR: all 10 kept images equal the baseline's",)


def test_a_reference_gives_psnr_a_direction(runs):
    report = report_images(runs["run"], runs["baseline"], range(10), runs["reference"])
    (line,) = report.lines
    subject, split = line.split("; ")
    assert subject == "PSNR of 10 kept images to the reference's: median 28.13 dB, baseline 42.11 dB"
    assert split == "nearer in 1, further in 9, sign test p = 0.021"


def test_without_saved_images_there_is_nothing_to_say(runs):
    assert report_images(runs["run"], runs["bare"], range(10)).lines == ()
    assert report_images(None, runs["baseline"], range(10)).lines == ()


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file where torch keeps AlexNet's weights, taken for the published one."""
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    path = tmp_path / "hub" / "checkpoints" / lpips.WEIGHTS
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    monkeypatch.setattr(lpips, "DIGEST", hashlib.sha256(b"weights").hexdigest()[:8])
    return path


def test_lpips_runs_on_the_weights_that_are_there(weights, monkeypatch):
    import torch
    from torchvision.models import alexnet

    with torch.device("meta"):
        state = alexnet(weights=None).state_dict()
    generator = torch.Generator().manual_seed(1)
    for name, tensor in state.items():
        # LPIPS has no use for the classifier, whose 58 million weights are one number here.
        used = name.startswith("features")
        state[name] = (
            torch.randn(tensor.shape, generator=generator) / 20 if used else torch.zeros(1).expand(tensor.shape)
        )
    torch.save(state, weights)
    monkeypatch.setattr(lpips, "DIGEST", hashlib.sha256(weights.read_bytes()).hexdigest()[:8])
    distance = load_lpips()
    images = np.random.default_rng(6).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    near = images[0].copy()
    near[:8] = 0
    assert distance(images[0], images[0]) == 0
    assert 0 < distance(images[0], near) < distance(images[0], images[1])


def test_lpips_never_downloads_and_says_what_is_missing(weights, runs, monkeypatch):
    weights.unlink()
    with pytest.raises(UnavailableError) as caught:
        load_lpips()
    assert caught.value.parts["got"] == f"no {weights}"
    report = report_images(runs["run"], runs["baseline"], range(10), lpips=True)
    assert report.lines[1] == f"LPIPS: not computed: no {weights} (put {lpips.ADDRESS} there)"
    monkeypatch.setattr(lpips.importlib.util, "find_spec", lambda name: None if name == "torchmetrics" else name)
    with pytest.raises(UnavailableError) as caught:
        load_lpips()
    assert caught.value.parts == {"got": "no module 'torchmetrics'", "fix": "pip install torchmetrics"}


def test_other_weights_are_refused(weights, monkeypatch):
    monkeypatch.setattr(lpips, "DIGEST", "7be5be79")
    with pytest.raises(AssetError, match="damaged"):
        load_lpips()
