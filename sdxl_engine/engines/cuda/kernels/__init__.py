"""Hand-written Triton kernels, for activations that are NHWC and contiguous.

Nothing is imported here, so that the package can be found where Triton is not installed. Every wrapper takes torch
tensors, checks them, writes to `out` where it is given, and launches on the current stream without synchronising, so
it can be captured in a CUDA graph. Launch configurations are looked up by shape (`tuning.py`), never timed on the way.
"""
