"""The fleet: groups of routers, what each of them runs, roll-outs of releases, and hawkBit's device API.

:mod:`.states` decides, and touches nothing. :mod:`.moving` moves a roll-out on, in one transaction; :mod:`.rollouts`
and :mod:`.actions` are what people and what devices can do with it. :mod:`.ddi` speaks with devices, :mod:`.api` with
people. README.rst of the registry tells how it is used.
"""
