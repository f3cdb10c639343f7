import sys

import pytest

from sdxl_engine.engines.tensorrt import library
from sdxl_engine.errors import UnavailableError


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Put stand-ins for the two modules on the path, in place of what is installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in (library.TENSORRT, library.TENSORRT_RTX):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def write(name, source):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(source)

    yield write
    for name in (library.TENSORRT, library.TENSORRT_RTX):
        if str(tmp_path) in str(getattr(sys.modules.get(name), "__file__", "")):
            del sys.modules[name]


def test_tensorrt_comes_before_tensorrt_rtx(packages):
    packages("tensorrt", "__version__ = '10.13.0.35'")
    packages("tensorrt_rtx", "__version__ = '1.7.1.116'")
    found = library.load()
    assert (found.name, found.version, found.ahead_of_time) == ("tensorrt", "10.13.0.35", False)


@pytest.mark.parametrize("source", ["__version__ = '8.6.1'", "raise ImportError('libnvinfer.so.10: cannot open')"])
def test_tensorrt_that_is_too_old_or_does_not_load_is_passed_over(packages, source):
    packages("tensorrt", source)
    packages("tensorrt_rtx", "__version__ = '1.7.1.116'")
    found = library.load()
    assert (found.name, found.ahead_of_time) == ("tensorrt_rtx", True)


def test_what_was_tried_is_said(packages):
    packages("tensorrt", "__version__ = '8.6.1'")
    packages("tensorrt_rtx", "raise OSError('libtensorrt_rtx.so.1: cannot open')")
    with pytest.raises(UnavailableError) as caught:
        library.load()
    assert caught.value.parts["got"] == "tensorrt 8.6.1; tensorrt_rtx: libtensorrt_rtx.so.1: cannot open"


def test_type_stubs_are_no_library(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.pyi").write_text("")
    if "tensorrt" in library.installed():
        pytest.skip("TensorRT is installed here, which hides the folder")
    assert "tensorrt" not in library.installed()


def test_without_either_the_command_that_installs_one_is_said(monkeypatch):
    monkeypatch.setattr(library, "installed", lambda: ())
    with pytest.raises(UnavailableError) as caught:
        library.load()
    assert caught.value.parts["got"] == "no module tensorrt, no module tensorrt_rtx"
    assert "pip install 'pytest-sdxl[tensorrt]'" in caught.value.parts["fix"]
    assert "pytest-sdxl[tensorrt-rtx]" in caught.value.parts["fix"]
