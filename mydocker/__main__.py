"""``python -m mydocker`` is the command ``mydocker``."""

from mydocker.cli import main

main()
