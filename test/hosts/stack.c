/* stack.c - how deep calls go, on threads whose stack was painted before: ttmm.h promises 64 KiB, which here have to do
 * for the C library's part of a thread, too (glibc: 2 to 3 KiB). Argument: a folder to write to. */
#define _XOPEN_SOURCE 600
#include "../../ttmm.h"
#include <pthread.h>
#include <string.h>

enum { STACK = 256 << 10, T = 40, V = 257 };
static union {
    unsigned char byte[STACK];
} stack __attribute__((aligned(1 << 14))); /* macOS wants whole pages */
static const ttmm_config config = {96, 2, 4, 2, 24, 172, V, 64, 1, 1e-5, 1e4, 0, 0, 0, 0, 0, 0, 0, {0}, 0, 0};
static const int token[T];
static ttmm_model model;
static ttmm_error err;
static int code;

static int take(void *context, int next) { return (void)context, next < 0; }
static void report(void *context, const ttmm_difference *d) { (void)context, (void)d; }

static void train(const char *folder)
{
    const size_t ends[] = {0, 20, T};
    const ttmm_recipe recipe = {{0.01, 0, 1, 0}, 0.9, 0.999, 1e-8, 0, 1, 2, 0, 1};
    ttmm_corpus c;
    ttmm_trainer *t = NULL;
    double loss;
    code = ttmm_corpus_view(&c, token, ends, 2, NULL, 0, NULL, &err);
    if (code == TTMM_OK) code = ttmm_trainer_new(&t, &model, NULL, &c, &recipe, &err);
    if (code == TTMM_OK) ttmm_trainer_start(t, NULL, 0, 1, 0, 0), ttmm_trainer_step(t, &loss);
    ttmm_trainer_free(t);
    if (code == TTMM_OK) code = ttmm_model_write(&model, folder, TTMM_REAL, "", &err);
}

static void decode(const char *folder)
{
    const ttmm_decoding d = {.tokens = 4, .sampler = {1, 0.9, 0}, .token = take};
    size_t n;
    (void)folder;
    code = ttmm_decode(&n, &model, NULL, TTMM_DENSE, token, T, &d, &err);
}

static void read_and_compare(const char *folder)
{
    char file[200];
    size_t failures;
    ttmm_model m = {0};
    ttmm_tokenizer *tokenizer = NULL;
    snprintf(file, sizeof file, "%s/model.safetensors", folder);
    code = ttmm_model_open(&m, folder, &err);
    if (code == TTMM_OK) code = ttmm_tokenizer_read(&tokenizer, folder, &err);
    if (code == TTMM_OK) code = ttmm_compare(file, file, 0, 0, 1, report, NULL, &failures, &err);
    ttmm_model_free(&m), ttmm_tokenizer_free(tokenizer);
}

static void (*const work[])(const char *) = {train, decode, read_and_compare};
static int now;
static void *run(void *folder) { return ttmm_set_threads(1), work[now](folder), NULL; }

int main(int argc, char **argv)
{
    size_t deepest = 0;
    if (argc < 2 || ttmm_model_new(&model, &config, &err)) return 2;
    ttmm_model_init(&model, 1);
    for (now = 0; now < 3; now++) {
        pthread_attr_t attributes;
        pthread_t thread;
        size_t untouched = 0;
        memset(stack.byte, 0x5a, STACK);
        pthread_attr_init(&attributes);
        if (pthread_attr_setstack(&attributes, stack.byte, STACK) != 0) return 2;
        if (pthread_create(&thread, &attributes, run, argv[1]) != 0 || pthread_join(thread, NULL) != 0) return 2;
        if (code) return fprintf(stderr, "%s\n", err.text), 1;
        while (stack.byte[untouched] == 0x5a) untouched++;
        if (STACK - untouched > deepest) deepest = STACK - untouched;
        fprintf(stderr, "%d: %zu bytes of stack\n", now, STACK - untouched);
    }
    return deepest > 64 << 10;
}
