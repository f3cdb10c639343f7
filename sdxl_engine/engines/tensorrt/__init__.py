"""Engine `tensorrt`: plans built ahead of a run by TensorRT or TensorRT-RTX. docs/tensorrt.md says what ran where."""
