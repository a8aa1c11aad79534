"""Keys of the log of a run of several processes. MLPerf HPC requires the first two, MLPerf Training none."""

from __future__ import annotations

NUMBER_OF_NODES = "number_of_nodes"
ACCELERATORS_PER_NODE = "accelerators_per_node"
PROCESSES_PER_NODE = "processes_per_node"
