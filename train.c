/* train.c - the training side of ttmm: pre-train a base model, index and cluster the text, train the experts and the
 * fine-tuned baseline. It parses arguments, shows progress and keeps the stages in order; the mathematics is in ttmm.c.
 *
 * Every stage ends with writing its result into the model's folder, at once, with the settings it used as a note. So a
 * stage whose result is there with the same settings is done, one with other settings is refused, and a training that
 * was interrupted goes on from its checkpoint to the same bits. Experts train several at once: that each of them can
 * stop, fail and go on by itself is what makes this file longer than 600 lines.
 *
 * Processes may work on one folder at once. MODEL/train.lock, an empty file, has a lock for the folder (0: alone for
 * base, text and clusters, shared for adapters) and one for each adapter (1 finetuned, 2 + k expert k). Without such
 * locks on a file system only train experts --only of different experts may run at once. */
#define TTMM_PROGRAM "train"
#include "ttmm.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#ifdef _OPENMP
#define CRITICAL _Pragma("omp critical") /* on one thread at a time */
#else
#define CRITICAL
#endif

/* clang-format off */
static struct {
    int dim, layers, heads, kv_heads, head_dim, intermediate, context, untied;
    long steps;
    size_t batch, experts, expert_batch;
    int rank, epochs;
    double lr, warmup, alpha, expert_lr;
    const char *only, *embeddings, *encoder, *tsv;
    int seed, threads, jobs, ids;
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
    {"steps", 'l', &option.steps, 1, 1e9, " base all ", "pre-training steps (as many as 4 epochs take)"},
    {"batch", 'n', &option.batch, 1, 65536, " base all ", "sequences a step (8)"},
    {"lr", 'f', &option.lr, 0, 10, " base all ", "peak learning rate (0.003)"},
    {"warmup", 'f', &option.warmup, 0, 1, " base all ", "fraction of the steps to warm up (0.05)"},
    {"embeddings", 's', &option.embeddings, 0, 0, " index all ",
     "their embeddings from a safetensors file [n, D]: a row a sequence, as index has cut the same text before"},
    {"encoder", 's', &option.encoder, 0, 0, " index all ",
     "embed with a sentence encoder: its folder, of sentence-transformers"},
    {"ids", 'b', &option.ids, 0, 1, " index ",
     "the files hold token ids, one document a line, as run tokenize writes them"},
    {"experts", 'n', &option.experts, 1, 1e6, " cluster all ",
     "number of clusters and experts (sequences / 20, at most 100)"},
    {"rank", 'i', &option.rank, 1, 4096, LORA, "rank of the adapters (8)"},
    {"alpha", 'f', &option.alpha, 1e-6, 1e6, LORA, "LoRA's alpha (2 rank)"},
    {"epochs", 'i', &option.epochs, 1, 10000, LORA, "epochs over the sequences (5)"},
    {"expert-lr", 'f', &option.expert_lr, 0, 10, LORA, "peak learning rate of the adapters (0.01)"},
    {"expert-batch", 'n', &option.expert_batch, 1, 65536, LORA, "sequences a step (2)"},
    {"only", 'w', &option.only, 0, 0, " experts ", "train expert A or experts A-B only"},
    {"jobs", 'i', &option.jobs, 1, 1024, " experts all ",
     "experts trained at once (as many as threads, if a quarter of the memory holds them); no result depends on it"},
    {"seed", 'i', &option.seed, 0, 2147483647, EVERY, "of all random numbers (1)"},
    {"threads", 'i', &option.threads, 1, 1024, EVERY,
     "threads (all processors, or OMP_NUM_THREADS); the results do not depend on it"},
    {"tsv", 'o', &option.tsv, 0, 0, EVERY, "write the summary to a file, tab-separated"},
    {"quiet", 'b', &quiet, 0, 1, EVERY, "errors only"},
};
enum { MANY = 1 << 30 };
static const ttmm_verb verbs[] = {
    {"base", "MODEL FILE...", "pre-train a base model on text files", 2, MANY},
    {"index", "MODEL FILE...", "cut text files into sequences and embed them", 2, MANY},
    {"cluster", "MODEL", "bisecting k-means on the embeddings", 1, 1},
    {"experts", "MODEL", "train the LoRA expert of every cluster", 1, 1},
    {"finetune", "MODEL", "train the baseline: one LoRA on all the text", 1, 1},
    {"all", "MODEL FILE...", "all of these in order, but what is done; what was interrupted goes on", 2, MANY},
};

static const ttmm_program program = {"train", verbs, sizeof verbs / sizeof *verbs, options,
                                     sizeof options / sizeof *options};

static const char *model; /* its folder */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static void catch_signals(void (*handler)(int)) /* but those that are ignored: nohup, a script's & */
{
    static const int caught[] = {
#ifdef SIGHUP
        SIGHUP,
#endif
#ifdef SIGBREAK /* Windows' Ctrl-Break; its Ctrl-C is SIGINT */
        SIGBREAK,
#endif
        SIGINT, SIGTERM};
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
        if (signal(caught[i], handler) == SIG_IGN) signal(caught[i], SIG_IGN);
}

/* ---- Progress ---------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *stage;
    double seconds, loss;
    size_t tokens;
    const char *what;
} finished;
static finished summary[5]; /* of the stages that did something; there are five */
static size_t n_summary;
static FILE *tsv; /* the table of --tsv, if it is asked for */

static void open_tsv(void)
{
    if (option.tsv == NULL) return;
    tsv = open_output(option.tsv);
    fprintf(tsv, "stage\tseconds\tloss\ttokens\n");
}

static void note_stage(const char *stage, double began, double loss, size_t tokens, const char *what)
{
    summary[n_summary++] = (finished){stage, ttmm_seconds() - began, loss, tokens, what};
}

static void print_summary(void)
{
    double total = 0;
    for (const finished *s = summary; s < summary + n_summary; s++) {
        total += s->seconds;
        if (tsv) fprintf(tsv, "%s\t%.3f\t%.6f\t%zu\n", s->stage, s->seconds, s->loss, s->tokens);
        if (quiet) continue;
        fprintf(stderr, "%-9s %7.1f s", s->stage, s->seconds);
        if (s->tokens) fprintf(stderr, "  loss %.3f  %7.0f tok/s", s->loss, (double)s->tokens / s->seconds);
        fprintf(stderr, "  %s\n", s->what);
    }
    if (!quiet && n_summary > 1) fprintf(stderr, "%-9s %7.1f s\n", "total", total);
    if (tsv) close_output(tsv, option.tsv);
}

/* ---- Locks ------------------------------------------------------------------------------------------------------- */

static FILE *locks; /* MODEL/train.lock; NULL: there is none, as in a folder that may not be written */

/* Wait until the lock is free. STOPPED: interrupted meanwhile. */
enum { STOPPED = 130 }; /* the exit code, too */
static int take_lock(unsigned number, int how, const char *what, ttmm_error *e)
{
    for (int told = quiet; locks && !ttmm_lock(locks, number, how); told = 1) {
        if (interrupted) return ttmm_fail(e, STOPPED, "interrupted while another train was at work on %s", what);
        if (!told) fprintf(stderr, "%s: another train is at work on it, waiting\n", what);
    }
    return TTMM_OK;
}

/* The folder's lock, until the next stage: those that are alone in it come first. */
static void begin_stage(int how)
{
    char path[4200];
    snprintf(path, sizeof path, "%s/train.lock", model);
    if (locks == NULL) locks = ttmm_open(path, "a+b"); /* once: to close it again would let go of all locks */
    const int code = take_lock(0, how, model, &err);
    check(code > 0 ? -code : code);
}

/* ---- Stages ------------------------------------------------------------------------------------------------------ */

/* The note of a stage's file, the settings that it was made with; returns 0 if there is no such file. */
static int read_note(char note[1024], const char *file)
{
    char path[4200];
    if (!ttmm_exists(model, file)) return 0;
    snprintf(path, sizeof path, "%s/%s", model, file);
    check(ttmm_note(note, 1024, path, &err));
    return 1;
}

/* 1: the file is there already, made with the same settings. With others it is refused. */
static int is_made(const char *file, const char *settings, ttmm_error *e)
{
    char note[1024], path[4200];
    if (!ttmm_exists(model, file)) return 0;
    snprintf(path, sizeof path, "%s/%s", model, file);
    const int code = ttmm_note(note, sizeof note, path, e);
    if (code == TTMM_OK && strcmp(note, settings) != 0)
        return ttmm_fail(e, TTMM_BAD_INPUT, "%.200s/%s: was made with \"%.180s\", this run asks for \"%.180s\"", model,
                         file, note, settings);
    return code ? code : 1;
}

static void say_done(const char *stage)
{
    if (!quiet) fprintf(stderr, "%-9s done before\n", stage);
}

typedef struct { /* a trainer, and the run that it is at */
    ttmm_trainer *trainer;
    ttmm_lora lora; /* of adapters */
    char what[96], settings[512], checkpoint[4096];
    double loss; /* mean over the last tenth of the run's steps */
} job;

static struct { /* the stage that trains: one run, one after the other, or several at once */
    const char *name;
    double began, shown, loss;
    int jobs;         /* runs at once */
    long done, steps; /* of all runs; done: with those of an earlier process */
    long earlier;     /* those */
    size_t tokens;    /* seen */
    int kept;         /* there is, or was, a checkpoint of this process or for it */
} training;

/* What is written makes its folder: if the model's has disappeared, it would come up anew with that alone. */
static int still_there(ttmm_error *e)
{
    if (locks == NULL || ttmm_exists(model, "train.lock")) return TTMM_OK;
    return ttmm_fail(e, TTMM_NO_ROOM, "%s: the folder has disappeared during the work", model);
}

/* The folder is made here, not before: another process, training other experts, removes it when it is empty. */
static int save_checkpoint(const job *j, ttmm_error *e)
{
    char folder[4096];
    snprintf(folder, sizeof folder, "%s/checkpoint", model);
    for (int last = 0;; last++) { /* twice: it may be removed while it is made, or before the file is in it */
        int code = still_there(e);
        if (code == TTMM_OK) code = ttmm_make_folder(folder, e);
        if (code == TTMM_OK) code = ttmm_trainer_save(j->trainer, j->checkpoint, j->settings, e);
        if (code == TTMM_OK || last) return code;
    }
}

/* Whether a line of progress is due: rewritten on a terminal twice a second, printed at every tenth of the work
 * elsewhere. *shown: when, or at which tenth, the last was */
static int is_due(double *shown, double done)
{
    const int terminal = ttmm_is_terminal(stderr);
    const double now = ttmm_seconds();
    if (quiet || (terminal ? done < 1 && now - *shown < 0.5 : (int)(10 * done) == (int)*shown)) return 0;
    *shown = terminal ? now : (int)(10 * done);
    return 1;
}

/* Count a step of a run in, and show how far the stage is. loss: of the step, averaged over about as many as run at
 * once. */
static void progress(const job *j, double loss, size_t tokens)
{
    const int terminal = ttmm_is_terminal(stderr);
    training.loss = training.tokens ? training.loss + (loss - training.loss) / training.jobs : loss;
    training.done++, training.tokens += tokens;
    const double spent = ttmm_seconds() - training.began, done = (double)training.done / (double)training.steps;
    const double left = spent * (double)(training.steps - training.done) / (double)(training.done - training.earlier),
                 rate = (double)training.tokens / (spent > 0 ? spent : 1);
    if (!is_due(&training.shown, done)) return;
    fprintf(stderr, "%s%s %3.0f%%  loss %.3f  %.0f tok/s  %d:%02d left%s", terminal ? "\r\033[K" : "",
            training.jobs > 1 ? training.name : j->what, 100 * done, training.loss, rate, (int)left / 60,
            (int)left % 60, terminal ? "" : "\n");
    fflush(stderr);
}

/* Run a trainer to its end, from its checkpoint if there is one; a checkpoint every half minute and on interrupt.
 * STOPPED: it was interrupted, and e says so. */
static int run_trainer(job *j, const char *checkpoint, ttmm_error *e)
{
    const int n = snprintf(j->checkpoint, sizeof j->checkpoint, "%s/checkpoint/%s.safetensors", model, checkpoint);
    if ((size_t)n >= sizeof j->checkpoint) return ttmm_fail(e, TTMM_BAD_INPUT, "the model's path is too long");
    long steps, step, counted = 0;
    size_t seen, before;
    double loss = 0, sum = 0, saved = ttmm_seconds();
    const int resumed = ttmm_trainer_load(j->trainer, j->checkpoint, j->settings, e);
    if (resumed < 0) return resumed;
    step = ttmm_trainer_at(j->trainer, &steps, &before);
    CRITICAL
    {
        training.done += step, training.earlier += step;
        training.kept |= resumed;
        if (resumed && !quiet) {
            clear_line();
            fprintf(stderr, "%s goes on from step %ld of %ld\n", j->what, step, steps);
        }
    }
    while (ttmm_trainer_step(j->trainer, &loss)) {
        step = ttmm_trainer_at(j->trainer, &steps, &seen);
        if (!(loss - loss == 0))
            return ttmm_fail(e, TTMM_BAD_INPUT, "%s: the loss is not finite at step %ld: try a lower learning rate",
                             j->what, step);
        if (step > steps - steps / 10 - (steps % 10 != 0)) sum += loss, counted++;
        CRITICAL
        progress(j, loss, seen - before);
        before = seen;
        const double now = ttmm_seconds();
        const int stop = interrupted && step < steps;
        if (stop || (now - saved > 30 && step < steps)) {
            const int code = save_checkpoint(j, e);
            CRITICAL
            training.kept = 1;
            if (code) return code;
            saved = now;
        }
        if (stop)
            return ttmm_fail(e, STOPPED, "interrupted at step %ld of %ld of %s; the same command goes on from there",
                             step, steps, j->what);
    }
    j->loss = counted ? sum / (double)counted : loss;
    return TTMM_OK;
}

static void begin_training(const char *name, int jobs, long steps)
{
    catch_signals(on_interrupt); /* stages that write once, at their end, leave it at the default */
    memset(&training, 0, sizeof training);
    training.name = name, training.jobs = jobs, training.steps = steps, training.began = ttmm_seconds();
}

/* All runs have ended, with this code. */
static void end_training(int code)
{
    catch_signals(SIG_DFL);
    if (training.kept) ttmm_remove(model, "checkpoint"); /* if nothing is in it */
    check(code > 0 ? -code : code);
}

static ttmm_config config_of_options(void)
{
    ttmm_config c = {.vocab = TTMM_BYTES, .tied = !option.untied, .norm_eps = 1e-5, .rope_theta = 10000};
    c.n_ends = 1, c.end[0] = TTMM_END;
    c.dim = option.dim, c.n_layers = option.layers, c.n_heads = option.heads, c.intermediate = option.intermediate;
    c.n_kv_heads = option.kv_heads ? option.kv_heads : option.heads;
    c.head_dim = option.head_dim ? option.head_dim : option.dim / option.heads, c.context = option.context;
    if (!option.head_dim && option.dim % option.heads)
        FAIL(TTMM_BAD_USE, "--dim is not a multiple of --heads, and --head-dim is not given");
    if (c.head_dim % 2)
        FAIL(TTMM_BAD_USE, "--head-dim is %d, expected an even number: rotary positions turn pairs", c.head_dim);
    if (ttmm_config_check(&c, &err) != TTMM_OK) check(TTMM_BAD_USE);
    return c;
}

/* Experts belong to one base, text and clustering: while there are any, these stay as they are. The fine-tuned adapter
 * belongs to base and text. */
static void refuse_if_trained(const char *stage, int finetuned)
{
    enum { LOOKED_FOR = 1024 }; /* experts, where no centroids say how many there are */
    char path[4096], name[64];
    real *centroid;
    size_t K = LOOKED_FOR, E;
    snprintf(path, sizeof path, "%s/centroids.safetensors", model);
    if (ttmm_exists(model, "centroids.safetensors")) {
        check(ttmm_array_read(&centroid, &K, &E, path, "embeddings", &err));
        free(centroid);
    }
    int found = finetuned && ttmm_exists(model, "finetuned/adapter_model.safetensors");
    for (size_t k = 0; k < K && !found; k++) {
        snprintf(name, sizeof name, "experts/%zu/adapter_model.safetensors", k);
        found = ttmm_exists(model, name);
    }
    if (found)
        FAIL(TTMM_BAD_INPUT,
             "%.300s: holds experts of another %s: use another folder, or remove experts/ and finetuned/ first", model,
             stage);
}

/* Without model.safetensors a folder may still hold a model, in other files, or config.json as it was written before
 * the disk was full. */
static void refuse_foreign(const ttmm_config *c)
{
    ttmm_config found = *c;
    const int code = ttmm_exists(model, "config.json") ? ttmm_config_read(&found, model, &err) : TTMM_OK;
    if (code == TTMM_NO_ROOM) check(code);
    const int same = code == TTMM_OK && found.dim == c->dim && found.n_layers == c->n_layers &&
                     found.n_heads == c->n_heads && found.intermediate == c->intermediate && found.vocab == c->vocab &&
                     found.tied == c->tied;
    if (!same || ttmm_exists(model, "model.safetensors.index.json"))
        FAIL(TTMM_BAD_INPUT, "%.300s: holds another model, which would be lost: use another folder", model);
}

static void stage_base(const ttmm_corpus *text)
{
    job j = {.what = "base"};
    const double began = ttmm_seconds();
    const ttmm_config c = config_of_options();
    const size_t n = text->n_sequences;
    const long steps = option.steps ? option.steps : (long)((4 * n + option.batch - 1) / option.batch);
    ttmm_recipe r = {.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8, .decay = 0.05, .clip = 1, .shuffle = 1};
    ttmm_model m;
    r.schedule = (ttmm_schedule){option.lr, option.warmup, 0.05, 1};
    r.batch = option.batch, r.seed = (uint64_t)option.seed;
    snprintf(j.settings, sizeof j.settings,
             "base: dim %d layers %d heads %d kv-heads %d head-dim %d intermediate %d context %d tied %d steps %ld "
             "batch %zu lr %.15g warmup %.15g seed %d text %016" PRIx64 "%s",
             c.dim, c.n_layers, c.n_heads, c.n_kv_heads, c.head_dim, c.intermediate, c.context, c.tied, steps,
             option.batch, option.lr, option.warmup, option.seed, ttmm_corpus_hash(text, NULL, 0), ARITHMETIC);
    check(ttmm_make_folder(model, &err));
    begin_stage(TTMM_ALONE);
    const int made = is_made("model.safetensors", j.settings, &err);
    check(made);
    if (made) {
        say_done("base");
        return;
    }
    refuse_foreign(&c);
    refuse_if_trained("base", 1);
    check(ttmm_model_new(&m, &c, &err));
    ttmm_model_init(&m, (uint64_t)option.seed);
    check(ttmm_trainer_new(&j.trainer, &m, NULL, text, &r, &err));
    if (!quiet)
        fprintf(stderr, "base: %zu parameters, %zu sequences of up to %d tokens, %ld steps of %zu\n", m.n, n, c.context,
                steps, option.batch);
    ttmm_trainer_start(j.trainer, NULL, 0, steps, 0, 0);
    begin_training("base", 1, steps);
    int code = run_trainer(&j, "base", &err);
    if (code == TTMM_OK) code = ttmm_model_write(&m, model, TTMM_REAL, j.settings, &err);
    if (code == TTMM_OK) ttmm_remove(NULL, j.checkpoint);
    end_training(code);
    clear_line();
    note_stage("base", began, j.loss, training.tokens, "the base model: model.safetensors");
    ttmm_trainer_free(j.trainer);
    ttmm_model_free(&m);
}

/* The embeddings of --embeddings, one a sequence. */
static void load_embeddings(ttmm_corpus *text)
{
    real *rows;
    size_t n, dim;
    check(ttmm_array_read(&rows, &n, &dim, option.embeddings, "embeddings", &err));
    if (n != text->n_sequences)
        FAIL(TTMM_BAD_INPUT, "%s: has %zu embeddings, expected %zu: one a sequence", option.embeddings, n,
             text->n_sequences);
    check(ttmm_corpus_set_embeddings(text, rows, dim, &err));
    free(rows);
}

/* A fingerprint of the files' names: routing shows them. */
static uint64_t hash_names(const ttmm_corpus *c)
{
    uint64_t h = 0;
    for (size_t i = 0; i < c->n_files; i++)
        for (size_t k = 0; k <= strlen(c->file[i]); k++) h = (h ^ (unsigned char)c->file[i][k]) * 0x100000001b3;
    return h;
}

/* How far encoding is, of n sequences those before `from` in an earlier run. */
static void show_encoded(size_t from, size_t done, size_t n, double began)
{
    static double shown;
    const int terminal = ttmm_is_terminal(stderr);
    const double part = (double)done / (double)n;
    const double left = (ttmm_seconds() - began) * (double)(n - done) / (double)(done - from);
    if (!is_due(&shown, part)) return;
    fprintf(stderr, "%sindex %3.0f%%  %d:%02d left%s", terminal ? "\r\033[K" : "", 100 * part, (int)left / 60,
            (int)left % 60, terminal ? "" : "\n");
}

/* The embeddings of all sequences by an encoder: hours for a large text. Like a training it leaves what it has in the
 * folder checkpoint every half minute and on interrupt, and goes on from there. */
#define ENCODED "checkpoint/embeddings.safetensors"
static void encode_corpus(ttmm_corpus *text, const ttmm_encoder *encoder, const ttmm_tokenizer *tokenizer,
                          const char *settings)
{
    enum { SOME = 16 };
    const size_t n = text->n_sequences, E = ttmm_encoder_dim(encoder);
    const double began = ttmm_seconds();
    char note[1024], path[4200], folder[4200];
    size_t from = 0, dim, more;
    double next = began + 30;
    snprintf(path, sizeof path, "%s/" ENCODED, model);
    snprintf(folder, sizeof folder, "%s/checkpoint", model);
    if (read_note(note, ENCODED)) {
        real *rows;
        if (strcmp(note, settings) != 0)
            FAIL(TTMM_BAD_INPUT,
                 "%s: is of a run with \"%.200s\", this one has \"%.200s\": finish that one or remove the file", path,
                 note, settings);
        check(ttmm_array_read(&rows, &from, &dim, path, "embeddings", &err));
        if (from > n || dim != E)
            FAIL(TTMM_BAD_INPUT, "%s: embeddings is [%zu, %zu], expected at most [%zu, %zu]", path, from, dim, n, E);
        check(ttmm_corpus_encode(text, encoder, tokenizer, 0, 0, &err)); /* room */
        memcpy(text->embedding, rows, from * E * sizeof *rows);
        free(rows);
        if (!quiet) fprintf(stderr, "index goes on from sequence %zu of %zu\n", from, n);
    }
    catch_signals(on_interrupt);
    for (size_t done = from; done < n; done += more) {
        more = n - done < SOME ? n - done : SOME;
        check(ttmm_corpus_encode(text, encoder, tokenizer, done, more, &err));
        show_encoded(from, done + more, n, began);
        const double now = ttmm_seconds();
        if (done + more == n || (!interrupted && now < next)) continue;
        const ttmm_array encoded = {"embeddings", done + more, E, text->embedding, NULL};
        check(still_there(&err));
        check(ttmm_make_folder(folder, &err));
        check(ttmm_arrays_write(&encoded, 1, path, settings, &err));
        next = now + 30 + 20 * (ttmm_seconds() - now); /* as all of them are written each time */
        if (interrupted)
            FAIL(-STOPPED, "interrupted at sequence %zu of %zu of index; the same command goes on from there",
                 done + more, n);
    }
    catch_signals(SIG_DFL);
    clear_line();
}

/* By --encoder, by --embeddings, or built in. */
static ttmm_encoder *load_encoder(int no_text)
{
    ttmm_encoder *encoder;
    if (option.encoder == NULL) return NULL;
    if (option.embeddings) FAIL(TTMM_BAD_USE, "--encoder and --embeddings exclude each other");
    if (no_text)
        FAIL(TTMM_BAD_INPUT, "%s: has no tokenizer that can be used: --encoder needs the text of the tokens", model);
    check(ttmm_encoder_read(&encoder, option.encoder, &err));
    return encoder;
}

/* Centroids of somebody else's experts, which new text or clusters would take away. */
static void refuse_foreign_centroids(void)
{
    char note[1024];
    if (read_note(note, "centroids.safetensors") && strncmp(note, "cluster: ", 9) != 0)
        FAIL(TTMM_BAD_INPUT, "%s/centroids.safetensors: was not written by train, and would be lost: move it away",
             model);
}

/* vocab: of token ids that are given, whose text tokenizer knows; else 0 */
static void stage_index(ttmm_corpus *text, const ttmm_tokenizer *tokenizer, int vocab)
{
    const int no_text = tokenizer == ttmm_tokenizer_of_ids();
    char settings[512], note[1024], embeddings[32], of_ids[40] = "";
    const double began = ttmm_seconds();
    ttmm_encoder *encoder = load_encoder(no_text);
    snprintf(embeddings, sizeof embeddings, no_text ? "of ids" : "built-in");
    if (encoder) snprintf(embeddings, sizeof embeddings, "encoder %s", ttmm_encoder_fingerprint(encoder));
    if (option.embeddings) {
        load_embeddings(text);
        snprintf(embeddings, sizeof embeddings, "%016" PRIx64,
                 ttmm_hash(text->embedding, text->n_sequences * text->dim));
    }
    check(ttmm_make_folder(model, &err)); /* the lock is in it */
    begin_stage(TTMM_ALONE);
    if (vocab && !no_text && !option.embeddings)
        snprintf(of_ids, sizeof of_ids, " tokenizer %016" PRIx64, ttmm_tokenizer_hash(tokenizer, vocab));
    snprintf(settings, sizeof settings, "index: text %016" PRIx64 " files %zu names %016" PRIx64 " embeddings %s%s%s",
             ttmm_corpus_hash(text, NULL, 0), text->n_files, hash_names(text), embeddings, of_ids, ARITHMETIC);
    if (read_note(note, "corpus.safetensors") && strcmp(note, settings) == 0) {
        say_done("index");
        ttmm_encoder_free(encoder);
        return;
    }
    refuse_if_trained("text", 1);
    refuse_foreign_centroids();
    if (encoder) encode_corpus(text, encoder, tokenizer, settings);
    else if (!option.embeddings) check(ttmm_corpus_embed(text, tokenizer, &err));
    ttmm_encoder_free(encoder);
    ttmm_remove(model, "centroids.safetensors"); /* of the text before */
    check(ttmm_corpus_write(text, model, settings, &err));
    if (option.encoder && ttmm_remove(model, ENCODED)) ttmm_remove(model, "checkpoint"); /* if nothing is in it */
    note_stage("index", began, 0, 0,
               no_text && !option.embeddings ? "tokens, and embeddings of their ids alone: corpus.safetensors"
                                             : "text and embeddings: corpus.safetensors");
}

static void print_cluster_sizes(const ttmm_corpus *c, size_t K)
{
    size_t *size = allocate(K, sizeof *size, "the sizes of clusters"), least = c->n_sequences, most = 0;
    for (size_t i = 0; i < c->n_sequences; i++) size[c->cluster[i]]++;
    for (size_t k = 0; k < K; k++) {
        if (size[k] < least) least = size[k];
        if (size[k] > most) most = size[k];
    }
    fprintf(stderr, "cluster: %zu sequences in %zu clusters of %zu to %zu\n", c->n_sequences, K, least, most);
    free(size);
}

/* Cluster c, whose file's note is `index`, into K, and write clusters and centroids. */
static void cluster_corpus(ttmm_corpus *c, size_t K, const char *index, const char *settings)
{
    char path[4096];
    if (c->dim == 0) FAIL(TTMM_BAD_INPUT, "the corpus has no embeddings: run train index");
    if (K > c->n_sequences)
        FAIL(TTMM_BAD_INPUT, "--experts is %zu, expected at most %zu, the number of sequences", K, c->n_sequences);
    real *centroid = allocate(K * c->dim, sizeof *centroid, "the centroids");
    const ttmm_array a = {"embeddings", K, c->dim, centroid, NULL};
    check(ttmm_cluster(c->cluster, centroid, c->embedding, c->n_sequences, c->dim, K, (uint64_t)option.seed, &err));
    c->clustered = 1;
    ttmm_remove(model, "centroids.safetensors"); /* so that new clusters never stand beside old ones */
    check(ttmm_corpus_write(c, model, index, &err));
    snprintf(path, sizeof path, "%s/centroids.safetensors", model);
    check(ttmm_arrays_write(&a, 1, path, settings, &err));
    free(centroid);
    if (!quiet) print_cluster_sizes(c, K);
}

/* The text's file is written again, with its clusters: by other numbers than its note says. */
static void refuse_other_arithmetic(const char *index)
{
    static const char *const word[] = {" f64", " fast"};
    for (size_t i = 0; i < 2; i++)
        if ((strstr(index, word[i]) != NULL) != (strstr(ARITHMETIC, word[i]) != NULL))
            FAIL(TTMM_BAD_INPUT,
                 "%.200s/corpus.safetensors: was made with \"%.180s\" by another build of train: cluster with that, or "
                 "index again",
                 model, index);
}

static void stage_cluster(void)
{
    char settings[512], index[1024] = "", note[1024];
    const double began = ttmm_seconds();
    ttmm_corpus c;
    begin_stage(TTMM_ALONE);
    check(ttmm_corpus_read(&c, model, 1 << 28, &err)); /* of any vocabulary */
    read_note(index, "corpus.safetensors");
    const size_t n = c.n_sequences, usual = n < 40 ? 1 : n < 2000 ? n / 20 : 100;
    const size_t K = option.experts ? option.experts : usual;
    snprintf(settings, sizeof settings, "cluster: experts %zu seed %d of %.300s", K, option.seed, index);
    const int found = read_note(note, "centroids.safetensors");
    if (found && strcmp(note, settings) == 0 && c.clustered) {
        say_done("cluster");
    } else {
        refuse_if_trained("clustering", 0);
        refuse_foreign_centroids();
        if (strncmp(index, "index: ", 7) == 0) refuse_other_arithmetic(index);
        cluster_corpus(&c, K, index, settings);
        note_stage("cluster", began, 0, 0, "clusters and centroids: centroids.safetensors");
    }
    ttmm_corpus_free(&c);
}

/* The experts of --only A or A-B: *from .. *to, both within 0 .. K - 1. */
static void parse_only(size_t K, size_t *from, size_t *to)
{
    char *end;
    long a = strtol(option.only, &end, 10), b = a;
    int good = end != option.only && option.only[0] != '-';
    if (good && *end == '-') {
        const char *second = end + 1;
        b = strtol(second, &end, 10);
        good = end != second;
    }
    if (!good || *end || a < 0 || b < a || (size_t)b >= K)
        FAIL(TTMM_BAD_USE, "--only is %.100s, expected A or A-B within 0-%zu", option.only, K - 1);
    *from = (size_t)a, *to = (size_t)b;
}

/* The adapters of a stage: of the clusters from .. to, or (whole) one on all the text. */
typedef struct {
    size_t cluster, n; /* its sequences */
    long steps;
    int trained; /* here; 0: not yet, or by another process */
    double loss;
} task;

typedef struct {
    int whole;
    size_t from, to, n;
    task *task;             /* [n] those that are not there yet */
    size_t *member, *first; /* [sequences] by cluster; [clusters + 1] where in it each cluster begins */
    ttmm_model base;
    uint64_t base_hash;
    ttmm_corpus text;
    ttmm_recipe recipe;
    double alpha;
    job *job; /* [jobs]: each trains one adapter after the other */
} adapters;

/* Which sequences are whose: counted, then each put where its cluster's next one goes. K clusters. */
static void list_members(adapters *a, size_t K)
{
    const size_t n = a->text.n_sequences;
    a->member = allocate(n, sizeof *a->member, "a list of sequences");
    a->first = allocate(K + 2, sizeof *a->first, "a list of clusters");
    size_t *next = a->first + 1; /* the end of a cluster, once all are placed, is where the one after it begins */
    for (size_t i = 0; i < n; i++) next[(a->whole ? 0 : a->text.cluster[i]) + 1]++;
    for (size_t k = 0; k < K; k++) next[k + 1] += next[k];
    for (size_t i = 0; i < n; i++) a->member[next[a->whole ? 0 : a->text.cluster[i]]++] = i;
}

/* What training them needs; which of them: all, or those of --only. */
static void load_adapters(adapters *a)
{
    a->recipe = (ttmm_recipe){.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip = 1, .shuffle = 1};
    a->recipe.schedule = (ttmm_schedule){option.expert_lr, 0.1, 0.05, 0};
    a->recipe.batch = option.expert_batch, a->recipe.seed = (uint64_t)option.seed;
    a->alpha = option.alpha > 0 ? option.alpha : 2 * option.rank;
    if (ttmm_exists(model, "adapter_config.json")) /* with which transformers would answer, if PEFT is there */
        FAIL(TTMM_BAD_INPUT, "%s: holds adapter_config.json: an adapter must be in a folder of its own", model);
    check(ttmm_model_open(&a->base, model, &err));
    check(ttmm_corpus_open(&a->text, model, a->base.config.vocab, 0, &err));
    const size_t longest = ttmm_longest_sequence(&a->text);
    const int context = a->base.config.context;
    if (longest > (size_t)context)
        FAIL(TTMM_BAD_INPUT, "%s: has sequences of %zu tokens, the base takes %d: train index --context %d", model,
             longest, context, context);
    if (!a->whole) {
        if (!a->text.clustered || !ttmm_exists(model, "centroids.safetensors"))
            FAIL(TTMM_BAD_INPUT, "%s: has no clusters: run train cluster", model);
        for (size_t i = 0; i < a->text.n_sequences; i++)
            if ((size_t)a->text.cluster[i] > a->to) a->to = (size_t)a->text.cluster[i];
    }
    list_members(a, a->to + 1);
    if (option.only) parse_only(a->to + 1, &a->from, &a->to);
    a->base_hash = ttmm_model_hash(&a->base);
}

/* The settings of the adapter of cluster k, and its folder in the model's. */
static void describe_adapter(const adapters *a, size_t k, char settings[512], char name[64])
{
    snprintf(settings, 512,
             "adapter: rank %d alpha %.15g epochs %d lr %.15g batch %zu seed %d base %016" PRIx64 " text %016" PRIx64
             "%s",
             option.rank, a->alpha, option.epochs, option.expert_lr, option.expert_batch, option.seed, a->base_hash,
             ttmm_corpus_hash(&a->text, a->member + a->first[k], a->first[k + 1] - a->first[k]), ARITHMETIC);
    snprintf(name, 64, a->whole ? "finetuned" : "experts/%zu", k);
}

static int longer_first(const void *a, const void *b)
{
    const task *x = a, *y = b;
    return x->n != y->n ? (x->n < y->n) - (x->n > y->n) : (x->cluster > y->cluster) - (x->cluster < y->cluster);
}

/* a->task: the adapters that are not there, the longest first, so that jobs end together. Returns their steps. */
static long list_tasks(adapters *a)
{
    char name[64], file[96], settings[512];
    long steps = 0;
    a->task = allocate(a->to - a->from + 1, sizeof *a->task, "the list of experts");
    for (size_t k = a->from; k <= a->to; k++) {
        describe_adapter(a, k, settings, name);
        snprintf(file, sizeof file, "%s/adapter_model.safetensors", name);
        const int made = is_made(file, settings, &err);
        check(made);
        if (made) continue;
        task *t = &a->task[a->n++];
        t->cluster = k, t->n = a->first[k + 1] - a->first[k];
        t->steps = (long)(((size_t)option.epochs * t->n + option.expert_batch - 1) / option.expert_batch);
        steps += t->steps;
    }
    qsort(a->task, a->n, sizeof *a->task, longer_first);
    return steps;
}

/* Make the jobs, and set the threads that each has. By default as many as threads, but no more than fit into a quarter
 * of the machine's memory (of 4 GiB, if that is not known). */
static int make_jobs(adapters *a)
{
    const ttmm_config *c = &a->base.config;
    const size_t have = ttmm_memory(), threads = (size_t)ttmm_threads();
    ttmm_lora like;
    check(ttmm_lora_new(&like, c, option.rank, a->alpha, &err));
    ttmm_set_threads(1);
    const size_t each = ttmm_lora_bytes(c, option.rank) + ttmm_trainer_bytes(c, &like, &a->text, &a->recipe);
    const size_t fit = (have ? have / 4 : (size_t)1 << 30) / each;
    size_t jobs = (size_t)option.jobs;
    if (jobs == 0) jobs = fit < threads ? fit : threads;
    if (jobs > a->n) jobs = a->n;
    if (jobs < 1) jobs = 1;
    ttmm_lora_free(&like);
    ttmm_set_threads((int)threads);
    share_threads(jobs, c);
    a->job = allocate(jobs, sizeof *a->job, "the jobs");
    if (jobs > 1 && !quiet)
        fprintf(stderr, "experts: %zu at once, %.1f MiB each beside model and text\n", jobs, (double)each / 1048576);
    for (job *j = a->job; j < a->job + jobs; j++) {
        check(ttmm_lora_new(&j->lora, c, option.rank, a->alpha, &err));
        check(ttmm_trainer_new(&j->trainer, &a->base, &j->lora, &a->text, &a->recipe, &err));
    }
    return (int)jobs;
}

/* Task i, by that job, if no other process has done it meanwhile. */
static int train_adapter(void *context, size_t i, int number, ttmm_error *e)
{
    adapters *a = context;
    job *j = &a->job[number];
    task *t = &a->task[i];
    const uint64_t stream = a->whole ? UINT64_MAX : t->cluster;
    const unsigned lock = a->whole ? 1 : 2 + (unsigned)t->cluster;
    char name[64], file[96], folder[4200];
    describe_adapter(a, t->cluster, j->settings, name);
    snprintf(folder, sizeof folder, "%s/%s", model, name);
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", name);
    snprintf(name, sizeof name, a->whole ? "finetuned" : "expert-%zu", t->cluster);
    snprintf(j->what, sizeof j->what, a->whole ? "finetune" : "expert %zu of %zu-%zu", t->cluster, a->from, a->to);
    int code = take_lock(lock, TTMM_ALONE, j->what, e);
    const int made = code ? 0 : is_made(file, j->settings, e);
    if (made < 0) code = made;
    if (code == TTMM_OK && made) {
        CRITICAL
        training.steps -= t->steps;
    } else if (code == TTMM_OK) {
        ttmm_lora_init(&j->lora, (uint64_t)option.seed, stream);
        ttmm_trainer_start(j->trainer, a->member + a->first[t->cluster], t->n, 0, option.epochs, stream);
        code = run_trainer(j, name, e);
        if (code == TTMM_OK) code = still_there(e);
        if (code == TTMM_OK) code = ttmm_lora_write(&j->lora, folder, j->settings, e);
        if (code == TTMM_OK) ttmm_remove(NULL, j->checkpoint);
        t->loss = j->loss, t->trained = code == TTMM_OK;
    }
    if (locks) ttmm_lock(locks, lock, TTMM_UNLOCKED);
    if (code < 0) interrupted = 1; /* the others save what they have, and stop */
    return code;
}

static void stage_adapters(int whole)
{
    const char *stage = whole ? "finetune" : "experts";
    const double began = ttmm_seconds();
    const int threads = ttmm_threads();
    adapters a = {.whole = whole};
    double losses = 0;
    size_t trained = 0;
    begin_stage(TTMM_SHARED);
    load_adapters(&a);
    const long steps = list_tasks(&a);
    const int jobs = make_jobs(&a);
    begin_training(stage, jobs, steps);
    end_training(ttmm_parallel(a.n, jobs, train_adapter, &a, &err));
    ttmm_set_threads(threads);
    clear_line();
    for (size_t i = 0; i < a.n; i++) losses += a.task[i].loss, trained += (size_t)a.task[i].trained;
    const size_t all = a.to - a.from + 1;
    if (trained)
        note_stage(stage, began, losses / (double)trained, training.tokens,
                   whole ? "the baseline: finetuned/" : "one adapter a cluster: experts/");
    if (trained < all && !quiet) fprintf(stderr, "%-9s %zu of %zu done before\n", stage, all - trained, all);
    for (job *j = a.job; j < a.job + jobs; j++) {
        ttmm_trainer_free(j->trainer);
        ttmm_lora_free(&j->lora);
    }
    free(a.job);
    free(a.task);
    free(a.member);
    free(a.first);
    ttmm_corpus_free(&a.text);
    ttmm_model_free(&a.base);
}

int main(int argc, char **argv)
{
    static const char **argument; /* static: reachable to the end, wherever that is */
    size_t n, v;
    argv = arguments(&argc, argv);
    argument = allocate((size_t)argc, sizeof *argument, "the arguments");
    const int code = ttmm_command(&v, argument, &n, &program, argc, argv, &err);
    if (code > 0) {
        ttmm_usage(argc < 2 ? stderr : stdout, &program, v);
        return argc < 2 ? -TTMM_BAD_USE : 0;
    }
    check(code);
    ttmm_limit_threads(option.threads);
    const char *verb = verbs[v].name;
    model = argument[0];
    const int all = strcmp(verb, "all") == 0;
    ttmm_corpus text = {0};
    ttmm_tokenizer *read = NULL; /* a base is trained on bytes */
    ttmm_config config = {0};
    if (option.ids) check(ttmm_config_read(&config, model, &err));
    const int unread = strcmp(verb, "index") == 0 ? ttmm_tokenizer_read(&read, model, &err) : TTMM_OK;
    const ttmm_tokenizer *tokenizer = unread ? ttmm_tokenizer_of_ids() : read; /* ids are as good without it */
    if (!option.ids) check(unread);
    if (option.ids) check(ttmm_corpus_from_ids(&text, config.vocab, argument + 1, n - 1, option.context, &err));
    else if (n > 1) check(ttmm_corpus_from_files(&text, tokenizer, argument + 1, n - 1, option.context, &err));
    if (!quiet)
        fprintf(stderr, "train %s, seed %d, %d thread%s\n", verb, option.seed, ttmm_threads(),
                ttmm_threads() == 1 ? "" : "s");
    open_tsv();
    if (all) { /* what is wrong with these is said now, not after the base */
        ttmm_encoder_free(load_encoder(0));
        refuse_foreign_centroids();
    }
    if (all || strcmp(verb, "base") == 0) stage_base(&text);
    if (all || strcmp(verb, "index") == 0) stage_index(&text, tokenizer, option.ids ? config.vocab : 0);
    ttmm_corpus_free(&text);
    ttmm_tokenizer_free(read);
    if (all || strcmp(verb, "cluster") == 0) stage_cluster();
    if (all || strcmp(verb, "experts") == 0) stage_adapters(0);
    if (all || strcmp(verb, "finetune") == 0) stage_adapters(1);
    print_summary();
    return 0;
}
