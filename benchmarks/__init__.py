"""Side-by-side timings of packed training and of what it is compared with. Never run by the tests or by default."""
