"""Which sample comes next, and how samples become batches."""
