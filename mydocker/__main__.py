"""``python -m mydocker`` is the command ``mydocker``."""

from mydocker.launch import mydocker

mydocker()
