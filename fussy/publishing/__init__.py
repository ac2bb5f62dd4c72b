"""Makes and maintains channels: static files, signed by The Update Framework, that routers follow (``fussy-publish``).

=================  ===================================================================================================
Module             What it does
=================  ===================================================================================================
cli, rolecli       the command lines
errors             what can be wrong, with exit codes
places             where the channel and its private directory have what; settings; the lock
keyfiles           makes and reads keys
metadata           reads what is published; pure changes to it
settle             signs what changed and publishes what has enough signatures, in an order that is valid at each step
roles              who signs what: init, rotate, revoke, renew, product lines
offers             pure changes to what a product line offers
store, packing     releases unpacked as a device has them; deltas and parts made from them
releases           add, roll out, withdraw, promote
collect            deletes what nobody can need
check              follows the channel as a device does
=================  ===================================================================================================
"""
