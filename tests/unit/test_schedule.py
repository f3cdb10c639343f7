import json

import numpy as np
import pytest
from diffusers import EulerDiscreteScheduler

from sdxl_engine.errors import AssetError
from sdxl_engine.schedule import euler_schedule, read_schedule
from sdxl_engine.shapes.bundle import BUNDLE


@pytest.mark.parametrize("steps", [1, 7, 20, 50])
def test_agrees_with_diffusers_to_float32_rounding(steps):
    theirs = EulerDiscreteScheduler.from_pretrained(BUNDLE / "scheduler")
    theirs.set_timesteps(steps)
    ours = euler_schedule(steps)
    np.testing.assert_array_equal(ours.timesteps, theirs.timesteps.numpy())
    np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=3e-7)
    assert ours.init_noise_sigma == pytest.approx(float(theirs.init_noise_sigma), rel=3e-7)


def test_has_the_benchmarks_figures():
    schedule = euler_schedule(20)
    assert schedule.timesteps[0] == 951
    assert round(schedule.init_noise_sigma, 4) == 11.0736
    assert round(float(schedule.sigmas[0]), 4) == 11.0283
    assert schedule.sigmas[-1] == 0


def test_another_sampler_is_refused(tmp_path):
    folder = tmp_path / "scheduler"
    folder.mkdir()
    config = json.loads((BUNDLE / "scheduler" / "scheduler_config.json").read_text())
    (folder / "scheduler_config.json").write_text(json.dumps(config | {"timestep_spacing": "linspace"}))
    with pytest.raises(AssetError, match="not the benchmark's") as caught:
        read_schedule(tmp_path, 20)
    assert "linspace" in str(caught.value)
