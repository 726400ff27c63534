"""Search by shrinking a supernet (IS-DARTS): which ops go when, how they are measured, and the loop's parts of it."""
