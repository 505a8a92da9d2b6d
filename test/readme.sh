#!/bin/sh
# readme.sh - the commands in README.md run: each block of ```sh marked "tested", as it stands, in a folder of its own; then
# the five of "Your own table" on the model that these made, with the small encoder of test/encoder.c. From the root, after
# make and test/encoder.c.
T=test/build/readme
rm -rf "$T" && mkdir -p "$T"
awk '/^```sh tested/ { on = 1; next } /^```/ { on = 0 } on' README.md > "$T/commands.sh"
sed -n '/^    \.\/train index MODEL/,/^$/p' README.md > "$T/table.sh"
for f in train run data; do ln -s "$(pwd)/$f" "$T/$f"; done
cat > "$T/all.sh" << 'END'
. ./commands.sh
mkdir MODEL text held-out
cp story/config.json story/model.safetensors story/tokenizer.json MODEL
ln -s ../data/train/fairytale.txt text && head -c 1200 data/test/fairytale.txt > held-out/one.txt
. ./table.sh > table.txt
END
if test/build/encoder-f32 "$T/DIR" mpnet && [ -s "$T/commands.sh" ] && [ "$(grep -c MODEL "$T/table.sh")" = 5 ] &&
    (cd "$T" && sh -e all.sh > log.txt 2>&1) && grep -q "^ttt " "$T/table.txt"; then
    echo "README.md's commands: 1 passed, 0 failed"
else
    tail -n 2 "$T/log.txt"
    echo "README.md's commands: 0 passed, 1 failed"
    exit 1
fi
