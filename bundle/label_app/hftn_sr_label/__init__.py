"""The MONAI Label app's own package. Not `lib`, as the sample apps have it: MONAI Label unloads `lib` whenever it loads another app."""
