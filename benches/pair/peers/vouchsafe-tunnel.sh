#!/usr/bin/env bash
# Vouchsafe with connections carried in HBONE tunnels between the two sidecars.
export PAIR_TUNNEL=1
exec bash "$(dirname "${BASH_SOURCE[0]}")/vouchsafe.sh" "$@"
