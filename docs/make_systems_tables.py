"""Write the tables of docs/systems.md from the code and the files. Run: python docs/make_systems_tables.py."""

from __future__ import annotations

from pathlib import Path

from sdxl_engine.models.spec import NETWORKS
from sdxl_engine.settings import MODEL_OPTS, SCENARIOS
from sdxl_engine.systems import estimate
from sdxl_engine.systems.catalogue import shipped_folder
from sdxl_engine.systems.config import SCHEMA, Match, RunConfig, SystemConfig
from sdxl_engine.systems.keys import Key, keys_of
from sdxl_engine.systems.machine import GIB
from sdxl_engine.systems.reading import read_system

PAGE = Path(__file__).with_name("systems.md")
DEFAULTS, RUNS = "`[defaults]`, scenarios", "scenarios"


def keys_table() -> str:
    """Every key: where it stands, what it takes, what holds without it, what it means."""
    rows = [("top", "schema", f"{SCHEMA}", "required", "which version of these keys the file is written for")]

    def add(table: str, name: str, key: Key) -> None:
        rows.append((table, name, key.kind.expected, key.left_out or "required", key.meaning))

    for name, key in keys_of(SystemConfig).items():
        add("top", name, key)
    for name, key in keys_of(Match).items():
        add("`[match]`", name, key)
    for name, key in keys_of(RunConfig).items():
        add(RUNS if key.per_run else DEFAULTS, name, key)
    head = "| table | key | value | left out | meaning |\n|---|---|---|---|---|\n"
    return head + "".join(f"| {table} | `{name}` | {' | '.join(rest)} |\n" for table, name, *rest in rows)


def figures_table() -> str:
    """Every shipped file, and where its expected samples per second come from."""
    lines = ["| file | precision | batch (decoder) | expected samples/s |\n|---|---|---|---|\n"]
    for path in sorted(shipped_folder().glob("*.toml")):
        config = read_system(path)
        run = config.defaults
        found = [
            f"{model_opt} {each.offline_expected_qps:g}: {each.source}"
            for scenario in SCENARIOS
            for model_opt in MODEL_OPTS
            if (each := config.run(scenario, model_opt)).offline_expected_qps is not None
        ]
        batch = f"{run.gpu_batch_size['unet']} ({run.gpu_batch_size['vae']})"
        lines.append(f"| `{config.name}` | {run.precision} | {batch} | {'<br>'.join(found) or 'unmeasured'} |\n")
    return "".join(lines)


def activations_table() -> str:
    """The figures of the memory model."""
    rows = [
        f"| `{network}` | {estimate.PARAMETERS[network]:,} | {estimate.ACTIVATIONS[network]:.1f} MiB |\n"
        for network in NETWORKS
    ]
    return "| network | parameters | activations per image, fp16 |\n|---|---|---|\n" + "".join(rows)


def computed_table() -> str:
    """What it makes of some GPUs."""
    rows = []
    for gib in (12, 16, 24, 40, 80):
        batch, _ = estimate.fitting_batch(gib * GIB, "fp16")
        needed = estimate.needed_bytes("fp16", batch) / GIB
        rows.append(f"| {gib} GiB | {batch['unet']} | {batch['vae']} | {needed:.1f} GiB |\n")
    head = "| GPU memory, fp16 | text encoders and UNets | decoder | estimated need |\n|---|---|---|---|\n"
    return head + "".join(rows)


def page(text: str) -> str:
    """The page with its tables made anew; each stands between two lines that name it."""
    tables = {
        "keys": keys_table(),
        "figures": figures_table(),
        "activations": activations_table(),
        "computed": computed_table(),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = before + begin + table + end + after
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
