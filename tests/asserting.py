"""What more than a few test files assert in the same way."""

import numpy as np


def assert_close(found, expected, rtol=1e-5, atol=1e-6) -> None:
    """Numbers worked out by hand, to single precision."""
    np.testing.assert_allclose(np.asarray(found), expected, rtol=rtol, atol=atol)
