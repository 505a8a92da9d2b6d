#!/usr/bin/env -S node --no-warnings --no-turbo-fast-api-calls
// wasi.mjs - runs a program that was built for WASI, with the files of this machine: test/wasi.mjs PROGRAM ARGUMENT...
// (Without the second option node 20 ends in a segmentation fault, after a program whose memory grew.)
import { readFileSync } from 'node:fs';
import { WASI } from 'node:wasi';

const args = process.argv.slice(2);
const wasi = new WASI({ version: 'preview1', args, env: process.env, preopens: { '/': '/', '.': '.' }, returnOnExit: true });
const program = await WebAssembly.compile(readFileSync(args[0]));
process.exitCode = wasi.start(await WebAssembly.instantiate(program, wasi.getImportObject()));
