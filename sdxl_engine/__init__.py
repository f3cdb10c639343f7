"""The engine library behind pytest-sdxl: models, engines, pipeline, LoadGen runs, accuracy."""

__version__ = "0.1.0"
