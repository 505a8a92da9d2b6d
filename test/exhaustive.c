/* exhaustive.c - the float build's exp, log, sin, cos and erf are correctly rounded for every float there is (sin and
 * cos: up to 2^22, beyond it they are NaN), but for log at five and sin at two of them. It computes
 * (float)ttmm_exp((double)x) and so on; here that is compared with the true value, rounded once, for all 2^32 x; and so
 * is exp_real(x), by which it computes exp faster.
 *
 * The true value is the C library's in long double. If the float would be another were that value off by 2^-44 of
 * itself (some 2^-61 is usual), or if it contradicts ttmm, it is computed anew with 113 bits and granted 2^-100.
 * Where the result is trivially 0, 1, x, infinite or NaN, that is written out and compared just the same.
 *
 * Takes minutes, so it is not part of `make test`:
 *   gcc -std=c99 -O3 -march=native -ffp-contract=off -fopenmp test/exhaustive.c -o exhaustive -lquadmath -lm
 *   ./exhaustive [exp] [exp_real] [log] [sin] [cos] [erf]
 * Ends with 0 if no other arguments miss. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "../ttmm.c"

#if LDBL_MANT_DIG >= 113
typedef long double quad;
#define QUAD(f) f##l
#define HAVE_QUAD 1
#elif LDBL_MANT_DIG >= 64 && defined(__SIZEOF_FLOAT128__) && !defined(__clang__)
#include <quadmath.h>
typedef __float128 quad;
#define QUAD(f) f##q
#define HAVE_QUAD 1
#endif

#ifdef HAVE_QUAD
static double exp_of_float(double x) { return (double)exp_real((float)x); }

enum { EXP, EXP_REAL, LOG, SIN, COS, ERF, FUNCTIONS };
static const struct {
    const char *name;
    double (*tested)(double);
    long double (*wide)(long double);
    quad (*wider)(quad);
    long misses; /* stated in ttmm.c and listed in test/functions.c */
} function[] = {{"exp", ttmm_exp, expl, QUAD(exp), 0}, {"exp_real", exp_of_float, expl, QUAD(exp), 0},
                {"log", ttmm_log, logl, QUAD(log), 5}, {"sin", ttmm_sin, sinl, QUAD(sin), 2},
                {"cos", ttmm_cos, cosl, QUAD(cos), 0}, {"erf", ttmm_erf, erfl, QUAD(erf), 0}};

static uint32_t float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static int same(float x, float y) { return float_bits(x) == float_bits(y) || (isnan(x) && isnan(y)); }

/* Results that need no computation. Bounds are from the series: exp(2^-24) is just above the middle of 1 and the next
 * float, exp(-2^-25) just above the middle of 1 and the float before; x^3/6 and x^2/2 are too small to count. */
static int trivial(int f, float x, float *y)
{
    const float a = fabsf(x);
    f = f == EXP_REAL ? EXP : f;
    if (isnan(x)) return *y = x, 1;
    if (f == EXP && x > 89) return *y = INFINITY, 1;
    if (f == EXP && x < -104) return *y = 0, 1;
    if (f == EXP && x >= -0x1p-25f && x < 0x1p-24f) return *y = 1, 1;
    if (f == ERF && x == 0) return *y = x, 1;
    if (f == LOG && x < 0) return *y = NAN, 1;
    if (f == LOG && x == 0) return *y = -INFINITY, 1;
    if (f == LOG && x > FLT_MAX) return *y = INFINITY, 1;
    if ((f == SIN || f == COS) && a > 0x1p22f) return *y = NAN, 1;
    if ((f == SIN || f == COS) && a <= 0x1p-12f) return *y = f == SIN ? x : 1, 1;
    return 0;
}

typedef struct {
    long computed, wider, undecided, missing;
} counts;

static long shown; /* misses printed, of one function */

static void show_miss(int f, float x, float found, float expected, double off)
{
    OMP(omp critical)
    if (shown++ < 20)
        printf("%s(%a) = %a, expected %a: off by %.12f ulp (double: %a)\n", function[f].name, (double)x, (double)found,
               (double)expected, off, function[f].tested((double)x));
}

static void check(int f, float x, counts *c)
{
    const float found = (float)function[f].tested((double)x);
    float y;
    if (trivial(f, x, &y)) {
        if (!same(found, y)) c->missing++, show_miss(f, x, found, y, INFINITY);
        return;
    }
    c->computed++;
    const long double w = function[f].wide(x), slack = 0x1p-44L * fabsl(w);
    y = (float)(w - slack);
    if (same(found, y) && same(found, (float)(w + slack))) return;

    c->wider++;
    const quad q = function[f].wider(x), size = q < 0 ? -q : q, wider_slack = (quad)0x1p-100L * size;
    y = (float)(q - wider_slack);
    if (!same(y, (float)(q + wider_slack))) c->undecided++;
    else if (!same(found, y)) {
        const double ulp = (double)(nextafterf(fabsf(y), INFINITY) - fabsf(y));
        c->missing++, show_miss(f, x, found, y, fabs((double)(((quad)found - q) / (quad)ulp)));
    }
}

/* All floats whose upper 16 bits are those of block: 65536 of them. */
static counts check_block(int f, long block)
{
    counts c = {0, 0, 0, 0};
    for (uint32_t low = 0; low < 65536; low++) check(f, float_of((uint32_t)block << 16 | low), &c);
    if (block % 256 == 0) fprintf(stderr, "\r%s %3ld%%", function[f].name, block * 100 / 65536), fflush(stderr);
    return c;
}

static int check_function(int f)
{
    const double start = ttmm_seconds();
    long computed = 0, wider = 0, undecided = 0, missing = 0;
    shown = 0;
    OMP(omp parallel for schedule(dynamic, 16) reduction(+ : computed, wider, undecided, missing))
    for (long block = 0; block < 65536; block++) {
        const counts c = check_block(f, block);
        computed += c.computed, wider += c.wider, undecided += c.undecided, missing += c.missing;
    }
    fprintf(stderr, "\r         \r");
    printf("%s: 4294967296 floats, %ld not trivial, %ld took 113 bits, %ld undecided, %ld miss (%ld known); %.0f s\n",
           function[f].name, computed, wider, undecided, missing, function[f].misses, ttmm_seconds() - start);
    fflush(stdout);
    return undecided > 0 || missing != function[f].misses;
}

int main(int argc, char **argv)
{
    int wrong = 0;
    for (int f = 0; f < FUNCTIONS; f++) {
        int asked = argc == 1;
        for (int i = 1; i < argc; i++) asked |= strcmp(argv[i], function[f].name) == 0;
        if (asked) wrong |= check_function(f);
    }
    return wrong;
}
#else
int main(void)
{
    printf("exhaustive: needs a long double of 64 bits or more and 128-bit floats (gcc on x86: libquadmath)\n");
    return 2;
}
#endif
