"""`featherweight compare`: two models judged on the same labelled cases, by their predictions or by running them.

Nothing is searched for, optimized or sealed. What comes from outside (tables, ONNX files, artifacts) is bounded before
it is decoded. Without torch.
"""
