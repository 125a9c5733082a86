"""MR volumes: safe reading and atomic saving, grids, resampling of a reference onto them, rigid registration."""
