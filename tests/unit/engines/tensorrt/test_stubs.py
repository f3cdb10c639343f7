"""`stubs/tensorrt`, which mypy reads, against the docstrings of the installed library and against the stand-in."""

import ast
import re
from pathlib import Path

import pytest
import stand_in_tensorrt

STUBS = ast.parse((Path(__file__).parents[4] / "stubs" / "tensorrt" / "__init__.pyi").read_text())

CLASSES = {node.name: node for node in STUBS.body if isinstance(node, ast.ClassDef)}


def members():
    """(class, member, parameters or None for an attribute) of the stub."""
    for name, node in CLASSES.items():
        for item in node.body:
            if isinstance(item, ast.FunctionDef):
                is_property = any(ast.unparse(decorator) == "property" for decorator in item.decorator_list)
                arguments = [argument.arg for argument in item.args.args[1:]]
                yield name, item.name, None if is_property else arguments
            elif isinstance(item, ast.AnnAssign):
                yield name, item.target.id, None
            elif isinstance(item, ast.Assign):
                yield name, item.targets[0].id, None


@pytest.mark.parametrize(("owner", "name", "parameters"), list(members()), ids=str)
def test_the_library_has_what_the_stub_says(owner, name, parameters):
    library = pytest.importorskip("tensorrt_rtx")
    member = getattr(getattr(library, owner), name)
    if parameters is None:
        return
    # pybind11 gives a signature for each overload in the docstring.
    signatures = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) ->", member.__doc__ or "", flags=re.MULTILINE)
    found = [re.findall(r"(?:^|, )(\w+): ", signature.partition(", ")[2]) for signature in signatures]
    assert parameters in found


RUNTIME = ("Runtime", "ICudaEngine", "IExecutionContext", "ILogger", "ExecutionContextAllocationStrategy")


@pytest.mark.parametrize("owner", RUNTIME)
def test_the_stand_in_has_what_the_stub_says(owner):
    for name in {member for found, member, _ in members() if found == owner}:
        assert hasattr(getattr(stand_in_tensorrt, owner), name), f"{owner}.{name}"
