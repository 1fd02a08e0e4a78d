#!/usr/bin/env bash
# MNIST from its files to an evaluation of new fields, in stages; started again, it continues where it stopped.
# --seed N is the seed of every stage but the evaluation (whose references and baselines stay the same) and has a folder of its own.
#   bash scripts/mnist.sh [--short] [--signals fashion-mnist] [--data-root DIR] [--unlabelled] [--seed N] [--threads N]
set -euo pipefail
here="$PWD"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
needs() { [ $# -ge 3 ] || { echo "mnist.sh: $1 needs $2." >&2; exit 2; }; }
signals=mnist short="" labels=--labels root=() threads=() seed=0
while [ $# -gt 0 ]; do
    case "$1" in
        --short) short=-short ;;
        --unlabelled) labels=--no-labels ;;
        --signals) needs --signals "mnist or fashion-mnist" "${@:2:1}"; signals="$2"; shift ;;
        --data-root) needs --data-root "the folder with the files" "${@:2:1}"; root=(--data-root "$(cd "$here" && realpath -- "$2")"); shift ;;
        --seed) needs --seed "a number" "${@:2:1}"; seed="$2"; shift ;;
        --threads) needs --threads "a number" "${@:2:1}"; threads=(--threads "$2"); shift ;;
        *) echo "mnist.sh: unknown argument $1; expected --short, --unlabelled, --signals NAME, --data-root DIR, --seed N or --threads N." >&2; exit 2 ;;
    esac
    shift
done
case "$signals" in
    mnist | fashion-mnist) ;;
    *) echo "mnist.sh: --signals must be mnist or fashion-mnist, got $signals." >&2; exit 2 ;;
esac
case "$seed" in
    "" | *[!0-9]*) echo "mnist.sh: --seed must be a whole number from 0 on, got $seed." >&2; exit 2 ;;
esac
vocabulary=(--grid 8 8 --vocab-size 1024 --batch 128 --steps 4000 --tune 1500) gpt=(--steps 20000 --shifts 4 --shift-by 0.1)
[ -z "$short" ] || { vocabulary=(--grid 8 8 --vocab-size 1024 --batch 128 --steps 1200 --tune 800); gpt=(--steps 4000); }
[ "$labels" = --labels ] || name=-unlabelled
out="runs/$signals"; [ "$seed" = 0 ] || out="$out-seed$seed"
words="regions$short" model="gpt$short${name:-}"

source scripts/environment.sh
stage() { printf '\n== %s (%s)\n' "$1" "$(date +%T)"; shift; "$@"; }
python=.venv/bin/python
stage "1 of 5: fields" $python scripts/fit_fields.py --signals "$signals" "${root[@]}" --seed "$seed" "${threads[@]}" \
    --out "$out/fields"
stage "2 of 5: vocabulary" $python -m tokenizers.build regions --fields "$out/fields" --out "$out/$words" \
    "${vocabulary[@]}" --seed "$seed" "${threads[@]}"
stage "3 of 5: GPT" $python scripts/train_gpt.py --fields "$out/fields" --tokenizer "$out/$words" --out "$out/$model" $labels \
    "${gpt[@]}" --batch 32 --lr 1.5e-3 --ema 0.998 --eval-every 400 --model.dropout 0 --seed "$seed" "${threads[@]}"
stage "4 of 5: new fields" $python scripts/sample.py --model "$out/$model" --n 1000 --seed "$seed" \
    --fields "$out/fields" --out "$out/$model-samples" "${threads[@]}"
stage "5 of 5: evaluation" $python scripts/evaluate.py --samples "$out/$model-samples" --model "$out/$model" \
    --fields "$out/fields" "${root[@]}" --out "$out/$model-evaluation" "${threads[@]}"
