"""Tree ensembles as plain arrays: read from the libraries that fit them, pruned, quantized, written as programs."""
