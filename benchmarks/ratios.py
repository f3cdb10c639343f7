"""Speed ratios on the embedded model, in one process: `make ratios`.

Configurations take turns, round after round, and each keeps its fastest round, so that a slow spell of the machine
hits all of them alike. Prints a table; ends with status 1 if a ratio is below its bound.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from sdxl_engine.assemble import open_pipeline
from sdxl_engine.environment import environment
from sdxl_engine.run_system import BATCH_SIZE
from sdxl_engine.settings import RunSettings

ROUNDS = 6
CONFIGURATIONS = (
    ("torch", "NoOpt"),
    ("torch", "DeepCache"),
    ("onnxruntime", "NoOpt"),
    ("onnxruntime", "DeepCache"),
    ("onnxruntime", "DeepCachePruned"),
)
BOUNDS = (
    ("onnxruntime over torch, NoOpt", ("onnxruntime", "NoOpt"), ("torch", "NoOpt"), 1.0),
    ("onnxruntime over torch, DeepCache", ("onnxruntime", "DeepCache"), ("torch", "DeepCache"), 1.0),
    ("DeepCache over NoOpt, onnxruntime", ("onnxruntime", "DeepCache"), ("onnxruntime", "NoOpt"), 1.4),
    ("DeepCachePruned over DeepCache", ("onnxruntime", "DeepCachePruned"), ("onnxruntime", "DeepCache"), 1.0),
)


def main() -> int:
    """Time, print, judge."""
    pipelines = {}
    for engine, model_opt in CONFIGURATIONS:
        settings = RunSettings(
            model="shapes", model_opt=model_opt, engine=engine, samples=BATCH_SIZE, build_dir=Path("build")
        )
        pipelines[engine, model_opt] = open_pipeline(settings)
        pipelines[engine, model_opt].warm_up()
    best = dict.fromkeys(pipelines, float("inf"))
    rows = np.arange(BATCH_SIZE)
    for _ in range(ROUNDS):
        for key, pipeline in pipelines.items():
            began = time.perf_counter()
            pipeline.generate(rows)
            best[key] = min(best[key], time.perf_counter() - began)
    about = environment()
    print(f"{about['processor']}, {about['cores']} cores, load {os.getloadavg()[0]:.2f}, torch {about['torch']}")
    for (engine, model_opt), seconds in best.items():
        print(f"{engine:12} {model_opt:15} {BATCH_SIZE / seconds:6.2f} samples/s")
    failed = False
    for name, fast, slow, bound in BOUNDS:
        ratio = best[slow] / best[fast]
        failed |= ratio < bound
        print(f"{name:36} {ratio:5.2f} (at least {bound}): {'ok' if ratio >= bound else 'TOO SLOW'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
