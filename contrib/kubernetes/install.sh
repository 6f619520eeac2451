#!/bin/sh
# Copies qfence, its runtime and its plugin from the image to the node, whose /usr/local/bin and /opt/nri/plugins are mounted at
# the directories $1 and $2. While the plugin is copied, its directory has two: they fence a container once. A name without a
# number would be an error of the container runtime.
set -e
put() {
    install -m 755 "/usr/local/bin/$1" "$2/$1.new"
    mv -f "$2/$1.new" "$2/$1"
}
put qfence-user "$1"
put qfence-runc "$1"
put 10-qfence "$2"
