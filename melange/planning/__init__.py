"""From a workload's specification to its plan."""
