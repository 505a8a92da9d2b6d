/* locale.c - a host with a locale and signal handlers of its own, and a library that leaves both alone: what it writes
 * has a point whatever the locale, reads back to the same numbers, and options are read so, too.
 *
 *     locale FOLDER LOCALE...        none with a decimal point, as de_DE.UTF-8 */
#include "../../ttmm.h"
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static volatile sig_atomic_t heard;
static void own_handler(int number) { heard = number; }
static int fails(const char *what) { return fprintf(stderr, "locale.c: %s\n", what), 1; }

static int holds(const char *folder, const char *name, const char *part)
{
    char path[500], text[2000] = "";
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (f) text[fread(text, 1, sizeof text - 1, f)] = 0, fclose(f);
    return strstr(text, part) != NULL;
}

int main(int argc, char **argv)
{
    static const ttmm_verb verb = {"go", "", "", 0, 0};
    const ttmm_config c = {8,   1, 2, 1, 4, 8,   257, 8, 1, 1.5e-5, 1234.5, 0, TTMM_ROPE_LINEAR,
                           2.5, 0, 0, 0, 0, {0}, 0,   0};
    double rate = 0;
    const ttmm_option option = {"rate", 'f', &rate, 0, 1, " go ", ""};
    const ttmm_program program = {"host", &verb, 1, &option, 1};
    char *comma[] = {"host", "go", "--rate", "0,5"}, *point[] = {"host", "go", "--rate", "0.25"};
    const char *rest[4];
    size_t n;
    ttmm_error err;
    ttmm_model m, back;
    ttmm_lora l, l_back;
    signal(SIGINT, own_handler), signal(SIGTERM, own_handler);
    for (int i = 2; i < argc; i++) {
        if (setlocale(LC_ALL, argv[i]) == NULL || *localeconv()->decimal_point == '.') return fails("no such locale");
        if (ttmm_model_new(&m, &c, &err) || ttmm_lora_new(&l, &c, 2, 0.1, &err)) return fails(err.text);
        if (ttmm_model_write(&m, argv[1], TTMM_F32, "", &err) || ttmm_lora_write(&l, argv[1], "", &err) ||
            ttmm_model_read(&back, argv[1], &err) || ttmm_lora_read(&l_back, &c, argv[1], &err))
            return fails(err.text);
        if (back.config.norm_eps != 1.5e-5 || back.config.rope_theta != 1234.5 || l_back.alpha != 0.1)
            return fails("other numbers came back");
        if (!holds(argv[1], "config.json", " 1.5e-05,") || !holds(argv[1], "config.json", " 1234.5,") ||
            !holds(argv[1], "config.json", " 2.5}") || !holds(argv[1], "adapter_config.json", " 0.1,"))
            return fails("the files have other numbers");
        if (ttmm_command(&n, rest, &n, &program, 4, comma, &err) != TTMM_BAD_USE) return fails("--rate 0,5 is taken");
        if (ttmm_command(&n, rest, &n, &program, 4, point, &err) || rate != 0.25) return fails("--rate 0.25 is not");
        if (*localeconv()->decimal_point == '.') return fails("the locale was changed");
        ttmm_model_free(&m), ttmm_model_free(&back), ttmm_lora_free(&l), ttmm_lora_free(&l_back);
    }
    if (signal(SIGTERM, SIG_DFL) != own_handler || raise(SIGINT) || heard != SIGINT)
        return fails("a handler was changed");
    return 0;
}
