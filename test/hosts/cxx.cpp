// cxx.cpp - a host in C++: objects in its own kind of owner, callbacks that are lambdas. Prints the fingerprint of the
// logits (threads.c), decodes, and trains a step.
#include "../../ttmm.h"
#include <cinttypes>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

static void must(int code, const ttmm_error &err)
{
    if (code != TTMM_OK) throw std::runtime_error(err.text);
}

struct model : ttmm_model {
    model(const ttmm_config &c, ttmm_error &err) : ttmm_model()
    {
        must(ttmm_model_new(this, &c, &err), err);
        ttmm_model_init(this, 1);
    }
    model(const model &) = delete;
    ~model() { ttmm_model_free(this); }
};

int main()
try {
    const ttmm_config c = {64, 2, 4, 2, 16, 96, 257, 64, 1, 1e-5, 1e4, 0, 0, 0, 0, 0, 0, 0, {0}, 0, 0};
    const ttmm_pass_size size = {64, 1, 0, 64, 0, 0, 0, 0};
    ttmm_error err;
    const model m(c, err);
    ttmm_pass *made;
    std::vector<int> token, heard;
    for (int t = 0; t < 64; t++) token.push_back(7 * t % 257);
    must(ttmm_pass_new(&made, &c, &size, &err), err);
    const std::unique_ptr<ttmm_pass, void (*)(ttmm_pass *)> p(made, ttmm_pass_free);
    const size_t start[] = {0, token.size()};
    if (ttmm_forward(p.get(), &m, nullptr, token.data(), start, 1) != TTMM_OK) return 1;
    std::printf("%016" PRIx64 "\n", ttmm_hash(ttmm_logits(p.get(), &m, 0, 64), 64 * 257));

    ttmm_decoding d = {};
    d.tokens = 5, d.context = &heard;
    d.token = [](void *context, int t) { return static_cast<std::vector<int> *>(context)->push_back(t), 0; };
    size_t n;
    must(ttmm_decode(&n, &m, nullptr, TTMM_LOWRANK, token.data(), 9, &d, &err), err);
    if (n != 5 || heard.size() != 5) return 1;
    token.push_back(-1); // refused, and the exception frees what there is
    try {
        must(ttmm_decode(&n, &m, nullptr, TTMM_LOWRANK, &token.back(), 1, &d, &err), err);
        return 1;
    } catch (const std::runtime_error &e) {
        return std::string(e.what()).find("token") == std::string::npos;
    }
} catch (const std::exception &e) {
    return std::fprintf(stderr, "cxx.cpp: %s\n", e.what()), 1;
}
