"""Virtual routers for tests: real kernels in QEMU, described in one file, with networks, snapshots, ssh and power.

The command line is ``pdimage lab``; README.rst beside this file is the walk through it.
"""
