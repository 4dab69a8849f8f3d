"""How mixtures are trained: the loop, the threads, its algorithms, batches, moves and checkpoints."""
