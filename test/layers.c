/* layers.c - tests of sections 2 to 4 of ttmm.c: random numbers, sums, products, the transformer.
 *
 * A kernel must have the bits of the naive loop that defines its order of sums; a forward pass the values that the
 * formulas give in long double; a backward pass those of central differences (in the double build: float has too few
 * digits). Shapes and inputs come from seeded streams. With -DTTMM_FAST (fused products) bits become tolerances. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "test.h"

enum { IS_DOUBLE = sizeof(real) == 8 };
typedef long double wide;

static ttmm_error err;
static ttmm_rng shape = {1};
static size_t upto(size_t n) { return 1 + (size_t)ttmm_below(&shape, n); } /* 1 .. n */

/* Arrays until release(). Nothing is behind them: under the sanitizers a kernel that reads on is found. */
static void *arrays[1024];
static size_t n_arrays;

static real *filled(size_t n, real value)
{
    real *x = malloc((n ? n : 1) * sizeof *x);
    if (!x || n_arrays == sizeof arrays / sizeof *arrays) exit(4);
    for (size_t i = 0; i < n; i++) x[i] = value;
    return arrays[n_arrays++] = x;
}

static real *copy(const real *from, size_t n)
{
    real *x = filled(n, NAN);
    for (size_t i = 0; i < n; i++) x[i] = from[i];
    return x;
}

static real *numbers(size_t n) /* uniform in (-1, 1) */
{
    static uint64_t drawn;
    real *x = filled(n, NAN);
    test_fill(x, n, "layers", drawn++);
    return x;
}

/* What is under test: a model, B sequences, two adapters that take part with different weights; a layer (TTMM_Q ..
 * TTMM_DOWN is a linear one), its inputs x, its output y [n], their gradients; gradients of model and adapter. */
enum { EMBEDDING = TTMM_MATRICES, RMSNORM, ROTARY, ATTENTION, SWIGLU, CROSS_ENTROPY, LAYERS };
static struct {
    ttmm_model model, dmodel;
    ttmm_lora lora[2], dlora;
    const ttmm_lora *adapter[2];
    real weight[2];
    ttmm_mix both;
    const ttmm_mix *mix; /* in use */
    int token[128], layer;
    size_t start[5], B, N, longest, V, D, n, room; /* room: for attention, of each thread */
    real *x[4], *dx[4], *y, *dy, *extra, *cosine, *sine;
    ttmm_pass *pass;
} it;

static void release(void)
{
    while (n_arrays > 0) free(arrays[--n_arrays]);
    ttmm_model_free(&it.model), ttmm_lora_free(&it.lora[0]), ttmm_lora_free(&it.lora[1]);
}

/* One check: all n numbers have the same bits (FAST: are near). The first that differs is named. */
#define SAME(found, expected, n) same(__LINE__, #found, found, expected, n)
static void same(int line, const char *what, const real *found, const real *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double x = (double)found[i], y = (double)expected[i];
        char name[100], e[40], f[40];
        if (memcmp(&found[i], &expected[i], sizeof(real)) == 0) continue;
#ifdef TTMM_FAST
        if (fabs(x - y) <= (IS_DOUBLE ? 1e-12 : 1e-4) * (1 + fabs(y))) continue;
#endif
        snprintf(name, sizeof name, "%s[%lu] of %lu", what, (unsigned long)i, (unsigned long)n);
        snprintf(e, sizeof e, "%a", y), snprintf(f, sizeof f, "%a", x);
        test_failed(__FILE__, line, name, e, f);
        return;
    }
    passed++;
}

/* ---- Random numbers ---------------------------------------------------------------------------------------------- */

/* SplitMix64 gives its published numbers (Vigna's splitmix64.c from state 1234567); draws have range, mean, variance;
 * streams that differ in seed, purpose or index begin differently, the same name gives the same stream. */
static void random_numbers(void)
{
    static const uint64_t known[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                     4593380528125082431u, 16408922859458223821u};
    static const char *const purpose[] = {"", "a", "b", "ab", "ba", "model.layers.0", "model.layers.1"};
    const uint64_t large = (uint64_t)3 << 62; /* a quarter of all numbers must be refused */
    const double n = 140000;
    double count[7] = {0}, below = 0, uniform = 0, mean = 0, square = 0, inside = 0;
    uint64_t first[4 * 7 * 4];
    ttmm_rng g = {1234567};
    for (int i = 0; i < 5; i++) CHECK(ttmm_next(&g) == known[i]);
    for (int i = 0; i < (int)n; i++) {
        uint64_t x = ttmm_below(&g, 7), y = ttmm_below(&g, large);
        double u = ttmm_uniform(&g), z = ttmm_normal(&g);
        CHECK(x < 7 && y < large && u >= 0 && u < 1 && u * 0x1p53 == floor(u * 0x1p53) && ttmm_below(&g, 1) == 0);
        count[x % 7]++, below += (double)y / (double)large / n, uniform += u / n;
        mean += z / n, square += z * z / n, inside += fabs(z) < 1 ? 1 / n : 0;
    }
    for (int i = 0; i < 7; i++) CHECK_NEAR(count[i], n / 7, 5 * sqrt(n * 6 / 49)); /* five standard deviations */
    CHECK_NEAR(below, 0.5, 5 * sqrt(1 / 12.0 / n)), CHECK_NEAR(uniform, 0.5, 5 * sqrt(1 / 12.0 / n));
    CHECK_NEAR(mean, 0, 5 / sqrt(n)), CHECK_NEAR(square, 1, 5 * sqrt(2 / n));
    CHECK_NEAR(inside, 0.682689492137, 5 * sqrt(0.2166 / n)); /* of a normal distribution */
    for (size_t i = 0; i < 4 * 7 * 4; i++) {
        ttmm_rng s = ttmm_stream(i / 28, purpose[i / 4 % 7], i % 4), t = ttmm_stream(i / 28, purpose[i / 4 % 7], i % 4);
        first[i] = ttmm_next(&s);
        CHECK(first[i] == ttmm_next(&t));
        for (size_t k = 0; k < i; k++) CHECK(first[k] != first[i]);
    }
}

/* ---- Sums and products ------------------------------------------------------------------------------------------- */

/* The definition: products in 16 lanes, k ascending in each; then lane l += lane l + 8, + 4, + 2, + 1. */
static real naive_dot(const real *x, const real *y, const real *z, size_t n) /* y, z: NULL stands for ones */
{
    real lane[16] = {0};
    for (size_t k = 0; k < n; k++) {
        real product = y ? x[k] * y[k] : x[k];
        if (z) product = product * z[k];
        lane[k % 16] = lane[k % 16] + product;
    }
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++) lane[l] = lane[l] + lane[l + half];
    return lane[0];
}

static real *rows_of_numbers(size_t rows, size_t cols, size_t ld) /* with NaN between the rows */
{
    real *x = numbers(rows * ld);
    for (size_t i = 0; i < rows * ld; i++) x[i] = i % ld < cols ? x[i] : (real)NAN;
    return x;
}

/* dot, dot3 and sum have the bits of the definition at every length; largest is the maximum. */
static void sums(void)
{
    for (size_t i = 0; i < 300; i++) {
        const size_t n = i < 100 ? i : upto(2000);
        const real *x = numbers(n), *y = numbers(n), *z = numbers(n);
        real most = n ? x[0] : 0;
        for (size_t k = 0; k < n; k++) most = x[k] > most ? x[k] : most;
        const real found[] = {dot(x, y, n), dot3(x, y, z, n), sum(x, n), n ? largest(x, n) : 0};
        const real expected[] = {naive_dot(x, y, NULL, n), naive_dot(x, y, z, n), naive_dot(x, NULL, NULL, n), most};
        SAME(found, expected, 4);
        release();
    }
}

/* matmul_nt and matmul_nt_block (by nt_strip, nt_short or the plain definition) give each output the bits of its dot
 * product, put there or added, at any shape, on any number of threads; they touch nothing between the rows of outputs.
 * Some axes are longer than AXIS, or (below) than a panel; some of those have rows and columns for several blocks. */
static void products(void)
{
    for (int i = 0; i < 300; i++) {
        const size_t many = i % 70 ? 0 : 100, in = many * 8 + upto(i % 7 ? 70 : 2500), gap = i % 2 ? upto(4) - 1 : 0;
        const size_t N = many + upto(70), out = 3 * many + upto(70);
        const size_t ld = in + gap, ldy = out + gap;
        const real *x = rows_of_numbers(N, in, ld), *w = rows_of_numbers(out, in, ld);
        real *found = rows_of_numbers(N, out, ldy), *expected = copy(found, N * ldy);
        const int block = i % 2, add = i / 2 % 2;
        for (size_t k = 0; k < N * ldy; k++) {
            const real y = naive_dot(x + k / ldy * ld, w + k % ldy * ld, NULL, k % ldy < out ? in : 0);
            if (k % ldy < out) expected[k] = add ? expected[k] + y : y;
        }
        ttmm_set_threads(1 + i / 4 % 3);
        if (block) matmul_nt_block(found, ldy, x, ld, w, ld, N, out, in, add);
        else matmul_nt(found, x, reals(w), N, out, in, add);
        SAME(found, expected, N * ldy);
        release();
    }
}

/* matmul_nn, matmul_tn and matmul_nn_block are the naive loop, c_ij = c0_ij + sum_k a_ik b_kj with k ascending, every
 * product and sum rounded: same bits, a transposed or not, in place or not, on any number of threads. Some rows of a
 * are a multiple of 4 KiB long. */
static void sums_of_rows(void)
{
    for (int i = 0; i < 300; i++) {
        const int transposed = i % 2, in_place = i / 2 % 2, block = i / 4 % 2;
        const size_t rows = upto(70), cols = upto(70), K = i % 20 == 8 ? 1024 : i % 20 ? upto(i % 7 ? 70 : 700) : 0;
        const size_t gap = !block ? 0 : i % 20 == 12 ? 1024 - K : upto(4) - 1;
        const size_t a_cols = transposed ? rows : K, lda = a_cols + gap, ld = cols + gap;
        const size_t step = transposed ? 1 : lda, k_step = transposed ? lda : 1;
        const real *a = rows_of_numbers(transposed ? K : rows, a_cols, lda), *b = rows_of_numbers(K, cols, ld);
        real *c0 = rows_of_numbers(rows, cols, ld), *expected = copy(c0, rows * ld);
        real *found = in_place ? c0 : copy(c0, rows * ld);
        for (size_t j = 0; j < rows * ld; j++)
            for (size_t k = 0; k < K && j % ld < cols; k++) {
                const real product = a[j / ld * step + k * k_step] * b[k * ld + j % ld];
                expected[j] = expected[j] + product;
            }
        ttmm_set_threads(1 + i / 8 % 3);
        if (block) matmul_nn_block(found, c0, ld, a, step, k_step, b, ld, rows, cols, K);
        else if (transposed) matmul_tn(found, c0, a, b, rows, cols, K);
        else matmul_nn(found, c0, a, reals(b), rows, cols, K);
        SAME(found, expected, rows * ld);
        release();
    }
}

/* ---- A random model and batch ------------------------------------------------------------------------------------ */

/* Forms go through head_dim 1, 2, 20 ... with one head and groups of 1, 2, 3. Of the sequences, the second has one
 * token, the third is the longest. */
static void world_new(int i, size_t longest)
{
    static const int head_dim[] = {2, 20, 1, 3, 16};
    const int G = i == 0 ? 1 : (int)upto(2), H = G * (1 + i % 3), S = head_dim[i % 5], D = 4 + (int)upto(20);
    const int L = (int)upto(2), F = (int)upto(40), V = 1 + (int)upto(30);
    const ttmm_config c = {D, L, H, G, S, F, V, 64, i % 2, 1e-3, 100, i % 3 == 1, i % 3, 2.5, 0.3, 3, 30, 0, {0}, 0, 0};
    memset(&it, 0, sizeof it);
    if (ttmm_model_new(&it.model, &c, &err)) exit(4);
    test_fill(it.model.data, it.model.n, "model", (uint64_t)i);
    for (int k = 0; k < 2; k++) {
        if (ttmm_lora_new(&it.lora[k], &c, 2 + k, 1 + k, &err)) exit(4);
        test_fill(it.lora[k].data, it.lora[k].n, "lora", (uint64_t)(2 * i + k));
        it.lora[k].matrix[(i + k) % (L * TTMM_MATRICES)].rank = 0; /* one matrix has no update */
        it.adapter[k] = &it.lora[k], it.weight[k] = (real)(0.7 - 0.3 * k);
    }
    it.both.n = 2, it.both.lora = it.adapter, it.both.weight = it.weight;
    it.B = 4, it.longest = longest > 9 ? longest : 9, it.V = (size_t)V;
    for (size_t b = 0; b < it.B; b++) it.start[b + 1] = it.start[b] + (b == 1 ? 1 : b == 2 ? it.longest : 1 + upto(8));
    it.N = it.start[it.B];
    for (size_t t = 0; t < it.N; t++) it.token[t] = (int)ttmm_below(&shape, it.V);
}

static ttmm_pass *pass_new(size_t cache, size_t logits, int backward)
{
    const ttmm_pass_size size = {it.N, cache ? 1 : it.B, cache, logits, it.longest, 3, backward, 0};
    ttmm_pass *p;
    if (ttmm_pass_new(&p, &it.model.config, &size, &err)) exit(4);
    return p;
}

/* ---- Backward passes --------------------------------------------------------------------------------------------- */

static const char *const layer_name[] = {
    "q", "k", "v", "o", "gate", "up", "down", "embedding", "rmsnorm", "rotary", "attention", "swiglu", "cross-entropy"};

/* A layer forward or backward. It is seen through L = sum_i dy_i y_i, dy random, for which dL/dy = dy. Returns L. */
static double layer(int back)
{
    const ttmm_config *c = &it.model.config;
    const size_t N = it.N, D = it.D, n = it.n, H = (size_t)c->n_heads, S = (size_t)c->head_dim;
    real **x = it.x, **dx = it.dx, *y = it.y, *dy = it.dy, *extra = it.extra, *to = back ? dx[0] : y;
    switch (it.layer) {
    case EMBEDDING:
        if (back) embedding_backward(dx[0], dy, it.token, N, D);
        else embedding_forward(y, reals(x[0]), it.token, N, D);
        break;
    case RMSNORM:
        if (back) rmsnorm_backward(dx[0], dx[1], dy, x[0], x[1], extra, N, D);
        else rmsnorm_forward(y, extra, x[0], x[1], N, D, 0.1);
        break;
    case ROTARY:
        memcpy(to, back ? dy : x[0], n * sizeof *to);
        rotary(to, it.cosine, it.sine, 3, it.start, it.B, H, S, back ? -1 : 1);
        break;
    case ATTENTION:
        if (back)
            attention_backward(dx[0], dx[1], dx[2], dy, x[0], x[1], x[2], it.start, it.B, c,
                               (thread_scratch){extra, it.room, ttmm_threads()});
        else
            attention_forward(y, x[0], x[1], x[2], it.start, it.B, 0, c,
                              (thread_scratch){extra, it.room, ttmm_threads()});
        break;
    case SWIGLU:
        if (back) swiglu_backward(dx[0], dx[1], dy, x[0], x[1], n);
        else swiglu_forward(y, x[0], x[1], n);
        break;
    case CROSS_ENTROPY:
        memcpy(back ? dx[0] : extra, x[0], D * sizeof(real));
        y[0] = cross_entropy(back ? dx[0] : extra, (int)(N % D), D, back ? dy[0] : 0);
        break;
    default:
        if (!back) linear_forward(y, extra, NULL, x[0], &it.model, it.mix, 0, it.layer, N);
        else
            linear_backward(dx[0], &it.dmodel, it.mix ? &it.dlora : NULL, extra, dy, x[0], &it.model, it.mix, 0,
                            it.layer, N);
    }
    return (double)naive_dot(y, dy, NULL, n);
}

static double layer_scalar(void) { return layer(0); }

/* dx [n] must be `times` dL/dx, by central differences at up to 6 components. */
static void check_gradient(const char *what, double (*L)(void), real *x, const real *dx, size_t n, int times)
{
    static const double h = 0x1p-14, at[] = {-2, -1, 1, 2}, weight[] = {1, -8, 8, -1}; /* exact to h^4 */
    ttmm_set_threads(1);
    for (size_t j = 0; j < n && j < 6 && IS_DOUBLE; j++) {
        const size_t i = n <= 6 ? j : (size_t)ttmm_below(&shape, n);
        const real x0 = x[i];
        double derivative = 0;
        for (int k = 0; k < 4; k++) x[i] = x0 + (real)(at[k] * h), derivative += weight[k] * L() / (12 * h);
        x[i] = x0;
        test_near(__FILE__, __LINE__, what, (double)dx[i], times * derivative, 1e-8 * (1 + fabs(derivative)));
    }
}

/* The backward pass of every layer is the derivative of its forward pass by every input: of linear layers also by W,
 * with an adapter by A and B. Where gradients are added into dx, two passes from zeros give twice the derivative. Of
 * what is linear in x the backward pass is the transpose: <M' dy, x> = <dy, M x>. */
static void layer_gradients(void)
{
    for (int i = 0; i < 30; i++) {
        world_new(i, i % 2 ? ATTENTION_ROWS + upto(9) : 9);
        const ttmm_config *c = &it.model.config;
        const size_t N = it.N, S = (size_t)c->head_dim, D = it.D = i == 1 ? 1 : upto(40), ND = N * D;
        const size_t Q = N * dimension(c, "HS"), K = N * dimension(c, "GS");
        if (ttmm_model_new(&it.dmodel, c, &err) || ttmm_lora_new(&it.dlora, c, 2, 1, &err)) exit(4);
        it.mix = i % 2 ? &it.both : NULL, it.both.n = 1, it.room = 2 * N * N + ATTENTION_ROWS * N;
        it.cosine = filled((N + 3) * S, NAN), it.sine = filled((N + 3) * S, NAN), it.extra = filled(3 * it.room, NAN);
        rotary_table(it.cosine, it.sine, N + 3, c);
        for (it.layer = 0; it.layer < LAYERS; it.layer++) {
            const int linear = it.layer < TTMM_MATRICES, times = it.layer == ROTARY || it.layer >= SWIGLU ? 1 : 2;
            const size_t out = linear ? kind_rows(c, it.layer) : 0, in = linear ? kind_cols(c, it.layer) : 0;
            const size_t linear_sizes[] = {N * out, N * in, out * in, 2 * in, 2 * out};
            const size_t sizes[][5] = {{ND, it.V * D}, {ND, ND, D}, {Q, Q}, {Q, Q, K, K}, {ND, ND, ND}, {1, D}};
            const size_t *n = linear ? linear_sizes : sizes[it.layer - EMBEDDING];
            it.n = n[0], it.y = filled(n[0], NAN), it.dy = numbers(n[0]); /* then of the inputs */
            for (int k = 0; k < 4; k++) it.x[k] = numbers(n[k + 1]), it.dx[k] = filled(n[k + 1], 0);
            for (size_t k = 0; k < n[1]; k++) it.x[0][k] = it.x[0][k] * 3 + (it.layer == CROSS_ENTROPY ? 1000 : 0);
            if (linear) {
                const ttmm_lora_matrix *l = &it.lora[0].matrix[it.layer], *d = &it.dlora.matrix[it.layer];
                it.x[1] = ttmm_weight(&it.model, 0, it.layer), it.dx[1] = ttmm_weight(&it.dmodel, 0, it.layer);
                it.x[2] = l->a, it.dx[2] = d->a, it.x[3] = l->b, it.dx[3] = d->b;
            }
            const double L = layer_scalar(), small = (IS_DOUBLE ? 1e-14 : 5e-6) * (double)it.n;
            ttmm_set_threads(1 + i % 3);
            layer(1), layer(1);
            if (linear && has_bias(c, it.layer)) { /* affine, not linear */
                const int bias = TTMM_Q_BIAS + it.layer;
                check_gradient("bias", layer_scalar, ttmm_weight(&it.model, 0, bias), ttmm_weight(&it.dmodel, 0, bias),
                               out, times);
            } else if (it.layer <= EMBEDDING || it.layer == ROTARY)
                CHECK_NEAR(naive_dot(it.dx[0], it.x[0], NULL, n[1]), times * L, small);
            for (int k = 0; k < 4; k++)
                check_gradient(layer_name[it.layer], layer_scalar, it.x[k], it.dx[k], n[k + 1], times);
        }
        ttmm_model_free(&it.dmodel), ttmm_lora_free(&it.dlora), release();
    }
}

static double loss_scalar(void)
{
    ttmm_forward(it.pass, &it.model, it.mix, it.token, it.start, it.B);
    ttmm_nll(it.pass, &it.model, it.y);
    return (double)naive_dot(it.y, NULL, NULL, it.N) / (double)(it.N - it.B);
}

/* ttmm_backward returns the mean loss; its gradients of every tensor, and of the adapter's A and B, are the derivatives
 * of that, added to what is there; how many rows of logits are computed at a time, and on how many threads, changes no
 * bit of them. Sequences of one token alone give nothing. */
static void model_gradients(void)
{
    for (int i = 0; i < 10; i++) {
        real *first_dm = NULL, *first_dl = NULL;
        world_new(i, i < 2 ? 45 : upto(9));
        if (i == 2) it.B = 1, it.N = it.start[1];
        const size_t rows[] = {it.N, 1, 3, it.N, 3}, single[] = {0, 1, 2};
        const ttmm_config *c = &it.model.config;
        ttmm_model *dm = &it.dmodel, *m = &it.model;
        ttmm_lora *dl = &it.dlora;
        it.y = filled(it.N, NAN), it.both.n = 1;
        for (int variant = 0; variant < 5; variant++) {
            if (ttmm_model_new(dm, c, &err) || ttmm_lora_new(dl, c, 2, 1, &err)) exit(4);
            ttmm_set_threads(variant < 3 ? 1 : variant - 1);
            ttmm_pass *p = it.pass = pass_new(0, rows[variant], 1);
            ttmm_forward(p, m, NULL, it.token, single, it.B > 1 ? 2 : 1);
            CHECK_EQUAL(ttmm_backward(p, m, NULL, dm, NULL), 0);
            for (int k = 0; k < 4; k++) {
                it.mix = k < 2 ? &it.both : NULL;
                const double mean = loss_scalar();
                const double found = ttmm_backward(p, m, it.mix, it.mix ? NULL : dm, it.mix ? dl : NULL);
                CHECK_RELATIVE(found, mean, IS_DOUBLE ? 1e-15 : 1e-6, 1);
            }
            if (variant == 0) first_dm = copy(dm->data, dm->n), first_dl = copy(dl->data, dl->n);
            SAME(dm->data, first_dm, dm->n);
            SAME(dl->data, first_dl, dl->n);
            for (size_t k = 0; k < ttmm_n_tensors(c) && variant == 0; k++) {
                const ttmm_tensor t = ttmm_tensor_at(c, k);
                check_gradient(t.name, loss_scalar, m->data + t.offset, dm->data + t.offset, t.rows * t.cols, 2);
            }
            it.mix = &it.both;
            for (int k = 0; k < c->n_layers * TTMM_MATRICES && variant == 0; k++) {
                const ttmm_lora_matrix *l = &it.lora[0].matrix[k]; /* B stands after A; both get 0 if of rank 0 */
                check_gradient("A, B", loss_scalar, l->a, dl->matrix[k].a, (l->in + l->out) * 2, 2);
            }
            ttmm_pass_free(p), ttmm_model_free(dm), ttmm_lora_free(dl);
        }
        release();
    }
}

/* ---- Forward passes ---------------------------------------------------------------------------------------------- */

/* y += (W + sum_k weight_k scale_k B_k A_k) x */
static void naive_linear(wide *y, const wide *x, int layer, int kind)
{
    const size_t out = kind_rows(&it.model.config, kind), in = kind_cols(&it.model.config, kind);
    for (size_t i = 0; i < out * in; i++) {
        wide merged = ttmm_weight(&it.model, layer, kind)[i];
        for (size_t k = 0; it.mix && kind < TTMM_MATRICES && k < it.mix->n; k++) {
            const ttmm_lora_matrix *l = &it.mix->lora[k]->matrix[layer * TTMM_MATRICES + kind];
            for (size_t r = 0, R = (size_t)l->rank; r < R; r++)
                merged += (wide)it.mix->weight[k] * l->scale * l->b[i / in * R + r] * l->a[r * in + i % in];
        }
        y[i / in] += merged * x[i % in];
    }
}

static void naive_norm(wide *y, const wide *x, const real *gain, size_t D, double eps)
{
    wide square = 0;
    for (size_t i = 0; i < D; i++) square += x[i] * x[i];
    for (size_t i = 0; i < D; i++) y[i] = gain[i] * x[i] / sqrtl(square / (wide)D + eps);
}

static void naive_rotary(wide *x, size_t heads, size_t S, size_t position, const ttmm_config *c)
{
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < S / 2; i++) {
            const wide f = powl((wide)c->rope_theta, -2 * (wide)i / (wide)S), wavelength = 2 * acosl(-1) / f;
            const wide slow = c->rope_before / c->rope_low, fast = c->rope_before / c->rope_high;
            const wide smooth = (1 / wavelength - 1 / slow) / (1 / fast - 1 / slow);
            const wide scaled = c->rope == TTMM_ROPE_DEFAULT || (c->rope == TTMM_ROPE_LLAMA3 && wavelength < fast) ? f
                                : c->rope == TTMM_ROPE_LINEAR || wavelength > slow
                                    ? f / c->rope_factor
                                    : (1 - smooth) * f / c->rope_factor + smooth * f;
            const wide angle = (wide)position * scaled;
            wide *p = x + h * S + i, *q = p + S / 2, a = *p, b = *q;
            *p = a * cosl(angle) - b * sinl(angle), *q = b * cosl(angle) + a * sinl(angle);
        }
}

/* The model in long double, straight from the formulas: the logits [V] after `token` at position t; the tokens before
 * it were given in turn. */
static void naive_model(wide *logits, int token, size_t t)
{
    static wide keys[2][64][40], values[2][64][40];
    const ttmm_config *c = &it.model.config;
    const size_t D = (size_t)c->dim, F = (size_t)c->intermediate, S = (size_t)c->head_dim;
    const size_t H = (size_t)c->n_heads, G = (size_t)c->n_kv_heads;
    wide x[40], n[40];
    for (size_t i = 0; i < D; i++) x[i] = ttmm_weight(&it.model, 0, TTMM_EMBED)[(size_t)token * D + i];
    for (int l = 0; l < c->n_layers; l++) {
        wide q[120] = {0}, k[40] = {0}, v[40] = {0}, o[120] = {0}, gate[40] = {0}, up[40] = {0};
        naive_norm(n, x, ttmm_weight(&it.model, l, TTMM_ATTN_NORM), D, c->norm_eps);
        for (size_t i = 0; c->biases && i < H * S; i++) q[i] = ttmm_weight(&it.model, l, TTMM_Q_BIAS)[i];
        for (size_t i = 0; c->biases && i < G * S; i++) k[i] = ttmm_weight(&it.model, l, TTMM_K_BIAS)[i];
        for (size_t i = 0; c->biases && i < G * S; i++) v[i] = ttmm_weight(&it.model, l, TTMM_V_BIAS)[i];
        naive_linear(q, n, l, TTMM_Q), naive_linear(k, n, l, TTMM_K), naive_linear(v, n, l, TTMM_V);
        naive_rotary(q, H, S, t, c), naive_rotary(k, G, S, t, c);
        memcpy(keys[l][t], k, sizeof k), memcpy(values[l][t], v, sizeof v);
        for (size_t h = 0; h < H; h++) {
            const size_t g = h / (H / G);
            wide total = 0;
            for (size_t j = 0; j <= t; j++) {
                wide s = 0;
                for (size_t i = 0; i < S; i++) s += q[h * S + i] * keys[l][j][g * S + i];
                total += s = expl(s / sqrtl((wide)S));
                for (size_t i = 0; i < S; i++) o[h * S + i] += s * values[l][j][g * S + i];
            }
            for (size_t i = 0; i < S; i++) o[h * S + i] /= total;
        }
        naive_linear(x, o, l, TTMM_O);
        naive_norm(n, x, ttmm_weight(&it.model, l, TTMM_MLP_NORM), D, c->norm_eps);
        naive_linear(gate, n, l, TTMM_GATE), naive_linear(up, n, l, TTMM_UP);
        for (size_t i = 0; i < F; i++) up[i] *= gate[i] / (1 + expl(-gate[i]));
        naive_linear(x, up, l, TTMM_DOWN);
    }
    naive_norm(n, x, ttmm_weight(&it.model, 0, TTMM_FINAL_NORM), D, c->norm_eps);
    naive_linear(logits, n, 0, TTMM_HEAD);
}

/* The logits of a batch must be those of the formulas; nll -log softmax of the logits, 0 where nothing follows. */
static void check_formulas(const real *logits, const real *nll)
{
    for (size_t b = 0, t = 0; b < it.B; b++)
        for (; t < it.start[b + 1]; t++) {
            const real *x = logits + t * it.V;
            wide expected[40] = {0}, total = 0;
            naive_model(expected, it.token[t], t - it.start[b]);
            for (size_t v = 0; v < it.V; v++) CHECK_RELATIVE(x[v], expected[v], IS_DOUBLE ? 1e-13 : 2e-5, 1);
            for (size_t v = 0; v < it.V; v++) total += expl((wide)x[v]);
            const wide loss = t + 1 < it.start[b + 1] ? logl(total) - x[it.token[t + 1]] : 0;
            CHECK_RELATIVE(nll[t], loss, IS_DOUBLE ? 1e-14 : 1e-6, 1);
        }
}

/* Tokens from .. to - 1 of sequence b, `piece` at a time, must have these logits [T, V] (NULL: any). */
static void feed(ttmm_pass *p, size_t b, size_t from, size_t to, size_t piece, const real *expected)
{
    ttmm_rewind(p, from);
    for (size_t n; from < to; from += n) {
        const size_t start[] = {0, n = piece < to - from ? piece : to - from};
        ttmm_forward(p, &it.model, it.mix, it.token + it.start[b] + from, start, 1);
        CHECK_EQUAL(ttmm_cached(p), p->size.cache ? from + n : 0);
        if (expected) SAME(ttmm_logits(p, &it.model, 0, n), expected + from * it.V, n * it.V);
    }
}

/* The logits are those of the formulas. At a position they have the same bits in a batch, alone, in a prefix, token by
 * token or in pieces through the cache, after others were taken back; with and without adapters; on 1 to 3 threads. */
static void forward_passes(void)
{
    for (int i = 0; i < 20; i++) {
        const real *all = NULL;
        world_new(i, 60);
        it.mix = i / 5 % 2 ? &it.both : NULL;
        for (int threads = 1; threads <= 3; threads++) {
            ttmm_set_threads(threads);
            ttmm_pass *p = pass_new(0, it.N, 0), *cached = pass_new(it.longest, it.longest, 0);
            real *nll = filled(it.N, NAN);
            ttmm_forward(p, &it.model, it.mix, it.token, it.start, it.B);
            ttmm_nll(p, &it.model, nll);
            if (threads == 1) all = copy(ttmm_logits(p, &it.model, 0, it.N), it.N * it.V), check_formulas(all, nll);
            SAME(ttmm_logits(p, &it.model, 0, it.N), all, it.N * it.V);
            SAME(ttmm_logits(p, &it.model, 9, 5), all + 9 * it.V, 5 * it.V);
            for (size_t b = 0; b < it.B; b++) {
                const size_t T = it.start[b + 1] - it.start[b], prefix = upto(T), kept = upto(T) - 1;
                const real *expected = all + it.start[b] * it.V;
                feed(p, b, 0, T, T, expected); /* alone */
                feed(p, b, 0, prefix, T, expected);
                feed(p, b, 0, 1, T, expected);
                feed(cached, b, 0, T, 1, expected); /* token by token */
                feed(cached, b, 0, T, prefix, expected);
                feed(cached, 2, kept, it.longest, 9, NULL); /* tokens of another sequence, then back to kept */
                feed(cached, b, kept, T, 7, expected);
            }
            ttmm_pass_free(p), ttmm_pass_free(cached);
        }
        release();
    }
}

int main(void)
{
    RUN(random_numbers), RUN(sums), RUN(products);
    RUN(sums_of_rows), RUN(layer_gradients), RUN(model_gradients), RUN(forward_passes);
    return test_end("layers");
}
