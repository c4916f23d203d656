"""The databases of the subjects: emptied before a run, checked after it."""
