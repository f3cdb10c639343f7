"""Which network runs at which step, on an engine that computes nothing."""

import numpy as np
import pytest
import torch

from sdxl_engine import assemble
from sdxl_engine.engines.base import Capabilities
from sdxl_engine.models.prompts import STEPS
from sdxl_engine.settings import RunSettings


class Still:
    """An engine whose networks leave the buffers as they are, and tell that they ran and at which timestep."""

    name, device, capabilities = "still", torch.device("cpu"), Capabilities(precision="fp32")

    def __init__(self, spec):
        self.spec, self.networks, self.ran = spec, spec.networks, []

    def bind(self, network, buffers):
        return lambda: self.ran.append((network, float(buffers["timestep"]) if "timestep" in buffers else None))

    def close(self):
        pass


@pytest.mark.parametrize(
    ("asked", "deep"),
    [
        ({"deep_steps": "0-2,7,19"}, {0, 1, 2, 7, 19}),
        ({"shallow_steps": 4}, {0, 5, 10, 15}),
        ({"shallow_steps": 0}, set(range(20))),
        ({}, set(range(0, 20, 2))),
    ],
)
def test_the_deep_network_runs_at_the_steps_asked_for_and_no_others(spec, tmp_path, monkeypatch, asked, deep):
    engine = Still(spec)
    monkeypatch.setattr(assemble, "open_engine", lambda *_arguments: engine)
    settings = RunSettings(model="shapes", model_opt="DeepCache", samples=1, build_dir=tmp_path, **asked)
    pipeline = assemble.open_pipeline(settings)
    pipeline.generate(np.arange(1))
    loop = [(network, timestep) for network, timestep in engine.ran if timestep is not None]
    assert [network for network, _ in loop] == ["unet" if step in deep else "shallow_unet" for step in range(STEPS)]
    assert [timestep for _, timestep in loop] == pipeline.schedule.timesteps.tolist()
