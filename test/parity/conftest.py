"""What all comparisons with published networks need."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums then have the same order everywhere."""
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install feature_matcher_ros[torch]")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
