"""The loop: steps, checkpoints, hooks, agreed stops."""
