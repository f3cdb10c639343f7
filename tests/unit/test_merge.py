"""Records of shards and the settings that they are merged with."""

import contextlib

import numpy as np
import pytest

from sdxl_engine.accuracy.records import Block
from sdxl_engine.errors import AccuracyError, UsageError
from sdxl_engine.models.source import model_of
from sdxl_engine.run_header import run_facts
from sdxl_engine.scoring import begin_record, merge
from sdxl_engine.settings import RunSettings


def test_a_run_with_steps_of_its_own_is_merged_as_nothing_else(tmp_path):
    """Its scores would be judged as the variant's."""
    other = RunSettings(model="shapes", model_opt="DeepCache", shallow_steps=2, engine="torch", build_dir=tmp_path)
    own = RunSettings(model="shapes", model_opt="DeepCache", engine="torch", build_dir=tmp_path)
    model = model_of(own)
    for settings in (own, other):
        header = {"run": run_facts(settings, model), "metric": {"variant": "shapes"}}
        folder = tmp_path / str(settings.shallow_steps)
        with contextlib.closing(begin_record(header, folder)) as writer:
            writer.append(Block((0,), ("0",), np.ones(1), np.ones((1, 64), np.float32)))
    for folder, wrong, right in (("2", own, other), ("None", other, own)):
        with pytest.raises(UsageError, match="of another run than this") as caught:
            merge([tmp_path / folder], wrong, model)
        assert "deep_steps: " in caught.value.parts["got"]
        assert "0,3,6,9,12,15,18" in caught.value.parts["got"]
        with pytest.raises(AccuracyError):  # these settings fit, and 511 images are missing
            merge([tmp_path / folder], right, model)
