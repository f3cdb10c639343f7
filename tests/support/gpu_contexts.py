"""An image source that tells, when it is closed, on which GPUs its process has a CUDA context."""

import json
import os
from pathlib import Path

import torch

from sdxl_engine.assemble import image_source

FOLDER = "SDXL_TEST_GPU_CONTEXTS"
"""Environment variable: where each process leaves a file, named by its id: a JSON list with the numbers of the GPUs."""


def source(settings):
    """As `image_source`, for one device."""
    made = image_source(settings)
    close = made.close

    def tell_and_close():
        # NVML would have to see this process, which it does not from within every container; CUDA itself is asked.
        mine = [number for number in range(torch.cuda.device_count()) if torch._C._cuda_hasPrimaryContext(number)]
        Path(os.environ[FOLDER], str(os.getpid())).write_text(json.dumps(mine), encoding="utf-8")
        close()

    made.close = tell_and_close
    return made
