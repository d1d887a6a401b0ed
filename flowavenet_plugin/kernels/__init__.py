"""What training computes, in few passes; the modules of ``flow`` are the plain torch reference."""
