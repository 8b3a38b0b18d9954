"""The languages of the embedded corpora, in the two groups whose training sizes differ by a factor of ten."""

HIGH_RESOURCE = ("de", "fr", "es", "cs")
LOW_RESOURCE = ("sw", "so", "mr", "fil")
LANGUAGES = HIGH_RESOURCE + LOW_RESOURCE
