/* library.c - the library as a host program meets it: sizes that do not fit are refused before anything is written, and
 * answering a prompt in one call is the steps one by one; works at once are all done. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "test.h"

enum { V = 40, LENGTH = 24, E = TTMM_EMBED_DIM, K = 3, RANK = 2, T = 6 };

static ttmm_error err;
static const ttmm_config config = {.dim = 12,
                                   .n_layers = 2,
                                   .n_heads = 2,
                                   .n_kv_heads = 1,
                                   .head_dim = 6,
                                   .intermediate = 20,
                                   .vocab = V,
                                   .context = LENGTH,
                                   .norm_eps = 1e-5,
                                   .rope_theta = 100,
                                   .n_ends = 1,
                                   .end = {V - 1}};
static ttmm_model base, merged;
static ttmm_lora lora[K], deeper;
static real centroid[K * E], idf[E];
static const int prompt[T] = {3, 1, 4, 1, 5, 9};

static void must(int code)
{
    if (code) exit((printf("library.c: %s\n", err.text), 4));
}

static void make_world(void)
{
    ttmm_config two = config;
    two.n_layers++;
    must(ttmm_model_new(&base, &config, &err)), must(ttmm_lora_new(&deeper, &two, RANK, 1, &err));
    test_fill(base.data, base.n, "base", 0);
    must(ttmm_model_copy(&merged, &base, &err));
    for (int k = 0; k < K; k++) {
        must(ttmm_lora_new(&lora[k], &config, RANK, 1 + k, &err));
        test_fill(lora[k].data, lora[k].n, "lora", (uint64_t)k);
        test_fill(centroid + k * E, E, "centroid", (uint64_t)k);
        normalise(centroid + k * E, E);
    }
    for (int e = 0; e < E; e++) idf[e] = 1;
}

#define NOT_MADE(call, part) GIVES(#call, call, TTMM_BAD_USE, part, "")

/* Every size of a pass that would make it write beyond its arrays, or never end. */
static void passes_refused(void)
{
    static const struct {
        ttmm_pass_size size;
        const char *why;
    } bad[] = {
        {{.tokens = 0, .sequences = 1, .logits = 1}, "no tokens"},
        {{.tokens = 4, .sequences = 0, .logits = 1}, "no sequences"},
        {{.tokens = 4, .sequences = 1, .logits = 0}, "no logits"},
        {{.tokens = 4, .sequences = 1, .logits = 1, .cache = 8, .backward = 1}, "backward through a cache"},
        {{.tokens = 4, .sequences = 2, .logits = 1, .cache = 8}, "several sequences in one cache"},
    };
    ttmm_pass *p;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        NOT_MADE(ttmm_pass_new(&p, &config, &bad[i].size, &err), bad[i].why);
        CHECK(p == NULL);
    }
    ttmm_config none = config;
    none.dim = 0;
    REFUSED(ttmm_pass_new(&p, &none, &(ttmm_pass_size){.tokens = 1, .sequences = 1, .logits = 1}, &err), "dim", "");
}

static void trainers_refused(void)
{
    int token[] = {1, 2, 3, 4};
    size_t sequence[] = {0, 2, 4};
    ttmm_corpus text = {.n_tokens = 4, .n_sequences = 2, .token = token, .sequence = sequence};
    ttmm_recipe r = {.batch = 1};
    ttmm_trainer *t;
    if (DONE(ttmm_trainer_new(&t, &base, &lora[0], &text, &r, &err))) ttmm_trainer_free(t);
    NOT_MADE(ttmm_trainer_new(&t, &base, &deeper, &text, &r, &err), "3 layers for a model of 2");
    token[2] = V;
    NOT_MADE(ttmm_trainer_new(&t, &base, NULL, &text, &r, &err), "token 2 of the corpus is 40, expected 0 to 39");
    token[2] = -1;
    NOT_MADE(ttmm_trainer_new(&t, &base, NULL, &text, &r, &err), "is -1");
    token[2] = 3, r.batch = 0;
    NOT_MADE(ttmm_trainer_new(&t, &base, NULL, &text, &r, &err), "batch");
    r.batch = 1, text.n_sequences = 0;
    NOT_MADE(ttmm_trainer_new(&t, &base, NULL, &text, &r, &err), "corpus");
    CHECK(t == NULL);
}

/* A call that does not fit is refused and changes nothing: the next one gives the bits of an undisturbed pass. */
static void calls_refused(void)
{
    const ttmm_pass_size size = {.tokens = 4, .sequences = 2, .longest = 3, .logits = 2, .rank = RANK - 1};
    const ttmm_pass_size cached = {.tokens = 4, .sequences = 1, .cache = 5, .logits = 1};
    static const int ok[] = {1, 2, 3, 4, 5}, low[] = {1, -1}, high[] = {1, V};
    const ttmm_lora *adapter = &lora[0], *other = &deeper;
    const real one = 1;
    const ttmm_mix mix = {1, &adapter, &one}, deep = {1, &other, &one};
    ttmm_pass *p;
    must(ttmm_pass_new(&p, &config, &size, &err));
    CHECK_EQUAL(ttmm_forward(p, &base, NULL, ok, (const size_t[]){0, 3, 4}, 2), TTMM_OK);
    const real before = ttmm_logits(p, &base, 3, 1)[7];
#define REFUSES(tokens, adapters, B, ...) \
    CHECK_EQUAL(ttmm_forward(p, &base, adapters, tokens, (const size_t[]){__VA_ARGS__}, B), TTMM_BAD_USE)
    REFUSES(ok, NULL, 2, 0, 3, 5);    /* tokens */
    REFUSES(ok, NULL, 3, 0, 1, 2, 3); /* sequences */
    REFUSES(ok, NULL, 0, 0);
    REFUSES(ok, NULL, 1, 0, 4);    /* the longest */
    REFUSES(ok, NULL, 2, 0, 2, 2); /* an empty one */
    REFUSES(ok, NULL, 2, 0, 3, 2); /* descending */
    REFUSES(ok, NULL, 1, 1, 2);    /* not from 0 */
    REFUSES(low, NULL, 1, 0, 2);
    REFUSES(high, NULL, 1, 0, 2);
    REFUSES(ok, &mix, 1, 0, 2); /* a higher rank */
    REFUSES(ok, &deep, 1, 0, 2);
    CHECK(ttmm_logits(p, &base, 3, 1)[7] == before);
    CHECK(ttmm_logits(p, &base, 4, 1) == NULL && ttmm_logits(p, &base, 3, 2) == NULL &&
          ttmm_logits(p, &base, 0, 3) == NULL);
    CHECK(ttmm_score(p, &base, NULL, ok, 4, 1) != ttmm_score(p, &base, NULL, ok, 4, 1)); /* NaN: longer than 3 */
    double memory[4];
    CHECK(!(ttmm_score_ensemble(p, &base, &mix, ok, 3, 1, memory) > 0));
    ttmm_pass_free(p);
    must(ttmm_pass_new(&p, &config, &cached, &err));
    CHECK(ttmm_feed(p, &base, NULL, ok, 5) && ttmm_cached(p) == 5); /* in pieces of 4 */
    CHECK(ttmm_feed(p, &base, NULL, ok, 1) == NULL && ttmm_cached(p) == 5);
    CHECK_EQUAL(ttmm_rewind(p, 6), TTMM_BAD_USE);
    CHECK(ttmm_rewind(p, 3) == TTMM_OK && ttmm_cached(p) == 3);
    REFUSES(ok, NULL, 1, 0, 3); /* the cache */
    CHECK(ttmm_forward(p, &base, NULL, ok, (const size_t[]){0, 2}, 1) == TTMM_OK && ttmm_cached(p) == 5);
    CHECK(ttmm_feed(p, &base, NULL, ok, 0) == NULL);
    ttmm_pass_free(p);
    must(ttmm_pass_new(&p, &config,
                       &(ttmm_pass_size){.tokens = 4, .sequences = 1, .longest = 2, .cache = 5, .logits = 1}, &err));
    REFUSES(ok, NULL, 1, 0, 3); /* the longest, with a cache, too */
    CHECK(ttmm_feed(p, &base, NULL, ok, 5) && ttmm_cached(p) == 5);
    ttmm_pass_free(p);
}

static const ttmm_lora *silent(void *context, size_t k, ttmm_error *e)
{
    (void)context, (void)k, (void)e;
    return NULL;
}

/* What a caller may do at an edge: each has its defined answer. */
static void edges(void)
{
    const ttmm_pass_size plain = {.tokens = 4, .sequences = 1, .logits = 1, .rank = RANK};
    ttmm_config odd = config;
    ttmm_pass *p;
    odd.n_layers = -1;
    REFUSED(ttmm_pass_new(&p, &odd, &plain, &err), "layers is -1", "");
    odd = config, odd.n_ends = TTMM_ENDS + 1;
    REFUSED(ttmm_config_check(&odd, &err), "n_ends is 9", "");
    odd = config, odd.rope = 3;
    REFUSED(ttmm_config_check(&odd, &err), "rope is 3", "");
    odd = config, odd.rope = TTMM_ROPE_LINEAR, odd.rope_factor = 1e-7; /* angles that sin and cos do not take */
    REFUSED(ttmm_pass_new(&p, &odd, &plain, &err), "too fast for 4 positions", "");
    ttmm_model own = {.config = config}; /* a model made from its own config */
    CHECK(DONE(ttmm_model_new(&own, &own.config, &err)) && own.n == base.n && own.config.dim == config.dim);
    ttmm_model_free(&own);
    must(ttmm_pass_new(&p, &config, &plain, &err));
    CHECK(ttmm_feed(p, &base, NULL, prompt, 2) == NULL && ttmm_cached(p) == 0); /* no cache */
    double memory[4];
    const double nothing = ttmm_score_ensemble(p, &base, &(ttmm_mix){0}, prompt, 4, 1, memory);
    CHECK(nothing != nothing);
    CHECK(ttmm_forward(p, &base, NULL, prompt, (const size_t[]){0, 4}, 1) == TTMM_OK && ttmm_rewind(p, 0) == TTMM_OK);
    real nll[4] = {7, 7, 7, 7};
    ttmm_nll(p, &base, nll); /* of nothing */
    CHECK(nll[3] == 7);
    ttmm_pass_free(p);
    ttmm_mixture x = {.base = &base,
                      .merged = &merged,
                      .load = silent,
                      .K = 1,
                      .E = E,
                      .centroid = centroid,
                      .idf = idf,
                      .prefix = 4,
                      .router = {0.5, 0, 1, 0}};
    const ttmm_lora *adapter = &deeper;
    const real one = 1;
    must(ttmm_mixture_new(&x, &err));
    NOT_MADE(ttmm_mixture_merge(&x, &(ttmm_mix){1, &adapter, &one}, &err), "3 layers for a model of 2");
    err.code = TTMM_OK;
    static const real nowhere[E], far[E] = {(real)INFINITY};
    REFUSED(ttmm_query(&x, prompt, T, nowhere, &err), "query embedding", "expected a direction");
    REFUSED(ttmm_query(&x, prompt, T, far, &err), "query embedding", "expected a direction");
    err.code = TTMM_OK;
    CHECK_EQUAL(ttmm_choose(&x, prompt, T, NULL, &err), TTMM_BAD_USE);
    CHECK(x.mix.n == 0);
    x.K = 0;
    CHECK(DONE(ttmm_choose(&x, prompt, T, NULL, &err)) && x.mix.n == 0); /* no experts: the base answers */
    x.E = 0;
    CHECK(DONE(ttmm_choose(&x, prompt, T, nowhere, &err)) && x.mix.n == 0);
    ttmm_mixture_free(&x);
    const real logits[] = {(real)NAN, 2, (real)NAN, 1}, two[] = {1, 3, 3};
    const ttmm_sampler s = {1, 1, 0};
    double scratch[64];
    ttmm_rng g = {1};
    CHECK(ttmm_sample_scratch(4) <= sizeof scratch && (unsigned)ttmm_sample(logits, 4, &s, &g, scratch) < 4);
    CHECK_EQUAL(ttmm_argmax(two, 3), 1);
}

/* ---- Answering a prompt ------------------------------------------------------------------------------------------ */

static int loads;

static const ttmm_lora *load(void *context, size_t k, ttmm_error *e)
{
    loads++;
    if (context) return ttmm_fail(e, TTMM_NO_ROOM, "expert %zu is not there", k), NULL;
    return &lora[k];
}

static ttmm_mixture mixture(void)
{
    return (ttmm_mixture){.base = &base,
                          .merged = &merged,
                          .K = K,
                          .E = E,
                          .centroid = centroid,
                          .idf = idf,
                          .prefix = 4,
                          .router = {0.5, 0.01, K, 0},
                          .load = load};
}

typedef struct {
    int token[LENGTH], enough;
    size_t n, chosen, begun;
} heard;

static int hear(void *context, int token)
{
    heard *h = context;
    h->token[h->n++] = token;
    return h->n == (size_t)h->enough;
}

static void hear_begin(void *context) { ((heard *)context)->begun++; }

static void hear_experts(void *context, const ttmm_mixture *x) { ((heard *)context)->chosen = x->mix.n; }

/* Greedy decoding by its definition: after every token the whole text again, with all experts beside the weights or
 * (ensemble) the mean of the probabilities, and the largest. */
static int next_token(const int *text, size_t n, const ttmm_mix *mix, int how)
{
    const ttmm_pass_size size = {.tokens = LENGTH, .sequences = 1, .logits = 1, .rank = RANK};
    double p[V] = {0};
    int best = 0;
    ttmm_pass *pass;
    must(ttmm_pass_new(&pass, &config, &size, &err));
    for (size_t k = 0; k < (how == TTMM_ENSEMBLE ? mix->n : 1); k++) {
        const real one = 1;
        const ttmm_mix alone = {1, mix->n ? mix->lora + k : NULL, &one};
        ttmm_forward(pass, &base, how == TTMM_ENSEMBLE ? &alone : mix, text, (const size_t[]){0, n}, 1);
        const real *logits = ttmm_logits(pass, &base, n - 1, 1);
        double total = 0;
        for (int v = 0; v < V; v++) total += exp((double)logits[v]);
        for (int v = 0; v < V; v++)
            p[v] += (how == TTMM_ENSEMBLE ? (double)mix->weight[k] : 1) * exp((double)logits[v]) / total;
    }
    for (int v = 1; v < V; v++) best = p[v] > p[best] ? v : best;
    ttmm_pass_free(pass);
    return best;
}

static void answers(void)
{
    static const int ways[] = {TTMM_DENSE, TTMM_LOWRANK, TTMM_ENSEMBLE, TTMM_FASTER};
    static real query[E];
    size_t longest = 0;
    for (size_t w = 0; w < 4; w++) {
        ttmm_mixture x = mixture();
        heard h = {.enough = -1};
        const ttmm_decoding d = {
            .tokens = 9, .chosen = hear_experts, .begin = hear_begin, .token = hear, .context = &h};
        int text[LENGTH];
        size_t n, routed;
        must(ttmm_mixture_new(&x, &err));
        DONE(ttmm_answer(&n, &x, ways[w], prompt, T, NULL, &d, &err));
        CHECK(n == h.n && h.chosen == x.mix.n && x.mix.n > 1 && h.begun == 1);
        CHECK(n == 9 || h.token[n - 1] == V - 1); /* an end token ends it */
        longest = n > longest ? n : longest;
        memcpy(text, prompt, sizeof prompt);
        for (size_t i = 0; i < n; i++) {
            text[T + i] = next_token(text, T + i, &x.mix, ways[w]);
            CHECK_EQUAL(h.token[i], text[T + i]);
        }
        /* the query is the embedding of the prefix; the route that of ttmm_route; given, it is the same */
        real weight[K], similarity[K];
        int expert[K];
        ttmm_embed(query, NULL, prompt, 4, idf);
        must(ttmm_route(&routed, expert, weight, similarity, query, centroid, K, E, &x.router, &err));
        CHECK(routed == x.mix.n && memcmp(expert, x.expert, routed * sizeof *expert) == 0 &&
              memcmp(weight, x.weight, routed * sizeof *weight) == 0);
        x.idf = NULL;
        NOT_MADE(ttmm_answer(&n, &x, ways[w], prompt, T, NULL, &d, &err), "the query must be given");
        heard again = {.enough = 2};
        const ttmm_decoding two = {.tokens = 9, .token = hear, .context = &again};
        DONE(ttmm_answer(&n, &x, ways[w], prompt, T, query, &two, &err));
        CHECK(n == again.n && n == (h.n < 2 ? h.n : 2) && memcmp(again.token, h.token, n * sizeof(int)) == 0);
        ttmm_mixture_free(&x);
    }
    CHECK_EQUAL(longest, 9);
}

/* With no expert above tau the base answers, whatever the way; what fails is told, and nothing is heard. */
static void answers_of_none(void)
{
    static const int ways[] = {TTMM_DENSE, TTMM_LOWRANK, TTMM_ENSEMBLE, TTMM_FASTER}, outside[] = {1, V};
    int first = -1;
    for (size_t w = 0; w < 4; w++) {
        ttmm_mixture x = mixture();
        heard h = {.enough = 1};
        const ttmm_decoding d = {.tokens = 5, .token = hear, .context = &h};
        size_t n;
        x.router.tau = 0.999;
        must(ttmm_mixture_new(&x, &err));
        DONE(ttmm_answer(&n, &x, ways[w], prompt, T, NULL, &d, &err));
        if (w == 0) first = next_token(prompt, T, &(ttmm_mix){0}, TTMM_LOWRANK);
        CHECK(n == 1 && x.mix.n == 0);
        CHECK_EQUAL(h.token[0], first);
        int longest[LENGTH] = {0};
        REFUSED(ttmm_answer(&n, &x, ways[w], longest, LENGTH, NULL, &d, &err), "24 tokens, expected 1 to 23", "");
        REFUSED(ttmm_answer(&n, &x, ways[w], outside, 2, NULL, &d, &err), "not in 0 .. 39", "");
        static const real zero[E];
        REFUSED(ttmm_answer(&n, &x, ways[w], prompt, T, zero, &d, &err), "zero", "");
        x.router.tau = 0.01, x.context = &h, loads = 0;
        GIVES("load", ttmm_answer(&n, &x, ways[w], prompt, T, NULL, &d, &err), TTMM_NO_ROOM, "is not there", "");
        CHECK(n == 0 && loads == 1 && h.n == 1);
        ttmm_mixture_free(&x);
    }
}

/* ---- Works at once ----------------------------------------------------------------------------------------------- */

typedef struct {
    int times[50], job[50], threads, stop_at, fail_at, jobs; /* stop_at, fail_at: -1, none */
} works;

static int one_work(void *context, size_t i, int job, ttmm_error *e)
{
    works *w = context;
    const double began = ttmm_seconds();
    volatile int *next = &w->times[i + 1 < 50 ? i + 1 : i];
    w->times[i]++, w->job[i] = job;
    if (ttmm_threads() != w->threads) return ttmm_fail(e, TTMM_BAD_USE, "%d threads inside", ttmm_threads());
    if ((int)i == w->stop_at) { /* with several jobs not before the next one has begun */
        while (w->jobs > 1 && *next == 0 && ttmm_seconds() - began < 2) continue;
        return ttmm_fail(e, 7, "stopped at %zu", i);
    }
    return (int)i == w->fail_at ? ttmm_fail(e, TTMM_NO_ROOM, "failed at %zu", i) : TTMM_OK;
}

static void works_at_once(void)
{
    static const int jobs[] = {1, 2, 3, 60};
    const int before = ttmm_threads();
    for (int threads = 1; threads <= 2; threads++)
        for (size_t k = 0; k < 4; k++) {
            works w = {.stop_at = -1, .fail_at = -1, .jobs = jobs[k]};
            ttmm_set_threads(threads), w.threads = ttmm_threads();
            DONE(ttmm_parallel(50, jobs[k], one_work, &w, &err)); /* each once, by a job that there is */
            for (int i = 0; i < 50; i++) CHECK(w.times[i] == 1 && w.job[i] >= 0 && w.job[i] < jobs[k]);
            CHECK(ttmm_parallel(0, jobs[k], one_work, &w, &err) == TTMM_OK && ttmm_threads() == w.threads);
            w = (works){.stop_at = -1, .fail_at = 20, .threads = w.threads, .jobs = jobs[k]};
            GIVES("work", ttmm_parallel(50, jobs[k], one_work, &w, &err), TTMM_NO_ROOM, "failed at 20", "");
            for (int i = 0; i < 50; i++) CHECK(w.times[i] == (i <= 20) || (i > 20 && jobs[k] > 1));
            w = (works){
                .stop_at = 20, .fail_at = 21, .threads = w.threads, .jobs = jobs[k]}; /* a failure counts more */
            const int code = ttmm_parallel(50, jobs[k], one_work, &w, &err);
            CHECK_EQUAL(code, w.times[21] ? TTMM_NO_ROOM : 7);
            CHECK_TEXT(err.text, w.times[21] ? "failed at 21" : "stopped at 20");
        }
    ttmm_set_threads(before);
}

int main(void)
{
    make_world();
    RUN(passes_refused), RUN(trainers_refused), RUN(calls_refused), RUN(edges), RUN(answers), RUN(answers_of_none);
    RUN(works_at_once);
    ttmm_model_free(&base), ttmm_model_free(&merged), ttmm_lora_free(&deeper);
    for (int k = 0; k < K; k++) ttmm_lora_free(&lora[k]);
    return test_end("test/library.c");
}
