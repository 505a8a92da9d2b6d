/* twice.c - a host that has the library twice, in float and in double. Most names are the same in both, so two parts
 * are made, each a caller with its library, that show one name only; parts that show all do not link:
 *
 *     cc -DPART=in_float -c twice.c -o part.o
 *     cc -r -nostdlib part.o ttmm-f32.o -o float.o; objcopy -G in_float float.o
 *     the same with in_double, -DTTMM_DOUBLE; cc twice.c float.o double.o -lm */
#ifdef PART
#include "../../ttmm.h"
enum { T = 64, V = 257 };

double PART(int *bytes);
double PART(int *bytes) /* the loss of a model that the seed makes; *bytes: of a number */
{
    const ttmm_config c = {64, 2, 4, 2, 16, 96, V, T, 1, 1e-5, 1e4, 0, 0, 0, 0, 0, 0, 0, {0}, 0, 0};
    const ttmm_pass_size size = {T, 1, 0, T, 0, 0, 0, 0};
    int token[T];
    double loss = -1;
    ttmm_error err;
    ttmm_model m;
    ttmm_pass *p = NULL;
    for (int t = 0; t < T; t++) token[t] = 7 * t % V;
    *bytes = (int)sizeof(ttmm_real);
    if (ttmm_model_new(&m, &c, &err) != TTMM_OK) return loss;
    ttmm_model_init(&m, 1);
    if (ttmm_pass_new(&p, &c, &size, &err) == TTMM_OK) loss = ttmm_score(p, &m, NULL, token, T, 1) / (T - 1);
    ttmm_pass_free(p);
    ttmm_model_free(&m);
    return loss;
}
#else
#include <math.h>
#include <stdio.h>
double in_float(int *bytes), in_double(int *bytes);

int main(void)
{
    int four, eight;
    const double a = in_float(&four), b = in_double(&eight);
    if (four == 4 && eight == 8 && a > 0 && a != b && fabs(a - b) < 1e-5 * b) return 0;
    return fprintf(stderr, "twice.c: %d bytes: %.17g, %d bytes: %.17g\n", four, a, eight, b), 1;
}
#endif
