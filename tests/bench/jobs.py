"""What is compared: bash scripts that pack and install the same trees, each made durable at its end.

Packing starts warm, as on the machine that has just built the tree; installing starts cold, as on a device.

They see: ``TREES`` (folder of firmware-1 and firmware-2), ``BUNDLES`` (their bundles), ``DISK`` (the file system under
measurement), ``BUILD`` and ``DEVICE`` (GnuPG homes), ``SIGNER`` and ``READER`` (fingerprints of the signing and the
device key).
"""

from dataclasses import dataclass

SEAL = 'gpg --homedir "$BUILD" --batch --yes --trust-model always -u "$SIGNER" -r "$READER" -se'
OPEN = 'gpg --homedir "$DEVICE" --batch --yes -q -d'
READ_TREE = 'tar -C "$TREES" -cf - "$TREE"'
DURABLE = 'sync -f "$DISK"'
BESIDE = "install beside the previous release"
FIRST = "first install"
KINDS = ["pack", BESIDE, FIRST]


@dataclass(frozen=True)
class Job:
    """One contender in one kind of work.

    ``prepare`` runs untimed on a fresh file system; a ``cold`` job then finds no file in memory. The limits are parts
    of the first job of the same kind (``time_limit``, ``size_limit``) or absolute (``written_limit``, ``memory_limit``,
    in bytes); ``time_goal`` is what we are after beyond them.
    """

    kind: str
    name: str
    script: str
    prepare: str = ":"
    cold: bool = True
    time_limit: float | None = None
    size_limit: float | None = None
    written_limit: int | None = None
    memory_limit: int | None = None
    time_goal: float | None = None


def plain_pack(compress: str, gpg_options: str, suffix: str) -> str:
    return f'{READ_TREE} | {compress} | {SEAL} {gpg_options} -o "$OUT/$TREE.{suffix}.gpg"; {DURABLE}'


def fussy_pack(compress: str) -> str:
    return f'GNUPGHOME="$BUILD" fussy-pack -r "$TREES/$TREE" -e "$READER" -k "$SIGNER" {compress} -o "$OUT"; {DURABLE}'


WARM_UP = f"{READ_TREE} | cat > /dev/null"
PACK = [
    Job("pack", "tar, gzip -6, gpg", plain_pack("gzip -6", "", "tar.gz"), WARM_UP, cold=False),
    Job("pack", "tar, zstd -3 -T0, gpg -z 0", plain_pack("zstd -q -3 -T0", "-z 0", "tar.zst"), WARM_UP, cold=False),
    Job("pack", "fussy-pack (gzip)", fussy_pack("--compress gzip"), WARM_UP, cold=False,
        time_limit=0.20, size_limit=1.10, memory_limit=256 << 20),
    Job("pack", "fussy-pack (zstd)", fussy_pack("--compress zstd"), WARM_UP, cold=False,
        time_limit=0.15, size_limit=1.00, memory_limit=256 << 20),
]

OSTREE = """
test -d "$OUT/ostree" || ostree --repo="$OUT/ostree" init --mode=archive
ostree --repo="$OUT/ostree" commit -b "$TREE" --tree=dir="$TREES/$TREE"
"""
CASYNC = 'casync make --store="$OUT/casync.castr" "$OUT/$TREE.caidx" "$TREES/$TREE"'
PEERS_PACK = [
    Job("pack", "ostree commit (archive, unsigned)", OSTREE + DURABLE, WARM_UP, cold=False),
    Job("pack", "casync make (unsigned)", f"{CASYNC}; {DURABLE}", WARM_UP, cold=False),
]

COPY_OLD = 'mkdir "$DISK/t"; cp -a "$TREES/firmware-1" "$DISK/t/"; ln -s firmware-1 "$DISK/t/current"'
SWAP = f'ln -s firmware-2 "$DISK/t/new"; mv -T "$DISK/t/new" "$DISK/t/current"; {DURABLE}'


def unpack(program: str, bundle: str) -> str:
    return f'{OPEN} "$BUNDLES/{bundle}" | {program} -dc | tar -C "$DISK/t" -xpf -; {SWAP}'


def fussy_install(bundle: str) -> str:
    return f'fussy-install -k "$DEVICE" -t "$DISK/t" "$BUNDLES/{bundle}"; {DURABLE}'


CLASSIC_INSTALL = (
    f'mkdir "$DISK/tmp"; {OPEN} "$BUNDLES/plain/firmware-2.tar.gz.gpg" | tar -C "$DISK/tmp" -xzpf -; '
    f'rsync -a --link-dest="$DISK/t/current/" "$DISK/tmp/firmware-2/" "$DISK/t/firmware-2"; {SWAP}')

DEVICE_MEMORY = 64 << 20
INSTALL = [
    Job(BESIDE, "gpg, tar xz, rsync --link-dest", CLASSIC_INSTALL, COPY_OLD),
    Job(BESIDE, "gpg, zstd, tar x", unpack("zstd", "plain/firmware-2.tar.zst.gpg"), COPY_OLD),
    Job(BESIDE, "fussy-install (gzip)", fussy_install("fussy/firmware-2.tar.gz.gpg"),
        fussy_install("fussy/firmware-1.tar.gz.gpg"),
        time_limit=0.60, written_limit=115_000_000, memory_limit=DEVICE_MEMORY),
    Job(BESIDE, "fussy-install (zstd)", fussy_install("fussy/firmware-2.tar.zst.gpg"),
        fussy_install("fussy/firmware-1.tar.zst.gpg"),
        time_limit=0.35, written_limit=115_000_000, memory_limit=DEVICE_MEMORY, time_goal=0.20),
    Job(FIRST, "gpg, zstd, tar x", unpack("zstd", "plain/firmware-2.tar.zst.gpg"), 'mkdir "$DISK/t"'),
    Job(FIRST, "fussy-install (gzip)", fussy_install("fussy/firmware-2.tar.gz.gpg"), memory_limit=DEVICE_MEMORY),
    Job(FIRST, "fussy-install (zstd)", fussy_install("fussy/firmware-2.tar.zst.gpg"),
        memory_limit=DEVICE_MEMORY, time_goal=1.00),
]

OSTREE_GET = """
ostree --repo="$DISK/ostree" pull-local "$BUNDLES/plain/ostree" {tree}
ostree --repo="$DISK/ostree" checkout -H {tree} "$DISK/t/{tree}"
"""
OSTREE_OLD = 'mkdir "$DISK/t"; ostree --repo="$DISK/ostree" init --mode=bare'
CASYNC_GET = ('casync extract --store="$BUNDLES/plain/casync.castr" --seed="$DISK/t/firmware-1" '
              '"$BUNDLES/plain/firmware-2.caidx" "$DISK/t/firmware-2"')
PEERS_INSTALL = [
    Job(BESIDE, "ostree pull-local, checkout", OSTREE_GET.format(tree="firmware-2") + SWAP,
        OSTREE_OLD + OSTREE_GET.format(tree="firmware-1") + 'ln -s firmware-1 "$DISK/t/current"'),
    Job(BESIDE, "casync extract --seed", f"{CASYNC_GET}; {SWAP}", COPY_OLD),
]
