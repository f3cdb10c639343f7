"""What is refused before LoadGen is started, and what is said of a run that broke off."""

import numpy as np
import pytest

from sdxl_engine import measure
from sdxl_engine.accuracy.records import RECORD, Block, RecordWriter
from sdxl_engine.errors import AccuracyError, UnavailableError
from sdxl_engine.settings import RunSettings


def test_official_accuracy_without_its_networks_is_refused_before_the_run(tmp_path, monkeypatch):
    """Half an hour of images that nothing can score would be a bad way to learn of a missing file."""
    started = []
    monkeypatch.setattr(measure, "run_loadgen", lambda *_arguments: started.append("run"))
    (tmp_path / "model_index.json").write_text("{}")
    settings = RunSettings(model=str(tmp_path), build_dir=tmp_path / "build")
    with pytest.raises(UnavailableError, match="benchmark's own metric networks") as caught:
        measure.measure(settings, "AccuracyOnly")
    assert started == []
    build = tmp_path / "build"
    assert caught.value.parts["fix"] == f"sdxl-engine download-data --only metrics --build-dir '{build}'"


def test_a_run_whose_scorer_died_says_how_to_go_on(tmp_path, monkeypatch):
    def run(spec, _progress):
        spec.log_dir.mkdir(parents=True)
        writer = RecordWriter(spec.log_dir / RECORD, {})
        writer.append(Block((1, 2), ("0", "1"), np.zeros(2), np.zeros((2, 4), np.float32)))
        writer.close()
        raise AccuracyError("the scorer's process ended")

    monkeypatch.setattr(measure, "run_loadgen", run)
    with pytest.raises(AccuracyError) as caught:
        measure.measure(RunSettings(model="shapes", engine="torch", build_dir=tmp_path), "AccuracyOnly")
    (record,) = tmp_path.rglob(RECORD)
    assert caught.value.parts["resume"].startswith(f"2 images are scored: --sdxl-resume={record.parent}, ")
