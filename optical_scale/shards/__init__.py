"""Records on disk: webdataset tars with an index for random access and a manifest that vouches for them."""
