"""Accuracy of generated images: CLIP score, FID, a streamed scorer, and the ranges a run is judged by."""
