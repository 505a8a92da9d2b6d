/* functions.c - tests of exp, log, sin, cos and erf (section 10 of ttmm.c).
 *
 * As doubles they are within the bounds stated beside them: at the arguments of test/functions.txt (hard
 * cases, all exponents, the worst that a search found), whose values mpmath computed (test/functions.py), and at
 * random ones against the C library's long double. As floats they are correctly rounded (sin and cos up to 2^22),
 * but for log at five and sin at two: here a sample of arguments and those seven, in test/exhaustive.c all 2^32.
 * Special values are to the bit those of C99's Annex F; sin and cos give NaN beyond 2^22. Symmetries are exact, and
 * no step goes the wrong way where a formula changes. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "test.h"

enum { EXP, LOG, SIN, COS, ERF, FUNCTIONS };
#ifdef TTMM_FAST
enum { FAST = 1 }; /* fused products: the same bounds, but two ways to one value may differ in its last bit */
#else
enum { FAST = 0 };
#endif

static struct {
    const char *name;
    double (*f)(double);
    long double (*wide)(long double);
    double bound;       /* of the error in ulp, as stated in ttmm.c */
    double least, most; /* random arguments */
    double largest, at; /* error found, and its argument */
} function[] = {{"exp", ttmm_exp, expl, 0.78, -745, 709.7, 0, 0},
                {"log", ttmm_log, logl, 0.88, 0.3, 3, 0, 0},
                {"sin", ttmm_sin, sinl, 0.81, -100, 100, 0, 0},
                {"cos", ttmm_cos, cosl, 0.81, -100, 100, 0, 0},
                {"erf", ttmm_erf, erfl, 1.02, -6, 6, 0, 0}};

/* An ulp: from |x| to the next larger double. */
static double ulp(double x) { return nextafter(fabs(x), INFINITY) - fabs(x); }

static void check_error(int line, int f, double x, double error, double slack)
{
    if (error > function[f].largest) function[f].largest = error, function[f].at = x;
    const double bound = f == EXP && x > -708 ? 0.72 : function[f].bound; /* 0.78 is for subnormal results */
    if (error <= bound + slack) {
        passed++;
        return;
    }
    char what[60], e[60], found[60];
    snprintf(what, sizeof what, "%s(%a)", function[f].name, x);
    snprintf(e, sizeof e, "an error of at most %.2f ulp", bound), snprintf(found, sizeof found, "%.3f", error);
    test_failed(__FILE__, line, what, e, found);
}

/* Each line: function, argument, nearest double, (true value - nearest double) / ulp. found - nearest is exact. */
static void against_mpmath(void)
{
    char name[8];
    double x, nearest, rest;
    int fields, count[FUNCTIONS] = {0};
    FILE *file = fopen("test/functions.txt", "r");
    CHECK(file != NULL);
    if (!file) return;
    while ((fields = fscanf(file, "%7s %lf %lf %lf", name, &x, &nearest, &rest)) == 4) {
        int f = 0;
        while (f < FUNCTIONS && strcmp(name, function[f].name) != 0) f++;
        CHECK(f < FUNCTIONS && fabs(rest) <= 0.5);
        if (f == FUNCTIONS) continue;
        check_error(__LINE__, f, x, fabs((function[f].f(x) - nearest) / ulp(nearest) - rest), 0);
        count[f]++;
    }
    CHECK(fields == EOF);
    for (int f = 0; f < FUNCTIONS; f++) CHECK(count[f] >= 100);
    fclose(file);
}

/* Of functions that long double has more exactly: all of them; of mingw not sin and cos, of wasi-libc none, nor of musl
 * where long double has 113 bits (its expl is exp). */
#if LDBL_MANT_DIG < 64 || defined(__wasi__) || (LDBL_MANT_DIG == 113 && defined(__linux__) && !defined(__GLIBC__))
enum { WIDE = 0 };
#elif defined(_WIN32)
enum { WIDE = SIN };
#else
enum { WIDE = FUNCTIONS };
#endif

/* Random doubles; what long double leaves open is 0.001 ulp. */
static void against_long_double(void)
{
    ttmm_rng g = ttmm_stream(1, "functions", 0);
    for (int f = 0; f < WIDE; f++)
        for (int i = 0; i < 200000; i++) {
            const double u = ttmm_uniform(&g), any = from_bits(ttmm_below(&g, to_bits(0x1p22)));
            double x = function[f].least + u * (function[f].most - function[f].least);
            if (i % 2 && f != EXP) x = f == LOG ? from_bits(ttmm_below(&g, to_bits(INFINITY))) : any;
            if (i % 2 && f == EXP) x = 4 * u - 2;
            const long double y = function[f].wide(x);
            check_error(__LINE__, f, x, (double)(fabsl((long double)function[f].f(x) - y) / ulp((double)y)), 0.001);
        }
}

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Every 65,521st float (a prime: all exponents, many mantissas). Near the middle of two floats either will do. */
static void floats(void)
{
    for (uint64_t u = 0; u < (uint64_t)1 << 32; u += 65521) {
        const float x = float_of((uint32_t)u);
        for (int f = 0; f < WIDE; f++) {
            const float found = (float)function[f].f((double)x);
            const long double y = (f == SIN || f == COS) && !(fabsf(x) <= 0x1p22f) ? NAN : function[f].wide(x);
            const float low = (float)(y * (1 - 0x1p-60L)), high = (float)(y * (1 + 0x1p-60L));
            if (isnan(y) ? isnan(found) : found == low || found == high) {
                passed++;
                continue;
            }
            char what[60], e[40], got[40];
            snprintf(what, sizeof what, "(float)%s(%a)", function[f].name, (double)x);
            snprintf(e, sizeof e, "%a", (double)low), snprintf(got, sizeof got, "%a", (double)found);
            test_failed(__FILE__, __LINE__, what, e, got);
        }
    }
}

/* All the floats at which the result is not the nearest float. The double is the nearest one, but it is the middle of
 * two floats, and ties go to even: the float errs by up to 0.5000000009 ulp. */
static void misses(void)
{
    static const double log_missed[][2] = {{0x1.827a74p-7, -0x1.1c2b1fp+2},
                                           {0x1.2f1fd6p+3, 0x1.1fcbcfp+1},
                                           {0x1.bacb4ap+25, 0x1.1e0695p+4},
                                           {0x1.b121a6p+76, 0x1.a9a3f1p+5},
                                           {0x1.6351d8p+95, 0x1.08b511p+6}};
    for (int i = 0; i < 5; i++) CHECK(FAST || ttmm_log(log_missed[i][0]) == log_missed[i][1]);
    CHECK(FAST || ttmm_sin(0x1.33333p+13) == -0x1.63f4bbp-2);
    CHECK(FAST || ttmm_sin(-0x1.33333p+13) == 0x1.63f4bbp-2);
}

/* Zeros with their sign, infinities, NaN, thresholds, arguments so small that the result is trivial. */
static void special_values(void)
{
    static const struct {
        int f;
        double x, y;
    } v[] = {
        {EXP, 0.0, 1},
        {EXP, -0.0, 1},
        {EXP, 0x1p-1074, 1},
        {EXP, -0x1p-1074, 1},
        {EXP, INFINITY, INFINITY},
        {EXP, DBL_MAX, INFINITY},
        {EXP, 0x1.62e42fefa39fp+9, INFINITY}, /* the first that overflows; of the last that does not: */
        {EXP, 0x1.62e42fefa39efp+9, 0x1.fffffffffff2ap+1023},
        {EXP, -0x1.74910d52d3051p+9, 0x1p-1074}, /* the last above 2^-1075, half the smallest double */
        {EXP, -0x1.74910d52d3052p+9, 0},
        {EXP, -DBL_MAX, 0},
        {EXP, -INFINITY, 0},
        {EXP, NAN, NAN},
        {LOG, 1, 0.0},
        {LOG, 0.0, -INFINITY},
        {LOG, -0.0, -INFINITY},
        {LOG, 0x1p-1074, -0x1.74385446d71c3p+9},
        {LOG, DBL_MAX, 0x1.62e42fefa39efp+9},
        {LOG, INFINITY, INFINITY},
        {LOG, -0x1p-1074, NAN},
        {LOG, -1, NAN},
        {LOG, -INFINITY, NAN},
        {LOG, NAN, NAN},
        {SIN, 0.0, 0.0},
        {SIN, -0.0, -0.0},
        {SIN, 0x1p-1074, 0x1p-1074},
        {SIN, -0x1p-1074, -0x1p-1074},
        {SIN, -0x1.8p-1030, -0x1.8p-1030},
        {SIN, 0x1p22, 0x1.f34428f9492a2p-1},
        {SIN, -0x1p22, -0x1.f34428f9492a2p-1},
        {SIN, 0x1.0000000000001p22, NAN},
        {SIN, -0x1.0000000000001p22, NAN},
        {SIN, INFINITY, NAN},
        {SIN, -INFINITY, NAN},
        {SIN, NAN, NAN},
        {COS, 0.0, 1},
        {COS, -0.0, 1},
        {COS, 0x1p-1074, 1},
        {COS, -0x1p-1074, 1},
        {COS, 0x1p22, 0x1.c5e944c25ddfcp-3},
        {COS, -0x1p22, 0x1.c5e944c25ddfcp-3},
        {COS, 0x1.0000000000001p22, NAN},
        {COS, -0x1.0000000000001p22, NAN},
        {COS, INFINITY, NAN},
        {COS, -INFINITY, NAN},
        {COS, NAN, NAN},
        {ERF, 0.0, 0.0},
        {ERF, -0.0, -0.0},
        {ERF, 0x1p-1074, 0x1p-1074},
        {ERF, -0x1p-1074, -0x1p-1074},
        {ERF, 6, 1},
        {ERF, -DBL_MAX, -1},
        {ERF, INFINITY, 1},
        {ERF, -INFINITY, -1},
        {ERF, NAN, NAN},
    };
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        const double y = function[v[i].f].f(v[i].x);
        char what[60], e[40], found[40];
        if (isnan(v[i].y) ? isnan(y) : to_bits(y) == to_bits(v[i].y)) {
            passed++;
            continue;
        }
        snprintf(what, sizeof what, "%s(%a)", function[v[i].f].name, v[i].x);
        snprintf(e, sizeof e, "%a", v[i].y), snprintf(found, sizeof found, "%a", y);
        test_failed(__FILE__, __LINE__, what, e, found);
    }
}

/* The same at the thresholds of float, and what the layers call in the precision of the build. */
static void special_reals(void)
{
    CHECK((float)ttmm_exp(0x1.62e42ep+6) == 0x1.ffff08p+127f && (float)ttmm_exp(0x1.62e43p+6) == INFINITY);
    CHECK((float)ttmm_exp(-0x1.9fe368p+6) == 0x1p-149f && (float)ttmm_exp(-0x1.9fe36ap+6) == 0);
    CHECK(exp_real(0) == 1 && exp_real(-INFINITY) == 0 && exp_real(INFINITY) == INFINITY && isnan(exp_real(NAN)));
    for (int i = -1000; i <= 1000; i++) {
        const real x = (real)i / 8;
        CHECK(FAST || exp_real(x) == (real)ttmm_exp((double)x));
    }
}

/* sin and erf are odd, cos even, to the bit; sin_cos gives both. Small steps go the right way where exp passes an odd
 * multiple of ln(2)/2 or a threshold, log a power of 2 or sqrt(1/2) times one, sin and cos an odd multiple of pi/4,
 * erf 1. */
static void symmetry_and_order(void)
{
    ttmm_rng g = ttmm_stream(1, "functions", 1);
    for (int i = 0; i < 20000; i++) {
        double s, c;
        const double x = from_bits(ttmm_below(&g, to_bits(0x1p22)));
        sin_cos(&s, &c, x);
        CHECK(FAST || (ttmm_sin(x) == s && ttmm_cos(x) == c));
        CHECK(ttmm_sin(-x) == -ttmm_sin(x) && ttmm_cos(-x) == ttmm_cos(x) && ttmm_erf(-x) == -ttmm_erf(x));
    }
    for (int i = -200; i < 200; i++) {
        const double x = 1 + i * 1e-12, y = x + 1e-12, to_0 = -745 + i * 1e-2, to_infinity = 709.78 + i * 1e-4;
        CHECK(ttmm_exp(to_0 + 1e-2) >= ttmm_exp(to_0) && ttmm_exp(to_infinity + 1e-4) >= ttmm_exp(to_infinity));
        CHECK(ttmm_erf(y) > ttmm_erf(x));
        for (int k = -15; k <= 15; k++) {
            const double e = (2 * k + 1) * 0x1.62e42fefa39efp-2, a = (2 * k + 1) * 0x1.921fb54442d18p-1 + i * 1e-12;
            const double l = ldexp(k % 2 ? 0x1.6a09e667f3bcdp-1 : 1, 67 * k);
            CHECK((ttmm_exp(e * y) > ttmm_exp(e * x)) == (e > 0) && ttmm_log(l * y) > ttmm_log(l * x));
            CHECK((ttmm_sin(a) < ttmm_sin(a + 1e-12)) == (ttmm_cos(a) > 0));
            CHECK((ttmm_cos(a) > ttmm_cos(a + 1e-12)) == (ttmm_sin(a) > 0));
        }
    }
}

int main(void)
{
    RUN(against_mpmath), RUN(special_values), RUN(special_reals), RUN(misses), RUN(symmetry_and_order);
    RUN(against_long_double), RUN(floats);
    if ((int)WIDE < (int)FUNCTIONS) printf("functions: against long double only the first %d of the five\n", WIDE);
    for (int f = 0; f < FUNCTIONS; f++)
        printf("%s: largest error %.4f ulp, at %a\n", function[f].name, function[f].largest, function[f].at);
    return test_end("functions");
}
