/* ttmm.c - test-time model merging (TTMM) in C99: the library behind train and run, written to be read from top to
 * bottom. ttmm.h is its public face, with the letters that shapes are written in, and has the same parts and sections:
 *
 *   Part I, the method               1 errors, memory, random numbers; sums and products       2 embedding
 *                                    3 clusters       4 routing and merging       5 the transformer's layers
 *                                    6 LoRA; the whole passes       7 optimiser, trainer       8 test-time training
 *                                    9 answering a prompt; scoring, sampling       9a a sentence encoder
 *   Part II, exact and fast          10 exp, log, erf, sin, cos       11 kernels       12 memory; tracing
 *   Part III, the outside world      13 platform and files       14 text, documents, corpus       15 JSON, safetensors
 *                                    16 config.json, checkpoints, adapters       17 tokenizers and Unicode
 *                                    18 comparing; the command line
 *
 * Whoever stops at the end of Part I has seen every formula of the method and every derivative. Part II computes the
 * same bits faster, Part III reads and writes what others use. A function calls what stands above it or what ttmm.h
 * declares; of what it calls below there is a declaration above, with the section where it stands.
 *
 * It is a reference, not a framework: no graph, no GPU, no quantisation, one family of models (Llama and Qwen2).
 *
 *
 * WHAT TTMM IS, AND WHY MERGING COMES CLOSE TO TRAINING AT TEST TIME
 *
 * A language model predicts better if it is fine-tuned, for every single prompt, on the training texts nearest to that
 * prompt: test-time training (TTT). That takes seconds or minutes before the first token of an answer. TTMM
 * (Bertolissi, Huebotter, Hakimi, Krause 2025, arXiv 2505.14136, "the paper" from here on) moves the training to train
 * time: it cuts the training text into K neighbourhoods and trains one small expert, a LoRA adapter, on each. At test
 * time it only chooses the experts near the prompt and adds their weighted average to the base model's weights.
 *
 * Why is that nearly the same? Let W be the base model's weights, g(x) the gradient of the loss on sequence x at W, and
 * let all training be one small step of length e. Then
 *
 *   TTT on the neighbours N of the prompt gives       W - e mean of g(x) over x in N;
 *   the expert of cluster k is                        W_k = W - e mean of g(x) over x in cluster k;
 *   merging with weights w_k that sum to 1 gives      W + sum_k w_k (W_k - W) = W - e sum_x a(x) g(x),
 *                                                     a(x) = w_k / (size of cluster k) for x in cluster k.
 *
 * Both are one step along an average of the same gradients, over sequences near the prompt. TTT's average has the
 * weight 1 / |N| inside a ball around the prompt and 0 outside; TTMM's is constant on each cluster, and w_k falls with
 * the distance between the prompt and the cluster's centre. If texts with similar embeddings have similar gradients,
 *
 *   |g(x) - g(y)| <= c |phi(x) - phi(y)|,   then the two steps differ by at most
 *   e c times the mean of |phi(x) - phi(y)| over x in N, y in the active clusters (each weighted as above).
 *
 * So clusters should be small, and those that take part near the prompt. Why several? One expert is TTT on a
 * neighbourhood whose border was drawn without the prompt. Where the prompt lies near that border, half of what
 * surrounds it is in the next cluster; the average of both experts has it. This is an idea, not a proof: it holds for
 * one small step of all weights, while experts are trained by many large ones, with AdamW, in a low rank (there even
 * the first step is g projected onto the rows of the adapter's random A). Whether it carries over, the experiment
 * decides (README, test/RESULTS.md). The price: K trainings before, K adapters on the disk; per prompt an embedding, K
 * inner products, and one sum W + w s B A per active expert.
 *
 *
 * THE PIPELINE                                         (in brackets: the section)
 *
 *     train time, once (train.c)                            test time, for each prompt (run.c, ttmm_answer)
 *
 *     text                                                  prompt, its first tokens (50): the prefix
 *      |  cut into documents, sequences x_i [14]                |
 *      +--------------------+                                   |  embed [2]
 *      | pre-train [5-7]    | embed [2]                         v
 *      v                    v                               query phi* [E]
 *     base W            phi(x_i) [E]                            |  route [4]: w_k from phi*.phi_k, few are > 0
 *      |                    |  cluster [3]                      v
 *      |                    v                               experts k with weights w_k
 *      |                cluster k, its centroid phi_k [E]       |  merge [4]: W' = W + sum_k w_k s_k B_k A_k
 *      |                    |                                   |  (or beside: W x + sum_k w_k s_k B_k (A_k x))
 *      +---------+----------+                                   v
 *                | LoRA on cluster k [6, 7]                 decode [9], token by token
 *                v
 *            expert k: A_k, B_k, s_k                        TTT [8]: phi* -> the nearest x_i -> a fresh LoRA -> decode
 *
 * A LAYER [5, 6]                                       N tokens of all sequences of a batch at once
 *
 *     x [N, D] -+-> RMSNorm -> Wq, Wk, Wv -> rotate q, k -> attention -> Wo -> (+) -> middle [N, D]
 *               |   [N, D]     [N, H S], 2 x [N, G S]       [N, H S]  [N, D]    ^
 *               +---------------------------------------------------------------+
 *     middle   -+-> RMSNorm -> Wgate, Wup -> silu(gate) up -> Wdown ----------> (+) -> the next layer's x
 *               |   [N, D]     2 x [N, F]    [N, F]           [N, D]            ^
 *               +---------------------------------------------------------------+
 *     before the first layer: x_t = row token_t of the embedding; after the last: RMSNorm -> head -> logits [N, V]
 *
 * RAGGED BATCHES, THE KEY/VALUE CACHE [6]
 *
 *     The sequences of a batch lie end to end, without padding; start[b] is where sequence b begins, start[B] = N:
 *         token     a b c d e | f g | h i j        B = 3 sequences, N = 10 tokens
 *         position  0 1 2 3 4 | 0 1 | 0 1 2        start = 0, 5, 7, 10
 *     Only rotation, attention and the loss see the borders; all else works on N rows. The logits of a row do not
 *     depend on what else is in the batch. With a cache B is 1, and each layer keeps the keys and values of all
 *     positions so far:
 *         rows of k and v   [ kept from the calls before: past | those of this call: N | still free ]
 *     so a call computes N rows of everything else, and a query at position p sees the keys 0 .. p.
 *
 *
 * FROM THE PAPER TO THE CODE
 *
 *     both times: embeddings, by a sentence encoder (or built in)                                  ttmm_encode
 *     train time: clustering of the embeddings, bisecting k-means; phi_k, the normalised mean      ttmm_cluster
 *                 an expert per cluster: LoRA, AdamW                    linear_forward, _backward, ttmm_trainer_step
 *     test time:  the merging coefficients, sparse cross-attention                                 ttmm_route
 *                 merging: theta = sum_k w_k theta_k                                               ttmm_merge
 *                 the whole procedure                                                              ttmm_answer
 *     baselines:  TTT on nearest neighbours; by SIFT                                               ttmm_ttt_train
 *                 ensembling of predictions instead of parameters                                  ttmm_score_ensemble
 *     appendix B: the coefficients as a kernel: on unit vectors 1 - cos = |phi - phi_k|^2 / 2, so that
 *                 exp(-(1 - cos) / beta^2) is a Gaussian (RBF) kernel of standard deviation beta   ttmm_route
 *
 * WORDS
 *
 *     document     a text as it was given; sequence: a piece of it no longer than the context, what is trained on
 *     prompt       what is to be continued at test time; prefix: its first tokens, which routing sees
 *     embedding    a unit vector phi [E] of a text; query: that of a prompt's prefix; centroid: that of a cluster
 *     adapter      low-rank updates B A of a model's matrices (LoRA); expert: the adapter trained on one cluster
 *     mix          adapters with weights that take part in a pass beside the model's matrices
 *     pass         forward or backward through the model, and the activations that it works with (ttmm_pass)
 *     epoch        once over the sequences of a training run
 *
 * WHERE THIS CODE DEVIATES FROM THE PAPER, AND WHY
 *
 *     - Texts are embedded by hashed byte n-grams, if no sentence encoder is given (all-mpnet-base-v2, section 9a):
 *       that needs no model and is a page of code. Embeddings from outside are taken, too.
 *     - beta is that of the authors' package ttmerge, the square root of the beta in the paper's cross-attention:
 *       beta^2 divides the similarity. 0.2 is ttmerge's; for the built-in embedding run uses 0.12 (test/choose.sh).
 *     - TTT sees the nearest neighbour last, not first: the last steps count most, and farther neighbours would undo
 *       the nearest. It goes over them for several epochs, as so small a model learns little in one.
 *     - Of two equal similarities the lower index counts first, everywhere: results must not depend on chance.
 *
 * WHY THE BITS ARE THE SAME EVERYWHERE
 *
 *     - IEEE-754 + - * / and sqrt are correctly rounded: the float nearest to the true result, on every machine. Only
 *       the order of operations is free, so it is fixed here: a sum of reals over a contiguous axis has 16 lanes
 *       (section 1), any other sum goes in ascending order, and no product is fused with a sum (-ffp-contract=off).
 *     - exp, log, erf, sin and cos are written here from these (section 10), because every libm has its own.
 *     - Threads and blocks decide which outputs are computed when, never the order inside one output.
 *     - `make FAST=1` permits fused products: faster, the same mathematics, other last bits. */
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    defined(__NO_SIGNED_ZEROS__) || __FINITE_MATH_ONLY__ + 0
#error "ttmm must not be compiled with -ffast-math or a part of it: it would alter sums. make FAST=1 is the fast build."
#endif
#if defined(__GNUC__) && __GNUC__ > 4 && !defined(__clang__) /* gcc, which does not say so by a macro */
__extension__ _Static_assert(sizeof 1.0 == sizeof(double),
                             "ttmm must not be compiled with -fsingle-precision-constant: it would alter constants");
#endif
#if defined(__clang__) && !defined(TTMM_FAST)
#pragma STDC FP_CONTRACT OFF
#endif
#if !defined(_WIN32) && !defined(TTMM_NO_FILES)
#define _POSIX_C_SOURCE 200809L
#define _DARWIN_C_SOURCE /* macOS: or _SC_PHYS_PAGES is hidden */
#define _FILE_OFFSET_BITS 64
#endif
#include "ttmm.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#ifndef TTMM_NO_FILES
#include <stdlib.h>
#endif
#ifndef TTMM_NO_SENTENCES
#include <stdio.h>
#endif
#ifndef TTMM_CALLOC
#ifdef TTMM_NO_FILES
#define TTMM_CALLOC(n, size) NULL
#define TTMM_FREE(memory) ((void)(memory))
#else
#define TTMM_CALLOC calloc
#define TTMM_FREE free
#endif
#endif
#ifdef _OPENMP
#include <omp.h>
#define OMP(directive) _Pragma(#directive)
#else
#define OMP(directive)
#define omp_set_num_threads(n) ((void)(n))
#define omp_get_max_active_levels() 1
#define omp_set_max_active_levels(n) ((void)(n))
#define omp_get_max_threads() 1
#define omp_get_num_procs() 1
#define omp_get_thread_num() 0
#endif

#if CHAR_BIT != 8 || FLT_MANT_DIG != 24 || DBL_MANT_DIG != 53
#error "ttmm needs 8-bit bytes and IEEE-754 float and double"
#endif
/* FLT_EVAL_METHOD is 16 where only _Float16 has its own. tcc and pcc do not say; on i386 they use the x87. */
#if (defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 && !defined(__TINYC__)) || \
    ((defined(__TINYC__) || defined(__PCC__)) && defined(__i386__))
#error "ttmm needs float arithmetic in float (on x86 -msse2 -mfpmath=sse, on s390x -fexcess-precision=fast)"
#endif
#if defined(__clang__) && defined(__arm__) && defined(__ARM_NEON) && !defined(TTMM_DOUBLE)
#error "ttmm needs subnormal floats, and clang uses NEON, which has none on 32-bit ARM: -mfpu=vfpv3-d16"
#endif
#if defined(__GNUC__) && !defined(__TINYC__) && !defined(__PCC__) && !defined(TTMM_PLAIN)
#define KERNELS 1 /* of section 11, on GNU vector types, in place of section 1's definitions */
#else
#define KERNELS 0
#endif

typedef ttmm_real real;

/* ==================================================================================================================
 * PART I: THE METHOD
 * ================================================================================================================== */

/* The letters of shapes: B sequences of a batch with N tokens in all, T tokens of one sequence; D the model's width, L
 * layers, H query heads, G key/value heads, S numbers a head, F the MLP's width, V vocabulary; R rank; K experts; E
 * length of an embedding, n sequences of a corpus. x' is x transposed. `real` is float, in the double build double.
 *
 * Numbers that can be checked by hand stand above many functions, rounded to four decimals where they are not exact
 * (ln 2 = 0.6931, ln 3 = 1.0986); test/worked.c asserts their results. */

/* From below. */
static inline real exp_real(real x);                         /* 10: exp, rounded once */
static inline real sqrt_real(real x);                        /* 10 */
static inline uint64_t to_bits(double x);                    /* 10: as they are in memory */
static void sin_cos(double *sine, double *cosine, double x); /* 10 */
static size_t kind_rows(const ttmm_config *c, int kind);     /* 5: the shape of a tensor */
static size_t kind_cols(const ttmm_config *c, int kind);
static ttmm_numbers weight(const ttmm_model *m, int layer, int kind); /* 5: a tensor, as it is stored */
static ttmm_numbers lora_a(const ttmm_lora_matrix *l);                /* 12: A and B, as they are stored */
static ttmm_numbers lora_b(const ttmm_lora_matrix *l);
static int layer_kinds(const ttmm_config *c); /* 12: tensors of a layer */
static int allocate_embeddings(ttmm_corpus *c, size_t rows, size_t dim, int idf, ttmm_error *err); /* 12 */
static inline double erf_inline(double x);                                                         /* 10 */
#ifdef TTMM_NO_FILES
#define unmap_files(files) ((void)(files))
#else
static void unmap_files(void *files); /* 15 */
#endif

/* ==== 1. Errors, memory, random numbers; sums and products ======================================================== */

/* A function that can fail returns TTMM_OK or a negative code, and fills err with the code and one sentence. */
int ttmm_fail(ttmm_error *err, int code, const char *format, ...)
{
#ifdef TTMM_NO_SENTENCES
    (void)format, err->text[0] = 0;
#else
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->text, sizeof err->text, format, arguments);
    va_end(arguments);
#endif
    return err->code = code;
}
#ifdef TTMM_NO_SENTENCES /* inside this file: not even the words are there */
#define fail(err, code_, ...) \
    ((void)sizeof(ttmm_fail(err, code_, __VA_ARGS__)), (err)->text[0] = 0, (err)->code = (code_))
#else
#define fail ttmm_fail
#endif

/* Sizes saturate: SIZE_MAX stands for "more than this machine can address", and no allocation of it succeeds. */
static size_t mul_size(size_t a, size_t b) { return b && a > SIZE_MAX / b ? SIZE_MAX : a * b; }
static size_t add_size(size_t a, size_t b) { return a > SIZE_MAX - b ? SIZE_MAX : a + b; }

/* One block of memory per object. A lay_out_ function takes the object's arrays from an arena, and is called twice:
 * first with base NULL, which only adds up the size, then with memory. So sizes are known before anything is allocated,
 * and cannot disagree with the pointers. Every array begins at a multiple of 64 bytes, a cache line. */
typedef struct {
    char *base;
    size_t used;
} arena;

static void *take(arena *a, size_t count, size_t size)
{
    void *p = a->base ? a->base + a->used : NULL;
    size_t bytes = mul_size(count, size);
    a->used = add_size(a->used, add_size(bytes, 63) == SIZE_MAX ? SIZE_MAX : (bytes + 63) / 64 * 64);
    return p;
}

static real *take_reals(arena *a, size_t count) { return take(a, count, sizeof(real)); }

/* The block itself, for a layout that used a->used bytes: zeroed, 64-byte aligned; *block is what to free. */
static int allocate(arena *a, void **block, const char *what, ttmm_error *err)
{
    const size_t bytes = a->used;
    char *p = bytes < SIZE_MAX - 64 ? TTMM_CALLOC(bytes + 64, 1) : NULL;
    *block = p;
    if (p == NULL)
        return fail(err, TTMM_NO_ROOM, "out of memory: %.1f MiB needed for %s", (double)bytes / 1048576, what);
    a->base = p + (64 - (uintptr_t)p % 64);
    a->used = 0;
    return TTMM_OK;
}

/* The same in memory of the caller's, if there is any: then *block is NULL. */
static int place(arena *a, void **block, void *memory, size_t bytes, const char *what, ttmm_error *err)
{
    if (memory == NULL) return allocate(a, block, what, err);
    *block = NULL;
    if ((uintptr_t)memory % 8 != 0) return fail(err, TTMM_BAD_USE, "memory for %s is not aligned to 8 bytes", what);
    if (bytes < a->used)
        return fail(err, TTMM_NO_ROOM, "%zu bytes of memory for %s, expected %zu", bytes, what, a->used);
    a->base = memset(memory, 0, a->used);
    a->used = 0;
    return TTMM_OK;
}

/* Random numbers: SplitMix64 (Steele, Lea, Flood 2014). The state grows by GOLDEN, 2^64 divided by the golden ratio;
 * the output is the state, mixed. */
#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

static uint64_t mix_bits(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

uint64_t ttmm_next(ttmm_rng *g) { return mix_bits(g->state += GOLDEN); }

/* Every use of randomness has its own stream, named by seed, purpose and index: so expert 7 is the same whether experts
 * are trained in order, alone, or on another machine. */
ttmm_rng ttmm_stream(uint64_t seed, const char *purpose, uint64_t index)
{
    ttmm_rng g = {mix_bits(seed)};
    for (; *purpose; purpose++) g.state = mix_bits(g.state ^ (unsigned char)*purpose) + 1;
    g.state = mix_bits(g.state ^ index);
    return g;
}

double ttmm_uniform(ttmm_rng *g) { return (double)(ttmm_next(g) >> 11) * 0x1p-53; }

double ttmm_normal(ttmm_rng *g) /* Box & Muller 1958 */
{
    double u = 1 - ttmm_uniform(g), v = ttmm_uniform(g);
    return sqrt(-2 * ttmm_log(u)) * ttmm_cos(6.283185307179586 * v);
}

uint64_t ttmm_below(ttmm_rng *g, uint64_t n) /* numbers under 2^64 mod n are drawn again: the rest divides evenly */
{
    uint64_t skip = (0 - n) % n, x;
    do x = ttmm_next(g);
    while (x < skip);
    return x % n;
}

/* Sums. This is the definition of every sum of reals over a contiguous axis: it has 16 lanes. Lane l adds up the terms
 * with index k = l (mod 16), k ascending, each product and each sum rounded once. Then the lanes are halved: lane l +=
 * lane l + 8, then + 4, + 2, + 1. An axis that ends inside a block of 16 is as if it went on with zeros. A compiler can
 * use vectors of 2, 4, 8 or 16 lanes for this as it stands.
 *
 * Example, n = 18: x_0 = 2^24, x_1 = 1, x_8 = -2^24, x_16 = x_17 = 2, the others 0; all y are 1. The exact sum is 5.
 * From 2^24 to 2^25 floats are even: 2^24 + 1 rounds to 2^24, 2^24 + 3 to 2^24 + 4 (halfway: to the even significand).
 *   lanes       lane 0 = x_0 + x_16 = 2^24 + 2,   lane 1 = x_1 + x_17 = 3,   lane 8 = x_8 = -2^24
 *   halved      lane 0 += lane 8: 2;   lane 0 += lane 1: 5
 *   ascending   2^24 + 1 = 2^24;   - 2^24: 0;   + 2 + 2: 4, and the 1 is lost
 * With x_1 and x_8 exchanged it is the other way round: ascending 5, lanes 6. No order is the best for every x; what
 * counts is to have one. (In double the same with 2^53.) */
enum { LANES = 16 };

static real halve(real *lane, int n) /* lane [n]: overwritten; the sum is in lane 0 */
{
    for (int half = n / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

static real dot(const real *x, const real *y, size_t n) /* sum_k x_k y_k */
{
    real lane[LANES] = {0};
    size_t k = 0;
    for (; k + LANES <= n; k += LANES)
        for (size_t l = 0; l < LANES; l++) lane[l] += x[k + l] * y[k + l];
    for (size_t l = 0; k + l < n; l++) lane[l] += x[k + l] * y[k + l];
    return halve(lane, LANES);
}

static real dot3(const real *x, const real *y, const real *z, size_t n) /* sum_k x_k y_k z_k */
{
    real lane[LANES] = {0};
    size_t k = 0;
    for (; k + LANES <= n; k += LANES)
        for (size_t l = 0; l < LANES; l++) lane[l] += x[k + l] * y[k + l] * z[k + l];
    for (size_t l = 0; k + l < n; l++) lane[l] += x[k + l] * y[k + l] * z[k + l];
    return halve(lane, LANES);
}

static real sum(const real *x, size_t n)
{
    real lane[LANES] = {0};
    size_t k = 0;
    for (; k + LANES <= n; k += LANES)
        for (size_t l = 0; l < LANES; l++) lane[l] += x[k + l];
    for (size_t l = 0; k + l < n; l++) lane[l] += x[k + l];
    return halve(lane, LANES);
}

static real largest(const real *x, size_t n) /* n > 0; in lanes, too, though its order would not matter */
{
    real lane[LANES];
    for (size_t l = 0; l < LANES; l++) lane[l] = x[0];
    size_t k = 0;
    for (; k + LANES <= n; k += LANES)
        for (size_t l = 0; l < LANES; l++) lane[l] = x[k + l] > lane[l] ? x[k + l] : lane[l];
    for (size_t l = 0; k + l < n; l++) lane[l] = x[k + l] > lane[l] ? x[k + l] : lane[l];
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++) lane[l] = lane[l + half] > lane[l] ? lane[l + half] : lane[l];
    return lane[0];
}

size_t ttmm_argmax(const real *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* Products of matrices, named as BLAS names them (n: as it lies, t: transposed); arrays are row-major:
 *   matmul_nt   c = a b'  (add: c += a b')     c_ij = dot(a_i, b_j)             a [rows, inner]   b [cols, inner]
 *   matmul_nn   c = c0 + a b                   c_ij = c0_ij + sum_k a_ik b_kj   a [rows, inner]   b [inner, cols]
 *   matmul_tn   c = c0 + a' b                  c_ij = c0_ij + sum_k a_ki b_kj   a [inner, rows]   b [inner, cols]
 * c, c0 [rows, cols] (may be the same). A model's weights, the b of nt and nn, may be stored in 16 bits: they count as
 * the reals that they stand for. In nt, where the rows of both lie contiguously, a sum is a dot product, in 16
 * lanes; in the others rows of b are added up, k ascending from c0. The three of a linear layer y = x W': the layer
 * itself is nt; dx = dy W is nn; dW = dy' x is tn. They run on all threads, in blocks of outputs (section 11). */
static void matmul_nt(real *c, const real *a, ttmm_numbers b, size_t rows, size_t cols, size_t inner, int add);
static void matmul_nn(real *c, const real *c0, const real *a, ttmm_numbers b, size_t rows, size_t cols, size_t inner);
static void matmul_tn(real *c, const real *c0, const real *a, const real *b, size_t rows, size_t cols, size_t inner);

/* One block of outputs, on one thread. Rows are ldc, lda and ldb numbers apart. In nn element (i, k) of a is at
 * a[i * row_step + k * k_step]: with the two steps exchanged a is used transposed, and this is tn. */
static void matmul_nt_block(real *c, size_t ldc, const real *a, size_t lda, const real *b, size_t ldb, size_t rows,
                            size_t cols, size_t inner, int add);
static void matmul_nn_block(real *c, const real *c0, size_t ldc, const real *a, size_t row_step, size_t k_step,
                            const real *b, size_t ldb, size_t rows, size_t cols, size_t inner);

#if !KERNELS /* the definitions; section 11 has kernels that give the same bits, for compilers with GNU vectors */
static void matmul_nt_block(real *c, size_t ldc, const real *a, size_t lda, const real *b, size_t ldb, size_t rows,
                            size_t cols, size_t inner, int add)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) {
            const real product = dot(a + i * lda, b + j * ldb, inner);
            c[i * ldc + j] = add ? c[i * ldc + j] + product : product;
        }
}

static void matmul_nn_block(real *c, const real *c0, size_t ldc, const real *a, size_t row_step, size_t k_step,
                            const real *b, size_t ldb, size_t rows, size_t cols, size_t inner)
{
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < cols; j++) c[i * ldc + j] = c0[i * ldc + j];
        for (size_t k = 0; k < inner; k++)
            for (size_t j = 0; j < cols; j++) c[i * ldc + j] += a[i * row_step + k * k_step] * b[k * ldb + j];
    }
}
#endif

static ttmm_numbers reals(const real *x) { return (ttmm_numbers){x, TTMM_REAL}; }

/* out [n]: overwritten with the numbers at .. at + n - 1 of x, converted exactly (64 bits to 32: rounded) */
static void to_reals(real *out, ttmm_numbers x, size_t at, size_t n);

/* A loop runs on several threads if it has more than so many multiply-adds (or a fraction of so many where one costs
 * more, as an exponential does): 10 microseconds of work, a few times what it takes to wake the other threads. */
enum { WORTH_THREADS = 40000 };

/* ==== 2. Embedding ================================================================================================ */

/* The largest magnitude; 0 if a number is not finite. */
static real magnitude(const real *x, size_t n)
{
    real most = 0;
    for (size_t i = 0; i < n; i++) {
        const real size = x[i] < 0 ? -x[i] : x[i];
        if (!(size <= (real)(sizeof(real) == 4 ? FLT_MAX : DBL_MAX))) return 0;
        most = size > most ? size : most;
    }
    return most;
}

/* x becomes x / |x|. Returns 1, or 0 with x as it was if that cannot be: it is zero or not finite. Divided by the
 * largest magnitude first, so that no square overflows or vanishes. */
static int normalise(real *x, size_t n)
{
    const real most = magnitude(x, n);
    if (most == 0) return 0;
    for (size_t i = 0; i < n; i++) x[i] /= most;
    const real length = sqrt_real(dot(x, x, n));
    for (size_t i = 0; i < n; i++) x[i] /= length;
    return 1;
}

/* The built-in embedding: feature hashing (Weinberger et al. 2009) of n-grams in E = 2048 buckets. What a text is made
 * of are symbols below M: its bytes, M = 2^8, in n-grams of n = 1 .. 4; or, where it is not known what the tokens stand
 * for, the tokens' ids, M = 2^32, n = 1, 2 (a token is about four bytes of a text). Either way the number of the n-gram
 * g_1 .. g_n,
 *   g = g_1 M^(n-1) + ... + g_n < 2^64,
 * is another for each of the n-grams of n symbols. Its hash is the first output of SplitMix64 in the state
 * g + (n - 1) GOLDEN; the lowest 11 bits are the bucket, the highest is the sign: two n-grams that meet in a bucket
 * cancel out as often as they add up, so on average inner products are kept. No n-gram runs across a special token;
 * among ids there is no knowing which are special.
 *   count [E] overwritten: c_b = sum over the n-grams in bucket b of their signs */
static void hash_ngrams(real *count, const ttmm_tokenizer *tokenizer, const int *token, size_t T)
{
    const int ids = tokenizer == ttmm_tokenizer_of_ids();
    const size_t bits = ids ? 32 : 8, longest = ids ? 2 : 4; /* M = 2^bits */
    uint64_t last = 0;                                       /* the symbols so far, the latest one lowest */
    size_t run = 0;                                          /* how many there are since the last special token */
    memset(count, 0, TTMM_EMBED_DIM * sizeof *count);
    for (size_t t = 0; t < T; t++) {
        size_t length = 1;
        const unsigned char *text = ids ? NULL : ttmm_token_bytes(tokenizer, token[t], &length);
        if (length == 0) run = 0;
        for (size_t i = 0; i < length; i++) {
            last = last << bits | (ids ? (uint32_t)token[t] : text[i]);
            run++;
            for (size_t n = 1; n <= longest && n <= run; n++) {
                const uint64_t gram = last & UINT64_MAX >> (64 - bits * n), hash = mix_bits(gram + n * GOLDEN);
                count[hash % TTMM_EMBED_DIM] += hash >> 63 ? -1 : 1;
            }
        }
    }
}

/* phi = x / |x|,   x_b = sign(c_b) log(1 + |c_b|) idf_b.      out [E]: overwritten;   idf [E], or NULL: ones
 * The logarithm keeps a word that comes 50 times from drowning the rest.
 *
 * Example: "aab" has the n-grams a (twice) and b; aa and ab; aab; none of four bytes. They fall into five buckets, a
 * with the sign +, the others, as it happens, with -:   log(1 + 2) = 1.0986, four times -log(1 + 1) = -0.6931 (no idf).
 * The length is sqrt(1.0986^2 + 4 * 0.6931^2) = 1.7688, so out has 0.6211 and four times -0.3919.
 * The order of bytes counts: "ab" shares a, b and ab with it, cosine 0.8111; "ba" only a and b, 0.5848. */
void ttmm_embed(real *out, const ttmm_tokenizer *tokenizer, const int *token, size_t T, const real *idf)
{
    hash_ngrams(out, tokenizer, token, T);
    for (size_t b = 0; b < TTMM_EMBED_DIM; b++) {
        const double magnitude = ttmm_log(1 + fabs((double)out[b])) * (idf ? (double)idf[b] : 1);
        out[b] = (real)(out[b] < 0 ? -magnitude : magnitude);
    }
    normalise(out, TTMM_EMBED_DIM);
}

static size_t sequence_length(const ttmm_corpus *c, size_t i) { return c->sequence[i + 1] - c->sequence[i]; }

/* The embeddings of all n sequences, and the inverse document frequency they are weighted by:
 *   idf_b = log((2 + n) / (1 + number of sequences with c_b != 0)) > 0:   what is in every text says little. */
int ttmm_corpus_embed(ttmm_corpus *c, const ttmm_tokenizer *tokenizer, ttmm_error *err)
{
    const size_t n = c->n_sequences, E = TTMM_EMBED_DIM;
    const int code = allocate_embeddings(c, c->n_sequences, E, 1, err);
    if (code) return code;
    c->by_ids = tokenizer == ttmm_tokenizer_of_ids();
    OMP(omp parallel for)
    for (size_t i = 0; i < n; i++)
        hash_ngrams(c->embedding + i * E, tokenizer, c->token + c->sequence[i], sequence_length(c, i));
    for (size_t i = 0; i < n; i++)
        for (size_t b = 0; b < E; b++) c->idf[b] += c->embedding[i * E + b] != 0;
    for (size_t b = 0; b < E; b++) c->idf[b] = (real)ttmm_log((2 + (double)n) / (1 + (double)c->idf[b]));
    OMP(omp parallel for)
    for (size_t i = 0; i < n; i++)
        ttmm_embed(c->embedding + i * E, tokenizer, c->token + c->sequence[i], sequence_length(c, i), c->idf);
    return TTMM_OK;
}

/* Inner products with a query: on unit vectors the cosines.      out [n]: overwritten;   query [E];   x [n, E] */
static void similarities(real *out, const real *query, const real *x, size_t n, size_t E)
{
    OMP(omp parallel for if (n * E > WORTH_THREADS))
    for (size_t i = 0; i < n; i++) out[i] = dot(query, x + i * E, E);
}

/* ==== 3. Clusters ================================================================================================= */

/* Room for clustering n rows of E numbers into K. */
typedef struct {
    real *mean;                      /* [2, E] of the two halves of a split */
    double *total, *distance;        /* [2, E] sums of rows; [n] squared distances of rows to the nearer mean */
    size_t *member, *size;           /* [n] rows of the cluster that is split; [K] rows of each cluster */
    double *inertia;                 /* [K] of each cluster: sum of squared distances to its mean */
    unsigned char *side, *best_side; /* [n] of a split: 0 or 1 */
} clustering;

static void lay_out_clustering(clustering *w, size_t n, size_t E, size_t K, arena *a)
{
    w->mean = take_reals(a, 2 * E), w->total = take(a, 2 * E, sizeof *w->total);
    w->distance = take(a, n, sizeof *w->distance), w->member = take(a, n, sizeof *w->member);
    w->size = take(a, K, sizeof *w->size), w->inertia = take(a, K, sizeof *w->inertia);
    w->side = take(a, n, 1), w->best_side = take(a, n, 1);
}

/* The first two means, k-means++ (Arthur & Vassilvitskii 2007): a row drawn uniformly, and a second one with a
 * probability proportional to its squared distance to the first; of unit vectors |x - y|^2 = 2 - 2 x.y. */
static void first_means(clustering *w, const real *x, size_t rows, size_t E, ttmm_rng *g)
{
    double all = 0;
    memcpy(w->mean, x + w->member[ttmm_below(g, rows)] * E, E * sizeof *w->mean);
    OMP(omp parallel for if (rows * E > WORTH_THREADS))
    for (size_t i = 0; i < rows; i++) {
        const double d = 2 - 2 * (double)dot(x + w->member[i] * E, w->mean, E);
        w->distance[i] = d > 0 ? d : 0; /* rounding can go below 0 */
    }
    for (size_t i = 0; i < rows; i++) all += w->distance[i];
    double point = ttmm_uniform(g) * all;
    size_t second = 0;
    while (second + 1 < rows && (point -= w->distance[second]) >= 0) second++;
    memcpy(w->mean + E, x + w->member[second] * E, E * sizeof *w->mean);
}

/* Every row to the side of the nearer mean c, by |x - c|^2 = 1 - 2 x.c + |c|^2 (rows have length 1); equally near: side
 * 0. Returns whether any changed sides. */
static int assign_sides(clustering *w, const real *x, size_t rows, size_t E)
{
    const real *mean = w->mean, square[2] = {dot(mean, mean, E), dot(mean + E, mean + E, E)};
    int moved = 0;
    OMP(omp parallel for reduction(|: moved) if (rows * E > WORTH_THREADS))
    for (size_t i = 0; i < rows; i++) {
        const real *xi = x + w->member[i] * E;
        const real d0 = 1 - 2 * dot(xi, mean, E) + square[0], d1 = 1 - 2 * dot(xi, mean + E, E) + square[1];
        const unsigned char now = d1 < d0;
        if (now != w->side[i]) moved = 1;
        w->side[i] = now;
        w->distance[i] = now ? (d1 > 0 ? (double)d1 : 0) : (d0 > 0 ? (double)d0 : 0);
    }
    return moved;
}

/* Each mean to the average of its rows. Threads share the columns; in every column the rows are added ascending. */
static void move_means(clustering *w, const real *x, const size_t *count, size_t rows, size_t E)
{
    const size_t threads = (size_t)ttmm_threads(), share = (E + threads - 1) / threads;
    OMP(omp parallel for if (rows * E > WORTH_THREADS))
    for (size_t from = 0; from < E; from += share) {
        const size_t to = from + share < E ? from + share : E;
        for (size_t e = from; e < to; e++) w->total[e] = w->total[E + e] = 0;
        for (size_t i = 0; i < rows; i++) {
            double *to_side = w->total + w->side[i] * E;
            const real *xi = x + w->member[i] * E;
            for (size_t e = from; e < to; e++) to_side[e] += (double)xi[e];
        }
        for (size_t s = 0; s < 2; s++)
            for (size_t e = from; e < to; e++) w->mean[s * E + e] = (real)(w->total[s * E + e] / (double)count[s]);
    }
}

/* Lloyd's algorithm with two means, from one start: assign every row to the nearer mean, move each mean to the average
 * of its rows, until no row changes sides, at most 100 times.
 *   w->side [rows]: overwritten;   inertia [2]: overwritten with each side's sum of squared distances to its mean */
static void two_means(clustering *w, double *inertia, const real *x, size_t rows, size_t E, ttmm_rng *g)
{
    enum { MOST_ROUNDS = 100 }; /* far more than it takes to settle; a guard against rounding that goes in circles */
    first_means(w, x, rows, E, g);
    for (int round = 0; round < MOST_ROUNDS; round++) {
        size_t count[2] = {0, 0}, farthest = 0;
        int moved = assign_sides(w, x, rows, E) || round == 0;
        inertia[0] = inertia[1] = 0;
        for (size_t i = 0; i < rows; i++) {
            count[w->side[i]]++;
            inertia[w->side[i]] += w->distance[i];
            if (w->distance[i] > w->distance[farthest]) farthest = i;
        }
        if (count[0] == 0 || count[1] == 0) { /* an empty side takes the row farthest from the other's mean */
            const unsigned char empty = count[1] == 0;
            w->side[farthest] = empty;
            count[empty] = 1, count[!empty] = rows - 1;
            moved = 1;
        }
        if (!moved) break;
        move_means(w, x, count, rows, E);
    }
}

/* Split cluster `from` in two: the best (least inertia) of 8 starts. The half with the lower first row keeps the
 * number, the other becomes cluster k. Rows that are all equal are split in halves by index. */
static void split_cluster(clustering *w, int *cluster, size_t from, size_t k, const real *x, size_t n, size_t E,
                          uint64_t seed)
{
    enum { STARTS = 8 };
    size_t rows = 0, same = 1; /* same: rows at the beginning that are equal to the first */
    double best[2] = {0, 0}, now[2];
    for (size_t i = 0; i < n; i++)
        if (cluster[i] == (int)from) w->member[rows++] = i;
    while (same < rows && memcmp(x + w->member[same] * E, x + w->member[0] * E, E * sizeof *x) == 0) same++;
    for (size_t i = 0; i < rows; i++) w->best_side[i] = i >= (rows + 1) / 2; /* stays, if all rows are equal */
    for (uint64_t start = 0; start < STARTS && same < rows; start++) {
        ttmm_rng g = ttmm_stream(seed, "cluster", k * STARTS + start);
        two_means(w, now, x, rows, E, &g);
        if (start > 0 && !(now[0] + now[1] < best[0] + best[1])) continue;
        memcpy(best, now, sizeof best);
        memcpy(w->best_side, w->side, rows);
    }
    w->inertia[from] = best[w->best_side[0]], w->inertia[k] = best[!w->best_side[0]];
    for (size_t i = 0; i < rows; i++)
        if (w->best_side[i] != w->best_side[0]) {
            cluster[w->member[i]] = (int)k;
            w->size[from]--, w->size[k]++;
        }
}

/* Bisecting k-means (Steinbach et al. 2000; the paper, train time; scikit-learn's BisectingKMeans): all rows are one
 * cluster; that of the largest inertia is split in two until there are K. Then the centroids,
 *   phi_k = normalise(mean of the members' embeddings).
 *   cluster [n]: overwritten;   centroid [K, E]: overwritten;   x [n, E]: rows of length 1
 *
 * Example: x_0 = (0.8, 0.6), x_1 = (-1, 0), x_2 = (0.6, 0.8), x_3 = (-0.8, 0.6). The inertia of m unit rows, sum
 * |x - mean|^2, is m (1 - |mean|^2): the mean is the shorter, the more they disagree.
 *   K = 2   rows 0, 2   mean (0.7, 0.7)    inertia 2 (1 - 0.98) = 0.04   centroid (0.7071, 0.7071)
 *           rows 1, 3   mean (-0.9, 0.3)   inertia 2 (1 - 0.9) = 0.2     centroid (-0.9487, 0.3162)
 *   K = 3   splits the one of inertia 0.2: row 1 keeps its number, row 3 is the new cluster 2
 * So the clusters of the rows are 0, 1, 0, 1 and then 0, 1, 0, 2. */
int ttmm_cluster(int *cluster, real *centroid, const real *x, size_t n, size_t E, size_t K, uint64_t seed,
                 ttmm_error *err)
{
    if (K < 1 || K > n || K > INT_MAX)
        return fail(err, TTMM_BAD_INPUT, "%zu experts asked for, expected 1 to %zu: the number of sequences", K, n);
    arena a = {0};
    clustering w;
    void *block;
    lay_out_clustering(&w, n, E, K, &a);
    const int code = allocate(&a, &block, "clustering", err);
    if (code) return code;
    lay_out_clustering(&w, n, E, K, &a);
    memset(cluster, 0, n * sizeof *cluster);
    w.size[0] = n;
    for (size_t k = 1; k < K; k++) {
        size_t widest = 0; /* of those with more than one row; equal ones: lower number */
        for (size_t j = 1; j < k; j++)
            if (w.size[j] > 1 && (w.size[widest] == 1 || w.inertia[j] > w.inertia[widest])) widest = j;
        split_cluster(&w, cluster, widest, k, x, n, E, seed);
    }
    for (size_t k = 0; k < K; k++) {
        memset(w.total, 0, E * sizeof *w.total);
        for (size_t i = 0; i < n; i++)
            if (cluster[i] == (int)k)
                for (size_t e = 0; e < E; e++) w.total[e] += (double)x[i * E + e];
        for (size_t e = 0; e < E; e++) centroid[k * E + e] = (real)(w.total[e] / (double)w.size[k]);
        normalise(centroid + k * E, E); /* members that cancel out leave zeros */
    }
    TTMM_FREE(block);
    return TTMM_OK;
}

/* ==== 4. Routing and merging ====================================================================================== */

/* Sparse cross-attention between the query q and the centroids (the paper, test time; ttmerge 0.0.4):
 *   1 s_k = q.phi_k      2 c_k = exp(-(1 - s_k) / beta^2)      3 w = c / sum(c)
 *   4 keep w_k > tau, at most the `max` largest      5 rescale the kept to sum 1
 * With `active` > 0 step 4 keeps the `active` nearest instead, whatever tau and max. Experts come out in ascending
 * order. beta has no unit: it is the width of a Gaussian in the distance |q - phi_k|, the square root of the paper's
 * beta. An expert whose similarity is 5 beta^2 below the best one's has less than a hundredth of its weight; so a small
 * beta gives one expert, a large one the plain average. tau is compared with w before the rescaling. If no w_k is above
 * tau (only where tau >= 1 / K) none is chosen: the base model answers.
 *   expert, weight [K]: the first *chosen overwritten;   similarity [K]: overwritten with s;   query [E]: normalised in
 *   place;   centroid [K, E]: rows of length 1
 * The code computes c_k / max_j c_j, which has the same w and no underflow.
 *
 * Example: similarities 0.9, 0.8, 0.2 and tau = 0.01. Relative to the largest, c is 1, exp(-0.1 / beta^2),
 * exp(-0.7 / beta^2):
 *   beta = 0.12   c = 1, 0.0010, 0.0000   one expert, weight 1: w = 0.0010 is not above tau
 *   beta = 0.2    c = 1, 0.0821, 0.0000   two experts, 0.9241 and 0.0759
 *   beta = 0.5    c = 1, 0.6703, 0.0608   three, 0.5777, 0.3872, 0.0351
 * Only differences count: 0.3, 0.2, -0.4 give the same weights, however far all experts are. */
int ttmm_route(size_t *chosen, int *expert, real *weight, real *similarity, real *query, const real *centroid, size_t K,
               size_t E, const ttmm_router *r, ttmm_error *err)
{
    const double width = r->beta * r->beta;
    double total = 0, kept = 0;
    *chosen = 0;
    if (K == 0) return TTMM_OK;
    if (!normalise(query, E))
        return fail(err, TTMM_BAD_INPUT, "the query embedding is zero or not finite, expected a direction");
    similarities(similarity, query, centroid, K, E);
    const double most = (double)largest(similarity, K);
    for (size_t k = 0; k < K; k++) total += ttmm_exp(((double)similarity[k] - most) / width);
    const size_t limit = r->active ? (r->active < K ? r->active : K) : (r->max < K ? r->max : K);
    for (size_t k = 0; k < K; k++) { /* rank: how many experts come before k; the first `limit` may take part */
        const double w = ttmm_exp(((double)similarity[k] - most) / width) / total;
        size_t rank = 0;
        for (size_t j = 0; limit < K && j < K && rank < limit; j++)
            rank += similarity[j] > similarity[k] || (similarity[j] == similarity[k] && j < k);
        if (rank >= limit || (!r->active && !(w > r->tau))) continue;
        expert[*chosen] = (int)k;
        weight[*chosen] = (real)w;
        kept += w;
        ++*chosen;
    }
    for (size_t i = 0; i < *chosen; i++) weight[i] = (real)((double)weight[i] / kept);
    return TTMM_OK;
}

/* Dense merging: V = W + sum_k w_k s_k B_k A_k in the seven matrices of every layer, s_k = alpha_k / R_k, experts
 * ascending. It is the updates B A that are averaged, not A and B. One product per matrix: the updates of all experts
 * stand side by side, so that each weight is read and written once,
 *   V = W + [w_1 s_1 B_1 ... w_n s_n B_n] [A_1; ...; A_n],   the columns (k, rank) ascending.
 * `from` is only read, and all that LoRA does not touch must be in `to` already. Merging no experts gives from's bits
 * back: so a base is restored, never by subtracting what was added.
 *   scratch [ttmm_merge_scratch]: b [out, all ranks], a [all ranks, in]
 *
 * Example: W = (1 2; 3 4); rank 1 and alpha 2, so that scale = alpha / R = 2; weight 0.25 for A = (1 -1), B = (2; 1),
 * and 0.75 for A = (0 1), B = (1; -1). For x = (2, 1):
 *   dense      V = W + 0.5 (2 -2; 1 -1) + 1.5 (0 1; 0 -1) = (2 2.5; 3.5 2),   V x = (6.5, 9)
 *   low-rank   W x = (4, 10), both A x = 1:   (4, 10) + 0.5 (2, 1) + 1.5 (1, -1) = (6.5, 9)
 * In general the last digits differ, as the sums have another order. */
void ttmm_merge(ttmm_model *to, const ttmm_model *from, const ttmm_mix *mix, real *scratch)
{
    const ttmm_config *c = &from->config;
    for (int i = 0; i < c->n_layers * TTMM_MATRICES; i++) {
        const int layer = i / TTMM_MATRICES, kind = i % TTMM_MATRICES;
        const size_t out = kind_rows(c, kind), in = kind_cols(c, kind);
        size_t ranks = 0, column = 0;
        for (size_t k = 0; k < mix->n; k++) ranks += (size_t)mix->lora[k]->matrix[i].rank;
        real *b = scratch, *a = ranks ? b + out * ranks : b; /* b [out, ranks], a [ranks, in] */
        for (size_t k = 0; k < mix->n; k++) {
            const ttmm_lora_matrix *l = &mix->lora[k]->matrix[i];
            const size_t R = (size_t)l->rank;
            const real factor = mix->weight[k] * l->scale;
            to_reals(a + column * in, lora_a(l), 0, R * in);
            for (size_t o = 0; o < out; o++) {
                real *bo = b + o * ranks + column;
                to_reals(bo, lora_b(l), o * R, R);
                for (size_t r = 0; r < R; r++) bo[r] *= factor;
            }
            column += R;
        }
        const ttmm_numbers before = weight(from, layer, kind);
        real *w = ttmm_weight(to, layer, kind);
        if (before.type != TTMM_REAL) to_reals(w, before, 0, out * in);
        matmul_nn(w, before.type == TTMM_REAL ? before.data : w, b, reals(a), out, in, ranks);
    }
}

/* How many numbers of scratch that takes: a and b of the widest matrix. */
size_t ttmm_merge_scratch(const ttmm_config *c, const ttmm_mix *mix)
{
    size_t ranks = 0, widest = 0;
    for (size_t k = 0; k < mix->n; k++) ranks += ttmm_lora_rank(mix->lora[k]);
    for (int kind = 0; kind < TTMM_MATRICES; kind++) {
        const size_t sides = kind_rows(c, kind) + kind_cols(c, kind);
        widest = sides > widest ? sides : widest;
    }
    return mul_size(ranks, widest);
}

/* ==== 5. The transformer's layers ================================================================================= */

/* A model is a config and one block of numbers; what stands where follows from this table: Hugging Face's name of each
 * tensor (%d is the layer) and its shape in the letters of ttmm.h, "HS" being H times S. */
static const struct {
    const char *name, *rows, *cols;
} tensor_table[TTMM_KINDS] = {
    {"model.layers.%d.self_attn.q_proj.weight", "HS", "D"},
    {"model.layers.%d.self_attn.k_proj.weight", "GS", "D"},
    {"model.layers.%d.self_attn.v_proj.weight", "GS", "D"},
    {"model.layers.%d.self_attn.o_proj.weight", "D", "HS"},
    {"model.layers.%d.mlp.gate_proj.weight", "F", "D"},
    {"model.layers.%d.mlp.up_proj.weight", "F", "D"},
    {"model.layers.%d.mlp.down_proj.weight", "D", "F"},
    {"model.layers.%d.input_layernorm.weight", "D", ""},
    {"model.layers.%d.post_attention_layernorm.weight", "D", ""},
    {"model.layers.%d.self_attn.q_proj.bias", "HS", ""},
    {"model.layers.%d.self_attn.k_proj.bias", "GS", ""},
    {"model.layers.%d.self_attn.v_proj.bias", "GS", ""},
    {"model.embed_tokens.weight", "V", "D"},
    {"model.norm.weight", "D", ""},
    {"lm_head.weight", "V", "D"},
};

static size_t dimension(const ttmm_config *c, const char *letters) /* their product; of no letters: 1 */
{
    size_t n = 1;
    for (; *letters; letters++)
        n = mul_size(n, (size_t)(*letters == 'D'   ? c->dim
                                 : *letters == 'H' ? c->n_heads
                                 : *letters == 'G' ? c->n_kv_heads
                                 : *letters == 'S' ? c->head_dim
                                 : *letters == 'F' ? c->intermediate
                                 : *letters == 'C' ? c->context
                                                   : c->vocab));
    return n;
}

static size_t kind_rows(const ttmm_config *c, int kind) { return dimension(c, tensor_table[kind].rows); }
static size_t kind_cols(const ttmm_config *c, int kind) { return dimension(c, tensor_table[kind].cols); }
static size_t kind_size(const ttmm_config *c, int kind) { return mul_size(kind_rows(c, kind), kind_cols(c, kind)); }
static int is_vector(int kind) { return tensor_table[kind].cols[0] == 0; } /* gains and biases */
static int has_bias(const ttmm_config *c, int kind) { return c->biases && kind <= TTMM_V; }

/* In m->data the kinds of layer 0 follow each other, then those of layer 1 ..., then what stands outside layers. */
real *ttmm_weight(const ttmm_model *m, int layer, int kind)
{
    return m->data + m->offset[kind] + (kind < TTMM_LAYER_KINDS ? (size_t)layer * m->stride : 0);
}

/* The same of any model, as they are stored. */
static ttmm_numbers weight(const ttmm_model *m, int layer, int kind)
{
    if (m->view == NULL) return reals(ttmm_weight(m, layer, kind));
    const int kinds = layer_kinds(&m->config);
    if (kind < TTMM_LAYER_KINDS) return m->view[layer * kinds + kind];
    if (kind == TTMM_HEAD && m->config.tied) kind = TTMM_EMBED;
    return m->view[m->config.n_layers * kinds + kind - TTMM_EMBED];
}

/* The start of pre-training: gains 1, biases 0, matrices normal with standard deviation 0.02; those that write into the
 * residual stream 0.02 / sqrt(2 L), so that the sum of 2 L such contributions does not grow with depth (Radford et al.
 * 2019, section 2.3). */
void ttmm_model_init(ttmm_model *m, uint64_t seed)
{
    for (size_t i = 0; i < ttmm_n_tensors(&m->config); i++) {
        const ttmm_tensor t = ttmm_tensor_at(&m->config, i);
        ttmm_rng g = ttmm_stream(seed, t.name, 0);
        const int into_residual = t.kind == TTMM_O || t.kind == TTMM_DOWN;
        const double deviation = 0.02 / (into_residual ? sqrt(2.0 * m->config.n_layers) : 1);
        const int bias = t.kind >= TTMM_Q_BIAS && t.kind <= TTMM_V_BIAS;
        for (size_t k = 0; k < t.rows * t.cols; k++)
            m->data[t.offset + k] = is_vector(t.kind) ? !bias : (real)(deviation * ttmm_normal(&g));
    }
}

/* Each kind of layer: its forward pass, then its backward pass. Arguments run outputs, inputs, sizes; dx is dL/dx, L
 * the loss. A function says whether it overwrites an output or adds into it. Where threads share a sum over positions
 * t, each takes columns of its own, 16 at a time, so that t ascends inside every sum. */

/* Embedding matrix: x_t = E[token_t].        x [N, D]: overwritten;   embed [V, D] */
static void embedding_forward(real *x, ttmm_numbers embed, const int *token, size_t N, size_t D)
{
    for (size_t t = 0; t < N; t++) to_reals(x + t * D, embed, (size_t)token[t] * D, D);
}

/* A row of E is used by every position whose token it is, so their gradients add up:
 *   dE[v] = sum of dx_t over the t with token_t = v.        dembed [V, D]: added into;   dx [N, D] */
static void embedding_backward(real *dembed, const real *dx, const int *token, size_t N, size_t D)
{
    OMP(omp parallel for if (N * D > WORTH_THREADS))
    for (size_t from = 0; from < D; from += LANES) {
        const size_t to = from + LANES < D ? from + LANES : D;
        for (size_t t = 0; t < N; t++)
            for (size_t i = from; i < to; i++) dembed[(size_t)token[t] * D + i] += dx[t * D + i];
    }
}

/* RMSNorm: y = g x / r,  r = sqrt(mean(x^2) + eps).                                     (Zhang & Sennrich 2019, eq. 4)
 *   y [N, D]: overwritten;   inv_r [N]: overwritten with 1 / r, for the backward pass;   x [N, D];   g [D] the gain
 *
 * Example: x = (3, 4), g = (1, 1), eps = 0:   r = sqrt((9 + 16) / 2) = 3.5355,   1 / r = 0.2828,
 *   y = x / r = (0.8485, 1.1314). */
static void rmsnorm_forward(real *y, real *inv_r, const real *x, const real *g, size_t N, size_t D, double eps)
{
    OMP(omp parallel for if (N * D > WORTH_THREADS))
    for (size_t t = 0; t < N; t++) {
        const real *xt = x + t * D;
        inv_r[t] = 1 / sqrt_real(dot(xt, xt, D) / (real)D + (real)eps);
        for (size_t i = 0; i < D; i++) y[t * D + i] = g[i] * (xt[i] * inv_r[t]);
    }
}

/* With u = x / r:   dL/dg_i = sum_t dy_ti u_ti   (every position uses the same gain, so the positions add up).
 * For x, r depends on every x_j:   dr/dx_j = x_j / (D r), so
 *   dL/dx_j = g_j dy_j / r  -  sum_i (g_i dy_i x_i / r^2) x_j / (D r)
 *           = ( g_j dy_j  -  u_j mean_i(g_i dy_i u_i) ) / r.
 * With eps = 0 dx is orthogonal to x: a longer x has the same y, so the loss cannot change in that direction.
 *   dx [N, D]: added into;   dg [D]: added into, or NULL;   dy [N, D]
 *
 * Example, the same x, dy = (1, 0):   mean_i(g dy u) = 0.8485 / 2 = 0.4243,   u mean = (0.36, 0.48),
 *   dx = ((1, 0) - (0.36, 0.48)) / 3.5355 = (0.1810, -0.1358),   dg = dy u = (0.8485, 0),
 *   dx.x = 0.5431 - 0.5431 = 0. */
static void rmsnorm_backward(real *dx, real *dg, const real *dy, const real *x, const real *g, const real *inv_r,
                             size_t N, size_t D)
{
    OMP(omp parallel for if (N * D > WORTH_THREADS))
    for (size_t t = 0; t < N; t++) {
        const real *xt = x + t * D, *dyt = dy + t * D;
        const real inv = inv_r[t], mean = dot3(g, dyt, xt, D) * inv / (real)D;
        for (size_t j = 0; j < D; j++) dx[t * D + j] += (g[j] * dyt[j] - xt[j] * inv * mean) * inv;
    }
    if (dg == NULL) return;
    OMP(omp parallel for if (N * D > WORTH_THREADS))
    for (size_t from = 0; from < D; from += LANES) {
        const size_t to = from + LANES < D ? from + LANES : D;
        for (size_t t = 0; t < N; t++)
            for (size_t i = from; i < to; i++) dg[i] += dy[t * D + i] * (x[t * D + i] * inv_r[t]);
    }
}

/* Bias: y_t += b,   db = sum_t dy_t.        y [N, out], db [out]: added into */
static void bias_forward(real *y, const real *b, size_t N, size_t out)
{
    OMP(omp parallel for if (N * out > WORTH_THREADS))
    for (size_t t = 0; t < N; t++)
        for (size_t i = 0; i < out; i++) y[t * out + i] += b[i];
}

static void bias_backward(real *db, const real *dy, size_t N, size_t out)
{
    for (size_t t = 0; t < N; t++)
        for (size_t i = 0; i < out; i++) db[i] += dy[t * out + i];
}

/* Rotary positions (Su et al. 2021, eq. 34, paired as in Hugging Face's Llama): at position p the pair (x_i, x_{i+S/2})
 * of each head turns by the angle p f_i,   f_i = theta^(-2i/S),   i < S/2. With odd S the last component stays.
 * A query at p and a key at p' are both turned, so their product depends on p - p' only.
 *
 * For contexts longer than the model was first trained for, frequencies are divided by a factor: all of them (linear;
 * Chen et al. 2023), or (llama3) by how often they turn in the original context, turns = original f_i / (2 pi):
 *   kept = (turns - low) / (high - low), cut to 0 .. 1,   and f_i becomes f_i (kept + (1 - kept) / factor). */
static double rotary_frequency(const ttmm_config *c, size_t i)
{
    const double f = ttmm_exp(-2.0 * (double)i / (double)c->head_dim * ttmm_log(c->rope_theta));
    if (c->rope == TTMM_ROPE_DEFAULT) return f;
    if (c->rope == TTMM_ROPE_LINEAR) return f / c->rope_factor;
    const double turns = c->rope_before * f / 6.283185307179586;
    const double kept = (turns - c->rope_low) / (c->rope_high - c->rope_low);
    return kept >= 1 ? f : kept <= 0 ? f / c->rope_factor : (1 - kept) * f / c->rope_factor + kept * f;
}

/* cosine, sine [positions, floor(S/2)]: overwritten with those of p f_i, computed in double */
static void rotary_table(real *cosine, real *sine, size_t positions, const ttmm_config *c)
{
    const size_t half = (size_t)c->head_dim / 2;
    OMP(omp parallel for if (positions * half > WORTH_THREADS / 16))
    for (size_t i = 0; i < half; i++) {
        const double f = rotary_frequency(c, i);
        for (size_t p = 0; p < positions; p++) {
            double sine_p, cosine_p;
            sin_cos(&sine_p, &cosine_p, (double)p * f);
            cosine[p * half + i] = (real)cosine_p;
            sine[p * half + i] = (real)sine_p;
        }
    }
}

static size_t sequence_of(size_t t, const size_t *start, size_t B) /* the b with start[b] <= t < start[b + 1] */
{
    size_t b = 0, above = B;
    while (above - b > 1) {
        const size_t middle = (b + above) / 2;
        if (start[middle] <= t) b = middle;
        else above = middle;
    }
    return b;
}

/* x [N, heads, S] changed in place: each sequence's first row is at position `past`. direction 1: forward; -1:
 * backward, since a rotation is linear, its gradient goes through the transpose, and that is the rotation by the
 * negative angle.
 *
 * Example: S = 4, theta = 100, so that f = 1, 0.1. Both pairs of x = (1, 1, 0, 0), x_0 with x_2 and x_1 with x_3, are
 * (1, 0). At position 1 they have turned to (cos 1, cos 0.1, sin 1, sin 0.1) = (0.5403, 0.9950, 0.8415, 0.0998).
 * For q = k = x, turned at two positions, q . k = cos(p) + cos(0.1 p) depends on their distance p alone: 1.5353 at
 * (1, 0) and at (2, 1), 0.5639 at (2, 0). */
static void rotary(real *x, const real *cosine, const real *sine, size_t past, const size_t *start, size_t B,
                   size_t heads, size_t S, real direction)
{
    const size_t half = S / 2, N = start[B];
    OMP(omp parallel for if (N * heads * S > WORTH_THREADS))
    for (size_t t = 0; t < N; t++) {
        const size_t position = past + t - start[sequence_of(t, start, B)];
        const real *c = cosine + position * half, *s = sine + position * half;
        for (size_t h = 0; h < heads; h++) {
            real *lower = x + (t * heads + h) * S, *upper = lower + half;
            for (size_t i = 0; i < half; i++) {
                const real a = lower[i], b = upper[i], si = direction * s[i];
                lower[i] = a * c[i] - b * si;
                upper[i] = b * c[i] + a * si;
            }
        }
    }
}

/* p_j = exp(p_j - max_i p_i) / sum_i exp(p_i - max_j p_j) */
static void softmax_in_place(real *p, size_t n)
{
    const real most = largest(p, n);
    for (size_t j = 0; j < n; j++) p[j] = exp_real(p[j] - most);
    const real total = sum(p, n);
    for (size_t j = 0; j < n; j++) p[j] /= total;
}

/* Attention (Vaswani et al. 2017, eq. 1; grouped queries: Ainslie et al. 2023). It is causal: the query at position
 * i of a sequence sees the keys 0 .. i of its own sequence:
 *   s_ij = q_i.k_j / sqrt(S),   P_ij = exp(s_ij - max_j s_ij) / sum_j exp(s_ij - max_j s_ij),   o_i = sum_j P_ij v_j,
 * for each of H heads; query head h reads key/value head floor(h / (H / G)). 1/sqrt(S) keeps the variance of s at 1 if
 * that of q and k is; the maximum is taken off so that no exp overflows.
 *
 * The probabilities of `rows` queries of one head, the first at position `first`; 0 for the keys after a query's own.
 *   P [rows, ldp]: overwritten up to column first + rows;   q, k: rows ldq and ldk apart */
static void attention_probabilities(real *P, size_t ldp, const real *q, size_t ldq, const real *k, size_t ldk,
                                    size_t first, size_t rows, size_t S)
{
    const size_t keys = first + rows;
    const real scale = (real)(1 / sqrt((double)S));
    matmul_nt_block(P, ldp, q, ldq, k, ldk, rows, keys, S, 0);
    for (size_t i = 0; i < rows; i++) {
        real *p = P + i * ldp;
        const size_t seen = first + i + 1;
        for (size_t j = 0; j < seen; j++) p[j] *= scale;
        softmax_in_place(p, seen);
        for (size_t j = seen; j < keys; j++) p[j] = 0;
    }
}

/* Queries of one task: P of 32 queries and 1,000 keys fits the second cache, and 32 rows fill the kernels' tiles. */
enum { ATTENTION_ROWS = 32 };

typedef struct { /* scratch of attention: each thread has its own */
    real *data;
    size_t size; /* of one thread */
    int threads;
} thread_scratch;
/* Threads of a loop that uses it: no more than it was made for. */
#define TEAM(scratch) ((scratch).threads < ttmm_threads() ? (scratch).threads : ttmm_threads())

/* o_i = sum_j P_ij v_j, j ascending, for each head of each sequence b of T_b = start[b + 1] - start[b] queries.
 *   o [N, H, S]: overwritten;   q [N, H, S];   k, v [N, G, S];   scratch [threads, at most ATTENTION_ROWS, past + T]
 * With a cache B is 1 and past > 0: the queries are at positions past .. past + T - 1, k and v are [past + T, G, S].
 *
 * Example: one head, S = 4, T = 3. In all vectors only the first component is not 0, so single numbers stand for them:
 * q = 0, 0, 2;   k = ln 2, 0, 0;   v = 8, 4, 0;   1 / sqrt(S) = 1/2.
 *   query 0   sees key 0 only     P = 1               o = 8, whatever q is
 *   query 1   s = 0, 0            P = 1/2, 1/2        o = 4 + 2 = 6
 *   query 2   s = ln 2, 0, 0      P = 1/2, 1/4, 1/4   o = 4 + 1 + 0 = 5 */
static void attention_forward(real *o, const real *q, const real *k, const real *v, const size_t *start, size_t B,
                              size_t past, const ttmm_config *c, thread_scratch scratch)
{
    const size_t H = (size_t)c->n_heads, G = (size_t)c->n_kv_heads, S = (size_t)c->head_dim;
    for (size_t b = 0; b < B; b++) {
        const size_t T = start[b + 1] - start[b], blocks = (T + ATTENTION_ROWS - 1) / ATTENTION_ROWS, keys = past + T;
        const real *kb = k + start[b] * G * S, *vb = v + start[b] * G * S;
        OMP(omp parallel for schedule(dynamic) num_threads(TEAM(scratch)) if (T * keys * H * S > WORTH_THREADS))
        for (size_t task = 0; task < blocks * H; task++) {
            const size_t h = task % H, g = h / (H / G),
                         i = (blocks - 1 - task / H) * ATTENTION_ROWS; /* long ones first */
            const size_t rows = T - i < ATTENTION_ROWS ? T - i : ATTENTION_ROWS, at = ((start[b] + i) * H + h) * S;
            real *P = scratch.data + (size_t)omp_get_thread_num() * scratch.size, *out = o + at;
            attention_probabilities(P, keys, q + at, H * S, kb + g * S, G * S, past + i, rows, S);
            for (size_t r = 0; r < rows; r++) memset(out + r * H * S, 0, S * sizeof *out);
            matmul_nn_block(out, out, H * S, P, keys, 1, vb + g * S, G * S, rows, S, past + i + rows);
        }
    }
}

/* With P recomputed (it is cheaper than keeping it), for each query i and the keys j <= i; dP, ds ... are dL/dP, dL/ds:
 *   o_i = sum_j P_ij v_j           gives   dv_j = sum_i P_ij do_i,   dP_ij = do_i.v_j;
 *   P_i = softmax(s_i): the derivative of P_ij by s_im is P_ij ([j = m] - P_im), so
 *                                  gives   ds_ij = P_ij (dP_ij - sum_m P_im dP_im);
 *   s_ij = q_i.k_j / sqrt(S)       gives   dq_i = sum_j ds_ij k_j / sqrt(S),   dk_j = sum_i ds_ij q_i / sqrt(S).
 * A key/value head collects from its H / G query heads in turn, in each the queries ascending.
 *   dq [N, H, S], dk, dv [N, G, S]: added into;   do_ [N, H, S];   scratch [threads, 2, at most ATTENTION_ROWS, T]
 * The queries go in blocks, ascending; each adds its part to the keys and values before it.
 *
 * Example, the same three queries, do = 0, 0, 1. Query 2 gives dv = P = 1/2, 1/4, 1/4;   dP = v = 8, 4, 0;
 *   sum_j P_j dP_j = o = 5;   ds = P (dP - 5) = 1.5, -0.25, -1.25: a number added to all scores changes nothing, so
 *   their sum is 0;   dq = 1.5 ln 2 / 2 = 0.5199,   dk = ds * 2 / 2 = ds */
static void attention_backward(real *dq, real *dk, real *dv, const real *do_, const real *q, const real *k,
                               const real *v, const size_t *start, size_t B, const ttmm_config *c,
                               thread_scratch scratch)
{
    enum { WORTH_IT = 1024 }; /* numbers in all queries; the work is some T times as much */
    const size_t H = (size_t)c->n_heads, G = (size_t)c->n_kv_heads, S = (size_t)c->head_dim;
    const real scale = (real)(1 / sqrt((double)S));
    OMP(omp parallel for schedule(dynamic) num_threads(TEAM(scratch)) if (start[B] * H * S > WORTH_IT))
    for (size_t task = 0; task < B * G; task++) {
        const size_t b = task / G, g = task % G, first = start[b], T = start[b + 1] - first, kv = (first * G + g) * S;
        real *P = scratch.data + (size_t)omp_get_thread_num() * scratch.size;
        real *ds = P + (T < ATTENTION_ROWS ? T : ATTENTION_ROWS) * T;
        for (size_t h = g * (H / G); h < (g + 1) * (H / G); h++)
            for (size_t i = 0; i < T; i += ATTENTION_ROWS) {
                const size_t rows = T - i < ATTENTION_ROWS ? T - i : ATTENTION_ROWS, keys = i + rows;
                const size_t at = ((first + i) * H + h) * S;
                attention_probabilities(P, T, q + at, H * S, k + kv, G * S, i, rows, S);
                matmul_nt_block(ds, T, do_ + at, H * S, v + kv, G * S, rows, keys, S, 0); /* dP */
                for (size_t r = 0; r < rows; r++) { /* P is 0 for the keys after a query's own, and so is ds */
                    real *p = P + r * T, *d = ds + r * T;
                    const real mean = dot(p, d, keys);
                    for (size_t j = 0; j < keys; j++) d[j] = p[j] * (d[j] - mean) * scale; /* ds / sqrt(S) */
                }
                matmul_nn_block(dq + at, dq + at, H * S, ds, T, 1, k + kv, G * S, rows, S, keys);
                matmul_nn_block(dv + kv, dv + kv, G * S, P, 1, T, do_ + at, H * S, keys, S, rows); /* P' do */
                matmul_nn_block(dk + kv, dk + kv, G * S, ds, 1, T, q + at, H * S, keys, S, rows);  /* ds' q */
            }
    }
}

/* SwiGLU: y = silu(gate) up,   silu(z) = z s(z),   s(z) = 1 / (1 + exp(-z)).        (Shazeer 2020, eq. 5)   all [n] */
static void swiglu_forward(real *y, const real *gate, const real *up, size_t n)
{
    OMP(omp parallel for if (n > WORTH_THREADS / 4))
    for (size_t i = 0; i < n; i++) y[i] = gate[i] / (1 + exp_real(-gate[i])) * up[i];
}

/* dup = dy silu(gate);   as ds/dz = s (1 - s), dsilu/dz = s + z s (1 - s):   dgate = dy up s (1 + gate (1 - s)).
 *   dgate, dup [n]: overwritten
 *
 * Example, up = 2, dy = 1:   gate     s     silu = dup   silu'    y = 2 silu   dgate = 2 silu'
 *                            0        1/2    0           0.5       0           1
 *                            ln 3     3/4    0.8240      0.9560    1.6479      1.9120
 *                            -ln 3    1/4   -0.2747      0.0440   -0.5493      0.0880
 * Since silu(z) - silu(-z) = z, the two derivatives at z and -z add up to 1. */
static void swiglu_backward(real *dgate, real *dup, const real *dy, const real *gate, const real *up, size_t n)
{
    OMP(omp parallel for if (n > WORTH_THREADS / 4))
    for (size_t i = 0; i < n; i++) {
        const real s = 1 / (1 + exp_real(-gate[i]));
        dgate[i] = dy[i] * up[i] * (s * (1 + gate[i] * (1 - s)));
        dup[i] = dy[i] * (gate[i] * s);
    }
}

/* Softmax and cross-entropy of one position, with target token y:
 *   nll = -log p_y = log(sum_v exp(x_v - max)) - (x_y - max),   p_v = exp(x_v - max) / sum,
 * and since the derivative of log sum exp x by x_v is p_v:   dnll/dx_v = p_v - [v = y].
 *   x [V] the logits: lost. They are overwritten with scale dnll/dx if scale is not 0, else with exp(x - max).
 *
 * Example: x = (0, 0, ln 2), so p = (1, 1, 2) / 4.
 *   y = 2   nll = log 2 = 0.6931   gradient (0.25, 0.25, -0.5)
 *   y = 0   nll = log 4 = 1.3863   gradient (-0.75, 0.25, 0.5)
 * A gradient's sum is 0: a number added to all logits changes nothing. */
static real cross_entropy(real *x, int y, size_t V, real scale)
{
    const real most = largest(x, V), xy = x[y] - most;
    for (size_t v = 0; v < V; v++) x[v] = exp_real(x[v] - most);
    const real total = sum(x, V);
    if (scale != 0) {
        for (size_t v = 0; v < V; v++) x[v] = x[v] / total * scale;
        x[y] -= scale;
    }
    return (real)ttmm_log((double)total) - xy;
}

/* ==== 6. LoRA; the whole passes =================================================================================== */

/* An adapter before training (Hu et al. 2021, section 4.1): A uniform in [-1/sqrt(in), 1/sqrt(in)) as PEFT draws it, B
 * = 0, so that B A = 0 and the model is the base. Both at 0 would stay there: dA needs B, dB needs A. */
void ttmm_lora_init(ttmm_lora *l, uint64_t seed, uint64_t stream)
{
    ttmm_rng adapter = ttmm_stream(seed, "lora", stream);
    const uint64_t key = ttmm_next(&adapter);
    for (int i = 0; i < l->n_layers * TTMM_MATRICES; i++) {
        ttmm_lora_matrix *x = &l->matrix[i];
        ttmm_rng g = ttmm_stream(key, "A", (uint64_t)i);
        const double bound = 1 / sqrt((double)x->in);
        for (size_t k = 0; k < (size_t)x->rank * x->in; k++) x->a[k] = (real)((2 * ttmm_uniform(&g) - 1) * bound);
        memset(x->b, 0, x->out * (size_t)x->rank * sizeof(real));
    }
}

size_t ttmm_lora_rank(const ttmm_lora *l)
{
    int most = 0;
    for (int i = 0; i < l->n_layers * TTMM_MATRICES; i++) most = l->matrix[i].rank > most ? l->matrix[i].rank : most;
    return (size_t)most;
}

size_t ttmm_mix_rank(const ttmm_mix *mix)
{
    size_t most = 0;
    for (size_t k = 0; mix && k < mix->n; k++) {
        const size_t rank = ttmm_lora_rank(mix->lora[k]);
        most = rank > most ? rank : most;
    }
    return most;
}

/* n numbers in place or, if they are stored otherwise, as reals in row; so a gain or bias. */
static const real *as_reals(real *row, ttmm_numbers x, size_t n)
{
    if (x.type == TTMM_REAL) return x.data;
    to_reals(row, x, 0, n);
    return row;
}

static const real *vector_of(real *row, const ttmm_model *m, int layer, int kind)
{
    return as_reals(row, weight(m, layer, kind), kind_size(&m->config, kind));
}

/* u = s A x, what an adapter's B sees.    u [N, R]: overwritten;   x [N, in];   s = weight scale */
static void adapter_forward(real *u, const real *x, const ttmm_lora_matrix *l, real s, size_t N)
{
    const size_t R = (size_t)l->rank;
    matmul_nt(u, x, lora_a(l), N, R, l->in, 0);
    for (size_t i = 0; i < N * R; i++) u[i] *= s;
}

/* Linear layer with the adapters that take part:   y = W x + b + sum_k B_k u_k,   u_k = weight_k scale_k A_k x; b of q,
 * k and v where the model has it. This is what "beside the weights" means: the same function as that of the merged
 * matrix, at (in + out) R multiply-adds a token and adapter on top of W x's in out. Merging costs in out R an adapter
 * once, and nothing a token.
 *   y [N, out]: overwritten;   x [N, in];   W [out, in];   u [N, R], row [out]: scratch */
static void linear_forward(real *y, real *u, real *row, const real *x, const ttmm_model *m, const ttmm_mix *mix,
                           int layer, int kind, size_t N)
{
    const size_t out = kind_rows(&m->config, kind), in = kind_cols(&m->config, kind);
    matmul_nt(y, x, weight(m, layer, kind), N, out, in, 0);
    if (has_bias(&m->config, kind)) bias_forward(y, vector_of(row, m, layer, TTMM_Q_BIAS + kind), N, out);
    for (size_t k = 0; mix && k < mix->n; k++) {
        const ttmm_lora_matrix *l = &mix->lora[k]->matrix[layer * TTMM_MATRICES + kind];
        if (l->rank == 0) continue;
        adapter_forward(u, x, l, mix->weight[k] * l->scale, N);
        matmul_nt(y, u, lora_b(l), N, out, (size_t)l->rank, 1);
    }
}

/* y_t = W x_t is linear in both:   dx_t = W' dy_t,   dW = sum_t dy_t x_t'.
 * Through an adapter, y_t += B u_t with u_t = s A x_t (computed again: cheaper than keeping it), s = weight scale:
 *   dB = sum_t dy_t u_t',   dv_t = s B' dy_t  (v_t = A x_t),   dA = sum_t dv_t x_t',   dx_t += A' dv_t.
 *   dx [N, in]: added into;   dm: dW added into, or NULL: frozen;   dl [adapters of mix]: dA, dB added into, or NULL;
 *   u [N, R]: scratch
 *
 * Example, an adapter's first step: W = (1 2; 3 4), A = (1 -1), B = (0; 0), s = 2, x = (2, 1), dy = (1, -1).
 *   u = s A x = 2,   dB = dy u = (2; -2),   dv = s B' dy = 0,   dA = dv x' = (0 0),   dx = W' dy = (-2, -2)
 * So B moves first; were A zero too, u and dB would be 0 and nothing would ever move. Then, with B = (-0.2; 0.2),
 *   dv = 2 (-0.2 - 0.2) = -0.8,   dA = -0.8 (2 1) = (-1.6 -0.8),   dx = (-2, -2) - 0.8 (1, -1) = (-2.8, -1.2)
 * dW = dy x' = (2 1; -2 -1) both times: adapters do not enter it. */
static void linear_backward(real *dx, ttmm_model *dm, ttmm_lora *dl, real *u, const real *dy, const real *x,
                            const ttmm_model *m, const ttmm_mix *mix, int layer, int kind, size_t N)
{
    const size_t out = kind_rows(&m->config, kind), in = kind_cols(&m->config, kind);
    matmul_nn(dx, dx, dy, weight(m, layer, kind), N, in, out);
    if (dm) {
        real *dw = ttmm_weight(dm, layer, kind);
        matmul_tn(dw, dw, dy, x, out, in, N);
        if (has_bias(&m->config, kind)) bias_backward(ttmm_weight(dm, layer, TTMM_Q_BIAS + kind), dy, N, out);
    }
    for (size_t k = 0; mix && k < mix->n; k++) {
        const ttmm_lora_matrix *l = &mix->lora[k]->matrix[layer * TTMM_MATRICES + kind];
        const size_t R = (size_t)l->rank;
        const real s = mix->weight[k] * l->scale;
        if (R == 0) continue;
        const ttmm_lora_matrix *d = dl ? &dl[k].matrix[layer * TTMM_MATRICES + kind] : NULL;
        if (d) {
            adapter_forward(u, x, l, s, N);
            matmul_tn(d->b, d->b, dy, u, out, R, N);
        }
        real *dv = u;
        memset(dv, 0, N * R * sizeof *dv);
        matmul_nn(dv, dv, dy, lora_b(l), N, R, out);
        for (size_t i = 0; i < N * R; i++) dv[i] *= s;
        if (d) matmul_tn(d->a, d->a, dv, x, R, in, N);
        matmul_nn(dx, dx, dv, lora_a(l), N, in, R);
    }
}

/* A pass: what the layers hand each other, and what the backward pass needs to see again. */

/* Of one layer, in the order in which the forward pass fills them; [N, width] each. attn and act are what the output
 * projections see, attn_out and mlp_out what they add to the residual stream; middle = x + attn_out. */
typedef struct {
    real *x, *attn_inv_r, *attn_norm, *q, *k, *v, *attn, *attn_out;
    real *middle, *mlp_inv_r, *mlp_norm, *gate, *up, *act, *mlp_out;
} activations;

struct ttmm_pass {
    void *block;
    ttmm_config config;
    ttmm_pass_size size;
    size_t N, B, past;   /* of the last forward pass; past: positions before it, in the cache */
    int *token;          /* [N] */
    size_t *start;       /* [B + 1] */
    size_t positions;    /* rows of the rotary tables: the longest a sequence can get */
    real *cosine, *sine; /* [positions, S/2] */
    activations *layer;  /* [L]; without backward all layers share one set (but not the cache) */
    real *last, *final_inv_r, *final_norm, *logits, *nll; /* [N, D], [N], [N, D], [size.logits, V], [N] */
    real *u;                                              /* [N, R] scratch of adapters */
    real *row;                                            /* a gain or a bias */
    thread_scratch scratch;
    real *dx, *dnorm, *dq, *dk, *dv, *dattn, *dgate, *dup, *dact; /* backward only */
};

static void zero(real *x, size_t n)
{
    OMP(omp parallel for if (n > WORTH_THREADS))
    for (size_t i = 0; i < n; i++) x[i] = 0;
}

static void add_to(real *out, const real *x, const real *y, size_t n)
{
    OMP(omp parallel for if (n > WORTH_THREADS))
    for (size_t i = 0; i < n; i++) out[i] = x[i] + y[i];
}

static size_t longest_of(const ttmm_pass_size *s) { return s->longest ? s->longest : s->tokens; }

/* Whether these sequences, and these adapters, fit what p was made for. */
static int fits(const ttmm_pass *p, const ttmm_mix *mix, const int *token, const size_t *start, size_t B)
{
    const ttmm_pass_size *size = &p->size;
    if (B < 1 || B > size->sequences || start[0] != 0) return 0;
    for (size_t b = 0; b < B; b++)
        if (start[b + 1] <= start[b] || start[b + 1] - start[b] > longest_of(size)) return 0;
    if (start[B] > size->tokens || (size->cache && start[B] > size->cache - ttmm_cached(p))) return 0;
    for (size_t t = 0; t < start[B]; t++)
        if (token[t] < 0 || token[t] >= p->config.vocab) return 0;
    for (size_t k = 0; mix && k < mix->n; k++)
        if (mix->lora[k]->n_layers != p->config.n_layers || ttmm_lora_rank(mix->lora[k]) > size->rank) return 0;
    return 1;
}

/* The figure at the head of this file, "A layer", L times; then the final norm. */
int ttmm_forward(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, const int *token, const size_t *start,
                 size_t B)
{
    if (!fits(p, mix, token, start, B)) return TTMM_BAD_USE;
    const ttmm_config *c = &p->config;
    const size_t N = start[B], D = (size_t)c->dim, F = (size_t)c->intermediate, L = (size_t)c->n_layers;
    const size_t H = (size_t)c->n_heads, G = (size_t)c->n_kv_heads, S = (size_t)c->head_dim;
    const size_t past = ttmm_cached(p); /* keys and values that are there already */
    p->N = N, p->B = B, p->past = past;
    memcpy(p->token, token, N * sizeof *token);
    memcpy(p->start, start, (B + 1) * sizeof *start);
    embedding_forward(p->layer[0].x, weight(m, 0, TTMM_EMBED), token, N, D);
    for (size_t i = 0; i < L; i++) {
        activations *s = &p->layer[i];
        const int l = (int)i;
        real *k = s->k + past * G * S, *v = s->v + past * G * S, *next = i + 1 < L ? p->layer[i + 1].x : p->last;

        rmsnorm_forward(s->attn_norm, s->attn_inv_r, s->x, vector_of(p->row, m, l, TTMM_ATTN_NORM), N, D, c->norm_eps);
        linear_forward(s->q, p->u, p->row, s->attn_norm, m, mix, l, TTMM_Q, N);
        linear_forward(k, p->u, p->row, s->attn_norm, m, mix, l, TTMM_K, N);
        linear_forward(v, p->u, p->row, s->attn_norm, m, mix, l, TTMM_V, N);
        rotary(s->q, p->cosine, p->sine, past, start, B, H, S, 1);
        rotary(k, p->cosine, p->sine, past, start, B, G, S, 1);
        attention_forward(s->attn, s->q, s->k, s->v, start, B, past, c, p->scratch);
        linear_forward(s->attn_out, p->u, p->row, s->attn, m, mix, l, TTMM_O, N);
        add_to(s->middle, s->x, s->attn_out, N * D);

        rmsnorm_forward(s->mlp_norm, s->mlp_inv_r, s->middle, vector_of(p->row, m, l, TTMM_MLP_NORM), N, D,
                        c->norm_eps);
        linear_forward(s->gate, p->u, p->row, s->mlp_norm, m, mix, l, TTMM_GATE, N);
        linear_forward(s->up, p->u, p->row, s->mlp_norm, m, mix, l, TTMM_UP, N);
        swiglu_forward(s->act, s->gate, s->up, N * F);
        linear_forward(s->mlp_out, p->u, p->row, s->act, m, mix, l, TTMM_DOWN, N);
        add_to(next, s->middle, s->mlp_out, N * D);
    }
    rmsnorm_forward(p->final_norm, p->final_inv_r, p->last, vector_of(p->row, m, 0, TTMM_FINAL_NORM), N, D,
                    c->norm_eps);
    return TTMM_OK;
}

int ttmm_rewind(ttmm_pass *p, size_t length)
{
    if (length > ttmm_cached(p)) return TTMM_BAD_USE;
    p->past = length, p->N = p->B = 0;
    return TTMM_OK;
}

size_t ttmm_cached(const ttmm_pass *p) { return p->size.cache ? p->past + p->N : 0; }

/* Of `rows` rows from `first` on: W_head final_norm, [rows, V]. */
const real *ttmm_logits(ttmm_pass *p, const ttmm_model *m, size_t first, size_t rows)
{
    const size_t D = (size_t)p->config.dim, V = (size_t)p->config.vocab;
    if (rows > p->size.logits || first > p->N || rows > p->N - first) return NULL;
    matmul_nt(p->logits, p->final_norm + first * D, weight(m, 0, TTMM_HEAD), rows, V, D, 0);
    return p->logits;
}

/* Loss at every position of the last forward pass, as many rows of logits at a time as there is room for: nll [N], 0 at
 * each sequence's last token, after which nothing is predicted. With scale not 0, each piece is differentiated while it
 * is there: dfinal_norm [N, D] (in p->dnorm) and, with dm, the head's gradient. */
static void all_losses(ttmm_pass *p, const ttmm_model *m, real *nll, real scale, ttmm_model *dm)
{
    const size_t D = (size_t)p->config.dim, V = (size_t)p->config.vocab, most = p->size.logits;
    for (size_t b = 0; b < p->B; b++) nll[p->start[b + 1] - 1] = 0;
    for (size_t first = 0; first < p->N; first += most) {
        const size_t rows = p->N - first < most ? p->N - first : most;
        ttmm_logits(p, m, first, rows);
        OMP(omp parallel for if (rows * V > WORTH_THREADS / 4))
        for (size_t i = 0; i < rows; i++) {
            const size_t t = first + i, b = sequence_of(t, p->start, p->B);
            if (t + 1 < p->start[b + 1]) nll[t] = cross_entropy(p->logits + i * V, p->token[t + 1], V, scale);
            else memset(p->logits + i * V, 0, V * sizeof(real)); /* nothing follows: no loss, no gradient */
        }
        if (scale == 0) continue;
        real *d = p->dnorm + first * D;
        memset(d, 0, rows * D * sizeof *d);
        matmul_nn(d, d, p->logits, weight(m, 0, TTMM_HEAD), rows, D, V);
        if (dm) {
            real *dw = ttmm_weight(dm, 0, TTMM_HEAD);
            matmul_tn(dw, dw, p->logits, p->final_norm + first * D, V, D, rows);
        }
    }
}

void ttmm_nll(ttmm_pass *p, const ttmm_model *m, real *nll) { all_losses(p, m, nll, 0, NULL); }

/* The forward pass backwards. A sum y = x + f(x) hands dy to both: dx = dy, plus what comes back through f; so one
 * array dx is the gradient of a layer's output, then of its middle, then of its input, and each half of a layer adds to
 * it: down, SwiGLU, gate and up, MLP norm; then o, attention, the rotation, q, k and v, attention norm. Where a value
 * goes into several products (attn_norm into q, k and v) their gradients add up. The loss is a mean over the N - B
 * predictions; a tied head and embedding matrix is one tensor, into which both add. */
double ttmm_backward(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, ttmm_model *dm, ttmm_lora *dl)
{
    const ttmm_config *c = &p->config;
    const size_t N = p->N, B = p->B, D = (size_t)c->dim, F = (size_t)c->intermediate;
    const size_t H = (size_t)c->n_heads, G = (size_t)c->n_kv_heads, S = (size_t)c->head_dim, *start = p->start;
    if (N == B) return 0; /* sequences of one token predict nothing */
    all_losses(p, m, p->nll, (real)(1 / (double)(N - B)), dm);
    const double loss = (double)sum(p->nll, N) / (double)(N - B);
    zero(p->dx, N * D);
    rmsnorm_backward(p->dx, dm ? ttmm_weight(dm, 0, TTMM_FINAL_NORM) : NULL, p->dnorm, p->last,
                     vector_of(p->row, m, 0, TTMM_FINAL_NORM), p->final_inv_r, N, D);
    for (int l = c->n_layers - 1; l >= 0; l--) {
        const activations *s = &p->layer[l];

        zero(p->dact, N * F);
        linear_backward(p->dact, dm, dl, p->u, p->dx, s->act, m, mix, l, TTMM_DOWN, N);
        swiglu_backward(p->dgate, p->dup, p->dact, s->gate, s->up, N * F);
        zero(p->dnorm, N * D);
        linear_backward(p->dnorm, dm, dl, p->u, p->dgate, s->mlp_norm, m, mix, l, TTMM_GATE, N);
        linear_backward(p->dnorm, dm, dl, p->u, p->dup, s->mlp_norm, m, mix, l, TTMM_UP, N);
        rmsnorm_backward(p->dx, dm ? ttmm_weight(dm, l, TTMM_MLP_NORM) : NULL, p->dnorm, s->middle,
                         vector_of(p->row, m, l, TTMM_MLP_NORM), s->mlp_inv_r, N, D);

        zero(p->dattn, N * H * S);
        linear_backward(p->dattn, dm, dl, p->u, p->dx, s->attn, m, mix, l, TTMM_O, N);
        zero(p->dq, N * H * S);
        zero(p->dk, N * G * S);
        zero(p->dv, N * G * S);
        attention_backward(p->dq, p->dk, p->dv, p->dattn, s->q, s->k, s->v, start, B, c, p->scratch);
        rotary(p->dq, p->cosine, p->sine, 0, start, B, H, S, -1);
        rotary(p->dk, p->cosine, p->sine, 0, start, B, G, S, -1);
        zero(p->dnorm, N * D);
        linear_backward(p->dnorm, dm, dl, p->u, p->dq, s->attn_norm, m, mix, l, TTMM_Q, N);
        linear_backward(p->dnorm, dm, dl, p->u, p->dk, s->attn_norm, m, mix, l, TTMM_K, N);
        linear_backward(p->dnorm, dm, dl, p->u, p->dv, s->attn_norm, m, mix, l, TTMM_V, N);
        rmsnorm_backward(p->dx, dm ? ttmm_weight(dm, l, TTMM_ATTN_NORM) : NULL, p->dnorm, s->x,
                         vector_of(p->row, m, l, TTMM_ATTN_NORM), s->attn_inv_r, N, D);
    }
    if (dm) embedding_backward(ttmm_weight(dm, 0, TTMM_EMBED), p->dx, p->token, N, D);
    return loss;
}

/* ==== 7. Optimiser, trainer ======================================================================================= */

static double power(double x, long n) /* x^n by squaring, n >= 0 */
{
    double y = 1;
    for (; n > 0; n /= 2, x *= x)
        if (n % 2) y *= x;
    return y;
}

/* AdamW (Loshchilov & Hutter 2019, algorithm 2; torch.optim.AdamW), at step t = 1, 2, ...:
 *   w -= lr decay w;   m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g^2;
 *   w -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps),    g = grad grad_scale.
 * m and v are running means of the gradient and its square; as both begin at 0, 1 - b^t corrects them: it is the sum of
 * the weights that they have given so far. Decay is apart from the gradient, so v does not scale it.
 *
 * Example: w = 1, lr = 0.1, b1 = 0.9, b2 = 0.999, eps = 0. The first step is lr against g != 0, whatever its size,
 * since m / (1 - b1) = g, sqrt(v / (1 - b2)) = |g|:   g = 0.5 and g = 0.005 both lead to w = 0.9, and with decay 0.2 to
 * 1 - 0.1 * 0.2 - 0.1 = 0.88. After g = 0.5 a second step
 *   with g = 0.5    goes as far again: w = 0.8
 *   with g = -0.5   hardly moves: m = 0.9 * 0.05 - 0.1 * 0.5 = -0.005,   m / (1 - 0.81) = -0.0263,
 *                   w = 0.9 + 0.1 * 0.0263 / 0.5 = 0.9053 */
void ttmm_adamw_step(real *w, const real *grad, real *m, real *v, size_t n, const ttmm_adamw *o, long t,
                     double grad_scale)
{
    const real b1 = (real)o->beta1, c1 = (real)(1 - o->beta1), b2 = (real)o->beta2, c2 = (real)(1 - o->beta2);
    const real keep = (real)(1 - o->lr * o->decay), step = (real)(o->lr / (1 - power(o->beta1, t)));
    const real root = (real)sqrt(1 - power(o->beta2, t)), eps = (real)o->eps, scale = (real)grad_scale;
    OMP(omp parallel for if (n > WORTH_THREADS))
    for (size_t i = 0; i < n; i++) {
        const real g = grad[i] * scale;
        m[i] = b1 * m[i] + c1 * g;
        v[i] = b2 * v[i] + c2 * (g * g);
        w[i] = w[i] * keep - step * (m[i] / (sqrt_real(v[i]) / root + eps));
    }
}

/* The learning rate at step s = 0 .. steps - 1: lr (s + 1) / W in the first W = round(warmup steps) steps; after them,
 * with x = (s - W) / (steps - W) and shape = (1 + cos(pi x)) / 2 or 1 - x,   lr (last + (1 - last) shape).
 *
 * Example: 10 steps, warmup 0.2 (W = 2), lr 1, last 0.1.     step     0     1   2   4        6      9
 *                                                            linear   0.5   1   1   0.775    0.55   0.2125
 *                                                            cosine   0.5   1   1   0.8682   0.55   0.1343
 * Step 4: x = 2/8,   cos(pi / 4) = 0.7071,   0.1 + 0.9 * 1.7071 / 2 = 0.8682. last lr is not quite reached. */
double ttmm_rate(const ttmm_schedule *s, long step, long steps)
{
    const long warm = (long)(s->warmup * (double)steps + 0.5);
    if (step < warm) return s->lr * (double)(step + 1) / (double)warm;
    const double x = steps > warm ? (double)(step - warm) / (double)(steps - warm) : 0;
    const double shape = s->cosine ? 0.5 * (1 + ttmm_cos(3.141592653589793 * x)) : 1 - x;
    return s->lr * (s->last + (1 - s->last) * shape);
}

/* A trainer runs over sequences of a corpus: of all weights of a model (pre-training), or of one adapter with the model
 * frozen (an expert; the fine-tuned baseline; TTT). */
typedef struct { /* one tensor among the numbers that are trained */
    size_t offset, n;
    int spared; /* 1: no weight decay */
} span;

struct ttmm_trainer {
    void *block;
    ttmm_model *model;
    ttmm_lora *lora; /* NULL: all weights are trained */
    const ttmm_corpus *corpus;
    ttmm_recipe recipe;
    size_t n, n_spans;
    real *weights, *grad;    /* [n]; weights are the model's or the adapter's own */
    real *moment1, *moment2; /* [n] AdamW's m and v */
    span *spans;             /* [n_spans] */
    ttmm_model dmodel;       /* grad, shaped as the model ... */
    ttmm_lora dlora;         /* ... or the adapter */
    ttmm_pass *pass;
    size_t *sequence, n_sequences; /* those of this run */
    size_t *order;                 /* [n_sequences] of this epoch */
    int *token;                    /* the batch */
    size_t *start;
    long step, steps, epoch;
    size_t visits; /* epochs * n_sequences; SIZE_MAX if the run is measured in steps */
    size_t tokens; /* seen */
    uint64_t stream;
};

/* A run of `steps` steps, or (epochs > 0) of so many epochs. */
void ttmm_trainer_start(ttmm_trainer *t, const size_t *sequence, size_t n, long steps, int epochs, uint64_t stream)
{
    const size_t batch = t->recipe.batch;
    t->n_sequences = sequence ? n : t->corpus->n_sequences;
    for (size_t i = 0; i < t->n_sequences; i++) t->sequence[i] = sequence ? sequence[i] : i;
    t->visits = epochs ? mul_size((size_t)epochs, t->n_sequences) : SIZE_MAX;
    const size_t last = t->visits / batch + (t->visits % batch != 0);
    t->steps = epochs ? last < LONG_MAX ? (long)last : LONG_MAX : steps;
    t->step = 0, t->epoch = -1, t->tokens = 0, t->stream = stream;
    memset(t->moment1, 0, t->n * sizeof(real));
    memset(t->moment2, 0, t->n * sizeof(real));
}

/* The order of one epoch: the run's sequences, shuffled (Fisher & Yates) by a stream of the run and the epoch. */
static void begin_epoch(ttmm_trainer *t, long epoch)
{
    ttmm_rng run = ttmm_stream(t->recipe.seed, "order", t->stream),
             g = ttmm_stream(ttmm_next(&run), "epoch", (uint64_t)epoch);
    memcpy(t->order, t->sequence, t->n_sequences * sizeof *t->order);
    for (size_t i = t->n_sequences; t->recipe.shuffle && i > 1; i--) {
        const size_t j = (size_t)ttmm_below(&g, i), swap = t->order[i - 1];
        t->order[i - 1] = t->order[j], t->order[j] = swap;
    }
    t->epoch = epoch;
}

/* Clipping (torch.nn.utils.clip_grad_norm_): gradients times min(1, clip / (|g| + 1e-6)), |g| the norm over all tensors
 * together, have a norm of at most clip. With clip 0 they stay as they are.
 *
 * Example: the gradient (3, 4) has norm 5. clip = 1: factor 0.2, (0.6, 0.8), the same direction; clip = 10: 1. */
static double clip_factor(const real *grad, const span *spans, size_t n_spans, double clip)
{
    double square = 0;
    for (size_t i = 0; i < n_spans; i++)
        square += (double)dot(grad + spans[i].offset, grad + spans[i].offset, spans[i].n);
    const double factor = clip / (sqrt(square) + 1e-6);
    return clip > 0 && factor < 1 ? factor : 1;
}

/* One step: the next batch of sequences, forward, backward, clip, AdamW. Batches run on across the border of two
 * epochs; only the run's last one may be smaller. */
int ttmm_trainer_step(ttmm_trainer *t, double *loss)
{
    if (t->step >= t->steps) return 0;
    const ttmm_corpus *c = t->corpus;
    const ttmm_recipe *r = &t->recipe;
    const size_t from = (size_t)t->step * r->batch;
    size_t B = 0;
    t->start[0] = 0;
    for (; B < r->batch && from + B < t->visits; B++) {
        const long epoch = (long)((from + B) / t->n_sequences);
        if (epoch != t->epoch) begin_epoch(t, epoch);
        const size_t i = t->order[(from + B) % t->n_sequences], T = sequence_length(c, i);
        memcpy(t->token + t->start[B], c->token + c->sequence[i], T * sizeof *t->token);
        t->start[B + 1] = t->start[B] + T;
    }
    const ttmm_lora *adapter = t->lora;
    const real one = 1;
    const ttmm_mix mix = {1, &adapter, &one};
    memset(t->grad, 0, t->n * sizeof(real));
    ttmm_forward(t->pass, t->model, adapter ? &mix : NULL, t->token, t->start, B); /* fits: see ttmm_trainer_new */
    *loss = ttmm_backward(t->pass, t->model, adapter ? &mix : NULL, adapter ? NULL : &t->dmodel,
                          adapter ? &t->dlora : NULL);
    const double scale = clip_factor(t->grad, t->spans, t->n_spans, r->clip);
    ttmm_adamw o = {ttmm_rate(&r->schedule, t->step, t->steps), r->beta1, r->beta2, r->eps, 0};
    for (size_t i = 0; i < t->n_spans; i++) {
        const size_t at = t->spans[i].offset;
        o.decay = t->spans[i].spared ? 0 : r->decay;
        ttmm_adamw_step(t->weights + at, t->grad + at, t->moment1 + at, t->moment2 + at, t->spans[i].n, &o, t->step + 1,
                        scale);
    }
    t->tokens += t->start[B];
    t->step++;
    return 1;
}

long ttmm_trainer_at(const ttmm_trainer *t, long *steps, size_t *tokens)
{
    *steps = t->steps;
    *tokens = t->tokens;
    return t->step;
}

/* ==== 8. Test-time training ======================================================================================= */

/* The `count` rows of the largest inner product with the query, nearest first; equal ones: lower index first. Each
 * once, so count <= n. */
void ttmm_nearest(size_t *index, size_t count, const real *query, const real *embedding, size_t n, size_t E,
                  real *scratch)
{
    similarities(scratch, query, embedding, n, E);
    for (size_t i = 0; i < count; i++) {
        index[i] = ttmm_argmax(scratch, n);
        scratch[index[i]] = -INFINITY;
    }
}

/* SIFT (Huebotter et al. 2024, arXiv 2410.08020): nearest neighbours repeat each other; choose what is informative
 * about the query given what was chosen. Think of a Gaussian process over embeddings with covariance k(a, b) = a.b, and
 * of training on x as a look at its value there, with noise lambda. Given looks at the set X, the variance left at the
 * query q is s2(q) = k(q, q) - k_X(q)' (K_X + lambda I)^-1 k_X(q), k_X(q) being the vector of the k(x, q), K_X the
 * matrix of the k(x, y), x and y in X. Greedily take the x that leaves least, perhaps one that was taken before.
 *
 * In closed form: let c(a, b) be the covariance of the values (not of noisy looks) given the looks so far, at first
 * a.b. A look at x lowers c(q, q), which is s2(q), by c(q, x)^2 / (c(x, x) + lambda); after it
 *   c(a, b) -= l_a l_b,   l_a = c(a, x) / sqrt(c(x, x) + lambda),
 * one column of a pivoted Cholesky factorisation. Kept for every sequence i: c(q, i), c(i, i), and its column entries
 * l_i; c(i, x) is i.x minus the products of their earlier entries.
 *   index [count]: overwritten;   query [E];   embedding [n, E];   scratch [2 + count, n]
 *
 * Example: q = (1, 0), lambda = 0.01; x_0 = x_1 = (0.8, 0.6), one text twice; x_2 = (0.6, -0.8), at a right angle.
 *   at first     x_0, x_1: 0.8^2 / 1.01 = 0.6337;   x_2: 0.6^2 / 1.01 = 0.3564.   Takes x_0.
 *   given x_0    c(q, x_1) = 0.8 - 0.8 / 1.01 = 0.0079,   c(x_1, x_1) = 1 - 1 / 1.01 = 0.0099:
 *                x_0, x_1: 0.0079^2 / (0.0099 + 0.01) = 0.0032;   x_2: still 0.3564.   Takes x_2.
 * Left of the variance: 1 - 0.6337 - 0.3564 = 0.0099. The nearest two, x_0 and x_1, would leave 0.3632: a second look
 * at one text says almost nothing. (A third choice would be x_0 again, 0.0032 against 0.0018 of x_2.)
 *
 * With a small lambda one look at a text says nearly all that it can say; what is left of q goes to whatever overlaps
 * with it, in a small corpus to texts of other kinds. With a large one the nearest is looked at again and again. */
void ttmm_sift(size_t *index, size_t count, const real *query, const real *embedding, size_t n, size_t E, double lambda,
               real *scratch)
{
    real *with_query = scratch, *variance = scratch + n, *column = scratch + 2 * n; /* column [count, n] */
    similarities(with_query, query, embedding, n, E);
    for (size_t i = 0; i < n; i++) variance[i] = dot(embedding + i * E, embedding + i * E, E);
    for (size_t s = 0; s < count; s++) {
        size_t x = 0;
        double best = -1;
        for (size_t i = 0; i < n; i++) {
            const double gain = (double)with_query[i] * (double)with_query[i] / ((double)variance[i] + lambda);
            if (gain > best) best = gain, x = i;
        }
        index[s] = x;
        const real root = sqrt_real(variance[x] + (real)lambda), l_query = with_query[x] / root;
        real *l = column + s * n;
        similarities(l, embedding + x * E, embedding, n, E);
        for (size_t r = 0; r < s; r++) {
            const real *before = column + r * n;
            const real at_x = before[x];
            for (size_t i = 0; i < n; i++) l[i] -= before[i] * at_x;
        }
        for (size_t i = 0; i < n; i++) {
            l[i] /= root;
            with_query[i] -= l_query * l[i];
            variance[i] -= l[i] * l[i];
        }
    }
}

size_t ttmm_ttt_scratch(const ttmm_ttt *o, const ttmm_corpus *c)
{
    return mul_size(c->n_sequences, o->lambda > 0 ? add_size(o->neighbours, 2) : 1);
}

/* The baseline (Hardt & Sun 2024, arXiv 2305.18466): a fresh adapter, one step per neighbour and epoch, the nearest
 * (SIFT: the first chosen) last: what is trained last is remembered best; in the other order the farther neighbours
 * undo the nearest. For that the trainer's recipe has batch 1 and no shuffling. */
void ttmm_ttt_train(ttmm_trainer *t, const ttmm_ttt *o, const real *query, size_t *index, real *scratch)
{
    const ttmm_corpus *c = t->corpus;
    const size_t count = o->neighbours;
    double loss;
    if (o->lambda > 0) ttmm_sift(index, count, query, c->embedding, c->n_sequences, c->dim, o->lambda, scratch);
    else ttmm_nearest(index, count, query, c->embedding, c->n_sequences, c->dim, scratch);
    for (size_t i = 0; i < count / 2; i++) {
        const size_t swap = index[i];
        index[i] = index[count - 1 - i], index[count - 1 - i] = swap;
    }
    ttmm_lora_init(t->lora, t->recipe.seed, 0);
    ttmm_trainer_start(t, index, count, 0, o->epochs, 0);
    while (ttmm_trainer_step(t, &loss)) {
    }
}

/* ==== 9. Answering a prompt; scoring, sampling ==================================================================== */

/* Sampling. */

typedef struct {
    real p;
    int token;
} candidate;

/* The likeliest first; equal ones: lower token first, as they come. Radix sort: by each byte of p's bits, the lowest
 * byte first, keeping the order of those that have the same; V steps a byte, where comparing takes V log V. As p >= 0,
 * its bits, read as a whole number, are in the order of the numbers.    c [V]    other [V] scratch */
static void sort_candidates(candidate *c, candidate *other, size_t V)
{
    for (int shift = 0; shift < 64; shift += 8) { /* an even number of times: it ends in c */
        size_t place[257] = {0};                  /* of the next one with each byte, 255 first */
        for (size_t v = 0; v < V; v++) place[256 - (to_bits((double)c[v].p) >> shift & 255)]++;
        for (size_t b = 0; b < 256; b++) place[b + 1] += place[b];
        for (size_t v = 0; v < V; v++) other[place[255 - (to_bits((double)c[v].p) >> shift & 255)]++] = c[v];
        candidate *swap = c;
        c = other, other = swap;
    }
}

size_t ttmm_sample_scratch(size_t V) { return 2 * V * sizeof(candidate); }

/* p = softmax(logits / temperature), of the top_k likeliest (0: all), of these the fewest that make up top_p of their
 * sum (nucleus sampling, Holtzman et al. 2020): the point u sum(p), u uniform, falls on one of them. Temperature 0: the
 * likeliest.
 *
 * Example: logits ln 4, ln 3, ln 2, ln 1; top_k = 3, top_p = 0.75.
 *   temperature 1     p ~ 4, 3, 2:    0.75 * 9 = 6.75 is reached by 4 + 3:      tokens 0 and 1, with 4/7 and 3/7
 *   temperature 1/2   p ~ 16, 9, 4:   0.75 * 29 = 21.75 is reached by 16 + 9:   tokens 0 and 1, with 0.64 and 0.36
 * One uniform number is used: below 4/7 (0.64) it means token 0. top_p is taken of what top_k has left: of all four, 4
 * + 3 + 2 + 1, the first two would not make 7.5, and token 2 could come too. */
int ttmm_sample(const real *logits, size_t V, const ttmm_sampler *s, ttmm_rng *g, void *scratch)
{
    if (s->temperature == 0) return (int)ttmm_argmax(logits, V);
    candidate *c = scratch;
    const real most = largest(logits, V);
    const size_t n = s->top_k > 0 && s->top_k < V ? s->top_k : V;
    double total = 0, kept = 0;
    size_t keep = 0;
    for (size_t v = 0; v < V; v++) {
        const real p = (real)ttmm_exp((double)(logits[v] - most) / s->temperature);
        c[v] = (candidate){p >= 0 ? p : 0, (int)v}; /* NaN has no place in an order */
    }
    sort_candidates(c, c + V, V);
    for (size_t k = 0; k < n; k++) total += (double)c[k].p;
    for (; keep < n && (keep == 0 || kept < s->top_p * total); keep++) kept += (double)c[keep].p;
    double point = ttmm_uniform(g) * kept;
    for (size_t i = 0; i + 1 < keep; i++)
        if ((point -= (double)c[i].p) < 0) return c[i].token;
    return c[keep - 1].token;
}

int ttmm_is_end(const ttmm_config *c, int token)
{
    int i = 0;
    while (i < c->n_ends && c->end[i] != token) i++;
    return i < c->n_ends;
}

/* Decoding. */

/* Tokens into the cache, as many at a time as p has room for; returns the logits [V] of the last. */
const real *ttmm_feed(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, const int *token, size_t T)
{
    const size_t longest = longest_of(&p->size), piece = longest < p->size.tokens ? longest : p->size.tokens;
    size_t n = 0;
    if (T > p->size.cache - ttmm_cached(p)) return NULL;
    for (size_t from = 0; from < T; from += n) {
        const size_t start[2] = {0, n = T - from < piece ? T - from : piece};
        if (ttmm_forward(p, m, mix, token + from, start, 1) != TTMM_OK) return NULL;
    }
    return n ? ttmm_logits(p, m, n - 1, 1) : NULL;
}

/* out += weight softmax(logits), all [V] */
static void add_probabilities(real *out, const real *logits, size_t V, real weight)
{
    const real most = largest(logits, V);
    double total = 0;
    for (size_t v = 0; v < V; v++) total += (double)exp_real(logits[v] - most);
    for (size_t v = 0; v < V; v++) out[v] += weight * (real)((double)exp_real(logits[v] - most) / total);
}

/* As ttmm_feed, of an ensemble: each adapter of mix alone, in a pass of its own; the log of the weighted mean of the
 * probabilities.    mean [V] overwritten and returned */
static const real *feed_ensemble(real *mean, ttmm_pass *const *pass, const ttmm_model *m, const ttmm_mix *mix,
                                 const int *token, size_t T)
{
    const size_t V = (size_t)m->config.vocab;
    const real one = 1;
    memset(mean, 0, V * sizeof *mean);
    for (size_t k = 0; k < mix->n; k++) {
        const ttmm_mix alone = {1, mix->lora + k, &one};
        const real *logits = ttmm_feed(pass[k], m, &alone, token, T);
        if (logits == NULL) return NULL;
        add_probabilities(mean, logits, V, mix->weight[k]);
    }
    for (size_t v = 0; v < V; v++) mean[v] = (real)ttmm_log((double)mean[v]);
    return mean;
}

/* A prompt is taken in pieces of 256 tokens: enough to fill the kernels, and little memory however long it is. */
ttmm_pass_size ttmm_decoding_size(size_t tokens, size_t positions, size_t rank)
{
    enum { PIECE = 256 };
    return (ttmm_pass_size){
        .tokens = tokens < PIECE ? tokens : PIECE, .sequences = 1, .cache = positions, .logits = 1, .rank = rank};
}

typedef struct { /* what decoding works with */
    size_t members;
    ttmm_pass **pass; /* [members] of the ensemble, or one */
    real *mean;       /* [V] */
    void *scratch;    /* of ttmm_sample */
    void *block;
} decoding_room;
static int new_decoder(decoding_room *w, size_t members, const ttmm_config *c, const ttmm_pass_size *size,
                       const ttmm_decoding *d, ttmm_error *err); /* 12 */

/* Of a prompt of T < context tokens, and at most d->tokens after it. */
static ttmm_pass_size decoding_size(const ttmm_config *c, size_t T, size_t rank, const ttmm_decoding *d)
{
    const size_t left = (size_t)c->context - T, most = d->tokens < left ? d->tokens : left;
    ttmm_pass_size size = ttmm_decoding_size(T, T + most, rank);
    if (d->piece && d->piece < size.tokens) size.tokens = d->piece;
    return size;
}

/* The prompt, then token after token: the logits of the last one give the next, through the key/value cache, so that
 * each token costs one row. */
int ttmm_decode(size_t *n, const ttmm_model *m, const ttmm_mix *mix, int how, const int *prompt, size_t T,
                const ttmm_decoding *d, ttmm_error *err)
{
    const ttmm_config *c = &m->config;
    const size_t V = (size_t)c->vocab, context = (size_t)c->context;
    const int ensemble = how == TTMM_ENSEMBLE && mix && mix->n > 1;
    const real one = 1;
    const ttmm_mix alone = {1, mix ? mix->lora : NULL, &one};
    if (how == TTMM_ENSEMBLE && mix && mix->n == 1) mix = &alone; /* an ensemble of one is that one */
    *n = 0;
    if (T < 1 || T >= context)
        return fail(err, TTMM_BAD_INPUT, "the prompt has %zu tokens, expected 1 to %d, one less than the context", T,
                    c->context - 1);
    const ttmm_pass_size size = decoding_size(c, T, ttmm_mix_rank(mix), d);
    const size_t most = size.cache - T;
    ttmm_rng g = ttmm_stream(d->seed, "sample", 0);
    decoding_room w = {0};
    int next = 0, over = 0;
    int code = new_decoder(&w, ensemble ? mix->n : 1, c, &size, d, err);
    if (code == TTMM_OK && d->begin) d->begin(d->context);
    while (code == TTMM_OK && *n < most && !over) {
        const int *token = *n ? &next : prompt;
        const size_t count = *n ? 1 : T;
        const real *logits = ensemble ? feed_ensemble(w.mean, w.pass, m, mix, token, count)
                                      : ttmm_feed(w.pass[0], m, mix, token, count);
        if (logits == NULL) {
            code = fail(err, TTMM_BAD_INPUT, "a token is not in 0 .. %d, or an adapter is of another model",
                        c->vocab - 1);
            break;
        }
        next = ttmm_sample(logits, V, &d->sampler, &g, w.scratch);
        ++*n;
        over = d->token(d->context, next) || ttmm_is_end(c, next);
    }
    TTMM_FREE(w.block);
    return code;
}

/* Answering a prompt, the whole of test time, in five steps: 1 embed the prefix; 2 route; 3 load the chosen experts; 4
 * combine them; 5 decode. There are three ways to combine:
 *   TTMM_DENSE      merge them into the weights: one model, whose tokens cost what the base's cost
 *   TTMM_LOWRANK    leave them beside the weights: the same function, no merging, dearer tokens
 *   TTMM_ENSEMBLE   let each decode alone, and average their probabilities: as many models as experts
 * and TTMM_FASTER is one of the first two. The functions are the steps; ttmm_answer is all of them. */

int ttmm_query(ttmm_mixture *x, const int *token, size_t T, const real *given, ttmm_error *err)
{
    const size_t prefix = T < x->prefix ? T : x->prefix;
    if (given) memcpy(x->query, given, x->E * sizeof *x->query);
#ifndef TTMM_NO_FILES /* without files there are no encoders */
    else if (x->encoder) {
        const size_t start[2] = {0, prefix}, E = ttmm_encoder_dim(x->encoder);
        if (E != x->E)
            return fail(err, TTMM_BAD_USE, "the centroids have %zu numbers, the encoder's embeddings %zu", x->E, E);
        return ttmm_encode_tokens(x->query, x->encoder, x->tokenizer, token, start, 1, err);
    }
#endif
    else if (x->idf == NULL || x->E != TTMM_EMBED_DIM)
        return fail(err, TTMM_BAD_USE, "there are no embeddings of our own: the query must be given");
    else ttmm_embed(x->query, x->tokenizer, token, prefix, x->idf);
    if (x->E == 0 || magnitude(x->query, x->E) > 0) return TTMM_OK; /* 0: there are no experts to route to */
    return fail(err, TTMM_BAD_INPUT, "the query embedding is zero or not finite, expected a direction");
}

int ttmm_choose(ttmm_mixture *x, const int *token, size_t T, const real *given, ttmm_error *err)
{
    size_t n = 0;
    x->mix = (ttmm_mix){0, x->lora, x->weight};
    int code = ttmm_query(x, token, T, given, err);
    if (code == TTMM_OK)
        code = ttmm_route(&n, x->expert, x->weight, x->similarity, x->query, x->centroid, x->K, x->E, &x->router, err);
    for (size_t i = 0; i < n && code == TTMM_OK; i++) {
        err->code = TTMM_BAD_USE; /* if load says nothing else */
        x->lora[i] = x->load(x->context, (size_t)x->expert[i], err);
        code = x->lora[i] ? TTMM_OK : err->code;
    }
    if (code == TTMM_OK) x->mix.n = n;
    return code;
}

/* Merge the experts, or leave them beside the weights? For every rank and matrix merging takes out in multiply-adds,
 * once; a token beside the weights takes out + in. So beside is faster if
 *   prompt + 16 tokens < sum(out in) / sum(out + in), over the matrices: 61 for train base's default shape, 1,381 for
 * Llama-3.2-1B. The 16 is measured (run bench): a prompt's tokens are computed as fast as merging, while those that are
 * decoded wait for memory. */
static int faster_beside(const ttmm_config *c, size_t prompt, size_t tokens)
{
    double products = 0, sides = 0;
    for (int kind = 0; kind < TTMM_MATRICES; kind++) {
        const double out = (double)kind_rows(c, kind), in = (double)kind_cols(c, kind);
        products += out * in, sides += out + in;
    }
    return (double)prompt + 16 * (double)tokens < products / sides;
}

int ttmm_combine(ttmm_mixture *x, int how, ttmm_error *err)
{
    x->answering = x->base, x->beside = x->mix;
    if (how != TTMM_DENSE) return TTMM_OK;
    const int code = ttmm_mixture_merge(x, &x->mix, err);
    x->answering = x->merged, x->beside.n = 0;
    return code;
}

int ttmm_answer(size_t *n, ttmm_mixture *x, int how, const int *prompt, size_t T, const real *given,
                const ttmm_decoding *d, ttmm_error *err)
{
    *n = 0;
    int code = ttmm_choose(x, prompt, T, given, err); /* 1, 2, 3 */
    if (code) return code;
    if (d->chosen) d->chosen(d->context, x);
    if (how == TTMM_FASTER) how = faster_beside(&x->base->config, T, d->tokens) ? TTMM_LOWRANK : TTMM_DENSE;
    code = ttmm_combine(x, how, err);                                                      /* 4 */
    return code ? code : ttmm_decode(n, x->answering, &x->beside, how, prompt, T, d, err); /* 5 */
}

/* Scoring: how well the tokens from `from` >= 1 on are predicted, each from those before it: nll, the sum of
 * -log p(token_t). From it   perplexity = exp(nll / tokens),   bits per byte = nll / (ln 2 bytes).
 *
 * Example: two tokens with p = 1/2 and 1/8:   sum = ln 2 + ln 8 = 2.7726,   perplexity exp(2.7726 / 2) = 4, as if each
 * were one of four equally likely ones. If they stand for three bytes: 4 bits / 3 = 1.3333 bits per byte, which can be
 * compared between tokenizers, as perplexity cannot. */
double ttmm_score(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, const int *token, size_t T, size_t from)
{
    const size_t start[2] = {0, T};
    double nll = 0;
    if (ttmm_forward(p, m, mix, token, start, 1) != TTMM_OK) return NAN;
    ttmm_nll(p, m, p->nll);
    for (size_t t = from; t < T; t++) nll += (double)p->nll[t - 1]; /* nll[t - 1] is that of predicting token t */
    return nll;
}

/* The ensemble (the paper's upper reference for merging): the probability of a token is the weighted mean of the
 * probabilities that the models W + scale_k B_k A_k give it. Better than merging, at as many passes as experts, of
 * which there is at least one. */
double ttmm_score_ensemble(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, const int *token, size_t T,
                           size_t from, double *probability)
{
    const size_t start[2] = {0, T};
    const real one = 1;
    double nll = 0;
    if (mix->n == 0) return NAN;
    for (size_t t = 0; t < T; t++) probability[t] = 0;
    for (size_t k = 0; k < mix->n; k++) {
        const ttmm_mix alone = {1, &mix->lora[k], &one};
        if (ttmm_forward(p, m, &alone, token, start, 1) != TTMM_OK) return NAN;
        ttmm_nll(p, m, p->nll);
        for (size_t t = from; t < T; t++) probability[t] += (double)mix->weight[k] * ttmm_exp(-(double)p->nll[t - 1]);
    }
    for (size_t t = from; t < T; t++) nll -= ttmm_log(probability[t]);
    return nll;
}

#ifndef TTMM_NO_FILES
/* ==== 9a. A sentence encoder ====================================================================================== */

/* The paper's own embedding: a transformer that sees the whole text at once, BERT (Devlin et al. 2019) or MPNet (Song
 * et al. 2020), and the mean of what it makes of the tokens (Reimers & Gurevych 2019), as sentence-transformers has it
 * for all-MiniLM-L6-v2 and all-mpnet-base-v2. N tokens of all texts of a batch end to end, as in section 6:
 *
 *     x = LayerNorm(words[token] + positions[p])                       BERT: + types[0];  p = 0, 1 ... in each text
 *     in each layer     y = LayerNorm(x + Wo attention(x) + bo)        [N, D]
 *                       x = LayerNorm(y + Wdown gelu(Wup y + bup) + bdown)
 *     phi = m / |m|,    m = the mean over a text's tokens of x         [E], E = D
 *
 * Against the layers of section 5: norms come after the sums, not before; every matrix has a bias; no query is kept
 * from the tokens after it; positions are learned vectors. It is only used, so there are no derivatives. */

/* The modules of an encoder, by Hugging Face's names: those outside of layers, then those of each layer; their weights,
 * and all but the first three have a bias [rows], too. C: positions; the rows of EXTRA are BERT's types of tokens, and
 * MPNet's buckets of distances, which has columns H. */
enum { WORDS, POSITIONS, EXTRA, FIRST_NORM, OUTSIDE };
enum { QUERY = OUTSIDE, KEY, VALUE, MIXED, MIXED_NORM, UP, DOWN, LAST_NORM, MODULES, INSIDE = MODULES - OUTSIDE };
static const struct {
    const char *bert, *mpnet, *rows, *cols;
} encoder_modules[MODULES] = {
    {"embeddings.word_embeddings", "embeddings.word_embeddings", "V", "D"},
    {"embeddings.position_embeddings", "embeddings.position_embeddings", "C", "D"},
    {"embeddings.token_type_embeddings", "encoder.relative_attention_bias", "", "D"},
    {"embeddings.LayerNorm", "embeddings.LayerNorm", "D", ""},
    {"encoder.layer.%d.attention.self.query", "encoder.layer.%d.attention.attn.q", "HS", "D"},
    {"encoder.layer.%d.attention.self.key", "encoder.layer.%d.attention.attn.k", "HS", "D"},
    {"encoder.layer.%d.attention.self.value", "encoder.layer.%d.attention.attn.v", "HS", "D"},
    {"encoder.layer.%d.attention.output.dense", "encoder.layer.%d.attention.attn.o", "D", "HS"},
    {"encoder.layer.%d.attention.output.LayerNorm", "encoder.layer.%d.attention.LayerNorm", "D", ""},
    {"encoder.layer.%d.intermediate.dense", "encoder.layer.%d.intermediate.dense", "F", "D"},
    {"encoder.layer.%d.output.dense", "encoder.layer.%d.output.dense", "D", "F"},
    {"encoder.layer.%d.output.LayerNorm", "encoder.layer.%d.output.LayerNorm", "D", ""},
};

struct ttmm_encoder {
    ttmm_config config; /* context: positions */
    int mpnet;          /* 0: BERT */
    size_t extra;       /* rows of EXTRA */
    size_t longest;     /* a text is cut to so many tokens, with those around it */
    ttmm_tokenizer *tokenizer;
    size_t n;             /* modules: OUTSIDE + L * INSIDE */
    ttmm_numbers *tensor; /* [2 n] the weights and the bias of each, as they are stored */
    real **own;           /* [2 n] those that could not be mapped */
    char fingerprint[17];
    size_t bytes; /* of tokenizer and weights */
    void *block, *files;
};

static ttmm_numbers module(const ttmm_encoder *e, size_t layer, int number, int bias)
{
    return e->tensor[2 * (size_t)number + (number < OUTSIDE ? 0 : 2 * INSIDE * layer) + (size_t)bias];
}

/* The activations of one batch, and scratch. */
typedef struct {
    real *x, *q, *k, *v, *mixed, *up; /* [N, D], up [N, F]; what is added to x takes q's place */
    real *row[2];                     /* gains and biases */
    real *distance;         /* [H, 2 T - 1] MPNet: what is added to a score, by head and key's place - query's */
    thread_scratch scratch; /* [threads, ATTENTION_ROWS, T], T the longest of the batch */
    ttmm_trace *trace;      /* or NULL */
    real *traced;           /* where the next values go */
} encoder_room;

static void lay_out_encoding(encoder_room *w, const ttmm_encoder *e, size_t N, size_t T, arena *a)
{
    const ttmm_config *c = &e->config;
    const size_t D = (size_t)c->dim, F = (size_t)c->intermediate, ND = mul_size(N, D);
    w->x = take_reals(a, ND), w->q = take_reals(a, ND), w->k = take_reals(a, ND), w->v = take_reals(a, ND);
    w->mixed = take_reals(a, ND), w->up = take_reals(a, mul_size(N, F));
    w->row[0] = take_reals(a, D > F ? D : F), w->row[1] = take_reals(a, D);
    w->distance = e->mpnet ? take_reals(a, mul_size((size_t)c->n_heads, 2 * T)) : NULL;
    w->scratch.threads = ttmm_threads(), w->scratch.size = mul_size(ATTENTION_ROWS, T);
    w->scratch.data = take_reals(a, mul_size((size_t)w->scratch.threads, w->scratch.size));
}

/* A traced value: its numbers are copied, as the room will be used again.    layer >= L: of none */
static void note(encoder_room *w, const ttmm_encoder *e, size_t layer, const char *name, const real *x, size_t rows,
                 size_t cols)
{
    if (w->trace == NULL) return;
    const size_t n = rows * (cols ? cols : 1);
    ttmm_array *a = &w->trace->array[w->trace->n++];
    *a = (ttmm_array){{0}, rows, cols, memcpy(w->traced, x, n * sizeof *x), NULL};
    if (layer < (size_t)e->config.n_layers) snprintf(a->name, sizeof a->name, "layers.%zu.%s", layer, name);
    else snprintf(a->name, sizeof a->name, "%s", name);
    w->traced += n;
}

/* LayerNorm (Ba et al. 2016): y = g (x - m) / s + b,   m = mean(x),   s = sqrt(mean((x - m)^2) + eps).
 *   x [N, D]: changed in place;   g, b [D]
 *
 * Example: x = (1, 3), g = (1, 1), b = (0, 1), eps = 0:   m = 2,   s = sqrt((1 + 1) / 2) = 1,   y = (-1, 2). */
static void layernorm(real *x, const real *g, const real *b, size_t N, size_t D, double eps)
{
    OMP(omp parallel for if (N * D > WORTH_THREADS))
    for (size_t t = 0; t < N; t++) {
        real *xt = x + t * D;
        const real mean = sum(xt, D) / (real)D;
        for (size_t i = 0; i < D; i++) xt[i] -= mean;
        const real inv = 1 / sqrt_real(dot(xt, xt, D) / (real)D + (real)eps);
        for (size_t i = 0; i < D; i++) xt[i] = g[i] * (xt[i] * inv) + b[i];
    }
}

/* GELU (Hendrycks & Gimpel 2016): x Phi(x), Phi the normal distribution:   gelu(x) = x (1 + erf(x / sqrt(2))) / 2.
 * Computed in double, rounded once.                x [n]: changed in place
 *
 * Example: gelu(1) = 0.8413, gelu(-1) = -0.1587, their sum: 1 (Phi(x) - Phi(-x)) = 0.6827. */
static void gelu(real *x, size_t n)
{
    OMP(omp parallel for if (n > WORTH_THREADS / 16))
    for (size_t i = 0; i < n; i++)
        x[i] = (real)((double)x[i] * (0.5 + 0.5 * erf_inline((double)x[i] * 0x1.6a09e667f3bcdp-1 /* sqrt(1/2) */)));
}

/* MPNet's scores know the distance d of a key from its query, key's place minus query's, by 32 buckets for both signs
 * (Raffel et al. 2020): |d| < 8 has one for each; from there to 128 they grow, two for each doubling of |d|, and what
 * is farther is in the last:    min(15, 8 + floor(2 log2(|d| / 8))) = min(15, 2 + floor(log2(d^2))),   + 16 if d > 0.
 *
 * Example: d = -7, -8, -11, -12, -100, -500: 7, 8, 8, 9, 15, 15;   d = 8: 24. */
static size_t distance_bucket(long d)
{
    const uint64_t side = d > 0 ? 16 : 0, size = (uint64_t)(d < 0 ? -d : d);
    uint64_t bucket = size < 8 ? size : 8;
    while (size >= 8 && bucket < 15 && size * size >> (bucket - 1)) bucket++; /* 2^(bucket - 1) <= d^2: the next one */
    return (size_t)(side + bucket);
}

/* w->distance, for distances below T. */
static void find_distances(encoder_room *w, const ttmm_encoder *e, size_t T)
{
    const size_t H = (size_t)e->config.n_heads;
    for (size_t h = 0; h < H; h++)
        for (size_t i = 0; i < 2 * T - 1; i++)
            to_reals(w->distance + h * (2 * T - 1) + i, module(e, 0, EXTRA, 0),
                     distance_bucket((long)i - (long)(T - 1)) * H + h, 1);
}

/* Attention without a mask: of each head, for queries i and keys j of one text,
 *   s_ij = q_i.k_j / sqrt(S) + distance(j - i),   P_i = softmax(s_i),   o_i = sum_j P_ij v_j.
 *   mixed [N, H, S]: overwritten;   q, k, v [N, H, S];   T: the longest text's tokens */
static void attend(encoder_room *w, const ttmm_encoder *e, const size_t *start, size_t B, size_t T)
{
    const size_t H = (size_t)e->config.n_heads, S = (size_t)e->config.head_dim, D = H * S;
    const real scale = (real)(1 / sqrt((double)S));
    OMP(omp parallel for schedule(dynamic) num_threads(TEAM(w->scratch)) if (start[B] * D > WORTH_THREADS / 16))
    for (size_t task = 0; task < B * H; task++) {
        const size_t b = task / H, h = task % H, n = start[b + 1] - start[b], at = start[b] * D + h * S;
        real *P = w->scratch.data + (size_t)omp_get_thread_num() * w->scratch.size;
        for (size_t i = 0, rows; i < n; i += rows) {
            rows = n - i < ATTENTION_ROWS ? n - i : ATTENTION_ROWS;
            matmul_nt_block(P, n, w->q + at + i * D, D, w->k + at, D, rows, n, S, 0);
            for (size_t r = 0; r < rows; r++) {
                const real *distance = w->distance ? w->distance + h * (2 * T - 1) + T - 1 - (i + r) : NULL;
                real *p = P + r * n, *out = w->mixed + at + (i + r) * D;
                for (size_t j = 0; j < n; j++) p[j] *= scale;
                for (size_t j = 0; distance && j < n; j++) p[j] += distance[j];
                softmax_in_place(p, n);
                memset(out, 0, S * sizeof *out);
            }
            real *out = w->mixed + at + i * D;
            matmul_nn_block(out, out, D, P, n, 1, w->v + at, D, rows, S, n);
        }
    }
}

/* y = W x + b.    y [N, out]: overwritten;   x [N, in] */
static void encoder_linear(real *y, encoder_room *w, const real *x, const ttmm_encoder *e, size_t layer, int number,
                           size_t N)
{
    const size_t out = dimension(&e->config, encoder_modules[number].rows);
    matmul_nt(y, x, module(e, layer, number, 0), N, out, dimension(&e->config, encoder_modules[number].cols), 0);
    bias_forward(y, as_reals(w->row[0], module(e, layer, number, 1), out), N, out);
}

static void encoder_norm(real *x, encoder_room *w, const ttmm_encoder *e, size_t layer, int number, size_t N)
{
    const size_t D = (size_t)e->config.dim;
    layernorm(x, as_reals(w->row[0], module(e, layer, number, 0), D),
              as_reals(w->row[1], module(e, layer, number, 1), D), N, D, e->config.norm_eps);
}

/* The sums that the first norm sees. MPNet's positions begin at 2, and a token 1, padding, is at 1 and does not count.
 *   x [N, D]: overwritten */
static void embed_tokens(real *x, encoder_room *w, const ttmm_encoder *e, const int *token, const size_t *start,
                         size_t B)
{
    const size_t D = (size_t)e->config.dim;
    for (size_t b = 0; b < B; b++)
        for (size_t t = start[b], place = 0; t < start[b + 1]; t++) {
            const int padding = e->mpnet && token[t] == 1;
            real *xt = x + t * D;
            to_reals(xt, module(e, 0, WORDS, 0), (size_t)token[t] * D, D);
            if (!e->mpnet) add_to(xt, xt, as_reals(w->row[0], module(e, 0, EXTRA, 0), D), D);
            to_reals(w->row[1], module(e, 0, POSITIONS, 0), (padding ? 1 : place + (e->mpnet ? 2 : 0)) * D, D);
            add_to(xt, xt, w->row[1], D);
            place += !padding;
        }
}

/* The embeddings of a batch.    out [B, D]: overwritten;   token [N];   T: the longest text's tokens
 * Returns 0 if one has no direction: the weights are too large. */
static int encode_batch(real *out, encoder_room *w, const ttmm_encoder *e, const int *token, const size_t *start,
                        size_t B, size_t T)
{
    const ttmm_config *c = &e->config;
    const size_t N = start[B], D = (size_t)c->dim, F = (size_t)c->intermediate, L = (size_t)c->n_layers;
    int directed = 1;
    embed_tokens(w->x, w, e, token, start, B);
    encoder_norm(w->x, w, e, 0, FIRST_NORM, N);
    note(w, e, L, "embed", w->x, N, D);
    if (e->mpnet) find_distances(w, e, T);
    for (size_t l = 0; l < L; l++) {
        encoder_linear(w->q, w, w->x, e, l, QUERY, N), note(w, e, l, "q", w->q, N, D);
        encoder_linear(w->k, w, w->x, e, l, KEY, N), note(w, e, l, "k", w->k, N, D);
        encoder_linear(w->v, w, w->x, e, l, VALUE, N), note(w, e, l, "v", w->v, N, D);
        attend(w, e, start, B, T), note(w, e, l, "attn", w->mixed, N, D);
        encoder_linear(w->q, w, w->mixed, e, l, MIXED, N), note(w, e, l, "attn_out", w->q, N, D);
        add_to(w->x, w->x, w->q, N * D);
        encoder_norm(w->x, w, e, l, MIXED_NORM, N), note(w, e, l, "attn_norm", w->x, N, D);

        encoder_linear(w->up, w, w->x, e, l, UP, N), note(w, e, l, "up", w->up, N, F);
        gelu(w->up, N * F), note(w, e, l, "gelu", w->up, N, F);
        encoder_linear(w->q, w, w->up, e, l, DOWN, N), note(w, e, l, "mlp_out", w->q, N, D);
        add_to(w->x, w->x, w->q, N * D);
        encoder_norm(w->x, w, e, l, LAST_NORM, N), note(w, e, l, "out", w->x, N, D);
    }
    for (size_t b = 0; b < B; b++) {
        real *mean = out + b * D;
        memset(mean, 0, D * sizeof *mean);
        for (size_t t = start[b]; t < start[b + 1]; t++) add_to(mean, mean, w->x + t * D, D);
        for (size_t i = 0; i < D; i++) mean[i] /= (real)(start[b + 1] - start[b]);
        note(w, e, L, "mean", mean, D, 0);
        directed &= normalise(mean, D);
        note(w, e, L, "embedding", mean, D, 0);
    }
    return directed;
}

/* How many tokens are encoded at once: enough to fill the kernels. */
static size_t batch_of(size_t tokens, size_t longest)
{
    enum { ENOUGH = 1024 };
    return tokens < ENOUGH ? tokens : longest > ENOUGH ? longest : ENOUGH;
}

/* The texts start[i] .. start[i + 1] - 1.
 *   out [n, D]: overwritten;   traced: where the trace's numbers go, if there is one (then n is 1) */
static int encode_texts(real *out, const ttmm_encoder *e, const int *token, const size_t *start, size_t n,
                        ttmm_trace *trace, real *traced, ttmm_error *err)
{
    const size_t D = (size_t)e->config.dim;
    size_t longest = 0, *own = malloc((n + 1) * sizeof *own); /* where the texts of a batch begin in it */
    encoder_room w = {0};
    arena a = {0};
    void *block = NULL;
    for (size_t i = 0; i < n; i++) longest = start[i + 1] - start[i] > longest ? start[i + 1] - start[i] : longest;
    const size_t most = batch_of(start[n], longest);
    lay_out_encoding(&w, e, most, longest, &a);
    int code = own ? TTMM_OK : fail(err, TTMM_NO_ROOM, "out of memory for %zu texts", n);
    if (code == TTMM_OK) code = allocate(&a, &block, "the activations of an encoder", err);
    if (code == TTMM_OK) lay_out_encoding(&w, e, most, longest, &a);
    w.trace = trace, w.traced = traced;
    for (size_t i = 0, B; i < n && code == TTMM_OK; i += B) {
        for (B = 0; i + B < n && start[i + B + 1] - start[i] <= most; B++) own[B] = start[i + B] - start[i];
        own[B] = start[i + B] - start[i];
        if (!encode_batch(out + i * D, &w, e, token + start[i], own, B, longest))
            code = fail(err, TTMM_BAD_INPUT, "an embedding is zero or not finite: the encoder's weights are too large");
    }
    TTMM_FREE(block);
    free(own);
    return code;
}

size_t ttmm_encoder_dim(const ttmm_encoder *e) { return (size_t)e->config.dim; }
#endif

/* ==================================================================================================================
 * PART II: EXACT AND FAST
 * ================================================================================================================== */

/* ==== 10. exp, log, erf, sin, cos ================================================================================= */

static inline uint64_t to_bits(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline double from_bits(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* x + ROUND - ROUND is x rounded to an integer for |x| < 2^51, and the low bits of x + ROUND are that integer. */
#define ROUND 0x1.8p52

/* ln 2 = LN2_HIGH + LN2_LOW: the high part has 21 trailing zero bits, so that n * LN2_HIGH is exact for |n| < 2^21. */
#define LN2_HIGH 0x1.62e42fee00000p-1
#define LN2_LOW 0x1.a39ef35793c76p-33

/* How exact these functions are: test/functions.c measures doubles against mpmath and long double, test/exhaustive.c
 * (float)f((double)x) of every float x against the nearest float. "Errors" are the largest found by a search.
 *
 * exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2)/2: there the Taylor series to r^13 is off by less than 5e-18.
 * r and 1 + r keep what rounding takes off them. 2^n is applied in two factors, so that a subnormal result loses digits
 * only once and overflow gives infinity. No branches: loops over this vectorise.
 * Errors: 0.72 ulp, 0.78 where the result is subnormal. No float misses. */
static inline double exp_inline(double x)
{
    double y = x < -750 ? -750 : x;
    y = y > 720 ? 720 : y;
    double shifted = y * 0x1.71547652b82fep+0 /* 1 / ln 2 */ + ROUND, n = shifted - ROUND;
    double high = y - n * LN2_HIGH, r = high - n * LN2_LOW, low = (high - r) - n * LN2_LOW;
    double p = 1. / 6227020800; /* 1/13!, then down to 1/2! */
    p = p * r + 1. / 479001600, p = p * r + 1. / 39916800, p = p * r + 1. / 3628800, p = p * r + 1. / 362880;
    p = p * r + 1. / 40320, p = p * r + 1. / 5040, p = p * r + 1. / 720, p = p * r + 1. / 120;
    p = p * r + 1. / 24, p = p * r + 1. / 6, p = p * r + 1. / 2;
    double one = 1 + r;
    p = one + (((1 - one) + r) + (r * r * p + low));
    uint64_t m = to_bits(shifted) - to_bits(ROUND) + 2048, half = m >> 1; /* n + 2048 = half + (m - half) */
    return p * from_bits((half - 1) << 52) *
           from_bits((m - half - 1) << 52); /* biased: n / 2 + 1024 - 1 = n / 2 + 1023 */
}

double ttmm_exp(double x) { return exp_inline(x); }

#if defined(TTMM_DOUBLE)
static inline real exp_real(real x) { return exp_inline(x); }
#else
/* A float needs less: the series to r^12, its even and its odd powers summed apart, as two short chains of operations
 * take half the time of a long one; and one factor 2^n, as a double holds 2^-217 and 2^188, which are 0 and infinity as
 * floats. No float misses, so it is (float)ttmm_exp(x). */
static inline real exp_real(real x)
{
    double y = x < -150 ? -150 : (double)x;
    y = y > 130 ? 130 : y;
    double shifted = y * 0x1.71547652b82fep+0 /* 1 / ln 2 */ + ROUND, n = shifted - ROUND;
    double r = (y - n * LN2_HIGH) - n * LN2_LOW, z = r * r, even = 1. / 479001600, odd = 1. / 39916800; /* 12!, 11! */
    even = even * z + 1. / 3628800, even = even * z + 1. / 40320, even = even * z + 1. / 720;
    even = even * z + 1. / 24, even = even * z + 1. / 2;
    odd = odd * z + 1. / 362880, odd = odd * z + 1. / 5040, odd = odd * z + 1. / 120, odd = odd * z + 1. / 6;
    return (real)((1 + (r + z * (even + r * odd))) * from_bits((to_bits(shifted) - to_bits(ROUND) + 1023) << 52));
}
#endif

static inline real sqrt_real(real x) { return (real)sqrt((double)x); } /* in float, too: 53 >= 2 * 24 + 2 bits */

/* log(x) = n ln 2 + log(1 + f), 1 + f in [sqrt(1/2), sqrt(2)). With s = f / (2 + f), z = s^2,
 *   log(1 + f) = 2 atanh(s) = 2 s + s R,   R = 2 z/3 + 2 z^2/5 + ...  (to z^10: off by less than 1e-18),
 * and 2 s = f - f^2/2 + s f^2/2 leads with f, which is exact.
 * Errors: 0.88 ulp. Five floats miss, with 0.5000000009 ulp at most instead of 0.5: there the double nearest to the
 * true value is the middle of two floats. test/functions.c lists them. */
double ttmm_log(double x)
{
    if (!(x > 0)) return x == 0 ? -INFINITY : x < 0 ? NAN : x;
    if (x == INFINITY) return x;
    double n = 0;
    if (x < DBL_MIN) x *= 0x1p54, n = -54;
    uint64_t bits = to_bits(x),
             shift = (bits - to_bits(0x1.6a09e667f3bcdp-1)) >> 52; /* floor(log2(x sqrt(2))), mod 2^12 */
    if (shift & 0x800) n -= (double)(0x1000 - shift);
    else n += (double)shift;
    double f = from_bits(bits - (shift << 52)) - 1, s = f / (2 + f), z = s * s, R = 2. / 21;
    R = R * z + 2. / 19, R = R * z + 2. / 17, R = R * z + 2. / 15, R = R * z + 2. / 13, R = R * z + 2. / 11;
    R = R * z + 2. / 9, R = R * z + 2. / 7, R = R * z + 2. / 5, R = R * z + 2. / 3, R *= z;
    double half_square = 0.5 * f * f;
    return n * LN2_HIGH + (f - (half_square - (s * (half_square + R) + n * LN2_LOW)));
}

/* erf(x) = 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x. Where |x| < 1 it is x + x p(x^2 - 5/8), else 1 -
 * erfc(|x|) with x's sign and erfc(1 + t) = exp(-q(t)); from 6 on that is 1. Of all polynomials of degree 11 and 17 p
 * and q are those with the smallest largest error of the result (Remez), 0.07 ulp; test/functions.py finds them.
 * Errors: 1.02 ulp. No float misses. */
static inline double erf_inline(double x)
{
    double size = fabs(x), t = (size > 6 ? 6 : size) - 1, z = x * x - 0.625, p = -0x1.abae4bf126e94p-31,
           q = 0x1.565c0d29eab84p-38;
    p = p * z + 0x1.1f562b648ddeap-27, p = p * z - 0x1.8fca12ec01cccp-24, p = p * z + 0x1.fa2720f59ff69p-21;
    p = p * z - 0x1.2128fde951fbep-17, p = p * z + 0x1.26f9fc847572ap-14, p = p * z - 0x1.0908608843dacp-11;
    p = p * z + 0x1.9c83eca4c2699p-9, p = p * z - 0x1.1070cb9fee9ebp-6, p = p * z + 0x1.2a78d10016c20p-4;
    p = p * z - 0x1.0c56e48f1a817p-2, p = p * z - 0x1.1868dcff76633p-4;
    q = q * t - 0x1.0668e2a3b3d52p-33, q = q * t + 0x1.6a9a707b07203p-30, q = q * t - 0x1.24b5e7caf8fe2p-27;
    q = q * t + 0x1.1ed606d0dc511p-25, q = q * t - 0x1.f255c7354fd42p-25, q = q * t - 0x1.b7d23782f92c1p-23;
    q = q * t + 0x1.1e24b2100a0a3p-19, q = q * t - 0x1.448472790fc59p-17, q = q * t + 0x1.c852ae913c71fp-16;
    q = q * t - 0x1.b92ddb6c6e919p-16, q = q * t - 0x1.f1b04a7e26e05p-13, q = q * t + 0x1.033f5a12d4dcep-9;
    q = q * t - 0x1.48c9d37fc1d58p-7, q = q * t + 0x1.5477f099b6d10p-5, q = q * t + 0x1.afabc11a2afd8p-1;
    q = q * t + 0x1.51c9b0006c21ap+1, q = q * t + 0x1.d97fbf27aa2a1p+0;
    double far = 1 - exp_inline(-q);
    return size < 1 ? x + x * p : x < 0 ? -far : far;
}

double ttmm_erf(double x) { return erf_inline(x); }

/* a - b = the result + *low, exactly (Knuth's two-sum). */
static double subtract(double a, double b, double *low)
{
    const double s = a - b, t = s - a;
    *low = (a - (s - t)) - (b + t);
    return s;
}

/* sin and cos of x, |x| <= 2^22: x = n pi/2 + r + low, |r| <= pi/4. pi/2 is the sum of four parts, of 30, 30, 30 and 53
 * bits: n times each of the first three is exact, so that r keeps its precision next to the multiples of pi/2.
 * Errors: 0.81 ulp. sin misses at the floats 9830.3984375 and its negative, as log does at five; cos at none. */
static void sin_cos(double *sine, double *cosine, double x)
{
    if (!(fabs(x) <= 0x1p22)) {
        *sine = *cosine = NAN;
        return;
    }
    double shifted = x * 0x1.45f306dc9c883p-1 /* 2 / pi */ + ROUND, n = shifted - ROUND;
    double low1, low2, low;
    double r = subtract(x - n * 0x1.921fb54p+0, n * 0x1.10b46118p-30, &low1);
    r = subtract(r, n * 0x1.313198ap-61, &low2);
    r = subtract(r, n * 0x1.701b839a25205p-92 - (low1 + low2), &low);
    double z = r * r, S = 1. / 355687428096000, C = 1. / 20922789888000; /* 1/17!, 1/16! */
    S = S * z - 1. / 1307674368000, S = S * z + 1. / 6227020800, S = S * z - 1. / 39916800, S = S * z + 1. / 362880;
    S = S * z - 1. / 5040, S = S * z + 1. / 120, S = S * z - 1. / 6;
    C = C * z - 1. / 87178291200, C = C * z + 1. / 479001600, C = C * z - 1. / 3628800, C = C * z + 1. / 40320;
    C = C * z - 1. / 720, C = C * z + 1. / 24;
    double sin_r = r + (r * z * S + low * (1 - 0.5 * z));
    double half = 0.5 * z, one = 1 - half, cos_r = one + (((1 - one) - half) + (z * z * C - r * low));
    unsigned quadrant = (unsigned)(to_bits(shifted) & 3);
    double s = quadrant & 1 ? cos_r : sin_r, co = quadrant & 1 ? sin_r : cos_r;
    *sine = quadrant & 2 ? -s : s;
    *cosine = (quadrant + 1) & 2 ? -co : co;
}

double ttmm_sin(double x)
{
    double s, c;
    sin_cos(&s, &c, x);
    return x == 0 ? x : s; /* keeps the sign of zero */
}

double ttmm_cos(double x)
{
    double s, c;
    sin_cos(&s, &c, x);
    return c;
}

/* ==== 11. Kernels ================================================================================================= */

/* The products of section 1, faster: the same sums in the same order, so the same bits. What is gained is registers: a
 * tile of outputs is computed at once, so that each number loaded is used for several of them, with the 16 lanes of a
 * sum in one vector of the machine's widest registers, or in two or four of them, worked on one after the other. */

#if KERNELS
#define INLINE static inline __attribute__((always_inline)) /* so that constants among the arguments shape the loops */
#define NOINLINE __attribute__((noinline))             /* what keeps a copy on the stack does so only while it works */
#define ALIGNED __attribute__((aligned(VECTOR_BYTES))) /* a vector across two cache lines would take two loads */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16 /* SSE, NEON, AltiVec ...; without any, the compiler takes it apart */
#endif
#if defined(TTMM_DOUBLE)
typedef int64_t lane_word;
#else
typedef int32_t lane_word;
#endif
typedef real vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
typedef lane_word vector_mask __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
#define LOAD(p) (*(const vector *)(p))
#define STORE(p, a) (*(vector *)(p) = (a))
#define ZERO ((vector){0})
#else
typedef real vector; /* for ttmm_peak_flops */
#define LOAD(p) (*(p))
#define STORE(p, a) (*(p) = (a))
#define ZERO 0
#endif
enum { WIDTH = sizeof(vector) / sizeof(real) }; /* lanes of a vector */

/* Stored numbers. 16 bits become 32 exactly: those of bfloat16 are the upper half of a float's; a half precision
 * number's exponent and fraction, moved to a float's place, are the number times 2^-112, of the smallest ones too, as
 * exponent 0 means the same in both. */
static real of_16_bits(uint32_t x, int type)
{
    const uint32_t bits = type == TTMM_BF16 ? x << 16 : (x & 0x7fff) << 13;
    float f;
    memcpy(&f, &bits, sizeof f);
    if (type == TTMM_F16) f = (x & 0x8000 ? -f : f) * 0x1p112F;
    return (real)f;
}

static void to_reals(real *out, ttmm_numbers x, size_t at, size_t n)
{
    if (x.type == TTMM_REAL) memcpy(out, (const real *)x.data + at, n * sizeof *out);
    else if (x.type == TTMM_F64)
        for (size_t i = 0; i < n; i++) out[i] = (real)((const double *)x.data)[at + i];
    else if (x.type == TTMM_F32)
        for (size_t i = 0; i < n; i++) out[i] = (real)((const float *)x.data)[at + i];
    else if (x.type == TTMM_BF16)
        for (size_t i = 0; i < n; i++) out[i] = of_16_bits(((const uint16_t *)x.data)[at + i], TTMM_BF16);
    else
        for (size_t i = 0; i < n; i++) out[i] = of_16_bits(((const uint16_t *)x.data)[at + i], TTMM_F16);
}

#if KERNELS
enum { PARTS = LANES / WIDTH }; /* vectors of a sum */

/* For i = 0 .. n - 1, unrolled: a tile stays in registers if every index into it is a constant. */
#if defined(__clang__)
#define EACH(i, n) _Pragma("clang loop unroll(full)") for (size_t i = 0; i < (n); i++)
#elif __GNUC__ >= 8
#define EACH(i, n) _Pragma("GCC unroll 16") for (size_t i = 0; i < (n); i++)
#else
#define EACH(i, n) for (size_t i = 0; i < (n); i++)
#endif

/* A vector that two products need: gcc with AVX-512 would load it again for the second. */
#if defined(__AVX512F__) && !defined(__clang__)
#define LOADED(x) __asm__("" : "+v"(x))
#else
#define LOADED(x)
#endif

/* A tile of matmul_nt: 2 x TILE_COLS outputs. Its accumulators are half of the registers, as the operands need some and
 * compilers like a few spare. */
#if defined(__AVX512F__) || defined(__aarch64__) /* 32 vector registers; others have 16 or fewer */
enum { TILE_COLS = 8, SUM_ROWS = 12 };
#else
enum { TILE_COLS = 4, SUM_ROWS = 6 };
#endif
enum { TILE_OUTPUTS = 2 * TILE_COLS };

/* A tile of matmul_nn: at most SUM_ROWS rows of SUM_VECTORS vectors. Where AVX-512 works in two halves (Zen 4, which
 * has no AVX-VNNI) one vector a row is faster: 12 x 1 has 1.3 times the speed of 6 x 2; on Zen 5 12 x 2 is 1.15 times
 * as fast as 12 x 1. */
#if defined(__AVX512F__) && !defined(__AVXVNNI__)
enum { SUM_VECTORS = 1 };
#else
enum { SUM_VECTORS = 2 };
#endif
enum { SUM_COLS = SUM_VECTORS * WIDTH };

/* The first n < WIDTH numbers at p, zeros in the other lanes: a whole vector is loaded, and those from n on cleared,
 * if it does not reach past `end`, where there may be no memory. */
static const lane_word keep_first[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
INLINE vector load_part(const real *p, size_t n, const real *end)
{
    if ((size_t)(end - p) >= WIDTH)
        return (vector)(*(const vector_mask *)p & *(const vector_mask *)(keep_first + LANES - n));
    real part[WIDTH] = {0};
    memcpy(part, p, n * sizeof *part);
    return LOAD(part);
}

/* The vector from number k of a row on that is stored as `type`; of its part of n < WIDTH numbers. */
#if (defined(__clang__) || __GNUC__ >= 9) && !defined(TTMM_DOUBLE)
#define WIDENS 1
typedef uint16_t half_vector __attribute__((vector_size(VECTOR_BYTES / 2), aligned(2), may_alias));
typedef uint32_t word_vector __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
INLINE vector load_stored(const void *row, size_t k, const int type)
{
    if (type == TTMM_REAL) return LOAD((const real *)row + k);
    const word_vector x = __builtin_convertvector(*(const half_vector *)((const uint16_t *)row + k), word_vector);
    if (type == TTMM_BF16) return (vector)(x << 16);
    const vector magnitude = (vector)((x & 0x7fff) << 13) * 0x1p112F;
    return (vector)((word_vector)magnitude | (x & 0x8000) << 16);
}
INLINE vector load_stored_part(const void *row, size_t k, size_t n, const void *end, const int type)
{
    uint16_t part[WIDTH] = {0};
    if (type == TTMM_REAL) return load_part((const real *)row + k, n, end);
    memcpy(part, (const uint16_t *)row + k, n * sizeof *part);
    return load_stored(part, 0, type);
}
#else /* only reals */
#define WIDENS 0
#define load_stored(row, k, type) LOAD((const real *)(row) + (k))
#define load_stored_part(row, k, n, end, type) load_part((const real *)(row) + (k), n, (const real *)(end))
#endif

/* Halve the accumulators of a tile: sums[i] = the sum of the lanes part[0][i], part[1][i] ..., in the defined order.
 * With vectors of 16 lanes, 16 outputs are halved at once: each round adds pairs of vectors whose halves (quarters,
 * ...) a shuffle has put side by side. */
#if (defined(__clang__) || __GNUC__ >= 12) && defined(__AVX512F__) && !defined(TTMM_DOUBLE)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
INLINE void halve_tile(real *sums, vector part[PARTS][TILE_OUTPUTS])
{
    const vector *acc = part[0];
    vector b[8], c[4], d[2];
    for (int i = 0; i < 8; i++)
        b[i] = SHUFFLE(acc[2 * i], acc[2 * i + 1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               SHUFFLE(acc[2 * i], acc[2 * i + 1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    for (int i = 0; i < 4; i++)
        c[i] = SHUFFLE(b[2 * i], b[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
               SHUFFLE(b[2 * i], b[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    for (int i = 0; i < 2; i++)
        d[i] = SHUFFLE(c[2 * i], c[2 * i + 1], 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +
               SHUFFLE(c[2 * i], c[2 * i + 1], 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
    vector e = SHUFFLE(d[0], d[1], 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
               SHUFFLE(d[0], d[1], 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    STORE(sums, e);
}
#else
INLINE void halve_tile(real *sums, vector part[PARTS][TILE_OUTPUTS])
{
    for (size_t i = 0; i < TILE_OUTPUTS; i++) {
        real lane[WIDTH];
        for (int half = PARTS / 2; half > 0; half /= 2)
            for (int p = 0; p < half; p++) part[p][i] += part[p + half][i];
        STORE(lane, part[0][i]);
        sums[i] = halve(lane, WIDTH);
    }
}
#endif

/* c_ij = dot(a_i, b_j), or += it, for rows of a, two at a time, and cols <= TILE_COLS rows of b. These are copied to
 * lie as they are used, 16 numbers of each after 16 of the one before: they come from one place, and rows that are a
 * power of two apart would push each other out of the cache. Behind the last numbers of a row, and for columns past the
 * last, the copy has zeros. An axis longer than AXIS is cut, so that the copy (24 KiB) stays in the first cache for all
 * rows of a, at most STRIP_ROWS; until its last piece the lanes wait in memory (20 KiB). A function of its own: within
 * a longer one compilers run out of registers. */
enum { STRIP_ROWS = 160 / sizeof(real), AXIS = 3072 / sizeof(real) };
static NOINLINE void nt_strip(real *c, size_t ldc, const real *a, size_t lda, ttmm_numbers b, size_t at, size_t ldb,
                              size_t rows, size_t cols, size_t inner, int add)
{
    vector wait[STRIP_ROWS / 2][PARTS][TILE_OUTPUTS] ALIGNED;
    real panel[AXIS * TILE_COLS] ALIGNED, sums[2][TILE_COLS] ALIGNED;
    const real *end = a + (rows - 1) * lda + inner;
    for (size_t from = 0; from < inner; from += AXIS) {
        const size_t length = inner - from < AXIS ? inner - from : AXIS;
        const size_t padded = (length + LANES - 1) / LANES * LANES;
        const int last = from + length == inner;
        if (cols < TILE_COLS || length < padded) memset(panel, 0, padded * TILE_COLS * sizeof *panel);
        for (size_t j = 0; j < cols; j++)
            for (size_t k = 0; k < length; k += LANES) {
                real *to = panel + k * TILE_COLS + j * LANES;
                const size_t first = at + j * ldb + from + k;
                if (k + LANES <= length && b.type == TTMM_REAL)
                    memcpy(to, (const real *)b.data + first, LANES * sizeof *to);
                else to_reals(to, b, first, length - k < LANES ? length - k : LANES);
            }
        for (size_t i = 0; i < rows; i += 2) {
            const real *a0 = a + i * lda + from, *a1 = i + 1 < rows ? a0 + lda : a0;
            vector part[PARTS][TILE_OUTPUTS];
            for (size_t p = 0; p < PARTS; p++) {
                vector acc[TILE_OUTPUTS];
                const real *w = panel + p * WIDTH;
                size_t k = p * WIDTH;
                EACH (o, TILE_OUTPUTS) acc[o] = ZERO;
                if (from)
                    EACH (o, TILE_OUTPUTS) acc[o] = wait[i / 2][p][o];
                for (; k + WIDTH <= length; k += LANES, w += LANES * TILE_COLS) {
                    const vector v0 = LOAD(a0 + k), v1 = LOAD(a1 + k);
                    EACH (j, TILE_COLS) {
                        vector bj = LOAD(w + j * LANES);
                        LOADED(bj);
                        acc[j] += v0 * bj;
                        acc[TILE_COLS + j] += v1 * bj;
                    }
                }
                if (k < length) {
                    const vector v0 = load_part(a0 + k, length - k, end), v1 = load_part(a1 + k, length - k, end);
                    EACH (j, TILE_COLS) {
                        acc[j] += v0 * LOAD(w + j * LANES);
                        acc[TILE_COLS + j] += v1 * LOAD(w + j * LANES);
                    }
                }
                if (last)
                    EACH (o, TILE_OUTPUTS) part[p][o] = acc[o];
                else
                    EACH (o, TILE_OUTPUTS) wait[i / 2][p][o] = acc[o];
            }
            if (!last) continue;
            halve_tile(sums[0], part);
            for (size_t r = 0; r < 2 && i + r < rows; r++) {
                real *out = c + (i + r) * ldc;
                if (cols == TILE_COLS && !add) memcpy(out, sums[r], sizeof sums[r]);
                else
                    for (size_t j = 0; j < cols; j++) out[j] = add ? out[j] + sums[r][j] : sums[r][j];
            }
        }
    }
}

/* The same for one row of a and cols <= TILE_OUTPUTS rows of b, stored as `type`, half of them at a time: each of their
 * numbers is used once, as it comes from memory, and that is faster for 8 rows side by side than for 16. */
INLINE void nt_row(real *c, const real *a, const char *b, size_t ldb, size_t cols, size_t inner, int add,
                   const int type)
{
    vector part[PARTS][TILE_OUTPUTS] ALIGNED;
    real sums[TILE_OUTPUTS] ALIGNED;
    const size_t bytes = type == TTMM_REAL ? sizeof *a : 2;
    const char *end = b + ((cols - 1) * ldb + inner) * bytes;
    for (size_t j = 0; j < TILE_OUTPUTS; j += TILE_COLS) {
        const char *bj[TILE_COLS];
        EACH (i, TILE_COLS) bj[i] = b + (j + i < cols ? j + i : cols - 1) * ldb * bytes;
        for (size_t p = 0; p < PARTS; p++) {
            vector acc[TILE_COLS];
            size_t k = p * WIDTH;
            EACH (i, TILE_COLS) acc[i] = ZERO;
            for (; k + WIDTH <= inner; k += LANES) {
                const vector v = LOAD(a + k);
                EACH (i, TILE_COLS) acc[i] += v * load_stored(bj[i], k, type);
            }
            if (k < inner) {
                const vector v = load_part(a + k, inner - k, a + inner);
                EACH (i, TILE_COLS) acc[i] += v * load_stored_part(bj[i], k, inner - k, end, type);
            }
            EACH (i, TILE_COLS) part[p][j + i] = acc[i];
        }
    }
    halve_tile(sums, part);
    for (size_t j = 0; j < cols; j++) c[j] = add ? c[j] + sums[j] : sums[j];
}

/* Returns 0 if there is no such function for b's type. */
static int nt_row_of(real *c, const real *a, ttmm_numbers b, size_t at, size_t ldb, size_t cols, size_t inner, int add)
{
    const char *data = b.data;
    if (b.type == TTMM_REAL) nt_row(c, a, data + at * sizeof *a, ldb, cols, inner, add, TTMM_REAL);
#if WIDENS
    else if (b.type == TTMM_BF16) nt_row(c, a, data + at * 2, ldb, cols, inner, add, TTMM_BF16);
    else if (b.type == TTMM_F16) nt_row(c, a, data + at * 2, ldb, cols, inner, add, TTMM_F16);
#endif
    else return 0;
    return 1;
}

/* The same where the axis is no longer than the lanes (an adapter's B): each lane has one product, and halving is what
 * takes time. So the vectors are of outputs here: b is transposed, SHORT_COLS of its rows at a time (4 KiB of floats,
 * well within the first cache), and the products of a vector of outputs are halved at once. A lane is never -0, as it
 * begins with 0: adding 0 at the end gives the same. n is LANES / 2 or LANES, and >= inner. */
enum { SHORT_COLS = 64 };
INLINE void nt_of_lanes(real *c, size_t ldc, const real *a, size_t lda, ttmm_numbers b, size_t from, size_t ldb,
                        size_t rows, size_t cols, size_t inner, int add, const size_t n)
{
    real bt[LANES * SHORT_COLS] ALIGNED, at[LANES] = {0}, row[LANES];
    for (size_t j = 0; j < cols; j += SHORT_COLS) {
        const size_t width = cols - j < SHORT_COLS ? cols - j : SHORT_COLS;
        memset(bt, 0, sizeof bt);
        for (size_t o = 0; o < width; o++) {
            to_reals(row, b, from + (j + o) * ldb, inner);
            for (size_t k = 0; k < inner; k++) bt[k * SHORT_COLS + o] = row[k];
        }
        for (size_t i = 0; i < rows; i++) {
            for (size_t k = 0; k < inner; k++) at[k] = a[i * lda + k];
            for (size_t o = 0; o < width; o += WIDTH) {
                vector v[LANES / 2];
                real *to = c + i * ldc + j + o;
                EACH (k, LANES / 2) {
                    v[k] = at[k] * LOAD(bt + k * SHORT_COLS + o);
                    if (n == LANES) v[k] += at[k + LANES / 2] * LOAD(bt + (k + LANES / 2) * SHORT_COLS + o);
                }
                EACH (k, 4) v[k] += v[k + 4];
                EACH (k, 2) v[k] += v[k + 2];
                v[0] = v[0] + v[1] + ZERO;
                if (width - o >= WIDTH) {
                    if (add) v[0] = LOAD(to) + v[0];
                    STORE(to, v[0]);
                } else {
                    real last[WIDTH];
                    STORE(last, v[0]);
                    for (size_t l = 0; l < width - o; l++) to[l] = add ? to[l] + last[l] : last[l];
                }
            }
        }
    }
}

static NOINLINE void nt_short(real *c, size_t ldc, const real *a, size_t lda, ttmm_numbers b, size_t at, size_t ldb,
                              size_t rows, size_t cols, size_t inner, int add)
{
    if (inner <= LANES / 2) nt_of_lanes(c, ldc, a, lda, b, at, ldb, rows, cols, inner, add, LANES / 2);
    else nt_of_lanes(c, ldc, a, lda, b, at, ldb, rows, cols, inner, add, LANES);
}

static void nt_block(real *c, size_t ldc, const real *a, size_t lda, ttmm_numbers b, size_t at, size_t ldb, size_t rows,
                     size_t cols, size_t inner, int add)
{
    if (rows > 4 && inner <= LANES) { /* with more than 4 rows transposing pays */
        nt_short(c, ldc, a, lda, b, at, ldb, rows, cols, inner, add);
        return;
    }
    int alone = rows == 1;
    for (size_t j = 0; alone && j < cols; j += TILE_OUTPUTS)
        alone = nt_row_of(c + j, a, b, at + j * ldb, ldb, cols - j < TILE_OUTPUTS ? cols - j : TILE_OUTPUTS, inner,
                          add);
    const size_t strip = inner <= AXIS ? rows : STRIP_ROWS; /* in one piece nothing waits */
    for (size_t i = 0; !alone && i < rows; i += strip)
        for (size_t j = 0; j < cols; j += TILE_COLS)
            nt_strip(c + i * ldc + j, ldc, a + i * lda, lda, b, at + j * ldb, ldb, rows - i < strip ? rows - i : strip,
                     cols - j < TILE_COLS ? cols - j : TILE_COLS, inner, add);
}

static void matmul_nt_block(real *c, size_t ldc, const real *a, size_t lda, const real *b, size_t ldb, size_t rows,
                            size_t cols, size_t inner, int add)
{
    nt_block(c, ldc, a, lda, reals(b), 0, ldb, rows, cols, inner, add);
}

INLINE void nn_tile(real *c, const real *c0, size_t ldc, const real *a, size_t row_step, size_t k_step, const real *b,
                    size_t ldb, size_t inner, const size_t rows, const size_t vectors)
{
    vector acc[SUM_ROWS][SUM_VECTORS], v[SUM_VECTORS];
    const real *ai[SUM_ROWS];
    EACH (i, rows) ai[i] = a + i * row_step;
    EACH (i, rows)
        EACH (q, vectors) acc[i][q] = LOAD(c0 + i * ldc + q * WIDTH);
    for (size_t k = 0; k < inner; k++) {
        EACH (q, vectors) v[q] = LOAD(b + k * ldb + q * WIDTH);
        EACH (i, rows) {
            const real s = ai[i][k * k_step];
            EACH (q, vectors) acc[i][q] += s * v[q];
        }
    }
    EACH (i, rows)
        EACH (q, vectors) STORE(c + i * ldc + q * WIDTH, acc[i][q]);
}

/* The tiles that there are: of SUM_ROWS, SUM_FEW or 1 rows, of SUM_VECTORS vectors or 1. */
enum { SUM_FEW = SUM_ROWS / 3 };
static void nn_strip(real *c, const real *c0, size_t ldc, const real *a, size_t row_step, size_t k_step, const real *b,
                     size_t ldb, size_t inner, size_t rows, int narrow)
{
#define TILE(rows, vectors) nn_tile(c, c0, ldc, a, row_step, k_step, b, ldb, inner, rows, vectors)
    if (rows == SUM_ROWS && !narrow) TILE(SUM_ROWS, SUM_VECTORS);
    else if (rows == SUM_ROWS) TILE(SUM_ROWS, 1);
    else if (rows == SUM_FEW && !narrow) TILE(SUM_FEW, SUM_VECTORS);
    else if (rows == SUM_FEW) TILE(SUM_FEW, 1);
    else TILE(1, SUM_VECTORS);
#undef TILE
}

/* The rows of width <= SUM_COLS columns. Columns that do not fill a tile are computed in a tile on the side: no number
 * past them is written, as another thread may be storing it, or there is none. (b has SUM_COLS.) */
static void nn_rows(real *c, const real *c0, size_t ldc, const real *a, size_t row_step, size_t k_step, const real *b,
                    size_t ldb, size_t rows, size_t width, size_t inner)
{
    real side[SUM_ROWS * SUM_COLS] ALIGNED;
    const size_t bytes = width * sizeof *c;
    for (size_t i = 0, strip; i < rows; i += strip) {
        real *to = c + i * ldc;
        const real *from = c0 + i * ldc, *ai = a + i * row_step;
        strip = rows - i >= SUM_ROWS ? SUM_ROWS : rows - i >= SUM_FEW ? SUM_FEW : 1;
        if (width == SUM_COLS) {
            nn_strip(to, from, ldc, ai, row_step, k_step, b, ldb, inner, strip, 0);
            continue;
        }
        for (size_t r = 0; r < strip; r++) memcpy(side + r * SUM_COLS, from + r * ldc, bytes);
        nn_strip(side, side, SUM_COLS, ai, row_step, k_step, b, ldb, inner, strip, width <= WIDTH);
        for (size_t r = 0; r < strip; r++) memcpy(to + r * ldc, side + r * SUM_COLS, bytes);
    }
}

/* The same of cols <= PANEL_COLS from a copy of b, PANEL_ROWS of its rows at a time, tile by tile (32 KiB): tiles of
 * the same rows of a follow each other. Rows of a that are a multiple of 4 KiB apart are copied, too: 12 of them would
 * push each other out of the first cache. A sum goes on from one panel to the next in memory, which alters nothing. */
enum { PANEL_ROWS = 512 / sizeof(real), PANEL_COLS = 64 };
static NOINLINE void nn_panels(real *c, const real *c0, size_t ldc, const real *a, size_t row_step, size_t k_step,
                               ttmm_numbers b, size_t first, size_t ldb, size_t rows, size_t cols, size_t inner)
{
    real panel[PANEL_COLS * PANEL_ROWS] ALIGNED, strip[SUM_ROWS * PANEL_ROWS] ALIGNED;
    const int colliding = k_step == 1 && row_step % (4096 / sizeof *a) == 0;
    if (cols % SUM_COLS)
        memset(panel + cols / SUM_COLS * SUM_COLS * PANEL_ROWS, 0, SUM_COLS * PANEL_ROWS * sizeof *panel);
    for (size_t k = 0; k < inner; k += PANEL_ROWS, c0 = c) {
        const size_t depth = inner - k < PANEL_ROWS ? inner - k : PANEL_ROWS;
        for (size_t r = 0; r < depth; r++)
            for (size_t j = 0; j < cols; j += SUM_COLS)
                if (b.type == TTMM_REAL && cols - j >= SUM_COLS)
                    memcpy(panel + j * PANEL_ROWS + r * SUM_COLS, (const real *)b.data + first + (k + r) * ldb + j,
                           SUM_COLS * sizeof *panel);
                else
                    to_reals(panel + j * PANEL_ROWS + r * SUM_COLS, b, first + (k + r) * ldb + j,
                             cols - j < SUM_COLS ? cols - j : SUM_COLS);
        const size_t most = SUM_ROWS * (PANEL_ROWS / depth);
        for (size_t i = 0, n; i < rows; i += n) {
            const real *ai = a + i * row_step + k * k_step;
            size_t step = row_step;
            n = rows - i < most ? rows - i : most;
            if (colliding) {
                for (size_t r = 0; r < n; r++) memcpy(strip + r * depth, ai + r * row_step, depth * sizeof *strip);
                ai = strip, step = depth;
            }
            for (size_t j = 0; j < cols; j += SUM_COLS)
                nn_rows(c + i * ldc + j, c0 + i * ldc + j, ldc, ai, step, k_step, panel + j * PANEL_ROWS, SUM_COLS, n,
                        cols - j < SUM_COLS ? cols - j : SUM_COLS, depth);
        }
    }
}

/* Where enough rows use it, b is copied to lie densely: its rows are far apart, each on a page of its own. */
static void nn_block(real *c, const real *c0, size_t ldc, const real *a, size_t row_step, size_t k_step, ttmm_numbers b,
                     size_t first, size_t ldb, size_t rows, size_t cols, size_t inner)
{
    const int copied = b.type != TTMM_REAL || (rows > 2 * SUM_ROWS && ldb > SUM_COLS);
    const size_t step = copied ? PANEL_COLS : SUM_COLS;
    for (size_t j = 0; j < cols && inner > 0; j += step) {
        const size_t width = cols - j < step ? cols - j : step;
        if (copied || width < SUM_COLS)
            nn_panels(c + j, c0 + j, ldc, a, row_step, k_step, b, first + j, ldb, rows, width, inner);
        else
            nn_rows(c + j, c0 + j, ldc, a, row_step, k_step, (const real *)b.data + first + j, ldb, rows, width, inner);
    }
    for (size_t i = 0; inner == 0 && c != c0 && i < rows; i++) memcpy(c + i * ldc, c0 + i * ldc, cols * sizeof *c);
}

static void matmul_nn_block(real *c, const real *c0, size_t ldc, const real *a, size_t row_step, size_t k_step,
                            const real *b, size_t ldb, size_t rows, size_t cols, size_t inner)
{
    nn_block(c, c0, ldc, a, row_step, k_step, reals(b), 0, ldb, rows, cols, inner);
}
#else
/* The definitions of section 1 for stored numbers, 16 of which are reals at a time. */
static void nt_block(real *c, size_t ldc, const real *a, size_t lda, ttmm_numbers b, size_t at, size_t ldb, size_t rows,
                     size_t cols, size_t inner, int add)
{
    if (b.type == TTMM_REAL) {
        matmul_nt_block(c, ldc, a, lda, (const real *)b.data + at, ldb, rows, cols, inner, add);
        return;
    }
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) {
            real lane[LANES] = {0}, bj[LANES], *to = c + i * ldc + j;
            for (size_t k = 0; k < inner; k += LANES) {
                const size_t n = inner - k < LANES ? inner - k : LANES;
                to_reals(bj, b, at + j * ldb + k, n);
                for (size_t l = 0; l < n; l++) lane[l] += a[i * lda + k + l] * bj[l];
            }
            const real product = halve(lane, LANES);
            *to = add ? *to + product : product;
        }
}

static void nn_block(real *c, const real *c0, size_t ldc, const real *a, size_t row_step, size_t k_step, ttmm_numbers b,
                     size_t first, size_t ldb, size_t rows, size_t cols, size_t inner)
{
    if (b.type == TTMM_REAL) {
        matmul_nn_block(c, c0, ldc, a, row_step, k_step, (const real *)b.data + first, ldb, rows, cols, inner);
        return;
    }
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j += LANES) {
            const size_t n = cols - j < LANES ? cols - j : LANES;
            real bk[LANES];
            for (size_t l = 0; l < n; l++) c[i * ldc + j + l] = c0[i * ldc + j + l];
            for (size_t k = 0; k < inner; k++) {
                to_reals(bk, b, first + k * ldb + j, n);
                for (size_t l = 0; l < n; l++) c[i * ldc + j + l] += a[i * row_step + k * k_step] * bk[l];
            }
        }
}
#endif

/* The products on all threads, in blocks of 96 x 64 outputs or less: in nt, at 768 numbers a row, 300 and 200 KiB,
 * within a second cache. Where rows are longer, and blocks for all threads remain, it is 40 rows of a that stay there
 * for more columns. Blocks with the same rows of b follow each other, so that the weights are read once. */
static void matmul_nt(real *c, const real *a, ttmm_numbers b, size_t rows, size_t cols, size_t inner, int add)
{
    if (rows * cols * inner <= WORTH_THREADS) { /* a parallel region of one thread would still cost a system call */
        nt_block(c, cols, a, inner, b, 0, inner, rows, cols, inner, add);
        return;
    }
    const int longer = inner * sizeof *a > 3072 && rows / 40 * ((cols + 255) / 256) >= 4 * (size_t)ttmm_threads();
    const size_t block_rows = longer ? 40 : 96, most_cols = longer ? 256 : 64;
    const size_t row_blocks = (rows + block_rows - 1) / block_rows, col_blocks = (cols + most_cols - 1) / most_cols;
    const size_t block_cols = (cols + 16 * col_blocks - 1) / (16 * col_blocks) * 16;
    OMP(omp parallel for schedule(static))
    for (size_t block = 0; block < row_blocks * col_blocks; block++) {
        const size_t i = block % row_blocks * block_rows, j = block / row_blocks * block_cols;
        nt_block(c + i * cols + j, cols, a + i * inner, inner, b, j * inner, inner,
                 rows - i < block_rows ? rows - i : block_rows, cols - j < block_cols ? cols - j : block_cols, inner,
                 add);
    }
}

/* nn and tn: the rows of a block share a panel of b. */
static void nn_blocks(real *c, const real *c0, const real *a, size_t row_step, size_t k_step, ttmm_numbers b,
                      size_t rows, size_t cols, size_t inner)
{
    if (rows * cols * inner <= WORTH_THREADS) {
        nn_block(c, c0, cols, a, row_step, k_step, b, 0, cols, rows, cols, inner);
        return;
    }
    const size_t block_rows = 96, block_cols = 64;
    const size_t row_blocks = (rows + block_rows - 1) / block_rows, col_blocks = (cols + block_cols - 1) / block_cols;
    OMP(omp parallel for schedule(static))
    for (size_t block = 0; block < row_blocks * col_blocks; block++) {
        const size_t i = block % row_blocks * block_rows, j = block / row_blocks * block_cols;
        nn_block(c + i * cols + j, c0 + i * cols + j, cols, a + i * row_step, row_step, k_step, b, j, cols,
                 rows - i < block_rows ? rows - i : block_rows, cols - j < block_cols ? cols - j : block_cols, inner);
    }
}

static void matmul_nn(real *c, const real *c0, const real *a, ttmm_numbers b, size_t rows, size_t cols, size_t inner)
{
    nn_blocks(c, c0, a, inner, 1, b, rows, cols, inner);
}

static void matmul_tn(real *c, const real *c0, const real *a, const real *b, size_t rows, size_t cols, size_t inner)
{
    nn_blocks(c, c0, a, 1, rows, reals(b), rows, cols, inner);
}

#ifndef TTMM_NO_FILES
/* What the machine can do at most, for run bench. */

double ttmm_peak_flops(void)
{
    enum { CHAINS = 12, ROUNDS = 1 << 17 }; /* few enough to stay in 16 registers */
    double best = 0, all = 0;
    for (int trial = 0; trial < 300; trial++) { /* the machine needs a while to get up to speed */
        const double began = ttmm_seconds();
        OMP(omp parallel reduction(+ : all))
        {
            real last[LANES] = {0}, half[LANES];
            for (int l = 0; l < LANES; l++) half[l] = (real)0.5;
            vector acc[CHAINS], a = LOAD(half);
            for (int i = 0; i < CHAINS; i++) acc[i] = ZERO;
            for (int r = 0; r < ROUNDS; r++)
                for (int i = 0; i < CHAINS; i++) {
                    vector next = a; /* on its way to 1: waits for the one before, not for its neighbours */
                    next += acc[i] * a;
                    acc[i] = next;
                }
            for (int i = 0; i < CHAINS; i++) a += acc[i];
            STORE(last, a);
            all += (double)last[0];
        }
        const double rate = (2 * WIDTH * CHAINS) * (double)ROUNDS * ttmm_threads() / (ttmm_seconds() - began);
        best = rate > best ? rate : best;
    }
    return all > 0 ? best : 0; /* all is used, so that it is computed */
}

double ttmm_peak_bandwidth(void)
{
    size_t n = (size_t)1 << 28 >> (sizeof(real) == 8); /* 1 GiB, or what there is: more than any cache holds */
    real *x = NULL;
    while (n > 1 << 16 && (x = calloc(n, sizeof *x)) == NULL) n /= 2;
    if (x == NULL) return 0;
    double best = 0, all = 0;
    for (size_t i = 0; i < n; i += 512) x[i] = 1; /* every page is there */
    for (int trial = 0; trial < 5; trial++) {
        const double began = ttmm_seconds();
        OMP(omp parallel for reduction(+ : all))
        for (size_t i = 0; i < n; i += 1 << 14) all += (double)sum(x + i, 1 << 14);
        const double rate = (double)(n * sizeof *x) / (ttmm_seconds() - began);
        best = rate > best ? rate : best;
    }
    free(x);
    return all > 0 ? best : 0;
}
#endif

/* ==== 12. Memory of models, passes and trainers; tracing ========================================================== */

int ttmm_config_check(const ttmm_config *c, ttmm_error *err)
{
    const struct {
        const char *name;
        int value, most;
    } field[] = {
        {"dim", c->dim, 1 << 20},           {"layers", c->n_layers, 1 << 16},
        {"heads", c->n_heads, 1 << 16},     {"kv-heads", c->n_kv_heads, 1 << 16},
        {"head_dim", c->head_dim, 1 << 16}, {"intermediate", c->intermediate, 1 << 24},
        {"vocab", c->vocab, 1 << 28},       {"context", c->context, 1 << 22},
    };
    for (size_t i = 0; i < sizeof field / sizeof *field; i++)
        if (field[i].value < 1 || field[i].value > field[i].most)
            return fail(err, TTMM_BAD_INPUT, "%s is %d, expected 1 to %d", field[i].name, field[i].value,
                        field[i].most);
    if (c->n_heads % c->n_kv_heads != 0)
        return fail(err, TTMM_BAD_INPUT, "heads is %d, expected a multiple of kv-heads, %d", c->n_heads, c->n_kv_heads);
    if (c->n_ends < 0 || c->n_ends > TTMM_ENDS)
        return fail(err, TTMM_BAD_INPUT, "n_ends is %d, expected 0 to %d", c->n_ends, TTMM_ENDS);
    if (c->rope < TTMM_ROPE_DEFAULT || c->rope > TTMM_ROPE_LLAMA3)
        return fail(err, TTMM_BAD_INPUT, "rope is %d, expected one of TTMM_ROPE_...", c->rope);
    if (!(c->norm_eps >= 0 && c->norm_eps < 1))
        return fail(err, TTMM_BAD_INPUT, "rms_norm_eps is %g, expected 0 to 1", c->norm_eps);
    const struct {
        const char *name;
        double value;
        int used;
    } positive[] = {
        {"rope_theta", c->rope_theta, 1},
        {"the rotary factor", c->rope_factor, c->rope != TTMM_ROPE_DEFAULT},
        {"low_freq_factor", c->rope_low, c->rope == TTMM_ROPE_LLAMA3},
        {"high_freq_factor", c->rope_high, c->rope == TTMM_ROPE_LLAMA3},
        {"original_max_position_embeddings", c->rope_before, c->rope == TTMM_ROPE_LLAMA3},
    };
    for (size_t i = 0; i < sizeof positive / sizeof *positive; i++)
        if (positive[i].used && !(positive[i].value > 0 && positive[i].value < 1e300))
            return fail(err, TTMM_BAD_INPUT, "%s is %g, expected a positive number", positive[i].name,
                        positive[i].value);
    if (c->rope == TTMM_ROPE_LLAMA3 && !(c->rope_low < c->rope_high))
        return fail(err, TTMM_BAD_INPUT, "low_freq_factor is %g, expected less than high_freq_factor, %g", c->rope_low,
                    c->rope_high);
    return TTMM_OK;
}

static int layer_kinds(const ttmm_config *c) { return c->biases ? TTMM_LAYER_KINDS : TTMM_Q_BIAS; }

/* Layer after layer, in each its kinds in order; then what stands outside layers. A tied head is the embedding. */
static void lay_out_model(ttmm_model *m, const ttmm_config *c)
{
    memset(m, 0, sizeof *m);
    m->config = *c;
    for (int kind = 0; kind < layer_kinds(c); kind++) {
        m->offset[kind] = m->stride;
        m->stride = add_size(m->stride, kind_size(c, kind));
    }
    m->n = mul_size(m->stride, (size_t)c->n_layers);
    for (int kind = TTMM_EMBED; kind < TTMM_KINDS; kind++) {
        const int shared = kind == TTMM_HEAD && c->tied;
        m->offset[kind] = shared ? m->offset[TTMM_EMBED] : m->n;
        if (!shared) m->n = add_size(m->n, kind_size(c, kind));
    }
}

size_t ttmm_n_weights(const ttmm_config *c)
{
    ttmm_model m;
    lay_out_model(&m, c);
    return m.n;
}

/* pattern, %d in it being n, cut to size - 1 characters, whose number it returns */
static size_t name_of(char *out, size_t size, const char *pattern, size_t n)
{
    size_t at = 0;
    for (; *pattern && at + 1 < size; pattern++) {
        size_t unit = 1;
        if (pattern[0] != '%' || pattern[1] != 'd') {
            out[at++] = *pattern;
            continue;
        }
        while (n / unit >= 10) unit *= 10;
        for (pattern++; unit > 0 && at + 1 < size; unit /= 10) out[at++] = (char)('0' + n / unit % 10);
    }
    out[at] = 0;
    return at;
}

size_t ttmm_n_tensors(const ttmm_config *c) { return (size_t)c->n_layers * (size_t)layer_kinds(c) + (c->tied ? 2 : 3); }

ttmm_tensor ttmm_tensor_at(const ttmm_config *c, size_t i)
{
    ttmm_model m;
    ttmm_tensor t;
    const size_t kinds = (size_t)layer_kinds(c), in_layers = (size_t)c->n_layers * kinds;
    lay_out_model(&m, c);
    t.layer = i < in_layers ? (int)(i / kinds) : 0;
    t.kind = i < in_layers ? (int)(i % kinds) : TTMM_EMBED + (int)(i - in_layers);
    t.rows = kind_rows(c, t.kind), t.cols = kind_cols(c, t.kind);
    t.offset = m.offset[t.kind] + (size_t)t.layer * m.stride;
    name_of(t.name, sizeof t.name, tensor_table[t.kind].name, (size_t)t.layer);
    return t;
}

ttmm_array ttmm_model_tensor_at(const ttmm_model *m, size_t i)
{
    const ttmm_tensor t = ttmm_tensor_at(&m->config, i);
    ttmm_array a = {{0}, t.rows, is_vector(t.kind) ? 0 : t.cols, m->data + t.offset, NULL};
    memcpy(a.name, t.name, sizeof t.name);
    return a;
}

size_t ttmm_model_bytes(const ttmm_config *c)
{
    arena a = {0};
    take_reals(&a, ttmm_n_weights(c));
    return a.used;
}

int ttmm_model_place(ttmm_model *m, const ttmm_config *c, void *memory, size_t bytes, ttmm_error *err)
{
    const ttmm_config config = *c; /* c may be m's own */
    arena a = {.used = ttmm_model_bytes(c)};
    void *block;
    int code = ttmm_config_check(c, err);
    memset(m, 0, sizeof *m);
    if (code == TTMM_OK) code = place(&a, &block, memory, bytes, "a model's weights", err);
    if (code) return code;
    lay_out_model(m, &config);
    m->block = block;
    m->data = take_reals(&a, m->n);
    return TTMM_OK;
}

int ttmm_model_new(ttmm_model *m, const ttmm_config *c, ttmm_error *err)
{
    return ttmm_model_place(m, c, NULL, 0, err);
}

/* A new model with from's tensors, but for those of the kinds below `least`. */
static int copy_tensors(ttmm_model *m, const ttmm_model *from, int least, ttmm_error *err)
{
    const int code = ttmm_model_new(m, &from->config, err);
    for (size_t i = 0; i < ttmm_n_tensors(&from->config) && code == TTMM_OK; i++) {
        const ttmm_tensor t = ttmm_tensor_at(&from->config, i);
        if (t.kind >= least) to_reals(m->data + t.offset, weight(from, t.layer, t.kind), 0, t.rows * t.cols);
    }
    return code;
}

int ttmm_model_copy(ttmm_model *m, const ttmm_model *from, ttmm_error *err) { return copy_tensors(m, from, 0, err); }

/* A view is of memory that somebody else owns, and so is the list of its tensors. Returns what is wrong with one. */
static const char *unfit(ttmm_numbers x)
{
    static const size_t bytes[] = {8, 4, 2, 2};
    return x.data == NULL || x.type < TTMM_F64 || x.type > TTMM_BF16 ? "no numbers, or not of one of the four types"
           : (uintptr_t)x.data % bytes[x.type] != 0                  ? "numbers that are not aligned to their size"
                                                                     : NULL;
}

int ttmm_model_view(ttmm_model *m, const ttmm_config *config, const ttmm_numbers *tensor, ttmm_error *err)
{
    const ttmm_config c = *config; /* it may be m's own */
    int code = ttmm_config_check(&c, err);
    for (size_t i = 0; code == TTMM_OK && i < ttmm_n_tensors(&c); i++)
        if (unfit(tensor[i])) code = fail(err, TTMM_BAD_USE, "%s has %s", ttmm_tensor_at(&c, i).name, unfit(tensor[i]));
    memset(m, 0, sizeof *m);
    if (code) return code;
    lay_out_model(m, &c);
    m->view = tensor;
    return TTMM_OK;
}

void ttmm_model_free(ttmm_model *m)
{
    unmap_files(m->files);
    TTMM_FREE(m->block);
    memset(m, 0, sizeof *m);
}

enum { MOST_RANK = 4096 }; /* the width of a large model's layers, more makes no sense */

/* Ranks are those of rank [matrices], or if that is NULL all `same`. */
static size_t lay_out_lora(ttmm_lora *l, const ttmm_config *c, const int *ranks, int same, double alpha, arena *a)
{
    const int matrices = c->n_layers * TTMM_MATRICES;
    l->n_layers = c->n_layers, l->alpha = alpha, l->n = 0;
    l->matrix = take(a, mul_size((size_t)c->n_layers, TTMM_MATRICES), sizeof *l->matrix);
    for (int i = 0; i < matrices; i++) {
        const size_t sides = add_size(kind_rows(c, i % TTMM_MATRICES), kind_cols(c, i % TTMM_MATRICES));
        l->n = add_size(l->n, mul_size((size_t)(ranks ? ranks[i] : same), sides));
    }
    l->data = take_reals(a, l->n);
    if (a->base == NULL) return a->used;
    real *next = l->data;
    for (int i = 0; i < matrices; i++) {
        ttmm_lora_matrix *x = &l->matrix[i];
        const int rank = x->rank = ranks ? ranks[i] : same;
        x->scale = rank ? (real)(alpha / rank) : 0;
        x->out = kind_rows(c, i % TTMM_MATRICES), x->in = kind_cols(c, i % TTMM_MATRICES);
        x->a = next, next += (size_t)rank * x->in;
        x->b = next, next += x->out * (size_t)rank;
    }
    return a->used;
}

size_t ttmm_lora_bytes(const ttmm_config *c, int rank)
{
    ttmm_lora l;
    arena a = {0};
    return lay_out_lora(&l, c, NULL, rank, 0, &a);
}

static int place_lora(ttmm_lora *l, const ttmm_config *c, const int *ranks, int same, double alpha, void *memory,
                      size_t bytes, ttmm_error *err)
{
    arena a = {0};
    void *block;
    lay_out_lora(l, c, ranks, same, alpha, &a);
    const int code = place(&a, &block, memory, bytes, "a LoRA adapter", err);
    memset(l, 0, sizeof *l);
    if (code) return code;
    lay_out_lora(l, c, ranks, same, alpha, &a);
    l->block = block;
    return TTMM_OK;
}

static ttmm_numbers lora_a(const ttmm_lora_matrix *l) { return l->a ? reals(l->a) : l->view[0]; }
static ttmm_numbers lora_b(const ttmm_lora_matrix *l) { return l->b ? reals(l->b) : l->view[1]; }

int ttmm_lora_view(ttmm_lora *l, const ttmm_config *c, ttmm_lora_matrix *matrix, double alpha, ttmm_error *err)
{
    memset(l, 0, sizeof *l);
    for (int i = 0; i < c->n_layers * TTMM_MATRICES; i++) {
        ttmm_lora_matrix *x = &matrix[i];
        x->out = kind_rows(c, i % TTMM_MATRICES), x->in = kind_cols(c, i % TTMM_MATRICES), x->a = x->b = NULL;
        for (int side = 0; side < 2 && x->rank; side++)
            if (unfit(x->view[side]))
                return fail(err, TTMM_BAD_USE, "matrix %d of an adapter has %s", i, unfit(x->view[side]));
    }
    l->n_layers = c->n_layers, l->alpha = alpha, l->matrix = matrix;
    return TTMM_OK;
}

int ttmm_lora_place(ttmm_lora *l, const ttmm_config *c, int rank, double alpha, void *memory, size_t bytes,
                    ttmm_error *err)
{
    memset(l, 0, sizeof *l);
    if (rank < 1 || rank > MOST_RANK) return fail(err, TTMM_BAD_INPUT, "rank is %d, expected 1 to %d", rank, MOST_RANK);
    return place_lora(l, c, NULL, rank, alpha, memory, bytes, err);
}

int ttmm_lora_new(ttmm_lora *l, const ttmm_config *c, int rank, double alpha, ttmm_error *err)
{
    return ttmm_lora_place(l, c, rank, alpha, NULL, 0, err);
}

void ttmm_lora_free(ttmm_lora *l)
{
    unmap_files(l->files);
    TTMM_FREE(l->block);
    memset(l, 0, sizeof *l);
}

/* Images: a model with its experts, centroids and idf as one array of 32-bit words, to lie in flash. ttmm_image_write
 * (section 16) makes one.
 *
 *   word   0     IMAGE_MAGIC: "TTMM", in little-endian bytes
 *          1     the version, 1
 *          2     how many words there are in all
 *          3-4   hash_words of all that follow, the lower half first
 *          5     how the weights are stored: TTMM_F32 or TTMM_BF16
 *          6-8   K, E, and 1 if there is idf
 *          9-    the config's whole numbers (image_int); its others (image_double), of two words, the lower first
 *          then  of each expert: alpha, two words; of each of its matrices: rank; scale, two words
 *          then  the model's tensors in the order of ttmm_tensor_at; each expert's A and B, matrix by matrix; the
 *                centroids [K, E] and idf [E], in F32. Each begins at a multiple of 4 words; between them are zeros.
 *
 * Words are numbers, so that an array of words in C serves in either byte order. Two numbers of 16 bits make a word as
 * they lie in memory. */
enum { IMAGE_MAGIC = 0x4d4d5454, IMAGE_FIXED = 9, IMAGE_INTS = 12 + TTMM_ENDS, IMAGE_DOUBLES = 6 };
enum { IMAGE_HEAD = IMAGE_FIXED + IMAGE_INTS + 2 * IMAGE_DOUBLES };

static int *image_int(ttmm_config *c, size_t i)
{
    int *const field[] = {&c->dim,   &c->n_layers, &c->n_heads, &c->n_kv_heads, &c->head_dim, &c->intermediate,
                          &c->vocab, &c->context,  &c->tied,    &c->biases,     &c->rope,     &c->n_ends};
    return i < IMAGE_INTS - TTMM_ENDS ? field[i] : &c->end[i - (IMAGE_INTS - TTMM_ENDS)];
}

static double *image_double(ttmm_config *c, size_t i)
{
    double *const field[] = {&c->norm_eps, &c->rope_theta, &c->rope_factor,
                             &c->rope_low, &c->rope_high,  &c->rope_before};
    return field[i];
}

/* FNV-1a (Fowler, Noll, Vo), a word at a time; one of two numbers of 16 bits counts as on a little-endian machine. */
static uint64_t hash_words(uint64_t h, const uint32_t *words, size_t n, int type)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t half[2];
        memcpy(half, words + i, sizeof half);
        h = (h ^ (type == TTMM_BF16 ? half[0] | (uint32_t)half[1] << 16 : words[i])) * 0x100000001b3;
    }
    return h;
}

/* What is fixed in an image: everything but its numbers. */
typedef struct {
    ttmm_config config;
    size_t words, K, E, matrices, idfs; /* matrices: of an expert; idfs: 1, or 0 if there is no idf */
    int type;
    const uint32_t *word, *expert;       /* expert [K, stride] */
    size_t stride, first;                /* first: the word that follows them */
    ttmm_numbers *tensor, centroid, idf; /* where the numbers are, see find_numbers */
    ttmm_lora_matrix *matrix;            /* [K, matrices] */
} image_head;

static double double_of_words(const uint32_t *w) { return from_bits(w[0] | (uint64_t)w[1] << 32); }

static int read_head(image_head *x, const void *data, size_t bytes, ttmm_error *err)
{
    const uint32_t *w = data;
    memset(x, 0, sizeof *x);
    if ((uintptr_t)data % 4 != 0) return fail(err, TTMM_BAD_USE, "the image is not aligned to 4 bytes");
    if (bytes < 4 * IMAGE_HEAD) return fail(err, TTMM_BAD_INPUT, "the image has %zu bytes: cut short?", bytes);
    if (w[0] == 0x54544d4d) return fail(err, TTMM_BAD_INPUT, "the image is of the other byte order");
    if (w[0] != IMAGE_MAGIC || w[1] != 1)
        return fail(err, TTMM_BAD_INPUT, "no image, or not of version 1: it begins with 0x%lx, %lu",
                    (unsigned long)w[0], (unsigned long)w[1]);
    if (bytes / 4 < w[2])
        return fail(err, TTMM_BAD_INPUT, "the image has %zu bytes of %.0f: cut short?", bytes, 4.0 * w[2]);
    for (size_t i = 0; i < IMAGE_INTS; i++) *image_int(&x->config, i) = (int)w[IMAGE_FIXED + i];
    for (size_t i = 0; i < IMAGE_DOUBLES; i++)
        *image_double(&x->config, i) = double_of_words(w + IMAGE_FIXED + IMAGE_INTS + 2 * i);
    x->words = w[2], x->type = (int)w[5], x->K = w[6], x->E = w[7], x->idfs = w[8] == 1, x->word = w,
    x->expert = w + IMAGE_HEAD;
    const int code = ttmm_config_check(&x->config, err);
    if (code) return code;
    x->matrices = (size_t)x->config.n_layers * TTMM_MATRICES, x->stride = 2 + 3 * x->matrices;
    const size_t rest = x->words < IMAGE_HEAD ? 0 : x->words - IMAGE_HEAD; /* bounds what lay_out_image takes */
    if ((x->type != TTMM_F32 && x->type != TTMM_BF16) || ttmm_n_tensors(&x->config) > rest ||
        mul_size(x->K, x->stride) > rest || mul_size(x->K + x->idfs, x->E) > rest)
        return fail(err, TTMM_BAD_INPUT, "the image is damaged: its sizes do not fit");
    x->first = IMAGE_HEAD + x->K * x->stride;
    return TTMM_OK;
}

static void lay_out_image(ttmm_image *x, image_head *h, arena *a)
{
    const int copied = TTMM_REAL != TTMM_F32; /* centroids and idf are used as reals */
    h->tensor = take(a, ttmm_n_tensors(&h->config), sizeof *h->tensor);
    h->matrix = take(a, mul_size(h->K, h->matrices), sizeof *h->matrix);
    x->lora = take(a, h->K, sizeof *x->lora);
    x->centroid = take_reals(a, copied ? mul_size(h->K, h->E) : 0);
    x->idf = take_reals(a, copied ? mul_size(h->idfs, h->E) : 0);
}

size_t ttmm_image_bytes(const void *data, size_t bytes)
{
    ttmm_error err;
    ttmm_image x;
    image_head h;
    arena a = {0};
    if (read_head(&h, data, bytes, &err) != TTMM_OK) return 0;
    lay_out_image(&x, &h, &a);
    return a.used;
}

/* The next rows * cols numbers from word *at on, which moves past them. 0: there are not so many. */
static int next_numbers(ttmm_numbers *x, size_t *at, const image_head *h, size_t rows, size_t cols, int type)
{
    const size_t begin = (*at + 3) / 4 * 4, n = mul_size(rows, cols);
    const size_t words = type == TTMM_BF16 ? n / 2 + n % 2 : n;
    if (begin > h->words || words > h->words - begin) return 0;
    *x = (ttmm_numbers){h->word + begin, type};
    *at = begin + words;
    return 1;
}

/* All that an image has. 0: sizes do not fit.    *weights: the word after tensors and adapters */
static int find_numbers(image_head *h, size_t *weights)
{
    const ttmm_config *c = &h->config;
    size_t at = h->first;
    for (size_t i = 0; i < ttmm_n_tensors(c); i++) {
        const ttmm_tensor t = ttmm_tensor_at(c, i);
        if (!next_numbers(&h->tensor[i], &at, h, t.rows, t.cols, h->type)) return 0;
    }
    for (size_t i = 0; i < h->K * h->matrices; i++) {
        const uint32_t *entry = h->expert + i / h->matrices * h->stride + 2 + 3 * (i % h->matrices);
        const int kind = (int)(i % TTMM_MATRICES);
        ttmm_lora_matrix *l = &h->matrix[i];
        if (entry[0] > MOST_RANK) return 0;
        l->rank = (int)entry[0], l->scale = (real)double_of_words(entry + 1);
        if (!next_numbers(&l->view[0], &at, h, entry[0], kind_cols(c, kind), h->type)) return 0;
        if (!next_numbers(&l->view[1], &at, h, entry[0], kind_rows(c, kind), h->type)) return 0;
    }
    *weights = at;
    return next_numbers(&h->centroid, &at, h, h->K, h->E, TTMM_F32) &&
           next_numbers(&h->idf, &at, h, h->idfs, h->E, TTMM_F32) && at == h->words;
}

static uint64_t hash_image(const image_head *h, size_t weights)
{
    uint64_t hash = hash_words(IMAGE_MAGIC, h->word + 5, h->first - 5, TTMM_F32);
    hash = hash_words(hash, h->word + h->first, weights - h->first, h->type);
    return hash_words(hash, h->word + weights, h->words - weights, TTMM_F32);
}

int ttmm_image_view(ttmm_image *x, const void *data, size_t bytes, void *memory, size_t room, ttmm_error *err)
{
    image_head h;
    size_t weights;
    arena a = {0};
    memset(x, 0, sizeof *x);
    int code = read_head(&h, data, bytes, err);
    if (code) return code;
    lay_out_image(x, &h, &a);
    code = place(&a, &x->block, memory, room, "the view of an image", err);
    if (code) return code;
    lay_out_image(x, &h, &a);
    if (!find_numbers(&h, &weights)) code = fail(err, TTMM_BAD_INPUT, "the image is damaged: its sizes do not fit");
    else if (hash_image(&h, weights) != (h.word[3] | (uint64_t)h.word[4] << 32))
        code = fail(err, TTMM_BAD_INPUT, "the image is damaged: its hash is another one");
    if (code == TTMM_OK) code = ttmm_model_view(&x->model, &h.config, h.tensor, err);
    for (size_t k = 0; code == TTMM_OK && k < h.K; k++)
        code = ttmm_lora_view(&x->lora[k], &h.config, h.matrix + k * h.matrices,
                              double_of_words(h.expert + k * h.stride), err);
    if (code) {
        ttmm_image_free(x);
        return code;
    }
    x->K = h.K, x->E = h.E;
    x->centroid = as_reals((real *)x->centroid, h.centroid, h.K * h.E); /* in place, but in the double build */
    x->idf = h.idfs ? as_reals((real *)x->idf, h.idf, h.E) : NULL;
    return TTMM_OK;
}

void ttmm_image_free(ttmm_image *x)
{
    TTMM_FREE(x->block);
    memset(x, 0, sizeof *x);
}

static int check_adapter(const ttmm_lora *l, const ttmm_config *c, ttmm_error *err)
{
    return l->n_layers == c->n_layers
               ? TTMM_OK
               : fail(err, TTMM_BAD_USE, "an adapter of %d layers for a model of %d", l->n_layers, c->n_layers);
}

static size_t positions_of(const ttmm_pass_size *s) { return s->cache ? s->cache : longest_of(s); }

/* Without backward and trace all layers share one set of activations, and what a half of a layer adds to the residual
 * stream has one place for both halves. */
static void lay_out_pass(ttmm_pass *p, arena *a)
{
    const ttmm_config *c = &p->config;
    const size_t N = p->size.tokens, D = (size_t)c->dim, F = (size_t)c->intermediate, L = (size_t)c->n_layers;
    const size_t HS = dimension(c, "HS"), GS = dimension(c, "GS"), R = p->size.rank;
    const size_t ND = mul_size(N, D), NF = mul_size(N, F), NQ = mul_size(N, HS), NR = mul_size(N, R);
    const size_t T = longest_of(&p->size), NK = mul_size(p->size.cache ? p->size.cache : N, GS);
    const int all = p->size.backward || p->size.trace;
    p->token = take(a, N, sizeof *p->token);
    p->start = take(a, add_size(p->size.sequences, 1), sizeof *p->start);
    p->positions = positions_of(&p->size);
    p->cosine = take_reals(a, mul_size(p->positions, (size_t)c->head_dim / 2));
    p->sine = take_reals(a, mul_size(p->positions, (size_t)c->head_dim / 2));
    p->layer = take(a, L, sizeof *p->layer);
    activations s, *first = p->layer;
    memset(&s, 0, sizeof s);
    for (size_t l = 0; l < L; l++) {
        if (l == 0 || all) {
            s.x = take_reals(a, ND), s.attn_inv_r = take_reals(a, N), s.attn_norm = take_reals(a, ND);
            s.q = take_reals(a, NQ), s.attn = take_reals(a, NQ);
            s.middle = take_reals(a, ND), s.mlp_inv_r = take_reals(a, N), s.mlp_norm = take_reals(a, ND);
            s.gate = take_reals(a, NF), s.up = take_reals(a, NF), s.act = take_reals(a, NF);
        }
        if (l == 0 || p->size.trace) s.attn_out = take_reals(a, ND);
        s.mlp_out = p->size.trace ? take_reals(a, ND) : s.attn_out;
        if (l == 0 || all || p->size.cache) s.k = take_reals(a, NK), s.v = take_reals(a, NK);
        if (a->base) first[l] = s;
    }
    p->last = all ? take_reals(a, ND) : s.x;
    p->final_inv_r = take_reals(a, N), p->final_norm = take_reals(a, ND);
    p->logits = take_reals(a, mul_size(p->size.logits, (size_t)c->vocab));
    p->nll = take_reals(a, N);
    p->u = take_reals(a, NR);
    p->row = take_reals(a, HS > D ? HS : D);
    p->scratch.size = mul_size(T < ATTENTION_ROWS ? T : ATTENTION_ROWS, p->positions);
    if (p->size.backward) {
        p->scratch.size = mul_size(2, p->scratch.size);
        p->dx = take_reals(a, ND), p->dnorm = take_reals(a, ND);
        p->dq = take_reals(a, NQ), p->dattn = take_reals(a, NQ), p->dk = take_reals(a, NK), p->dv = take_reals(a, NK);
        p->dgate = take_reals(a, NF), p->dup = take_reals(a, NF), p->dact = take_reals(a, NF);
    }
    p->scratch.threads = ttmm_threads();
    p->scratch.data = take_reals(a, mul_size((size_t)p->scratch.threads, p->scratch.size));
}

size_t ttmm_pass_bytes(const ttmm_config *c, const ttmm_pass_size *size)
{
    ttmm_pass p;
    arena a = {0};
    memset(&p, 0, sizeof p);
    p.config = *c, p.size = *size;
    take(&a, 1, sizeof p);
    lay_out_pass(&p, &a);
    return a.used;
}

/* Sizes that do not fit together would make arrays that a pass writes beyond. */
static int check_pass_size(const ttmm_pass_size *s, ttmm_error *err)
{
    const char *wrong = s->tokens < 1 || s->sequences < 1 || s->logits < 1 ? "has no tokens, no sequences or no logits"
                        : s->cache && s->backward                          ? "goes backward through a cache"
                        : s->cache && s->sequences > 1                     ? "has several sequences in one cache"
                                                                           : NULL;
    return wrong ? fail(err, TTMM_BAD_USE, "a pass of %zu tokens %s", s->tokens, wrong) : TTMM_OK;
}

/* All that can be wrong with a pass. sin and cos are for angles up to 2^22. */
static int check_pass(const ttmm_config *c, const ttmm_pass_size *size, ttmm_error *err)
{
    int code = ttmm_config_check(c, err);
    if (code == TTMM_OK) code = check_pass_size(size, err);
    const size_t positions = positions_of(size);
    for (size_t i = 0; code == TTMM_OK && i < (size_t)c->head_dim / 2; i++)
        if (!(rotary_frequency(c, i) * (double)positions <= 0x1p22))
            return fail(err, TTMM_BAD_INPUT, "rotary frequency %zu is %g: too fast for %zu positions", i,
                        rotary_frequency(c, i), positions);
    return code;
}

/* In memory that is zero. */
static ttmm_pass *build_pass(const ttmm_config *c, const ttmm_pass_size *size, void *memory)
{
    arena a = {memory, 0};
    ttmm_pass *p = take(&a, 1, sizeof *p);
    p->config = *c, p->size = *size;
    lay_out_pass(p, &a);
    rotary_table(p->cosine, p->sine, p->positions, c);
    return p;
}

int ttmm_pass_place(ttmm_pass **p, const ttmm_config *c, const ttmm_pass_size *size, void *memory, size_t bytes,
                    ttmm_error *err)
{
    void *block;
    *p = NULL;
    int code = check_pass(c, size, err);
    if (code) return code;
    arena a = {.used = ttmm_pass_bytes(c, size)};
    if ((code = place(&a, &block, memory, bytes, "the activations of a pass", err)) != TTMM_OK) return code;
    *p = build_pass(c, size, a.base);
    (*p)->block = block;
    return TTMM_OK;
}

int ttmm_pass_new(ttmm_pass **p, const ttmm_config *c, const ttmm_pass_size *size, ttmm_error *err)
{
    return ttmm_pass_place(p, c, size, NULL, 0, err);
}

void ttmm_pass_free(ttmm_pass *p)
{
    if (p) TTMM_FREE(p->block);
}

size_t ttmm_longest_sequence(const ttmm_corpus *c)
{
    size_t most = 0;
    for (size_t i = 0; i < c->n_sequences; i++) most = sequence_length(c, i) > most ? sequence_length(c, i) : most;
    return most;
}

/* Room for `rows` embeddings [rows, dim] and, if wanted, idf [dim], in place of those there are. */
static int allocate_embeddings(ttmm_corpus *c, size_t rows, size_t dim, int idf, ttmm_error *err)
{
    arena a = {0};
    TTMM_FREE(c->embedding_block);
    c->embedding_block = NULL, c->embedding = NULL, c->idf = NULL, c->dim = 0, c->encoder[0] = 0;
    size_t numbers = add_size(mul_size(rows, dim), idf ? dim : 0);
    take_reals(&a, numbers);
    int code = allocate(&a, &c->embedding_block, "the embeddings of all sequences", err);
    if (code) return code;
    c->embedding = take_reals(&a, numbers);
    c->idf = idf ? c->embedding + rows * dim : NULL;
    c->dim = dim;
    return TTMM_OK;
}

int ttmm_corpus_view(ttmm_corpus *c, const int *token, const size_t *sequence, size_t n, const real *embedding,
                     size_t dim, const real *idf, ttmm_error *err)
{
    memset(c, 0, sizeof *c);
    for (size_t i = 0; i < n; i++)
        if (sequence[0] != 0 || sequence[i] >= sequence[i + 1])
            return fail(err, TTMM_BAD_USE, "sequences do not ascend from 0 at %zu", i);
    c->token = (int *)token, c->sequence = (size_t *)sequence, c->n_sequences = n, c->n_tokens = sequence[n];
    c->embedding = (real *)embedding, c->idf = (real *)idf, c->dim = dim;
    return TTMM_OK;
}

static ttmm_pass_size training_pass_size(const ttmm_config *c, const ttmm_lora *lora, const ttmm_corpus *corpus,
                                         const ttmm_recipe *r)
{
    ttmm_pass_size size = {0};
    size.longest = ttmm_longest_sequence(corpus);
    size.sequences = r->batch; /* a batch may run over several epochs of a small corpus */
    size.tokens = mul_size(size.sequences, size.longest);
    size.logits = 1 + (1 << 22) / (size_t)c->vocab; /* about 16 MiB of floats at a time */
    size.logits = size.logits < size.tokens ? size.logits : size.tokens;
    size.rank = lora ? ttmm_lora_rank(lora) : 0;
    size.backward = 1;
    return size;
}

static void lay_out_trainer(ttmm_trainer *t, const ttmm_config *c, const ttmm_pass_size *size, arena *a)
{
    const size_t n = t->lora ? t->lora->n : ttmm_n_weights(c), all = t->corpus->n_sequences;
    t->n = n;
    t->n_spans = t->lora ? (size_t)t->lora->n_layers * TTMM_MATRICES * 2 : ttmm_n_tensors(c);
    t->grad = take_reals(a, n), t->moment1 = take_reals(a, n), t->moment2 = take_reals(a, n);
    t->spans = take(a, t->n_spans, sizeof *t->spans);
    t->sequence = take(a, all, sizeof *t->sequence), t->order = take(a, all, sizeof *t->order);
    t->token = take(a, size->tokens, sizeof *t->token);
    t->start = take(a, add_size(size->sequences, 1), sizeof *t->start);
    if (t->lora) t->dlora.matrix = take(a, (size_t)t->lora->n_layers * TTMM_MATRICES, sizeof *t->dlora.matrix);
    t->pass = take(a, ttmm_pass_bytes(c, size), 1);
}

size_t ttmm_trainer_bytes(const ttmm_config *c, const ttmm_lora *lora, const ttmm_corpus *corpus, const ttmm_recipe *r)
{
    const ttmm_pass_size size = training_pass_size(c, lora, corpus, r);
    ttmm_trainer t;
    arena a = {0};
    memset(&t, 0, sizeof t);
    t.lora = (ttmm_lora *)lora, t.corpus = corpus;
    take(&a, 1, sizeof t);
    lay_out_trainer(&t, c, &size, &a);
    return a.used;
}

/* What a step could not do without reading or writing where nothing is. */
static int check_training(const ttmm_config *c, int view, const ttmm_lora *lora, const ttmm_corpus *corpus,
                          const ttmm_recipe *r, ttmm_error *err)
{
    if (r->batch < 1) return fail(err, TTMM_BAD_USE, "a batch of no sequences");
    if (lora ? lora->data == NULL : view)
        return fail(err, TTMM_BAD_USE, "a view, which is only read, cannot be trained");
    if (corpus->n_sequences < 1) return fail(err, TTMM_BAD_USE, "a corpus of no sequences");
    const int code = lora ? check_adapter(lora, c, err) : TTMM_OK;
    if (code) return code;
    for (size_t t = 0; t < corpus->n_tokens; t++)
        if (corpus->token[t] < 0 || corpus->token[t] >= c->vocab)
            return fail(err, TTMM_BAD_USE, "token %zu of the corpus is %d, expected 0 to %d", t, corpus->token[t],
                        c->vocab - 1);
    return TTMM_OK;
}

int ttmm_trainer_place(ttmm_trainer **trainer, ttmm_model *m, ttmm_lora *lora, const ttmm_corpus *corpus,
                       const ttmm_recipe *r, void *memory, size_t bytes, ttmm_error *err)
{
    const ttmm_config *c = &m->config;
    *trainer = NULL;
    int code = check_training(c, m->view != NULL, lora, corpus, r, err);
    if (code) return code;
    const ttmm_pass_size size = training_pass_size(c, lora, corpus, r);
    if ((code = check_pass(c, &size, err)) != TTMM_OK) return code;
    arena a = {.used = ttmm_trainer_bytes(c, lora, corpus, r)};
    void *block;
    if ((code = place(&a, &block, memory, bytes, "gradients, moments and activations", err)) != TTMM_OK) return code;
    ttmm_trainer *t = take(&a, 1, sizeof *t);
    t->block = block, t->model = m, t->lora = lora, t->corpus = corpus, t->recipe = *r;
    lay_out_trainer(t, c, &size, &a);
    if (lora) {
        t->weights = lora->data;
        t->dlora.n_layers = lora->n_layers, t->dlora.data = t->grad;
        for (size_t i = 0; i < t->n_spans / 2; i++) { /* the same places in grad as in the adapter's data */
            const ttmm_lora_matrix *l = &lora->matrix[i];
            ttmm_lora_matrix *d = &t->dlora.matrix[i];
            *d = *l;
            d->a = t->grad + (l->a - lora->data), d->b = t->grad + (l->b - lora->data);
            t->spans[2 * i] = (span){(size_t)(l->a - lora->data), (size_t)l->rank * l->in, 0};
            t->spans[2 * i + 1] = (span){(size_t)(l->b - lora->data), (size_t)l->rank * l->out, 0};
        }
    } else {
        t->weights = m->data;
        t->dmodel = *m;
        t->dmodel.data = t->grad;
        for (size_t i = 0; i < t->n_spans; i++) {
            const ttmm_tensor w = ttmm_tensor_at(c, i);
            t->spans[i] = (span){w.offset, w.rows * w.cols, is_vector(w.kind)};
        }
    }
    t->pass = build_pass(c, &size, t->pass);
    *trainer = t;
    return TTMM_OK;
}

int ttmm_trainer_new(ttmm_trainer **t, ttmm_model *m, ttmm_lora *lora, const ttmm_corpus *corpus, const ttmm_recipe *r,
                     ttmm_error *err)
{
    return ttmm_trainer_place(t, m, lora, corpus, r, NULL, 0, err);
}

void ttmm_trainer_free(ttmm_trainer *t)
{
    if (t) TTMM_FREE(t->block);
}

static void lay_out_decoder(decoding_room *w, const ttmm_config *c, const ttmm_pass_size *size, int drawn, arena *a)
{
    const size_t V = (size_t)c->vocab;
    w->pass = take(a, w->members, sizeof *w->pass);
    w->mean = take_reals(a, w->members > 1 ? V : 0);
    w->scratch = take(a, drawn ? ttmm_sample_scratch(V) : 0, 1);
    for (size_t k = 0; k < w->members; k++) {
        void *memory = take(a, ttmm_pass_bytes(c, size), 1);
        if (a->base) w->pass[k] = build_pass(c, size, memory);
    }
}

size_t ttmm_decoding_bytes(const ttmm_config *c, size_t T, size_t rank, size_t members, const ttmm_decoding *d)
{
    const ttmm_pass_size size = decoding_size(c, T, rank, d);
    decoding_room w = {.members = members};
    arena a = {0};
    lay_out_decoder(&w, c, &size, d->sampler.temperature != 0, &a);
    return a.used;
}

static int new_decoder(decoding_room *w, size_t members, const ttmm_config *c, const ttmm_pass_size *size,
                       const ttmm_decoding *d, ttmm_error *err)
{
    arena a = {0};
    int code = check_pass(c, size, err);
    if (code) return code;
    *w = (decoding_room){.members = members};
    lay_out_decoder(w, c, size, d->sampler.temperature != 0, &a);
    code = place(&a, &w->block, d->memory, d->bytes, "decoding", err);
    if (code == TTMM_OK) lay_out_decoder(w, c, size, d->sampler.temperature != 0, &a);
    return code;
}

static void lay_out_mixture(ttmm_mixture *x, arena *a)
{
    x->query = take_reals(a, x->E), x->similarity = take_reals(a, x->K), x->weight = take_reals(a, x->K);
    x->expert = take(a, x->K, sizeof *x->expert);
    x->lora = take(a, x->K, sizeof *x->lora);
}

size_t ttmm_mixture_bytes(size_t K, size_t E)
{
    ttmm_mixture x = {.K = K, .E = E};
    arena a = {0};
    lay_out_mixture(&x, &a);
    return a.used;
}

int ttmm_mixture_place(ttmm_mixture *x, void *memory, size_t bytes, ttmm_error *err)
{
    arena a = {.used = ttmm_mixture_bytes(x->K, x->E)};
    const int code = place(&a, &x->block, memory, bytes, "routing", err);
    if (code == TTMM_OK) lay_out_mixture(x, &a);
    x->scratch = NULL, x->scratch_size = 0;
    return code;
}

int ttmm_mixture_new(ttmm_mixture *x, ttmm_error *err) { return ttmm_mixture_place(x, NULL, 0, err); }

void ttmm_mixture_free(ttmm_mixture *x)
{
    TTMM_FREE(x->block);
    TTMM_FREE(x->scratch);
    x->block = NULL, x->scratch = NULL, x->scratch_size = 0;
}

/* The scratch is as large as the largest merge so far needed. */
int ttmm_mixture_merge(ttmm_mixture *x, const ttmm_mix *mix, ttmm_error *err)
{
    const size_t need = ttmm_merge_scratch(&x->base->config, mix);
    for (size_t k = 0; k < mix->n; k++) {
        const int code = check_adapter(mix->lora[k], &x->base->config, err);
        if (code) return code;
    }
    if (x->merged->n == 0) {
        const int code = copy_tensors(x->merged, x->base, TTMM_MATRICES, err); /* the matrices come with merging */
        if (code) return code;
    }
    if (need > x->scratch_size) {
        TTMM_FREE(x->scratch);
        x->scratch = TTMM_CALLOC(need, sizeof *x->scratch);
        x->scratch_size = x->scratch ? need : 0;
        if (x->scratch == NULL) return fail(err, TTMM_NO_ROOM, "out of memory for merging");
    }
    ttmm_merge(x->merged, x->base, mix, x->scratch);
    return TTMM_OK;
}

/* Tracing: the named values of a pass, in the order in which they are computed. */

enum { TRACED = 11 }; /* of a layer */

static ttmm_array traced_in_layer(const ttmm_pass *p, size_t layer, size_t i)
{
    const activations *s = &p->layer[layer];
    const size_t kept = p->past * dimension(&p->config, "GS"); /* in the cache the keys and values before stay */
    const struct {
        const char *name, *width; /* see dimension() */
        const real *data;
    } value[TRACED] = {
        {"layers.%d.attn_norm", "D", s->attn_norm},
        {"layers.%d.q", "HS", s->q},
        {"layers.%d.k", "GS", s->k + kept},
        {"layers.%d.v", "GS", s->v + kept},
        {"layers.%d.attn", "HS", s->attn},
        {"layers.%d.attn_out", "D", s->attn_out},
        {"layers.%d.mlp_norm", "D", s->mlp_norm},
        {"layers.%d.gate", "F", s->gate},
        {"layers.%d.up", "F", s->up},
        {"layers.%d.mlp_out", "D", s->mlp_out},
        {"layers.%d.out", "D", layer + 1 < (size_t)p->config.n_layers ? p->layer[layer + 1].x : p->last},
    };
    ttmm_array a = {{0}, p->N, dimension(&p->config, value[i].width), value[i].data, NULL};
    name_of(a.name, sizeof a.name, value[i].name, layer);
    return a;
}

size_t ttmm_n_traced(const ttmm_config *c) { return (size_t)c->n_layers * TRACED + 2; }

ttmm_array ttmm_traced(const ttmm_pass *p, size_t i)
{
    const size_t D = (size_t)p->config.dim;
    if (i == 0) return (ttmm_array){"embed", p->N, D, p->layer[0].x, NULL};
    if (i + 1 == ttmm_n_traced(&p->config)) return (ttmm_array){"final_norm", p->N, D, p->final_norm, NULL};
    return traced_in_layer(p, (i - 1) / TRACED, (i - 1) % TRACED);
}

#ifndef TTMM_NO_FILES /* what has names as in files */
static void name_gradient(ttmm_array *a, const int *expert)
{
    char name[sizeof a->name];
    memcpy(name, a->name, sizeof name);
    const size_t at = name_of(a->name, sizeof name, expert ? "grad.experts.%d." : "grad.",
                              expert ? (size_t)*expert : 0);
    name_of(a->name + at, sizeof name - at, name, 0);
}

/* An adapter of the ranks of `like`, all zero. */
static int new_gradients(ttmm_lora *l, const ttmm_config *c, const ttmm_lora *like, ttmm_error *err)
{
    int *ranks = TTMM_CALLOC((size_t)c->n_layers * TTMM_MATRICES, sizeof *ranks);
    if (ranks == NULL) return fail(err, TTMM_NO_ROOM, "out of memory for gradients");
    for (int i = 0; i < c->n_layers * TTMM_MATRICES; i++) ranks[i] = like->matrix[i].rank;
    int code = place_lora(l, c, ranks, 0, like->alpha, NULL, 0, err);
    TTMM_FREE(ranks);
    return code;
}

/* Differentiate the loss of p's last pass, and list the gradients as arrays from t->array[t->n] on. */
static int trace_gradients(ttmm_trace *t, ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, const int *expert,
                           ttmm_error *err)
{
    int code = TTMM_OK;
    if (mix && mix->n) {
        t->dl = TTMM_CALLOC(mix->n, sizeof *t->dl);
        if (t->dl == NULL) return fail(err, TTMM_NO_ROOM, "out of memory for gradients");
        for (t->n_dl = 0; t->n_dl < mix->n && code == TTMM_OK; t->n_dl++)
            code = new_gradients(&t->dl[t->n_dl], &m->config, mix->lora[t->n_dl], err);
    } else code = ttmm_model_new(&t->dm, &m->config, err);
    if (code) return code;
    ttmm_backward(p, m, mix, t->dl ? NULL : &t->dm, t->dl);
    for (size_t k = 0; k < t->n_dl; k++)
        for (size_t i = 0; i < ttmm_lora_tensors(&t->dl[k]); i++) {
            ttmm_array *a = &t->array[t->n];
            *a = ttmm_lora_tensor_at(&t->dl[k], i);
            if (t->dl[k].matrix[i / 2].rank == 0) continue;
            name_gradient(a, expert ? expert + k : NULL);
            t->n++;
        }
    for (size_t i = 0; t->dl == NULL && i < ttmm_n_tensors(&m->config); i++) {
        ttmm_array *a = &t->array[t->n++];
        *a = ttmm_model_tensor_at(&t->dm, i);
        name_gradient(a, NULL);
    }
    return TTMM_OK;
}

typedef struct { /* where a trace's numbers are: values that ttmm_traced shows, and what follows them */
    real **value, *logits, *nll, *loss;
    int *tokens;
} traced_numbers;

static void lay_out_trace(ttmm_trace *t, traced_numbers *x, const ttmm_pass *p, size_t T, size_t arrays, arena *a)
{
    const size_t values = ttmm_n_traced(&p->config), V = (size_t)p->config.vocab;
    t->array = take(a, arrays, sizeof *t->array);
    x->value = take(a, values, sizeof *x->value);
    x->tokens = take(a, T, sizeof *x->tokens), x->logits = take_reals(a, mul_size(T, V));
    x->nll = take_reals(a, T), x->loss = take_reals(a, 1);
    for (size_t i = 0; i < values; i++) {
        real *data = take_reals(a, mul_size(T, ttmm_traced(p, i).cols));
        if (a->base) x->value[i] = data;
    }
}

/* Forward, `step` tokens at a time (all, or one by one through the cache), and list what was computed. */
static int record_values(ttmm_trace *t, traced_numbers *x, ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix,
                         const int *token, size_t T, size_t step, ttmm_error *err)
{
    const size_t V = (size_t)m->config.vocab, values = ttmm_n_traced(&m->config), start[2] = {0, step};
    for (size_t from = 0; from < T; from += step) {
        if (ttmm_forward(p, m, mix, token + from, start, 1) != TTMM_OK)
            return fail(err, TTMM_BAD_INPUT, "a token is not in 0 .. %d, or an adapter is of another model",
                        m->config.vocab - 1);
        for (size_t i = 0; i < values; i++) {
            const ttmm_array now = ttmm_traced(p, i);
            memcpy(x->value[i] + from * now.cols, now.data, step * now.cols * sizeof(real));
        }
        for (size_t i = 0; i < step; i++) memcpy(x->logits + (from + i) * V, ttmm_logits(p, m, i, 1), V * sizeof(real));
    }
    for (size_t i = 0; i + 1 < T; i++)
        x->nll[i] = cross_entropy(memcpy(p->logits, x->logits + i * V, V * sizeof(real)), token[i + 1], V, 0);
    x->loss[0] = (real)((double)sum(x->nll, T) / (double)(T - 1));
    memcpy(x->tokens, token, T * sizeof *token);
    t->array[t->n++] = (ttmm_array){"tokens", T, 0, NULL, x->tokens};
    for (size_t i = 0; i < values; i++) {
        t->array[t->n] = ttmm_traced(p, i);
        t->array[t->n].rows = T;
        t->array[t->n++].data = x->value[i];
    }
    t->array[t->n++] = (ttmm_array){"logits", T, V, x->logits, NULL};
    t->array[t->n++] = (ttmm_array){"loss", 1, 0, x->loss, NULL};
    return TTMM_OK;
}

int ttmm_trace_new(ttmm_trace *t, const ttmm_model *m, const ttmm_mix *mix, const int *expert, const int *token,
                   size_t T, int cached, int gradients, ttmm_error *err)
{
    const size_t step = cached ? 1 : T;
    const ttmm_pass_size size = {.tokens = step,
                                 .sequences = 1,
                                 .cache = cached ? T : 0,
                                 .logits = 1,
                                 .rank = ttmm_mix_rank(mix),
                                 .backward = gradients,
                                 .trace = 1};
    size_t arrays = ttmm_n_traced(&m->config) + 3 + ttmm_n_tensors(&m->config);
    ttmm_pass *p = NULL;
    traced_numbers x;
    arena a = {0};
    memset(t, 0, sizeof *t);
    if (T < 2) return fail(err, TTMM_BAD_INPUT, "a trace needs at least 2 tokens, found %zu", T);
    if (cached && gradients) return fail(err, TTMM_BAD_USE, "a trace through the cache has no gradients");
    for (size_t k = 0; mix && k < mix->n; k++) arrays += ttmm_lora_tensors(mix->lora[k]);
    int code = ttmm_pass_new(&p, &m->config, &size, err);
    if (code) return code;
    lay_out_trace(t, &x, p, T, arrays, &a);
    code = allocate(&a, &t->block, "a trace", err);
    if (code == TTMM_OK) lay_out_trace(t, &x, p, T, arrays, &a);
    if (code == TTMM_OK) code = record_values(t, &x, p, m, mix, token, T, step, err);
    if (code == TTMM_OK && gradients) code = trace_gradients(t, p, m, mix, expert, err);
    ttmm_pass_free(p);
    if (code) ttmm_trace_free(t);
    return code;
}

void ttmm_trace_free(ttmm_trace *t)
{
    for (size_t k = 0; k < t->n_dl; k++) ttmm_lora_free(&t->dl[k]);
    TTMM_FREE(t->dl);
    ttmm_model_free(&t->dm);
    TTMM_FREE(t->block);
    memset(t, 0, sizeof *t);
}

#endif

/* Each byte once: the text of the tokens of the byte vocabulary. */
#define FOUR(b) (b), (b) + 1, (b) + 2, (b) + 3
#define SIXTEEN(b) FOUR(b), FOUR((b) + 4), FOUR((b) + 8), FOUR((b) + 12)
#define SIXTY_FOUR(b) SIXTEEN(b), SIXTEEN((b) + 16), SIXTEEN((b) + 32), SIXTEEN((b) + 48)
static const unsigned char every_byte[256] = {SIXTY_FOUR(0), SIXTY_FOUR(64), SIXTY_FOUR(128), SIXTY_FOUR(192)};

#ifdef TTMM_NO_FILES /* without section 17 tokens are bytes, or ids */
const ttmm_tokenizer *ttmm_tokenizer_of_ids(void) { return (const ttmm_tokenizer *)every_byte; }

const unsigned char *ttmm_token_bytes(const ttmm_tokenizer *tokenizer, int token, size_t *n)
{
    *n = tokenizer == NULL && token >= 0 && token < TTMM_END;
    return every_byte + (*n ? token : 0);
}
#endif

/* Threads. */

void ttmm_set_threads(int n) { omp_set_num_threads(n); }

int ttmm_threads(void) { return omp_get_max_threads(); }

/* Threads beyond the processors only wait for each other. */
void ttmm_limit_threads(int n)
{
    const int wanted = n ? n : omp_get_max_threads(), most = omp_get_num_procs();
    omp_set_num_threads(wanted < most ? wanted : most);
}

/* One job is no parallel region: gcc's OpenMP keeps the threads of outer loops, for a loop inside a region it starts
 * new ones, 40 microseconds each. */
int ttmm_parallel(size_t n, int jobs, int (*work)(void *context, size_t i, int job, ttmm_error *err), void *context,
                  ttmm_error *err)
{
    size_t next = 0;
    int code = TTMM_OK;
    for (; next < n && jobs == 1 && code == TTMM_OK; next++) code = work(context, next, 0, err);
    if (jobs == 1) return code;
    const int levels = omp_get_max_active_levels();
    if (ttmm_threads() > 1 && levels < 2) omp_set_max_active_levels(2);
    OMP(omp parallel num_threads(jobs))
    for (;;) {
        ttmm_error own = {0};
        size_t i;
        OMP(omp critical)
        i = code == TTMM_OK && next < n ? next++ : n;
        if (i == n) break;
        const int found = work(context, i, omp_get_thread_num(), &own);
        OMP(omp critical)
        if (found < 0 ? code >= 0 : found > 0 && code == 0) code = found, *err = own;
    }
    omp_set_max_active_levels(levels);
    return code;
}

/* ==================================================================================================================
 * PART III: THE OUTSIDE WORLD
 *
 * Longer than the other two together: a file that would change an answer is either read as transformers, PEFT and
 * tokenizers read it or refused by name, and each way to be refused is a line here. More than half is sections 16 and
 * 17: models, adapters and tokenizers as others write them. Nothing of the method is hidden among it. To read takes
 * time and memory in proportion to a file's size, whatever is in it (make fuzz; test/files.c, linear).
 * ================================================================================================================== */

/* ==== 13. Platform and files =========================================================================================
 *
 * All that is not C99: a block for Windows, a block for POSIX.1-2008 (IEEE 1003.1), each of the same few functions.
 * Then files: read whole, or written under another name and renamed at the end. Refused: to write over what is no
 * regular file, and paths of PATH_BYTES or more. */

#ifndef TTMM_NO_FILES
enum { PATH_BYTES = 4096 }; /* Linux' PATH_MAX: no longer path can be opened there */

#include <errno.h>
#ifdef _WIN32
#include <direct.h>
#include <fcntl.h>
#include <io.h>
#include <windows.h>
#undef near /* once keywords, now empty macros */
#undef far
#else
#include <fcntl.h>
#ifndef __wasi__ /* has none */
#include <sys/mman.h>
#endif
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#endif

#ifdef _WIN32
double ttmm_seconds(void)
{
    LARGE_INTEGER ticks, frequency;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&frequency);
    return (double)ticks.QuadPart / (double)frequency.QuadPart;
}

size_t ttmm_memory(void)
{
    MEMORYSTATUSEX s = {.dwLength = sizeof s};
    if (!GlobalMemoryStatusEx(&s)) return 0;
    return s.ullTotalPhys < SIZE_MAX ? (size_t)s.ullTotalPhys : SIZE_MAX;
}

static int is_readable(const char *path)
{
    FILE *f = ttmm_open(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

static HANDLE handle_of(FILE *f) { return (HANDLE)_get_osfhandle(_fileno(f)); }

int ttmm_is_terminal(FILE *f) /* _isatty is true of the device NUL, too */
{
    DWORD mode;
    return GetConsoleMode(handle_of(f), &mode) != 0;
}

/* Inside, text is UTF-8; Windows' functions take UTF-16, or else the system's code page, which has few characters. So
 * the C library is asked for the command line as UTF-16, as it does for wmain (0: with no wildcards expanded), and a
 * terminal is told that UTF-8 comes (until the program ends), and escape sequences. In text mode a CR would be lost on
 * the way in, or come up on the way out, and Ctrl-Z would be the end. */
int __wgetmainargs(int *argc, wchar_t ***argv, wchar_t ***environment, int expand, int *new_mode);
static UINT code_page;
static void restore_code_page(void) { SetConsoleOutputCP(code_page); }

char **ttmm_arguments(int *argc, char **argv)
{
    wchar_t **wide = NULL, **environment;
    DWORD mode;
    size_t size = sizeof *argv;
    int new_mode = 0;
    _setmode(_fileno(stdin), _O_BINARY), _setmode(_fileno(stdout), _O_BINARY);
    code_page = GetConsoleOutputCP();
    if (code_page && SetConsoleOutputCP(CP_UTF8)) atexit(restore_code_page);
    if (GetConsoleMode(handle_of(stderr), &mode)) /* 4: escape sequences, from Windows 10 on */
        SetConsoleMode(handle_of(stderr), mode | 4);
    __wgetmainargs(argc, &wide, &environment, 0, &new_mode);
    for (int i = 0; wide && i < *argc; i++) size += sizeof *argv + 3 * (wcslen(wide[i]) + 1);
    char **all = wide ? malloc(size) : NULL, *text = all ? (char *)(all + *argc + 1) : NULL;
    for (int i = 0; all && i < *argc; i++) {
        const int room = 3 * ((int)wcslen(wide[i]) + 1);
        all[i] = text, all[i + 1] = NULL;
        text += WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, text, room, NULL, NULL);
    }
    return all;
}

/* A terminal gives UTF-16, line by line, with CR LF at the end. A character of two halves stays whole. */
size_t ttmm_read(char *out, size_t n, FILE *f)
{
    wchar_t line[TTMM_LEAST_READ / 3]; /* one of these is at most 3 bytes */
    DWORD got, more = 0;
    if (!ttmm_is_terminal(f)) return fread(out, 1, n, f);
    if (!ReadConsoleW(handle_of(f), line, sizeof line / sizeof *line - 1, &got, NULL)) return 0;
    if (got == 0 || line[0] == 26 /* Ctrl-Z */) return 0;
    if (got > 1 && line[got - 2] == '\r') line[--got - 1] = '\n';
    if (line[got - 1] >= 0xd800 && line[got - 1] < 0xdc00) ReadConsoleW(handle_of(f), line + got, 1, &more, NULL);
    return (size_t)WideCharToMultiByte(CP_UTF8, 0, line, (int)(got + more), out, TTMM_LEAST_READ, NULL, NULL);
}

/* The path as UTF-16. One that is too long for most of Windows (260 in all, 248 of a folder) is made absolute, with the
 * prefix by which any length is taken. What is not UTF-8 names nothing.    out [WIDE_PATH]; returns where it begins */
enum { WIDE_PATH = PATH_BYTES + 8 };
static const wchar_t *wide_path(wchar_t *out, const char *path)
{
    wchar_t given[PATH_BYTES], *full = out + 8;
    if (!MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, given, PATH_BYTES)) given[0] = 0;
    const DWORD n = GetFullPathNameW(given, PATH_BYTES, full, NULL);
    if (n < 248 || n >= PATH_BYTES) return wcscpy(out, given);
    if (full[0] != '\\') return memcpy(full - 4, L"\\\\?\\", 4 * sizeof *full);
    if (full[2] == '?' || full[2] == '.') return full;
    return memcpy(full - 6, L"\\\\?\\UNC", 7 * sizeof *full); /* of \\server\folder */
}

/* Why it failed: errno, or this, which C has no number for. */
enum { HELD_OPEN = 1 << 16 };
static const char *reason(int error) { return error == HELD_OPEN ? "another program holds it open" : strerror(error); }

FILE *ttmm_open(const char *path, const char *mode)
{
    wchar_t wide[WIDE_PATH], wide_mode[8] = {0};
    for (size_t i = 0; i < 7 && mode[i]; i++) wide_mode[i] = (wchar_t)mode[i];
    FILE *f = _wfopen(wide_path(wide, path), wide_mode);
    if (f == NULL && _doserrno == ERROR_SHARING_VIOLATION) errno = HELD_OPEN;
    return f;
}
static int is_separator(char c) { return c == '/' || c == '\\'; }
static int make_one_folder(const char *path)
{
    wchar_t wide[WIDE_PATH];
    return _wmkdir(wide_path(wide, path));
}
static DWORD attributes_of(const char *path)
{
    wchar_t wide[WIDE_PATH];
    const DWORD attributes = GetFileAttributesW(wide_path(wide, path));
    return attributes == INVALID_FILE_ATTRIBUTES ? 0 : attributes;
}
static int is_folder(const char *path) { return (attributes_of(path) & FILE_ATTRIBUTE_DIRECTORY) != 0; }
static int is_special(const char *path)
{
    return (attributes_of(path) & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_DEVICE)) != 0;
}
static int remove_one(const char *path)
{
    wchar_t wide[WIDE_PATH];
    const wchar_t *name = wide_path(wide, path);
    return DeleteFileW(name) || RemoveDirectoryW(name);
}
static int flush_to_disk(FILE *f) { return fflush(f) == 0 && _commit(_fileno(f)) == 0; }
static int replace_file(const char *from, const char *to)
{
    wchar_t wide_from[WIDE_PATH], wide_to[WIDE_PATH];
    const wchar_t *name = wide_path(wide_to, to);
    if (MoveFileExW(wide_path(wide_from, from), name, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)) return 1;
    errno = GetLastError() == ERROR_ACCESS_DENIED ? EACCES : EIO; /* which says nothing of those who hold it open */
    HANDLE h = CreateFileW(name, DELETE, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                           FILE_ATTRIBUTE_NORMAL, NULL);
    if (h != INVALID_HANDLE_VALUE) CloseHandle(h);
    else if (GetLastError() == ERROR_SHARING_VIOLATION) errno = HELD_OPEN;
    return 0;
}
static int seek_file(FILE *f, uint64_t at, int whence) { return _fseeki64(f, (__int64)at, whence); }
static int64_t tell_file(FILE *f) { return _ftelli64(f); }
static void *map_file(const char *path, size_t *bytes)
{
    LARGE_INTEGER size;
    void *data = NULL;
    wchar_t wide[WIDE_PATH];
    HANDLE file = CreateFileW(wide_path(wide, path), GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING,
                              FILE_ATTRIBUTE_NORMAL, NULL);
    if (file == INVALID_HANDLE_VALUE) return NULL;
    HANDLE mapping = CreateFileMappingA(file, NULL, PAGE_READONLY, 0, 0, NULL);
    if (mapping && GetFileSizeEx(file, &size) && (uint64_t)size.QuadPart <= SIZE_MAX) {
        *bytes = (size_t)size.QuadPart;
        data = MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0);
    }
    if (mapping) CloseHandle(mapping); /* the view keeps both */
    CloseHandle(file);
    return data;
}
static void unmap_file(void *data, size_t bytes)
{
    (void)bytes;
    UnmapViewOfFile(data);
}
static int try_lock(FILE *f, unsigned number, int how) /* a lock that this process has is let go first */
{
    OVERLAPPED at = {0};
    HANDLE file = handle_of(f);
    at.Offset = number;
    UnlockFileEx(file, 0, 1, 0, &at);
    return how == TTMM_UNLOCKED ||
           LockFileEx(file, LOCKFILE_FAIL_IMMEDIATELY | (how == TTMM_ALONE ? LOCKFILE_EXCLUSIVE_LOCK : 0), 0, 1, 0,
                      &at) ||
           GetLastError() != ERROR_LOCK_VIOLATION;
}
static void wait_a_little(void) { Sleep(50); }
#else
double ttmm_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

size_t ttmm_memory(void) /* these two names are no part of POSIX, but most systems have them */
{
#if defined(_SC_PHYS_PAGES) && defined(_SC_PAGESIZE)
    const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? mul_size((size_t)pages, (size_t)size) : 0;
#else
    return 0;
#endif
}

int ttmm_is_terminal(FILE *f) { return isatty(fileno(f)); }
char **ttmm_arguments(int *argc, char **argv)
{
    (void)argc;
    return argv;
}
size_t ttmm_read(char *out, size_t n, FILE *f) { return fread(out, 1, n, f); }
static const char *reason(int error) { return strerror(error); }
FILE *ttmm_open(const char *path, const char *mode) { return fopen(path, mode); }
static int is_separator(char c) { return c == '/'; }
static int make_one_folder(const char *path) { return mkdir(path, 0777); }
static int is_folder(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}
static int is_special(const char *path) /* a folder, a device, a pipe: nothing to be replaced by a file */
{
    struct stat s;
    return stat(path, &s) == 0 && !S_ISREG(s.st_mode);
}
static int remove_one(const char *path) { return remove(path) == 0; } /* a file, or an empty folder */
static int flush_to_disk(FILE *f) { return fflush(f) == 0 && fsync(fileno(f)) == 0; }
static int replace_file(const char *from, const char *to) { return rename(from, to) == 0; }
static int seek_file(FILE *f, uint64_t at, int whence) { return fseeko(f, (off_t)at, whence); }
static int64_t tell_file(FILE *f) { return ftello(f); }
#ifdef __wasi__
static void *map_file(const char *path, size_t *bytes)
{
    (void)path, (void)bytes;
    return NULL;
}
static void unmap_file(void *data, size_t bytes) { (void)data, (void)bytes; }
#else
static void *map_file(const char *path, size_t *bytes)
{
    struct stat s;
    void *data = MAP_FAILED;
    const int file = open(path, O_RDONLY);
    if (file >= 0 && fstat(file, &s) == 0 && s.st_size > 0 && (uint64_t)s.st_size <= SIZE_MAX) {
        *bytes = (size_t)s.st_size;
        data = mmap(NULL, *bytes, PROT_READ, MAP_SHARED, file, 0);
    }
    if (file >= 0) close(file);
    return data == MAP_FAILED ? NULL : data;
}
static void unmap_file(void *data, size_t bytes) { munmap(data, bytes); }
#endif
static int try_lock(FILE *f, unsigned number, int how)
{
#ifdef F_SETLK
    struct flock lock = {.l_whence = SEEK_SET, .l_start = (off_t)number, .l_len = 1};
    lock.l_type = how == TTMM_UNLOCKED ? F_UNLCK : how == TTMM_SHARED ? F_RDLCK : F_WRLCK;
    return fcntl(fileno(f), F_SETLK, &lock) == 0 || (errno != EACCES && errno != EAGAIN);
#else
    (void)f, (void)number, (void)how;
    return 1;
#endif
}
static void wait_a_little(void) { nanosleep(&(struct timespec){0, 50000000}, NULL); }

/* Without opening it: POSIX lets go of all locks that a process has on a file when it closes any descriptor of it. */
static int is_readable(const char *path) { return access(path, R_OK) == 0; }
#endif

/* Refuse a file: "PATH: ..." in err. Returns TTMM_BAD_INPUT. */
TTMM_FORMAT static int refuse(ttmm_error *err, const char *path, const char *format, ...)
{
    va_list arguments;
    const int n = snprintf(err->text, sizeof err->text, "%s: ", path);
    va_start(arguments, format);
    if (n >= 0 && (size_t)n < sizeof err->text)
        vsnprintf(err->text + n, sizeof err->text - (size_t)n, format, arguments);
    va_end(arguments);
    return err->code = TTMM_BAD_INPUT;
}

/* An array of another length, to be freed. NULL: no memory, or it is more than this machine can address. */
static void *resize(void *array, size_t n, size_t size)
{
    return n <= PTRDIFF_MAX / size ? realloc(array, n * size) : NULL;
}

static void *new_array(size_t n, size_t size) { return resize(NULL, n, size); }

/* A growing array with room for n: itself, or a longer one that takes its place. NULL: no memory, and it stays. */
static void *grow(void *array, size_t *room, size_t n, size_t size)
{
    if (n <= *room) return array;
    const size_t longer = add_size(mul_size(2, *room), add_size(n, 63));
    void *more = resize(array, longer, size);
    if (more) *room = longer;
    return more;
}

/* FOLDER/NAME; NAME alone if folder is NULL, FOLDER if name is empty.    out [PATH_BYTES] */
static int join_path(char *out, const char *folder, const char *name, ttmm_error *err)
{
    const int n = snprintf(out, PATH_BYTES, "%s%s%s", folder ? folder : "", folder && *name ? "/" : "", name);
    return n >= 0 && n < PATH_BYTES ? TTMM_OK : fail(err, TTMM_BAD_INPUT, "%.60s...: the path is too long", out);
}

/* A whole file in memory, with a zero byte after it. *text is NULL if that fails, else to be freed. */
static int read_whole_file(char **text, size_t *bytes, const char *path, ttmm_error *err)
{
    *text = NULL;
    FILE *f = ttmm_open(path, "rb");
    if (f == NULL) return refuse(err, path, "cannot be opened: %s", reason(errno));
    const int64_t size = seek_file(f, 0, SEEK_END) == 0 ? tell_file(f) : -1; /* INT64_MAX: Linux, of a folder */
    int code = TTMM_OK;
    if (size < 0 || size == INT64_MAX || seek_file(f, 0, SEEK_SET) != 0)
        code = refuse(err, path, "is not a regular file");
    else if ((uint64_t)size >= SIZE_MAX || (*text = malloc((size_t)size + 1)) == NULL)
        code = fail(err, TTMM_NO_ROOM, "%s: out of memory for its %.1f MiB", path, (double)size / 1048576);
    else if (fread(*text, 1, (size_t)size, f) != (size_t)size)
        code = refuse(err, path, "cannot be read: %s", ferror(f) ? reason(errno) : "it became shorter");
    else (*text)[size] = 0, *bytes = (size_t)size;
    if (code) free(*text), *text = NULL;
    fclose(f);
    return code;
}

/* Each folder of the path in turn, from the first on. That one cannot be made is no error before the last: it may be
 * there. */
int ttmm_make_folder(const char *path, ttmm_error *err)
{
    char part[PATH_BYTES];
    const size_t length = strlen(path);
    int code = join_path(part, NULL, path, err);
    if (code) return code;
    if (length == 0) return fail(err, TTMM_BAD_INPUT, "a folder's name is empty");
    for (size_t i = 1; i <= length; i++) {
        if (i < length && !is_separator(path[i])) continue;
        memcpy(part, path, i);
        part[i] = 0;
        const int made = make_one_folder(part) == 0, error = errno;
        if (!made && i == length && !is_folder(path))
            return fail(err, TTMM_NO_ROOM, "%s: the folder cannot be made: %s", path, reason(error));
    }
    return TTMM_OK;
}

/* What exists and may not be read is of no use. */
int ttmm_exists(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    ttmm_error err;
    return join_path(path, folder, name, &err) == TTMM_OK && is_readable(path);
}

int ttmm_remove(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    ttmm_error err;
    return join_path(path, folder, name, &err) == TTMM_OK && remove_one(path);
}

/* Where a file system has no locks, all are to be had. */
int ttmm_lock(FILE *f, unsigned number, int how)
{
    const int had = try_lock(f, number, how);
    if (!had) wait_a_little();
    return had;
}

/* A file on its way: written under a temporary name in the same folder, flushed to the disk, then renamed. A crash or a
 * full disk leaves the old file or the new one. Between output_open and output_close it is written as any other: that a
 * write failed is noticed at the end. */
typedef struct {
    FILE *f;
    char path[PATH_BYTES], temporary[PATH_BYTES];
} output;

/* Gives the file up, and says why. */
static int output_failed(output *o, ttmm_error *err)
{
    const int error = errno ? errno : EIO;
    if (o->f) fclose(o->f);
    remove_one(o->temporary);
    return fail(err, TTMM_NO_ROOM, "%s: cannot be written: %s", o->path, reason(error));
}

/* If this fails there is nothing to close. */
static int output_open(output *o, const char *folder, const char *name, ttmm_error *err)
{
    int code = join_path(o->path, folder, name, err);
    if (code) return code;
    const int n = snprintf(o->temporary, sizeof o->temporary, "%s.tmp", o->path);
    if (n < 0 || n >= PATH_BYTES) return fail(err, TTMM_BAD_INPUT, "%.60s...: the path is too long", o->path);
    if (is_special(o->path)) return fail(err, TTMM_NO_ROOM, "%s: cannot be written: it is not a regular file", o->path);
    errno = 0;
    o->f = ttmm_open(o->temporary, "wb");
    if (o->f) return TTMM_OK;
    return fail(err, TTMM_NO_ROOM, "%s: cannot be written: %s", o->path, reason(errno ? errno : EIO));
}

/* All is on the disk before the name changes: else a crash could leave the name with an empty file. */
static int output_close(output *o, ttmm_error *err)
{
    if (ferror(o->f) || !flush_to_disk(o->f)) return output_failed(o, err);
    FILE *f = o->f;
    o->f = NULL;
    if (fclose(f) != 0 || !replace_file(o->temporary, o->path)) return output_failed(o, err);
    return TTMM_OK;
}

/* By way of memory. */
int ttmm_copy(const char *to_folder, const char *folder, const char *name, ttmm_error *err)
{
    char path[PATH_BYTES], *text = NULL;
    size_t n = 0;
    output o;
    int code = join_path(path, folder, name, err);
    if (code == TTMM_OK) code = read_whole_file(&text, &n, path, err);
    if (code == TTMM_OK) code = output_open(&o, to_folder, name, err);
    if (code == TTMM_OK) {
        fwrite(text, 1, n, o.f);
        code = output_close(&o, err);
    }
    free(text);
    return code;
}

/* ==== 14. Text, documents, corpus ====================================================================================
 *
 * From text files to a corpus: documents, their tokens, sequences of at most `context` tokens. Text is UTF-8 (RFC
 * 3629), but nothing here insists on it: bytes that are not are kept as they are. Documents are separated by lines that
 * hold SEPARATOR alone; a file without one is one document. Refused: an empty file or document, a zero byte. */

/* The length that a character's first byte announces, 0 if no character begins so. */
static int utf8_length(unsigned first)
{
    return first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
}

/* Whether `byte` can be the one at place `at` > 0 after the byte `first`: no overlong forms, no surrogates, nothing
 * past U+10FFFF. -1, the end of a text, cannot. */
static int utf8_continues(unsigned first, int at, int byte)
{
    const int least = at > 1 ? 0x80 : first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const int most = at > 1 ? 0xbf : first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    return byte >= least && byte <= most;
}

/* The character at the beginning of s [n], n > 0, and its length. A byte that is not part of one stands for itself,
 * beyond Unicode: NOT_UTF8 + the byte. */
enum { NOT_UTF8 = 0x110000 };
static uint32_t utf8_get(const unsigned char *s, size_t n, size_t *length)
{
    const int whole = utf8_length(s[0]);
    uint32_t c = s[0] & (0x7fu >> whole);
    *length = 1;
    if (whole < 2) return whole ? s[0] : NOT_UTF8 + s[0];
    for (int i = 1; i < whole; i++) {
        if ((size_t)i >= n || !utf8_continues(s[0], i, s[i])) return NOT_UTF8 + s[0];
        c = c << 6 | (s[i] & 0x3f);
    }
    *length = (size_t)whole;
    return c;
}

/* The way back.    out [4]; returns how many bytes */
static size_t utf8_put(char *out, uint32_t c)
{
    if (c < 0x80 || c >= NOT_UTF8) {
        out[0] = (char)(unsigned char)(c % 0x100);
        return 1;
    }
    const size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(unsigned char)(0x80 | (c & 0x3f));
    out[0] = (char)(unsigned char)(0xf00u >> n | c);
    return n;
}

/* A character waits until its last byte has come. A byte that cannot go on with it ends it as U+FFFD, and is looked at
 * as the first of another. */
size_t ttmm_put_utf8(char *out, ttmm_utf8 *waiting, int byte)
{
    size_t n = 0;
    if (waiting->n > 0 && utf8_continues(waiting->byte[0], waiting->n, byte)) {
        waiting->byte[waiting->n++] = (unsigned char)byte;
        if (waiting->n < utf8_length(waiting->byte[0])) return 0;
        n = (size_t)waiting->n;
        memcpy(out, waiting->byte, n);
        waiting->n = 0;
        return n;
    }
    if (waiting->n > 0) n = utf8_put(out, 0xfffd);
    waiting->n = 0;
    if (byte < 0) return n;
    if (utf8_length((unsigned)byte) > 1) waiting->byte[waiting->n++] = (unsigned char)byte;
    else n += utf8_put(out + n, byte < 0x80 ? (uint32_t)byte : 0xfffd);
    return n;
}

static const char SEPARATOR[] = "<|endoftext|>";
enum { MARK = sizeof SEPARATOR - 1 }; /* its length */

/* Tokens, one after the other. */
typedef struct {
    int *token; /* [n], room for more */
    size_t n, room;
    int failed; /* there was no memory; no more are taken */
} token_list;

/* Callers may go on after a failure, and look at `failed` at the end. */
static void put_token(token_list *list, int token)
{
    int *more = list->failed ? NULL : grow(list->token, &list->room, list->n + 1, sizeof *more);
    list->failed = more == NULL;
    if (list->failed) return;
    list->token = more;
    list->token[list->n++] = token;
}

/* From section 17: append the tokens of a text, which has a name in sentences; the token after a document, -1 if there
 * is none. */
static int encode(token_list *list, const ttmm_tokenizer *tok, const char *text, size_t bytes, const char *name,
                  ttmm_error *err);
static int end_token(const ttmm_tokenizer *tok);

int ttmm_tokenize(int **token, size_t *n, const ttmm_tokenizer *tokenizer, const char *text, size_t bytes,
                  ttmm_error *err)
{
    token_list list = {0};
    put_token(&list, 0), list.n = 0; /* an empty text has an array, too */
    const int code = encode(&list, tokenizer, text, bytes, "the text", err);
    if (code) free(list.token), list.token = NULL;
    *token = list.token, *n = list.n;
    return code;
}

/* The document that begins at text[at]: its length, and in *next where the one after it begins (bytes: there is none).
 * It ends before the next line that holds the separator alone; such a line may end in CRLF. */
static size_t document_length(const char *text, size_t bytes, size_t at, size_t *next)
{
    *next = at;
    while (*next < bytes) {
        const size_t line = *next;
        const char *newline = memchr(text + line, '\n', bytes - line);
        const size_t end = newline ? (size_t)(newline - text) : bytes;
        const size_t length = end > line && text[end - 1] == '\r' ? end - line - 1 : end - line;
        *next = newline ? end + 1 : bytes;
        if (length == MARK && memcmp(text + line, SEPARATOR, MARK) == 0) return line - at;
    }
    return bytes - at;
}

/* The arrays of a corpus that knows how many it has of everything. */
static void lay_out_corpus(ttmm_corpus *c, arena *a, size_t name_bytes)
{
    c->token = take(a, c->n_tokens, sizeof *c->token);
    c->document = take(a, add_size(c->n_documents, 1), sizeof *c->document);
    c->document_file = take(a, c->n_documents, sizeof *c->document_file);
    c->sequence = take(a, add_size(c->n_sequences, 1), sizeof *c->sequence);
    c->sequence_document = take(a, c->n_sequences, sizeof *c->sequence_document);
    c->cluster = take(a, c->n_sequences, sizeof *c->cluster);
    c->file = take(a, c->n_files, sizeof *c->file);
    c->names = take(a, name_bytes, 1);
}

static int allocate_corpus(ttmm_corpus *c, size_t name_bytes, ttmm_error *err)
{
    arena a = {0};
    lay_out_corpus(c, &a, name_bytes);
    int code = allocate(&a, &c->block, "the text", err);
    if (code) return code;
    lay_out_corpus(c, &a, name_bytes);
    return TTMM_OK;
}

/* Name without folder and extension: data/train/cookbook.txt is cookbook. */
static const char *base_name(const char *path, size_t *length)
{
    const char *name = path;
    for (const char *p = path; *p; p++)
        if (is_separator(*p) && p[1]) name = p + 1;
    const char *dot = strrchr(name, '.');
    *length = dot && dot > name ? (size_t)(dot - name) : strlen(name);
    return name;
}

/* What is known of texts before there is a corpus for them. */
typedef struct {
    size_t start, n; /* its tokens: the first, how many */
    int file;
} document_tokens;

typedef struct {
    const ttmm_tokenizer *tok;
    int ids;         /* > 0: the files hold ids below it, not text */
    token_list list; /* the tokens of all documents */
    document_tokens *document;
    size_t n, room;
} documents;

/* What was appended to the tokens from `start` on is a document. */
static int close_document(documents *d, int file, const char *path, size_t start, ttmm_error *err)
{
    document_tokens *more = grow(d->document, &d->room, d->n + 1, sizeof *more);
    if (more == NULL || d->list.failed) return fail(err, TTMM_NO_ROOM, "%s: out of memory for its tokens", path);
    d->document = more;
    d->document[d->n++] = (document_tokens){start, d->list.n - start, file};
    return TTMM_OK;
}

/* Its tokens and, if they do not end in it, the end token. */
static int add_document(documents *d, int file, const char *path, const char *text, size_t bytes, ttmm_error *err)
{
    const size_t start = d->list.n;
    const int end = end_token(d->tok), code = encode(&d->list, d->tok, text, bytes, path, err);
    if (code) return code;
    if (end >= 0 && (d->list.n == start || d->list.token[d->list.n - 1] != end)) put_token(&d->list, end);
    return close_document(d, file, path, start, err);
}

/* All documents of a file's text. */
static int add_text(documents *d, int file, const char *path, const char *text, size_t bytes, ttmm_error *err)
{
    const char *zero = memchr(text, 0, bytes);
    if (bytes == 0) return refuse(err, path, "is empty, expected text");
    if (zero) return refuse(err, path, "is not text: byte %zu is zero", (size_t)(zero - text));
    for (size_t at = 0, next, number = 1; at < bytes; at = next, number++) {
        const size_t length = document_length(text, bytes, at, &next);
        if (length == 0)
            return refuse(err, path, "document %zu is empty, expected at least one byte between lines %s", number,
                          SEPARATOR);
        int code = add_document(d, file, path, text + at, length, err);
        if (code) return code;
    }
    return TTMM_OK;
}

/* Append the ids in a text, which has a name in sentences; they stand between blanks. */
static int put_ids(token_list *list, const char *text, size_t bytes, int vocab, const char *name, ttmm_error *err)
{
    static const char blanks[] = " \t\r\n";
    for (size_t at = 0, end, n = 1; at < bytes; at = end + 1) {
        uint64_t id = 0;
        for (end = at; end < bytes && (text[end] == 0 || !strchr(blanks, text[end])); end++)
            id = text[end] >= '0' && text[end] <= '9' && id < (uint64_t)vocab ? 10 * id + (uint64_t)(text[end] - '0')
                                                                              : (uint64_t)vocab;
        if (end == at) continue;
        if (id >= (uint64_t)vocab)
            return refuse(err, name, "token %zu is %.*s, expected an id from 0 to %d", n,
                          end - at < 20 ? (int)(end - at) : 20, text + at, vocab - 1);
        put_token(list, (int)id), n++;
    }
    return list->failed ? fail(err, TTMM_NO_ROOM, "%s: out of memory for its tokens", name) : TTMM_OK;
}

int ttmm_read_ids(int **token, size_t *n, const char *text, size_t bytes, int vocab, const char *name, ttmm_error *err)
{
    token_list list = {0};
    put_token(&list, 0), list.n = 0; /* no ids have an array, too */
    const int code = put_ids(&list, text, bytes, vocab, name, err);
    if (code) free(list.token), list.token = NULL;
    *token = list.token, *n = list.n;
    return code;
}

/* A document a line. */
static int add_ids(documents *d, int file, const char *path, const char *text, size_t bytes, ttmm_error *err)
{
    char where[PATH_BYTES + 32];
    int code = bytes ? TTMM_OK : refuse(err, path, "is empty, expected token ids");
    for (size_t at = 0, length, line = 1; at < bytes && code == TTMM_OK; at += length + 1, line++) {
        const char *newline = memchr(text + at, '\n', bytes - at);
        const size_t start = d->list.n;
        length = newline ? (size_t)(newline - text) - at : bytes - at;
        snprintf(where, sizeof where, "%s: line %zu", path, line);
        code = put_ids(&d->list, text + at, length, d->ids, where, err);
        if (code == TTMM_OK && d->list.n == start) code = refuse(err, where, "is empty, expected token ids");
        if (code == TTMM_OK) code = close_document(d, file, path, start, err);
    }
    return code;
}

size_t ttmm_byte_order_mark(const char *text, size_t bytes)
{
    return bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}

static int add_file(documents *d, int file, const char *path, ttmm_error *err)
{
    char *text;
    size_t bytes;
    int code = read_whole_file(&text, &bytes, path, err);
    if (code) return code;
    const size_t mark = ttmm_byte_order_mark(text, bytes);
    code = (d->ids ? add_ids : add_text)(d, file, path, text + mark, bytes - mark, err);
    free(text);
    return code;
}

/* The pieces are as long as each other, to one token: nobody trains on a rest of three tokens. */
static size_t pieces_of(const document_tokens *d, size_t context) { return (d->n + context - 1) / context; }

/* The corpus of those documents, cut into sequences. */
static int fill_corpus(ttmm_corpus *c, const documents *d, const char *const *path, size_t n_files, size_t context,
                       ttmm_error *err)
{
    size_t name_bytes = 0, sequence = 0, length;
    for (size_t i = 0; i < n_files; i++) name_bytes += strlen(path[i]) + 1; /* enough: a name is a part of its path */
    c->n_files = n_files, c->n_documents = d->n, c->n_tokens = d->list.n;
    for (size_t i = 0; i < d->n; i++) c->n_sequences += pieces_of(&d->document[i], context);
    int code = allocate_corpus(c, name_bytes, err);
    if (code) return code;
    memcpy(c->token, d->list.token, c->n_tokens * sizeof *c->token);
    for (size_t i = 0; i < d->n; i++) {
        const document_tokens *from = &d->document[i];
        const size_t pieces = pieces_of(from, context);
        c->document[i] = from->start, c->document_file[i] = from->file;
        for (size_t p = 0; p < pieces; p++) {
            c->sequence[sequence] = from->start + (size_t)((double)from->n * (double)p / (double)pieces);
            c->sequence_document[sequence++] = (int)i;
        }
    }
    c->document[c->n_documents] = c->sequence[c->n_sequences] = c->n_tokens;
    char *name = c->names;
    for (size_t i = 0; i < n_files; i++) {
        const char *base = base_name(path[i], &length);
        c->file[i] = memcpy(name, base, length); /* the arena is zeroed: the name ends in 0 */
        name += length + 1;
    }
    return TTMM_OK;
}

/* Tokens first, in a list that grows; then the corpus, whose size is known by then. */
static int build_corpus(ttmm_corpus *c, const ttmm_tokenizer *tokenizer, int ids, const char *const *path, size_t n,
                        int context, ttmm_error *err)
{
    int code = TTMM_OK;
    documents d = {.tok = tokenizer, .ids = ids};
    memset(c, 0, sizeof *c);
    if (context < 2) return fail(err, TTMM_BAD_INPUT, "context is %d, expected at least 2 tokens", context);
    if (n < 1) return fail(err, TTMM_BAD_INPUT, "no files to make a corpus of");
    for (size_t i = 0; i < n && code == TTMM_OK; i++) code = add_file(&d, (int)i, path[i], err);
    if (code == TTMM_OK) code = fill_corpus(c, &d, path, n, (size_t)context, err);
    free(d.list.token);
    free(d.document);
    if (code) ttmm_corpus_free(c);
    return code;
}

int ttmm_corpus_from_files(ttmm_corpus *c, const ttmm_tokenizer *tokenizer, const char *const *path, size_t n,
                           int context, ttmm_error *err)
{
    return build_corpus(c, tokenizer, 0, path, n, context, err);
}

int ttmm_corpus_from_ids(ttmm_corpus *c, int vocab, const char *const *path, size_t n, int context, ttmm_error *err)
{
    return build_corpus(c, NULL, vocab, path, n, context, err);
}

void ttmm_corpus_free(ttmm_corpus *c)
{
    unmap_files(c->files);
    TTMM_FREE(c->files);
    TTMM_FREE(c->block);
    TTMM_FREE(c->embedding_block);
    memset(c, 0, sizeof *c);
}

/* A row that has no direction leaves the corpus without embeddings. */
int ttmm_corpus_set_embeddings(ttmm_corpus *c, const real *rows, size_t dim, ttmm_error *err)
{
    int code = allocate_embeddings(c, c->n_sequences, dim, 0, err);
    if (code) return code;
    memcpy(c->embedding, rows, c->n_sequences * dim * sizeof(real));
    for (size_t i = 0; i < c->n_sequences; i++)
        if (!normalise(c->embedding + i * dim, dim)) {
            c->dim = 0;
            return fail(err, TTMM_BAD_INPUT, "embedding %zu is zero or not finite, expected a direction", i);
        }
    return TTMM_OK;
}

/* ==== 15. JSON, numbers in files, safetensors ========================================================================
 *
 * JSON (RFC 8259, and as Python writes it: NaN, Infinity) is parsed into a flat array of nodes, the escapes of its
 * strings resolved where they stand: a key is the text that it spells. Refused: what is no object at its root, more
 * than DEEPEST levels, an object with a key twice (Python takes the last, others the first) or with many keys made to
 * have one hash, a byte-order mark, control characters in strings, anything after the end. What is not looked at is not
 * judged: numbers are checked where they are read, and the text need not be UTF-8.
 *
 * safetensors (https://github.com/huggingface/safetensors, "Format") is a header and numbers:
 *
 *   byte   0   8        8 + H                    the end
 *          | H | header | tensor | tensor |  ...  |
 *
 *   H        8 bytes, the header's length; little-endian, as all numbers of the file
 *   header   JSON: {"__metadata__": {"format": "pt", "ttmm": NOTE},
 *                   NAME: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
 *            and, as written here, blanks up to a multiple of 8 bytes
 *   tensor   row-major, from byte 8 + H + the first of its data_offsets to before the second; as written here, in the
 *            header's order and without gaps
 *
 * Refused when reading: a header of more than MOST_HEADER bytes or past the end, data_offsets that do not fit the shape
 * or end past the file, two tensors of one name or that overlap, bytes that belong to no tensor (as in the safetensors
 * library). A tensor of a type that is not in dtype_table, of more than MOST_DIMS dimensions, or of more numbers than a
 * machine of 32 bits can address, is refused only where it is read. */

/* An object's children are key, value, key, value ... */
typedef struct {
    char type;         /* { [ " 0 (a number) t f n */
    int object;        /* of a key: whose it is */
    size_t start, end; /* in the text; a string's with its quotes */
    int next, child;   /* the next sibling and the first child, -1: none */
} json_node;

typedef struct {
    char path[PATH_BYTES]; /* for sentences */
    char *text;            /* [bytes + 1], a zero byte at the end */
    size_t bytes, at;      /* at: where the parser is */
    json_node *node;       /* [n], room for more; the root is node 0, */
    char root;             /* a list if this is [, else an object */
    size_t room;
    int n;
    int *key; /* [key_room] hash table of all keys by object and text; 0: empty */
    size_t key_room;
} json;

static void json_close(json *j)
{
    free(j->text);
    free(j->node);
    free(j->key);
    j->text = NULL, j->node = NULL, j->key = NULL;
}

static void json_blank(json *j) { j->at += strspn(j->text + j->at, " \t\r\n"); }

/* Four hexadecimal digits. 0: they are not there. (sscanf may look for the end of the whole text first.) */
static int json_hex(const char *p, unsigned *code)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    *code = 0;
    for (int i = 0; i < 4; i++) {
        const char *digit = memchr(digits, p[i], sizeof digits - 1);
        if (digit == NULL) return 0;
        *code = 16 * *code + (unsigned)(digit - digits) - (digit - digits < 16 ? 0 : 6);
    }
    return 1;
}

/* At the opening quote; leaves j->at after the closing one. Escapes become what they stand for (half a surrogate pair
 * U+FFFD), which is never longer: the closing quote moves up, and blanks fill the gap. Returns where the string ends
 * now; 0: it is no string. */
static size_t json_string(json *j)
{
    static const char escapes[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    char *to = j->text + j->at + 1;
    const char *p = to;
    while (*p != '"') {
        unsigned code, low;
        if ((unsigned char)*p < 0x20) return 0; /* among these the zero byte at the end */
        if (*p != '\\') {
            *to++ = *p++;
            continue;
        }
        const char *known = memchr(escapes, p[1], sizeof escapes - 1);
        if (known && (known - escapes) % 2 == 0) *to++ = known[1], p += 2;
        else if (p[1] == 'u' && json_hex(p + 2, &code)) {
            p += 6;
            if (code >> 10 == 0x36 && p[0] == '\\' && p[1] == 'u' && json_hex(p + 2, &low) && low >> 10 == 0x37)
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00), p += 6;
            to += utf8_put(to, code >= 0xd800 && code < 0xe000 ? 0xfffd : code);
        } else return 0;
    }
    j->at = (size_t)(p - j->text) + 1;
    *to++ = '"';
    memset(to, ' ', (size_t)(p + 1 - to));
    return (size_t)(to - j->text);
}

/* Parse one value; returns its node, -1 if the text is not JSON, -2 if there is no memory. It calls itself for what is
 * inside: DEEPEST ends that before the stack does (the files read here have up to 6 levels). A quarter of INT_MAX, of
 * the nodes, leaves their numbers far from overflow; a tokenizer.json of 100 MB has some ten millions. */
enum { DEEPEST = 64 };
static int json_value(json *j, int depth)
{
    json_blank(j);
    if (depth > DEEPEST) return -1;
    json_node *nodes = j->n < INT_MAX / 4 ? grow(j->node, &j->room, (size_t)j->n + 1, sizeof *nodes) : NULL;
    if (nodes == NULL) return -2;
    j->node = nodes;
    const int self = j->n++;
    const char first = j->text[j->at];
    nodes[self] = (json_node){first, 0, j->at, 0, -1, -1};
    if (first == '{' || first == '[') {
        const char close = first == '{' ? '}' : ']';
        int last = -1;
        j->at++;
        json_blank(j);
        for (size_t count = 0; last >= 0 || j->text[j->at] != close; count++) {
            const int key = first == '{' && count % 2 == 0;
            if (key && j->text[j->at] != '"') return -1;
            const int child = json_value(j, depth + 1);
            if (child < 0) return child;
            if (key) j->node[child].object = self;
            if (last < 0) j->node[self].child = child;
            else j->node[last].next = child;
            last = child;
            json_blank(j);
            if (!key && j->text[j->at] == close) break;
            if (j->text[j->at] != (key ? ':' : ',')) return -1;
            j->at++;
            json_blank(j);
        }
        j->at++;
    } else if (first == '"') {
        const size_t end = json_string(j);
        j->node[self].end = end;
        return end ? self : -1;
    } else {
        static const char *const words[] = {"true", "false", "null", "NaN", "Infinity", "-Infinity"};
        size_t w = 0;
        while (w < 6 && strncmp(j->text + j->at, words[w], strlen(words[w])) != 0) w++;
        if (w == 6 && first != '-' && (first < '0' || first > '9')) return -1;
        if (w >= 3) nodes[self].type = '0';
        j->at += w < 6 ? strlen(words[w]) : strspn(j->text + j->at, "+-0123456789.eE");
    }
    j->node[self].end = j->at;
    return self;
}

/* A node may be -1 everywhere: what is not there has no type, no children, no key. */
static char json_type(const json *j, int node) { return node < 0 ? 0 : j->node[node].type; }
static int json_child(const json *j, int node) { return node < 0 ? -1 : j->node[node].child; }
static int json_next_key(const json *j, int key) { return j->node[j->node[key].next].next; }

/* A list's nodes one after the other, or the only one where there is no list. */
static int json_first(const json *j, int node) { return json_type(j, node) == '[' ? json_child(j, node) : node; }
static int json_after(const json *j, int node, int i) { return i == node ? -1 : j->node[i].next; }

/* Children of a list, or pairs of an object. */
static size_t json_count(const json *j, int node)
{
    size_t n = 0;
    for (int i = json_child(j, node); i >= 0; i = j->node[i].next) n++;
    return json_type(j, node) == '{' ? n / 2 : n;
}

/* What stands at a node, for a sentence: its first bytes, on one line. */
static const char *json_shown(char out[64], const json *j, int node)
{
    if (node < 0) return "missing";
    const char *p = j->text + j->node[node].start, *end = j->text + j->node[node].end;
    size_t n = 0;
    for (; p < end && n < 60; p++) {
        const int blank = (unsigned char)*p <= ' ';
        if (!blank || (n > 0 && out[n - 1] != ' ')) out[n++] = blank ? ' ' : *p;
    }
    snprintf(out + n, 64 - n, "%s", p < end ? "..." : "");
    return out;
}

/* The places of a hash table of n: a power of 2, half of them stay empty. */
static size_t table_room(size_t n)
{
    size_t room = 16;
    while (room < 2 * n) room *= 2;
    return room;
}

/* FNV-1's multiplier; h: of what stands before s [n]. To be mixed, as the tables here take the lowest bits. */
static uint64_t hash_bytes(uint64_t h, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3;
    return h;
}

/* The place in the table of the object's key of that text, or the empty one where it belongs. With half of the places
 * empty it is not far from where it is looked for first; where somebody chose keys for which it is, reading would take
 * time in proportion to the square of their number: NULL. */
enum { FARTHEST = 1000 };
static int *json_place(const json *j, int object, const char *text, size_t n)
{
    const size_t first = (size_t)mix_bits(hash_bytes((uint64_t)object + n, text, n));
    for (size_t i = 0; i < FARTHEST; i++) {
        int *place = &j->key[(first + i) & (j->key_room - 1)];
        const json_node *key = &j->node[*place];
        if (*place == 0 ||
            (key->object == object && key->end - key->start - 2 == n && memcmp(j->text + key->start + 1, text, n) == 0))
            return place;
    }
    return NULL;
}

/* The table. No object may have a key twice: its readers differ in which one counts. */
static int json_keys(json *j, ttmm_error *err)
{
    size_t keys = 0;
    char shown[64];
    for (int i = 0; i < j->n; i++) keys += json_type(j, i) == '{' ? json_count(j, i) : 0;
    j->key_room = table_room(keys);
    j->key = calloc(j->key_room, sizeof *j->key);
    if (j->key == NULL) return fail(err, TTMM_NO_ROOM, "%s: out of memory for its keys", j->path);
    for (int i = 0; i < j->n; i++)
        for (int key = json_type(j, i) == '{' ? json_child(j, i) : -1; key >= 0; key = json_next_key(j, key)) {
            const json_node *k = &j->node[key];
            int *place = json_place(j, i, j->text + k->start + 1, k->end - k->start - 2);
            if (place == NULL || *place)
                return refuse(err, j->path, place ? "has the key %s twice in one object" : "has too many keys like %s",
                              json_shown(shown, j, key));
            *place = key;
        }
    return TTMM_OK;
}

/* path, text and bytes are there, all else is zero. */
static int json_parse(json *j, ttmm_error *err)
{
    if (strncmp(j->text, "\xef\xbb\xbf", 3) == 0)
        return refuse(err, j->path, "is not JSON: it begins with a byte-order mark, expected {");
    int root = json_value(j, 0);
    json_blank(j);
    if (root == -2) return fail(err, TTMM_NO_ROOM, "%s: out of memory while reading its JSON", j->path);
    if (root != 0 || j->node[0].type != (j->root == '[' ? '[' : '{') || j->at < j->bytes)
        return refuse(err, j->path, "is not a JSON %s: stopped at byte %zu", j->root == '[' ? "list" : "object", j->at);
    return json_keys(j, err);
}

/* Read and parse a file. j is to be closed, even if that fails. */
static int json_open_as(json *j, const char *folder, const char *name, char root, ttmm_error *err)
{
    memset(j, 0, sizeof *j);
    j->root = root;
    int code = join_path(j->path, folder, name, err);
    if (code == TTMM_OK) code = read_whole_file(&j->text, &j->bytes, j->path, err);
    return code ? code : json_parse(j, err);
}

static int json_open(json *j, const char *folder, const char *name, ttmm_error *err)
{
    return json_open_as(j, folder, name, '{', err);
}

/* The same of a file in memory: of a copy, as escapes are resolved in it. */
static int json_of(json *j, const ttmm_file *file, ttmm_error *err)
{
    memset(j, 0, sizeof *j);
    const int code = join_path(j->path, NULL, file->name, err);
    if (code) return code;
    j->text = file->bytes < SIZE_MAX ? malloc(file->bytes + 1) : NULL;
    if (j->text == NULL) return fail(err, TTMM_NO_ROOM, "%s: out of memory for a copy", j->path);
    memcpy(j->text, file->data, file->bytes);
    j->text[j->bytes = file->bytes] = 0;
    return json_parse(j, err);
}

/* Whether a node is that string. */
static int json_equal(const json *j, int node, const char *word)
{
    if (json_type(j, node) != '"') return 0;
    const json_node *s = &j->node[node];
    return s->end - s->start - 2 == strlen(word) && memcmp(j->text + s->start + 1, word, strlen(word)) == 0;
}

/* The value of a key, or -1. */
static int json_key(const json *j, int object, const char *name)
{
    const int *place = json_type(j, object) == '{' ? json_place(j, object, name, strlen(name)) : NULL;
    return place && *place ? j->node[*place].next : -1;
}

/* The same; null counts as absent. */
static int json_find(const json *j, int object, const char *name)
{
    const int value = json_key(j, object, name);
    return json_type(j, value) == 'n' ? -1 : value;
}

/* Whether a key's value is true. */
static int json_true(const json *j, int object, const char *key)
{
    return json_type(j, json_find(j, object, key)) == 't';
}

/* A string's text, cut to size - 1 bytes at the border of a character, and a zero byte. Returns its whole length; 0 if
 * the node is no string. */
static size_t json_text(char *out, size_t size, const json *j, int node)
{
    const size_t n = json_type(j, node) == '"' ? j->node[node].end - j->node[node].start - 2 : 0;
    const char *text = n ? j->text + j->node[node].start + 1 : "";
    size_t kept = n < size ? n : size - 1;
    while (kept < n && kept > 0 && ((unsigned char)text[kept] & 0xc0) == 0x80) kept--;
    memcpy(out, text, kept);
    out[kept] = 0;
    return n;
}

/* "PATH: WHAT is ..., expected EXPECTED" */
static int json_refuse(const json *j, const char *what, int node, const char *expected, ttmm_error *err)
{
    char shown[64];
    return refuse(err, j->path, "%s is %s, expected %s", what, json_shown(shown, j, node), expected);
}

/* A string in place: a zero byte takes its closing quote's. */
static const char *json_name(const json *j, int node)
{
    j->text[j->node[node].end - 1] = 0;
    return j->text + j->node[node].start + 1;
}

/* Numbers have a point in files and options. strtod and snprintf have what the locale has that a host program set: 0,5,
 * or the two bytes of U+066B. It is all that snprintf puts between two digits. */

/* Whether the n bytes of text, where it may go on, are a finite number. 1,100 hold any double in full. */
static int read_number(double *x, const char *text, size_t n)
{
    char half[32], copy[1200], *end;
    if (n == 0 || n > 1100 || strspn(text, "+-0123456789.eE") < n) return 0;
    const char *point = memchr(text, '.', n);
    const size_t whole = point ? (size_t)(point - text) : n, rest = point ? whole + 1 : n;
    half[snprintf(half, sizeof half, "%.1f", 0.5) - 1] = 0;
    snprintf(copy, sizeof copy, "%.*s%s%.*s", (int)whole, text, point ? half + 1 : "", (int)(n - rest), text + rest);
    *x = strtod(copy, &end);
    return *end == 0 && *x - *x == 0;
}

/* A number in the fewest digits that read back as x; 17 always do. */
static const char *shortest(char text[32], double x)
{
    double back;
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, x);
        char *point = text + strspn(text, "-0123456789");
        const size_t n = strcspn(point, "0123456789e");
        if (n) *point = '.', memmove(point + 1, point + n, strlen(point + n) + 1);
        if (read_number(&back, text, strlen(text)) && back == x) break;
    }
    return text;
}

/* Whether a node is a finite number, read whole. */
static int json_number(const json *j, int node, double *x)
{
    if (json_type(j, node) != '0') return 0;
    return read_number(x, j->text + j->node[node].start, j->node[node].end - j->node[node].start);
}

/* Whether a node is a number of digits alone that fits. */
static int json_integer(const json *j, int node, uint64_t *x)
{
    if (json_type(j, node) != '0') return 0;
    *x = 0;
    for (size_t i = j->node[node].start; i < j->node[node].end; i++) {
        unsigned digit = (unsigned)(j->text[i] - '0');
        if (digit > 9 || *x > (UINT64_MAX - digit) / 10) return 0;
        *x = 10 * *x + digit;
    }
    return 1;
}

/* What is refused by name. table: keys of the root, and what their values must be, in words that a sentence can hold: a
 * value that stands among them as it is spelled is fine; so is one that is absent, a list or an object or a number if
 * the words say so, always an empty list, and {} if it is among them. All other keys are ignored, or known to those who
 * read them. */
static int check_values(const json *j, const char *const table[][2], size_t n, ttmm_error *err)
{
    for (size_t i = 0; i < n; i++)
        for (const char *p = table[i][0]; *p; p += strspn(p, " ")) {
            char key[40], shown[64];
            snprintf(key, sizeof key, "%.*s", (int)strcspn(p, " "), p);
            p += strlen(key);
            const int node = json_find(j, 0, key), type = json_type(j, node);
            const char *word = type == '[' ? "list" : type == '{' ? "object" : type == '0' ? "number" : NULL;
            if (node < 0 || (type == '[' && json_child(j, node) < 0)) continue;
            if (type == '{' && json_child(j, node) < 0 && strstr(table[i][1], "{}")) continue;
            if (strstr(table[i][1], word ? word : json_shown(shown, j, node)) == NULL)
                return json_refuse(j, key, node, table[i][1], err);
        }
    return TTMM_OK;
}

/* Types of numbers. Their order counts: those of floating point come first, from the finest to the coarsest; then whole
 * numbers with a sign, then those without. */
enum { F64 = TTMM_F64, F32 = TTMM_F32, F16 = TTMM_F16, BF16 = TTMM_BF16, I64, I32, I16, I8, U64, U32, U16, U8, YESNO };
enum { DTYPES = YESNO + 1 }; /* YESNO is BOOL in a file, a name that Windows has for something else */
static const struct {
    const char *name, *torch;
    size_t bytes;
    int digits, least; /* of a floating-point type: bits of the significand, exponent of the smallest number */
} dtype_table[DTYPES] = {
    {"F64", "float64", 8, 53, -1074}, {"F32", "float32", 4, 24, -149}, {"F16", "float16", 2, 11, -24},
    {"BF16", "bfloat16", 2, 8, -133}, {"I64", "int64", 8, 0, 0},       {"I32", "int32", 4, 0, 0},
    {"I16", "int16", 2, 0, 0},        {"I8", "int8", 1, 0, 0},         {"U64", "uint64", 8, 0, 0},
    {"U32", "uint32", 4, 0, 0},       {"U16", "uint16", 2, 0, 0},      {"U8", "uint8", 1, 0, 0},
    {"BOOL", "bool", 1, 0, 0},
};

/* Byte by byte, so that the machine's own order does not matter. */
static uint64_t load_bytes(const unsigned char *p, size_t bytes)
{
    uint64_t u = 0;
    for (size_t i = 0; i < bytes; i++) u |= (uint64_t)p[i] << 8 * i;
    return u;
}

static void store_bytes(unsigned char *p, uint64_t u, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) p[i] = (unsigned char)(u >> 8 * i);
}

static double float_from_bits(uint64_t u)
{
    uint32_t bits = (uint32_t)u;
    float x;
    memcpy(&x, &bits, sizeof x);
    return (double)x;
}

static uint64_t float_to_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* A stored whole number with a sign: its upper bit counts negative. */
static int64_t signed_number(uint64_t u, int dtype)
{
    const uint64_t top = (uint64_t)1 << (8 * dtype_table[dtype].bytes - 1);
    return (int64_t)((u ^ top) - top);
}

/* A stored number's value; of a whole number past 2^53 the nearest double. BF16 is the upper half of a float. */
static double decode_number(uint64_t u, int dtype)
{
    switch (dtype) {
    case F64: return from_bits(u);
    case F32: return float_from_bits(u);
    case BF16: return float_from_bits(u << 16);
    case F16: { /* 5 exponent bits, 10 fraction bits */
        uint64_t sign = u >> 15, exponent = u >> 10 & 31, fraction = u & 1023;
        double x = exponent == 0    ? (double)fraction * 0x1p-24
                   : exponent == 31 ? (fraction ? NAN : INFINITY)
                                    : from_bits((exponent + 1008) << 52 | fraction << 42);
        return sign ? -x : x;
    }
    default: return dtype >= I64 && dtype <= I8 ? (double)signed_number(u, dtype) : (double)u;
    }
}

/* The unit in the last place of x as a floating-point type has it: 2^(e - digits + 1) with 2^e <= |x| < 2^(e+1), and
 * no less than the type's smallest number. */
static double ulp_of(double x, int dtype)
{
    const int digits = dtype_table[dtype].digits, least = dtype_table[dtype].least;
    int e;
    frexp(x, &e); /* x = m 2^e, 1/2 <= |m| < 1 */
    return ldexp(1, x == 0 || e - digits < least ? least : e - digits);
}

/* x as F16 or BF16: rounded to nearest, ties to even; too large is infinity. */
static uint64_t encode_half(double x, int dtype)
{
    const uint64_t sign = to_bits(x) >> 63 << 15;
    const double size = fabs(x), ulp = size - size == 0 ? ulp_of(size, dtype) : 1;
    double rounded = size - size == 0 ? ((size / ulp + ROUND) - ROUND) * ulp : size; /* size / ulp < 2^11 is exact */
    if (dtype == BF16) return sign | float_to_bits((float)rounded) >> 16;            /* exact, or infinity */
    if (!(rounded < 65536)) return sign | (rounded == rounded ? 0x7c00 : 0x7e00);
    if (rounded < 0x1p-14) return sign | (uint64_t)(rounded * 0x1p24);
    return sign | ((to_bits(rounded) >> 42) - ((uint64_t)(1023 - 15) << 10));
}

/* What is stored of number i of data, which are in memory reals (F64, F32, F16, BF16: whatever a real is), size_t
 * (I64), int (I32) or bytes (U8). */
static uint64_t encode_number(const void *data, size_t i, int dtype)
{
    switch (dtype) {
    case F64: return to_bits((double)((const real *)data)[i]);
    case F32: return float_to_bits((float)((const real *)data)[i]);
    case F16:
    case BF16: return encode_half((double)((const real *)data)[i], dtype);
    case I64: return (uint64_t)((const size_t *)data)[i];
    case I32: return (uint32_t)((const int *)data)[i];
    default: return ((const unsigned char *)data)[i];
    }
}

/* One tensor of a safetensors file. */
enum { MOST_DIMS = 8 }; /* four is usual; only compare takes more than two */
typedef struct {
    const char *name; /* when reading, in the header */
    int dtype, n_dims;
    size_t dim[MOST_DIMS]; /* 1 from n_dims on */
    const void *data;      /* where it is in memory, as encode_number says: to be written, or read into */
    uint64_t begin, end;   /* when reading: its place in the file */
    int entry;             /* and its node in the header */
} stored;

/* cols 0: a vector; name stays the caller's */
static stored store(const char *name, int dtype, size_t rows, size_t cols, const void *data)
{
    return (stored){name, dtype, cols ? 2 : 1, {rows, cols ? cols : 1, 1, 1, 1, 1, 1, 1}, data, 0, 0, 0};
}

/* Its numbers, if it has no more than MOST_DIMS dimensions; SIZE_MAX: more than this machine can address. */
static size_t count_of(const stored *t)
{
    size_t n = 1;
    for (int d = 0; d < t->n_dims; d++) n = mul_size(n, t->dim[d]);
    return n;
}

/* A JSON string's inside: quotes, backslashes and control characters as a backslash and u00XX. */
static void put_escaped(FILE *f, const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == '"' || *text == '\\') fprintf(f, "\\u%04x", (unsigned char)*text);
        else fputc(*text, f);
}

/* Write a file. The header's length is known when the header is there, and filled in then. Numbers go through a
 * buffer, as a call of fwrite for each is slow: a few pages, and a multiple of every type's width. */
static int write_safetensors(const char *folder, const char *name, const stored *tensor, size_t n, const char *note,
                             ttmm_error *err)
{
    enum { BUFFER = 8192 };
    unsigned char buffer[BUFFER] = {0};
    output o;
    uint64_t offset = 0;
    int code = output_open(&o, folder, name, err);
    if (code) return code;
    fwrite(buffer, 1, 8, o.f);
    fputs("{\"__metadata__\":{\"format\":\"pt\",\"ttmm\":\"", o.f);
    put_escaped(o.f, note);
    fputs("\"}", o.f);
    for (size_t i = 0; i < n; i++) {
        const stored *t = &tensor[i];
        const uint64_t from = offset;
        offset += (uint64_t)count_of(t) * dtype_table[t->dtype].bytes;
        fputs(",\"", o.f);
        put_escaped(o.f, t->name);
        fprintf(o.f, "\":{\"dtype\":\"%s\",\"shape\":[%zu", dtype_table[t->dtype].name, t->dim[0]);
        if (t->n_dims == 2) fprintf(o.f, ",%zu", t->dim[1]);
        fprintf(o.f, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)from, (unsigned long long)offset);
    }
    fputc('}', o.f);
    int64_t header = tell_file(o.f) - 8;
    for (; header % 8 != 0; header++) fputc(' ', o.f);
    store_bytes(buffer, (uint64_t)header, 8);
    if (header < 0 || seek_file(o.f, 0, SEEK_SET) != 0 || fwrite(buffer, 1, 8, o.f) != 8 ||
        seek_file(o.f, 0, SEEK_END) != 0)
        return output_failed(&o, err);
    for (size_t i = 0; i < n; i++) {
        const size_t width = dtype_table[tensor[i].dtype].bytes, count = count_of(&tensor[i]);
        for (size_t k = 0; k < count;) {
            size_t filled = 0;
            for (; k < count && filled + width <= BUFFER; k++, filled += width)
                store_bytes(buffer + filled, encode_number(tensor[i].data, k, tensor[i].dtype), width);
            if (fwrite(buffer, 1, filled, o.f) != filled) return output_failed(&o, err);
        }
    }
    return output_close(&o, err);
}

/* A safetensors file open for reading. */
typedef struct {
    json j;                 /* the header, and the file's path */
    FILE *f;                /* or NULL: it is in memory, */
    const char *data;       /* there, */
    uint64_t bytes, at;     /* read up to `at` */
    stored *tensor;         /* [n] in the header's order */
    const stored **by_name; /* [n] for find_tensor */
    size_t n;
} safetensors;

static void close_safetensors(safetensors *s)
{
    if (s->f) fclose(s->f);
    json_close(&s->j);
    free(s->tensor);
    free(s->by_name);
    memset(s, 0, sizeof *s);
}

/* For qsort, of pointers to tensors. */
static int by_begin(const void *a, const void *b)
{
    const stored *x = *(const stored *const *)a, *y = *(const stored *const *)b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > x->begin) - (y->end > y->begin); /* an empty one overlaps nothing */
}

static int by_name(const void *a, const void *b) /* of one name, as in the header */
{
    const stored *x = *(const stored *const *)a, *y = *(const stored *const *)b;
    const int order = strcmp(x->name, y->name);
    return order ? order : (x > y) - (x < y);
}

/* What a tensor's type and shape are in the header, "F32 [3, 4]", cut to the room there is. */
static const char *describe(char out[80], const json *j, const stored *t)
{
    char type[20];
    json_text(type, sizeof type, j, json_find(j, t->entry, "dtype"));
    int n = snprintf(out, 80, "%s [", type);
    for (int d = json_child(j, json_find(j, t->entry, "shape")); d >= 0 && n < 80; d = j->node[d].next)
        n += snprintf(out + n, 80 - (size_t)n, "%.*s%s", (int)(j->node[d].end - j->node[d].start),
                      j->text + j->node[d].start, j->node[d].next >= 0 ? ", " : "");
    if (n < 79) snprintf(out + n, 80 - (size_t)n, "]");
    return out;
}

/* Whether its numbers can be read; else its type is none of dtype_table, it has too many dimensions, or on a machine of
 * 32 bits too many numbers. */
static int is_known(const stored *t) { return t->dtype < DTYPES && t->n_dims <= MOST_DIMS && count_of(t) < SIZE_MAX; }

/* Read one entry of the header into t, which is zeroed. */
static int read_entry(json *j, int key, stored *t, ttmm_error *err)
{
    const int value = t->entry = j->node[key].next, dtype = json_find(j, value, "dtype");
    const int shape = json_find(j, value, "shape"), offsets = json_find(j, value, "data_offsets");
    uint64_t size = 1;
    t->name = json_name(j, key);
    if (strlen(t->name) != j->node[key].end - j->node[key].start - 2)
        return refuse(err, j->path, "the name of tensor %s has a zero byte", t->name);
    while (t->dtype < DTYPES && !json_equal(j, dtype, dtype_table[t->dtype].name)) t->dtype++;
    if (json_type(j, dtype) != '"') return refuse(err, j->path, "tensor %s has no dtype", t->name);
    for (int d = 0; d < MOST_DIMS; d++) t->dim[d] = 1;
    const int are_lists = json_type(j, shape) == '[' && json_type(j, offsets) == '[';
    for (int d = are_lists ? json_child(j, shape) : -1; d >= 0; d = j->node[d].next) {
        uint64_t dim = 0;
        if (!json_integer(j, d, &dim) || (dim && size > UINT64_MAX / 16 / dim) || dim > UINT64_MAX / 16)
            return refuse(err, j->path, "tensor %s has a shape that is not of numbers, or too large a one", t->name);
        if (t->n_dims < MOST_DIMS) t->dim[t->n_dims] = dim < SIZE_MAX ? (size_t)dim : SIZE_MAX;
        t->n_dims++;
        size *= dim;
    }
    const int from = are_lists ? json_child(j, offsets) : -1, to = from < 0 ? -1 : j->node[from].next;
    if (to < 0 || j->node[to].next >= 0 || !json_integer(j, from, &t->begin) || !json_integer(j, to, &t->end) ||
        t->end < t->begin || (t->dtype < DTYPES && t->end - t->begin != size * dtype_table[t->dtype].bytes))
        return refuse(err, j->path, "tensor %s has data_offsets that do not fit its shape", t->name);
    return TTMM_OK;
}

/* The next n bytes; 0: they are not there, or cannot be read. */
static int next_bytes(safetensors *s, void *to, size_t n)
{
    if (s->f) return fread(to, 1, n, s->f) == n;
    if (s->at > s->bytes || n > s->bytes - s->at) return 0;
    memcpy(to, s->data + s->at, n);
    s->at += n;
    return 1;
}

static int seek_to(safetensors *s, uint64_t at)
{
    return s->at = at, s->f == NULL || seek_file(s->f, at, SEEK_SET) == 0;
}

/* Open the file of that path: its size. */
static int open_sized(safetensors *s, ttmm_error *err)
{
    const char *path = s->j.path;
    s->f = ttmm_open(path, "rb");
    if (s->f == NULL) return refuse(err, path, "cannot be opened: %s", reason(errno));
    const int64_t size = seek_file(s->f, 0, SEEK_END) == 0 ? tell_file(s->f) : -1;
    if (size < 0 || size == INT64_MAX || !seek_to(s, 0))
        return refuse(err, path, "is not a regular file"); /* a folder */
    s->bytes = (uint64_t)size;
    return TTMM_OK;
}

/* Parse its header. *data: how many bytes are after it. */
enum { MOST_HEADER = 100000000 }; /* as the safetensors library has it */
static int read_header(safetensors *s, uint64_t *data, ttmm_error *err)
{
    unsigned char first[8];
    json *j = &s->j;
    const char *path = j->path;
    const unsigned long long bytes = s->bytes;
    if (!next_bytes(s, first, 8)) return refuse(err, path, "is not a safetensors file: it has %llu bytes", bytes);
    const uint64_t length = load_bytes(first, 8);
    if (length > s->bytes - 8 || length > MOST_HEADER)
        return refuse(err, path, "is not a safetensors file, or cut short: a header of %llu bytes in %llu",
                      (unsigned long long)length, bytes);
    *data = s->bytes - 8 - length;
    j->bytes = (size_t)length;
    j->text = calloc(j->bytes + 1, 1);
    if (j->text == NULL) return fail(err, TTMM_NO_ROOM, "%s: out of memory for its header", path);
    if (!next_bytes(s, j->text, j->bytes)) return refuse(err, path, "its header cannot be read");
    return json_parse(j, err);
}

/* The tensors that the header lists; there are `data` bytes of numbers. */
static int read_entries(safetensors *s, uint64_t data, ttmm_error *err)
{
    json *j = &s->j;
    const size_t most = json_count(j, 0);
    s->tensor = calloc(most + 1, sizeof *s->tensor);
    if (s->tensor == NULL) return fail(err, TTMM_NO_ROOM, "%s: out of memory for %zu tensors", j->path, most);
    for (int key = json_child(j, 0); key >= 0; key = json_next_key(j, key)) {
        if (json_equal(j, key, "__metadata__")) continue;
        stored *t = &s->tensor[s->n++];
        int code = read_entry(j, key, t, err);
        if (code) return code;
        if (t->end > data)
            return refuse(err, j->path, "tensor %s ends at byte %llu of the data, which has %llu: cut short?", t->name,
                          (unsigned long long)t->end, (unsigned long long)data);
        t->begin += 8 + j->bytes, t->end += 8 + j->bytes;
    }
    return TTMM_OK;
}

/* Each of the `data` bytes must belong to one tensor. Leaves the tensors sorted by name. */
static int check_entries(safetensors *s, uint64_t data, ttmm_error *err)
{
    const stored **order = s->by_name = calloc(s->n + 1, sizeof *order);
    int code = TTMM_OK;
    uint64_t end = 8 + s->j.bytes;
    data += end;
    if (order == NULL) return fail(err, TTMM_NO_ROOM, "%s: out of memory", s->j.path);
    for (size_t i = 0; i < s->n; i++) order[i] = &s->tensor[i];
    qsort(order, s->n, sizeof *order, by_begin);
    for (size_t i = 0; i < s->n && code == TTMM_OK; i++) {
        if (order[i]->begin < end)
            code = refuse(err, s->j.path, "tensors %s and %s overlap", order[i - 1]->name, order[i]->name);
        else if (order[i]->begin > end)
            code = refuse(err, s->j.path, "the %llu bytes before tensor %s belong to none",
                          (unsigned long long)(order[i]->begin - end), order[i]->name);
        end = order[i]->end;
    }
    if (code == TTMM_OK && end < data)
        code = refuse(err, s->j.path, "the last %llu bytes belong to no tensor", (unsigned long long)(data - end));
    qsort(order, s->n, sizeof *order, by_name);
    return code;
}

/* Check all that its header says. If that fails s is closed. */
static int check_header(safetensors *s, ttmm_error *err)
{
    uint64_t data = 0;
    int code = read_header(s, &data, err);
    if (code == TTMM_OK) code = read_entries(s, data, err);
    if (code == TTMM_OK) code = check_entries(s, data, err);
    if (code) close_safetensors(s);
    return code;
}

/* Open a file. s is to be closed if that succeeds, and may be if it fails. */
static int open_safetensors(safetensors *s, const char *folder, const char *name, ttmm_error *err)
{
    memset(s, 0, sizeof *s);
    int code = join_path(s->j.path, folder, name, err);
    if (code == TTMM_OK) code = open_sized(s, err);
    if (code) close_safetensors(s);
    return code ? code : check_header(s, err);
}

static int safetensors_of(safetensors *s, const ttmm_file *file, ttmm_error *err)
{
    *s = (safetensors){.data = file->data, .bytes = file->bytes};
    const int code = join_path(s->j.path, NULL, file->name, err);
    return code ? code : check_header(s, err);
}

/* The first of that name, by halving. */
static const stored *find_tensor(const safetensors *s, const char *name)
{
    size_t low = 0, high = s->n;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (strcmp(s->by_name[middle]->name, name) < 0) low = middle + 1;
        else high = middle;
    }
    return low < s->n && strcmp(s->by_name[low]->name, name) == 0 ? s->by_name[low] : NULL;
}

/* The next numbers of the tensor that the file stands at, as they are stored: raw [n], n <= CHUNK, the numbers that are
 * read at a time: 16 KiB of the stack. */
enum { CHUNK = 1024 };
static int read_raw(safetensors *s, const stored *t, uint64_t *raw, size_t n, ttmm_error *err)
{
    unsigned char buffer[8 * CHUNK];
    const size_t width = dtype_table[t->dtype].bytes;
    if (!next_bytes(s, buffer, width * n)) return refuse(err, s->j.path, "tensor %s cannot be read", t->name);
    if (width == 4) /* a width that is known is one load to a compiler */
        for (size_t i = 0; i < n; i++) raw[i] = load_bytes(buffer + i * 4, 4);
    else if (width == 2)
        for (size_t i = 0; i < n; i++) raw[i] = load_bytes(buffer + i * 2, 2);
    else
        for (size_t i = 0; i < n; i++) raw[i] = load_bytes(buffer + i * width, width);
    return TTMM_OK;
}

/* To its first number; read_raw goes on from there. */
static int seek_tensor(safetensors *s, const stored *t, ttmm_error *err)
{
    return seek_to(s, t->begin) ? TTMM_OK : refuse(err, s->j.path, "cannot be read");
}

/* Read all of t into data, as reals (finite ones), ints or size_t: `as` is TTMM_REAL, I32, I64 or U8. Floating-point
 * types are converted into each other, whole numbers (none negative) into each other. */
static int read_numbers(safetensors *s, const stored *t, void *data, int as, ttmm_error *err)
{
    uint64_t raw[CHUNK];
    char shown[80];
    if (!is_known(t) || (as >= I64) != (t->dtype >= I64) || (as == U8) != (t->dtype == U8))
        return refuse(err, s->j.path, "tensor %s is %s, expected %s", t->name, describe(shown, &s->j, t),
                      as >= I64 ? dtype_table[as].name : "floating-point numbers");
    const size_t count = count_of(t);
    int code = seek_tensor(s, t, err);
    for (size_t k = 0; k < count && code == TTMM_OK;) {
        const size_t n = count - k < CHUNK ? count - k : CHUNK;
        if ((code = read_raw(s, t, raw, n, err)) != TTMM_OK) return code;
        for (size_t i = 0; i < n; i++, k++) {
            if (as == U8) ((char *)data)[k] = (char)(unsigned char)raw[i];
            else if (as == I32 || as == I64) {
                const double x = decode_number(raw[i], t->dtype);
                if (!(x >= 0) || x > (as == I32 ? (double)INT_MAX : 0x1p53) || x >= (double)SIZE_MAX)
                    return refuse(err, s->j.path, "tensor %s has %.0f at %zu, expected a count or an index", t->name, x,
                                  k);
                if (as == I32) ((int *)data)[k] = (int)x;
                else ((size_t *)data)[k] = (size_t)x;
            } else {
                const real x = (real)decode_number(raw[i], t->dtype);
                if (!(x - x == 0))
                    return refuse(err, s->j.path, "tensor %s has a number at %zu that is not finite", t->name, k);
                ((real *)data)[k] = x;
            }
        }
    }
    return code;
}

/* The tensor of that name and shape, of a type that can be read: so that it is no larger than the file. */
static int find_shaped(const stored **tensor, safetensors *s, const char *name, size_t rows, size_t cols,
                       ttmm_error *err)
{
    const stored *t = *tensor = find_tensor(s, name);
    if (t == NULL) return refuse(err, s->j.path, "tensor %s is missing", name);
    char shown[80];
    if (t->dim[0] != rows || t->dim[1] != cols || t->n_dims > 2)
        return refuse(err, s->j.path, "tensor %s is %s, expected [%zu, %zu]", name,
                      strchr(describe(shown, &s->j, t), '['), rows, cols);
    if (t->dtype == DTYPES)
        return refuse(err, s->j.path, "tensor %s is %s, a type that is not supported", name, describe(shown, &s->j, t));
    return TTMM_OK;
}

static int read_tensor(safetensors *s, const char *name, void *data, int as, size_t rows, size_t cols, ttmm_error *err)
{
    const stored *t;
    const int code = find_shaped(&t, s, name, rows, cols, err);
    return code ? code : read_numbers(s, t, data, as, err);
}

/* Files that are mapped: the tensors of a model or an adapter are used as they lie there. */
typedef struct {
    void *data;
    size_t bytes;
} mapped_file;
typedef struct {
    size_t n, room;
    mapped_file *file;     /* [n] */
    char path[PATH_BYTES]; /* of the last */
} mapped_files;

static void unmap_files(void *files)
{
    mapped_files *m = files;
    for (size_t i = 0; m && i < m->n; i++) unmap_file(m->file[i].data, m->file[i].bytes);
    if (m) free(m->file);
}

static int all_finite(ttmm_numbers x, size_t n)
{
    int wrong = 0;
    OMP(omp parallel for reduction(| : wrong) if (n > WORTH_THREADS))
    for (size_t i = 0; i < n; i++) {
        if (x.type == TTMM_F32) {
            const float f = ((const float *)x.data)[i];
            wrong |= !(f - f == 0);
        } else if (x.type == TTMM_F64) {
            const real f = (real)((const double *)x.data)[i];
            wrong |= !(f - f == 0);
        } else {
            const unsigned most = x.type == TTMM_BF16 ? 0x7f80 : 0x7c00;
            wrong |= (((const uint16_t *)x.data)[i] & most) == most;
        }
    }
    return !wrong;
}

/* The numbers of t, in place; x->data is NULL if they cannot be used so, as they are of another byte order, not aligned
 * or nothing can be mapped: then they are to be read. */
static int map_tensor(ttmm_numbers *x, mapped_files *m, const safetensors *s, const stored *t, ttmm_error *err)
{
    const uint16_t one = 1;
    const char *path = s->j.path;
    *x = (ttmm_numbers){NULL, t->dtype};
    if (!is_known(t) || t->dtype >= I64 || *(const unsigned char *)&one != 1) return TTMM_OK;
    if (s->f && (m->n == 0 || strcmp(m->path, path) != 0)) {
        mapped_file next = {0}, *file = grow(m->file, &m->room, m->n + 1, sizeof *file);
        if (file == NULL) return fail(err, TTMM_NO_ROOM, "out of memory for a list of files");
        m->file = file;
        if ((next.data = map_file(path, &next.bytes)) == NULL) return TTMM_OK;
        m->file[m->n++] = next;
        snprintf(m->path, sizeof m->path, "%s", path);
    }
    const char *data = s->f ? m->file[m->n - 1].data : s->data;
    if (t->end > (s->f ? m->file[m->n - 1].bytes : s->bytes))
        return refuse(err, path, "tensor %s ends past the file: cut short?", t->name);
    if ((uintptr_t)(data + t->begin) % dtype_table[t->dtype].bytes != 0) return TTMM_OK;
    x->data = data + t->begin;
    return all_finite(*x, count_of(t)) ? TTMM_OK
                                       : refuse(err, path, "tensor %s has a number that is not finite", t->name);
}

/* What `train` wrote of its settings, or any other program's "ttmm" in __metadata__: "" if there is none. */
static void read_note(char *note, size_t size, const safetensors *s)
{
    json_text(note, size, &s->j, json_find(&s->j, json_find(&s->j, 0, "__metadata__"), "ttmm"));
}

int ttmm_note(char *note, size_t size, const char *path, ttmm_error *err)
{
    safetensors s;
    int code = open_safetensors(&s, NULL, path, err);
    if (code) return code;
    read_note(note, size, &s);
    close_safetensors(&s);
    return TTMM_OK;
}

/* Write n arrays, those that array_at gives of an object: integers as I32, reals as dtype. */
static int write_arrays(const char *folder, const char *name, size_t n, ttmm_array (*array_at)(const void *, size_t),
                        const void *object, int dtype, const char *note, ttmm_error *err)
{
    stored *tensor = malloc((n + 1) * sizeof *tensor);
    ttmm_array *array = malloc((n + 1) * sizeof *array); /* the names are theirs */
    int code = tensor && array ? TTMM_OK : fail(err, TTMM_NO_ROOM, "out of memory for a list of %zu tensors", n);
    for (size_t i = 0; i < n && code == TTMM_OK; i++) {
        const ttmm_array *a = &array[i];
        array[i] = array_at(object, i);
        tensor[i] = a->integer ? store(a->name, I32, a->rows, a->cols, a->integer)
                               : store(a->name, dtype, a->rows, a->cols, a->data);
    }
    if (code == TTMM_OK) code = write_safetensors(folder, name, tensor, n, note, err);
    free(array), free(tensor);
    return code;
}

/* What write_arrays calls; those of a model and of an adapter are in section 16. */
static ttmm_array array_of_list(const void *list, size_t i) { return ((const ttmm_array *)list)[i]; }

int ttmm_arrays_write(const ttmm_array *array, size_t n, const char *path, const char *note, ttmm_error *err)
{
    return write_arrays(NULL, path, n, array_of_list, array, TTMM_REAL, note, err);
}

/* The shape is the file's, so the room is found here and not by the caller. */
static int read_array(real **array, size_t *rows, size_t *cols, safetensors *s, const char *name, ttmm_error *err)
{
    const char *path = s->j.path;
    int code = TTMM_OK;
    const stored *t = find_tensor(s, name);
    if (t == NULL && s->n == 1) t = &s->tensor[0];
    if (t == NULL || t->n_dims < 1 || t->n_dims > 2 || count_of(t) == 0)
        code = refuse(err, path, "tensor %s is missing, empty, or not a vector or matrix", name);
    else if (t->dtype == DTYPES) code = read_numbers(s, t, NULL, TTMM_REAL, err); /* which says so */
    else {
        *rows = t->n_dims == 2 ? t->dim[0] : 1, *cols = t->n_dims == 2 ? t->dim[1] : t->dim[0];
        *array = malloc(mul_size(count_of(t), sizeof(real)));
        code = *array ? read_numbers(s, t, *array, TTMM_REAL, err)
                      : fail(err, TTMM_NO_ROOM, "out of memory for %s", path);
    }
    if (code) free(*array), *array = NULL;
    return code;
}

int ttmm_array_read(real **array, size_t *rows, size_t *cols, const char *path, const char *name, ttmm_error *err)
{
    safetensors s;
    *array = NULL;
    int code = open_safetensors(&s, NULL, path, err);
    if (code) return code;
    code = read_array(array, rows, cols, &s, name, err);
    close_safetensors(&s);
    return code;
}

int ttmm_array_of(real **array, size_t *rows, size_t *cols, const ttmm_file *file, const char *name, ttmm_error *err)
{
    safetensors s;
    *array = NULL;
    int code = safetensors_of(&s, file, err);
    if (code) return code;
    code = read_array(array, rows, cols, &s, name, err);
    close_safetensors(&s);
    return code;
}

/* One round of multiply and mix a word: a fingerprint, not a checksum against malice. */
static uint64_t hash_word(uint64_t h, uint64_t word) { return mix_bits((h ^ word) * 0x100000001b3); }

/* Of the bits as they are stored, so that it is the same on every machine. */
static uint64_t hash_reals(uint64_t h, const real *x, size_t n)
{
    for (size_t i = 0; i < n; i++) h = hash_word(h, encode_number(x, i, TTMM_REAL));
    return h;
}

uint64_t ttmm_hash(const real *x, size_t n) { return hash_reals(0, x, n); }

static uint64_t hash_numbers(uint64_t h, ttmm_numbers x, size_t n)
{
    real part[256];
    for (size_t k = 0; k < n; k += 256) {
        const size_t some = n - k < 256 ? n - k : 256;
        to_reals(part, x, k, some);
        h = hash_reals(h, part, some);
    }
    return h;
}

uint64_t ttmm_model_hash(const ttmm_model *m)
{
    const ttmm_config *c = &m->config;
    const int whole[] = {c->dim,      c->n_layers,     c->n_heads, c->n_kv_heads,
                         c->head_dim, c->intermediate, c->vocab,   c->rope};
    const double number[] = {c->norm_eps, c->rope_theta, c->rope_factor, c->rope_low, c->rope_high, c->rope_before};
    uint64_t h = 0;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) h = hash_word(h, (uint64_t)whole[i]);
    for (size_t i = 0; i < sizeof number / sizeof *number; i++) h = hash_word(h, to_bits(number[i]));
    for (size_t i = 0; i < ttmm_n_tensors(&m->config); i++) {
        const ttmm_tensor t = ttmm_tensor_at(&m->config, i);
        h = hash_numbers(h, weight(m, t.layer, t.kind), t.rows * t.cols);
    }
    return h;
}

uint64_t ttmm_lora_hash(const ttmm_lora *l)
{
    uint64_t h = 0;
    for (int i = 0; i < l->n_layers * TTMM_MATRICES; i++) {
        const ttmm_lora_matrix *x = &l->matrix[i];
        h = hash_reals(h, &x->scale, 1);
        h = hash_numbers(h, lora_a(x), (size_t)x->rank * x->in);
        h = hash_numbers(h, lora_b(x), (size_t)x->rank * x->out);
    }
    return h;
}

/* Of the tokens in order, each sequence closed by a word that is no token. */
uint64_t ttmm_corpus_hash(const ttmm_corpus *c, const size_t *sequence, size_t n)
{
    uint64_t h = 0;
    for (size_t k = 0; k < (sequence ? n : c->n_sequences); k++) {
        const size_t i = sequence ? sequence[k] : k;
        for (size_t t = c->sequence[i]; t < c->sequence[i + 1]; t++) h = hash_word(h, (uint64_t)c->token[t]);
        h = hash_word(h, UINT64_MAX);
    }
    return h;
}

uint64_t ttmm_tokenizer_hash(const ttmm_tokenizer *tokenizer, int vocab)
{
    uint64_t h = 0;
    for (int t = 0; t < vocab; t++) {
        size_t n;
        const unsigned char *text = ttmm_token_bytes(tokenizer, t, &n);
        for (size_t i = 0; i < n; i++) h = hash_word(h, text[i]);
        h = hash_word(h, UINT64_MAX);
    }
    return h;
}

/* ==== 16. config.json, checkpoints, adapters, the corpus's file ======================================================
 *
 * A model folder as Hugging Face's transformers (LlamaConfig, Qwen2Config; versions 4 and 5) and PEFT (LoraConfig) read
 * and write it. What is absent in a config.json has transformers' default. Refused: whatever would alter the result and
 * is not computed here, each by the name of its key; keys that are not known are passed over. */

/* By TTMM_ROPE_DEFAULT ... */
static const char *const rope_types[] = {"default", "linear", "llama3"};

/* A line of config.json: the token is an id plus 1, 0 null, -1 none at all, as it was read. */
static void write_token(FILE *f, const char *key, int token)
{
    if (token > 0) fprintf(f, "  \"%s\": %d,\n", key, token - 1);
    else if (token == 0) fprintf(f, "  \"%s\": null,\n", key);
}

static int write_config(const ttmm_config *c, const char *folder, int type, ttmm_error *err)
{
    const int scaled = c->rope != TTMM_ROPE_DEFAULT;
    char number[6][32];
    output o;
    int code = output_open(&o, folder, "config.json", err);
    if (code) return code;
    fprintf(o.f,
            "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n"
            "  \"hidden_size\": %d,\n  \"intermediate_size\": %d,\n  \"num_hidden_layers\": %d,\n"
            "  \"num_attention_heads\": %d,\n  \"num_key_value_heads\": %d,\n  \"head_dim\": %d,\n"
            "  \"vocab_size\": %d,\n  \"max_position_embeddings\": %d,\n  \"rms_norm_eps\": %s,\n"
            "  \"rope_theta\": %s,\n  \"rope_scaling\": %s",
            c->biases ? "Qwen2ForCausalLM" : "LlamaForCausalLM", c->biases ? "qwen2" : "llama", c->dim, c->intermediate,
            c->n_layers, c->n_heads, c->n_kv_heads, c->head_dim, c->vocab, c->context, shortest(number[0], c->norm_eps),
            shortest(number[1], c->rope_theta), scaled ? "{" : "null");
    if (scaled)
        fprintf(o.f, "\"rope_type\": \"%s\", \"factor\": %s", rope_types[c->rope], shortest(number[2], c->rope_factor));
    if (c->rope == TTMM_ROPE_LLAMA3)
        fprintf(o.f, ", \"low_freq_factor\": %s, \"high_freq_factor\": %s, \"original_max_position_embeddings\": %s",
                shortest(number[3], c->rope_low), shortest(number[4], c->rope_high),
                shortest(number[5], c->rope_before));
    fprintf(o.f,
            "%s,\n  \"hidden_act\": \"silu\",\n  \"attention_bias\": false,\n  \"mlp_bias\": false,\n"
            "  \"tie_word_embeddings\": %s,\n",
            scaled ? "}" : "", c->tied ? "true" : "false");
    write_token(o.f, "bos_token_id", c->bos);
    if (c->pad) write_token(o.f, "pad_token_id", c->pad);
    fprintf(o.f, "  \"eos_token_id\": %s", c->n_ends == 0 ? "null" : c->n_ends > 1 ? "[" : "");
    for (int i = 0; i < c->n_ends; i++) fprintf(o.f, "%s%d", i ? ", " : "", c->end[i]);
    fprintf(o.f, "%s,\n  \"torch_dtype\": \"%s\"\n}\n", c->n_ends > 1 ? "]" : "", dtype_table[type].torch);
    return output_close(&o, err);
}

/* The first of two nodes that is there. */
static int either(int node, int other) { return node >= 0 ? node : other; }

/* The rotary positions: rope_theta, and rope_scaling or (transformers 5) rope_parameters. Where a key stands both in
 * there and at the top level, the inner one counts, but for original_max_position_embeddings the outer one
 * (transformers' RotaryEmbeddingConfigMixin). */
static int read_rope(ttmm_config *c, const json *j, ttmm_error *err)
{
    const int scaling = json_find(j, 0, "rope_scaling"), parameters = json_find(j, 0, "rope_parameters");
    const int empty = json_type(j, scaling) == '{' && json_child(j, scaling) < 0; /* counts as absent */
    const int rope = scaling >= 0 && !empty ? scaling : parameters;
    if (rope >= 0 && json_type(j, rope) != '{')
        return json_refuse(j, rope == scaling ? "rope_scaling" : "rope_parameters", rope, "an object", err);
    const int theta = either(json_find(j, rope, "rope_theta"), json_find(j, 0, "rope_theta"));
    if (theta >= 0 && !json_number(j, theta, &c->rope_theta))
        return json_refuse(j, "rope_theta", theta, "a number", err);
    const int part = either(json_find(j, rope, "partial_rotary_factor"), json_find(j, 0, "partial_rotary_factor"));
    double x;
    if (part >= 0 && !(json_number(j, part, &x) && x == 1))
        return json_refuse(j, "partial_rotary_factor", part, "1", err);
    const int type = either(json_find(j, rope, "rope_type"), json_find(j, rope, "type"));
    if (type < 0) return TTMM_OK;
    while (c->rope <= TTMM_ROPE_LLAMA3 && !json_equal(j, type, rope_types[c->rope])) c->rope++;
    if (c->rope > TTMM_ROPE_LLAMA3) return json_refuse(j, "rope_type", type, "default, linear or llama3", err);
    const struct {
        const char *key;
        double *value;
        int of; /* this type and those after it */
    } field[] = {{"factor", &c->rope_factor, TTMM_ROPE_LINEAR},
                 {"low_freq_factor", &c->rope_low, TTMM_ROPE_LLAMA3},
                 {"high_freq_factor", &c->rope_high, TTMM_ROPE_LLAMA3},
                 {"original_max_position_embeddings", &c->rope_before, TTMM_ROPE_LLAMA3}};
    c->rope_before = c->context; /* if it is not said */
    for (size_t i = 0; i < sizeof field / sizeof *field; i++) {
        const int optional = field[i].value == &c->rope_before;
        const int at = either(optional ? json_find(j, 0, field[i].key) : -1, json_find(j, rope, field[i].key));
        if (c->rope >= field[i].of && !(at < 0 && optional) && !json_number(j, at, field[i].value))
            return json_refuse(j, field[i].key, at, "a number", err);
    }
    return TTMM_OK;
}

/* Whether some positions are past a window of so many. */
static int is_window(const ttmm_config *c, const json *j, int node)
{
    uint64_t n;
    if (node < 0 || json_type(j, node) == 'f') return 0;
    return !json_integer(j, node, &n) || (n > 0 && n < (uint64_t)c->context);
}

/* Attention must see all positions before: no sliding window in any layer. In transformers' Qwen2Config the layers from
 * max_window_layers (28, if it is absent) on have one, of 4,096 positions if that is absent. Llama has none; but its
 * cache, in generate, takes either key as one if there is no layer_types. */
static int check_window(const ttmm_config *c, const json *j, ttmm_error *err)
{
    const int types = json_find(j, 0, "layer_types"), most = json_find(j, 0, "max_window_layers");
    uint64_t before = 28;
    for (int i = json_child(j, types); i >= 0; i = j->node[i].next)
        if (!json_equal(j, i, "full_attention"))
            return json_refuse(j, "one of layer_types", i, "\"full_attention\"", err);
    if (types >= 0) return TTMM_OK;
    for (int i = 0; i < 2 && !c->biases; i++) {
        static const char *const key[] = {"sliding_window", "attention_chunk_size"};
        if (is_window(c, j, json_find(j, 0, key[i])))
            return json_refuse(j, key[i], json_find(j, 0, key[i]), "null, or as many as positions", err);
    }
    if (!c->biases) return TTMM_OK;
    if (!json_true(j, 0, "use_sliding_window") || json_type(j, json_key(j, 0, "sliding_window")) == 'n') return TTMM_OK;
    if (most >= 0 && !json_integer(j, most, &before)) before = 0;
    return before >= (uint64_t)c->n_layers ? TTMM_OK
                                           : refuse(err, j->path, "use_sliding_window is true, which is not supported");
}

/* eos_token_id: one token or several. One past the vocabulary never comes, and is passed over; ttmm_config_note says
 * so. */
static int read_ends(ttmm_config *c, const json *j, ttmm_error *err)
{
    const int ends = json_find(j, 0, "eos_token_id");
    uint64_t id;
    if (ends >= 0) c->n_ends = 0;
    for (int i = json_first(j, ends); i >= 0; i = json_after(j, ends, i)) {
        if (!json_integer(j, i, &id)) return json_refuse(j, "eos_token_id", i, "a token id, or a list of them", err);
        if (id >= (uint64_t)c->vocab) continue;
        if (c->n_ends == TTMM_ENDS)
            return refuse(err, j->path, "eos_token_id has more than %d tokens of the vocabulary", TTMM_ENDS);
        c->end[c->n_ends++] = (int)id;
    }
    return TTMM_OK;
}

/* A token that is not used here but written again: its id plus 1; 0: null or not a token; -1: the key is absent. */
static int read_token(const json *j, const char *key)
{
    const int node = json_key(j, 0, key);
    uint64_t id;
    return node < 0 ? -1 : json_integer(j, node, &id) && id < INT_MAX ? (int)id + 1 : 0;
}

/* A file of which nothing counts but what the table says: see check_values. */
static int read_settings(const char *folder, const char *name, const char *const table[][2], size_t n, ttmm_error *err)
{
    json j;
    int code = json_open(&j, folder, name, err);
    if (code == TTMM_OK) code = check_values(&j, table, n, err);
    json_close(&j);
    return code;
}

/* All of config.json. What is missing has the default of transformers' LlamaConfig; for Qwen2, too, but for the number
 * of positions. (That of key/value heads is another there: then no tensor fits.) */
static int read_config_json(ttmm_config *c, const json *j, ttmm_error *err)
{
    const int type = json_find(j, 0, "model_type");
    const struct {
        const char *key;
        int *value, fallback; /* 0: the key must be there */
    } field[] = {
        {"hidden_size", &c->dim, 0},
        {"num_hidden_layers", &c->n_layers, 0},
        {"num_attention_heads", &c->n_heads, 0},
        {"num_key_value_heads", &c->n_kv_heads, -1},
        {"head_dim", &c->head_dim, -1},
        {"vocab_size", &c->vocab, 0},
        {"intermediate_size", &c->intermediate, 0},
        {"max_position_embeddings", &c->context, json_equal(j, type, "qwen2") ? 32768 : 2048},
    };
    c->biases = json_equal(j, type, "qwen2");
    if (!c->biases && !json_equal(j, type, "llama"))
        return json_refuse(j, "model_type", type, "\"llama\" or \"qwen2\"", err);
    for (size_t i = 0; i < sizeof field / sizeof *field; i++) {
        uint64_t u;
        const int node = json_find(j, 0, field[i].key);
        if (node < 0 && field[i].fallback) *field[i].value = field[i].fallback;
        else if (json_integer(j, node, &u) && u <= INT_MAX) *field[i].value = (int)u;
        else return json_refuse(j, field[i].key, node, "a count", err);
    }
    static const char *const table[][2] = {
        {"hidden_act", "\"silu\""},
        {"mlp_bias", "false"},
        {"quantization_config transformers_weights configuration_files", "null"}, /* the last two: other files count */
        {"tie_word_embeddings", "true or false"},
        {"is_causal", "true"},
        {"attention_bias", "false"}}; /* Llama's has one on o, too; Qwen2's own are not in the config */
    int code = check_values(j, table, c->biases ? 5 : 6, err);
    if (code) return code;
    if (c->n_kv_heads == -1) c->n_kv_heads = c->n_heads;
    if (c->head_dim == -1) c->head_dim = c->n_heads > 0 ? c->dim / c->n_heads : 0;
    c->tied = json_true(j, 0, "tie_word_embeddings"), c->norm_eps = 1e-6, c->rope_theta = 10000;
    const int eps = json_find(j, 0, "rms_norm_eps");
    if (eps >= 0 && !json_number(j, eps, &c->norm_eps)) return json_refuse(j, "rms_norm_eps", eps, "a number", err);
    c->bos = read_token(j, "bos_token_id"), c->pad = read_token(j, "pad_token_id");
    if (c->pad < 0) c->pad = 0; /* absent is null there, where a Llama without bos_token_id has 1 */
    code = read_rope(c, j, err);
    if (code == TTMM_OK) code = check_window(c, j, err);
    if (code == TTMM_OK) code = read_ends(c, j, err);
    ttmm_error why;
    if (code == TTMM_OK && ttmm_config_check(c, &why) != TTMM_OK) code = refuse(err, j->path, "%s", why.text);
    return code;
}

static const char whole_file[] = "model.safetensors", index_file[] = "model.safetensors.index.json";

/* A checkpoint that is read: model.safetensors, or the files that weight_map of model.safetensors.index.json names for
 * each tensor, of which one is open. */
typedef struct {
    const char *folder;
    json index;
    int sharded;
    const char *file; /* the one that is open in s, of several; NULL: none is */
    safetensors s;
} checkpoint;

static void close_checkpoint(checkpoint *k)
{
    close_safetensors(&k->s);
    json_close(&k->index);
}

/* k is to be closed even if this fails. */
static int open_checkpoint(checkpoint *k, const char *folder, ttmm_error *err)
{
    *k = (checkpoint){.folder = folder};
    k->sharded = !ttmm_exists(folder, whole_file) && ttmm_exists(folder, index_file);
    return k->sharded ? json_open(&k->index, folder, index_file, err)
                      : open_safetensors(&k->s, folder, whole_file, err);
}

static int has_tensor(const checkpoint *k, const char *name)
{
    return k->sharded ? json_type(&k->index, json_find(&k->index, json_find(&k->index, 0, "weight_map"), name)) == '"'
                      : find_tensor(&k->s, name) != NULL;
}

/* *file: the one that a tensor is in; "" where there are not several. */
static int find_file(const char **file, const checkpoint *k, const char *name, ttmm_error *err)
{
    const json *index = &k->index;
    if (!has_tensor(k, name))
        return refuse(err, k->sharded ? index->path : k->s.j.path,
                      k->sharded ? "weight_map has no file for %s" : "tensor %s is missing", name);
    *file = k->sharded ? json_name(index, json_find(index, json_find(index, 0, "weight_map"), name)) : "";
    return TTMM_OK;
}

/* Opens a file of several in k->s, if it is not the one that is open. */
static int open_shard(checkpoint *k, const char *file, ttmm_error *err)
{
    if (!k->sharded || (k->file && strcmp(k->file, file) == 0)) return TTMM_OK;
    if (strpbrk(file, "/\\") != NULL)
        return refuse(err, k->index.path, "weight_map has %s, expected the name of a file in this folder", file);
    close_safetensors(&k->s);
    k->file = file;
    return open_safetensors(&k->s, k->folder, file, err);
}

/* The name that tensor i of a model is stored by: of a tied head and embedding one may stand for both. */
static const char *stored_name(ttmm_tensor *t, const checkpoint *k, const ttmm_config *c, size_t i)
{
    const char *head = tensor_table[TTMM_HEAD].name;
    *t = ttmm_tensor_at(c, i);
    return c->tied && t->kind == TTMM_EMBED && !has_tensor(k, t->name) && has_tensor(k, head) ? head : t->name;
}

/* The tensors of a model in the order in which they are read: file by file, as to open a file again for each of its
 * tensors would take the square of their number.    *order [n_tensors] is allocated */
typedef struct {
    const char *file;
    size_t tensor;
} reading;

static int by_file(const void *a, const void *b)
{
    const reading *x = a, *y = b;
    const int order = strcmp(x->file, y->file);
    return order ? order : (x->tensor > y->tensor) - (x->tensor < y->tensor);
}

static int reading_order(reading **order, const checkpoint *k, const ttmm_config *c, ttmm_error *err)
{
    const size_t n = ttmm_n_tensors(c);
    const char *file;
    ttmm_tensor t;
    for (size_t i = 0; i < n; i++) { /* all are there, before there is room for so many */
        const int code = find_file(&file, k, stored_name(&t, k, c, i), err);
        if (code) return code;
    }
    if ((*order = malloc(n * sizeof **order)) == NULL)
        return fail(err, TTMM_NO_ROOM, "out of memory for %zu tensors", n);
    for (size_t i = 0; i < n; i++) {
        find_file(&file, k, stored_name(&t, k, c, i), err);
        (*order)[i] = (reading){file, i};
    }
    qsort(*order, n, sizeof **order, by_file);
    return TTMM_OK;
}

/* *both: whether a folder's checkpoint, if there is one, has both an embedding and a head. */
static int find_head(int *both, const char *folder, ttmm_error *err)
{
    checkpoint k = {0};
    if (!ttmm_exists(folder, whole_file) && !ttmm_exists(folder, index_file)) return *both = 0, TTMM_OK;
    const int code = open_checkpoint(&k, folder, err);
    *both = code == TTMM_OK && has_tensor(&k, tensor_table[TTMM_EMBED].name) &&
            has_tensor(&k, tensor_table[TTMM_HEAD].name);
    close_checkpoint(&k);
    return code;
}

/* *says_tied: what config.json says. A head that is stored beside the embedding counts as one of its own, and
 * read_weights compares their numbers. */
static int read_config(ttmm_config *c, int *says_tied, const char *folder, ttmm_error *err)
{
    json j;
    memset(c, 0, sizeof *c);
    int code = json_open(&j, folder, "config.json", err);
    if (code == TTMM_OK) code = read_config_json(c, &j, err);
    json_close(&j);
    int both = 0;
    *says_tied = c->tied;
    if (code == TTMM_OK && c->tied) code = find_head(&both, folder, err);
    if (both) c->tied = 0;
    if (code || !ttmm_exists(folder, "generation_config.json")) return code;
    code = json_open(&j, folder, "generation_config.json", err);
    if (code == TTMM_OK) code = read_ends(c, &j, err);
    json_close(&j);
    return code;
}

int ttmm_config_of(ttmm_config *c, const ttmm_file *file, ttmm_error *err)
{
    json j;
    memset(c, 0, sizeof *c);
    int code = json_of(&j, file, err);
    if (code == TTMM_OK) code = read_config_json(c, &j, err);
    json_close(&j);
    return code;
}

/* config.json; where a text ends generation_config.json has the last word, if it says it. (In transformers' generate it
 * has that if it does not, too: then nothing ends a text. ttmm_config_note tells.) */
int ttmm_config_read(ttmm_config *c, const char *folder, ttmm_error *err)
{
    int says_tied;
    return read_config(c, &says_tied, folder, err);
}

/* The file that counts in transformers' generate: its keys that are in the list and not null, and its end tokens past
 * the vocabulary. */
int ttmm_config_note(char *note, size_t size, const ttmm_config *c, const char *folder, ttmm_error *err)
{
    static const char followed[] =
        " do_sample temperature top_k top_p min_p top_h typical_p epsilon_cutoff eta_cutoff repetition_penalty "
        "encoder_repetition_penalty no_repeat_ngram_size bad_words_ids min_length min_new_tokens max_length "
        "max_new_tokens max_time stop_strings num_beams num_beam_groups diversity_penalty length_penalty penalty_alpha "
        "renormalize_logits forced_bos_token_id forced_eos_token_id exponential_decay_length_penalty suppress_tokens "
        "begin_suppress_tokens sequence_bias token_healing guidance_scale watermarking_config dola_layers constraints "
        "force_words_ids ";
    const int generation = ttmm_exists(folder, "generation_config.json");
    const char *file = generation ? "generation_config.json" : "config.json";
    char name[60], word[64], shown[64];
    size_t n = 0;
    json j;
    note[0] = 0;
    int code = json_open(&j, folder, file, err);
    for (int key = code ? -1 : json_child(&j, 0); key >= 0 && n < size; key = json_next_key(&j, key)) {
        const int value = j.node[key].next;
        json_text(name, sizeof name, &j, key);
        snprintf(word, sizeof word, " %s ", name);
        if (json_type(&j, value) == 'n' || strstr(followed, word) == NULL) continue;
        n += (size_t)snprintf(note + n, size - n, "%s%s %s", n ? ", " : "passed over: ", name,
                              json_shown(shown, &j, value));
    }
    const int ends = code ? -1 : json_find(&j, 0, "eos_token_id");
    for (int i = json_first(&j, ends); i >= 0 && n < size; i = json_after(&j, ends, i)) {
        uint64_t id;
        if (!json_integer(&j, i, &id) || id < (uint64_t)c->vocab) continue;
        n += (size_t)snprintf(note + n, size - n, "%seos_token_id %s is past the vocabulary, %d, and ignored",
                              n ? "; " : "", json_shown(shown, &j, i), c->vocab);
    }
    if (generation && ends < 0 && c->n_ends && !code && n < size)
        snprintf(note + n, size - n, "%sno eos_token_id: that of config.json counts", n ? "; " : "");
    json_close(&j);
    return code;
}

/* That weights can be written as that type: they are finite, and stay so when rounded to it. */
static int check_finite(const real *x, size_t n, int type, const char *folder, ttmm_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!(x[i] - x[i] == 0)) return refuse(err, folder, "not written: a weight is not finite");
        const int large = x[i] > 60000 || x[i] < -60000; /* F16 has numbers up to 65504 */
        const double rounded = large ? decode_number(encode_number(x, i, type), type) : 0;
        if (!(rounded - rounded == 0))
            return refuse(err, folder, "not written: a weight is %g, too large for %s", (double)x[i],
                          dtype_table[type].name);
    }
    return TTMM_OK;
}

/* From section 17: tokenizer.json and tokenizer_config.json of the byte vocabulary. */
static int write_tokenizer(const char *folder, ttmm_error *err);

static ttmm_array array_of_model(const void *m, size_t i) { return ttmm_model_tensor_at(m, i); }

/* The weights are written last: a folder that has them has all of a model. */
int ttmm_model_write(const ttmm_model *m, const char *folder, int type, const char *note, ttmm_error *err)
{
    const size_t n = ttmm_n_tensors(&m->config);
    if (m->view) return fail(err, TTMM_BAD_USE, "%s: not written: the model is a view of other memory", folder);
    int code = check_finite(m->data, m->n, type, folder, err);
    if (code == TTMM_OK) code = ttmm_make_folder(folder, err);
    if (code == TTMM_OK) code = write_config(&m->config, folder, type, err);
    if (code == TTMM_OK && m->config.vocab == TTMM_BYTES) code = write_tokenizer(folder, err);
    return code ? code : write_arrays(folder, "model.safetensors", n, array_of_model, m, type, note, err);
}

/* A model whose tensors, view [n_tensors], are to be set; its block is a list of mapped files, and those. */
static int new_mapped_model(ttmm_model *m, ttmm_numbers **view, const ttmm_config *c, ttmm_error *err)
{
    arena a = {0};
    void *block;
    take(&a, 1, sizeof(mapped_files)), take(&a, ttmm_n_tensors(c), sizeof **view);
    const int code = allocate(&a, &block, "a list of tensors", err);
    if (code) return code;
    lay_out_model(m, c);
    m->block = block;
    m->files = take(&a, 1, sizeof(mapped_files));
    m->view = *view = take(&a, ttmm_n_tensors(c), sizeof **view);
    return TTMM_OK;
}

static int equal_numbers(ttmm_numbers x, ttmm_numbers y, size_t n)
{
    real a[64], b[64];
    for (size_t i = 0; i < n; i += 64) {
        const size_t some = n - i < 64 ? n - i : 64;
        to_reals(a, x, i, some), to_reals(b, y, i, some);
        if (memcmp(a, b, some * sizeof *a) != 0) return 0;
    }
    return 1;
}

/* Every tensor of config.json's shape; others are passed over, but not a further layer. The shapes of all come first,
 * so that there is room for no more than the files hold. Of a tied head and embedding two that are the same are tied,
 * and two that are not are not, as in transformers' tie_weights.    *order is to be freed even if this fails */
static int read_weights(ttmm_model *m, int *in_place, checkpoint *k, reading **order, const ttmm_config *config,
                        int says_tied, ttmm_error *err)
{
    const ttmm_config c = *config;
    ttmm_numbers *view = NULL;
    int code = reading_order(order, k, &c, err);
    for (int read = 0; read < 2 && code == TTMM_OK; read++) {
        if (read) code = *in_place ? new_mapped_model(m, &view, &c, err) : ttmm_model_new(m, &c, err);
        for (size_t n = 0; code == TTMM_OK && n < ttmm_n_tensors(&c); n++) {
            const size_t i = (*order)[n].tensor;
            ttmm_tensor t;
            const char *name = stored_name(&t, k, &c, i);
            const stored *found;
            code = open_shard(k, (*order)[n].file, err);
            if (code == TTMM_OK) code = find_shaped(&found, &k->s, name, t.rows, t.cols, err);
            if (code || !read) continue;
            code = view ? map_tensor(&view[i], m->files, &k->s, found, err)
                        : read_numbers(&k->s, found, m->data + t.offset, TTMM_REAL, err);
            if (code == TTMM_OK && view && view[i].data == NULL) return *in_place = 0, TTMM_OK;
        }
    }
    if (code) return code;
    const size_t n = kind_size(&c, TTMM_HEAD); /* the last tensor: to tie it is to leave it out */
    if (says_tied && !c.tied && equal_numbers(weight(m, 0, TTMM_EMBED), weight(m, 0, TTMM_HEAD), n))
        m->config.tied = 1, m->offset[TTMM_HEAD] = m->offset[TTMM_EMBED], m->n -= n;
    char name[80]; /* of a layer that should not be there */
    snprintf(name, sizeof name, tensor_table[TTMM_Q].name, c.n_layers);
    if (has_tensor(k, name))
        return refuse(err, k->sharded ? k->index.path : k->s.j.path, "holds %s, expected %d layers as config.json says",
                      name, c.n_layers);
    return TTMM_OK;
}

/* *in_place: whether the files are to be mapped; 0 afterwards: they cannot be, m is empty. */
static int open_model(ttmm_model *m, int *in_place, const char *folder, ttmm_error *err)
{
    const int wanted = *in_place;
    checkpoint k = {0};
    ttmm_config c;
    reading *order = NULL;
    int says_tied;
    memset(m, 0, sizeof *m);
    int code = read_config(&c, &says_tied, folder, err);
    if (code == TTMM_OK) code = open_checkpoint(&k, folder, err);
    if (code == TTMM_OK) code = read_weights(m, in_place, &k, &order, &c, says_tied, err);
    free(order);
    close_checkpoint(&k);
    if (code || wanted != *in_place) ttmm_model_free(m);
    return code;
}

int ttmm_model_of(ttmm_model *m, const ttmm_config *config, const ttmm_file *file, ttmm_error *err)
{
    checkpoint k = {0};
    ttmm_config c = *config; /* it may be m's own */
    const int says_tied = c.tied;
    reading *order = NULL;
    memset(m, 0, sizeof *m);
    int in_place = 1, code = safetensors_of(&k.s, file, err);
    if (code) return code;
    if (has_tensor(&k, tensor_table[TTMM_EMBED].name) && has_tensor(&k, tensor_table[TTMM_HEAD].name)) c.tied = 0;
    code = read_weights(m, &in_place, &k, &order, &c, says_tied, err);
    if (code == TTMM_OK && !in_place) { /* misaligned, or of another byte order */
        ttmm_model_free(m), free(order), order = NULL;
        code = read_weights(m, &in_place, &k, &order, &c, says_tied, err);
    }
    free(order);
    close_checkpoint(&k);
    if (code) ttmm_model_free(m);
    return code;
}

int ttmm_model_read(ttmm_model *m, const char *folder, ttmm_error *err)
{
    int in_place = 0;
    return open_model(m, &in_place, folder, err);
}

int ttmm_stored_bytes(size_t *bytes, const ttmm_config *c, const char *folder, ttmm_error *err)
{
    checkpoint k = {0};
    reading *order = NULL;
    ttmm_tensor t;
    *bytes = 0;
    int code = open_checkpoint(&k, folder, err);
    if (code == TTMM_OK) code = reading_order(&order, &k, c, err);
    for (size_t i = 0; code == TTMM_OK && i < ttmm_n_tensors(c); i++) {
        code = open_shard(&k, order[i].file, err);
        const stored *found = code ? NULL : find_tensor(&k.s, stored_name(&t, &k, c, order[i].tensor));
        if (found) *bytes = add_size(*bytes, (size_t)(found->end - found->begin));
    }
    free(order);
    close_checkpoint(&k);
    return code;
}

int ttmm_model_open(ttmm_model *m, const char *folder, ttmm_error *err)
{
    int in_place = 1;
    const int code = open_model(m, &in_place, folder, err);
    return code || in_place ? code : ttmm_model_read(m, folder, err);
}

/* The module of matrix i: model.layers.0.self_attn.q_proj */
static void module_name(char name[96], int i)
{
    snprintf(name, 96, tensor_table[i % TTMM_MATRICES].name, i / TTMM_MATRICES);
    *strrchr(name, '.') = 0; /* without .weight */
}

/* PEFT's name of its A (side 0) or B (1): base_model.model.MODULE.lora_A.weight */
static void adapter_name(char name[160], int i, int side)
{
    char module[96];
    module_name(module, i);
    snprintf(name, 160, "base_model.model.%s.lora_%c.weight", module, side ? 'B' : 'A');
}

size_t ttmm_lora_tensors(const ttmm_lora *l) { return (size_t)l->n_layers * TTMM_MATRICES * 2; }

/* A's and B's in turn: i is 2 * matrix + side. */
ttmm_array ttmm_lora_tensor_at(const ttmm_lora *l, size_t i)
{
    const ttmm_lora_matrix *matrix = &l->matrix[i / 2];
    const size_t R = (size_t)matrix->rank;
    ttmm_array a = {{0}, i % 2 ? matrix->out : R, i % 2 ? R : matrix->in, i % 2 ? matrix->b : matrix->a, NULL};
    adapter_name(a.name, (int)(i / 2), (int)(i % 2));
    return a;
}

/* peft writes more keys, each at its default where it is absent. */
static int write_adapter_config(const ttmm_lora *l, const char *folder, ttmm_error *err)
{
    char alpha[32];
    output o;
    int code = output_open(&o, folder, "adapter_config.json", err);
    if (code) return code;
    fprintf(o.f,
            "{\n  \"peft_type\": \"LORA\",\n  \"task_type\": \"CAUSAL_LM\",\n  \"base_model_name_or_path\": null,\n"
            "  \"r\": %d,\n  \"lora_alpha\": %s,\n  \"lora_dropout\": 0.0,\n  \"bias\": \"none\",\n"
            "  \"use_rslora\": false,\n  \"use_dora\": false,\n  \"fan_in_fan_out\": false,\n"
            "  \"inference_mode\": true,\n  \"target_modules\": "
            "[\"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\", \"gate_proj\", \"up_proj\", \"down_proj\"]\n}\n",
            l->matrix[0].rank, shortest(alpha, l->alpha));
    return output_close(&o, err);
}

static ttmm_array array_of_lora(const void *l, size_t i) { return ttmm_lora_tensor_at(l, i); }

/* One rank and one scale for all matrices, alpha / rank, as ttmm_lora_new makes them: adapter_config.json is written
 * without rank_pattern, alpha_pattern and rsLoRA. */
int ttmm_lora_write(const ttmm_lora *l, const char *folder, const char *note, ttmm_error *err)
{
    const size_t n = ttmm_lora_tensors(l);
    int code = TTMM_OK;
    for (size_t i = 0; i < n / 2 && code == TTMM_OK; i++)
        if (l->matrix[i].rank && l->matrix[i].a == NULL)
            code = fail(err, TTMM_BAD_USE, "%s: not written: the adapter is a view of other memory", folder);
        else if (l->matrix[i].rank != l->matrix[0].rank || l->matrix[i].scale != (real)(l->alpha / l->matrix[0].rank))
            code = fail(
                err, TTMM_BAD_USE,
                "%s: not written: the adapter's matrices have different ranks, or scales other than alpha / rank",
                folder);
    if (code == TTMM_OK) code = ttmm_make_folder(folder, err);
    if (code == TTMM_OK) code = check_finite(l->data, l->n, TTMM_REAL, folder, err);
    if (code == TTMM_OK) code = write_adapter_config(l, folder, err);
    const char *name = "adapter_model.safetensors";
    return code ? code : write_arrays(folder, name, n, array_of_lora, l, TTMM_REAL, note, err);
}

/* Whether a name of n bytes is a module's: all of it (2), or its end after a dot (1). */
static int names_module(const char *name, size_t n, const char *module)
{
    const size_t all = strlen(module);
    if (n == 0 || n > all || strcmp(module + all - n, name) != 0) return 0;
    return n == all ? 2 : module[all - n - 1] == '.';
}

/* The same of the strings of a list: the most that one of them is. */
static int is_listed(const json *j, int list, const char *module)
{
    int most = 0;
    for (int i = json_child(j, list); i >= 0; i = j->node[i].next) {
        char name[100];
        const int found = names_module(name, json_text(name, sizeof name, j, i), module);
        if (found > most) most = found;
    }
    return most;
}

/* Whether layers_to_transform, a number or a list, lets a layer take part. */
static int is_layer(const json *j, int layer)
{
    const int layers = json_find(j, 0, "layers_to_transform");
    uint64_t number;
    int found = json_first(j, layers) < 0; /* absent or empty: every layer */
    for (int i = json_first(j, layers); i >= 0; i = json_after(j, layers, i))
        found |= json_integer(j, i, &number) && number == (uint64_t)layer;
    return found;
}

/* Whether PEFT gives a module an adapter (check_target_module_exists of peft 0.21); if not, its tensors are passed
 * over. A module named whole is one in every layer. Without target_modules it is q and v, of Llama and of Qwen2. */
static int is_target(const json *j, const char *module, int layer)
{
    const int target = json_find(j, 0, "target_modules");
    const char *last = strrchr(module, '.') + 1;
    if (is_listed(j, json_find(j, 0, "exclude_modules"), module)) return 0;
    if (json_type(j, target) == '"') return 1; /* "all-linear" */
    const int listed = target >= 0 ? is_listed(j, target, module)
                                   : strcmp(last, "q_proj") == 0 || strcmp(last, "v_proj") == 0;
    return listed == 2 || (listed && is_layer(j, layer));
}

/* PEFT's names in memory have the adapter's own, lora_A.default.weight; it reads them as well. */
static void rename_default(safetensors *s)
{
    for (size_t i = 0; i < s->n; i++) {
        char *found = strstr(s->j.text + (s->tensor[i].name - s->j.text), ".default.weight");
        if (found) strcpy(found, ".weight");
    }
    qsort(s->by_name, s->n, sizeof *s->by_name, by_name);
}

/* The ranks of an adapter's matrices that PEFT would use, by the shapes of its tensors; a matrix may have none: 0.
 * Every tensor must be of one of the matrices.    rank [matrices] is zeroed */
static int read_ranks(int *rank, safetensors *s, const json *j, const ttmm_config *c, ttmm_error *err)
{
    const int matrices = c->n_layers * TTMM_MATRICES;
    const int init = json_key(j, 0, "init_lora_weights"),
              drawn = json_type(j, init) == 'f' || json_type(j, init) == 'n';
    char name[2][160], module[96];
    const stored *half[2]; /* A, B */
    size_t known = 0, used = 0;
    for (int i = 0; i < matrices; i++) {
        module_name(module, i);
        const int targeted = is_target(j, module, i / TTMM_MATRICES);
        for (int side = 0; side < 2; side++) {
            adapter_name(name[side], i, side);
            half[side] = find_tensor(s, name[side]);
            known += half[side] != NULL;
        }
        if (targeted && drawn && half[0] == NULL)
            return refuse(err, j->path, "init_lora_weights is not true, and %s has no tensors: they would be random",
                          module);
        if (!targeted || (half[0] == NULL && half[1] == NULL)) continue;
        for (int side = 0; side < 2; side++)
            if (half[side] == NULL) return refuse(err, s->j.path, "tensor %s is missing", name[side]);
        const size_t R = half[0]->dim[0], cols = half[1]->dim[1];
        if (R < 1 || R > MOST_RANK || cols != R)
            return refuse(err, s->j.path, "tensor %s has %zu columns, its lora_A %zu rows: expected 1 to %d", name[1],
                          cols, R, MOST_RANK);
        const size_t in = kind_cols(c, i % TTMM_MATRICES), out = kind_rows(c, i % TTMM_MATRICES);
        int code = find_shaped(&half[0], s, name[0], R, in, err);
        if (code == TTMM_OK) code = find_shaped(&half[1], s, name[1], out, R, err);
        if (code) return code;
        rank[i] = (int)R, used++;
    }
    for (size_t t = 0; t < s->n && known < s->n; t++) { /* one too many: which? */
        int layer = -1, of_layer = 2 * TTMM_MATRICES;
        sscanf(s->tensor[t].name, "base_model.model.model.layers.%9d.", &layer);
        while (layer >= 0 && layer < matrices / TTMM_MATRICES && --of_layer >= 0) {
            adapter_name(name[0], layer * TTMM_MATRICES + of_layer / 2, of_layer % 2);
            if (strcmp(s->tensor[t].name, name[0]) == 0) break;
        }
        if (of_layer >= 0 && of_layer < 2 * TTMM_MATRICES) continue;
        if (layer >= matrices / TTMM_MATRICES)
            return refuse(err, s->j.path, "tensor %s is of layer %d, the model has layers 0 to %d", s->tensor[t].name,
                          layer, matrices / TTMM_MATRICES - 1);
        return refuse(err, s->j.path, "tensor %s is not a LoRA matrix of q, k, v, o, gate, up or down",
                      s->tensor[t].name);
    }
    if (known < s->n) return refuse(err, s->j.path, "has a tensor twice: with and without .default");
    if (known == 0) return refuse(err, s->j.path, "holds no LoRA matrix");
    return used ? TTMM_OK : refuse(err, j->path, "none of its tensors is of a module that target_modules names");
}

/* The alpha of a module: of the first key of alpha_pattern that is the module's name or its end after a dot; else
 * `common`. A key is a regular expression to PEFT; of these, ^ at the beginning (the whole name), $ at the end and \.
 * are understood. */
static int alpha_of(double *alpha, double common, const json *j, const char *module, ttmm_error *err)
{
    *alpha = common;
    for (int at = json_child(j, json_find(j, 0, "alpha_pattern")); at >= 0; at = json_next_key(j, at)) {
        char key[256], shown[64];
        const size_t n = json_text(key, sizeof key, j, at);
        const int whole = key[0] == '^';
        size_t length = 0;
        for (size_t i = (size_t)whole; i < n && n < sizeof key; i++)
            if (!(key[i] == '\\' && key[i + 1] == '.') && !(key[i] == '$' && i + 1 == n)) key[length++] = key[i];
        key[length] = 0;
        if (n >= sizeof key || strcspn(key, "^$*+?()[]{}|\\") < length)
            return refuse(err, j->path, "alpha_pattern has the regular expression %s, which is not supported",
                          json_shown(shown, j, at));
        if (names_module(key, length, module) < (whole ? 2 : 1)) continue;
        if (json_number(j, j->node[at].next, alpha)) return TTMM_OK;
        return refuse(err, j->path, "alpha_pattern has something else than a number for %s", json_shown(shown, j, at));
    }
    return TTMM_OK;
}

/* Of adapter_config.json, what holds for all matrices. */
typedef struct {
    int rank; /* 0: rank_pattern has others, too */
    double alpha;
    int rooted; /* 1: the scale is alpha / sqrt(rank), "use_rslora"                              (Kalajdzievski 2023) */
} adapter_settings;

/* Those whose untrained adapter is the base may initialise one; the others (pissa, olora, corda, loftq, lora_ga) take
 * it out of the base. */
static int read_adapter_settings(adapter_settings *a, const json *j, ttmm_error *err)
{
    static const char *const table[][2] = {
        {"peft_type", "\"LORA\""},
        {"bias", "\"none\", \"all\" or \"lora_only\""}, /* if there are any, they are among the tensors, and refused */
        {"use_dora use_qalora lora_bias", "false"},
        {"layer_replication arrow_config alora_invocation_tokens modules_to_save use_bdlora kasa_config "
         "monteclora_config trainable_token_indices target_parameters",
         "null"},
        {"use_rslora", "true or false"},
        {"rank_pattern alpha_pattern", "an object"},
        {"target_modules", "a list of names or \"all-linear\", not an expression"},
        {"exclude_modules", "a list of names, not an expression"},
        {"layers_to_transform", "a number or a list"},
        {"layers_pattern", "\"layers\""},
        {"init_lora_weights", "true, false, \"gaussian\", \"eva\", \"orthogonal\" or \"mica\": others alter the base"}};
    uint64_t r;
    const int rank = json_find(j, 0, "r"), alpha = json_find(j, 0, "lora_alpha");
    if (!json_integer(j, rank, &r) || r < 1 || r > MOST_RANK)
        return json_refuse(j, "r", rank, "a rank of 1 to 4096", err);
    if (!json_number(j, alpha, &a->alpha)) return json_refuse(j, "lora_alpha", alpha, "a number", err);
    int code = check_values(j, table, sizeof table / sizeof *table, err);
    if (code) return code;
    a->rank = json_child(j, json_find(j, 0, "rank_pattern")) < 0 ? (int)r : 0;
    a->rooted = json_true(j, 0, "use_rslora");
    return TTMM_OK;
}

/* An adapter whose matrices' views are to be set; its block is a list of mapped files, and the matrices. */
static int new_mapped_lora(ttmm_lora *l, const ttmm_config *c, const int *rank, double alpha, ttmm_error *err)
{
    const int matrices = c->n_layers * TTMM_MATRICES;
    arena a = {0};
    void *block;
    take(&a, 1, sizeof(mapped_files)), take(&a, (size_t)matrices, sizeof *l->matrix);
    const int code = allocate(&a, &block, "an adapter's matrices", err);
    if (code) return code;
    mapped_files *files = take(&a, 1, sizeof *files);
    ttmm_lora_matrix *matrix = take(&a, (size_t)matrices, sizeof *matrix);
    *l = (ttmm_lora){.n_layers = c->n_layers, .alpha = alpha, .matrix = matrix, .block = block, .files = files};
    for (int i = 0; i < matrices; i++) {
        ttmm_lora_matrix *x = &matrix[i];
        x->rank = rank[i];
        x->out = kind_rows(c, i % TTMM_MATRICES), x->in = kind_cols(c, i % TTMM_MATRICES);
        l->n += (size_t)x->rank * (x->in + x->out);
    }
    return TTMM_OK;
}

/* Matrix i of an adapter: its scale, A and B. The ranks are those of the tensors; without rank_pattern they must be the
 * one that adapter_config.json gives. */
static int read_adapter_matrix(ttmm_lora *l, int *in_place, int i, const adapter_settings *a, const json *j,
                               safetensors *s, ttmm_error *err)
{
    const int rank = l->matrix[i].rank;
    char module[96];
    double alpha;
    module_name(module, i);
    if (a->rank && rank != a->rank) return refuse(err, j->path, "r is %d, but %s has rank %d", a->rank, module, rank);
    int code = alpha_of(&alpha, a->alpha, j, module, err);
    const real scale = l->matrix[i].scale = (real)(alpha / (a->rooted ? sqrt((double)rank) : rank));
    if (code == TTMM_OK && !(scale - scale == 0))
        return refuse(err, j->path, "the alpha of %s is %g, too large", module, alpha);
    for (size_t side = 0; side < 2 && code == TTMM_OK; side++) {
        const ttmm_array half = ttmm_lora_tensor_at(l, 2 * (size_t)i + side);
        ttmm_numbers *view = &l->matrix[i].view[side];
        const stored *found;
        code = find_shaped(&found, s, half.name, half.rows, half.cols, err);
        if (code == TTMM_OK && *in_place) code = map_tensor(view, l->files, s, found, err);
        else if (code == TTMM_OK) code = read_numbers(s, found, (real *)half.data, TTMM_REAL, err);
        if (code == TTMM_OK && *in_place && view->data == NULL) return *in_place = 0, TTMM_OK;
    }
    return code;
}

/* Settings, then the ranks by the tensors' shapes, then room for just those, then the numbers; in_place as above. */
static int read_lora(ttmm_lora *l, int *in_place, const ttmm_config *c, const json *j, safetensors *s, ttmm_error *err)
{
    const int matrices = c->n_layers * TTMM_MATRICES, wanted = *in_place;
    adapter_settings a = {0};
    memset(l, 0, sizeof *l);
    int *rank = calloc((size_t)matrices, sizeof *rank);
    if (rank == NULL) return fail(err, TTMM_NO_ROOM, "out of memory for a list of %d ranks", matrices);
    int code = read_adapter_settings(&a, j, err);
    if (code == TTMM_OK) rename_default(s);
    if (code == TTMM_OK) code = read_ranks(rank, s, j, c, err);
    if (code == TTMM_OK)
        code = wanted ? new_mapped_lora(l, c, rank, a.alpha, err) : place_lora(l, c, rank, 0, a.alpha, NULL, 0, err);
    for (int i = 0; i < matrices && code == TTMM_OK && wanted == *in_place; i++)
        if (rank[i]) code = read_adapter_matrix(l, in_place, i, &a, j, s, err);
    free(rank);
    if (code || wanted != *in_place) ttmm_lora_free(l);
    return code;
}

static int open_lora(ttmm_lora *l, int *in_place, const ttmm_config *c, const char *folder, ttmm_error *err)
{
    json j;
    safetensors s = {0};
    memset(l, 0, sizeof *l);
    int code = json_open(&j, folder, "adapter_config.json", err);
    if (code == TTMM_OK) code = open_safetensors(&s, folder, "adapter_model.safetensors", err);
    if (code == TTMM_OK) code = read_lora(l, in_place, c, &j, &s, err);
    close_safetensors(&s);
    json_close(&j);
    return code;
}

int ttmm_lora_of(ttmm_lora *l, const ttmm_config *c, const ttmm_file *config, const ttmm_file *file, ttmm_error *err)
{
    json j;
    safetensors s = {0};
    memset(l, 0, sizeof *l);
    int in_place = 1, code = json_of(&j, config, err);
    if (code == TTMM_OK) code = safetensors_of(&s, file, err);
    if (code == TTMM_OK) code = read_lora(l, &in_place, c, &j, &s, err);
    if (code == TTMM_OK && !in_place) code = read_lora(l, &in_place, c, &j, &s, err);
    close_safetensors(&s);
    json_close(&j);
    return code;
}

int ttmm_lora_read(ttmm_lora *l, const ttmm_config *c, const char *folder, ttmm_error *err)
{
    int in_place = 0;
    return open_lora(l, &in_place, c, folder, err);
}

int ttmm_lora_open(ttmm_lora *l, const ttmm_config *c, const char *folder, ttmm_error *err)
{
    int in_place = 1;
    const int code = open_lora(l, &in_place, c, folder, err);
    return code || in_place ? code : ttmm_lora_read(l, c, folder, err);
}

/* The tensors of a corpus's file, to be written from c or read into it. Returns how many, at most CORPUS_TENSORS. */
enum { CORPUS_TENSORS = 10 };
static size_t corpus_tensors(stored *t, const ttmm_corpus *c, size_t name_bytes)
{
    size_t n = 0;
    t[n++] = store("document_offsets", I64, c->n_documents + 1, 0, c->document);
    t[n++] = store("sequence_offsets", I64, c->n_sequences + 1, 0, c->sequence);
    t[n++] = store("tokens", I32, c->n_tokens, 0, c->token);
    t[n++] = store("document_file", I32, c->n_documents, 0, c->document_file);
    t[n++] = store("sequence_document", I32, c->n_sequences, 0, c->sequence_document);
    if (c->dim) t[n++] = store("embeddings", TTMM_REAL, c->n_sequences, c->dim, c->embedding);
    if (c->dim && c->encoder[0]) t[n++] = store("encoder", U8, sizeof c->encoder, 0, c->encoder);
    if (c->dim && c->idf) t[n++] = store(c->by_ids ? "idf_of_ids" : "idf", TTMM_REAL, c->dim, 0, c->idf);
    if (c->clustered) t[n++] = store("cluster", I32, c->n_sequences, 0, c->cluster);
    t[n++] = store("file_names", U8, name_bytes, 0, c->names); /* each ends in a zero byte */
    return n;
}

/* c->clustered and c->dim say what there is beside the text. */
int ttmm_corpus_write(const ttmm_corpus *c, const char *folder, const char *note, ttmm_error *err)
{
    stored t[CORPUS_TENSORS];
    size_t name_bytes = 0;
    for (size_t i = 0; i < c->n_files; i++) name_bytes += strlen(c->file[i]) + 1;
    const size_t n = corpus_tensors(t, c, name_bytes);
    int code = ttmm_make_folder(folder, err);
    return code ? code : write_safetensors(folder, "corpus.safetensors", t, n, note, err);
}

/* Offsets must ascend from 0 to `last`: no document and no sequence is empty.    offset [n + 1] */
static int check_offsets(const size_t *offset, size_t n, size_t last, const char *path, const char *name,
                         ttmm_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (offset[i] >= offset[i + 1]) return refuse(err, path, "%s does not ascend at %zu", name, i + 1);
    if (offset[0] != 0 || offset[n] != last)
        return refuse(err, path, "%s goes from %zu to %zu, expected 0 to %zu", name, offset[0], offset[n], last);
    return TTMM_OK;
}

/* Numbers must be below `most`; read_numbers let none be negative. */
static int check_below(const int *x, size_t n, size_t most, const char *path, const char *name, ttmm_error *err)
{
    for (size_t i = 0; i < n; i++)
        if ((size_t)x[i] >= most)
            return refuse(err, path, "%s has %d at %zu, expected less than %zu", name, x[i], i, most);
    return TTMM_OK;
}

/* What must be known before there is room for the rest: how many of everything. The files are counted by the zero bytes
 * at the ends of their names. */
static int read_corpus_sizes(ttmm_corpus *c, safetensors *s, size_t *name_bytes, ttmm_error *err)
{
    const char *needed[] = {"tokens", "document_offsets", "sequence_offsets", "file_names"};
    size_t count[4] = {0};
    for (size_t i = 0; i < 4; i++) {
        const stored *t = find_tensor(s, needed[i]);
        if (t == NULL || t->dtype == DTYPES || t->dim[0] < 1 || t->n_dims != 1)
            return refuse(err, s->j.path, "tensor %s is missing or not a list", needed[i]);
        count[i] = t->dim[0];
    }
    c->n_tokens = count[0], c->n_documents = count[1] - 1, c->n_sequences = count[2] - 1, *name_bytes = count[3];
    if (c->n_documents < 1 || c->n_sequences < 1) return refuse(err, s->j.path, "holds no documents");
    char *names = malloc(*name_bytes);
    if (names == NULL) return fail(err, TTMM_NO_ROOM, "%s: out of memory", s->j.path);
    int code = read_tensor(s, "file_names", names, U8, *name_bytes, 1, err);
    for (size_t i = 0; i < *name_bytes && code == TTMM_OK; i++) c->n_files += names[i] == 0;
    if (code == TTMM_OK && names[*name_bytes - 1] != 0)
        code = refuse(err, s->j.path, "file_names does not end in a zero byte");
    free(names);
    return code;
}

/* Embeddings of reals in place; *at stays NULL if they cannot be used so. */
static int map_embeddings(real **at, ttmm_corpus *c, const safetensors *s, const stored *t, ttmm_error *err)
{
    ttmm_numbers x = {0};
    c->files = TTMM_CALLOC(1, sizeof(mapped_files));
    if (c->files == NULL) return fail(err, TTMM_NO_ROOM, "out of memory for a list of files");
    const int code = t->dtype == TTMM_REAL ? map_tensor(&x, c->files, s, t, err) : TTMM_OK;
    if (code == TTMM_OK) *at = (real *)x.data;
    return code;
}

/* Sizes, then room, then everything by the list that it was written by, then whether it fits together. */
enum { READ, MAP, LEAVE };
static int read_corpus_file(ttmm_corpus *c, safetensors *s, int vocab, int embedded, ttmm_error *err)
{
    stored tensor[CORPUS_TENSORS];
    size_t name_bytes = 0;
    memset(c, 0, sizeof *c);
    const char *path = s->j.path;
    int code = read_corpus_sizes(c, s, &name_bytes, err);
    if (code == TTMM_OK) code = allocate_corpus(c, name_bytes, err);
    const size_t n = c->n_sequences, n_documents = c->n_documents;
    const stored *embeddings = code ? NULL : find_tensor(s, "embeddings");
    real *in_place = NULL;
    int wanted = 0; /* the embeddings, to be read */
    if (embeddings) {
        const int idf = find_tensor(s, "idf") != NULL || find_tensor(s, "idf_of_ids") != NULL;
        c->by_ids = find_tensor(s, "idf_of_ids") != NULL;
        const size_t dim = embeddings->dim[1];
        if (embeddings->dim[0] != n || dim == 0 || (idf && dim != TTMM_EMBED_DIM))
            code = refuse(err, path, "tensor embeddings is [%zu, %zu], expected [%zu, %s]", embeddings->dim[0], dim, n,
                          idf ? "2048" : "E");
        if (code == TTMM_OK) code = find_shaped(&embeddings, s, "embeddings", n, dim, err);
        if (code == TTMM_OK && embedded == MAP) code = map_embeddings(&in_place, c, s, embeddings, err);
        wanted = embedded != LEAVE && in_place == NULL;
        if (code == TTMM_OK) code = allocate_embeddings(c, wanted ? n : 0, dim, idf, err);
        if (!wanted) c->embedding = in_place;
        if (code == TTMM_OK && find_tensor(s, "encoder")) c->encoder[0] = '?'; /* it is read with the rest */
    }
    c->clustered = find_tensor(s, "cluster") != NULL;
    const size_t tensors = code ? 0 : corpus_tensors(tensor, c, name_bytes);
    for (size_t i = 0; i < tensors && code == TTMM_OK; i++) {
        const stored *t = &tensor[i];
        if (strcmp(t->name, "embeddings") == 0 && !wanted) continue;
        code = read_tensor(s, t->name, (void *)t->data, t->dtype, t->dim[0], t->dim[1], err);
    }
    char *name = c->names;
    for (size_t i = 0; i < c->n_files && code == TTMM_OK; i++, name += strlen(name) + 1) c->file[i] = name;
    c->encoder[sizeof c->encoder - 1] = 0;
    if (code == TTMM_OK) code = check_below(c->token, c->n_tokens, (size_t)vocab, path, "tokens", err);
    if (code == TTMM_OK) code = check_offsets(c->document, n_documents, c->n_tokens, path, "document_offsets", err);
    if (code == TTMM_OK) code = check_offsets(c->sequence, n, c->n_tokens, path, "sequence_offsets", err);
    if (code == TTMM_OK) code = check_below(c->document_file, n_documents, c->n_files, path, "document_file", err);
    if (code == TTMM_OK) code = check_below(c->sequence_document, n, n_documents, path, "sequence_document", err);
    if (code == TTMM_OK && c->clustered) code = check_below(c->cluster, n, n, path, "cluster", err);
    if (code) ttmm_corpus_free(c);
    return code;
}

/* An image's words on their way: counted and hashed, and written if f is there, as bytes or as C. */
typedef struct {
    FILE *f;
    int as_c, rounds, too_large; /* rounds: 1 if a number was not stored as it is; too_large: as an infinity */
    size_t n;
    uint64_t hash;
} image_output;

static void put_word(image_output *o, uint32_t word, int halves)
{
    unsigned char bytes[4];
    store_bytes(bytes, word, 4);
    if (o->n++ >= 5) o->hash = hash_words(o->hash, &word, 1, TTMM_F32);
    if (o->f == NULL) return;
    if (!o->as_c) fwrite(bytes, 1, 4, o->f);
    else if (halves) fprintf(o->f, "H(0x%04x,0x%04x),", (unsigned)(word & 0xffff), (unsigned)(word >> 16));
    else fprintf(o->f, "0x%08lx,", (unsigned long)word);
    if (o->as_c && o->n % 8 == 0) fputc('\n', o->f);
}

static void put_double(image_output *o, double x)
{
    put_word(o, (uint32_t)to_bits(x), 0), put_word(o, (uint32_t)(to_bits(x) >> 32), 0);
}

static uint32_t image_number(image_output *o, const real *x, size_t i, int type)
{
    const uint64_t bits = encode_number(x, i, type);
    const double kept = decode_number(bits, type);
    o->rounds |= (real)kept != x[i], o->too_large |= !(kept - kept == 0);
    return (uint32_t)bits;
}

static void put_numbers(image_output *o, ttmm_numbers x, size_t n, int type)
{
    real part[256];
    while (o->n % 4 != 0) put_word(o, 0, 0);
    for (size_t i = 0; i < n; i += 256) {
        const size_t some = n - i < 256 ? n - i : 256;
        to_reals(part, x, i, some);
        for (size_t k = 0; k < some; k++) {
            uint32_t word = image_number(o, part, k, type);
            if (type == TTMM_BF16 && ++k < some) word |= image_number(o, part, k, type) << 16;
            put_word(o, word, type == TTMM_BF16);
        }
    }
}

/* See section 12. */
static void put_image(image_output *o, const uint32_t *begin, const ttmm_mixture *x, const ttmm_lora *const *lora,
                      int type)
{
    ttmm_config c = x->base->config;
    const size_t matrices = (size_t)c.n_layers * TTMM_MATRICES;
    const uint32_t sizes[4] = {(uint32_t)type, (uint32_t)x->K, (uint32_t)x->E, x->idf != NULL};
    o->n = 0, o->hash = IMAGE_MAGIC;
    for (size_t i = 0; i < 5; i++) put_word(o, begin[i], 0);
    for (size_t i = 0; i < 4; i++) put_word(o, sizes[i], 0);
    for (size_t i = 0; i < IMAGE_INTS; i++) put_word(o, (uint32_t)*image_int(&c, i), 0);
    for (size_t i = 0; i < IMAGE_DOUBLES; i++) put_double(o, *image_double(&c, i));
    for (size_t k = 0; k < x->K; k++) {
        put_double(o, lora[k]->alpha);
        for (size_t i = 0; i < matrices; i++)
            put_word(o, (uint32_t)lora[k]->matrix[i].rank, 0), put_double(o, (double)lora[k]->matrix[i].scale);
    }
    for (size_t i = 0; i < ttmm_n_tensors(&c); i++) {
        const ttmm_tensor t = ttmm_tensor_at(&c, i);
        put_numbers(o, weight(x->base, t.layer, t.kind), t.rows * t.cols, type);
    }
    for (size_t i = 0; i < x->K * matrices; i++) {
        const ttmm_lora_matrix *l = &lora[i / matrices]->matrix[i % matrices];
        put_numbers(o, lora_a(l), (size_t)l->rank * l->in, type);
        put_numbers(o, lora_b(l), (size_t)l->rank * l->out, type);
    }
    put_numbers(o, reals(x->centroid), x->K * x->E, TTMM_F32);
    put_numbers(o, reals(x->idf), x->idf ? x->E : 0, TTMM_F32);
}

/* Twice: the words that say how many there are, and their hash, come first. */
int ttmm_image_write(const ttmm_mixture *x, const ttmm_lora *const *lora, int type, const char *path, size_t *bytes,
                     int *rounded, ttmm_error *err)
{
    const size_t length = strlen(path);
    image_output w = {.as_c = length > 2 && strcmp(path + length - 2, ".h") == 0};
    uint32_t begin[5] = {IMAGE_MAGIC, 1, 0, 0, 0};
    output o;
    put_image(&w, begin, x, lora, type);
    if (w.n > UINT32_MAX) return fail(err, TTMM_BAD_INPUT, "%s: an image of more than 2^32 words", path);
    if (w.too_large) return fail(err, TTMM_BAD_INPUT, "%s: not written: a number is too large for its type", path);
    *bytes = 4 * w.n, *rounded = w.rounds;
    begin[2] = (uint32_t)w.n, begin[3] = (uint32_t)w.hash, begin[4] = (uint32_t)(w.hash >> 32);
    const int code = output_open(&o, NULL, path, err);
    if (code) return code;
    w.f = o.f;
    if (w.as_c)
        fprintf(o.f,
                "/* Written by run export, for ttmm_image_view. */\n#include <stdint.h>\n#if defined(__BYTE_ORDER__) "
                "&& __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__\n#define H(a, b) (uint32_t)(a) << 16 | (b)\n#else\n"
                "#define H(a, b) (a) | (uint32_t)(b) << 16\n#endif\nstatic const uint32_t ttmm_flash[%zu] = {\n",
                w.n);
    put_image(&w, begin, x, lora, type);
    if (w.as_c) fputs("};\n#undef H\n", o.f);
    return output_close(&o, err);
}

static int open_corpus(ttmm_corpus *c, const char *folder, int vocab, int embedded, ttmm_error *err)
{
    safetensors s;
    memset(c, 0, sizeof *c);
    int code = open_safetensors(&s, folder, "corpus.safetensors", err);
    if (code) return code;
    code = read_corpus_file(c, &s, vocab, embedded, err);
    close_safetensors(&s);
    return code;
}

int ttmm_corpus_read(ttmm_corpus *c, const char *folder, int vocab, ttmm_error *err)
{
    return open_corpus(c, folder, vocab, READ, err);
}

int ttmm_corpus_open(ttmm_corpus *c, const char *folder, int vocab, int embeddings, ttmm_error *err)
{
    return open_corpus(c, folder, vocab, embeddings ? MAP : LEAVE, err);
}

int ttmm_corpus_of(ttmm_corpus *c, const ttmm_file *file, int vocab, ttmm_error *err)
{
    safetensors s;
    memset(c, 0, sizeof *c);
    int code = safetensors_of(&s, file, err);
    if (code) return code;
    code = read_corpus_file(c, &s, vocab, MAP, err);
    close_safetensors(&s);
    return code;
}

/* The tensors of a trainer's checkpoint; weights is where they are, or where to read them to. */
enum { CHECKPOINT_TENSORS = 4 };
static void checkpoint_tensors(stored *tensor, const ttmm_trainer *t, const real *weights, const size_t *at)
{
    tensor[0] = store("weights", TTMM_REAL, t->n, 0, weights);
    tensor[1] = store("first_moments", TTMM_REAL, t->n, 0, t->moment1);
    tensor[2] = store("second_moments", TTMM_REAL, t->n, 0, t->moment2);
    tensor[3] = store("step_and_tokens", I64, 2, 0, at);
}

int ttmm_trainer_save(const ttmm_trainer *t, const char *path, const char *settings, ttmm_error *err)
{
    const size_t at[2] = {(size_t)t->step, t->tokens};
    stored tensor[CHECKPOINT_TENSORS];
    checkpoint_tensors(tensor, t, t->weights, at);
    return write_safetensors(NULL, path, tensor, CHECKPOINT_TENSORS, settings, err);
}

/* The settings must be the same, and the types: a run resumed in another precision would not end with the same bits.
 * What fails leaves the trainer as ttmm_trainer_start did, as the weights are read into room for gradients first. */
int ttmm_trainer_load(ttmm_trainer *t, const char *path, const char *settings, ttmm_error *err)
{
    const size_t size = strlen(settings) + 1024; /* room for a longer note, which is another one, and is shown */
    size_t at[2];
    stored tensor[CHECKPOINT_TENSORS];
    safetensors s;
    FILE *f = ttmm_open(path, "rb");
    if (f == NULL && (errno == ENOENT || errno == ENOTDIR)) return 0;
    if (f) fclose(f);
    int code = open_safetensors(&s, NULL, path, err);
    if (code) return code;
    char *note = malloc(size);
    if (note) read_note(note, size, &s);
    else code = fail(err, TTMM_NO_ROOM, "out of memory for a note");
    if (note && strcmp(note, settings) != 0)
        code = refuse(err, path,
                      "is of a run with \"%.200s\", this one has \"%.200s\": finish that one or remove the file", note,
                      settings);
    free(note);
    checkpoint_tensors(tensor, t, t->grad, at);
    for (size_t i = 0; i < CHECKPOINT_TENSORS && code == TTMM_OK; i++) {
        const stored *to = &tensor[i], *from = find_tensor(&s, to->name);
        if (from && from->dtype != to->dtype) code = refuse(err, path, "tensor %s is of another type", to->name);
        else code = read_tensor(&s, to->name, (void *)to->data, to->dtype, to->dim[0], 1, err);
    }
    close_safetensors(&s);
    if (code == TTMM_OK && at[0] > (size_t)t->steps) code = refuse(err, path, "is at step %zu of %ld", at[0], t->steps);
    if (code) {
        memset(t->moment1, 0, t->n * sizeof(real));
        memset(t->moment2, 0, t->n * sizeof(real));
        return code;
    }
    memcpy(t->weights, t->grad, t->n * sizeof(real));
    t->step = (long)at[0], t->tokens = at[1];
    return 1;
}

/* ==== 17. Tokenizers and Unicode =====================================================================================
 *
 * tokenizer.json as Hugging Face's tokenizers write it, of byte-level BPE (Sennrich et al. 2016; Radford et al. 2019):
 *
 *   normalizer      none or NFC
 *   pre_tokenizer   ByteLevel, with an expression of its own or none; before it Split by one of three regular
 *                   expressions, Digits, or several of these
 *   model           BPE: vocab {"token": id, ...}, merges ["left right", ...] or [["left", "right"], ...]
 *   added_tokens    found in a text where they are spelled out, before or (normalized) after its normalisation
 *   post_processor  none, ByteLevel, or TemplateProcessing: tokens before and after a text
 *   decoder         ByteLevel, or a Sequence that ends in it and changes nothing
 *
 * or, of a sentence encoder, of WordPiece, with BertNormalizer and BertPreTokenizer, and a template as above, or
 * BertProcessing or RobertaProcessing, which are one.
 *
 * Anything else is refused by name, as it would give other tokens. A text is cut at the added tokens in it, then into
 * words, by each step of the pre_tokenizer what the one before left in one piece; a word begins as the tokens of its
 * bytes, and of all pairs of neighbours that have a merge the one of lowest rank is merged, the leftmost of equal ones,
 * until there is none. A byte that has no token becomes unk_token (with fuse_unk one for all that follow each other);
 * without unk_token it is dropped before the merges. The steps, none for a text in one piece:
 *
 *   GPT2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *   LLAMA3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
 *           \s+(?!\S)|\s+
 *   QWEN2   as LLAMA3, with \p{N} instead of \p{N}{1,3}
 *   DIGITS  \p{N}+|\P{N}+, what Digits stands for;   DIGIT  \p{N}|\P{N}+, with individual_digits
 *
 * transformers reads more files beside it. What they change shows only in texts that hold certain tokens, so those
 * texts are refused, as is one with a token past the model's vocabulary. (transformers 5 has classes, LlamaTokenizer,
 * GPT2Tokenizer and Qwen2Tokenizer among them, that build steps of their own around the file's vocabulary and merges
 * whatever the rest of it says: where tokenizer_config.json names one, and for all of model_type qwen2. Here
 * tokenizer.json counts, as in tokenizers and transformers 4: by it the models were trained.)
 *
 * What is a letter (\p{L}), a number (\p{N}) and NFC come from tables of Unicode, which stand packed at the end of this
 * file; test/unicode.py makes them, and says how a number is written and of which versions of Unicode they are. */

/* From the end of the file: a packed table, a list of strings that ends in NULL. */
enum { PACKED_LETTERS, PACKED_NUMBERS, PACKED_COMBINING, PACKED_SINGLES, PACKED_PAIRS };
enum { PACKED_DROPPED = PACKED_PAIRS + 1, PACKED_MARKS, PACKED_PUNCTUATION, PACKED_LOWER };
static const char *const *packed_table(int which);

/* The numbers of a packed table: base 45, a digit of the alphabet's upper half is followed by another. out NULL: counts
 * only. Returns how many. */
static size_t unpack(uint32_t *out, int which)
{
    size_t n = 0;
    uint32_t number = 0;
    for (const char *const *packed = packed_table(which); *packed; packed++)
        for (const char *p = *packed; *p; p++) {
            const uint32_t digit = (uint32_t)(*p - '#' - (*p > '?') - (*p > '\\'));
            number = number * 45 + digit % 45;
            if (digit >= 45) continue; /* another digit follows */
            if (out) out[n] = number;
            n++, number = 0;
        }
    return n;
}

typedef struct { /* code = first, or first and then second, in NFD's form */
    uint32_t code, first, second;
} mapping;

typedef struct {
    uint32_t *letters, *numbers; /* where they begin and end in turn, ascending */
    uint32_t *combining;         /* from where on, canonical combining class; ascending */
    size_t n_letters, n_numbers, n_combining;
    uint32_t *dropped, *marks, *punctuation; /* as letters: what BERT's steps drop, strip and cut off */
    uint32_t *lower;                         /* from where on, how far and which, what to add; ascending */
    size_t n_dropped, n_marks, n_punctuation, n_lower;
    mapping *decomposing, *composing; /* by code; by first and second */
    size_t n_decomposing, n_composing;
} unicode;

/* The last i with x[i * step] <= c, plus 1; 0: none. */
static size_t find_step(const uint32_t *x, size_t n, size_t step, uint32_t c)
{
    size_t from = 0, to = n;
    while (from < to) {
        const size_t middle = (from + to) / 2;
        if (x[middle * step] <= c) from = middle + 1;
        else to = middle;
    }
    return from;
}

/* For qsort and bsearch. */
static int by_code(const void *a, const void *b)
{
    const mapping *x = a, *y = b;
    return (x->code > y->code) - (x->code < y->code);
}

static int by_parts(const void *a, const void *b)
{
    const mapping *x = a, *y = b;
    return x->first != y->first ? (x->first > y->first ? 1 : -1) : (x->second > y->second) - (x->second < y->second);
}

/* Signed differences. */
static uint32_t unzigzag(uint32_t u) { return u / 2 ^ (0 - (u & 1)); } /* 0 1 2 3 4 is 0 -1 1 -2 2, mod 2^32 */

/* A table of groups of numbers, the first of each given as the distance from that of the group before. *n: how many
 * groups. */
static uint32_t *unpack_groups(size_t *n, int which, size_t group, arena *a)
{
    const size_t numbers = unpack(NULL, which);
    uint32_t *x = take(a, numbers, sizeof *x);
    *n = numbers / group;
    if (x == NULL) return NULL; /* the arena only adds up */
    unpack(x, which);
    for (size_t i = group; i < numbers; i += group) x[i] += x[i - group];
    return x;
}

/* Singles are characters that decompose to one other, pairs to two: what they are, whether NFC puts the two together
 * again, and the two, each as the difference from that of the pair before. */
static void lay_out_unicode(unicode *u, arena *a)
{
    size_t singles, n_pairs = unpack(NULL, PACKED_PAIRS);
    u->letters = unpack_groups(&u->n_letters, PACKED_LETTERS, 1, a);
    u->numbers = unpack_groups(&u->n_numbers, PACKED_NUMBERS, 1, a);
    u->combining = unpack_groups(&u->n_combining, PACKED_COMBINING, 2, a);
    u->dropped = unpack_groups(&u->n_dropped, PACKED_DROPPED, 1, a);
    u->marks = unpack_groups(&u->n_marks, PACKED_MARKS, 1, a);
    u->punctuation = unpack_groups(&u->n_punctuation, PACKED_PUNCTUATION, 1, a);
    u->lower = unpack_groups(&u->n_lower, PACKED_LOWER, 3, a);
    const uint32_t *single = unpack_groups(&singles, PACKED_SINGLES, 2, a);
    uint32_t *pair = take(a, n_pairs, sizeof *pair);
    u->n_decomposing = singles + n_pairs / 3, u->n_composing = 0;
    u->decomposing = take(a, u->n_decomposing, sizeof *u->decomposing);
    u->composing = take(a, n_pairs / 3, sizeof *u->composing);
    if (a->base == NULL) return;
    mapping now = {0, 0, 0}, *to = u->decomposing;
    for (size_t i = 0; i < singles; i++) *to++ = (mapping){single[2 * i], single[2 * i + 1], 0};
    unpack(pair, PACKED_PAIRS);
    for (size_t i = 0; i < n_pairs; i += 3) {
        now.code += pair[i] / 2, now.first += unzigzag(pair[i + 1]), now.second += unzigzag(pair[i + 2]);
        *to++ = now;
        if (pair[i] % 2) u->composing[u->n_composing++] = now;
    }
    qsort(u->decomposing, u->n_decomposing, sizeof now, by_code);
    qsort(u->composing, u->n_composing, sizeof now, by_parts);
}

/* 0 of a starter, and of every character below U+0300; else where among the marks after a starter it belongs. */
static uint32_t combining_class(const unicode *u, uint32_t c)
{
    const size_t i = c < 0x300 ? 0 : find_step(u->combining, u->n_combining, 2, c);
    return i ? u->combining[2 * i - 1] : 0;
}

/* Hangul syllables follow from arithmetic (Unicode 16, section 3.12): 19 leading consonants, 21 vowels, and 27 trailing
 * consonants or none. */
enum { SYLLABLES = 0xac00, LEADING = 0x1100, VOWELS = 0x1161, TRAILING = 0x11a7 };

/* The whole decomposition of c, written at out; returns its end. */
static uint32_t *decompose(const unicode *u, uint32_t *out, uint32_t c)
{
    const mapping key = {c, 0, 0};
    if (c - SYLLABLES < 19 * 21 * 28) {
        const uint32_t i = c - SYLLABLES;
        *out++ = LEADING + i / (21 * 28), *out++ = VOWELS + i / 28 % 21;
        if (i % 28) *out++ = TRAILING + i % 28;
        return out;
    }
    const mapping *found = c < 0xc0 ? NULL : bsearch(&key, u->decomposing, u->n_decomposing, sizeof key, by_code);
    if (found == NULL) {
        *out++ = c;
        return out;
    }
    out = decompose(u, out, found->first);
    if (found->second) *out++ = found->second; /* has no decomposition itself */
    return out;
}

/* The character that two make, 0: they do not. */
static uint32_t compose(const unicode *u, uint32_t first, uint32_t second)
{
    const mapping key = {0, first, second};
    if (first - LEADING < 19 && second - VOWELS < 21)
        return SYLLABLES + ((first - LEADING) * 21 + second - VOWELS) * 28;
    if (first - SYLLABLES < 19 * 21 * 28 && (first - SYLLABLES) % 28 == 0 && second - TRAILING - 1 < 27)
        return first + second - TRAILING;
    const mapping *found = bsearch(&key, u->composing, u->n_composing, sizeof key, by_parts);
    return found ? found->code : 0;
}

/* Put marks code[0 .. n - 1] in order of their class, those of one class as they came: class by class, of which there
 * are some 50, so that the time grows with n and not its square.    spare [n] */
static void sort_marks(const unicode *u, uint32_t *code, size_t n, uint32_t *spare)
{
    size_t sorted = 0;
    for (uint32_t order = 0, after; sorted < n; order = after) {
        after = UINT32_MAX;
        for (size_t i = 0; i < n; i++) {
            const uint32_t class = combining_class(u, code[i]);
            if (class == order) spare[sorted++] = code[i];
            else if (class > order && class < after) after = class;
        }
    }
    memcpy(code, spare, n * sizeof *code);
}

/* The marks after each starter.    spare [n] */
static void order_marks(const unicode *u, uint32_t *code, size_t n, uint32_t *spare)
{
    for (size_t i = 0, marks; i < n; i += marks + 1) {
        for (marks = 0; i + marks < n && combining_class(u, code[i + marks]) > 0;) marks++;
        if (marks > 1) sort_marks(u, code + i, marks, spare);
    }
}

/* Normalisation form C (Unicode Standard Annex 15): decompose, put combining marks in order of their class, compose
 * what can be. A text with nothing from U+0300 on is in it already: then *out [*length] is the text itself, else
 * allocated; NULL: no memory. */
static void normalise_text(char **out, size_t *length, const unicode *u, const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0, codes = 0, bytes;
    while (i < n && s[i] < 0xcc) i++; /* U+0300 and all after it begin with this byte or a higher one */
    *out = (char *)text, *length = n;
    if (i == n) return;
    uint32_t *code = new_array(add_size(mul_size(3, n), 4), sizeof *code); /* 2 bytes give up to 3; and spare */
    if ((*out = (char *)code) == NULL) return;
    for (i = 0; i < n; i += bytes) {
        const uint32_t c = utf8_get(s + i, n - i, &bytes);
        codes = (size_t)(decompose(u, code + codes, c) - code);
    }
    size_t starter = SIZE_MAX, kept = 0;
    order_marks(u, code, codes, code + codes);
    uint32_t last = 0; /* order of the last mark kept after the starter; 0: none */
    for (i = 0; i < codes; i++) {
        const uint32_t order = combining_class(u, code[i]);
        const int beside = starter != SIZE_MAX && (kept == starter + 1 || (last != 0 && last < order));
        const uint32_t whole = beside ? compose(u, code[starter], code[i]) : 0;
        if (whole) {
            code[starter] = whole;
            continue;
        }
        if (order == 0) starter = kept;
        last = order;
        code[kept++] = code[i];
    }
    *out = new_array(kept + 1, 4);
    *length = 0;
    for (i = 0; *out && i < kept; i++) *length += utf8_put(*out + *length, code[i]);
    free(code);
}

enum { SPLIT_NONE, SPLIT_GPT2, SPLIT_LLAMA3, SPLIT_QWEN2, SPLIT_DIGITS, SPLIT_DIGIT };
enum { MOST_SPLITS = 8 }; /* steps of a pre_tokenizer; SmolLM2 has two */
enum { SPECIAL = 1, RAW = 2 };
enum { MOST_AROUND = 8 }; /* tokens that a template puts before a text, or after it; Llama 3 has one */

typedef struct {
    int left, right, result, rank; /* tokens; left < 0: an empty place of the table */
} merge_rule;

typedef struct {
    const char *text;
    size_t length;
    int token, normalised; /* 1: is looked for after normalisation */
    const char *why;       /* what keeps texts with it from being read; NULL: nothing */
    int named;             /* 1: a file beside tokenizer.json names it, too; 2: with its flags */
} added_token;

struct ttmm_tokenizer {
    void *block;
    int split[MOST_SPLITS], n_splits, nfc, ignore_merges;
    int end;                                /* the token after a document, -1: none */
    int vocab;                              /* the model's; what is not below it can not be used */
    size_t n;                               /* tokens are below this */
    char *text;                             /* of all tokens ... */
    size_t *at;                             /* [n] ... where that of each begins */
    size_t *length;                         /* [n]; 0: there is no such token */
    char *special;                          /* [n] SPECIAL: is no text; RAW: its name stands for no bytes */
    int byte[256], unknown, fuse;           /* the token of each byte; of those without one, -1: none; fuse_unk */
    int *word;                              /* [word_room] hash table of tokens by RAW and text, -1: empty */
    merge_rule *merge;                      /* [merge_room] hash table by left and right */
    size_t word_room, merge_room, n_merges; /* rooms are powers of 2 */
    size_t n_words;                         /* in the vocabulary, without added tokens */
    added_token *added;
    size_t n_added, longest; /* bytes */
    int *place;              /* [place_room] hash table: of those of one text and `normalised` the first, plus 1 */
    size_t place_room;
    int templates;                                                  /* that the post_processor has */
    unsigned char begins[256];                                      /* whether an added token begins with that byte */
    int before[MOST_AROUND], after[MOST_AROUND], n_before, n_after; /* what the template puts around a text */
    unicode unicode;
    size_t most;                      /* WordPiece: longer words, in characters, are unknown; 0: this is BPE */
    int clean, chinese, strip, lower; /* steps of BertNormalizer */
    char prefix[8];                   /* of the names of tokens inside of words: ## */
};

void ttmm_tokenizer_free(ttmm_tokenizer *tokenizer)
{
    if (tokenizer) TTMM_FREE(tokenizer->block);
}

/* The place in the table of the token with that text, or the empty one where it belongs. raw: RAW or 0. */
static int *find_token(const ttmm_tokenizer *tok, const char *s, size_t n, int raw)
{
    size_t i = (size_t)mix_bits(hash_bytes(n, s, n)) & (tok->word_room - 1);
    for (int t; (t = tok->word[i]) >= 0; i = (i + 1) & (tok->word_room - 1))
        if (tok->length[t] == n && (tok->special[t] & RAW) == raw && memcmp(tok->text + tok->at[t], s, n) == 0) break;
    return &tok->word[i];
}

static int *find_word(const ttmm_tokenizer *tok, const char *s, size_t n) { return find_token(tok, s, n, 0); }

/* The same of the merge of two tokens. */
static merge_rule *find_merge(const ttmm_tokenizer *tok, int left, int right)
{
    size_t i = (size_t)mix_bits((uint64_t)left << 32 | (uint64_t)right) & (tok->merge_room - 1);
    while (tok->merge[i].left >= 0 && !(tok->merge[i].left == left && tok->merge[i].right == right))
        i = (i + 1) & (tok->merge_room - 1);
    return &tok->merge[i];
}

typedef struct { /* a merge that may be done at a place of the word */
    const merge_rule *rule;
    int at;
} candidate_merge;

typedef struct { /* a text on its way to tokens */
    const ttmm_tokenizer *tok;
    token_list *list;
    int *symbol, *next, *before; /* [word_room] of one word: tokens, a doubly linked list */
    candidate_merge *heap;       /* [2 word_room] the first is the next to be done */
    size_t word_room, n_heap;
    char *word;                 /* of WordPiece: the prefix and what is left of a word */
    const added_token *refused; /* one that keeps the text from being read */
} encoder;

/* The lowest rank first, then the leftmost. */
static int comes_before(const candidate_merge *a, const candidate_merge *b)
{
    return a->rule->rank != b->rule->rank ? a->rule->rank < b->rule->rank : a->at < b->at;
}

/* The merge of the symbol at `at` and the one after it, if there is one, goes on the heap. */
static void push_merge(encoder *e, int at)
{
    if (at < 0 || e->next[at] < 0) return;
    const candidate_merge c = {find_merge(e->tok, e->symbol[at], e->symbol[e->next[at]]), at};
    if (c.rule->left < 0) return;
    size_t i = e->n_heap++;
    for (; i > 0 && comes_before(&c, &e->heap[(i - 1) / 2]); i = (i - 1) / 2) e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = c;
}

/* The merge to be done next leaves the heap. */
static candidate_merge pop_merge(encoder *e)
{
    const candidate_merge top = e->heap[0], last = e->heap[--e->n_heap];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < e->n_heap) {
        if (child + 1 < e->n_heap && comes_before(&e->heap[child + 1], &e->heap[child])) child++;
        if (!comes_before(&e->heap[child], &last)) break;
        e->heap[i] = e->heap[child], i = child;
    }
    e->heap[i] = last;
    return top;
}

/* The token of byte i of a word; -1: it has none, or the byte before has it, too. */
static int byte_token(const ttmm_tokenizer *tok, const char *s, size_t i)
{
    const int token = tok->byte[(unsigned char)s[i]];
    if (token >= 0) return token;
    return tok->fuse && i > 0 && tok->byte[(unsigned char)s[i - 1]] < 0 ? -1 : tok->unknown;
}

/* Append the tokens of one word. The word is a list of symbols, the merges possible in it a heap: n log n steps for n
 * bytes. A merge whose symbols have been merged since stays on the heap until its turn comes, and is passed over. */
static void encode_word(encoder *e, const char *s, size_t n)
{
    const ttmm_tokenizer *tok = e->tok;
    const int whole = tok->ignore_merges ? *find_word(tok, s, n) : -1;
    if (whole >= 0) {
        put_token(e->list, whole);
        return;
    }
    if (tok->n_merges == 0) {
        for (size_t i = 0; i < n; i++)
            if (byte_token(tok, s, i) >= 0) put_token(e->list, byte_token(tok, s, i));
        return;
    }
    if (n > e->word_room) {
        free(e->symbol), free(e->heap);
        e->word_room = 2 * n;
        e->symbol = new_array(e->word_room, 3 * sizeof *e->symbol);
        e->heap = new_array(e->word_room, 2 * sizeof *e->heap); /* every merge removes one, and adds up to two */
        e->list->failed = e->list->failed || n > INT_MAX || e->symbol == NULL || e->heap == NULL;
    }
    if (e->list->failed) return;
    e->next = e->symbol + e->word_room, e->before = e->next + e->word_room;
    int last = -1; /* the symbol before */
    for (size_t i = 0; i < n; i++) {
        const int token = byte_token(tok, s, i);
        if (token < 0) continue;
        e->symbol[++last] = token;
        e->before[last] = last - 1, e->next[last] = last + 1;
    }
    if (last < 0) return; /* no byte has a token */
    e->next[last] = -1, e->n_heap = 0;
    for (int i = 0; i < last; i++) push_merge(e, i);
    while (e->n_heap > 0) {
        const candidate_merge c = pop_merge(e);
        const int at = c.at, right = e->next[at];
        if (e->symbol[at] != c.rule->left || right < 0 || e->symbol[right] != c.rule->right)
            continue; /* since merged */
        e->symbol[at] = c.rule->result, e->symbol[right] = -1;
        e->next[at] = e->next[right];
        if (e->next[right] >= 0) e->before[e->next[right]] = at;
        push_merge(e, e->before[at]);
        push_merge(e, at);
    }
    for (int i = 0; i >= 0; i = e->next[i]) put_token(e->list, e->symbol[i]);
}

enum { LETTER = 1, NUMBER = 2, SPACE = 4, NEWLINE = 8, OTHER = 16 }; /* NEWLINE: CR and LF, SPACE: the rest of \s */

/* Whether c is one of those that the table is of: it begins and ends ranges in turn. */
static int is_within(const uint32_t *table, size_t n, uint32_t c) { return (int)(find_step(table, n, 1, c) % 2); }

/* What \s, \p{L} and \p{N} stand for. */
static int character_kind(const unicode *u, uint32_t c)
{
    if (c == '\n' || c == '\r') return NEWLINE;
    if ((c >= 9 && c <= 12) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
        c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000)
        return SPACE;
    if (is_within(u->letters, u->n_letters, c)) return LETTER;
    return is_within(u->numbers, u->n_numbers, c) ? NUMBER : OTHER;
}

static int is_chinese(uint32_t c) /* as BERT has it: CJK ideographs, but not all that Unicode has by now */
{
    return (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0x2f800 && c <= 0x2fa1f);
}

static uint32_t lower_case(const unicode *u, uint32_t c)
{
    const size_t i = find_step(u->lower, u->n_lower, 3, c);
    if (i == 0) return c;
    const uint32_t *run = u->lower + 3 * (i - 1), distance = c - run[0];
    return distance > run[1] / 2 || (run[1] % 2 && distance % 2) ? c : c + unzigzag(run[2]);
}

/* Where the run of characters of these kinds ends that begins at `at`; at most `most` characters. *last: where its last
 * one begins; untouched if it is empty. */
static size_t run_of(const ttmm_tokenizer *tok, const unsigned char *s, size_t n, size_t at, int kinds, size_t most,
                     size_t *last)
{
    size_t length;
    for (; at < n && most > 0; at += length, most--) {
        if (!(character_kind(&tok->unicode, utf8_get(s + at, n - at, &length)) & kinds)) break;
        *last = at;
    }
    return at;
}

/* 's 't 're 've 'm 'll 'd: the length, or 0. With any case the long s, U+017F, counts as an s. */
static size_t contraction(const unsigned char *s, size_t n, int any_case)
{
    static const char *const ending[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    if (n < 2 || s[0] != '\'') return 0;
    if (any_case && n > 2 && s[1] == 0xc5 && s[2] == 0xbf) return 3;
    for (size_t i = 0; i < sizeof ending / sizeof *ending; i++) {
        const size_t length = strlen(ending[i]);
        size_t j = 0;
        while (j < length && 1 + j < n &&
               (s[1 + j] == ending[i][j] || (any_case && s[1 + j] == ending[i][j] - 'a' + 'A')))
            j++;
        if (j == length) return 1 + length;
    }
    return 0;
}

/* The length of the first word of s [n], n > 0: the alternatives of the expression in their order. The last three of
 * LLAMA3 are about blanks: up to the last line end among them; else all but the last, if a word follows; else all. */
static size_t word_length(const ttmm_tokenizer *tok, int split, const unsigned char *s, size_t n)
{
    const int gpt2 = split == SPLIT_GPT2;
    const size_t blank = s[0] == ' ', digits = split == SPLIT_LLAMA3 ? 3 : 1;
    size_t end = split < SPLIT_DIGITS ? contraction(s, n, !gpt2) : 0, last = 0, first;
    if (end > 0) return end;
    const int kind = character_kind(&tok->unicode, utf8_get(s, n, &first));
    if (split >= SPLIT_DIGITS && kind != NUMBER) return run_of(tok, s, n, 0, ~NUMBER, SIZE_MAX, &last);
    if (split >= SPLIT_DIGITS) return run_of(tok, s, n, 0, NUMBER, split == SPLIT_DIGIT ? 1 : SIZE_MAX, &last);
    const size_t before_letters = gpt2 ? blank : kind & (SPACE | OTHER) ? first : 0;
    if ((end = run_of(tok, s, n, before_letters, LETTER, SIZE_MAX, &last)) > before_letters) return end;
    const size_t before_digits = gpt2 ? blank : 0;
    if ((end = run_of(tok, s, n, before_digits, NUMBER, gpt2 ? SIZE_MAX : digits, &last)) > before_digits) return end;
    if ((end = run_of(tok, s, n, blank, OTHER, SIZE_MAX, &last)) > blank)
        return gpt2 ? end : run_of(tok, s, n, end, NEWLINE, SIZE_MAX, &last);
    end = run_of(tok, s, n, 0, SPACE | NEWLINE, SIZE_MAX, &last);
    for (size_t i = gpt2 ? 0 : end; i > 0; i--)
        if (s[i - 1] == '\n' || s[i - 1] == '\r') return i;
    return end < n && last > 0 ? last : end;
}

/* BertNormalizer: clean the text (of control characters; blanks are spaces then), set CJK characters apart, strip
 * accents (NFD without marks), all in lower case. The result is allocated; NULL: no memory. */
static void bert_text(char **out, size_t *length, const ttmm_tokenizer *tok, const char *text, size_t n)
{
    const unicode *u = &tok->unicode;
    const unsigned char *s = (const unsigned char *)text;
    size_t codes = 0, bytes;
    uint32_t *code = new_array(add_size(mul_size(2, n), 4), sizeof *code); /* a CJK character of 3 bytes: 3 */
    *out = NULL, *length = 0;
    for (size_t i = 0; code && i < n; i += bytes) {
        uint32_t c = utf8_get(s + i, n - i, &bytes);
        if (c >= NOT_UTF8) c = 0xfffd;
        if (tok->clean && is_within(u->dropped, u->n_dropped, c)) continue;
        if (tok->clean && character_kind(u, c) & (SPACE | NEWLINE)) c = ' ';
        const int apart = tok->chinese && is_chinese(c);
        if (apart) code[codes++] = ' ';
        if (tok->strip) codes = (size_t)(decompose(u, code + codes, c) - code);
        else code[codes++] = c;
        if (apart) code[codes++] = ' ';
    }
    if (code) *out = new_array(codes + 1, 4);
    if (*out && tok->strip) order_marks(u, code, codes, code + codes);
    for (size_t i = 0; *out && i < codes; i++) {
        uint32_t c = code[i];
        if (tok->strip && is_within(u->marks, u->n_marks, c)) continue;
        if (tok->lower && c == 0x130) *length += utf8_put(*out + *length, 'i'), c = 0x307; /* the only one of two */
        else if (tok->lower) c = lower_case(u, c);
        *length += utf8_put(*out + *length, c);
    }
    free(code);
}

/* A text as it is cut into words: itself, or allocated; NULL: no memory. */
static void normal_form(char **out, size_t *length, const ttmm_tokenizer *tok, const char *text, size_t n)
{
    *out = (char *)text, *length = n;
    if (tok->most) bert_text(out, length, tok, text, n);
    else if (tok->nfc) normalise_text(out, length, &tok->unicode, text, n);
}

/* WordPiece (Wu et al. 2016, as in BERT): the longest token that the word begins with, then the longest, with the
 * prefix before its name, that the rest begins with, and so on. If there is none at one place, the word is unknown. */
static void encode_pieces(encoder *e, const char *s, size_t n)
{
    const ttmm_tokenizer *tok = e->tok;
    const size_t first = e->list->n, prefix = strlen(tok->prefix);
    size_t characters = 0, at = 0, length;
    for (size_t i = 0; i < n; i++) characters += ((unsigned char)s[i] & 0xc0) != 0x80;
    for (int token; characters <= tok->most && at < n; at += length) {
        char *name = at ? e->word : e->word + prefix;
        memcpy(e->word + prefix, s + at, n - at); /* after the prefix, which is there */
        for (length = n - at; length > 0; length--) {
            const int inside = at + length < n && ((unsigned char)s[at + length] & 0xc0) == 0x80; /* of a character */
            if (!inside && (token = *find_word(tok, name, (at ? prefix : 0) + length)) >= 0) break;
        }
        if (length == 0) break;
        put_token(e->list, token);
    }
    if (at == n) return;
    e->list->n = first;
    put_token(e->list, tok->unknown);
}

/* BertPreTokenizer: words end at blanks, and punctuation marks are words. */
static void encode_bert(encoder *e, const char *text, size_t n)
{
    const unicode *u = &e->tok->unicode;
    size_t from = 0, length;
    for (size_t at = 0; at < n && !e->list->failed; at += length) {
        const uint32_t c = utf8_get((const unsigned char *)text + at, n - at, &length);
        const int mark = is_within(u->punctuation, u->n_punctuation, c);
        if (!mark && !(character_kind(u, c) & (SPACE | NEWLINE))) continue;
        if (at > from) encode_pieces(e, text + from, at - from);
        if (mark) encode_pieces(e, text + at, length);
        from = at + length;
    }
    if (n > from) encode_pieces(e, text + from, n - from);
}

/* Append the tokens of a text without added tokens: step `step` of the pre_tokenizer cuts it into pieces, the steps
 * after it each of these; past the last step a piece is a word. */
static void encode_words(encoder *e, int step, const char *text, size_t n)
{
    const ttmm_tokenizer *tok = e->tok;
    if (tok->most) encode_bert(e, text, n);
    else if (step == tok->n_splits) encode_word(e, text, n);
    else
        for (size_t at = 0, length; at < n && !e->list->failed; at += length) {
            length = word_length(tok, tok->split[step], (const unsigned char *)text + at, n - at);
            encode_words(e, step + 1, text + at, length);
        }
}

/* The place in the table of the added token that is looked for as s [n], with that hash, or the empty one where it
 * belongs. */
static int *find_added(const ttmm_tokenizer *tok, uint64_t hash, const char *s, size_t n, int normalised)
{
    size_t i = (size_t)mix_bits(hash + (uint64_t)normalised) & (tok->place_room - 1);
    for (const added_token *a; tok->place[i]; i = (i + 1) & (tok->place_room - 1)) {
        a = &tok->added[tok->place[i] - 1];
        if (a->length == n && a->normalised == normalised && memcmp(a->text, s, n) == 0) break;
    }
    return &tok->place[i];
}

/* The longest added token that text [n], n > 0, begins with, or NULL. */
static const added_token *added_at(const ttmm_tokenizer *tok, const char *text, size_t n, int normalised)
{
    const added_token *found = NULL;
    uint64_t hash = 0;
    for (size_t i = 0; i < n && i < tok->longest && tok->begins[(unsigned char)*text]; i++) {
        hash = hash_bytes(hash, text + i, 1);
        const int place = *find_added(tok, hash, text, i + 1, normalised);
        if (place) found = &tok->added[place - 1];
    }
    return found;
}

/* Cut a text at the added tokens that are looked for in it as it stands; what is between them is normalised and cut at
 * those that are looked for then; what is between these are words. */
static void encode_text(encoder *e, const char *text, size_t n, int normalised)
{
    char *form = (char *)text;
    size_t length = n, from = 0;
    if (normalised) normal_form(&form, &length, e->tok, text, n);
    if (form == NULL) e->list->failed = 1;
    for (size_t at = 0; at <= length && !e->list->failed && !e->refused;) {
        const added_token *a = at < length ? added_at(e->tok, form + at, length - at, normalised) : NULL;
        if (at < length && a == NULL) {
            at++;
            continue;
        }
        if (at > from && normalised) encode_words(e, 0, form + from, at - from);
        else if (at > from) encode_text(e, form + from, at - from, 1);
        if (a && a->why) e->refused = a;
        else if (a) put_token(e->list, a->token);
        from = at += a ? a->length : 1;
    }
    if (form != text) free(form);
}

/* In the byte vocabulary a text's bytes are its tokens, but for SEPARATOR. */
static int encode(token_list *list, const ttmm_tokenizer *tok, const char *text, size_t bytes, const char *name,
                  ttmm_error *err)
{
    const size_t first = list->n;
    encoder e = {.tok = tok, .list = list};
    if (tok && tok->most) {
        e.word = malloc(sizeof tok->prefix + 4 * tok->most);
        if (e.word) memcpy(e.word, tok->prefix, sizeof tok->prefix);
        else list->failed = 1;
    }
    for (size_t i = 0; tok == NULL && i < bytes && !list->failed; i++) {
        const int mark = bytes - i >= MARK && memcmp(text + i, SEPARATOR, MARK) == 0;
        put_token(list, mark ? TTMM_END : (unsigned char)text[i]);
        if (mark) i += MARK - 1;
    }
    for (int i = 0; tok && i < tok->n_before; i++) put_token(list, tok->before[i]);
    if (tok) encode_text(&e, text, bytes, 0);
    for (int i = 0; tok && i < tok->n_after; i++) put_token(list, tok->after[i]);
    free(e.symbol);
    free(e.heap);
    free(e.word);
    if (list->failed) return fail(err, TTMM_NO_ROOM, "%s: out of memory for the tokens of %zu bytes", name, bytes);
    if (e.refused)
        return refuse(err, name, "holds the token %.*s, and %s; --ids takes token ids", (int)e.refused->length,
                      e.refused->text, e.refused->why);
    for (size_t i = first; tok && i < list->n; i++) {
        const added_token *a = tok->added, *end = a + tok->n_added;
        if (list->token[i] < tok->vocab) continue;
        while (a < end && a->token != list->token[i]) a++;
        return refuse(err, name, "holds token %d, %.*s, expected tokens below %d, the model's vocabulary",
                      list->token[i], a < end ? (int)a->length : 1, a < end ? a->text : "?", tok->vocab);
    }
    return TTMM_OK;
}

static int end_token(const ttmm_tokenizer *tok) { return tok ? tok->end : TTMM_END; }

const ttmm_tokenizer *ttmm_tokenizer_of_ids(void)
{
    static const ttmm_tokenizer ids = {.end = -1};
    return &ids;
}

/* Where they stand in the tokenizer's own text. */
const unsigned char *ttmm_token_bytes(const ttmm_tokenizer *tokenizer, int token, size_t *n)
{
    const size_t t = (size_t)token; /* a negative one is past every vocabulary */
    const int text = tokenizer ? t < tokenizer->n && !(tokenizer->special[t] & SPECIAL) : t < TTMM_END;
    *n = !text ? 0 : tokenizer ? tokenizer->length[t] : 1;
    return text && tokenizer ? (const unsigned char *)tokenizer->text + tokenizer->at[t] : every_byte + t % 256;
}

/* In the names of byte-level tokens (GPT-2's bytes_to_unicode) the printable bytes of Latin-1 stand for themselves, and
 * U+0100, U+0101 ... for the others: 0 to 32, 127 to 160, and 173. */
static int is_printable(unsigned b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; }

/* The byte that a character of such a name stands for, -1: none. */
static int byte_of(uint32_t c)
{
    if (c < 0x100) return is_printable(c) ? (int)c : -1;
    const int other = c < 0x144 ? (int)c - 0x100 : -1;
    return other < 33 ? other : other < 67 ? other - 33 + 127 : 173;
}

/* Replace the name of a token by the bytes that it stands for; a character has no fewer bytes than it stands for.
 * Returns 0 if it has characters that stand for none; then it stays as it is. */
static int name_to_bytes(char *name, size_t *n)
{
    const unsigned char *s = (const unsigned char *)name;
    size_t count = 0, length;
    for (size_t i = 0; i < *n; i += length)
        if (byte_of(utf8_get(s + i, *n - i, &length)) < 0) return 0;
    for (size_t i = 0; i < *n; i += length)
        name[count++] = (char)(unsigned char)byte_of(utf8_get(s + i, *n - i, &length));
    *n = count;
    return 1;
}

/* tokenizer.json of the byte vocabulary: token b is byte b, and SEPARATOR; no merges. tokenizer_config.json tells
 * transformers which of its classes to use. */
static int write_tokenizer(const char *folder, ttmm_error *err)
{
    unsigned other = 0x100;
    output o;
    int code = output_open(&o, folder, "tokenizer.json", err);
    if (code) return code;
    fprintf(o.f,
            "{\n\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n\"added_tokens\": [{\"id\": %d, "
            "\"content\": \"%s\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": "
            "false, \"special\": true}],\n\"normalizer\": null,\n\"pre_tokenizer\": {\"type\": \"ByteLevel\", "
            "\"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false},\n\"post_processor\": "
            "null,\n\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, "
            "\"use_regex\": true},\n\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
            "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": false, "
            "\"byte_fallback\": false, \"merges\": [], \"vocab\": {",
            TTMM_END, SEPARATOR);
    for (unsigned b = 0; b < 256; b++) fprintf(o.f, "\"\\u%04x\": %u, ", is_printable(b) ? b : other++, b);
    fprintf(o.f, "\"%s\": %d}}\n}\n", SEPARATOR, TTMM_END);
    code = output_close(&o, err);
    if (code == TTMM_OK) code = output_open(&o, folder, "tokenizer_config.json", err);
    if (code) return code;
    fprintf(o.f, "{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"eos_token\": \"%s\"}\n", SEPARATOR);
    return output_close(&o, err);
}

/* {"type": ...} */
static int has_type(const json *j, int node, const char *type)
{
    return json_equal(j, json_find(j, node, "type"), type);
}

/* As json_refuse, of an object that is known by its type; and what can still be done with the model. */
static int refuse_type(const json *j, const char *what, int node, const char *expected, ttmm_error *err)
{
    char shown[64];
    return refuse(err, j->path, "%s is %s, expected %s; --ids still takes token ids", what,
                  json_shown(shown, j, either(json_find(j, node, "type"), node)), expected);
}

/* NFC or none; of a Sequence each. */
static int read_normalizer(ttmm_tokenizer *tok, const json *j, int node, ttmm_error *err)
{
    int code = TTMM_OK;
    if (node < 0) return TTMM_OK;
    if (has_type(j, node, "Sequence")) {
        for (int i = json_child(j, json_find(j, node, "normalizers")); i >= 0 && code == TTMM_OK; i = j->node[i].next)
            code = read_normalizer(tok, j, i, err);
        return code;
    }
    tok->nfc = has_type(j, node, "NFC");
    return tok->nfc ? TTMM_OK : refuse_type(j, "the normalizer", node, "NFC or none", err);
}

/* One of the expressions, each match of it a piece. */
static int read_split(int *split, const json *j, int node, ttmm_error *err)
{
    static const char *const expression[] = {
        "",
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
        ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
        ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
         "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
    };
    const int behavior = json_find(j, node, "behavior");
    char text[512];
    if (!json_equal(j, behavior, "Isolated"))
        return json_refuse(j, "the behavior of the pre_tokenizer Split", behavior, "\"Isolated\"", err);
    if (json_true(j, node, "invert"))
        return refuse(err, j->path, "invert of the pre_tokenizer Split is true, expected false");
    json_text(text, sizeof text, j, json_find(j, json_find(j, node, "pattern"), "Regex"));
    for (*split = SPLIT_QWEN2; *split > SPLIT_NONE && strcmp(text, expression[*split]) != 0;) --*split;
    if (*split) return TTMM_OK;
    return refuse(err, j->path,
                  "the pre_tokenizer splits by %.200s, expected the expression of GPT-2, Llama 3 or Qwen2.5",
                  text[0] ? text : "something else than a regular expression");
}

/* ByteLevel, with GPT-2's expression or none. add_prefix_space is true where it is absent. */
static int read_byte_level(int *split, const json *j, int node, ttmm_error *err)
{
    if (json_find(j, node, "add_prefix_space") < 0 || json_true(j, node, "add_prefix_space"))
        return refuse(err, j->path, "add_prefix_space is not false, which is not supported");
    const int regex = json_find(j, node, "use_regex") < 0 || json_true(j, node, "use_regex");
    *split = regex ? SPLIT_GPT2 : SPLIT_NONE;
    return TTMM_OK;
}

/* ByteLevel alone, or a Sequence of steps that ends in it. */
static int read_pre_tokenizer(ttmm_tokenizer *tok, const json *j, ttmm_error *err)
{
    const int node = json_find(j, 0, "pre_tokenizer"), sequence = has_type(j, node, "Sequence");
    int last = sequence ? json_child(j, json_find(j, node, "pretokenizers")) : node, code = TTMM_OK;
    for (int step = last; step >= 0 && code == TTMM_OK; step = sequence ? j->node[step].next : -1) {
        int split = SPLIT_NONE;
        last = step;
        if (tok->n_splits == MOST_SPLITS)
            return refuse(err, j->path, "the pre_tokenizer has more than %d steps", MOST_SPLITS);
        if (has_type(j, step, "Digits")) split = json_true(j, step, "individual_digits") ? SPLIT_DIGIT : SPLIT_DIGITS;
        else if (has_type(j, step, "Split")) code = read_split(&split, j, step, err);
        else if (has_type(j, step, "ByteLevel")) code = read_byte_level(&split, j, step, err);
        else return refuse_type(j, "the pre_tokenizer", step, "ByteLevel, Split or Digits", err);
        if (has_type(j, step, "ByteLevel") && sequence && j->node[step].next >= 0)
            return refuse(err, j->path, "the pre_tokenizer goes on after ByteLevel, expected nothing after it");
        if (split) tok->split[tok->n_splits++] = split;
    }
    if (code || has_type(j, last, "ByteLevel")) return code;
    return refuse_type(j, "the last step of the pre_tokenizer", either(last, node), "ByteLevel", err);
}

/* TemplateProcessing: special tokens before and after a text. ByteLevel alters offsets only. A Sequence is all of its
 * members. */
static int read_post_processor(ttmm_tokenizer *tok, const json *j, int node, ttmm_error *err)
{
    int code = TTMM_OK;
    if (node < 0 || has_type(j, node, "ByteLevel")) return TTMM_OK;
    if (has_type(j, node, "Sequence")) {
        for (int i = json_child(j, json_find(j, node, "processors")); i >= 0 && code == TTMM_OK; i = j->node[i].next)
            code = read_post_processor(tok, j, i, err);
        return code;
    }
    if (!has_type(j, node, "TemplateProcessing"))
        return refuse_type(j, "the post_processor", node, "TemplateProcessing, ByteLevel or none", err);
    const int tokens = json_find(j, node, "special_tokens");
    int after = 0, texts = 0;
    for (int i = json_child(j, json_find(j, node, "single")); i >= 0; i = j->node[i].next) {
        const int name = json_find(j, json_find(j, i, "SpecialToken"), "id");
        char key[256];
        if (name < 0) {
            after = 1, texts++; /* the text */
            continue;
        }
        json_text(key, sizeof key, j, name);
        const int ids = json_find(j, json_find(j, tokens, key), "ids");
        for (int id = json_child(j, ids); id >= 0; id = j->node[id].next) {
            uint64_t token;
            int *n = after ? &tok->n_after : &tok->n_before;
            char shown[64];
            if (*n == MOST_AROUND)
                return refuse(err, j->path, "the post_processor puts more than %d tokens around a text", MOST_AROUND);
            if (!json_integer(j, id, &token) || token >= tok->n || tok->length[token] == 0)
                return refuse(err, j->path, "the post_processor's id of %s is %s, expected that of a token", key,
                              json_shown(shown, j, id));
            (after ? tok->after : tok->before)[(*n)++] = (int)token;
        }
        if (ids < 0)
            return refuse(err, j->path,
                          "the post_processor's template has the token %s, expected ids for it in special_tokens", key);
    }
    if (texts != 1 || tok->templates++)
        return refuse(err, j->path, "the post_processor's single has %s, expected the text once",
                      texts == 0   ? "no text"
                      : texts == 1 ? "a second template"
                                   : "the text several times");
    return TTMM_OK;
}

/* A merge, "left right" or ["left", "right"], into the table. Returns 0 if it is not of two tokens whose union is a
 * token, too.    left: scratch */
static int read_merge(ttmm_tokenizer *tok, const json *j, int node, int rank, char *left)
{
    const int pair = json_type(j, node) == '[', first = pair ? json_child(j, node) : node;
    const int second = pair && first >= 0 ? j->node[first].next : -1;
    size_t n = json_text(left, j->bytes, j, first);
    char *blank = pair ? left + n : memchr(left, ' ', n);
    if (blank == NULL) return 0;
    char *right = blank + 1;
    size_t n_right = pair ? json_text(right, j->bytes, j, second) : n - (size_t)(right - left);
    n = (size_t)(blank - left);
    if (n == 0 || n_right == 0 || !name_to_bytes(left, &n) || !name_to_bytes(right, &n_right)) return 0;
    memmove(left + n, right, n_right);
    const int l = *find_word(tok, left, n), r = *find_word(tok, left + n, n_right),
              whole = *find_word(tok, left, n + n_right);
    if (l < 0 || r < 0 || whole < 0) return 0;
    *find_merge(tok, l, r) = (merge_rule){l, r, whole, rank};
    return 1;
}

/* An earlier merge of the same two is replaced: of a name given twice the last rank counts. As in merges.txt, what
 * begins with #version is none. */
static int read_merges(ttmm_tokenizer *tok, const json *j, int merges, char *scratch, ttmm_error *err)
{
    int rank = 0;
    for (size_t i = 0; i < tok->merge_room; i++) tok->merge[i].left = -1;
    for (int i = json_child(j, merges); i >= 0; i = j->node[i].next) {
        if (json_text(scratch, j->bytes, j, i) >= 8 && memcmp(scratch, "#version", 8) == 0) continue;
        if (!read_merge(tok, j, i, rank, scratch))
            return refuse(err, j->path, "merge %d is not of two tokens whose union is a token, too", rank);
        rank++;
    }
    return TTMM_OK;
}

/* The arrays of a tokenizer that knows how many it has of everything. */
static void lay_out_tokenizer(ttmm_tokenizer *tok, size_t text_bytes, arena *a)
{
    tok->text = take(a, text_bytes, 1);
    tok->at = take(a, tok->n, sizeof *tok->at), tok->length = take(a, tok->n, sizeof *tok->length);
    tok->special = take(a, tok->n, 1);
    tok->word = take(a, tok->word_room, sizeof *tok->word);
    tok->merge = take(a, tok->merge_room, sizeof *tok->merge);
    tok->added = take(a, tok->n_added, sizeof *tok->added);
    tok->place = take(a, tok->place_room, sizeof *tok->place);
    lay_out_unicode(&tok->unicode, a);
}

/* The id of a token; TTMM_BAD_INPUT if there are not so many tokens. */
static int read_id(const ttmm_tokenizer *tok, const json *j, int name, int node, ttmm_error *err)
{
    uint64_t id;
    char shown[2][64];
    if (json_integer(j, node, &id) && id < tok->n) return (int)id;
    return refuse(err, j->path, "the id of token %s is %s, expected one below %zu, as many as the vocabulary has",
                  json_shown(shown[0], j, name), json_shown(shown[1], j, node), tok->n);
}

/* The tokens of the vocabulary. *used: the bytes of tok->text that are taken. A name that stands for no bytes is the
 * token's text, but no word can be it. */
static int read_vocabulary(ttmm_tokenizer *tok, size_t *used, const json *j, int vocab, ttmm_error *err)
{
    const int model = json_find(j, 0, "model"), unknown = json_find(j, model, "unk_token");
    int missing = -1;
    for (size_t i = 0; i < tok->word_room; i++) tok->word[i] = -1;
    for (int i = json_child(j, vocab); i >= 0; i = json_next_key(j, i)) {
        const int id = read_id(tok, j, i, j->node[i].next, err);
        if (id < 0) return id;
        char *text = tok->text + *used, shown[64];
        if (tok->length[id])
            return refuse(err, j->path, "the id of token %s, %d, is that of another, too", json_shown(shown, j, i), id);
        tok->at[id] = *used, tok->length[id] = json_text(text, j->bytes, j, i);
        if (!name_to_bytes(text, &tok->length[id])) tok->special[id] = RAW;
        *find_token(tok, text, tok->length[id], tok->special[id]) = id;
        *used += tok->length[id];
    }
    for (int b = 0; b < 256; b++) {
        const char byte = (char)(unsigned char)b;
        if ((tok->byte[b] = *find_word(tok, &byte, 1)) < 0) missing = b;
    }
    char *name = tok->text + *used; /* scratch */
    size_t length = json_text(name, j->bytes, j, unknown);
    tok->unknown = length && name_to_bytes(name, &length) ? *find_word(tok, name, length) : -1;
    if (missing >= 0 && unknown >= 0 && tok->unknown < 0)
        return json_refuse(j, "unk_token, which bytes without a token need,", unknown, "a token of the vocabulary",
                           err);
    return TTMM_OK;
}

/* The token of the vocabulary that has this name, -1: none.    scratch [n] */
static int find_name(const ttmm_tokenizer *tok, const char *name, size_t n, char *scratch)
{
    size_t length = n;
    if (tok->most) return *find_token(tok, name, n, 0);
    const int raw = name_to_bytes(memcpy(scratch, name, n), &length) ? 0 : RAW;
    return *find_token(tok, scratch, length, raw);
}

/* Whether it takes more than its own characters from a text, or not every time: not supported. (Blanks are no part of
 * any WordPiece.) */
static int is_unusual(const ttmm_tokenizer *tok, const json *j, int node)
{
    const int strips = json_true(j, node, "lstrip") || json_true(j, node, "rstrip");
    return (strips && !tok->most) || json_true(j, node, "single_word");
}

/* What is looked for in a text from now on; it stands in tok->text. token -1: a text with it is refused. */
static void add_token(ttmm_tokenizer *tok, added_token a)
{
    tok->added[tok->n_added++] = a;
    int *place = find_added(tok, hash_bytes(0, a.text, a.length), a.text, a.length, a.normalised);
    if (*place == 0) *place = (int)tok->n_added;
    if (a.length > tok->longest) tok->longest = a.length;
    tok->begins[(unsigned char)a.text[0]] = 1;
}

/* An added token stands for its content as it is spelled; what is looked for in a text may be its NFC. Its id is what
 * tokenizers makes it, whatever the file says: that of the vocabulary's token of this name, else one more than those
 * there are. *next: the largest id of an added token so far, plus 1. */
static int read_added(ttmm_tokenizer *tok, size_t *used, size_t *next, const json *j, int node, ttmm_error *err)
{
    const int content = json_find(j, node, "content"), normalised = json_true(j, node, "normalized");
    if (json_type(j, content) != '"') return json_refuse(j, "the content of an added token", content, "a text", err);
    char *text = tok->text + *used;
    const size_t n = json_text(text, j->bytes, j, content);
    if (n == 0) return TTMM_OK;
    char *form = memcpy(text + n, text, n);
    added_token a = {form, n, -1, normalised, NULL, 0};
    uint64_t said;
    if (is_unusual(tok, j, node)) a.why = "tokenizer.json sets lstrip, rstrip or single_word for it";
    const int known = find_name(tok, text, n, text + 2 * n);
    const size_t id = known >= 0 ? (size_t)known : *next > tok->n_words ? *next : tok->n_words;
    if (id >= tok->n) return json_refuse(j, "the id of an added token", json_find(j, node, "id"), "a smaller one", err);
    if (known < 0 && tok->length[id])
        return refuse(err, j->path, "the vocabulary has holes: %zu, the id of an added token, is that of a word", id);
    if (tok->most && json_integer(j, json_find(j, node, "id"), &said) && said != id)
        return refuse(err, j->path, "the id of the added token %.*s is %llu, expected %zu", (int)n, text,
                      (unsigned long long)said, id);
    *next = id + 1 > *next ? id + 1 : *next;
    a.token = (int)id;
    if (normalised) normal_form(&form, &a.length, tok, a.text, n);
    if (form == NULL) return fail(err, TTMM_NO_ROOM, "out of memory for the tokenizer");
    if (form != a.text) {
        memcpy(text + n, form, a.length);
        free(form);
    }
    if (a.length == 0)
        return json_refuse(j, "an added token", content, "one of which the normalizer leaves something", err);
    add_token(tok, a);
    tok->at[id] = *used, tok->length[id] = n;
    tok->special[id] = (char)(json_true(j, node, "special") ? SPECIAL : 0);
    if (!tok->most && !name_to_bytes(text, &tok->length[id])) {
        tok->special[id] |= RAW;
        *find_token(tok, text, n, RAW) = (int)id;
    }
    *used += n + a.length;
    return TTMM_OK;
}

/* *a: the added token of this content, the first one if there are two; NULL: there is none. */
static int find_content(added_token **a, ttmm_tokenizer *tok, const char *text, size_t n, ttmm_error *err)
{
    size_t length = n;
    char *form = (char *)text;
    int place = *find_added(tok, hash_bytes(0, text, n), text, n, 0);
    normal_form(&form, &length, tok, text, n);
    if (form == NULL) return fail(err, TTMM_NO_ROOM, "out of memory for the tokenizer");
    const int other = length ? *find_added(tok, hash_bytes(0, form, length), form, length, 1) : 0;
    if (form != text) free(form);
    if (other && (place == 0 || other < place)) place = other;
    *a = place ? &tok->added[place - 1] : NULL;
    if (*a && (*a)->token >= 0 && tok->most) { /* it stands there as it is spelled */
        const size_t t = (size_t)(*a)->token;
        if (tok->length[t] != n || memcmp(tok->text + tok->at[t], text, n) != 0) *a = NULL;
    }
    return TTMM_OK;
}

/* A token that another file names, by its content: transformers adds it if tokenizer.json has no such added token, and
 * alters one whose flags in `flags` (-1: none are given) are others. Texts that hold it are refused then. */
static int read_named(ttmm_tokenizer *tok, size_t *used, const json *j, int content, int flags, ttmm_error *err)
{
    char *text = tok->text + *used;
    const size_t n = json_text(text, j->bytes, j, content);
    const int special = json_true(j, flags, "special"), normalised = json_find(j, flags, "normalized");
    added_token *a;
    if (n == 0) return TTMM_OK;
    const int code = find_content(&a, tok, text, n, err);
    if (code) return code;
    if (a) {
        if (a->named == 0 || flags >= 0) a->named = flags >= 0 ? 2 : 1;
        if (flags < 0 || a->token < 0) return TTMM_OK;
        if (special) tok->special[a->token] |= SPECIAL;
        if (is_unusual(tok, j, flags) ||
            (normalised < 0 ? !special : json_true(j, flags, "normalized")) != a->normalised)
            a->why = "tokenizer_config.json has other flags for it than tokenizer.json";
        return TTMM_OK;
    }
    const int known = find_name(tok, text, n, text + n);
    if (known >= 0) tok->special[known] |= SPECIAL;
    for (int normal = 0; normal < 2; normal++)
        add_token(tok, (added_token){text, n, -1, normal,
                                     "tokenizer.json has no such added token, but its padding or a file beside it", 1});
    *used += n;
    return TTMM_OK;
}

/* All that a node names: a text; an object with the content; a list of these, or an object of them. */
static int read_named_all(ttmm_tokenizer *tok, size_t *used, const json *j, int node, ttmm_error *err)
{
    const int content = json_find(j, node, "content"), object = json_type(j, node) == '{';
    int code = TTMM_OK;
    if (json_type(j, node) == '"' || content >= 0) return read_named(tok, used, j, either(content, node), -1, err);
    for (int i = json_child(j, node); i >= 0 && code == TTMM_OK; i = j->node[i].next) {
        if (object) i = j->node[i].next;
        code = read_named_all(tok, used, j, i, err);
    }
    return code;
}

/* The files beside tokenizer.json in which tokens are named; the last two count where the first has no
 * added_tokens_decoder. */
enum { CONFIG, SPECIAL_MAP, ADDED_MAP, BESIDE };
static const char *const beside_names[BESIDE] = {"tokenizer_config.json", "special_tokens_map.json",
                                                 "added_tokens.json"};

static int open_beside(json beside[BESIDE], const char *folder, ttmm_error *err)
{
    int code = TTMM_OK;
    for (int i = 0; i < BESIDE && code == TTMM_OK; i++)
        if (ttmm_exists(folder, beside_names[i])) code = json_open(&beside[i], folder, beside_names[i], err);
    return code;
}

static void close_beside(json beside[BESIDE])
{
    for (int i = 0; i < BESIDE; i++) json_close(&beside[i]);
}

/* The token of tokenizer.json's padding, which transformers adds where no file beside it has one. */
static int padding_of(const json *j, const json beside[BESIDE])
{
    for (int i = 0; i < ADDED_MAP; i++)
        if (beside[i].n && json_key(&beside[i], 0, "pad_token") >= 0) return -1;
    return json_find(j, json_find(j, 0, "padding"), "pad_token");
}

/* Room for what read_beside adds: a named token is there once, and looked for twice. */
static void add_room_beside(ttmm_tokenizer *tok, size_t *text_bytes, const json *j, int pad, const json beside[BESIDE])
{
    if (pad >= 0) *text_bytes = add_size(*text_bytes, 2 * (j->node[pad].end - j->node[pad].start)), tok->n_added += 2;
    for (int i = 0; i < BESIDE; i++) {
        *text_bytes = add_size(*text_bytes, mul_size(2, beside[i].bytes));
        tok->n_added += 2 * (size_t)beside[i].n;
    }
}

/* tokenizer_config.json's list of all added tokens, by which no other file counts; -1: there is none. */
static int decoder_of(const json *config) { return config->n ? json_find(config, 0, "added_tokens_decoder") : -1; }

/* In tokenizer_config.json those are added_tokens_decoder, and keys that end in _token or _tokens. pad: padding_of
 * tokenizer.json, or -1 */
static int read_beside(ttmm_tokenizer *tok, size_t *used, const json *tokenizer, int pad, const json *beside,
                       ttmm_error *err)
{
    static const char *const elsewhere[][2] = {{"tokenizer_file fast_tokenizer_files", "null"}};
    const json *j = &beside[CONFIG];
    const int decoder = decoder_of(j);
    int code = j->n ? check_values(j, elsewhere, 1, err) : TTMM_OK;
    if (code) return code;
    if (j->n && json_true(j, 0, "split_special_tokens"))
        return refuse(err, j->path, "split_special_tokens is true, expected false");
    if (decoder >= 0 && json_type(j, decoder) != '{')
        return json_refuse(j, "added_tokens_decoder", decoder, "an object", err);
    for (int i = json_child(j, decoder); i >= 0 && code == TTMM_OK; i = json_next_key(j, i))
        code = read_named(tok, used, j, json_find(j, j->node[i].next, "content"), j->node[i].next, err);
    for (int i = j->n ? json_child(j, 0) : -1; i >= 0 && code == TTMM_OK; i = json_next_key(j, i)) {
        const char *end = j->text + j->node[i].end - 1; /* at the quote */
        if (j->node[i].end - j->node[i].start >= 9)
            if (memcmp(end - 6, "_token", 6) == 0 || memcmp(end - 7, "_tokens", 7) == 0)
                code = read_named_all(tok, used, j, j->node[i].next, err);
    }
    j = &beside[SPECIAL_MAP];
    if (j->n && decoder < 0 && code == TTMM_OK) code = read_named_all(tok, used, j, 0, err);
    j = &beside[ADDED_MAP];
    for (int i = j->n && decoder < 0 ? json_child(j, 0) : -1; i >= 0 && code == TTMM_OK; i = json_next_key(j, i))
        code = read_named(tok, used, j, i, -1, err);
    return code ? code : read_named(tok, used, tokenizer, pad, -1, err);
}

/* The parts of the file in which nothing but one form is understood. */
static int check_tokenizer(const json *j, ttmm_error *err)
{
    static const char *const refused[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    const int model = json_find(j, 0, "model"), vocab = json_find(j, model, "vocab");
    const int untyped = json_find(j, model, "type") < 0 && vocab >= 0 && json_find(j, model, "merges") >= 0;
    if (!untyped && !has_type(j, model, "BPE")) /* GPT-2's own file is untyped */
        return refuse_type(j, "the model", model, "BPE", err);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const int node = json_find(j, model, refused[i]);
        double x;
        if (node >= 0 && json_type(j, node) != 'f' && !json_equal(j, node, "") && !(json_number(j, node, &x) && x == 0))
            return refuse(err, j->path, "%s is set, which is not supported", refused[i]);
    }
    if (json_type(j, vocab) != '{') return refuse(err, j->path, "the model's vocab is missing or not an object");
    const int merges = json_find(j, model, "merges"), added = json_find(j, 0, "added_tokens");
    if (merges >= 0 && json_type(j, merges) != '[') return json_refuse(j, "merges", merges, "a list", err);
    if (added >= 0 && json_type(j, added) != '[') return json_refuse(j, "added_tokens", added, "a list", err);
    return TTMM_OK;
}

/* ByteLevel, or a Sequence of it and what does nothing here: tokens <0x00> .. <0xFF>, which ByteFallback (as the
 * model's byte_fallback) is about, and names with U+2581, which Replace turns into blanks, are refused; and as Fuse
 * makes one name of all, which ByteLevel leaves alone if any character in it stands for no byte, so are such names. */
static int read_decoder(const ttmm_tokenizer *tok, const json *j, ttmm_error *err)
{
    static const char last[] = "ByteLevel", before[] = "ByteFallback, Fuse or Replace of U+2581 by a blank";
    const int node = json_find(j, 0, "decoder"), sequence = has_type(j, node, "Sequence");
    const int steps = sequence ? json_find(j, node, "decoders") : -1;
    int fused = 0;
    char text[2][8];
    if (sequence ? json_count(j, steps) == 0 : !has_type(j, node, last))
        return refuse_type(j, "the decoder", node, last, err);
    for (int i = json_child(j, steps); i >= 0; i = j->node[i].next) {
        json_text(text[0], sizeof text[0], j, json_find(j, json_find(j, i, "pattern"), "String"));
        json_text(text[1], sizeof text[1], j, json_find(j, i, "content"));
        const int blank = strcmp(text[0], "\xe2\x96\x81") == 0 && strcmp(text[1], " ") == 0;
        if (j->node[i].next < 0 && !has_type(j, i, last))
            return refuse_type(j, "the last step of the decoder", i, last, err);
        if (j->node[i].next >= 0 && !has_type(j, i, "ByteFallback") && !has_type(j, i, "Fuse") &&
            !(has_type(j, i, "Replace") && blank))
            return refuse_type(j, "a step of the decoder", i, before, err);
        fused |= has_type(j, i, "Fuse") || has_type(j, i, "Replace");
    }
    for (size_t t = 0; t < tok->n && (sequence || json_true(j, json_find(j, 0, "model"), "byte_fallback")); t++) {
        const char *name = tok->text + tok->at[t];
        const int fallback = tok->length[t] == 6 && memcmp(name, "<0x", 3) == 0 && name[5] == '>';
        if ((fused && tok->special[t] == RAW) || fallback)
            return refuse(err, j->path, "token %zu is %.*s, which byte_fallback or the decoder Sequence would alter", t,
                          (int)tok->length[t], name);
    }
    return TTMM_OK;
}

/* First how many there are of everything, then the tokenizer in one block, then its parts in the order in which they
 * need each other. *tokenizer is to be freed even if that fails. */
static int read_tokenizer_json(ttmm_tokenizer **tokenizer, const json *j, const json *beside, const ttmm_config *c,
                               ttmm_error *err)
{
    const int model = json_find(j, 0, "model"), added = json_find(j, 0, "added_tokens");
    const int vocab = json_find(j, model, "vocab"), merges = json_find(j, model, "merges"), pad = padding_of(j, beside);
    ttmm_tokenizer like = {.end = c->n_ends ? c->end[0] : -1, .vocab = c->vocab};
    int code = check_tokenizer(j, err);
    if (code) return code;
    like.n_words = json_count(j, vocab), like.n_added = json_count(j, added), like.n_merges = json_count(j, merges);
    const size_t least = like.n_words + like.n_added, most = (size_t)c->vocab > least ? (size_t)c->vocab : least;
    like.n = least; /* there may be more, if their ids are larger: as many as these need */
    for (int i = json_child(j, vocab); i >= 0; i = json_next_key(j, i)) {
        uint64_t id;
        if (json_integer(j, j->node[i].next, &id) && id < most && id + 1 + like.n_added > like.n)
            like.n = (size_t)id + 1 + like.n_added < most ? (size_t)id + 1 + like.n_added : most;
    }
    like.word_room = table_room(least), like.merge_room = table_room(like.n_merges);
    like.ignore_merges = json_true(j, model, "ignore_merges");
    /* An added token is there by its NFC, too, thrice as long at most. What is left is read_merges' scratch. */
    size_t text_bytes = mul_size(4, j->bytes), used = 0, next = 0;
    add_room_beside(&like, &text_bytes, j, pad, beside);
    arena a = {0};
    take(&a, 1, sizeof like);
    like.place_room = table_room(like.n_added);
    lay_out_tokenizer(&like, text_bytes, &a);
    if ((code = allocate(&a, &like.block, "the tokenizer", err)) != TTMM_OK) return code;
    ttmm_tokenizer *tok = *tokenizer = take(&a, 1, sizeof *tok);
    *tok = like;
    lay_out_tokenizer(tok, text_bytes, &a);
    tok->n_added = 0, tok->fuse = json_true(j, model, "fuse_unk");
    code = read_normalizer(tok, j, json_find(j, 0, "normalizer"), err);
    if (code == TTMM_OK) code = read_vocabulary(tok, &used, j, vocab, err);
    for (int i = json_child(j, added); i >= 0 && code == TTMM_OK; i = j->node[i].next)
        code = read_added(tok, &used, &next, j, i, err);
    if (code == TTMM_OK) code = read_beside(tok, &used, j, pad, beside, err);
    if (code == TTMM_OK) code = read_decoder(tok, j, err);
    if (code == TTMM_OK) code = read_merges(tok, j, merges, tok->text + used, err);
    if (code == TTMM_OK) code = read_pre_tokenizer(tok, j, err);
    if (code == TTMM_OK) code = read_post_processor(tok, j, json_find(j, 0, "post_processor"), err);
    return code;
}

/* The classes of transformers that tokenizer_config.json may name for an encoder. Those of AS_SAVED take tokenizer.json
 * as it is; the others make a tokenizer of their own from its vocabulary, what tokenizer_config.json says, and a
 * default where that says nothing: tokenizer.json must not be another. */
enum { BERT_LIKE, MPNET_LIKE, AS_SAVED };
static int read_class(int *class, const json *j, int mpnet, ttmm_error *err)
{
    static const struct {
        const char *name;
        int class;
    } known[] = {{"BertTokenizer", BERT_LIKE},       {"BertTokenizerFast", BERT_LIKE},
                 {"DistilBertTokenizer", BERT_LIKE}, {"DistilBertTokenizerFast", BERT_LIKE},
                 {"MPNetTokenizer", MPNET_LIKE},     {"MPNetTokenizerFast", MPNET_LIKE},
                 {"TokenizersBackend", AS_SAVED},    {"PreTrainedTokenizerFast", AS_SAVED}};
    const int node = j->n ? json_find(j, 0, "tokenizer_class") : -1;
    *class = mpnet ? MPNET_LIKE : BERT_LIKE;
    if (node < 0) return TTMM_OK;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (json_equal(j, node, known[i].name)) {
            *class = known[i].class;
            return TTMM_OK;
        }
    return json_refuse(j, "tokenizer_class", node, "BertTokenizer, MPNetTokenizer or PreTrainedTokenizerFast", err);
}

/* The parts of an encoder's tokenizer.json. beside: tokenizer_config.json */
static int check_wordpiece(const json *j, const json *beside, int own, ttmm_error *err)
{
    static const char *const sides[][2] = {{"truncation_side padding_side", "\"right\""}};
    static const char *const cut[] = {"truncation", "padding"};
    static const char *const part[][2] = {
        {"model", "WordPiece"}, {"normalizer", "BertNormalizer"}, {"pre_tokenizer", "BertPreTokenizer"}};
    static const char *const step[][2] = {{"lowercase", "do_lower_case"},
                                          {"strip_accents", "strip_accents"},
                                          {"handle_chinese_chars", "tokenize_chinese_chars"}};
    static const char *const unsaid[] = {"true, BertTokenizer's default", "null, BertTokenizer's default"};
    const int normalizer = json_find(j, 0, "normalizer"), model = json_find(j, 0, "model");
    const int clean = json_find(j, normalizer, "clean_text"), vocab = json_find(j, model, "vocab"),
              longest = json_find(j, model, "max_input_chars_per_word"),
              prefix = json_find(j, model, "continuing_subword_prefix"), added = json_find(j, 0, "added_tokens");
    uint64_t most;
    for (size_t i = 0; i < 3; i++) {
        const int node = json_find(j, 0, part[i][0]);
        const int unnamed = node == model && json_find(j, node, "type") < 0 && longest >= 0; /* of tokenizers < 0.10 */
        if (!unnamed && !has_type(j, node, part[i][1]))
            return json_refuse(j, part[i][0], either(json_find(j, node, "type"), node), part[i][1], err);
        const int said = own && beside->n ? json_find(beside, 0, step[i][1]) : -1,
                  done = json_find(j, normalizer, step[i][0]);
        if (said >= 0 && json_type(beside, said) != json_type(j, done))
            return json_refuse(beside, step[i][1], said, "what tokenizer.json's normalizer does", err);
        if (own && said < 0 && (i == 1 ? done >= 0 : !json_true(j, normalizer, step[i][0])))
            return json_refuse(j, step[i][0], done, i == 1 ? unsaid[1] : unsaid[0], err);
    }
    if (own && !json_true(j, normalizer, "clean_text")) return json_refuse(j, "clean_text", clean, "true", err);
    if (own && !(json_integer(j, longest, &most) && most == 100))
        return json_refuse(j, "max_input_chars_per_word", longest, "100", err);
    if (own && !json_equal(j, prefix, "##")) return json_refuse(j, "continuing_subword_prefix", prefix, "\"##\"", err);
    if (json_type(j, vocab) != '{') return json_refuse(j, "the model's vocab", vocab, "an object", err);
    if (added >= 0 && json_type(j, added) != '[') return json_refuse(j, "added_tokens", added, "a list", err);
    for (size_t i = 0; i < 2; i++) {
        const int side = json_find(j, json_find(j, 0, cut[i]), "direction");
        if (side >= 0 && !json_equal(j, side, "Right")) return json_refuse(j, cut[i], side, "\"Right\"", err);
    }
    return beside->n ? check_values(beside, sides, 1, err) : TTMM_OK;
}

/* "cls": ["<s>", 0], of BertProcessing and RobertaProcessing: the token before a text; "sep": that after it. */
static int read_end(int *token, int *n, const ttmm_tokenizer *tok, const json *j, const char *key, ttmm_error *err)
{
    const int pair = json_find(j, json_find(j, 0, "post_processor"), key), name = json_child(j, pair);
    uint64_t id;
    if (name < 0 || !json_integer(j, j->node[name].next, &id) || id >= tok->n || tok->length[id] == 0)
        return json_refuse(j, key, pair, "a token and its id", err);
    token[(*n)++] = (int)id;
    return TTMM_OK;
}

/* What is put around a text; its tokens are of type 0 then, the only one that is used. */
static int read_ends_of_text(ttmm_tokenizer *tok, const json *j, ttmm_error *err)
{
    const int node = json_find(j, 0, "post_processor");
    uint64_t type;
    if (has_type(j, node, "BertProcessing") || has_type(j, node, "RobertaProcessing")) {
        const int code = read_end(tok->before, &tok->n_before, tok, j, "cls", err);
        return code ? code : read_end(tok->after, &tok->n_after, tok, j, "sep", err);
    }
    if (!has_type(j, node, "TemplateProcessing"))
        return json_refuse(j, "post_processor", either(json_find(j, node, "type"), node),
                           "TemplateProcessing, BertProcessing or RobertaProcessing", err);
    for (int i = json_child(j, json_find(j, node, "single")); i >= 0; i = j->node[i].next) {
        const int key = json_child(j, i), at = key < 0 ? -1 : json_find(j, j->node[key].next, "type_id");
        if (at >= 0 && !(json_integer(j, at, &type) && type == 0))
            return json_refuse(j, "a type_id of the post_processor's single", at, "0", err);
    }
    const int code = read_post_processor(tok, j, node, err);
    if (code || tok->n_before + tok->n_after) return code;
    return refuse(err, j->path, "the post_processor puts no tokens around a text, expected some");
}

/* A tokenizer that transformers makes itself finds these tokens by the names that a file beside tokenizer.json gives
 * them, or its class where none does, and looks for them in texts; and has no added tokens but those that are named, if
 * tokenizer_config.json lists them. */
static int check_names(ttmm_tokenizer *tok, const json *j, const json *beside, int class, ttmm_error *err)
{
    enum { ROLES = 7 };
    static const char *const keys[ROLES] = {"cls_token",  "sep_token", "unk_token", "pad_token",
                                            "mask_token", "bos_token", "eos_token"};
    static const char *const names[2][ROLES] = {
        [BERT_LIKE] = {"[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]", NULL, NULL},
        [MPNET_LIKE] = {"<s>", "</s>", "[UNK]", "<pad>", "<mask>", "<s>", "</s>"}};
    const int token[] = {tok->before[0], tok->after[0], tok->unknown};
    const json *config = &beside[CONFIG], *map = &beside[SPECIAL_MAP];
    const int decoder = decoder_of(config);
    if (tok->n_before != 1 || tok->n_after != 1)
        return refuse(err, j->path, "the post_processor puts %d and %d tokens around a text, expected one and one",
                      tok->n_before, tok->n_after);
    for (int i = 0; i < ROLES; i++) {
        const json *of = map->n && decoder < 0 && json_key(map, 0, keys[i]) >= 0 ? map : config;
        const int node = of->n ? json_key(of, 0, keys[i]) : -1;
        char name[80];
        added_token *a;
        if (node >= 0) json_text(name, sizeof name, of, either(json_find(of, node, "content"), node));
        else snprintf(name, sizeof name, "%s", names[class][i] ? names[class][i] : "");
        const size_t n = strlen(name);
        if (i < 3 && n == 0) return json_refuse(of, keys[i], node, "a token", err);
        if (n == 0) continue;
        const int code = find_content(&a, tok, name, n, err);
        if (code) return code;
        if (a == NULL) return refuse(err, j->path, "has no added token %s, expected that for %s", name, keys[i]);
        if (i < 3 && a->token != token[i])
            return refuse(err, j->path, "has %.*s for %s, expected %s, as %s", (int)tok->length[token[i]],
                          tok->text + tok->at[token[i]], keys[i], name,
                          node >= 0 ? "a file beside it says" : "its class has by default");
        if (a->named == 0) a->named = 1;
    }
    for (size_t i = 0; i < tok->n_added && decoder >= 0; i++) {
        const added_token *a = &tok->added[i];
        if (a->named == 0 || (a->named == 1 && a->normalised))
            return refuse(err, j->path, "has the added token %.*s, which is not in tokenizer_config.json's list",
                          (int)a->length, a->text);
    }
    return TTMM_OK;
}

/* Every name of the vocabulary is a token as it stands.    *bytes: what the tokenizer takes */
static int read_wordpiece(ttmm_tokenizer **tokenizer, size_t *bytes, const json *j, const json *beside, int mpnet,
                          int rows, ttmm_error *err)
{
    const int model = json_find(j, 0, "model"), vocab = json_find(j, model, "vocab");
    const int added = json_find(j, 0, "added_tokens"), normalizer = json_find(j, 0, "normalizer");
    const int prefix = json_find(j, model, "continuing_subword_prefix"), unknown = json_find(j, model, "unk_token");
    const int longest = json_find(j, model, "max_input_chars_per_word");
    const size_t words = json_count(j, vocab);
    ttmm_tokenizer like = {.end = -1, .vocab = rows, .n = (size_t)rows, .n_added = json_count(j, added)};
    size_t text_bytes = mul_size(4, j->bytes);
    uint64_t most;
    size_t used = 0, next = 0;
    int class, code = read_class(&class, &beside[CONFIG], mpnet, err);
    if (code == TTMM_OK) code = check_wordpiece(j, &beside[CONFIG], class != AS_SAVED, err);
    if (code) return code;
    const int pad = class == AS_SAVED ? padding_of(j, beside) : -1; /* the others have one by default */
    if (!json_integer(j, longest, &most) || most < 1 || most > 100000)
        return json_refuse(j, "max_input_chars_per_word", longest, "1 to 100000", err);
    if (json_text(like.prefix, sizeof like.prefix, j, prefix) >= sizeof like.prefix)
        return json_refuse(j, "continuing_subword_prefix", prefix, "a few letters, as ##", err);
    if (like.n < words + like.n_added) like.n = words + like.n_added;
    add_room_beside(&like, &text_bytes, j, pad, beside);
    like.n_words = words, like.word_room = table_room(words), like.place_room = table_room(like.n_added);
    like.most = (size_t)most;
    like.clean = json_true(j, normalizer, "clean_text"), like.lower = json_true(j, normalizer, "lowercase");
    like.chinese = json_true(j, normalizer, "handle_chinese_chars");
    like.strip = json_find(j, normalizer, "strip_accents") < 0 ? like.lower : json_true(j, normalizer, "strip_accents");
    arena a = {0};
    take(&a, 1, sizeof like);
    lay_out_tokenizer(&like, text_bytes, &a);
    *bytes = a.used;
    if ((code = allocate(&a, &like.block, "the tokenizer", err)) != TTMM_OK) return code;
    ttmm_tokenizer *tok = *tokenizer = take(&a, 1, sizeof *tok);
    *tok = like;
    lay_out_tokenizer(tok, text_bytes, &a);
    tok->n_added = 0;
    memset(tok->word, -1, tok->word_room * sizeof *tok->word);
    for (int i = json_child(j, vocab); i >= 0; i = json_next_key(j, i)) {
        const int id = read_id(tok, j, i, j->node[i].next, err);
        char shown[64];
        if (id < 0) return id;
        if (tok->length[id])
            return refuse(err, j->path, "the id of token %s, %d, is that of another, too", json_shown(shown, j, i), id);
        tok->at[id] = used, tok->length[id] = json_text(tok->text + used, j->bytes, j, i);
        *find_word(tok, tok->text + used, tok->length[id]) = id;
        used += tok->length[id];
    }
    const size_t length = json_text(tok->text + used, j->bytes, j, unknown); /* scratch */
    tok->unknown = *find_word(tok, tok->text + used, length);
    if (tok->unknown < 0) return json_refuse(j, "unk_token", unknown, "a token of the vocabulary", err);
    for (int i = json_child(j, added); i >= 0 && code == TTMM_OK; i = j->node[i].next)
        code = read_added(tok, &used, &next, j, i, err);
    if (code == TTMM_OK) code = read_beside(tok, &used, j, pad, beside, err);
    for (size_t i = 0; i < tok->n_added && code == TTMM_OK; i++) /* a text with it would be refused */
        if (tok->added[i].why)
            code = refuse(err, j->path, "token %.*s: %s", (int)tok->added[i].length, tok->added[i].text,
                          tok->added[i].why);
    if (code == TTMM_OK) code = read_ends_of_text(tok, j, err);
    return code || class == AS_SAVED ? code : check_names(tok, j, beside, class, err);
}

/* What the tokens of a text depend on. */
static uint64_t hash_wordpiece(uint64_t h, const ttmm_tokenizer *tok)
{
    const int setting[] = {tok->clean,     tok->chinese,  tok->strip,   tok->lower,
                           (int)tok->most, tok->n_before, tok->n_after, tok->unknown};
    for (size_t i = 0; i < sizeof setting / sizeof *setting; i++) h = hash_word(h, (uint64_t)setting[i]);
    for (int i = 0; i < MOST_AROUND; i++) h = hash_word(h, (uint64_t)tok->before[i] << 32 | (uint64_t)tok->after[i]);
    for (size_t t = 0; t < tok->n; t++)
        h = hash_word(h, mix_bits(hash_bytes(tok->length[t], tok->text + tok->at[t], tok->length[t])));
    for (size_t i = 0; i < tok->n_added; i++)
        h = hash_word(h, (uint64_t)tok->added[i].token << 1 | (uint64_t)tok->added[i].normalised);
    return hash_word(h, mix_bits(hash_bytes(strlen(tok->prefix), tok->prefix, strlen(tok->prefix))));
}

/* config.json gives the size of the vocabulary and the token after a document. */
int ttmm_tokenizer_of(ttmm_tokenizer **tokenizer, const ttmm_config *c, const ttmm_file *file, ttmm_error *err)
{
    json j, beside[BESIDE] = {0};
    *tokenizer = NULL;
    int code = json_of(&j, file, err);
    if (code == TTMM_OK) code = read_tokenizer_json(tokenizer, &j, beside, c, err);
    json_close(&j);
    if (code) ttmm_tokenizer_free(*tokenizer), *tokenizer = NULL;
    return code;
}

int ttmm_tokenizer_read(ttmm_tokenizer **tokenizer, const char *folder, ttmm_error *err)
{
    ttmm_config c = {.vocab = TTMM_BYTES};
    json j, beside[BESIDE] = {0};
    *tokenizer = NULL;
    int code = ttmm_exists(folder, "config.json") ? ttmm_config_read(&c, folder, err) : TTMM_OK;
    if (code) return code;
    if (!ttmm_exists(folder, "tokenizer.json"))
        return c.vocab == TTMM_BYTES
                   ? TTMM_OK
                   : fail(err, TTMM_BAD_INPUT, "%s/tokenizer.json: is missing; --ids still takes token ids", folder);
    code = json_open(&j, folder, "tokenizer.json", err);
    if (code == TTMM_OK) code = open_beside(beside, folder, err);
    if (code == TTMM_OK) code = read_tokenizer_json(tokenizer, &j, beside, &c, err);
    json_close(&j), close_beside(beside);
    if (code) ttmm_tokenizer_free(*tokenizer), *tokenizer = NULL;
    return code;
}

/* A file of settings, of which there need be none. */
static int check_beside(const char *folder, const char *name, const char *const table[][2], size_t n, ttmm_error *err)
{
    return ttmm_exists(folder, name) ? read_settings(folder, name, table, n, err) : TTMM_OK;
}

/* A folder of sentence-transformers: its modules must be Transformer, Pooling and Normalize, each with settings by
 * which nothing but the text alters an embedding.    first [PATH_BYTES]: overwritten with the Transformer's folder */
static int read_modules(char *first, const char *folder, ttmm_error *err)
{
    static const char *const expected[] = {"Transformer", "Pooling", "Normalize"}, package[] = "sentence_transformers.";
    static const char *const pooling[][2] = {
        {"pooling_mode_mean_tokens include_prompt", "true"},
        {"pooling_mode_cls_token pooling_mode_max_tokens pooling_mode_mean_sqrt_len_tokens "
         "pooling_mode_weightedmean_tokens pooling_mode_lasttoken",
         "false"},
        {"pooling_mode", "\"mean\""}};
    static const char *const normalize[][2] = {{"module_input_name module_output_name", "\"sentence_embedding\""}};
    static const char *const whole[][2] = {{"default_prompt_name truncate_dim", "null"},
                                           {"model_type", "\"SentenceTransformer\""}};
    char place[PATH_BYTES], name[256], type[256];
    json j;
    int code = json_open_as(&j, folder, "modules.json", '[', err), node = code ? -1 : json_child(&j, 0);
    for (int k = 0; k < 3 && code == TTMM_OK; k++, node = node < 0 ? -1 : j.node[node].next) {
        const int found = json_find(&j, node, "type");
        json_text(type, sizeof type, &j, found);
        json_text(name, sizeof name, &j, json_find(&j, node, "path"));
        const char *last = strrchr(type, '.');
        if (last == NULL || strcmp(last + 1, expected[k]) != 0 || strncmp(type, package, sizeof package - 1) != 0) {
            snprintf(type, sizeof type, "module %d", k);
            code = json_refuse(&j, type, either(found, node), expected[k], err);
        } else code = join_path(k ? place : first, folder, name, err);
        if (code == TTMM_OK && k == 1) code = read_settings(place, "config.json", pooling, 3, err);
        if (code == TTMM_OK && k == 2) code = check_beside(place, "config.json", normalize, 1, err);
    }
    if (code == TTMM_OK && node >= 0) code = json_refuse(&j, "module 3", json_find(&j, node, "type"), "none", err);
    json_close(&j);
    if (code == TTMM_OK) code = check_beside(folder, "config_sentence_transformers.json", whole, 2, err);
    if (code == TTMM_OK && ttmm_exists(first, "adapter_config.json"))
        code = refuse(err, first, "holds adapter_config.json, an adapter of the encoder, which is not supported");
    return code;
}

/* Of config.json, what is absent in it has no default here: every file has it. dtype is passed over: all is computed in
 * float32, where transformers 5 takes float16 if the file says so. */
static int read_encoder_config(ttmm_encoder *e, const json *j, ttmm_error *err)
{
    ttmm_config *c = &e->config;
    const int type = json_find(j, 0, "model_type"), buckets = json_find(j, 0, "relative_attention_num_buckets"),
              eps = json_find(j, 0, "layer_norm_eps");
    int types = 32;
    const struct {
        const char *key;
        int *value;
    } field[] = {
        {"hidden_size", &c->dim},
        {"num_hidden_layers", &c->n_layers},
        {"vocab_size", &c->vocab},
        {"num_attention_heads", &c->n_heads},
        {"intermediate_size", &c->intermediate},
        {"max_position_embeddings", &c->context},
        {"type_vocab_size", &types},
    };
    static const char *const table[][2] = {{"hidden_act", "\"gelu\""},
                                           {"position_embedding_type", "\"absolute\""},
                                           {"is_decoder add_cross_attention", "false"},
                                           {"quantization_config transformers_weights configuration_files", "null"}};
    uint64_t u;
    e->mpnet = json_equal(j, type, "mpnet");
    if (!e->mpnet && !json_equal(j, type, "bert"))
        return json_refuse(j, "model_type", type, "\"bert\" or \"mpnet\"", err);
    for (size_t i = 0; i < sizeof field / sizeof *field - (size_t)e->mpnet; i++) {
        const int node = json_find(j, 0, field[i].key);
        if (!json_integer(j, node, &u) || u < 1 || u > INT_MAX)
            return json_refuse(j, field[i].key, node, "a count", err);
        *field[i].value = (int)u;
    }
    e->extra = (size_t)types;
    if (e->mpnet && buckets >= 0 && !(json_integer(j, buckets, &u) && u == 32))
        return json_refuse(j, "relative_attention_num_buckets", buckets, "32", err);
    if (!json_number(j, eps, &c->norm_eps) || !(c->norm_eps >= 0 && c->norm_eps < 1))
        return json_refuse(j, "layer_norm_eps", eps, "a number from 0 to 1", err);
    if (c->dim % c->n_heads)
        return refuse(err, j->path, "hidden_size is %d, expected a multiple of num_attention_heads, %d", c->dim,
                      c->n_heads);
    c->n_kv_heads = c->n_heads, c->head_dim = c->dim / c->n_heads, c->rope_theta = 1;
    ttmm_error why;
    if (ttmm_config_check(c, &why) != TTMM_OK) return refuse(err, j->path, "%s", why.text);
    const char *const class[][2] = {{"tokenizer_class", e->mpnet ? "\"MPNetTokenizer\" or \"MPNetTokenizerFast\""
                                                                 : "\"BertTokenizer\" or \"BertTokenizerFast\""}};
    const int code = check_values(j, table, sizeof table / sizeof *table, err);
    return code ? code : check_values(j, class, 1, err);
}

/* modality_config of sentence-transformers 6: the text goes through the model as it is, whose last layer counts. */
static int check_modality(const json *j, ttmm_error *err)
{
    const int node = json_find(j, 0, "modality_config"), text = json_find(j, node, "text");
    if (node < 0 || (json_find(j, node, "message") < 0 && json_equal(j, json_find(j, text, "method"), "forward") &&
                     json_equal(j, json_find(j, text, "method_output_name"), "last_hidden_state")))
        return TTMM_OK;
    return json_refuse(j, "modality_config", node, "text alone, by forward and last_hidden_state", err);
}

/* How many tokens a text is cut to: max_seq_length of sentence_bert_config.json, or of the first that is there of those
 * with an older name, else tokenizer_config.json's model_max_length; and what else the first of them asks for. */
static int read_longest(ttmm_encoder *e, const char *folder, const json *beside, ttmm_error *err)
{
    static const char *const table[][2] = {
        {"transformer_task", "\"feature-extraction\""},
        {"module_output_name", "\"token_embeddings\""},
        {"do_lower_case", "false"}, /* true: Python's lower() before the tokenizer, of special tokens' names, too */
        {"query_length document_length query_expansion tokenizer_name_or_path processing_kwargs processor_kwargs "
         "tokenizer_args model_kwargs model_args config_kwargs config_args",
         "null or {}"}};
    static const char *const named[] = {"bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"};
    const int positions = e->config.context - (e->mpnet ? 2 : 0);
    const int around = e->tokenizer->n_before + e->tokenizer->n_after;
    uint64_t u = (uint64_t)positions, most;
    json j = {.node = NULL};
    int code = TTMM_OK, said = -1;
    if (positions <= around)
        return refuse(err, folder, "config.json's max_position_embeddings is %d, expected at least %d",
                      e->config.context, e->config.context - positions + around + 1);
    const int cut = beside->n ? either(json_find(beside, 0, "model_max_length"), json_find(beside, 0, "max_len")) : -1;
    if (json_integer(beside, cut, &most) && most < u) u = most;
    for (size_t i = 0; i < sizeof named / sizeof *named && code == TTMM_OK && j.node == NULL; i++) {
        char file[40];
        snprintf(file, sizeof file, "sentence_%s_config.json", named[i]);
        if (!ttmm_exists(folder, file)) continue;
        code = json_open(&j, folder, file, err);
        if (code == TTMM_OK) code = check_values(&j, table, sizeof table / sizeof *table, err);
        if (code == TTMM_OK) code = check_modality(&j, err);
        if (code == TTMM_OK) said = json_find(&j, 0, "max_seq_length");
        if (said >= 0 && !json_integer(&j, said, &u)) u = 0;
    }
    if (code == TTMM_OK && (u <= (uint64_t)around || u > (uint64_t)positions)) {
        char expected[80];
        snprintf(expected, sizeof expected, "%d to %d, as many as positions", around + 1, positions);
        if (said >= 0) code = json_refuse(&j, "max_seq_length", said, expected, err);
        else code = json_refuse(beside, "model_max_length", cut, expected, err);
    }
    e->longest = (size_t)u;
    json_close(&j);
    return code;
}

/* Tensor i of the 2 n, its name after `prefix`; *rows 0: there is none, a module without a bias. */
static void encoder_tensor(char name[160], size_t *rows, size_t *cols, const ttmm_encoder *e, const char *prefix,
                           size_t i)
{
    const size_t number = i / 2 < OUTSIDE ? i / 2 : OUTSIDE + (i / 2 - OUTSIDE) % INSIDE;
    const size_t layer = number < OUTSIDE ? 0 : (i / 2 - OUTSIDE) / INSIDE;
    char of[100];
    *rows = number == EXTRA ? e->extra : dimension(&e->config, encoder_modules[number].rows);
    *cols = dimension(&e->config, number == EXTRA && e->mpnet ? "H" : encoder_modules[number].cols);
    if (i % 2) *cols = 1, *rows = number <= EXTRA ? 0 : *rows;
    snprintf(of, sizeof of, e->mpnet ? encoder_modules[number].mpnet : encoder_modules[number].bert, (int)layer);
    snprintf(name, 160, "%s%s.%s", prefix, of, i % 2 ? "bias" : "weight");
}

static uint64_t hash_as_floats(ttmm_numbers x, size_t n) /* as floats, two a word: the same however they are stored */
{
    uint64_t h = n;
    real part[64] = {0};
    for (size_t i = 0; i < n; i += 64) {
        const size_t some = n - i < 64 ? n - i : 64;
        to_reals(part, x, i, some);
        for (size_t k = 0; k < some; k += 2)
            h = hash_word(h,
                          float_to_bits((float)part[k]) << 32 | (k + 1 < some ? float_to_bits((float)part[k + 1]) : 0));
    }
    return h;
}

/* The weights, in place where that can be. What is beside them, as the pooler of BERT, is passed over: it does not
 * matter to the mean. Their names may begin with bert. or mpnet., and end as TensorFlow's for LayerNorm. */
static int read_encoder_weights(ttmm_encoder *e, uint64_t *hash, const char *folder, ttmm_error *err)
{
    static const char *const prefixes[] = {"", "bert.", "mpnet."};
    const char *file;
    char name[160], older[180];
    size_t rows, cols;
    checkpoint k;
    int p = 2, code = open_checkpoint(&k, folder, err);
    for (; p > 0 && code == TTMM_OK; p--) {
        encoder_tensor(name, &rows, &cols, e, prefixes[p], 0);
        if (has_tensor(&k, name)) break;
    }
    for (size_t i = 0; i < 2 * e->n && code == TTMM_OK; i++) {
        const stored *found;
        encoder_tensor(name, &rows, &cols, e, prefixes[p], i);
        if (rows == 0) continue;
        const char *dot = strrchr(name, '.');
        snprintf(older, sizeof older, "%.*s.%s", (int)(dot - name), name, i % 2 ? "beta" : "gamma");
        const char *stored_as = !has_tensor(&k, name) && has_tensor(&k, older) ? older : name;
        code = find_file(&file, &k, stored_as, err);
        if (code == TTMM_OK) code = open_shard(&k, file, err);
        if (code == TTMM_OK) code = find_shaped(&found, &k.s, stored_as, rows, cols, err);
        if (code == TTMM_OK) code = map_tensor(&e->tensor[i], e->files, &k.s, found, err);
        if (code == TTMM_OK && e->tensor[i].data == NULL) {
            e->own[i] = new_array(mul_size(rows, cols), sizeof(real));
            e->tensor[i] = reals(e->own[i]);
            code = e->own[i] ? read_numbers(&k.s, found, e->own[i], TTMM_REAL, err)
                             : fail(err, TTMM_NO_ROOM, "out of memory for the encoder's weights");
        }
        if (code) break;
        e->bytes += rows * cols * dtype_table[e->tensor[i].type].bytes;
        *hash = hash_word(*hash, hash_as_floats(e->tensor[i], rows * cols));
    }
    encoder_tensor(name, &rows, &cols, e, prefixes[p], 2 * e->n); /* of a layer that should not be there */
    if (code == TTMM_OK && has_tensor(&k, name))
        code = refuse(err, folder, "holds %s, expected %d layers as config.json says", name, e->config.n_layers);
    close_checkpoint(&k);
    return code;
}

static int read_encoder(ttmm_encoder **at, const char *folder, ttmm_error *err)
{
    char first[PATH_BYTES];
    ttmm_encoder like = {.mpnet = 0};
    json j = {.node = NULL}, beside[BESIDE] = {0};
    arena a = {0};
    int code = read_modules(first, folder, err);
    if (code == TTMM_OK) code = json_open(&j, first, "config.json", err);
    if (code == TTMM_OK) code = read_encoder_config(&like, &j, err);
    json_close(&j);
    if (code == TTMM_OK) code = json_open(&j, first, "tokenizer.json", err);
    if (code == TTMM_OK) code = open_beside(beside, first, err);
    like.n = OUTSIDE + INSIDE * (size_t)like.config.n_layers;
    for (int laid = 0; laid < 2 && code == TTMM_OK; laid++) {
        ttmm_encoder *e = take(&a, 1, sizeof *e);
        like.tensor = take(&a, 2 * like.n, sizeof *like.tensor), like.own = take(&a, 2 * like.n, sizeof *like.own);
        like.files = take(&a, 1, sizeof(mapped_files));
        if (laid == 0) code = allocate(&a, &like.block, "an encoder", err);
        else *e = like, *at = e;
    }
    ttmm_encoder *e = *at;
    if (code == TTMM_OK) code = read_wordpiece(&e->tokenizer, &e->bytes, &j, beside, e->mpnet, e->config.vocab, err);
    if (code == TTMM_OK) code = read_longest(e, first, &beside[CONFIG], err);
    json_close(&j), close_beside(beside);
    if (code) return code;
    const ttmm_config *c = &e->config;
    uint64_t hash = (uint64_t)e->mpnet;
    hash = hash_word(hash_word(hash, (uint64_t)c->n_heads), to_bits(c->norm_eps));
    hash = hash_wordpiece(hash_word(hash, e->longest), e->tokenizer);
    code = read_encoder_weights(e, &hash, first, err);
    snprintf(e->fingerprint, sizeof e->fingerprint, "%08lx%08lx", (unsigned long)(hash >> 32),
             (unsigned long)(hash & UINT32_MAX));
    return code;
}

int ttmm_encoder_read(ttmm_encoder **at, const char *folder, ttmm_error *err)
{
    *at = NULL;
    const int code = read_encoder(at, folder, err);
    if (code) ttmm_encoder_free(*at), *at = NULL;
    return code;
}

void ttmm_encoder_free(ttmm_encoder *e)
{
    if (e == NULL) return;
    for (size_t i = 0; i < 2 * e->n; i++) free(e->own[i]);
    ttmm_tokenizer_free(e->tokenizer);
    unmap_files(e->files);
    TTMM_FREE(e->block);
}

const char *ttmm_encoder_fingerprint(const ttmm_encoder *e) { return e->fingerprint; }

size_t ttmm_encoder_bytes(const ttmm_encoder *e, size_t tokens)
{
    encoder_room w;
    arena a = {0};
    lay_out_encoding(&w, e, batch_of(tokens, e->longest), tokens < e->longest ? tokens : e->longest, &a);
    return add_size(e->bytes, a.used);
}

/* Texts for an encoder, as tokens. */
typedef struct {
    token_list list;
    size_t *start, n, room; /* [n + 1] where each begins */
} text_list;

/* One more, cut to what the encoder takes: its first tokens, and those that stand after a text. */
static int list_text(text_list *x, const ttmm_encoder *e, const char *text, size_t bytes, ttmm_error *err)
{
    size_t *start = grow(x->start, &x->room, x->n + 2, sizeof *start);
    if (start == NULL) return fail(err, TTMM_NO_ROOM, "out of memory for texts to embed");
    x->start = start, start[0] = 0;
    int *token;
    const size_t most = start[x->n] + e->longest, after = (size_t)e->tokenizer->n_after;
    const int code = encode(&x->list, e->tokenizer, text, bytes, "a text to embed", err);
    if (code) return code;
    token = x->list.token;
    if (x->list.n > most) {
        memmove(token + most - after, token + x->list.n - after, after * sizeof *token);
        x->list.n = most;
    }
    start[++x->n] = x->list.n;
    return TTMM_OK;
}

static int end_texts(real *out, text_list *x, const ttmm_encoder *e, int code, ttmm_error *err)
{
    if (code == TTMM_OK && x->n) code = encode_texts(out, e, x->list.token, x->start, x->n, NULL, NULL, err);
    free(x->list.token), free(x->start);
    return code;
}

int ttmm_encode(real *out, const ttmm_encoder *e, const char *const *text, const size_t *bytes, size_t n,
                ttmm_error *err)
{
    text_list x = {.n = 0};
    int code = TTMM_OK;
    for (size_t i = 0; i < n && code == TTMM_OK; i++) code = list_text(&x, e, text[i], bytes[i], err);
    return end_texts(out, &x, e, code, err);
}

int ttmm_encode_tokens(real *out, const ttmm_encoder *e, const ttmm_tokenizer *tokenizer, const int *token,
                       const size_t *start, size_t n, ttmm_error *err)
{
    text_list x = {.n = 0};
    char *text = NULL;
    size_t room = 0;
    int code = tokenizer == ttmm_tokenizer_of_ids()
                   ? fail(err, TTMM_BAD_USE, "tokens whose text is not known cannot be encoded")
                   : TTMM_OK;
    for (size_t i = 0; i < n && code == TTMM_OK; i++) {
        size_t bytes = 0, length;
        for (size_t t = start[i]; t < start[i + 1] && code == TTMM_OK; t++) {
            const unsigned char *piece = ttmm_token_bytes(tokenizer, token[t], &length);
            char *more = grow(text, &room, bytes + length + 1, 1);
            if (more == NULL) code = fail(err, TTMM_NO_ROOM, "out of memory for a text to embed");
            else memcpy((text = more) + bytes, piece, length), bytes += length;
        }
        if (code == TTMM_OK) code = list_text(&x, e, text ? text : "", bytes, err);
    }
    free(text);
    return end_texts(out, &x, e, code, err);
}

int ttmm_corpus_encode(ttmm_corpus *c, const ttmm_encoder *e, const ttmm_tokenizer *tokenizer, size_t first, size_t n,
                       ttmm_error *err)
{
    const size_t E = ttmm_encoder_dim(e);
    if (first > c->n_sequences || n > c->n_sequences - first)
        return fail(err, TTMM_BAD_USE, "sequences %zu to %zu are asked for of %zu", first, first + n, c->n_sequences);
    if (first && (c->embedding == NULL || c->dim != E))
        return fail(err, TTMM_BAD_USE, "there is no room for embeddings: sequence 0 comes first");
    int code = first ? TTMM_OK : allocate_embeddings(c, c->n_sequences, E, 0, err);
    if (code == TTMM_OK)
        code = ttmm_encode_tokens(c->embedding + first * E, e, tokenizer, c->token, c->sequence + first, n, err);
    if (code) c->dim = 0, c->encoder[0] = 0;
    else memcpy(c->encoder, e->fingerprint, sizeof c->encoder);
    return code;
}

/* Ten values of a layer, of which two have the MLP's width. */
int ttmm_encoder_trace(ttmm_trace *t, const ttmm_encoder *e, const char *text, size_t bytes, ttmm_error *err)
{
    const size_t D = (size_t)e->config.dim, F = (size_t)e->config.intermediate, L = (size_t)e->config.n_layers;
    text_list x = {.n = 0};
    real *traced = NULL, *out = NULL;
    int *tokens = NULL, code = list_text(&x, e, text, bytes, err);
    const size_t T = x.list.n;
    arena a = {0};
    memset(t, 0, sizeof *t);
    for (int laid = 0; laid < 2 && code == TTMM_OK; laid++) {
        t->array = take(&a, 4 + 10 * L, sizeof *t->array), tokens = take(&a, T, sizeof *tokens);
        traced = take_reals(&a, T * D + L * T * (8 * D + 2 * F) + 2 * D), out = take_reals(&a, D);
        if (laid == 0) code = allocate(&a, &t->block, "a trace", err);
    }
    if (code == TTMM_OK) {
        memcpy(tokens, x.list.token, T * sizeof *tokens);
        t->array[t->n++] = (ttmm_array){"tokens", T, 0, NULL, tokens};
        code = encode_texts(out, e, tokens, x.start, 1, t, traced, err);
    }
    free(x.list.token), free(x.start);
    if (code) ttmm_trace_free(t);
    return code;
}

/* ==== 18. Comparing, the command line ================================================================================
 *
 * Two safetensors files, tensor by tensor, or a folder of them by its manifest.json; a chunk of each tensor at a time:
 * no file need fit in memory. And the words after a program's name: VERB [ARGUMENT | --option VALUE | --option=VALUE |
 * --flag] ..., where -- ends the options and -o is --output. Refused: verbs and options that are not in the program's
 * tables, or not of the verb; values that are not read whole or out of range; a wrong number of arguments. */

/* How far two stored whole numbers are apart: exactly 0 only if they are equal, also of 64 bits, where a double
 * has 53. */
static double apart(uint64_t a, int type_a, uint64_t b, int type_b)
{
    const int below_a = type_a <= I8 && signed_number(a, type_a) < 0,
              below_b = type_b <= I8 && signed_number(b, type_b) < 0;
    const uint64_t u = type_a <= I8 ? (uint64_t)signed_number(a, type_a) : a;
    const uint64_t v = type_b <= I8 ? (uint64_t)signed_number(b, type_b) : b;
    if (below_a != below_b) return fabs(decode_number(a, type_a) - decode_number(b, type_b));
    return (double)(u > v ? u - v : v - u); /* of two negative ones 2^64 is too much in both */
}

/* Reals 0, whole numbers 1, YESNO 2: numbers of two sorts are never the same. */
static int sort_of(const stored *t) { return (t->dtype >= I64) + (t->dtype == YESNO); }

static int same_shape(const stored *a, const stored *b)
{
    return a->n_dims == b->n_dims && memcmp(a->dim, b->dim, sizeof a->dim) == 0;
}

/* A number to be shown. A NaN's sign is printed by some C libraries and means nothing. */
static void show_number(ttmm_difference *d, size_t at, double a, double b)
{
    d->worst = at, d->a = a == a ? a : NAN, d->b = b == b ? b : NAN;
}

/* The numbers of two tensors of the same shape: fills in d's verdict and figures. A row's numbers are judged at its
 * end, when its largest |a| is known; without by_row the whole tensor is one. Written so that a NaN is never within. */
static int compare_numbers(ttmm_difference *d, safetensors *sa, const stored *a, safetensors *sb, const stored *b,
                           double atol, double rtol, int by_row, ttmm_error *err)
{
    const int integers = sort_of(a) > 0, coarser = a->dtype > b->dtype ? a->dtype : b->dtype;
    const size_t count = count_of(a), row = by_row && a->n_dims > 0 ? a->dim[a->n_dims - 1] : count;
    uint64_t raw_a[CHUNK], raw_b[CHUNK];
    double largest = 0, most = 0, most_a = 0, most_b = 0; /* of the row: |a|; |a - b|, and the numbers there */
    size_t most_at = 0, left = row;                       /* where that is; numbers up to the row's end */
    int finite = 1, same = 1, within = !integers;
    int code = seek_tensor(sa, a, err);
    if (code == TTMM_OK) code = seek_tensor(sb, b, err);
    for (size_t k = 0; k < count && finite && code == TTMM_OK;) {
        const size_t n = count - k < CHUNK ? count - k : CHUNK;
        if ((code = read_raw(sa, a, raw_a, n, err)) != TTMM_OK) break;
        if ((code = read_raw(sb, b, raw_b, n, err)) != TTMM_OK) break;
        for (size_t i = 0; i < n; i++, k++) {
            const double x = decode_number(raw_a[i], a->dtype), y = decode_number(raw_b[i], b->dtype);
            const double magnitude = fabs(x) > fabs(y) ? fabs(x) : fabs(y);
            const double off = integers ? apart(raw_a[i], a->dtype, raw_b[i], b->dtype) : fabs(x - y);
            if (!(x - x == 0 && y - y == 0)) {
                finite = 0, d->max_abs = d->max_rel = INFINITY;
                show_number(d, k, x, y);
                break;
            }
            const double ulps = coarser < I64 ? off / ulp_of(magnitude, coarser) : off;
            same = same && off == 0;
            d->ulps = ulps > d->ulps ? ulps : d->ulps;
            d->max_abs = off > d->max_abs ? off : d->max_abs;
            largest = fabs(x) > largest ? fabs(x) : largest;
            if (left == row || off > most) most = off, most_at = k, most_a = x, most_b = y;
            if (--left > 0) continue;
            const double relative = most == 0 ? 0 : most / largest;
            if (k + 1 == row || relative > d->max_rel) d->max_rel = relative, show_number(d, most_at, most_a, most_b);
            within = within && most <= atol + rtol * largest;
            largest = 0, left = row;
        }
    }
    d->verdict = !finite ? TTMM_NOT_FINITE : same ? TTMM_SAME : within ? TTMM_WITHIN : TTMM_PAST;
    return code;
}

/* What is known of two tensors, one of which may be NULL, without their numbers. */
static ttmm_difference tensors_of(const safetensors *sa, const stored *a, const safetensors *sb, const stored *b)
{
    ttmm_difference d = {0};
    d.name = a ? a->name : b->name;
    if (a) describe(d.shape[0], &sa->j, a);
    if (b) describe(d.shape[1], &sb->j, b);
    if (a && a->n_dims > 1 && a->n_dims <= MOST_DIMS) d.cols = a->dim[a->n_dims - 1];
    d.integers = a && sort_of(a);
    if (a == NULL) d.verdict = TTMM_EXTRA;
    else if (b == NULL) d.verdict = TTMM_MISSING;
    else if (a->dtype == DTYPES || b->dtype == DTYPES) d.verdict = TTMM_UNKNOWN;
    else if (sort_of(a) != sort_of(b)) d.verdict = TTMM_TYPE;
    else if (!same_shape(a, b)) d.verdict = TTMM_SHAPE;
    else if (!is_known(a)) d.verdict = TTMM_UNKNOWN;
    return d;
}

/* Those of A in the file's order, then those that only B has. */
int ttmm_compare(const char *path_a, const char *path_b, double atol, double rtol, int by_row,
                 void (*report)(void *context, const ttmm_difference *d), void *context, size_t *failures,
                 ttmm_error *err)
{
    safetensors sa = {0}, sb = {0};
    *failures = 0;
    int code = open_safetensors(&sa, NULL, path_a, err);
    if (code == TTMM_OK) code = open_safetensors(&sb, NULL, path_b, err);
    for (size_t i = 0; i < sa.n + sb.n && code == TTMM_OK; i++) {
        const stored *a = i < sa.n ? &sa.tensor[i] : NULL;
        const stored *b = a ? find_tensor(&sb, a->name) : &sb.tensor[i - sa.n];
        if (a == NULL && find_tensor(&sa, b->name)) continue;
        ttmm_difference d = tensors_of(&sa, a, &sb, b);
        if (d.verdict == TTMM_SAME) code = compare_numbers(&d, &sa, a, &sb, b, atol, rtol, by_row, err);
        if (code) break;
        *failures += d.verdict >= TTMM_PAST;
        report(context, &d);
    }
    if (code == TTMM_OK && sa.n + sb.n == 0) *failures = 1; /* nothing compared is not the same */
    close_safetensors(&sa);
    close_safetensors(&sb);
    return code;
}

/* What ttmm_check has at hand: the manifest, and of a file that it lists the reference and the one to be judged. */
typedef struct {
    json manifest;
    const char *precision, *file;
    safetensors reference, yours; /* yours has no tensors if there is no such file */
    size_t compared;              /* tensors of all files */
} checking;

/* The value of a key of a tensor's entry in the manifest. types: those it may have; n: it may be absent. */
static int entry_value(int *value, const checking *c, int tensor, const char *key, const char *types,
                       const char *expected, ttmm_error *err)
{
    const json *j = &c->manifest;
    char what[400];
    *value = json_find(j, j->node[tensor].next, key);
    const int type = *value < 0 ? 'n' : json_type(j, *value);
    if (strchr(types, type)) return TTMM_OK;
    snprintf(what, sizeof what, "%.150s: %.150s: %.40s", c->file, json_name(j, tensor), key);
    return json_refuse(j, what, *value, expected, err);
}

/* A tensor of the reference file that stands in the manifest under that type and shape. */
static int reference_tensor(const stored **t, checking *c, int tensor, ttmm_error *err)
{
    const json *j = &c->manifest;
    const char *name = json_name(j, tensor);
    char shown[80], type[64], dims[64];
    int dtype, shape, same = 1;
    int code = entry_value(&dtype, c, tensor, "dtype", "\"", "F64 or I32", err);
    if (code == TTMM_OK && !json_equal(j, dtype, "F64") && !json_equal(j, dtype, "I32"))
        code = entry_value(&dtype, c, tensor, "dtype", "", "F64 or I32", err);
    if (code == TTMM_OK) code = entry_value(&shape, c, tensor, "shape", "[", "a list of numbers", err);
    if (code) return code;
    *t = find_tensor(&c->reference, name);
    if (*t == NULL) return refuse(err, c->reference.j.path, "tensor %s is missing", name);
    int d = json_child(j, shape);
    for (int k = 0; k < (*t)->n_dims && same; k++, d = d < 0 ? -1 : j->node[d].next) {
        uint64_t dim;
        same = is_known(*t) && json_integer(j, d, &dim) && dim == (*t)->dim[k];
    }
    if (is_known(*t) && json_equal(j, dtype, dtype_table[(*t)->dtype].name) && same && d < 0) return TTMM_OK;
    return refuse(err, c->reference.j.path, "tensor %s is %s, expected %s %s as manifest.json says", name,
                  describe(shown, &c->reference.j, *t), json_shown(type, j, dtype), json_shown(dims, j, shape));
}

/* The tensor that "or" or "margin" names, of a's shape and of that sort. */
static int helper_tensor(const stored **t, checking *c, int tensor, const char *key, const stored *a, int sort,
                         ttmm_error *err)
{
    int value;
    int code = entry_value(&value, c, tensor, key, "\"", "the name of a tensor", err);
    if (code) return code;
    const char *name = json_name(&c->manifest, value);
    *t = find_tensor(&c->reference, name);
    if (*t && is_known(*t) && same_shape(*t, a) && sort_of(*t) == sort) return TTMM_OK;
    return refuse(err, c->reference.j.path, "tensor %s is missing, or not as it has to be to be \"%s\" of %s", name,
                  key, a->name);
}

/* Numbers at .. at + n - 1 of t. */
static int read_at(safetensors *s, const stored *t, size_t at, uint64_t *raw, size_t n, ttmm_error *err)
{
    if (!seek_to(s, t->begin + (uint64_t)at * dtype_table[t->dtype].bytes))
        return refuse(err, s->j.path, "cannot be read");
    return read_raw(s, t, raw, n, err);
}

/* Whole numbers must be equal; but b_i may be tie_i where margin_i <= tolerance (tie and margin may be NULL). */
static int judge_integers(ttmm_difference *d, checking *c, const stored *a, const stored *b, const stored *tie,
                          const stored *margin, ttmm_error *err)
{
    const size_t count = count_of(a);
    uint64_t raw_a[CHUNK], raw_b[CHUNK], raw_tie[CHUNK], raw_margin[CHUNK];
    int code = TTMM_OK;
    for (size_t k = 0; k < count && code == TTMM_OK;) {
        const size_t n = count - k < CHUNK ? count - k : CHUNK;
        code = read_at(&c->reference, a, k, raw_a, n, err);
        if (code == TTMM_OK) code = read_at(&c->yours, b, k, raw_b, n, err);
        if (code == TTMM_OK && tie) code = read_at(&c->reference, tie, k, raw_tie, n, err);
        if (code == TTMM_OK && tie) code = read_at(&c->reference, margin, k, raw_margin, n, err);
        for (size_t i = 0; i < n && code == TTMM_OK; i++, k++) {
            if (apart(raw_a[i], a->dtype, raw_b[i], b->dtype) == 0) continue;
            d->verdict = TTMM_NEAR_TIE;
            if (tie && apart(raw_tie[i], tie->dtype, raw_b[i], b->dtype) == 0 &&
                decode_number(raw_margin[i], margin->dtype) <= d->tolerance) {
                d->ties++;
                continue;
            }
            d->verdict = TTMM_PAST; /* the first is shown */
            show_number(d, k, decode_number(raw_a[i], a->dtype), decode_number(raw_b[i], b->dtype));
            return TTMM_OK;
        }
    }
    return code;
}

/* One tensor of the manifest. *judged: 1, and d is filled in; 0: it is given, and yours is not there. */
static int judge_tensor(ttmm_difference *d, int *judged, checking *c, int tensor, ttmm_error *err)
{
    const json *j = &c->manifest;
    const stored *a, *tie = NULL, *margin = NULL;
    int given, other, by, bound;
    int code = reference_tensor(&a, c, tensor, err);
    if (code == TTMM_OK) code = entry_value(&given, c, tensor, "given", "ntf", "true or false", err);
    if (code == TTMM_OK) code = entry_value(&other, c, tensor, "or", sort_of(a) ? "n\"" : "n", "none for reals", err);
    if (code == TTMM_OK) code = entry_value(&by, c, tensor, "by", "n\"", "row or tensor", err);
    if (code == TTMM_OK && by >= 0 && !json_equal(j, by, "row") && !json_equal(j, by, "tensor"))
        code = entry_value(&by, c, tensor, "by", "", "row or tensor", err);
    if (code) return code;
    if (other >= 0) {
        code = helper_tensor(&tie, c, tensor, "or", a, 1, err);
        if (code == TTMM_OK) code = helper_tensor(&margin, c, tensor, "margin", a, 0, err);
    }
    const int may_lack = (sort_of(a) && tie == NULL) || json_type(j, given) == 't'; /* and is then 0 */
    if (code == TTMM_OK) code = entry_value(&bound, c, tensor, c->precision, may_lack ? "n0" : "0", "a tolerance", err);
    const stored *b = find_tensor(&c->yours, a->name);
    *judged = b || json_type(j, given) != 't';
    *d = tensors_of(&c->reference, a, &c->yours, b);
    if (code == TTMM_OK && bound >= 0 && !(json_number(j, bound, &d->tolerance) && d->tolerance >= 0))
        code = entry_value(&bound, c, tensor, c->precision, "", "a tolerance", err);
    if (d->verdict == TTMM_UNKNOWN) d->verdict = TTMM_TYPE;
    c->compared += b != NULL;
    if (code || d->verdict != TTMM_SAME) return code;
    if (d->integers) return judge_integers(d, c, a, b, tie, margin, err);
    return compare_numbers(d, &c->reference, a, &c->yours, b, 0, d->tolerance, by < 0 || json_equal(j, by, "row"), err);
}

/* One file of the manifest. */
static int judge_file(checking *c, int file, const char *vectors, const char *yours,
                      void (*report)(void *context, const char *file, const ttmm_difference *d), void *context,
                      size_t *failures, ttmm_error *err)
{
    const json *j = &c->manifest;
    const int tensors = json_find(j, j->node[file].next, "tensors");
    char what[200];
    ttmm_difference d;
    c->file = json_name(j, file);
    snprintf(what, sizeof what, "%.150s: tensors", c->file);
    if (json_type(j, tensors) != '{') return json_refuse(j, what, tensors, "an object", err);
    int code = open_safetensors(&c->reference, vectors, c->file, err);
    if (code == TTMM_OK && ttmm_exists(yours, c->file)) code = open_safetensors(&c->yours, yours, c->file, err);
    for (int t = json_child(j, tensors), judged; t >= 0 && code == TTMM_OK; t = json_next_key(j, t)) {
        code = judge_tensor(&d, &judged, c, t, err);
        if (code || !judged) continue;
        *failures += d.verdict >= TTMM_PAST && d.verdict != TTMM_MISSING;
        report(context, c->file, &d);
    }
    for (size_t i = 0; i < c->yours.n && code == TTMM_OK; i++) {
        if (json_key(j, tensors, c->yours.tensor[i].name) >= 0) continue;
        d = tensors_of(&c->reference, NULL, &c->yours, &c->yours.tensor[i]);
        report(context, c->file, &d);
    }
    if (code == TTMM_OK) report(context, c->file, NULL);
    close_safetensors(&c->reference);
    close_safetensors(&c->yours);
    return code;
}

int ttmm_check(const char *vectors, const char *yours, const char *precision,
               void (*report)(void *context, const char *file, const ttmm_difference *d), void *context,
               size_t *failures, ttmm_error *err)
{
    checking c = {.precision = precision};
    json *j = &c.manifest;
    uint64_t version = 0;
    char word[8];
    *failures = 0;
    snprintf(word, sizeof word, " %.5s ", precision);
    if (strstr(" f64 f32 bf16 f16 ", word) == NULL)
        return fail(err, TTMM_BAD_USE, "the precision is %.40s, expected f64, f32, bf16 or f16", precision);
    int code = json_open(j, vectors, "manifest.json", err);
    if (code == TTMM_OK && !(json_integer(j, json_find(j, 0, "version"), &version) && version == 2))
        code = json_refuse(j, "version", json_find(j, 0, "version"), "2", err);
    const int files = code ? -1 : json_find(j, 0, "files");
    if (code == TTMM_OK && json_type(j, files) != '{') code = json_refuse(j, "files", files, "an object", err);
    for (int f = json_child(j, files); f >= 0 && code == TTMM_OK; f = json_next_key(j, f))
        code = judge_file(&c, f, vectors, yours, report, context, failures, err);
    if (code == TTMM_OK && c.compared == 0)
        code = refuse(err, yours, "holds no tensor of those that %s lists: nothing is compared", j->path);
    json_close(j);
    return code;
}

static int is_help(const char *word) { return strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0; }

/* o->verbs is " base all ": a verb is looked for between its blanks. */
static int has_verb(const ttmm_option *o, const char *verb)
{
    char word[32];
    snprintf(word, sizeof word, " %s ", verb);
    return strstr(o->verbs, word) != NULL;
}

/* The value of an option that takes one, which must be read whole and within its limits. */
static int set_option(const ttmm_option *o, const char *text, ttmm_error *err)
{
    char *end = NULL;
    double x = 0;
    long i = 0;
    const int digits = o->type == 'f' ? 6 : 15; /* of the limits, in the sentence: counts whole */
    errno = 0;
    if (*text == 0) return fail(err, TTMM_BAD_USE, "--%s is empty", o->name);
    const int as_it_is = strchr("swo", o->type) != NULL;
    int good = 1;
    if (o->type == 'f') good = read_number(&x, text, strlen(text));
    else if (!as_it_is) x = (double)(i = strtol(text, &end, 10)), good = end > text && *end == 0;
    if (as_it_is) *(const char **)o->value = text;
    else if (!good || errno || !(x >= o->least && x <= o->most))
        return fail(err, TTMM_BAD_USE, "--%s is %s, expected %s from %.*g to %.*g", o->name, text,
                    o->type == 'f' ? "a number" : "a whole number", digits, o->least, digits, o->most);
    else if (o->type == 'f') *(double *)o->value = x;
    else if (o->type == 'l') *(long *)o->value = i;
    else if (o->type == 'n') *(size_t *)o->value = (size_t)i;
    else *(int *)o->value = (int)i;
    return TTMM_OK;
}

/* What is written must not be a file that is read, or written otherwise. */
static int check_output(const ttmm_option *o, const char *const *argument, size_t n, const ttmm_program *p,
                        ttmm_error *err)
{
    const char *path = *(const char *const *)o->value;
    int twice = 0;
    for (size_t i = 0; i < n && path; i++) twice |= strcmp(argument[i], path) == 0 && is_readable(path);
    for (const ttmm_option *q = p->option; q < p->option + p->n_options && path; q++) {
        const char *other = q->type == 's' || q->type == 'o' ? *(const char *const *)q->value : NULL;
        twice |= other && q->value != o->value && strcmp(other, path) == 0;
    }
    if (!twice) return TTMM_OK;
    return fail(err, TTMM_BAD_USE, "--%s is %s, which the command line names twice: it would be lost", o->name, path);
}

/* The first word is the verb; each of the others is looked at once, from left to right. */
int ttmm_command(size_t *verb, const char **argument, size_t *n, const ttmm_program *p, int argc, char *const *argv,
                 ttmm_error *err)
{
    int options_over = 0;
    *n = 0, *verb = p->n_verbs;
    if (argc < 2 || is_help(argv[1])) return 1;
    for (*verb = 0; *verb < p->n_verbs && strcmp(p->verb[*verb].name, argv[1]) != 0;) ++*verb;
    if (*verb == p->n_verbs) return fail(err, TTMM_BAD_USE, "%s is not a verb; %s -h lists them", argv[1], p->name);
    const ttmm_verb *v = &p->verb[*verb];
    for (int i = 2; i < argc; i++) {
        const char *a = argv[i];
        if (!options_over && is_help(a)) return 1;
        if (!options_over && strcmp(a, "--") == 0) {
            options_over = 1;
            continue;
        }
        if (options_over || a[0] != '-' || a[1] == 0) {
            argument[(*n)++] = a;
            continue;
        }
        if (strcmp(a, "-o") == 0) a = "--output";
        const char *equals = strchr(a, '=');
        const size_t length = equals ? (size_t)(equals - a) : strlen(a);
        const ttmm_option *o = NULL; /* of that name; two verbs may mean different things by it */
        for (const ttmm_option *q = p->option; q < p->option + p->n_options; q++)
            if (strlen(q->name) + 2 == length && strncmp(a, "--", 2) == 0 && strncmp(a + 2, q->name, length - 2) == 0 &&
                (o == NULL || has_verb(q, v->name)))
                o = q;
        if (o == NULL) return fail(err, TTMM_BAD_USE, "%s is not an option; %s %s -h lists them", a, p->name, v->name);
        if (!has_verb(o, v->name)) return fail(err, TTMM_BAD_USE, "--%s is not an option of %s", o->name, v->name);
        if (o->type == 'b') {
            if (equals) return fail(err, TTMM_BAD_USE, "--%s takes no value", o->name);
            *(int *)o->value = 1;
            continue;
        }
        if (!equals && i + 1 == argc) return fail(err, TTMM_BAD_USE, "--%s needs a value", o->name);
        int code = set_option(o, equals ? equals + 1 : argv[++i], err);
        if (code) return code;
    }
    if (*n > 0 && argument[0][0] == 0)
        return fail(err, TTMM_BAD_USE, "the first argument is empty; usage: %s %s %s", p->name, v->name, v->arguments);
    for (const ttmm_option *o = p->option; o < p->option + p->n_options; o++) {
        const int code = o->type == 'o' ? check_output(o, argument, *n, p, err) : TTMM_OK;
        if (code) return code;
    }
    if (*n >= v->least && *n <= v->most) return TTMM_OK;
    return fail(err, TTMM_BAD_USE, "found %zu argument%s, expected %s%zu; usage: %s %s %s", *n, *n == 1 ? "" : "s",
                *n < v->least ? "at least " : "at most ", *n < v->least ? v->least : v->most, p->name, v->name,
                v->arguments);
}

/* With p->n_verbs as the verb, a line for each of them; else that verb's line, and one for each of its options. */
void ttmm_usage(FILE *f, const ttmm_program *p, size_t verb)
{
    const int all = verb == p->n_verbs;
    if (all) fprintf(f, "usage: %s VERB ... [options]     %s VERB -h: the options of a verb\n\n", p->name, p->name);
    for (size_t i = 0; i < p->n_verbs; i++)
        if (all || i == verb)
            fprintf(f, "%s%s %-9s %-27s %s\n", all ? "  " : "usage: ", p->name, p->verb[i].name, p->verb[i].arguments,
                    p->verb[i].help);
    for (size_t i = 0; i < p->n_options && !all; i++)
        if (has_verb(&p->option[i], p->verb[verb].name))
            fprintf(f, "  --%-14s %s\n", p->option[i].name, p->option[i].help);
}

/* ==== Tables =========================================================================================================
 *
 * Unicode's, packed, as test/unicode.py prints them; and the bytes of the byte vocabulary. */

/* clang-format off */
/* Where they begin and end in turn, each as the distance from the one before. */
static const char *const packed_letters[] = {
    "R7=)=R%$-$'$(:$C$[+'/1(*$$$SK($%%'$$)$$&$$$7$RJ$T'+TC$J%$)MR=>''R#OG%$S,$$2%*%-&%$3$$BARP.$;E,%'$(9'$,$&$:<*.(;$)",
    "4NR0R,&$5$*-23'+%%%9$*$$&'&$3$0%$&1%-$+)'%%9$*$%$%$%C'$$6&3,$&$9$*$%$(&$5$2%:$.+%%%9$*$%$(&$B%$&2$4$$)&&$'&%$$$%&",
    "%&&&/9$R*+$&$:$3&$=&%$%%B$'+$&$:$-$(&$C%$%2%4,$&$M%$3$(&+&;)(5&;$,$$%*R0R&$%/*R0%$$$($;$$$-$%,$%($$8'D$R5+$H>(S<O",
    "7$3)''&$&%*&'0/$4J$$($%O$X5$'%*$$$'%M$'%E$'%*$$$'%2$R/$'%R9I33RM%)&_G%4$=(RB)+*5061510$&2R*G$'$R9RP*(%F$$(R<-CR'B",
    "%(.P'=R,:,R+RI$S&R%4+R,B0%-P=HM&-H%.(O%&M'$)$%&$(U/R6W+%)%J%)%+$$$$$$$C%R+$*$$&&$*&'%)'0(&$*S=$0$30S.$'$%-$$&()$$",
    "$$$$'$.%'(('$R*%R`@V')'&%/J$$($%R.*$3:,*$*$*$*$*$*$*$*RG$[6%N((%'RM)&$S#$'(O$S'4DR&3]4T]9R6[|4R9R$%VP&3-%7R%3C%R<",
    "R',%S0%R9%%$$$+83$&$'$:AR*1R(R4)&$$%.@-:<A*R%@$3($--($M:&$+7:&$&R($$&%%(%$$$;&%.*&/)%)%),*$*$O$1)S<AVi//:'R'UXIY)",
    "%S3J*/(($$-$0$($$$%$%$S5EY&5R6%R,L/S=($T#H=)=.RP&)%)%)%&G/$=$6$%$2%1FSEYAA&R'R%D07$+)J-B%H'+R&T:5H'H'L+R*/.$2$*$%",
    "$.$2$*$%&R*/WM,9-+;)$N$,R;)%$$P$%&$%:-:,CR76$%-9-=R<R.)%R6$2'$&$ANA&AG+$@>R,-9-605S7R@R-R)0R)0HJ@,:V<N)%3&R1A-$+9",
    "N5R$8>:/R+R/%%$0R#D<=HA$%$+G&$/R&1'8$$$G5$<6%R5*$$$'$2$-*R%J+%%%9$*$%$(&$5$/(B-$$%$$J$$<$$$PR+5'7&BR&7%$$U'R%M'HR",
    "&7$R1O0$R=>I*U(PS=R6C+%$%+$%$;2$$$S'+%K3$$$@$-L*$8$.R$6$5R@U6EC,$I4$R'BS9*$%$J8$<)$%$D1$X/62$$0$FSF$RFf9V(U3R_=S*",
    "2iI4)<R}G(^OTc$By*^A*C4RF4B5R&3'C8(6Z>R#UCR6SJRB($R80R6%$$@TR3+m:M-Ud<'$*$%$W82$A&%$1'+YHRW0S4(0&,*-S}(RL$R=$%%$%",
    "%%'$/$$$*$R7$'%+$*$@$'$($$&*$X<%<$<$C$<$C$<$C$<$C$<$+zPC))VHR4T.R#-*3$X)B5P[F@V&B%$]#*$'$%$2$U4R1R:*$lF'$>$%$$%$$",
    "-$'$$$$)$'$$$$$$&$%$$%$$$$$$$$$$%$$%'$*$'$'$$$-$4(&$($4SY-gU2DSS1)UN%Sx%1Tq&2_IRZH^%s8SeF(ST*",
    NULL};
/* Where they begin and end in turn, each as the distance from the one before. */
static const char *const packed_numbers[] = {
    "R&-SB%($%&r$-SP-U5-Z*-S@-')S5-S@-S@-%)S70S<-+*S0-S1**6S6-S)-S@-R<7VO-R<-aP7e=&V1-)-9-WB-SJ.TB-)-U%-RM-SP-)-i.$&))",
    "-U5R)%(b)R2RE9`#BpG$c/$<,1&X@'T&-B+$2D-K2`l3-U+-X()T6-J-U5-9-RM-Z$-[hB-[OR#/R/4%X=>H'A$+$SP(U9-fN+<*K,RB(9)T<%%3%",
    "R$R6,R*%B&RB(S1+;+M*X2)R&-)-W+CT:-N'S9*SPBSJ-R2-T,-*7V=-X>-S@-Y1-S/-)7RC/Z26S&-`D-RMAV%-R<-Z4-S/8iDS8Xp@-RX%-RM-S",
    "P-$*]C-VI:]{E-rJ7/7S5<jAR(RX@-Z4-]*-V9-aM,SJ-c=R1$&$'RCR#$2g40RbN-",
    NULL};
/* Distance, canonical combining class: of the code points from there on. */
static const char *const packed_combining[] = {
    "c&V(8V*$UL'V*$UH$UL(U9%UL'U9%UL.$(UL'V(+V2$V($UL&V(&UL%#$V(&UL'V($V*$UL%V($V+$V,%V+$V,%V+$V(0#W(V((#VLUL$V('UL$V(",
    "&UN$UL$V()UL)V(%UL$V(%UN$V&$V($-$.$/$0$1$2$3$4$5$6%7$8$9$#$:$#$;$<$#$V($UL$#$5$#R>V(+B$C$D$#R&>$@$A$B$C$D$E$F$V(%",
    "UL%V((UL$V(%UL$#3G$#S.V(*#%V('UL$V($#%V(%#$UL$V(%UL$#GH$#BV($UL$V(%UL$V(%UL&V($UL%V($UL$V(&UL$V($UL$V($UL$V($UL$V",
    "(%#T<V(*UL$V($#FV('#$V(,#$V(&#$V((#OUL&#SBV(1#$UL$V(%UL$V(%UL$V(&UL&>$@$A$V(&UL$V(%UL%V((#R2*$#3,$#&V($UL$V(%#S0*",
    "$#3,$#S7*$#3,$#S7*$#3,$#S7*$#3,$#SI,$#SI,$#*RK$S$$#S.*$#3,$#SI,$#SF,$#S6S0%,$#0S4'#S5S@%#1SD'#RCUL%#>UL$#$UL$#$UH",
    "$#R-SK$SL$#$SN$#(SL'#%SL$#$V(%,$#$V(%#R4UL$#S9*$#$,%#RIUL$#aPV(&#g&,$#C,$#T9,$#-V($#U:V&$#T+UN$V($UL$#UKV($UL$#R=",
    ",$#7V(+#%UL$#R&V((UL)V(%UL$#S@*$#2,$#JV($UL$V(*#R,,%#R0*$#.,%#R9*$#T4V(&#$$$UL(V(%UL'V($#$$*#'UL$#)V($#&V(%#U5V(%",
    "UL$V(*UL$V(%V,$UF$UL$U9$V(I#(V($V+$UL$V($UL$#b#V(%$%V('$&V(%#'V($#&$%V($UL$V($$%UL'V($#Ri-V(&#T),$#S)V(D#^1UJ$V&$",
    "V*$UN$UP%#S2+%#`z1V($#'V(-#DV(%#RGV(%#W),$#U,,$#>V(5#R/UL&#I,$#S(*$#/,$#V1V($#$V(%UL$#%V(%#(V(%#$V($#R*,$#V8,$#[Q",
    "9=$#c'V(*UL*V(%#g@UL$#V$UL$#T1V((#w4UL$#$V($#LV($$$UL$#',$#TBV($UL$#p<,$#R.,$#R/,$*$#R;V(&#R&,%#R4*$#RC,$#,*$#S3,",
    "$*$#TO*$,$#RH*$#3,$#;V(*#&V((#U<,$#&*$#SE,$*$#V=,$*$#SH,$#S@,$*$#S<,$#nK,$#Z|A$(#R1V(*#[_'$$#Sn+UH%$&#&V$$UH(#+UL",
    "+#%V((UL%#BV('#T0V(&#Rs(V(*#$V(4#%V(*#$V(%#$V((#RU+UL*#S6V()*$#",
    NULL};
/* Distance, what it decomposes to. */
static const char *const packed_singles[] = {
    "d9c&$c'%c9R'a9-R1,U&TiHfL%fM%fN%fO%g>%g@%gAR4f%&g+.f'%f(+f/+f)+fP+f-&f$$S)-f+%f.%U#&US'$US(W:fI'RB$U4]2WT.$WT/mR9",
    "cs%$_QC$dS1$cuL$`Q6$ZyJ$[m/$fY#$fY#$]_($de;$[v<$]^M$^c0$`}@$bV7$b}D$cX)$c`,$d^4$_d&$_uC$`]P$`o*$br0$dc.$efF$Z{@$[",
    "jG$_iH$`e)$b}1$e~:$]uJ$`WC$b{+$cb>$^gP$bdB$cZ4$]~.$_R8$_w7$`j)$d_G$[S5$[`K$[g6$^s.$_hD$`dL$aR6$bY,$b|7$b~3$c|7$eV",
    ")$eo.$e}D$a[G$ab+$ayB$boD$dl3$fRB$cjI$][=$^Q;$ar<$b[P$`fD$a^*$cuF$eTI$][6$]p<$_d7$_yN$`RH$aw*$a}$$eQ#$[g*$b]/$[aC",
    "$[a2$aeB$az2$bp>$eQN$cn>$^h($_d&$ckD$Zz#$]mI$^W;$`m-$`x'$[hC$a_.$[TB$^U,$Zy$$_sN$^w.$avK$[l:$]XD$aS#$br<$ciJ$_mJ$",
    "dX6$_r6$^i*$bjA$^lF$`wJ$Z|>$[_)$[a/$_Z:$au<$bh$$cjE$de9$[gN$[o2$]_K$^Q#$^xO$`X($a`0$d{9$ei7$fS,$fT6$[eN$^~B$_l3$d",
    "VC$]|2$^a$$^c:$^r1$`S.$``8$`rO$acJ$a{;$b[A$dU3$bv-$dZP$dmM$[c#$[f($[r&$`]>$c_#$ciJ$]~-$^VL$^kN$_m=$aqH$`lI$Z}H$[~",
    "G$]mI$]x,$^WF$`n+$`r.$bVM$bZE$dgE$eTH$eV@$e[.$[S:$ac-$ddL$eS6$^])$Z{D$[ZO$]mP$]oG$^wP$_d&$`c6$`|F$bv;$d]O$fXB$^}0",
    "$d~3$[e;$_TC$_W3$_v;$_~.$`p($`w=$a[%$av8$e]H$[_-$^d;$eR#$[W&$]t@$_z0$dU7$^T;$^_2$_X*$`m-$eR1$[c5$[n,$]p@$^zC$_SC$",
    "_[4$_t9$`p%$`z@$bV+$c_0$c_C$de6$eT3$[i=$_~M$[n:$`c8$`s0$b|+$eRO$et5$fS4$_U1$_y>$be$$ai<$ak7$asB$`hH$`[<$cmD$Z}#$b",
    "l7$[cG$[bA$]}7$^h,$au+$]kA$_uF$^~/$dUI$c[4$eQ%$cc8$]~7$[^-$[wI&]X@%^|J&[aE$`k*$aQG$a`C$aa7$aa>$ab;$eVN$atA$bWC%b|",
    "D%ck=&d[7$d`I'ea$$ea1$eb0$e|*$d`)$eS5$[T0$[[.$[^:$[fO$[g<$[iP$[w%$[y4$[{<$]X%$]Z3$]p>$]pI$^Z6$^`)$^`P$^c,$^v2$^y>",
    "$^}9$_Z>$_wE$_{3$`S-$`a0$`e9$`pB$a[L$a`E$a`P$a`O$aa)$aa/$aa6$ab9$ab:$af8$agM$ao#$a{;$a|#$a}.$bV$$bY0$be)$bh.$bh.$",
    "brK$c`E$ccD$ckG$cm$$cv)$cw1$dX<$d[7$eT4$eZC$e]$$^YE$RnY8$bf'&Zy=$[`I$[_($[S/$[^2$[_A$[fM$[h%$[w%$[u7$[vO$[x=$]X@$",
    "]Z>$]^I$]_+$]e+$]i=$]~6$]~=$^SG$^U0$^[N$^_<$^^#$^`P$^_O$^c,$^dB$^m<$^o:$^pD$^v9$^|J$_R8$_R<$_SK$_l5$_mJ$_v;$`QA$`",
    "Q0$`S-$`XI$`a0$aVC$`eD$`h6$`k*$`r6$`uE$`vM$`{N$`{P$aQG$aR*$aRD$aT@$aT5$a^,$ahP$ao#$as*$ax)$a{;$bTK$bY0$bm&$bp<$cV",
    "C$caI$cc3$ccD$cj1$ck=$cj=$ckG$ckD$ck2$cm$$cnI$cw1$dUF$d]E$dd0$di,$eR'$eT4$eVN$eYL$eZC$eZO$e]$$em+$fY#$RjvM$RjvG$R",
    "l^=$Xj)$YU@$YV3$RpVI$RqfD$Rut,$fW$$fXCReb:Zz'$ZyP$Zz+$Rey*$[R<$[T0$[T=$[V*$[XI$[Y:$[[.$[ZD$Wo2$Rfi)$[^:$[^B$[_$$[",
    "_7$RfbG$WoN$[_'$[_N$RfcI$[`*$[`7$Z}/$[`@$[`I$RxX<$[b.$[b<$WpG$[cH$[d%$[e$$[e)$WqP$[fM$[fO$[g<$[h%$[h0$[h1$[hC$[iH",
    "$[iP$[j+$[jE$[jO$[k#$[k#$[k#$RgQ=$`ZA$[lB$[m)$RgX9$[m5$[m;$[n#$[q4$[o($[o8$[p+$[q8$[s2$[sM$[u5$[uF$[v9$[v9$[vO$[w",
    "3$[w;$[wK$]Q6$[y4$]Q7$[{%$[{I$[bA$][M$]U:$]V3$]VM$]T$$]WE$]WD$]Z7$Rhb<$]]#$]]($]]7$]]L$]^&$]_9$Rhl>$Rhn&$]b<$]c>$",
    "]cK$]b($]e/$W|9$W|H$]hK$]j&$]j&$Rh~4$]m$$]m9$]mI$]n'$RiWJ$]n3$]n:$^S0$]o)$XQF$]p:$]pI$]rA$]q:$RihF$]u<$RihH$]v:$]",
    "v7$]vI$]y&$]y'$XU@$]yC$]zA$]{($]|'$XVF$Ri}3$XW2$]}B$]}E$]}H$]~.$Rzd.$^Q5$RjXM$RjXM$be=$^R,$^R,$XY#$RlW.$RrU4$^S@$",
    "^SI$XY@$^TK$^V#$^V-$^VP$^Z#$X[<$XZL$^Z6$Rjn>$^[<$^_6$^_:$^_<$^_:$^`;$^`P$^aG$^a8$^aD$^bF$^c,$^c0$^cK$^d($^e=$^g7$",
    "^h-$^jP$RkX>$^j<$^i($^k:$^l($^n/$Rk^C$^oA$^m=$^lO$XaP$^q-$^qC$^r4$^q;$Xc3$^v2$^vP$Rkv#$^y@$_QG$^{L$Xg,$^}9$XfI$Xf",
    "$$[`%$[`($_QO$^}E$b^$$YkP$_R8$_R<$_RC$_T%$_SH$Rl^+$Xh/$_W:$_TM$_Y8$_Z>$RlaO$_ZH$_X2$_^G$Xj)$__H$_aO$_c;$_gF$Rln;$",
    "_hL$XlK$_j7$Rlz#$_k=$Xn&$_l.$_m.$_mJ$_mK$RmVH$RicN$RmY-$_q)$Rmd-$_sA$_sO$_qC$_u=$_v8$_wE$_v;$_w6$_wF$_x%$Rmf5$_v.",
    "$_{I$_}-$Xs*$`Q0$`Q,$Rmp&$_z@$`TM$Rms,$Rmt/$`VK$`Y6$`XI$`XF$Xu3$`YH$`ZN$`ZH$`]#$RfbP$``4$RnV4$`b1$Rn^B$`e6$`eD$`f",
    "1$Rnl($`g4$`gJ$RnrH$RnwF$`lN$`m1$X{;$`mL$X{H$X{H$`q9$`qO$`r6$`rK$`t5$X~#$`v5$Rob/$`vP$Rod1$`x'$Ri}P$`{A$RouD$Rov-",
    "$Roy2$YU#$YU/$aRD$Ro}-$Ro},$Ro~&$Ro~A$aSA$aSB$aSB$aT@$YV3$aV&$YVA$YX6$Rpb-$aZ5$a[G$a^,$YZ)$RpmH$aa/$Rpp4$Rpq2$ab;",
    "$ad=$Y[I$af8$afC$afH$RqRG$RqY6$RqY6$aj2$Ya:$Rq`,$ao)$ao,$Yb2$RqdN$au'$Ye$$au=$au8$av($Rqv)$ax1$Yg+$az;$a{J$a}2$Yh",
    "1$RrW($RrWH$Yi)$Rr[%$bV,$Rr^0$bVH$bY%$bY0$Rrg7$Rri&$b[1$Rrl$$b[B$RlZO$YkL$b^)$b_N$Ym'$ba.$]g$$Rrw4$RrwC$Rl]($Rl]1",
    "$be=$beA$dX$$Yo-$bhG$bhA$bi%$[f8$bi9$bi;$biF$bjB$Rs^F$bjA$bkL$bm7$bo'$bl$$bo7$bp4$brK$bm'$boE$boG$bp)$Rsd1$Rsk+$R",
    "sgJ$Ys9$bv0$bv2$bw($Rtb6$bxJ$Rsu*$Yt>$YtC$Rsx($Rs~;$YtM$b~'$b~3$b~>$b~A$cR&$cQ2$cT1$cS2$cVC$cTL$cV4$cVP$Yw1$cY#$c",
    "YD$Yx&$c[I$c[L$Rtq0$c_8$c_@$Yy5$c`.$WoP$Rt~.$RuT2$Y|7$Y|A$ci@$ck2$cnI$cs2$RugK$cu.$cuE$cwE$cyG$Ruv.$Rfs1$c{A$c{1$",
    "c|8$Rfx*$dS;$dUF$Rvo#$Rvo>$d^9$d`<$da/$RvvE$da9$dgI$dk3$dk4$di2$dqH$dr6$Rwe$$dzE$Z_>$d{D$Rwm9$Za5$eSB$]x$$eUH$RxU",
    ")$RxYK$Zd6$Zd>$eZ#$RxeL$ZeN$Rxi#$eZO$eZO$e[@$Rxo5$e`E$ZhH$eb1$ee($eeD$eg%$Zl.$Rya<$em+$esL$ex'$ZqN$Zr@$ez7$RzS:$Z",
    "rK$RzTE$RzZ@$Rz^;$fT#$ZtO$fU4$fU9$fUA$fUK$fV$$fVJ$Rzr&",
    NULL};
/* 2 distance + (1: and back), the two it decomposes to, as differences from those before. */
static const char *const packed_pairs[] = {
    "Y<SLt)&#%&#%&#%&#-&#'('R0&'RD&#%&#%&#/&+2&#%&#%&#/(-,&%(&#%&#%&#%&#-*/2&#%&#%&#/&+0*3$&#%&#%&#%&#-&#'('R0&'RD&#%&",
    "#%&#/&+2&#%&#%&#/(-,&%(&#%&#%&#%&#-*/2&#%&#%&#/&+0(#1&S8*&R6#&R5'&R6#&R5R:&R6#&R1RD&R6#&R5%&R6#&R5-&R6#&R5-&R6#&R",
    "3#&R6#*R32&R6#&R5'&R6#&R5%&R6#&R5R8&R6#&R5R-&R6#&R16&R6#&R5+&R6#&R5%&R6#&R5R6&R6#&R3R@&R6#*R3%&R6#&R5%&R6#&R5'&R6",
    "#&R5R:&R6#&R5R7,%,&R6#&R3RA&R6#(R3RB&R6#&R5RC&R6#&R5R+&R6#.R18&R6#&R5RC&R6#&R5R+&R6#,R32&R6#&R5'&R6#&R5-&R6#*R/6&",
    "R6#&R5RC&R6#&R5R+&R6#&R38&R6#&R5%&R6#&R5RA&R6#&R5R+&R6#&R3R,&R6#&R5R+&R6#*R34&R6#&R5%&R6#&R5'&R6#&R5+&R6#&R5%&R6#",
    "&R5R0&R6#&R1RB&R6#&R1#&R6#&R5/&%0&R6#&R5/&R6#&R5-&R6#R;RLB&R6#AR)#&R6#R1S0A&R6#&R%#&R6#&R)#&R6#&R)#&R6#&U=2&R6#&R",
    "5(&R6#&R59&R6#&R5:&R6#(S8+&R6#&`1#&%#&aB#&R6#*X%3&R6#&R-#&R6#&R-R.&R6#&bJR=&%#&S03&ZE#&j:#,R;8&R6#*R'$&R6#&TK%&R6",
    "#&R3#&R6#&>#&R6#&Y(@&R6#&R5'&R6#&R-&&R6#&R5'&R6#&R-&&R6#&R5'&R6#&R)&&R6#&R5'&R6#&R/&&R6#&R5'&R6#&R/&&R6#&R5'&R6#&",
    "R9N&R6#&R3#&R6#*RNR)&R6#2RD,&R6#&R-R6&R6#&V$R;&R6#&R7#&R6#&X3)&R6#&eK(&%#&fK#&R6#^)o((SMm##&s(#(+#&'#&'#(/#(/#&+#",
    "&R8#R+S*1&;#&;0&+#&'#&'#&H#R+G1&;#&.0&/#&+#.5#&#1RPSP2&#3(&0,<1.L0&&$&9/:8#R7R6#R%(.&#3(&0,R<1.R-0&&$&9/R'S+5&%#T",
    "1U,4&R6#ARB#&R6#&R5'&R6#*R+&&R6#*X.'&%#&YA#&R6#&R3#&R6#*R3*&R6#&R5+&R6#&R)#&R6#*X<#&%#&Y2#&R6#&RJ*&R6#&R5+&R6#&R5",
    ")&R6#&R-(&R6#*R-#&R6#_-g*w8&#%&R8#&R7%&R<$WKW+#(K#GF#l>l=s&43#*)#R>R1#%%#%%#%-#%-#%%#%5#%+#UIWFVG&#R(DRBR+%%#'=#T",
    "EVIVC)/#R<R9#%%#%-#)B#[6^@^;*#R%&#R(DRBR+%%#S8UPWLS6S1R'&%#&$R(V;VCVAV3V4VA21#&#%(#K&+JVBV:UB&%#&$R(W2W;V((#-&),&",
    "(NaKb%fP77#--#--#--#=R+&7S+SO'#'%SL;'%#5SM#HR8S777#--#--#--#=R+&UKW@V4SsFSsESu8('#('#('#('#,+#RJRI#('#*'#&%#()#q+",
    "Ww-WTF&R6#&R3R1&R6#&R5R.&R6#&R5@&R6#&U9S(&R6#&X-/&R6#&R5R.&R6#&R5@&R6#&R56&R6#&R5/&R6#&XERP&%#&$%&%#&Z)RO&R6#&R5)",
    "&R6#&f%RJ&%#&g7%&R6#&R3(&R6#&R3)&R6#&R5R.&R6#&R5R+&R6#&R5R4&R6#&R51&R6#&R3'&R6#&U;S&&R6#&X/#&R6#&R5R:&R6#&R5@&R6#",
    "&R3>&R6#&XiNR3&%#&Xk4S#&R6#&R5*&R6#&R3RN&R6#&R5/&R6#&R5R.&R6#&R3R-&R6#&R5R.&R6#&R5@&R6#&R5*&R6#&U=RN&R6#&R51&R6#&",
    "TK2&%#&$%&%#&]-#&R6#&R5/&R6#&R1#&R6#&R5R.&R6#&Xk/R3&%#&XlDS#&R6#&R3RJ&R6#&R5R.&R6#&[/R-&%#&-#&%#&Xa##&%#&XlP#&R6#",
    "&R5R.&R6#&R5@&R6#&R5*&R6#&R34&R6#&R5;&R6#&R5(&R6#&[HRN&%#&%1&%#&^0,&R6#&R5R6&R6#&R3R;&R6#&R5%&R6#&R51&R6#&R5$&R6#",
    "&R5R.&R6#&R3R-&R6#&R5%&R6#&R3$&R6#&R3,&R6#&R5R8&R6#&R5@&R6#&G#&;RH&)'&'#(]A(.`(R.&R6#&R5R)&R6#&U12&R6#&R5$&R6#&R5",
    "5&R6#&R5.&R6#&Xi5$&%#&Xh#$&%#&$$&%#&$5&%#&$.&%#&XgN)&%#&Xp5R0&R6#&R5R)&R6#&R5.&R6#&U9&&R6#&R5$&R6#&R55&R6#&R5.&R6",
    "#&Xj($&%#&Xq01&R6#&R5R*&R6#&R)#&R6#&R5R)&R6#&U92&R6#&R5$&R6#&R55&R6#&R5.&R6#&Xj<$&%#&XbN$&%#&$$&%#&$5&%#&$.&%#&$R",
    "6&%#&`E#&R6#&R5R)&R6#&_O2&%#&$$&%#&$5&%#&$.&%#&$R6&%#&a-R;&R6#&R5R<&R6#&R5R)&R6#&R5.&R6#2v@D&#%&WzDK&%#&$%&%#&$SL",
    "&%#&W|*S&&#%&W|9K&%#&$%&%#&$SL&%#&WzMS&&#%&W{.K&%#&$%&%#*W|CH&#%&W}$K&%#&$%&%#*W{;H&#%&W{KK&%#&$%&%#&$SL&%#&W}1S&",
    "&#%&W}AK&%#&$%&%#&$SL&%#&W|*S&&#%&W|9K&%#&$%&%#&$SL&%#&W}NS&&#%&W~/K&%#&$%&%#&$SL&%#&W|>S&&#%&W|NK&%#&$%&%#*W~4H&",
    "#%&W~DK&%#&$%&%#*W}%H&#%&W}4K&%#&$%&%#&$SL&%#(W~IS$(XQ,K(#%(#SL&W}=S&&#%&W}MK&%#&$%&%#&$SL&%#&XQ3S&&#%&XQCK&%#&$%",
    "&%#&$SL&%#&XQ3SM(+#('#('#(/#(/#(+#,WyAT&&%#&%#&%#&%#&%#&%#&%#&%#&%#&%#&%#&%#&%#&%#&%#&F#&%#&%#&%#&%#&%#&%#&%#&%#&",
    "%#&%#&%#&%#&%#&%#&%#&S+#&%#&%#&%#&%#&%#&%#&%#&%#&%#&%#&%#&%#&%#&%#&%#&XQ@SG&#&&XQCSL&XQB#&,#(-(&XTH)&XV,SG&#&&#*(",
    "#T&.s'(&Xu5)&XQ=#&4#(5(&XU.)&XVET%('#(#T&&XV3T%&#%&#SL&XTISA&#&&F*,ESN&F#&S*SA&#&&#**XY&#&#%&#SL&XW'SA&#&&/*(6J&#",
    "%&+S%&/#&RBSA&#&&#*(*L&sHK.XuFT&&XQ)#&-#(,(&XV=)&XX6T%(7#(#T&d6Xk-<&'#K'#R5SB#&+#&&#S4S+#.-#*)#R'R&#('#R-R$#*1#*'",
    "#()#R%Ym1#(Yn7#:K#&Ym=#&'#&Yn;#&%#*=#&%#*)#&%#2)#&%#*1#&%#*)#&%#R=R,#&/#&%#&'#S,S&#&%#&L#&%#2R6#&%#&%#&%#SQ/SSH#R",
    "bLRbG]g1('#('#('#('#('#('#('#('#('#('#('#*)#('#('#21#&#%()$&#%()$&#%()$&#%()$&#%R%S2$8TK#A@#('#('#('#('#('#('#('#",
    "('#('#('#('#*)#('#('#21#&#%()$&#%()$&#%()$&#%()$&#%R%S2$*T.#&%#&%#&%#,9#RWUC[zI[x$'R()947%#%%RcRI$%#%%RcSM8%#%%#+",
    "%%#%%#%%#%%#%%#%%#''#%%#%%#%%#%%#''#''#%%#''#%%#''#%%#%%#%%#%%#%M(%*/%7#%5#Vc2Rhe;RhhA('#C7#VJW-UJ&%#j$iCiG&#R(b2",
    "b7aG&#6(#=]-]2[F&%#RSeLRSeBRSfE%%#%15%#%%#%%#%%#%TKU#<%%#%%5%%#%$%%%#",
    NULL};
/* Where they begin and end in turn, each as the distance from the one before. */
static const char *const packed_dropped[] = {
    "#,%%$5S(E0$p/)9$U/$R'$SWB$RQ6(=(R'($-jZGTX-t($V;&$$SV/$grI'Sn4+Yt[N$BS)r_:rb1%rb1",
    NULL};
/* Where they begin and end in turn, each as the distance from the one before. */
static const char *const packed_marks[] = {
    "c&S9W((VLR#$$$%$%$$R>.R&83$S.*%)%%$'G$B>S$.R0,F'$,$&$(O&T#DR-$$$'+'$&*-%A$R0$''+$7%A%R/$'%'%%&&$B%&$.%R/$'($%'$7%",
    "A$R0$%$$'+$+$.%B$R3$/$R($R3&(&$'*%.%A$R0$%$)$(%7%A$R5'+$7%S/$*&$$S#$%*/+S+$%)$%.)RA%>$$$$$R-1$($%(.$H,$S/'$)$%%%<",
    "%'&3'0$%%)$2$a@&g$&A&A%B%R6%$*+$%.,$R#&T7$S@&'%,$)&UK%%$R0$$*$$$$%+)-%$R&1R8'R&$$($$($L,/%D'%%$&R.$$%&$$&R0+%%T4&",
    "$0$*'$)$&%U5R,)'b#0'$&/Ri-&T)$S)D^1'S4%`z1$'-D%RG%W%$&$'$<%T9$>5R*+<.R$&R&$%'%$L$R9)%%%%/$+$R%$R)$$&%%(%$$N%+$V0$",
    "%$'$[Q9$b4333g@$V$$T1(w(&$%('L&'$TB%o$$R,2R.&R''%%R;&H($+R4$/%R*,.&S+&%$$%TD$&+8%R0$&$I*&(X&)$$'%$%V0')%$%>%RL+%$",
    "$%S3$$$%)$$S.&%'$([l;(R1*jD'Zs/%Sn-&4+%*B'T0&}PR-'R(+$1$9($2Ru3*YqdDV2",
    NULL};
/* Where they begin and end in turn, each as the distance from the one before. */
static const char *const packed_punctuation[] = {
    "E2-*=)='F$($&$-%&$&$a>$+$[3)M%R)$$$%$%$P%7%$%0$%%RA'S/$O1V+&R,2C$VH%-$Y:$c)$S#$-%TE2$$I'R=$RA('%S8)TH$_>,T3$_G%P%",
    "RE&R=%T9&$&I.WO%UH%SJ*$)TI*T7'R1(R4%R6+.$d5;+7$0$/B%1%`&'A%j(1RF%C-YO9R5'D%bO'$%S9$T+R%$6ZM&'-%/3$/$S+$S#$`oO%VP&",
    "S,$-$S<)Y7'RM%L&$$R'%R%$S*03%SF'SH%3%V;$[^@%U@-9G$1$$'$$%T1&$)$'-%&%=&$$>$$$$*Z(&`J$R&$Z,$b:$U6$C$W%,J$S9*R8*RP'l",
    ";*S6%$'SH'R&%RF(&$0$$&RO)S4$^#$V<:S2&V:&Rp%(Yx&%SO$R7(+$[^H$Tu((",
    NULL};
/* Runs: distance, 2 length + (1: every second one), what makes them lower-case. */
static const char *const packed_lower[] = {
    "R7R(R6SIPR6;/R6LS&%R(,%*A%4RP%R$#V3$,%+#Z2$(%'#Z*$#%%%Z(%#%&#T:$#YP$#Z$$#%%#Z($#Z,%#Z4$#Z0$#%'#Z4$#Z8%#Z:$,%)#ZC$",
    "#%%#ZC&#%%#ZC$#%%%ZA%(%'#ZE$#%'#%+#'$#%%#'$#%%#'$E%6E%6#'$(%'#U0$#S8$RD%L#VF%E%;#[oG$#%%#X-$#[oA&#%%#YA$#T&$#T*$4",
    "%W@(%)#%,#V**#RC%'RA'#SJ%%SH&DR653R6P#3,R#%@#SA&#%%#0$#%&'VF&BT<3R4R6RGR7%NS2%R,#B$<%2U,%S*RAS)Rf%RAXXJK#XXJ)#XXJ",
    "b&T:xc0RG-3RTM#%*RKS}BR#'S}BX+W>%T:#Xi6%U,%S1123-23123123-2402212D123123123%2%%T/%#4/)TH'#4/%2%%U61%2%%UO%#0/%VB%",
    "%V=%#4W@#Xe&'#Y^<$#YX+*#R.R$BDG#%d,R(R*{8S'S)S)#%%#[m7$#Tt9$#[lE&,%)#[o'$#[mD$#[o-$#[o+%#%&#%,%[pA%U4%S4(%*#%aa'R",
    "P%R6R+%T><%3SC%R=(%'#tz0$4%0#%%#{t'&(%)I%7#{u2$#{uI$#{uA$#{u,$#{u2%#{s($#{t+$#{s.$#{.$A%3#S($#{u0$#t|>$(%'#{vL$A%",
    "3#|R=<#%]QMR(R6mDRERGTMR<RGU/7RE/@RE3/RE+%REy4S-SJU@NR6Re3R4R6[w(R4R6S)R&R,ag+R8R:",
    NULL};
/* clang-format on */

static const char *const *packed_table(int which)
{
    static const char *const *const table[] = {packed_letters, packed_numbers,     packed_combining,
                                               packed_singles, packed_pairs,       packed_dropped,
                                               packed_marks,   packed_punctuation, packed_lower};
    return table[which];
}
#endif
