"""From the driver to the cache: one organisation of one array, as equations."""
