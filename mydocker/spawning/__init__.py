"""Children from one small process, for a program that makes many: `mydocker.Spawner` and `mydocker.run` use it.

`client` is the program's side, `helper` the small process, `wire` what goes between them; `means` keeps what one run
finds out for the next, and `pool` keeps containers that wait for a command.
"""
