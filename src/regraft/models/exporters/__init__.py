"""The formats in which a model leaves Regraft: one file each."""
