"""The only package that imports deepspeed: sharded teacher, sharded student, start-up, consolidation."""
