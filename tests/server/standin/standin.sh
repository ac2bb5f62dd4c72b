# What the stand-in does: standin.sh info | manifest | package_list | image, with PROFILE, PACKAGES, FILES, BIN_DIR and
# EXTRA_IMAGE_NAME from make. `packages.txt` has lines NAME VERSION BYTES NEEDS CONFLICTS. A build waits while there is a
# file `hold` in the directory that the file `origin` names, and runs the script `spy` from there.
set -eu

# fact NAME FIELD: prints a field of a package, fails if there is no such package.
fact() { awk -v name="$1" -v field="$2" '$1 == name { print $field; found = 1 } END { exit !found }' packages.txt; }

# Prints the packages of the image, one a line; says what can't be had on stderr.
selected() {
    own=$(sed -n 's/^Default Packages: //p' info.txt)
    own="$own $(sed -n "/^$PROFILE:/,/^[^ ]/s/^    Packages: *//p" info.txt)"
    asked="$own ${PACKAGES:-}"
    for name in $asked; do case $name in -*) ;; *)
        case " $asked " in *" -$name "*) ;; *) echo "$name" ;; esac
        needs=$(fact "$name" 4 || true); [ "${needs:--}" = - ] || echo "$needs" ;;
    esac; done | sort -u
}

checked() {
    wrong=
    for name in $all; do
        if ! fact "$name" 2 > /dev/null; then
            wrong="$wrong  $name (no such package):
    required by: world[$name]
"
        else
            other=$(fact "$name" 5)
            case " $(echo $all) " in *" $other "*) wrong="$wrong  $name-$(fact "$name" 2):
    conflicts: $other
" ;; esac
        fi
    done
    [ -z "$wrong" ] || { printf 'ERROR: unable to select packages:\n%s' "$wrong"; exit 1; }
}

case $1 in
    info) cat info.txt; exit ;;
    package_list) while read -r name version rest; do echo "$name - $version"; done < packages.txt; exit ;;
esac
all=$(selected)
checked
list=$(for name in $all; do echo "$name - $(fact "$name" 2)"; done)
[ "$1" = image ] || { echo "$list"; exit; }
echo "Building images for ath79 - $PROFILE"
while [ -e "$(cat origin)/hold" ]; do sleep 0.05; done
[ ! -e "$(cat origin)/spy" ] || sh "$(cat origin)/spy" 2>&1
echo "$PROFILE" >> built
case " $(echo $all) " in *" broken "*) echo "cannot make broken"; exit 1 ;; esac
size=0
for name in $all; do size=$((size + $(fact "$name" 3))); done
limit=10000
[ "$PROFILE" != acme_small ] || limit=2000
image=$BIN_DIR/openwrt-${EXTRA_IMAGE_NAME}-ath79-generic-$PROFILE
{ echo "$list"; [ -z "${FILES:-}" ] || cat "$FILES/etc/uci-defaults/99-server-defaults"; } > "$image-factory.bin"
echo "$list" > "$image.manifest"
if [ $size -gt $limit ]; then
    echo "    WARNING: Image file $image-squashfs-sysupgrade.bin is too big: $size > $limit"
elif [ "$PROFILE" != acme_factory ]; then
    cp "$image-factory.bin" "$image-squashfs-sysupgrade.bin"
fi
(cd "$BIN_DIR" && sha256sum * > sha256sums)
