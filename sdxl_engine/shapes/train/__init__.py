"""The training recipe of `shapes`: `python -m sdxl_engine.shapes.train --seed 0` makes the whole bundle on one GPU."""
