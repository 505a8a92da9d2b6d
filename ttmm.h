/* ttmm.h - test-time model merging in C99: the public face of ttmm.c.
 *
 * The method (Bertolissi, Huebotter, Hakimi, Krause 2025, arXiv 2505.14136, "the paper" below). Train time: embed every
 * training sequence, cluster the embeddings, train one LoRA expert per cluster. Test time: embed the prompt, weigh the
 * experts by similarity, add their low-rank updates into one set of weights, decode as a plain model. The baseline it
 * approaches at a hundredth of the cost is test-time training (TTT): fine-tune per prompt on its nearest sequences.
 *
 * This file reads in the order of ttmm.c:
 *    1 errors, platform            4 the transformer            7 text and corpus            10 test-time training
 *    2 functions, random numbers   5 optimiser, trainer         8 embeddings, clusters       11 files
 *    3 sums                        6 LoRA                       9 routing and merging        12 scoring, tracing
 *
 * Letters in shapes, here and in ttmm.c:
 *    B sequences of a batch        D dim, the model's width     V vocabulary size            K experts
 *    N tokens of a batch, its      H query heads                L layers                     E length of an embedding
 *      sequences end to end        G key/value heads            R rank of a LoRA             n sequences of a corpus
 *    T tokens of one sequence      S head_dim                   F intermediate, the MLP's width
 * A weight W [out, in] maps x to W x, as in PyTorch; arrays are row-major.
 *
 * Rules. Functions that can fail return TTMM_OK or a negative code and fill a ttmm_error. Nothing here prints (but
 * ttmm_usage, to the file it is given), exits, reads the environment or keeps state (but ttmm_set_threads). A *_new
 * or *_read function allocates what *_free releases; training and decoding steps allocate nothing. The same inputs
 * give the same bits on every IEEE-754 machine, compiler, optimisation level and number of threads (how: the head of
 * ttmm.c). */
#ifndef TTMM_H
#define TTMM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef TTMM_DOUBLE
typedef double real; /* the ground truth: train-f64, run-f64 */
#else
typedef float real;
#endif

/* ---- 1. Errors, platform ----------------------------------------------------------------------------------------- */

/* A code is the negative of the exit code of train and run. */
enum {
    TTMM_OK = 0,
    TTMM_DIFFERS = -1,   /* a comparison failed */
    TTMM_BAD_USE = -2,   /* wrong arguments */
    TTMM_BAD_INPUT = -3, /* a file or text that cannot be used */
    TTMM_NO_ROOM = -4    /* out of memory, or a file could not be written */
};

typedef struct {
    int code;
    char text[600]; /* one sentence: which file, tensor or key, what was found, what was expected */
} ttmm_error;

/* Fill err and return code, so that a caller can write: return ttmm_fail(err, TTMM_BAD_INPUT, "%s: ...", path); */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
int ttmm_fail(ttmm_error *err, int code, const char *format, ...);

double ttmm_seconds(void);      /* a monotonic clock, in seconds */
int ttmm_is_terminal(FILE *f);  /* 1 if f is a terminal */
void ttmm_set_threads(int n);   /* n >= 1; without OpenMP there is one thread whatever n */
int ttmm_threads(void);         /* the number in use */
void ttmm_limit_threads(int n); /* n, or as many as there are if 0; no more than processors */
size_t ttmm_memory(void);       /* of this machine, in bytes; 0: not known */

/* A program's verbs and options, in two tables: its command line is parsed, checked and described from them. */
typedef struct {
    const char *name, *arguments, *help; /* "eval", "MODEL FILE...", ... */
    size_t least, most;                  /* arguments */
} ttmm_verb;

typedef struct {
    const char *name;   /* without the dashes */
    char type;          /* 'i' int, 'l' long, 'n' size_t, 'f' double, 's' text, 'b' a flag without argument */
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
 * options. A number is read whole or refused, an option's empty value or an empty first argument is refused.
 *   *verb: its index; n_verbs if none was given    argument [argc] overwritten, in order; *n: their number
 * Returns 1 if help is asked for (-h, --help, or nothing at all). TTMM_BAD_USE: the sentence names the word. */
int ttmm_command(size_t *verb, const char **argument, size_t *n, const ttmm_program *p, int argc, char *const *argv,
                 ttmm_error *err);
void ttmm_usage(FILE *f, const ttmm_program *p, size_t verb); /* of one verb; n_verbs: the list of them */

/* ---- 2. Elementary functions, random numbers --------------------------------------------------------------------- */

/* Within 0.9 units in the last place of the true value (ulp; 0.5 is the least there is), the same bits everywhere. sin
 * and cos are for |x| <= 2^22 and give NaN beyond. Of a float, and rounded to float, they are the float nearest to the
 * true value, but for log at five of all floats and sin at two. exp overflows to infinity and underflows to 0, by way
 * of subnormal numbers; log(0) = -infinity, log(x < 0) = NaN. */
double ttmm_exp(double x);
double ttmm_log(double x);
double ttmm_sin(double x);
double ttmm_cos(double x);

/* SplitMix64 (Steele, Lea, Flood 2014). Every use of randomness has its own stream, named by seed, purpose and index,
 * so that no result depends on the order in which things are done. */
typedef struct {
    uint64_t state;
} ttmm_rng;

ttmm_rng ttmm_stream(uint64_t seed, const char *purpose, uint64_t index);
uint64_t ttmm_next(ttmm_rng *g);              /* 64 random bits */
double ttmm_uniform(ttmm_rng *g);             /* in [0, 1), a multiple of 2^-53 */
double ttmm_normal(ttmm_rng *g);              /* mean 0, variance 1 */
uint64_t ttmm_below(ttmm_rng *g, uint64_t n); /* in [0, n), unbiased; n > 0 */

/* ---- 3. Sums ----------------------------------------------------------------------------------------------------- */

/* What bounds this machine, measured in about a second: multiplications and additions a second, in vectors of its
 * width, without memory (one rounding each; FAST=1: fused), and bytes read from memory a second. With all threads in
 * use. */
double ttmm_peak_flops(void);
double ttmm_peak_bandwidth(void);

/* ---- 4. The transformer ------------------------------------------------------------------------------------------ */

/* How the frequencies of the rotary positions are scaled, in config.json "rope_type". */
enum { TTMM_ROPE_DEFAULT, TTMM_ROPE_LINEAR, TTMM_ROPE_LLAMA3 };
enum { TTMM_ENDS = 8 };

/* The Llama form: RMSNorm, rotary positions, grouped-query attention, SwiGLU, a tied or untied head; Qwen2 is that
 * with biases. What is 0 at the end of the struct is not there. */
typedef struct {
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
} ttmm_config;

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

typedef struct {
    int kind, layer;   /* layer is 0 for the three kinds outside layers */
    size_t rows, cols; /* a gain or bias has cols = 1 */
    size_t offset;     /* of its first number in the model's data */
    char name[80];     /* Hugging Face's: model.layers.0.self_attn.q_proj.weight ... */
} ttmm_tensor;

/* A named array: of a trace, or to be written to a file. */
typedef struct {
    char name[160];
    size_t rows, cols;  /* cols 0: a vector */
    const real *data;   /* or, if integer is not NULL, */
    const int *integer; /* that */
} ttmm_array;

/* Weights, or gradients of weights: one block of n numbers, laid out by the table of tensors. */
typedef struct {
    ttmm_config config;
    size_t n;
    size_t offset[TTMM_KINDS], stride; /* tensor (layer, kind) starts at offset[kind] + layer * stride */
    real *data;
    void *block; /* what ttmm_model_free frees */
} ttmm_model;

int ttmm_config_check(const ttmm_config *c, ttmm_error *err); /* TTMM_BAD_INPUT names the field */
size_t ttmm_n_tensors(const ttmm_config *c);
ttmm_tensor ttmm_tensor_at(const ttmm_config *c, size_t i);     /* i < ttmm_n_tensors(c) */
ttmm_array ttmm_model_tensor_at(const ttmm_model *m, size_t i); /* the same with its numbers, a gain or bias a vector */
size_t ttmm_n_weights(const ttmm_config *c);                    /* numbers in a model; SIZE_MAX if too many */
int ttmm_model_new(ttmm_model *m, const ttmm_config *c, ttmm_error *err); /* all zero */
int ttmm_model_copy(ttmm_model *m, const ttmm_model *from, ttmm_error *err);
void ttmm_model_free(ttmm_model *m);
real *ttmm_weight(const ttmm_model *m, int layer, int kind); /* the tensor's first number */
/* Gains 1, matrices normal with standard deviation 0.02; o and down 0.02 / sqrt(2 L)  (Radford et al. 2019, 2.3). */
void ttmm_model_init(ttmm_model *m, uint64_t seed);

/* One weight matrix's low-rank update: y = W x + scale * B (A x), scale = alpha / R         (Hu et al. 2021, 4.1). */
typedef struct {
    int rank; /* 0: this matrix has no update */
    real scale;
    size_t in, out;
    real *a, *b; /* A [R, in], B [out, R] */
} ttmm_lora_matrix;

typedef struct {
    int n_layers;
    double alpha;
    size_t n; /* numbers in data: A and B of all matrices */
    real *data;
    ttmm_lora_matrix *matrix; /* [L * TTMM_MATRICES], matrix (layer, kind) at layer * TTMM_MATRICES + kind */
    void *block;
} ttmm_lora;

/* Adapters that take part in a pass beside the weights (low-rank merging):
 *   y = W x + sum_k weight_k scale_k B_k (A_k x), k ascending. */
typedef struct {
    size_t n;
    const ttmm_lora *const *lora; /* [n] */
    const real *weight;           /* [n] */
} ttmm_mix;

/* Working memory of passes through a model. */
typedef struct {
    size_t tokens;    /* N, the most of one call */
    size_t sequences; /* B, the most of one call */
    size_t cache;     /* 0, or B = 1 and the positions whose keys and values are kept from call to call */
    size_t logits;    /* rows of logits computed at a time, 1 .. N */
    size_t longest;   /* T, the most of one sequence; 0: as tokens */
    size_t rank;      /* the largest rank of an adapter in a pass; 0: none takes part */
    int backward;     /* 1: keep what ttmm_backward needs */
    int trace;        /* 1: keep what ttmm_traced shows */
} ttmm_pass_size;

typedef struct ttmm_pass ttmm_pass;

size_t ttmm_pass_bytes(const ttmm_config *c, const ttmm_pass_size *size); /* SIZE_MAX if it does not fit one */
int ttmm_pass_new(ttmm_pass **p, const ttmm_config *c, const ttmm_pass_size *size, ttmm_error *err);
void ttmm_pass_free(ttmm_pass *p);

/* Forward through all layers, up to the final norm. Sequence b is token[start[b]] .. token[start[b + 1] - 1]; start[0]
 * = 0, N = start[B]. No sequence is empty, tokens are in 0 .. V-1, positions count from 0 in each sequence. mix may be
 * NULL. With a cache, B is 1 and the tokens follow those of the calls before; rewind(p, t) keeps the first t. */
void ttmm_forward(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, const int *token, const size_t *start,
                  size_t B);
void ttmm_rewind(ttmm_pass *p, size_t length);
size_t ttmm_cached(const ttmm_pass *p); /* positions in the cache */

/* The logits of rows first .. first + rows - 1 of the last forward pass, [rows, V], valid until the next call on p. */
const real *ttmm_logits(ttmm_pass *p, const ttmm_model *m, size_t first, size_t rows);

/* Of the last forward pass: nll[i] = -log p(token[i + 1] | the sequence up to i), 0 at each sequence's last token. */
void ttmm_nll(ttmm_pass *p, const ttmm_model *m, real *nll);

/* Loss of the last forward pass, the mean of nll over the N - B predictions, and its gradients: with respect to every
 * weight, added into dm, or with respect to the adapters of mix, added into dl [mix->n]; either may be NULL. Returns
 * the loss. */
double ttmm_backward(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, ttmm_model *dm, ttmm_lora *dl);

/* What the last forward pass of p (with size.trace) computed, in its order: embed; of each layer i attn_norm, q, k, v,
 * attn, attn_out, mlp_norm, gate, up, mlp_out, out, named layers.i.attn_norm ...; final_norm. All [N, width]; q and k
 * are after the rotation, attn is what the output projection sees, out the residual stream after the layer. The data
 * are the pass's, valid until the next call on p.      i < ttmm_n_traced */
size_t ttmm_n_traced(const ttmm_config *c);
ttmm_array ttmm_traced(const ttmm_pass *p, size_t i);

/* ---- 5. Optimiser ------------------------------------------------------------------------------------------------ */

/* AdamW (Loshchilov & Hutter 2019, algorithm 2), in the form of torch.optim.AdamW. For one tensor of n numbers, at step
 * t = 1, 2, ...:   w -= lr decay w;   m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g^2;
 *                  w -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps),    with g = grad * grad_scale. */
typedef struct {
    double lr, beta1, beta2, eps, decay;
} ttmm_adamw;

void ttmm_adamw_step(real *w, const real *grad, real *m, real *v, size_t n, const ttmm_adamw *o, long t,
                     double grad_scale);

/* Learning rate at step s = 0 .. steps - 1: lr (s + 1) / W during the first W = round(warmup * steps) steps; then, with
 * x = (s - W) / (steps - W) < 1, from lr towards last * lr: along (1 + cos(pi x)) / 2 if cosine, else along 1 - x. */
typedef struct {
    double lr, warmup, last;
    int cosine;
} ttmm_schedule;

double ttmm_rate(const ttmm_schedule *s, long step, long steps);

/* ---- 6. LoRA ----------------------------------------------------------------------------------------------------- */

size_t ttmm_lora_bytes(const ttmm_config *c, int rank);
int ttmm_lora_new(ttmm_lora *l, const ttmm_config *c, int rank, double alpha,
                  ttmm_error *err); /* all seven; all zero */
void ttmm_lora_free(ttmm_lora *l);
size_t ttmm_lora_rank(const ttmm_lora *l); /* the largest of its matrices' */
/* A uniform in (-1/sqrt(in), 1/sqrt(in)) as PEFT draws it, B = 0. `stream` separates the adapters of one seed. */
void ttmm_lora_init(ttmm_lora *l, uint64_t seed, uint64_t stream);

/* ---- 7. Text and corpus ------------------------------------------------------------------------------------------ */

enum { TTMM_END = 256, TTMM_BYTES = 257 }; /* the token <|endoftext|>; the size of the byte vocabulary */

/* What text a token stands for, and the way back: byte-level BPE. Everywhere a tokenizer of NULL stands for the byte
 * vocabulary: token b is the byte b, TTMM_END is <|endoftext|>. ttmm_tokenizer_read (section 11) makes one. */
typedef struct ttmm_tokenizer ttmm_tokenizer;

void ttmm_tokenizer_free(ttmm_tokenizer *k);

/* Text to tokens, as Hugging Face's tokenizers do it: special tokens spelled out in the text are found, and those that
 * the tokenizer's template puts around a text are added (Llama 3: <|begin_of_text|>). Bytes that are not UTF-8 are kept
 * as they are. *token [*n] is allocated. free(*token) */
int ttmm_tokenize(int **token, size_t *n, const ttmm_tokenizer *k, const char *text, size_t bytes, ttmm_error *err);

/* The text of tokens in the byte vocabulary: byte [their number, which is returned] in 0 .. 255, a special token as one
 * TTMM_END. byte NULL: counts only. */
size_t ttmm_to_bytes(int *byte, const ttmm_tokenizer *k, const int *token, size_t n);

/* Bytes to UTF-8 as they come: out [8] is overwritten with the characters that are complete now; what cannot be part
 * of one gives U+FFFD, one for each longest beginning of a character (Unicode 16, section 3.9). Returns the number of
 * bytes in out. byte < 0: the end. *waiting is {0} at first. */
typedef struct {
    unsigned char byte[4];
    int n;
} ttmm_utf8;
size_t ttmm_put_utf8(char *out, ttmm_utf8 *waiting, int byte);

/* Texts, cut and embedded. A document's tokens are those of its text and, if they do not end in it, the end token (of
 * a tokenizer: the first of config.json's or generation_config.json's, none if they name none); a document longer than
 * the context is cut into ceil(tokens / context) sequences of equal length (to one token). Sequence i is
 * token[sequence[i]] .. token[sequence[i+1]-1]. */
typedef struct {
    size_t n_tokens, n_documents, n_sequences, n_files;
    int *token;             /* [n_tokens] */
    size_t *document;       /* [n_documents + 1] first token of each */
    int *document_file;     /* [n_documents] which file it came from */
    size_t *sequence;       /* [n_sequences + 1] */
    int *sequence_document; /* [n_sequences] */
    char **file;            /* [n_files] their names, without folder and extension */
    size_t dim;             /* E; 0: not embedded yet */
    real *embedding;        /* [n, E] unit rows */
    real *idf;              /* [E] of the built-in embedding; NULL with outside embeddings */
    int clustered;          /* 1: cluster is filled in */
    int *cluster;           /* [n] */
    char *names;
    void *block, *embedding_block;
} ttmm_corpus;

/* Read files of documents separated by lines <|endoftext|>. TTMM_BAD_INPUT: a file that is missing, empty or holds a
 * zero byte, an empty document. A separator line may end in CRLF; the newline before it belongs to the document. */
int ttmm_corpus_from_files(ttmm_corpus *c, const ttmm_tokenizer *k, const char *const *path, size_t n, int context,
                           ttmm_error *err);
void ttmm_corpus_free(ttmm_corpus *c);

size_t ttmm_longest_sequence(const ttmm_corpus *c);

/* ---- 8. Embeddings, nearest neighbours, clusters ----------------------------------------------------------------- */

enum { TTMM_EMBED_DIM = 2048 };

/* The built-in embedding of tokens: byte n-grams, n = 1 .. 4, none across an end token, hashed with sign into E buckets
 * (Weinberger et al. 2009), x_b = sign(c_b) log(1 + |c_b|) idf_b, normalised.         out [E]    idf [E] or NULL (ones)
 * The hash of the n-gram g_1 .. g_n is the first output of SplitMix64 in the state g + (n - 1) 0x9e3779b97f4a7c15,
 * where g = g_1 256^(n-1) + ... + g_n: its lowest 11 bits are the bucket, its highest is the sign (1: minus).
 * An empty text gives the zero vector. */
void ttmm_embed(real *out, const int *token, size_t T, const real *idf);

/* Embed every sequence of c; idf_b = log((2 + n) / (1 + sequences whose bucket b is not 0)) > 0, kept in c->idf. */
int ttmm_corpus_embed(ttmm_corpus *c, const ttmm_tokenizer *k, ttmm_error *err);
/* Outside embeddings: rows [n, dim], any dim; copied and normalised. TTMM_BAD_INPUT: a row zero or not finite. */
int ttmm_corpus_set_embeddings(ttmm_corpus *c, const real *rows, size_t dim, ttmm_error *err);

/* The m sequences nearest to a unit query by inner product, nearest first; equal ones: lower index first. m <= n.
 * index [m] overwritten; scratch [n]. */
void ttmm_nearest(size_t *index, size_t m, const real *query, const real *embedding, size_t n, size_t E, real *scratch);

/* SIFT (Huebotter et al. 2024, arXiv 2410.08020): m times the sequence x that most reduces the variance
 * s2(q) = k(q,q) - k_X(q)' (K_X + lambda I)^-1 k_X(q) of the query q given those chosen, X; k the inner product. A
 * sequence may be chosen again (lambda is the noise of one look at it); equal reductions: lower index first.
 * index [m] overwritten, in order of choice; scratch [n * (m + 2)]. */
void ttmm_sift(size_t *index, size_t m, const real *query, const real *embedding, size_t n, size_t E, double lambda,
               real *scratch);

/* Bisecting k-means (Steinbach et al. 2000; scikit-learn's BisectingKMeans): all rows are one cluster; that of the
 * largest inertia, the sum of |x - mean|^2 (equal ones: lower number), is split in two until there are K. A split is
 * the best of 8 runs of Lloyd's algorithm from k-means++ starts; the half with the lower first row keeps the number,
 * the other takes the next.
 *   cluster [n] overwritten, in 0 .. K-1    centroid [K, E] overwritten: the clusters' normalised means
 *   x [n, E] unit rows.    TTMM_BAD_INPUT if K > n; rows that are all equal are split in halves by index. */
int ttmm_cluster(int *cluster, real *centroid, const real *x, size_t n, size_t E, size_t K, uint64_t seed,
                 ttmm_error *err);

/* ---- 9. Routing and merging -------------------------------------------------------------------------------------- */

typedef struct {
    double beta, tau; /* beta > 0 */
    size_t max;       /* at most so many experts */
    size_t active;    /* > 0: exactly so many, the nearest, whatever tau and max */
} ttmm_router;

/* Route a query to the experts: c_k = exp(-(1 - q.centroid_k) / beta^2), w = c / sum(c); keep w_k > tau, at most max of
 * them (largest first; equal ones: lower index first), and rescale the kept to sum 1.
 *                                                                                (the paper, section 3; ttmerge 0.0.4)
 *   query [E] any length but zero; normalised in place   centroid [K, E] unit rows
 *   expert [K] overwritten: the chosen, ascending        weight [K] overwritten: theirs, >= 0, sum 1
 *   similarity [K] overwritten: q.centroid_k of every k
 *   chosen     overwritten: how many were chosen; 0 means: use the base model.
 * TTMM_BAD_INPUT if the query is zero or not finite. */
int ttmm_route(size_t *chosen, int *expert, real *weight, real *similarity, real *query, const real *centroid, size_t K,
               size_t E, const ttmm_router *r, ttmm_error *err);

/* Dense merging: to = from + sum_k weight_k scale_k B_k A_k in the seven matrices of every layer, k and then the rank
 * ascending; the other tensors are left alone. to and from may be the same model; with n = 0, to gets from's bits back.
 * scratch [ttmm_merge_scratch(&from->config, mix)]. */
size_t ttmm_merge_scratch(const ttmm_config *c, const ttmm_mix *mix);
void ttmm_merge(ttmm_model *to, const ttmm_model *from, const ttmm_mix *mix, real *scratch);

/* ---- 10. Training, test-time training ---------------------------------------------------------------------------- */

typedef struct {
    ttmm_schedule schedule;
    double beta1, beta2, eps, decay; /* AdamW; decay is not applied to gains */
    double clip;                     /* gradients are scaled to this global norm if theirs is larger; 0: never */
    size_t batch;                    /* sequences a step */
    int shuffle;                     /* 1: a new order every epoch; 0: as given */
    uint64_t seed;
} ttmm_recipe;

typedef struct ttmm_trainer ttmm_trainer;

/* A trainer of all weights of m (lora NULL), or of lora with m frozen. It holds gradients, moments and working memory
 * for any run over the sequences of corpus, and borrows m, lora and corpus. */
size_t ttmm_trainer_bytes(const ttmm_config *c, const ttmm_lora *lora, const ttmm_corpus *corpus, const ttmm_recipe *r);
int ttmm_trainer_new(ttmm_trainer **t, ttmm_model *m, ttmm_lora *lora, const ttmm_corpus *corpus, const ttmm_recipe *r,
                     ttmm_error *err);
void ttmm_trainer_free(ttmm_trainer *t);

/* Begin a run: `steps` steps over sequence[0 .. n-1] (NULL: all of the corpus; 1 <= n <= its number of sequences),
 * again and again until the steps or the `epochs` are done; exactly one of these is 0. Batches run on across the border
 * of two epochs; only the run's last one may be smaller. `stream` separates the shuffles of different runs. The moments
 * are zeroed; the weights stay as they are. */
void ttmm_trainer_start(ttmm_trainer *t, const size_t *sequence, size_t n, long steps, int epochs, uint64_t stream);
int ttmm_trainer_step(ttmm_trainer *t, double *loss); /* one step; 0 when all are done. *loss: the batch's mean loss */
long ttmm_trainer_at(const ttmm_trainer *t, long *steps, size_t *tokens); /* steps done, steps in all, tokens seen */

/* A checkpoint holds weights, moments and the step: a run resumed from it ends with the same bits. `settings` is any
 * text; load, called after ttmm_trainer_start, answers 1 if a checkpoint was there and was taken, 0 if there is none,
 * and refuses one with other settings. */
int ttmm_trainer_save(const ttmm_trainer *t, const char *path, const char *settings, ttmm_error *err);
int ttmm_trainer_load(ttmm_trainer *t, const char *path, const char *settings, ttmm_error *err);

typedef struct {
    size_t neighbours; /* 1 .. the corpus's sequences */
    int passes;
    int sift; /* 1: choose by SIFT, lambda 0.01; 0: nearest */
} ttmm_ttt;

/* Train t's adapter, freshly initialised (seed of t's recipe, stream 0), on the query's neighbours among the sequences
 * of t's corpus; t's recipe has batch 1 and shuffle 0: one step per neighbour and pass, the nearest (SIFT: the first
 * chosen) last.    index [neighbours] overwritten: in the order of training    scratch [ttmm_ttt_scratch(o, corpus)] */
void ttmm_ttt_train(ttmm_trainer *t, const ttmm_ttt *o, const real *query, size_t *index, real *scratch);
size_t ttmm_ttt_scratch(const ttmm_ttt *o, const ttmm_corpus *c);

/* ---- 11. Files --------------------------------------------------------------------------------------------------- */

/* A folder is made if it is not there. Writing is atomic: a crash leaves the old file or the new one; what is not a
 * regular file is not replaced by one. Reading checks every size against the file before it is used, and refuses
 * numbers that are not finite. `note` is any text, kept in the file's metadata: train writes there the settings it
 * used. Reading makes the object; *_free it. If it fails, there is nothing to free. */
enum { TTMM_F64, TTMM_F32, TTMM_F16, TTMM_BF16, TTMM_REAL = sizeof(real) == 8 ? TTMM_F64 : TTMM_F32 };
/* The weights are rounded to that type, to nearest and ties to even. TTMM_BAD_INPUT: one is too large for it. */
int ttmm_model_write(const ttmm_model *m, const char *folder, int type, const char *note, ttmm_error *err);
int ttmm_config_read(ttmm_config *c, const char *folder, ttmm_error *err);
/* model.safetensors, or the files that model.safetensors.index.json names. */
int ttmm_model_read(ttmm_model *m, const char *folder, ttmm_error *err);
/* tokenizer.json: byte-level BPE in the forms of GPT-2, Llama 3 and Qwen2.5; others are refused by name. NULL, which is
 * the byte vocabulary, if there is no such file and the folder's model, if there is one, has that vocabulary. */
int ttmm_tokenizer_read(ttmm_tokenizer **k, const char *folder, ttmm_error *err);
int ttmm_lora_write(const ttmm_lora *l, const char *folder, const char *note, ttmm_error *err);
/* Any subset of the seven matrices, of any ranks; lora_alpha, alpha_pattern and use_rslora give the scales. What else
 * would alter the result (DoRA, biases, saved modules ...) is refused by name. */
int ttmm_lora_read(ttmm_lora *l, const ttmm_config *c, const char *folder, ttmm_error *err);
int ttmm_corpus_write(const ttmm_corpus *c, const char *folder, const char *note, ttmm_error *err);
int ttmm_corpus_read(ttmm_corpus *c, const char *folder, int vocab, ttmm_error *err);

/* One array of reals in a safetensors file: the tensor of that name, or the only one there is. *array, *rows and *cols
 * are overwritten; a vector has one row. Refuses numbers that are not finite. free(*array). */
int ttmm_array_read(real **array, size_t *rows, size_t *cols, const char *path, const char *name, ttmm_error *err);
/* Atomic. Names must differ; numbers need not be finite. */
int ttmm_arrays_write(const ttmm_array *array, size_t n, const char *path, const char *note, ttmm_error *err);

/* Tensor i of an adapter, by PEFT's name: A and B of each matrix in turn. */
size_t ttmm_lora_tensors(const ttmm_lora *l);
ttmm_array ttmm_lora_tensor_at(const ttmm_lora *l, size_t i);

int ttmm_note(char *note, size_t size, const char *path,
              ttmm_error *err);                        /* the note of any file written here, or "" */
int ttmm_exists(const char *folder, const char *name); /* 1 if that file can be read */
int ttmm_remove(const char *folder, const char *name);
int ttmm_copy(const char *to_folder, const char *folder, const char *name, ttmm_error *err);
int ttmm_make_folder(const char *path, ttmm_error *err); /* and those above it */

/* Fingerprints, by which train knows whether what it finds belongs together: of n numbers; of the sequences of one
 * cluster (-1: of all). */
uint64_t ttmm_hash(const real *x, size_t n);
uint64_t ttmm_corpus_hash(const ttmm_corpus *c, int cluster);

/* ---- 12. Scoring, sampling, tracing, comparing ------------------------------------------------------------------- */

/* Sum of -log p(token[t] | those before) over t = from .. T - 1; 1 <= from. Perplexity = exp(sum / tokens), bits per
 * byte = sum / (ln 2 * bytes). */
double ttmm_score(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, const int *token, size_t T, size_t from);

/* The same for the ensemble of the adapters of mix: the probability of a token is the weighted mean of the
 * probabilities that the models W + scale_k B_k A_k give it.        probability [T] scratch */
double ttmm_score_ensemble(ttmm_pass *p, const ttmm_model *m, const ttmm_mix *mix, const int *token, size_t T,
                           size_t from, double *probability);
void ttmm_add_probabilities(real *out, const real *logits, size_t V,
                            real weight); /* out += weight softmax(logits), [V] */

/* The next token, from logits [V]: temperature 0: the largest (equal ones: lower token). Else drawn from softmax(logits
 * / temperature), cut to the top_k likeliest (0: all), then to the fewest that make up top_p of these.
 * scratch [ttmm_sample_scratch(V)] bytes */
typedef struct {
    double temperature, top_p;
    size_t top_k;
} ttmm_sampler;

size_t ttmm_sample_scratch(size_t V);
int ttmm_sample(const real *logits, size_t V, const ttmm_sampler *s, ttmm_rng *g, void *scratch);

/* Every named value of one sequence: tokens [T], what ttmm_traced lists, logits [T, V], loss [1] (the mean of nll over
 * the T - 1 predictions). cached: computed token by token through the key/value cache. gradients: those of the loss
 * too, as grad. + the tensor's name in its file: with respect to the adapters of mix if it has any, else to all
 * weights. With expert [mix->n] (not NULL) they are grad.experts.K. + name, K the adapter's number there. mix may be
 * NULL, T larger than the context. The arrays are the trace's own, in the order of computation; gradients in that of
 * the weights. T < 2 is TTMM_BAD_INPUT, cached and gradients at once TTMM_BAD_USE: then *t is empty. */
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

/* Two safetensors files, tensor by tensor; A is the reference. */
enum { TTMM_SAME, TTMM_WITHIN, TTMM_PAST, TTMM_NOT_FINITE, TTMM_SHAPE, TTMM_MISSING, TTMM_EXTRA };
typedef struct {
    const char *name;  /* valid during the call of report, as all of this */
    int verdict;       /* of those above; from TTMM_PAST on it is a failure */
    char shape[2][80]; /* "F32 [3, 4]", in A and in B; "" where it is not */
    double max_abs;    /* the largest |a - b| ... */
    double max_rel;    /* ... divided by the tensor's largest |a| */
    double ulps;       /* the largest |a - b| in units in the last place of the coarser of the two types, at the larger
                          * magnitude */
    size_t worst;      /* where max_abs is, counted through the tensor */
    double a, b;       /* the numbers there */
} ttmm_difference;

/* Calls report for each tensor of A, in the file's order, then for those only in B. Types are F64, F32, F16, BF16, I64,
 * I32 and U8, and may differ. A tensor is within the tolerance if max_abs <= atol + rtol * its largest |a|; two of
 * integers must be equal; -0 equals 0. With a number that is not finite, what is reported is of the numbers before it.
 * *failures: how many tensors are not the same or within. TTMM_BAD_INPUT if a file cannot be read. */
int ttmm_compare(const char *path_a, const char *path_b, double atol, double rtol,
                 void (*report)(void *context, const ttmm_difference *d), void *context, size_t *failures,
                 ttmm_error *err);

#endif
