#!/bin/sh
# readme.sh - the commands in README.md run: each block of ```sh marked "tested", as it stands, in a folder of its own. From
# the root, after make.
T=test/build/readme
rm -rf "$T" && mkdir -p "$T"
awk '/^```sh tested/ { on = 1; next } /^```/ { on = 0 } on' README.md > "$T/commands.sh"
for f in train run data; do ln -s "$(pwd)/$f" "$T/$f"; done
if [ -s "$T/commands.sh" ] && (cd "$T" && sh -e commands.sh > log.txt 2>&1); then echo "README.md's commands: 1 passed, 0 failed"
else
    tail -n 2 "$T/log.txt"
    echo "README.md's commands: 0 passed, 1 failed"
    exit 1
fi
