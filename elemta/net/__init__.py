"""Bytes on the wire, names in the DNS, and how many of each."""
