"""Where the trained bundle lies, and the check that every file of it is the one that was published."""

from __future__ import annotations

import functools
from pathlib import Path

from sdxl_engine.errors import AssetError
from sdxl_engine.files import read_json, sha256, tree_files, write_json

BUNDLE = Path(__file__).parent / "bundle"
MANIFEST = "manifest.json"
CAPTIONS = "captions.tsv"
LATENT = "latents.npy"
METRICS = "metrics"
RANGES = "ranges.json"
BASELINE = "baseline_clip.json"

OWN_RANGES, PRUNED_RANGES = "ranges", "pruned_ranges"
"""Keys of the file of ranges: of the unpruned variants, and of `DeepCachePruned`."""


def write_manifest(bundle: Path) -> None:
    """Record sha256 and size of every file of a bundle."""
    files = {name: path for name, path in tree_files(bundle) if name != MANIFEST}
    write_json(
        bundle / MANIFEST,
        {"files": {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in files.items()}},
    )


@functools.cache
def verified(bundle: Path = BUNDLE) -> Path:
    """The bundle, after every file was compared with the manifest (once per process).

    Raises:
        AssetError: naming every file that is missing, changed or foreign.
    """
    expected = read_json(bundle / MANIFEST, "the bundle's manifest")["files"]
    found = {name: path for name, path in tree_files(bundle) if name != MANIFEST}
    wrong = [f"{name}: missing" for name in sorted(expected.keys() - found.keys())]
    wrong += [f"{name}: not in the manifest" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        digest = sha256(found[name])
        if digest != expected[name]["sha256"]:
            wrong.append(f"{name}: sha256 {digest[:12]}…, expected {expected[name]['sha256'][:12]}…")
    if wrong:
        raise AssetError(
            f"the embedded model is damaged in {len(wrong)} file{'s' * (len(wrong) > 1)}",
            got="; ".join(wrong),
            expected=f"the {len(expected)} files of {MANIFEST}",
            source=bundle,
            fix="install the package again, or in a clone: git checkout -- sdxl_engine/shapes/bundle",
        )
    return bundle
