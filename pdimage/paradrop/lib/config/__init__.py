"""From chutes to the router's configuration: devices, networks, wireless, firewall and DHCP sections."""
