#!/bin/sh
# Copies qfence, its runtime and its plugin from the image to the node, whose /usr/local/bin and /opt/nri/plugins are mounted at
# the directories $1 and $2. The plugin's file has the policy of the node: if there is one, it stays as it is. So does the
# runtime's. While a file is copied, its directory has two; a plugin without a number would be an error of the container
# runtime, and one of two that are alike fences a container.
set -e
put() {
    install -m 755 "/usr/local/bin/$1" "$2/$1.new"
    mv -f "$2/$1.new" "$2/$1"
}
keep() {
    if [ ! -e "$2/$1" ]; then
        put "$1" "$2"
    elif ! cmp -s "/usr/local/bin/$1" "$2/$1"; then
        echo "$1 of the node differs from that of the image, and stays as it is"
    fi
}
put qfence-user "$1"
keep qfence-runc "$1"
keep 10-qfence "$2"
