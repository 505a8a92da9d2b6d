/* threads.c - a host with four threads that share a model and an adapter, which nobody writes: each has a pass of its
 * own and gets the bits that one thread alone gets. Each has its own number of OpenMP threads, too. Prints a
 * fingerprint of the logits, which all hosts here have in common. */
#include "../../ttmm.h"
#include <inttypes.h>
#include <pthread.h>

enum { T = 64, V = 257 };
static const ttmm_config config = {64, 2, 4, 2, 16, 96, V, T, 1, 1e-5, 1e4, 0, 0, 0, 0, 0, 0, 0, {0}, 0, 0};
static ttmm_model model;
static ttmm_lora lora;
static uint64_t alone; /* the fingerprint of one thread */
static int failures;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t logits(int threads, const ttmm_mix *mix, ttmm_error *err)
{
    const ttmm_pass_size size = {T, 1, 0, T, 0, 4, 0, 0};
    const size_t start[] = {0, T};
    int token[T];
    ttmm_pass *p;
    for (int t = 0; t < T; t++) token[t] = 7 * t % V;
    ttmm_set_threads(threads);
    if (ttmm_pass_new(&p, &config, &size, err) != TTMM_OK) return 0;
    const int code = ttmm_forward(p, &model, mix, token, start, 1);
    const uint64_t hash = code == TTMM_OK ? ttmm_hash(ttmm_logits(p, &model, 0, T), T * V) : 0;
    ttmm_pass_free(p);
    return hash;
}

static void *work(void *number)
{
    const ttmm_lora *shared = &lora;
    const ttmm_real weight = 1;
    const ttmm_mix mix = {1, &shared, &weight};
    const int own = 1 + *(int *)number % 3;
    ttmm_error err;
    for (int i = 0; i < 20; i++) { /* B of the adapter is zero: with it, the same numbers */
        const uint64_t hash = logits(own, i % 2 ? &mix : NULL, &err);
        pthread_mutex_lock(&lock);
        failures += hash != alone || hash == 0;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

int main(void)
{
    pthread_t thread[4];
    int number[4];
    ttmm_error err;
    if (ttmm_model_new(&model, &config, &err) || ttmm_lora_new(&lora, &config, 4, 8, &err)) return 1;
    ttmm_model_init(&model, 1), ttmm_lora_init(&lora, 1, 0);
    alone = logits(1, NULL, &err);
    for (int i = 0; i < 4; i++)
        if (number[i] = i, pthread_create(&thread[i], NULL, work, &number[i]) != 0) return 1;
    for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
    return printf("%016" PRIx64 "\n", alone), failures != 0;
}
