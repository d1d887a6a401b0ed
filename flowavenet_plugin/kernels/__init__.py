"""Element-wise kernels, each with a plain torch reference."""
