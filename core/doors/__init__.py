"""How a user's own model and data come in: read, named, split, and compared with the library that the model is of.
Needs the extra `train`, but for `scores`, which an artifact is served with."""
