#!/bin/sh
# Installs qfence under a prefix, or removes it:
#
#   sudo ./install.sh [--prefix /usr/local] [--destdir DIRECTORY]
#   sudo ./install.sh --uninstall [--prefix /usr/local] [--destdir DIRECTORY]
#
# --destdir is for packagers: a directory that stands for the root directory. share/qfence/files below the prefix lists
# what was installed.
set -eu
umask 022
export LC_ALL=C

usage() {
    echo "usage: $0 [--uninstall] [--prefix DIRECTORY] [--destdir DIRECTORY]" >&2
    exit 2
}

# fail WHAT: nothing is changed.
fail() {
    echo "$0: $1" >&2
    exit 1
}

prefix=/usr/local
destdir=
uninstall=false
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) [ $# -gt 1 ] || usage; prefix=$2; shift 2 ;;
        --destdir) [ $# -gt 1 ] || usage; destdir=$2; shift 2 ;;
        --uninstall) uninstall=true; shift ;;
        *) usage ;;
    esac
done
case $prefix in
    /*) ;;
    *) fail "--prefix $prefix: give an absolute path" ;;
esac
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
destdir=${destdir%/}
target=$destdir$prefix

# check LIST: each of its lines is a path below the prefix.
check() {
    [ -f "$1" ] || fail "$1, the list of files, is not there: nothing is changed"
    while IFS= read -r file || [ -n "$file" ]; do
        case /$file/ in
            */../* | */./* | *//*) fail "$1: \"$file\" is no path below the prefix: nothing is changed" ;;
        esac
    done <"$1"
}

if $uninstall; then
    list=$target/share/qfence/files
    check "$list"
    if [ -z "$destdir" ]; then
        qfence=$prefix/bin/qfence-user
        . "$here/before-removal.sh"
    fi
    files=$(cat "$list")
    printf '%s\n' "$files" | while IFS= read -r file; do
        rm -f -- "$target/$file"
    done
    # Directories of qfence's own, deepest first; others' files in them stay.
    for directory in share/qfence share/doc/qfence; do
        [ -d "$target/$directory" ] || continue
        find "$target/$directory" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done
    if [ -z "$destdir" ]; then
        . "$here/after-removal.sh"
    fi
    exit
fi

# Units, hooks and scripts name the programs by their paths, each in a syntax of its own.
case $prefix in
    *[!A-Za-z0-9/._+@:,~-]*)
        fail "--prefix $prefix: units and hooks cannot name programs there: use letters, digits and / . _ + @ : , ~ -" ;;
esac
list=$here/files/share/qfence/files
check "$list"
while IFS= read -r file; do
    directory=$target/$(dirname -- "$file")
    partial=$directory/.$(basename -- "$file").new
    mkdir -p -- "$directory"
    rm -f -- "$partial"
    cp -P -- "$here/files/$file" "$partial"
    if [ ! -L "$partial" ] && [ "$prefix" != /usr/local ] && grep -Iqs /usr/local/bin/qfence-user "$partial"; then
        case $file in
            # The first are of an image, which has a prefix of its own; the others name it as an example.
            */kubernetes/* | share/doc/*) ;;
            *) sed "s|/usr/local/bin/qfence-user|$prefix/bin/qfence-user|g" "$here/files/$file" >"$partial" ;;
        esac
    fi
    # A running program cannot be written to, but its file can be replaced.
    mv -T -- "$partial" "$target/$file"
done <"$list"
echo "installed under $target; try: sudo $prefix/bin/qfence-user doctor"
