"""The limits that come with mydocker. They register through entry points, exactly as anybody's do."""

from __future__ import annotations
