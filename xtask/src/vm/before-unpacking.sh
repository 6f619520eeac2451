# mmdebstrap runs this before packages are unpacked that nobody installs; $1 is the machine's root directory. Debian 12 has
# its programs and libraries in /usr alone.
set -e
: "${1:?}"
for below in bin lib sbin; do
    mkdir -p "$1/usr/$below"
    ln -s "usr/$below" "$1/$below"
done
