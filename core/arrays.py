"""Arrays by what they hold: one name for each, with its type and shape.

N is the number of cases (images, transactions), F of features, H and W are an image's height and width in pixels. The
shape is for the reader: numpy's types know the element alone. First those with a meaning, then those of any shape and
meaning, which are named after their elements.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
"""float64 [N]: raw scores of a program (a logit, a margin); a larger one is nearer to the positive class."""
Probabilities = npt.NDArray[np.float64]
"""float64 [N]: calibrated probabilities of the positive class, in 0..1."""
Labels = npt.NDArray[np.int64]
"""int64 [N]: the truth, 1 for the positive class and 0 for the negative."""
PartialLabels = npt.NDArray[np.int8]
"""int8 [N]: the truth where it is known, 1 or 0, and -1 where it is not."""
Clusters = npt.NDArray[np.int64]
"""int64 [N]: who a case belongs to (a patient, a card), by number."""

FeatureRow = npt.NDArray[np.float32]
"""float32 [F]: the features of one transaction; NaN is missing."""
FeatureRows = npt.NDArray[np.float32]
"""float32 [N, F]: the features of N transactions; NaN is missing."""

GreyImage = npt.NDArray[np.float32]
"""float32 [H, W]: grey levels, 0 is dark and 1 is light; on the way to an image also beyond."""
GreyBytes = npt.NDArray[np.uint8]
"""uint8 [H, W] or [N, H, W]: grey levels in 0..255, of one image or of N of one size."""
StoredPixels = npt.NDArray[Any]
"""An integer of up to 32 bits, or float, [H, W], or [H, W, 3] in colour: an image's values as its file stores them."""

Draws = npt.NDArray[np.int32]
"""int32 [resamples, units]: how often each unit was drawn."""
Indices = npt.NDArray[np.intp]
"""int64 (numpy's intp), any shape: places in another array."""
Words = npt.NDArray[np.int64]
"""int64, any shape: what the fraud app's histories are made of (hashes of identifiers, milliseconds, packed counts)."""

Array = npt.NDArray[Any]
"""Any type and shape."""
Bools = npt.NDArray[np.bool_]
"""bool, any shape."""
Texts = npt.NDArray[np.str_]
"""Text, any shape; mostly [N], a column by which cases are told apart."""
Octets = npt.NDArray[np.uint8]
"""uint8, any shape; mostly the bytes of a file or of a packed program."""
UInt16s = npt.NDArray[np.uint16]
"""uint16, any shape."""
UInt32s = npt.NDArray[np.uint32]
"""uint32, any shape."""
Hashes = npt.NDArray[np.uint64]
"""uint64 [N, 4]: 256 bits of each picture."""
UInt64s = npt.NDArray[np.uint64]
"""uint64, any shape."""
Int32s = npt.NDArray[np.int32]
"""int32, any shape."""
Integers = npt.NDArray[np.int64]
"""int64, any shape."""
Floats32 = npt.NDArray[np.float32]
"""float32, any shape."""
Floats = npt.NDArray[np.float64]
"""float64, any shape."""
AnyFloats = npt.NDArray[np.floating[Any]]
"""float32 or float64, any shape."""
