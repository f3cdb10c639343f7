"""`--help`, `--markers` and `--fixtures` are documentation: here is what they say."""

from __future__ import annotations

import itertools
import re

from pytest_sdxl.options import OPTIONS

MARKERS = """\
@pytest.mark.accuracy: gates the scores of an accuracy run (CLIP and FID); run them alone with -m accuracy
@pytest.mark.performance: gates the figures of a performance run; run them alone with -m performance
@pytest.mark.conformance: compares an engine with the reference; run them alone with -m conformance
@pytest.mark.gpu: needs an NVIDIA GPU; leave them out with -m 'not gpu'"""

FIXTURES = {
    "sdxl_settings": "The configuration under test, a RunSettings; a test runs once per --model-opt.",
    "sdxl_pipeline": "The pipeline under test in this process: generate(indices) draws; closed at the end.",
    "sdxl_engine": "The engine that runs the five networks of sdxl_pipeline.",
    "sdxl_dataset": "The captions of the configuration under test, in the order of their file.",
    "sdxl_run": 'Runs LoadGen in a child process, "AccuracyOnly" or "PerformanceOnly", giving a measurement.',
}

HELP = """\
MLPerf Stable Diffusion XL benchmark:
  --model-opt=NAME      Variants to measure (NoOpt, DeepCache, DeepCachePruned); may be repeated or take
                        commas, default DeepCache (env SDXL_MODEL_OPT, ini sdxl_model_opt)
  --sdxl-model=MODEL    shapes, random, or a checkpoint's folder, default auto
                        (env SDXL_MODEL, ini sdxl_model)
  --sdxl-engine=NAME    Engine that runs the networks, default auto (env SDXL_ENGINE, ini sdxl_engine)
  --sdxl-precision=NAME Of the networks (auto, fp32, bf16, fp16, fp8, int8), default the engine's own
                        (env SDXL_PRECISION, ini sdxl_precision)
  --sdxl-device=DEVICE  Of the engine (cpu, cuda, cuda:N, several with commas), default auto: a GPU if it can
                        use one (env SDXL_DEVICE, ini sdxl_device)
  --sdxl-graphs=WHEN    CUDA graphs (auto, on, off), default auto: if the engine can be captured
                        (env SDXL_GRAPHS, ini sdxl_graphs)
  --sdxl-shallow-steps=N
                        Shallow steps after each deep one, default the variant's own
                        (env SDXL_SHALLOW_STEPS, ini sdxl_shallow_steps)
  --sdxl-deep-steps=LIST
                        The deep steps themselves (0-3,6,9), in their place
                        (env SDXL_DEEP_STEPS, ini sdxl_deep_steps)
  --sdxl-scenario=NAME  LoadGen scenario (Offline) (env SDXL_SCENARIO, ini sdxl_scenario)
  --sdxl-test-mode=NAME LoadGen tests to run (AccuracyOnly, PerformanceOnly, SubmissionRun)
                        (env SDXL_TEST_MODE, ini sdxl_test_mode)
  --sdxl-batch-size=N   Images per batch, default the machine's configuration's
                        (env SDXL_BATCH_SIZE, ini sdxl_batch_size)
  --sdxl-samples=N      Use the first N captions, default the model's own count
                        (env SDXL_SAMPLES, ini sdxl_samples)
  --sdxl-pipeline=MODULE:CALLABLE Pipeline under test, default the project's own
                        (env SDXL_PIPELINE, ini sdxl_pipeline)
  --sdxl-captions=FILE  Captions (TSV) in place of the model's own (env SDXL_CAPTIONS, ini sdxl_captions)
  --sdxl-timeout-s=SECONDS Kill a run after this long without an answered batch, default 600
                        (env SDXL_TIMEOUT_S, ini sdxl_timeout_s)
  --sdxl-metrics=NAME   Metric variant (auto, torchmetrics), default auto: the model's own
                        (env SDXL_METRICS, ini sdxl_metrics)
  --sdxl-metrics-dir=DIR Metric networks in place of the model's own
                        (env SDXL_METRICS_DIR, ini sdxl_metrics_dir)
  --sdxl-metrics-device=DEVICE Where images are scored (auto, cpu, cuda, cuda:<number>), default auto:
                        a GPU where there is one (env SDXL_METRICS_DEVICE, ini sdxl_metrics_device)
  --sdxl-shard=i/n      Accuracy of only this machine's share of the captions
                        (env SDXL_SHARD, ini sdxl_shard)
  --sdxl-resume=last|DIR Go on with an accuracy run that was killed (env SDXL_RESUME, ini sdxl_resume)
  --sdxl-responses=KIND What LoadGen logs for each image (digests, images), default digests
                        (env SDXL_RESPONSES, ini sdxl_responses)
  --sdxl-save-images=WHICH Images of an accuracy run to keep in its log folder (worst, all, none), default worst
                        (env SDXL_SAVE_IMAGES, ini sdxl_save_images)
  --sdxl-baseline=DIR   Accuracy run to compare with where a gate fails: its log folder
                        (env SDXL_BASELINE, ini sdxl_baseline)
  --sdxl-gate=NAME      What judges the scores (auto, official, published, custom), default auto: by model,
                        variant and the ranges given (env SDXL_GATE, ini sdxl_gate)
  --sdxl-clip-range=LO,HI Gate custom: valid CLIP scores, an end may be left out
                        (env SDXL_CLIP_RANGE, ini sdxl_clip_range)
  --sdxl-fid-range=LO,HI Gate custom: valid FIDs, an end may be left out
                        (env SDXL_FID_RANGE, ini sdxl_fid_range)
  --sdxl-ranges=FILE    Gate custom: ranges from a file (JSON) (env SDXL_RANGES, ini sdxl_ranges)
  --sdxl-json=FILE      Write every result to FILE (env SDXL_JSON, ini sdxl_json)"""


def words(text: str) -> str:
    """`text` with every run of white space as one space: how wide the screen is does not matter."""
    return " ".join(text.split())


def test_markers(project):
    lines = [line for line in project.run("--markers").stdout.lines if re.match("@pytest.mark.(acc|per|con|gpu)", line)]
    assert "\n".join(lines) == MARKERS


def test_fixtures(project):
    shown = project.run("--fixtures").stdout.lines
    found = {}
    for line, text in itertools.pairwise(shown):
        if match := re.match(r"(sdxl_\w+)( \[session scope\])? -- ", line):
            found[match[1]] = text.strip()
    assert found == FIXTURES


def test_help(project):
    text = words(project.run("--help").stdout.str())
    assert words(HELP) in text
    for option in OPTIONS:
        assert f"{option.ini} (" in text
