"""How good the sound is: figures of merit, pictures and the table of results; arrays in, numbers and figures out."""
