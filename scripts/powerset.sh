#!/usr/bin/env bash
# Lints the crate with every set of its features: each builds alone, and none does too.
set -euo pipefail

features=(rabbitmq redis sqlite rustls)
for ((set = 0; set < 1 << ${#features[@]}; set++)); do
    chosen=()
    for ((bit = 0; bit < ${#features[@]}; bit++)); do
        if ((set >> bit & 1)); then chosen+=("${features[bit]}"); fi
    done
    list=$(IFS=,; echo "${chosen[*]-}")
    echo "features: ${list:-none}"
    cargo clippy --locked --quiet --package celery-async-signals --lib --examples \
        --no-default-features --features "$list" -- -D warnings
done
