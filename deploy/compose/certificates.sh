#!/bin/sh
# Makes a certificate authority and the certificates of the demo, once, into the folder that is named. For the demo
# only: whoever has this folder can be anybody in it.
set -eu
folder=${1:?name a folder}
mkdir -p "$folder"
cd "$folder"
[ -e ca.crt ] || {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj '/CN=Sentinel demo CA' \
        -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
        -keyout ca.key -out ca.crt
}
# NAME PURPOSE: a certificate for the host NAME of the demo.
certificate() {
    [ -e "$1.crt" ] && return
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
    printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=%s\nbasicConstraints=CA:FALSE\n' "$1" "$2" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile "$1.ext" -out "$1.crt"
    rm "$1.csr" "$1.ext"
}
certificate sentinel serverAuth
certificate issuer serverAuth
certificate collector serverAuth
certificate prometheus clientAuth
certificate producer clientAuth
# Each container reads its own as another user.
chmod 0644 ./*.key ./*.crt
