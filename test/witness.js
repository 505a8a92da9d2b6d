// The witness of BITS.md in JavaScript (Node.js 20, no packages), written from that page alone, in its order:
//
//     node test/witness.js MODEL [--each] [--only stage,stage] [--length T] [--steps N] [--tokens N]
//
// All numbers are doubles here. f(x) rounds to float; so do stores into a Float32Array, and its map and from. + - * /
// and sqrt of floats in double, then rounded, are the operations of floats: each needs its own f or its own store.
// What no stage shows is not here: F16 and F64, ensembles, scores, TTT, the sentence encoder.
"use strict";
const { createHash } = require("node:crypto");
const { readFileSync, existsSync } = require("node:fs");
const f = Math.fround;
const range = (n, term = i => i) => Array.from({ length: n }, (_, i) => term(i));
const floats = (n, term) => Float32Array.from({ length: n }, (_, i) => term(i));

// ---- 1. Numbers -----------------------------------------------------------------------------------------------------
// A tensor: its shape, its numbers in data, and views of them as rows.
const split = (data, width) => range(data.length / width, i => data.subarray(i * width, (i + 1) * width));
function tensor(shape, data = new Float32Array(shape.reduce((a, b) => a * b, 1))) {
    return { shape, data, rows: split(data, shape[shape.length - 1]) };
}
const like = x => tensor(x.shape), copy = x => tensor(x.shape, x.data.slice());

const lane = new Float32Array(16);
function dot(x, y) {                                            // 16 lanes, halved until one is left
    lane.fill(0);
    for (let k = 0; k < x.length; k++) lane[k & 15] += f(x[k] * y[k]);
    for (let h = 8; h >= 1; h /= 2) for (let l = 0; l < h; l++) lane[l] += lane[l + h];
    return lane[0];
}
const sum = x => dot(x, x.map(() => 1));                        // x * 1 is x
const dot3 = (x, y, z) => dot(x.map((xk, k) => xk * y[k]), z);
const max = x => x.reduce((a, b) => Math.max(a, b)), minus = (x, m) => x.map(xk => xk - m);
const argmax = x => x.indexOf(max(x));
const total = x => x.reduce((a, b) => a + b, 0);                // in double, ascending, from 0
function add(y, a, b) {                                         // a term of "rows": y_i = y_i + a b_i
    for (let i = 0; i < y.length; i++) y[i] += f(a * b[i]);
}

// A safetensors file: the length of the header in 8 bytes, the header in JSON, the numbers.
function readTensors(file) {
    const bytes = readFileSync(file), begin = 8 + Number(bytes.readBigUInt64LE(0)), float = Buffer.alloc(4);
    const { __metadata__, ...header } = JSON.parse(bytes.toString("utf8", 8, begin));
    const read = {
        F32: at => bytes.readFloatLE(at),
        BF16: at => (bytes.copy(float, 2, at, at + 2), float.readFloatLE(0)),
    };
    return new Map(Object.entries(header).map(([name, { dtype, shape, data_offsets: [from, to] }]) => {
        const n = shape.reduce((a, b) => a * b, 1), width = (to - from) / n;
        return [name, tensor(shape, floats(n, i => read[dtype](begin + from + i * width)))];
    }));
}

// ---- 2. exp, log, sin, cos ------------------------------------------------------------------------------------------
function hex(text) {                                            // as in C: 0x1.8p+52 (2 ** k is exact in Node.js)
    const [, digits, exponent] = text.match(/^-?0x1\.([0-9a-f]*)p([+-]\d+)$/);
    return (text[0] === "-" ? -1 : 1) * Number("0x1" + digits) * 2 ** (Number(exponent) - 4 * digits.length);
}
const LN2H = hex("0x1.62e42fee00000p-1"), LN2L = hex("0x1.a39ef35793c76p-33"), LOG2E = hex("0x1.71547652b82fep+0");
const SQRT_HALF = hex("0x1.6a09e667f3bcdp-1"), TWO_OVER_PI = hex("0x1.45f306dc9c883p-1");
const HALF_PI = ["0x1.921fb54p+0", "0x1.10b46118p-30", "0x1.313198ap-61", "0x1.701b839a25205p-92"].map(hex);
const rint = x => x + hex("0x1.8p+52") - hex("0x1.8p+52");
const horner = (z, constants) => constants.reduce((p, c) => p * z + c);
const factorial = n => n < 2 ? 1 : n * factorial(n - 1);
const EXP_TERMS = range(12, i => 1 / factorial(13 - i));                        // 1/13!, 1/12! ... 1/2!
const LOG_TERMS = range(10, i => 2 / (21 - 2 * i));                             // 2/21, 2/19 ... 2/3
const SIN_TERMS = range(8, i => (i % 2 ? -1 : 1) / factorial(17 - 2 * i));      // 1/17!, -1/15! ... -1/3!
const COS_TERMS = range(7, i => (i % 2 ? -1 : 1) / factorial(16 - 2 * i));      // 1/16!, -1/14! ... 1/4!

function EXP(x) {
    const y = Math.min(Math.max(x, -750), 720), n = rint(y * LOG2E);
    const high = y - n * LN2H, r = high - n * LN2L, low = (high - r) - n * LN2L, one = 1 + r;
    const p = one + (((1 - one) + r) + (r * r * horner(r, EXP_TERMS) + low)), m = n + 2048, h = Math.floor(m / 2);
    return p * 2 ** (h - 1024) * 2 ** (m - h - 1024);
}
function LOG(x) {
    if (!(x > 0 && x < Infinity)) return x === 0 ? -Infinity : x > 0 ? Infinity : NaN;
    let k = 0, f1 = x;
    for (; f1 >= 2 * SQRT_HALF; k++) f1 /= 2;
    for (; f1 < SQRT_HALF; k--) f1 *= 2;
    const g = f1 - 1, s = g / (2 + g), z = s * s, R = horner(z, LOG_TERMS) * z, q = 0.5 * g * g;
    return k * LN2H + (g - (q - (s * (q + R) + k * LN2L)));
}
function sub(a, b) {
    const d = a - b, t = d - a;
    return [d, (a - (d - t)) - (b + t)];
}
function sinCos(x) {
    if (!(Math.abs(x) <= 2 ** 22)) return [NaN, NaN];
    const n = rint(x * TWO_OVER_PI), [r1, e1] = sub(x - n * HALF_PI[0], n * HALF_PI[1]);
    const [r2, e2] = sub(r1, n * HALF_PI[2]), [r, e] = sub(r2, n * HALF_PI[3] - (e1 + e2));
    const z = r * r, g = 0.5 * z, one = 1 - g;
    const sr = r + (r * z * horner(z, SIN_TERMS) + e * (1 - 0.5 * z));
    const cr = one + (((1 - one) - g) + (z * z * horner(z, COS_TERMS) - r * e));
    return [[sr, cr], [cr, -sr], [-sr, -cr], [-cr, sr]][n & 3];
}
const SIN = x => sinCos(x)[0], COS = x => sinCos(x)[1];
const P = `-0x1.abae4bf126e94p-31 0x1.1f562b648ddeap-27 -0x1.8fca12ec01cccp-24 0x1.fa2720f59ff69p-21
    -0x1.2128fde951fbep-17 0x1.26f9fc847572ap-14 -0x1.0908608843dacp-11 0x1.9c83eca4c2699p-9
    -0x1.1070cb9fee9ebp-6 0x1.2a78d10016c20p-4 -0x1.0c56e48f1a817p-2 -0x1.1868dcff76633p-4`.split(/\s+/).map(hex);
const Q = `0x1.565c0d29eab84p-38 -0x1.0668e2a3b3d52p-33 0x1.6a9a707b07203p-30 -0x1.24b5e7caf8fe2p-27
    0x1.1ed606d0dc511p-25 -0x1.f255c7354fd42p-25 -0x1.b7d23782f92c1p-23 0x1.1e24b2100a0a3p-19 -0x1.448472790fc59p-17
    0x1.c852ae913c71fp-16 -0x1.b92ddb6c6e919p-16 -0x1.f1b04a7e26e05p-13 0x1.033f5a12d4dcep-9 -0x1.48c9d37fc1d58p-7
    0x1.5477f099b6d10p-5 0x1.afabc11a2afd8p-1 0x1.51c9b0006c21ap+1 0x1.d97fbf27aa2a1p+0`.split(/\s+/).map(hex);
function ERF(x) {
    const z = x * x - 0.625, t = Math.min(Math.abs(x), 6) - 1;
    return Math.abs(x) < 1 ? x + x * horner(z, P) : Math.sign(x) * (1 - EXP(-horner(t, Q)));
}
const exp = x => f(EXP(x)), log = x => f(LOG(x));               // of floats

// ---- 3. Random numbers ----------------------------------------------------------------------------------------------
const u64 = z => BigInt.asUintN(64, z);
function mix(z) {
    z = u64((z ^ z >> 30n) * 0xbf58476d1ce4e5b9n);
    z = u64((z ^ z >> 27n) * 0x94d049bb133111ebn);
    return z ^ z >> 31n;
}
class Stream {
    constructor(seed, purpose, index) {
        this.s = mix(BigInt(seed));
        for (const c of Buffer.from(purpose)) this.s = u64(mix(this.s ^ BigInt(c)) + 1n);
        this.s = mix(this.s ^ BigInt(index));
    }
    next() { return mix(this.s = u64(this.s + 0x9e3779b97f4a7c15n)); }
    uniform() { return Number(this.next() >> 11n) * 2 ** -53; }
    below(n) {
        let x = this.next();
        while (x < 2n ** 64n % BigInt(n)) x = this.next();
        return Number(x % BigInt(n));
    }
    normal() {
        const u = 1 - this.uniform(), v = this.uniform();
        return Math.sqrt(-2 * LOG(u)) * COS(6.283185307179586 * v);
    }
}

// ---- 4. Forward -----------------------------------------------------------------------------------------------------
// A model is { config, tensors }, an adapter { factor, tensors }, tensors a Map by the names in the files.
function readModel(folder) {
    const c = JSON.parse(readFileSync(`${folder}/config.json`));
    const rope = { rope_theta: c.rope_theta ?? 10000, ...c.rope_scaling, ...c.rope_parameters };
    const { hidden_size: D, num_attention_heads: H, num_key_value_heads: G, num_hidden_layers: L, vocab_size: V } = c;
    const S = c.head_dim ?? D / H, epsilon = f(c.rms_norm_eps ?? 1e-6);
    const frequencies = range(S / 2, j => frequency(rope, EXP(-2 * j / S * LOG(rope.rope_theta))));
    return { config: { D, H, G, L, V, S, epsilon, frequencies }, tensors: readTensors(`${folder}/model.safetensors`) };
}
function readAdapter(folder, w) {                               // f = w x scale
    const { r, lora_alpha, use_rslora } = JSON.parse(readFileSync(`${folder}/adapter_config.json`));
    const scale = f(lora_alpha / (use_rslora ? Math.sqrt(r) : r));
    return { factor: f(w * scale), tensors: readTensors(`${folder}/adapter_model.safetensors`) };
}
function frequency(rope, fj) {
    if (rope.rope_type === "linear") return fj / rope.factor;
    if (rope.rope_type !== "llama3") return fj;
    const n = rope.original_max_position_embeddings * fj / 6.283185307179586;
    const s = (n - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
    return s >= 1 ? fj : s <= 0 ? fj / rope.factor : (1 - s) * fj / rope.factor + s * fj;
}
const embedding = model => model.tensors.get("model.embed_tokens.weight");
const head = model => model.tensors.get("lm_head.weight") ?? embedding(model);
const lora = (name, part) => `base_model.model.${name}.lora_${part}.weight`;
const updates = (adapters, name) => adapters.filter(({ tensors }) => tensors.has(lora(name, "A"))).map(
    ({ factor, tensors }) => ({ factor, A: tensors.get(lora(name, "A")), B: tensors.get(lora(name, "B")) }));
const shrink = ({ factor, A }, x) => Float32Array.from(A.rows, a => dot(x, a) * factor);        // u

// y_o = dot(x, W_o) + b_o + dot(u, B_o)
function linear(model, adapters, name, x) {
    const W = model.tensors.get(`${name}.weight`), bias = model.tensors.get(`${name}.bias`);
    const y = tensor([x.shape[0], W.shape[0]]);
    y.rows.forEach((out, t) => {
        W.rows.forEach((w, o) => out[o] = dot(x.rows[t], w));
        if (bias) add(out, 1, bias.data);
        for (const update of updates(adapters, name)) {
            const u = shrink(update, x.rows[t]);
            update.B.rows.forEach((b, o) => out[o] += dot(u, b));
        }
    });
    return y;
}

// y_j = g_j (x_j i), i = 1 / sqrt(dot(x, x) / D + epsilon)
function norm({ D, epsilon }, x, { data: g }) {
    const i = x.rows.map(row => f(1 / f(Math.sqrt(f(f(dot(row, row) / D) + epsilon)))));
    return { ...tensor(x.shape, x.data.map((xj, n) => g[n % D] * f(xj * i[Math.floor(n / D)]))), i };
}

// Each head turns by its position's angles: (a c - b s, b c + a s); backwards with -s.
function rotate({ S, frequencies }, x, positions, sign) {
    const half = S / 2;
    positions.forEach((p, t) => frequencies.forEach((fj, j) => {
        const c = f(COS(p * fj)), s = sign * f(SIN(p * fj));
        for (const y of split(x.rows[t], S)) {
            const a = y[j], b = y[j + half];
            y[j] = f(a * c) - f(b * s);
            y[j + half] = f(b * c) + f(a * s);
        }
    }));
}

// Of each query of each head, heads outermost: visit(its row among q's heads, the rows of its keys among k's, P, z).
function attend({ H, G, S }, sequences, q, k, visit) {
    const z = f(1 / Math.sqrt(S)), Q = split(q.data, S), K = split(k.data, S);
    for (let h = 0; h < H; h++) sequences.reduce((start, { length }) => {
        for (let i = 0; i < length; i++) {
            const query = (start + i) * H + h, keys = range(i + 1, j => (start + j) * G + Math.floor(h / (H / G)));
            const t = Float32Array.from(keys, key => dot(Q[query], K[key]) * z);
            const e = minus(t, max(t)).map(exp), Z = sum(e);
            visit(query, keys, e.map(ej => ej / Z), z);
        }
        return start + length;
    }, 0);
}

// A pass over a batch of sequences: all that the backward pass and the witness need.
function forward(model, adapters, sequences) {
    const { config, tensors } = model, tokens = sequences.flat(), positions = sequences.flatMap(s => range(s.length));
    const plus = (x, y) => tensor(x.shape, x.data.map((xi, i) => xi + y.data[i]));
    const embed = tensor([tokens.length, config.D]);
    tokens.forEach((token, t) => embed.rows[t].set(embedding(model).rows[token]));
    let x = embed;
    const layers = range(config.L, l => {
        const s = { x }, gain = name => tensors.get(`model.layers.${l}.${name}.weight`);
        const project = (name, y) => linear(model, adapters, `model.layers.${l}.${name}_proj`, y);
        s.attn_norm = norm(config, x, gain("input_layernorm"));
        for (const name of ["q", "k", "v"]) s[name] = project(`self_attn.${name}`, s.attn_norm);
        for (const name of ["q", "k"]) rotate(config, s[name], positions, 1);
        s.attn = like(s.q);
        const values = split(s.v.data, config.S), sums = split(s.attn.data, config.S);
        attend(config, sequences, s.q, s.k, (i, keys, P) => keys.forEach((key, j) => add(sums[i], P[j], values[key])));
        s.attn_out = project("self_attn.o", s.attn);
        s.middle = plus(x, s.attn_out);
        s.mlp_norm = norm(config, s.middle, gain("post_attention_layernorm"));
        s.gate = project("mlp.gate", s.mlp_norm);
        s.up = project("mlp.up", s.mlp_norm);
        s.act = tensor(s.up.shape, s.gate.data.map((gate, i) => f(gate / f(1 + exp(-gate))) * s.up.data[i]));
        s.mlp_out = project("mlp.down", s.act);
        s.out = x = plus(s.middle, s.mlp_out);
        return s;
    });
    const final_norm = norm(config, x, tensors.get("model.norm.weight")), logits = tensor([tokens.length, config.V]);
    logits.rows.forEach((row, t) => head(model).rows.forEach((w, v) => row[v] = dot(final_norm.rows[t], w)));
    return { model, adapters, sequences, tokens, positions, embed, layers, out: x, final_norm, logits };
}

// Of each position the next token (none after the last), e and Z; the loss in double. nll = log(Z) - d
function crossEntropy({ sequences, logits }) {
    const next = sequences.flatMap(sequence => sequence.map((_, t) => sequence[t + 1]));
    const d = logits.rows.map(row => minus(row, max(row))), e = d.map(row => row.map(exp)), Z = e.map(sum);
    const nll = Float32Array.from(next, (y, t) => y === undefined ? 0 : log(Z[t]) - d[t][y]);
    return { next, e, Z, loss: sum(nll) / (next.length - sequences.length) };
}

// ---- 5. Backward ----------------------------------------------------------------------------------------------------
// The gradients of the trained tensors: a Map by the tensors themselves, so that tied ones share theirs.
function backward({ model, adapters, sequences, tokens, positions, layers, out, final_norm, ...pass }, trained) {
    const { config, tensors } = model, grads = new Map(trained.map(w => [w, like(w)]));

    // dx += of y = norm(x, g): m = dot3(g, dy, x) i / D;  dx_j += (g_j dy_j - x_j i m) i;  dg_j += dy_j (x_j i)
    function normBack(dx, dy, x, { i }, name) {
        const gain = tensors.get(name), g = gain.data, dg = grads.get(gain)?.data;
        x.rows.forEach((xt, t) => {
            const d = dy.rows[t], m = f(f(dot3(g, d, xt) * i[t]) / config.D);
            for (let j = 0; j < xt.length; j++) dx.rows[t][j] += f(f(f(g[j] * d[j]) - f(f(xt[j] * i[t]) * m)) * i[t]);
            if (dg) add(dg, 1, d.map((dj, j) => dj * f(xt[j] * i[t])));
        });
    }
    // dx += of y = linear(x): dx += sum dy_o W_o;  dW_o += dy_o x;  then the adapters
    function linearBack(name, dy, x, dx = like(x)) {
        const W = tensors.get(`${name}.weight`), dW = grads.get(W), db = grads.get(tensors.get(`${name}.bias`))?.data;
        dy.rows.forEach((d, t) => {
            W.rows.forEach((w, o) => add(dx.rows[t], d[o], w));
            dW?.rows.forEach((w, o) => add(w, d[o], x.rows[t]));
            if (db) add(db, 1, d);
            for (const update of updates(adapters, name)) {
                const { factor, A, B } = update, u = shrink(update, x.rows[t]), sums = new Float32Array(u.length);
                grads.get(B).rows.forEach((b, o) => add(b, d[o], u));
                B.rows.forEach((b, o) => add(sums, d[o], b));
                const v = sums.map(vr => vr * factor);
                grads.get(A).rows.forEach((a, r) => add(a, v[r], x.rows[t]));
                A.rows.forEach((a, r) => add(dx.rows[t], v[r], a));
            }
        });
        return dx;
    }

    const { next, e, Z } = crossEntropy({ sequences, ...pass }), c = f(1 / (tokens.length - sequences.length));
    const dhidden = like(final_norm), dx = like(final_norm), dhead = grads.get(head(model));
    next.forEach((y, t) => {
        if (y === undefined) return;
        const dlogits = e[t].map(ev => f(ev / Z[t]) * c);
        dlogits[y] -= c;
        head(model).rows.forEach((w, v) => add(dhidden.rows[t], dlogits[v], w));
        dhead?.rows.forEach((w, v) => add(w, dlogits[v], final_norm.rows[t]));
    });
    normBack(dx, dhidden, out, final_norm, "model.norm.weight");
    for (let l = config.L - 1; l >= 0; l--) {
        const s = layers[l], name = `model.layers.${l}`;
        const [dgate, dup, dq, dk, dv] = [s.gate, s.up, s.q, s.k, s.v].map(like);
        const dact = linearBack(`${name}.mlp.down_proj`, dx, s.act);
        s.gate.data.forEach((gate, i) => {
            const d = dact.data[i], sigma = f(1 / f(1 + exp(-gate)));
            dgate.data[i] = f(d * s.up.data[i]) * f(sigma * f(1 + f(gate * f(1 - sigma))));
            dup.data[i] = d * f(gate * sigma);
        });
        const db = linearBack(`${name}.mlp.gate_proj`, dgate, s.mlp_norm);
        linearBack(`${name}.mlp.up_proj`, dup, s.mlp_norm, db);
        normBack(dx, db, s.middle, s.mlp_norm, `${name}.post_attention_layernorm.weight`);

        const dattn = linearBack(`${name}.self_attn.o_proj`, dx, s.attn);
        const [Q, K, V, dO, dQ, dK, dV] = [s.q, s.k, s.v, dattn, dq, dk, dv].map(y => split(y.data, config.S));
        attend(config, sequences, s.q, s.k, (i, keys, P, z) => {
            const dP = Float32Array.from(keys, key => dot(dO[i], V[key])), m = dot(P, dP);
            keys.forEach((key, j) => {
                const r = f(f(P[j] * f(dP[j] - m)) * z);
                add(dQ[i], r, K[key]);
                add(dV[key], P[j], dO[i]);
                add(dK[key], r, Q[i]);
            });
        });
        for (const turned of [dq, dk]) rotate(config, turned, positions, -1);
        const da = linearBack(`${name}.self_attn.q_proj`, dq, s.attn_norm);
        linearBack(`${name}.self_attn.k_proj`, dk, s.attn_norm, da);
        linearBack(`${name}.self_attn.v_proj`, dv, s.attn_norm, da);
        normBack(dx, da, s.x, s.attn_norm, `${name}.input_layernorm.weight`);
    }
    const dE = grads.get(embedding(model));
    if (dE) tokens.forEach((token, t) => add(dE.rows[token], 1, dx.rows[t]));
    return grads;
}

// ---- 6. Training ----------------------------------------------------------------------------------------------------
// The order of tensors, as [name, tensor].
const MATRICES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"];
const LAYER = [...MATRICES.map(name => `${name}.weight`), "input_layernorm.weight", "post_attention_layernorm.weight",
    "self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"];
const layers = ({ L }, names) => range(L, l => names.map(name => `model.layers.${l}.${name}`)).flat();
const inOrder = (tensors, names) => names.filter(name => tensors.has(name)).map(name => [name, tensors.get(name)]);
const modelTensors = ({ config, tensors }) => inOrder(tensors, [
    ...layers(config, LAYER), "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]);
const adapterTensors = ({ config }, { tensors }) => inOrder(tensors,
    layers(config, MATRICES).flatMap(name => [lora(name, "A"), lora(name, "B")]));
const isGain = name => name.endsWith("norm.weight"), isBias = name => name.endsWith(".bias");
const copyModel = model => ({ ...model, tensors: new Map([...model.tensors].map(([name, w]) => [name, copy(w)])) });

function freshModel(model, seed) {
    const fresh = copyModel(model), small = 0.02 / Math.sqrt(2 * model.config.L);
    for (const [name, { data }] of modelTensors(fresh)) {
        const g = new Stream(seed, name, 0), d = /\.(o|down)_proj\./.test(name) ? small : 0.02;
        for (let i = 0; i < data.length; i++) data[i] = isGain(name) ? 1 : isBias(name) ? 0 : d * g.normal();
    }
    return fresh;
}
function freshAdapter({ config, tensors }, R, alpha, seed, number) {
    const key = new Stream(seed, "lora", number).next(), fresh = new Map();
    layers(config, MATRICES).forEach((name, i) => {
        const [out, width] = tensors.get(`${name}.weight`).shape, g = new Stream(key, "A", i);
        const A = floats(R * width, () => (2 * g.uniform() - 1) * (1 / Math.sqrt(width)));
        fresh.set(lora(name, "A"), tensor([R, width], A)).set(lora(name, "B"), tensor([out, R]));
    });
    return { factor: f(alpha / R), tensors: fresh };
}
function order(n, seed, number, epoch) {
    const places = range(n), g = new Stream(new Stream(seed, "order", number).next(), "epoch", epoch);
    for (let i = n; i >= 2; i--) {
        const j = g.below(i);
        [places[i - 1], places[j]] = [places[j], places[i - 1]];
    }
    return places;
}
function rate({ steps, lr, warmup, last, cosine }, s) {
    const W = Math.floor(warmup * steps + 0.5), x = (s - W) / (steps - W);
    const shape = cosine ? 0.5 * (1 + COS(3.141592653589793 * x)) : 1 - x;
    return s < W ? lr * (s + 1) / W : lr * (last + (1 - last) * shape);
}
function power(x, n) {
    let y = 1;
    for (; n > 0; n = Math.floor(n / 2), x *= x) if (n % 2) y *= x;
    return y;
}

// Trains the named tensors where they are; gives the losses from before each step.
function train(model, adapters, named, sequences, run) {
    const trained = named.map(([name, w]) =>
        ({ w, decay: isGain(name) || isBias(name) ? 0 : run.decay, m: like(w).data, v: like(w).data }));
    const { b1, b2 } = run, F1 = f(b1), F2 = f(b2), c1 = f(1 - b1), c2 = f(1 - b2), epsilon = f(run.epsilon);
    const n = sequences.length, place = visit => run.shuffled
        ? order(n, run.seed, run.number, Math.floor(visit / n))[visit % n] : visit % n;
    return range(run.steps, s => {
        const pass = forward(model, adapters, range(run.batch, i => sequences[place(s * run.batch + i)]));
        const grads = backward(pass, trained.map(({ w }) => w)), eta = rate(run, s);
        const q = total([...grads.values()].map(({ data }) => dot(data, data)));
        const c = run.clip / (Math.sqrt(q) + 1e-6), scale = c < 1 && run.clip > 0 ? f(c) : 1;
        const step = f(eta / (1 - power(b1, s + 1))), root = f(Math.sqrt(1 - power(b2, s + 1)));
        for (const { w, decay, m, v } of trained) {
            const keep = f(1 - eta * decay);
            grads.get(w).data.forEach((grad, i) => {
                const g = f(grad * scale);
                m[i] = f(F1 * m[i]) + f(c1 * g);
                v[i] = f(F2 * v[i]) + f(c2 * f(g * g));
                w.data[i] = f(w.data[i] * keep) - f(step * f(m[i] / f(f(f(Math.sqrt(v[i])) / root) + epsilon)));
            });
        }
        return crossEntropy(pass).loss;
    });
}

// ---- 7. Embedding ---------------------------------------------------------------------------------------------------
// Of texts of symbols, which are digits of base 2^bits: n-grams of up to so many.
function embed(texts, longest, bits) {
    const counts = texts.map(symbols => {
        const c = new Array(2048).fill(0);
        for (let n = 1; n <= longest; n++) for (let i = 0; i + n <= symbols.length; i++) {
            const g = symbols.slice(i, i + n).reduce((digits, symbol) => digits << bits | BigInt(symbol), 0n);
            const h = mix(u64(g + BigInt(n) * 0x9e3779b97f4a7c15n));
            c[Number(h % 2048n)] += h >> 63n ? -1 : 1;
        }
        return c;
    });
    const idf = floats(2048, b => LOG((2 + texts.length) / (1 + counts.filter(c => c[b] !== 0).length)));
    const rows = counts.map(c => normalise(floats(2048, b => Math.sign(c[b]) * f(LOG(1 + Math.abs(c[b])) * idf[b]))));
    return { idf, rows };
}
function normalise(x) {
    const m = max(x.map(Math.abs));
    if (m === 0 || !Number.isFinite(m)) return x;
    const y = x.map(xj => xj / m), l = f(Math.sqrt(dot(y, y)));
    return y.map(yj => yj / l);
}

// ---- 8. Clusters ----------------------------------------------------------------------------------------------------
const mean = rows => rows[0].map((_, j) => total(rows.map(x => x[j])) / rows.length);           // float(t / count)

function clusters(rows, K, seed) {
    const cluster = new Int32Array(rows.length), inertia = [0];
    const members = k => range(rows.length).filter(row => cluster[row] === k);
    for (let k = 1; k < K; k++) {
        const split = range(k).filter(c => members(c).length > 1).reduce((a, b) => inertia[b] > inertia[a] ? b : a);
        const own = members(split), stream = u => new Stream(seed, "cluster", 8 * k + u);
        const { side, i } = halve(own.map(row => rows[row]), stream);
        own.forEach((row, n) => cluster[row] = side[n] === side[0] ? split : k);
        [inertia[split], inertia[k]] = [i[side[0]], i[1 - side[0]]];
    }
    return { cluster, centroids: range(K, k => normalise(mean(members(k).map(row => rows[row])))) };
}
function halve(rows, stream) {
    if (rows.every(x => Buffer.from(x.buffer).equals(Buffer.from(rows[0].buffer)))) {
        return { side: rows.map((_, n) => n < Math.ceil(rows.length / 2) ? 0 : 1), i: [0, 0] };
    }
    return range(8, u => start(rows, stream(u))).reduce((a, b) => b.i[0] + b.i[1] < a.i[0] + a.i[1] ? b : a);
}
function start(rows, g) {
    const first = rows[g.below(rows.length)], d = rows.map(x => Math.max(2 - 2 * dot(x, first), 0));
    let j = 0, point = g.uniform() * total(d), side = [], i;
    while (j + 1 < rows.length && (point -= d[j]) >= 0) j++;
    let means = [first, rows[j]];
    for (let round = 1; round <= 100; round++) {
        const before = side, Q = means.map(m => dot(m, m));
        const D = rows.map(x => means.map((m, s) => f(f(1 - f(2 * dot(x, m))) + Q[s])));
        side = D.map(([D0, D1]) => D1 < D0 ? 1 : 0);
        const distance = D.map((both, row) => Math.max(both[side[row]], 0));
        i = [0, 1].map(s => total(distance.filter((_, row) => side[row] === s)));
        const empty = [0, 1].find(s => !side.includes(s));
        if (empty !== undefined) side[argmax(distance)] = empty;
        else if (side.every((s, row) => s === before[row])) break;
        means = [0, 1].map(s => mean(rows.filter((_, row) => side[row] === s)));
    }
    return { side, i };
}

// ---- 9. Routing, merging, neighbours --------------------------------------------------------------------------------
function route(similarity, { beta, tau, active, limit }) {
    const largest = max(similarity), c = Array.from(similarity, s => EXP((s - largest) / (beta * beta)));
    const all = total(c), w = c.map(ck => ck / all);
    const before = k => similarity.filter((s, j) => s > similarity[k] || s === similarity[k] && j < k).length;
    const experts = range(w.length).filter(k => before(k) < (active ?? limit) && (active !== undefined || w[k] > tau));
    const kept = total(experts.map(k => w[k]));
    return { experts, weights: Float32Array.from(experts, k => f(w[k]) / kept) };
}
function merge(model, adapters) {                               // W'_oi = W'_oi + (B_or f) A_ri
    const merged = copyModel(model);
    for (const name of layers(model.config, MATRICES)) for (const { factor, A, B } of updates(adapters, name))
        B.rows.forEach((b, o) => A.rows.forEach((a, r) =>
            add(merged.tensors.get(`${name}.weight`).rows[o], f(b[r] * factor), a)));
    return merged;
}
function nearest(query, rows, n) {
    const s = rows.map(x => dot(query, x));
    return range(rows.length).sort((a, b) => s[b] - s[a] || a - b).slice(0, n);
}
function sift(query, rows, n, lambda) {
    const q = Float32Array.from(rows, x => dot(query, x)), v = Float32Array.from(rows, x => dot(x, x)), chosen = [];
    return range(n, () => {
        const x = argmax(rows.map((_, i) => q[i] * q[i] / (v[i] + lambda)));
        const root = f(Math.sqrt(f(v[x] + f(lambda)))), l = f(q[x] / root);
        let c = Float32Array.from(rows, row => dot(rows[x], row));
        for (const before of chosen) c = c.map((ci, i) => ci - f(before[i] * before[x]));
        c = c.map(ci => ci / root);
        add(q, -l, c);
        add(v, -1, c.map(ci => ci * ci));
        chosen.push(c);
        return x;
    });
}

// ---- 10. Decoding ---------------------------------------------------------------------------------------------------
// So many tokens, all drawn from the same logits.
function sample(logits, { temperature, topP, topK, seed }, draws) {
    const p = minus(logits, max(logits)).map(d => EXP(d / temperature)), g = new Stream(seed, "sample", 0);
    const tokens = range(p.length).sort((a, b) => p[b] - p[a] || a - b).slice(0, topK);
    const limit = topP * total(tokens.map(v => p[v]));
    let kept = 0, n = 0;
    while (n === 0 || n < tokens.length && kept < limit) kept += p[tokens[n++]];
    return range(draws, () => {
        let point = g.uniform() * kept;
        return tokens.find((v, i) => i === n - 1 || (point -= p[v]) < 0);
    });
}

// ---- 13. The witness ------------------------------------------------------------------------------------------------
// A line is [name, tensor], of integers one with an Int32Array.
const vector = (name, x) => [name, tensor([x.length], Float32Array.from(x))];
const matrix = (name, x) => [name, tensor([x.length, x[0].length], Float32Array.from(x.flatMap(row => [...row])))];
const integers = (name, x) => [name, tensor([x.length], Int32Array.from(x))];
const lossLines = losses => losses.map((loss, s) => vector(`step.${s + 1}.loss`, [loss]));
const expertLines = (prefix, { experts, weights }) =>
    [integers(`${prefix}experts`, experts), vector(`${prefix}weights`, weights)];
const PARTS = ["attn_norm", "q", "k", "v", "attn", "attn_out", "mlp_norm", "gate", "up", "mlp_out", "out"];

const passLines = pass => [integers("tokens", pass.tokens), ["embed", pass.embed],
    ...pass.layers.flatMap((layer, l) => PARTS.map(name => [`layers.${l}.${name}`, layer[name]])),
    ["final_norm", pass.final_norm], ["logits", pass.logits], vector("loss", [crossEntropy(pass).loss])];
function withGradients(pass, named) {
    const grads = backward(pass, named.map(([, w]) => w));
    return [...passLines(pass), ...named.map(([name, w]) => [`grad.${name}`, grads.get(w)])];
}

function allStages(folder, { length, steps, tokens }) {
    const model = readModel(folder), g = new Stream(1, "witness", 0);
    const drawn = range(9, i => range(length - i % 3, () => g.below(model.config.V)));
    const sequences = [...drawn, ...drawn.slice(0, 3)];
    const common = { lr: 0.01, last: 0.05, b1: 0.9, epsilon: 1e-8, clip: 1, seed: 1, number: 0 };
    const stages = {
        functions() {
            const u = new Stream(1, "functions", 0);
            const drawn = (name, of, from, to) =>
                [name, { shape: [1000], data: new Float64Array(1000).map(() => of(from + (to - from) * u.uniform())) }];
            return [drawn("exp", EXP, -760, 760), drawn("log", LOG, 0, 1000), drawn("sin", SIN, -10000, 10000),
                drawn("cos", COS, -10000, 10000), drawn("erf", ERF, -7, 7)];
        },
        init: () => modelTensors(freshModel(model, 1)),
        pass: () => withGradients(forward(model, [], [sequences[0]]), modelTensors(model)),
        train() {
            const own = copyModel(model), named = modelTensors(own);
            const run = { ...common, steps: 6, batch: 3, warmup: 0.2, cosine: true, b2: 0.98, decay: 0.05 };
            return [...lossLines(train(own, [], named, sequences, run)), ...named];
        },
        expert() {
            const adapter = freshAdapter(model, 4, 8, 1, 0), named = adapterTensors(model, adapter);
            const start = named.map(([name, w]) => [`start.${name}`, copy(w)]);
            const run = { ...common, steps, batch: 2, shuffled: true, warmup: 0.1, b2: 0.999, decay: 0 };
            return [...start, ...lossLines(train(model, [adapter], named, sequences, run)), ...named];
        },
        cluster() {
            const ids = embed(sequences, 2, 32n), bytes = embed(sequences.map(s => s.map(t => t % 256)), 4, 8n);
            const { cluster, centroids } = clusters(bytes.rows, 11, 1), query = bytes.rows[0];
            return [vector("ids.idf", ids.idf), matrix("ids.embeddings", ids.rows),
                vector("idf", bytes.idf), matrix("embeddings", bytes.rows),
                integers("cluster", cluster), matrix("centroid", centroids),
                integers("nearest", nearest(query, bytes.rows, 6)), integers("sift", sift(query, bytes.rows, 6, 0.01))];
        },
    };
    if (existsSync(`${folder}/centroids.safetensors`)) {
        const centroids = readTensors(`${folder}/centroids.safetensors`).get("embeddings");
        const u = new Stream(1, "query", 0), query = normalise(floats(centroids.shape[1], () => 2 * u.uniform() - 1));
        const similarity = Float32Array.from(centroids.rows, centroid => dot(query, centroid));
        const chosen = route(similarity, { beta: 0.6, tau: 0.1, limit: 50 });
        const adapters = chosen.experts.map((k, i) => readAdapter(`${folder}/experts/${k}`, chosen.weights[i]));
        stages.route = () => [vector("query", query), vector("similarity", similarity),
            ...expertLines("active.", route(similarity, { beta: 0.7, active: 4 })),
            ...expertLines("max.", route(similarity, { beta: 0.9, tau: 0, limit: 2 })), ...expertLines("", chosen)];
        stages.merge = () => {
            const merged = merge(model, adapters);
            return [...modelTensors(merged), ...passLines(forward(merged, [], [sequences[0]]))];
        };
        stages.beside = () => withGradients(forward(model, adapters, [sequences[0]]), adapters.length === 0
            ? modelTensors(model) : adapters.flatMap((adapter, i) =>
                adapterTensors(model, adapter).map(([name, w]) => [`experts.${chosen.experts[i]}.${name}`, w])));
    }
    stages.greedy = () => {                                     // no cache: each token by a pass over all before it
        const decoded = [], results = range(tokens, () => {
            const { rows } = forward(model, [], [[...sequences[0].slice(0, 8), ...decoded]]).logits;
            decoded.push(argmax(rows[rows.length - 1]));
            return rows;
        });
        const last = results[tokens - 1], options = { temperature: 0.7, topP: 0.9, topK: 12, seed: 1 };
        return [...results.map((rows, i) => matrix(`logits.${i}`, i === 0 ? rows : rows.slice(-1))),
            integers("tokens", decoded), integers("sampled", sample(last[last.length - 1], options, 20))];
    };
    return stages;
}

const [folder, ...args] = process.argv.slice(2), each = args.includes("--each");
const option = (name, otherwise) => args.includes(name) ? args[args.indexOf(name) + 1] : otherwise;
const stages = allStages(folder, {
    length: Number(option("--length", 40)),
    steps: Number(option("--steps", 20)),
    tokens: Number(option("--tokens", 50)),
});
const only = option("--only", Object.keys(stages).join()).split(",");
const sha256 = data => createHash("sha256").update(data).digest("hex");
const texts = Object.keys(stages).filter(stage => only.includes(stage)).map(stage => {
    const lines = stages[stage]().map(([name, { shape, data }]) =>
        `${stage} ${name} [${shape.join(", ")}] ${sha256(data)}\n`).join("");
    process.stdout.write(each ? lines : `${stage} ${sha256(lines)}\n`);
    return lines;
});
if (!each) console.log(`all ${sha256(texts.join(""))}`);
