"""Options: each value from where it was set, in order, read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_sdxl.checks import check_values
from pytest_sdxl.options import OPTIONS, RESOLVED, resolve
from sdxl_engine.errors import UsageError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in OPTIONS:
        monkeypatch.delenv(option.env, raising=False)


@pytest.fixture
def parse(pytester: pytest.Pytester, request: pytest.FixtureRequest):
    """Resolve the options of a command line, in a folder of its own."""
    loaded = request.config.pluginmanager
    plugin = next(name for name, module in loaded.list_name_plugin() if module is not None and _is_ours(module))

    def parse(*args: str):
        own = [] if plugin == "sdxl" else ["-p", plugin]
        return resolve(pytester.parseconfig(*own, *args))

    return parse


def _is_ours(module: object) -> bool:
    return getattr(module, "__name__", "") == "pytest_sdxl.plugin"


def test_defaults_are_the_headline_variant_on_the_default_model(parse):
    resolved = parse()
    (run,) = resolved.runs
    assert (run.model_opt, run.model, run.engine, run.samples) == ("DeepCache", "auto", "auto", None)
    assert not resolved.sources
    assert not resolved.on_command_line


def test_command_line_beats_environment_beats_ini_beats_default(parse, pytester, monkeypatch):
    assert parse().runs[0].engine == "auto"
    pytester.makeini("[pytest]\nsdxl_engine = from-ini\n")
    resolved = parse()
    assert resolved.runs[0].engine == "from-ini"
    assert resolved.sources["engine"].startswith("sdxl_engine in ")
    monkeypatch.setenv("SDXL_ENGINE", "from-env")
    resolved = parse()
    assert resolved.runs[0].engine == "from-env"
    assert resolved.sources["engine"] == "environment variable SDXL_ENGINE"
    assert not resolved.on_command_line
    resolved = parse("--sdxl-engine=from-cli")
    assert resolved.runs[0].engine == "from-cli"
    assert resolved.sources["engine"] == "--sdxl-engine"
    assert resolved.on_command_line


def test_empty_values_count_as_not_set_but_on_the_command_line(parse, pytester, monkeypatch):
    monkeypatch.setenv("SDXL_MODEL_OPT", "")
    pytester.makeini("[pytest]\nsdxl_model =\n")
    resolved = parse()
    assert (resolved.runs[0].model_opt, resolved.runs[0].model) == ("DeepCache", "auto")
    assert not resolved.sources
    monkeypatch.setenv("SDXL_MODEL", "random")
    with pytest.raises(UsageError, match="an option has no value"):
        parse("--sdxl-model=")


def test_a_zero_on_the_command_line_is_not_taken_for_absent(parse, monkeypatch):
    monkeypatch.setenv("SDXL_SAMPLES", "64")
    assert parse("--sdxl-samples=0").runs[0].samples == 0


def test_variants_come_repeated_or_with_commas_once_each_in_order(parse):
    runs = parse("--model-opt=NoOpt,DeepCache", "--model-opt", "DeepCachePruned, NoOpt").runs
    assert [run.model_opt for run in runs] == ["NoOpt", "DeepCache", "DeepCachePruned"]


def test_every_option_can_be_set_in_every_place(parse, pytester, monkeypatch):
    typed = {"samples": "64", "timeout_s": "64", "batch_size": "64", "shallow_steps": "6"}
    values = {option.field: typed.get(option.field, f"value-{option.field}") for option in OPTIONS}
    expected = set(values)
    assert set(parse(*(f"{option.flag}={values[option.field]}" for option in OPTIONS)).sources) == expected
    pytester.makeini("[pytest]\n" + "".join(f"{option.ini} = {values[option.field]}\n" for option in OPTIONS))
    assert set(parse().sources) == expected
    pytester.makeini("[pytest]\n")
    for option in OPTIONS:
        monkeypatch.setenv(option.env, values[option.field])
    assert set(parse().sources) == expected


def test_toml_has_whole_numbers(parse, pytester):
    pytester.maketoml("[pytest]\nsdxl_samples = 64\nsdxl_model_opt = 'NoOpt,DeepCache'\n")
    resolved = parse()
    assert [run.samples for run in resolved.runs] == [64, 64]


def test_relative_paths_start_where_they_were_written(parse, pytester):
    here = pytester.path
    pytester.mkdir("checkpoint")
    resolved = parse(
        "--sdxl-captions=c.tsv", "--sdxl-model=checkpoint", "--sdxl-ranges=r.json", "--sdxl-json=out/r.json"
    )
    assert resolved.runs[0].captions == here / "c.tsv"
    assert resolved.runs[0].model == str(here / "checkpoint")
    assert resolved.runs[0].ranges == here / "r.json"
    assert resolved.json == here / "out/r.json"
    assert parse("--sdxl-model=./none").runs[0].model == str(here / "none")


def test_a_model_word_is_never_a_folder(parse, pytester):
    pytester.mkdir("shapes")
    assert parse("--sdxl-model=shapes").runs[0].model == "shapes"


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (
            ["--model-opt=DeepCashe"],
            ["unknown model opt 'DeepCashe'", "from:     --model-opt", "mean 'DeepCache'?"],
        ),
        (["--sdxl-scenario=Offlin"], ["unknown scenario", "--sdxl-scenario", "did you mean 'Offline'?"]),
        (["--sdxl-test-mode=Accuracy"], ["unknown test mode", "PerformanceOnly", "--sdxl-test-mode"]),
        (["--sdxl-samples=0"], ["at least one sample", "got:      0", "--sdxl-samples"]),
        (["--sdxl-samples=many"], ["not a whole number", "'many'", "--sdxl-samples"]),
        (["--sdxl-pipeline=mine"], ["not an import path", "module:callable", "--sdxl-pipeline"]),
        (["--sdxl-captions=no.tsv"], ["captions file is missing", "no.tsv", "--sdxl-captions"]),
        (["--sdxl-gate=offical"], ["unknown gate 'offical'", "--sdxl-gate", "did you mean 'official'?"]),
        (["--sdxl-gate=custom"], ["takes its ranges from one place", "got:      none", "from:     --sdxl-gate"]),
        (["--sdxl-clip-range=32,31"], ["not two limits", "'32,31'", "from:     --sdxl-clip-range"]),
        (["--sdxl-fid-range=24"], ["not two limits", "'24'", "from:     --sdxl-fid-range"]),
        (["--sdxl-ranges=no.json"], ["file of ranges is missing", "no.json", "--sdxl-ranges"]),
        (
            ["--sdxl-gate=official", "--sdxl-fid-range=,24"],
            ["do not go with another gate", "gate official and fid_range", "--sdxl-gate, --sdxl-fid-range"],
        ),
        (
            ["--sdxl-ranges=no.json", "--sdxl-clip-range=31,"],
            ["takes its ranges from one place", "clip_range, ranges", "--sdxl-clip-range, --sdxl-ranges"],
        ),
        (
            ["--sdxl-metrics-device=cuda:x"],
            ["unknown metrics device 'cuda:x'", "auto, cpu, cuda, cuda:<number>", "from:     --sdxl-metrics-device"],
        ),
        (["--sdxl-metrics-device=cuda:0,cuda:1"], ["unknown metrics device 'cuda:0,cuda:1'"]),
        (["--sdxl-device=cuda:0,auto"], ["unknown device 'cuda:0,auto'", "several, as in cuda:0,cuda:1"]),
        (["--sdxl-device=cuda:1,cuda:1"], ["unknown device 'cuda:1,cuda:1'", "from:     --sdxl-device"]),
        (["--sdxl-json=."], ["cannot be written", "the path of a file", "--sdxl-json"]),
        (["--model-opt=,"], ["no variant is named", "--model-opt"]),
    ],
)
def test_a_bad_value_says_what_where_and_what_to_do(parse, args, parts):
    with pytest.raises(UsageError) as caught:
        check_values(parse(*args))
    assert [part for part in parts if part not in str(caught.value)] == []


def test_json_below_a_file_is_refused(parse, pytester):
    Path(pytester.path, "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        check_values(parse("--sdxl-json=file/r.json"))


def test_options_of_this_session_are_resolved(request):
    assert request.config.stash[RESOLVED].runs
