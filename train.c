/* train.c - the training side of ttmm: pre-train a base model, index and cluster the text, train the experts and the
 * fine-tuned baseline. It parses arguments, shows progress and keeps the stages in order; the mathematics is in ttmm.c.
 *
 * Every stage ends with writing its result into the model's folder, at once, with the settings it used as a note. So a
 * stage whose result is there with the same settings is done, one with other settings is refused, and a run that was
 * interrupted goes on from its checkpoint to the same bits. */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "ttmm.h"

/* clang-format off */
static struct {
    int dim, layers, heads, kv_heads, head_dim, intermediate, context, untied;
    long steps;
    size_t batch, experts, expert_batch;
    int rank, epochs;
    double lr, warmup, alpha, expert_lr;
    const char *only, *embeddings, *tsv;
    int seed, threads, quiet;
} option = {.dim = 96, .layers = 3, .heads = 3, .intermediate = 256, .context = 256, .batch = 8, .lr = 3e-3,
            .warmup = 0.05, .rank = 8, .epochs = 5, .expert_batch = 2, .expert_lr = 1e-2, .seed = 1};
/* clang-format on */

#define EVERY " base index cluster experts finetune all "
#define LORA " experts finetune all "
static const ttmm_option options[] = {
    {"dim", 'i', &option.dim, 1, 65536, " base all ", "width of the model (96)"},
    {"layers", 'i', &option.layers, 1, 1024, " base all ", "layers (3)"},
    {"heads", 'i', &option.heads, 1, 1024, " base all ", "query heads (3)"},
    {"kv-heads", 'i', &option.kv_heads, 1, 1024, " base all ", "key/value heads (as heads)"},
    {"head-dim", 'i', &option.head_dim, 1, 4096, " base all ", "width of a head (dim / heads)"},
    {"intermediate", 'i', &option.intermediate, 1, 1 << 20, " base all ", "width of the MLP (256)"},
    {"context", 'i', &option.context, 2, 1 << 20, " base index all ", "longest sequence, in tokens (256)"},
    {"untied", 'b', &option.untied, 0, 1, " base all ", "a head of its own instead of the embedding matrix"},
    {"steps", 'l', &option.steps, 1, 1e9, " base all ", "pre-training steps (as many as 4 passes over the text)"},
    {"batch", 'n', &option.batch, 1, 65536, " base all ", "sequences a step (8)"},
    {"lr", 'f', &option.lr, 0, 10, " base all ", "peak learning rate (0.003)"},
    {"warmup", 'f', &option.warmup, 0, 1, " base all ", "fraction of the steps to warm up (0.05)"},
    {"embeddings", 's', &option.embeddings, 0, 0, " index all ",
     "take the embeddings [sequences, D] from a safetensors file"},
    {"experts", 'n', &option.experts, 1, 1e6, " cluster all ",
     "number of clusters and experts (sequences / 20, at most 100)"},
    {"rank", 'i', &option.rank, 1, 4096, LORA, "rank of the adapters (8)"},
    {"alpha", 'f', &option.alpha, 1e-6, 1e6, LORA, "LoRA's alpha (2 rank)"},
    {"epochs", 'i', &option.epochs, 1, 10000, LORA, "passes over an expert's sequences (5)"},
    {"expert-lr", 'f', &option.expert_lr, 0, 10, LORA, "peak learning rate of the adapters (0.01)"},
    {"expert-batch", 'n', &option.expert_batch, 1, 65536, LORA, "sequences a step (2)"},
    {"only", 's', &option.only, 0, 0, " experts ", "train expert A or experts A-B only"},
    {"seed", 'i', &option.seed, 0, 2147483647, EVERY, "of all random numbers (1)"},
    {"threads", 'i', &option.threads, 1, 1024, EVERY,
     "threads (all processors, and no more); the results do not depend on it"},
    {"tsv", 's', &option.tsv, 0, 0, EVERY, "write the summary to a file, tab-separated"},
    {"quiet", 'b', &option.quiet, 0, 1, EVERY, "errors only"},
};
enum { MANY = 1 << 30 };
static const ttmm_verb verbs[] = {
    {"base", "MODEL FILE...", "pre-train a base model on text files", 2, MANY},
    {"index", "MODEL FILE...", "cut text files into sequences and embed them", 2, MANY},
    {"cluster", "MODEL", "bisecting k-means on the embeddings", 1, 1},
    {"experts", "MODEL", "train the LoRA expert of every cluster", 1, 1},
    {"finetune", "MODEL", "train the baseline: one LoRA on all the text", 1, 1},
    {"all", "MODEL FILE...", "all of these in order; what is done is skipped, what was interrupted goes on", 2, MANY},
};

static const ttmm_program program = {"train", verbs, sizeof verbs / sizeof *verbs, options,
                                     sizeof options / sizeof *options};

static ttmm_error err;
static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

/* ---- Progress ---------------------------------------------------------------------------------------------------- */

enum { SUMMARY = 16 };
static struct {
    const char *stage;
    double seconds, loss;
    size_t tokens;
    const char *what;
} summary[SUMMARY];
static size_t n_summary;

static void note_stage(const char *stage, double seconds, double loss, size_t tokens, const char *what)
{
    if (n_summary == SUMMARY) return;
    summary[n_summary].stage = stage, summary[n_summary].seconds = seconds, summary[n_summary].loss = loss;
    summary[n_summary].tokens = tokens, summary[n_summary++].what = what;
}

static void clear_line(void)
{
    if (!option.quiet && ttmm_is_terminal(stderr)) fprintf(stderr, "\r\033[K");
}

static int print_summary(void)
{
    double total = 0;
    FILE *f = option.tsv ? fopen(option.tsv, "w") : NULL;
    if (f) fprintf(f, "stage\tseconds\tloss\ttokens\n");
    for (size_t i = 0; i < n_summary; i++) {
        const char *stage = summary[i].stage;
        const double seconds = summary[i].seconds, loss = summary[i].loss, tokens = (double)summary[i].tokens;
        total += seconds;
        if (f) fprintf(f, "%s\t%.3f\t%.6f\t%.0f\n", stage, seconds, loss, tokens);
        if (option.quiet) continue;
        fprintf(stderr, "%-9s %7.1f s", stage, seconds);
        if (tokens > 0) fprintf(stderr, "  loss %.3f  %7.0f tok/s", loss, tokens / seconds);
        fprintf(stderr, "  %s\n", summary[i].what);
    }
    if (!option.quiet && n_summary > 1) fprintf(stderr, "%-9s %7.1f s\n", "total", total);
    const int bad = f && ferror(f);
    if (option.tsv && (f == NULL || fclose(f) != 0 || bad))
        return ttmm_fail(&err, TTMM_NO_ROOM, "%s: cannot be written", option.tsv);
    return TTMM_OK;
}

/* ---- Stages ------------------------------------------------------------------------------------------------------ */

/* What a stage left, by the note of its file: nothing, the same as this run would make, or something else. */
enum { ABSENT, SAME, OTHER };
static int found_before(char note[1024], const char *folder, const char *file, const char *settings)
{
    char path[4200];
    if (!ttmm_exists(folder, file)) return ABSENT;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    const int code = ttmm_note(note, 1024, path, &err);
    return code ? code : strcmp(note, settings) == 0 ? SAME : OTHER;
}

static int refuse_other(const char *folder, const char *file, const char *note, const char *settings)
{
    return ttmm_fail(&err, TTMM_BAD_INPUT, "%.200s/%s: was made with \"%.180s\", this run asks for \"%.180s\"", folder,
                     file, note, settings);
}

static int done_before(const char *stage)
{
    if (!option.quiet) fprintf(stderr, "%-9s done before\n", stage);
    return TTMM_OK;
}

static ttmm_recipe recipe_of(int adapter)
{
    const ttmm_schedule base = {option.lr, option.warmup, 0.05, 1}, lora = {option.expert_lr, 0.1, 0.05, 0};
    ttmm_recipe r = {.schedule = adapter ? lora : base, .beta1 = 0.9, .eps = 1e-8, .clip = 1, .shuffle = 1};
    r.beta2 = adapter ? 0.999 : 0.98, r.decay = adapter ? 0 : 0.05;
    r.batch = adapter ? option.expert_batch : option.batch, r.seed = (uint64_t)option.seed;
    return r;
}

/* The folder is made here, not before: another process, training other experts, removes it when it is empty. */
static int save_checkpoint(const ttmm_trainer *t, const char *path, const char *settings)
{
    char folder[4096];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    const int code = ttmm_make_folder(folder, &err);
    return code ? code : ttmm_trainer_save(t, path, settings, &err);
}

typedef struct { /* one run of a trainer, and the stage that it is part of */
    ttmm_trainer *trainer;
    char what[96], settings[512], checkpoint[4096];
    double done, all;    /* runs of the stage before this one, and in all */
    double began, shown; /* the stage's start; for progress() */
    double loss;         /* mean over the last tenth of the run's steps */
    size_t tokens;       /* that the stage has seen */
} job;

/* One line, rewritten on a terminal twice a second, printed at every tenth of the work elsewhere. fraction: of this
 * run; tokens: seen by it. */
static void progress(job *j, double fraction, double loss, size_t tokens)
{
    const double now = ttmm_seconds(), spent = now - j->began, done = (j->done + fraction) / j->all;
    const double left = spent * (1 - done) / done, rate = (double)(j->tokens + tokens) / (spent > 0 ? spent : 1);
    const int terminal = ttmm_is_terminal(stderr);
    if (option.quiet || (terminal && done < 1 && now - j->shown < 0.5)) return;
    if (!terminal && (int)(10 * done) == (int)j->shown) return;
    j->shown = terminal ? now : (int)(10 * done);
    fprintf(stderr, "%s%s %3.0f%%  loss %.3f  %.0f tok/s  %d:%02d left%s", terminal ? "\r\033[K" : "", j->what,
            100 * done, loss, rate, (int)left / 60, (int)left % 60, terminal ? "" : "\n");
    fflush(stderr);
}

/* Run a trainer to its end, from its checkpoint if there is one; a checkpoint every half minute and on interrupt. */
static int run_trainer(job *j)
{
    long steps, step, counted = 0;
    size_t seen, before;
    double loss = 0, sum = 0, saved = ttmm_seconds();
    int code = ttmm_trainer_load(j->trainer, j->checkpoint, j->settings, &err);
    if (code < 0) return code;
    signal(SIGINT, on_interrupt); /* other stages are short and write atomically: there the default will do */
    signal(SIGTERM, on_interrupt);
    step = ttmm_trainer_at(j->trainer, &steps, &before);
    if (code > 0 && !option.quiet) {
        clear_line();
        fprintf(stderr, "%s goes on from step %ld of %ld\n", j->what, step, steps);
    }
    while (ttmm_trainer_step(j->trainer, &loss)) {
        step = ttmm_trainer_at(j->trainer, &steps, &seen);
        if (!(loss - loss == 0))
            return ttmm_fail(&err, TTMM_BAD_INPUT, "%s: the loss is not finite at step %ld: try a lower learning rate",
                             j->what, step);
        if (step > steps - (steps + 9) / 10) sum += loss, counted++;
        progress(j, (double)step / (double)steps, loss, seen - before);
        const double now = ttmm_seconds();
        if ((interrupted && step < steps) || now - saved > 30) {
            if ((code = save_checkpoint(j->trainer, j->checkpoint, j->settings)) != TTMM_OK) return code;
            saved = now;
        }
        if (interrupted && step < steps) {
            clear_line();
            fprintf(stderr, "train: interrupted at step %ld of %ld of %s; the same command goes on from there\n", step,
                    steps, j->what);
            exit(130);
        }
    }
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    ttmm_trainer_at(j->trainer, &steps, &seen);
    j->tokens += seen - before;
    j->loss = counted ? sum / (double)counted : loss;
    return TTMM_OK;
}

static int checkpoint_path(job *j, const char *folder, const char *name)
{
    const int n = snprintf(j->checkpoint, sizeof j->checkpoint, "%s/checkpoint/%s.safetensors", folder, name);
    return n >= 0 && (size_t)n < sizeof j->checkpoint ? TTMM_OK
                                                      : ttmm_fail(&err, TTMM_BAD_INPUT, "the model's path is too long");
}

static void remove_checkpoint(const char *folder, const char *path)
{
    remove(path);
    ttmm_remove(folder, "checkpoint"); /* if nothing else is in it */
}

static int stage_base(const char *folder, const ttmm_corpus *text)
{
    char note[1024];
    job j = {.all = 1, .began = ttmm_seconds(), .what = "base"};
    const size_t n = text->n_sequences, batch = option.batch;
    const long steps = option.steps ? option.steps : (long)((4 * n + batch - 1) / batch);
    ttmm_config c = {.vocab = TTMM_BYTES, .tied = !option.untied, .norm_eps = 1e-5, .rope_theta = 10000};
    c.n_ends = 1, c.end[0] = TTMM_END;
    c.dim = option.dim, c.n_layers = option.layers, c.n_heads = option.heads, c.intermediate = option.intermediate;
    c.n_kv_heads = option.kv_heads ? option.kv_heads : option.heads;
    c.head_dim = option.head_dim ? option.head_dim : option.dim / option.heads, c.context = option.context;
    ttmm_recipe r = recipe_of(0);
    ttmm_model m;
    if (!option.head_dim && option.dim % option.heads)
        return ttmm_fail(&err, TTMM_BAD_USE, "--dim is not a multiple of --heads, and --head-dim is not given");
    snprintf(j.settings, sizeof j.settings,
             "base: dim %d layers %d heads %d kv-heads %d head-dim %d intermediate %d context %d tied %d steps %ld "
             "batch %zu lr %g warmup %g seed %d text %016" PRIx64 "%s",
             c.dim, c.n_layers, c.n_heads, c.n_kv_heads, c.head_dim, c.intermediate, c.context, c.tied, steps,
             option.batch, option.lr, option.warmup, option.seed, ttmm_corpus_hash(text, -1),
             sizeof(real) == 8 ? " f64" : "");
    if (ttmm_config_check(&c, &err) != TTMM_OK) return err.code = TTMM_BAD_USE;
    int code = found_before(note, folder, "model.safetensors", j.settings);
    if (code == SAME) return done_before("base");
    if (code == OTHER) code = refuse_other(folder, "model.safetensors", note, j.settings);
    if (code == TTMM_OK) code = checkpoint_path(&j, folder, "base");
    if (code == TTMM_OK) code = ttmm_model_new(&m, &c, &err);
    if (code) return code;
    ttmm_model_init(&m, (uint64_t)option.seed);
    code = ttmm_trainer_new(&j.trainer, &m, NULL, text, &r, &err);
    if (code == TTMM_OK) {
        if (!option.quiet)
            fprintf(stderr, "base: %zu parameters, %zu sequences of up to %d tokens, %ld steps of %zu\n", m.n, n,
                    c.context, steps, option.batch);
        ttmm_trainer_start(j.trainer, NULL, 0, steps, 0, 0);
        code = run_trainer(&j);
    }
    if (code == TTMM_OK) code = ttmm_model_write(&m, folder, TTMM_REAL, j.settings, &err);
    if (code == TTMM_OK) {
        remove_checkpoint(folder, j.checkpoint);
        clear_line();
        note_stage("base", ttmm_seconds() - j.began, j.loss, j.tokens, "the base model: model.safetensors");
    }
    ttmm_trainer_free(j.trainer);
    ttmm_model_free(&m);
    return code;
}

/* Experts belong to one base, text and clustering: while there are any, these stay as they are. */
static int refuse_if_experts(const char *folder, const char *stage)
{
    char path[4096], name[64];
    real *centroid;
    size_t K = 1, E;
    ttmm_error none;
    snprintf(path, sizeof path, "%s/centroids.safetensors", folder);
    if (ttmm_array_read(&centroid, &K, &E, path, "embeddings", &none) == TTMM_OK) free(centroid);
    int found = ttmm_exists(folder, "finetuned/adapter_model.safetensors");
    for (size_t k = 0; k < K && !found; k++) {
        snprintf(name, sizeof name, "experts/%zu/adapter_model.safetensors", k);
        found = ttmm_exists(folder, name);
    }
    return !found ? TTMM_OK
                  : ttmm_fail(&err, TTMM_BAD_INPUT,
                              "%.300s: holds experts of another %s: use another folder, or remove them", folder, stage);
}

static int stage_index(const char *folder, ttmm_corpus *text, const ttmm_tokenizer *tokenizer)
{
    char settings[512], note[1024], embeddings[32] = "built-in";
    const double began = ttmm_seconds();
    real *rows = NULL;
    size_t n = 0, dim = 0;
    int code = TTMM_OK;
    if (option.embeddings) {
        code = ttmm_array_read(&rows, &n, &dim, option.embeddings, "embeddings", &err);
        if (code == TTMM_OK && n != text->n_sequences)
            code = ttmm_fail(&err, TTMM_BAD_INPUT, "%s: has %zu embeddings, expected %zu: one a sequence",
                             option.embeddings, n, text->n_sequences);
        if (code == TTMM_OK) code = ttmm_corpus_set_embeddings(text, rows, dim, &err);
        free(rows);
        if (code) return code;
        snprintf(embeddings, sizeof embeddings, "%016" PRIx64, ttmm_hash(text->embedding, n * dim));
    }
    snprintf(settings, sizeof settings, "index: text %016" PRIx64 " files %zu embeddings %s%s",
             ttmm_corpus_hash(text, -1), text->n_files, embeddings, sizeof(real) == 8 ? " f64" : "");
    code = found_before(note, folder, "corpus.safetensors", settings);
    if (code == SAME) return done_before("index");
    if (code == OTHER) code = refuse_if_experts(folder, "text");
    if (code == TTMM_OK && !option.embeddings) code = ttmm_corpus_embed(text, tokenizer, &err);
    if (code) return code;
    ttmm_remove(folder, "centroids.safetensors"); /* of the text before */
    code = ttmm_corpus_write(text, folder, settings, &err);
    if (code == TTMM_OK) note_stage("index", ttmm_seconds() - began, 0, 0, "text and embeddings: corpus.safetensors");
    return code;
}

static void print_cluster_sizes(const ttmm_corpus *c, size_t K)
{
    size_t *size = calloc(K, sizeof *size), least = c->n_sequences, most = 0;
    for (size_t i = 0; size && i < c->n_sequences; i++) size[c->cluster[i]]++;
    for (size_t k = 0; size && k < K; k++)
        least = size[k] < least ? size[k] : least, most = size[k] > most ? size[k] : most;
    if (size) fprintf(stderr, "cluster: %zu sequences in %zu clusters of %zu to %zu\n", c->n_sequences, K, least, most);
    free(size);
}

/* Cluster c, whose file's note is `index`, into K, and write clusters and centroids. */
static int cluster_corpus(const char *folder, ttmm_corpus *c, size_t K, const char *index, const char *settings)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/centroids.safetensors", folder);
    real *centroid = calloc(K * c->dim, sizeof *centroid);
    if (centroid == NULL) return ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for the centroids");
    int code = ttmm_cluster(c->cluster, centroid, c->embedding, c->n_sequences, c->dim, K, (uint64_t)option.seed, &err);
    if (code == TTMM_OK) {
        const ttmm_array a = {"embeddings", K, c->dim, centroid, NULL};
        c->clustered = 1;
        ttmm_remove(folder, "centroids.safetensors"); /* so that new clusters never stand beside old centroids */
        code = ttmm_corpus_write(c, folder, index, &err);
        if (code == TTMM_OK) code = ttmm_arrays_write(&a, 1, path, settings, &err);
    }
    free(centroid);
    return code;
}

static int stage_cluster(const char *folder, int vocab)
{
    char settings[512], index[1024], note[1024];
    const double began = ttmm_seconds();
    ttmm_corpus c;
    int code = ttmm_corpus_read(&c, folder, vocab, &err);
    if (code == TTMM_OK) code = found_before(index, folder, "corpus.safetensors", "");
    if (code < 0) {
        ttmm_corpus_free(&c);
        return code;
    }
    const size_t K = option.experts         ? option.experts
                     : c.n_sequences < 40   ? 1
                     : c.n_sequences < 2000 ? c.n_sequences / 20
                                            : 100;
    snprintf(settings, sizeof settings, "cluster: experts %zu seed %d of %.300s", K, option.seed, index);
    code = found_before(note, folder, "centroids.safetensors", settings);
    const int done = code == SAME && c.clustered;
    if (done) code = done_before("cluster");
    else if (code > 0) code = refuse_if_experts(folder, "clustering");
    if (code == TTMM_OK && c.dim == 0)
        code = ttmm_fail(&err, TTMM_BAD_INPUT, "the corpus has no embeddings: run train index");
    if (code == TTMM_OK && K > c.n_sequences)
        code = ttmm_fail(&err, TTMM_BAD_INPUT, "--experts is %zu, expected at most %zu, the number of sequences", K,
                         c.n_sequences);
    if (code == TTMM_OK && !done) {
        code = cluster_corpus(folder, &c, K, index, settings);
        if (code == TTMM_OK && !option.quiet) print_cluster_sizes(&c, K);
        if (code == TTMM_OK)
            note_stage("cluster", ttmm_seconds() - began, 0, 0, "clusters and centroids: centroids.safetensors");
    }
    ttmm_corpus_free(&c);
    return code;
}

static int parse_only(size_t K, size_t *from, size_t *to)
{
    char *end;
    *from = 0, *to = K - 1;
    if (option.only == NULL) return TTMM_OK;
    long a = strtol(option.only, &end, 10), b = a;
    int good = end != option.only && option.only[0] != '-';
    if (good && *end == '-') {
        const char *second = end + 1;
        b = strtol(second, &end, 10);
        good = end != second;
    }
    if (!good || *end || a < 0 || b < a || (size_t)b >= K)
        return ttmm_fail(&err, TTMM_BAD_USE, "--only is %.100s, expected A or A-B within 0-%zu", option.only, K - 1);
    *from = (size_t)a, *to = (size_t)b;
    return TTMM_OK;
}

/* Adapters: those of the clusters from .. to, or (whole) one on all the text. One trainer serves them all. */
static int stage_adapters(const char *folder, int whole)
{
    char note[1024], name[64], adapter[4096];
    const char *const file = "adapter_model.safetensors";
    job j = {.began = ttmm_seconds()};
    double losses = 0;
    size_t K = 1, from = 0, to = 0, trained = 0, before = 0;
    uint64_t base = 0;
    ttmm_model m = {0};
    ttmm_corpus c = {0};
    ttmm_lora l = {0};
    ttmm_recipe r = recipe_of(1);
    const double alpha = option.alpha > 0 ? option.alpha : 2 * option.rank;
    size_t *member = NULL;
    int code = ttmm_model_read(&m, folder, &err);
    if (code == TTMM_OK) code = ttmm_corpus_read(&c, folder, m.config.vocab, &err);
    if (code == TTMM_OK && ttmm_longest_sequence(&c) > (size_t)m.config.context)
        code = ttmm_fail(&err, TTMM_BAD_INPUT,
                         "%s: has sequences of %zu tokens, the base takes %d: train index --context %d", folder,
                         ttmm_longest_sequence(&c), m.config.context, m.config.context);
    if (code == TTMM_OK && !whole && !c.clustered)
        code = ttmm_fail(&err, TTMM_BAD_INPUT, "the corpus has no clusters: run train cluster");
    for (size_t i = 0; code == TTMM_OK && !whole && i < c.n_sequences; i++)
        if ((size_t)c.cluster[i] + 1 > K) K = (size_t)c.cluster[i] + 1;
    if (code == TTMM_OK && !whole) code = parse_only(K, &from, &to);
    if (code == TTMM_OK) code = ttmm_lora_new(&l, &m.config, option.rank, alpha, &err);
    if (code == TTMM_OK) code = ttmm_trainer_new(&j.trainer, &m, &l, &c, &r, &err);
    if (code == TTMM_OK && (member = calloc(c.n_sequences, sizeof *member)) == NULL)
        code = ttmm_fail(&err, TTMM_NO_ROOM, "out of memory for a list of sequences");
    if (code == TTMM_OK) base = ttmm_hash(m.data, m.n);
    for (size_t k = from; k <= to && code == TTMM_OK; k++) {
        size_t n = 0;
        for (size_t i = 0; i < c.n_sequences; i++)
            if (whole || c.cluster[i] == (int)k) member[n++] = i;
        snprintf(name, sizeof name, whole ? "finetuned" : "experts/%zu", k);
        snprintf(adapter, sizeof adapter, "%s/%s", folder, name);
        snprintf(j.settings, sizeof j.settings,
                 "adapter: rank %d alpha %g epochs %d lr %g batch %zu seed %d base %016" PRIx64 " text %016" PRIx64,
                 option.rank, alpha, option.epochs, option.expert_lr, option.expert_batch, option.seed, base,
                 ttmm_corpus_hash(&c, whole ? -1 : (int)k));
        code = found_before(note, adapter, file, j.settings);
        before += code == SAME;
        if (code == SAME) {
            code = TTMM_OK;
            continue;
        }
        if (code == OTHER) code = refuse_other(adapter, file, note, j.settings);
        snprintf(name, sizeof name, whole ? "finetuned" : "expert-%zu", k);
        if (code == TTMM_OK) code = checkpoint_path(&j, folder, name);
        if (code) break;
        ttmm_lora_init(&l, (uint64_t)option.seed, whole ? UINT64_MAX : k);
        ttmm_trainer_start(j.trainer, member, n, 0, option.epochs, whole ? UINT64_MAX : k);
        snprintf(j.what, sizeof j.what, whole ? "finetune" : "expert %zu of %zu-%zu", k, from, to);
        j.done = (double)(k - from - before), j.all = (double)(to - from + 1 - before);
        code = run_trainer(&j);
        if (code == TTMM_OK) code = ttmm_lora_write(&l, adapter, j.settings, &err);
        if (code == TTMM_OK) {
            remove_checkpoint(folder, j.checkpoint);
            losses += j.loss;
            trained++;
        }
    }
    clear_line();
    if (code == TTMM_OK && trained)
        note_stage(whole ? "finetune" : "experts", ttmm_seconds() - j.began, losses / (double)trained, j.tokens,
                   whole ? "the baseline: finetuned/" : "one adapter a cluster: experts/");
    if (code == TTMM_OK && before && !option.quiet)
        fprintf(stderr, "%-9s %zu of %zu done before\n", whole ? "finetune" : "experts", before, to - from + 1);
    free(member);
    ttmm_trainer_free(j.trainer);
    ttmm_lora_free(&l);
    ttmm_corpus_free(&c);
    ttmm_model_free(&m);
    return code;
}

int main(int argc, char **argv)
{
    static const char **argument; /* static: reachable to the end, whichever return is taken */
    size_t n, v;
    argument = calloc((size_t)argc + 1, sizeof *argument);
    if (argument == NULL) return -TTMM_NO_ROOM;
    int code = ttmm_command(&v, argument, &n, &program, argc, argv, &err);
    if (code > 0) {
        ttmm_usage(argc < 2 ? stderr : stdout, &program, v);
        return argc < 2 ? -TTMM_BAD_USE : 0;
    }
    ttmm_limit_threads(option.threads);
    const char *folder = argument[0], *verb = v < program.n_verbs ? verbs[v].name : "";
    const int all = strcmp(verb, "all") == 0;
    ttmm_corpus text = {0};
    ttmm_tokenizer *tokenizer = NULL; /* a base is trained on bytes */
    if (code == TTMM_OK && strcmp(verb, "index") == 0) code = ttmm_tokenizer_read(&tokenizer, folder, &err);
    if (code == TTMM_OK && n > 1)
        code = ttmm_corpus_from_files(&text, tokenizer, argument + 1, n - 1, option.context, &err);
    if (code == TTMM_OK && !option.quiet)
        fprintf(stderr, "train %s, seed %d, %d thread%s\n", verb, option.seed, ttmm_threads(),
                ttmm_threads() == 1 ? "" : "s");
    if (code == TTMM_OK && (all || strcmp(verb, "base") == 0)) code = stage_base(folder, &text);
    if (code == TTMM_OK && (all || strcmp(verb, "index") == 0)) code = stage_index(folder, &text, tokenizer);
    ttmm_corpus_free(&text);
    ttmm_tokenizer_free(tokenizer);
    if (code == TTMM_OK && (all || strcmp(verb, "cluster") == 0)) code = stage_cluster(folder, 1 << 28);
    if (code == TTMM_OK && (all || strcmp(verb, "experts") == 0)) code = stage_adapters(folder, 0);
    if (code == TTMM_OK && (all || strcmp(verb, "finetune") == 0)) code = stage_adapters(folder, 1);
    if (code == TTMM_OK) code = print_summary();
    if (code) clear_line(), fprintf(stderr, "train: %s\n", err.text);
    return -code;
}
