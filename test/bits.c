/* bits.c - proves that the method gives the same bits wherever it is compiled and run: corpus, training, clusters,
 * experts, routing, merging, test-time training, decoding and files, on a small model, through the public face only.
 * Prints "f32 stage hash" a stage (f64 in the double build); test/bits.txt has what they must be, and test/bits.sh
 * builds and runs this everywhere. From the root:     bits [FOLDER for its files, removed again; bits.tmp] */
#include "encoder.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

enum { K = 3, RANK = 3, CONTEXT = 48, V = TTMM_BYTES, E = TTMM_EMBED_DIM, BATCH = 21, NEIGHBOURS = 3 };

/* No width is a multiple of 16, the number of lanes of a sum. */
static const ttmm_config shape = {.dim = 40,
                                  .n_layers = 2,
                                  .n_heads = 4,
                                  .n_kv_heads = 2,
                                  .head_dim = 10,
                                  .intermediate = 72,
                                  .vocab = V,
                                  .context = CONTEXT,
                                  .norm_eps = 1e-5,
                                  .rope_theta = 10000};
static const char *const text[] = {"data/train/cookbook.txt", "data/train/c.txt"};
static const char question[] = "Melt the butter";

typedef ttmm_real real;
static ttmm_error err;
static const char *precision = sizeof(real) == 4 ? "f32" : "f64";

static void must(int code)
{
    if (code < 0) exit((fprintf(stderr, "%s\n", err.text), 1));
}

static void *room(size_t count, size_t size)
{
    void *p = calloc(count, size);
    return p ? p : (must(ttmm_fail(&err, TTMM_NO_ROOM, "out of memory")), p);
}

/* ---- The hash of a stage: FNV-1a over the bits of its numbers, lowest byte first --------------------------------- */

static uint64_t hash = 0xcbf29ce484222325;

static void add_byte(unsigned byte) { hash = (hash ^ (byte & 255)) * 0x100000001b3; }

static void add_word(uint64_t word)
{
    for (int i = 0; i < 64; i += 8) add_byte((unsigned)(word >> i));
}

static void add(double x) /* a float is a double, exactly */
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (!(x >= -DBL_MAX && x <= DBL_MAX)) must(ttmm_fail(&err, TTMM_DIFFERS, "a number is not finite"));
    add_word(bits);
}

static void add_all(const real *x, size_t n)
{
    for (size_t i = 0; i < n; i++) add((double)x[i]);
}

static void add_file(const char *folder, const char *name)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (f == NULL) must(ttmm_fail(&err, TTMM_BAD_INPUT, "%s: cannot be opened", path));
    for (int c; (c = getc(f)) != EOF;) add_byte((unsigned)c);
    fclose(f);
    ttmm_remove(folder, name);
}

static void stage(const char *name)
{
    printf("%s %s %016llx\n", precision, name, (unsigned long long)hash);
    fflush(stdout);
    hash = 0xcbf29ce484222325;
}

/* ---- What a compiler or machine may have done to the arithmetic, by its name, where a small sum shows it --------- */

static void arithmetic(void)
{
    const double epsilon = sizeof(real) == 4 ? FLT_EPSILON : DBL_EPSILON;
    volatile real above = (real)(1 + epsilon), below = (real)(1 - epsilon), one = 1, little = (real)(epsilon / 4);
    volatile real tiny = (real)(sizeof(real) == 4 ? FLT_MIN : DBL_MIN), half = (real)0.5;
    volatile double number = 49, whole = 1, small = 0x1.32ccf775fe645p-33;
    const real a = above, b = below, c = one, d = little;
    const double x = number;
    if (a * b - c != 0) fprintf(stderr, "products are fused with sums, or kept in more precision\n");
    if ((c + d) - c != 0) fprintf(stderr, "sums are reordered\n");
    if (x / 49 != 1) fprintf(stderr, "divisions are products with the reciprocal\n");
    if (whole - small != 0x1.fffffffecd331p-1) fprintf(stderr, "differences are not rounded to the nearest double\n");
    tiny *= half;
    if (tiny == 0 || tiny / half == 0) fprintf(stderr, "subnormal numbers are flushed to zero\n");
}

/* ---- Stages ------------------------------------------------------------------------------------------------------ */

static void functions(void)
{
    ttmm_rng g = ttmm_stream(1, "bits", 0);
    for (int i = 0; i < 10000; i++) {
        uint64_t bits = ttmm_next(&g) % 0x7ff0000000000000; /* any positive finite double */
        double u = 2 * ttmm_uniform(&g) - 1, angle = u * (double)((uint64_t)1 << i % 23), positive;
        memcpy(&positive, &bits, sizeof positive);
        add(ttmm_exp(700 * u)), add(ttmm_exp(u)), add(ttmm_exp(-745 + u)); /* the last: subnormal results */
        add(ttmm_log(positive)), add(ttmm_log(1 + u / 1024)), add(ttmm_sin(angle)), add(ttmm_cos(angle));
    }
    stage("functions");
    for (int i = 0; i < 10000; i++) add(ttmm_normal(&g)), add_word(ttmm_below(&g, UINT64_MAX / 3 * 2 >> i % 64 | 1));
    stage("random");
}

static ttmm_corpus corpus;
static ttmm_model base, merged;
static ttmm_lora lora[K];
static const ttmm_lora *chosen[K];
static real weight[K];
static ttmm_mix mix = {0, chosen, weight};

static void train(ttmm_trainer *t, const size_t *sequence, size_t n, long steps)
{
    double loss;
    ttmm_trainer_start(t, sequence, n, steps, 0, 0);
    while (ttmm_trainer_step(t, &loss)) add(loss);
}

static void train_base(void)
{
    const ttmm_recipe recipe = {{0.01, 0.1, 0.05, 1}, 0.9, 0.98, 1e-8, 0.05, 1, 3, 1, 1};
    ttmm_trainer *t;
    must(ttmm_corpus_from_files(&corpus, NULL, text, sizeof text / sizeof *text, CONTEXT, &err));
    for (size_t i = 0; i < corpus.n_tokens; i++) add(corpus.token[i]);
    for (size_t i = 0; i <= corpus.n_sequences; i++) add((double)corpus.sequence[i]);
    stage("corpus");
    must(ttmm_model_new(&base, &shape, &err));
    ttmm_model_init(&base, 1);
    must(ttmm_trainer_new(&t, &base, NULL, &corpus, &recipe, &err));
    train(t, NULL, 0, 16);
    ttmm_trainer_free(t);
    add_all(base.data, base.n);
    stage("base");
}

static void train_experts(real *centroid)
{
    const ttmm_recipe recipe = {{0.01, 0.1, 0.05, 0}, 0.9, 0.999, 1e-8, 0, 1, 2, 1, 1};
    size_t *member = room(corpus.n_sequences, sizeof *member);
    corpus.cluster = room(corpus.n_sequences, sizeof *corpus.cluster);
    must(ttmm_corpus_embed(&corpus, NULL, &err));
    add_all(corpus.embedding, corpus.n_sequences * E), add_all(corpus.idf, E);
    stage("embeddings");
    must(ttmm_cluster(corpus.cluster, centroid, corpus.embedding, corpus.n_sequences, E, K, 1, &err));
    for (size_t i = 0; i < corpus.n_sequences; i++) add(corpus.cluster[i]);
    add_all(centroid, K * E);
    stage("clusters");
    for (int k = 0; k < K; k++) {
        ttmm_trainer *t;
        size_t n = 0;
        for (size_t i = 0; i < corpus.n_sequences; i++)
            if (corpus.cluster[i] == k) member[n++] = i;
        must(ttmm_lora_new(&lora[k], &shape, RANK, 2 * RANK, &err));
        ttmm_lora_init(&lora[k], 1, (uint64_t)k);
        must(ttmm_trainer_new(&t, &base, &lora[k], &corpus, &recipe, &err));
        train(t, member, n, 4);
        ttmm_trainer_free(t);
        add_all(lora[k].data, lora[k].n);
    }
    stage("experts");
    free(member);
}

static void route_and_merge(real *query, const real *centroid)
{
    const ttmm_router router = {.beta = 0.5, .tau = 0.01, .max = K};
    int expert[K], *prompt;
    size_t n;
    real similarity[K];
    must(ttmm_tokenize(&prompt, &n, NULL, question, strlen(question), &err));
    ttmm_embed(query, NULL, prompt, n, corpus.idf);
    free(prompt);
    must(ttmm_route(&mix.n, expert, weight, similarity, query, centroid, K, E, &router, &err));
    for (size_t i = 0; i < mix.n; i++) chosen[i] = &lora[expert[i]], add(expert[i]), add((double)weight[i]);
    add_all(similarity, K);
    stage("route");
    real *scratch = room(ttmm_merge_scratch(&shape, &mix), sizeof *scratch);
    must(ttmm_model_new(&merged, &shape, &err));
    memcpy(merged.data, base.data, base.n * sizeof(real));
    ttmm_merge(&merged, &base, &mix, scratch);
    free(scratch);
    add_all(merged.data, merged.n);
    stage("merged");
}

/* Merged into the weights, at once and (the same hash) token by token; beside the weights; as an ensemble. */
static void evaluate(const int *token, size_t T)
{
    const ttmm_pass_size whole = {.tokens = T, .sequences = 1, .logits = T, .rank = RANK},
                         single = {.tokens = 1, .sequences = 1, .logits = 1, .cache = T};
    ttmm_pass *p, *one;
    double *probability = room(T, sizeof *probability);
    must(ttmm_pass_new(&p, &shape, &whole, &err)), must(ttmm_pass_new(&one, &shape, &single, &err));
    ttmm_forward(p, &merged, NULL, token, (const size_t[]){0, T}, 1);
    add_all(ttmm_logits(p, &merged, 0, T), T * V);
    stage("dense");
    for (size_t t = 0; t < T; t++) {
        ttmm_forward(one, &merged, NULL, token + t, (const size_t[]){0, 1}, 1);
        add_all(ttmm_logits(one, &merged, 0, 1), V);
    }
    stage("cached");
    ttmm_forward(p, &base, &mix, token, (const size_t[]){0, T}, 1);
    add_all(ttmm_logits(p, &base, 0, T), T * V);
    stage("lowrank");
    add(ttmm_score(p, &merged, NULL, token, T, 1)), add(ttmm_score(p, &base, &mix, token, T, 1));
    add(ttmm_score_ensemble(p, &base, &mix, token, T, 1, probability));
    stage("scores");
    ttmm_pass_free(p), ttmm_pass_free(one), free(probability);
}

/* Of a batch of sequences, large enough that every loop over tokens runs on several threads. */
static void gradients(void)
{
    const ttmm_pass_size size = {
        .tokens = BATCH * CONTEXT, .sequences = BATCH, .logits = 100, .rank = RANK, .backward = 1};
    ttmm_pass *p;
    ttmm_model dm;
    ttmm_lora dl[K];
    must(ttmm_pass_new(&p, &shape, &size, &err)), must(ttmm_model_new(&dm, &shape, &err));
    for (size_t k = 0; k < mix.n; k++) must(ttmm_lora_new(&dl[k], &shape, RANK, 2 * RANK, &err));
    ttmm_forward(p, &base, &mix, corpus.token, corpus.sequence, BATCH);
    add(ttmm_backward(p, &base, &mix, &dm, dl));
    add_all(dm.data, dm.n);
    for (size_t k = 0; k < mix.n; k++) add_all(dl[k].data, dl[k].n), ttmm_lora_free(&dl[k]);
    ttmm_pass_free(p), ttmm_model_free(&dm);
    stage("gradients");
}

static void test_time_training(const real *query)
{
    const ttmm_recipe recipe = {{0.01, 0, 0.05, 0}, 0.9, 0.999, 1e-8, 0, 1, 1, 0, 1};
    ttmm_lora adapter;
    ttmm_trainer *t;
    must(ttmm_lora_new(&adapter, &shape, RANK, 2 * RANK, &err));
    must(ttmm_trainer_new(&t, &base, &adapter, &corpus, &recipe, &err));
    for (int sift = 0; sift < 2; sift++) {
        const ttmm_ttt how = {NEIGHBOURS, 2, sift ? 0.01 : 0};
        size_t index[NEIGHBOURS];
        real *scratch = room(ttmm_ttt_scratch(&how, &corpus), sizeof *scratch);
        ttmm_ttt_train(t, &how, query, index, scratch);
        for (int i = 0; i < NEIGHBOURS; i++) add((double)index[i]);
        add_all(adapter.data, adapter.n);
        free(scratch);
        stage(sift ? "ttt-sift" : "ttt");
    }
    ttmm_trainer_free(t), ttmm_lora_free(&adapter);
}

static void decode(void)
{
    const ttmm_sampler sampler[2] = {{0, 1, 0}, {0.8, 0.95, 40}};
    const ttmm_pass_size size = {.tokens = sizeof question, .sequences = 1, .logits = 1, .cache = CONTEXT};
    ttmm_pass *p;
    void *scratch = room(ttmm_sample_scratch(V), 1);
    must(ttmm_pass_new(&p, &shape, &size, &err));
    for (int i = 0; i < 2; i++) {
        int *token;
        size_t n;
        must(ttmm_tokenize(&token, &n, NULL, question, strlen(question), &err));
        ttmm_rng g = ttmm_stream(1, "sample", 0);
        ttmm_rewind(p, 0);
        for (int step = 0; step < 30; step++, n = 1) {
            ttmm_forward(p, &merged, NULL, token, (const size_t[]){0, n}, 1);
            token[0] = ttmm_sample(ttmm_logits(p, &merged, n - 1, 1), V, &sampler[i], &g, scratch);
            add(token[0]);
        }
        stage(i ? "sampled" : "greedy");
        free(token);
    }
    ttmm_pass_free(p), free(scratch);
}

/* The bytes of the files, and what is read back from them. */
static void files(const char *folder)
{
    ttmm_model m;
    ttmm_lora l;
    ttmm_corpus c;
    must(ttmm_model_write(&merged, folder, TTMM_REAL, "bits", &err)), must(ttmm_model_read(&m, folder, &err));
    must(ttmm_lora_write(&lora[0], folder, "bits", &err)), must(ttmm_lora_read(&l, &shape, folder, &err));
    must(ttmm_corpus_write(&corpus, folder, "bits", &err)), must(ttmm_corpus_read(&c, folder, V, &err));
    add_all(m.data, m.n), add_all(l.data, l.n), add_all(c.embedding, c.n_sequences * E);
    for (size_t i = 0; i < c.n_tokens; i++) add(c.token[i]);
    add_file(folder, "config.json"), add_file(folder, "model.safetensors"), add_file(folder, "tokenizer.json");
    add_file(folder, "adapter_config.json"), add_file(folder, "adapter_model.safetensors");
    add_file(folder, "corpus.safetensors");
    ttmm_remove(folder, "tokenizer_config.json"), ttmm_remove(NULL, folder);
    ttmm_model_free(&m), ttmm_lora_free(&l), ttmm_corpus_free(&c);
    stage("files");
}

/* Both kinds of encoder, as they are read from a folder: texts together and (the same bits) each alone. */
static void encoders(const char *beside)
{
    static const char *const said[] = {"Melt the butter, the butter.", "", "But \xc3\x89t\xc3\xa9! <pad> zz", question};
    enum { SAID = sizeof said / sizeof *said };
    static real out[SAID * ENC_D], alone[ENC_D];
    size_t bytes[SAID];
    char folder[500];
    snprintf(folder, sizeof folder, "%.480s.encoder.tmp", beside);
    ttmm_rng g = ttmm_stream(2, "bits", 0);
    for (int i = 0; i < 10000; i++) add(ttmm_erf(8 * ttmm_uniform(&g) - 4));
    for (int i = 0; i < SAID; i++) bytes[i] = strlen(said[i]);
    for (int mpnet = 0; mpnet < 2; mpnet++) {
        ttmm_encoder *e;
        must(make_encoder(folder, mpnet, &err)), must(ttmm_encoder_read(&e, folder, &err));
        must(ttmm_encode(out, e, said, bytes, SAID, &err));
        add_all(out, SAID * ENC_D);
        for (int i = 0; i < SAID; i++) {
            must(ttmm_encode(alone, e, said + i, bytes + i, 1, &err));
            if (memcmp(alone, out + i * ENC_D, sizeof alone) == 0) continue;
            fprintf(stderr, "a text's bits depend on its batch\n");
            exit(1);
        }
        for (const char *c = ttmm_encoder_fingerprint(e); *c; c++) add(*c);
        ttmm_encoder_free(e), remove_encoder(folder);
    }
    stage("encoders");
}

int main(int argc, char **argv)
{
    argv = ttmm_arguments(&argc, argv); /* lines end in LF, on Windows, too */
    if (argv == NULL) return 1;
    real *centroid = room(K * E, sizeof *centroid), *query = room(E, sizeof *query);
    arithmetic();
    functions();
    train_base();
    train_experts(centroid);
    route_and_merge(query, centroid);
    evaluate(corpus.token + corpus.sequence[1], corpus.sequence[2] - corpus.sequence[1]);
    gradients();
    test_time_training(query);
    decode();
    files(argc > 1 ? argv[1] : "bits.tmp");
    encoders(argc > 1 ? argv[1] : "bits.tmp");
    free(centroid), free(query), free(corpus.cluster);
    ttmm_model_free(&base), ttmm_model_free(&merged), ttmm_corpus_free(&corpus);
    for (int k = 0; k < K; k++) ttmm_lora_free(&lora[k]);
    return 0;
}
