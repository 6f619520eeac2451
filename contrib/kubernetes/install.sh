#!/bin/sh
# Copies qfence and its runtime from the image to the node, whose /usr/local/bin is mounted at the directory $1.
set -e
for program in qfence-user qfence-runc; do
    install -m 755 "/usr/local/bin/$program" "$1/.$program.new"
    mv -f "$1/.$program.new" "$1/$program"
done
