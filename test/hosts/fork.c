/* fork.c - a host that forks after a pass. gcc's OpenMP waits in the child for threads that only the parent has, for
 * ever; so the child calls ttmm_set_threads(1) before anything else here. Its bits are the parent's, and the parent
 * goes on with its threads. Prints the fingerprint of the logits (threads.c). */
#define _POSIX_C_SOURCE 200809L
#include "../../ttmm.h"
#include <inttypes.h>
#include <sys/wait.h>
#include <unistd.h>

enum { T = 64, V = 257 };
static const ttmm_config config = {64, 2, 4, 2, 16, 96, V, T, 1, 1e-5, 1e4, 0, 0, 0, 0, 0, 0, 0, {0}, 0, 0};
static ttmm_model model;

static uint64_t logits(void)
{
    const ttmm_pass_size size = {T, 1, 0, T, 0, 0, 0, 0};
    const size_t start[] = {0, T};
    int token[T];
    ttmm_error err;
    ttmm_pass *p;
    for (int t = 0; t < T; t++) token[t] = 7 * t % V;
    if (ttmm_pass_new(&p, &config, &size, &err) != TTMM_OK) return 0;
    const int code = ttmm_forward(p, &model, NULL, token, start, 1);
    const uint64_t hash = code == TTMM_OK ? ttmm_hash(ttmm_logits(p, &model, 0, T), T * V) : 0;
    ttmm_pass_free(p);
    return hash;
}

int main(int argc, char **argv)
{
    uint64_t hash = 0;
    ttmm_error err;
    int status;
    (void)argv;
    if (ttmm_model_new(&model, &config, &err) != TTMM_OK) return 1;
    ttmm_model_init(&model, 1);
    ttmm_set_threads(2);
    hash = logits();
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);                          /* instead of for ever */
        if (argc == 1) ttmm_set_threads(1); /* with an argument: what happens without it */
        _exit(logits() != hash);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0) return 1;
    return printf("%016" PRIx64 "\n", hash), hash == 0 || logits() != hash;
}
