// The witness of test/BITS.md in Rust, from that page alone; numbers in brackets are the page's sections.
//     rustc -O test/witness.rs;  ./witness MODEL [--each] [--only stage,stage] [--length T] [--steps N] [--tokens N]
// There is no cache: greedy computes all anew for each token, which by [4] gives the same bits.
use std::collections::HashMap;
use std::convert::TryInto;
use std::fmt::Write;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

type Floats = Vec<f32>;

// ---- [1] Numbers: Rust's + - * / and sqrt are IEEE's, and nothing is fused -----------------------------------------

/// 16 lanes, all +0: lane[k mod 16] += term(k) for ascending k; then they are halved until one is left.
#[inline(always)]
fn lanes(n: usize, term: impl Fn(usize) -> f32) -> f32 {
    let (mut lane, full) = ([0.0; 16], n - n % 16);
    for k in (0..full).step_by(16) {
        for l in 0..16 { lane[l] += term(k + l); }
    }
    for k in full..n { lane[k % 16] += term(k); }
    for h in [8, 4, 2, 1] {
        for l in 0..h { lane[l] += lane[l + h]; }
    }
    lane[0]
}

fn dot(x: &[f32], y: &[f32]) -> f32 {
    let y = &y[..x.len()];
    lanes(x.len(), |k| x[k] * y[k])
}
fn dot3(x: &[f32], y: &[f32], z: &[f32]) -> f32 { lanes(x.len(), |k| x[k] * y[k] * z[k]) }
fn sum(x: &[f32]) -> f32 { lanes(x.len(), |k| x[k]) }
fn max(x: &[f32]) -> f32 { x.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x)) }

/// The lowest index of the largest.
fn argmax<T: PartialOrd>(x: &[T]) -> usize { (1..x.len()).fold(0, |best, k| if x[k] > x[best] { k } else { best }) }

/// Σ in double, ascending from 0
fn total(x: impl Iterator<Item = f64>) -> f64 { x.fold(0.0, |t, x| t + x) }

/// One term of "rows": y_i = y_i + a × b_i.
fn row(y: &mut [f32], a: f32, b: &[f32]) { y.iter_mut().zip(b).for_each(|(y, &b)| *y += a * b); }
fn add(y: &mut [f32], z: &[f32]) { y.iter_mut().zip(z).for_each(|(y, &z)| *y += z); }
fn times(y: &mut [f32], f: f32) { y.iter_mut().for_each(|y| *y *= f); }

// ---- [2] exp, log, sin, cos ----------------------------------------------------------------------------------------

const fn power_of_two(n: i64) -> f64 { f64::from_bits(((n + 1023) as u64) << 52) }

/// C's 0x1.DIGITSp-K is hex(0x1_DIGITS, -K), with all 13 digits.
const fn hex(digits: u64, exponent: i64) -> f64 { digits as f64 * power_of_two(exponent - 52) }

const LN2H: f64 = hex(0x1_62e42fee00000, -1);
const LN2L: f64 = hex(0x1_a39ef35793c76, -33);
const F: [f64; 18] = factorials();
const EXP_C: [f64; 12] = [
    1.0 / F[13], 1.0 / F[12], 1.0 / F[11], 1.0 / F[10], 1.0 / F[9], 1.0 / F[8],
    1.0 / F[7], 1.0 / F[6], 1.0 / F[5], 1.0 / F[4], 1.0 / F[3], 1.0 / F[2],
];
const LOG_C: [f64; 10] = [
    2.0 / 21.0, 2.0 / 19.0, 2.0 / 17.0, 2.0 / 15.0, 2.0 / 13.0, 2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0,
];
const SIN_C: [f64; 8] = [
    1.0 / F[17], -1.0 / F[15], 1.0 / F[13], -1.0 / F[11], 1.0 / F[9], -1.0 / F[7], 1.0 / F[5], -1.0 / F[3],
];
const COS_C: [f64; 7] = [1.0 / F[16], -1.0 / F[14], 1.0 / F[12], -1.0 / F[10], 1.0 / F[8], -1.0 / F[6], 1.0 / F[4]];

const fn factorials() -> [f64; 18] {
    let (mut f, mut n) = ([1.0; 18], 1);
    while n < 18 { f[n] = f[n - 1] * n as f64; n += 1; }
    f
}

fn horner(z: f64, c: &[f64]) -> f64 { c[1..].iter().fold(c[0], |p, c| p * z + c) }

fn rint(x: f64) -> f64 { x + hex(0x1_8000000000000, 52) - hex(0x1_8000000000000, 52) }

#[allow(non_snake_case)]
fn EXP(x: f64) -> f64 {
    let y = x.clamp(-750.0, 720.0); let n = rint(y * hex(0x1_71547652b82fe, 0));
    let high = y - n * LN2H; let r = high - n * LN2L; let low = (high - r) - n * LN2L;
    let p = horner(r, &EXP_C); let one = 1.0 + r; let p = one + (((1.0 - one) + r) + (r * r * p + low));
    let m = n as i64 + 2048; let h = m / 2;
    p * power_of_two(h - 1024) * power_of_two(m - h - 1024)
}

#[allow(non_snake_case)]
fn LOG(x: f64) -> f64 {
    if x == 0.0 { return f64::NEG_INFINITY; }
    if !(x > 0.0) { return f64::NAN; }
    if x == f64::INFINITY { return x; }
    let (x, shift) = if x < f64::MIN_POSITIVE { (x * power_of_two(54), 54) } else { (x, 0) };
    let mut k = (x.to_bits() >> 52) as i64 - 1022;
    let mut f1 = f64::from_bits(x.to_bits() << 12 >> 12 | 1022 << 52); // x × 2^-k, in [0.5, 1)
    if f1 < hex(0x1_6a09e667f3bcd, -1) { k -= 1; f1 *= 2.0; }
    let (k, f) = ((k - shift) as f64, f1 - 1.0); let s = f / (2.0 + f); let z = s * s;
    let r = horner(z, &LOG_C) * z; let q = 0.5 * f * f;
    k * LN2H + (f - (q - (s * (q + r) + k * LN2L)))
}

/// (SIN(x), COS(x))
fn sin_cos(x: f64) -> (f64, f64) {
    if x.abs() > 4194304.0 { return (f64::NAN, f64::NAN); }
    let sub = |a: f64, b: f64| { let d = a - b; let t = d - a; (d, (a - (d - t)) - (b + t)) };
    let n = rint(x * hex(0x1_45f306dc9c883, -1));
    let (r, e1) = sub(x - n * hex(0x1_921fb54000000, 0), n * hex(0x1_10b4611800000, -30));
    let (r, e2) = sub(r, n * hex(0x1_313198a000000, -61));
    let (r, e) = sub(r, n * hex(0x1_701b839a25205, -92) - (e1 + e2)); let z = r * r;
    let (s, c) = (horner(z, &SIN_C), horner(z, &COS_C)); let sr = r + (r * z * s + e * (1.0 - 0.5 * z));
    let g = 0.5 * z; let one = 1.0 - g; let cr = one + (((1.0 - one) - g) + (z * z * c - r * e));
    [(sr, cr), (cr, -sr), (-sr, -cr), (-cr, sr)][(n as i64).rem_euclid(4) as usize]
}

const ERF_P: [f64; 12] = [
    -hex(0x1_abae4bf126e94, -31), hex(0x1_1f562b648ddea, -27), -hex(0x1_8fca12ec01ccc, -24),
    hex(0x1_fa2720f59ff69, -21), -hex(0x1_2128fde951fbe, -17), hex(0x1_26f9fc847572a, -14),
    -hex(0x1_0908608843dac, -11), hex(0x1_9c83eca4c2699, -9), -hex(0x1_1070cb9fee9eb, -6),
    hex(0x1_2a78d10016c20, -4), -hex(0x1_0c56e48f1a817, -2), -hex(0x1_1868dcff76633, -4),
];
const ERF_Q: [f64; 18] = [
    hex(0x1_565c0d29eab84, -38), -hex(0x1_0668e2a3b3d52, -33), hex(0x1_6a9a707b07203, -30),
    -hex(0x1_24b5e7caf8fe2, -27), hex(0x1_1ed606d0dc511, -25), -hex(0x1_f255c7354fd42, -25),
    -hex(0x1_b7d23782f92c1, -23), hex(0x1_1e24b2100a0a3, -19), -hex(0x1_448472790fc59, -17),
    hex(0x1_c852ae913c71f, -16), -hex(0x1_b92ddb6c6e919, -16), -hex(0x1_f1b04a7e26e05, -13),
    hex(0x1_033f5a12d4dce, -9), -hex(0x1_48c9d37fc1d58, -7), hex(0x1_5477f099b6d10, -5),
    hex(0x1_afabc11a2afd8, -1), hex(0x1_51c9b0006c21a, 1), hex(0x1_d97fbf27aa2a1, 0),
];

#[allow(non_snake_case)]
fn ERF(x: f64) -> f64 {
    let z = x * x - 0.625; let t = x.abs().min(6.0) - 1.0;
    if x.abs() < 1.0 { x + x * horner(z, &ERF_P) } else { (1.0 - EXP(-horner(t, &ERF_Q))).copysign(x) }
}

fn exp(x: f32) -> f32 { EXP(x as f64) as f32 }
fn log(x: f32) -> f32 { LOG(x as f64) as f32 }

// ---- [3] Random numbers --------------------------------------------------------------------------------------------

const GOLDEN: u64 = 0x9e3779b97f4a7c15;

fn mix(z: u64) -> u64 {
    let z = (z ^ z >> 30).wrapping_mul(0xbf58476d1ce4e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d049bb133111eb);
    z ^ z >> 31
}

struct Stream(u64);

impl Stream {
    fn new(seed: u64, purpose: &str, index: u64) -> Stream {
        Stream(mix(purpose.bytes().fold(mix(seed), |s, c| mix(s ^ c as u64).wrapping_add(1)) ^ index))
    }
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }
    fn uniform(&mut self) -> f64 { (self.next() >> 11) as f64 * power_of_two(-53) }
    fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        loop {
            let x = self.next();
            if x >= n.wrapping_neg() % n { return (x % n) as usize; }
        }
    }
    fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * LOG(u)).sqrt() * sin_cos(6.283185307179586 * v).1
    }
}

// ---- Files: JSON, safetensors, models, adapters --------------------------------------------------------------------

/// A JSON text as "key.key" -> value; the values of a list stand in one text, between blanks.
type Json = HashMap<String, String>;

/// A bracket, or a value with its quotes if it has any; commas and colons count as blanks.
fn token<'a>(s: &'a str, at: &mut usize) -> &'a str {
    let (b, blank, brackets) = (s.as_bytes(), b" \t\r\n,:", b"{}[]");
    while blank.contains(&b[*at]) { *at += 1; }
    let start = *at; *at += 1;
    if b[start] == b'"' {
        while b[*at] != b'"' { *at += if b[*at] == b'\\' { 2 } else { 1 }; }
        *at += 1;
    } else if !brackets.contains(&b[start]) {
        while *at < b.len() && !blank.contains(&b[*at]) && !brackets.contains(&b[*at]) { *at += 1; }
    }
    &s[start..*at]
}

/// Takes in the value at `at`, whose key is path; false if it is the end of a list.
fn json(s: &str, at: &mut usize, path: &str, all: &mut Json) -> bool {
    match token(s, at) {
        "{" => loop {
            let key = token(s, at).trim_matches('"');
            if key == "}" { return true; }
            json(s, at, &if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }, all);
        },
        "[" => while json(s, at, path, all) {},
        "]" => return false,
        value => *all.entry(path.to_string()).or_default() += &format!(" {}", value.trim_matches('"')),
    }
    true
}

fn parse_json(text: &[u8]) -> Json {
    let mut all = Json::new();
    json(&String::from_utf8_lossy(text), &mut 0, "", &mut all);
    all.values_mut().for_each(|v| *v = v.trim().to_string());
    all
}

fn read_json(path: &str) -> Json { parse_json(&std::fs::read(path).expect(path)) }
fn number(json: &Json, key: &str) -> Option<f64> { json.get(key)?.parse().ok() }
fn is_true(json: &Json, key: &str) -> bool { json.get(key).map_or(false, |value| value == "true") }

#[derive(Clone, Default)]
struct Tensor { name: String, shape: Vec<usize>, data: Floats }

fn read_tensors(path: &str) -> HashMap<String, Tensor> {
    let mut file = File::open(path).expect(path);
    let mut read = |at: usize, n: usize| {
        let mut bytes = vec![0; n];
        file.seek(SeekFrom::Start(at as u64)).expect(path); file.read_exact(&mut bytes).expect(path);
        bytes
    };
    let header = u64::from_le_bytes(read(0, 8).try_into().unwrap()) as usize;
    let json = parse_json(&read(8, header));
    let sizes = |key: String| -> Vec<usize> { json[&key].split(' ').map(|n| n.parse().unwrap()).collect() };
    let mut tensor = |name: &str| {
        let range = sizes(format!("{name}.data_offsets"));
        let bytes = read(8 + header + range[0], range[1] - range[0]);
        let data = match &json[&format!("{name}.dtype")][..] {
            "F32" => bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            "BF16" => bytes.chunks(2).map(|b| f32::from_le_bytes([0, 0, b[0], b[1]])).collect(),
            other => panic!("{} is {}, neither F32 nor BF16", name, other),
        };
        Tensor { name: name.to_string(), shape: sizes(format!("{name}.shape")), data }
    };
    let names = json.keys().filter_map(|key| key.strip_suffix(".shape"));
    names.map(|name| (name.to_string(), tensor(name))).collect()
}

#[derive(Clone)]
struct Model {
    width: usize, heads: usize, groups: usize, head_dim: usize, vocab: usize, layers: usize,
    epsilon: f32, frequencies: Vec<f64>, biases: bool, tied: bool,
    tensors: Vec<Tensor>, // in the order of [6]
}

const MATRICES: [&str; 7] = [
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
];
// where the tensors of a layer stand; BIAS: the first of three
const Q: usize = 0; const K: usize = 1; const V: usize = 2; const O: usize = 3;
const GATE: usize = 4; const UP: usize = 5; const DOWN: usize = 6;
const INPUT_NORM: usize = 7; const POST_NORM: usize = 8; const BIAS: usize = 9;

impl Model {
    fn read(folder: &str) -> Model {
        let config = read_json(&format!("{folder}/config.json"));
        let mut tensors = read_tensors(&format!("{folder}/model.safetensors"));
        let size = |key| number(&config, key).expect(key) as usize;
        let (width, heads, layers) = (size("hidden_size"), size("num_attention_heads"), size("num_hidden_layers"));
        let head_dim = number(&config, "head_dim").map_or(width / heads, |n| n as usize);
        let biases = tensors.contains_key("model.layers.0.self_attn.q_proj.bias");
        let tied = is_true(&config, "tie_word_embeddings");
        let mut names = Vec::new();
        for l in 0..layers {
            names.extend(MATRICES.iter().map(|matrix| format!("model.layers.{l}.{matrix}.weight")));
            names.push(format!("model.layers.{l}.input_layernorm.weight"));
            names.push(format!("model.layers.{l}.post_attention_layernorm.weight"));
            let biased = if biases { &MATRICES[Q..=V] } else { &[] };
            names.extend(biased.iter().map(|matrix| format!("model.layers.{l}.{matrix}.bias")));
        }
        let others = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"];
        names.extend(others[..if tied { 2 } else { 3 }].iter().map(|name| name.to_string()));
        Model {
            width, heads, groups: size("num_key_value_heads"), head_dim, vocab: size("vocab_size"), layers,
            epsilon: number(&config, "rms_norm_eps").unwrap_or(1e-6) as f32,
            frequencies: frequencies(&config, head_dim), biases, tied,
            tensors: names.iter().map(|name| tensors.remove(name).expect(name)).collect(),
        }
    }
    fn at(&self, layer: usize, which: usize) -> usize { layer * if self.biases { 12 } else { 9 } + which }
    fn embedding(&self) -> usize { self.at(self.layers, 0) }
    fn last_norm(&self) -> usize { self.embedding() + 1 }
    fn head(&self) -> usize { self.embedding() + if self.tied { 0 } else { 2 } }
    fn bias(&self, layer: usize, which: usize) -> Option<usize> {
        if self.biases && which <= V { Some(self.at(layer, BIAS + which)) } else { None }
    }
}

/// An adapter that takes part, f = w × scale; its tensors are A and B of each matrix, empty where it has none.
struct Adapter { number: usize, f: f32, tensors: Vec<Tensor> }

impl Adapter {
    fn names(m: &Model) -> impl Iterator<Item = String> {
        (0..14 * m.layers).map(|i| {
            let (layer, matrix, x) = (i / 14, MATRICES[i / 2 % 7], ["A", "B"][i % 2]);
            format!("base_model.model.model.layers.{layer}.{matrix}.lora_{x}.weight")
        })
    }
    fn read(m: &Model, folder: &str, k: usize, w: f32) -> Adapter {
        let config = read_json(&format!("{folder}/experts/{k}/adapter_config.json"));
        let mut tensors = read_tensors(&format!("{folder}/experts/{k}/adapter_model.safetensors"));
        let (alpha, rank) = (number(&config, "lora_alpha").unwrap(), number(&config, "r").unwrap());
        let scale = (alpha / if is_true(&config, "use_rslora") { rank.sqrt() } else { rank }) as f32;
        let tensors = Adapter::names(m).map(|name| tensors.remove(&name).unwrap_or_default()).collect();
        Adapter { number: k, f: w * scale, tensors }
    }
    /// A and B of a matrix, and the place of A
    fn pair(&self, layer: usize, which: usize) -> Option<(&Tensor, &Tensor, usize)> {
        let at = 14 * layer + 2 * which; let (a, b) = (&self.tensors[at], &self.tensors[at + 1]);
        if a.data.is_empty() { None } else { Some((a, b, at)) }
    }
}

/// Sequences end to end: sequence b is the tokens start[b] … start[b + 1] - 1.
struct Batch { tokens: Vec<usize>, start: Vec<usize> }

impl Batch {
    fn new(sequences: &[&[usize]]) -> Batch {
        let start = (0..=sequences.len()).map(|b| sequences[..b].iter().map(|s| s.len()).sum()).collect();
        Batch { tokens: sequences.concat(), start }
    }
    /// (first, t): the first token of the sequence of each token, and that token, ascending
    fn positions(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.start.windows(2).flat_map(|w| (w[0]..w[1]).map(move |t| (w[0], t)))
    }
}

// ---- [4] Forward ---------------------------------------------------------------------------------------------------

/// y_to = dot(x_t, w_o) of all rows t of x and o of w, n wide
fn dots(x: &[f32], w: &[f32], n: usize) -> Floats {
    let (tokens, out) = (x.len() / n, w.len() / n);
    let mut y = vec![0.0; tokens * out];
    for o in 0..out {
        for t in 0..tokens { y[t * out + o] = dot(&x[t * n..][..n], &w[o * n..][..n]); }
    }
    y
}

/// u_r = dot(x, A_r) × f
fn inner(x: &[f32], a: &Tensor, f: f32) -> Floats {
    let mut u = dots(x, &a.data, a.shape[1]);
    times(&mut u, f);
    u
}

fn linear(m: &Model, adapters: &[Adapter], layer: usize, which: usize, x: &[f32]) -> Floats {
    let w = &m.tensors[m.at(layer, which)];
    let mut y = dots(x, &w.data, w.shape[1]);
    if let Some(bias) = m.bias(layer, which) {
        y.chunks_mut(w.shape[0]).for_each(|y| add(y, &m.tensors[bias].data));
    }
    for adapter in adapters {
        if let Some((a, b, _)) = adapter.pair(layer, which) {
            add(&mut y, &dots(&inner(x, a, adapter.f), &b.data, b.shape[1]));
        }
    }
    y
}

/// Input and result of a norm, and i of each row.
struct Norm { x: Floats, y: Floats, i: Floats }

fn norm(m: &Model, x: &[f32], g: usize) -> Norm {
    let (d, g) = (m.width, &m.tensors[g].data);
    let i: Floats = x.chunks(d).map(|x| 1.0 / (dot(x, x) / d as f32 + m.epsilon).sqrt()).collect();
    let y = (0..x.len()).map(|k| g[k % d] * (x[k] * i[k / d])).collect();
    Norm { x: x.to_vec(), y, i }
}

fn frequencies(config: &Json, head_dim: usize) -> Vec<f64> {
    let places = ["", "rope_scaling.", "rope_parameters."];
    let find = |key: &str| places.iter().filter_map(|place| config.get(&format!("{place}{key}"))).next();
    let value = |key: &str| find(key).expect(key).parse::<f64>().unwrap();
    let theta = if find("rope_theta").is_some() { value("rope_theta") } else { 10000.0 };
    let scaled = |f: f64| match find("rope_type").map_or("", |text| text) {
        "linear" => f / value("factor"),
        "llama3" => {
            let (low, high) = (value("low_freq_factor"), value("high_freq_factor"));
            let n = value("original_max_position_embeddings") * f / 6.283185307179586;
            let s = (n - low) / (high - low);
            if s >= 1.0 { f } else if s <= 0.0 { f / value("factor") } else { (1.0 - s) * f / value("factor") + s * f }
        }
        _ => f,
    };
    (0..head_dim / 2).map(|j| scaled(EXP(-2.0 * j as f64 / head_dim as f64 * LOG(theta)))).collect()
}

/// Turns each head of each row by its position, forward (sign 1) or back (-1).
fn rotate(m: &Model, x: &mut [f32], heads: usize, batch: &Batch, sign: f32) {
    for (first, t) in batch.positions() {
        for (j, f) in m.frequencies.iter().enumerate() {
            let (s, c) = sin_cos((t - first) as f64 * f); let (s, c) = (sign * s as f32, c as f32);
            for h in 0..heads {
                let x = &mut x[span(m, heads, t, h)]; let (a, b) = (x[j], x[j + m.head_dim / 2]);
                x[j] = a * c - b * s; x[j + m.head_dim / 2] = b * c + a * s;
            }
        }
    }
}

/// Where head h of row t is, in rows of so many heads.
fn span(m: &Model, heads: usize, t: usize, h: usize) -> Range<usize> {
    (t * heads + h) * m.head_dim..(t * heads + h + 1) * m.head_dim
}
/// Where the key and the value of row t are that query head h reads.
fn key(m: &Model, t: usize, h: usize) -> Range<usize> { span(m, m.groups, t, h / (m.heads / m.groups)) }

/// z
fn root(m: &Model) -> f32 { (1.0 / (m.head_dim as f64).sqrt()) as f32 }

/// e_j = exp(x_j - max(x))
fn exps(x: &[f32]) -> Floats {
    let m = max(x);
    x.iter().map(|x| exp(x - m)).collect()
}

/// P_j of head h of query t, for the keys first … t
fn probabilities(m: &Model, q: &[f32], k: &[f32], h: usize, first: usize, t: usize) -> Floats {
    let query = &q[span(m, m.heads, t, h)];
    let e = exps(&(first..=t).map(|j| dot(query, &k[key(m, j, h)]) * root(m)).collect::<Floats>());
    let all = sum(&e);
    e.iter().map(|e| e / all).collect()
}

fn attention(m: &Model, q: &[f32], k: &[f32], v: &[f32], batch: &Batch) -> Floats {
    let mut o = vec![0.0; q.len()];
    for (first, t) in batch.positions() {
        for h in 0..m.heads {
            let p = probabilities(m, q, k, h, first, t);
            for j in first..=t { row(&mut o[span(m, m.heads, t, h)], p[j - first], &v[key(m, j, h)]); }
        }
    }
    o
}

struct Layer {
    a: Norm, q: Floats, k: Floats, v: Floats, attn: Floats, attn_out: Floats,
    b: Norm, gate: Floats, up: Floats, act: Floats, mlp_out: Floats, out: Floats,
}
struct Pass { embed: Floats, layers: Vec<Layer>, last: Norm, logits: Floats }

fn forward(m: &Model, adapters: &[Adapter], batch: &Batch) -> Pass {
    let embedding = &m.tensors[m.embedding()].data;
    let embed: Floats = batch.tokens.iter().flat_map(|t| &embedding[t * m.width..][..m.width]).copied().collect();
    let (mut x, mut layers) = (embed.clone(), Vec::new());
    for l in 0..m.layers {
        let linear = |which, x: &[f32]| linear(m, adapters, l, which, x);
        let a = norm(m, &x, m.at(l, INPUT_NORM));
        let (mut q, mut k, v) = (linear(Q, &a.y), linear(K, &a.y), linear(V, &a.y));
        rotate(m, &mut q, m.heads, batch, 1.0); rotate(m, &mut k, m.groups, batch, 1.0);
        let attn = attention(m, &q, &k, &v, batch);
        let attn_out = linear(O, &attn);
        add(&mut x, &attn_out);
        let b = norm(m, &x, m.at(l, POST_NORM));
        let (gate, up) = (linear(GATE, &b.y), linear(UP, &b.y));
        let act: Floats = gate.iter().zip(&up).map(|(gate, up)| gate / (1.0 + exp(-gate)) * up).collect();
        let mlp_out = linear(DOWN, &act); add(&mut x, &mlp_out);
        layers.push(Layer { a, q, k, v, attn, attn_out, b, gate, up, act, mlp_out, out: x.clone() });
    }
    let last = norm(m, &x, m.last_norm());
    let logits = dots(&last.y, &m.tensors[m.head()].data, m.width);
    Pass { embed, layers, last, logits }
}

/// The loss of a batch, and dlogits of [5].
fn loss(m: &Model, logits: &[f32], batch: &Batch) -> (f64, Floats) {
    let n = batch.tokens.len(); let predictions = (n - (batch.start.len() - 1)) as f64;
    let c = (1.0 / predictions) as f32;
    let (mut nll, mut dlogits) = (vec![0.0; n], vec![0.0; logits.len()]);
    for t in (0..n).filter(|t| !batch.start.contains(&(t + 1))) {
        let (x, d, y) = (&logits[t * m.vocab..][..m.vocab], &mut dlogits[t * m.vocab..], batch.tokens[t + 1]);
        let e = exps(x); let z = sum(&e); nll[t] = log(z) - (x[y] - max(x));
        for v in 0..m.vocab { d[v] = e[v] / z * c; }
        d[y] -= c;
    }
    (sum(&nll) as f64 / predictions, dlogits)
}

// ---- [5] Backward --------------------------------------------------------------------------------------------------

/// Gradients of a list of tensors.
type Gradients = Vec<Floats>;

/// dx_t += Σ_o dy_to w_o (rows), n wide
fn back(dx: &mut [f32], dy: &[f32], w: &[f32], n: usize) {
    let (tokens, out) = (dx.len() / n, w.len() / n);
    for o in 0..out {
        for t in 0..tokens { row(&mut dx[t * n..][..n], dy[t * out + o], &w[o * n..][..n]); }
    }
}

/// dw_o += Σ_t dy_to x_t (rows), n wide
fn outer(dw: &mut [f32], dy: &[f32], x: &[f32], n: usize) {
    let (tokens, out) = (x.len() / n, dw.len() / n);
    for o in 0..out {
        for t in 0..tokens { row(&mut dw[o * n..][..n], dy[t * out + o], &x[t * n..][..n]); }
    }
}

/// Without adapters grads[0] is of the model; else the model is frozen, and grads[k] is of the k-th adapter.
struct Backward<'a> { m: &'a Model, adapters: &'a [Adapter], grads: Vec<Gradients> }

impl Backward<'_> {
    /// dx += of norm
    fn norm(&mut self, dx: &mut [f32], norm: &Norm, gain: usize, dy: &[f32]) {
        let (d, g) = (self.m.width, &self.m.tensors[gain].data);
        for (t, &i) in norm.i.iter().enumerate() {
            let (x, dy, dx) = (&norm.x[t * d..][..d], &dy[t * d..][..d], &mut dx[t * d..][..d]);
            let m = dot3(g, dy, x) * i / d as f32;
            for j in 0..d {
                dx[j] += (g[j] * dy[j] - x[j] * i * m) * i;
                if self.adapters.is_empty() { self.grads[0][gain][j] += dy[j] * (x[j] * i); }
            }
        }
    }
    /// dx += of linear
    fn linear(&mut self, dx: &mut [f32], layer: usize, which: usize, x: &[f32], dy: &[f32]) {
        let (m, at) = (self.m, self.m.at(layer, which));
        let w = &m.tensors[at];
        back(dx, dy, &w.data, w.shape[1]);
        if self.adapters.is_empty() { outer(&mut self.grads[0][at], dy, x, w.shape[1]); }
        if let (true, Some(bias)) = (self.adapters.is_empty(), m.bias(layer, which)) {
            dy.chunks(w.shape[0]).for_each(|dy| add(&mut self.grads[0][bias], dy));
        }
        for (adapter, grads) in self.adapters.iter().zip(&mut self.grads) {
            if let Some((a, b, at)) = adapter.pair(layer, which) {
                let (rank, n) = (a.shape[0], a.shape[1]);
                outer(&mut grads[at + 1], dy, &inner(x, a, adapter.f), rank);
                let mut v = vec![0.0; x.len() / n * rank];
                back(&mut v, dy, &b.data, rank);
                times(&mut v, adapter.f);
                outer(&mut grads[at], &v, x, n); back(dx, &v, &a.data, n);
            }
        }
    }
    /// dq, dk, dv, turned back
    fn attention(&self, l: &Layer, dattn: &[f32], batch: &Batch) -> (Floats, Floats, Floats) {
        let m = self.m;
        let (mut dq, mut dk, mut dv) = (vec![0.0; l.q.len()], vec![0.0; l.k.len()], vec![0.0; l.v.len()]);
        for h in 0..m.heads {
            for (first, t) in batch.positions() {
                let query = span(m, m.heads, t, h);
                let d = &dattn[query.clone()]; let p = probabilities(m, &l.q, &l.k, h, first, t);
                let dp: Floats = (first..=t).map(|j| dot(d, &l.v[key(m, j, h)])).collect();
                let mean = dot(&p, &dp);
                for j in 0..p.len() {
                    let (r, key) = (p[j] * (dp[j] - mean) * root(m), key(m, first + j, h));
                    row(&mut dq[query.clone()], r, &l.k[key.clone()]);
                    row(&mut dv[key.clone()], p[j], d);
                    row(&mut dk[key], r, &l.q[query.clone()]);
                }
            }
        }
        rotate(m, &mut dq, m.heads, batch, -1.0); rotate(m, &mut dk, m.groups, batch, -1.0);
        (dq, dk, dv)
    }
}

fn backward(m: &Model, adapters: &[Adapter], batch: &Batch, pass: &Pass, dlogits: &[f32]) -> Vec<Gradients> {
    let zeros = |tensors: &[Tensor]| tensors.iter().map(|t| vec![0.0; t.data.len()]).collect();
    let all = adapters.is_empty();
    let grads = if all { vec![zeros(&m.tensors)] } else { adapters.iter().map(|a| zeros(&a.tensors)).collect() };
    let mut b = Backward { m, adapters, grads };
    let (mut dx, mut dhidden) = (vec![0.0; pass.embed.len()], vec![0.0; pass.embed.len()]);
    back(&mut dhidden, dlogits, &m.tensors[m.head()].data, m.width);
    if all { outer(&mut b.grads[0][m.head()], dlogits, &pass.last.y, m.width); }
    b.norm(&mut dx, &pass.last, m.last_norm(), &dhidden);
    for (i, l) in pass.layers.iter().enumerate().rev() {
        let mut dact = vec![0.0; l.act.len()];
        b.linear(&mut dact, i, DOWN, &l.act, &dx);
        let (mut dgate, mut dup) = (dact.clone(), dact);
        for (k, &gate) in l.gate.iter().enumerate() {
            let s = 1.0 / (1.0 + exp(-gate));
            dgate[k] = dgate[k] * l.up[k] * (s * (1.0 + gate * (1.0 - s))); dup[k] *= gate * s;
        }
        let mut db = vec![0.0; dx.len()];
        b.linear(&mut db, i, GATE, &l.b.y, &dgate);
        b.linear(&mut db, i, UP, &l.b.y, &dup);
        b.norm(&mut dx, &l.b, m.at(i, POST_NORM), &db);
        let mut dattn = vec![0.0; l.attn.len()];
        b.linear(&mut dattn, i, O, &l.attn, &dx);
        let (dq, dk, dv) = b.attention(l, &dattn, batch);
        let mut da = vec![0.0; dx.len()];
        b.linear(&mut da, i, Q, &l.a.y, &dq);
        b.linear(&mut da, i, K, &l.a.y, &dk);
        b.linear(&mut da, i, V, &l.a.y, &dv);
        b.norm(&mut dx, &l.a, m.at(i, INPUT_NORM), &da);
    }
    for (token, dx) in batch.tokens.iter().zip(dx.chunks(m.width)).filter(|_| all) {
        add(&mut b.grads[0][m.embedding()][token * m.width..][..m.width], dx);
    }
    b.grads
}

// ---- [6] Training --------------------------------------------------------------------------------------------------

/// The tensors of a fresh model of the same shapes.
fn fresh_model(m: &Model, seed: u64) -> Vec<Tensor> {
    let mut tensors = m.tensors.clone();
    for t in &mut tensors {
        let small = t.name.contains("o_proj") || t.name.contains("down_proj");
        let d = if small { 0.02 / (2.0 * m.layers as f64).sqrt() } else { 0.02 };
        let mut g = Stream::new(seed, &t.name, 0);
        match t.shape.len() {
            1 => t.data.fill(if t.name.ends_with(".bias") { 0.0 } else { 1.0 }),
            _ => t.data.iter_mut().for_each(|x| *x = (d * g.normal()) as f32),
        }
    }
    tensors
}

/// A fresh adapter of all matrices, with weight 1.
fn fresh_adapter(m: &Model, seed: u64, number: usize, rank: usize, alpha: f64) -> Adapter {
    let key = Stream::new(seed, "lora", number as u64).next();
    let tensor = |(i, name): (usize, String)| {
        let w = &m.tensors[m.at(i / 14, i / 2 % 7)].shape;
        if i % 2 == 1 { return Tensor { name, shape: vec![w[0], rank], data: vec![0.0; w[0] * rank] }; }
        let mut g = Stream::new(key, "A", i as u64 / 2);
        let mut draw = || ((2.0 * g.uniform() - 1.0) * (1.0 / (w[1] as f64).sqrt())) as f32;
        Tensor { name, shape: vec![rank, w[1]], data: (0..rank * w[1]).map(|_| draw()).collect() }
    };
    let tensors = Adapter::names(m).enumerate().map(tensor).collect();
    Adapter { number, f: (alpha / rank as f64) as f32, tensors }
}

struct Run {
    seed: u64, number: u64, steps: usize, batch: usize, shuffled: bool, lr: f64, warmup: f64, last: f64, cosine: bool,
    b1: f64, b2: f64, epsilon: f64, decay: f64, clip: f64,
}

impl Run {
    fn order(&self, n: usize, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        let key = Stream::new(self.seed, "order", self.number).next();
        let mut g = Stream::new(key, "epoch", epoch as u64);
        for i in (2..=n).rev().filter(|_| self.shuffled) { order.swap(i - 1, g.below(i)); }
        order
    }
    fn rate(&self, s: usize) -> f64 {
        let (s, n) = (s as f64, self.steps as f64); let w = (self.warmup * n + 0.5).floor();
        if s < w { return self.lr * (s + 1.0) / w; }
        let x = (s - w) / (n - w);
        let shape = if self.cosine { 0.5 * (1.0 + sin_cos(3.141592653589793 * x).1) } else { 1.0 - x };
        self.lr * (self.last + (1.0 - self.last) * shape)
    }
}

/// x^n by squaring
fn power(mut x: f64, mut n: usize) -> f64 {
    let mut y = 1.0;
    while n > 0 {
        if n % 2 == 1 { y *= x; }
        n /= 2; x *= x;
    }
    y
}

/// Step n = 1, 2 …, with the moments (m, v) of each number.
fn adamw(run: &Run, n: usize, tensors: &mut [Tensor], grads: &Gradients, moments: &mut [Vec<(f32, f32)>]) {
    let q = total(grads.iter().map(|g| dot(g, g) as f64)); let c = run.clip / (q.sqrt() + 1e-6);
    let scale = if c < 1.0 && run.clip > 0.0 { c as f32 } else { 1.0 };
    let rate = run.rate(n - 1);
    let (b1, b2, epsilon) = (run.b1 as f32, run.b2 as f32, run.epsilon as f32);
    let (c1, c2) = ((1.0 - run.b1) as f32, (1.0 - run.b2) as f32);
    let step = (rate / (1.0 - power(run.b1, n))) as f32;
    let root = (1.0 - power(run.b2, n)).sqrt() as f32;
    for ((tensor, grads), moments) in tensors.iter_mut().zip(grads).zip(moments) {
        let keep = (1.0 - rate * if tensor.shape.len() == 1 { 0.0 } else { run.decay }) as f32;
        for ((w, grad), (m, v)) in tensor.data.iter_mut().zip(grads).zip(moments) {
            let g = grad * scale; *m = b1 * *m + c1 * g; *v = b2 * *v + c2 * (g * g);
            *w = *w * keep - step * (*m / (v.sqrt() / root + epsilon));
        }
    }
}

/// Trains the adapter, or without one the model; the losses from before each step.
fn train(m: &mut Model, adapters: &mut [Adapter], sequences: &[Vec<usize>], run: &Run) -> Vec<f64> {
    let trained = if let [adapter] = &adapters { &adapter.tensors } else { &m.tensors };
    let mut moments: Vec<_> = trained.iter().map(|t| vec![(0.0, 0.0); t.data.len()]).collect();
    let n = sequences.len();
    let step = |s: usize| {
        let visits = s * run.batch..(s + 1) * run.batch;
        let batch: Vec<&[usize]> = visits.map(|i| &sequences[run.order(n, i / n)[i % n]][..]).collect();
        let batch = Batch::new(&batch);
        let pass = forward(m, adapters, &batch);
        let (loss, dlogits) = loss(m, &pass.logits, &batch);
        let grads = backward(m, adapters, &batch, &pass, &dlogits);
        let trained = if let [adapter] = adapters { &mut adapter.tensors } else { &mut m.tensors };
        adamw(run, s + 1, trained, &grads[0], &mut moments);
        loss
    };
    (0..run.steps).map(step).collect()
}

// ---- [7] Embedding -------------------------------------------------------------------------------------------------

const BUCKETS: usize = 2048;

/// idf, and the embedding of each text, of symbols of so many bits, by n-grams up to longest.
fn embed(texts: &[Vec<u64>], bits: u32, longest: usize) -> (Floats, Vec<Floats>) {
    let mut counts = vec![vec![0i64; BUCKETS]; texts.len()];
    for (text, c) in texts.iter().zip(&mut counts) {
        for gram in (1..=longest).flat_map(|n| text.windows(n)) {
            let g = gram.iter().fold(0, |g, symbol| g << bits | symbol);
            let h = mix(GOLDEN.wrapping_mul(gram.len() as u64).wrapping_add(g));
            c[h as usize % BUCKETS] += if h >> 63 == 1 { -1 } else { 1 };
        }
    }
    let k = |b: usize| counts.iter().filter(|c| c[b] != 0).count() as f64;
    let idf: Floats = (0..BUCKETS).map(|b| LOG((2.0 + texts.len() as f64) / (1.0 + k(b))) as f32).collect();
    let embedding = |c: &Vec<i64>| {
        let value = |b: usize| (LOG(1.0 + c[b].abs() as f64) * idf[b] as f64) as f32;
        normalise((0..BUCKETS).map(|b| if c[b] < 0 { -value(b) } else { value(b) }).collect())
    };
    let embeddings = counts.iter().map(embedding).collect();
    (idf, embeddings)
}

fn normalise(mut x: Floats) -> Floats {
    let m = x.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
    if m > 0.0 && m.is_finite() {
        x.iter_mut().for_each(|x| *x /= m); let l = dot(&x, &x).sqrt();
        x.iter_mut().for_each(|x| *x /= l);
    }
    x
}

// ---- [8] Clusters --------------------------------------------------------------------------------------------------

/// float(t / count) of the rows of one cluster or side
fn mean(x: &[&[f32]], of: &[usize], which: usize) -> Floats {
    let rows: Vec<usize> = (0..x.len()).filter(|&i| of[i] == which).collect();
    let t = |j: usize| total(rows.iter().map(|&i| x[i][j] as f64));
    (0..x[0].len()).map(|j| (t(j) / rows.len() as f64) as f32).collect()
}

/// The sides of the rows, and the inertia of both, from one start.
fn split_once(x: &[&[f32]], mut g: Stream) -> (Vec<usize>, [f64; 2]) {
    let first = x[g.below(x.len())];
    let d: Vec<f64> = x.iter().map(|x| f64::max(0.0, 2.0 - 2.0 * dot(x, first) as f64)).collect();
    let mut point = g.uniform() * total(d.iter().copied());
    let second = d[..d.len() - 1].iter().position(|d| { point -= d; point < 0.0 }).unwrap_or(d.len() - 1);
    let mut means = [first.to_vec(), x[second].to_vec()];
    let (mut side, mut inertia) = (vec![], [0.0; 2]);
    for _ in 0..100 {
        let q = [dot(&means[0], &means[0]), dot(&means[1], &means[1])];
        let (mut now, mut distance) = (vec![], vec![]); inertia = [0.0; 2];
        for x in x {
            let d = [0, 1].map(|s| 1.0 - 2.0 * dot(x, &means[s]) + q[s]);
            let s = if d[1] < d[0] { 1 } else { 0 };
            now.push(s);
            distance.push(f64::max(0.0, d[s] as f64));
            inertia[s] += f64::max(0.0, d[s] as f64);
        }
        match (0..2).find(|s| !now.contains(s)) {
            Some(empty) => now[argmax(&distance)] = empty,
            None => if now == side { break; },
        }
        side = now; means = [mean(x, &side, 0), mean(x, &side, 1)];
    }
    (side, inertia)
}

fn split(x: &[&[f32]], seed: u64, k: usize) -> (Vec<usize>, [f64; 2]) {
    let equal = |row: &&[f32]| row.iter().zip(x[0]).all(|(a, b)| a.to_bits() == b.to_bits());
    if x.iter().all(equal) { return ((0..x.len()).map(|i| i / x.len().div_ceil(2)).collect(), [0.0; 2]); }
    let starts = (0..8).map(|u| split_once(x, Stream::new(seed, "cluster", 8 * k as u64 + u)));
    starts.reduce(|best, next| if next.1[0] + next.1[1] < best.1[0] + best.1[1] { next } else { best }).unwrap()
}

/// The cluster of each row, and the centroids.
fn clusters(x: &[&[f32]], count: usize, seed: u64) -> (Vec<usize>, Vec<Floats>) {
    let (mut of, mut inertia) = (vec![0; x.len()], vec![0.0]);
    for k in 1..count {
        let rows = |c| (0..x.len()).filter(|&i| of[i] == c).collect::<Vec<usize>>();
        let widest = argmax(&(0..k).map(|c| if rows(c).len() > 1 { inertia[c] } else { -1.0 }).collect::<Vec<f64>>());
        let rows = rows(widest);
        let (side, i) = split(&rows.iter().map(|&r| x[r]).collect::<Vec<_>>(), seed, k);
        for (&r, _) in rows.iter().zip(&side).filter(|(_, s)| **s != side[0]) { of[r] = k; }
        inertia[widest] = i[side[0]]; inertia.push(i[1 - side[0]]);
    }
    let centroids = (0..count).map(|c| normalise(mean(x, &of, c))).collect();
    (of, centroids)
}

// ---- [9] Routing, merging, neighbours ------------------------------------------------------------------------------

/// The indices of x, largest first, of equal ones the lower.
fn descending(x: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[b].partial_cmp(&x[a]).unwrap());
    order
}

/// The experts kept, ascending, and their weights; without τ the limit is `active`, with it `max`.
fn route(s: &[f32], beta: f64, tau: Option<f64>, limit: usize) -> (Vec<usize>, Floats) {
    let c: Vec<f64> = s.iter().map(|&x| EXP((x as f64 - max(s) as f64) / (beta * beta))).collect();
    let all = total(c.iter().copied()); let w: Vec<f64> = c.iter().map(|c| c / all).collect();
    let mut experts = descending(s); experts.truncate(limit);
    experts.retain(|&k| tau.map_or(true, |tau| w[k] > tau)); experts.sort();
    let kept = total(experts.iter().map(|&k| w[k]));
    let weights = experts.iter().map(|&k| (w[k] as f32 as f64 / kept) as f32).collect();
    (experts, weights)
}

fn merged(m: &Model, adapters: &[Adapter]) -> Model {
    let mut m = m.clone();
    for (layer, which) in (0..m.layers).flat_map(|l| (Q..=DOWN).map(move |which| (l, which))) {
        let at = m.at(layer, which);
        for adapter in adapters {
            if let Some((a, b, _)) = adapter.pair(layer, which) {
                let (rank, n) = (a.shape[0], a.shape[1]);
                for (o, w) in m.tensors[at].data.chunks_mut(n).enumerate() {
                    for r in 0..rank { row(w, b.data[o * rank + r] * adapter.f, &a.data[r * n..][..n]); }
                }
            }
        }
    }
    m
}

fn sift(x: &[&[f32]], query: &[f32], lambda: f64, choices: usize) -> Vec<usize> {
    let mut q: Floats = x.iter().map(|x| dot(query, x)).collect();
    let mut v: Floats = x.iter().map(|x| dot(x, x)).collect();
    let (mut chosen, mut before) = (vec![], Vec::<Floats>::new());
    for _ in 0..choices {
        let gain = |i: usize| q[i] as f64 * q[i] as f64 / (v[i] as f64 + lambda);
        let best = argmax(&(0..x.len()).map(gain).collect::<Vec<f64>>());
        let root = (v[best] + lambda as f32).sqrt(); let l = q[best] / root;
        let mut c: Floats = x.iter().map(|row| dot(x[best], row)).collect();
        for i in 0..x.len() {
            for b in &before { c[i] -= b[i] * b[best]; }
            c[i] /= root; q[i] -= l * c[i]; v[i] -= c[i] * c[i];
        }
        chosen.push(best); before.push(c);
    }
    chosen
}

// ---- [10] Decoding -------------------------------------------------------------------------------------------------

fn sample(logits: &[f32], temperature: f64, top_p: f64, top_k: usize, g: &mut Stream) -> usize {
    let p: Floats = logits.iter().map(|x| EXP((x - max(logits)) as f64 / temperature) as f32).collect();
    let mut order = descending(&p); order.truncate(top_k);
    let all = total(order.iter().map(|&v| p[v] as f64));
    let (mut count, mut kept) = (0, 0.0);
    while count < order.len() && (count == 0 || kept < top_p * all) {
        kept += p[order[count]] as f64; count += 1;
    }
    let mut point = g.uniform() * kept; let last = order[count - 1];
    order[..count - 1].iter().copied().find(|&v| { point -= p[v] as f64; point < 0.0 }).unwrap_or(last)
}

// ---- [13] The witness ----------------------------------------------------------------------------------------------

/// SHA-256 (FIPS 180-4), in hexadecimal
fn sha256(message: &[u8]) -> String {
    const K: [u32; 64] = [
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
    ];
    let mut state: [u32; 8] =
        [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
    let mut bytes = message.to_vec();
    bytes.push(0x80); bytes.resize((bytes.len() + 8).next_multiple_of(64) - 8, 0);
    bytes.extend((message.len() as u64 * 8).to_be_bytes());
    for block in bytes.chunks(64) {
        let mut w: Vec<u32> = block.chunks(4).map(|b| u32::from_be_bytes(b.try_into().unwrap())).collect();
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
        for t in 0..64 {
            if t >= 16 {
                let (x, y) = (w[t - 15], w[t - 2]);
                let s0 = x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3;
                let s1 = y.rotate_right(17) ^ y.rotate_right(19) ^ y >> 10;
                w.push(w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1));
            }
            let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let t1 = h.wrapping_add(s1).wrapping_add(e & f ^ !e & g).wrapping_add(K[t]).wrapping_add(w[t]);
            let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let t2 = s0.wrapping_add(a & b ^ a & c ^ b & c);
            (a, b, c, d, e, f, g, h) = (t1.wrapping_add(t2), a, b, c, d.wrapping_add(t1), e, f, g);
        }
        for (s, x) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) { *s = s.wrapping_add(x); }
    }
    state.iter().map(|s| format!("{s:08x}")).collect()
}

/// The lines of a stage.
struct Lines { stage: &'static str, text: String }

impl Lines {
    fn line(&mut self, name: &str, shape: &[usize], bytes: Vec<u8>) {
        writeln!(self.text, "{} {name} {shape:?} {}", self.stage, sha256(&bytes)).unwrap();
    }
    fn floats(&mut self, name: &str, shape: &[usize], x: &[f32]) {
        self.line(name, shape, x.iter().flat_map(|x| x.to_le_bytes()).collect());
    }
    fn integers(&mut self, name: &str, x: &[usize]) {
        self.line(name, &[x.len()], x.iter().flat_map(|&x| (x as i32).to_le_bytes()).collect());
    }
    fn tensors(&mut self, prefix: &str, tensors: &[Tensor]) {
        for t in tensors { self.floats(&format!("{prefix}{}", t.name), &t.shape, &t.data); }
    }
    fn gradients(&mut self, prefix: &str, tensors: &[Tensor], grads: &Gradients) {
        for (t, g) in tensors.iter().zip(grads).filter(|(t, _)| !t.data.is_empty()) {
            self.floats(&format!("grad.{prefix}{}", t.name), &t.shape, g);
        }
    }
    fn losses(&mut self, losses: &[f64]) {
        for (s, &loss) in losses.iter().enumerate() {
            self.floats(&format!("step.{}.loss", s + 1), &[1], &[loss as f32]);
        }
    }
    fn pass(&mut self, m: &Model, adapters: &[Adapter], tokens: &[usize], gradients: bool) {
        let batch = Batch::new(&[tokens]);
        let pass = forward(m, adapters, &batch);
        self.integers("tokens", tokens);
        let mut activation = |name: &str, x: &[f32]| self.floats(name, &[tokens.len(), x.len() / tokens.len()], x);
        activation("embed", &pass.embed);
        for (i, l) in pass.layers.iter().enumerate() {
            let all = [
                ("attn_norm", &l.a.y), ("q", &l.q), ("k", &l.k), ("v", &l.v), ("attn", &l.attn),
                ("attn_out", &l.attn_out), ("mlp_norm", &l.b.y), ("gate", &l.gate), ("up", &l.up),
                ("mlp_out", &l.mlp_out), ("out", &l.out),
            ];
            for (name, x) in &all { activation(&format!("layers.{i}.{name}"), x); }
        }
        activation("final_norm", &pass.last.y);
        activation("logits", &pass.logits);
        let (loss, dlogits) = loss(m, &pass.logits, &batch);
        self.floats("loss", &[1], &[loss as f32]);
        if !gradients { return; }
        let grads = backward(m, adapters, &batch, &pass, &dlogits);
        if adapters.is_empty() { self.gradients("", &m.tensors, &grads[0]); }
        for (a, g) in adapters.iter().zip(&grads) {
            self.gradients(&format!("experts.{}.", a.number), &a.tensors, g);
        }
    }
}

fn stage_functions(out: &mut Lines) {
    let functions: [(&str, fn(f64) -> f64, f64, f64); 5] = [
        ("exp", EXP, -760.0, 760.0), ("log", LOG, 0.0, 1000.0), ("sin", |x| sin_cos(x).0, -10000.0, 10000.0),
        ("cos", |x| sin_cos(x).1, -10000.0, 10000.0), ("erf", ERF, -7.0, 7.0),
    ];
    let mut g = Stream::new(1, "functions", 0);
    for (name, of, from, to) in functions {
        out.line(name, &[1000], (0..1000).flat_map(|_| of(from + (to - from) * g.uniform()).to_le_bytes()).collect());
    }
}

fn stage_train(out: &mut Lines, m: &Model, sequences: &[Vec<usize>]) {
    let run = Run {
        seed: 1, number: 0, steps: 6, batch: 3, shuffled: false, lr: 0.01, warmup: 0.2, last: 0.05, cosine: true,
        b1: 0.9, b2: 0.98, epsilon: 1e-8, decay: 0.05, clip: 1.0,
    };
    let mut m = m.clone();
    out.losses(&train(&mut m, &mut [], sequences, &run));
    out.tensors("", &m.tensors);
}

fn stage_expert(out: &mut Lines, m: &mut Model, sequences: &[Vec<usize>], steps: usize) {
    let run = Run {
        seed: 1, number: 0, steps, batch: 2, shuffled: true, lr: 0.01, warmup: 0.1, last: 0.05, cosine: false,
        b1: 0.9, b2: 0.999, epsilon: 1e-8, decay: 0.0, clip: 1.0,
    };
    let mut adapter = [fresh_adapter(m, 1, 0, 4, 8.0)];
    out.tensors("start.", &adapter[0].tensors);
    out.losses(&train(m, &mut adapter, sequences, &run));
    out.tensors("", &adapter[0].tensors);
}

fn stage_cluster(out: &mut Lines, sequences: &[Vec<usize>]) {
    let mut embedded = |prefix: &str, modulus: usize, bits, longest| {
        let text = |s: &Vec<usize>| s.iter().map(|t| (t % modulus) as u64).collect();
        let (idf, x) = embed(&sequences.iter().map(text).collect::<Vec<_>>(), bits, longest);
        out.floats(&format!("{prefix}idf"), &[BUCKETS], &idf);
        out.floats(&format!("{prefix}embeddings"), &[x.len(), BUCKETS], &x.concat());
        x
    };
    embedded("ids.", 1 << 32, 32, 2);
    let x = embedded("", 256, 8, 4);
    let x: Vec<&[f32]> = x.iter().map(|x| &x[..]).collect();
    let (of, centroids) = clusters(&x, 11, 1);
    out.integers("cluster", &of);
    out.floats("centroid", &[11, BUCKETS], &centroids.concat());
    out.integers("nearest", &descending(&x.iter().map(|row| dot(x[0], row)).collect::<Floats>())[..6]);
    out.integers("sift", &sift(&x, x[0], 0.01, 6));
}

/// The lines of `route`, and the experts that take part in `merge` and `beside`.
fn stage_route(out: &mut Lines, m: &Model, folder: &str) -> Vec<Adapter> {
    let centroids = &read_tensors(&format!("{folder}/centroids.safetensors"))["embeddings"];
    let mut g = Stream::new(1, "query", 0);
    let query = normalise((0..centroids.shape[1]).map(|_| (2.0 * g.uniform() - 1.0) as f32).collect());
    let s = dots(&query, &centroids.data, query.len());
    out.floats("query", &[query.len()], &query);
    out.floats("similarity", &[s.len()], &s);
    let mut case = |prefix: &str, (experts, weights): (Vec<usize>, Floats)| {
        out.integers(&format!("{prefix}experts"), &experts);
        out.floats(&format!("{prefix}weights"), &[weights.len()], &weights);
        (experts, weights)
    };
    case("active.", route(&s, 0.7, None, 4));
    case("max.", route(&s, 0.9, Some(0.0), 2));
    let (experts, weights) = case("", route(&s, 0.6, Some(0.1), 50));
    experts.iter().zip(weights).map(|(&k, w)| Adapter::read(m, folder, k, w)).collect()
}

fn stage_greedy(out: &mut Lines, m: &Model, prompt: &[usize], count: usize) {
    let (mut tokens, mut last) = (prompt.to_vec(), vec![]);
    for n in 0..count {
        let logits = forward(m, &[], &Batch::new(&[&tokens])).logits;
        last = logits[logits.len() - m.vocab..].to_vec();
        let taken = if n == 0 { &logits } else { &last };
        out.floats(&format!("logits.{n}"), &[taken.len() / m.vocab, m.vocab], taken);
        tokens.push(argmax(&last));
    }
    out.integers("tokens", &tokens[prompt.len()..]);
    let mut g = Stream::new(1, "sample", 0);
    out.integers("sampled", &(0..20).map(|_| sample(&last, 0.7, 0.9, 12, &mut g)).collect::<Vec<usize>>());
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| arguments.iter().position(|a| a == name).map(|i| &arguments[i + 1][..]);
    let size = |name: &str, default| after(name).map_or(default, |n| n.parse().expect(name));
    let folder = &arguments.get(1).expect("./witness MODEL …")[..];
    let each = arguments.iter().any(|a| a == "--each");
    let mut m = Model::read(folder);
    let mut g = Stream::new(1, "witness", 0);
    let length = |i: usize| size("--length", 40) - i % 3;
    let mut sequences: Vec<Vec<usize>> = (0..9).map(|i| (0..length(i)).map(|_| g.below(m.vocab)).collect()).collect();
    sequences.extend_from_within(..3);
    let routed = std::path::Path::new(&format!("{folder}/centroids.safetensors")).exists();
    let mut all = String::new();
    for stage in ["functions", "init", "pass", "train", "expert", "cluster", "route", "merge", "beside", "greedy"] {
        let wanted = after("--only").map_or(true, |only| only.split(',').any(|s| s == stage));
        if !wanted || !routed && ["route", "merge", "beside"].contains(&stage) { continue; }
        let mut out = Lines { stage, text: String::new() };
        let experts = || stage_route(&mut Lines { stage: "route", text: String::new() }, &m, folder);
        match stage {
            "functions" => stage_functions(&mut out),
            "init" => out.tensors("", &fresh_model(&m, 1)),
            "pass" => out.pass(&m, &[], &sequences[0], true),
            "train" => stage_train(&mut out, &m, &sequences),
            "expert" => stage_expert(&mut out, &mut m, &sequences, size("--steps", 20)),
            "cluster" => stage_cluster(&mut out, &sequences),
            "route" => drop(stage_route(&mut out, &m, folder)),
            "merge" => {
                let m = merged(&m, &experts());
                out.tensors("", &m.tensors);
                out.pass(&m, &[], &sequences[0], false);
            }
            "beside" => out.pass(&m, &experts(), &sequences[0], true),
            _ => stage_greedy(&mut out, &m, &sequences[0][..8], size("--tokens", 50)),
        }
        if each { print!("{}", out.text); } else { println!("{stage} {}", sha256(out.text.as_bytes())); }
        all += &out.text;
    }
    if !each { println!("all {}", sha256(all.as_bytes())); }
}
