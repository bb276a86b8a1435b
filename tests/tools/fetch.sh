#!/usr/bin/env bash
# Brings what the tests use beyond pip, where it can be had: `make test-tools`. One line for each thing; what cannot be
# had is said, and the tests that need it skip by name. So this ends with 0 whatever happens.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
KAFKA=.tools/kafka
log=$(mktemp)
trap 'rm -f "$log"' EXIT

said() { echo "test-tools: $1"; }

update_lists() { # once, however it ends: without a network each further try would wait as long
    if [ -z "${updated:-}" ]; then
        updated=yes
        timeout 120 apt-get update -qq || { echo "apt-get update ended with $?" && updated=no; }
    fi
    [ "$updated" = yes ]
}

bring_package() { # command, package, what for
    if command -v "$1" >/dev/null; then
        said "$1 is here"
    elif [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        said "$1 is missing ($3); install the package $2"
    elif update_lists >>"$log" 2>&1 &&
        DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -qq --no-install-recommends -y "$2" >>"$log" 2>&1; then
        said "$1 installed"
    else
        said "$1 cannot be had ($3): $(tail -n 1 "$log")"
    fi
}

bring_kafka() {
    # What was fetched is there until its successor is whole: offline, the one of another version is kept for later.
    if cmp -s tests/tools/pom.xml "$KAFKA/.complete"; then
        said "Apache Kafka is here"
        return
    fi
    local missing="cannot be had (the stream's tests run on noida-db)"
    [ -e "$KAFKA/.complete" ] && missing="of tests/tools/pom.xml cannot be had (the stream's tests run on the one that is here)"
    if ! command -v mvn >/dev/null; then
        said "Apache Kafka $missing: no mvn"
        return
    fi
    rm -rf "$KAFKA.new" && mkdir -p "$KAFKA.new/libs"
    if timeout 600 mvn -q -B -f tests/tools/pom.xml dependency:copy-dependencies \
        -DoutputDirectory="$PWD/$KAFKA.new/libs" -DincludeScope=runtime >>"$log" 2>&1; then
        cp tests/tools/pom.xml "$KAFKA.new/.complete"
        rm -rf "$KAFKA" && mv "$KAFKA.new" "$KAFKA"
        said "Apache Kafka fetched: $(du -sm "$KAFKA" | cut -f1) MB in $KAFKA"
    else
        rm -rf "$KAFKA.new"
        said "Apache Kafka $missing: $(grep -m1 ERROR "$log" | cut -c1-200)"
    fi
}

bring_browser_checks() {
    local folder=.tools/browser wanted=tests/tools/browser/package.json
    if cmp -s "$wanted" "$folder/.complete"; then
        said "the checks of pages are here"
    elif ! command -v npm >/dev/null; then
        said "the checks of pages cannot be had (axe-core, playwright-core): no npm"
    elif rm -rf "$folder" && mkdir -p "$folder" && cp "$wanted" "$folder/package.json" &&
        timeout 300 npm install --prefix "$folder" --no-audit --no-fund --no-package-lock --ignore-scripts >>"$log" 2>&1; then
        cp "$wanted" "$folder/.complete"
        said "the checks of pages fetched: axe-core, playwright-core"
    else
        said "the checks of pages cannot be had (axe-core, playwright-core): $(tail -n 1 "$log" | cut -c1-200)"
    fi
}

bring_package strace strace "the test that nothing is sent"
bring_package qemu-x86_64 qemu-user "the tests on an emulated processor"
bring_package java default-jre-headless "Apache Kafka"
bring_package mvn maven "Apache Kafka"
bring_kafka
bring_package chromium chromium "the checks of pages"
bring_package npm npm "the checks of pages"
bring_browser_checks
