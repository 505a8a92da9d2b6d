/* files.c - all that ttmm.c reads and writes, that writing is atomic, and where else numbers come from outside: options
 * and sizes. What is expected is made by other means here: files by hand, numbers with ldexp. In JSON ' stands for ",
 * and a list of cases is one text with "; " between them. All files go into FOLDER, which is removed in the end. */
#include "test.h"

#define FOLDER (sizeof(real) == 4 ? "test/build/files-f32.d" : "test/build/files-f64.d") /* without .d: the program */

static ttmm_error err;

static int next(const char **list, char item[500]) /* "one; two" item by item; 0 and an empty one at the end */
{
    const size_t n = strcspn(*list += strspn(*list, "; "), ";");
    snprintf(item, 500, "%.*s", (int)n, *list);
    *list += n;
    return n > 0;
}

static const char *at(const char *name) /* a path in FOLDER, good for the next 64 calls */
{
    static char path[64][700];
    static unsigned used;
    char *p = path[used++ % 64];
    snprintf(p, sizeof *path, "%s/%s", FOLDER, name);
    return p;
}

static char *quoted(const char *text) /* with " for ', good until the next call */
{
    static char out[1 << 18];
    snprintf(out, sizeof out, "%s", text);
    for (char *p = out; *p; p++) *p = *p == '\'' ? '"' : *p;
    return out;
}

static void little_endian(void *to, uint64_t u, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++, u /= 256) ((unsigned char *)to)[i] = (unsigned char)(u % 256);
}

/* A file of a text and bytes; a safetensors file if length, which stands before its header, is not 0. */
static void put(const char *name, uint64_t length, const char *text, const void *data, size_t n)
{
    char first[8];
    little_endian(first, length, 8);
    remove(at(name));
    FILE *f = fopen(at(name), "wb");
    CHECK(f && (!length || fwrite(first, 1, 8, f) == 8) && fputs(quoted(text), f) >= 0 && fwrite(data, 1, n, f) == n);
    if (f) fclose(f);
}

typedef struct {
    size_t n;
    char at[1 << 18]; /* and a zero byte */
} contents;

static contents *get(const char *name) /* n = 0 if there is none; good until the next call */
{
    static contents c;
    FILE *f = fopen(at(name), "rb");
    c.at[c.n = f ? fread(c.at, 1, sizeof c.at - 1, f) : 0] = 0;
    if (f) fclose(f);
    return &c;
}

/* What is in FOLDER, unless a test is at work on it: a model, an adapter and texts. */
static const ttmm_config tiny = {8, 3, 4, 4, 2, 6, TTMM_BYTES, 32,         0, 1e-5, 10000,
                                 0, 0, 0, 0, 0, 0, 1,          {TTMM_END}, 0, 0};
static const ttmm_recipe recipe = {{0.05, 0.2, 0.1, 1}, 0.9, 0.99, 1e-8, 0.01, 1, 2, 1, 7};
static ttmm_model model;
static ttmm_lora lora;
static ttmm_corpus corpus;
static ttmm_trainer *trainer;

static int writes(const char *file)
{
    return strstr(file, "adapter")      ? ttmm_lora_write(&lora, FOLDER, "", &err)
           : strstr(file, "corpus")     ? ttmm_corpus_write(&corpus, FOLDER, "", &err)
           : strstr(file, "checkpoint") ? ttmm_trainer_save(trainer, at(file), "settings", &err)
                                        : ttmm_model_write(&model, FOLDER, TTMM_REAL, "", &err);
}

static int reads(const char *file)
{
    ttmm_model m = {0};
    ttmm_lora l = {0};
    ttmm_corpus c = {0};
    safetensors s = {0};
    int code = strstr(file, "adapter")  ? ttmm_lora_read(&l, &tiny, FOLDER, &err)
               : strstr(file, "corpus") ? ttmm_corpus_read(&c, FOLDER, TTMM_BYTES, &err)
               : strstr(file, "bad")    ? open_safetensors(&s, NULL, at(file), &err)
                                        : ttmm_model_read(&m, FOLDER, &err);
    for (size_t i = 0; code == TTMM_OK && i < m.n; i++) code = m.data[i] - m.data[i] == 0 ? TTMM_OK : 1; /* finite */
    if (s.f) close_safetensors(&s);
    ttmm_model_free(&m), ttmm_lora_free(&l), ttmm_corpus_free(&c);
    return code;
}

/* A file with one thing of its text changed is refused: a list of "from|to|what the sentence names" (else: odd). In the
 * end the text as it is, which is read. */
static void refuses(const char *file, const char *where, const char *text, const char *list)
{
    static char way[500], changed[4096];
    const int header = strstr(file, "json") == NULL;
    for (int more = 1; more;) {
        more = next(&list, way);
        strcat(more ? way : strcpy(way, "|"), "|odd|");
        char *to = strchr(way, '|') + 1, *word = strchr(to, '|') + 1, *place;
        to[-1] = word[-1] = *strchr(word, '|') = 0;
        CHECK((place = strstr(text, way)) != NULL);
        snprintf(changed, sizeof changed, "%.*s%s%s", (int)(place - text), text, to, place + strlen(way));
        put(file, header ? strlen(changed) : 0, changed, "0123456789abcdef", header ? 16 : 0);
        GIVES(changed, reads(file), more ? TTMM_BAD_INPUT : TTMM_OK, at(where), word);
    }
}

/* So is one with a number changed: "tensor index number"; or without a tensor: "tensor". */
static void refuses_numbers(const char *file, const char *list)
{
    char item[500], name[200], number[40] = "";
    safetensors s;
    while (DONE(writes(file)) && DONE(reads(file)) && next(&list, item) &&
           DONE(open_safetensors(&s, NULL, at(file), &err))) {
        unsigned i;
        const int parts = sscanf(item, "%199s %u %39s", name, &i, number);
        const stored *t = find_tensor(&s, name);
        const size_t width = t ? dtype_table[t->dtype].bytes : 0;
        const uint64_t nan = sizeof(real) == 4 ? 0x7fc00000 : 0x7ff8000000000000, bits = strtoull(number, NULL, 10);
        contents *c = get(file);
        CHECK(t != NULL);
        if (t && parts == 3) little_endian(c->at + t->begin + i * width, number[0] == 'n' ? nan : bits, width);
        else if (t) *strstr(c->at + 8, name) = 'X';
        close_safetensors(&s);
        put(file, 0, "", c->at, c->n);
        GIVES(item, reads(file), TTMM_BAD_INPUT, at(file), name);
    }
}

static void has(const char *file, const char *list) /* each tensor, with its shape; in JSON each text */
{
    for (char item[500], name[200] = "", shape[20] = "", entry[300]; next(&list, item);) {
        const int parts = sscanf(item, "%199s [%19[0-9,]", name, shape), bits = (int)sizeof(real) * 8;
        snprintf(entry, sizeof entry, "'%s.weight':{'dtype':'F%d','shape':[%s]", name, bits, shape);
        CHECK_TEXT(get(file)->at + (parts == 2 ? 8 : 0), quoted(parts == 2 ? entry : item));
    }
}

static int parses(const char *text, size_t bytes) /* from a block of its own, so that reading outside is seen */
{
    json j = {.path = "f.json", .text = calloc(bytes + 1, 1), .bytes = bytes};
    memcpy(j.text, text, bytes);
    int code = json_parse(&j, &err);
    json_close(&j);
    return code;
}

static const char document[] = " {'a': {'b' : [1, -2.5e3 ,{}, [ ], [['x']]], 'c': null},\t'd': true,\r\n'e\\'\\\\': "
                               "'}\\u00e9\\\\', 'f':false, '': '', 'g': 18446744073709551615, 'h': 0.1}";

/* Every kind of value is found where it stands, with its text whole. */
static void json_valid(void)
{
    json j;
    double x = 0;
    uint64_t u = 0;
    put("f.json", 0, document, "", 0);
    if (!DONE(json_open(&j, FOLDER, "f.json", &err))) return;
    const int a = json_find(&j, 0, "a"), b = json_find(&j, a, "b"), h = json_find(&j, 0, "h");
    int child = j.node[b].child, n = 0;
    CHECK(json_find(&j, a, "c") == -1 && json_find(&j, 0, "b") == -1 && json_find(&j, b, "b") == -1); /* null: absent */
    CHECK(json_integer(&j, child, &u) && u == 1 && json_integer(&j, json_find(&j, 0, "g"), &u) && u == UINT64_MAX);
    CHECK(json_number(&j, h, &x) && x == 0.1 && !json_integer(&j, h, &u) && !json_number(&j, a, &x));
    for (; child >= 0; child = j.node[child].next, n++) CHECK_EQUAL(j.node[child].type, "00{[["[n]);
    CHECK(n == 5 && j.node[json_find(&j, 0, "d")].type == 't' && j.node[json_find(&j, 0, "f")].type == 'f');
    CHECK(json_equal(&j, json_find(&j, 0, "e\"\\"), "}\xc3\xa9\\") && json_equal(&j, json_find(&j, 0, ""), ""));
    json_close(&j);
}

/* What is no JSON object is refused, wherever it is cut and however deep it is nested. */
static void json_malformed(void)
{
    const char *list =
        "{; }; []; [; 1; 'a'; null; {,}; {'a'}; {'a':}; {'a':1,}; {'a':1,,'b':2}; {'a' 1}; {'a':1 'b':2}; {a:1}; "
        "{'a':1:2}; {1:2}; {[]:1}; {`a`:1}; {'a':[1,]}; {'a':[,1]}; {'a':[1 2]}; {'a':[1:2]}; {'a':[1,2}; {'a':1]; "
        "{'a':tru}; {'a':nul; {'a':True}; {'a':'b}; {'a':'b\\'}; {'a':'b\\; {'a':'\n'}; {'a':1} x; {'a':1}}; "
        "{'a':1}{}; {'a':+1}; {'a':.5}; {'a':nan}; {'a':Inf}; {'a':'\\x'}; {'a':'\\u12g4'}";
    static char deep[200001 + 8];
    for (char text[500]; next(&list, text);)
        GIVES(text, parses(quoted(text), strlen(text)), TTMM_BAD_INPUT, "f.json: ", "JSON");
    for (size_t n = 0; n + 1 < sizeof document; n++) REFUSED(parses(quoted(document), n), "f.json: ", "JSON");
    REFUSED(parses("{}\0x", 4), "f.json: ", "JSON");
    REFUSED(parses("\xef\xbb\xbf{}", 5), "f.json: ", "byte-order mark");
    for (size_t depth = 30; depth <= 100000; depth = depth == 30 ? 1000 : depth * 10) { /* closed, then open */
        memcpy(deep, "{\"a\":", 5), memset(deep + 5, '[', depth), memset(deep + 5 + depth, ']', depth);
        deep[5 + 2 * depth] = '}';
        GIVES("deep", parses(deep, 2 * depth + 6), depth == 30 ? TTMM_OK : TTMM_BAD_INPUT, "f.json: ", "JSON");
        REFUSED(parses(deep, depth + 5), "f.json: ", "JSON");
    }
}

/* A small file, byte for byte: length, header padded with blanks to a multiple of 8, little-endian numbers. */
static void tensors_by_hand(void)
{
    const real x[2] = {1, (real)-2.5};
    const int wide = sizeof(real) == 8;
    const char *numbers = wide ? "\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\x04\xc0" : "\0\0\x80\x3f\0\0\x20\xc0";
    const char *header = wide ? "{'__metadata__':{'format':'pt','ttmm':'a note'},"
                                "'abc':{'dtype':'F64','shape':[1,2],'data_offsets':[0,16]}}      "
                              : "{'__metadata__':{'format':'pt','ttmm':'a note'},"
                                "'abc':{'dtype':'F32','shape':[1,2],'data_offsets':[0,8]}}       ";
    const ttmm_array abc = {"abc", 1, 2, x, NULL};
    DONE(ttmm_arrays_write(&abc, 1, at("x"), "a note", &err));
    const contents *c = get("x");
    CHECK(c->n == 8 + 112 + sizeof x && memcmp(c->at, "\x70\0\0\0\0\0\0", 8) == 0);
    CHECK(memcmp(c->at + 8, quoted(header), 112) == 0 && memcmp(c->at + 8 + 112, numbers, sizeof x) == 0);
}

/* Every dtype that is written: where its bytes stand, and that they come back as they were, or not at all. */
static void tensors_round_trip(void)
{
    enum { N = 5000 };
    static real x[N], back[N];
    const size_t z[3] = {0, 0x01020304, 0x80000000}, bytes[4] = {N * sizeof(real), 24, 12, 4};
    const int k[3] = {0x01020304, INT_MAX, -1};
    const char end[] = "\4\3\2\1\0\0\0\0\0\0\0\x80\0\0\0\0\4\3\2\1\xff\xff\xff\x7f\xff\xff\xff\xff?\0\xff";
    size_t offset = 0;
    char offsets[64];
    safetensors s;
    test_fill(x, N, "numbers", 0);
    x[0] = (real)-0.0, x[1] = (real)(sizeof(real) == 4 ? 0x1p-149 : 0x1p-1074), x[2] = -3 * x[1];
    const stored t[4] = {store("reals", TTMM_REAL, N / 10, 10, x), store("sizes", I64, 3, 0, z),
                         store("ints", I32, 3, 0, k), store("bytes", U8, 4, 0, end + 28)};
    DONE(write_safetensors(NULL, at("bad"), t, 4, "", &err));
    const contents *c = get("bad");
    for (int i = 0; i < 4; offset += bytes[i++]) { /* no gaps, none left at the end */
        snprintf(offsets, sizeof offsets, "'data_offsets':[%zu,%zu]", offset, offset + bytes[i]);
        CHECK_TEXT(c->at + 8, quoted(offsets));
    }
    CHECK(c->at[0] % 8 == 0 && c->n == 8 + (unsigned char)c->at[0] + 256 * (size_t)c->at[1] + offset);
    CHECK(memcmp(c->at + c->n - 32, end, 32) == 0);
    if (!DONE(open_safetensors(&s, NULL, at("bad"), &err))) return;
    CHECK(DONE(read_tensor(&s, "reals", back, TTMM_REAL, N / 10, 10, &err)) && memcmp(x, back, sizeof x) == 0);
    REFUSED(read_tensor(&s, "reals", back, I32, N / 10, 10, &err), "/bad: tensor reals", "I32");
    REFUSED(read_tensor(&s, "ints", back, I64, 3, 1, &err), "/bad: tensor ints", "-1"); /* no index */
    REFUSED(read_tensor(&s, "sizes", back, I32, 3, 1, &err), "/bad: tensor sizes", "2147483648");
    close_safetensors(&s);
}

/* All 65536 numbers of F16 and of BF16. */
static void tensors_of_halves(void)
{
    for (int b = 0; b < 2; b++) {
        const int bits = b ? 7 : 10, most = b ? 255 : 31, low = b ? -133 : -24; /* of the fraction; 2^low the least */
        long wrong = 0;
        for (int u = 0; u < 65536; u++) {
            const int e = u >> bits & most, f = u & ((1 << bits) - 1);
            const double size = e ? ldexp((1 << bits) + f, e - 1 + low) : ldexp(f, low), x = u >> 15 ? -size : size;
            const double found = decode_number((uint64_t)u, b ? BF16 : F16);
            if (e == most) wrong += f ? found == found : found != (u >> 15 ? -INFINITY : INFINITY);
            else wrong += memcmp(&found, &x, sizeof x) != 0;
        }
        CHECK_EQUAL(wrong, 0);
    }
}

/* A number becomes a real, rounded to nearest; what is not finite, or would not be as a real, is refused. */
static void tensors_of_floats(void)
{
    const char *list = /* dtype, bits, value; ? is 2^128, too large for a float */
        "F32 3f800000 1; F32 c0490fdb -0x1.921fb6p+1; F32 1 0x1p-149; F32 80000000 -0; F32 7f7fffff 0x1.fffffep127; "
        "F64 3fb999999999999a 0.1; F64 3ff0000010000000 0x1.000001p0; F64 3ff0000030000000 0x1.000003p0; "
        "F64 8000000000000001 -0x1p-1074; F64 47efffffe0000000 0x1.fffffep127; F64 47f0000000000000 ?; "
        "F16 3ff 0x3ffp-24; F16 c248 -3.140625; BF16 c049 -3.140625; F16 7c00 nan; F16 fc00 nan; F16 7e00 nan; "
        "F16 7c01 nan; BF16 7f80 nan; BF16 ffc0 nan; F32 7f800000 nan; F32 ff800000 nan; F32 7fc00000 nan; "
        "F64 7ff0000000000000 nan; F64 fff8000000000000 nan; I32 1 nan";
    for (char item[500]; next(&list, item);) {
        char dtype[8], value[40], header[128], data[8];
        unsigned long long bits;
        size_t rows, cols;
        real *x;
        CHECK(sscanf(item, "%7s %llx %39s", dtype, &bits, value) == 3);
        const size_t bytes = strstr(dtype, "64") ? 8 : strstr(dtype, "32") ? 4 : 2;
        const real v = (real)(value[0] != '?' ? strtod(value, NULL) : sizeof(real) == 4 ? (double)NAN : 0x1p128);
        snprintf(header, sizeof header, "{'odd':{'dtype':'%s','shape':[1],'data_offsets':[0,%d]}}", dtype, (int)bytes);
        little_endian(data, bits, bytes);
        put("x", strlen(header), header, data, bytes);
        const int code = v == v ? TTMM_OK : TTMM_BAD_INPUT; /* any name is good, there is only one */
        if (GIVES(item, ttmm_array_read(&x, &rows, &cols, at("x"), "?", &err), code, at("x"), "odd") && x)
            CHECK(rows == 1 && cols == 1 && memcmp(x, &v, sizeof v) == 0);
        free(x);
    }
}

/* Headers that are wrong in one place; files that do not hold what their header says. */
static void tensors_malformed(void)
{
    const char good[] = "{'odd':{'dtype':'F32','shape':[4],'data_offsets':[0,16]}}";
    const uint64_t length[6] = {sizeof good + 16, 1000, 0x7fffffff, 0x80000000, UINT64_MAX, (uint64_t)1 << 63};
    static char text[200000];
    refuses("bad", "bad", good, /* among them some that wrap to 4, overlap, are no JSON */
            "'F32'|7; 'dtype':'F32',|; F32|F16; 'shape':[4],|; [4]|[1,1,1,1,1,1,1,2,3]; [4]|[-4]; [4]|[-2,-2]; "
            "[4]|[4.0]; "
            "[4]|['4']; [4]|[[4]]; [4]|[3]; [4]|[]; [4]|[18446744073709551620]; [4]|[18446744073709551615,2]; "
            "[4]|[4611686018427387908]; 0,16|0,12; 0,16|1,17; 0,16|16,32; 0,16|16,0; 0,16|-16,0; 0,16|0; 0,16|; "
            "[0,16]|16; [0,16]|'ab'; 0,16|0,'16'; 0,16|0,16.0; 0,16|0,16,32; 'odd'|'a':null,'odd'|a; "
            "0,16|18446744073709551599,18446744073709551615; 0,16|18446744073709551616,18446744073709551632; "
            ",'data_offsets':[0,16]|; [4],'data_offsets':[0,16]|[4294967296,4294967296],'data_offsets':[0,0]; "
            "[4],'data_offsets':[0,16]|[0,18446744073709551615],'data_offsets':[0,0]; "
            "[4],'data_offsets':[0,16]|[5],'data_offsets':[0,20]; [4],'data_offsets':[0,16]|4,'data_offsets':[0,4]; "
            "[4],'data_offsets':[0,16]|'4','data_offsets':[0,4]; [4],'data_offsets':[0,16]|[1],'data_offsets':{'0':4}; "
            "'odd'|'a':5,'odd'|a; 'odd'|'a':[],'odd'|a; }}|},'b':{'dtype':'F32','shape':[3],'data_offsets':[4,16]}}; "
            "}}|},'b':{'dtype':'U8','shape':[1],'data_offsets':[15,16]}}; "
            "'odd'|'b':{'dtype':'U8','shape':[16],'data_offsets':[0,16]},'odd'; {'odd'|odd|; {'odd'|[{'odd'|; }}|}|");
    put("bad", strlen(good), good, text, 15);
    REFUSED(reads("bad"), at("bad"), "odd");
    for (size_t i = 0; i < 6 + 9; i++) { /* headers past the end; then empty ... 7 bytes, and a header of none */
        put("bad", i < 6 ? length[i] : 0, i < 6 ? good : "", text, i < 6 ? 16 : i - 6);
        REFUSED(reads("bad"), at("bad"), "");
    }
    remove(at("bad"));
    REFUSED(reads("bad"), at("bad"), "");
}

/* Each byte belongs to one tensor: no gap before the first, between two, behind the last. Empty ones may stand at any
 * border. */
static void tensors_gaps(void)
{
    static const char *const offsets[][5] = {/* of two tensors of 4 bytes and an empty one; bytes; what is said */
                                             {"0,4", "4,8", "0,0", "8", ""},
                                             {"4,8", "0,4", "4,4", "8", ""},
                                             {"0,4", "4,8", "8,8", "8", ""},
                                             {"0,4", "4,8", "8,8", "9", "last 1 bytes"},
                                             {"0,4", "5,9", "0,0", "9", "1 bytes before tensor b"},
                                             {"6,10", "0,4", "4,4", "10", "2 bytes before tensor a"},
                                             {"3,7", "7,11", "3,3", "11", "3 bytes before tensor c"},
                                             {"0,4", "4,8", "9,9", "9", "1 bytes before tensor c"},
                                             {"0,4", "4,8", "2,2", "8", "overlap"}};
    char header[300];
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        const char *const *o = offsets[i];
        sprintf(
            header,
            "{'a':{'dtype':'F32','shape':[1],'data_offsets':[%s]},'b':{'dtype':'U8','shape':[4],'data_offsets':[%s]},"
            "'c':{'dtype':'F32','shape':[0],'data_offsets':[%s]}}",
            o[0], o[1], o[2]);
        put("bad", strlen(header), header, "0123456789abcdef", (size_t)atoi(o[3]));
        GIVES(header, reads("bad"), *o[4] ? TTMM_BAD_INPUT : TTMM_OK, at("bad"), o[4]);
    }
    put("bad", 2, "{}", "0", 1);
    REFUSED(reads("bad"), at("bad"), "last 1 bytes");
    put("bad", 2, "{}", "", 0);
    CHECK_EQUAL(reads("bad"), TTMM_OK);
}

/* In any JSON a key that an object has twice is refused, also spelled with escapes; in two objects it may stand. */
static void keys_twice(void)
{
    static char large[200000];
    const char *list =
        "{'a':1,'a':1}; {'a':1,'b':{'':1,'':2}}; {'a':[{'b':1},{'c':2,'b':0,'c':3}]}; {'a':1,'\\u0061':2}; "
        "{'a/':1,'a\\/':2}; {'\\u00e9':1,'\xc3\xa9':2}; {'\\ud83d\\ude00':1,'\xf0\x9f\x98\x80':2}; "
        "{'\\ud83d':1,'\\ude00':2}; {'\\n':1,'\\u000A':1}";
    for (char text[500]; next(&list, text);) REFUSED(parses(quoted(text), strlen(text)), "f.json: ", "twice");
    CHECK(parses("{\"a\":{\"b\":1,\"c\":1},\"b\":{\"a\":1,\"b\":1},\"\":0,\"aa\":1}", 49) == TTMM_OK);
    for (int n = 10; n <= 10000; n *= 10)
        for (int twice = 0; twice < 2; twice++) { /* the last one is the one before it, or not */
            size_t length = 1;
            for (int i = 0; i <= n; i++)
                length += (size_t)snprintf(large + length, sizeof large - length, "\"%d\":%d%s", i - (twice && i == n),
                                           i, i < n ? "," : "}");
            large[0] = '{';
            GIVES("many", parses(large, length), twice ? TTMM_BAD_INPUT : TTMM_OK, twice ? "f.json: " : "",
                  twice ? "twice" : "");
        }
}

/* A tensor of another type, of many dimensions, with a long name stands in nobody's way; who needs it is told. */
static void tensors_not_needed(void)
{
    static const char odd[] = "'odd':{'dtype':'F32','shape':[2],'data_offsets':[0,8]}";
    const char *list =
        "'x':{'dtype':'F8_E4M3','shape':[8],|F8_E4M3 [8]; 'x':{'dtype':'NEW','shape':[3, 5],|NEW [3, 5]; "
        "'x':{'dtype':'F16','shape':[1,1,1,1,1,1,1,2,2],|[1, 1, 1, 1, 1, 1, 1, 2, 2]; "
        "'x':{'dtype':'BOOL','shape':[8],|BOOL; 'x':{'dtype':'U16','shape':[2,2],|U16; "
        "'x':{'dtype':'I8','shape':[8],|I8; 'x':{'dtype':'U64','shape':[1],|U64";
    char item[500], header[1000];
    real x[2];
    safetensors s;
    while (next(&list, item)) {
        char *shown = strchr(item, '|');
        *shown++ = 0;
        snprintf(header, sizeof header, "{%s'data_offsets':[8,16]},%s}", item, odd);
        put("bad", strlen(header), header, "\0\0\x80\x3f\0\0\0\x40________", 16);
        if (!DONE(open_safetensors(&s, NULL, at("bad"), &err))) continue;
        CHECK(DONE(read_tensor(&s, "odd", x, TTMM_REAL, 2, 1, &err)) && x[0] == 1 && x[1] == 2);
        REFUSED(read_numbers(&s, find_tensor(&s, "x"), x, TTMM_REAL, &err), "tensor x is", shown);
        close_safetensors(&s);
    }
    static char text[200000];
    for (int n = 160; n <= 160000; n *= 10) { /* a very long name */
        snprintf(text, sizeof text, "{'%0*d':{'dtype':'F32','shape':[2],'data_offsets':[8,16]},%s}", n, 1, odd);
        put("bad", strlen(text), text, text, 16);
        DONE(reads("bad"));
    }
}

/* Of 20000 tensors in no order, some names the beginnings of others, each is found, and none that is not there. */
static void tensors_of_many(void)
{
    enum { N = 20000 };
    static ttmm_array array[N];
    static real value[N];
    ttmm_rng g = ttmm_stream(1, "tensors", 0);
    safetensors s;
    size_t wrong = 0;
    for (size_t i = 0; i < N; i++) { /* i to a place that is drawn, what is there to the end */
        const size_t at = (size_t)ttmm_below(&g, i + 1);
        array[i] = array[at], value[i] = (real)i;
        array[at] = (ttmm_array){"", 1, 0, &value[i], NULL};
        snprintf(array[at].name, sizeof array[at].name, "x%zu", i);
    }
    if (!DONE(ttmm_arrays_write(array, N, at("many"), "", &err))) return;
    if (!DONE(open_safetensors(&s, NULL, at("many"), &err))) return;
    for (size_t i = 0; i < N; i++) {
        char name[20];
        real x = -1;
        snprintf(name, sizeof name, "x%zu", i);
        wrong += read_tensor(&s, name, &x, TTMM_REAL, 1, 1, &err) != TTMM_OK || x != (real)i;
    }
    CHECK_EQUAL(wrong, 0);
    CHECK(!find_tensor(&s, "") && !find_tensor(&s, "x") && !find_tensor(&s, "x20000") && !find_tensor(&s, "y"));
    close_safetensors(&s);
    remove(at("many"));
}

/* Tied and untied, grouped queries or not: the same config and bits come back; a byte vocabulary has a tokenizer. */
static void model_round_trip(void)
{
    const ttmm_config shape[] = {
        {8, 1, 4, 4, 2, 6, 11, 1, 1, 0, 500000, 0, 0, 0, 0, 0, 0, 0, {0}, 0, 0},
        {8, 3, 6, 2, 4, 7, 5, 9, 1, 0.1 / 3, 1e4 / 7, 0, 0, 0, 0, 0, 0, 0, {0}, 4, 0},
        {8, 2, 2, 1, 4, 6, TTMM_BYTES, 32, 0, 1e-5, 10000, 0, 0, 0, 0, 0, 0, 1, {TTMM_END}, 0, 1}};
    for (int i = 0; i < 3; i++) {
        const ttmm_config *c = &shape[i];
        ttmm_model m, r;
        DONE(ttmm_model_new(&m, c, &err));
        test_fill(m.data, m.n, "weights", (uint64_t)i);
        DONE(ttmm_model_write(&m, at("a/model"), TTMM_REAL, "", &err));
        CHECK(ttmm_exists(at("a/model"), "tokenizer.json") == (c->vocab == TTMM_BYTES));
        if (!DONE(ttmm_model_read(&r, at("a/model"), &err))) return;
        CHECK(memcmp(&r.config, c, 9 * sizeof(int)) == 0 && r.config.bos == c->bos && r.config.pad == c->pad);
        CHECK(r.config.norm_eps == c->norm_eps && r.config.rope_theta == c->rope_theta);
        CHECK(r.n == m.n && memcmp(r.data, m.data, m.n * sizeof(real)) == 0);
        CHECK((strstr(get("a/model/model.safetensors")->at + 8, "lm_head") == NULL) == c->tied);
        ttmm_model_free(&m), ttmm_model_free(&r);
    }
}

/* Names and shapes are Hugging Face's, config.json a LlamaConfig, the tokens of tokenizer.json those of ByteLevel. */
static void model_format(void)
{
    json j;
    int other = 256, n = 0;
    has("config.json",
        "'architectures': ['LlamaForCausalLM']; 'model_type': 'llama'; 'hidden_size': 8; 'intermediate_size': 6; "
        "'num_hidden_layers': 3; 'num_attention_heads': 4; 'num_key_value_heads': 4; 'head_dim': 2; 'vocab_size': 257; "
        "'max_position_embeddings': 32; 'rms_norm_eps': 1e-05; 'rope_theta': 1; 'tie_word_embeddings': false; "
        "'hidden_act': 'silu'; 'eos_token_id': 256");
    has("model.safetensors",
        "model.layers.2.self_attn.q_proj [8,8]; model.layers.1.self_attn.k_proj [8,8]; lm_head [257,8]; "
        "model.layers.0.self_attn.v_proj [8,8]; model.layers.1.self_attn.o_proj [8,8]; model.embed_tokens [257,8]; "
        "model.layers.0.mlp.gate_proj [6,8]; model.layers.0.mlp.up_proj [6,8]; model.layers.2.mlp.down_proj [8,6]; "
        "model.layers.0.input_layernorm [8]; model.layers.2.post_attention_layernorm [8]; model.norm [8]");
    if (!DONE(json_open(&j, FOLDER, "tokenizer.json", &err))) return;
    const int vocab = json_find(&j, json_find(&j, 0, "model"), "vocab");
    for (int k = j.node[vocab].child; k >= 0; k = j.node[j.node[k].next].next, n++) {
        char name[20];
        const int prints = (n > ' ' && n <= '~') || (n > 0xa0 && n != 0xad); /* others: 256, 257 ... */
        uint64_t id = 0;
        CHECK(json_integer(&j, j.node[k].next, &id) && id == (uint64_t)n);
        if (n == TTMM_END) CHECK(json_equal(&j, k, "<|endoftext|>"));
        else if (json_text(name, sizeof name, &j, k) == 1) CHECK(prints && name[0] == n);
        else CHECK_EQUAL(((name[0] & 0x1f) << 6) + (name[1] & 0x3f), prints ? n : other++); /* U+0080 to U+07FF */
    }
    CHECK(n == TTMM_BYTES && other == 256 + 68);
    json_close(&j);
}

static const char llama[] =
    "{'model_type': 'llama', 'hidden_size': 8, 'num_hidden_layers': 3, 'num_attention_heads': 4, 'vocab_size': 257, "
    "'intermediate_size': 6, 'rope_scaling': null}";

/* Keys that may be missing have LlamaConfig's defaults; transformers 5 has rope_theta in rope_parameters. */
static void config_defaults(void)
{
    const char *list = "'rope_theta': 500000; 'rope_parameters': {'rope_theta': 5e5, 'rope_type': 'default'}; "
                       "'rope_parameters': {'rope_theta': 5e5}";
    ttmm_config c;
    put("config.json", 0, llama, "", 0);
    if (!DONE(ttmm_config_read(&c, FOLDER, &err))) return;
    CHECK(c.dim == 8 && c.n_layers == 3 && c.n_heads == 4 && c.n_kv_heads == 4 && c.head_dim == 2 && c.vocab == 257);
    CHECK(c.intermediate == 6 && c.context == 2048 && !c.tied && c.norm_eps == 1e-6 && c.rope_theta == 10000);
    for (char item[500], text[1000]; next(&list, item);) {
        snprintf(text, sizeof text, "{%s,%s", item, llama + 1);
        put("config.json", 0, text, "", 0);
        CHECK(DONE(ttmm_config_read(&c, FOLDER, &err)) && c.rope_theta == 5e5);
    }
}

/* What is missing, would change the result, is not finite or does not fit the tensors is refused by its name. */
static void model_refused(void)
{
    refuses("config.json", "config.json", llama,
            "'llama', 'hidden_size'|'gpt2', 'n_embd'|model_type; "
            "'llama'|'mistral'|model_type; 'model_type': 'llama', ||model_type; 'hidden_size': 8, ||hidden_size; "
            "'num_hidden_layers': 3, ||num_hidden_layers; 'num_attention_heads': 4, ||num_attention_heads; "
            "'vocab_size': 257, ||vocab_size; 'intermediate_size': 6, ||intermediate_size; : 8|: 8.5|hidden_size; "
            ": 8|: '8'|hidden_size; : 8|: -8|hidden_size; : 8|: 0|; : 8|: 4294967304|hidden_size; : 3|: 99999999|; "
            "{|{'num_key_value_heads': 3,|heads; {|{'hidden_act': 'gelu',|hidden_act; {|{'mlp_bias': true,|mlp_bias; "
            "{|{'attention_bias': true,|attention_bias; {|{'quantization_config': {'bits': 4},|quantization_config; "
            "g': null|g': {'rope_type': 'llama3', 'factor': 32.0}|low_freq_factor; {|{'rope_theta': -1,|rope_theta; "
            "{|{'rope_parameters': {'rope_type': 'yarn', 'rope_theta': 1e4},|rope_type; "
            "{|{'rms_norm_eps': 2,|rms_norm_eps; {|{'rms_norm_eps': '1e-5',|rms_norm_eps; {|{'rope_theta': 1.2.3,|; "
            "{|{'tie_word_embeddings': 'yes',|tie_word_embeddings");
    refuses(
        "config.json", "model.safetensors", llama,
        ": 6,|: 7,|0.mlp.gate_proj.weight is [6, 8], expected [7, 8]; : 3|: 4|3.self_attn.q_proj.weight is missing; "
        "'hidden_size': 8|'head_dim': 2, 'hidden_size': 9|0.self_attn.q_proj.weight is [8, 8], expected [8, 9]; "
        "{|{'num_key_value_heads': 2,|model.layers.0.self_attn.k_proj.weight is [8, 8], expected [4, 8]");
    refuses_numbers("model.safetensors", "model.layers.1.mlp.up_proj.weight 7 nan; model.norm.weight 0 nan; "
                                         "lm_head.weight; model.layers.2.self_attn.v_proj.weight");
}

/* A checkpoint in two files, its tensors by turns in the one and the other, is the same model; an index that names no
 * file, or one elsewhere, is refused. */
static void model_in_shards(void)
{
    const size_t n = ttmm_n_tensors(&tiny);
    const char *const file[] = {"one.safetensors", "two.safetensors"};
    static char index[8000], wrong[8000];
    ttmm_array part[2][64];
    size_t parts[2] = {0, 0}, length = 0;
    ttmm_model r;
    length += (size_t)snprintf(index, sizeof index, "{'metadata': {'total_size': 1}, 'weight_map': {");
    for (size_t i = 0; i < n; i++) {
        part[i % 2][parts[i % 2]++] = ttmm_model_tensor_at(&model, i);
        length += (size_t)snprintf(index + length, sizeof index - length, "%s'%s': '%s'", i ? ", " : "",
                                   ttmm_model_tensor_at(&model, i).name, file[i % 2]);
    }
    snprintf(index + length, sizeof index - length, "}}");
    DONE(ttmm_model_write(&model, at("shards"), TTMM_REAL, "", &err));
    DONE(ttmm_arrays_write(part[0], parts[0], at("shards/one.safetensors"), "", &err));
    DONE(ttmm_arrays_write(part[1], parts[1], at("shards/two.safetensors"), "", &err));
    CHECK(ttmm_remove(at("shards"), "model.safetensors"));
    put("shards/model.safetensors.index.json", 0, index, "", 0);
    if (!DONE(ttmm_model_read(&r, at("shards"), &err))) return;
    CHECK(r.n == model.n && memcmp(r.data, model.data, r.n * sizeof(real)) == 0);
    ttmm_model_free(&r);
    const char *const change[][3] = {{"'model.norm.weight'", "'model.gnorm.weigh'", "no file for model.norm.weight"},
                                     {"'two.safetensors'", "'../.safetensors'", "expected the name of a file"},
                                     {"'two.safetensors'", "'six.safetensors'", "six.safetensors"},
                                     {"'weight_map'", "'weight-map'", "no file for"},
                                     {"'two.safetensors'", "  2              ", "no file for"}};
    for (size_t i = 0; i < sizeof change / sizeof *change; i++) {
        snprintf(wrong, sizeof wrong, "%s", index);
        char *found = strstr(wrong, change[i][0]);
        CHECK(found != NULL && strlen(change[i][0]) <= strlen(change[i][1]));
        if (found) memcpy(found, change[i][1], strlen(change[i][0]));
        put("shards/model.safetensors.index.json", 0, wrong, "", 0);
        GIVES(change[i][1], ttmm_model_read(&r, at("shards"), &err), TTMM_BAD_INPUT, change[i][2], "");
    }
}

/* An adapter comes back as it was, under PEFT's names. PEFT's own config is read; one that would change the result, or
 * that does not fit the tensors, is refused. */
static void lora_folder(void)
{
    const char peft[] = "{'alpha_pattern': {}, 'auto_mapping': null, 'bias': 'all', 'fan_in_fan_out': true, "
                        "'layers_to_transform': null, 'lora_alpha': 16, 'lora_bias': false, 'lora_dropout': 0.0, "
                        "'peft_type': 'LORA', 'r': 3, 'rank_pattern': {}, 'use_dora': false, 'use_rslora': false}";
    ttmm_lora r;
#define LONG \
    "(layers.0.self_attn.q_proj.or.layers.1.self_attn.q_proj.or.layers.2.self_attn.q_proj.or.layers.3.self_attn)"
    has("adapter_model.safetensors", "base_model.model.model.layers.0.self_attn.q_proj.lora_A [3,8]; "
                                     "base_model.model.model.layers.1.mlp.gate_proj.lora_B [6,3]; "
                                     "base_model.model.model.layers.2.mlp.down_proj.lora_A [3,6]");
    has("adapter_config.json", "'peft_type': 'LORA'; 'r': 3; 'lora_alpha': 12.5; 'use_dora': false; 'bias': 'none'; "
                               "'q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'");
    if (!DONE(ttmm_lora_read(&r, &tiny, FOLDER, &err))) return;
    CHECK(r.alpha == 12.5 && r.n == lora.n && memcmp(r.data, lora.data, r.n * sizeof(real)) == 0);
    for (int i = 0; i < 21; i++) CHECK(r.matrix[i].rank == 3 && r.matrix[i].scale == (real)(12.5 / 3));
    ttmm_lora_free(&r);
    refuses("adapter_config.json", "adapter_config.json", peft,
            "dora': false|dora': true|use_dora; 'bias': 'all'|'bias': true|bias; "
            "'r': 3, ||r ; : 3|: 0|r ; : 3|: -3|r ; : 3|: 3.5|r ; : 3|: '3'|r ; : 3|: 5000|r ; : 16|: 1e|; "
            "'lora_alpha': 16, ||lora_alpha; : 16|: '16'|lora_alpha; : 16|: 1e999|lora_alpha; "
            "alpha_pattern': {}|alpha_pattern': {'.*q_proj': 32}|.*q_proj; alpha_pattern': {}|alpha_pattern': "
            "[1]|alpha_pattern; "
            "alpha_pattern': {}|alpha_pattern': {'" LONG LONG LONG LONG "': 32}|not supported; "
            "rank_pattern': {}|rank_pattern': 3|rank_pattern; rslora': false|rslora': 1|use_rslora; "
            "alpha_pattern': {}|alpha_pattern': {'q_proj': '32'}|q_proj; : 3|: 2|r is 2, but "
            "model.layers.0.self_attn.q_proj");
    refuses_numbers("adapter_model.safetensors", "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight; "
                                                 "base_model.model.model.layers.2.mlp.down_proj.lora_B.weight; "
                                                 "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight 4 nan");
}

/* Another's adapter: only two matrices, of different ranks, with alphas of their own, in proportion to the root. */
static void lora_of_parts(void)
{
    const char *config = "{'r': 2, 'rank_pattern': {'up_proj': 1}, 'lora_alpha': 6, 'use_rslora': true, "
                         "'target_modules': ['q_proj', 'mlp.up_proj'], "
                         "'alpha_pattern': {'proj': 1, 'layers.1.self_attn.q_proj': 8, 'q_proj': 3}}";
    real x[64];
    const ttmm_array part[] = {{"base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", 2, 8, x, NULL},
                               {"base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight", 8, 2, x + 16, NULL},
                               {"base_model.model.model.layers.2.mlp.up_proj.lora_A.weight", 1, 8, x + 32, NULL},
                               {"base_model.model.model.layers.2.mlp.up_proj.lora_B.weight", 6, 1, x + 40, NULL},
                               {"base_model.model.model.embed_tokens.lora_embedding_A", 2, 2, x, NULL}};
    const ttmm_config *c = &tiny;
    const size_t heads = (size_t)c->n_heads * (size_t)c->head_dim;
    ttmm_array own[5];
    ttmm_lora r;
    memcpy(own, part, sizeof own);
    own[0].cols = (size_t)c->dim, own[1].rows = heads, own[2].cols = (size_t)c->dim,
    own[3].rows = (size_t)c->intermediate;
    test_fill(x, 64, "parts", 0);
    put("adapter_config.json", 0, config, "", 0);
    DONE(ttmm_arrays_write(own, 4, at("adapter_model.safetensors"), "", &err));
    if (!DONE(ttmm_lora_read(&r, c, FOLDER, &err))) return;
    for (int i = 0; i < 21; i++) CHECK_EQUAL(r.matrix[i].rank, i == 7 + TTMM_Q ? 2 : i == 14 + TTMM_UP ? 1 : 0);
    CHECK_EQUAL(ttmm_lora_rank(&r), 2);
    CHECK_RELATIVE(r.matrix[7 + TTMM_Q].scale, 8 / sqrt(2), 1e-7, 0), CHECK_EQUAL(r.matrix[14 + TTMM_UP].scale, 6);
    CHECK(memcmp(r.matrix[7 + TTMM_Q].b, own[1].data, heads * 2 * sizeof(real)) == 0);
    CHECK(memcmp(r.matrix[14 + TTMM_UP].a, own[2].data, own[2].cols * sizeof(real)) == 0);
    GIVES("to write", ttmm_lora_write(&r, FOLDER, "", &err), TTMM_BAD_USE, "different ranks", "");
    ttmm_lora_free(&r);
    DONE(ttmm_arrays_write(own, 5, at("adapter_model.safetensors"), "",
                           &err)); /* an embedding's adapter is none of these */
    GIVES("embedding", ttmm_lora_read(&r, c, FOLDER, &err), TTMM_BAD_INPUT, "lora_embedding_A", "");
    own[3].cols = 2, own[3].rows = 3; /* the halves disagree */
    DONE(ttmm_arrays_write(own, 4, at("adapter_model.safetensors"), "", &err));
    GIVES("halves", ttmm_lora_read(&r, c, FOLDER, &err), TTMM_BAD_INPUT, "up_proj.lora_B", "");
    DONE(ttmm_arrays_write(own, 3, at("adapter_model.safetensors"), "", &err)); /* a half is missing */
    GIVES("half", ttmm_lora_read(&r, c, FOLDER, &err), TTMM_BAD_INPUT, "up_proj.lora_B", "");
    DONE(ttmm_lora_write(&lora, FOLDER, "", &err));
    if (!DONE(ttmm_lora_read(&r, c, FOLDER, &err))) return; /* one scale, but another than alpha / rank: rsLoRA's */
    for (int i = 0; i < 21; i++) r.matrix[i].scale *= (real)sqrt(2);
    GIVES("to write", ttmm_lora_write(&r, FOLDER, "", &err), TTMM_BAD_USE, "scales other than alpha", "");
    ttmm_lora_free(&r);
}

/* Texts, with built-in, outside or no embeddings, clustered or not, come back as they were. One number out of place, or
 * a tensor missing, is refused by the tensor's name. */
static void corpus_folder(void)
{
    ttmm_corpus *c = &corpus, r;
    const size_t n = c->n_sequences, m = c->n_documents;
#define SAME(field, count) (memcmp(r.field, c->field, (count) * sizeof *r.field) == 0)
    for (int i = 0; i < 4; i++) {
        if (i == 1) DONE(ttmm_corpus_embed(c, NULL, &err));
        if (i == 3) DONE(ttmm_corpus_set_embeddings(c, model.data, 5, &err));
        c->clustered = i > 1;
        for (size_t k = 0; k < n; k++) c->cluster[k] = i > 1 ? (int)(k % 3) : 0;
        DONE(writes("corpus.safetensors"));
        if (!DONE(ttmm_corpus_read(&r, FOLDER, TTMM_BYTES, &err))) return;
        CHECK(r.n_tokens == 100 && r.n_documents == 4 && r.n_files == 2 && r.n_sequences == 8); /* as needed below */
        CHECK(strcmp(r.file[0], "one") == 0 && strcmp(r.file[1], "two.part") == 0);
        CHECK(SAME(token, r.n_tokens) && SAME(document, m + 1) && SAME(document_file, m) && SAME(sequence, n + 1));
        CHECK(SAME(sequence_document, n) && SAME(cluster, n) && r.clustered == (i > 1));
        CHECK(r.dim == (size_t)(i == 0 ? 0 : i == 3 ? 5 : TTMM_EMBED_DIM) && (r.idf != NULL) == (i == 1 || i == 2));
        CHECK(i == 0 || (SAME(embedding, n * r.dim) && (!r.idf || SAME(idf, r.dim))));
        ttmm_corpus_free(&r);
    }
    refuses_numbers("corpus.safetensors",
                    "document_offsets 0 1; document_offsets 3 5; document_offsets 1 0; document_offsets 4 101; "
                    "document_offsets 4 99; document_offsets 1 18446744073709551615; sequence_offsets 0 1; "
                    "sequence_offsets 1 0; sequence_offsets 1 4611686018427387904; sequence_offsets 2 200; "
                    "sequence_offsets 8 101; sequence_offsets 8 99; tokens 0 4294967295; tokens 5 257; "
                    "tokens 99 2147483647; document_file 0 4294967295; document_file 3 2; sequence_document 7 4; "
                    "sequence_document 0 4294967295; cluster 0 4294967295; cluster 1 8; file_names 12 120; "
                    "embeddings 7 nan; tokens; document_offsets; sequence_offsets; document_file; sequence_document; "
                    "file_names");
    REFUSED(ttmm_corpus_read(&r, FOLDER, 'a', &err), at("corpus.safetensors"), "tokens");
    contents *file = get("corpus.safetensors"); /* of a type that is not known the shape may be anything */
    char *type = strstr(file->at + 8, "\"I32\"");
    CHECK(type != NULL);
    if (type) memcpy(type, "\"F99\"", 5);
    put("corpus.safetensors", 0, "", file->at, file->n);
    REFUSED(ttmm_corpus_read(&r, FOLDER, TTMM_BYTES, &err), at("corpus.safetensors"), "tokens");
    DONE(writes("corpus.safetensors"));
}

/* Good files with a byte changed, or cut: read, or refused with a sentence. Half of the places are in the header. */
static void noise(void)
{
    const char *list = "model.safetensors; config.json; adapter_model.safetensors; adapter_config.json; "
                       "corpus.safetensors";
    static contents good, bad;
    for (char file[500]; next(&list, file);) {
        uint64_t rounds = strstr(file, "model.safetensors") == file ? 3000 : 600, accepted = 0;
        good = *get(file);
        const size_t header = 8 + (unsigned char)good.at[0] + 256u * (unsigned char)good.at[1];
        for (uint64_t k = 0; k < rounds; k++) {
            ttmm_rng g = ttmm_stream(1, file, k);
            const size_t place = (size_t)ttmm_below(&g, k % 2 && header < good.n ? header : good.n);
            memcpy(bad.at, good.at, bad.n = good.n);
            if (k % 3 == 0) bad.n = place;
            else if (k % 3 == 1) bad.at[place] = (char)(bad.at[place] ^ (int)(1 + ttmm_below(&g, 255)));
            else bad.at[place] = "0123456789-.,:[]{}\" "[ttmm_below(&g, 20)];
            put(file, 0, "", bad.at, bad.n);
            err.code = 1, err.text[0] = 0;
            int code = reads(file);
            CHECK(code == TTMM_OK || (code == err.code && code < 0 && err.text[0]));
            accepted += code == TTMM_OK;
        }
        CHECK(accepted > 0 && accepted < rounds);
        DONE(writes(file)), DONE(reads(file));
    }
}

/* A resumed run ends with the same bits as one in one go; a checkpoint that is refused leaves the trainer as it was. */
static void checkpoints(void)
{
    static contents whole;
    ttmm_model m[3];
    ttmm_trainer *t[3]; /* one that writes the checkpoint, one that resumes from it, one that is refused it */
    double loss;
    long all;
    size_t tokens, seen;
    for (int i = 0; i < 3; i++) {
        DONE(ttmm_model_copy(&m[i], &model, &err));
        DONE(ttmm_trainer_new(&t[i], &m[i], NULL, &corpus, &recipe, &err));
        ttmm_trainer_start(t[i], NULL, 0, 6, 0, 0);
    }
    CHECK_EQUAL(ttmm_trainer_load(t[1], at("none"), "settings", &err), 0);
    while (ttmm_trainer_at(t[0], &all, &tokens) < 3) ttmm_trainer_step(t[0], &loss);
    DONE(ttmm_trainer_save(t[0], at("x"), "settings", &err));
    CHECK_EQUAL(ttmm_trainer_load(t[1], at("x"), "settings", &err), 1);
    CHECK(ttmm_trainer_at(t[1], &all, &seen) == 3 && all == 6 && seen == tokens);
    REFUSED(ttmm_trainer_load(t[2], at("x"), "others", &err), at("x"), "others");
    whole = *get("x");
    for (size_t n = 0; n < whole.n; n += 1 + whole.n / 50) {
        put("x", 0, "", whole.at, n);
        REFUSED(ttmm_trainer_load(t[2], at("x"), "settings", &err), at("x"), "");
    }
    t[0]->moment2[5] = (real)NAN;
    DONE(ttmm_trainer_save(t[0], at("x"), "settings", &err));
    REFUSED(ttmm_trainer_load(t[2], at("x"), "settings", &err), at("x"), "second_moments");
    t[0]->moment2[5] = t[1]->moment2[5];
    for (int i = 0; i < 3; i++) {
        while (ttmm_trainer_step(t[i], &loss)) continue;
        CHECK(memcmp(m[0].data, m[i].data, m[0].n * sizeof(real)) == 0);
    }
    for (int i = 0; i < 3; i++) ttmm_trainer_free(t[i]), ttmm_model_free(&m[i]);
}

/* A note is any text without quotes, settings are any text; both come back, however long. */
static void notes(void)
{
    static char longest[1500], note[2000];
    const char *text[7] = {"", "lr 0.003", "caf\xc3\xa9", "C:\\texts\\", "two\nlines", longest, "it is \"quoted\""};
    memset(longest, 'x', sizeof longest - 1);
    for (int i = 0; i < 7; i++) {
        DONE(ttmm_trainer_save(trainer, at("x"), text[i], &err));
        CHECK(DONE(ttmm_note(note, sizeof note, at("x"), &err)) && strcmp(note, text[i]) == 0);
        GIVES(text[i], ttmm_trainer_load(trainer, at("x"), text[i], &err), 1, "", "");
    }
    CHECK(DONE(ttmm_note(note, 4, at("x"), &err)) && strcmp(note, "it ") == 0); /* cut to what there is room for */
    put("x", 2, "{}", "", 0);
    CHECK(DONE(ttmm_note(note, sizeof note, at("x"), &err)) && strcmp(note, "") == 0);
    CHECK(ttmm_exists(FOLDER, "x") && ttmm_remove(FOLDER, "x") && !ttmm_exists(FOLDER, "x"));
    REFUSED(ttmm_note(note, sizeof note, at("x"), &err), at("x"), "");
}

/* What cannot be written is named; the old file stays as it was, no temporary one is left, a stale one no obstacle.
 * Folders are made with those above them. */
static void writing(void)
{
    const char *list = "config.json; tokenizer.json; model.safetensors; adapter_config.json; corpus.safetensors; "
                       "adapter_model.safetensors; checkpoint";
    for (char file[500], temporary[510], inside[510]; next(&list, file);) {
        snprintf(temporary, sizeof temporary, "%s.tmp", file);
        snprintf(inside, sizeof inside, "%s/inside", file);
        put(file, 0, "old", "", 0);
#if !defined(_WIN32) && !defined(__wasi__)
        char device[600]; /* a full disk of our own; only root can make one */
        snprintf(device, sizeof device, "mknod -m 666 '%s' c 1 7 2>&-", at(temporary));
        if (system(device) == 0) {
            GIVES(file, writes(file), TTMM_NO_ROOM, at(file), strerror(ENOSPC));
            CHECK(strcmp(get(file)->at, "old") == 0 && !ttmm_exists(FOLDER, temporary));
        }
#endif
        put(temporary, 0, "left by a crash", model.data, 5000 * sizeof(real));
        CHECK(DONE(writes(file)) && get(file)->n > 9 && strstr(get(file)->at, "crash") == NULL);
        CHECK(!ttmm_exists(FOLDER, temporary) && ttmm_remove(FOLDER, file));
        DONE(ttmm_make_folder(at(file), &err)), put(inside, 0, "old", "", 0); /* a folder is in the way */
        GIVES(file, writes(file), TTMM_NO_ROOM, at(file), "");
        CHECK(strcmp(get(inside)->at, "old") == 0 && !ttmm_exists(FOLDER, temporary));
        CHECK(ttmm_remove(FOLDER, inside) && ttmm_remove(FOLDER, file));
        DONE(writes(file));
    }
    const ttmm_array one = {"x", 1, 1, lora.data, NULL};
    put("file", 0, "old", "", 0);
    DONE(ttmm_make_folder(at("b/c/d"), &err)), DONE(ttmm_make_folder(at("b/c/d/"), &err));
    GIVES("in a file", ttmm_make_folder(at("file/a/b"), &err), TTMM_NO_ROOM, at("file/a/b"), "");
    GIVES("a file", ttmm_make_folder(at("file"), &err), TTMM_NO_ROOM, at("file"), "");
    GIVES("model", ttmm_model_write(&model, at("file/a"), TTMM_REAL, "", &err), TTMM_NO_ROOM, at("file/a"), "");
    GIVES("array", ttmm_arrays_write(&one, 1, at("none/x"), "", &err), TTMM_NO_ROOM, at("none/x"), "");
    CHECK(strcmp(get("file")->at, "old") == 0);
}

/* Names in any script, and a path longer than Windows' 260 characters, of which a folder may have 248. A file that
 * another program holds open can be replaced, or the sentence says that this is why not. */
static void names(void)
{
    char deep[500] = "größe ☃ 日本 😀", file[600];
    for (int i = 0; i < 4; i++) snprintf(deep + strlen(deep), 110, "/%0100d", i);
    snprintf(file, sizeof file, "%s/x", deep);
    const ttmm_array one = {"x", 1, 1, lora.data, NULL};
    DONE(ttmm_make_folder(at(deep), &err)), CHECK(is_folder(at(deep)) && !ttmm_exists(FOLDER, file));
    DONE(ttmm_arrays_write(&one, 1, at(file), "", &err)), CHECK(ttmm_exists(FOLDER, file));
    FILE *f = ttmm_open(at(file), "rb"), *none = ttmm_open(at("\xff"), "rb");
    const int code = ttmm_arrays_write(&one, 1, at(file), "", &err);
    CHECK(none == NULL && f && (code == TTMM_OK || strstr(err.text, "another program holds it open")));
    if (f) fclose(f);
    DONE(ttmm_arrays_write(&one, 1, at(file), "", &err));
#ifdef _WIN32 /* wine takes long paths as they are */
    wchar_t wide[WIDE_PATH];
    CHECK(wcscmp(wide_path(wide, "a/b"), L"a/b") == 0 && wide_path(wide, "\xff")[0] == 0);
    CHECK(wcsncmp(wide_path(wide, at(file)), L"\\\\?\\", 4) == 0 && wcschr(wide_path(wide, at(file)), '/') == NULL);
    snprintf(deep, sizeof deep, "//server/share/%0300d", 1);
    CHECK(wcsncmp(wide_path(wide, deep), L"\\\\?\\UNC\\server\\share\\0", 21) == 0 &&
          wcslen(wide_path(wide, deep)) == 321);
#endif
    for (char *slash = file; slash; *(slash ? slash : file) = 0) /* from the inside out */
        CHECK(ttmm_remove(FOLDER, file)), slash = strrchr(file, '/');
}

static int count, quiet;
static long steps;
static double rate;
static const char *name, *text_file, *how = "usual", *rest[20];
static size_t n_rest, items;

static int parse(const char *line) /* the arguments of go, with | between them */
{
    static const ttmm_option table[] = {{"count", 'i', &count, -5, 1e5, " go run ", ""},
                                        {"steps", 'l', &steps, 0, 1e9, " go ", ""},
                                        {"rate", 'f', &rate, 0, 10, " forgo go ", ""},
                                        {"quiet", 'b', &quiet, 0, 1, " run go ", ""},
                                        {"output", 'o', &name, 0, 0, " go ", ""},
                                        {"only", 'i', &count, 0, 9, " forgo ", ""},
                                        {"items", 'n', &items, 1, 1e9, " go ", ""},
                                        {"text", 's', &text_file, 0, 0, " go ", ""},
                                        {"how", 'w', &how, 0, 0, " go ", ""}};
    static char text[600];
    static const ttmm_verb verbs[] = {{"go", "THING...", "", 0, 10}, {"run", "", "", 0, 0}, {"forgo", "", "", 1, 2}};
    static const ttmm_program program = {"test", verbs, 3, table, 9};
    char *argument[22] = {"test", "go", text};
    size_t verb;
    int n = 3;
    name = text_file = NULL, how = "usual";
    snprintf(text, sizeof text, "%s", line);
    for (char *p = text; *p; p++)
        if (*p == '|') *p = 0, argument[n++] = p + 1;
    int code = ttmm_command(&verb, rest, &n_rest, &program, n, argument, &err);
    CHECK_EQUAL(verb, 0);
    return code;
}

/* Numbers as they are written and read (with a comma in the locale: test/hosts/locale.c): in the fewest digits that
 * read back, whole, no longer than the longest double. */
static void numbers_in_text(void)
{
    const char *good =
        "0; 0.1; 1e-05; 1.5e-05; 1e+01; 12345.5; -0.25; 0.3333333333333333; 5e-324; 1.7976931348623157e+308";
    const char *bad = ".; -; 1,5; 1.5.5; 0x10; 1e999; nan; inf; 1 2; 1e; 1-";
    char text[32], longest[1102] = "0.";
    double x;
    for (char item[500]; next(&good, item);) {
        CHECK(read_number(&x, item, strlen(item)) && x == strtod(item, NULL));
        CHECK(strcmp(shortest(text, x), item) == 0);
    }
    for (char item[500]; next(&bad, item);) CHECK(!read_number(&x, item, strlen(item)));
    CHECK(read_number(&x, "1.25,", 3) && x == 1.2 && !read_number(&x, "1", 0));
    memset(longest + 2, '0', 1099);
    longest[325] = '7';
    CHECK(read_number(&x, longest, 1100) && x == 0x1p-1074 && !read_number(&x, longest, 1101)); /* 7e-324 */
}

/* Options stand anywhere, with = or apart; a number is read whole and in range or refused, by the option's name. */
static void options(void)
{
    const char *list =
        "--count|1x; --count|; --count=; --count|1e3; --count|1.5; --count|-6; --count|100001; --count|nan; "
        "--count=3x; --count|99999999999999999999; --count; --counts|3; --coun|3; -count|3; --rate|x; --rate|nan; "
        "--rate|inf; --rate|10.5; --rate|1e999; --rate|1e-999; --rate|-1e-9; --rate|0,5; --rate| 1; --rate|0x1p-3; "
        "--steps|1e10; --steps|1.5; --items|0; --items|-1; "
        "--quiet=1; --quiet=; "
        "--only|3; -o; --output; --nothing; --nothing=3; -x";
    for (char line[500], option[20]; next(&list, line);) {
        snprintf(option, sizeof option, "%.*s", (int)strcspn(line, "|="), line);
        GIVES(line, parse(line), TTMM_BAD_USE, option, "");
    }
    CHECK(count == 0 && quiet == 0 && steps == 0 && rate == 0 && items == 0 && name == NULL);
    DONE(parse("a|--count=-5|b|--rate|2.5e-1|--steps|1000000000|--items|7|-|-o|f|--quiet|--|--count|-x|--"));
    CHECK(count == -5 && rate == 0.25 && steps == 1000000000 && items == 7 && quiet == 1);
    CHECK(strcmp(name, "f") == 0 && n_rest == 6);
    CHECK(!strcmp(rest[1], "b") && !strcmp(rest[2], "-") && !strcmp(rest[3], "--count") && !strcmp(rest[5], "--"));
    CHECK_EQUAL(parse("a|--count|3|-h"), 1), CHECK_EQUAL(parse("--|-h"), TTMM_OK), CHECK_EQUAL(parse("-o|-h"), TTMM_OK);
    GIVES("eleven", parse("1|2|3|4|5|6|7|8|9|10|11"), TTMM_BAD_USE, "11", "THING...");
    GIVES("no value", parse("--output="), TTMM_BAD_USE, "--output is empty", "");
    GIVES("an empty folder", parse("|a"), TTMM_BAD_USE, "first argument is empty", "THING...");
    CHECK(DONE(parse("a|")) && n_rest == 2 && strcmp(rest[1], "") == 0); /* a prompt, say */
    GIVES("a text, too", parse("a|--text|f|-o|f"), TTMM_BAD_USE, "--output is f, which the command line names twice",
          "");
    GIVES("a file, too", parse("ttmm.h|-o|ttmm.h"), TTMM_BAD_USE, "--output is ttmm.h", "");
    DONE(parse("no file|-o|no file")), DONE(parse("a|--how|f|-o|f")), DONE(parse("a|-o|usual"));
}

/* Whichever dimensions are at their limit: sizes are true or as large as can be, and what is too large is not made. */
static void sizes(void)
{
    const int limit[7] = {1 << 20, 1 << 16, 1 << 16, 1 << 16, 1 << 16, 1 << 24, 1 << 28};
    const ttmm_pass_size large = {1 << 20, 1, 0, 1, 0, 1, 0, 0}, largest = {SIZE_MAX / 2, 1, 0, 1, 4, 1, 0, 0};
    const double most = (double)SIZE_MAX;
    ttmm_recipe r = recipe;
    ttmm_trainer *t;
    for (int which = 0; which < 128; which++) {
        ttmm_config c = tiny;
        int *const field[7] = {&c.dim, &c.n_layers, &c.n_heads, &c.n_kv_heads, &c.head_dim, &c.intermediate, &c.vocab};
        for (int i = 0; i < 7; i++) *field[i] = which >> i & 1 ? limit[i] : *field[i];
        c.n_kv_heads = c.n_heads % c.n_kv_heads ? c.n_heads : c.n_kv_heads;
        const double D = c.dim, F = c.intermediate, V = c.vocab, H = 2.0 * (c.n_heads + c.n_kv_heads) * c.head_dim;
        const double n = c.n_layers * D * (H + 3 * F + 2) + (2 * V + 1) * D, pass = 3 * F * 0x1p20 * sizeof(real);
        ttmm_model m;
        ttmm_pass *p;
        CHECK_RELATIVE(ttmm_n_weights(&c), n < most ? n : most, 1e-12, 1);
        CHECK((double)ttmm_pass_bytes(&c, &large) >= (pass < most ? pass : most));
        GIVES("pass", ttmm_pass_new(&p, &c, &largest, &err), TTMM_NO_ROOM, "memory", "");
        if (n > most) GIVES("model", ttmm_model_new(&m, &c, &err), TTMM_NO_ROOM, "memory", "");
    }
    r.batch = SIZE_MAX / 2;
    GIVES("trainer", ttmm_trainer_new(&t, &model, NULL, &corpus, &r, &err), TTMM_NO_ROOM, "memory", "");
}

static void count_unknown(void *n, const ttmm_difference *d) { *(size_t *)n += d->verdict == TTMM_UNKNOWN; }

static void make_longer(const char *file, uint64_t at_byte, const char *bytes,
                        size_t n) /* by zeros, which take no room */
{
    FILE *f = fopen(at(file), "r+b");
    CHECK(f && seek_file(f, at_byte, SEEK_SET) == 0 && fwrite(bytes, 1, n, f) == n);
    if (f) CHECK(fclose(f) == 0);
}

/* Tensors of more numbers than 32 bits count are no hindrance to who does not read them; what lies behind them, at 21.7
 * GB, is found. Who does read them is told that there is no memory. */
static void beyond_32_bits(void)
{
#ifndef _WIN32 /* there the zeros would be written */
    const char header[] = "{'wide': {'dtype': 'U8', 'shape': [4500000000], 'data_offsets': [0, 4500000000]}, "
                          "'square': {'dtype': 'F32', 'shape': [65536, 65536], 'data_offsets': [4500000000, "
                          "21679869184]}, 'small': {'dtype': 'F32', 'shape': [2], 'data_offsets': [21679869184, "
                          "21679869192]}}";
    const char *path = at("huge.safetensors"), *const large[] = {"wide", "square"};
    size_t rows, cols, unknown = 0, failures;
    real *x;
    put("huge.safetensors", strlen(header), header, "", 0);
    make_longer("huge.safetensors", 8 + strlen(header) + 21679869184u, "\0\0\200\077\0\0\0\300", 8);
    if (DONE(ttmm_array_read(&x, &rows, &cols, path, "small", &err))) {
        CHECK(rows == 1 && cols == 2 && x[0] == 1 && x[1] == -2);
        free(x);
    }
    if (sizeof(size_t) == 4) {
        for (int i = 0; i < 2; i++)
            GIVES(large[i], ttmm_array_read(&x, &rows, &cols, path, large[i], &err), TTMM_NO_ROOM, "memory", "");
        DONE(ttmm_compare(path, path, 0, 0, 0, count_unknown, &unknown, &failures, &err));
        CHECK(unknown == 2 && failures == 2);
        for (uint64_t size = SIZE_MAX - 1; size <= (uint64_t)SIZE_MAX + 2; size++) { /* with its zero byte: 2^32 ... */
            ttmm_config c;
            put("config.json", 0, "{}", "", 0);
            make_longer("config.json", size - 1, "", 1);
            GIVES("config.json", ttmm_config_read(&c, FOLDER, &err), TTMM_NO_ROOM, "4096.0 MiB", "");
        }
    }
    remove(path), remove(at("config.json"));
#endif
}

/* Much of one thing takes no longer for each: what would take minutes, if every one were compared with every other,
 * takes a part of a second. */
static char *large, *large_end;
static void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    large_end += vsprintf(large_end, format, arguments);
    va_end(arguments);
}

static void put_large(const char *file, int header, size_t data)
{
    unsigned char first[8];
    FILE *f = fopen(at(file), "wb");
    little_endian(first, (uint64_t)(large_end - large), 8);
    CHECK(f && (!header || fwrite(first, 1, 8, f) == 8));
    CHECK(f && fwrite(large, 1, (size_t)(large_end - large), f) == (size_t)(large_end - large));
    for (size_t i = 0; f && i < data; i++) fputc(0, f);
    if (f) fclose(f);
    large_end = large;
}

static void many_keys(void) /* of one hash, if it is a polynomial in 31; and escapes */
{
    ttmm_config c;
    say("{");
    for (unsigned i = 0; i < 200000; i++, say("\": 0, ")) {
        say("\"");
        for (int bit = 0; bit < 18; bit++) say(i >> bit & 1 ? "Aa" : "BB");
    }
    say("\"");
    for (int i = 0; i < 1000000; i++) say("\\u0041");
    say("\": 0}"), put_large("config.json", 0, 0);
    REFUSED(ttmm_config_read(&c, FOLDER, &err), "model_type", "missing");
    say("{"); /* keys that belong in one place of the table */
    for (int i = 0, found = 0; found <= FARTHEST; i++) {
        char key[20];
        const size_t n = (size_t)sprintf(key, "%d", i), room = table_room(FARTHEST + 1);
        if (mix_bits(hash_bytes(n, key, n)) & (room - 1)) continue;
        say("%s\"%s\": 0", found++ ? ", " : "", key);
    }
    say("}"), put_large("config.json", 0, 0);
    REFUSED(ttmm_config_read(&c, FOLDER, &err), "too many keys like", "config.json");
    DONE(writes("config.json"));
}

static void many_marks(void)
{
    arena a = {0};
    unicode u;
    void *block;
    char *form;
    size_t n, length, wrong = 0;
    lay_out_unicode(&u, &a), DONE(allocate(&a, &block, "", &err)), lay_out_unicode(&u, &a);
    for (int i = 0; i < 400000; i++) say(i % 2 ? "\xcc\x81" : "\xcc\xa3"); /* above, of class 230, and below, 220 */
    normalise_text(&form, &n, &u, large, length = (size_t)(large_end - large));
    for (size_t i = 0; i < n; i++) wrong += form[i] != (i % 2 == 0 ? '\xcc' : i < n / 2 ? '\xa3' : '\x81');
    CHECK(n == length && wrong == 0);
    free(form), free(block), large_end = large;
}

/* Added tokens: with names that stand for no bytes, named again beside them, all beginning as the text does. */
static void many_tokens(void)
{
    ttmm_tokenizer *tok;
    int *token;
    size_t n;
    say("{\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": "
        "[]}, "
        "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"added_tokens\": [");
    for (int i = 0; i < 100000; i++) say("%s{\"content\": \"a %d\"}", i ? ", " : "", i);
    say("]}"), put_large("tokenizer.json", 0, 0);
    say("{\"added_tokens_decoder\": {");
    for (int i = 0; i < 100000; i++) say("%s\"%d\": {\"content\": \"a %d\"}", i ? ", " : "", i, i);
    say("}}"), put_large("tokenizer_config.json", 0, 0);
    remove(at("config.json"));
    if (!DONE(ttmm_tokenizer_read(&tok, FOLDER, &err))) return;
    CHECK_EQUAL(tok->n_added, 100000);
    for (int i = 0; i < 100000; i++) say("a");
    CHECK(DONE(ttmm_tokenize(&token, &n, tok, large, 100000, &err)) && n == 100000 && token[n - 1] == 0);
    large_end = large, ttmm_tokenizer_free(tok), free(token);
    DONE(writes("model")), remove(at("tokenizer_config.json"));
}

/* Two files that have a model's tensors in turn. */
static void many_tensors(void)
{
    ttmm_config c = {2, 2000, 1, 1, 2, 1, 2, 32, 0, 1e-5, 10000, 0, 0, 0, 0, 0, 0, 0, {0}, 0, 0};
    ttmm_model m;
    const size_t n = ttmm_n_tensors(&c);
    say("{\"weight_map\": {");
    for (size_t i = 0; i < n; i++) say("%s\"%s\": \"%zu\"", i ? ", " : "", ttmm_tensor_at(&c, i).name, i % 2);
    say("}}"), put_large("model.safetensors.index.json", 0, 0);
    for (size_t part = 0; part < 2; part++) {
        size_t from = 0, bytes;
        for (size_t i = part; i < n; i += 2, from += bytes) {
            const ttmm_tensor t = ttmm_tensor_at(&c, i);
            bytes = 2 * t.rows * t.cols;
            say("%s\"%s\": {\"dtype\": \"F16\", \"shape\": [%zu", from ? ", " : "{", t.name, t.rows);
            say(strstr(t.name, "norm") ? "" : ", %zu", t.cols);
            say("], \"data_offsets\": [%zu, %zu]}", from, from + bytes);
        }
        say("}"), put_large(part ? "1" : "0", 1, from);
    }
    say("{\"model_type\": \"llama\", \"hidden_size\": 2, \"num_hidden_layers\": 2000, \"num_attention_heads\": 1, "
        "\"num_key_value_heads\": 1, \"intermediate_size\": 1, \"vocab_size\": 2}");
    put_large("config.json", 0, 0), remove(at("model.safetensors"));
    if (DONE(ttmm_model_read(&m, FOLDER, &err))) ttmm_model_free(&m);
    remove(at("model.safetensors.index.json")), remove(at("0")), remove(at("1"));
    DONE(writes("model"));
}

static void many_dimensions(void)
{
    for (int n = 9; n < 1000000; n *= 300) {
        size_t unknown = 0, failures;
        say("{\"x\": {\"dtype\": \"F32\", \"data_offsets\": [0, 4], \"shape\": [1");
        for (int i = 1; i < n; i++) say(", 1");
        say("]}}"), put_large("x", 1, 4);
        DONE(ttmm_compare(at("x"), at("x"), 0, 0, 0, count_unknown, &unknown, &failures, &err));
        CHECK_EQUAL(unknown, 1), CHECK_EQUAL(failures, 1);
    }
    remove(at("x"));
}

static void linear(void)
{
    void (*const test[])(void) = {many_keys, many_marks, many_tokens, many_tensors, many_dimensions};
    if ((large = large_end = malloc(24000000)) == NULL) return;
    for (size_t i = 0; i < sizeof test / sizeof *test; i++) {
        const double began = ttmm_seconds();
        test[i]();
        CHECK(ttmm_seconds() - began < 20);
    }
    free(large);
}

int main(void)
{
    test_clear(FOLDER);
    const char *path[2] = {at("one.txt"), at("two.part.txt")};
    DONE(ttmm_make_folder(FOLDER, &err));
    put("one.txt", 0, "the longest, which is cut in three pieces\n<|endoftext|>\n2nd\n<|endoftext|>\na third\n", "", 0);
    put("two.part.txt", 0, "another file; its text is cut in three too", "", 0);
    DONE(ttmm_corpus_from_files(&corpus, NULL, path, 2, 16, &err));
    DONE(ttmm_model_new(&model, &tiny, &err)), ttmm_model_init(&model, 1);
    DONE(ttmm_lora_new(&lora, &tiny, 3, 12.5, &err)), test_fill(lora.data, lora.n, "adapter", 0);
    DONE(ttmm_trainer_new(&trainer, &model, &lora, &corpus, &recipe, &err));
    DONE(writes("model")), DONE(writes("adapter")), DONE(writes("corpus"));
    RUN(json_valid), RUN(json_malformed), RUN(keys_twice), RUN(tensors_by_hand), RUN(tensors_of_many),
        RUN(tensors_round_trip), RUN(tensors_of_halves);
    RUN(tensors_of_floats), RUN(tensors_malformed), RUN(tensors_gaps), RUN(tensors_not_needed), RUN(model_round_trip),
        RUN(model_format), RUN(config_defaults);
    RUN(model_refused), RUN(model_in_shards), RUN(lora_folder), RUN(lora_of_parts), RUN(corpus_folder), RUN(noise),
        RUN(checkpoints), RUN(notes), RUN(writing), RUN(names);
    RUN(numbers_in_text), RUN(options), RUN(sizes), RUN(beyond_32_bits), RUN(linear);
    ttmm_trainer_free(trainer), ttmm_corpus_free(&corpus), ttmm_lora_free(&lora), ttmm_model_free(&model);
    test_clear(FOLDER);
    return test_end("files");
}
