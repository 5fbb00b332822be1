"""Correctness and speed on a CUDA machine: `python -m benchmarks.gpu`."""
