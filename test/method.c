/* method.c - tests of the method: sections 5 to 10 and 12 of ttmm.h. What is expected was worked by hand, is computed a
 * second time here from the formula (in long double: `big`), or comes from PyTorch and scikit-learn, as noted.
 * TOL(float, double) is about five times the largest error seen with gcc and clang. Files go to a folder named after
 * the program with .tmp at its end, and are removed. */
#include "test.h"

typedef long double big;
#define TOL(f, d) (sizeof(real) == 8 ? (d) : (f))
#define SIZE(n) ((n) + 64) /* kernels may read 64 numbers past an array's end */
#define CHECK_REFUSED(call, word) (CHECK_EQUAL(call, TTMM_BAD_INPUT), CHECK_TEXT(err.text, word))

/* Five documents; with a context of 24, seven sequences of 24, 24, 15, 15, 21, 15 and 20 tokens. */
static const char TEXT[] = "the cat sat on the mat, the cat sat on the hat\n<|endoftext|>\n"
                           "int main(void) { return 0; }\n<|endoftext|>\nsalt, flour, butter\n<|endoftext|>\n"
                           "rain and wind\n<|endoftext|>\nto be or not to be\n";
enum { V = TTMM_BYTES, E = TTMM_EMBED_DIM, N_SEQ = 7, TOKENS = 20, LOGITS = TOKENS * V, MOST = 10000 };
static const ttmm_config shape = {32, 2, 4, 2, 8, 48, V, 24, 0, 1e-5, 10000, 0, 0, 0, 0, 0, 0, 1, {TTMM_END}, 0, 0};

/* What the tests share, made by main: the texts above, a model, three adapters that change it visibly. */
static ttmm_corpus corpus;
static ttmm_model base;
static ttmm_lora lora[3];
static ttmm_pass *pass; /* of 20 tokens in one or two sequences, rank 8 */
static const ttmm_lora *const adapter[3] = {&lora[0], &lora[1], &lora[2]};
static const real ONE = 1;
static real scratch[MOST];
static char folder[400];
static ttmm_error err;

static void must(int code) /* what a test stands on; not a check */
{
    if (code < 0) exit(printf("%s: %s\n", test_name, err.text) != 0);
}

static void write_file(char path[500], const char *name, const char *text, size_t bytes)
{
    snprintf(path, 500, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(text, 1, bytes, f) != bytes || fclose(f) != 0) exit(printf("%s: not written\n", path) != 0);
}

static void corpus_of(ttmm_corpus *c, const char *text, int context)
{
    char path[500];
    write_file(path, "corpus.txt", text, strlen(text));
    must(ttmm_corpus_from_files(c, NULL, (const char *const[]){path}, 1, context, &err));
    remove(path);
}

static int same(const real *x, const real *y, size_t n) { return memcmp(x, y, n * sizeof *x) == 0; }

static double difference(const real *x, const real *y, size_t n) /* the largest, relative to the largest |y| */
{
    double most = 1e-30, worst = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(fabs((double)x[i] - (double)y[i]) <= worst)) worst = fabs((double)x[i] - (double)y[i]); /* NaN stays */
        most = fmax(most, fabs((double)y[i]));
    }
    return worst / most;
}

static big inner(const real *x, const real *y, size_t n)
{
    big s = 0;
    for (size_t i = 0; i < n; i++) s += (big)x[i] * (big)y[i];
    return s;
}

static void unit_rows(real *x, size_t rows, size_t n, const char *purpose, uint64_t index) /* no purpose: those in x */
{
    if (purpose) test_fill(x, rows * n, purpose, index);
    for (size_t i = 0; i < rows; i++, x += n) {
        const big length = sqrtl(inner(x, x, n));
        for (size_t k = 0; k < n; k++) x[k] = (real)((big)x[k] / length);
    }
}

/* ---- Optimiser, LoRA ---- */

/* w = 1, grad = 1 scaled by 1/2, rate 0.1, decay 0.5, betas 1/2 and 3/4, eps 1/2, step 1:  w = 1 - 0.1 * 0.5 = 0.95,
 * m = 0.25, v = 0.0625;  m / (1 - 1/2) = 0.5, sqrt(v / (1 - 3/4)) = 0.5;  w = 0.95 - 0.1 * 0.5 / (0.5 + 0.5) = 0.9. */
static void adamw_by_hand(void)
{
    const ttmm_adamw o = {0.1, 0.5, 0.75, 0.5, 0.5};
    real w = 1, m = 0, v = 0, grad = 1;
    ttmm_adamw_step(&w, &grad, &m, &v, 1, &o, 1, 0.5);
    CHECK_NEAR(w, 0.9, TOL(2e-7, 6e-16));
    CHECK(m == (real)0.25 && v == (real)0.0625 && grad == 1);
}

/* 50 steps of 5 numbers against the formula, and after 1, 10, 50 against torch.optim.AdamW (PyTorch 2.6, float64) with
 * lr 0.01, betas (0.9, 0.95), eps 1e-8, weight_decay 0.1; gradient i of step t is ((7 i + 13 t) mod 17 - 8) / 16. */
static void adamw_steps(void)
{
    static const double torch[3][5] = {
        {0.98900000032, -0.48950000031999996, 0.23975000079999995, 2.0079999998, -2.9870000016},
        {0.9703945643485036, -0.4905589791524932, 0.23251973987271038, 2.005365668831888, -2.956752922616291},
        {0.9228330058063924, -0.46817627497738923, 0.22493056755351898, 1.9234075852293075, -2.8335119072167165}};
    const ttmm_adamw o = {0.01, 0.9, 0.95, 1e-8, 0.1};
    real w[5] = {1, (real)-0.5, (real)0.25, 2, -3}, m[5] = {0}, v[5] = {0}, grad[5];
    big W[5] = {1, -0.5L, 0.25L, 2, -3}, M[5] = {0}, S[5] = {0}, power1 = 1, power2 = 1;
    for (int t = 1; t <= 50; t++) {
        for (int i = 0; i < 5; i++) grad[i] = (real)((7 * i + 13 * t) % 17 - 8);
        ttmm_adamw_step(w, grad, m, v, 5, &o, t, 1.0 / 16);
        power1 *= (big)o.beta1, power2 *= (big)o.beta2;
        for (int i = 0; i < 5; i++) {
            const big g = (big)grad[i] / 16;
            W[i] -= (big)o.lr * (big)o.decay * W[i];
            M[i] = (big)o.beta1 * M[i] + (1 - (big)o.beta1) * g;
            S[i] = (big)o.beta2 * S[i] + (1 - (big)o.beta2) * g * g;
            W[i] -= (big)o.lr * (M[i] / (1 - power1)) / (sqrtl(S[i] / (1 - power2)) + (big)o.eps);
            CHECK_NEAR(w[i], W[i], TOL(6e-6, 1e-14));
            if (t == 1 || t % 40 == 10) CHECK_NEAR(w[i], torch[(t + 30) / 40][i], TOL(6e-6, 1e-14));
        }
    }
}

/* torch.nn.utils.clip_grad_norm_: the gradients are scaled by min(1, clip / (norm + 1e-6)). Here the norm is 5. */
static void clipping(void)
{
    const real grad[SIZE(4)] = {3, 0, 0, 4};
    const span whole = {0, 4, 0}, parts[2] = {{0, 1, 1}, {2, 2, 0}};
    CHECK_NEAR(clip_factor(grad, &whole, 1, 1), 1 / (5 + 1e-6), 1e-15);
    CHECK_NEAR(clip_factor(grad, parts, 2, 2), 2 / (5 + 1e-6), 1e-15);
    CHECK(clip_factor(grad, &whole, 1, 6) == 1 && clip_factor(grad, &whole, 1, 0) == 1);
}

/* 10 steps, the first 2 of them warm-up; step 6 is half-way: x = (6 - 2) / 8. The last of many is at last * lr. */
static void rates(void)
{
    const ttmm_schedule cosine = {2, 0.2, 0.1, 1}, line = {2, 0.2, 0.1, 0}, warm = {1, 1, 0, 1}, slow = {3, 0.5, 0, 0};
    static const double lines[10] = {1, 2, 2, 1.775, 1.55, 1.325, 1.1, 0.875, 0.65, 0.425};
    for (long s = 0; s < 10; s++) {
        const big c = (1 + cosl(acosl(-1) * (big)(s - 2) / 8)) / 2;
        CHECK_NEAR(ttmm_rate(&line, s, 10), lines[s], 1e-15);
        CHECK_NEAR(ttmm_rate(&cosine, s, 10), s < 2 ? (big)lines[s] : 2 * (0.1L + 0.9L * c), 1e-15);
        CHECK_EQUAL(ttmm_rate(&warm, s, 10), (double)(s + 1) / 10);
    }
    CHECK_NEAR(ttmm_rate(&cosine, 6, 10), 1.1, 1e-15);
    CHECK_NEAR(ttmm_rate(&line, 100000 - 1, 100000), 0.2, 1e-4);
    for (long s = 0; s < 3; s++) CHECK_EQUAL(ttmm_rate(&slow, s, 3), s == 0 ? 1.5 : 3); /* W = round(1.5) = 2 */
    CHECK(ttmm_rate(&cosine, 0, 1) == 2 && ttmm_rate(&warm, 0, 1) == 1); /* a single step has the full rate */
}

static const real *logits_of(const ttmm_model *m, const ttmm_mix *mix) /* of 20 tokens; until the next call but two */
{
    static real logits[3][LOGITS];
    static int turn;
    ttmm_forward(pass, m, mix, corpus.token, (const size_t[]){0, 13, TOKENS}, 2);
    return memcpy(logits[turn = (turn + 1) % 3], ttmm_logits(pass, m, 0, TOKENS), sizeof *logits);
}

/* A is uniform within 1/sqrt(in), each matrix, stream and seed has its own; B is 0: no bit of the logits changes. */
static void lora_init(void)
{
    ttmm_lora l;
    const ttmm_mix mix = {1, (const ttmm_lora *const[]){&l}, &ONE};
    real first[3];
    must(ttmm_lora_new(&l, &shape, 8, 20, &err));
    test_fill(l.data, l.n, "old", 0); /* init overwrites */
    for (uint64_t k = 0; k < 3; k++) ttmm_lora_init(&l, k / 2, k % 2), first[k] = l.data[0];
    CHECK(first[0] != first[1] && first[0] != first[2] && first[1] != first[2]);
    for (int i = 0; i < shape.n_layers * TTMM_MATRICES; i++) {
        const ttmm_lora_matrix *w = &l.matrix[i];
        const double n = 8 * (double)w->in;
        double mean = 0, square = 0, most = 0, b = 0;
        for (size_t k = 0; k < 8 * w->in; k++) {
            const double a = (double)w->a[k] * sqrt((double)w->in);
            mean += a / n, square += a * a / n, most = fmax(most, fabs(a));
        }
        for (size_t k = 0; k < w->out * 8; k++) b += fabs((double)w->b[k]);
        CHECK(most <= 1 + 1e-7 && most > 0.95 && b == 0 && w->scale == (real)2.5);
        CHECK_NEAR(mean, 0, 5 / sqrt(3 * n));
        CHECK_NEAR(square, 1.0 / 3, 5 * sqrt(4.0 / 45 / n)); /* the variance of a^2 is 1/5 - 1/9 */
        CHECK(i == 0 || !same(w->a, l.matrix[i - 1].a, 8));
    }
    CHECK(same(logits_of(&base, &mix), logits_of(&base, NULL), LOGITS));
    ttmm_lora_free(&l);
}

/* One and three experts of different ranks: dense against low-rank, in place against out of place, and back. */
static void merging(void)
{
    const real weights[2][3] = {{1, 0, 0}, {(real)0.5, (real)0.3, (real)0.2}};
    for (int several = 0; several < 2; several++) {
        const ttmm_mix mix = {several ? 3 : 1, adapter, weights[several]}, none = {0, adapter, weights[0]};
        ttmm_model to, in_place;
        must(ttmm_model_copy(&to, &base, &err)), must(ttmm_model_copy(&in_place, &base, &err));
        CHECK(ttmm_merge_scratch(&shape, &mix) <= MOST);
        ttmm_merge(&in_place, &in_place, &mix, scratch);
        ttmm_weight(&to, 0, TTMM_UP)[7] = 5; /* overwritten */
        ttmm_merge(&to, &base, &mix, scratch);
        CHECK(same(in_place.data, to.data, base.n));
        const real *dense = logits_of(&to, NULL), *low_rank = logits_of(&base, &mix);
        CHECK_NEAR(difference(dense, low_rank, LOGITS), 0, TOL(2e-6, 4e-15));
        CHECK(difference(dense, logits_of(&base, NULL), LOGITS) > 0.1); /* they do matter */
        ttmm_weight(&to, 1, TTMM_MLP_NORM)[7] = 5;                      /* left alone */
        ttmm_merge(&to, &base, &none, scratch), ttmm_merge(&in_place, &base, &none, scratch);
        CHECK(same(in_place.data, base.data, base.n) && ttmm_weight(&to, 1, TTMM_MLP_NORM)[7] == 5);
        ttmm_model_free(&to), ttmm_model_free(&in_place);
    }
}

/* ---- Training ---- */

typedef struct {
    ttmm_model model;
    ttmm_lora lora;
    ttmm_trainer *trainer;
} training;

static void begin(training *s, int rank, const ttmm_recipe *r) /* rank 0: all weights; else a fresh adapter */
{
    must(ttmm_model_new(&s->model, &shape, &err)), ttmm_model_init(&s->model, 7);
    if (rank) must(ttmm_lora_new(&s->lora, &shape, rank, 8, &err)), ttmm_lora_init(&s->lora, 5, 0);
    must(ttmm_trainer_new(&s->trainer, &s->model, rank ? &s->lora : NULL, &corpus, r, &err));
}

static void end(training *s)
{
    if (s->trainer->lora) ttmm_lora_free(&s->lora);
    ttmm_trainer_free(s->trainer), ttmm_model_free(&s->model);
}

static double finish(ttmm_trainer *t) /* the loss of the last step, or 0 */
{
    double loss = 0;
    while (ttmm_trainer_step(t, &loss)) continue;
    return loss;
}

static const ttmm_recipe small = {{0.01, 0.3, 0.1, 1}, 0.9, 0.98, 1e-3, 0.2, 0.5, 4, 1, 5};

/* A run as the header defines it, from ttmm_backward, ttmm_rate and ttmm_adamw_step. order [n]: the sequences. */
static double define_run(training *s, const ttmm_recipe *r, const size_t *order, size_t n)
{
    ttmm_trainer *t = s->trainer;
    const size_t steps = (n + r->batch - 1) / r->batch;
    const ttmm_mix one = {1, (const ttmm_lora *const[]){&s->lora}, &ONE}, *mix = t->lora ? &one : NULL;
    double loss = 0;
    memset(t->moment1, 0, t->n * sizeof(real)), memset(t->moment2, 0, t->n * sizeof(real));
    for (size_t step = 0; step < steps; step++) {
        size_t B = 0;
        for (; B < r->batch && step * r->batch + B < n; B++) {
            const size_t q = order[step * r->batch + B], T = corpus.sequence[q + 1] - corpus.sequence[q];
            memcpy(t->token + t->start[B], corpus.token + corpus.sequence[q], T * sizeof *t->token);
            t->start[B + 1] = t->start[B] + T;
        }
        memset(t->grad, 0, t->n * sizeof(real));
        ttmm_forward(t->pass, &s->model, mix, t->token, t->start, B);
        loss = ttmm_backward(t->pass, &s->model, mix, mix ? NULL : &t->dmodel, mix ? &t->dlora : NULL);
        const double scale = fmin(1, r->clip / (double)(sqrtl(inner(t->grad, t->grad, t->n)) + 1e-6L));
        for (size_t i = 0; i < (mix ? 1 : ttmm_n_tensors(&shape)); i++) {
            const ttmm_tensor w = ttmm_tensor_at(&shape, i);
            const size_t at = mix ? 0 : w.offset, count = mix ? t->n : w.rows * w.cols;
            const int gain = !mix && (w.kind == TTMM_ATTN_NORM || w.kind == TTMM_MLP_NORM || w.kind == TTMM_FINAL_NORM);
            const ttmm_adamw o = {ttmm_rate(&r->schedule, (long)step, (long)steps), r->beta1, r->beta2, r->eps,
                                  gain ? 0 : r->decay};
            ttmm_adamw_step(t->weights + at, t->grad + at, t->moment1 + at, t->moment2 + at, count, &o, (long)step + 1,
                            scale);
        }
    }
    return loss;
}

/* Two epochs, batches across their border, the last one smaller; again, with fresh moments; then a step over a few. */
static void training_as_defined(void)
{
    static const size_t order[14] = {0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6}, some[4] = {5, 0, 5, 0};
    training s, d;
    for (int rank = 0; rank <= 3; rank += 3) {
        ttmm_recipe r = small;
        r.shuffle = 0, r.clip = 0.05; /* always clips */
        begin(&s, rank, &r), begin(&d, rank, &r);
        for (int run = 0; run < 3; run++) {
            const int last = run == 2;
            ttmm_trainer_start(s.trainer, last ? some : NULL, 2, last, last ? 0 : 2, 0);
            const double loss = finish(s.trainer), defined = define_run(&d, &r, last ? some : order, last ? 4 : 14);
            CHECK_NEAR(loss, defined, TOL(2e-6, 4e-15));
            CHECK_NEAR(difference(s.trainer->weights, d.trainer->weights, s.trainer->n), 0, TOL(6e-7, 2e-15));
        }
        if (rank) CHECK(same(s.model.data, d.model.data, s.model.n)); /* the base is frozen */
        end(&s), end(&d);
    }
}

/* A run cut anywhere and resumed by a new trainer ends with the same bits. 7 sequences, 3 epochs, batches of 4: 6
 * steps, two of them across an epoch's border, the last of one sequence. Other settings are refused. The loss falls. */
static void resuming(void)
{
    char path[500];
    write_file(path, "checkpoint", "", 0);
    for (int rank = 0; rank <= 3; rank += 3) {
        training whole, cut, rest;
        double first;
        long steps;
        size_t tokens;
        begin(&whole, rank, &small);
        ttmm_trainer_start(whole.trainer, NULL, 0, 0, 3, 2);
        ttmm_trainer_step(whole.trainer, &first);
        const double last = finish(whole.trainer);
        CHECK(fabs(first - log(V)) < 0.2 && last < first - (rank ? 0.02 : 0.5)); /* at first it knows nothing */
        for (long stop = 0; stop <= 6; stop++) {
            begin(&cut, rank, &small), begin(&rest, rank, &small);
            ttmm_trainer_start(cut.trainer, NULL, 0, 0, 3, 2), ttmm_trainer_start(rest.trainer, NULL, 0, 0, 3, 2);
            for (long i = 0; i < stop; i++) ttmm_trainer_step(cut.trainer, &first);
            CHECK_EQUAL(ttmm_trainer_save(cut.trainer, path, "rate 1", &err), TTMM_OK);
            test_fill(rest.trainer->weights, rest.trainer->n, "old", 1); /* the checkpoint brings the weights */
            CHECK_EQUAL(ttmm_trainer_load(rest.trainer, path, "rate 1", &err), 1);
            CHECK(ttmm_trainer_at(rest.trainer, &steps, &tokens) == stop && steps == 6);
            CHECK_EQUAL(finish(rest.trainer), stop < 6 ? last : 0);
            CHECK(ttmm_trainer_at(rest.trainer, &steps, &tokens) == 6 && tokens == 3 * corpus.n_tokens);
            CHECK_REFUSED(ttmm_trainer_load(rest.trainer, path, "rate 2", &err), path);
            CHECK(strstr(err.text, "rate 1") && strstr(err.text, "rate 2"));
            remove(path);
            CHECK_EQUAL(ttmm_trainer_load(rest.trainer, path, "rate 1", &err), 0);
            CHECK(same(rest.trainer->weights, whole.trainer->weights, whole.trainer->n));
            end(&cut), end(&rest);
        }
        end(&whole);
    }
}

/* The order, seen through losses at rate 0: as given, or a permutation, another for each epoch, stream and seed. */
static void training_order(void)
{
    static const size_t given[N_SEQ] = {3, 0, 6, 2, 5, 1, 4};
    double loss[N_SEQ], x;
    size_t order[5][2][N_SEQ];
    for (int run = 0; run < 5; run++) { /* as in the file, as given, shuffled, with another stream, with another seed */
        training s;
        ttmm_recipe r = small;
        r.batch = 1, r.schedule.lr = 0, r.shuffle = run >= 2, r.seed = run == 4;
        begin(&s, 2, &r);
        ttmm_trainer_start(s.trainer, run == 1 ? given : NULL, N_SEQ, 0, 2, run == 3);
        for (size_t i = 0, q, seen = 0; ttmm_trainer_step(s.trainer, &x); i++) {
            if (run == 0 && i < N_SEQ) loss[i] = x;
            for (q = 0; q < N_SEQ && loss[q] != x;) q++;
            order[run][i / N_SEQ][i % N_SEQ] = q;
            if (run < 2) CHECK_EQUAL(q, run ? given[i % N_SEQ] : i % N_SEQ);
            seen = (i % N_SEQ ? seen : 0) | (size_t)1 << q;
            if (i % N_SEQ == N_SEQ - 1) CHECK_EQUAL(seen, (1 << N_SEQ) - 1);
        }
        end(&s);
        CHECK((memcmp(order[run][0], order[run][1], sizeof given) == 0) == (run < 2));
        for (int other = 0; other < run; other++) CHECK(memcmp(order[run][0], order[other][0], sizeof given) != 0);
    }
}

/* 1, 2 and 3 threads give the same bits: weights after training, an adapter merged into them, embeddings, clusters. */
static void threads(void)
{
    enum { N = 200, W = 256, K = 5 };
    static real x[SIZE(N * W)], centroid[3][SIZE(K * W)], embedding[N_SEQ * E];
    int cluster[N];
    uint64_t hash[3];
    unit_rows(x, N, W, "threads", 0);
    memcpy(embedding, corpus.embedding, sizeof embedding);
    for (int i = 0; i < 3; i++) {
        training all, low;
        ttmm_set_threads(i + 1);
        must(ttmm_corpus_embed(&corpus, NULL, &err)), must(ttmm_cluster(cluster, centroid[i], x, N, W, K, 1, &err));
        begin(&all, 0, &small), begin(&low, 8, &small);
        ttmm_trainer_start(all.trainer, NULL, 0, 2, 0, 0), ttmm_trainer_start(low.trainer, NULL, 0, 2, 0, 0);
        finish(all.trainer), finish(low.trainer);
        const ttmm_mix mix = {1, (const ttmm_lora *const[]){&low.lora}, &ONE};
        ttmm_merge(&all.model, &all.model, &mix, scratch);
        hash[i] = ttmm_hash(all.model.data, all.model.n);
        CHECK(hash[i] == hash[0] && same(corpus.embedding, embedding, N_SEQ * E) &&
              same(centroid[i], centroid[0], K * W));
        end(&all), end(&low);
    }
    ttmm_set_threads(1);
}

/* ---- Text, embeddings, clusters ---- */

/* The documents are those expected, each followed by |; the sequences cover them and are as many as they should. */
static void check_corpus(const char *text, int context, const char *expected)
{
    ttmm_corpus c;
    size_t d = 0, s = 0;
    corpus_of(&c, text, context);
    for (const char *bar; d < c.n_documents && (bar = strchr(expected, '|')) != NULL; d++, expected = bar + 1) {
        const size_t length = (size_t)(bar - expected), from = c.document[d], to = c.document[d + 1];
        size_t wrong = to - from != length + 1, pieces = 0, least = SIZE_MAX, most = 0;
        for (size_t i = 0; i < length && !wrong; i++) wrong += c.token[from + i] != (unsigned char)expected[i];
        CHECK(wrong == 0 && c.token[to - 1] == TTMM_END && c.sequence[s] == from);
        for (; s < c.n_sequences && c.sequence[s] < to; s++, pieces++) {
            const size_t n = c.sequence[s + 1] - c.sequence[s];
            least = n < least ? n : least, most = n > most ? n : most;
            CHECK_EQUAL(c.sequence_document[s], d);
        }
        CHECK_EQUAL(pieces, (to - from + (size_t)context - 1) / (size_t)context);
        CHECK(most <= (size_t)context && most - least <= 1 && least > 0);
    }
    CHECK(*expected == 0 && d == c.n_documents && s == c.n_sequences && c.sequence[s] == c.n_tokens);
    ttmm_corpus_free(&c);
}

/* Separators between, at the end, with CRLF, none; 21, 11, 12 and 4 tokens cut at 10; texts of many lengths. */
static void cut_documents(void)
{
    char text[400], expected[400];
    check_corpus("one\n<|endoftext|>\ntwo\nlines\n<|endoftext|>\nlast", 100, "one\n|two\nlines\n|last|");
    check_corpus("one\r\n<|endoftext|>\r\ntwo\r\n", 100, "one\r\n|two\r\n|");
    check_corpus("one\n<|endoftext|>\ntwo\n<|endoftext|>\n", 100, "one\n|two\n|");
    check_corpus("one\n<|endoftext|>\ntwo\n<|endoftext|>", 100, "one\n|two\n|");
    check_corpus("only one, \xff\x80\xc3\xa4", 100, "only one, \xff\x80\xc3\xa4|");
    check_corpus("0123456789012345678\n<|endoftext|>\n012345678\n<|endoftext|>\n0123456789\n<|endoftext|>\n01\n", 10,
                 "0123456789012345678\n|012345678\n|0123456789\n|01\n|");
    for (size_t i = 1; i < 80; i++) {
        memset(text, 'x', 5 * i), strcpy(text + 5 * i, ""), memset(expected, 'x', 5 * i), strcpy(expected + 5 * i, "|");
        check_corpus(text, 2 + (int)i * 11 % 60, expected);
    }
}

/* Two files; and what cannot be used, each refused with the name of its file. */
static void corpus_files(void)
{
    static const char *const name[5] = {"none.txt", "empty.txt", "zero.txt", "first.txt", "middle.txt"};
    static const char *const text[5] = {"", "", "ab\0c\n", "<|endoftext|>\nb", "a\n<|endoftext|>\n<|endoftext|>"};
    char good[500], other[500];
    const char *path[2] = {good, other};
    ttmm_corpus c;
    write_file(good, "good.txt", "ab\n", 3), write_file(other, "a.b.txt", "cd\n<|endoftext|>\nef", 19);
    must(ttmm_corpus_from_files(&c, NULL, path, 2, 8, &err));
    CHECK(c.n_files == 2 && c.n_documents == 3 && c.n_tokens == 4 + 4 + 3 && ttmm_longest_sequence(&c) == 4);
    CHECK(c.document_file[0] == 0 && c.document_file[2] == 1 && !strcmp(c.file[0], "good") &&
          !strcmp(c.file[1], "a.b"));
    ttmm_corpus_free(&c);
    for (int i = 0; i < 5; i++) {
        remove(other);
        write_file(other, name[i], text[i], i == 2 ? 5 : strlen(text[i]));
        if (i == 0) remove(other);
        CHECK_REFUSED(ttmm_corpus_from_files(&c, NULL, path, 2, 8, &err), name[i]);
    }
    remove(good), remove(other);
}

/* A line is a document, its ids are taken as they stand; a byte-order mark and CRLF do not count. What is no id, or no
 * line of ids, is refused with its file and line. A text's byte-order mark does not count either: a separator line behind
 * it is one. */
static void ids_in_files(void)
{
    static const char *const bad[] = {"",         "1\n\n2\n", "1 -2\n", "1 2x\n",
                                      "1\n300\n", "1 +2\n",   "1.5\n",  "99999999999999999999\n"};
    static const char *const named[] = {"is empty",
                                        "line 2: is empty",
                                        "token 2 is -2",
                                        "token 2 is 2x",
                                        "line 2: token 1 is 300",
                                        "token 2 is +2",
                                        "token 1 is 1.5",
                                        "expected an id from 0 to 299"};
    static const int expected[] = {3, 299, 0, 7, 7, 7, 7, 7};
    char file[500];
    const char *const path[] = {file};
    ttmm_corpus c;
    write_file(file, "ids.txt",
               "\xef\xbb\xbf"
               "3 299\r\n0\n\t7 7  7 7 7",
               23);
    must(ttmm_corpus_from_ids(&c, 300, path, 1, 3, &err));
    CHECK(c.n_tokens == 8 && memcmp(c.token, expected, sizeof expected) == 0);
    CHECK(c.n_documents == 3 && c.document[1] == 2 && c.document[2] == 3 && c.n_sequences == 4 && c.sequence[3] == 5);
    ttmm_corpus_free(&c);
    for (int i = 0; i < 8; i++) {
        write_file(file, "ids.txt", bad[i], strlen(bad[i]));
        CHECK_REFUSED(ttmm_corpus_from_ids(&c, 300, path, 1, 3, &err), named[i]);
    }
    write_file(file, "ids.txt",
               "1 0\0"
               "2\n",
               6);
    CHECK_REFUSED(ttmm_corpus_from_ids(&c, 300, path, 1, 3, &err), "token 2");
    write_file(file, "ids.txt",
               "\xef\xbb\xbf"
               "ab\n<|endoftext|>\ncd",
               22);
    must(ttmm_corpus_from_files(&c, NULL, path, 1, 9, &err));
    CHECK(c.n_documents == 2 && c.n_tokens == 7 && c.token[0] == 'a');
    ttmm_corpus_free(&c);
    write_file(file, "ids.txt", "\xef\xbb\xbf<|endoftext|>\ncd", 19); /* as without the mark */
    CHECK_REFUSED(ttmm_corpus_from_files(&c, NULL, path, 1, 9, &err), "document 1 is empty");
    write_file(file, "ids.txt", "\xef\xbb\xbf", 3);
    CHECK_REFUSED(ttmm_corpus_from_files(&c, NULL, path, 1, 9, &err), "is empty");
    remove(file);
}

/* Counts an n-gram in bucket h mod E, with the sign of h's highest bit. h: SplitMix64's output at state z + n times its
 * increment (ttmm_next adds one), z the number of the n-gram. */
static size_t count_number(real *count, uint64_t z, size_t n)
{
    ttmm_rng g = {z + (n - 1) * 0x9e3779b97f4a7c15u};
    const uint64_t h = ttmm_next(&g);
    count[h % E] += h >> 63 ? -1 : 1;
    return (size_t)(h % E);
}

static size_t count_gram(real *count, const char *gram, size_t n) /* bytes, the first the highest */
{
    uint64_t z = 0;
    for (size_t i = 0; i < n; i++) z = 256 * z + (unsigned char)gram[i];
    return count_number(count, z, n);
}

static const real *embed(const char *text, const real *idf) /* until the next call but two */
{
    static real x[3][SIZE(E)];
    static int turn;
    int *token;
    size_t n;
    must(ttmm_tokenize(&token, &n, NULL, text, strlen(text), &err));
    ttmm_embed(x[turn = (turn + 1) % 3], NULL, token, n, idf);
    free(token);
    return x[turn];
}

/* "aaaa" holds a 4 times, aa 3, aaa 2 and aaaa once: +-log 5, log 4, log 3, log 2 over their length. Other texts, with
 * weights, against the definition. Texts that share words are nearer; end tokens do not count; no text is 0. */
static void embedding(void)
{
    static const char *const texts[3] = {"x", "to be or not to be", "\xc3\xa4 n-grams of bytes, not of letters"};
    static real idf[E], x[SIZE(E)];
    const int token[5] = {'a', 'b', 'c', TTMM_END, TTMM_END};
    for (size_t n = 1; n <= 4; n++) {
        const size_t b = count_gram(x, "aaaa", n);
        x[b] *= (real)(log(6 - (double)n) / sqrt(pow(log(5), 2) + pow(log(4), 2) + pow(log(3), 2) + pow(log(2), 2)));
    }
    CHECK_NEAR(difference(embed("aaaa", NULL), x, E), 0, TOL(3e-7, 6e-16));
    test_fill(idf, E, "idf", 0);
    for (size_t b = 0; b < E; b++) idf[b] += 2;
    for (int i = 0; i < 3; i++) {
        memset(x, 0, sizeof x);
        for (size_t n = 1; n <= 4; n++)
            for (size_t at = 0; at + n <= strlen(texts[i]); at++) count_gram(x, texts[i] + at, n);
        for (size_t b = 0; b < E; b++) x[b] = (real)copysign(log1p(fabs((double)x[b])) * (double)idf[b], (double)x[b]);
        unit_rows(x, 1, E, NULL, 0);
        CHECK_NEAR(difference(embed(texts[i], idf), x, E), 0, TOL(3e-7, 1e-15));
    }
    const real *one = embed("the cat sat", NULL), *two = embed("a cat sits", NULL), *far = embed("f(u, v)", NULL);
    CHECK(inner(one, two, E) > 0.2L + inner(one, far, E) && inner(one, two, E) > 0.2L + inner(two, far, E));
    ttmm_embed(x, NULL, token, 5, NULL);
    CHECK(same(x, embed("abc", NULL), E));
    ttmm_embed(x, NULL, token + 3, 2, NULL);
    CHECK(inner(x, x, E) == 0 && inner(embed("", NULL), embed("", NULL), E) == 0);
}

/* Of ids without text: n-grams of one and two ids, each below 2^32; ids below 256 are no bytes. Kept in a corpus file. */
static void embedding_of_ids(void)
{
    static const int token[7] = {5, 128255, 0, 0, 128255, 0, 2147483647};
    static real x[SIZE(E)], out[SIZE(E)];
    char file[500], index[500];
    const char *const path[] = {file};
    for (int i = 0; i < 7; i++) {
        count_number(x, (uint64_t)token[i], 1);
        if (i > 0) count_number(x, (uint64_t)token[i - 1] * 4294967296u + (uint64_t)token[i], 2);
    }
    for (size_t b = 0; b < E; b++) x[b] = (real)copysign(log1p(fabs((double)x[b])), (double)x[b]);
    unit_rows(x, 1, E, NULL, 0);
    ttmm_embed(out, ttmm_tokenizer_of_ids(), token, 7, NULL);
    CHECK_NEAR(difference(out, x, E), 0, TOL(3e-7, 1e-15));
    ttmm_corpus c, again;
    write_file(file, "ids.txt", "97 98 10\n97 99 10\n97 98 10\n", 27);
    must(ttmm_corpus_from_ids(&c, 300, path, 1, 16, &err));
    for (int by_ids = 0; by_ids < 2; by_ids++) {
        must(ttmm_corpus_embed(&c, by_ids ? ttmm_tokenizer_of_ids() : NULL, &err));
        must(ttmm_corpus_write(&c, folder, "", &err)), must(ttmm_corpus_read(&again, folder, 300, &err));
        CHECK(c.by_ids == by_ids && again.by_ids == by_ids && again.idf && same(again.embedding, c.embedding, 3 * E));
        ttmm_embed(out, by_ids ? ttmm_tokenizer_of_ids() : NULL, c.token + 3, 3, again.idf);
        CHECK(same(out, c.embedding + E, E) != 0 && inner(out, c.embedding, E) < 0.9L);
        ttmm_corpus_free(&again);
    }
    ttmm_corpus_free(&c), remove(file), snprintf(index, 500, "%s/corpus.safetensors", folder), remove(index);
}

/* Of "ab", "ac", "ab" (with line ends): bucket a is in 3 of 3, idf = log(5/4); b in 2, log(5/3); c in 1, log(5/2);
 * others in none, log(5/1). Rows from outside are normalised, and refused if zero or not finite. */
static void corpus_embedding(void)
{
    static const char *const gram[10] = {"a", "\n", "b", "ab", "b\n", "ab\n", "c", "ac", "c\n", "ac\n"};
    static const int texts[10] = {3, 3, 2, 2, 2, 2, 1, 1, 1, 1};
    static real x[E];
    const real bad[3] = {0, NAN, INFINITY};
    real outside[15] = {3, 4, 0, 0, 0, 0, 0, 0, 0, -2, (real)1e-30};
    ttmm_corpus c;
    corpus_of(&c, "ab\n<|endoftext|>\nac\n<|endoftext|>\nab\n", 16);
    must(ttmm_corpus_embed(&c, NULL, &err));
    for (size_t b = 0; b < E; b++) x[b] = (real)log(5);
    for (int i = 0; i < 10; i++) x[count_gram(x, gram[i], strlen(gram[i]))] = (real)log(5.0 / (1 + texts[i]));
    CHECK_NEAR(difference(c.idf, x, E), 0, TOL(2e-7, 3e-16));
    for (size_t i = 0; i < 3; i++) CHECK(same(embed(i == 1 ? "ac\n" : "ab\n", c.idf), c.embedding + i * E, E));
    CHECK_EQUAL(ttmm_corpus_set_embeddings(&c, outside, 5, &err), TTMM_OK);
    CHECK(c.dim == 5 && c.idf == NULL && c.embedding[9] == -1 && c.embedding[10] == 1);
    CHECK_NEAR(c.embedding[0] + 10 * c.embedding[1], 0.6 + 8, TOL(2e-6, 4e-15));
    for (int i = 0; i < 3; i++) {
        outside[9] = bad[i];
        CHECK_REFUSED(ttmm_corpus_set_embeddings(&c, outside, 5, &err), "1"); /* the row */
    }
    ttmm_corpus_free(&c);
}

/* Sorted: the larger inner product first, of equal ones (every third row is a copy of another) the lower index. */
static void nearest(void)
{
    enum { N = 60, W = 7 };
    static real x[SIZE(N * W)], query[SIZE(W)];
    size_t all[N], some[N];
    unit_rows(x, N, W, "nearest", 0), unit_rows(query, 1, W, "nearest", 1);
    for (size_t i = 2; i < N; i += 3) memcpy(x + i * W, x + (i * 7 + 1) % N * W, W * sizeof *x);
    ttmm_nearest(all, N, query, x, N, W, scratch), ttmm_nearest(some, 20, query, x, N, W, scratch);
    CHECK(memcmp(all, some, 20 * sizeof *all) == 0);
    for (size_t i = 1; i < N; i++) {
        const big before = inner(x + all[i - 1] * W, query, W), here = inner(x + all[i] * W, query, W);
        CHECK(before > here || (before == here && all[i - 1] < all[i]));
    }
}

/* s2 = k(q,q) - k_X(q)' (K_X + lambda I)^-1 k_X(q) of m chosen rows, by Gaussian elimination. */
static big variance_given(const size_t *chosen, size_t m, const real *query, const real *x, size_t n, double lambda)
{
    big a[8][9], s2 = inner(query, query, n);
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < m; j++) a[i][j] = inner(x + chosen[i] * n, x + chosen[j] * n, n);
        a[i][m] = inner(x + chosen[i] * n, query, n), a[i][i] += (big)lambda;
    }
    for (size_t i = 0; i < m; i++) /* K + lambda I is positive definite: no pivoting */
        for (size_t r = 0; r < m; r++)
            for (size_t j = m + 1; r != i && j-- > i;) a[r][j] -= a[r][i] / a[i][i] * a[i][j];
    for (size_t i = 0; i < m; i++) s2 -= inner(x + chosen[i] * n, query, n) * (a[i][m] / a[i][i]);
    return s2;
}

/* Each choice, repeats allowed, is the argmin of s2 over all rows; of equal ones the lower. */
static void sift(void)
{
    enum { N = 14, W = 5, M = 8 };
    static const double lambda[4] = {0.01, 0.1, 1, 0.3};
    static real x[SIZE(N * W)], query[SIZE(W)];
    size_t index[M], chosen[M];
    for (uint64_t problem = 0; problem < 40; problem++) {
        unit_rows(x, N, W, "sift", 2 * problem), unit_rows(query, 1, W, "sift", 2 * problem + 1);
        ttmm_sift(index, M, query, x, N, W, lambda[problem % 4], scratch);
        for (size_t m = 0, best = 0; m < M; m++) {
            big s2[N];
            for (size_t i = 0; i < N; i++) {
                chosen[m] = i, s2[i] = variance_given(chosen, m + 1, query, x, W, lambda[problem % 4]);
                if (i == 0 || s2[i] < s2[best]) best = i;
            }
            chosen[m] = best;
            CHECK_EQUAL(index[m], best);
        }
    }
    memcpy(x + 3 * W, query, W * sizeof *x), memcpy(x + 9 * W, query, W * sizeof *x);
    ttmm_sift(index, 1, query, x, N, W, 0.01, scratch);
    CHECK_EQUAL(index[0], 3);
}

static real on_circle(double degrees, int i) { return (real)sin((degrees + (i % 2 ? 0 : 90)) * acos(-1) / 180); }

/* Points on a circle, three clusters. At 0, 10, 60, 70, 200, 210 degrees: 200 and 210 leave as number 1, then 60 and 70
 * as 2. At 0, 1, 2, 3, 4, 5, 180, 230: the first split leaves six rows close together as 0; the two far apart are
 * split. */
static void clusters_by_hand(void)
{
    static const int n[2] = {6, 8}, degrees[2][8] = {{0, 60, 10, 200, 70, 210}, {0, 180, 1, 230, 2, 3, 4, 5}};
    static const int expected[2][8] = {{0, 2, 0, 1, 2, 1}, {0, 1, 0, 2, 0, 0, 0, 0}};
    static const double middle[2][3] = {{5, 205, 65}, {2.5, 180, 230}};
    real x[SIZE(16)] = {0}, centroid[SIZE(6)];
    int cluster[8];
    for (int i = 0; i < 20; i++) {
        for (int j = 0; j < 16; j++) x[j] = on_circle(degrees[i % 2][j / 2], j);
        CHECK_EQUAL(ttmm_cluster(cluster, centroid, x, (size_t)n[i % 2], 2, 3, (uint64_t)i, &err), TTMM_OK);
        CHECK(memcmp(cluster, expected[i % 2], (size_t)n[i % 2] * sizeof *cluster) == 0);
        for (int k = 0; k < 6; k++) CHECK_NEAR(centroid[k], on_circle(middle[i % 2][k / 2], k), TOL(2e-7, 1e-15));
    }
}

/* K clusters are K - 1 with one split: that of the largest inertia, sum |x - mean|^2; its first row stays, what leaves
 * is number K - 1. Centroids are normalised means. At K = 12 the inertia is at most 5 % above scikit-learn's (1.9.1,
 * the same rows, BisectingKMeans(12, n_init=8), the median of random_state 0 .. 19). */
static void clusters_one_by_one(void)
{
    enum { N = 200, W = 6 };
    static real x[SIZE(N * W)], centroid[SIZE(N * W)], mean[N * W];
    int before[N] = {0}, now[N];
    double spread[N] = {0}; /* of the clusters before: sum |x|^2 - |sum of x|^2 / size */
    unit_rows(x, N, W, "clusters", 0);
    for (int K = 1; K <= N; K++) {
        int size[N] = {0}, split = 0, first = -1, left = 0, wrong = 0;
        double inertia = 0, widest = 0;
        CHECK_EQUAL(ttmm_cluster(now, centroid, x, N, W, (size_t)K, 9, &err), TTMM_OK);
        for (int i = 0; i < N; i++) split = now[i] != before[i] ? before[i] : split;
        for (int k = 0; k < K - 1; k++) widest = spread[k] > widest ? spread[k] : widest;
        CHECK(spread[split] >= widest - 1e-5);
        memset(mean, 0, sizeof mean);
        for (int i = 0; i < N; i++) {
            if (before[i] == split && first < 0) first = i, wrong += now[i] != split;
            if (now[i] != before[i]) left++, wrong += before[i] != split || now[i] != K - 1;
            before[i] = now[i], size[now[i]]++;
            for (int e = 0; e < W; e++) mean[now[i] * W + e] += x[i * W + e];
        }
        CHECK(wrong == 0 && (left > 0) == (K > 1));
        for (int k = 0; k < K; k++) {
            spread[k] = size[k] - (double)inner(mean + k * W, mean + k * W, W) / size[k];
            inertia += spread[k];
        }
        if (K == 12) CHECK(inertia < 87.440035 * 1.05 && inertia > 87.440035 * 0.9); /* less would be a wrong sum */
        unit_rows(mean, (size_t)K, W, NULL, 0);
        CHECK_NEAR(difference(centroid, mean, (size_t)K * W), 0, TOL(1e-6, 1e-15));
    }
}

/* Groups far apart are the clusters, also groups of equal rows; rows all equal are cut by index; K > n is refused. */
static void clusters_of_groups(void)
{
    enum { N = 30, W = 16 };
    static real x[SIZE(N * W)], centre[SIZE(3 * W)], centroid[SIZE(3 * W)];
    int cluster[N], wrong = 0;
    for (uint64_t problem = 0; problem < 60; problem++) {
        unit_rows(centre, 3, W, "groups", problem), test_fill(x, N * W, "noise", problem);
        for (int i = 0; i < N * W; i++) x[i] = centre[i % (3 * W)] + (problem % 2 ? x[i] / 10 : 0);
        unit_rows(x, N, W, NULL, 0);
        must(ttmm_cluster(cluster, centroid, x, N, W, 3, problem, &err));
        for (int i = 0; i < N; i++) wrong += cluster[i] != cluster[i % 3] || cluster[i % 3] == cluster[(i + 1) % 3];
    }
    CHECK_EQUAL(wrong, 0);
    for (int i = 1; i < N; i++) memcpy(x + i * W, x, W * sizeof *x);
    CHECK_EQUAL(ttmm_cluster(cluster, centroid, x, N, W, 3, 1, &err), TTMM_OK);
    for (int i = 0; i < N; i++) CHECK_EQUAL(cluster[i], i >= 15 ? 1 : i >= 8 ? 2 : 0);
    CHECK_REFUSED(ttmm_cluster(cluster, centroid, x, 2, W, 3, 1, &err), "3");
}

/* ---- Routing, test-time training, scoring, sampling ---- */

/* Similarities 0.6, 1, 0.8. beta 0.5: c = exp(-0.4 / 0.25), 1, exp(-0.2 / 0.25) = 0.202, 1, 0.449; w = 0.122, 0.606,
 * 0.272. beta 0.2: c = exp(-10), 1, exp(-5); w = 0.00005, 0.9933, 0.0067. With K = 2 equal centroids: w = 1/2, 1/2. */
static void routing(void)
{
    static const double expected[14][6] = {
        /* beta, tau, max, active, K, the chosen as bits */
        {0.5, 0, 50, 0, 3, 7},   {0.5, 0.15, 50, 0, 3, 6},  {0.5, 0, 2, 0, 3, 6},     {0.5, 0.7, 50, 0, 3, 0},
        {0.5, 0.9, 1, 2, 3, 6},  {0.5, 0.9, 1, 9, 3, 7},    {0.2, 0.01, 50, 0, 3, 2}, {0.2, 0.005, 50, 0, 3, 6},
        {0.2, 0.9, 50, 0, 1, 1}, {1e-4, 0.01, 50, 0, 3, 2}, {0.2, 0.5, 50, 0, 2, 0},  {0.2, 0.49, 50, 0, 2, 3},
        {0.2, 0.01, 1, 0, 2, 1}, {0.2, 0.9, 50, 1, 2, 1}};
    static const real three[SIZE(6)] = {(real)0.6, (real)0.8, 1, 0, (real)0.8, (real)0.6}, two[SIZE(4)] = {0, 1, 0, 1};
    real bad[4][SIZE(2)] = {{0, 0}, {NAN, 1}, {1, INFINITY}, {-INFINITY, INFINITY}}, far[SIZE(2)] = {-1, 0};
    ttmm_router r = {0.01, 0.01, 50, 0};
    size_t chosen;
    int expert[3];
    real weight[3], similarity[3];
    CHECK_EQUAL(ttmm_route(&chosen, expert, weight, similarity, far, three, 3, 2, &r, &err), TTMM_OK);
    CHECK(chosen == 1 && expert[0] == 0 && weight[0] == 1); /* every c underflows: the nearest still gets all */
    for (int i = 0; i < 4; i++)
        CHECK_REFUSED(ttmm_route(&chosen, expert, weight, similarity, bad[i], three, 3, 2, &r, &err), "query");
    for (int i = 0; i < 14; i++)
        for (int length = 1; length <= 1000; length *= 10) { /* the query's length is of no matter */
            real query[SIZE(2)] = {(real)length, 0};
            const real *centroid = expected[i][4] == 2 ? two : three;
            const double *e = expected[i];
            double c[3] = {0}, total = 0;
            size_t next = 0;
            r = (ttmm_router){e[0], e[1], (size_t)e[2], (size_t)e[3]};
            CHECK_EQUAL(ttmm_route(&chosen, expert, weight, similarity, query, centroid, (size_t)e[4], 2, &r, &err), 0);
            for (int k = 0; k < (int)e[4]; k++) {
                CHECK_NEAR(similarity[k], centroid[2 * k], TOL(1e-7, 2e-16));
                if ((int)e[5] >> k & 1) total += c[k] = exp(((double)centroid[2 * k] - 1) / (e[0] * e[0]));
            }
            for (int k = 0; k < 3; k++) {
                if (!((int)e[5] >> k & 1)) continue;
                CHECK(next < chosen && expert[next] == k);
                CHECK_NEAR(weight[next++], c[k] / total, TOL(2e-7, 6e-16));
            }
            CHECK_EQUAL(chosen, next);
        }
}

/* A run over the neighbours, nearest (SIFT: first chosen) last, whatever the query before; the base stays; it helps. */
static void test_time_training(void)
{
    ttmm_ttt o = {4, 3, 0};
    ttmm_recipe recipe = small;
    training s, d;
    size_t index[4], order[4], back[4], chosen[3][4];
    real query[SIZE(E)]; /* between two sequences, nearer to the first */
    const int *text = corpus.token + corpus.sequence[6];
    for (size_t i = 0; i < E; i++)
        query[i] = corpus.embedding[6 * E + i] * (real)0.8 + corpus.embedding[E + i] * (real)0.6;
    recipe.batch = 1, recipe.shuffle = 0, recipe.schedule.lr = 0.02;
    begin(&s, 4, &recipe), begin(&d, 4, &recipe);
    const ttmm_mix mix = {1, (const ttmm_lora *const[]){&s.lora}, &ONE};
    for (int choice = 0; choice < 3; choice++) {
        o.lambda = (double[]){0, 0.01, 3}[choice];
        CHECK(ttmm_ttt_scratch(&o, &corpus) <= MOST);
        ttmm_ttt_train(s.trainer, &o, corpus.embedding, index, scratch);
        ttmm_ttt_train(s.trainer, &o, query, index, scratch);
        if (choice > 0) ttmm_sift(order, 4, query, corpus.embedding, N_SEQ, E, o.lambda, scratch);
        else ttmm_nearest(order, 4, query, corpus.embedding, N_SEQ, E, scratch);
        for (int i = 0; i < 4; i++) back[i] = order[3 - i], chosen[choice][i] = index[i];
        CHECK(memcmp(index, back, sizeof back) == 0 && back[3] == 6);
        ttmm_lora_init(&d.lora, recipe.seed, 0);
        ttmm_trainer_start(d.trainer, back, 4, 0, 3, 0);
        finish(d.trainer);
        CHECK(same(s.trainer->weights, d.trainer->weights, s.trainer->n) &&
              same(s.model.data, d.model.data, s.model.n));
        const double before = ttmm_score(pass, &s.model, NULL, text, TOKENS, 1);
        CHECK(ttmm_score(pass, &s.model, &mix, text, TOKENS, 1) < before - 1);
    }
    for (int choice = 0; choice < 3; choice++)
        CHECK(memcmp(chosen[choice], chosen[(choice + 1) % 3], sizeof *chosen) != 0);
    end(&s), end(&d);
}

static big softmax(const real *logits, int token)
{
    big total = 0;
    for (int v = 0; v < V; v++) total += expl((big)logits[v] - (big)logits[token]);
    return 1 / total;
}

/* Scores from token 3 on against the softmax of the logits: base, one adapter, the weighted mean of two. */
static void scoring(void)
{
    static real out[2 * V], nll[TOKENS];
    const real weight[2] = {(real)0.3, (real)0.7};
    const ttmm_mix alone[2] = {{1, adapter, &ONE}, {1, adapter + 1, &ONE}}, both = {2, adapter, weight};
    double memory[TOKENS];
    big mean[TOKENS] = {0}, single[3] = {0}, both_nll = 0, sum_nll = 0;
    for (int k = 0; k < 3; k++) { /* two adapters, then the base */
        ttmm_forward(pass, &base, k < 2 ? &alone[k] : NULL, corpus.token, (const size_t[]){0, TOKENS}, 1);
        const real *logits = ttmm_logits(pass, &base, 0, TOKENS);
        for (size_t t = 3; t < TOKENS; t++) {
            const big chance = softmax(logits + (t - 1) * V, corpus.token[t]);
            single[k] -= logl(chance);
            if (k < 2) mean[t] += (big)weight[k] * chance;
        }
        for (int v = 0; v < V; v++) out[v] = 1, out[V + v] = (real)(1 + softmax(logits, v) / 4);
        add_probabilities(out, logits, V, (real)0.25);
        CHECK_NEAR(difference(out, out + V, V), 0, TOL(2e-7, 1e-15));
    }
    ttmm_nll(pass, &base, nll);
    for (size_t t = 3; t < TOKENS; t++) both_nll -= logl(mean[t]), sum_nll += (big)nll[t - 1];
    CHECK_RELATIVE(sum_nll, single[2], TOL(6e-8, 1e-15), 1);
    CHECK_RELATIVE(ttmm_score(pass, &base, NULL, corpus.token, TOKENS, 3), sum_nll, 1e-15, 1);
    CHECK_RELATIVE(ttmm_score(pass, &base, &alone[0], corpus.token, TOKENS, 3), single[0], TOL(6e-8, 1e-15), 1);
    for (int k = 0; k < 2; k++) {
        const double found = ttmm_score_ensemble(pass, &base, k ? &both : &alone[0], corpus.token, TOKENS, 3, memory);
        CHECK_RELATIVE(found, k ? both_nll : single[0], TOL(6e-8, 1e-15), 1);
    }
}

/* 20000 draws each from probabilities 0.15, 0.5, 0.05, 0.3, also at temperature 1/2 (squared), of the likeliest 2, of
 * the fewest that make up 0.78, 0.82, or 0.6 of the likeliest 2 (0.5 / 0.8 does), greedily. Ties: lower token. */
static void sampling(void)
{
    static const struct {
        ttmm_sampler s;
        double p[4]; /* to be divided by their sum */
    } expected[] = {{{1, 1, 0}, {15, 50, 5, 30}}, {{1, 1, 9}, {15, 50, 5, 30}}, {{0.5, 1, 0}, {225, 2500, 25, 900}},
                    {{1, 1, 2}, {0, 5, 0, 3}},    {{1, 0.78, 0}, {0, 5, 0, 3}}, {{1, 0.82, 0}, {15, 50, 0, 30}},
                    {{1, 0.6, 2}, {0, 1, 0, 0}},  {{1, 0, 0}, {0, 1, 0, 0}},    {{1, 1, 1}, {0, 1, 0, 0}},
                    {{0, 1, 0}, {0, 1, 0, 0}}};
    real logits[SIZE(4)], equal[SIZE(4)] = {1, 2, 2, 2};
    double memory[16];
    ttmm_rng g = ttmm_stream(1, "sample", 0);
    CHECK(ttmm_sample_scratch(4) <= sizeof memory);
    for (int v = 0; v < 4; v++) logits[v] = (real)(log(expected[0].p[v]));
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const double *p = expected[i].p, total = p[0] + p[1] + p[2] + p[3];
        double count[4] = {0};
        for (int draw = 0; draw < 20000; draw++) count[ttmm_sample(logits, 4, &expected[i].s, &g, memory)]++;
        for (int v = 0; v < 4; v++)
            CHECK_NEAR(count[v] / 20000, p[v] / total, 5 * sqrt(p[v] / total * (1 - p[v] / total) / 20000));
    }
    for (int i = 8; i < 10; i++) CHECK_EQUAL(ttmm_sample(equal, 4, &expected[i].s, &g, memory), 1);
}

/* As ttmm_sample draws, from a list of all tokens in order, made by insertion. */
enum { MANY = 300 };
static size_t sampled_by_definition(const real *logits, size_t n, const ttmm_sampler *s, double u)
{
    size_t order[MANY], keep = 0, i = 0;
    real p[MANY];
    double total = 0, kept = 0;
    for (size_t v = 0; v < n; v++) {
        size_t at = v;
        p[v] = (real)ttmm_exp((double)(logits[v] - logits[ttmm_argmax(logits, n)]) / s->temperature);
        if (!(p[v] >= 0)) p[v] = 0;
        for (; at > 0 && p[order[at - 1]] < p[v]; at--) order[at] = order[at - 1];
        order[at] = v;
    }
    if (s->top_k > 0 && s->top_k < n) n = s->top_k;
    for (size_t k = 0; k < n; k++) total += (double)p[order[k]];
    while (keep < n && (keep == 0 || kept < s->top_p * total)) kept += (double)p[order[keep++]];
    for (double point = u * kept; i + 1 < keep; i++)
        if ((point -= (double)p[order[i]]) < 0) break;
    return order[i];
}

/* Of logits with many ties, of -inf, of probabilities that differ in the last bit, and of some from 1 to 0. */
static void sampling_of_many(void)
{
    static const double share[] = {0, 1e-9, 0.5, 0.9, 0.999999, 1};
    static real logits[MANY];
    double memory[4 * MANY];
    ttmm_rng g = ttmm_stream(2, "sample", 0);
    size_t others = 0, unlike = 0;
    CHECK(ttmm_sample_scratch(MANY) <= sizeof memory);
    for (int draw = 0; draw < 5000; draw++) {
        const size_t n = 1 + (size_t)ttmm_below(&g, MANY), steps = (size_t)1 << ttmm_below(&g, 20);
        const double spread = ldexp(0.1, (int)ttmm_below(&g, 64) - 52);
        const ttmm_sampler s = {.temperature = 0.25 * (double)(1 + ttmm_below(&g, 8)),
                                .top_p = share[ttmm_below(&g, 6)],
                                .top_k = (size_t)ttmm_below(&g, 2) * (size_t)ttmm_below(&g, MANY)};
        for (size_t v = 0; v < n; v++) {
            logits[v] = (real)(spread * (double)ttmm_below(&g, steps) / (double)steps);
            if (draw % 3 == 0 && ttmm_below(&g, 3) == 0) logits[v] = -(real)INFINITY;
        }
        ttmm_rng same = g;
        const size_t token = (size_t)ttmm_sample(logits, n, &s, &g, memory);
        others += token != sampled_by_definition(logits, n, &s, ttmm_uniform(&same));
        unlike += token != ttmm_argmax(logits, n);
    }
    CHECK_EQUAL(others, 0);
    CHECK(unlike > 500);
}

int main(int argc, char **argv)
{
    const ttmm_pass_size size = {TOKENS, 2, 0, TOKENS, 0, 8, 0, 0};
    snprintf(folder, sizeof folder, "%s.tmp", argc > 0 ? argv[0] : "method");
    ttmm_set_threads(1); /* but in the test of threads: these models are too small for more */
    must(ttmm_make_folder(folder, &err)), corpus_of(&corpus, TEXT, 24);
    must(ttmm_corpus_embed(&corpus, NULL, &err)), must(ttmm_pass_new(&pass, &shape, &size, &err));
    must(ttmm_model_new(&base, &shape, &err)), ttmm_model_init(&base, 1);
    test_fill(ttmm_weight(&base, 0, TTMM_EMBED), V * 32, "embed", 0); /* logits of ordinary size */
    for (int k = 0; k < 3; k++) {
        must(ttmm_lora_new(&lora[k], &shape, (const int[]){2, 7, 4}[k], (3 - k) / 4.0, &err));
        test_fill(lora[k].data, lora[k].n, "adapter", (uint64_t)k);
    }
    RUN(adamw_by_hand), RUN(adamw_steps), RUN(clipping), RUN(rates), RUN(lora_init), RUN(merging);
    RUN(training_as_defined), RUN(resuming), RUN(training_order), RUN(threads), RUN(cut_documents), RUN(corpus_files);
    RUN(ids_in_files), RUN(embedding), RUN(embedding_of_ids), RUN(corpus_embedding), RUN(nearest), RUN(sift),
        RUN(clusters_by_hand), RUN(clusters_one_by_one);
    RUN(clusters_of_groups), RUN(routing), RUN(test_time_training), RUN(scoring), RUN(sampling), RUN(sampling_of_many);
    for (int k = 0; k < 3; k++) ttmm_lora_free(&lora[k]);
    ttmm_model_free(&base), ttmm_corpus_free(&corpus), ttmm_pass_free(pass);
    remove(folder);
    return test_end("method");
}
