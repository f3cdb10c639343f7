"""What is refused before LoadGen is started."""

import pytest

from sdxl_engine import measure
from sdxl_engine.errors import UnavailableError
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
    assert caught.value.parts["fix"].startswith(f"mkdir -p '{tmp_path / 'build' / 'models' / 'metrics'}' && curl ")
