/* ttmm.h - test-time model merging in C99: the public face of ttmm.c. It has the same parts and sections:
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
 * Here stands the contract of each function: what goes in and out, the shapes, who owns it, what can fail. What it
 * computes, with formula, derivation, source and example, stands above its code in ttmm.c.
 *
 * Letters in shapes, here and in ttmm.c:
 *    B sequences of a batch        D dim, the model's width     V vocabulary size            K experts
 *    N tokens of a batch, its      H query heads                L layers                     E length of an embedding
 *      sequences end to end        G key/value heads            R rank of a LoRA             n sequences of a corpus
 *    T tokens of one sequence      S head_dim                   F intermediate, the MLP's width
 * A weight W [out, in] maps x to W x, as in PyTorch; arrays are row-major.
 *
 * Rules. Functions that can fail return TTMM_OK or a negative code and fill a ttmm_error. Nothing here prints (but
 * ttmm_usage, to the file it is given), exits, reads the environment or keeps state (but the number of threads). A
 * *_new or *_read function allocates what *_free releases; training and decoding steps allocate nothing. Objects that a
 * function is given stay their owner's. Two threads may work at once with objects of their own, and share a model or an
 * adapter that nobody writes; each has its own number of threads. Numbers in files and options have a point whatever
 * the locale. A child of fork calls ttmm_set_threads(1) first: gcc's OpenMP would wait there for the parent's threads,
 * for ever. (test/hosts has programs that do all this.) The same inputs give the same bits on every IEEE-754 machine,
 * compiler, optimisation level and number of threads (how: the head of ttmm.c). */
#ifndef TTMM_H
#define TTMM_H

/* Where there is no operating system:
 *   -DTTMM_NO_FILES       leaves out Part III, which reads and writes files, with sentence encoders and traces, which
 *                         need it, and what needs a clock. Tokens are bytes or ids. There is no allocator: objects are
 *                         placed (section 12).
 *   -DTTMM_NO_SENTENCES   a ttmm_error has a code and an empty text
 * With both, what is left calls nothing but memcpy, memset, memcmp, sqrt and sqrtf. And anywhere: -DTTMM_CALLOC=f
 * -DTTMM_FREE=g, declared by -include, are what *_new and *_free call in place of calloc and free. (What is to be freed
 * by free(...) is malloc's all the same.) */
#include <stddef.h>
#include <stdint.h>
#ifndef TTMM_NO_FILES
#include <stdio.h>
#endif

#define TTMM_VERSION 10000 /* 10000 major + 100 minor + patch */
#define TTMM_BITS 1        /* the version of test/BITS.md, which says what every bit of a result is */

#ifdef TTMM_DOUBLE
typedef double ttmm_real; /* the ground truth: train-f64, run-f64 */
/* So that a library of one precision and a caller of the other do not link: the functions that most objects and numbers
 * come from or go to have other names here. (A program that needs both: test/hosts/twice.c.) */
#define ttmm_adamw_step ttmm_adamw_step_f64
#define ttmm_argmax ttmm_argmax_f64
#define ttmm_array_of ttmm_array_of_f64
#define ttmm_array_read ttmm_array_read_f64
#define ttmm_arrays_write ttmm_arrays_write_f64
#define ttmm_cluster ttmm_cluster_f64
#define ttmm_corpus_embed ttmm_corpus_embed_f64
#define ttmm_corpus_of ttmm_corpus_of_f64
#define ttmm_corpus_open ttmm_corpus_open_f64
#define ttmm_corpus_read ttmm_corpus_read_f64
#define ttmm_corpus_set_embeddings ttmm_corpus_set_embeddings_f64
#define ttmm_corpus_view ttmm_corpus_view_f64
#define ttmm_decode ttmm_decode_f64
#define ttmm_embed ttmm_embed_f64
#define ttmm_encode ttmm_encode_f64
#define ttmm_encode_tokens ttmm_encode_tokens_f64
#define ttmm_encoder_trace ttmm_encoder_trace_f64
#define ttmm_hash ttmm_hash_f64
#define ttmm_image_view ttmm_image_view_f64
#define ttmm_lora_new ttmm_lora_new_f64
#define ttmm_lora_of ttmm_lora_of_f64
#define ttmm_lora_open ttmm_lora_open_f64
#define ttmm_lora_place ttmm_lora_place_f64
#define ttmm_lora_read ttmm_lora_read_f64
#define ttmm_lora_view ttmm_lora_view_f64
#define ttmm_mixture_new ttmm_mixture_new_f64
#define ttmm_mixture_place ttmm_mixture_place_f64
#define ttmm_model_new ttmm_model_new_f64
#define ttmm_model_of ttmm_model_of_f64
#define ttmm_model_open ttmm_model_open_f64
#define ttmm_model_place ttmm_model_place_f64
#define ttmm_model_read ttmm_model_read_f64
#define ttmm_model_view ttmm_model_view_f64
#define ttmm_nearest ttmm_nearest_f64
#define ttmm_pass_new ttmm_pass_new_f64
#define ttmm_pass_place ttmm_pass_place_f64
#define ttmm_route ttmm_route_f64
#define ttmm_sample ttmm_sample_f64
#define ttmm_sift ttmm_sift_f64
#else
typedef float ttmm_real;
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The objects, each explained in its section. */
typedef struct ttmm_config ttmm_config;       /* 5: a model's shape */
typedef struct ttmm_model ttmm_model;         /* 5: its weights */
typedef struct ttmm_lora ttmm_lora;           /* 6: an adapter */
typedef struct ttmm_mix ttmm_mix;             /* 6: adapters with weights */
typedef struct ttmm_pass ttmm_pass;           /* 6: activations of forward and backward passes */
typedef struct ttmm_trainer ttmm_trainer;     /* 7 */
typedef struct ttmm_mixture ttmm_mixture;     /* 9: a base model with its experts */
typedef struct ttmm_encoder ttmm_encoder;     /* 9a: a sentence encoder */
typedef struct ttmm_corpus ttmm_corpus;       /* 14: texts, cut and embedded */
typedef struct ttmm_tokenizer ttmm_tokenizer; /* 17: NULL stands for the byte vocabulary, everywhere */

/* ==== PART I: THE METHOD ========================================================================================== */

/* ---- 1. Errors, memory, random numbers; sums and products -------------------------------------------------------- */

/* A code is the negative of the exit code of train and run. */
enum {
    TTMM_OK = 0,
    TTMM_DIFFERS = -1,   /* of the programs: a comparison failed; no function here returns it */
    TTMM_BAD_USE = -2,   /* wrong arguments */
    TTMM_BAD_INPUT = -3, /* a file or text that cannot be used */
    TTMM_NO_ROOM = -4    /* out of memory, or a file could not be written */
};

typedef struct {
    int code;
#ifdef TTMM_NO_SENTENCES
    char text[1];
#else
    char text[600]; /* one sentence: which file, tensor or key, what was found, what was expected */
#endif
} ttmm_error;

/* Fill err and return code, so that a caller can write: return ttmm_fail(err, TTMM_BAD_INPUT, "%s: ...", path); */
#if defined(__MINGW_PRINTF_FORMAT)
#define TTMM_FORMAT __attribute__((format(__MINGW_PRINTF_FORMAT, 3, 4))) /* C99's, not Windows' */
#elif defined(__GNUC__)
#define TTMM_FORMAT __attribute__((format(printf, 3, 4)))
#else
#define TTMM_FORMAT
#endif
TTMM_FORMAT int ttmm_fail(ttmm_error *err, int code, const char *format, ...);

/* A stream of random numbers; streams of other seed, purpose or index have nothing to do with each other. */
typedef struct {
    uint64_t state;
} ttmm_rng;

uint64_t ttmm_next(ttmm_rng *g); /* 64 random bits */
ttmm_rng ttmm_stream(uint64_t seed, const char *purpose, uint64_t index);
double ttmm_uniform(ttmm_rng *g);             /* in [0, 1), a multiple of 2^-53 */
double ttmm_normal(ttmm_rng *g);              /* mean 0, variance 1 */
uint64_t ttmm_below(ttmm_rng *g, uint64_t n); /* in [0, n), unbiased; n > 0 */

size_t ttmm_argmax(const ttmm_real *x, size_t n); /* index of the largest, the lowest of equal ones; n > 0 */

/* Numbers as they lie in memory, of one of these types, in this machine's byte order and aligned to their size. */
enum { TTMM_F64, TTMM_F32, TTMM_F16, TTMM_BF16, TTMM_REAL = sizeof(ttmm_real) == 8 ? TTMM_F64 : TTMM_F32 };
typedef struct {
    const void *data;
    int type;
} ttmm_numbers;

/* ---- 2. Embedding ------------------------------------------------------------------------------------------------ */

enum { TTMM_EMBED_DIM = 2048 };

/* The built-in embedding of the text that tokens stand for, or of their ids, if the tokenizer is
 * ttmm_tokenizer_of_ids(): a unit vector, but zero for a text without bytes.
 *   out [E] overwritten, E = TTMM_EMBED_DIM    token [T] of the tokenizer's vocabulary    idf [E] or NULL (ones) */
void ttmm_embed(ttmm_real *out, const ttmm_tokenizer *tokenizer, const int *token, size_t T, const ttmm_real *idf);

/* Embed every sequence of c; idf is kept in c->idf. Fails for want of memory only. */
int ttmm_corpus_embed(ttmm_corpus *c, const ttmm_tokenizer *tokenizer, ttmm_error *err);

/* ---- 3. Clusters ------------------------------------------------------------------------------------------------- */

/* Bisecting k-means.
 *   cluster [n] overwritten, in 0 .. K-1    centroid [K, E] overwritten: the clusters' normalised means
 *   x [n, E] unit rows.    TTMM_BAD_INPUT if K is 0 or > n. Rows that are all equal are split in halves by index; a
 * cluster whose rows cancel out has a centroid of zeros. */
int ttmm_cluster(int *cluster, ttmm_real *centroid, const ttmm_real *x, size_t n, size_t E, size_t K, uint64_t seed,
                 ttmm_error *err);

/* ---- 4. Routing and merging -------------------------------------------------------------------------------------- */

typedef struct {
    double beta; /* beta^2 > 0: the width of the kernel exp(-(1 - cos) / beta^2); the square root of the paper's beta */
    double tau;  /* experts of a lower weight are left out */
    size_t max;  /* at most so many experts */
    size_t active; /* > 0: exactly so many, the nearest, whatever tau and max */
} ttmm_router;

/* Route a query to the experts.
 *   query [E] any length but zero; normalised in place   centroid [K, E] unit rows
 *   expert [K] overwritten: the chosen, ascending        weight [K] overwritten: theirs, >= 0, sum 1
 *   similarity [K] overwritten: cosine of the query and each centroid
 *   chosen     overwritten: how many were chosen; 0 (as if K is 0) means: use the base model.
 * TTMM_BAD_INPUT if the query is zero or not finite. */
int ttmm_route(size_t *chosen, int *expert, ttmm_real *weight, ttmm_real *similarity, ttmm_real *query,
               const ttmm_real *centroid, size_t K, size_t E, const ttmm_router *r, ttmm_error *err);

/* Dense merging: to = from + the weighted updates of mix, in the seven matrices of every layer; the other tensors are
 * left alone. to and from may be the same model; with mix->n = 0, `to` gets from's bits back: a base is restored from a
 * copy, never by subtraction. The adapters are of models of this shape.
 *   scratch [ttmm_merge_scratch(&from->config, mix)] */
void ttmm_merge(ttmm_model *to, const ttmm_model *from, const ttmm_mix *mix, ttmm_real *scratch);
size_t ttmm_merge_scratch(const ttmm_config *c, const ttmm_mix *mix);

/* ---- 5. The transformer's layers --------------------------------------------------------------------------------- */

/* How the frequencies of the rotary positions are scaled, in config.json "rope_type". */
enum { TTMM_ROPE_DEFAULT, TTMM_ROPE_LINEAR, TTMM_ROPE_LLAMA3 };
enum { TTMM_ENDS = 8 }; /* most tokens that end a text: Llama 3 has three */

/* The Llama form: RMSNorm, rotary positions, grouped-query attention, SwiGLU, a tied or untied head; Qwen2 is that
 * with biases. What is 0 at the end of the struct is not there. */
struct ttmm_config {
    int dim, n_layers, n_heads, n_kv_heads, head_dim, intermediate, vocab;
    int context; /* positions the model was trained for */
    int tied;    /* 1: the head is the embedding matrix */
    double norm_eps, rope_theta;
    int biases; /* 1: of q, k and v */
    int rope;
    double rope_factor;                      /* of linear and llama3 */
    double rope_low, rope_high, rope_before; /* llama3: low_freq_factor, high_freq_factor, and
                                              * original_max_position_embeddings */
    int n_ends, end[TTMM_ENDS];              /* tokens after which a text is over: eos_token_id */
    int bos, pad; /* bos_token_id, pad_token_id: the id plus 1, 0 null, bos -1 absent; kept for the next reader */
};

/* The tensors of a model. The first seven, in every layer, are the matrices that LoRA adapts. */
enum {
    TTMM_Q,
    TTMM_K,
    TTMM_V,
    TTMM_O,
    TTMM_GATE,
    TTMM_UP,
    TTMM_DOWN,
    TTMM_MATRICES,
    TTMM_ATTN_NORM = TTMM_MATRICES,
    TTMM_MLP_NORM,
    TTMM_Q_BIAS, /* these three only with biases */
    TTMM_K_BIAS,
    TTMM_V_BIAS,
    TTMM_LAYER_KINDS,
    TTMM_EMBED = TTMM_LAYER_KINDS,
    TTMM_FINAL_NORM,
    TTMM_HEAD,
    TTMM_KINDS
};

/* Weights, or gradients of weights: one block of n numbers. */
struct ttmm_model {
    ttmm_config config;
    size_t n;
    size_t offset[TTMM_KINDS], stride; /* tensor (layer, kind) starts at offset[kind] + layer * stride */
    ttmm_real *data;
    void *block, *files;      /* what ttmm_model_free frees, and unmaps */
    const ttmm_numbers *view; /* NULL; or data is NULL and these are the tensors, in the order of ttmm_tensor_at */
};

ttmm_real *ttmm_weight(const ttmm_model *m, int layer, int kind); /* the tensor's first number; not of a view */
void ttmm_model_init(ttmm_model *m, uint64_t seed);               /* as pre-training begins */

/* ---- 6. LoRA; the whole passes ----------------------------------------------------------------------------------- */

/* One weight matrix's low-rank update: y = W x + scale * B (A x). */
typedef struct {
    int rank;        /* 0: this matrix has no update */
    ttmm_real scale; /* alpha / R */
    size_t in, out;
    ttmm_real *a, *b;     /* A [R, in], B [out, R]; NULL in a view, */
    ttmm_numbers view[2]; /* of which A and B are these */
} ttmm_lora_matrix;

struct ttmm_lora {
    int n_layers;
    double alpha;
    size_t n; /* numbers in data: A and B of all matrices */
    ttmm_real *data;
    ttmm_lora_matrix *matrix; /* [L * TTMM_MATRICES], matrix (layer, kind) at layer * TTMM_MATRICES + kind */
    void *block, *files;
};

/* Adapters that take part in a pass beside the weights:   y = W x + sum_k weight_k scale_k B_k (A_k x), k ascending. */
struct ttmm_mix {
    size_t n;
    const ttmm_lora *const *lora; /* [n] */
    const ttmm_real *weight;      /* [n] */
};

void ttmm_lora_init(ttmm_lora *l, uint64_t seed, uint64_t stream); /* `stream` separates the adapters of one seed */
size_t ttmm_lora_rank(const ttmm_lora *l);                         /* the largest of its matrices' */
size_t ttmm_mix_rank(const ttmm_mix *mix);                         /* the largest of its adapters' */

/* What a pass has room for. */
typedef struct {
    size_t tokens;    /* N, the most of one call */
    size_t sequences; /* B, the most of one call */
    size_t cache;     /* 0, or B = 1 and the positions whose keys and values are kept from call to call */
    size_t logits;    /* rows of logits computed at a time, >= 1 */
    size_t longest;   /* T, the most of one sequence; 0: as tokens */
    size_t rank;      /* the largest rank of an adapter in a pass; 0: none takes part */
    int backward;     /* 1: keep what ttmm_backward needs; not with a cache */
    int trace;        /* 1: keep what ttmm_traced shows */
} ttmm_pass_size;

/* Forward through all layers, up to the final norm. Sequence b is token[start[b]] .. token[start[b + 1] - 1]; start[0]
 * = 0, N = start[B]; positions count from 0 in each sequence. mix may be NULL. With a cache the tokens follow those of
 * the calls before. TTMM_BAD_USE, and nothing is done: what p has no room for (more tokens, sequences, or positions in
 * the cache; a longer sequence; an adapter of a higher rank or of a model of another depth), an empty sequence, a token
 * outside 0 .. V-1. m must have the config that p was made for. */
int ttmm_forward(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, const int *token, const size_t *start,
                 size_t B);
int ttmm_rewind(ttmm_pass *p, size_t positions); /* keep the first ones; TTMM_BAD_USE if there are not so many */
size_t ttmm_cached(const ttmm_pass *p);          /* positions in the cache */

/* The logits of rows first .. first + rows - 1 of the last forward pass, [rows, V], valid until the next call on p;
 * NULL if there are no such rows, or more than size.logits. */
const ttmm_real *ttmm_logits(ttmm_pass *p, const ttmm_model *m, size_t first, size_t rows);

/* Of the last forward pass: nll[i] = -log p(token[i + 1] | the sequence up to i), 0 at each sequence's last token. */
void ttmm_nll(ttmm_pass *p, const ttmm_model *m, ttmm_real *nll);

/* Loss of the last forward pass, the mean of nll over the N - B predictions, and its gradients: with respect to every
 * weight, added into dm, or with respect to the adapters of mix, added into dl [mix->n]; either may be NULL. Returns
 * the loss. p was made with size.backward, and had its forward pass with the same m and mix. */
double ttmm_backward(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, ttmm_model *dm, ttmm_lora *dl);

/* ---- 7. Optimiser, trainer --------------------------------------------------------------------------------------- */

typedef struct {
    double lr, beta1, beta2, eps, decay;
} ttmm_adamw;

/* AdamW's step t = 1, 2, ... of n numbers.    w, m, v [n] changed    grad [n], used times grad_scale */
void ttmm_adamw_step(ttmm_real *w, const ttmm_real *grad, ttmm_real *m, ttmm_real *v, size_t n, const ttmm_adamw *o,
                     long t, double grad_scale);

typedef struct {
    double lr, warmup, last; /* the peak; the part of the steps that warm up; where it ends, as a part of the peak */
    int cosine;              /* 1: down along a cosine; 0: along a line */
} ttmm_schedule;

double ttmm_rate(const ttmm_schedule *s, long step, long steps); /* the learning rate at step = 0 .. steps - 1 */

typedef struct {
    ttmm_schedule schedule;
    double beta1, beta2, eps, decay; /* AdamW; decay is not applied to gains and biases */
    double clip;                     /* gradients are scaled to this global norm if theirs is larger; 0: never */
    size_t batch;                    /* sequences a step, >= 1 */
    int shuffle;                     /* 1: a new order every epoch; 0: as given */
    uint64_t seed;
} ttmm_recipe;

/* Begin a run: `steps` steps over sequence[0 .. n-1] (NULL: all of the corpus; 1 <= n <= its number of sequences),
 * again and again until the steps or the `epochs` are done; exactly one of these is 0. `stream` separates the shuffles
 * of different runs. The moments are zeroed; the weights stay as they are. */
void ttmm_trainer_start(ttmm_trainer *t, const size_t *sequence, size_t n, long steps, int epochs, uint64_t stream);
int ttmm_trainer_step(ttmm_trainer *t, double *loss); /* one step; 0 when all are done. *loss: the batch's mean loss */
long ttmm_trainer_at(const ttmm_trainer *t, long *steps, size_t *tokens); /* steps done, steps in all, tokens seen */

/* ---- 8. Test-time training --------------------------------------------------------------------------------------- */

/* The `count` sequences nearest to a unit query, nearest first. count <= n.  index [count] overwritten  scratch [n] */
void ttmm_nearest(size_t *index, size_t count, const ttmm_real *query, const ttmm_real *embedding, size_t n, size_t E,
                  ttmm_real *scratch);

/* The same chosen by SIFT. A sequence may be chosen again (lambda > 0 is the noise of one look at it).
 *   equal reductions: lower index first   index [count] overwritten, in order of choice   scratch [n * (count + 2)] */
void ttmm_sift(size_t *index, size_t count, const ttmm_real *query, const ttmm_real *embedding, size_t n, size_t E,
               double lambda, ttmm_real *scratch);

typedef struct {
    size_t neighbours; /* 1 .. the corpus's sequences */
    int epochs;        /* over them */
    double lambda;     /* > 0: choose by SIFT with this noise, 0.01 in its paper; 0: the nearest */
} ttmm_ttt;

/* Train t's adapter, freshly initialised (seed of t's recipe, stream 0), on the query's neighbours among the sequences
 * of t's corpus, the nearest (SIFT: the first chosen) last; t's recipe has batch 1 and shuffle 0.
 *   index [neighbours] overwritten: in the order of training    scratch [ttmm_ttt_scratch(o, corpus)] */
size_t ttmm_ttt_scratch(const ttmm_ttt *o, const ttmm_corpus *c);
void ttmm_ttt_train(ttmm_trainer *t, const ttmm_ttt *o, const ttmm_real *query, size_t *index, ttmm_real *scratch);

/* ---- 9. Answering a prompt; scoring, sampling -------------------------------------------------------------------- */

/* The next token, from logits [V]: temperature 0: the largest (equal ones: lower token). Else drawn from softmax(logits
 * / temperature), cut to the top_k likeliest (0: all), then to the fewest that make up top_p of these.
 * scratch [ttmm_sample_scratch(V)] bytes */
typedef struct {
    double temperature, top_p;
    size_t top_k;
} ttmm_sampler;

size_t ttmm_sample_scratch(size_t V);
int ttmm_sample(const ttmm_real *logits, size_t V, const ttmm_sampler *s, ttmm_rng *g, void *scratch);

int ttmm_is_end(const ttmm_config *c, int token); /* 1 if a text is over after it */

/* The tokens after those in p's cache, as many at a time as p has room for; returns the logits of the last [V]; NULL
 * if there are none, p has no cache or no room for all of them, or one is outside the vocabulary. And the size of a
 * pass for decoding: `tokens` of a prompt at most, `positions` in all. */
const ttmm_real *ttmm_feed(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, const int *token, size_t T);
ttmm_pass_size ttmm_decoding_size(size_t tokens, size_t positions, size_t rank);

/* How experts are combined: merged into the weights, beside the weights, each alone with their probabilities averaged;
 * or the faster one of the first two. */
enum { TTMM_DENSE, TTMM_LOWRANK, TTMM_ENSEMBLE, TTMM_FASTER };

typedef struct {
    size_t tokens; /* at most so many */
    ttmm_sampler sampler;
    uint64_t seed;
    size_t piece; /* tokens of the prompt that are computed at once: less memory, more time; 0: 256 */
    void *memory; /* NULL: it is allocated; or memory of ttmm_decoding_bytes, aligned to 8 bytes */
    size_t bytes;
    void (*chosen)(void *context, const ttmm_mixture *x); /* of ttmm_answer, or NULL: called when experts are chosen */
    void (*begin)(void *context);                         /* or NULL: called when the prompt's turn comes */
    int (*token)(void *context, int token);               /* called with each token; not 0: that was enough */
    void *context;
} ttmm_decoding;

/* Decode from a prompt, with the weights of m and the adapters of mix (or NULL) beside them or (how: TTMM_ENSEMBLE)
 * each alone.
 *   n: overwritten with how many tokens were decoded, the last perhaps an end token;   prompt [T], T < the context
 * TTMM_BAD_INPUT: the prompt is empty or too long, or (d->tokens > 0) has a token outside the vocabulary. */
int ttmm_decode(size_t *n, const ttmm_model *m, const ttmm_mix *mix, int how, const int *prompt, size_t T,
                const ttmm_decoding *d, ttmm_error *err);

/* The memory that this takes.    rank: the largest of the adapters beside the weights; members: of an ensemble, or 1 */
size_t ttmm_decoding_bytes(const ttmm_config *c, size_t T, size_t rank, size_t members, const ttmm_decoding *d);

/* A base model with its experts: what answers prompts. The caller sets the first part, which stays its own, and calls
 * ttmm_mixture_new (section 12) for the rest. */
struct ttmm_mixture {
    const ttmm_model *base;
    ttmm_model *merged;              /* experts are merged into it: a copy of base, or (one prompt only) base itself */
    const ttmm_tokenizer *tokenizer; /* of the prompts */
    size_t K, E;
    const ttmm_real *centroid;   /* [K, E] unit rows */
    const ttmm_real *idf;        /* [E] of the built-in embedding; NULL: queries are given, or */
    const ttmm_encoder *encoder; /* this one embeds them; NULL: none */
    size_t prefix;               /* tokens of a prompt that are embedded */
    ttmm_router router;
    const ttmm_lora *(*load)(void *context, size_t k,
                             ttmm_error *err); /* expert k, the caller's; NULL: failed, see err */
    void *context;                             /* of load */
    /* Of the last prompt: */
    ttmm_real *query, *similarity, *weight; /* [E], [K], [K] */
    int *expert;                            /* [K] the numbers of those chosen ... */
    ttmm_mix mix;                           /* ... and they with their weights */
    const ttmm_model *answering;            /* the weights that answer, */
    ttmm_mix beside;                        /* and what takes part beside them */
    /* Room: */
    const ttmm_lora **lora;
    ttmm_real *scratch;
    size_t scratch_size;
    void *block;
};

/* Answering a prompt, step by step: the query, of the prefix or as `given` [E] (x->query); query, route and experts
 * (x->mix); merging if how is TTMM_DENSE (x->answering, x->beside). And all of it, with decoding. TTMM_BAD_INPUT: the
 * query has no direction; TTMM_BAD_USE: none is given, and x->encoder and x->idf are NULL. */
int ttmm_query(ttmm_mixture *x, const int *token, size_t T, const ttmm_real *given, ttmm_error *err);
int ttmm_choose(ttmm_mixture *x, const int *token, size_t T, const ttmm_real *given, ttmm_error *err);
int ttmm_combine(ttmm_mixture *x, int how, ttmm_error *err);
int ttmm_answer(size_t *n, ttmm_mixture *x, int how, const int *prompt, size_t T, const ttmm_real *given,
                const ttmm_decoding *d, ttmm_error *err);

/* Sum of -log p(token[t] | those before) over t = from .. T - 1; 1 <= from. NaN if p has no room for it, or a token is
 * outside the vocabulary. */
double ttmm_score(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, const int *token, size_t T, size_t from);

/* The same for the ensemble of the adapters of mix, NaN if there are none.        probability [T] scratch */
double ttmm_score_ensemble(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, const int *token, size_t T,
                           size_t from, double *probability);

/* ---- 9a. A sentence encoder -------------------------------------------------------------------------------------- */

/* The embeddings of n texts: unit vectors. A text is cut to as many tokens as the encoder takes, the special tokens
 * around it among them, as sentence-transformers cuts it; an empty one has an embedding, too. Bytes that are not UTF-8
 * count as U+FFFD each. No text's bits depend on the others. It allocates the room for about 1,000 tokens, and frees
 * it; threads may share an encoder.
 *   out [n, E] overwritten, E = ttmm_encoder_dim    text [n], bytes [n] their lengths
 * TTMM_BAD_INPUT: an embedding is zero or not finite, as the encoder's weights are. */
int ttmm_encode(ttmm_real *out, const ttmm_encoder *e, const char *const *text, const size_t *bytes, size_t n,
                ttmm_error *err);
size_t ttmm_encoder_dim(const ttmm_encoder *e);

/* The same of the texts that the tokens start[i] .. start[i + 1] - 1 stand for, special ones left out; and of n
 * sequences of a corpus from `first` on, whose c->encoder becomes the encoder's fingerprint. first = 0 comes
 * first: it makes room for all, zero until it is filled. TTMM_BAD_USE: the tokenizer is ttmm_tokenizer_of_ids(). */
int ttmm_encode_tokens(ttmm_real *out, const ttmm_encoder *e, const ttmm_tokenizer *tokenizer, const int *token,
                       const size_t *start, size_t n, ttmm_error *err);
int ttmm_corpus_encode(ttmm_corpus *c, const ttmm_encoder *e, const ttmm_tokenizer *tokenizer, size_t first, size_t n,
                       ttmm_error *err);

/* ==== PART II: EXACT AND FAST ===================================================================================== */

/* ---- 10. exp, log, erf, sin, cos --------------------------------------------------------------------------------- */

/* Within 0.9 units in the last place of the true value (ulp; 0.5 is the least there is; erf 1.02), the same bits
 * everywhere. sin and cos are for |x| <= 2^22 and give NaN beyond. Of a float, and rounded to float, they are the float
 * nearest to the true value, but for log at five of all floats and sin at two. exp overflows to infinity and underflows
 * to 0, by way of subnormal numbers; log(0) = -infinity, log(x < 0) = NaN. */
double ttmm_exp(double x);
double ttmm_log(double x);
double ttmm_erf(double x);
double ttmm_sin(double x);
double ttmm_cos(double x);

/* ---- 11. Kernels ------------------------------------------------------------------------------------------------- */

#ifndef TTMM_NO_FILES
/* Measured in about a second: multiplications and additions a second, in vectors of its width, without memory (one
 * rounding each; FAST=1: fused; PLAIN=1: one number at a time), and bytes read from memory a second. With all
 * threads. */
double ttmm_peak_flops(void);
double ttmm_peak_bandwidth(void);
#endif

/* ---- 12. Memory of models, passes and trainers; tracing ---------------------------------------------------------- */

/* Stack: 64 KiB are enough for every call here, on each thread (test/hosts/stack.c: gcc 12 on x86-64 takes 43 KiB
 * with SSE2, 53 with AVX-512, 55 in double with it, 25 with PLAIN=1, 8 to decode; reading and comparing files 48). A
 * firmware with PLAIN takes 1.3 KiB to decode, 2 for TTT; with the kernels 2.2 to decode (make firmware). */

/* Every object can be placed: *_place is *_new in memory of the caller's, [bytes], of which *_bytes says how much is
 * needed. It is aligned to 8 bytes (to 64 it is faster), zeroed here, and stays while the object is in use; *_free is
 * not needed then. TTMM_NO_ROOM: it is too little, TTMM_BAD_USE: not aligned. With memory NULL it is *_new. */

typedef struct {
    int kind, layer;   /* layer is 0 for the three kinds outside layers */
    size_t rows, cols; /* a gain or bias has cols = 1 */
    size_t offset;     /* of its first number in the model's data */
    char name[80];     /* Hugging Face's: model.layers.0.self_attn.q_proj.weight ... */
} ttmm_tensor;

/* A named array: of a trace, or to be written to a file. */
typedef struct {
    char name[160];
    size_t rows, cols;     /* cols 0: a vector */
    const ttmm_real *data; /* or, if integer is not NULL, */
    const int *integer;    /* that */
} ttmm_array;

int ttmm_config_check(const ttmm_config *c, ttmm_error *err); /* TTMM_BAD_INPUT names the field */
size_t ttmm_n_weights(const ttmm_config *c);                  /* numbers in a model; SIZE_MAX if too many */
size_t ttmm_n_tensors(const ttmm_config *c);
ttmm_tensor ttmm_tensor_at(const ttmm_config *c, size_t i);     /* i < ttmm_n_tensors(c) */
ttmm_array ttmm_model_tensor_at(const ttmm_model *m, size_t i); /* the same with its numbers, a gain or bias a vector */
size_t ttmm_model_bytes(const ttmm_config *c);
int ttmm_model_new(ttmm_model *m, const ttmm_config *c, ttmm_error *err); /* all zero */
int ttmm_model_place(ttmm_model *m, const ttmm_config *c, void *memory, size_t bytes, ttmm_error *err);
int ttmm_model_copy(ttmm_model *m, const ttmm_model *from, ttmm_error *err);
void ttmm_model_free(ttmm_model *m);

size_t ttmm_lora_bytes(const ttmm_config *c, int rank);
/* Over numbers that somebody else owns, in flash or wherever: nothing is copied, written or freed. A view serves
 * wherever a model or an adapter is only read, with the same bits as what it is a view of; it cannot be trained, nor
 * written to a file.
 *   tensor [ttmm_n_tensors(c)], of the shapes of ttmm_tensor_at: borrowed
 *   matrix [L * TTMM_MATRICES], rank (0: none), scale and view set: borrowed; in, out, a and b are set here
 * Numbers must be finite. TTMM_BAD_USE: none, not of one of the four types, or not aligned to it. */
int ttmm_model_view(ttmm_model *m, const ttmm_config *c, const ttmm_numbers *tensor, ttmm_error *err);
int ttmm_lora_view(ttmm_lora *l, const ttmm_config *c, ttmm_lora_matrix *matrix, double alpha, ttmm_error *err);
int ttmm_lora_new(ttmm_lora *l, const ttmm_config *c, int rank, double alpha,
                  ttmm_error *err); /* all seven matrices; all zero. TTMM_BAD_INPUT: rank is not in 1 .. 4096 */
int ttmm_lora_place(ttmm_lora *l, const ttmm_config *c, int rank, double alpha, void *memory, size_t bytes,
                    ttmm_error *err);
void ttmm_lora_free(ttmm_lora *l);

/* A model with its experts, centroids and idf as one array, which ttmm_image_write makes, seen in place. The array is
 * aligned to 4 bytes, and stays while x is in use. memory [room]: of ttmm_image_bytes(data, bytes) (0: it is none), or
 * NULL: it is allocated. TTMM_BAD_INPUT: it is no image, cut short, of the other byte order, damaged. */
typedef struct {
    ttmm_model model;
    size_t K, E;
    ttmm_lora *lora;                 /* [K] */
    const ttmm_real *centroid, *idf; /* [K, E]; [E] or NULL */
    void *block;
} ttmm_image;

size_t ttmm_image_bytes(const void *data, size_t bytes);
int ttmm_image_view(ttmm_image *x, const void *data, size_t bytes, void *memory, size_t room, ttmm_error *err);
void ttmm_image_free(ttmm_image *x);

/* TTMM_BAD_USE: sizes that do not fit together, as a cache and backward, or no logits. */
size_t ttmm_pass_bytes(const ttmm_config *c, const ttmm_pass_size *size); /* of a good config; SIZE_MAX if too many */
int ttmm_pass_new(ttmm_pass **p, const ttmm_config *c, const ttmm_pass_size *size, ttmm_error *err);
int ttmm_pass_place(ttmm_pass **p, const ttmm_config *c, const ttmm_pass_size *size, void *memory, size_t bytes,
                    ttmm_error *err);
void ttmm_pass_free(ttmm_pass *p);

size_t ttmm_longest_sequence(const ttmm_corpus *c); /* in tokens */

/* Of memory that somebody else owns, what training and TTT read of a corpus; nothing of documents and files. To be
 * read only.    sequence [n + 1] ascending from 0     embedding [n, dim], idf [dim]: may be NULL */
int ttmm_corpus_view(ttmm_corpus *c, const int *token, const size_t *sequence, size_t n, const ttmm_real *embedding,
                     size_t dim, const ttmm_real *idf, ttmm_error *err);

/* A trainer of all weights of m (lora NULL), or of lora with m frozen. It holds gradients, moments and working memory
 * for any run over the sequences of corpus, and borrows m, lora and corpus. TTMM_BAD_USE: a batch or a corpus of
 * nothing, a token outside the vocabulary, an adapter of a model of another depth. */
size_t ttmm_trainer_bytes(const ttmm_config *c, const ttmm_lora *lora, const ttmm_corpus *corpus, const ttmm_recipe *r);
int ttmm_trainer_new(ttmm_trainer **t, ttmm_model *m, ttmm_lora *lora, const ttmm_corpus *corpus, const ttmm_recipe *r,
                     ttmm_error *err);
int ttmm_trainer_place(ttmm_trainer **t, ttmm_model *m, ttmm_lora *lora, const ttmm_corpus *corpus,
                       const ttmm_recipe *r, void *memory, size_t bytes, ttmm_error *err);
void ttmm_trainer_free(ttmm_trainer *t);

/* The second part of a mixture, of which the caller has set the first. `merged` may be empty, all zero: then it becomes
 * a model of its own when experts are merged for the first time, and is the caller's to free. */
int ttmm_mixture_new(ttmm_mixture *x, ttmm_error *err);
size_t ttmm_mixture_bytes(size_t K, size_t E); /* without `merged` and its scratch, which merging allocates */
int ttmm_mixture_place(ttmm_mixture *x, void *memory, size_t bytes, ttmm_error *err);
void ttmm_mixture_free(ttmm_mixture *x);
int ttmm_mixture_merge(ttmm_mixture *x, const ttmm_mix *mix, ttmm_error *err); /* any mix, into x->merged */

/* What the last forward pass of p (with size.trace) computed, in its order: embed; of each layer i attn_norm, q, k, v,
 * attn, attn_out, mlp_norm, gate, up, mlp_out, out, named layers.i.attn_norm ...; final_norm. All [N, width]; q and k
 * are after the rotation, attn is what the output projection sees, out the residual stream after the layer. The data
 * are the pass's, valid until the next call on p.      i < ttmm_n_traced */
size_t ttmm_n_traced(const ttmm_config *c);
ttmm_array ttmm_traced(const ttmm_pass *p, size_t i);

#ifndef TTMM_NO_FILES
/* Every named value of one sequence: tokens [T], what ttmm_traced lists, logits [T, V], loss [1] (the mean of nll over
 * the T - 1 predictions). cached: computed token by token through the key/value cache. gradients: those of the loss
 * too, as grad. + the tensor's name in its file: with respect to the adapters of mix if it has any, else to all
 * weights. With expert [mix->n] (not NULL) they are grad.experts.K. + name, K the adapter's number there. mix may be
 * NULL, T larger than the context. The arrays are the trace's own, in the order of computation; gradients in that of
 * the weights. T < 2 or a token outside the vocabulary is TTMM_BAD_INPUT, cached and gradients at once TTMM_BAD_USE:
 * then *t is empty. */
typedef struct {
    size_t n;
    ttmm_array *array; /* [n] */
    ttmm_model dm;     /* what the arrays of gradients point into */
    ttmm_lora *dl;
    size_t n_dl;
    void *block;
} ttmm_trace;

int ttmm_trace_new(ttmm_trace *t, const ttmm_model *m, const ttmm_mix *mix, const int *expert, const int *token,
                   size_t T, int cached, int gradients, ttmm_error *err);
void ttmm_trace_free(ttmm_trace *t);

/* The same of an encoder and one text of T tokens: tokens [T]; embed [T, D], after the first norm; of each layer q, k,
 * v, attn, attn_out, attn_norm [T, D], up, gelu [T, F], mlp_out, out [T, D]; mean [D]; embedding [D]. */
int ttmm_encoder_trace(ttmm_trace *t, const ttmm_encoder *e, const char *text, size_t bytes, ttmm_error *err);
#endif

void ttmm_set_threads(int n);   /* n >= 1, of the thread that calls; without OpenMP there is one whatever n */
int ttmm_threads(void);         /* the number in use */
void ttmm_limit_threads(int n); /* n, or as many as there are if 0; no more than processors */

/* Independent works: work(context, i, job, err) for i = 0 .. n - 1, begun in this order, `jobs` of them at once (at
 * least 1; without OpenMP one after the other). job, 0 .. jobs - 1, is another one for each of those at once: it says
 * which memory is its own. Each has ttmm_threads() inside. Once a work returns another code than 0, no more are begun.
 * Returns the first negative code (a failure), else the first positive one (a stop), with its error, else TTMM_OK. */
int ttmm_parallel(size_t n, int jobs, int (*work)(void *context, size_t i, int job, ttmm_error *err), void *context,
                  ttmm_error *err);

/* ==== PART III: THE OUTSIDE WORLD ================================================================================= */

#ifndef TTMM_NO_FILES
/* ---- 13. Platform and files -------------------------------------------------------------------------------------- */

double ttmm_seconds(void);     /* a monotonic clock, in seconds */
int ttmm_is_terminal(FILE *f); /* 1 if f is a terminal */
size_t ttmm_memory(void);      /* of this machine, in bytes; 0: not known */

/* Paths and text are UTF-8, also on Windows, whose C library takes and gives the system's code page: there these open
 * a file by its UTF-8 path, and read a terminal's lines as UTF-8; elsewhere they are fopen and fread. A terminal may
 * give less than n bytes, and 0 at its end. ttmm_read: n >= TTMM_LEAST_READ */
enum { TTMM_LEAST_READ = 4096 };
FILE *ttmm_open(const char *path, const char *mode);
size_t ttmm_read(char *out, size_t n, FILE *f);

/* What main calls first: argv as UTF-8, with *argc words; standard input and output take bytes as they are. NULL: no
 * memory. On Windows the words are allocated, to the program's end; elsewhere that is argv. */
char **ttmm_arguments(int *argc, char **argv);

/* Everything below that writes a file makes its folder if it is not there (but for paths, which name a file in one that
 * is), and writes atomically: a crash leaves the old file or the new one; what is not a regular file is not replaced by
 * one. TTMM_NO_ROOM: it could not be written. */
int ttmm_make_folder(const char *path, ttmm_error *err); /* and those above it */
int ttmm_exists(const char *folder, const char *name);   /* 1 if it may be read: a file, on POSIX a folder, too */
int ttmm_remove(const char *folder, const char *name);   /* 1 if it was there, and is gone; an empty folder, too */
int ttmm_copy(const char *to_folder, const char *folder, const char *name, ttmm_error *err); /* to_folder is there */

/* Locks between processes, by number (below 2^31) in a file that is open to read and to write: those of a process end
 * with it, however it ends, or with the file. TTMM_ALONE: no other process has the lock. Returns 1 if it is had (or let
 * go), 0, after a twentieth of a second, if another process has it; 1, too, where there are no locks. On POSIX all of
 * them go if this process opens the file once more and closes it. */
enum { TTMM_UNLOCKED, TTMM_SHARED, TTMM_ALONE };
int ttmm_lock(FILE *f, unsigned number, int how);

#endif /* TTMM_NO_FILES */

/* ---- 14. Text, documents, corpus --------------------------------------------------------------------------------- */

enum { TTMM_END = 256, TTMM_BYTES = 257 }; /* the token <|endoftext|>; the size of the byte vocabulary */

/* A tokenizer says what text a token stands for, and the way back: byte-level BPE. Everywhere a tokenizer of NULL
 * stands for the byte vocabulary: token b is the byte b, TTMM_END is <|endoftext|>. ttmm_tokenizer_read (section 17)
 * makes one. */

/* What stands for a tokenizer that is not known: its tokens are numbers, without text. Not to be freed. */
const ttmm_tokenizer *ttmm_tokenizer_of_ids(void);

/* The bytes of a token's text: returns where they are, *n: how many. *n = 0: a special token, or none of the
 * vocabulary. They are the tokenizer's; of NULL they stay. */
const unsigned char *ttmm_token_bytes(const ttmm_tokenizer *tokenizer, int token, size_t *n);

/* Bytes to UTF-8 as they come: out [8] is overwritten with the characters that are complete now; what cannot be part
 * of one gives U+FFFD, one for each longest beginning of a character (Unicode 16, section 3.9). Returns the number of
 * bytes in out. byte < 0: the end. *waiting is {0} at first. */
typedef struct {
    unsigned char byte[4];
    int n;
} ttmm_utf8;

size_t ttmm_put_utf8(char *out, ttmm_utf8 *waiting, int byte);

/* Text to tokens, as Hugging Face's tokenizers do it: special tokens spelled out in the text are found, and those that
 * the tokenizer's template puts around a text are added (Llama 3: <|begin_of_text|>). Bytes that are not UTF-8 are kept
 * as they are, if the vocabulary has tokens for them. TTMM_BAD_INPUT: the text holds a token past the model's
 * vocabulary, or one that other libraries would read otherwise. *token [*n] is allocated, also for an empty text.
 * free(*token) */
int ttmm_tokenize(int **token, size_t *n, const ttmm_tokenizer *tokenizer, const char *text, size_t bytes,
                  ttmm_error *err);

/* Texts, cut and embedded. A document's tokens are those of its text and, if they do not end in it, the end token (of
 * a tokenizer: the first of config.json's or generation_config.json's, none if they name none); a document longer than
 * the context is cut into ceil(tokens / context) sequences of equal length (to one token), so what a tokenizer puts
 * before a text (Llama 3: <|begin_of_text|>) begins the first of them alone. Sequence i is token[sequence[i]] ..
 * token[sequence[i+1]-1]. */
struct ttmm_corpus {
    size_t n_tokens, n_documents, n_sequences, n_files;
    int *token;             /* [n_tokens] */
    size_t *document;       /* [n_documents + 1] first token of each */
    int *document_file;     /* [n_documents] which file it came from */
    size_t *sequence;       /* [n_sequences + 1] */
    int *sequence_document; /* [n_sequences] */
    char **file;            /* [n_files] their names, without folder and extension */
    size_t dim;             /* E; 0: not embedded yet */
    ttmm_real *embedding;   /* [n_sequences, E] unit rows, or NULL: see ttmm_corpus_open */
    ttmm_real *idf;         /* [E] of the built-in embedding; NULL with outside embeddings */
    int by_ids;             /* 1: the built-in embedding is that of ids */
    char encoder[17];       /* the fingerprint of the encoder that embedded the text; "": none did */
    int clustered;          /* 1: cluster is filled in */
    int *cluster;           /* [n_sequences] */
    char *names;
    void *block, *embedding_block, *files;
};

/* The ids of one text; line ends are blanks. name: of the text, for sentences. *token [*n] is allocated, to be
 * freed by free. */
int ttmm_read_ids(int **token, size_t *n, const char *text, size_t bytes, int vocab, const char *name, ttmm_error *err);
size_t ttmm_byte_order_mark(const char *text, size_t bytes); /* the bytes of the one that a text begins with, or 0 */

/* Read files of documents separated by lines <|endoftext|>. TTMM_BAD_INPUT: no files, a context below 2; a file that is
 * missing, empty or holds a zero byte, an empty document. A separator line may end in CRLF; the newline before it
 * belongs to the document. A byte-order mark at a file's beginning does not count. */
int ttmm_corpus_from_files(ttmm_corpus *c, const ttmm_tokenizer *tokenizer, const char *const *path, size_t n,
                           int context, ttmm_error *err);
/* Files of token ids between blanks, one document a line, as run tokenize writes them; no end token is added.
 * TTMM_BAD_INPUT: an empty line, or what is not an id below vocab. */
int ttmm_corpus_from_ids(ttmm_corpus *c, int vocab, const char *const *path, size_t n, int context, ttmm_error *err);
void ttmm_corpus_free(ttmm_corpus *c);

/* Outside embeddings: rows [n_sequences, dim], not c's own, any dim; copied and normalised. TTMM_BAD_INPUT: a row zero
 * or not finite; then c has none. */
int ttmm_corpus_set_embeddings(ttmm_corpus *c, const ttmm_real *rows, size_t dim, ttmm_error *err);

#ifndef TTMM_NO_FILES
/* ---- 15. JSON, numbers in files, safetensors --------------------------------------------------------------------- */

/* Reading checks every size against the file before it is used, and refuses numbers that are not finite. It makes the
 * object; *_free it. If it fails, there is nothing to free. `note` is any text, kept in the file's metadata: train
 * writes there the settings it used. */

/* The note of any file written here, or "".    note [size] overwritten, cut to size - 1 bytes */
int ttmm_note(char *note, size_t size, const char *path, ttmm_error *err);

/* Names must differ; numbers need not be finite. */
int ttmm_arrays_write(const ttmm_array *array, size_t n, const char *path, const char *note, ttmm_error *err);

/* One array of reals in a safetensors file: the tensor of that name, or the only one there is. *array, *rows and *cols
 * are overwritten; a vector has one row. free(*array). */
int ttmm_array_read(ttmm_real **array, size_t *rows, size_t *cols, const char *path, const char *name, ttmm_error *err);

/* The readers called *_of take files that are in memory, which somebody else owns, aligned to 8 bytes. What they make
 * uses the numbers of a model, an adapter or embeddings where they lie, so the memory stays; where they cannot be used
 * (another byte order, misaligned), they are copied. */
typedef struct {
    const char *name; /* for sentences */
    const void *data;
    size_t bytes;
} ttmm_file;

int ttmm_array_of(ttmm_real **array, size_t *rows, size_t *cols, const ttmm_file *file, const char *name,
                  ttmm_error *err); /* a copy */

/* Fingerprints, by which train knows whether what it finds belongs together: of n numbers; of a model, its weights and
 * all of its configuration that it computes with; of an adapter's matrices and scales; of the sequences
 * sequence[0 .. n-1] of a corpus (NULL: all); of the text of the tokens 0 .. vocab - 1. */
uint64_t ttmm_hash(const ttmm_real *x, size_t n);
uint64_t ttmm_model_hash(const ttmm_model *m);
uint64_t ttmm_lora_hash(const ttmm_lora *l);
uint64_t ttmm_corpus_hash(const ttmm_corpus *c, const size_t *sequence, size_t n);
uint64_t ttmm_tokenizer_hash(const ttmm_tokenizer *tokenizer, int vocab);

/* ---- 16. config.json, checkpoints, adapters, the corpus's file --------------------------------------------------- */

/* config.json; where a text ends by generation_config.json, if that says so. A head that is stored beside the embedding
 * makes it untied, whatever config.json says. */
int ttmm_config_read(ttmm_config *c, const char *folder, ttmm_error *err);
int ttmm_config_of(ttmm_config *c, const ttmm_file *file, ttmm_error *err); /* by that alone */

/* What generation_config.json (without one, config.json) asks for and nothing here does, as a note for people: settings
 * that transformers' generate would follow, where sampling here goes by ttmm_sampler; end tokens past the vocabulary.
 * "" if nothing.    note [size] overwritten, cut to size - 1 bytes;   c: as read */
int ttmm_config_note(char *note, size_t size, const ttmm_config *c, const char *folder, ttmm_error *err);

/* config.json, model.safetensors and, with the byte vocabulary, the tokenizer's two files. The weights are rounded to
 * that type, to nearest and ties to even. TTMM_BAD_INPUT: one is not finite, or too large for it. */
int ttmm_model_write(const ttmm_model *m, const char *folder, int type, const char *note, ttmm_error *err);
/* model.safetensors, or the files that model.safetensors.index.json names. If config.json says that the head is tied: a
 * stored one of other numbers is not (it is in transformers, too, a model of its own), an equal one is. */
int ttmm_model_read(ttmm_model *m, const char *folder, ttmm_error *err);
/* The same as a view of the files, which are mapped where that is possible (and read where it is not): no copy, shared
 * with other processes, weights as they are stored. The files must stay as they are while they are in use: what a
 * system does with a mapped file that becomes shorter is its own (POSIX: SIGBUS). */
int ttmm_model_open(ttmm_model *m, const char *folder, ttmm_error *err);
int ttmm_model_of(ttmm_model *m, const ttmm_config *c, const ttmm_file *file, ttmm_error *err); /* safetensors */
int ttmm_stored_bytes(size_t *bytes, const ttmm_config *c, const char *folder,
                      ttmm_error *err); /* of its files' weights */

/* Tensor i < ttmm_lora_tensors(l) of an adapter, by PEFT's name: A and B of each matrix in turn. */
size_t ttmm_lora_tensors(const ttmm_lora *l);
ttmm_array ttmm_lora_tensor_at(const ttmm_lora *l, size_t i);

/* adapter_config.json and adapter_model.safetensors. TTMM_BAD_USE: the matrices have different ranks, or
 * scales that are not alpha / rank. */
int ttmm_lora_write(const ttmm_lora *l, const char *folder, const char *note, ttmm_error *err);
/* Any subset of the seven matrices, of any ranks; lora_alpha, alpha_pattern and use_rslora give the scales. Tensors of
 * modules that target_modules, exclude_modules and layers_to_transform leave out are passed over, as in PEFT. What else
 * would alter the result (DoRA, biases, saved modules, initialisations that alter the base ...) is refused by name. */
int ttmm_lora_read(ttmm_lora *l, const ttmm_config *c, const char *folder, ttmm_error *err);
int ttmm_lora_open(ttmm_lora *l, const ttmm_config *c, const char *folder, ttmm_error *err); /* as ttmm_model_open */
int ttmm_lora_of(ttmm_lora *l, const ttmm_config *c, const ttmm_file *config, const ttmm_file *file, ttmm_error *err);

/* x's base, the experts lora [x->K], centroids and idf (or NULL) as an image: as C if the path ends in .h, a header
 * with the array ttmm_flash; else its bytes, little-endian. The weights are stored as type, TTMM_F32 or TTMM_BF16.
 *   *bytes: how many the image has     *rounded: 1 if a number is not stored as it was */
int ttmm_image_write(const ttmm_mixture *x, const ttmm_lora *const *lora, int type, const char *path, size_t *bytes,
                     int *rounded, ttmm_error *err);

/* corpus.safetensors. TTMM_BAD_INPUT: offsets or numbers do not fit each other, or a token is not below vocab. */
int ttmm_corpus_write(const ttmm_corpus *c, const char *folder, const char *note, ttmm_error *err);
int ttmm_corpus_read(ttmm_corpus *c, const char *folder, int vocab, ttmm_error *err);
/* The same with the embeddings, if they are wanted, in place as by ttmm_model_open: to be read only; else without. */
int ttmm_corpus_open(ttmm_corpus *c, const char *folder, int vocab, int embeddings, ttmm_error *err);
int ttmm_corpus_of(ttmm_corpus *c, const ttmm_file *file, int vocab, ttmm_error *err);

/* A checkpoint holds weights, moments and the step: a run resumed from it ends with the same bits. `settings` is any
 * text; load, called after ttmm_trainer_start, answers 1 if a checkpoint was there and was taken, 0 if there is none,
 * and refuses one with other settings. If it fails, t is as ttmm_trainer_start left it. */
int ttmm_trainer_save(const ttmm_trainer *t, const char *path, const char *settings, ttmm_error *err);
int ttmm_trainer_load(ttmm_trainer *t, const char *path, const char *settings, ttmm_error *err);

/* ---- 17. Tokenizers and Unicode ---------------------------------------------------------------------------------- */

void ttmm_tokenizer_free(ttmm_tokenizer *tokenizer); /* NULL is fine */

/* tokenizer.json: byte-level BPE in the forms of GPT-2, Llama 3, Qwen2.5 and SmolLM2; others are refused by name. NULL,
 * which is the byte vocabulary, if there is no such file and the folder's model, if there is one, has that
 * vocabulary. */
int ttmm_tokenizer_read(ttmm_tokenizer **tokenizer, const char *folder, ttmm_error *err);
int ttmm_tokenizer_of(ttmm_tokenizer **tokenizer, const ttmm_config *c, const ttmm_file *file,
                      ttmm_error *err); /* by that file alone */

/* A folder of sentence-transformers, whose modules are Transformer, mean Pooling, Normalize; config.json of model_type
 * bert or mpnet; model.safetensors, which is mapped as ttmm_model_open does; tokenizer.json of WordPiece with
 * BertNormalizer and BertPreTokenizer. Whatever else would alter an embedding is refused by name. */
int ttmm_encoder_read(ttmm_encoder **encoder, const char *folder, ttmm_error *err);
void ttmm_encoder_free(ttmm_encoder *e); /* NULL is fine */
/* 16 hexadecimal digits that differ if weights, settings or vocabulary do. */
const char *ttmm_encoder_fingerprint(const ttmm_encoder *e);
/* Its memory, with that of encoding texts of so many tokens in all. */
size_t ttmm_encoder_bytes(const ttmm_encoder *e, size_t tokens);

/* ---- 18. Comparing, the command line ----------------------------------------------------------------------------- */

/* Two safetensors files, tensor by tensor; A is the reference. From TTMM_PAST on it is a failure. */
enum {
    TTMM_SAME,
    TTMM_WITHIN,
    TTMM_NEAR_TIE, /* ttmm_check: choices that could as well be made the other way */
    TTMM_PAST,
    TTMM_NOT_FINITE,
    TTMM_SHAPE,
    TTMM_TYPE, /* reals, whole numbers and BOOL do not take each other's place */
    TTMM_MISSING,
    TTMM_EXTRA,
    TTMM_UNKNOWN
};
typedef struct {
    const char *name;  /* valid during the call of report, as all of this */
    int verdict;       /* of those above */
    char shape[2][80]; /* "F32 [3, 4]", in A and in B; "" where it is not */
    size_t cols;       /* the length of the last axis; 0: no more than one axis */
    double max_abs;    /* the largest |a - b| */
    double max_rel;    /* the largest |a - b| divided by the tensor's (by rows: its row's) largest |a| */
    double ulps;       /* the largest |a - b| in units in the last place of the coarser of the two types, at the larger
                          * magnitude */
    size_t worst;      /* where max_rel is, counted through the tensor */
    double a, b;       /* the numbers there */
    int integers;     /* 1: whole numbers; of them ttmm_check shows the first that is wrong, without max_abs ... ulps */
    double tolerance; /* ttmm_check: the tensor's */
    size_t ties;      /* TTMM_NEAR_TIE: how many numbers */
} ttmm_difference;

/* Calls report for each tensor of A, in the file's order, then for those only in B. Types are F64, F32, F16, BF16,
 * whole numbers of 8 to 64 bits, with a sign or without, and BOOL; those of A and B may differ as far as TTMM_TYPE
 * says. TTMM_UNKNOWN: of another type (F8 ...), more than 8 dimensions, or on 32 bits of 2^32 numbers. A tensor is
 * within the tolerance if max_abs <= atol + rtol * its largest |a|, or, by_row, if that is so of each row by itself
 * (along the last axis; a vector is one): a large row hides nothing in a small one. Two of integers must be equal; -0
 * equals 0. Where a number is not finite the first of them is reported (worst, a, b), max_abs and max_rel are infinite,
 * ulps are of those before. *failures: how many tensors are not the same or within; 1 if there are none at all.
 * TTMM_BAD_INPUT if a file cannot be read. */
int ttmm_compare(const char *path_a, const char *path_b, double atol, double rtol, int by_row,
                 void (*report)(void *context, const ttmm_difference *d), void *context, size_t *failures,
                 ttmm_error *err);

/* Judge the files of the folder `yours` by those of the same names in the folder `vectors` (A), as its manifest.json
 * says (test/README.md): reals by row or by tensor, |a - b| <= tolerance * the largest |a| there, where the tolerance
 * is that for the precision, f64, f32, bf16 or f16; whole numbers must be equal, but for near-ties. Calls report
 * for each tensor of a file, in the manifest's order (TTMM_MISSING: yours does not have it, or not even the file; that
 * is not reported of what is given), then for those that only yours has (TTMM_EXTRA), then with d = NULL at the file's
 * end. *failures: how many tensors are wrong, not counting those two. TTMM_BAD_USE: another precision. TTMM_BAD_INPUT:
 * a file of yours cannot be read, the manifest is damaged or does not fit its files, yours has none of the tensors. */
int ttmm_check(const char *vectors, const char *yours, const char *precision,
               void (*report)(void *context, const char *file, const ttmm_difference *d), void *context,
               size_t *failures, ttmm_error *err);

/* A program's verbs and options, in two tables: its command line is parsed, checked and described from them. */
typedef struct {
    const char *name, *arguments, *help; /* "eval", "MODEL FILE...", ... */
    size_t least, most;                  /* arguments */
} ttmm_verb;

typedef struct {
    const char *name;   /* without the dashes */
    char type;          /* 'i' int, 'l' long, 'n' size_t, 'f' double, 's' text, 'w' word, 'o' a path written to, 'b' a
                           flag without argument */
    void *value;        /* int, long, size_t, double, const char * or int */
    double least, most; /* of numbers */
    const char *verbs;  /* the verbs it belongs to, between blanks: " base all " */
    const char *help;
} ttmm_option;

typedef struct {
    const char *name; /* of the program */
    const ttmm_verb *verb;
    size_t n_verbs;
    const ttmm_option *option;
    size_t n_options;
} ttmm_program;

/* Take a command line apart: verb, then options (which set their values) and arguments in any order; -- ends the
 * options. A number is read whole or refused, an option's empty value or an empty first argument is refused, and a path
 * that is to be written if an argument that is a file, or an option's text ('s', 'o'), is the same.
 *   *verb: its index; n_verbs if none was given    argument [argc] overwritten, in order; *n: their number
 * Returns 1 if help is asked for (-h, --help, or nothing at all). TTMM_BAD_USE: the sentence names the word. */
int ttmm_command(size_t *verb, const char **argument, size_t *n, const ttmm_program *p, int argc, char *const *argv,
                 ttmm_error *err);
void ttmm_usage(FILE *f, const ttmm_program *p, size_t verb); /* of one verb; n_verbs: the list of them */

#endif /* TTMM_NO_FILES */

#ifdef __cplusplus
}
#endif

/* What train and run share; they define TTMM_PROGRAM, their name. The first failure ends the program: with its
 * sentence, and with its code as the exit code. (The library itself never exits.) */
#ifdef TTMM_PROGRAM
#include <stdlib.h>

typedef ttmm_real real;
static ttmm_error err;
static int quiet; /* --quiet: no notes, no progress */

#ifdef TTMM_FAST /* what bits depend on besides settings, named among them */
#define ARITHMETIC (sizeof(real) == 8 ? " f64 fast" : " fast")
#else
#define ARITHMETIC (sizeof(real) == 8 ? " f64" : "")
#endif

static void clear_line(void) /* of progress */
{
    if (!quiet && ttmm_is_terminal(stderr)) fprintf(stderr, "\r\033[K");
}

static void check(int code)
{
    if (code >= TTMM_OK) return;
    clear_line();
    fprintf(stderr, TTMM_PROGRAM ": %s\n", err.text);
    exit(-code);
}
#define FAIL(...) check(ttmm_fail(&err, __VA_ARGS__)) /* code, format, ... */

/* Zeroed memory for n things of that size; what: the sentence says what it was for. */
static void *allocate(size_t n, size_t size, const char *what)
{
    void *p = calloc(n ? n : 1, size);
    if (p == NULL) FAIL(TTMM_NO_ROOM, "out of memory for %s", what);
    return p;
}

static char **arguments(int *argc, char **argv)
{
    argv = ttmm_arguments(argc, argv);
    if (argv == NULL) FAIL(TTMM_NO_ROOM, "out of memory for the arguments");
    return argv;
}

/* Jobs that run at once share the threads. Those of a small model (dim < 256) have one each: inside of jobs gcc's
 * OpenMP starts threads anew for every loop, which takes longer than such loops do. */
static void share_threads(size_t jobs, const ttmm_config *c)
{
    const size_t threads = (size_t)ttmm_threads();
    if (jobs > 1) ttmm_set_threads(c->dim >= 256 && jobs < threads ? (int)(threads / jobs) : 1);
}

static FILE *open_output(const char *path)
{
    FILE *f = ttmm_open(path, "wb");
    if (f == NULL) FAIL(TTMM_NO_ROOM, "%s: cannot be written", path);
    return f;
}

static void close_output(FILE *f, const char *path)
{
    const int bad = ferror(f);
    if (fclose(f) != 0 || bad) FAIL(TTMM_NO_ROOM, "%s: cannot be written", path);
}
#endif
#endif
