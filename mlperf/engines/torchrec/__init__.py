"""Engine of several processes: TorchRec shards the tables, and the rest is data-parallel."""
