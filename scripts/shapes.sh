#!/usr/bin/env bash
# Shapes from data to new shapes: 2,500 procedural solids, fields, a vocabulary, a GPT, 500 new solids, their evaluation, 100
# of them as GLB and a contact sheet. Complete stages are skipped, so that a killed run can be continued.
#
#   bash scripts/shapes.sh                                  # two threads, under runs/shapes
#   COUNT=60 LEARN=600 STEPS=20 NEW=8 N=6 OUT=runs/small bash scripts/shapes.sh   # a trial
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
python=.venv/bin/python
OUT=${OUT:-runs/shapes} COUNT=${COUNT:-2500} NEW=${NEW:-500} N=${N:-500} THREADS=${THREADS:-2} LEARN=${LEARN:-4000}
STEPS=${STEPS:-1200} VOCABULARY=${VOCABULARY:-pca}

stage() { # a name, and a command; prints how long it took
    local name=$1 began=$SECONDS
    shift
    echo "== $name"
    "$@"
    echo "== $name: $((SECONDS - began)) s" | tee -a "$OUT/times.txt"
}

mkdir -p "$OUT"
# Fields that move in 128 directions: a vocabulary of these directions loses nothing but the rounding.
stage fit "$python" scripts/fit_fields.py --signals solids --count "$COUNT" --start subspace --subspace-steps "$LEARN" \
    --threads "$THREADS" --out "$OUT/fields"
case $VOCABULARY in
pca) options=(--components 128 --vocab-size 64) ;;
regions) options=(--grid 4 4 4 --vocab-size 512 --margin 1 --near 0.5 --symmetric 0 1 --batch 64 --points 256 --steps 1500) ;;
*) options=() ;;
esac
stage vocabulary "$python" -m tokenizers.build "$VOCABULARY" --fields "$OUT/fields" --out "$OUT/$VOCABULARY" "${options[@]}" \
    --sizes --probe-rows 0 --threads "$THREADS"
# The GPT begins each shape with its family, and sees too few shapes to do without dropout.
stage gpt "$python" scripts/train_gpt.py --fields "$OUT/fields" --tokenizer "$OUT/$VOCABULARY" --out "$OUT/gpt" \
    --steps "$STEPS" --batch 64 --labels --model.dropout 0.2 --eval-every 100 --patience 8 --sample-every 1000 \
    --threads "$THREADS"
stage sample "$python" scripts/sample.py --model "$OUT/gpt" --out "$OUT/samples" --n "$NEW" --fields "$OUT/fields"
stage evaluate "$python" scripts/evaluate.py --samples "$OUT/samples" --fields "$OUT/fields" --out "$OUT/evaluation" \
    --n "$N" --reference-split held-out --threads "$THREADS"
# A new field without a surface is named, and is no reason to say nothing of the others.
stage meshes "$python" scripts/mesh.py --fields "$OUT/samples" --out "$OUT/meshes" --n 100 --size 96 --turntable 2 || true
echo "new shapes: $OUT/meshes (sheet.png), evaluation: $OUT/evaluation/report.html, times: $OUT/times.txt"
