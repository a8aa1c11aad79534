"""The attack: damaged files, malformed contents, kills, signals and hostile paths against the programs.

`python test/hostile/attack.py` runs all of it, the tests in this folder a part. A case is run by a process of its
own, forked from a server that has imported the programs (`server.py`), and is judged by an oracle that does not
use the code under attack (`oracle.py`).
"""
