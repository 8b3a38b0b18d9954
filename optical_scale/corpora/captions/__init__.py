"""Layouts of image-caption corpora: files of text -> which captions belong to which image."""
