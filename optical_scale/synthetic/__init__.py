"""Corpora generated from a seed: CLDR bitext and drawn scenes, in the formats users have."""
