"""A package, so that what its tests share ends with the folder, and takes no time from those that follow."""
