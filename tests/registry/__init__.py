"""Tests of the registry, with real servers and routers."""
