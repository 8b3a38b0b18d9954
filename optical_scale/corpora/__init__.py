"""Files of a corpus -> an iterator of records; no tensors, no shards."""
