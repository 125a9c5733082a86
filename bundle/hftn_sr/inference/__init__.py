"""One case: a low-resolution target and its reference become a high-resolution volume with its record and picture."""
