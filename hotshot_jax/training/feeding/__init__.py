"""From clips to batches on the devices."""
