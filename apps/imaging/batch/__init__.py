"""`imaging classify`: a job over many files, which goes on after any interruption."""
