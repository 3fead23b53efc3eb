"""The cgroups of containers: where they can be made, their making and removal, and their kernel files."""

from __future__ import annotations
