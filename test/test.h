/* test.h - what a test file needs: a check that fails says file, line, what was expected and what was found; main
 * prints "N passed, N failed" and returns 1 if any failed. A test file includes ttmm.c itself, so that it reaches the
 * functions that are local to it. */
#ifndef TEST_H
#define TEST_H
#include "../ttmm.c"

#include <dirent.h>

static long passed, failed;
static const char *test_name = "";

/* Everything is compared as long double or text, so that one line serves all types. NaN never passes. */
#define CHECK(condition) ((condition) ? (void)passed++ : test_failed(__FILE__, __LINE__, #condition, "true", "false"))
#define CHECK_EQUAL(found, expected) test_near(__FILE__, __LINE__, #found, (double)(found), (double)(expected), 0)
#define CHECK_NEAR(found, expected, tolerance) \
    test_near(__FILE__, __LINE__, #found, (double)(found), (double)(expected), (double)(tolerance))
/* |found - expected| <= tolerance * max(|expected|, floor) */
#define CHECK_RELATIVE(found, expected, tolerance, floor)                      \
    test_near(__FILE__, __LINE__, #found, (double)(found), (double)(expected), \
              (double)(tolerance) *                                            \
                  (fabs((double)(expected)) > (double)(floor) ? fabs((double)(expected)) : (double)(floor)))
#define CHECK_TEXT(found, expected) test_text(__FILE__, __LINE__, #found, found, expected)
#define RUN(test) (test_name = #test, test())

static void test_failed(const char *file, int line, const char *what, const char *expected, const char *found)
{
    if (++failed <= 20) printf("%s:%d: %s: %s: expected %s, found %s\n", file, line, test_name, what, expected, found);
}

static inline void test_near(const char *file, int line, const char *what, double found, double expected,
                             double tolerance)
{
    char e[64], f[64];
    if (fabs(found - expected) <= tolerance || found == expected) {
        passed++;
        return;
    }
    snprintf(e, sizeof e, "%.17g within %.3g", expected, tolerance);
    snprintf(f, sizeof f, "%.17g", found);
    test_failed(file, line, what, e, f);
}

static inline void test_text(const char *file, int line, const char *what, const char *found, const char *expected)
{
    if (strstr(found, expected)) passed++; /* expected: a part of what is found */
    else test_failed(file, line, what, expected, found);
}

/* A call must give this code, and if it is an error a sentence in err that holds both parts. 1 if the code is right. */
#define GIVES(what, call, expected, part, other) \
    (err.code = 1, err.text[0] = 0, test_code(__FILE__, __LINE__, what, call, &err, expected, part, other))
#define REFUSED(call, part, other) GIVES(#call, call, TTMM_BAD_INPUT, part, other)
#define DONE(call) GIVES(#call, call, TTMM_OK, "", "")

static inline int test_code(const char *file, int line, const char *what, int found, const ttmm_error *error, int code,
                            const char *part, const char *other)
{
    char e[300], f[700];
    const int said = error->code == code && error->text[0] && strstr(error->text, part) && strstr(error->text, other);
    snprintf(e, sizeof e, "code %d, a sentence with '%.100s' and '%.100s'", code, part, other);
    snprintf(f, sizeof f, "code %d (%d in the error), '%s'", found, error->code, error->text);
    if (found == code && (said || code >= 0)) passed++;
    else test_failed(file, line, what, e, f);
    return found == code;
}

static inline int test_end(const char *file)
{
    printf("%s (%s): %ld passed, %ld failed\n", file, sizeof(real) == 8 ? "double" : "float", passed, failed);
    return failed != 0;
}

/* The folder and all that is in it is gone. Without a shell, which not every system has. */
static inline void test_clear(const char *folder)
{
    char path[PATH_BYTES];
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "%.3000s/%.1000s", folder, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && !ttmm_remove(NULL, path)) test_clear(path);
    }
    if (d) closedir(d);
    CHECK(d == NULL || ttmm_remove(NULL, folder));
}

static inline int test_little_endian(void)
{
    const uint16_t one = 1;
    return *(const unsigned char *)&one == 1;
}

static inline int test_can_map(void) /* little-endian files, by a system that maps */
{
#ifdef __wasi__
    return 0;
#else
    return test_little_endian();
#endif
}

/* Numbers for tests: uniform in (-1, 1), from a stream of their own. */
static inline void test_fill(real *x, size_t n, const char *purpose, uint64_t index)
{
    ttmm_rng g = ttmm_stream(1234, purpose, index);
    for (size_t i = 0; i < n; i++) x[i] = (real)(2 * ttmm_uniform(&g) - 1);
}
#endif
