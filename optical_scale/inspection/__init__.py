"""What is in a shard folder: counts, lengths, tokens, images and samples, for people and for programs."""
