/* products.c - the speed of the three products of a linear layer on one thread, in GFLOP/s, beside what this machine
 * can do without memory: forward y = x W', backward dx = dy W and dW = dy' x. Part of `make scaling`. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "../ttmm.c"

static double gflops(int kind, size_t N, size_t out, size_t in)
{
    arena a = {0};
    ttmm_error err;
    void *block;
    for (int i = 0; i < 3; i++) take_reals(&a, i == 0 ? N * in : i == 1 ? N * out : out * in);
    if (allocate(&a, &block, "matrices", &err) != TTMM_OK) return 0;
    real *x = take_reals(&a, N * in), *y = take_reals(&a, N * out), *w = take_reals(&a, out * in);
    double best = 0, all = 0;
    while (all < 0.3) {
        const double began = ttmm_seconds();
        if (kind == 0) matmul_nt(y, x, reals(w), N, out, in, 0);
        if (kind == 1) matmul_nn(x, x, y, reals(w), N, in, out);
        if (kind == 2) matmul_tn(w, w, y, x, out, in, N);
        const double t = ttmm_seconds() - began;
        best = best == 0 || t < best ? t : best;
        all += t;
    }
    free(block);
    return 2e-9 * (double)(N * out * in) / best;
}

int main(void)
{
    static const size_t shape[][3] = {{2048, 128, 128},  {2048, 352, 128}, {2048, 128, 352},
                                      {512, 768, 768},   {512, 2048, 768}, {512, 768, 2048},
                                      {512, 2048, 2048}, {2048, 8, 128},   {2048, 128, 8}};
    ttmm_set_threads(1);
    const double bound = 1e-9 * ttmm_peak_flops();
    printf("tokens x out x in (one thread; bound %3.0f GFLOP/s)        forward             dx             dW\n", bound);
    for (size_t s = 0; s < sizeof shape / sizeof *shape; s++) {
        printf("%6zu %6zu %6zu %24s", shape[s][0], shape[s][1], shape[s][2], "");
        for (int kind = 0; kind < 3; kind++) {
            const double rate = gflops(kind, shape[s][0], shape[s][1], shape[s][2]);
            printf("  %6.1f %4.0f %%", rate, 100 * rate / bound);
        }
        printf("\n");
    }
    return 0;
}
