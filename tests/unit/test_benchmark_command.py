import pytest

from sdxl_engine import benchmark_command
from sdxl_engine.benchmark_command import main, translate
from sdxl_engine.errors import UsageError

SDXL = "--benchmarks=stable-diffusion-xl"
TENSORRT = ["--engine", "tensorrt"]


@pytest.mark.parametrize(
    ("run_args", "arguments"),
    [
        ("--scenarios=Offline --model_opt=DeepCache", ["--scenario", "Offline", "--model-opt", "DeepCache", *TENSORRT]),
        ("--gpu_batch_size=8 --precision=fp16", ["--batch-size", "8", "--precision", "fp16", *TENSORRT]),
        ("--gpu_batch_size={'clip1':64,'deep-unet':8}", ["--batch-size", "clip1=64,deep-unet=8", *TENSORRT]),
        ("--workspace_size=85899345920 --devices 1", ["--workspace", "80.0", "--device", "cuda:1", *TENSORRT]),
        ("--devices=all --force_build_engines", ["--device", "auto", "--force", *TENSORRT]),
        ("--config_ver=default --harness_type=custom --power_setting=MaxP --accuracy_target=0.99", TENSORRT),
        ("--engine=onnxruntime --model shapes", ["--engine", "onnxruntime", "--model", "shapes"]),
        ("--build-dir=b --compute-capability=8.9", ["--build-dir", "b", "--compute-capability", "8.9", *TENSORRT]),
    ],
)
def test_the_benchmarks_arguments_become_this_projects(run_args, arguments):
    assert translate("generate_engines", [SDXL, *run_args.split()]) == ["generate-engines", *arguments]


def test_the_benchmarks_data_command_has_no_engine():
    assert translate("preprocess_data", [SDXL]) == ["preprocess-data"]
    given = ["--model", "m", "--captions=c.tsv", "--latents=l.npy", "--output=o"]
    wanted = ["--model", "m", "--captions", "c.tsv", "--latents", "l.npy", "--output", "o"]
    assert translate("preprocess_data", [SDXL, *given]) == ["preprocess-data", *wanted]
    assert main(["preprocess_data", SDXL, "--gpu_batch_size=8"]) == 4


@pytest.mark.parametrize(
    ("run_args", "says"),
    [
        ([], "name no benchmark"),
        (["--benchmarks=bert"], "unknown benchmarks 'bert'"),
        ([SDXL, "--model_opts=DeepCache"], "did you mean 'model_opt'?"),
        ([SDXL, "--power_setting=MaxQ"], "unknown power setting 'MaxQ'"),
        ([SDXL, "--precision"], "needs a value"),
        ([SDXL, "--workspace_size=80G"], "not a whole number"),
        ([SDXL, "--gpu_batch_size={8"], "not a batch size"),
        ([SDXL, "--force_build_engines=no"], "takes no value"),
        ([SDXL, "DeepCache"], "not an argument"),
    ],
)
def test_what_is_not_known_is_refused(run_args, says):
    with pytest.raises(UsageError) as caught:
        translate("generate_engines", run_args)
    assert says in str(caught.value)


def test_wrong_usage_ends_with_status_4_and_builds_nothing(capsys, monkeypatch):
    monkeypatch.setattr(benchmark_command, "run_command", lambda _: pytest.fail("it ran"))
    assert main(["generate_engines", "--benchmark=sdxl"]) == 4
    assert main(["run_harness"]) == 4
    assert main([]) == 4
    assert "did you mean 'benchmarks'?" in capsys.readouterr().err


def test_the_status_is_the_commands(monkeypatch):
    monkeypatch.setattr(benchmark_command, "run_command", lambda arguments: 1 if arguments[-1] == "tensorrt" else 0)
    assert main(["generate_engines", SDXL]) == 1


def test_downloads_take_the_benchmark_and_their_own_options():
    assert translate("download_model", [SDXL]) == ["download-model"]
    run_args = [SDXL, "--source=mlcommons", "--precision", "fp32", "--dry-run"]
    expected = ["download-model", "--source", "mlcommons", "--precision", "fp32", "--dry-run"]
    assert translate("download_model", run_args) == expected
    assert translate("download_data", [SDXL, "--only=metrics", "--offline"]) == [
        "download-data",
        "--only",
        "metrics",
        "--offline",
    ]


@pytest.mark.parametrize(
    ("action", "run_args", "says"),
    [
        ("download_model", [], "BENCHMARKS=stable-diffusion-xl"),
        ("download_model", ["--benchmarks=bert"], "unknown benchmarks 'bert'"),
        ("download_data", ["--benchmarks=stable-diffusion-xl bert"], "unknown benchmarks 'stable-diffusion-xl bert'"),
        ("download_data", [SDXL, "--precision=fp16"], "unknown argument 'precision'"),
        ("download_model", [SDXL, "--model_opt=DeepCache"], "unknown argument 'model_opt'"),
        ("download_model", [SDXL, "--source"], "needs a value"),
        ("download_model", [SDXL, "--offline=no"], "takes no value"),
    ],
)
def test_downloads_refuse_what_is_not_theirs(action, run_args, says):
    with pytest.raises(UsageError) as caught:
        translate(action, run_args)
    assert says in str(caught.value)
