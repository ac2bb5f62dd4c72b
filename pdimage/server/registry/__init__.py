"""The registry: accounts, the routers they own, links to the routers, roll-outs to groups of them."""
