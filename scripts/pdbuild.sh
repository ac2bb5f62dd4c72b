#!/bin/sh
# Builds the router's firmware and puts it into a virtual router, with the verbs of the Paradrop documents:
#
#   setup         what this checkout needs to build, a signing key, and the keyring of the routers built here
#   check         finds all mistakes of the description
#   build         builds and packs the signed, encrypted bundle, and prints its name
#   up            starts the virtual router       (needs the lab)
#   install_deps  prepares it for Paradrop        (needs the lab)
#   install       installs the bundle in it       (needs the lab)
#   connect       opens a shell in it             (needs the lab)
#   down          stops it                        (needs the lab)
#
# Usage: scripts/pdbuild.sh VERB [ARGUMENT...]; arguments go to pdimage. PDBUILD_IMAGE names another description than
# pdimage/images/router.yaml, PDBUILD_DIR another directory for keys and bundles than build.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
image=${PDBUILD_IMAGE:-$here/pdimage/images/router.yaml}
work=${PDBUILD_DIR:-$here/build}
signer=builds@pdbuild.invalid
export GNUPGHOME="$work/keys"
PATH=$here/.venv/bin:$PATH

usage() {
    sed -n '2,/^set -eu/{s/^# \{0,1\}//p;}' "$0"
}

need_setup() {
    if [ ! -x "$here/.venv/bin/pdimage" ] || [ ! -d "$work/keyring" ]; then
        echo "pdbuild.sh: cannot $verb: run scripts/pdbuild.sh setup first" >&2
        exit 40
    fi
}

setup() {
    "$here/scripts/setup" build
    mkdir -p "$work"
    if ! fussy keys export $signer >/dev/null 2>&1; then fussy keys signing "Paradrop builds <$signer>" >/dev/null; fi
    if [ ! -d "$work/keyring" ]; then fussy keys keyring "$work/keyring" --signer $signer --name router >/dev/null; fi
    echo "Keys are in $work/keys, the routers' keyring is $work/keyring."
}

lab() { # VERB ARGUMENT...
    need_setup
    if ! pdimage lab --help >/dev/null 2>&1; then
        echo "pdbuild.sh: cannot $verb: it needs a virtual router, and this checkout has no lab (pdimage lab) yet" >&2
        exit 40
    fi
    pdimage lab "$@"
}

verb=${1:-help}
[ $# = 0 ] || shift
case $verb in
setup) setup ;;
check) need_setup; pdimage check "$image" "$@" ;;
build) need_setup; pdimage pack "$image" --output "$work" --key $signer \
    --encrypt-for router@device.invalid "$@" ;;
up | down | connect | install | install_deps) lab "$verb" "$@" ;;
help | -h | --help) usage ;;
*) usage >&2; echo "pdbuild.sh: there is no verb $verb" >&2; exit 2 ;;
esac
