#!/usr/bin/env bash
# Builds the fuzz targets and runs each for VOUCHSAFE_FUZZ_SECONDS (60), or only those named, as many at once as there
# are processors.
#
#   tests/fuzz/run.sh [TARGET ...]
#
# A finding is kept in target/fuzz/artifacts; the target with the finding's path as its argument shows it again. What was
# learnt is kept in target/fuzz/corpus. The last line is for tests/run.sh to add up.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly SECONDS_EACH=${VOUCHSAFE_FUZZ_SECONDS:-60} OUT=$PWD/../../target/fuzz

main() {
    local target running=0 failed=0 targets=("$@")
    ((${#targets[@]} > 0)) || mapfile -t targets < <(basename --multiple --suffix=.rs targets/*.rs)
    # The flags are in .cargo/config.toml, which these would replace.
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
    CARGO_TARGET_DIR=$OUT cargo build --release --locked
    for target in "${targets[@]}"; do
        if ((running == $(nproc))); then
            wait -n || failed=$((failed + 1))
            running=$((running - 1))
        fi
        fuzz "$target" &
        running=$((running + 1))
    done
    for ((; running > 0; running--)); do wait -n || failed=$((failed + 1)); done
    printf 'test result: fuzz. %d passed; %d failed\n' $((${#targets[@]} - failed)) "$failed"
    ((failed == 0))
}

fuzz() {
    local target=$1 log=$OUT/$1.log learnt=$OUT/corpus/$1 program
    program=$(echo "$OUT"/*/release/"$target")
    mkdir -p "$learnt" "$OUT/artifacts/$target"
    if "$program" -max_total_time="$SECONDS_EACH" -timeout="$LONGEST_SECONDS" -rss_limit_mb="$MOST_MEBIBYTES" \
        -max_len="$LONGEST_INPUT" -print_final_stats=1 -artifact_prefix="$OUT/artifacts/$target/" \
        "$learnt" "seeds/$target" >"$log" 2>&1; then
        printf '%-14s %s executions\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    else
        printf '%s FAILED, see %s\n' "$target" "$log"
        grep -E -A8 'panicked|ERROR: libFuzzer' "$log" | head -n 40
        return 1
    fi
}

# One input that takes longer or needs more is a finding.
readonly LONGEST_SECONDS=10 MOST_MEBIBYTES=1024
# Room for several times the largest seed.
readonly LONGEST_INPUT=16384

main "$@"
