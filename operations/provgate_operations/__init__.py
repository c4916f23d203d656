"""For those who run it: what is wrong, how it is doing, and which configuration is in force."""
