"""Both directions with gradients: a block's steps are one autograd function, activations are kept or rebuilt."""
