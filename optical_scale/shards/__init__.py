"""Webdataset tars on disk with a manifest that is written last."""
