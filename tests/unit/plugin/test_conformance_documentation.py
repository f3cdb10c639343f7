"""docs/conformance.md lists the checks as they are; `UPDATE_DOCS=1` writes the list anew."""

import ast
import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "conformance.md"
ORDER = ("interface", "values", "batches", "state", "numbers", "pipeline", "resources")
LIST = re.compile(r"(?<=<!-- checks -->\n).*?(?=<!-- end of checks -->)", re.DOTALL)


def checks(module):
    """The module's summary, and each check with the summary of its docstring."""
    source = (ROOT / "pytest_sdxl" / "conformance" / f"test_{module}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    found = {
        node.name: ast.get_docstring(node).splitlines()[0]
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    return ast.get_docstring(tree).splitlines()[0], found


def written():
    parts = []
    for module in ORDER:
        summary, found = checks(module)
        rows = "\n".join(f"| `{name}` | {text} |" for name, text in found.items())
        parts.append(f"{summary}\n\n| check | |\n|---|---|\n{rows}\n")
    return "\n" + "\n".join(parts) + "\n"


def test_the_list_of_checks():
    assert {path.stem.removeprefix("test_") for path in (ROOT / "pytest_sdxl" / "conformance").glob("test_*.py")} == {
        *ORDER
    }
    text = DOCUMENT.read_text(encoding="utf-8")
    if os.environ.get("UPDATE_DOCS"):
        text = LIST.sub(lambda _: written(), text)
        DOCUMENT.write_text(text, encoding="utf-8")
    assert LIST.search(text)[0] == written()
