#!/usr/bin/env bash
# Vouchsafe built with the second crypto provider (run --aws-lc builds it).
export VOUCHSAFE=${VOUCHSAFE_AWS_LC:-$PAIR_BIN/vouchsafe-aws-lc}
exec bash "$(dirname "${BASH_SOURCE[0]}")/vouchsafe.sh" "$@"
