"""Helpers of these tests: markets to feed, a batch answer to compare with, a recurrent model to serve."""

import sys
from pathlib import Path

# The helpers are plain modules beside the tests: markets, batch_features, recurrent.
sys.path.insert(0, str(Path(__file__).parent))
