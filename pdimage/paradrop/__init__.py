"""The router runtime: chutes, their networks and the daemons behind them. Imported as ``paradrop``."""
