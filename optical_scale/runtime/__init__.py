"""What every process needs and no project concept: ranks, files, logging, seeds, collectives."""
