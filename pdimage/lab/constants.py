"""Names and numbers that the lab's modules share."""

# A prefix in the working directory, and the file that describes it.
DEFAULT_PREFIX = ".lab"
INIT_FILE = "LagoInitFile"
# Settings are read from PDIMAGE_LAB_NAME in the environment, then from NAME in these files, the first that has it.
ENVIRONMENT = "PDIMAGE_LAB_"
CONFIG_FILES = ("~/.config/pdimage/lab.conf", "/etc/pdimage/lab.conf")
CONFIG_DIRS = ("~/.config/pdimage/lab.conf.d", "/etc/pdimage/lab.conf.d")
# The prefix of all hardware addresses that machines get: KVM's own, as real Lago uses it.
MAC_PREFIX = "54:52"
ROOT_PASSWORD = "123456"
