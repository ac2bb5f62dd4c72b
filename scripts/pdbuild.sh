#!/bin/sh
# Builds the router's firmware and puts it into a virtual router, with the verbs of the Paradrop documents:
#
#   setup         what this checkout needs to build, a signing key, and the keyring of the routers built here
#   check         finds all mistakes of the description; if the virtual router runs, also looks at what it has installed
#   build         builds and packs the signed, encrypted bundle, and prints its name
#   up [wifi]     starts the virtual router, made if there is none; with wifi it has two simulated radios (root)
#   install_deps  gives it the installer and its keyring, and waits for its Docker engine
#   install       installs a bundle in it, the newest of those built here unless another is named
#   connect       opens a shell in it, or runs a command there
#   down          stops it
#
# Usage: scripts/pdbuild.sh VERB [ARGUMENT...]; arguments of check and build go to pdimage. PDBUILD_IMAGE names another
# description than pdimage/images/router.yaml, PDBUILD_DIR another directory for keys, bundles and the router than build.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
image=${PDBUILD_IMAGE:-$here/pdimage/images/router.yaml}
work=${PDBUILD_DIR:-$here/build}
signer=builds@pdbuild.invalid
export GNUPGHOME="$work/keys" PDIMAGE_LAB_PREFIX="$work/router"
PATH=$here/.venv/bin:$PATH

usage() {
    sed -n '2,/^set -eu/{s/^# \{0,1\}//p;}' "$0"
}

fail() {
    echo "pdbuild.sh: cannot $verb: $1" >&2
    exit 40
}

need_setup() {
    if [ ! -x "$here/.venv/bin/pdimage" ] || [ ! -d "$work/keyring" ]; then fail "run scripts/pdbuild.sh setup first"; fi
}

setup() {
    "$here/scripts/setup" build,lab
    mkdir -p "$work"
    if ! fussy keys export $signer >/dev/null 2>&1; then fussy keys signing "Paradrop builds <$signer>" >/dev/null; fi
    if [ ! -d "$work/keyring" ]; then fussy keys keyring "$work/keyring" --signer $signer --name router >/dev/null; fi
    echo "Keys are in $work/keys, the routers' keyring is $work/keyring."
}

runs() {
    [ -e "$work/router/initialized" ] && pdimage lab status --out-format flat | grep -qx 'Prefix/VMs/router/status: running'
}

need_router() {
    need_setup
    runs || fail "the virtual router does not run; run scripts/pdbuild.sh up"
}

inside() {
    pdimage lab ssh router "$1" </dev/null
}

check() {
    need_setup
    pdimage check "$image" "$@"
    if runs && inside 'test -e /opt/firmware/current'; then
        inside '/usr/local/bin/fussy status && /usr/local/bin/fussy verify'
    fi
}

up() {
    need_setup
    if [ ! -e "$work/router/initialized" ]; then pdimage lab init "$here/scripts/pdbuild-router.yaml" >/dev/null; fi
    pdimage lab start
    case ${1:-} in
    '') ;;
    wifi*) inside 'modprobe mac80211_hwsim radios=2' ;;
    *) fail "there is no 'up $1'; use up, or up wifi" ;;
    esac
}

install_deps() {
    need_router
    pdimage build "$here/pdimage/images/installer.yaml" --output "$work/installer" >/dev/null
    inside 'mkdir -p /opt/fussy /etc/fussy/keys && chmod 700 /etc/fussy/keys'
    pdimage lab copy-to-vm router "$work/installer" /opt/fussy
    pdimage lab copy-to-vm router "$work/keyring" /etc/fussy/keys
    inside 'chown -R root:root /opt/fussy /etc/fussy/keys && systemctl start docker'
}

install() {
    need_router
    bundle=${1:-$(find "$work" -maxdepth 1 -name '*.gpg' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-)}
    [ -n "$bundle" ] || fail "there is no bundle in $work; run scripts/pdbuild.sh build"
    inside 'test -x /opt/fussy/bin/fussy-install' || fail "the router has no installer; run scripts/pdbuild.sh install_deps"
    pdimage lab copy-to-vm router "$bundle" "/tmp/${bundle##*/}"
    inside "/opt/fussy/bin/fussy-install '/tmp/${bundle##*/}' && rm '/tmp/${bundle##*/}'"
}

verb=${1:-help}
[ $# = 0 ] || shift
case $verb in
setup | check | up | install_deps | install) "$verb" "$@" ;;
build) need_setup; pdimage pack "$image" --output "$work" --key $signer --encrypt-for router@device.invalid "$@" ;;
connect) need_router; pdimage lab shell router "$@" ;;
down) need_setup; pdimage lab stop ;;
help | -h | --help) usage ;;
*) usage >&2; echo "pdbuild.sh: there is no verb $verb" >&2; exit 2 ;;
esac
