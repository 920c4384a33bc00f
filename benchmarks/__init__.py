"""Measurements that run from a checkout; the wheel does not hold them."""
