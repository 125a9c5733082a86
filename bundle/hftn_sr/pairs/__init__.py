"""Public data: fetching it by commit and hash, and listing its pairs of contrasts by split."""
