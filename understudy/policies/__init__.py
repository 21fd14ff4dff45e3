"""Policy classes, one a file. Each offers `sample` and the imitation `loss`; what else it offers is a capability."""
