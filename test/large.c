/* large.c - work at real size, for test/large.sh and test/scaling.sh:
 *     large make FOLDER dim,layers,heads,kv,head_dim,intermediate,vocab K rank
 *         a model folder with random weights, stored as bf16, and K experts with centroids and a query
 *     large check FOLDER
 *         a matrix of more than 2^31 numbers, written, read and run: the last rows of its logits are, bit for bit,
 *         those of a model that has these rows alone
 *     large cluster N E K
 *         the time of clustering N embeddings of E numbers into K
 *     large peak COMMAND...
 *         runs it, then prints its peak resident memory in MiB to standard error */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../ttmm.h"

typedef ttmm_real real;
static ttmm_error err;

static void must(int code)
{
    if (code == TTMM_OK) return;
    fprintf(stderr, "large: %s\n", err.text);
    exit(-code);
}

/* Quick and even numbers: what matters is the size. */
static ttmm_model random_model(const ttmm_config *c)
{
    ttmm_model m;
    uint64_t state = 1;
    must(ttmm_model_new(&m, c, &err));
    for (size_t i = 0; i < m.n; i++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        m.data[i] = (real)((double)(state >> 40) / 16777216 - 0.5) * (real)0.08;
    }
    for (int l = 0; l < c->n_layers; l++)
        for (int i = 0; i < c->dim; i++)
            ttmm_weight(&m, l, TTMM_ATTN_NORM)[i] = ttmm_weight(&m, l, TTMM_MLP_NORM)[i] = 1;
    for (int i = 0; i < c->dim; i++) ttmm_weight(&m, 0, TTMM_FINAL_NORM)[i] = 1;
    return m;
}

static void make(const char *folder, ttmm_config c, size_t K, int rank)
{
    enum { E = 64, MOST = 1000 };
    static real embedding[MOST * E];
    char path[4096];
    ttmm_model m = random_model(&c);
    must(ttmm_model_write(&m, folder, TTMM_BF16, "", &err));
    ttmm_model_free(&m);
    ttmm_rng g = ttmm_stream(1, "large", 0);
    for (size_t k = 0; k < K && k < MOST; k++) {
        ttmm_lora l;
        must(ttmm_lora_new(&l, &c, rank, 2 * rank, &err));
        ttmm_lora_init(&l, 1, k);
        for (int i = 0; i < c.n_layers * TTMM_MATRICES; i++)
            for (size_t j = 0; j < l.matrix[i].out * (size_t)rank; j++)
                l.matrix[i].b[j] = (real)(0.001 * (ttmm_uniform(&g) - 0.5));
        snprintf(path, sizeof path, "%s/experts/%zu", folder, k);
        must(ttmm_lora_write(&l, path, "", &err));
        ttmm_lora_free(&l);
        embedding[k * E + 1 + k % (E - 1)] = (real)0.199, embedding[k * E] = (real)0.98; /* all near to each other */
    }
    const ttmm_array centroids = {"embeddings", K, E, embedding, NULL}, query = {"embedding", E, 0, embedding, NULL};
    snprintf(path, sizeof path, "%s/centroids.safetensors", folder);
    must(ttmm_arrays_write(&centroids, 1, path, "", &err));
    snprintf(path, sizeof path, "%s/query.safetensors", folder);
    must(ttmm_arrays_write(&query, 1, path, "", &err));
}

/* The last ROWS logits of three tokens among the last ROWS of the vocabulary. */
enum { ROWS = 1000, D = 2048 };
static void last_logits(real *out, const ttmm_model *m)
{
    const int last = m->config.vocab - 1, token[3] = {last, last - 999, last - 5};
    const size_t start[2] = {0, 3};
    const ttmm_pass_size size = {.tokens = 3, .sequences = 1, .logits = 3};
    ttmm_pass *p;
    must(ttmm_pass_new(&p, &m->config, &size, &err));
    ttmm_forward(p, m, NULL, token, start, 1);
    for (size_t t = 0; t < 3; t++)
        memcpy(out + t * ROWS, ttmm_logits(p, m, t, 1) + m->config.vocab - ROWS, ROWS * sizeof *out);
    ttmm_pass_free(p);
}

static void check(const char *folder)
{
    static real expected[3 * ROWS], found[3 * ROWS];
    const ttmm_config big = {.dim = D,
                             .n_layers = 1,
                             .n_heads = 2,
                             .n_kv_heads = 1,
                             .head_dim = 64,
                             .intermediate = 64,
                             .vocab = 1100000,
                             .tied = 1,
                             .norm_eps = 1e-5,
                             .rope_theta = 1e4,
                             .context = 8};
    ttmm_config c = big;
    c.vocab = ROWS;
    ttmm_model m = random_model(&big), small = random_model(&c);
    must(ttmm_model_write(&m, folder, TTMM_BF16, "", &err));
    ttmm_model_free(&m);
    must(ttmm_model_read(&m, folder, &err));
    last_logits(found, &m);
    for (int kind = 0; kind < TTMM_KINDS; kind++) {
        const size_t n = kind == TTMM_EMBED ? (size_t)ROWS * D : kind < TTMM_EMBED ? 0 : D;
        const real *from = ttmm_weight(&m, 0, kind);
        if (kind != TTMM_HEAD)
            memcpy(ttmm_weight(&small, 0, kind), from + (kind == TTMM_EMBED ? (size_t)(big.vocab - ROWS) * D : 0),
                   n * sizeof *from);
    }
    memcpy(small.data, m.data, small.stride * sizeof *m.data);
    last_logits(expected, &small);
    printf("%zu numbers in a matrix, the last logits are %s\n", (size_t)big.vocab * D,
           memcmp(expected, found, sizeof found) ? "OTHER ONES" : "the same bits");
    if (memcmp(expected, found, sizeof found)) exit(1);
    ttmm_model_free(&m), ttmm_model_free(&small);
}

/* Bisecting k-means of n random directions of width E around `K` of them. */
static void cluster(size_t n, size_t E, size_t K)
{
    real *x = malloc(n * E * sizeof *x), *centroid = malloc(K * E * sizeof *centroid);
    int *number = malloc(n * sizeof *number);
    if (!x || !centroid || !number) exit(4);
    ttmm_corpus c = {.n_sequences = n};
    for (size_t i = 0; i < n; i++) {
        ttmm_rng centre = ttmm_stream(1, "centre", i % K), g = ttmm_stream(1, "noise", i);
        for (size_t e = 0; e < E; e++)
            x[i * E + e] = (real)(ttmm_uniform(&centre) - 0.5 + 0.3 * (ttmm_uniform(&g) - 0.5));
    }
    must(ttmm_corpus_set_embeddings(&c, x, E, &err));
    free(x);
    const double began = ttmm_seconds();
    must(ttmm_cluster(number, centroid, c.embedding, n, E, K, 1, &err));
    printf("clustering of %zu embeddings of %zu numbers into %zu: %.1f s\n", n, E, K, ttmm_seconds() - began);
    free(centroid), free(number);
    ttmm_corpus_free(&c);
}

static int peak(char **command)
{
#ifdef __APPLE__
    const double units = 1 << 20; /* of ru_maxrss in a MiB: bytes there, KiB elsewhere */
#else
    const double units = 1 << 10;
#endif
    int status = 1;
    struct rusage used;
    const pid_t child = fork();
    if (child == 0) {
        execvp(command[0], command);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &used) != child) return 1;
    fprintf(stderr, "peak %.1f MiB\n", (double)used.ru_maxrss / units);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
    ttmm_config c = {.tied = 1,
                     .norm_eps = 1e-5,
                     .rope_theta = 500000,
                     .context = 131072,
                     .rope = TTMM_ROPE_LLAMA3,
                     .rope_factor = 32,
                     .rope_low = 1,
                     .rope_high = 4,
                     .rope_before = 8192};
    if (argc > 2 && strcmp(argv[1], "peak") == 0) return peak(argv + 2);
    if (argc == 3 && strcmp(argv[1], "check") == 0) check(argv[2]);
    else if (argc == 5 && strcmp(argv[1], "cluster") == 0)
        cluster((size_t)atol(argv[2]), (size_t)atol(argv[3]), (size_t)atol(argv[4]));
    else if (argc == 6 && strcmp(argv[1], "make") == 0 &&
             sscanf(argv[3], "%d,%d,%d,%d,%d,%d,%d", &c.dim, &c.n_layers, &c.n_heads, &c.n_kv_heads, &c.head_dim,
                    &c.intermediate, &c.vocab) == 7)
        make(argv[2], c, (size_t)atol(argv[4]), atoi(argv[5]));
    else return 2;
    return 0;
}
