"""`python -m sdxl_engine` is `sdxl-engine`."""

from sdxl_engine.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
