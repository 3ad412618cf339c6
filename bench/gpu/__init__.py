"""What others reach on a CUDA GPU: PyTorch, cuDNN, cuBLAS. `python -m bench.gpu --help`."""
