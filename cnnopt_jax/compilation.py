"""How programs are compiled that are worth no more than a quick compilation."""

# For what runs a few times: initial weights, one design at a time, a grid of figures. Random bits
# compile ten times as fast, the memory model in half the time and then runs at half the speed.
# Products and sums are not contracted either, so figures equal those of NumPy bit for bit.
QUICKLY = {'xla_backend_optimization_level': 0}
