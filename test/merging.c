/* merging.c - why does a merged adapter answer differently from an unmerged one?
 *
 * W is the base's weights, d the update of an adapter or of several mixed, bf16( ) and f16( ) round to the nearest,
 * ties to even. On every sequence of the files the model is computed with d beside the weights, W x + s B (A x), and
 * merged into them, (W + d) x, in the ways that users do it: with the fine-tuned adapter; with the experts that run
 * would choose; and (in float) with the fine-tuned adapter scaled down. 16 bits are for stored weights only: all
 * arithmetic is in this build's precision, float32 or (-DTTMM_DOUBLE) float64.
 *   test/build/merging MODEL FILE...        test/errors.sh runs both: demo/model data/test/x.txt ...
 *
 *   out N       of layers.N.out, |compared - reference| / |reference| over all positions;   logits: the same of them
 *   greedy %    of the positions: where the largest logit is another token's
 *   KL          mean of KL(reference || compared) of the next token's distribution, in nats
 *   perplexity  of the compared
 * and of merged weights W', S = W, bf16(W) or f16(W) being those they were stored as before:
 *   unmoved %   of the weights: where W' = S
 *   kept %      <W' - S, d> / <d, d>: how much of the update arrives
 *   error       |W' - S - d| / |d| */
#include "../ttmm.c"

/* What is computed. Beside S = W, bf16(W), f16(W), d takes part in the pass; the others are plain models. */
enum { ALONE, LOWRANK, MERGED, BF, BF_MERGED, BF_ONCE, HF, HF_MERGED, HF_ONCE, VARIANTS };
enum { MOST_LAYERS = 64, NO_WEIGHTS = -1 };

typedef struct {
    int reference, compared;
    int stored; /* S of the merged weights, or NO_WEIGHTS */
    const char *name[2];
    double off[MOST_LAYERS + 1], size[MOST_LAYERS + 1]; /* squares, of each layer's out and the logits */
    double changed, kl, loss;                           /* sums over positions */
    double weights, unmoved, kept, wrong, d2, w2;       /* over weights; d2, w2: squares of d and S */
} comparison;

static const comparison comparisons[] = {
    {.reference = LOWRANK, .compared = ALONE, .stored = NO_WEIGHTS, .name = {"W, d beside", "W alone"}},
    {.reference = LOWRANK, .compared = MERGED, .stored = ALONE, .name = {"W, d beside", "W + d"}},
    {.reference = LOWRANK, .compared = BF, .stored = NO_WEIGHTS, .name = {"W, d beside", "bf16(W), d beside"}},
    {.reference = BF, .compared = BF_MERGED, .stored = BF, .name = {"bf16(W), d beside", "bf16(bf16(W) + d)"}},
    {.reference = LOWRANK, .compared = BF_ONCE, .stored = BF, .name = {"W, d beside", "bf16(W + d)"}},
    {.reference = LOWRANK, .compared = HF, .stored = NO_WEIGHTS, .name = {"W, d beside", "f16(W), d beside"}},
    {.reference = HF, .compared = HF_MERGED, .stored = HF, .name = {"f16(W), d beside", "f16(f16(W) + d)"}},
    {.reference = LOWRANK, .compared = HF_ONCE, .stored = HF, .name = {"W, d beside", "f16(W + d)"}},
};
enum { COMPARISONS = sizeof comparisons / sizeof *comparisons };

static ttmm_model model[VARIANTS], update; /* update: d */
static comparison row[COMPARISONS];
static double positions, predictions, adapters; /* sums over sequences */
static ttmm_error error;

static void check(int code)
{
    if (code == TTMM_OK) return;
    fprintf(stderr, "merging: %s\n", error.text);
    exit(-code);
}

/* ---- Rounding to 16 bits ----------------------------------------------------------------------------------------- */

static double largest_of(int dtype) { return decode_number(dtype == F16 ? 0x7bff : 0x7f7f, dtype); }

static double rounded(double x, int dtype)
{
    const double ulp = ulp_of(x, dtype), y = rint(x / ulp) * ulp; /* rint: to even */
    return fabs(y) > largest_of(dtype) ? copysign(INFINITY, x) : y;
}

static void round_model(ttmm_model *m, int dtype)
{
    for (size_t i = 0; i < m->n; i++) m->data[i] = (real)rounded((double)m->data[i], dtype);
}

/* Known values; and every 16-bit number, the middle between it and the next, and the doubles beside that middle. */
static int rounding_is_right(int dtype)
{
    const double most = largest_of(dtype), half = ulp_of(most, dtype) / 2;
    int right = rounded(0.1, dtype) == (dtype == F16 ? 0.0999755859375 : 0.10009765625) &&
                rounded(1 + 0x1p-8, dtype) == (dtype == F16 ? 1 + 0x1p-8 : 1) &&
                rounded(1 + 0x3p-8, dtype) == (dtype == F16 ? 1 + 0x3p-8 : 1 + 0x1p-6) &&
                rounded(nextafter(most + half, 0), dtype) == most && rounded(-most - half, dtype) == -INFINITY;
    for (uint64_t i = 0; decode_number(i, dtype) < most; i++) {
        const double a = decode_number(i, dtype), b = decode_number(i + 1, dtype), middle = (a + b) / 2;
        right = right && rounded(a, dtype) == a && rounded(-b, dtype) == -b &&
                rounded(middle, dtype) == (i % 2 ? b : a) && rounded(-middle, dtype) == (i % 2 ? -b : -a) &&
                rounded(nextafter(middle, a), dtype) == a && rounded(nextafter(middle, b), dtype) == b;
    }
    return right;
}

/* ---- Comparing --------------------------------------------------------------------------------------------------- */

static void add_difference(comparison *c, int layer, const ttmm_array *a, const ttmm_array *b)
{
    for (size_t i = 0; i < a->rows * a->cols; i++) {
        const double off = (double)b->data[i] - (double)a->data[i];
        c->off[layer] += off * off, c->size[layer] += (double)a->data[i] * (double)a->data[i];
    }
}

static double log_of_total(const real *logits, size_t V)
{
    const double most = (double)largest(logits, V);
    double total = 0;
    for (size_t v = 0; v < V; v++) total += ttmm_exp((double)logits[v] - most);
    return most + ttmm_log(total);
}

/* KL(p || q) = sum p log(p / q) = sum p (e^x - 1 - x), x = log(q / p): no term is negative, tiny ones do not cancel. */
static double divergence(const real *a, const real *b, size_t V)
{
    const double total_a = log_of_total(a, V), total_b = log_of_total(b, V);
    double kl = 0;
    for (size_t v = 0; v < V; v++) {
        const double log_p = (double)a[v] - total_a, x = (double)b[v] - total_b - log_p;
        kl += ttmm_exp(log_p) * (fabs(x) < 1e-3 ? x * x / 2 * (1 + x / 3 + x * x / 12) : ttmm_exp(x) - 1 - x);
    }
    return kl;
}

static void add_traces(comparison *c, const ttmm_trace *a, const ttmm_trace *b)
{
    int layer = 0;
    for (size_t i = 0; i < a->n; i++) {
        const ttmm_array *x = &a->array[i], *y = &b->array[i];
        if (strcmp(x->name, "logits") == 0) {
            add_difference(c, layer, x, y);
            for (size_t r = 0; r < x->rows; r++) {
                const real *p = x->data + r * x->cols, *q = y->data + r * y->cols;
                c->changed += ttmm_argmax(p, x->cols) != ttmm_argmax(q, y->cols);
                c->kl += divergence(p, q, x->cols);
            }
        } else if (strstr(x->name, ".out")) add_difference(c, layer++, x, y);
        else if (strcmp(x->name, "loss") == 0) c->loss += (double)y->data[0] * (double)(a->array[0].rows - 1);
    }
}

/* Over the seven matrices of every layer. */
static void add_weights(comparison *c, const ttmm_model *merged, const ttmm_model *from)
{
    for (size_t t = 0; t < ttmm_n_tensors(&from->config); t++) {
        const ttmm_tensor s = ttmm_tensor_at(&from->config, t);
        for (size_t i = s.offset; s.kind < TTMM_MATRICES && i < s.offset + s.rows * s.cols; i++) {
            const double d = (double)update.data[i], w = (double)from->data[i], moved = (double)merged->data[i] - w;
            c->weights++, c->unmoved += moved == 0, c->kept += moved * d, c->wrong += (moved - d) * (moved - d);
            c->d2 += d * d, c->w2 += w * w;
        }
    }
}

/* All variants of one sequence. */
static void measure(const ttmm_mix *mix, const int *token, size_t T)
{
    static const int from[VARIANTS] = {
        [MERGED] = ALONE, [BF_MERGED] = BF, [BF_ONCE] = ALONE, [HF_MERGED] = HF, [HF_ONCE] = ALONE};
    const int beside[VARIANTS] = {[LOWRANK] = 1, [BF] = 1, [HF] = 1};
    ttmm_trace trace[VARIANTS];
    real *scratch = malloc(ttmm_merge_scratch(&update.config, mix) * sizeof *scratch);
    if (scratch == NULL) check(ttmm_fail(&error, TTMM_NO_ROOM, "out of memory for merging"));
    memset(update.data, 0, update.n * sizeof(real));
    ttmm_merge(&update, &update, mix, scratch);
    for (int v = 0; v < VARIANTS; v++) {
        if (v != ALONE && !beside[v]) ttmm_merge(&model[v], &model[from[v]], mix, scratch);
        if (v == BF_MERGED || v == BF_ONCE) round_model(&model[v], BF16);
        if (v == HF_MERGED || v == HF_ONCE) round_model(&model[v], F16);
        check(ttmm_trace_new(&trace[v], &model[v], beside[v] ? mix : NULL, NULL, token, T, 0, 0, &error));
    }
    for (int i = 0; i < COMPARISONS; i++) {
        comparison *c = &row[i];
        add_traces(c, &trace[c->reference], &trace[c->compared]);
        if (c->stored != NO_WEIGHTS) add_weights(c, &model[c->compared], &model[c->stored]);
    }
    positions += (double)T, predictions += (double)(T - 1), adapters += (double)mix->n;
    for (int v = 0; v < VARIANTS; v++) ttmm_trace_free(&trace[v]);
    free(scratch);
}

static void print_rows(const char *what, size_t sequences)
{
    const int layers = update.config.n_layers;
    printf("%s: |d| / |W| %.2g, adapters at a time %.3g, sequences %zu, positions %.0f, arithmetic in %s\n", what,
           sqrt(row[1].d2 / row[1].w2), adapters / (double)sequences, sequences, positions,
           sizeof(real) == 8 ? "float64" : "float32");
    printf("%-17s  %-17s", "reference", "compared");
    for (int l = 0; l < layers; l++) printf("   out %d", l);
    printf("%8s %8s %8s %10s %9s %7s %8s\n", "logits", "greedy %", "KL", "perplexity", "unmoved %", "kept %", "error");
    for (const comparison *c = row; c < row + COMPARISONS; c++) {
        printf("%-17s  %-17s", c->name[0], c->name[1]);
        for (int l = 0; l <= layers; l++) printf(" %7.1e", sqrt(c->off[l] / c->size[l]));
        printf(" %8.3f %8.1e %10.4f", 100 * c->changed / positions, c->kl / positions, exp(c->loss / predictions));
        if (c->stored == NO_WEIGHTS) printf(" %9s %7s %8s\n", "-", "-", "-");
        else
            printf(" %9.2f %7.2f %8.1e\n", 100 * c->unmoved / c->weights, 100 * c->kept / c->d2,
                   sqrt(c->wrong / c->d2));
    }
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const ttmm_router router = {.beta = 0.12, .tau = 0.01, .max = 50}; /* run's */
    ttmm_corpus trained, text;
    ttmm_lora finetuned, *expert;
    const ttmm_lora *only = &finetuned, **chosen;
    real *centroid, *weight, *similarity, query[TTMM_EMBED_DIM];
    size_t K, E;
    int *index;
    char path[PATH_BYTES];
    if (!rounding_is_right(BF16) || !rounding_is_right(F16))
        check(ttmm_fail(&error, TTMM_DIFFERS, "its rounding to 16 bits is wrong"));
    if (argc < 3) check(ttmm_fail(&error, TTMM_BAD_USE, "usage: merging MODEL FILE..."));

    for (int v = 0; v < VARIANTS; v++) {
        check(ttmm_model_read(&model[v], argv[1], &error));
        if (v >= BF) round_model(&model[v], v >= HF ? F16 : BF16);
    }
    check(ttmm_model_copy(&update, &model[ALONE], &error));
    const ttmm_config *config = &update.config;
    if (config->n_layers > MOST_LAYERS) check(ttmm_fail(&error, TTMM_BAD_INPUT, "over %d layers", MOST_LAYERS));
    check(ttmm_corpus_read(&trained, argv[1], config->vocab, &error));
    snprintf(path, sizeof path, "%s/centroids.safetensors", argv[1]);
    check(ttmm_array_read(&centroid, &K, &E, path, "embeddings", &error));
    if (trained.idf == NULL || E != TTMM_EMBED_DIM)
        check(ttmm_fail(&error, TTMM_BAD_INPUT, "%s: was indexed with outside embeddings", argv[1]));
    snprintf(path, sizeof path, "%s/finetuned", argv[1]);
    check(ttmm_lora_read(&finetuned, config, path, &error));
    expert = malloc(K * sizeof *expert), chosen = malloc(K * sizeof *chosen), index = malloc(K * sizeof *index);
    weight = malloc(K * sizeof *weight), similarity = malloc(K * sizeof *similarity);
    if (!expert || !chosen || !index || !weight || !similarity)
        check(ttmm_fail(&error, TTMM_NO_ROOM, "out of memory for the experts"));
    for (size_t k = 0; k < K; k++) {
        snprintf(path, sizeof path, "%s/experts/%zu", argv[1], k);
        check(ttmm_lora_read(&expert[k], config, path, &error));
    }
    check(
        ttmm_corpus_from_files(&text, NULL, (const char *const *)argv + 2, (size_t)argc - 2, config->context, &error));

    for (int b = 0; b < (sizeof(real) == 8 ? 2 : 5); b++) {
        static const struct {
            const char *name;
            real scale; /* 0: routed */
        } block[] = {{"finetuned", 1},
                     {"routed", 0},
                     {"finetuned / 10", 0.1F},
                     {"finetuned / 100", 0.01F},
                     {"finetuned / 1000", 0.001F}};
        size_t sequences = 0;
        memcpy(row, comparisons, sizeof row);
        positions = predictions = adapters = 0;
        for (size_t i = 0; i < text.n_sequences; i++) {
            const int *token = text.token + text.sequence[i];
            const size_t T = text.sequence[i + 1] - text.sequence[i];
            ttmm_mix mix = {1, &only, &block[b].scale};
            if (T < 2) continue;
            if (block[b].scale == 0) {
                ttmm_embed(query, NULL, token, T < 50 ? T : 50, trained.idf);
                check(ttmm_route(&mix.n, index, weight, similarity, query, centroid, K, E, &router, &error));
                for (size_t k = 0; k < mix.n; k++) chosen[k] = &expert[index[k]];
                mix.lora = chosen, mix.weight = weight;
            }
            measure(&mix, token, T);
            sequences++;
        }
        print_rows(block[b].name, sequences);
    }
    return 0;
}
