"""Evaluation: `rollouts` of policies, `statistics` over episodes and seeds, a `video`, the report."""
