/* worked.c - the worked examples of ttmm.c, Part I, with the numbers that stand there: read it beside the book.
 *
 * One function for each, in the book's order. The numbers were found by hand and in Python, not with the code. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "test.h"

/* Tolerances: half a unit of the fourth decimal, where the book rounds; some units in the last place, where only
 * arithmetic does; and 0. */
static const double rounded = 5e-5, last = sizeof(real) == 8 ? 1e-14 : 1e-6;
static ttmm_error err;

/* SET(x, ...): x[0], x[1], ... become these numbers. ARE(x, tolerance, ...): they must be these. (volatile: gcc 12 with
 * AVX-512 copies some constant arrays, 1 1 0 0 for one, wrongly.) */
#define NUMBERS(...) (const double[]){__VA_ARGS__}, sizeof(const double[]){__VA_ARGS__} / sizeof(double)
#define SET(x, ...) set(x, NUMBERS(__VA_ARGS__))
#define ARE(x, tolerance, ...) are(__LINE__, #x, x, tolerance, NUMBERS(__VA_ARGS__))
static void set(real *x, const volatile double *to, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = (real)to[i];
}
static void are(int line, const char *what, const real *x, double tolerance, const double *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char name[100];
        snprintf(name, sizeof name, "%s [%d]", what, (int)i);
        test_near(__FILE__, line, name, (double)x[i], expected[i], tolerance);
    }
}

/* Arrays that a test may use. */
enum { ROOM = 300 };
static real x[ROOM], y[ROOM], u[ROOM], q[ROOM], k[ROOM], v[ROOM], dx[ROOM], dy[ROOM], dq[ROOM], dk[ROOM], dv[ROOM];

static ttmm_model m, other; /* q is 2 x 2; everything is 0 but for what a test sets */
static ttmm_lora lora[2];   /* of rank 1, alpha 2 */
static const ttmm_lora *const adapters[2] = {&lora[0], &lora[1]};
#define W(model) ttmm_weight(model, 0, TTMM_Q)
#define A(k) lora[k].matrix[TTMM_Q].a
#define B(k) lora[k].matrix[TTMM_Q].b

static void lane_sums(void)
{
    const real big = (real)(sizeof(real) == 8 ? 0x1p53 : 0x1p24);
    for (int exchanged = 0; exchanged < 2; exchanged++) {
        real ascending = 0;
        for (int i = 0; i < 18; i++) x[i] = i < 16 ? 0 : 2, y[i] = 1;
        x[0] = big, x[exchanged ? 8 : 1] = 1, x[exchanged ? 1 : 8] = -big;
        for (int i = 0; i < 18; i++) ascending += x[i];
        CHECK_EQUAL(dot(x, y, 18), exchanged ? 6 : 5);
        CHECK_EQUAL(ascending, exchanged ? 5 : 4);
    }
}

static void embedding_of_aab(void)
{
    const int text[] = {'a', 'a', 'b', 'a'};
    static real aab[TTMM_EMBED_DIM], out[TTMM_EMBED_DIM];
    int plus = 0, minus = 0;
    ttmm_embed(aab, NULL, text, 3, NULL);
    for (int b = 0; b < TTMM_EMBED_DIM; b++) {
        if (aab[b] == 0) continue;
        CHECK_NEAR(aab[b], aab[b] > 0 ? 0.6211 : -0.3919, rounded);
        CHECK_NEAR(aab[b] * 1.7688, aab[b] > 0 ? 1.0986 : -0.6931, rounded); /* log(1 + 2), -log(1 + 1) */
        plus += aab[b] > 0, minus += aab[b] < 0;
    }
    CHECK(plus == 1 && minus == 4);
    CHECK_NEAR(dot(aab, aab, TTMM_EMBED_DIM), 1, last);
    ttmm_embed(out, NULL, text + 1, 2, NULL); /* ab */
    CHECK_NEAR(dot(aab, out, TTMM_EMBED_DIM), 0.8111, rounded);
    ttmm_embed(out, NULL, text + 2, 2, NULL); /* ba */
    CHECK_NEAR(dot(aab, out, TTMM_EMBED_DIM), 0.5848, rounded);
}

static void clusters_of_four(void)
{
    size_t all[] = {0, 1, 2, 3};
    unsigned char side[4] = {0};
    double inertia[2], total[4], distance[4];
    clustering w = {.mean = y, .total = total, .distance = distance, .member = all, .side = side};
    int c[4];
    SET(x, 0.8, 0.6, -1, 0, 0.6, 0.8, -0.8, 0.6);
    for (uint64_t seed = 0; seed < 10; seed++) {
        ttmm_rng g = {seed};
        two_means(&w, inertia, x, 4, 2, &g);
        CHECK_NEAR(inertia[side[0]], 0.04, 10 * last);
        CHECK_NEAR(inertia[side[1]], 0.2, 10 * last);
        DONE(ttmm_cluster(c, y, x, 4, 2, 2, seed, &err));
        CHECK(c[0] == 0 && c[1] == 1 && c[2] == 0 && c[3] == 1);
        ARE(y, rounded, 0.7071, 0.7071, -0.9487, 0.3162);
        DONE(ttmm_cluster(c, y, x, 4, 2, 3, seed, &err));
        CHECK(c[0] == 0 && c[1] == 1 && c[2] == 0 && c[3] == 2);
        ARE(y, rounded, 0.7071, 0.7071, -1, 0, -0.8, 0.6);
    }
}

static size_t route(double similarity, double beta, size_t active) /* of the first; weights into y */
{
    const ttmm_router r = {beta, 0.01, 3, active};
    const double s[] = {similarity, similarity - 0.1, similarity - 0.7};
    int expert[3];
    size_t n = 0;
    for (int i = 0; i < 3; i++) SET(k + 2 * i, s[i], sqrt(1 - s[i] * s[i])); /* at these angles to the query */
    SET(q, 2, 0);
    DONE(ttmm_route(&n, expert, y, v, q, k, 3, 2, &r, &err));
    for (size_t i = 0; i < 3; i++) CHECK_NEAR(v[i], s[i], last);
    for (size_t i = 0; i < n; i++) CHECK(expert[i] == (int)i);
    return n;
}

static void routing(void)
{
    for (int far = 0; far < 2; far++) {
        const double s = far ? 0.3 : 0.9;
        CHECK(route(s, 0.12, 0) == 1 && y[0] == 1);
        CHECK(route(s, 0.12, 2) == 2); /* the second's weight, were it taken */
        ARE(y, rounded, 0.9990, 0.0010);
        CHECK(route(s, 0.2, 0) == 2);
        ARE(y, rounded, 0.9241, 0.0759);
        CHECK_NEAR(y[1] / y[0], 0.0821, rounded);
        CHECK(route(s, 0.5, 0) == 3);
        ARE(y, rounded, 0.5777, 0.3872, 0.0351);
        CHECK_NEAR(y[1] / y[0], 0.6703, rounded);
        CHECK_NEAR(y[2] / y[0], 0.0608, rounded);
    }
}

static void merging(void)
{
    const real weight[] = {0.25, 0.75};
    const ttmm_mix mix = {2, adapters, weight};
    SET(W(&m), 1, 2, 3, 4), SET(x, 2, 1);
    SET(A(0), 1, -1), SET(B(0), 2, 1), SET(A(1), 0, 1), SET(B(1), 1, -1);
    ttmm_merge(&other, &m, &mix, u);
    ARE(W(&other), 0, 2, 2.5, 3.5, 2);
    linear_forward(y, u, NULL, x, &other, NULL, 0, TTMM_Q, 1);
    ARE(y, 0, 6.5, 9);
    linear_forward(y, u, NULL, x, &m, NULL, 0, TTMM_Q, 1);
    ARE(y, 0, 4, 10);
    linear_forward(y, u, NULL, x, &m, &mix, 0, TTMM_Q, 1);
    ARE(y, 0, 6.5, 9);
}

static void rmsnorm(void)
{
    const real gain[] = {1, 1};
    real inv_r, dgain[2] = {0};
    SET(x, 3, 4), SET(dy, 1, 0), SET(dx, 0, 0);
    rmsnorm_forward(y, &inv_r, x, gain, 1, 2, 0);
    CHECK_NEAR(inv_r, 0.2828, rounded);
    CHECK_NEAR(1 / inv_r, 3.5355, rounded);
    ARE(y, rounded, 0.8485, 1.1314);
    rmsnorm_backward(dx, dgain, dy, x, gain, &inv_r, 1, 2);
    ARE(dx, rounded, 0.1810, -0.1358);
    ARE(dgain, rounded, 0.8485, 0);
    CHECK_NEAR(dx[0] * x[0], 0.5431, rounded);
    CHECK_NEAR(dot(dx, x, 2), 0, last);
}

static void first_step_of_lora(void)
{
    const real one = 1;
    const ttmm_mix mix = {1, adapters, &one};
    for (int later = 0; later < 2; later++) {
        SET(W(&m), 1, 2, 3, 4), SET(A(0), 1, -1), SET(B(0), later * -0.2, later * 0.2), SET(x, 2, 1), SET(dy, 1, -1);
        SET(W(&other), 0, 0, 0, 0), SET(A(1), 0, 0), SET(B(1), 0, 0), SET(dx, 0, 0); /* gradients are added into */
        linear_backward(dx, &other, &lora[1], u, dy, x, &m, &mix, 0, TTMM_Q, 1);
        ARE(B(1), 0, 2, -2);
        ARE(A(1), last, later * -1.6, later * -0.8);
        ARE(dx, 4 * last, later ? -2.8 : -2, later ? -1.2 : -2);
        ARE(W(&other), 0, 2, 1, -2, -1);
    }
}

static void rotary_positions(void)
{
    const ttmm_config c = {.head_dim = 4, .rope_theta = 100};
    const size_t start[] = {0, 3};
    SET(x, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0); /* the same at positions 0, 1, 2 */
    rotary_table(q, k, 3, &c);                  /* cosines, sines */
    rotary(x, q, k, 0, start, 1, 1, 4, 1);
    ARE(x, 0, 1, 1, 0, 0);
    ARE(x + 4, rounded, 0.5403, 0.9950, 0.8415, 0.0998);
    CHECK_NEAR(dot(x + 4, x, 4), 1.5353, rounded);
    CHECK_NEAR(dot(x + 8, x + 4, 4), 1.5353, rounded);
    CHECK_NEAR(dot(x + 8, x, 4), 0.5639, rounded);
    rotary(x, q, k, 0, start, 1, 1, 4, -1);
    ARE(x, last, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0);
}

static void attention(void)
{
    const ttmm_config c = {.n_heads = 1, .n_kv_heads = 1, .head_dim = 4};
    const size_t start[] = {0, 3};
    const thread_scratch scratch = {u, 2 * ATTENTION_ROWS * 3, 1};
    for (int i = 0; i < 12; i++) q[i] = k[i] = v[i] = dy[i] = dq[i] = dk[i] = dv[i] = 0;
    q[8] = 2, k[0] = (real)log(2), v[0] = 8, v[4] = 4, dy[8] = 1;
    attention_forward(y, q, k, v, start, 1, 0, &c, scratch);
    ARE(y, 8 * last, 8, 0, 0, 0, 6, 0, 0, 0, 5, 0, 0, 0);
    attention_backward(dq, dk, dv, dy, q, k, v, start, 1, &c, scratch);
    ARE(dq, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    ARE(dq + 8, rounded, 0.5199, 0, 0, 0);
    ARE(dk, 8 * last, 1.5, 0, 0, 0, -0.25, 0, 0, 0, -1.25, 0, 0, 0);
    ARE(dv, last, 0.5, 0, 0, 0, 0.25, 0, 0, 0, 0.25, 0, 0, 0);
}

static void swiglu(void)
{
    real *gate = x, *up = q, *dgate = dx, *dup = dq;
    SET(gate, 0, log(3), -log(3)), SET(up, 2, 2, 2), SET(dy, 1, 1, 1);
    swiglu_forward(y, gate, up, 3);
    swiglu_backward(dgate, dup, dy, gate, up, 3);
    ARE(y, rounded, 0, 1.6479, -0.5493);
    ARE(dup, rounded, 0, 0.8240, -0.2747);
    ARE(dgate, rounded, 1, 1.9120, 0.0880);
    CHECK_NEAR((dgate[1] + dgate[2]) / 2, 1, last);
}

static void cross_entropy_of_three(void)
{
    SET(x, 0, 0, log(2)), SET(y, 0, 0, log(2));
    CHECK_NEAR(cross_entropy(x, 2, 3, 1), 0.6931, rounded);
    ARE(x, last, 0.25, 0.25, -0.5);
    CHECK_NEAR(cross_entropy(y, 0, 3, 1), 1.3863, rounded);
    ARE(y, last, -0.75, 0.25, 0.5);
}

/* w = 1 after a step with the gradient g1 and, if it is not 0, one with g2; x [3] becomes w, m, v. */
static double after_steps(double g1, double g2, double decay)
{
    const ttmm_adamw o = {0.1, 0.9, 0.999, 0, decay};
    SET(x, 1, 0, 0), SET(dx, g1, g2);
    ttmm_adamw_step(x, dx, x + 1, x + 2, 1, &o, 1, 1);
    if (g2 != 0) ttmm_adamw_step(x, dx + 1, x + 1, x + 2, 1, &o, 2, 1);
    return (double)x[0];
}

static void adamw(void)
{
    CHECK_NEAR(after_steps(0.5, 0, 0), 0.9, last);
    CHECK_NEAR(after_steps(0.005, 0, 0), 0.9, last);
    CHECK_NEAR(after_steps(0.5, 0, 0.2), 0.88, last);
    CHECK_NEAR(after_steps(0.5, 0.5, 0), 0.8, last);
    CHECK_NEAR(after_steps(0.5, -0.5, 0), 0.9053, rounded);
    CHECK_NEAR(x[1], -0.005, last);
    CHECK_NEAR(x[1] / 0.19, -0.0263, rounded);
}

static void clipping_and_rate(void)
{
    static const long step[] = {0, 1, 2, 4, 6, 9};
    static const double rate[2][6] = {{0.5, 1, 1, 0.775, 0.55, 0.2125}, {0.5, 1, 1, 0.8682, 0.55, 0.1343}};
    const span all = {0, 2, 0};
    SET(x, 3, 4);
    CHECK_NEAR(x[0] * clip_factor(x, &all, 1, 1), 0.6, 1e-6); /* as torch does, 1e-6 is added to the norm */
    CHECK_NEAR(x[1] * clip_factor(x, &all, 1, 1), 0.8, 1e-6);
    CHECK_EQUAL(clip_factor(x, &all, 1, 10), 1);
    for (int i = 0; i < 12; i++)
        CHECK_NEAR(ttmm_rate(&(ttmm_schedule){1, 0.2, 0.1, i / 6}, step[i % 6], 10), rate[i / 6][i % 6], rounded);
}

static void sift(void)
{
    static const double expected[3][3] = {{0.6337, 0.6337, 0.3564}, {0.0032, 0.0032, 0.3564}, {0.0032, 0.0032, 0.0018}};
    double reduction[3][3];
    size_t index[3];
    SET(q, 1, 0), SET(x, 0.8, 0.6, 0.8, 0.6, 0.6, -0.8);
    ttmm_nearest(index, 2, q, x, 3, 2, u);
    CHECK(index[0] == 0 && index[1] == 1);
    for (size_t n = 0; n < 3; n++) { /* u: c(q, x_i), then c(x_i, x_i), given n chosen */
        ttmm_sift(index, n, q, x, 3, 2, 0.01, u);
        for (int i = 0; i < 3; i++) {
            reduction[n][i] = u[i] * u[i] / (u[3 + i] + 0.01);
            CHECK_NEAR(reduction[n][i], expected[n][i], rounded);
        }
        if (n == 1) CHECK_NEAR(u[1], 0.0079, rounded), CHECK_NEAR(u[4], 0.0099, rounded);
    }
    CHECK_NEAR(1 - reduction[0][0] - reduction[1][2], 0.0099, rounded);
    CHECK_NEAR(1 - reduction[0][0] - reduction[1][1], 0.3632, rounded);
    ttmm_sift(index, 3, q, x, 3, 2, 0.01, u);
    CHECK(index[0] == 0 && index[1] == 2 && index[2] == 0);
}

static void perplexity(void)
{
    const ttmm_config c = {1, 1, 1, 1, 1, 1, 4, 3, .rope_theta = 1};
    const ttmm_pass_size size = {.tokens = 3, .sequences = 1, .logits = 3};
    const int token[] = {3, 0, 2};
    ttmm_model tiny;
    ttmm_pass *p;
    if (ttmm_model_new(&tiny, &c, &err) || ttmm_pass_new(&p, &c, &size, &err)) exit(4);
    SET(ttmm_weight(&tiny, 0, TTMM_EMBED), 1, 1, 1, 1), SET(ttmm_weight(&tiny, 0, TTMM_FINAL_NORM), 1);
    SET(ttmm_weight(&tiny, 0, TTMM_HEAD), log(4), log(2), 0, 0); /* everywhere p = 1/2, 1/4, 1/8, 1/8 */
    const double nll = ttmm_score(p, &tiny, NULL, token, 3, 1);
    CHECK_NEAR(nll, 2.7726, rounded);
    CHECK_NEAR(exp(nll / 2), 4, 4 * last);
    CHECK_NEAR(nll / (log(2) * 3), 1.3333, rounded);
    ttmm_pass_free(p), ttmm_model_free(&tiny);
}

static void ensemble(void)
{
    SET(x, log(9), 0, 0, 0, log(3), 0), SET(y, 0, 0, 0, 0);
    add_probabilities(y, x, 2, (real)0.5), add_probabilities(y, x + 2, 2, (real)0.5);
    add_probabilities(y + 2, x + 4, 2, 1);
    ARE(y, last, 0.7, 0.3, 0.75, 0.25);
}

static void sampling(void)
{
    SET(x, log(4), log(3), log(2), 0);
    for (int i = 0; i < 2; i++) {
        const ttmm_sampler s = {.temperature = i ? 0.5 : 1, .top_k = 3, .top_p = 0.75};
        const double p0 = i ? 0.64 : 4 / 7.0;
        ttmm_rng g = ttmm_stream(1234, "worked", 0), same = g;
        int count[4] = {0}, others = 0;
        for (int n = 0; n < 10000; n++) {
            const int token = ttmm_sample(x, 4, &s, &g, u);
            others += token != (ttmm_uniform(&same) < p0 ? 0 : 1);
            count[token]++;
        }
        CHECK_EQUAL(others, 0);
        CHECK_NEAR(count[0], 10000 * p0, 250); /* five standard deviations */
        CHECK(count[2] == 0 && count[3] == 0);
    }
}

int main(void)
{
    const ttmm_config c = {2, 1, 1, 1, 2, 2, 2, 2, .rope_theta = 1};
    if (ttmm_model_new(&m, &c, &err) || ttmm_model_new(&other, &c, &err) || ttmm_lora_new(&lora[0], &c, 1, 2, &err) ||
        ttmm_lora_new(&lora[1], &c, 1, 2, &err))
        return 4;
    RUN(lane_sums), RUN(embedding_of_aab), RUN(clusters_of_four), RUN(routing), RUN(merging), RUN(rmsnorm);
    RUN(first_step_of_lora), RUN(rotary_positions), RUN(attention), RUN(swiglu), RUN(cross_entropy_of_three);
    RUN(adamw), RUN(clipping_and_rate), RUN(sift), RUN(perplexity), RUN(ensemble), RUN(sampling);
    return test_end("worked");
}
