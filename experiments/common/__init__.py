"""What experiments share: fields of configs, launching, the folder of a run, reports."""
