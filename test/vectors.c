/* vectors.c - ttmm against an independent implementation: every file of test/README.md's page, computed with the
 * library from the inputs in data/vectors.tar (test/oracle.py, PyTorch), written into test/build/vectors-f64.d (-f32.d)
 * and judged as any other backend is, by ttmm_check. It shows, too, how each file is computed with the library. */
#include "test.h"

#define IS_DOUBLE (sizeof(real) == 8)
#define VECTORS "test/build/vectors"
#define FOLDER (IS_DOUBLE ? "test/build/vectors-f64.d" : "test/build/vectors-f32.d")

static ttmm_error err;

static void must(int code)
{
    if (code < 0) {
        printf("%s: code %d: %s\n", test_name, code, err.text);
        exit(1);
    }
}

static const char *at(const char *name) /* a path among the inputs; of the last eight calls */
{
    static char path[8][300];
    static int next;
    next = (next + 1) % 8;
    snprintf(path[next], sizeof path[next], VECTORS "/%s", name);
    return path[next];
}

/* ---- Files: what is put is copied, and written if the file of that name among the vectors has a tensor of the name
 * --- */

static ttmm_array list[600];
static size_t n_list;

static void put(const char *name, const real *data, const int *integer, size_t rows, size_t cols)
{
    const size_t count = rows * (cols ? cols : 1), bytes = count * (integer ? sizeof *integer : sizeof *data);
    void *copy = malloc(bytes + 1);
    ttmm_array *a = &list[n_list++];
    CHECK(n_list < sizeof list / sizeof *list);
    if (count) memcpy(copy, integer ? (const void *)integer : (const void *)data, bytes);
    *a = (ttmm_array){"", rows, cols, integer ? NULL : copy, integer ? copy : NULL};
    snprintf(a->name, sizeof a->name, "%.159s", name);
}

static void put_all(const ttmm_array *a, size_t n)
{
    for (size_t i = 0; i < n; i++) put(a[i].name, a[i].data, a[i].integer, a[i].rows, a[i].cols);
}

static void put_doubles(const char *name, const double *x, size_t n)
{
    real copy[64];
    for (size_t i = 0; i < n; i++) copy[i] = (real)x[i];
    put(name, copy, NULL, n, 0);
}

static void put_indices(const char *name, const size_t *x, size_t n)
{
    int copy[64];
    for (size_t i = 0; i < n; i++) copy[i] = (int)x[i];
    put(name, NULL, copy, n, 0);
}

static void put_model(const ttmm_model *m)
{
    for (size_t i = 0; i < ttmm_n_tensors(&m->config); i++) {
        const ttmm_array a = ttmm_model_tensor_at(m, i);
        put_all(&a, 1);
    }
}

static void write_file(const char *name)
{
    char path[300];
    safetensors s;
    size_t kept = 0;
    must(open_safetensors(&s, NULL, at(name), &err));
    for (size_t i = 0; i < n_list; i++) {
        ttmm_array swap = list[i];
        if (find_tensor(&s, swap.name)) list[i] = list[kept], list[kept++] = swap;
    }
    close_safetensors(&s);
    snprintf(path, sizeof path, "%s/%s", FOLDER, name);
    must(ttmm_arrays_write(list, kept, path, "", &err));
    for (size_t i = 0; i < n_list; i++)
        free((void *)(list[i].data ? (uintptr_t)list[i].data : (uintptr_t)list[i].integer));
    n_list = 0;
}

/* ---- Inputs --------------------------------------------------------------------------------------------------------
 * */

static ttmm_model model;
static ttmm_lora expert[5];
static int token[512];
static size_t T;

static real *given(const char *file, const char *name, size_t *rows, size_t *cols) /* freed at the end of the program */
{
    static void *all[40];
    static size_t n;
    real *x;
    must(ttmm_array_read(&x, rows, cols, at(file), name, &err));
    CHECK(n < 40);
    return all[n++] = x;
}

static size_t given_integers(int *x, const char *file, const char *name, size_t most)
{
    safetensors s;
    must(open_safetensors(&s, NULL, at(file), &err));
    const stored *t = find_tensor(&s, name);
    const size_t n = t->dim[0];
    CHECK(n <= most);
    must(read_tensor(&s, name, x, I32, n, 1, &err));
    close_safetensors(&s);
    return n;
}

static size_t read_tokens(const char *name)
{
    FILE *f = fopen(at(name), "r");
    size_t n = 0;
    while (f && n < sizeof token / sizeof *token && fscanf(f, "%d", &token[n]) == 1) n++;
    if (f) fclose(f);
    return n;
}

static void read_inputs(void)
{
    must(ttmm_model_read(&model, at("model"), &err));
    for (int k = 0; k < 5; k++) {
        char name[40];
        snprintf(name, sizeof name, "model/experts/%d", k);
        must(ttmm_lora_read(&expert[k], &model.config, at(name), &err));
    }
    T = read_tokens("tokens.ids");
    CHECK_EQUAL(T, 8);
}

/* ---- The files -----------------------------------------------------------------------------------------------------
 * */

static void put_trace(const ttmm_model *m, const ttmm_mix *mix, const int *number, const int *tokens, size_t n,
                      int cached)
{
    ttmm_trace t;
    must(ttmm_trace_new(&t, m, mix, number, tokens, n, cached, !cached, &err));
    put_all(t.array, t.n);
    ttmm_trace_free(&t);
}

static void passes(void)
{
    const real one = 1;
    const ttmm_lora *only = &expert[1];
    const ttmm_mix adapter = {1, &only, &one};
    put_trace(&model, NULL, NULL, token, T, 0), write_file("base.safetensors");
    put_trace(&model, &adapter, NULL, token, T, 0), write_file("adapter.safetensors");
}

/* Routing with one setting more; the last one's experts are left in number, weight. */
static size_t route(int *number, real *weight, const char *name, const ttmm_router *r)
{
    size_t K, E, n, rows;
    char text[40];
    const real *centroid = given("model/centroids.safetensors", "embeddings", &K, &E);
    real similarity[5], *query = given("query.safetensors", "embedding", &rows, &E);
    must(ttmm_route(&n, number, weight, similarity, query, centroid, K, E, r, &err));
    snprintf(text, sizeof text, "%s.experts", name), put(text, NULL, number, n, 0);
    snprintf(text, sizeof text, "%s.weights", name), put(text, weight, NULL, n, 0);
    put("query", query, NULL, E, 0), put("similarity", similarity, NULL, K, 0);
    return n;
}

static void experts(void)
{
    static const struct {
        const char *name;
        ttmm_router router;
    } more[] = {{"beta", {0.12, 0.01, 50, 0}},
                {"tau", {0.2, 0.2, 50, 0}},
                {"none", {0.2, 0.9, 50, 0}},
                {"max", {0.2, 0.01, 2, 0}},
                {"active", {0.2, 0.01, 50, 1}}};
    const ttmm_router usual = {0.2, 0.01, 50, 0};
    const ttmm_lora *chosen[5];
    real weight[5], other_weight[5];
    int number[5], other[5];
    ttmm_model merged;
    const size_t n = route(number, weight, "default", &usual), room = n_list;
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) { /* query and similarity are there once */
        route(other, other_weight, more[i].name, &more[i].router);
        for (int k = 0; k < 2; k++) n_list--, free((void *)(uintptr_t)list[n_list].data);
    }
    CHECK(room < n_list);
    write_file("route.safetensors");

    for (size_t i = 0; i < n; i++) chosen[i] = &expert[number[i]];
    const ttmm_mix mix = {n, chosen, weight};
    must(ttmm_model_copy(&merged, &model, &err));
    real *scratch = malloc(ttmm_merge_scratch(&model.config, &mix) * sizeof *scratch);
    ttmm_merge(&merged, &model, &mix, scratch);
    free(scratch);
    put_model(&merged), write_file("merged.safetensors");
    put_trace(&merged, NULL, NULL, token, T, 0), write_file("dense.safetensors");
    put_trace(&model, &mix, number, token, T, 0), write_file("lowrank.safetensors");
    ttmm_model_free(&merged);

    const ttmm_pass_size size = {.tokens = T, .sequences = 1, .logits = 1, .rank = ttmm_mix_rank(&mix)};
    ttmm_pass *p;
    double probability[8];
    must(ttmm_pass_new(&p, &model.config, &size, &err));
    const double loss = ttmm_score_ensemble(p, &model, &mix, token, T, 1, probability) / (double)(T - 1);
    put_doubles("probability", probability + 1, T - 1), put_doubles("loss", &loss, 1);
    write_file("ensemble.safetensors");
    ttmm_pass_free(p);
}

static void choices(void)
{
    const ttmm_pass_size size = {.tokens = T, .sequences = 1, .logits = T};
    const size_t start[2] = {0, T}, V = (size_t)model.config.vocab;
    ttmm_pass *p;
    int greedy[8];
    must(ttmm_pass_new(&p, &model.config, &size, &err));
    must(ttmm_forward(p, &model, NULL, token, start, 1));
    const real *logits = ttmm_logits(p, &model, 0, T);
    for (size_t i = 0; i < T; i++) greedy[i] = (int)ttmm_argmax(logits + i * V, V);
    put("greedy", NULL, greedy, T, 0), write_file("choices.safetensors");
    ttmm_pass_free(p);
}

/* Greedy decoding through the key/value cache. */
static void cache(void)
{
    enum { NEW = 6 };
    const size_t V = (size_t)model.config.vocab;
    int tokens[20];
    const size_t prompt = given_integers(tokens, "given/cache.safetensors", "prompt", 10);
    const ttmm_pass_size size = ttmm_decoding_size(prompt, prompt + NEW, 0);
    ttmm_pass *p;
    real logits[NEW * 20];
    must(ttmm_pass_new(&p, &model.config, &size, &err));
    for (size_t n = 0; n < NEW; n++) {
        const real *row = n ? ttmm_feed(p, &model, NULL, tokens + prompt + n - 1, 1)
                            : ttmm_feed(p, &model, NULL, tokens, prompt);
        memcpy(logits + n * V, row, V * sizeof *row);
        tokens[prompt + n] = (int)ttmm_argmax(row, V);
    }
    ttmm_pass_free(p);
    put_trace(&model, NULL, NULL, tokens, prompt + NEW - 1, 1); /* for keys and values */
    for (size_t i = 0; i < n_list; i++)
        if (strcmp(list[i].name, "logits") == 0) snprintf(list[i].name, sizeof list[i].name, "all");
    put("logits", logits, NULL, NEW, V), put("greedy", NULL, tokens + prompt, NEW, 0);
    write_file("cache.safetensors");
}

static void batch(void)
{
    int tokens[20], starts[8];
    const size_t N = given_integers(tokens, "given/batch.safetensors", "tokens", 20);
    const size_t B = given_integers(starts, "given/batch.safetensors", "start", 8) - 1, V = (size_t)model.config.vocab;
    const ttmm_pass_size size = {.tokens = N, .sequences = B, .logits = N, .backward = 1, .trace = 1};
    size_t start[8];
    real nll[20];
    ttmm_model grad;
    ttmm_pass *p;
    for (size_t i = 0; i <= B; i++) start[i] = (size_t)starts[i];
    must(ttmm_pass_new(&p, &model.config, &size, &err));
    must(ttmm_model_new(&grad, &model.config, &err));
    must(ttmm_forward(p, &model, NULL, tokens, start, B));
    for (size_t i = 0; i < ttmm_n_traced(&model.config); i++) {
        const ttmm_array a = ttmm_traced(p, i);
        put_all(&a, 1);
    }
    put("logits", ttmm_logits(p, &model, 0, N), NULL, N, V);
    ttmm_nll(p, &model, nll), put("nll", nll, NULL, N, 0);
    const double loss = ttmm_backward(p, &model, NULL, &grad, NULL);
    put_doubles("loss", &loss, 1);
    for (size_t i = 0; i < ttmm_n_tensors(&model.config); i++) {
        ttmm_array a = ttmm_model_tensor_at(&grad, i);
        char name[sizeof a.name];
        snprintf(name, sizeof name, "grad.%.150s", a.name);
        put(name, a.data, NULL, a.rows, a.cols);
    }
    write_file("batch.safetensors");
    ttmm_model_free(&grad), ttmm_pass_free(p);
}

/* Of the long text the last rows only. */
static void last_rows(const char *from, const char *to)
{
    for (size_t i = 0; i < n_list; i++)
        if (strcmp(list[i].name, from) == 0)
            put(to, list[i].data + (list[i].rows - 5) * list[i].cols, NULL, 5, list[i].cols);
}

static void other_shapes(void)
{
    static const char *const name[] = {"tied", "qwen2", "linear", "llama3", "long"};
    for (int i = 0; i < 5; i++) {
        char file[40];
        ttmm_model m;
        must(ttmm_model_read(&m, at(name[i]), &err));
        const size_t n = i < 4 ? T : read_tokens("long/tokens.ids");
        put_trace(&m, NULL, NULL, token, n, 0);
        last_rows("layers.0.q", "q_last"), last_rows("layers.0.k", "k_last"), last_rows("logits", "logits_last");
        snprintf(file, sizeof file, "%s.safetensors", name[i]), write_file(file);
        ttmm_model_free(&m);
    }
    T = read_tokens("tokens.ids");
}

/* The norm of the gradients in a trace: the trainer does not tell it. */
static double norm_of_gradients(const ttmm_model *m, const ttmm_mix *mix, const int *tokens, size_t n)
{
    ttmm_trace t;
    double square = 0;
    must(ttmm_trace_new(&t, m, mix, NULL, tokens, n, 0, 1, &err));
    for (size_t i = 0; i < t.n; i++) {
        const size_t count = t.array[i].rows * (t.array[i].cols ? t.array[i].cols : 1);
        for (size_t k = 0; strstr(t.array[i].name, "grad.") && k < count; k++)
            square += (double)t.array[i].data[k] * (double)t.array[i].data[k];
    }
    ttmm_trace_free(&t);
    return sqrt(square);
}

/* Training on all weights, the tokens being the one sequence of a corpus; loss and norm before each step. */
static void optimiser(void)
{
    size_t ends[2] = {0, T};
    const ttmm_corpus c = {.n_tokens = T, .n_documents = 1, .n_sequences = 1, .token = token, .sequence = ends};
    const ttmm_recipe r = {{0.01, 0, 0.05, 1}, 0.9, 0.98, 1e-3, 0.05, 3.4, 1, 0, 0};
    ttmm_model m;
    ttmm_trainer *trainer;
    double loss[3], norm[3], rate[3];
    must(ttmm_model_copy(&m, &model, &err));
    must(ttmm_trainer_new(&trainer, &m, NULL, &c, &r, &err));
    ttmm_trainer_start(trainer, NULL, 0, 3, 0, 0);
    for (int n = 0; n < 3; n++) {
        norm[n] = norm_of_gradients(&m, NULL, token, T), rate[n] = ttmm_rate(&r.schedule, n, 3);
        CHECK_EQUAL(ttmm_trainer_step(trainer, &loss[n]), 1);
    }
    put_doubles("loss", loss, 3), put_doubles("norm", norm, 3), put_doubles("rate", rate, 3);
    put_model(&m), write_file("optimiser.safetensors");
    ttmm_trainer_free(trainer), ttmm_model_free(&m);
}

static void adamw(void)
{
    enum { STEPS = 12, N = 10 };
    size_t rows, cols;
    const real *start = given("given/adamw.safetensors", "start", &rows, &cols);
    const real *grad = given("given/adamw.safetensors", "grad", &rows, &cols);
    const ttmm_adamw o = {0.02, 0.9, 0.98, 1e-3, 0.05};
    const span all = {0, N, 0};
    real w[(STEPS + 1) * N], m[(STEPS + 1) * N] = {0}, v[(STEPS + 1) * N] = {0}; /* row n: after step n */
    double norm[STEPS], factor[STEPS];
    memcpy(w, start, N * sizeof *w);
    for (size_t n = 0; n < STEPS; n++) {
        memcpy(w + (n + 1) * N, w + n * N, N * sizeof *w);
        memcpy(m + (n + 1) * N, m + n * N, N * sizeof *m);
        memcpy(v + (n + 1) * N, v + n * N, N * sizeof *v);
        norm[n] = sqrt((double)dot(grad + n * N, grad + n * N, N)), factor[n] = clip_factor(grad + n * N, &all, 1, 1);
        ttmm_adamw_step(w + (n + 1) * N, grad + n * N, m + (n + 1) * N, v + (n + 1) * N, N, &o, (long)n + 1, factor[n]);
    }
    put_doubles("norm", norm, STEPS), put_doubles("factor", factor, STEPS);
    put("w", w + N, NULL, STEPS, N), put("m", m + N, NULL, STEPS, N), put("v", v + N, NULL, STEPS, N);
    write_file("adamw.safetensors");
}

static void schedule(void)
{
    static const struct {
        const char *name;
        long steps;
        ttmm_schedule schedule;
    } each[] = {
        {"cosine", 50, {0.02, 0.112, 0.05, 1}}, {"linear", 30, {0.01, 0, 0.05, 0}}, {"warm", 20, {0.01, 0.25, 0, 0}}};
    double rate[64];
    for (int i = 0; i < 3; i++) {
        for (long s = 0; s < each[i].steps; s++) rate[s] = ttmm_rate(&each[i].schedule, s, each[i].steps);
        put_doubles(each[i].name, rate, (size_t)each[i].steps);
    }
    write_file("schedule.safetensors");
}

/* Texts as sequences of a corpus of bytes. */
static void embedding(void)
{
    int bytes[400];
    size_t ends[4] = {0};
    char name[20];
    for (size_t i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "text.%d", (int)i);
        ends[i + 1] = ends[i] + given_integers(bytes + ends[i], "given/embed.safetensors", name, 100);
    }
    ttmm_corpus c = {.n_tokens = ends[3], .n_sequences = 3, .token = bytes, .sequence = ends};
    must(ttmm_corpus_embed(&c, NULL, &err));
    for (int i = 0; i < 3; i++) {
        real value[400], idf[400];
        int bucket[400];
        size_t n = 0;
        for (size_t b = 0; b < TTMM_EMBED_DIM; b++) {
            const real x = c.embedding[(size_t)i * TTMM_EMBED_DIM + b];
            if (x != 0 && n < 400) bucket[n] = (int)b, value[n] = x, idf[n++] = c.idf[b];
        }
        snprintf(name, sizeof name, "bucket.%d", i), put(name, NULL, bucket, n, 0);
        snprintf(name, sizeof name, "value.%d", i), put(name, value, NULL, n, 0);
        snprintf(name, sizeof name, "idf.%d", i), put(name, idf, NULL, n, 0);
    }
    write_file("embed.safetensors");
    free(c.embedding_block);
}

static void clusters_and_neighbours(void)
{
    enum { K = 4, NEAREST = 6, SIFT = 8 };
    size_t n, E, rows, index[SIFT];
    int cluster[64];
    real centroid[K * 6], scratch[32 * (SIFT + 2)];
    const real *x = given("given/cluster.safetensors", "x", &n, &E);
    CHECK(n <= 64 && E == 6);
    must(ttmm_cluster(cluster, centroid, x, n, E, K, 1, &err));
    put("cluster", NULL, cluster, n, 0), put("centroid", centroid, NULL, K, E);
    write_file("cluster.safetensors");

    const real *query = given("given/nearest.safetensors", "query", &rows, &E);
    x = given("given/nearest.safetensors", "x", &n, &E);
    CHECK(n <= 32);
    similarities(scratch, query, x, n, E), put("similarity", scratch, NULL, n, 0);
    ttmm_nearest(index, NEAREST, query, x, n, E, scratch), put_indices("nearest", index, NEAREST);
    ttmm_sift(index, SIFT, query, x, n, E, 0.01, scratch), put_indices("sift", index, SIFT);
    write_file("nearest.safetensors");
}

/* What ttmm_ttt_train does, from a given adapter: the two nearest sequences, the nearer one last, twice. */
static void test_time_training(void)
{
    enum { NEAREST = 2, STEPS = 4 };
    const char *file = "given/ttt.safetensors";
    int tokens[64], starts[8];
    size_t start[8], n, E, rows, index[NEAREST];
    real scratch[8];
    const size_t N = given_integers(tokens, file, "tokens", 64), S = given_integers(starts, file, "start", 8) - 1;
    real *embedding = given(file, "embeddings", &n, &E);
    const real *query = given(file, "query", &rows, &E);
    for (size_t i = 0; i <= S; i++) start[i] = (size_t)starts[i];
    const ttmm_corpus c = {.n_tokens = N, .n_documents = 1, .n_sequences = S, .token = tokens, .sequence = start};
    const ttmm_recipe r = {{0.05, 0, 0, 0}, 0.9, 0.98, 0.1, 0, 1, 1, 0, 0};
    ttmm_lora lora;
    const ttmm_lora *only = &lora;
    const real one = 1;
    const ttmm_mix mix = {1, &only, &one};
    ttmm_trainer *trainer;
    double loss[STEPS], norm[STEPS], rate[STEPS];
    must(ttmm_lora_read(&lora, &model.config, at("ttt"), &err));
    must(ttmm_trainer_new(&trainer, &model, &lora, &c, &r, &err));
    ttmm_nearest(index, NEAREST, query, embedding, S, E, scratch);
    const size_t order[NEAREST] = {index[1], index[0]};
    put_indices("index", order, NEAREST);
    ttmm_trainer_start(trainer, order, NEAREST, 0, STEPS / NEAREST, 0);
    for (long s = 0; s < STEPS; s++) {
        const size_t i = order[s % NEAREST];
        norm[s] = norm_of_gradients(&model, &mix, tokens + start[i], start[i + 1] - start[i]);
        rate[s] = ttmm_rate(&r.schedule, s, STEPS);
        CHECK_EQUAL(ttmm_trainer_step(trainer, &loss[s]), 1);
        for (size_t k = 0; k < ttmm_lora_tensors(&lora); k++) {
            const ttmm_array a = ttmm_lora_tensor_at(&lora, k);
            char name[sizeof a.name];
            if (lora.matrix[k / 2].rank == 0) continue;
            snprintf(name, sizeof name, "step.%ld.%.140s", s + 1, a.name), put(name, a.data, NULL, a.rows, a.cols);
        }
    }
    put_doubles("loss", loss, STEPS), put_doubles("norm", norm, STEPS), put_doubles("rate", rate, STEPS);
    write_file("ttt.safetensors");
    ttmm_trainer_free(trainer), ttmm_lora_free(&lora);
}

/* The given numbers are the stream from this state on (test/oracle.py). */
static void sampling(void)
{
    static const struct {
        const char *name;
        ttmm_sampler sampler;
    } each[] = {{"plain", {1, 1, 0}},
                {"cold", {0.5, 1, 0}},
                {"nucleus", {1, 0.7, 0}},
                {"top", {1.5, 1, 5}},
                {"both", {0.8, 0.85, 6}}};
    enum { N = 40 };
    size_t rows, V, n;
    int chosen[N];
    const real *logits = given("given/sample.safetensors", "logits", &rows, &V);
    const real *u = given("given/sample.safetensors", "u", &rows, &n);
    void *scratch = malloc(ttmm_sample_scratch(V));
    CHECK_EQUAL(n, N);
    for (int i = 0; i < 5; i++) {
        ttmm_rng g = {20250514};
        for (int k = 0; k < N; k++) {
            ttmm_rng next = g;
            CHECK_EQUAL((real)ttmm_uniform(&next), u[k]);
            chosen[k] = ttmm_sample(logits, V, &each[i].sampler, &g, scratch);
        }
        put(each[i].name, NULL, chosen, N, 0);
    }
    write_file("sample.safetensors");
    free(scratch);
}

static void tokenizing(void)
{
    ttmm_tokenizer *tokenizer;
    must(ttmm_tokenizer_read(&tokenizer, at("bpe"), &err));
    for (int i = 0; i < 7; i++) {
        char name[20], text[200];
        int byte[200], *ids;
        size_t n;
        snprintf(name, sizeof name, "text.%d", i);
        const size_t bytes = given_integers(byte, "given/bpe.safetensors", name, 200);
        for (size_t b = 0; b < bytes; b++) text[b] = (char)byte[b];
        must(ttmm_tokenize(&ids, &n, tokenizer, text, bytes, &err));
        snprintf(name, sizeof name, "ids.%d", i), put(name, NULL, ids, n, 0);
        free(ids);
    }
    write_file("bpe.safetensors");
    ttmm_tokenizer_free(tokenizer);
}

static void judged(void *context, const char *file, const ttmm_difference *d)
{
    char text[400];
    (void)context;
    if (d && d->verdict <= TTMM_NEAR_TIE) passed++;
    else if (d) {
        snprintf(text, sizeof text, "%s: %s: verdict %d, off %g, at most %g", file, d->name, d->verdict, d->max_rel,
                 d->tolerance);
        test_failed(__FILE__, __LINE__, text, "right", "it is not");
    }
}

static void all_files(void)
{
    size_t failures;
    must(ttmm_check(VECTORS, FOLDER, IS_DOUBLE ? "f64" : "f32", judged, NULL, &failures, &err));
}

int main(void)
{
    must(ttmm_make_folder(FOLDER, &err));
    RUN(read_inputs), RUN(passes), RUN(experts), RUN(choices), RUN(cache), RUN(batch), RUN(other_shapes),
        RUN(optimiser);
    RUN(adamw), RUN(schedule), RUN(embedding), RUN(clusters_and_neighbours), RUN(test_time_training), RUN(sampling);
    RUN(tokenizing), RUN(all_files);
    return test_end("vectors");
}
