"""The registry: accounts, the routers they own, links to the routers, roll-outs to groups of them.

Everything below ``/registry/v1``; :mod:`.operations` lists it, :mod:`.desk` is what it works with, README.rst tells how
it is used.
"""
