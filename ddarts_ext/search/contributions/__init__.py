"""What every cell adds to a network (D-DARTS, Eqs. 7-10): the passes, the gradients, and the losses made of them."""
