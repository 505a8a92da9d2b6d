/* trace.c - what ttmm shows of itself, and that it is the same whichever way it was computed. It proves three things.
 *  - A trace names every value in the order of computation; each is what its layer makes of those before it, the
 *    gradients are the derivatives of the traced loss, and neither the cache nor the trace itself changes a bit.
 *  - Batch invariance: the values at a position, up to the logits, have the same bits in a whole sequence, in every
 *    prefix, anywhere in a batch, token by token or in pieces through the cache, after a rewind, on any threads.
 *  - ttmm_compare and ttmm_check measure what they say and judge by it; files are made here byte by byte. No NaN ever
 *    passes.
 * With -DTTMM_FAST (fused products) bits become tolerances. */
#include "test.h"

#define FOLDER (sizeof(real) == 4 ? "test/build/trace-f32.d" : "test/build/trace-f64.d")
enum { IS_DOUBLE = sizeof(real) == 8, ROOM = 600, ADAPTERS = 3, RANK = 4 };
static ttmm_error err;
static ttmm_rng drawn = {1};
static size_t below(size_t n) { return (size_t)ttmm_below(&drawn, n); }
static size_t upto(size_t n) { return 1 + below(n); }

#define MUST(call) ((call) == TTMM_OK ? (void)passed++ : failed_call(__LINE__, #call))
static void failed_call(int line, const char *call)
{
    test_failed(__FILE__, line, call, "success", err.text);
    exit(1);
}

static const char *text(const char *format, ...) /* good for the next 8 calls */
{
    static char line[8][300];
    static unsigned used;
    char *to = line[used++ % 8];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(to, sizeof *line, format, arguments);
    va_end(arguments);
    return to;
}

/* One check: all n numbers have the same bits (FAST: are near). */
#define SAME(what, found, expected, n) same(__LINE__, what, found, expected, n)
static void same(int line, const char *what, const real *found, const real *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double x = (double)found[i], y = (double)expected[i];
        if (memcmp(&found[i], &expected[i], sizeof(real)) == 0) continue;
#ifdef TTMM_FAST
        if (fabs(x - y) <= (IS_DOUBLE ? 1e-11 : 1e-3) * (1 + fabs(y))) continue;
#endif
        test_failed(__FILE__, line, text("%s[%zu] of %zu", what, i, n), text("%a", y), text("%a", x));
        return;
    }
    passed++;
}

/* ---- A model, a sequence of T tokens and three adapters of different ranks and weights --------------------------- */

static struct {
    ttmm_model model;
    ttmm_lora lora[ADAPTERS];
    ttmm_mix mix; /* in use */
    size_t T;
    int token[ROOM];
} it;
static const int expert[ADAPTERS] = {7, 31, 2};

static const ttmm_mix *mix(size_t n) /* the first n adapters */
{
    static const ttmm_lora *const lora[ADAPTERS] = {&it.lora[0], &it.lora[1], &it.lora[2]};
    static const real weight[ADAPTERS] = {(real)0.7, (real)-0.2, (real)0.4};
    it.mix.n = n, it.mix.lora = lora, it.mix.weight = weight;
    return n ? &it.mix : NULL;
}

static void numbers_new(ttmm_model *m, ttmm_lora l[ADAPTERS], const ttmm_config *c)
{
    MUST(ttmm_model_new(m, c, &err));
    for (int k = 0; k < ADAPTERS; k++) MUST(ttmm_lora_new(&l[k], c, k == 1 ? RANK : 2 + k / 2, 1 + k, &err));
}

static void numbers_free(ttmm_model *m, ttmm_lora l[ADAPTERS])
{
    ttmm_model_free(m);
    for (int k = 0; k < ADAPTERS; k++) ttmm_lora_free(&l[k]);
}

static void world_new(const ttmm_config *c, size_t T, uint64_t seed)
{
    numbers_new(&it.model, it.lora, c);
    test_fill(it.model.data, it.model.n, "model", seed);
    for (size_t k = 0; k < ADAPTERS; k++) test_fill(it.lora[k].data, it.lora[k].n, "lora", seed * ADAPTERS + k);
    it.T = T;
    for (size_t t = 0; t < ROOM; t++) it.token[t] = (int)below((size_t)c->vocab);
}

/* ---- Trace ------------------------------------------------------------------------------------------------------- */

static ttmm_trace traced(size_t n, int cached, int gradients)
{
    ttmm_trace t;
    MUST(ttmm_trace_new(&t, &it.model, mix(n), n > 1 ? expert : NULL, it.token, it.T, cached, gradients, &err));
    return t;
}

static size_t count(const ttmm_array *a) { return a->rows * (a->cols ? a->cols : 1); }

static const real *value(const ttmm_trace *t, const char *name)
{
    size_t i = 0;
    while (i < t->n && strcmp(t->array[i].name, name)) i++;
    if (i == t->n) failed_call(__LINE__, name);
    return t->array[i].data;
}

/* Tensor i of those that a trace with n adapters differentiates by: all weights, or those of the adapters; under the
 * name of its gradient. Gains are vectors. */
static size_t parameters(size_t n) { return n ? n * ttmm_lora_tensors(it.lora) : ttmm_n_tensors(&it.model.config); }
static ttmm_array parameter(const ttmm_model *m, const ttmm_lora *l, size_t n, size_t i)
{
    const size_t each = ttmm_lora_tensors(l), k = n ? i / each : 0;
    const ttmm_tensor w = ttmm_tensor_at(&m->config, n ? 0 : i);
    ttmm_array a = {"", w.rows, strstr(w.name, "norm") || strstr(w.name, "bias") ? 0 : w.cols, m->data + w.offset,
                    NULL};
    if (n) a = ttmm_lora_tensor_at(&l[k], i % each);
    const char *prefix = n > 1 ? text("grad.experts.%d.", expert[k]) : "grad.";
    strcpy(a.name, text("%s%s", prefix, n ? a.name : w.name));
    return a;
}

/* So that CHECK_TEXT tells whether both are the same. */
static const char *shape(const char *name, size_t rows, size_t cols)
{
    return text(" %s [%zu, %zu]", name, rows, cols);
}
static const char *shown(const ttmm_trace *t, size_t i)
{
    return i < t->n ? shape(t->array[i].name, t->array[i].rows, t->array[i].cols) : "nothing";
}

/* Names and shapes, in the documented order: without adapters, with one, with several; with gradients or not. */
static void trace_order(void)
{
    static const char *const names[] = {"attn_norm", "q",    "k",  "v",       "attn", "attn_out",
                                        "mlp_norm",  "gate", "up", "mlp_out", "out"};
    static const char *const widths[] = {"D", "HS", "GS", "GS", "HS", "D", "D", "F", "F", "D", "D"};
    const ttmm_config *c = &it.model.config;
    const size_t n_values = 11 * (size_t)c->n_layers, D = (size_t)c->dim;
    ttmm_trace t;
    for (size_t n = 0, i; n < 2 * ADAPTERS + 2; n++) {
        t = traced(n / 2, 0, n % 2);
        CHECK_TEXT(shown(&t, 0), shape("tokens", it.T, 0)), CHECK_TEXT(shown(&t, 1), shape("embed", it.T, D));
        for (i = 0; i < n_values; i++)
            CHECK_TEXT(shown(&t, 2 + i),
                       shape(text("layers.%zu.%s", i / 11, names[i % 11]), it.T, dimension(c, widths[i % 11])));
        CHECK_TEXT(shown(&t, i + 2), shape("final_norm", it.T, D)), CHECK_TEXT(shown(&t, i + 4), shape("loss", 1, 0));
        CHECK_TEXT(shown(&t, i + 3), shape("logits", it.T, (size_t)c->vocab));
        for (i = 0; n % 2 && i < parameters(n / 2); i++) {
            const ttmm_array w = parameter(&it.model, it.lora, n / 2, i);
            CHECK_TEXT(shown(&t, n_values + 5 + i), shape(w.name, w.rows, w.cols));
        }
        CHECK(t.n == n_values + 5 + i * (n % 2) && ttmm_n_traced(c) == n_values + 2);
        CHECK(memcmp(t.array[0].integer, it.token, it.T * sizeof(int)) == 0);
        ttmm_trace_free(&t);
    }
    for (size_t n = 0; n < 6; n++) /* two tokens are the least */
        CHECK(ttmm_trace_new(&t, &it.model, NULL, NULL, it.token, n / 3, n % 3 == 1, n % 3 == 2, &err) < 0);
}

static real made[ROOM * 64], extra[ROOM * 64], cosine[ROOM * 16], sine[ROOM * 16];

static real *norm(const real *x, int layer, int kind)
{
    const ttmm_config *c = &it.model.config;
    rmsnorm_forward(made, extra, x, ttmm_weight(&it.model, layer, kind), it.T, (size_t)c->dim, c->norm_eps);
    return made;
}

static real *product(const real *x, int layer, int kind) /* q and k rotated */
{
    const size_t out = kind_rows(&it.model.config, kind), S = (size_t)it.model.config.head_dim;
    linear_forward(made, extra, NULL, x, &it.model, mix(it.mix.n), layer, kind, it.T);
    if (kind == TTMM_Q || kind == TTMM_K) rotary(made, cosine, sine, 0, (size_t[]){0, it.T}, 1, out / S, S, 1);
    return made;
}

/* Each value is what its layer makes of those before it (that layers are right, layers.c proves); embed is rows of the
 * embedding, out is (x + attn_out) + mlp_out. */
static void trace_values(void)
{
    static real x[ROOM * 16], middle[ROOM * 16], act[ROOM * 32];
    const ttmm_config *c = &it.model.config;
    const size_t D = (size_t)c->dim, T = it.T, start[] = {0, T};
    rotary_table(cosine, sine, T, c);
    for (size_t n = 0; n <= ADAPTERS; n++) {
        ttmm_trace t = traced(n, 0, 0);
        for (size_t i = 0; i < T; i++)
            memcpy(x + i * D, ttmm_weight(&it.model, 0, TTMM_EMBED) + (size_t)it.token[i] * D, D * sizeof *x);
        SAME("embed", value(&t, "embed"), x, T * D);
        for (int l = 0; l < c->n_layers; l++) {
#define IS(name) value(&t, text("layers.%d." name, l))
#define FOLLOWS(name, from, width) SAME(name, IS(name), from, T *dimension(c, width))
            FOLLOWS("attn_norm", norm(x, l, TTMM_ATTN_NORM), "D");
            FOLLOWS("q", product(IS("attn_norm"), l, TTMM_Q), "HS");
            FOLLOWS("k", product(IS("attn_norm"), l, TTMM_K), "GS");
            FOLLOWS("v", product(IS("attn_norm"), l, TTMM_V), "GS");
            attention_forward(made, IS("q"), IS("k"), IS("v"), start, 1, 0, c, (thread_scratch){extra, 0, 1});
            FOLLOWS("attn", made, "HS"), FOLLOWS("attn_out", product(IS("attn"), l, TTMM_O), "D");
            for (size_t i = 0; i < T * D; i++) middle[i] = x[i] + IS("attn_out")[i];
            FOLLOWS("mlp_norm", norm(middle, l, TTMM_MLP_NORM), "D");
            FOLLOWS("gate", product(IS("mlp_norm"), l, TTMM_GATE), "F");
            FOLLOWS("up", product(IS("mlp_norm"), l, TTMM_UP), "F");
            swiglu_forward(act, IS("gate"), IS("up"), T * (size_t)c->intermediate);
            FOLLOWS("mlp_out", product(act, l, TTMM_DOWN), "D");
            for (size_t i = 0; i < T * D; i++) x[i] = middle[i] + IS("mlp_out")[i];
            FOLLOWS("out", x, "D");
        }
        SAME("final_norm", value(&t, "final_norm"), norm(x, 0, TTMM_FINAL_NORM), T * D);
        ttmm_trace_free(&t);
    }
}

/* Full, cached and with gradients, a trace has the bits of a plain pass: of ttmm_logits, of the loss and the gradients
 * of ttmm_backward, here by weights and adapters at once. Adapters merged into the weights give the same but for
 * rounding. A mix of none is no mix. */
static void trace_ways(void)
{
    const ttmm_pass_size size = {it.T, 1, 0, it.T, 0, RANK, 1, 0};
    const size_t start[] = {0, it.T};
    for (size_t n = 0; n <= ADAPTERS; n++) {
        ttmm_model dm, before = it.model;
        ttmm_lora dl[ADAPTERS];
        ttmm_pass *p;
        ttmm_trace full = traced(n, 0, 0), cached = traced(n, 1, 0), grad = traced(n, 0, 1);
        real nll[ROOM], mean = 0;
        numbers_new(&dm, dl, &before.config);
        MUST(ttmm_pass_new(&p, &before.config, &size, &err));
        ttmm_forward(p, &it.model, &it.mix, it.token, start, 1), ttmm_nll(p, &it.model, nll);
        for (size_t i = 0; i < it.T; i++) mean += nll[i] / (real)(it.T - 1);
        SAME("logits", value(&full, "logits"), ttmm_logits(p, &it.model, 0, it.T), it.T * (size_t)before.config.vocab);
        const real loss = (real)ttmm_backward(p, &it.model, &it.mix, &dm, dl);
        SAME("loss", value(&full, "loss"), &loss, 1);
        CHECK_RELATIVE(loss, mean, IS_DOUBLE ? 1e-14 : 1e-6, 1);
        MUST(ttmm_model_copy(&it.model, &before, &err)), ttmm_merge(&it.model, &before, &it.mix, extra);
        ttmm_trace dense = traced(0, 0, 0);
        for (size_t i = 1; i < full.n; i++) {
            const ttmm_array *a = &full.array[i];
            double off, most = 0;
            CHECK_TEXT(shown(&cached, i), shown(&full, i)), CHECK_TEXT(shown(&grad, i), shown(&full, i));
            SAME(a->name, cached.array[i].data, a->data, count(a));
            SAME(a->name, grad.array[i].data, a->data, count(a));
            for (size_t k = 0; k < count(a); k++) {
                off = fabs((double)(a->data[k] - dense.array[i].data[k])) / (1 + fabs((double)a->data[k]));
                most = off <= most ? most : off;
            }
            test_near(__FILE__, __LINE__, a->name, most, 0, n == 0 ? 0 : IS_DOUBLE ? 1e-13 : 2e-5);
        }
        for (size_t i = full.n; i < grad.n; i++) {
            const ttmm_array w = parameter(&dm, dl, n, i - full.n);
            SAME(w.name, grad.array[i].data, w.data, count(&w));
        }
        CHECK_EQUAL(cached.n, full.n);
        ttmm_model_free(&it.model), it.model = before, numbers_free(&dm, dl), ttmm_pass_free(p);
        ttmm_trace_free(&full), ttmm_trace_free(&cached), ttmm_trace_free(&grad), ttmm_trace_free(&dense);
    }
}

/* The gradients are the derivatives of the traced loss, by central differences at three numbers of every tensor. */
static void trace_derivatives(void)
{
    static const double h = 0x1p-14, step[] = {-2, -1, 1, 2}, times[] = {1, -8, 8, -1}; /* exact to h^4 */
    for (size_t n = 0; n <= ADAPTERS && IS_DOUBLE; n++) {
        ttmm_trace t = traced(n, 0, 1);
        for (size_t k = 0; k < 3 * parameters(n); k++) {
            const ttmm_array w = parameter(&it.model, it.lora, n, k / 3);
            const size_t i = k % 3 ? below(count(&w)) : count(&w) - 1;
            real *x = (real *)w.data + i, before = *x;
            double slope = 0;
            for (int j = 0; j < 4; j++) {
                *x = before + (real)(step[j] * h);
                ttmm_trace moved = traced(n, 0, 0);
                slope += times[j] * (double)*value(&moved, "loss") / (12 * h);
                ttmm_trace_free(&moved);
            }
            *x = before;
            test_near(__FILE__, __LINE__, w.name, (double)value(&t, w.name)[i], slope, 1e-9 * (1 + fabs(slope)));
        }
        ttmm_trace_free(&t);
    }
}

/* ---- Batch invariance -------------------------------------------------------------------------------------------- */

static ttmm_trace want; /* of the sequence and a token more: what must be found wherever it is computed */
static size_t logit_rows;

static ttmm_pass *pass_new(size_t tokens, size_t sequences, size_t cache, size_t longest)
{
    ttmm_pass_size size = {tokens, sequences, cache, tokens, longest, RANK, 0, 0};
    ttmm_pass *p;
    if (below(2)) size.tokens += 5, size.sequences += !cache;
    if (below(2)) size.logits = upto(tokens);
    if (it.mix.n == 0 && below(2)) size.rank = 0;
    logit_rows = size.logits, size.trace = (int)below(2), size.backward = !cache && below(2);
    MUST(ttmm_pass_new(&p, &it.model.config, &size, &err));
    return p;
}

/* Rows first .. first + n - 1 of the last pass are positions from .. from + n - 1 of the sequence. */
static void check(ttmm_pass *p, size_t first, size_t n, size_t from)
{
    const size_t values = ttmm_n_traced(&it.model.config);
    for (size_t i = 0; i < values && p->size.trace; i++) {
        const ttmm_array a = ttmm_traced(p, i);
        CHECK(a.rows >= first + n && strcmp(a.name, want.array[1 + i].name) == 0);
        SAME(a.name, a.data + first * a.cols, want.array[1 + i].data + from * a.cols, n * a.cols);
    }
    const ttmm_array *a = &want.array[1 + values];
    for (size_t i = 0; i < n; i += logit_rows) {
        const size_t rows = logit_rows < n - i ? logit_rows : n - i;
        SAME("logits", ttmm_logits(p, &it.model, first + i, rows), a->data + (from + i) * a->cols, rows * a->cols);
    }
}

static void forward(ttmm_pass *p, size_t n, size_t from) /* n tokens of the sequence */
{
    const size_t start[] = {0, n};
    ttmm_forward(p, &it.model, mix(it.mix.n), it.token + from, start, 1), check(p, 0, n, from);
}

/* On models of many forms, without, with one and with three adapters, on one thread and on three. Some are large enough
 * to be shared between threads, some sequences longer than a block of queries. */
static void every_world(void (*test)(void))
{
    static const int forms[][8] = {{1, 1, 1, 1, 1, 1, 1, 1},      {1, 1, 1, 1, 2, 1, 2, 3}, /* D L H G S F V T */
                                   {17, 2, 1, 1, 20, 33, 5, 40},  {16, 1, 4, 2, 1, 16, 31, 9},
                                   {40, 2, 6, 2, 20, 50, 70, 17}, {8, 3, 2, 1, 2, 15, 1, 6},
                                   {31, 1, 3, 3, 5, 7, 257, 2},   {64, 1, 4, 2, 16, 172, 257, 70}};
    for (size_t w = 0; w < 18; w++) {
        const size_t G = upto(2), S[] = {1, 2, 3, 16, 20};
        const size_t drawn_form[] = {upto(40),    upto(2),  G * upto(3), G,
                                     S[below(5)], upto(50), upto(60),    upto(w % 4 ? 12 : 70)};
        int f[8];
        for (int i = 0; i < 8; i++) f[i] = w < 8 ? forms[w][i] : (int)drawn_form[i];
        const ttmm_config c = {f[0],       f[1],         f[2], f[3], f[4], f[5], f[6], 64,  w % 2, 1e-5, 100,
                               w % 3 == 1, (int)(w % 3), 2.5,  0.3,  3,    30,   0,    {0}, 0,     0};
        ttmm_set_threads(1), world_new(&c, (size_t)f[7] + 1, w);
        want = traced(w % 3 == 2 ? ADAPTERS : w % 3, 0, 0), it.T--;
        for (int threads = 1; threads <= 3; threads += 2) ttmm_set_threads(threads), test();
        ttmm_trace_free(&want), numbers_free(&it.model, it.lora);
    }
}

static void check_prefixes(void)
{
    ttmm_pass *p = pass_new(it.T, 1, 0, below(2) * it.T);
    for (size_t n = it.T; n > 0; n -= n > 12 ? upto(n / 6) : 1) forward(p, n, 0);
    ttmm_pass_free(p);
}

/* Beside it in the batch: others of any length; like it but for the first token; at k = 0 itself. */
static void check_batches(void)
{
    for (int k = 0; k < 4; k++) {
        int token[ROOM];
        const size_t B = k ? upto(6) : 3, at = below(B);
        size_t start[7] = {0}, longest = it.T;
        for (size_t b = 0; b < B; b++) {
            const int itself = b == at || k == 0;
            const size_t T = itself ? it.T : b % 2 ? upto(40) : upto(it.T);
            start[b + 1] = start[b] + T, longest = T > longest ? T : longest;
            memcpy(token + start[b], it.token + (b % 2 && !itself ? 100 : 0), T * sizeof *token);
            if (!itself) token[start[b]] = it.token[below(ROOM)];
        }
        ttmm_pass *p = pass_new(start[B], B, 0, below(2) * longest);
        ttmm_forward(p, &it.model, mix(it.mix.n), token, start, B);
        for (size_t b = 0; b < B; b++)
            if (b == at || k == 0) check(p, start[b], it.T, 0);
        ttmm_pass_free(p);
    }
}

static void feed(ttmm_pass *p, size_t to, size_t most) /* up to position `to`, at most so many tokens at a time */
{
    for (size_t n, from; (from = ttmm_cached(p)) < to;) {
        forward(p, n = upto(most < to - from ? most : to - from), from);
        CHECK_EQUAL(ttmm_cached(p), from + n);
    }
}

/* Token by token, in pieces, at once; then again and again from where it is rewound to, after other tokens. */
static void check_cached(void)
{
    const size_t most[] = {1, it.T / 3 + 1, 40, it.T};
    for (size_t k = 0; k < 4; k++) {
        ttmm_pass *p = pass_new(it.T, 1, it.T + below(2), 0);
        CHECK_EQUAL(ttmm_cached(p), 0);
        for (int again = 0; again < 4; again++) {
            feed(p, it.T, most[k]);
            const size_t kept = below(it.T + 1), to = kept + below(it.T - kept + 1), start[] = {0, it.T - to};
            ttmm_rewind(p, kept);
            CHECK_EQUAL(ttmm_cached(p), kept);
            feed(p, to, 7);
            if (to < it.T) ttmm_forward(p, &it.model, mix(it.mix.n), it.token + 100, start, 1);
            ttmm_rewind(p, to);
        }
        ttmm_rewind(p, 0), forward(p, it.T, 0);
        ttmm_pass_free(p);
    }
}

static void invariance_prefixes(void) { every_world(check_prefixes); }
static void invariance_batches(void) { every_world(check_batches); }
static void invariance_cached(void) { every_world(check_cached); }

/* ---- Compare ----------------------------------------------------------------------------------------------------- */

/* Tensor i of two files, named ti: "dtype [shape] number number*times ...", of F16 and BF16 the bits; "" if it is not
 * there. And the report that is due: "verdict max_abs max_rel ulps worst a b", ? or nothing for any number. The tensors
 * of B stand in reverse. */
typedef struct {
    const char *in[2], *report;
} pair;

static const char *at(const char *name) { return text("%s/%s", FOLDER, name); }

static void put(const char *file, const pair *p, size_t n, int b)
{
    static char header[20000], bytes[1000000];
    size_t length = 1, used = 0, begin;
    for (size_t i = 0; i < n; i++) {
        const char *tensor = p[b ? n - 1 - i : i].in[b], *shape = strchr(tensor, '['), *number = strchr(tensor, ']');
        if (!shape) continue;
        const int half = strstr(tensor, "F16 ") != NULL, width = half ? 2 : tensor[0] == 'B' ? 1 : atoi(tensor + 1) / 8;
        for (begin = used; *(number += strcspn(number, " ")) && number++;) {
            const char *times = number + strcspn(number, "* ");
            const double x = strtod(number, NULL);
            const float narrow = (float)x;
            uint64_t u = (uint64_t)strtoll(number, NULL, 0);
            uint32_t bits;
            memcpy(&bits, &narrow, 4);
            if (tensor[0] == 'F' && !half) u = width == 4 ? bits : to_bits(x);
            for (long k = *times == '*' ? atol(times + 1) : 1; k > 0; k--, used += (size_t)width)
                store_bytes((unsigned char *)bytes + used, u, (size_t)width);
        }
        length += (size_t)sprintf(header + length,
                                  "%s\"t%zu\":{\"dtype\":\"%.*s\",\"shape\":%.*s],\"data_offsets\":[%zu,%zu]}",
                                  length > 1 ? "," : "", b ? n - 1 - i : i, (int)(shape - tensor - 1), tensor,
                                  (int)strcspn(shape, "]"), shape, begin, used);
    }
    header[0] = '{', header[length++] = '}';
    FILE *f = fopen(at(file), "wb");
    for (int i = 0; f && i < 64; i += 8) fputc((int)((uint64_t)length >> i & 255), f);
    CHECK(f && fwrite(header, 1, length, f) == length && fwrite(bytes, 1, used, f) == used && fclose(f) == 0);
}

static struct {
    const pair *pair;
    size_t n, reports, failures, last;
} judged;

static void report(void *context, const ttmm_difference *d)
{
    static const char *const verdict[] = {"same",  "within", "near-tie", "past", "not-finite",
                                          "shape", "type",   "missing",  "extra"};
    const double found[] = {d->max_abs, d->max_rel, d->ulps, (double)d->worst, d->a, d->b};
    const char *const last_axis = strstr(d->shape[0], ", ") ? strrchr(d->shape[0], ' ') : " 0";
    const size_t i = (size_t)atoi(d->name + 1);
    const pair *p = &judged.pair[i < judged.n ? i : 0];
    const size_t place = p->in[0][0] ? 1 + i : 2 * judged.n - i; /* those only in B come last, in its order */
    const char *word = verdict[d->verdict], *e = p->report;
    if (strncmp(e, word, strlen(word)) || place <= judged.last || context != &judged)
        test_failed(__FILE__, __LINE__, text("%s %s, %s, %s", d->name, p->in[0], p->in[1], e), "report", word);
    else passed++;
    for (int k = 0; k < 6 && e[strcspn(e, " ")]; k++)
        if (*(e += strcspn(e, " ") + 1) != '?')
            test_near(__FILE__, __LINE__, text("%s: %s", p->in[1], p->report), found[k], strtod(e, NULL),
                      1e-15 * found[k]);
    for (int k = 0; k < 2; k++) {
        const size_t length = strcspn(p->in[k], "]") + (p->in[k][0] != 0), cut = length < 79 ? length : 75;
        CHECK(strncmp(d->shape[k], p->in[k], cut) == 0 && (strlen(d->shape[k]) == length || length >= 79));
    }
    CHECK(d->cols == (size_t)atol(last_axis) || strlen(d->shape[0]) >= 79);
    judged.reports++, judged.failures += d->verdict >= TTMM_PAST, judged.last = place;
}

static void ignore(void *context, const ttmm_difference *d) { (void)context, (void)d; }

#define COMPARE(p, atol, rtol) compare(p, sizeof p / sizeof *p, atol, rtol, 0)
static void compare(const pair *p, size_t n, double atol, double rtol, int by_row)
{
    size_t failures = SIZE_MAX;
    put("a", p, n, 0), put("b", p, n, 1);
    memset(&judged, 0, sizeof judged), judged.pair = p, judged.n = n;
    MUST(ttmm_compare(at("a"), at("b"), atol, rtol, by_row, report, &judged, &failures, &err));
    CHECK(judged.reports == n && failures == judged.failures + (n == 0)); /* nothing at all is a failure, too */
}

static void compare_measures(void)
{
    static const pair list[] = {
        {{"F32 [1] 1", "F32 [1] 0x1.000002p0"}, "past 0x1p-23 0x1p-23 1 0 1 0x1.000002p0"},
        {{"F32 [] 2", "F32 [] 0x1.fffffep0"}, "past 0x1p-23 0x1p-24 0.5 0 2 0x1.fffffep0"},
        {{"F64 [1] 1", "F64 [1] 0x1.0000000000001p0"}, "past 0x1p-52 0x1p-52 1"},
        {{"F16 [1] 0x3c00", "F16 [1] 0x3c01"}, "past 0x1p-10 0x1p-10 1 0 1 0x1.004p0"},
        {{"BF16 [1] 0x3f80", "BF16 [1] 0x3f81"}, "past 0x1p-7 0x1p-7 1 0 1 0x1.02p0"},
        {{"F32 [1] -1", "F32 [1] 1"}, "past 2 2 0x1p24 0 -1 1"},
        /* of two types the coarser, whichever file it is in; rounding to it is at most half a unit */
        {{"F64 [1] 0.1", "F32 [1] 0.1"}, "past 0x6666666p-56 ? 0x6666666p-29 0 0.1 0x1.99999ap-4"},
        {{"F32 [1] 0.1", "F64 [1] 0.1"}, "past 0x6666666p-56 ? 0x6666666p-29 0 0x1.99999ap-4 0.1"},
        {{"BF16 [1] 0x3f80", "F32 [1] 0x1.01p0"}, "past 0x1p-8 0x1p-8 0.5"},
        {{"F16 [1] 1", "F64 [1] 0"}, "past 0x1p-24 1 1 0 0x1p-24 0"},
        {{"F16 [1] 0x3c00", "BF16 [1] 0x3f81"}, "past 0x1p-7 0x1p-7 1"},
        {{"F64 [2] 1 0.1", "F64 [2] 1 0.1"}, "same 0 0 0"},
        /* subnormal numbers: units of the least */
        {{"F32 [1] 0", "F32 [1] 0x1p-149"}, "past 0x1p-149 ? 1 0 0 0x1p-149"},
        {{"F32 [1] 0x1p-149", "F32 [1] 0x3p-149"}, "past 0x1p-148 2 2"},
        {{"F32 [1] 0x1p-126", "F32 [1] 0x1.fffffcp-127"}, "past 0x1p-149 0x1p-23 1"},
        {{"F64 [1] 0", "F64 [1] -0x1p-1074"}, "past 0x1p-1074 ? 1 0 0 -0x1p-1074"},
        {{"F64 [2] 0 -0x1p-1074", "F64 [2] 0 0x1p-1074"}, "past 0x1p-1073 2 2 1 -0x1p-1074 0x1p-1074"},
        {{"F64 [1] 0", "F32 [1] 0x1p-149"}, "past 0x1p-149 ? 1"},
        {{"F16 [1] 0x400", "F16 [1] 0x3ff"}, "past 0x1p-24 0x1p-10 1"},
        {{"BF16 [1] 0", "BF16 [1] 1"}, "past 0x1p-133 ? 1"},
        {{"F32 [2] -0 0", "F32 [2] 0 -0"}, "same 0 ? 0"},
        /* max_rel is by the largest |a| of the tensor; the most units may be elsewhere than max_abs */
        {{"F32 [2] 1000 1", "F32 [2] 1000.5 1.25"}, "past 0.5 0.0005 0x1p21 0 1000 1000.5"},
        {{"F64 [2] 4 1", "F64 [2] 4 2"}, "past 1 0.25 0x1p51 1 1 2"},
        {{"F32 [2] 1 1", "F32 [2] 1 100"}, "past 99 99 ? 1 1 100"},
        {{"F32 [2] -8 1", "F32 [2] -8 3"}, "past 2 0.25 0x1p23 1 1 3"},
        {{"F32 [2, 3, 4] 1*17 -5 1*6", "F32 [2, 3, 4] 1*17 3 1*6"}, "past 8 1.6 0x1p24 17 -5 3"},
        /* longer than what is read at once, which is 1024 numbers */
        {{"F32 [1024] 1*1024", "F32 [1024] 1*1023 2"}, "past 1 1 0x1p22 1023 1 2"},
        {{"F32 [1025] 1*1025", "F32 [1025] 1*1024 2"}, "past 1 1 0x1p22 1024 1 2"},
        {{"F64 [3, 700] 1*2099 16", "F64 [3, 700] 1.5 1*2098 16"}, "past 0.5 0.03125 0x1p51 0 1 1.5"},
        {{"F32 [3072] 1*1500 -3 1*1571", "F64 [3072] 1*1500 -3 1*1570 1.5"},
         "past 0.5 0.16666666666666666 0x1p22 3071 1 1.5"},
        {{"U8 [1500] 7*1500", "U8 [1500] 7*1499 8"}, "past 1 ? ? 1499 7 8"},
        {{"BF16 [1025] 1*1025", "BF16 [1025] 1*1025"}, "same 0 0 0"}};
    COMPARE(list, 0, 0);
}

/* max_abs <= atol + rtol * the largest |a|, the edge included; equal numbers are the same whatever the tolerance. */
static void compare_tolerances(void)
{
    const double under = nextafter(0.5, 0), nan = (double)NAN;
    const double tolerance[][2] = {{0.5, 0},       {0, 0.25},      {0.25, 0.125},  {1e300, 0}, {0, 1e300}, {under, 0},
                                   {0, under / 2}, {0.249, 0.125}, {0.25, 0.1249}, {0, 0},     {nan, 0},   {0, nan}};
    for (size_t i = 0; i < 12; i++) {
        const char *e = i < 5 ? "within 0.5 0.25" : "past 0.5 0.25";
        const pair list[] = {{{"F64 [2] -2 1", "F64 [2] -2.5 1"}, e},
                             {{"F32 [2] 1 2", "F64 [2] 1.5 2"}, e},
                             {{"F32 [1] 3", "F32 [1] 3"}, "same 0 0 0 ? 3 3"}};
        COMPARE(list, tolerance[i][0], tolerance[i][1]);
    }
}

/* By rows each row has its own largest |a|, the worst is where max_rel is. Rows may be longer than what is read at
 * once. */
static void compare_by_row(void)
{
    static const pair list[] = {
        {{"F64 [2, 2] 1000 1 1 0.5", "F64 [2, 2] 1000.5 1 1 0.75"}, "past 0.5 0.25 ? 3 0.5 0.75"},
        {{"F64 [2, 2] 1 0.5 1000 1", "F64 [2, 2] 1 0.75 1000.5 1"}, "past 0.5 0.25 ? 1 0.5 0.75"},
        {{"F64 [2, 2] 1000 1 1 0.5", "F64 [2, 2] 1100 1 1 0.5"}, "within 100 0.1 ? 0 1000 1100"},
        {{"F32 [2, 2, 2] 8*2 1*4 8*2", "F64 [2, 2, 2] 8*2 1*2 1.5 1 8*2"}, "past 0.5 0.5 ? 4 1 1.5"},
        {{"F64 [3] 1000 1 0", "F64 [3] 1000 1 100"}, "within 100 0.1 ? 2 0 100"},
        {{"F64 [] 4", "F64 [] 4.5"}, "past 0.5 0.125 ? 0 4 4.5"},
        {{"F64 [2, 1100] 1*1100 8*1099 -32", "F64 [2, 1100] 1*1100 8*600 10 8*498 -32"}, "within 2 0.0625 ? 1700 8 10"},
        {{"F64 [2, 1100] 1*1100 8*1099 -16", "F64 [2, 1100] 1*1100 8*600 10 8*498 -16"}, "past 2 0.125 ? 1700 8 10"},
        {{"F64 [2, 1100] 16 1*1099 1*1100", "F64 [2, 1100] 16 1*1098 2 1*1099 1.25"}, "past 1 0.25 ? 2199 1 1.25"},
        {{"F64 [2, 2] 1*2 0*2", "F64 [2, 2] 1*2 0 1e-300"}, "past 1e-300 inf ? 3 0 1e-300"},
        {{"F64 [2, 2] 1*2 0*2", "F64 [2, 2] 1*2 -0 0"}, "same 0 0 0 0 1 1"},
        {{"F64 [2, 2] 1*3 nan", "F64 [2, 2] 1*4"}, "not-finite inf inf ? 3"},
        {{"I32 [2, 2] 1000 1 1 5", "I64 [2, 2] 1000 1 1 4"}, "past 1 0.2 ? 3 5 4"},
        {{"F64 [2, 0]", "F32 [2, 0]"}, "same"}};
    compare(list, sizeof list / sizeof *list, 0, 0.1, 1);
}

/* What is not finite, in A, in B or in both, fails under any tolerance, in any type, first or last. */
static void compare_not_finite(void)
{
    static const char *const types[] = {"F64", "F32", "BF16", "F16"};
    static const char *const bits[] = {"nan",    "-nan",   "inf",    "-inf",   "0x7fc0", "0xff81",
                                       "0x7f80", "0xff80", "0x7e00", "0xfc01", "0x7c00", "0xfc00"};
    static const double tolerance[] = {0, 1, 1e300, INFINITY};
    static const char *const forms[] = {"%s [] %s", "%s [2, 600] %s 1*1199", "%s [1025] 1*1024 %s"};
    static char tensor[72][2][60];
    static pair list[72];
    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < 144; k++) { /* any two of four and 1, but not both 1 */
            const int which = k / 2 % 24, x = k % 2 ? which / 5 : which % 5, set = i / 4 > 1 ? 4 * (i / 4 - 1) : 0;
            strcpy(tensor[k / 2][k % 2], text(forms[k / 48], types[i / 4], x == 4 ? "1" : bits[set + x]));
            list[k / 2] = (pair){{tensor[k / 2][0], tensor[k / 2][1]}, "not-finite"};
        }
        COMPARE(list, tolerance[i % 4], tolerance[3 - i % 4]);
    }
}

/* Integers must be equal, whatever the tolerance, all 64 bits of them. */
static void compare_integers(void)
{
    static const pair list[] = {{{"I64 [2] 0 9007199254740992", "I64 [2] 0 9007199254740993"}, "past 1 ? ? 1"},
                                {{"I64 [1] 9223372036854775806", "I64 [1] 9223372036854775807"}, "past 1"},
                                {{"I64 [1] -9223372036854775808", "I64 [1] 9223372036854775807"}, "past"},
                                {{"I64 [2] 9007199254740993 -1", "I64 [2] 9007199254740993 -1"}, "same 0 0 0"},
                                {{"I64 [1025] 5*1024 -5", "I64 [1025] 5*1025"}, "past 10 2 ? 1024 -5 5"},
                                {{"I32 [1] -3", "I32 [1] -4"}, "past 1 ? ? 0 -3 -4"},
                                {{"U8 [3] 1 2 255", "U8 [3] 1 2 254"}, "past 1 ? ? 2 255 254"},
                                {{"I32 [] 2147483647", "I64 [] 2147483647"}, "same 0"},
                                {{"U8 [1] 255", "I32 [1] 255"}, "same 0"},
                                {{"I32 [2] 128255 16777217", "U32 [2] 128255 16777217"}, "same 0"},
                                {{"I32 [2] 128255 16777217", "U32 [2] 128255 16777216"}, "past 1 ? ? 1"},
                                {{"U32 [1] 4294967295", "I32 [1] -1"}, "past 4294967296"},
                                {{"U64 [1] 9007199254740993", "I64 [1] 9007199254740992"}, "past 1"},
                                {{"I32 [2] 15 1", "F32 [2] 15 1"}, "type"},
                                {{"F32 [1] 15", "I32 [1] 15"}, "type"},
                                {{"BOOL [1] 1", "U8 [1] 1"}, "type"},
                                {{"I64 [1] 1", "BOOL [1] 1"}, "type"},
                                {{"BOOL [2] 0 1", "BOOL [2] 0 1"}, "same 0"},
                                {{"BOOL [2] 0 1", "BOOL [2] 0 0"}, "past"},
                                {{"I64 [1] -1", "U8 [1] 255"}, "past 256 256 ? 0 -1 255"}};
    COMPARE(list, 0, 0), COMPARE(list, 1e300, 0), COMPARE(list, 0, 1e300);
}

/* Tensors in A's order, then those only in B; shapes must be equal. A name that B has twice hides nothing. */
static void compare_lists(void)
{
#define LONG "1152921504606846975, 1152921504606846975, 1152921504606846975, " /* its text is cut */
    static const pair list[] = {{{"F32 [2] 1 2", "F32 [2] 1 2"}, "same"},
                                {{"", "F32 [1] 1"}, "extra"},
                                {{"F64 [1] 1", ""}, "missing"},
                                {{"", "I32 [2, 2] 1*4"}, "extra"},
                                {{"F32 [0]", "F64 [0]"}, "same 0"},
                                {{"F32 [2, 0]", "F32 [2, 0]"}, "same"},
                                {{"F32 [0, 3]", "F32 [3, 0]"}, "shape"},
                                {{"F32 [2, 3] 1*6", "F32 [3, 2] 1*6"}, "shape"},
                                {{"F32 [6] 1*6", "F32 [2, 3] 1*6"}, "shape"},
                                {{"F32 [] 1", "F32 [1] 1"}, "shape"},
                                {{"I32 [1, 2] 1*2", "I32 [2] 1*2"}, "shape"},
                                {{"F32 [2] 1*2", "F32 [3] 1*3"}, "shape"},
                                {{"F64 [2, 3, 4] nan*24", "F64 [2, 4, 3] nan*24"}, "shape"},
                                {{"F32 [1, 1, 1, 1, 1, 1, 1, 1] 1", "F32 [1, 1, 1, 1, 1, 1, 1, 1] 1"}, "same"},
                                {{"F32 [0, " LONG LONG "1]", "F32 [0, " LONG LONG "2]"}, "shape"},
                                {{"F32 [1] nan", ""}, "missing"}};
    static const pair none[] = {{{"", ""}, ""}}, only_b[] = {{{"", "U8 [1] 1"}, "extra"}, {{"", "U8 [] 1"}, "extra"}};
    static const pair twice[] = {{{"F32 [1] 1", "F32 [1] nan"}, ""}, {{"", "F32 [1] 1"}, ""}};
    size_t failures = 0;
    COMPARE(list, 1e300, 0), COMPARE(only_b, 0, 0), compare(none, 0, 0, 0, 0);
    put("a", twice, 2, 0), put("b", twice, 2, 1);
    FILE *f = fopen(at("b"), "r+b"); /* {"t1": ...,"t0": ...} gets two of t0 */
    CHECK(f && fseek(f, 11, SEEK_SET) == 0 && fputc('0', f) == '0' && fclose(f) == 0);
    const int code = ttmm_compare(at("a"), at("b"), 0, 0, 0, ignore, NULL, &failures, &err);
    CHECK(code == TTMM_BAD_INPUT || failures > 0);
}

/* A file that cannot be read, as A or as B, is refused by its name: none, a folder, an empty one, one cut short. */
static void compare_refused(void)
{
    static const pair good[] = {{{"F32 [1] 1", ""}, ""}};
    static const char header[8] = {42};
    size_t failures;
    put("a", good, 1, 0);
    for (int k = 0; k < 8; k++) {
        const char *bad = k / 2 == 1 ? FOLDER : at("bad");
        FILE *f = k / 2 > 1 ? fopen(bad, "wb") : NULL;
        CHECK(!f || (fwrite(header, 1, k / 2 == 3 ? 8 : 0, f) < 9 && fclose(f) == 0));
        err.text[0] = 0;
        const char *a = k % 2 ? bad : at("a"), *b = k % 2 ? at("a") : bad;
        CHECK_EQUAL(ttmm_compare(a, b, 0, 0, 0, ignore, NULL, &failures, &err), TTMM_BAD_INPUT);
        CHECK_TEXT(err.text, bad);
    }
}

/* ---- Check ------------------------------------------------------------------------------------------------------- */

/* A tensor of the manifest: as in a pair, with the rest of its entry ('' for ""), and "verdict ties worst a b". */
typedef struct {
    const char *in[2], *entry, *report;
} rule;
static const rule *rules;
static size_t n_rules, judgements, failures_found, files_ended;

static void put_text(const char *path, const char *content) /* ' stands for " */
{
    FILE *f = fopen(path, "wb");
    for (; f && *content; content++) fputc(*content == '\'' ? '"' : *content, f);
    CHECK(f && fclose(f) == 0);
}

/* The files v/f and y/f, and v/manifest.json. */
static void put_rules(const rule *r, size_t n)
{
    static char manifest[20000];
    pair p[40];
    char *to = manifest + sprintf(manifest, "{'version':2,'files':{'f':{'tensors':{");
    for (size_t i = 0, written = 0; i < n; i++) {
        const char *a = r[i].in[0];
        p[i] = (pair){{a, r[i].in[1]}, ""};
        if (*a == 0) continue;
        to += sprintf(to, "%s't%zu':{'dtype':'%.*s','shape':%.*s],%s}", written++ ? "," : "", i, (int)strcspn(a, " "),
                      a, (int)(strcspn(a, "]") - strcspn(a, "[")), strchr(a, '['), r[i].entry);
    }
    strcpy(to, "}}}}");
    put_text(at("v/manifest.json"), manifest);
    put("v/f", p, n, 0), put("y/f", p, n, 1);
    rules = r, n_rules = n, judgements = failures_found = 0;
}

static void judge(void *context, const char *file, const ttmm_difference *d)
{
    static const char *const verdict[] = {"same",  "within", "near-tie", "past", "not-finite",
                                          "shape", "type",   "missing",  "extra"};
    CHECK(context == &rules && strcmp(file, "f") == 0 && files_ended == 0);
    if (d == NULL) {
        files_ended++;
        return;
    }
    const rule *r = &rules[atoi(d->name + 1)];
    const char *e = r->report, *what = text("%s: %s, %s, %s", d->name, r->in[0], r->in[1], r->entry);
    const double found[] = {(double)d->ties, (double)d->worst, d->a, d->b};
    test_text(__FILE__, __LINE__, what, text("%s ", verdict[d->verdict]), text("%.*s ", (int)strcspn(e, " "), e));
    for (int k = 0; k < 4 && e[strcspn(e, " ")]; k++)
        if (*(e += strcspn(e, " ") + 1) != '?') test_near(__FILE__, __LINE__, what, found[k], strtod(e, NULL), 0);
    judgements++, failures_found += d->verdict >= TTMM_PAST && d->verdict <= TTMM_TYPE;
}

static int check_folder(const char *precision, size_t *wrong)
{
    files_ended = 0;
    return ttmm_check(at("v"), at("y"), precision, judge, &rules, wrong, &err);
}

static void check_verdicts(void)
{
#define TIE "'or':'t1','margin':'t2','f32':0.02"
    static const rule list[] = {
        {{"I32 [3] 5 6 7", "U8 [3] 5 6 7"}, TIE, "same 0"},
        {{"I32 [3] 9 9 9", ""}, "'given':true", ""}, /* the second best, and the margins */
        {{"F64 [3] 0.02 0.0201 nan", ""}, "'given':true", ""},
        {{"I32 [3] 5 6 7", "U8 [3] 9 6 7"}, TIE, "near-tie 1"},
        {{"I32 [3] 5 6 7", "I64 [3] 8 6 7"}, TIE, "past ? 0 5 8"},
        {{"I32 [3] 5 6 7", "I64 [3] 9 9 7"}, TIE, "past ? 1 6 9"},
        {{"I32 [3] 5 6 7", "I64 [3] 5 6 9"}, TIE, "past ? 2 7 9"}, /* a margin of NaN allows nothing */
        {{"I32 [2, 2] 1 2 3 128256", "U32 [2, 2] 1 2 3 128256"}, "'f32':1", "same 0"},
        {{"I32 [2, 2] 1 2 3 128256", "U32 [2, 2] 1 2 4 128255"}, "'f32':1", "past 0 2 3 4"}, /* the first */
        {{"I32 [2000] 1*2000", "I64 [2000] 1*1999 -1"}, "'given':false", "past 0 1999 1 -1"},
        {{"I32 [2] 15 1", "F32 [2] 15 1"}, "'f32':1", "type"},
        {{"I32 [1] 1", "BOOL [1] 1"}, "'f32':1", "type"},
        {{"F64 [1] 15", "I32 [1] 15"}, "'f32':1", "type"},
        {{"F64 [1] 15", "I32 [2] 15 1"}, "'f32':1", "type"},
        {{"F64 [2, 3] 1*6", "F64 [3, 2] 1*6"}, "'f32':1", "shape"},
        {{"F64 [1] 1", "F32 [] 1"}, "'f32':1", "shape"},
        {{"F64 [2, 2] 1000 1 1 0.5", "F64 [2, 2] 1000.5 1 1 0.75"}, "'f32':0.1", "past 0 3 0.5 0.75"},
        {{"F64 [2] 1 2", "BF16 [2] 0x3f80 0x4000"}, "'f32':0", "same"},
        {{"F64 [2] 1 2", "F16 [2] 0x3c00 0x4001"}, "'f32':0.001", "within 0 1 2"},
        {{"F64 [2] 1 2", "F64 [2] 1 2.5"}, "'f32':0.25", "within"},
        {{"F64 [2] 1 2", "F64 [2] 1 2.5"}, "'f32':0.2499,'f64':1", "past 0 1 2 2.5"},
        {{"F64 [2] 1 2", "F32 [2] 1 nan"}, "'f32':1e300", "not-finite 0 1 2"},
        {{"F64 [2] 0 0", "F64 [2] 0 1e-300"}, "'f32':1", "past 0 1"},
        {{"F64 [1] 1", ""}, "'f32':0", "missing"},
        {{"F64 [1] 1", "F64 [1] 0x1.0000000000001p0"}, "'given':true", "past"},
        {{"F64 [1] 1", "F64 [1] 0x1.0000000000001p0"}, "'given':true,'f32':1e-15", "within"},
        {{"", "F32 [1] 1"}, "", "extra"}};
    size_t wrong;
    put_rules(list, sizeof list / sizeof *list);
    DONE(check_folder("f32", &wrong));
    CHECK_EQUAL(judgements, n_rules - 2), CHECK_EQUAL(files_ended, 1), CHECK_EQUAL(wrong, failures_found);
}

/* What damages the manifest, or does not fit the files, is refused by file and key. */
static void check_refused(void)
{
    static const rule list[] = {{{"F64 [2] 1 2", "F64 [2] 1 2"}, "'f32':1", "same"},
                                {{"I32 [2] 1 2", "I32 [2] 1 2"}, "'or':'t1','margin':'t0','f32':1", "same"}};
    static const char good[] = "{'version':2,'files':{'f':{'tensors':{'t0':{'dtype':'F64','shape':[2],'f32':1},"
                               "'t1':{'dtype':'I32','shape':[2],'or':'t1','margin':'t0','f32':1,'given':false}}}}}";
    static const char *const damage[][3] = {/* what is replaced, by what, a part of the sentence */
                                            {"'version':2", "'version':1", "version is 1"},
                                            {"'version':2,", "", "version is missing"},
                                            {"'files'", "'file'", "files is missing"},
                                            {"'tensors'", "'tensor'", "f: tensors is missing"},
                                            {"{'tensors'", "[3],'g':{'tensors'", "f: tensors is missing"},
                                            {"'f':{'t", "'g':{'t", "v/g: cannot be opened"},
                                            {"'t0':{", "'t2':{", "tensor t2 is missing"},
                                            {"'F64'", "'F32'", "t0: dtype is \"F32\", expected F64 or I32"},
                                            {"'F64'", "'I32'", "tensor t0 is F64 [2], expected \"I32\" [2]"},
                                            {"'F64'", "64", "t0: dtype is 64"},
                                            {"[2]", "[2,1]", "tensor t0 is F64 [2], expected \"F64\" [2,1]"},
                                            {"[2]", "[]", "tensor t0 is F64 [2], expected \"F64\" []"},
                                            {"[2]", "2", "t0: shape is 2"},
                                            {"'f32':1", "'f64':1", "t0: f32 is missing"},
                                            {"'f32':1", "'f32':'1'", "t0: f32 is \"1\""},
                                            {"'f32':1", "'f32':-1", "t0: f32 is -1"},
                                            {"'f32':1", "'f32':NaN", "t0: f32 is NaN"},
                                            {"'f32':1", "'f32':1,'or':'t1'", "t0: or is \"t1\""},
                                            {"'f32':1,'g", "'f64':1,'g", "t1: f32 is missing"},
                                            {"'or':'t1'", "'or':1", "t1: or is 1"},
                                            {"'or':'t1'", "'or':'t0'", "\"or\" of t1"},
                                            {"'or':'t1'", "'or':'t9'", "\"or\" of t1"},
                                            {"'margin':'t0'", "'margin':'t1'", "\"margin\" of t1"},
                                            {"'margin':'t0',", "", "t1: margin is missing"},
                                            {"false", "0", "t1: given is 0"},
                                            {"'t0'", "'t1'", "key \"t1\" twice"}};
    char manifest[400];
    size_t wrong;
    put_rules(list, 2);
    DONE(check_folder("f32", &wrong));
    GIVES("another precision", check_folder("f6", &wrong), TTMM_BAD_USE, "f6", "bf16");
    put_text(at("v/manifest.json"), good);
    DONE(check_folder("f32", &wrong));
    REFUSED(check_folder("bf16", &wrong), "manifest.json", "t0: bf16 is missing");
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        const char *from = strstr(good, damage[i][0]);
        sprintf(manifest, "%.*s%s%s", (int)(from - good), good, damage[i][1], from + strlen(damage[i][0]));
        put_text(at("v/manifest.json"), manifest);
        REFUSED(check_folder("f32", &wrong), at("v/"), damage[i][2]);
    }
    for (size_t n = 0; n < sizeof good - 1; n++) {
        sprintf(manifest, "%.*s", (int)n, good);
        put_text(at("v/manifest.json"), manifest);
        REFUSED(check_folder("f32", &wrong), "manifest.json", "JSON");
    }
    put_text(at("v/manifest.json"), "{'version':2,'files':{}}");
    REFUSED(check_folder("f32", &wrong), at("y: "), "nothing is compared");
}

/* Traces in files: the cached one is the same as the full one (FAST: nearly), another sequence's in nothing. */
static void compare_traces(void)
{
#ifdef TTMM_FAST
    const double rtol = IS_DOUBLE ? 1e-12 : 1e-4;
#else
    const double rtol = 0;
#endif
    for (size_t n = 0, failures; n < 2 * ADAPTERS + 2; n++) {
        ttmm_trace full = traced(n / 2, 0, 1);
        MUST(ttmm_arrays_write(full.array, full.n, at("a"), "a note", &err));
        for (size_t i = 0; i < it.T; i++) it.token[i] ^= (int)(n % 2);
        ttmm_trace other = traced(n / 2, 1, 0);
        for (size_t i = 0; i < it.T; i++) it.token[i] ^= (int)(n % 2);
        MUST(ttmm_arrays_write(other.array, other.n, at("b"), "", &err));
        MUST(ttmm_compare(at("a"), at("b"), 0, rtol, 0, ignore, NULL, &failures, &err));
        CHECK_EQUAL(failures, n % 2 ? full.n : parameters(n / 2));
        ttmm_trace_free(&full), ttmm_trace_free(&other);
    }
}

int main(void)
{
    test_clear(FOLDER);
    MUST(ttmm_make_folder(FOLDER, &err)), ttmm_set_threads(1);
    for (int tied = 0; tied < 2; tied++) {
        const ttmm_config c = {12,  2,   6, 2,  4, 20,  30, 32, tied, 1e-3, 100, !tied, tied ? TTMM_ROPE_LLAMA3 : 0,
                               2.5, 0.3, 3, 30, 0, {0}, 0,  0};
        world_new(&c, tied ? 2 : 9, 1);
        RUN(trace_order), RUN(trace_values), RUN(trace_ways), RUN(trace_derivatives), RUN(compare_traces);
        numbers_free(&it.model, it.lora);
    }
    RUN(invariance_prefixes), RUN(invariance_batches), RUN(invariance_cached);
    RUN(compare_measures), RUN(compare_tolerances), RUN(compare_not_finite), RUN(compare_integers);
    RUN(compare_by_row), RUN(compare_lists), RUN(compare_refused);
    MUST(ttmm_make_folder(at("v"), &err)), MUST(ttmm_make_folder(at("y"), &err));
    RUN(check_verdicts), RUN(check_refused);
    test_clear(FOLDER);
    return test_end("trace");
}
