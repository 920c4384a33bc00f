"""From clips to what ControlNets add."""
