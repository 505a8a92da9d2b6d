#!/bin/sh
# cli.sh - the two programs as a user meets them: every verb works on a small model; an interrupted run goes on to the same
# bytes; every kind of wrong use and bad input gives the documented exit code and a sentence that says what is wrong. From
# the root, after make.
T=test/build/cli
. test/expect.sh

expect 0 "done" sh -c "./train all $T/m $T/cookbook.txt $T/c.txt $SMALL --tsv $T/summary.tsv && echo done"
for f in config.json model.safetensors tokenizer.json corpus.safetensors centroids.safetensors \
    experts/0/adapter_config.json experts/2/adapter_model.safetensors finetuned/adapter_model.safetensors; do
    if [ -s "$T/m/$f" ]; then ok; else fail "train all left no $f"; fi
done
[ -e "$T/m/checkpoint" ] && fail "train all left a checkpoint" || ok
expect 0 "finetune" cat "$T/summary.tsv"
expect 0 "done before" ./train all "$T/m" "$T/cookbook.txt" "$T/c.txt" $SMALL

# The same bytes again: another number of threads, the stages one by one, experts one by one, stopped and gone on.
./train all "$T/t" "$T/cookbook.txt" "$T/c.txt" $SMALL --quiet --threads 3
./train base "$T/s" "$T/cookbook.txt" "$T/c.txt" --quiet $(echo "$SMALL" | sed 's/--experts.*//')
./train index "$T/s" "$T/cookbook.txt" "$T/c.txt" --context 64 --quiet
./train cluster "$T/s" --experts 3 --quiet
./train experts "$T/s" --rank 2 --epochs 1 --only 2 --quiet
./train experts "$T/s" --rank 2 --epochs 1 --only 0-1 --quiet
./train finetune "$T/s" --rank 2 --epochs 1 --quiet
for f in model corpus centroids experts/0/adapter_model experts/2/adapter_model finetuned/adapter_model; do
    same "$T/m/$f.safetensors" "$T/t/$f.safetensors" "3 threads"
    same "$T/m/$f.safetensors" "$T/s/$f.safetensors" "stage by stage"
done
# Experts at once: any number of jobs; stopped while two run, or by one that fails while others run, and gone on with.
one_sentence() { # CODE TEXT WHAT: $stopped and $T/log, of what ran in the background
    if [ "$stopped" = "$1" ] && [ "$(grep -c '^train: ' "$T/log")" = 1 ] && grep -q "^train: .*$2" "$T/log"; then ok
    else fail "$3: expected status $1 and one sentence with \"$2\", found $stopped: $(tail -n 2 "$T/log")"; fi
}
until_said() { # FILE PATTERN COMMAND...: begin it, as process $pid; wait until its messages, in FILE, have the pattern
    said=$1 pattern=$2
    shift 2
    : > "$said" # those of an earlier command
    "$@" 2> "$said" &
    pid=$!
    while kill -0 $pid 2> /dev/null && ! grep -q "$pattern" "$said"; do sleep 0.02; done # or it has ended
}
interrupt() { # $pid
    kill $STOP $pid
    wait $pid
    stopped=$?
}
rm -rf "$T/jobs" && cp -r "$T/m" "$T/jobs"
EXPERTS="./train experts $T/jobs --rank 2"
for jobs in 1 2 3 8; do
    rm -r "$T/jobs/experts"
    expect 0 "one adapter a cluster" $EXPERTS --epochs 1 --jobs $jobs
    for k in 0 1 2; do same "$T/m/experts/$k/adapter_model.safetensors" "$T/jobs/experts/$k/adapter_model.safetensors" "$jobs jobs"; done
done
rm -r "$T/jobs/experts"
expect 0 "experts: 2 at once" $EXPERTS --epochs 1 --jobs 3 --only 1-2
expect 0 "1 of 3 done before" sh -c "rm -r $T/jobs/experts/1; $EXPERTS --epochs 1 --jobs 3"
for k in 0 1 2; do same "$T/m/experts/$k/adapter_model.safetensors" "$T/jobs/experts/$k/adapter_model.safetensors" "--only"; done
LONG="--dim 32 --layers 2 --heads 2 --intermediate 48 --context 64 --steps 900"
./train base "$T/whole" "$T/cookbook.txt" $LONG --quiet
if [ "$ELSEWHERE" != wasm ]; then # where signals are
STOP=-TERM
case $ELSEWHERE in windows*) STOP=-INT ;; esac
rm -r "$T/jobs/experts" && $EXPERTS --epochs 15 --quiet --jobs 1 && mv "$T/jobs/experts" "$T/jobs/whole"
until_said "$T/log" "%" $EXPERTS --epochs 15 --jobs 2
interrupt
one_sentence 130 "the same command goes on" "two jobs interrupted"
[ -n "$(ls "$T/jobs/checkpoint")" ] && ok || fail "two jobs interrupted left no checkpoint"
mkdir -p "$T/jobs/experts" && : > "$T/jobs/experts/2"
$EXPERTS --epochs 15 --jobs 3 2> "$T/log"
stopped=$?
one_sentence 4 "experts/2: the folder cannot be made" "one of three jobs fails"
grep -q "goes on from step" "$T/log" && ok || fail "three jobs do not go on from a checkpoint: $(cat "$T/log")"
rm "$T/jobs/experts/2"
expect 0 "one adapter a cluster" $EXPERTS --epochs 15 --jobs 2
for k in 0 1 2; do same "$T/jobs/whole/$k/adapter_model.safetensors" "$T/jobs/experts/$k/adapter_model.safetensors" "two jobs, gone on"; done
[ -e "$T/jobs/checkpoint" ] && fail "two jobs left a checkpoint" || ok
until_said "$T/log" "parameters" ./train base "$T/parts" "$T/cookbook.txt" $LONG
interrupt
[ $stopped = 130 ] && [ -s "$T/parts/checkpoint/base.safetensors" ] && [ ! -e "$T/parts/model.safetensors" ] && ok ||
    fail "an interrupted run: expected status 130 and a checkpoint, found status $stopped"
expect 3 "steps 900" ./train base "$T/parts" "$T/cookbook.txt" $LONG --quiet --lr 0.001
./train base "$T/parts" "$T/cookbook.txt" $LONG --quiet
same "$T/whole/model.safetensors" "$T/parts/model.safetensors" "interrupted and gone on"
case $ELSEWHERE in windows*)
    rm -r "$T/parts"
    test/build/break "$T/log" % ./train.bin base "$T/parts" "$T/cookbook.txt" $LONG
    stopped=$?
    one_sentence 130 "the same command goes on" "Ctrl-Break"
    ./train base "$T/parts" "$T/cookbook.txt" $LONG --quiet
    same "$T/whole/model.safetensors" "$T/parts/model.safetensors" "Ctrl-Break, gone on" ;;
esac
fi

# run, every verb
expect 0 "expert  similarity  weight" ./run route "$T/m" "Melt the butter and add the flour" --tsv "$T/route.tsv"
expect 0 "expert	similarity	weight" cat "$T/route.tsv"
expect 0 "cookbook" ./run route "$T/m" "Melt the butter and add the flour" --active 1
expect 0 "c 1" ./run route "$T/m" "static int loan_count(const struct loan *loans, size_t n)" --active 2
for how in "--merge dense" "--merge lowrank" "--merge ensemble" "--no-experts" "--adapter $T/m/experts/1" "--ttt --neighbours 3" \
    "--ttt --select sift --lambda 3 --neighbours 3 --passes 1" "--temperature 0" "--top-k 3 --active 2"; do
    expect 0 "Melt the butter" ./run generate "$T/m" "Melt the butter" --tokens 20 $how
done
expect 0 "12 tokens" ./run generate "$T/m" "Melt the butter" --tokens 12 --temperature 0.5
expect 0 "the context is full" ./run generate "$T/m" "Melt the butter" --tokens 500 --seed 5
printf 'Melt the butter' > "$T/prompt.txt"
echo 77 101 108 116 32 116 104 101 32 98 117 116 116 101 114 > "$T/prompt.ids"
./run generate "$T/m" "Melt the butter" --tokens 20 --quiet > "$T/a"
./run generate "$T/m" --file "$T/prompt.txt" --tokens 20 --quiet --threads 3 > "$T/b"
same "$T/a" "$T/b" "a prompt from a file, 3 threads"
./run generate "$T/m" --ids "$T/prompt.ids" --tokens 20 --quiet > "$T/b"
same "$T/a" "$T/b" "a prompt of token ids"
./run generate "$T/m" --tokens 20 --quiet < "$T/prompt.txt" > "$T/b"
same "$T/a" "$T/b" "a prompt from standard input"
# whatever bytes a prompt has (Windows knows text, in which some have a meaning), and names and words in any script
printf 'one\r\ntwo\032\r\n' > "$T/prompt"
./run generate "$T/m" --tokens 9 --quiet < "$T/prompt" > "$T/a"
./run generate "$T/m" --tokens 9 --quiet --file "$T/prompt" > "$T/b"
same "$T/a" "$T/b" "a prompt of CR, LF and Ctrl-Z"
head -c 11 "$T/a" > "$T/b" && same "$T/prompt" "$T/b" "a prompt that comes out again"
cp -r "$T/m" "$T/größe ☃" && printf 'größe ☃' > "$T/größe ☃/日本.txt"
./run generate "$T/größe ☃" --tokens 9 --print-ids --quiet --file "$T/größe ☃/日本.txt" > "$T/a"
./run generate "$T/m" "größe ☃" --tokens 9 --print-ids --quiet > "$T/b"
same "$T/a" "$T/b" "a prompt and a folder in several scripts"
expect 0 "" ./run route "$T/m" "Melt" --tsv "$T/größe ☃/表.tsv"
expect 0 "" ./run tokenize "$T/m" --file "$T/größe ☃/日本.txt" -o "$T/größe ☃/表.ids"
expect 0 "103 114 195 182 195 159 101 32 226 152 131 256" cat "$T/größe ☃/表.ids"
tr -d '\r' < "$T/größe ☃/表.tsv" > "$T/b" && same "$T/größe ☃/表.tsv" "$T/b" "a table's lines end in LF"
expect 0 "ttmm-10" ./run eval "$T/m" data/test/cookbook.txt data/test/c.txt --prefix 20 --ttt-prompts 3 --neighbours 4 --tsv "$T/eval.tsv"
for method in base finetuned ttmm-1 ttmm-3 ttmm-10 ttmm ensemble-10 uniform ttt; do
    if awk -v m=$method '$1 == m && NF == 9 && $3 > 1 { found = 1 } END { exit !found }' FS='\t' "$T/eval.tsv"; then ok
    else fail "eval --tsv has no row $method with 9 columns"; fi
done
for how in dense lowrank ensemble; do # several prompts at once, more threads: other times, all else the same
    for jobs in 1 3; do
        expect 0 "perplexities on these" ./run eval "$T/m" data/test/c.txt --prefix 20 --ttt-prompts 3 --neighbours 4 --merge $how \
            --jobs $jobs --threads $jobs --tsv "$T/table"
        cut -f 1-7 "$T/table" > "$T/table.$jobs" && tail -n 3 "$T/out" >> "$T/table.$jobs"
    done
    same "$T/table.1" "$T/table.3" "eval --merge $how, 3 jobs"
done
# --each: a line for each prompt and method; an interrupted run goes on, to the same lines
each="./run eval $T/m data/test/cookbook.txt data/test/c.txt --prefix 20 --prompts 9 --ttt-prompts 3 --neighbours 4"
rm -f "$T/each" "$T/again"
expect 0 "9 prompts" $each --each "$T/each"
cut -f 1-7 "$T/each" | sort > "$T/a"
[ "$(wc -l < "$T/each")" -eq 77 ] && ok || fail "eval --each: $(wc -l < "$T/each") lines, expected 2, 8 methods of 9 prompts, TTT of 3"
head -n 40 "$T/each" > "$T/again" && printf '7\tcookbook\ttt' >> "$T/again"
expect 0 "38 results are there already" $each --each "$T/again" --jobs 2
cut -f 1-7 "$T/again" | grep -v '^7.cookbook.tt.cut$' | sort > "$T/b"
same "$T/a" "$T/b" "eval --each, interrupted"
head -n 40 "$T/each" > "$T/b" && head -c "$(($(wc -c < "$T/b") - 2))" "$T/b" > "$T/again" # within the last number
expect 0 "37 results are there already" $each --only base --each "$T/again"
expect 0 "37 results are there already" $each --each "$T/again"
cp -r "$T/m" "$T/norm" && sed 's/"rms_norm_eps": [0-9.e-]*/"rms_norm_eps": 1e-3/' "$T/m/config.json" > "$T/norm/config.json"
expect 3 "no list of this evaluation's results" $(echo "$each" | sed "s,$T/m,$T/norm,") --each "$T/each"
expect 3 "was made with" ./train finetune "$T/norm" --rank 2 --epochs 1
rm -f "$T/again" # --only: some of the rows, and later the others
expect 0 "ttmm " $each --only ttmm,uniform --each "$T/again" --tsv "$T/table"
[ "$(cut -f 1 "$T/table" | tr '\n' ' ')" = "method ttmm uniform " ] && ok || fail "eval --only has other rows: $(cut -f 1 "$T/table")"
expect 0 "perplexities on these:" $each --only "ttt ttmm" --each "$T/again"
grep -q '^  ttmm [0-9.]*, ttt [0-9.]*$' "$T/out" && ok || fail "eval --only: $(tail -n 1 "$T/out")"
expect 0 "21 results are there already" $each --each "$T/again"
cut -f 1-7 "$T/again" | sort > "$T/b" && same "$T/a" "$T/b" "eval --each, row after row"
expect 2 "--only has ttmm-2, expected some of base" $each --only ttmm-2
expect 2 "--only is \" ,\", expected some of base" $each --only " ,"
expect 2 "--ttt-prompts is 0" $each --only ttt --ttt-prompts 0
head -c 10 "$T/each" > "$T/again" # cut in its first line, by a full disk, say; with zeros at its end, after a power cut
expect 0 "9 prompts" $each --only base --each "$T/again"
expect 0 "9 results are there already" $each --only base --each "$T/again"
{ head -n 7 "$T/each" && printf '\000\000\000'; } > "$T/again"
expect 0 "5 results are there already" $each --only base --each "$T/again"
expect 0 "9 results are there already" $each --only base --each "$T/again"
expect 2 "names twice" $each --each "$T/each" --tsv "$T/each"
cut -f 1-7 "$T/each" | sort > "$T/b" && same "$T/a" "$T/b" "--each and --tsv of one name"
if [ -z "$ELSEWHERE" ]; then
    cp data/test/c.txt "$T/a	tab.txt"
    expect 2 "has a tab" ./run eval "$T/m" "$T/a	tab.txt" --each "$T/again"
    rm "$T/a	tab.txt"
fi
expect 3 "no list of this evaluation's results" $each --each "$T/each" --tau 0.02
expect 3 "no list of this evaluation's results" $each --each "$T/each" --select sift --lambda 0.02
cp "$T/each" "$T/again" # of which --ttt-prompts takes fewer
expect 0 "ttt was run on 1 of the 9 prompts" $each --each "$T/again" --ttt-prompts 1
# of one prompt of all the bits a byte are those of that prompt alone
$each --only ttt --ttt-prompts 1 --tsv "$T/a" --quiet > "$T/log" && cut -f 1-7 "$T/a" > "$T/b"
$each --only ttt --ttt-prompts 1 --prompts 1 --tsv "$T/a" --quiet > "$T/log" && cut -f 1-7 "$T/a" > "$T/c"
same "$T/b" "$T/c" "eval, bits a byte of ttt's prompt"
echo a > "$T/no-list"
expect 3 "no list of this evaluation's results" $each --each "$T/no-list"
expect 4 "cannot be written" $each --each "$T/nowhere/each"
mkdir -p "$T/bare" && cp "$T/m/config.json" "$T/m/model.safetensors" "$T/bare" # a base alone, then with text
expect 0 "base" ./run eval "$T/bare" data/test/c.txt --prefix 20
expect 2 "--only has uniform" ./run eval "$T/bare" data/test/c.txt --prefix 20 --only uniform
./train index "$T/bare" "$T/cookbook.txt" --context 64 --quiet
expect 0 "ttt " ./run eval "$T/bare" data/test/c.txt --prefix 20 --ttt-prompts 2 --passes 1
expect 0 "is of other text" ./run route "$T/bare" "Melt" --experts "$T/m/experts" --centroids "$T/m/centroids.safetensors"
grep -q cookbook "$T/out" && fail "route: files of another clustering" || ok
expect 0 "" ./run merge "$T/m" "Melt the butter" -o "$T/merged"
./run generate "$T/m" "Melt the butter" --tokens 20 --temperature 0 --quiet > "$T/a"
./run generate "$T/merged" "Melt the butter" --tokens 20 --temperature 0 --quiet > "$T/b"
same "$T/a" "$T/b" "the merged model written and read back"
expect 0 "parameters" ./run info "$T/m"
expect 0 "memory" ./run info "$T/merged"
expect 0 "a firmware (run export)" ./run info "$T/m"
expect 0 "RAM:" ./run export "$T/m" -o "$T/m.h"
expect 0 "rounded to bf16" ./run export "$T/m" -o "$T/m.bin" --dtype bf16
expect 0 "flash:" ./run export "$T/bare" -o "$T/bare.bin" # a base alone
[ "$(grep -c "^static const uint32_t ttmm_flash" "$T/m.h")" = 1 ] && ok || fail "export: no array"
expect 0 "" ./run tokenize "$T/m" --file data/test/c.txt -o "$T/ids"
[ "$(tr ' ' '\n' < "$T/ids" | grep -c '^256$')" = 2 ] && ok || fail "tokenize: expected 2 documents"
mkdir -p "$T/ex" && for k in 0 1 2 3 4; do cp -r test/interop/qwen2/adapter "$T/ex/$k"; done # folders from elsewhere
elsewhere="--ids $T/q.ids --experts $T/ex --centroids test/build/vectors/model/centroids.safetensors --query test/build/vectors/query.safetensors"
echo 1 2 3 > "$T/q.ids"
expect 0 "expert  similarity  weight" ./run route test/interop/qwen2 $elsewhere
expect 0 "" ./run merge test/interop/qwen2 $elsewhere -o "$T/q" --dtype bf16
expect 0 '"model_type": "qwen2"' cat "$T/q/config.json"
expect 0 '"torch_dtype": "bfloat16"' cat "$T/q/config.json"
expect 0 "5 tokens" ./run generate "$T/q" --ids "$T/q.ids" --no-experts --temperature 0 --tokens 5
./run merge test/interop/qwen2 $elsewhere -o "$T/q32" --quiet
./run generate "$T/q32" --ids "$T/q.ids" --no-experts --temperature 0 --tokens 8 --quiet > "$T/a"
./run generate test/interop/qwen2 $elsewhere --temperature 0 --tokens 8 --quiet > "$T/b"
same "$T/a" "$T/b" "experts from elsewhere, merged and written"
./run generate test/interop/qwen2 $elsewhere --merge lowrank --temperature 0 --tokens 8 --print-ids --quiet > "$T/b"
same "$T/a" "$T/b" "the same experts beside the weights"
# by --query alone, without a prompt or a tokenizer; what the base's folder has arrives, nothing of another base stays
outside=${elsewhere#--ids $T/q.ids}
rm -rf "$T/foreign" && cp -r test/interop/qwen2 "$T/foreign"
kept="tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json merges.txt chat_template.jinja"
for f in $kept; do echo "$f" > "$T/foreign/$f"; done
expect 0 "expert  similarity  weight" ./run route "$T/foreign" $outside
expect 0 "" ./run merge "$T/foreign" $outside -o "$T/q"
for f in $kept; do same "$T/foreign/$f" "$T/q/$f" "what merge takes"; done
expect 0 "" ./run merge test/interop/qwen2 $outside -o "$T/q"
for f in $kept; do [ -e "$T/q/$f" ] && fail "merge left $f of another base" || ok; done
expect 0 '"bos_token_id": 25' cat "$T/q/config.json"
printf '{"top_k": 20, "eos_token_id": [99]}' > "$T/foreign/generation_config.json"
expect 0 "passed over: top_k 20; eos_token_id 99 is past the vocabulary, 27" ./run generate "$T/foreign" --ids "$T/q.ids" --no-experts --tokens 1
rm -r "$T/ex/3"
expect 0 "ex/3: is missing" ./run route test/interop/qwen2 $outside --active 1
cp -r test/interop/qwen2/adapter "$T/ex/3" && cp -r test/interop/qwen2/adapter "$T/ex/5"
expect 0 "ex/5: will never be chosen" ./run route test/interop/qwen2 $outside
two='\000\000\000@' # 2.0, F32
printf '\102\000\000\000\000\000\000\000''{"embeddings":{"dtype":"F32","shape":[1,6],"data_offsets":[0,24]}}'"$two$two$two$two$two$two" > "$T/long"
expect 0 "row 0 has the squared length 24" ./run route test/interop/qwen2 --experts "$T/ex" --centroids "$T/long" --query test/build/vectors/query.safetensors
rm -r "$T/ex/5"
expect 3 "tokenizer.json: is missing" ./run generate test/interop/qwen2 "text"
# eval, too, needs no corpus if the query is given: here the embeddings that another index made of the same prompts
./train index "$T/prompts" data/test/c.txt --context 60 --quiet
[ -e "$T/prompts/train.lock" ] && ok || fail "index: no lock in the folder that it made"
LC_ALL=C sed 's/embeddings built-in/embeddings of   f64/' "$T/prompts/corpus.safetensors" > "$T/of-double" # as a double build's
cp -r "$T/prompts" "$T/double" && cp "$T/of-double" "$T/double/corpus.safetensors"
expect 3 "by another build of train" ./train cluster "$T/double" --experts 2
./train cluster "$T/prompts" --experts 2 --quiet
for f in corpus centroids; do
    LC_ALL=C sed 's/embeddings built-in/embeddings of   f64/' "$T/prompts/$f.safetensors" > "$T/double/$f.safetensors"
done
expect 0 "done before" ./train cluster "$T/double" --experts 2
cp -r "$T/m" "$T/no-corpus" && rm "$T/no-corpus/corpus.safetensors"
expect 3 "by --query" ./run eval "$T/no-corpus" data/test/c.txt --context 60
expect 0 "ttmm-1" ./run eval "$T/no-corpus" data/test/c.txt --context 60 --prefix 20 --query "$T/prompts/corpus.safetensors"
expect 3 "by --query" ./run route test/interop/qwen2 --ids "$T/q.ids" --centroids test/build/vectors/model/centroids.safetensors
expect 2 "--dtype is f8" ./run merge test/interop/qwen2 $elsewhere -o "$T/q" --dtype f8
for form in gpt2 llama3 qwen2 smollm2 digits; do expect 0 "" ./run tokenize test/interop/bpe-$form --file data/test/c.txt; done
prompt="Melt the butter and add"
expect 0 "tensors of 23 tokens" ./run trace "$T/m" "$prompt" -o "$T/full" --route
expect 0 "tensors of 23 tokens" ./run trace "$T/m" "$prompt" -o "$T/cached" --route --cached
expect 0 " 0 of them" ./run compare "$T/full" "$T/cached" --rtol "$([ "$FAST" = 1 ] && echo 1e-4 || echo 0)"
expect 0 "" ./run trace "$T/m" "$prompt" -o "$T/beside" --route --merge lowrank --grad
expect 1 "EXTRA" ./run compare "$T/full" "$T/beside" --rtol 1e-4 # gradients are extra
expect 0 "" ./run trace "$T/m" "$prompt" -o "$T/base" --grad
expect 0 "" ./run trace "$T/m" "$prompt" -o "$T/three" --grad --threads 3
same "$T/base" "$T/three" "a trace, 3 threads"
expect 0 "" ./run trace "$T/m" "$prompt" -o "$T/one" --adapter "$T/m/experts/1" --grad
expect 1 "layers.0.q  " ./run compare "$T/base" "$T/one" --tsv "$T/compare.tsv"
expect 0 "grad.model.layers.1.mlp.up_proj.weight	F32 [48, 32]		" cat "$T/compare.tsv"
expect 0 " 0 of them" ./run compare "$T/m/model.safetensors" "$T/t/model.safetensors" --rtol 0
expect 0 "weights as named" sh -c "./run trace $T/m '$prompt' -o $T/named --route && grep -q similarity $T/named && echo weights as named"

# two small files: two rows, of which only the small one is off, by 1/8
safetensors() { # FILE HEADER DATA: a header of less than 256 bytes, data as printf has it
    { printf "\\$(printf %03o ${#2})\\000\\000\\000\\000\\000\\000\\000" && printf %s "$2" && printf "$3"; } > "$1"
}
entry() { printf '"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%s]}' "$@"; } # NAME TYPE SHAPE OFFSETS
thousand='\000\000\172\104' one='\000\000\200\077' off='\000\000\220\077' infinite='\000\000\200\177' # in F32; off: 1.125
safetensors "$T/a" "{$(entry x F32 2,2 0,16)}" "$thousand$one$one$one"
safetensors "$T/b" "{$(entry x F32 2,2 0,16)}" "$thousand$one$one$off"
expect 0 " 0.000125 " ./run compare "$T/a" "$T/b" --rtol 1e-3
expect 1 "[1, 1]  PAST THE TOLERANCE: 1, 1.125" ./run compare "$T/a" "$T/b" --rtol 1e-3 --by-row --tsv "$T/compare.tsv"
expect 0 "	0.125	0.125	1048576	[1, 1]	1	1.125	PAST" cat "$T/compare.tsv"
safetensors "$T/b" "{$(entry x I32 2,2 0,16)}" "$thousand$one$one$one"
expect 1 "OTHER TYPE: I32 [2, 2]" ./run compare "$T/a" "$T/b"
safetensors "$T/b" "{$(entry x F32 2,2 0,16)}" "$infinite$one$one$one"
expect 1 "       inf        inf" ./run compare "$T/a" "$T/b"
safetensors "$T/b" "{$(entry x F32 2,2 0,16)}" "$thousand$one$one$one$one"
expect 3 "$T/b: the last 4 bytes belong to no tensor" ./run compare "$T/a" "$T/b"
safetensors "$T/a" "{}" ""
expect 1 "hold no tensor" ./run compare "$T/a" "$T/a"

# the witness of test/BITS.md, line by line; the hash of all lines is sha256sum's; those of the other folders
expect 0 "bits of version $(sed -n 's/^Version \([0-9]*\)\..*/\1/p' test/BITS.md))" ./run info "$T/m"
if [ "$FAST" != 1 ]; then
    ./run witness test/build/vectors/wide --each > "$T/witness"
    same test/witness.txt "$T/witness" "the witness"
    for m in wide model tied qwen2 linear llama3; do
        expect 0 "$(sed -n "s/^    $m  *\([0-9a-f]\{64\}\)$/\1/p" test/BITS.md)" ./run witness test/build/vectors/$m
    done
    expect 0 "no experts: route, merge and beside are left out" ./run witness test/build/vectors/tied --only route
    command -v sha256sum > "$T/log" && expect 0 "all $(sha256sum < test/witness.txt | cut -d ' ' -f 1)" \
        ./run witness test/build/vectors/wide --threads 3
    grep -e '^merge ' -e '^beside ' test/witness.txt > "$T/a"
    ./run witness test/build/vectors/wide --each --only beside,merge > "$T/b"
    same "$T/a" "$T/b" "the witness, --only beside,merge"
fi

# check: a folder of vectors with a manifest; test/check.py says the same
mkdir -p "$T/v" "$T/y"
judge() { # CODE TEXT [PRECISION]: $T/y, by both
    expect "$1" "$2" ./run check "$T/v" "$T/y" --precision "${3:-f32}" --tsv "$T/check.tsv"
    command -v python3 > "$T/log" || return 0
    grep -v '^run: ' "$T/out" > "$T/a"
    python3 test/check.py "$T/v" "$T/y" "${3:-f32}" > "$T/b" 2> "$T/log"
    if [ $? = "$1" ] && { [ "$1" = 3 ] || cmp -s "$T/a" "$T/b"; }; then ok
    else fail "test/check.py: expected $(cat "$T/a"), found $(cat "$T/b" "$T/log")"; fi
}
ids() { printf '\\00%d\\000\\000\\000' "$@"; }
low='\000\000\000\000\000\000' # the six low bytes of a double
one="$low\\360\\077" two="$low\\000\\100" eighth="$low\\300\\077" nan="$low\\370\\177"
safetensors "$T/v/one" "{$(entry x F64 2,2 0,32),$(entry g I32 2 32,40),$(entry s I32 2 40,48),$(entry m F64 2 48,64)}" \
    "$two$two$one$one$(ids 5 6 7 7)$eighth$one"
safetensors "$T/v/two" "{$(entry z I32 1 0,4)}" "$(ids 3)"
cat > "$T/v/manifest.json" << END
{"version":2,"rule":"text","kinds":{},"files":{"one":{"what":"text","tensors":{
 "x":{"kind":"x","dtype":"F64","shape":[2,2],"f32":0.1,"f16":0.2},
 "g":{"dtype":"I32","shape":[2],"or":"s","margin":"m","f32":0.125,"f16":2},
 "s":{"dtype":"I32","shape":[2],"given":true}, "m":{"dtype":"F64","shape":[2],"given":true}}},
 "two":{"tensors":{"z":{"dtype":"I32","shape":[1]}}}}}
END
yours() { safetensors "$T/y/one" "{$(entry x "$1" 2,2 0,32),$(entry g I32 2 32,40)}" "$2$3"; } # TYPE(of x) X G
judge 3 "$T/y: holds no tensor of those"
yours F64 "$two$two$one$one" "$(ids 5 6)"
judge 0 "one                    2 right"
judge 0 "two                    not done"
judge 0 "2 right, 0 wrong, 1 not done: f32"
expect 0 "two	z	not done						0" cat "$T/check.tsv"
yours F64 "$two$two$one$one" "$(ids 7 6)"
judge 0 "one                    2 right, 1 near-tie the other way"
expect 0 "one	g	near-tie	" cat "$T/check.tsv"
yours F64 "$two$two$one$one" "$(ids 7 7)"
judge 1 "1 right, 1 wrong; first wrong: g [1] is 7, expected 6"
judge 0 "2 near-ties the other way" f16
yours F64 "$two$two$one$one" "$(ids 4 6)"
judge 1 "g [0] is 4, expected 5" f16
yours F64 "$two$two$one$eighth" "$(ids 5 7)"
judge 1 "0 right, 2 wrong; first wrong: x [1, 1] is 0.125, expected 1, off 0.875 of the largest, at most 0.1"
expect 0 "one	x	wrong	1	1	1	0.125	0.875	0.1" cat "$T/check.tsv"
expect 0 "one	g	wrong	0	1	6	7		0.125" cat "$T/check.tsv"
yours F64 "$two$two$one$low\\354\\077" "$(ids 5 6)"
judge 1 "x [1, 1] is 0.875, expected 1, off 0.125 of the largest, at most 0.1"
cp "$T/v/manifest.json" "$T/manifest" && sed 's/"f32":0.1,/"by":"tensor",&/' "$T/manifest" > "$T/v/manifest.json"
judge 0 "2 right, 0 wrong, 1 not done: f32"
sed 's/"f32":0.1,/"by":"column",&/' "$T/manifest" > "$T/v/manifest.json"
expect 3 "one: x: by is \"column\", expected row or tensor" ./run check "$T/v" "$T/y" --precision f32
cp "$T/manifest" "$T/v/manifest.json"
yours F64 "$two$two$one$nan" "$(ids 5 6)"
judge 1 "x [1, 1] is nan, expected 1"
yours I64 "$two$two$one$one" "$(ids 5 6)"
judge 1 "x is I64 [2, 2], expected reals"
safetensors "$T/y/one" "{$(entry x F64 4 0,32),$(entry q.r I32 1 32,36)}" "$two$two$one$one$(ids 1)"
judge 1 "0 right, 1 wrong, 1 not done, 1 unknown (q.r); first wrong: x is F64 [4], expected F64 [2, 2]"
expect 0 "one	q.r	unknown" cat "$T/check.tsv"
yours F64 "$two$two$one$one" "$(ids 5 7)"
expect 2 "needs --precision" ./run check "$T/v" "$T/y"
expect 2 "precision is f8" ./run check "$T/v" "$T/y" --precision f8
expect 2 "not an option of check" ./run check "$T/v" "$T/y" --rtol 1
expect 3 "manifest.json: one: x: bf16 is missing, expected a tolerance" ./run check "$T/v" "$T/y" --precision bf16
expect 3 "manifest.json: cannot be opened" ./run check "$T/y" "$T/v" --precision f32
cp "$T/c.txt" "$T/y/two"
judge 3 "y/two: is not a safetensors file"
rm "$T/y/two" && sed 's/I32",/F64",/' "$T/v/manifest.json" > "$T/a" && mkdir -p "$T/bad" && cp "$T/v/one" "$T/a" "$T/bad"
mv "$T/bad/a" "$T/bad/manifest.json"
expect 3 "bad/one: tensor g is I32 [2], expected \"F64\" [2] as manifest.json says" ./run check "$T/bad" "$T/y" --precision f32
head -c 200 "$T/v/manifest.json" > "$T/bad/manifest.json"
expect 3 "bad/manifest.json: is not a JSON object" ./run check "$T/bad" "$T/y" --precision f32
[ -n "$ELSEWHERE" ] || every_allocation run check "$T/v" "$T/y" --precision f16

# a comparison failed: 1; wrong use: 2
expect 1 "OTHER SHAPE" ./run compare "$T/m/model.safetensors" "$T/whole/model.safetensors"
expect 2 "found 1 argument, expected at least 2" ./run compare "$T/full"
expect 2 "expected at most 1" ./run info "$T/m" "$T/m"
expect 2 "-o F" ./run trace "$T/m" "x"
expect 2 "at once" ./run trace "$T/m" "xyz" -o "$T/x" --grad --cached
expect 2 "leave out --route" ./run trace "$T/m" "xyz" -o "$T/x" --route --adapter "$T/m/experts/1"
expect 2 "add --route" ./run trace "$T/m" "xyz" -o "$T/x" --merge lowrank
expect 2 "one of these" ./run generate "$T/m" "xyz" --file "$T/c.txt"
expect 2 "--merge is ensemble" ./run trace "$T/m" "xyz" -o "$T/x" --route --merge ensemble
expect 3 "at least 2 tokens" ./run trace "$T/m" "x" -o "$T/x"
expect 3 "$T/nowhere" ./run compare "$T/full" "$T/nowhere"
expect 3 "not a safetensors file" ./run compare "$T/full" "$T/c.txt"
expect 2 "usage" ./train
expect 2 "not a verb" ./train bake
expect 2 "usage" ./train all "$T/x"
expect 2 "is not an option" ./train all "$T/x" "$T/c.txt" --dimension 3
expect 2 "not an option of cluster" ./train cluster "$T/m" --dim 3
expect 2 "--dim is 0, expected a whole number from 1" ./train all "$T/x" "$T/c.txt" --dim 0
expect 2 "--jobs is 0, expected a whole number from 1" ./train experts "$T/m" --jobs 0
expect 2 "--rank is 2x" ./train all "$T/x" "$T/c.txt" --rank 2x
expect 2 "needs a value" ./train all "$T/x" "$T/c.txt" --rank
expect 2 "multiple" ./train base "$T/x" "$T/c.txt" --dim 33 --heads 2
expect 2 "--only" ./train experts "$T/m" --rank 2 --epochs 1 --only 3
expect 2 "--only" ./train experts "$T/m" --rank 2 --epochs 1 --only 2-1
expect 2 "not a verb" ./run bake
expect 2 "--merge is sum" ./run generate "$T/m" "x" --merge sum
expect 2 "-o DIR" ./run merge "$T/m" "x"
expect 2 "-o F.h" ./run export "$T/m"
expect 2 "--dtype is f16" ./run export "$T/m" -o "$T/x.h" --dtype f16
expect 4 "cannot be written" ./run export "$T/m" -o "$T/nowhere/x.h"
expect 2 "would be lost" ./run merge "$T/m" "x" -o "$T/m"
expect 2 "--temperature" ./run generate "$T/m" "x" --temperature -1
for ignored in "--neighbours 3" "--passes 2" "--ttt-lr 0.1" "--select sift"; do # what would take no part
    expect 2 "are for --ttt" ./run generate "$T/m" "x" $ignored
done
for ignored in "--beta 1" "--tau 0.1" "--max 3"; do
    expect 2 "which take no part here" ./run generate "$T/m" "x" --ttt $ignored
done
for ignored in "--prefix 9" "--experts $T/m/experts"; do
    expect 2 "which take no part here" ./run generate "$T/m" "x" --no-experts $ignored
done
expect 2 "--lambda is for --select sift" ./run generate "$T/m" "x" --ttt --lambda 3
expect 2 "add --route" ./run trace "$T/m" "x" -o "$T/trace" --tau 0.1
expect 2 "add --route" ./run trace "$T/m" "x" -o "$T/trace" --prefix 9
cp "$T/c.txt" "$T/named" # what is read is not written over
expect 2 "names twice" ./run tokenize "$T/m" --file "$T/named" -o "$T/named"
expect 2 "names twice" ./train index "$T/s" "$T/named" --tsv "$T/named"
same "$T/c.txt" "$T/named" "a text that is named twice"
expect 0 "usage" ./run -h
expect 0 "--steps" ./train base -h
expect 0 "lowrank" ./run bench --shape 32,1,2,1,48,257 --context 32 --batch 2 --experts 3 --rank 2 --tsv "$T/bench.tsv"
[ "$(cut -f 1 "$T/bench.tsv" | tr '\n' ' ')" = "work train lora prefill decode embed route merge lowrank beside ttt " ] && ok ||
    fail "bench --tsv: expected ten works, found $(cut -f 1 "$T/bench.tsv" | tr '\n' ' ')"
if awk -F '\t' 'NR > 1 && !($2 > 0 && $6 > 0) { bad = 1 } END { exit bad }' "$T/bench.tsv"; then ok; else fail "bench --tsv: a figure is 0"; fi
if awk -F '\t' '$1 == "lowrank" { n = $2 * $4 * 1e9 / 686144 } END { exit !(n > 0.999 && n < 1.001) }' "$T/bench.tsv"; then ok
else fail "bench, lowrank: expected the work of 32 tokens, 686144 flops"; fi
./train base "$T/tiny" "$T/c.txt" --dim 32 --heads 2 --layers 1 --context 4 --steps 1 --quiet
expect 0 "4 tokens" ./run bench "$T/tiny" --tsv "$T/bench.tsv"
if awk -F '\t' 'NR > 1 && $6 > 10000 { bad = 1 } END { exit bad || NR != 11 }' "$T/bench.tsv"; then ok
else fail "bench of a context of 4 tokens: expected no speed far beyond what bounds it"; fi
expect 0 "prefill" ./run bench "$T/m" --only prefill --context 32
expect 2 "one of them" ./run bench
expect 2 "six numbers" ./run bench --shape 32,1,2
for verb in generate route eval merge trace compare check tokenize info witness bench; do expect 0 "usage: run $verb" ./run $verb -h; done

# what excludes each other, and empty words
expect 2 "exclude each other" ./run generate "$T/m" "x" --ttt --no-experts
expect 2 "take no part" ./run generate "$T/m" "x" --ttt --merge ensemble
expect 2 "take no part" ./run generate "$T/m" "x" --no-experts --query "$T/query"
expect 2 "add --route" ./run trace "$T/m" "x" -o "$T/x" --experts "$T/m/experts"
# an ensemble of one expert is that one
for how in lowrank ensemble; do
    for heat in 0 0.8; do ./run generate "$T/m" "Melt" --active 1 --merge $how --temperature $heat --tokens 30 --quiet; done > "$T/$how"
done
same "$T/lowrank" "$T/ensemble" "an ensemble of one"
# centroids from elsewhere are not lost; an adapter beside the weights would count elsewhere
mkdir -p "$T/theirs" && cp "$T/m/config.json" "$T/m/model.safetensors" "$T/m/tokenizer.json" "$T/theirs"
cp test/build/vectors/model/centroids.safetensors "$T/theirs"
expect 3 "centroids.safetensors: was not written by train" ./train index "$T/theirs" "$T/c.txt" --context 64
cp "$T/m/experts/0/adapter_config.json" "$T/theirs"
expect 3 "holds adapter_config.json" ./run generate "$T/theirs" "x" --no-experts
expect 2 "first argument is empty" ./train base "" "$T/c.txt"
expect 2 "--output is empty" ./run merge "$T/m" "x" -o ""
expect 2 "from 2 to 1048576" ./train base "$T/x" "$T/c.txt" --context 1
expect 2 "expected nn or sift" ./run eval "$T/m" "$T/c.txt" --select first
expect 2 "--only has trian" ./run bench --shape 32,1,2,1,48,257 --only lora,trian
expect 2 "--only has rout, expected some of functions init" ./run witness "$T/m" --only pass,rout
expect 2 "six numbers" ./run bench --shape 4294967328,1,2,1,48,257
expect 2 "not a multiple" ./run bench --shape 33,1,2,1,48,257
expect 2 "vocab is 0" ./run bench --shape 32,1,2,1,48,0
expect 2 "even number" ./train base "$T/x" "$T/c.txt" --dim 9 --heads 3

# bad input: 3
printf '' > "$T/empty.txt"
printf 'a\0b' > "$T/binary.txt"
printf 'one\n<|endoftext|>\n<|endoftext|>\ntwo\n' > "$T/hole.txt"
expect 3 "$T/missing.txt" ./train all "$T/x" "$T/missing.txt"
expect 3 "$T/empty.txt: is empty" ./train all "$T/x" "$T/empty.txt"
expect 3 "$T/binary.txt: is not text" ./train all "$T/x" "$T/binary.txt"
expect 3 "$T/hole.txt: document 2 is empty" ./train all "$T/x" "$T/hole.txt"
expect 3 "experts" ./train all "$T/few" "$T/prompt.txt" --steps 2 --experts 99
expect 3 "steps 31" ./train all "$T/m" "$T/cookbook.txt" "$T/c.txt" $SMALL --steps 31
expect 3 "holds experts" ./train index "$T/m" "$T/c.txt" --context 64
expect 3 "holds experts" ./train cluster "$T/m" --experts 2
expect 3 "rank 2" ./train experts "$T/m" --rank 3 --epochs 1
expect 3 "config.json" ./run info "$T/nothing"
expect 3 "expected fewer than the context" ./run generate "$T/m" --file data/test/c.txt
expect 3 "is empty" ./run generate "$T/m" ""
expect 3 "cannot be" ./run generate "$T/m" --file "$T"
printf '1 2\0 3' > "$T/zero.ids"
expect 3 "token 2 is" ./run generate "$T/m" --ids "$T/zero.ids"
echo 1 2 257 > "$T/bad.ids"
expect 3 "token 3" ./run generate "$T/m" --ids "$T/bad.ids"
expect 3 "longer than the prefix" ./run eval "$T/m" "$T/prompt.txt"
rm -rf "$T/broken" && cp -r "$T/m" "$T/broken" && rm "$T/broken/model.safetensors"
expect 3 "model.safetensors" ./run generate "$T/broken" "x"
cp "$T/whole/model.safetensors" "$T/broken/model.safetensors"
expect 3 "expected [" ./run generate "$T/broken" "x"
cp "$T/m/model.safetensors" "$T/broken/model.safetensors" && rm "$T/broken/experts/1/adapter_model.safetensors"
expect 3 "experts/1" ./run eval "$T/broken" data/test/c.txt --prefix 20
expect 0 "base" ./run eval "$T/broken" data/test/c.txt --prefix 20 --only base,finetuned
head -c 1000 "$T/m/centroids.safetensors" > "$T/broken/centroids.safetensors"
expect 3 "cut short" ./run route "$T/broken" "x"

# models that are not ours are not overwritten, nor base, text and clusters while experts of theirs are there
cp -r test/interop/shards "$T/shards"
expect 3 "holds another model" ./train base "$T/shards" "$T/c.txt" --dim 8 --heads 1 --layers 1 --steps 1
expect 2 "would be lost" ./run merge "$T/m" "Melt" -o "$T/shards"
expect 2 "would be lost" ./run merge "$T/m" "Melt" -o test/interop/qwen2
expect 2 "would be lost" ./run merge "$T/merged" "Melt" --experts "$T/m/experts" --centroids "$T/m/centroids.safetensors" -o "$T/merged"
expect 2 "would be lost" ./run merge "$T/merged" "Melt" --experts "$T/m/experts" --centroids "$T/m/centroids.safetensors" -o "./$T/merged/"
expect 2 "would be lost" ./run merge "$T/merged" "Melt" --experts "$T/m/experts" --centroids "$T/m/centroids.safetensors" -o "$T/../cli/merged"
expect 0 "" ./run merge "$T/m" "Melt" -o "$T/merged"
[ -e "$T/merged/ttmm-same-folder.tmp" ] && fail "merge left the file by which it tells folders apart" || ok
mkdir -p "$T/mixed/model.safetensors.tmp" && cp "$T/merged/config.json" "$T/merged/model.safetensors" "$T/mixed"
echo '{}' > "$T/mixed/added_tokens.json" # of the model that was merged there before
expect 4 "" ./run merge "$T/m" "Melt" -o "$T/mixed" # new config.json, old weights: never
[ "$(ls "$T/mixed")" = model.safetensors.tmp ] && ok || fail "merge, which failed, left $(ls "$T/mixed")"
# one that was killed while it wrote the weights is given again
mkdir -p "$T/cut" && cp "$T/merged/config.json" "$T/cut" && head -c 999 "$T/merged/model.safetensors" > "$T/cut/model.safetensors.tmp"
expect 0 "" ./run merge "$T/m" "Melt" -o "$T/cut"
if diff -r "$T/merged" "$T/cut"; then ok; else fail "merge after one that was killed left another folder"; fi
for f in model corpus centroids; do
    rm -rf "$T/less" && cp -r "$T/m" "$T/less" && rm "$T/less/$f.safetensors"
    expect 3 "holds experts of another" ./train all "$T/less" "$T/cookbook.txt" "$T/c.txt" $SMALL
done
expect 3 "has no clusters" ./train experts "$T/less" --rank 2 --epochs 1 # centroids are missing
expect 3 "centroids.safetensors: cannot be opened" ./run generate "$T/less" "x"
expect 3 "nowhere/" ./run generate "$T/m" "x" --experts "$T/nowhere"
rm -rf "$T/less" && cp -r "$T/m" "$T/less" && rm -r "$T/less/experts/0"
expect 3 "experts/0/adapter_config.json" ./run eval "$T/less" data/test/c.txt
expect 0 "2 of 3 trained, rank 2" ./run info "$T/less"

# sequences longer than the base's context; the same text under another name
./train base "$T/narrow" "$T/c.txt" --dim 32 --heads 2 --layers 1 --context 16 --steps 1 --quiet
./train index "$T/narrow" "$T/c.txt" --context 64 --quiet
expect 3 "the base takes 16" ./train finetune "$T/narrow" --epochs 1
expect 3 "the base takes 16" ./run generate "$T/narrow" "Melt" --ttt --tokens 2
cp "$T/c.txt" "$T/again.txt"
expect 0 "done before" ./train index "$T/narrow" "$T/c.txt" --context 64
expect 0 "text and embeddings" ./train index "$T/narrow" "$T/again.txt" --context 64

# embeddings that do not fit together; ids whose text is not known
expect 3 "TTT cannot use" ./run eval "$T/m" data/test/c.txt --context 60 --prefix 20 --ttt-prompts 1 \
    --experts "$T/m/experts" --centroids test/build/vectors/model/centroids.safetensors --query test/build/vectors/query.safetensors
cp -r "$T/m" "$T/unread" && sed 's/"ByteLevel"/"Whitespace"/' "$T/m/tokenizer.json" > "$T/unread/tokenizer.json"
expect 3 "no tokenizer" ./run route "$T/unread" --ids "$T/prompt.ids"
expect 0 "" ./run generate "$T/unread" --ids "$T/prompt.ids" --no-experts --tokens 2
# A sentence encoder, small and random: at index time, and the same one at test time.
test/build/encoder-f32 "$T/enc" mpnet && test/build/encoder-f32 "$T/other" bert
ENC="--encoder $T/enc"
cp -r "$T/m" "$T/encoded" && rm -r "$T/encoded/experts" "$T/encoded/finetuned"
expect 2 "exclude each other" ./train index "$T/encoded" "$T/c.txt" $ENC --embeddings "$T/enc/model.safetensors"
expect 0 "index 100%" ./train index "$T/encoded" "$T/cookbook.txt" "$T/c.txt" --context 64 $ENC
expect 0 "done before" ./train index "$T/encoded" "$T/cookbook.txt" "$T/c.txt" --context 64 $ENC
if [ "$ELSEWHERE" != wasm ]; then # interrupted, and gone on with
pieces=12 # tokens a sequence, so that it lasts
[ -z "$sanitized" ] || pieces=48
cp -r "$T/encoded" "$T/alone" && rm "$T/encoded/corpus.safetensors"
./train index "$T/alone" data/train/*.txt --context $pieces $ENC --threads 1 --quiet
until_said "$T/log" "%" ./train index "$T/encoded" data/train/*.txt --context $pieces $ENC --threads 1
interrupt
one_sentence 130 "the same command goes on" "index interrupted"
[ -s "$T/encoded/checkpoint/embeddings.safetensors" ] && [ ! -e "$T/encoded/corpus.safetensors" ] && ok ||
    fail "an interrupted index left no checkpoint, or a corpus"
expect 3 "finish that one or remove the file" ./train index "$T/encoded" "$T/c.txt" --context 64 $ENC
expect 0 "index goes on from sequence" ./train index "$T/encoded" data/train/*.txt --context $pieces $ENC --threads 1
if diff -r "$T/alone" "$T/encoded"; then ok; else fail "index interrupted and gone on with left another folder"; fi
rm -r "$T/alone"
expect 0 "index 100%" ./train index "$T/encoded" "$T/cookbook.txt" "$T/c.txt" --context 64 $ENC
fi
./train cluster "$T/encoded" --experts 3 --quiet && ./train experts "$T/encoded" --rank 2 --epochs 1 --quiet
expect 3 "was embedded by the encoder" ./run route "$T/encoded" "Melt"
expect 3 "was embedded by the encoder" ./run eval "$T/encoded" data/test/c.txt
expect 3 ", and --encoder $T/other is" ./run route "$T/encoded" "Melt" --encoder "$T/other"
expect 3 "was embedded without an encoder" ./run route "$T/m" "Melt" $ENC
expect 3 "modules.json: cannot be opened" ./run route "$T/encoded" "Melt" --encoder "$T/m"
expect 2 "takes the place of --encoder" ./run route "$T/encoded" "Melt" $ENC --query "$T/enc/model.safetensors"
expect 2 "are for choosing" ./run generate "$T/encoded" "Melt" $ENC --no-experts
expect 2 "or --embedding" ./run trace "$T/encoded" "Melt" $ENC -o "$T/x"
expect 2 "takes \"text\" and --encoder DIR" ./run trace "Melt" --embedding -o "$T/x"
expect 2 "is of the encoder alone" ./run trace "Melt" --embedding $ENC --grad -o "$T/x"
expect 0 "uniform" ./run eval "$T/encoded" data/test/c.txt --prefix 20 --only base,uniform
expect 2 "and no MODEL" ./run trace "$T/m" "Melt" --embedding $ENC -o "$T/x"
expect 0 "expert  similarity  weight" ./run route "$T/encoded" "Melt the butter" $ENC
expect 0 "experts" ./run generate "$T/encoded" "Melt the butter" $ENC --tokens 3
expect 0 "trained on" ./run generate "$T/encoded" "Melt the butter" $ENC --tokens 3 --ttt --passes 1
expect 0 "ensemble-10" ./run eval "$T/encoded" "$T/again.txt" $ENC --context 60 --prefix 20 --ttt-prompts 1 --jobs 2
expect 0 "experts merged in" ./run merge "$T/encoded" "Melt the butter" $ENC -o "$T/merged"
expect 0 "the encoder, beside these" ./run info "$T/encoded" $ENC
expect 0 "24 tensors of 6 tokens" ./run trace "Melt the butter." --embedding $ENC -o "$T/embedding"
# the query is the embedding of the prefix (routing normalises it anew); without text nobody knows whose centroids are
expect 0 "tensors" ./run trace "$T/encoded" "Melt the butter.xyz" --route --prefix 16 $ENC -o "$T/routed"
LC_ALL=C sed 's/"embedding"/"query"    /' "$T/embedding" > "$T/query"
./run compare "$T/query" "$T/routed" --rtol 1e-6 > "$T/log" 2>&1
if grep "^query " "$T/log" | grep -q "within"; then ok; else fail "the query is not the encoder's embedding of the prefix"; fi
# --each is of one encoder's embeddings: of the text, or, without text, of the prompts
each="./run eval $T/bare data/test/c.txt --prefix 20 --only ttt --ttt-prompts 1 --passes 1 --each $T/embedded"
expect 0 "ttt " $each
./train index "$T/bare" "$T/cookbook.txt" --context 64 $ENC --quiet
expect 3 "no list of this evaluation's results" $each $ENC
rm "$T/encoded/corpus.safetensors"
each="./run eval $T/encoded data/test/c.txt --prefix 20 --only ttmm --each $T/chosen"
expect 0 "ttmm " $each $ENC
test/build/encoder-f32 "$T/alike" mpnet && sed 's/1e-12/2e-12/' "$T/enc/config.json" > "$T/alike/config.json"
expect 3 "no list of this evaluation's results" $each --encoder "$T/alike"
expect 0 "expert  similarity  weight" ./run route "$T/encoded" "Melt the butter" $ENC

# Processes in one folder: ten at once on any experts, two on everything, one that waits for another that is killed; they
# end with the bytes of one.
if [ "$ELSEWHERE" != wasm ]; then
cp -r "$T/m" "$T/ten" && rm -r "$T/ten/experts" "$T/ten/finetuned"
for only in 0-2 1 2 0-1 1-2 0 0-2 2 1 0-2; do
    ./train experts "$T/ten" --rank 2 --epochs 1 --only $only --threads 1 --quiet &
    all="$all $!"
done
for pid in $all; do if wait $pid; then ok; else fail "one of ten failed"; fi; done
./train finetune "$T/ten" --rank 2 --epochs 1 --quiet
if diff -r "$T/m" "$T/ten"; then ok; else fail "ten at once left another folder than one"; fi
./train all "$T/both" "$T/cookbook.txt" "$T/c.txt" $SMALL --threads 1 --quiet &
pid=$!
expect 0 "" ./train all "$T/both" "$T/cookbook.txt" "$T/c.txt" $SMALL --threads 1 --quiet
if wait $pid; then ok; else fail "one of two failed"; fi
if diff -r "$T/m" "$T/both"; then ok; else fail "two at once left another folder than one"; fi
# a lock lasts to the end of the work, past adapters that are written meanwhile
rm -r "$T/ten/experts"
long=25 # epochs, in which to be stopped
[ -z "$sanitized" ] || long=5
./train experts "$T/ten" --rank 2 --epochs $long --jobs 1 --quiet &
first=$!
made() { find "$T/ten/experts" -name adapter_model.safetensors 2> "$T/log" | wc -l; }
while kill -0 $first 2> /dev/null && [ "$(made)" -eq 0 ]; do sleep 0.01; done
kill -STOP $first
[ "$(made)" -lt 3 ] && ok || fail "all experts were there before a lock could be tried"
until_said "$T/err" "waiting" ./train cluster "$T/ten" --experts 2
grep -q "another train is at work on it, waiting" "$T/err" && ok || fail "clusters beside experts at work: $(head -n 1 "$T/err")"
kill -CONT $first
wait $first && ok || fail "experts beside a waiting train failed"
wait $pid
[ $? = 3 ] && ok || fail "clusters under trained experts: $(tail -n 1 "$T/err")"
rm -r "$T/ten/experts" && cp -r "$T/ten" "$T/alone"
./train experts "$T/alone" --rank 2 --epochs $long --quiet
for again in 1 2 3 4 5; do # on a busy machine it may be done before it is stopped
    until_said "$T/one" "%" ./train experts "$T/ten" --rank 2 --epochs $long --only 0
    first=$pid
    kill -STOP $first 2> /dev/null && [ "$(made)" -eq 0 ] && break
    kill -KILL $first 2> /dev/null
    wait $first 2> /dev/null
    rm -rf "$T/ten/experts" "$T/ten/checkpoint"
done
until_said "$T/err" "waiting" ./train experts "$T/ten" --rank 2 --epochs $long
kill -KILL $first
if wait $pid && grep -q "^expert 0 of 0-2: another train is at work on it, waiting" "$T/err"; then ok
else fail "who waits for one that is killed does not go on: $(tail -n 1 "$T/err")"; fi
if diff -r "$T/alone" "$T/ten"; then ok; else fail "after a killed one the folder is another"; fi
fi

# Killed at any moment, a folder that nobody may write in, one that disappears.
if [ -z "$ELSEWHERE" ]; then
for pause in 0.02 0.05 0.1 0.15 0.2 0.3 0.4 0.6 0.8 1; do
    ./train all "$T/killed" "$T/cookbook.txt" "$T/c.txt" $SMALL --quiet &
    pid=$!
    sleep $pause
    kill -KILL $pid 2> "$T/log"
    wait $pid 2> "$T/log"
done
expect 0 "" ./train all "$T/killed" "$T/cookbook.txt" "$T/c.txt" $SMALL
if diff -r "$T/m" "$T/killed"; then ok; else fail "killed and gone on with left another folder"; fi
nobody= # the superuser may write everywhere
[ "$(id -u)" != 0 ] || nobody="setpriv --reuid 65534 --regid 65534 --clear-groups"
if $nobody test -x train -a -r "$T/killed/config.json" 2> "$T/log"; then
    rm "$T/killed/train.lock" && chmod -R a+rX,a-w "$T/killed"
    expect 0 "done before" $nobody ./train all "$T/killed" "$T/cookbook.txt" "$T/c.txt" $SMALL
    expect 4 "cannot be" $nobody ./train all "$T/killed/m" "$T/c.txt" --steps 1
    chmod u+w "$T/killed" && mv "$T/killed/experts" "$T/experts" && chmod a-w "$T/killed"
    expect 4 "cannot be" $nobody ./train experts "$T/killed" --rank 2 --epochs 1
    chmod u+w "$T/killed" "$T/experts" && mv "$T/experts" "$T/killed/experts" && touch "$T/killed/train.lock"
    if diff -r "$T/m" "$T/killed"; then ok; else fail "a folder that is only read is another afterwards"; fi
    chmod -R u+w "$T/killed"
fi
until_said "$T/log" "^cluster" ./train all "$T/gone" "$T/cookbook.txt" "$T/c.txt" $SMALL --epochs 20
rm -rf "$T/gone" 2> "$T/err"
wait $pid
code=$?
if [ $code -ge 3 ] && [ $code -le 4 ] && tail -n 1 "$T/log" | grep -qE "cannot be|has disappeared"; then ok
else fail "a folder that disappears: expected exit code 3 or 4, found $code: $(tail -n 1 "$T/log")"; fi
cp -r "$T/m" "$T/gone" && rm -r "$T/gone/finetuned"
until_said "$T/log" "^finetune" ./train finetune "$T/gone" --rank 2 --epochs 40
rm -rf "$T/gone" 2> "$T/err"
wait $pid
code=$?
if [ $code = 4 ] && [ ! -e "$T/gone" ] && grep -q "has disappeared" "$T/log"; then ok
else fail "finetune in a folder that disappears: code $code: $(tail -n 1 "$T/log")"; fi
fi

# a corpus of ids: the same as that of its text, where a tokenizer tells the text; else routed by the ids alone
mkdir -p "$T/as-text" "$T/as-ids"
for f in cookbook c; do expect 0 "" ./run tokenize "$T/bare" --file "$T/$f.txt" -o "$T/as-ids/$f.ids"; done
for d in as-text as-ids; do cp "$T/m/config.json" "$T/m/model.safetensors" "$T/m/tokenizer.json" "$T/$d"; done
./train index "$T/as-text" "$T/cookbook.txt" "$T/c.txt" --context 64 --quiet
expect 0 "text and embeddings" ./train index "$T/as-ids" "$T/as-ids/cookbook.ids" "$T/as-ids/c.ids" --ids --context 64
expect 0 "" ./run compare "$T/as-text/corpus.safetensors" "$T/as-ids/corpus.safetensors" --rtol 0 # text and its ids
sed 's/u0061": 97/u0061": 98/; s/u0062": 98/u0062": 97/' "$T/m/tokenizer.json" > "$T/as-ids/tokenizer.json" # other text by these ids
expect 0 "text and embeddings" ./train index "$T/as-ids" "$T/as-ids/cookbook.ids" "$T/as-ids/c.ids" --ids --context 64
expect 1 "embeddings" ./run compare "$T/as-text/corpus.safetensors" "$T/as-ids/corpus.safetensors" --rtol 0
expect 0 "" ./run tokenize "$T/m" --file data/test/c.txt -o "$T/test.ids"
for words in "data/test/c.txt --tsv $T/a" "$T/test.ids --ids --tsv $T/b"; do
    ./run eval "$T/m" $words --prefix 20 --context 64 --ttt-prompts 0 --quiet > "$T/log"
done
cut -f 1-7 "$T/a" > "$T/a7" && cut -f 1-7 "$T/b" > "$T/b7" && same "$T/a7" "$T/b7" "eval of a text and of its ids"
rm "$T/as-ids/tokenizer.json" && sed 's/"ByteLevel"/"Metaspace"/' "$T/m/tokenizer.json" > "$T/as-ids/tokenizer.json"
expect 3 "Metaspace" ./train index "$T/as-ids" "$T/c.txt" --context 64
expect 0 "embeddings of their ids" ./train index "$T/as-ids" "$T/as-ids/cookbook.ids" "$T/as-ids/c.ids" --ids --context 64
expect 0 "done before" ./train index "$T/as-ids" "$T/as-ids/cookbook.ids" "$T/as-ids/c.ids" --ids --context 64
expect 0 "" ./train cluster "$T/as-ids" --experts 3
expect 0 "one adapter a cluster" ./train experts "$T/as-ids" --rank 2 --epochs 1
head -n 1 "$T/test.ids" | cut -d ' ' -f 1-50 > "$T/c.ids"
./run route "$T/as-ids" --ids "$T/c.ids" --active 3 --tsv "$T/a" > "$T/log"
mv "$T/as-ids/tokenizer.json" "$T/away" && cp "$T/m/tokenizer.json" "$T/as-ids" # the corpus knows that it is of ids
./run route "$T/as-ids" --ids "$T/c.ids" --active 3 --tsv "$T/b" > "$T/log"
same "$T/a" "$T/b" "routing by ids"
[ "$(wc -l < "$T/a")" -eq 4 ] && ok || fail "routing by ids: expected 3 experts"
mv "$T/away" "$T/as-ids/tokenizer.json"
expect 0 "4 tokens" ./run generate "$T/as-ids" --ids "$T/c.ids" --tokens 4 --temperature 0
expect 0 " - " ./run eval "$T/as-ids" "$T/test.ids" --ids --prefix 20 --context 64 --ttt-prompts 2 --passes 1 --tsv "$T/b"
for method in base ttmm-1 ttmm ttt; do
    awk -v m=$method '$1 == m && NF == 9 && $3 > 1 && $4 == "-" { found = 1 } END { exit !found }' FS='\t' "$T/b" && ok ||
        fail "eval --ids --tsv has no row $method with 9 columns and no bits per byte"
done
expect 3 "line 2: token 3 is 257, expected an id from 0 to 256" sh -c "printf '1 2\n3 4 257\n' > $T/bad.ids; ./train index $T/as-ids $T/bad.ids --ids"
expect 2 "--ids" ./train all "$T/as-ids" "$T/c.ids" --ids
# a byte-order mark does not count in text, and is named in JSON
printf '\357\273\277Melt the butter' > "$T/mark.txt"
./run generate "$T/m" "Melt the butter" --tokens 20 --quiet > "$T/a"
./run generate "$T/m" --file "$T/mark.txt" --tokens 20 --quiet > "$T/b"
same "$T/a" "$T/b" "a prompt behind a byte-order mark"
expect 0 "77 101 108 116" ./run tokenize "$T/m" --file "$T/mark.txt"
printf '\357\273\277' > "$T/unread/config.json" && cat "$T/m/config.json" >> "$T/unread/config.json"
expect 3 "config.json: is not JSON: it begins with a byte-order mark" ./run info "$T/unread"
rm -rf "$T/loud" && cp -r "$T/m/experts/1" "$T/loud"
sed 's/"lora_alpha": [0-9.e]*/"lora_alpha": 1e300/' "$T/m/experts/1/adapter_config.json" > "$T/loud/adapter_config.json"
expect 3 "too large" ./run generate "$T/m" "x" --adapter "$T/loud"
sed 's/"peft_type": "LORA"/"peft_type": "LOHA"/' "$T/m/experts/1/adapter_config.json" > "$T/loud/adapter_config.json"
expect 3 "peft_type is" ./run generate "$T/m" "x" --adapter "$T/loud"
sed 's/"num_hidden_layers": 2/"num_hidden_layers": 1/' "$T/m/config.json" > "$T/less/config.json"
expect 3 "expected 1 layers" ./run generate "$T/less" "x" --no-experts

# no room: 4
if [ -z "$ELSEWHERE" ]; then
    mknod "$T/device" c 1 3 2> "$T/log" || mkfifo "$T/device" # of our own: what is refused here must not be the system's
    expect 4 "not a regular file" ./run trace "$T/m" "Melt" -o "$T/device"
    if [ -f "$T/device" ]; then fail "a device was replaced by a file"; else ok; fi
fi
expect 4 "nowhere/table.tsv: cannot be written" ./train all "$T/x" "$T/c.txt" --tsv "$T/nowhere/table.tsv"
expect 4 "nowhere/table.tsv: cannot be written" ./run eval "$T/m" "$T/c.txt" --tsv "$T/nowhere/table.tsv"
expect 4 "cannot be made" ./train base "$T/c.txt/m" "$T/c.txt" --steps 1
expect 4 "out of memory" ./train base "$T/x" "$T/c.txt" --dim 65536 --heads 1024 --layers 1024 --intermediate 1048576 --steps 1

if [ -z "$ELSEWHERE" ]; then
# As a library: a caller links; one compiled for the other precision does not; `real` is the caller's own. Others: test/hosts.
cat > "$T/host.c" << 'END'
#include "ttmm.h"
#include <string.h>
typedef int real;
int main(void)
{
    ttmm_config shape;
    ttmm_model m;
    ttmm_error err;
    memset(&shape, 0, sizeof shape);
    return TTMM_VERSION < 10000 || ttmm_model_new(&m, &shape, &err) != TTMM_BAD_INPUT || sizeof(ttmm_real) < sizeof(real);
}
END
links() { "$@" -I. "$T/host.o" "$T/library.o" -o "$T/host" -lm > "$T/log" 2>&1 && "$T/host"; }
${CC:-cc} -std=c99 -c ttmm.c -o "$T/library.o"
${CC:-cc} -std=c99 -I. -c "$T/host.c" -o "$T/host.o"
if links ${CC:-cc}; then ok; else fail "a host program does not link: $(tail -n 1 "$T/log")"; fi
${CC:-cc} -std=c99 -DTTMM_DOUBLE -I. -c "$T/host.c" -o "$T/host.o"
if links ${CC:-cc}; then fail "a host in double links with the library in float"; else ok; fi
fi

echo "test/cli.sh: $passed passed, $failed failed"
[ $failed = 0 ]
