#!/bin/sh
# fuzz.sh - runs the targets of test/fuzz.c on inputs that clang's libFuzzer thinks out, from first ones made of the
# vectors, test/interop and data; from the root, by make:
#
#     make fuzz                              each target for ten seconds
#     make fuzz SECONDS=600 TARGET=model     one, for ten minutes
#     make fuzz COVERAGE=1                   the lines of ttmm.c's Part III that no input so far has reached, in functions
#                                            that one has; the others write files, print or ask the system
#
# What reaches something new is kept in test/build/fuzz.d/TARGET. An input that makes a target stop is kept there, too:
# its path is printed, and test/build/fuzz TARGET PATH shows it again.
seconds=${1:-10}
coverage=$3
B=test/build/fuzz.d
V=test/build/vectors
I=test/interop
mark='\377\377\376'
mkdir -p $B
export LLVM_PROFILE_FILE=$B/profile.profraw
targets=${2:-$(test/build/fuzz)}

# An input, as test/fuzz.c takes them. Files as they are; safetensors files as header and numbers.
file() { printf "$mark$1" && cat "$2"; }
header() {
    bytes=$(od -An -tu8 -N8 "$1" | tr -d ' ') && tail -c +9 "$1" | head -c "$bytes" && printf '\376'
}
parts() { printf "$mark$1" && header "$2" && tail -c +$((9 + bytes)) "$2"; }
changed() { # FOLDER COMMAND: of a model, with its config.json changed by sed
    printf "${mark}a" && sed "$2" "$1/config.json" && parts C "$1/model.safetensors"
}
zeros() { head -c "$1" /dev/zero; }

# The first inputs of a target, as files of the folder D.
first() {
    n=0
    case $1 in
    config | model)
        for m in $V/tied $V/qwen2 $V/linear $V/llama3 $V/long; do
            n=$((n + 1))
            { file a $m/config.json && parts C $m/model.safetensors; } > $D/first-$n
        done
        changed $V/linear 's/: false/: true/' > $D/first-both
        {
            printf "${mark}a" && sed 's/: false/: true/' $V/linear/config.json && printf "${mark}C" &&
                header $V/linear/model.safetensors && zeros $(($(wc -c < $V/linear/model.safetensors) - 8 - bytes))
        } > $D/first-equal
        changed $V/linear 's/num_hidden_layers": 1/num_hidden_layers": 0/' > $D/first-further
        changed $V/qwen2 's/^{/{"use_sliding_window":true,"sliding_window":8,"max_window_layers":3,/' > $D/first-window
        changed $V/tied 's/^{/{"layer_types":["full_attention"],"rope_parameters":{"rope_type":"default"},'`
            `'"partial_rotary_factor":1,"bos_token_id":1,"pad_token_id":null,/' > $D/first-keys
        { cat $D/first-1 && printf "${mark}b"'{"eos_token_id":[3,4],"temperature":0.5}'; } > $D/first-ends
        {
            file a $I/shards/config.json && printf "${mark}d" &&
                sed 's/model-00001-of-00002.safetensors/x/; s/model-00002-of-00002.safetensors/y/' \
                    $I/shards/model.safetensors.index.json && parts E $I/shards/model-00001-of-00002.safetensors &&
                parts F $I/shards/model-00002-of-00002.safetensors
        } > $D/first-shards ;;
    adapter)
        for m in $V/model/experts/[0-4]; do
            { file a "$m/adapter_config.json" && parts B "$m/adapter_model.safetensors"; } > "$D/first-${m##*/}"
            printf "${mark}a"'{"r":1,"lora_alpha":2,"rank_pattern":{"q":1},"alpha_pattern":{"^model.layers.0.mlp.down_proj":3,'`
                `'"q_proj$":5,"v_proj":2.5},"layers_to_transform":[0,1],"exclude_modules":["gate_proj"],'`
                `'"init_lora_weights":false}' > "$D/first-patterns-${m##*/}"
            parts B "$m/adapter_model.safetensors" >> "$D/first-patterns-${m##*/}"
        done ;;
    corpus)
        printf '%s' "${mark}A"'{"document_offsets":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},'`
            `'"sequence_offsets":{"dtype":"I64","shape":[3],"data_offsets":[16,40]},'`
            `'"tokens":{"dtype":"I32","shape":[3],"data_offsets":[40,52]},'`
            `'"document_file":{"dtype":"I32","shape":[1],"data_offsets":[52,56]},'`
            `'"sequence_document":{"dtype":"I32","shape":[2],"data_offsets":[56,64]},'`
            `'"embeddings":{"dtype":"F32","shape":[2,3],"data_offsets":[64,88]},'`
            `'"cluster":{"dtype":"I32","shape":[2],"data_offsets":[88,96]},'`
            `'"file_names":{"dtype":"U8","shape":[2],"data_offsets":[96,98]}}' > $B/header
        { printf "$(cat $B/header)"'\376' && zeros 8 && printf '\3' && zeros 15 && printf '\1' && zeros 7 && printf '\3' &&
            zeros 7 && printf 'a\0\0\0b\0\0\0\0\1\0\0' && zeros 44 && printf 'f\0'; } > $D/first-1 ;;
    tokenizer)
        for m in $V/bpe $I/bpe-*; do
            { file a "$m/config.json" && file b "$m/tokenizer.json" && printf "${mark}fSome text: it's 12 o'clock."; } \
                > "$D/first-${m##*/}"
        done
        {
            cat $D/first-bpe-llama3 && printf '<|eot_id|><b>' && printf "${mark}c" &&
                printf '{"added_tokens_decoder":{"1":{"content":"<|eot_id|>","special":true}},"eos_token":"<|end_of_text|>"}'
        } > $D/first-decoder
        {
            cat $D/first-bpe-gpt2 && printf '<|endoftext|><b>' && printf "${mark}c"'{"bos_token":{"content":"<a>"}}' &&
                printf "${mark}d"'{"eos_token":{"content":"<b>"},"additional_special_tokens":["<d>"]}'"${mark}e"'{"<c>":300}'
        } > $D/first-beside
        sed 's/"normalizer": *null/"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"}]}/' $D/first-bpe-gpt2 \
            > $D/first-sequence ;;
    encoder)
        for type in bert mpnet; do
            at='attention.self.query attention.self.key attention.self.value attention.output.dense' extra=1,2
            norm=attention.output.LayerNorm table=embeddings.token_type_embeddings
            around='TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A",'`
                `'"type_id":0}},{"SpecialToken":{"id":"</s>","type_id":0}}],"special_tokens":{"<s>":{"id":"<s>",'`
                `'"ids":[0]},"</s>":{"id":"</s>","ids":[2]}}'
            [ $type = bert ] || at='attention.attn.q attention.attn.k attention.attn.v attention.attn.o' extra=32,1 \
                norm=attention.LayerNorm table=encoder.relative_attention_bias \
                around='RobertaProcessing","sep":["</s>",2],"cls":["<s>",0],"trim_offsets":true'
            {
                printf "${mark}a"'[{"type":"sentence_transformers.models.Transformer","path":""},{"type":'`
                    `'"sentence_transformers.models.Pooling","path":"p"},{"type":"sentence_transformers.models.Normalize"}]'
                printf "${mark}b"'{"pooling_mode_mean_tokens":true}'"${mark}c"'{"max_seq_length":6,"do_lower_case":true}'
                printf "${mark}d"'{"model_type":"%s","hidden_act":"gelu","hidden_size":2,"num_attention_heads":1,'`
                    `'"num_hidden_layers":1,"intermediate_size":2,"layer_norm_eps":1e-12,"vocab_size":8,'`
                    `'"max_position_embeddings":8,"type_vocab_size":1}' $type
                printf "${mark}e"'{"added_tokens":[{"id":0,"content":"<s>","normalized":false,"special":true},'`
                    `'{"id":4,"content":"<M>","normalized":true,"lstrip":true}],"normalizer":{"type":"BertNormalizer",'`
                    `'"clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},'`
                    `'"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":"'"$around"'},'`
                    `'"model":{"type":"WordPiece","unk_token":"?",'`
                    `'"continuing_subword_prefix":"##","max_input_chars_per_word":20,"vocab":{"<s>":0,"<pad>":1,'`
                    `'"</s>":2,"?":3,"<M>":4,"a":5,"##b":6,"\344\270\255":7}}}'"${mark}G"'{'
                {
                    printf '%s.weight %s\n' embeddings.word_embeddings 8,2 embeddings.position_embeddings 8,2 $table $extra
                    for m in embeddings.LayerNorm encoder.layer.0.$norm encoder.layer.0.output.LayerNorm; do
                        printf '%s.weight 2\n%s.bias 2\n' $m $m
                    done
                    for m in $at intermediate.dense output.dense; do
                        printf 'encoder.layer.0.%s.weight 2,2\nencoder.layer.0.%s.bias 2\n' $m $m
                    done
                } | awk '{ split($2, d, ","); n = at + 4 * d[1] * (d[2] ? d[2] : 1)
                           printf "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%d,%d]}", c, $1, $2, at, n
                           c = ","; at = n }'
                printf '}\376' && zeros $((4 * (16 + 16 + 3 * 4 + 6 * 6) + 4 * ${extra%,*} * ${extra#*,})) | tr '\0' '>'
                printf "${mark}hAb \303\244 a<M>\344\270\255."
            } > $D/first-$type
        done ;;
    tokenize)
        for k in 0 1 2 3 4 5; do
            for text in french german python; do { printf $k && head -c 200 data/train/$text.txt; } > $D/first-$text-$k; done
            { printf $k && tail -c 300 $I/bpe-llama3/cases.txt; } > $D/first-cases-$k
        done ;;
    checkpoint)
        {
            printf "${mark}A"'{"__metadata__":{"ttmm":"settings"}' && for k in 0 1 2; do
                printf ',"%s":{"dtype":"F32","shape":[44],"data_offsets":[%d,%d]}' \
                    "$(echo weights first_moments second_moments | cut -d' ' -f$((k + 1)))" $((176 * k)) $((176 * k + 176))
            done
            printf ',"step_and_tokens":{"dtype":"I64","shape":[2],"data_offsets":[528,544]}}\376' && zeros 544
        } > $D/first-1 ;;
    array | compare)
        for f in $V/*.safetensors $V/given/*.safetensors; do
            n=$((n + 1))
            [ "$(wc -c < "$f")" -gt 3000 ] || { parts A "$f" && [ "$1" = array ] || parts B "$f"; } > $D/first-$n
        done
        for p in A B; do printf "$mark$p"'{"x":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}\376four'; done \
            > $D/first-dimensions
        for type in BOOL U8 I8 U16 F8_E4M3 BF16 F64; do
            w=$(echo $type | tr -d -c '[:digit:]' | sed 's/^84*3*$/8/; s/^$/8/')
            for p in A B; do
                printf "$mark$p"'{"x":{"dtype":"%s","shape":[2,3],"data_offsets":[0,%d]}}\376' $type $((6 * w / 8)) &&
                    zeros $((6 * w / 8))
            done > $D/first-$type
        done ;;
    check)
        for name in choices cache route ensemble nearest bpe; do
            {
                printf "${mark}a"'{"version":2,"files":{' &&
                    sed -n "/^ \"$name.safetensors\"/,/}}},*\$/p" $V/manifest.json | sed "s/\"$name.safetensors\"/\"x\"/; s/}}},\$/}}}/" &&
                    printf '}}' && parts B $V/$name.safetensors && parts C $V/$name.safetensors
            } > $D/first-$name
        done ;;
    text) head -c 500 data/train/german.txt > $D/first-1 && printf 'a\n<|endoftext|>\nb\r\n<|endoftext|>\r\nc' > $D/first-2 ;;
    ids) cp $V/tokens.ids $D/first-1 && printf '1 2 3\n4 5 299\n' > $D/first-2 ;;
    image)
        for m in tied model; do
            for type in f32 bf16; do ./run export $V/$m --dtype $type -o $D/first-$m-$type > $B/log; done
        done ;;
    command)
        printf 'run\neval\nm\nf\n--x=0.5\n--steps\n3\n--\n-x' > $D/first-1
        printf 'run\ninfo\n-o\nx\n--n\n7\n--quiet' > $D/first-2 ;;
    esac
}

# Words for all of them: every one that stands in Part III, as it is and as a key; JSON's and the input's own signs.
sed -n '/^ \* PART III/,/^\/\* ==== Tables/p' ttmm.c | grep -o '"[A-Za-z_|<>][A-Za-z_0-9|<>. -]*"' | sort -u | sed 's/ //' |
    awk '{ w = substr($0, 2, length($0) - 2); print "\"" w "\""; print "\"\\\"" w "\\\":\"" }' > $B/dictionary
cat >> $B/dictionary << 'EOF'
"{}"
"[]"
"[0,0]"
"null"
"true"
"false"
"1e308"
"\\u00e9"
"\\ud83d\\ude00"
"\"shape\":[2,3],\"data_offsets\":[0,24]"
"\xff\xff\xfea"
"\xff\xff\xfeB"
"\xff\xff\xfec"
"\xfe"
"\xcc\x81"
"\xcc\xa3"
"\xea\xb0\x80"
"\xe1\x84\x80\xe1\x85\xa1"
"\xe2\x80\xa8"
EOF

export ASAN_OPTIONS=allocator_may_return_null=1:quarantine_size_mb=4 UBSAN_OPTIONS=print_stacktrace=1
if [ -n "$coverage" ]; then
    rm -f $B/*.profraw
    for t in $targets; do
        LLVM_PROFILE_FILE=$B/$t.profraw test/build/fuzz "$t" -runs=0 $B/"$t" > $B/log 2>&1 || cat $B/log
    done
    llvm-profdata merge -o $B/profile $B/*.profraw &&
        llvm-cov export -format=lcov -instr-profile=$B/profile test/build/fuzz ttmm.c > $B/lines
    awk -F'[:,]' -v first="$(sed -n '/^ \* PART III/=' ttmm.c)" -v last="$(sed -n '/^\/\* ==== Tables/=' ttmm.c)" '
        /^SF:/ { library = /ttmm\.c$/ }
        { name = $0; sub(/^[^,]*,/, "", name) }
        /^FN:/ && library { begins[$2] = name }
        /^FNDA:/ && library { calls[name] = $2 }
        /^DA:/ && library && $2 > first && $2 < last {
            if ($2 in begins) entered = calls[begins[$2]]
            all++
            if (entered) most++
            if ($3 > 0) reached++
            else if (entered) print $2
        }
        END { printf "%d of %d lines of Part III are reached, %d of those in functions that are entered\n", reached, all, most > "/dev/stderr" }' \
        $B/lines > $B/missed
    awk 'NR == FNR { missed[$1]; next } FNR in missed { print FNR ": " $0 }' $B/missed ttmm.c
    exit
fi
failed=0
for t in $targets; do
    D=$B/$t
    mkdir -p "$D" && first "$t"
    test/build/fuzz "$t" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=16384 -print_final_stats=1 \
        -dict=$B/dictionary -artifact_prefix="$B/$t-" "$D" > $B/log 2>&1
    code=$?
    awk -v t="$t" '/number_of_executed_units/ { n = $2 } /average_exec_per_sec/ { rate = $2 } / cov: / { c = $0 }
        END { sub(/.* cov: /, "", c); sub(/ .*/, "", c); printf "%-11s %12d inputs, %6d a second; %5d edges\n", t, n, rate, c }' $B/log
    [ $code = 0 ] && continue
    failed=1
    grep -m 3 -E 'ERROR|not so|runtime error' $B/log
    echo "it stopped: test/build/fuzz $t $(sed -n 's/.*Test unit written to //p' $B/log)"
done
exit $failed
