"""Where images come from: sources, the prepared folder, its splits, and the order in which they are seen."""

from generama.data.order import batches, order, positions
from generama.data.prepare import default_cache, open_data, prepare
from generama.data.shards import Data, Meta, Split

__all__ = ["Data", "Meta", "Split", "batches", "default_cache", "open_data", "order", "positions", "prepare"]
