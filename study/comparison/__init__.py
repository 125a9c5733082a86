"""Methods compared: trained under one budget on identical patches, scored on the same slices, put into one table.

A comparison is made of rows, one method at one scale with one seed. `rows` says which, `sizes` how large each network is, `schedule` how
long it is trained; `training` runs the training workflow, `scoring` the result; `table` and `figures` show what came of it; `run` is all of
that in order and goes on where it was broken off.

`robustness` takes what is finished of a comparison and tries it with a `disturbance` of the reference or of the target, and on `lesions`.
"""
