"""ControlNets, and the union of several kinds in one."""
