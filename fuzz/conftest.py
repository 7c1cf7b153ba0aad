"""Loads the profile before any fuzz test is read."""

from fuzz import profiles

profiles.load()
