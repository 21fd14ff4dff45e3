"""Running: phases, the loop, checkpoints, the run folder."""
