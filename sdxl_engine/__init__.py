"""The engine library behind pytest-sdxl: models, engines, pipeline, LoadGen runs and accuracy; it knows nothing of pytest."""

__version__ = "0.1.0"
