#!/bin/sh
# Installs qfence under a prefix, or removes it:
#
#   sudo ./install.sh [--prefix /usr/local]
#   sudo ./install.sh --uninstall [--prefix /usr/local]
#
# share/qfence/files below the prefix lists what was installed.
set -eu
umask 022

prefix=/usr/local
uninstall=false
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) prefix=${2:?--prefix needs a directory}; shift 2 ;;
        --uninstall) uninstall=true; shift ;;
        *) echo "usage: $0 [--uninstall] [--prefix DIRECTORY]" >&2; exit 2 ;;
    esac
done
case $prefix in
    /*) ;;
    *) echo "$0: --prefix $prefix: give an absolute path" >&2; exit 2 ;;
esac

if $uninstall; then
    list=$prefix/share/qfence/files
    if [ ! -f "$list" ]; then
        echo "$0: $list, the list of installed files, is not there: nothing is removed" >&2
        exit 1
    fi
    # Fences that have ended are cleared first.
    "$prefix/bin/qfence-user" ps >/dev/null 2>&1 || true
    for fence in /run/qfence/*.json /sys/fs/bpf/qfence/*; do
        [ -e "$fence" ] || continue
        echo "$0: nothing is removed, because there are fences, which would stay in force and could not be changed any more:" >&2
        "$prefix/bin/qfence-user" ps >&2 || true
        echo "$0: end them by \`qfence-user rm NAME\` first" >&2
        exit 1
    done
    files=$(cat "$list")
    printf '%s\n' "$files" | while IFS= read -r file; do
        case /$file/ in */../* | //*) echo "$0: $file is no path below the prefix" >&2; exit 1 ;; esac
        rm -f "$prefix/$file"
    done
    # Directories of qfence's own, deepest first; others' files in them stay.
    for directory in share/qfence share/doc/qfence; do
        [ -d "$prefix/$directory" ] || continue
        find "$prefix/$directory" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done
    exit
fi

cd "$(dirname "$0")/files"
while IFS= read -r file; do
    mkdir -p "$prefix/$(dirname "$file")"
    partial=$prefix/$(dirname "$file")/.$(basename "$file").new
    rm -f "$partial"
    cp -P "$file" "$partial"
    # Units, hooks and scripts name the program.
    if [ ! -L "$file" ] && [ "$prefix" != /usr/local ] && grep -Iqs /usr/local/bin/qfence-user "$file"; then
        case $file in
            */kubernetes/* | share/doc/*) ;;
            *) sed "s|/usr/local/bin/qfence-user|$prefix/bin/qfence-user|g" "$file" >"$partial" ;;
        esac
    fi
    mv -T "$partial" "$prefix/$file"
done <share/qfence/files
echo "installed under $prefix; try: sudo $prefix/bin/qfence-user doctor"
