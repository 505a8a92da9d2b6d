/* vectors.c - ttmm against an independent float64 implementation: everything that test/README.md lists, and the
 * optimiser, the schedules, clustering and SIFT, computed with the library and compared with test/vectors (made by
 * test/oracle.py with PyTorch, scikit-learn and numpy). In the double build values agree to 1e-12 and gradients to
 * 1e-10 of a tensor's largest number; in the float build each kind of tensor of each file is held to 4 times its own
 * error, as measured.
 *     test/build/vectors-f64            compare with test/vectors
 *     test/build/vectors-f64 FOLDER     write the files that test/README.md lists into FOLDER (make vectors)
 *     test/build/vectors-f32 errors > test/vectors/float-errors.txt    measure the float build's errors */
#include "test.h"

#define IS_DOUBLE (sizeof(real) == 8)
#define VECTORS_FOLDER "test/vectors"

static ttmm_error err;
static const char *out_folder, *file_name; /* where files are written; which one is being compared */
static int show_errors;

static void must(int code)
{
    if (code < 0) {
        printf("%s: code %d: %s\n", test_name, code, err.text);
        exit(1);
    }
}

static const char *at(const char *folder, const char *name)
{
    static char path[8][300];
    static int next;
    next = (next + 1) % 8;
    snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
    return path[next];
}

/* The float build's largest error, relative to the tensor's largest number, of each kind of tensor in each file: as
 * FLOAT_ERRORS has it, and now. */
#define FLOAT_ERRORS VECTORS_FOLDER "/float-errors.txt"
static struct {
    char file[40], name[40];
    double measured, now;
} kinds[400];
static size_t n_kinds;

static void read_float_errors(void)
{
    FILE *f = fopen(FLOAT_ERRORS, "r");
    while (f && n_kinds < 400 &&
           fscanf(f, "%39s %39s %lg", kinds[n_kinds].file, kinds[n_kinds].name, &kinds[n_kinds].measured) == 3)
        n_kinds++;
    if (f) fclose(f);
    CHECK(n_kinds > 100 || show_errors);
}

/* layers.0.attn_norm is of the kind attn_norm, grad.model.layers.1.mlp.up_proj.weight of grad.up_proj,
 * model.layers.1.mlp.up_proj.weight of up_proj. */
static size_t kind_of(const char *name)
{
    char text[200], kind[40];
    size_t k = 0;
    snprintf(text, sizeof text, "%s", name);
    char *end = strstr(text, ".weight");
    if (end) *end = 0;
    const char *last = strrchr(text, '.') ? strrchr(text, '.') + 1 : text;
    snprintf(kind, sizeof kind, "%s%.30s", strncmp(name, "grad.", 5) == 0 ? "grad." : "", last);
    while (k < n_kinds && (strcmp(kinds[k].file, file_name) != 0 || strcmp(kinds[k].name, kind) != 0)) k++;
    if (k < n_kinds || n_kinds == 399) return k;
    snprintf(kinds[k].file, sizeof kinds[k].file, "%s", file_name);
    snprintf(kinds[k].name, sizeof kinds[k].name, "%s", kind);
    return n_kinds++;
}

static void hold(void *context, const ttmm_difference *d)
{
    const size_t k = kind_of(d->name);
    const double bound = !IS_DOUBLE ? 4 * kinds[k].measured : strncmp(d->name, "grad.", 5) == 0 ? 1e-10 : 1e-12;
    char text[400];
    (void)context;
    if (d->max_rel > kinds[k].now) kinds[k].now = d->max_rel;
    snprintf(text, sizeof text, "%s: %s: max_rel %g, verdict %d (%s, %s)", file_name, d->name, d->max_rel, d->verdict,
             d->shape[0], d->shape[1]);
    if (d->verdict == TTMM_SAME || (d->verdict <= TTMM_PAST && d->max_rel <= bound)) passed++;
    else test_failed(__FILE__, __LINE__, text, "agreement", "none");
}

/* Write arrays as out_folder/name, and hold them against the file of that name in test/vectors. */
static void check_file(const char *name, const ttmm_array *array, size_t n)
{
    size_t failures;
    must(ttmm_arrays_write(array, n, at(out_folder, name), "", &err));
    file_name = name;
    must(ttmm_compare(at(VECTORS_FOLDER, name), at(out_folder, name), 0, 0, hold, NULL, &failures, &err));
}

static ttmm_model model;
static ttmm_lora expert[4];
static int token[2048];
static size_t T;

static void read_inputs(void)
{
    FILE *f = fopen(VECTORS_FOLDER "/tokens.ids", "r");
    must(ttmm_model_read(&model, VECTORS_FOLDER "/model", &err));
    for (int k = 0; k < 4; k++) {
        char name[40];
        snprintf(name, sizeof name, "model/experts/%d", k);
        must(ttmm_lora_read(&expert[k], &model.config, at(VECTORS_FOLDER, name), &err));
    }
    while (f && fscanf(f, "%d", &token[T]) == 1) T++;
    if (f) fclose(f);
    CHECK_EQUAL(T, 4);
}

/* Trace, put it after the arrays `before`, check. */
static void check_trace(const char *name, const ttmm_model *m, const ttmm_mix *mix, const int *number, int gradients,
                        const ttmm_array *before, size_t n)
{
    ttmm_trace t;
    ttmm_array all[400];
    must(ttmm_trace_new(&t, m, mix, number, token, T, 0, gradients, &err));
    if (n) memcpy(all, before, n * sizeof *all);
    memcpy(all + n, t.array, t.n * sizeof *all);
    check_file(name, all, n + t.n);
    ttmm_trace_free(&t);
}

static size_t weights_of(ttmm_array *a, const ttmm_model *m) /* a [tensors] overwritten */
{
    const size_t n = ttmm_n_tensors(&m->config);
    for (size_t i = 0; i < n; i++) a[i] = ttmm_model_tensor_at(m, i);
    return n;
}

static void passes(void)
{
    const real one = 1;
    const ttmm_lora *only = &expert[1], *chosen[4];
    const ttmm_mix adapter = {1, &only, &one};
    check_trace("base.safetensors", &model, NULL, NULL, 1, NULL, 0);
    check_trace("adapter.safetensors", &model, &adapter, NULL, 1, NULL, 0);

    const ttmm_router r = {0.2, 0.01, 50, 0};
    real *centroid, *query, weight[4], similarity[4], *scratch;
    size_t K, E, rows, n;
    int number[4];
    ttmm_model merged;
    ttmm_array a[100];
    must(ttmm_array_read(&centroid, &K, &E, VECTORS_FOLDER "/model/centroids.safetensors", "embeddings", &err));
    must(ttmm_array_read(&query, &rows, &E, VECTORS_FOLDER "/query.safetensors", "embedding", &err));
    must(ttmm_route(&n, number, weight, similarity, query, centroid, K, E, &r, &err));
    for (size_t i = 0; i < n; i++) chosen[i] = &expert[number[i]];
    const ttmm_mix mix = {n, chosen, weight};
    const ttmm_array routing[] = {{"query", E, 0, query, NULL},
                                  {"similarity", K, 0, similarity, NULL},
                                  {"experts", n, 0, NULL, number},
                                  {"weights", n, 0, weight, NULL}};
    must(ttmm_model_copy(&merged, &model, &err));
    scratch = malloc(ttmm_merge_scratch(&model.config, &mix) * sizeof *scratch);
    ttmm_merge(&merged, &model, &mix, scratch);
    check_trace("dense.safetensors", &merged, NULL, NULL, 0, routing, 4);
    check_trace("lowrank.safetensors", &model, &mix, number, 1, routing, 4);
    check_file("merged.safetensors", a, weights_of(a, &merged));
    ttmm_model_free(&merged);
    free(scratch), free(centroid), free(query);
}

/* The token of the largest logit at each position, and how far it is from the second. */
static void choices(void)
{
    const size_t V = (size_t)model.config.vocab;
    ttmm_trace t;
    int greedy[8];
    real margin[8];
    must(ttmm_trace_new(&t, &model, NULL, NULL, token, T, 0, 0, &err));
    const real *logits = t.array[t.n - 2].data;
    CHECK_TEXT(t.array[t.n - 2].name, "logits");
    for (size_t i = 0; i < T; i++) {
        const real *row = logits + i * V;
        real second = -INFINITY;
        size_t best = 0;
        for (size_t v = 1; v < V; v++) best = row[v] > row[best] ? v : best;
        for (size_t v = 0; v < V; v++) second = v != best && row[v] > second ? row[v] : second;
        greedy[i] = (int)best, margin[i] = row[best] - second;
    }
    const ttmm_array a[] = {{"greedy", T, 0, NULL, greedy}, {"margin", T, 0, margin, NULL}};
    check_file("choices.safetensors", a, 2);
    ttmm_trace_free(&t);
}

/* Three steps of the trainer on the tokens as one sequence; loss and norm before each from a trace. */
static void optimiser(void)
{
    size_t ends[2] = {0, T};
    int zero[1] = {0};
    ttmm_corpus c = {.n_tokens = T,
                     .n_documents = 1,
                     .n_sequences = 1,
                     .token = token,
                     .document = ends,
                     .document_file = zero,
                     .sequence = ends,
                     .sequence_document = zero};
    const ttmm_recipe r = {{0.01, 0, 0.05, 1}, 0.9, 0.98, 1e-3, 0.05, 0.5, 1, 0, 0};
    ttmm_model m;
    ttmm_trainer *trainer;
    ttmm_array a[100];
    double loss;
    real losses[3], norms[3], rates[3];
    must(ttmm_model_copy(&m, &model, &err));
    must(ttmm_trainer_new(&trainer, &m, NULL, &c, &r, &err));
    ttmm_trainer_start(trainer, NULL, 0, 3, 0, 0);
    for (int n = 0; n < 3; n++) {
        double square = 0;
        ttmm_trace t;
        must(ttmm_trace_new(&t, &m, NULL, NULL, token, T, 0, 1, &err));
        for (size_t i = 0; i < t.n; i++) {
            const size_t count = t.array[i].rows * (t.array[i].cols ? t.array[i].cols : 1);
            for (size_t k = 0; strstr(t.array[i].name, "grad.") && k < count; k++)
                square += (double)t.array[i].data[k] * (double)t.array[i].data[k];
        }
        ttmm_trace_free(&t);
        CHECK_EQUAL(ttmm_trainer_step(trainer, &loss), 1);
        losses[n] = (real)loss, norms[n] = (real)sqrt(square), rates[n] = (real)ttmm_rate(&r.schedule, n, 3);
    }
    a[0] = (ttmm_array){"loss", 3, 0, losses, NULL};
    a[1] = (ttmm_array){"norm", 3, 0, norms, NULL};
    a[2] = (ttmm_array){"rate", 3, 0, rates, NULL};
    const size_t n = 3 + weights_of(a + 3, &m);
    check_file("optimiser.safetensors", a, n);
    ttmm_trainer_free(trainer);
    ttmm_model_free(&m);
}

/* Other shapes: tied; 2,000 positions. Their files have the loss, the last five rows of logits, and all gradients. */
static void other_shapes(void)
{
    static const char *const name[] = {"tied", "long"};
    for (int i = 0; i < 2; i++) {
        ttmm_model m;
        ttmm_trace t;
        safetensors s;
        ttmm_array a[100];
        size_t n = 0;
        char file[60];
        snprintf(file, sizeof file, "%s/expected.safetensors", name[i]);
        must(ttmm_model_read(&m, at(VECTORS_FOLDER, name[i]), &err));
        must(open_safetensors(&s, NULL, at(VECTORS_FOLDER, file), &err));
        const size_t length = find_tensor(&s, "tokens")->dim[0];
        CHECK(length <= sizeof token / sizeof *token);
        must(read_tensor(&s, "tokens", token, I32, length, 1, &err));
        close_safetensors(&s);
        must(ttmm_trace_new(&t, &m, NULL, NULL, token, length, 0, 1, &err));
        for (size_t k = 0; k < t.n && n < 100; k++) {
            ttmm_array *b = &t.array[k];
            if (strcmp(b->name, "logits") == 0) {
                snprintf(b->name, sizeof b->name, "logits_last");
                b->data += (b->rows - 5) * b->cols, b->rows = 5;
            } else if (!strstr(b->name, "grad.") && strcmp(b->name, "loss") && strcmp(b->name, "tokens")) continue;
            a[n++] = *b;
        }
        must(ttmm_make_folder(at(out_folder, name[i]), &err));
        check_file(file, a, n);
        ttmm_trace_free(&t);
        ttmm_model_free(&m);
    }
}

static const real *numbers(const char *name, size_t *n) /* of methods.safetensors */
{
    static real *read[8];
    static int next;
    size_t rows, cols;
    next = (next + 1) % 8;
    free(read[next]);
    must(ttmm_array_read(&read[next], &rows, &cols, VECTORS_FOLDER "/methods.safetensors", name, &err));
    *n = rows * cols;
    return read[next];
}

/* AdamW over 50 clipped steps under warm-up and cosine: torch.optim.AdamW, clip_grad_norm_, SequentialLR. */
static void adamw_of_torch(void)
{
    const ttmm_schedule cosine = {0.02, 0.1, 0.05, 1}, linear = {0.01, 0, 0.05, 0};
    size_t n, k;
    real w[10], m[10] = {0}, v[10] = {0};
    const real *grad = numbers("adamw.grad", &n), *norm = numbers("adamw.norm", &k), *rate = numbers("adamw.rate", &k);
    memcpy(w, numbers("adamw.start", &k), sizeof w);
    CHECK_EQUAL(n, 500);
    for (int t = 0; t < 50; t++) {
        const span all = {0, 10, 0};
        const ttmm_adamw o = {ttmm_rate(&cosine, t, 50), 0.9, 0.98, 1e-8, 0.05};
        const double clip = clip_factor(grad + 10 * t, &all, 1, 1), expected = 1 / ((double)norm[t] + 1e-6);
        CHECK_RELATIVE(clip, expected < 1 ? expected : 1, IS_DOUBLE ? 1e-14 : 1e-6, 0);
        CHECK_RELATIVE(o.lr, rate[t], IS_DOUBLE ? 1e-14 : 1e-7, 0);
        ttmm_adamw_step(w, grad + 10 * t, m, v, 10, &o, t + 1, clip);
    }
    const real *end = numbers("adamw.end", &k);
    for (int i = 0; i < 10; i++) CHECK_RELATIVE(w[i], end[i], IS_DOUBLE ? 1e-13 : 2e-6, 0.01);
    rate = numbers("linear.rate", &k);
    for (int t = 0; t < 30; t++) CHECK_RELATIVE(ttmm_rate(&linear, t, 30), rate[t], IS_DOUBLE ? 1e-14 : 1e-7, 0);
}

/* Clusters of scikit-learn's BisectingKMeans, numbered by first appearance; SIFT by its formula in numpy. */
static void clusters_and_sift(void)
{
    enum { N = 40, E = 8, K = 5, M = 12 };
    size_t n, index[M];
    safetensors s;
    int label[N], chosen[M], cluster[N], number[K], seen = 0;
    real centroid[K * E + SLACK], scratch[N * (M + 2)];
    must(open_safetensors(&s, NULL, VECTORS_FOLDER "/methods.safetensors", &err));
    must(read_tensor(&s, "cluster.label", label, I32, N, 1, &err));
    must(read_tensor(&s, "sift.index", chosen, I32, M, 1, &err));
    close_safetensors(&s);
    const real *x = numbers("cluster.x", &n), *middle = numbers("cluster.centroid", &n);
    must(ttmm_cluster(cluster, centroid, x, N, E, K, 1, &err));
    for (int k = 0; k < K; k++) number[k] = -1;
    for (int i = 0; i < N; i++) {
        if (number[cluster[i]] < 0) number[cluster[i]] = seen++;
        CHECK_EQUAL(number[cluster[i]], label[i]);
    }
    for (int k = 0; k < K; k++)
        for (int e = 0; e < E; e++)
            CHECK_NEAR(centroid[k * E + e], middle[number[k] * E + e], IS_DOUBLE ? 1e-15 : 2e-7);
    ttmm_sift(index, M, numbers("sift.query", &n), x, N, E, 0.01, scratch);
    for (int i = 0; i < M; i++) CHECK_EQUAL(index[i], chosen[i]);
}

int main(int argc, char **argv)
{
    show_errors = argc > 1 && strcmp(argv[1], "errors") == 0;
    out_folder = argc > 1 && !show_errors ? argv[1]
                 : IS_DOUBLE              ? "test/build/vectors-f64.d"
                                          : "test/build/vectors-f32.d";
    must(ttmm_make_folder(out_folder, &err));
    RUN(read_float_errors), RUN(read_inputs), RUN(passes), RUN(choices), RUN(optimiser);
    if (argc < 2 || show_errors) RUN(other_shapes), RUN(adamw_of_torch), RUN(clusters_and_sift);
    for (size_t k = 0; k < n_kinds && show_errors; k++)
        printf("%s %s %.1e\n", kinds[k].file, kinds[k].name, kinds[k].now);
    if (show_errors) return 0;
    printf("vectors (%s): %ld passed, %ld failed\n", IS_DOUBLE ? "double" : "float", passed, failed);
    return failed > 0;
}
