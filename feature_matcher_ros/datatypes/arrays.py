"""Names for arrays that travel everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Pixels = NDArray[np.float32]
Image = NDArray[np.uint8]
