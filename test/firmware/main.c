/* main.c - a firmware that answers a prompt: it routes it to the experts, puts them beside the weights and decodes over
 * a serial line; then one step of test-time training. Model, experts, centroids and idf are an image in flash (run
 * export), never copied; what is computed is printed so that it can be compared with a host's, bit by bit. test/firmware.sh
 * builds it for several boards, and for the host, where a board is the four functions below. */
#include BOARD
#include IMAGE
#include "../../ttmm.h"

#include <string.h>

enum { POSITIONS = 64, ANSWER = 40, RANK = 4, TTT_RANK = 2 };
static const char prompt[] = "for (int i";
static uint64_t heap[HEAP / 8]; /* all the memory there is but the stack */
static size_t used;
static ttmm_image image;
static ttmm_error err;

static void put_text(const char *text)
{
    while (*text) board_put(*text++);
}

static void put_hex(uint32_t x)
{
    for (int shift = 28; shift >= 0; shift -= 4) board_put("0123456789abcdef"[x >> shift & 15]);
}

static void put_line(const char *name, uint32_t x)
{
    put_text(name), put_hex(x), board_put('\n');
}

static void must(int code)
{
    if (code == TTMM_OK) return;
    put_line("failed ", (uint32_t)-code);
    board_end();
}

static void *take(size_t bytes)
{
    void *p = (char *)heap + used;
    used += (bytes + 7) / 8 * 8;
    if (bytes == 0 || used > sizeof heap) must(TTMM_NO_ROOM);
    return p;
}

static uint32_t hash(uint32_t h, const void *data, size_t words) /* FNV-1a of 32-bit numbers */
{
    const uint32_t *w = data;
    for (size_t i = 0; i < words; i++) h = (h ^ w[i]) * 16777619u;
    return h;
}

static const ttmm_lora *load(void *context, size_t k, ttmm_error *e)
{
    (void)context, (void)e;
    return &image.lora[k];
}

/* Greedy, one token at a time: a pass of one token is the smallest. */
static void decode(const ttmm_mix *mix, const int *token, size_t T)
{
    const ttmm_config *c = &image.model.config;
    const ttmm_pass_size size = {.tokens = 1, .sequences = 1, .cache = POSITIONS, .logits = 1, .rank = RANK};
    ttmm_pass *pass;
    uint32_t sum = 2166136261u;
    const size_t bytes = ttmm_pass_bytes(c, &size);
    must(ttmm_pass_place(&pass, c, &size, take(bytes), bytes, &err));
    const ttmm_real *logits = ttmm_feed(pass, &image.model, mix, token, T);
    const uint32_t began = board_instructions();
    put_text("text ");
    for (size_t n = 0; n < ANSWER && logits; n++) {
        const int next = (int)ttmm_argmax(logits, (size_t)c->vocab);
        sum = hash(sum, logits, (size_t)c->vocab);
        board_put(next >= 32 && next < 127 ? (char)next : '.');
        logits = ttmm_feed(pass, &image.model, mix, &next, 1);
    }
    put_line("\nlogits ", sum);
    put_line("# instructions a token ", (board_instructions() - began) / ANSWER);
}

static void answer(const int *token, size_t T)
{
    ttmm_mixture x = {.base = &image.model, .K = image.K, .E = image.E, .centroid = image.centroid, .idf = image.idf};
    /* a wide kernel: all three take part */
    x.prefix = 50, x.router = (ttmm_router){.beta = 0.4, .tau = 0.01, .max = 50}, x.load = load;
    const size_t bytes = ttmm_mixture_bytes(x.K, x.E);
    must(ttmm_mixture_place(&x, take(bytes), bytes, &err));
    must(ttmm_choose(&x, token, T, NULL, &err));
    for (size_t i = 0; i < x.mix.n; i++)
        put_line("expert ", (uint32_t)x.expert[i]), put_line("weight ", hash(0, &x.weight[i], 1));
    decode(&x.mix, token, T);
}

/* A step of a fresh adapter on the prompt itself, as its one neighbour. */
static void train(const int *token, size_t T)
{
    const ttmm_config *c = &image.model.config;
    const ttmm_recipe recipe = {{8e-3, 0, 1, 0}, 0.9, 0.999, 1e-8, 0, 1, 1, 0, 1};
    const size_t start[2] = {0, T};
    ttmm_corpus text;
    ttmm_lora lora;
    ttmm_trainer *trainer;
    double loss;
    must(ttmm_corpus_view(&text, token, start, 1, NULL, 0, NULL, &err));
    size_t bytes = ttmm_lora_bytes(c, TTT_RANK);
    must(ttmm_lora_place(&lora, c, TTT_RANK, 4, take(bytes), bytes, &err));
    bytes = ttmm_trainer_bytes(c, &lora, &text, &recipe);
    must(ttmm_trainer_place(&trainer, &image.model, &lora, &text, &recipe, take(bytes), bytes, &err));
    ttmm_lora_init(&lora, 1, 0);
    ttmm_trainer_start(trainer, NULL, 0, 1, 0, 0);
    ttmm_trainer_step(trainer, &loss);
    put_line("trained ", hash(2166136261u, lora.data, lora.n));
}

int main(void)
{
    int token[sizeof prompt - 1];
    const size_t T = sizeof token / sizeof *token, bytes = ttmm_image_bytes(ttmm_flash, sizeof ttmm_flash);
    for (size_t t = 0; t < T; t++) token[t] = (unsigned char)prompt[t];
    must(ttmm_image_view(&image, ttmm_flash, sizeof ttmm_flash, take(bytes), bytes, &err));
    const size_t kept = used;
    answer(token, T);
    put_line("# heap ", (uint32_t)used);
    put_line("# stack ", board_stack());
    used = kept; /* routing and decoding are over */
    if (TRAINS) {
        train(token, T);
        put_line("# heap of training ", (uint32_t)used);
        put_line("# stack of training ", board_stack());
    }
    board_end();
    return 0;
}
