"""The device's side of a channel: looks for a newer release, chooses how to get it, fetches and installs it.

What it keeps lies in ``.fussy/update/`` of the target::

    lock           held while an updater works
    state.json     how the last run ended, what waits; see fussy.updating.record
    owner.json     what the router's owner wants: hold, postpone
    history.jsonl  what happened, the newest last; see fussy.updating.history
    trusted.json   versions below which no metadata is believed, and the newest time that is known
    hawkbit.json   what a hawkBit server wants, and what it is still to be told; see fussy.updating.actions
    id             by which a roll-out knows this device, where the machine has no id of its own
    metadata/      TUF metadata that was verified; a cache
    downloads/     bundles being fetched
    parts/         files being fetched for others, such as self-repair
"""
