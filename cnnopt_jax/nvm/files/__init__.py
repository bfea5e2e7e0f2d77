"""NVSim's files: `.cell` and `.cfg`."""
